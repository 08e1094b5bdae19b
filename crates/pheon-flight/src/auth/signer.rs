//! Signing what clients are handed and give back.

use std::fmt;

use ring::hmac::{HMAC_SHA256, Key, sign, verify};
use ring::rand::{SecureRandom, SystemRandom};

/// Bytes of a tag.
const TAG_BYTES: usize = 32;
/// Bytes that a key from a file has at least.
pub(crate) const KEY_BYTES_MIN: usize = 32;

/// HMAC-SHA256 under a key that is made when the server starts, or that several servers share.
#[derive(Clone)]
pub struct Signer {
    key: Key,
}

impl Signer {
    /// With a key that nobody else has. `None` if the system has no randomness to give.
    pub fn generate() -> Option<Self> {
        let mut key = [0; KEY_BYTES_MIN];
        SystemRandom::new().fill(&mut key).ok()?;
        Some(Self::new(&key))
    }

    /// With this key, so that several servers accept what each of them signed.
    pub fn new(key: &[u8]) -> Self {
        Self { key: Key::new(HMAC_SHA256, key) }
    }

    /// A signer of its own for each purpose: what one signs no other opens. A ticket must never pass for a bearer token.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> Self {
        Self { key: Key::new(HMAC_SHA256, sign(&self.key, purpose.as_bytes()).as_ref()) }
    }

    /// `payload` and its tag.
    pub fn sign(&self, payload: &[u8]) -> Vec<u8> {
        let tag = sign(&self.key, payload);
        let mut signed = Vec::with_capacity(payload.len() + TAG_BYTES);
        signed.extend_from_slice(payload);
        signed.extend_from_slice(tag.as_ref());
        signed
    }

    /// The payload, if the tag is right. Compares in constant time.
    pub fn open<'a>(&self, signed: &'a [u8]) -> Option<&'a [u8]> {
        let (payload, tag) = signed.split_at_checked(signed.len().checked_sub(TAG_BYTES)?)?;
        verify(&self.key, payload, tag).ok()?;
        Some(payload)
    }

    /// Whether two byte strings are equal, in a time that does not depend on where they differ.
    pub(super) fn equal(&self, a: &[u8], b: &[u8]) -> bool {
        verify(&self.key, b, sign(&self.key, a).as_ref()).is_ok()
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_what_it_signed_and_nothing_else() {
        let signer = Signer::generate().unwrap();
        let signed = signer.sign(b"prices@3");
        assert_eq!(signer.open(&signed), Some(&b"prices@3"[..]));
        for i in 0..signed.len() {
            let mut other = signed.clone();
            other[i] ^= 1;
            assert_eq!(signer.open(&other), None, "byte {i}");
        }
        for len in 0..signed.len() {
            assert_eq!(signer.open(&signed[..len]), None, "{len} bytes");
        }
        assert_eq!(signer.open(&signer.sign(b"")), Some(&b""[..]));
        assert_eq!(Signer::generate().unwrap().open(&signed), None, "another server's key");
    }

    #[test]
    fn shared_keys_and_purposes() {
        let (a, b) = (Signer::new(&[7; 32]), Signer::new(&[7; 32]));
        assert_eq!(b.open(&a.sign(b"x")), Some(&b"x"[..]));
        let (tickets, tokens) = (a.derive("ticket"), a.derive("token"));
        assert_eq!(b.derive("ticket").open(&tickets.sign(b"x")), Some(&b"x"[..]));
        assert_eq!(tokens.open(&tickets.sign(b"x")), None);
        assert_eq!(a.open(&tickets.sign(b"x")), None);
        assert_eq!(format!("{a:?}"), "Signer(..)");
    }
}
