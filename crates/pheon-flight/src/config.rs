//! What a server is told: by flags, by the environment, by a file, in this order of precedence (docs/operations.md).

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::auth::{Credentials, CredentialsError, Signer};
use crate::connection::{ClientCertificates, Tls, TlsError, TlsFiles};
use crate::files;
use crate::limits::{LimitError, Limits};
use crate::logs::{self, LogError, LogFormat};

/// Bytes that a signing key has at least.
const SIGNING_KEY_BYTES_MIN: usize = 32;
const PORT: u16 = 8815;

/// What one source says: the flags, the environment or the file. What it does not name is up to the next one.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct ServeOptions {
    /// The store.
    pub store: Option<PathBuf>,
    /// Where Flight listens: `host:port`.
    pub listen: Option<String>,
    /// Where the web page, `/metrics` and `/healthz` listen: `host:port`. Not at all where nobody says.
    pub http: Option<String>,
    /// The server's certificate, PEM.
    pub tls_cert: Option<PathBuf>,
    /// Its private key, PEM.
    pub tls_key: Option<PathBuf>,
    /// Who signs client certificates, PEM.
    pub tls_client_ca: Option<PathBuf>,
    /// Whether a client may do without a certificate where there is a client CA.
    pub tls_client_optional: Option<bool>,
    /// Whether to listen without TLS where other hosts can reach it.
    pub insecure: Option<bool>,
    /// Whether to refuse every change.
    pub read_only: Option<bool>,
    /// Who may call.
    pub token_file: Option<PathBuf>,
    /// At least 32 random bytes that servers share which accept each other's tickets and tokens.
    pub signing_key_file: Option<PathBuf>,
    /// Which events are logged.
    pub log: Option<String>,
    /// `text` or `json`.
    pub log_format: Option<String>,
    /// Where an OpenTelemetry collector takes traces, by OTLP over gRPC: `http://host:4317`.
    pub otlp_endpoint: Option<String>,
    /// Limits by name, as text; numbers may stand bare in a file.
    pub limits: BTreeMap<String, toml::Value>,
}

/// A server's configuration, checked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServeConfig {
    /// The store.
    pub store: PathBuf,
    /// Where to listen; port 0: any free one.
    pub listen: SocketAddr,
    /// Where the web page listens, if at all.
    pub http: Option<SocketAddr>,
    /// The files of TLS, if it is spoken. They have been read once and do together.
    pub tls: Option<TlsFiles>,
    /// Listen without TLS where other hosts can reach it.
    pub insecure: bool,
    /// Refuse everything that would change the store.
    pub read_only: bool,
    /// Who may call; `None`: everybody may do everything.
    pub credentials: Option<Credentials>,
    /// Where they come from, to be read again.
    pub token_file: Option<PathBuf>,
    /// With a key that other servers have too; `None`: with one that is made at the start.
    pub signer: Option<Signer>,
    /// Which events are logged.
    pub log: String,
    /// How they look.
    pub log_format: LogFormat,
    /// Where traces go, if anywhere.
    pub otlp_endpoint: Option<String>,
    /// Limits.
    pub limits: Limits,
    /// What is allowed but should be known. For the log.
    pub warnings: Vec<String>,
}

