//! From headers and certificates to a principal.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use tonic::Status;

use super::basic::{self, NameAndSecret};
use super::certificate::common_name;
use super::credentials::{Credentials, TokenEntry};
use super::layer::AuthLayer;
use super::principal::Principal;
use super::secret::SecretHash;
use super::signer::Signer;

/// What a bearer token that the handshake issued begins with. No secret does.
const ISSUED_PREFIX: &str = "pheon-session_";
const ISSUED_VERSION: u8 = 1;
const FINGERPRINT_BYTES: usize = 8;
/// No caller needs a longer one; a longer one is not even hashed.
const BEARER_BYTES_MAX: usize = 1024;

/// Decides who calls. Without credentials: everyone, with all rights.
pub struct Authenticator {
    /// `None`: no credentials are configured. Fixed at the start: replacing credentials never opens the server.
    known: Option<RwLock<Arc<Known>>>,
    signer: Signer,
    issued: Signer,
    secrets: Signer,
    token_age_max: Duration,
}

struct Known {
    credentials: Credentials,
    /// Of each token, what `secrets` makes of its hash. Whoever does not know the key cannot aim at a place in this map, so
    /// that how long looking up takes tells nothing about a secret.
    by_tag: HashMap<Vec<u8>, usize>,
}

impl Authenticator {
    /// From credentials, or none. `token_age_max`: how long a bearer token that the handshake issues is good for.
    pub fn new(credentials: Option<Credentials>, signer: Signer, token_age_max: Duration) -> Self {
        let secrets = signer.derive("pheon secret");
        Self {
            known: credentials.map(|c| RwLock::new(Arc::new(Known::new(c, &secrets)))),
            issued: signer.derive("pheon bearer token"),
            signer: signer.derive("pheon ticket"),
            secrets,
            token_age_max,
        }
    }

    /// Whether anybody may do anything, because no credentials are configured.
    pub fn is_open(&self) -> bool {
        self.known.is_none()
    }

