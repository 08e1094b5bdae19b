//! The secrets of tokens, and what is kept of them.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use ring::rand::{SecureRandom, SystemRandom};

/// What a secret begins with, so that scanners of leaked secrets can find it.
const PREFIX: &str = "pheon_";
const SECRET_BYTES: usize = 32;

/// The secret of a token: 256 random bits. Printed once, when it is made.
pub struct Secret(String);

impl Secret {
    /// A new secret. `None` if the system has no randomness to give.
    pub fn generate() -> Option<Self> {
        let mut bytes = [0; SECRET_BYTES];
        SystemRandom::new().fill(&mut bytes).ok()?;
        Some(Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// The text that its holder sends. For the one place that prints it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    pub fn hash(&self) -> SecretHash {
        SecretHash::of(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// SHA-256 of a secret: all that is kept. Without a salt and with one round, which is enough for 256 random bits and for
/// nothing else: it does not protect passwords that people think up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretHash([u8; SHA256_OUTPUT_LEN]);

impl SecretHash {
    /// Of the text that its holder sends.
    pub fn of(secret: &str) -> Self {
        let mut bytes = [0; SHA256_OUTPUT_LEN];
        bytes.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
        Self(bytes)
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 2 * SHA256_OUTPUT_LEN || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; SHA256_OUTPUT_LEN];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// 64 hexadecimal digits.
    pub fn to_hex(self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_long_different_and_never_printed_by_accident() {
        let (a, b) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        assert_ne!(a.reveal(), b.reveal());
        assert_eq!(a.reveal().len(), PREFIX.len() + 43);
        assert_eq!(format!("{a:?} {:?}", a.hash()), "Secret(..) SecretHash(..)");
    }

    #[test]
    fn hashes() {
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(SecretHash::of("abc").to_hex(), abc);
        assert_eq!(SecretHash::from_hex(abc), Some(SecretHash::of("abc")));
        assert_eq!(SecretHash::from_hex(&abc.to_uppercase()), Some(SecretHash::of("abc")));
        for text in ["", "ab", &abc[1..], &abc.replace('a', "g"), &format!("{abc}00"), &format!("+1{}", &abc[2..])] {
            assert_eq!(SecretHash::from_hex(text), None, "{text}");
        }
    }
}