/// A server cannot be configured so.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConfigError {
    /// No source names a store.
    NoStore,
    /// A file cannot be read.
    Read {
        /// What it is for.
        purpose: &'static str,
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The configuration file is not TOML, or has members that do not exist.
    Syntax {
        /// Which.
        path: PathBuf,
        /// The line, counted from 1, where it is known.
        line: Option<usize>,
        /// What the reader of TOML says.
        problem: String,
    },
    /// An environment variable has a value that does not fit.
    Environment {
        /// Which.
        name: String,
        /// As given.
        found: String,
    },
    /// Not an address to listen on.
    Address {
        /// As given.
        found: String,
        /// What the system says.
        source: Option<io::Error>,
    },
    /// Other hosts could read along.
    Plaintext {
        /// The address.
        address: SocketAddr,
    },
    /// A certificate without a key, or the other way round, or a client CA without both.
    TlsIncomplete,
    /// TLS cannot be had from these files.
    Tls(TlsError),
    /// A client CA alone gives nobody a right.
    ClientCaWithoutEntries,
    /// The token file is wrong.
    Credentials {
        /// Which.
        path: PathBuf,
        /// How.
        source: CredentialsError,
    },
    /// Others may change a file that decides who may do what, or read a key.
    Exposed {
        /// Which.
        path: PathBuf,
        /// What they may do.
        what: &'static str,
    },
    /// A key that could be guessed.
    SigningKey {
        /// Which.
        path: PathBuf,
        /// Its length.
        found_bytes: usize,
    },
    /// A limit is none.
    Limit(LimitError),
    /// The log cannot be set up so.
    Log(LogError),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoStore => f.write_str("no store is named"),
            Self::Read { purpose, path, .. } => write!(f, "read {purpose} {}", path.display()),
            Self::Syntax { path, line: Some(line), problem } => write!(f, "{}, line {line}: {problem}", path.display()),
            Self::Syntax { path, line: None, problem } => write!(f, "{}: {problem}", path.display()),
            Self::Environment { name, found } => write!(f, "{name}={found:?}: expected true or false"),
            Self::Address { found, .. } => write!(f, "{found:?} is no address to listen on: expected host:port"),
            Self::Plaintext { address } => write!(
                f,
                "{address} can be reached by other hosts, who could read and change what is sent: give --tls-cert and --tls-key, listen on 127.0.0.1, or say --insecure"
            ),
            Self::TlsIncomplete => f.write_str("TLS needs both a certificate and its key (--tls-cert, --tls-key)"),
            Self::Tls(_) => f.write_str("TLS"),
            Self::ClientCaWithoutEntries => f.write_str(
                "there is a client CA, but no [[certificate]] in a token file: no certificate would have a right",
            ),
            Self::Credentials { path, .. } => write!(f, "the token file {}", path.display()),
            Self::Exposed { path, what } => {
                write!(f, "{} can be {what} by other users: chmod 600 (or 640) it", path.display())
            }
            Self::SigningKey { path, found_bytes } => write!(
                f,
                "the signing key {} has {found_bytes} bytes: expected at least {SIGNING_KEY_BYTES_MIN} random ones",
                path.display()
            ),
            Self::Limit(_) => f.write_str("limits"),
            Self::Log(_) => f.write_str("log"),
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { source, .. } => Some(source),
            Self::Address { source, .. } => source.as_ref().map(|e| e as _),
            Self::Tls(source) => Some(source),
            Self::Credentials { source, .. } => Some(source),
            Self::Limit(source) => Some(source),
            Self::Log(source) => Some(source),
            _ => None,
        }
    }
}

