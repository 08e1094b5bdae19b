//! Who calls, and what he may do. No credentials are configured here: everybody may do everything.

use ring::hmac;
use ring::rand::SystemRandom;

/// Bytes of a signature.
const TAG_BYTES: usize = 32;

/// A caller.
#[derive(Debug, Clone)]
pub struct Principal {
    name: String,
}

impl Principal {
    /// Everybody, where no credentials are configured: all rights.
    pub fn everyone() -> Self {
        Self { name: "everyone".to_owned() }
    }

    /// Its name, for the audit log.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it may read a dataset, or the live map `live/NAME`.
    pub fn may_read(&self, _dataset: &str) -> bool {
        true
    }

    /// Whether it may change one.
    pub fn may_write(&self, _dataset: &str) -> bool {
        true
    }

    /// Whether it may remove and maintain one.
    pub fn may_admin(&self, _dataset: &str) -> bool {
        true
    }
}

/// Signs what clients are handed and give back.
#[derive(Debug)]
pub struct Signer {
    key: hmac::Key,
}

impl Signer {
    /// With a new key.
    pub fn generate() -> Option<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok()?;
        Some(Self { key })
    }

    /// The payload with its signature behind it.
    pub fn sign(&self, payload: &[u8]) -> Vec<u8> {
        [payload, hmac::sign(&self.key, payload).as_ref()].concat()
    }

    /// The payload, if the signature is ours.
    pub fn open<'a>(&self, signed: &'a [u8]) -> Option<&'a [u8]> {
        let (payload, tag) = signed.split_at_checked(signed.len().checked_sub(TAG_BYTES)?)?;
        hmac::verify(&self.key, payload, tag).is_ok().then_some(payload)
    }
}