    /// Takes other credentials from the next request on. Tokens that were issued for an entry that is gone, or that has
    /// another secret now, are good no more. False if there were none at the start: then nothing changes.
    pub fn replace(&self, credentials: Credentials) -> bool {
        let Some(known) = &self.known else { return false };
        *known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Known::new(credentials, &self.secrets));
        true
    }

    /// For tickets and prepared handles.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// The tower layer that puts a [`Principal`] into the extensions of every request.
    pub fn layer(self: Arc<Self>) -> AuthLayer {
        AuthLayer::new(self)
    }

    /// Who sends a request with these headers through a connection with this certificate (DER, verified by TLS).
    ///
    /// # Errors
    /// `UNAUTHENTICATED`. A token that is sent but wrong is an error, whatever the certificate.
    pub fn authenticate(&self, headers: &HeaderMap, peer_certificate: Option<&[u8]>) -> Result<Principal, Status> {
        let Some(known) = self.known() else { return Ok(Principal::everyone()) };
        if let Some(token) = basic::bearer(headers) {
            return self.bearer(&known, &token);
        }
        if basic::has_credentials(headers) {
            return Err(Status::unauthenticated("expected `authorization: Bearer TOKEN`; Basic is for the handshake"));
        }
        let Some(certificate) = peer_certificate else {
            return Err(Status::unauthenticated("credentials are needed: `authorization: Bearer TOKEN`"));
        };
        let entry =
            common_name(certificate).and_then(|cn| known.credentials.certificates.iter().find(|c| c.common_name == cn));
        match entry {
            Some(entry) => Ok(Principal::new(&entry.common_name, entry.rights.clone())),
            None => Err(Status::unauthenticated("the client certificate's common name is not known here")),
        }
    }

    /// The handshake: Basic credentials, in the header or as the payload (a BasicAuth), for a bearer token. The name is a
    /// token entry's, the password its secret. A caller who already has a bearer token gets another one, which ends when
    /// that does: only a secret makes more time. Where no credentials are configured everybody gets one. Whose it is, and the
    /// token.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`.
    pub fn login(&self, headers: &HeaderMap, payload: &[u8]) -> Result<(String, String), Status> {
        let fresh = unix_now().saturating_add(self.token_age_max.as_secs());
        let issued = |name: &str, hash, expires| Ok((name.to_owned(), self.issue(name, hash, expires)));
        let Some(known) = self.known() else { return issued("everyone", SecretHash::of(""), fresh) };
        let wrong = || Status::unauthenticated("the name or the secret is wrong");
        if let Some(NameAndSecret { name, secret }) = basic::basic(headers).or_else(|| basic::payload(payload)) {
            let entry = known.by_secret(&secret, &self.secrets).filter(|e| e.name == name).ok_or_else(wrong)?;
            return issued(&entry.name, entry.hash, fresh);
        }
        let token = basic::bearer(headers).ok_or_else(|| Status::unauthenticated("expected Basic credentials"))?;
        let (entry, expires) = self.entry(&known, &token).ok_or_else(wrong)?;
        issued(&entry.name, entry.hash, expires.map_or(fresh, |expires| expires.min(fresh)))
    }

    fn known(&self) -> Option<Arc<Known>> {
        self.known.as_ref().map(|known| known.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn bearer(&self, known: &Known, token: &str) -> Result<Principal, Status> {
        let found = self.entry(known, token);
        let (entry, _) = found.ok_or_else(|| Status::unauthenticated("the token is wrong or has expired"))?;
        Ok(Principal::new(&entry.name, entry.rights.clone()))
    }

    /// Whose a token is; and of one that the handshake has issued, when it ends.
    fn entry<'a>(&self, known: &'a Known, token: &str) -> Option<(&'a TokenEntry, Option<u64>)> {
        if token.len() > BEARER_BYTES_MAX {
            return None;
        }
        let Some(encoded) = token.strip_prefix(ISSUED_PREFIX) else {
            return Some((known.by_secret(token, &self.secrets)?, None));
        };
        let signed = URL_SAFE_NO_PAD.decode(encoded).ok()?;
        let payload = self.issued.open(&signed)?;
        let (&version, payload) = payload.split_first()?;
        let (expires, payload) = payload.split_first_chunk::<8>()?;
        let (fingerprint, name) = payload.split_first_chunk::<FINGERPRINT_BYTES>()?;
        let expires = u64::from_le_bytes(*expires);
        if version != ISSUED_VERSION || expires <= unix_now() {
            return None;
        }
        let is_it =
            |e: &&TokenEntry| e.name.as_bytes() == name && e.hash.bytes().starts_with(fingerprint) && !is_expired(e);
        Some((known.credentials.tokens.iter().find(is_it)?, Some(expires)))
    }

    fn issue(&self, name: &str, hash: SecretHash, expires: u64) -> String {
        let mut payload = vec![ISSUED_VERSION];
        payload.extend_from_slice(&expires.to_le_bytes());
        payload.extend_from_slice(&hash.bytes()[..FINGERPRINT_BYTES]);
        payload.extend_from_slice(name.as_bytes());
        format!("{ISSUED_PREFIX}{}", URL_SAFE_NO_PAD.encode(self.issued.sign(&payload)))
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator").field("open", &self.is_open()).finish_non_exhaustive()
    }
}

impl Known {
    fn new(credentials: Credentials, secrets: &Signer) -> Self {
        let by_tag = credentials
            .tokens
            .iter()
            .enumerate()
            .map(|(i, t)| (secrets.sign(t.hash.bytes()).split_off(t.hash.bytes().len()), i));
        Self { by_tag: by_tag.collect(), credentials }
    }

    fn by_secret(&self, secret: &str, secrets: &Signer) -> Option<&TokenEntry> {
        let hash = SecretHash::of(secret);
        let tag = secrets.sign(hash.bytes()).split_off(hash.bytes().len());
        let entry = &self.credentials.tokens[*self.by_tag.get(&tag)?];
        (secrets.equal(entry.hash.bytes(), hash.bytes()) && !is_expired(entry)).then_some(entry)
    }
}