impl ServeOptions {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// [`ConfigError::Read`], [`ConfigError::Syntax`].
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = read_text("the configuration", path)?;
        toml::from_str(&text).map_err(|e| ConfigError::Syntax {
            path: path.to_owned(),
            line: e.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1),
            problem: e.message().to_owned(),
        })
    }

    /// What environment variables say: `PHEON_` and the name of a member in capitals; limits `PHEON_LIMIT_` and theirs.
    ///
    /// # Errors
    /// [`ConfigError::Environment`].
    pub fn from_environment(variables: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let mut found = Self::default();
        for (name, value) in variables {
            // OpenTelemetry's own name of it; ours goes before it.
            if name == "OTEL_EXPORTER_OTLP_ENDPOINT" && found.otlp_endpoint.is_none() && !value.is_empty() {
                found.otlp_endpoint = Some(value);
                continue;
            }
            let Some(member) = name.strip_prefix("PHEON_") else { continue };
            let path = || Some(PathBuf::from(&value));
            let flag = || match value.as_str() {
                "1" | "true" | "yes" => Ok(Some(true)),
                "0" | "false" | "no" | "" => Ok(Some(false)),
                _ => Err(ConfigError::Environment { name: name.clone(), found: value.clone() }),
            };
            match member {
                "STORE" => found.store = path(),
                "LISTEN" => found.listen = Some(value),
                "HTTP" => found.http = Some(value),
                "TLS_CERT" => found.tls_cert = path(),
                "TLS_KEY" => found.tls_key = path(),
                "TLS_CLIENT_CA" => found.tls_client_ca = path(),
                "TLS_CLIENT_OPTIONAL" => found.tls_client_optional = flag()?,
                "INSECURE" => found.insecure = flag()?,
                "READ_ONLY" => found.read_only = flag()?,
                "TOKEN_FILE" => found.token_file = path(),
                "SIGNING_KEY_FILE" => found.signing_key_file = path(),
                "LOG" => found.log = Some(value),
                "LOG_FORMAT" => found.log_format = Some(value),
                "OTLP_ENDPOINT" => found.otlp_endpoint = Some(value),
                _ => {
                    if let Some(limit) = member.strip_prefix("LIMIT_") {
                        found.limits.insert(limit.to_ascii_lowercase(), toml::Value::String(value));
                    }
                }
            }
        }
        Ok(found)
    }

    /// These, and where they say nothing, what `next` says.
    #[must_use]
    pub fn or(self, next: Self) -> Self {
        let mut limits = next.limits;
        limits.extend(self.limits);
        Self {
            store: self.store.or(next.store),
            listen: self.listen.or(next.listen),
            http: self.http.or(next.http),
            tls_cert: self.tls_cert.or(next.tls_cert),
            tls_key: self.tls_key.or(next.tls_key),
            tls_client_ca: self.tls_client_ca.or(next.tls_client_ca),
            tls_client_optional: self.tls_client_optional.or(next.tls_client_optional),
            insecure: self.insecure.or(next.insecure),
            read_only: self.read_only.or(next.read_only),
            token_file: self.token_file.or(next.token_file),
            signing_key_file: self.signing_key_file.or(next.signing_key_file),
            log: self.log.or(next.log),
            log_format: self.log_format.or(next.log_format),
            otlp_endpoint: self.otlp_endpoint.or(next.otlp_endpoint),
            limits,
        }
    }
}

impl ServeConfig {
    /// The defaults: this store on a loopback address and any free port, no TLS, no credentials.
    pub fn loopback(store: impl Into<PathBuf>) -> Self {
        Self {
            store: store.into(),
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            http: None,
            tls: None,
            insecure: false,
            read_only: false,
            credentials: None,
            token_file: None,
            signer: None,
            log: logs::FILTER.to_owned(),
            log_format: LogFormat::Text,
            otlp_endpoint: None,
            limits: Limits::default(),
            warnings: Vec::new(),
        }
    }

    /// Checks what all sources say together, and reads the files that it names.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn resolve(options: ServeOptions) -> Result<Self, ConfigError> {
        let mut warnings = Vec::new();
        let listen = match &options.listen {
            None => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT),
            Some(text) => address(text)?,
        };
        let http = options.http.as_deref().map(address).transpose()?;
        let tls = tls_files(&options)?;
        if let Some(files) = &tls {
            Tls::load(files).map_err(ConfigError::Tls)?;
        }
        let insecure = options.insecure.unwrap_or(false);
        let exposed = std::iter::once(listen).chain(http).find(|a| !a.ip().is_loopback());
        if let (Some(address), None) = (exposed, &tls) {
            if !insecure {
                return Err(ConfigError::Plaintext { address });
            }
            warnings
                .push(format!("{address} is served without TLS: whoever is on the way can read and change everything"));
        }
        let credentials =
            options.token_file.as_deref().map(|path| read_credentials(path, &mut warnings)).transpose()?;
        let has_certificates = credentials.as_ref().is_some_and(|c| !c.certificates.is_empty());
        if tls.as_ref().is_some_and(|t| t.client_ca.is_some()) && !has_certificates {
            return Err(ConfigError::ClientCaWithoutEntries);
        }
        if let (Some(address), None) = (exposed, &credentials) {
            warnings.push(format!(
                "no credentials are configured: whoever reaches {address} may read and change everything"
            ));
        }
        let mut limits = Limits::default();
        for (name, value) in &options.limits {
            let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
            limits.set(name, &text).map_err(ConfigError::Limit)?;
        }
        let log = options.log.unwrap_or_else(|| logs::FILTER.to_owned());
        logs::check_filter(&log).map_err(ConfigError::Log)?;
        let log_format = options.log_format.as_deref().unwrap_or("text").parse().map_err(ConfigError::Log)?;
        Ok(Self {
            store: options.store.ok_or(ConfigError::NoStore)?,
            listen,
            http,
            tls,
            insecure,
            read_only: options.read_only.unwrap_or(false),
            credentials,
            token_file: options.token_file,
            signer: options.signing_key_file.as_deref().map(signing_key).transpose()?,
            log,
            log_format,
            otlp_endpoint: options.otlp_endpoint,
            limits,
            warnings,
        })
    }
}

