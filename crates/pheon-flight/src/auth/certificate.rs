//! The name in a client's certificate.
//!
//! The certificate has been verified by rustls when it comes here; this only walks DER to the last common name of the
//! subject. Every length is checked, nothing is copied but the name.

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const VERSION: u8 = 0xA0;
const UTF8_STRING: u8 = 0x0C;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// The common name of a certificate's subject, the last if there are several.
pub fn common_name(certificate_der: &[u8]) -> Option<&str> {
    let (certificate, _) = element(certificate_der, SEQUENCE)?;
    let (mut rest, _) = element(certificate, SEQUENCE)?;
    if rest.first() == Some(&VERSION) {
        rest = skip(rest)?;
    }
    for _ in ["serial number", "signature algorithm", "issuer", "validity"] {
        rest = skip(rest)?;
    }
    let (mut names, _) = element(rest, SEQUENCE)?;
    let mut found = None;
    while !names.is_empty() {
        let (mut set, after) = element(names, SET)?;
        names = after;
        while !set.is_empty() {
            let (attribute, after) = element(set, SEQUENCE)?;
            set = after;
            let (oid, value) = element(attribute, OBJECT_IDENTIFIER)?;
            if oid == COMMON_NAME {
                let (tag, text, _) = any(value)?;
                if !matches!(tag, UTF8_STRING | PRINTABLE_STRING | IA5_STRING) {
                    return None;
                }
                found = Some(std::str::from_utf8(text).ok()?);
            }
        }
    }
    found
}

fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = any(bytes)?;
    (found == tag).then_some((content, rest))
}

fn skip(bytes: &[u8]) -> Option<&[u8]> {
    any(bytes).map(|(_, _, rest)| rest)
}

/// Tag, content, and what comes after.
fn any(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, bytes) = bytes.split_first()?;
    let (&first, mut bytes) = bytes.split_first()?;
    let mut len = usize::from(first);
    if first & 0x80 != 0 {
        let digits = usize::from(first & 0x7F);
        if !(1..=4).contains(&digits) {
            return None;
        }
        let (high_first, rest) = bytes.split_at_checked(digits)?;
        len = high_first.iter().fold(0, |len, &b| len << 8 | usize::from(b));
        bytes = rest;
    }
    let (content, rest) = bytes.split_at_checked(len)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn certificate(names: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["worker.invalid".into()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, name) in names {
            params.distinguished_name.push(kind.clone(), *name);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn finds_the_common_name() {
        let der = certificate(&[(DnType::OrganizationName, "Example"), (DnType::CommonName, "wörker-1")]);
        assert_eq!(common_name(&der), Some("wörker-1"));
        assert_eq!(common_name(&certificate(&[(DnType::OrganizationName, "Example")])), None);
        let long = "n".repeat(300);
        assert_eq!(common_name(&certificate(&[(DnType::CommonName, &long)])), Some(long.as_str()));
    }

    #[test]
    fn never_panics_on_damage() {
        let der = certificate(&[(DnType::CommonName, "worker-1")]);
        for len in 0..der.len() {
            assert_eq!(common_name(&der[..len]), None, "{len} bytes");
        }
        for i in 0..der.len() {
            for bit in 0..8 {
                let mut other = der.clone();
                other[i] ^= 1 << bit;
                let _ = common_name(&other);
            }
        }
    }
}