fn is_expired(entry: &TokenEntry) -> bool {
    entry.expires_unix.is_some_and(|at| at <= unix_now())
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use http::HeaderValue;
    use tonic::Code;

    use super::*;
    use crate::auth::Secret;

    struct Fixture {
        alice: Secret,
        old: Secret,
        authenticator: Authenticator,
    }

    fn token(name: &str, secret: &Secret, more: &str) -> String {
        format!("[[token]]\nname = \"{name}\"\nsha256 = \"{}\"\n{more}\n", secret.hash().to_hex())
    }

    fn fixture() -> Fixture {
        let (alice, old) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        let text = [
            token("alice", &alice, "read = [\"prices\"]"),
            token("old", &old, "read = [\"*\"]\nexpires = 2020-01-01"),
            "[[certificate]]\ncommon_name = \"worker-1\"\nwrite = [\"in*\"]\n".to_owned(),
        ]
        .concat();
        let credentials = Credentials::parse(&text).unwrap();
        let authenticator = Authenticator::new(Some(credentials), Signer::new(&[1; 32]), Duration::from_secs(60));
        Fixture { alice, old, authenticator }
    }

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::header::AUTHORIZATION, HeaderValue::from_str(value).unwrap())])
    }

    fn basic_header(name: &str, secret: &str) -> HeaderMap {
        headers(&format!("Basic {}", STANDARD.encode(format!("{name}:{secret}"))))
    }

    fn certificate(name: &str) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn refused(found: Result<Principal, Status>) -> String {
        let status = found.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        status.message().to_owned()
    }

    #[test]
    fn without_credentials_everybody_may_do_everything() {
        let open = Authenticator::new(None, Signer::generate().unwrap(), Duration::from_secs(60));
        for headers in [HeaderMap::new(), headers("Bearer nonsense")] {
            assert!(open.authenticate(&headers, None).unwrap().may_admin("prices"));
        }
        assert!(open.login(&HeaderMap::new(), b"").is_ok());
        assert!(!open.replace(Credentials::default()) && open.is_open());
    }

    #[test]
    fn secrets() {
        let f = fixture();
        let alice = f.authenticator.authenticate(&headers(&format!("Bearer {}", f.alice.reveal())), None).unwrap();
        assert_eq!(alice.name(), "alice");
        assert!(alice.may_read("prices") && !alice.may_read("other") && !alice.may_write("prices"));
        refused(f.authenticator.authenticate(&HeaderMap::new(), None));
        refused(f.authenticator.authenticate(&headers(&format!("Bearer {}", f.old.reveal())), None));
        for value in
            ["Bearer ", "Bearer x", &format!("Bearer {}x", f.alice.reveal()), &format!("Token {}", f.alice.reveal())]
        {
            let message = refused(f.authenticator.authenticate(&headers(value), None));
            assert!(!message.contains(f.alice.reveal()));
        }
        // The hash at rest opens nothing.
        refused(f.authenticator.authenticate(&headers(&format!("Bearer {}", f.alice.hash().to_hex())), None));
        assert!(!format!("{:?}", f.authenticator).contains("alice"));
    }

    #[test]
    fn certificates() {
        let f = fixture();
        let worker = f.authenticator.authenticate(&HeaderMap::new(), Some(&certificate("worker-1"))).unwrap();
        assert!(worker.name() == "worker-1" && worker.may_write("incoming") && !worker.may_read("incoming"));
        refused(f.authenticator.authenticate(&HeaderMap::new(), Some(&certificate("worker-2"))));
        refused(f.authenticator.authenticate(&HeaderMap::new(), Some(b"no certificate")));
        refused(f.authenticator.authenticate(&headers("Bearer wrong"), Some(&certificate("worker-1"))));
    }

    #[test]
    fn the_handshake_issues_tokens_that_expire() {
        let f = fixture();
        let (_, mut issued) = f.authenticator.login(&basic_header("alice", f.alice.reveal()), b"").unwrap();
        let alice = f.authenticator.authenticate(&headers(&format!("Bearer {issued}")), None).unwrap();
        assert!(alice.name() == "alice" && alice.may_read("prices") && !alice.may_read("other"));
        let (_, again) = f.authenticator.login(&headers(&format!("Bearer {issued}")), b"").unwrap();
        assert_eq!(again, issued, "a token makes no more time");
        let soon = f.authenticator.issue("alice", f.alice.hash(), unix_now() + 30);
        assert_eq!(f.authenticator.login(&headers(&format!("Bearer {soon}")), b"").unwrap().1, soon);
        let (_, longer) = f.authenticator.login(&headers(&format!("Bearer {}", f.alice.reveal())), b"").unwrap();
        assert_ne!(longer, soon, "a secret does");

        issued.replace_range(20..21, if &issued[20..21] == "A" { "B" } else { "A" });
        refused(f.authenticator.authenticate(&headers(&format!("Bearer {issued}")), None));
        for (name, secret) in [("alice", "wrong"), ("bob", f.alice.reveal()), ("old", f.old.reveal()), ("", "")] {
            assert_eq!(
                f.authenticator.login(&basic_header(name, secret), b"").unwrap_err().code(),
                Code::Unauthenticated
            );
        }
        assert!(f.authenticator.login(&HeaderMap::new(), b"").is_err());
        let payload =
            [&[0x12, 5][..], b"alice", &[0x1A, f.alice.reveal().len() as u8], f.alice.reveal().as_bytes()].concat();
        assert!(f.authenticator.login(&HeaderMap::new(), &payload).is_ok());

        // Tickets are signed for another purpose, even with the content of a token.
        let signed = URL_SAFE_NO_PAD
            .decode(f.authenticator.issue("alice", f.alice.hash(), u64::MAX).strip_prefix(ISSUED_PREFIX).unwrap())
            .unwrap();
        let payload = f.authenticator.issued.open(&signed).unwrap();
        let ticket = format!("{ISSUED_PREFIX}{}", URL_SAFE_NO_PAD.encode(f.authenticator.signer().sign(payload)));
        refused(f.authenticator.authenticate(&headers(&format!("Bearer {ticket}")), None));
    }

    #[test]
    fn an_issued_token_ends_with_its_time_and_with_its_entry() {
        let f = fixture();
        let credentials = Credentials::parse(&token("alice", &f.alice, "read = [\"*\"]")).unwrap();
        let at_once = Authenticator::new(Some(credentials.clone()), Signer::generate().unwrap(), Duration::ZERO);
        let (_, issued) = at_once.login(&basic_header("alice", f.alice.reveal()), b"").unwrap();
        refused(at_once.authenticate(&headers(&format!("Bearer {issued}")), None));

        let (_, issued) = f.authenticator.login(&basic_header("alice", f.alice.reveal()), b"").unwrap();
        let bearer = headers(&format!("Bearer {issued}"));
        assert!(f.authenticator.replace(credentials));
        assert!(f.authenticator.authenticate(&bearer, None).unwrap().may_read("other"), "the new rights count");
        let other_secret = Credentials::parse(&token("alice", &Secret::generate().unwrap(), "read = [\"*\"]")).unwrap();
        f.authenticator.replace(other_secret);
        refused(f.authenticator.authenticate(&bearer, None));
        refused(f.authenticator.authenticate(&headers(&format!("Bearer {}", f.alice.reveal())), None));
    }

    #[test]
    fn servers_with_one_key_accept_each_others_tokens() {
        let f = fixture();
        let credentials = Credentials::parse(&token("alice", &f.alice, "read = [\"*\"]")).unwrap();
        let (_, issued) = f.authenticator.login(&basic_header("alice", f.alice.reveal()), b"").unwrap();
        let same = Authenticator::new(Some(credentials.clone()), Signer::new(&[1; 32]), Duration::from_secs(1));
        assert!(same.authenticate(&headers(&format!("Bearer {issued}")), None).is_ok());
        let other = Authenticator::new(Some(credentials), Signer::new(&[2; 32]), Duration::from_secs(1));
        refused(other.authenticate(&headers(&format!("Bearer {issued}")), None));
    }
}