/// Reads a token file; also again, while a server runs.
///
/// # Errors
/// [`ConfigError::Read`], [`ConfigError::Exposed`], [`ConfigError::Credentials`].
pub fn read_credentials(path: &Path, warnings: &mut Vec<String>) -> Result<Credentials, ConfigError> {
    let file = read("the token file", path)?;
    if file.is_writable_by_others() {
        return Err(ConfigError::Exposed { path: path.to_owned(), what: "changed" });
    }
    if file.is_world_readable() {
        warnings.push(format!("{} can be read by every user of this machine: chmod 600 (or 640) it", path.display()));
    }
    let text = String::from_utf8(file.bytes).map_err(|e| not_text("the token file", path, e))?;
    Credentials::parse(&text).map_err(|source| ConfigError::Credentials { path: path.to_owned(), source })
}

fn address(text: &str) -> Result<SocketAddr, ConfigError> {
    let wrong = |source| ConfigError::Address { found: text.to_owned(), source };
    let mut found = text.to_socket_addrs().map_err(|e| wrong(Some(e)))?;
    found.next().ok_or_else(|| wrong(None))
}

fn tls_files(options: &ServeOptions) -> Result<Option<TlsFiles>, ConfigError> {
    match (&options.tls_cert, &options.tls_key) {
        (None, None) if options.tls_client_ca.is_none() => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles {
            certificate: certificate.clone(),
            key: key.clone(),
            client_ca: options.tls_client_ca.clone(),
            client_certificates: if options.tls_client_optional.unwrap_or(false) {
                ClientCertificates::Optional
            } else {
                ClientCertificates::Required
            },
        })),
        _ => Err(ConfigError::TlsIncomplete),
    }
}

fn signing_key(path: &Path) -> Result<Signer, ConfigError> {
    let file = read("the signing key", path)?;
    if file.is_world_readable() {
        return Err(ConfigError::Exposed { path: path.to_owned(), what: "read" });
    }
    if file.is_writable_by_others() {
        return Err(ConfigError::Exposed { path: path.to_owned(), what: "changed" });
    }
    if file.bytes.len() < SIGNING_KEY_BYTES_MIN {
        return Err(ConfigError::SigningKey { path: path.to_owned(), found_bytes: file.bytes.len() });
    }
    Ok(Signer::new(&file.bytes))
}

fn read(purpose: &'static str, path: &Path) -> Result<files::SmallFile, ConfigError> {
    files::read(path).map_err(|source| ConfigError::Read { purpose, path: path.to_owned(), source })
}

fn read_text(purpose: &'static str, path: &Path) -> Result<String, ConfigError> {
    String::from_utf8(read(purpose, path)?.bytes).map_err(|e| not_text(purpose, path, e))
}

fn not_text(purpose: &'static str, path: &Path, error: std::string::FromUtf8Error) -> ConfigError {
    let source = io::Error::new(io::ErrorKind::InvalidData, error.utf8_error());
    ConfigError::Read { purpose, path: path.to_owned(), source }
}
