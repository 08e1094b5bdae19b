//! MessagePack values of Python (fields with `pheon.codec` = `msgpack`, docs/format.md section 3.1) as JSON text.

use std::fmt::Write;

/// Deeper values are shown as bytes.
const DEPTH_MAX: u32 = 128;
/// So are values with names of names deeper than this: each level escapes the quotes of those inside it once more, so the
/// text doubles with each.
const NAME_DEPTH_MAX: u32 = 4;

/// The value as JSON; `None` if the bytes are not exactly one MessagePack value. Bytes inside of it are shown as by
/// [`crate::cells::show_bytes`], floats that JSON does not know as null.
pub(crate) fn to_json(bytes: &[u8]) -> Option<String> {
    let mut reader = Reader { rest: bytes, out: String::new(), name_depth: 0 };
    reader.value(0)?;
    reader.rest.is_empty().then_some(reader.out)
}

struct Reader<'a> {
    rest: &'a [u8],
    out: String,
    /// In how many names, one in another, it is.
    name_depth: u32,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(head)
    }

    /// A big-endian unsigned integer of `len` bytes.
    fn uint(&mut self, len: usize) -> Option<u64> {
        Some(self.take(len)?.iter().fold(0, |n, b| n << 8 | u64::from(*b)))
    }

    fn len(&mut self, bytes: usize) -> Option<usize> {
        usize::try_from(self.uint(bytes)?).ok()
    }

    fn value(&mut self, depth: u32) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        let marker = self.take(1)?[0];
        match marker {
            0x00..=0x7F => self.print(marker),
            0xE0..=0xFF => self.print(marker.cast_signed()),
            0xC0 => self.out.push_str("null"),
            0xC2 => self.out.push_str("false"),
            0xC3 => self.out.push_str("true"),
            0xCA => {
                let value = f32::from_bits(self.uint(4)? as u32);
                self.float(value.is_finite(), &format!("{value:?}"));
            }
            0xCB => {
                let value = f64::from_bits(self.uint(8)?);
                self.float(value.is_finite(), &format!("{value:?}"));
            }
            0xCC..=0xCF => {
                let value = self.uint(1 << (marker - 0xCC))?;
                self.print(value);
            }
            0xD0..=0xD3 => {
                let len = 1 << (marker - 0xD0);
                // Shifted up and down again to extend the sign.
                let unused = 64 - 8 * len as u32;
                let value = (self.uint(len)? << unused).cast_signed() >> unused;
                self.print(value);
            }
            0xA0..=0xBF => self.text(usize::from(marker & 0x1F))?,
            0xD9..=0xDB => {
                let len = self.len(1 << (marker - 0xD9))?;
                self.text(len)?;
            }
            0xC4..=0xC6 => {
                let len = self.len(1 << (marker - 0xC4))?;
                let bytes = self.take(len)?;
                self.quote(&crate::cells::show_bytes(bytes));
            }
            0x90..=0x9F => self.array(usize::from(marker & 0x0F), depth)?,
            0xDC | 0xDD => {
                let len = self.len(2 << (marker - 0xDC))?;
                self.array(len, depth)?;
            }
            0x80..=0x8F => self.map(usize::from(marker & 0x0F), depth)?,
            0xDE | 0xDF => {
                let len = self.len(2 << (marker - 0xDE))?;
                self.map(len, depth)?;
            }
            // Extension types and the byte that is never used.
            0xC1 | 0xC7..=0xC9 | 0xD4..=0xD8 => return None,
        }
        Some(())
    }

    fn array(&mut self, len: usize, depth: u32) -> Option<()> {
        self.out.push('[');
        for i in 0..len {
            if i > 0 {
                self.out.push(',');
            }
            self.value(depth + 1)?;
        }
        self.out.push(']');
        Some(())
    }

    /// JSON knows only strings as names: other keys are shown as the text of their JSON.
    fn map(&mut self, len: usize, depth: u32) -> Option<()> {
        self.out.push('{');
        for i in 0..len {
            if i > 0 {
                self.out.push(',');
            }
            let start = self.out.len();
            self.name_depth += 1;
            if self.name_depth > NAME_DEPTH_MAX {
                return None;
            }
            self.value(depth + 1)?;
            self.name_depth -= 1;
            if !self.out[start..].starts_with('"') {
                let name = self.out.split_off(start);
                self.quote(&name);
            }
            self.out.push(':');
            self.value(depth + 1)?;
        }
        self.out.push('}');
        Some(())
    }

    fn text(&mut self, len: usize) -> Option<()> {
        let text = std::str::from_utf8(self.take(len)?).ok()?;
        self.quote(text);
        Some(())
    }

    fn float(&mut self, finite: bool, text: &str) {
        self.out.push_str(if finite { text } else { "null" });
    }

    fn print(&mut self, value: impl std::fmt::Display) {
        write!(self.out, "{value}").expect("writing to a string does not fail");
    }

    fn quote(&mut self, text: &str) {
        self.out.push_str(&serde_json::to_string(text).expect("a string always serialises"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        for (bytes, json) in [
            (&[0xC0][..], "null"),
            (&[0x93, 0x01, 0xFF, 0xC3], "[1,-1,true]"),
            (&[0xCD, 0x01, 0x00], "256"),
            (&[0xCF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], "18446744073709551615"),
            (&[0xD0, 0x80], "-128"),
            (&[0xD1, 0xFF, 0x00], "-256"),
            (&[0xD3, 0x80, 0, 0, 0, 0, 0, 0, 0], "-9223372036854775808"),
            (&[0xCB, 0x3F, 0xF8, 0, 0, 0, 0, 0, 0], "1.5"),
            (&[0xCA, 0x3D, 0xCC, 0xCC, 0xCD], "0.1"),
            (&[0xCB, 0x7F, 0xF8, 0, 0, 0, 0, 0, 0], "null"),
            (&[0xA2, b'"', b'x'], "\"\\\"x\""),
            (&[0xD9, 0x01, b'y'], "\"y\""),
            (&[0xC4, 0x02, 0x00, 0xFF], "\"0x00ff\""),
            (&[0xDC, 0x00, 0x01, 0x90], "[[]]"),
            (&[0x82, 0xA1, b'a', 0x01, 0x07, 0x80], "{\"a\":1,\"7\":{}}"),
            (&[0xDE, 0x00, 0x01, 0x01, 0x02], "{\"1\":2}"),
        ] {
            assert_eq!(to_json(bytes).as_deref(), Some(json), "{bytes:02x?}");
        }
    }

    #[test]
    fn names_of_names_do_not_grow_without_end() {
        let value = |depth: usize| [vec![0x81; depth], vec![0xA1, b'"'], vec![0xC0; depth]].concat();
        assert_eq!(to_json(&value(2)).as_deref(), Some(r#"{"{\"\\\"\":null}":null}"#));
        assert!(to_json(&value(4)).is_some());
        assert_eq!(to_json(&value(60)), None);
    }

    #[test]
    fn what_is_no_value() {
        let mut deep = vec![0x91; 1000];
        deep.push(0x01);
        for bytes in
            [&[][..], &[0xC1], &[0x92, 0x01], &[0x01, 0x02], &[0xA2, b'x'], &[0xA1, 0xFF], &[0xD4, 1, 1], &deep]
        {
            assert_eq!(to_json(bytes), None, "{bytes:02x?}");
        }
        assert_eq!(to_json(&[0xDD, 0xFF, 0xFF, 0xFF, 0xFF]), None, "a length without content allocates nothing");
    }
}
