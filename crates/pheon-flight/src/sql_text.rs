//! Statements as a log may have them.

/// A statement without the values that stand in it, which may be keys or worse: `?` for each literal, nothing for comments.
/// Names stay.
pub(crate) fn without_values(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let len = match first {
            // A name: as it is.
            '"' => {
                let len = quoted_len(rest, '"', false);
                out.push_str(&rest[..len]);
                len
            }
            '\'' => {
                // E'..' has escapes; its E is in the output already, and tells nothing.
                out.push('?');
                quoted_len(rest, '\'', sql[..sql.len() - rest.len()].ends_with(['e', 'E']))
            }
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest[2..].find("*/").map_or(rest.len(), |at| at + 4),
            '$' => match dollar_quoted_len(rest) {
                Some(len) => {
                    out.push('?');
                    len
                }
                None => {
                    let len = 1 + word_len(&rest[1..]);
                    out.push_str(&rest[..len]);
                    len
                }
            },
            c if c.is_ascii_digit() => {
                out.push('?');
                number_len(rest)
            }
            c if c.is_alphabetic() || c == '_' => {
                let len = word_len(rest);
                out.push_str(&rest[..len]);
                len
            }
            c => {
                out.push(c);
                c.len_utf8()
            }
        };
        rest = &rest[len..];
    }
    out
}

/// To the end of the quote, or of the text: what was cut may have no end.
fn quoted_len(text: &str, quote: char, escapes: bool) -> usize {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if escapes && c == '\\' {
            chars.next();
        } else if c == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
            return at + quote.len_utf8();
        }
    }
    text.len()
}

fn dollar_quoted_len(text: &str) -> Option<usize> {
    let tag = &text[..=1 + text[1..].find('$')?];
    let inner = &tag[1..tag.len() - 1];
    let is_tag =
        inner.chars().all(|c| c.is_alphanumeric() || c == '_') && !inner.starts_with(|c: char| c.is_ascii_digit());
    is_tag.then(|| text[tag.len()..].find(tag).map_or(text.len(), |at| at + 2 * tag.len()))
}

fn word_len(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
}

fn number_len(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '.').unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_gone_and_names_are_there() {
        for (sql, expected) in [
            ("select a1 from t where k = 'it''s' and n > 1.5e3", "select a1 from t where k = ? and n > ?"),
            ("select \"a'b\" from \"t@3\" -- secret\nlimit 5", "select \"a'b\" from \"t@3\" \nlimit ?"),
            ("select E'a\\'b' || $$x'y$$ || $t$z$$t$, $1", "select E? || ? || ?, $1"),
            ("/* secret */ select x'00ff', 'unfinished", " select x?, ?"),
            ("select 'größe', größe", "select ?, größe"),
            ("$", "$"),
        ] {
            assert_eq!(without_values(sql), expected, "{sql}");
        }
    }
}
