//! Reading credentials out of headers and of the handshake's payload.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use prost::Message;

/// The header in which C++ Flight clients send back what the handshake's payload was answered with.
const PAYLOAD_TOKEN_HEADER: &str = "auth-token-bin";

/// `username` and `password` of Flight.proto's BasicAuth.
#[derive(Clone, PartialEq, Message)]
struct BasicAuth {
    #[prost(string, tag = "2")]
    username: String,
    #[prost(string, tag = "3")]
    password: String,
}

/// A name and a secret.
pub(super) struct NameAndSecret {
    pub(super) name: String,
    pub(super) secret: String,
}

/// `authorization: Basic` as RFC 7617 has it; also without padding, as Go's Flight clients send it.
pub(super) fn basic(headers: &HeaderMap) -> Option<NameAndSecret> {
    let encoded = scheme(headers, "basic")?;
    let text = String::from_utf8(STANDARD_NO_PAD.decode(encoded.trim().trim_end_matches('=')).ok()?).ok()?;
    let (name, secret) = text.split_once(':')?;
    Some(NameAndSecret { name: name.to_owned(), secret: secret.to_owned() })
}

/// The payload of a handshake: a BasicAuth.
pub(super) fn payload(bytes: &[u8]) -> Option<NameAndSecret> {
    let message = BasicAuth::decode(bytes).ok()?;
    (!message.username.is_empty()).then_some(NameAndSecret { name: message.username, secret: message.password })
}

/// `authorization: Bearer`, or what stands in its place.
pub(super) fn bearer(headers: &HeaderMap) -> Option<String> {
    if let Some(token) = scheme(headers, "bearer") {
        return Some(token.trim().to_owned());
    }
    let encoded = headers.get(PAYLOAD_TOKEN_HEADER)?.to_str().ok()?;
    // gRPC leaves the padding of binary headers out, or not.
    let bytes = STANDARD_NO_PAD.decode(encoded.trim_end_matches('=')).ok()?;
    String::from_utf8(bytes).ok()
}

/// Whether the request claims to be somebody at all.
pub(super) fn has_credentials(headers: &HeaderMap) -> bool {
    headers.contains_key(AUTHORIZATION) || headers.contains_key(PAYLOAD_TOKEN_HEADER)
}

fn scheme<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None; // Which of them would count?
    }
    let (scheme, rest) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case(wanted).then_some(rest)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        headers
    }

    #[test]
    fn basic_headers() {
        // RFC 7617, section 2.
        let found = basic(&headers("authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")).unwrap();
        assert_eq!((found.name.as_str(), found.secret.as_str()), ("Aladdin", "open sesame"));
        assert!(basic(&headers("authorization", "basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")).is_some());
        assert!(basic(&headers("authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ")).is_some());
        for value in ["Basic", "Basic !!!", "Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Basic QWxhZGRpbg==", ""] {
            assert!(basic(&headers("authorization", value)).is_none(), "{value}");
        }
    }

    #[test]
    fn bearer_headers() {
        assert_eq!(bearer(&headers("authorization", "Bearer abc")).as_deref(), Some("abc"));
        assert_eq!(bearer(&headers("authorization", "bearer abc ")).as_deref(), Some("abc"));
        assert_eq!(bearer(&headers("authorization", "Basic abc")), None);
        assert_eq!(bearer(&headers("auth-token-bin", "YWI=")).as_deref(), Some("ab"));
        assert_eq!(bearer(&headers("auth-token-bin", "YWI")).as_deref(), Some("ab"));
        let mut twice = headers("authorization", "Bearer abc");
        twice.append("authorization", HeaderValue::from_static("Bearer def"));
        assert_eq!(bearer(&twice), None);
    }

    #[test]
    fn payloads() {
        let message = BasicAuth { username: "alice".into(), password: "s".into() };
        let found = payload(&message.encode_to_vec()).unwrap();
        assert_eq!((found.name.as_str(), found.secret.as_str()), ("alice", "s"));
        assert!(payload(b"").is_none());
        assert!(payload(b"\xff\xff\xff").is_none());
    }
}
