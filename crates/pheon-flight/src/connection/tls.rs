//! Certificates and keys.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};

use super::acceptor::Protocol;
use crate::files;

/// Whether clients need a certificate, where there is a client CA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// A client without one does not get past the handshake.
    #[default]
    Required,
    /// A client without one may show a token.
    Optional,
}

/// The files of TLS, PEM all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, and those between it and a root.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// Who signs client certificates.
    pub client_ca: Option<PathBuf>,
    /// Whether a client needs one.
    pub client_certificates: ClientCertificates,
}

/// TLS cannot be had from these files. Names the file.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsError {
    /// It cannot be read.
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A private key that every user of the machine may read, or others may change.
    Exposed {
        /// Which.
        path: PathBuf,
    },
    /// Not PEM, or nothing of the kind in it.
    Pem {
        /// Which.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
        /// What is wrong.
        source: pem::Error,
    },
    /// The key is not the certificate's, or rustls does not take one of them.
    Pair {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// Nothing can be verified with the client CA.
    ClientCa {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: VerifierBuilderError,
    },
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, .. } => write!(f, "read {}", path.display()),
            Self::Exposed { path } => write!(
                f,
                "the private key {} can be read by every user of this machine or changed by others: chmod 600 (or 640) it",
                path.display()
            ),
            Self::Pem { path, expected, .. } => write!(f, "{}: expected {expected} in PEM", path.display()),
            Self::Pair { certificate, key, .. } => {
                write!(f, "the certificate {} and the key {} do not do together", certificate.display(), key.display())
            }
            Self::ClientCa { path, .. } => write!(f, "the client CA {}", path.display()),
        }
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { source, .. } => Some(source),
            Self::Exposed { .. } => None,
            Self::Pem { source, .. } => Some(source),
            Self::Pair { source, .. } => Some(source),
            Self::ClientCa { source, .. } => Some(source),
        }
    }
}

/// TLS as a server speaks it; [`Tls::reload`] takes new certificates without a restart.
pub struct Tls {
    files: TlsFiles,
    configs: RwLock<Configs>,
}

#[derive(Clone)]
struct Configs {
    http2: Arc<ServerConfig>,
    http1: Arc<ServerConfig>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self { files: files.clone(), configs: RwLock::new(configs(files)?) })
    }

    /// Reads the files again. Connections that are open keep what they have; after an error everything stays as it was.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn reload(&self) -> Result<(), TlsError> {
        let configs = configs(&self.files)?;
        *self.configs.write().unwrap_or_else(PoisonError::into_inner) = configs;
        Ok(())
    }

    pub(super) fn config(&self, protocol: Protocol) -> Arc<ServerConfig> {
        let configs = self.configs.read().unwrap_or_else(PoisonError::into_inner);
        match protocol {
            Protocol::Http2 => configs.http2.clone(),
            Protocol::Http1 => configs.http1.clone(),
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

fn configs(files: &TlsFiles) -> Result<Configs, TlsError> {
    let certificates = certificates(&files.certificate)?;
    let key_file = read(&files.key)?;
    if key_file.is_world_readable() || key_file.is_writable_by_others() {
        return Err(TlsError::Exposed { path: files.key.clone() });
    }
    let key = PrivateKeyDer::from_pem_slice(&key_file.bytes).map_err(|source| TlsError::Pem {
        path: files.key.clone(),
        expected: "a private key",
        source,
    })?;
    let pair = |source| TlsError::Pair { certificate: files.certificate.clone(), key: files.key.clone(), source };
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(pair)?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let wrong = |source| TlsError::ClientCa { path: path.clone(), source };
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(self::certificates(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()));
            let verifier = match files.client_certificates {
                ClientCertificates::Required => verifier,
                ClientCertificates::Optional => verifier.allow_unauthenticated(),
            };
            builder.with_client_cert_verifier(verifier.build().map_err(wrong)?)
        }
    };
    let mut http2 = builder.with_single_cert(certificates, key).map_err(pair)?;
    let mut http1 = http2.clone();
    http2.alpn_protocols = vec![b"h2".to_vec()];
    http1.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Configs { http2: Arc::new(http2), http1: Arc::new(http1) })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |source| TlsError::Pem { path: path.to_owned(), expected: "certificates", source };
    let file = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&file.bytes).collect();
    match found {
        Ok(found) if found.is_empty() => Err(wrong(pem::Error::NoItemsFound)),
        found => found.map_err(wrong),
    }
}

fn read(path: &Path) -> Result<files::SmallFile, TlsError> {
    files::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}
