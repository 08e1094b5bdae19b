//! `pheon serve`: a store for other hosts, over Arrow Flight.

use std::collections::BTreeMap;
use std::path::PathBuf;

use pheon_flight::config::{ConfigError, ServeConfig, ServeOptions};
use pheon_flight::{ServeError, Server, logs};

use crate::failure::{Failure, chain, say};

/// Arguments of `pheon serve`. What none names may stand in the environment (PHEON_LISTEN, ...) or in the configuration file.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The store: a directory, or shm://NAME for one in memory. It must exist.
    store: Option<PathBuf>,
    /// A configuration file, TOML.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where Flight listens [default: 127.0.0.1:8815]. Port 0: any free one; the line on standard error says which.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Where the web page, /metrics and /healthz listen [default: not at all].
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<String>,
    /// The server's certificate, PEM.
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Who signs client certificates, PEM.
    #[arg(long, value_name = "FILE")]
    tls_client_ca: Option<PathBuf>,
    /// Take clients without a certificate too, by their tokens.
    #[arg(long)]
    tls_client_optional: bool,
    /// Who may call, and what they may do (made with `pheon token`).
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// At least 32 random bytes that servers share which accept each other's tickets and tokens.
    #[arg(long, value_name = "FILE")]
    signing_key_file: Option<PathBuf>,
    /// Refuse everything that would change the store.
    #[arg(long)]
    read_only: bool,
    /// Listen without TLS where other hosts can connect: everything that is sent can then be read on the way.
    #[arg(long)]
    insecure: bool,
    /// A limit, NAME=VALUE; may be given more than once. docs/operations.md lists them.
    #[arg(long, value_name = "NAME=VALUE", value_parser = limit)]
    limit: Vec<(String, String)>,
    /// Which events are logged.
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// text or json.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Where an OpenTelemetry collector takes traces, by OTLP over gRPC (or OTEL_EXPORTER_OTLP_ENDPOINT) [default: nowhere].
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,
}

fn limit(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

impl Args {
    fn options(&self) -> Result<ServeOptions, ConfigError> {
        // A flag that is not there says nothing; there is none for "no".
        let flag = |given: bool| given.then_some(true);
        let limits: BTreeMap<_, _> =
            self.limit.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        let flags = ServeOptions {
            store: self.store.clone(),
            listen: self.listen.clone(),
            http: self.http.clone(),
            tls_cert: self.tls_cert.clone(),
            tls_key: self.tls_key.clone(),
            tls_client_ca: self.tls_client_ca.clone(),
            tls_client_optional: flag(self.tls_client_optional),
            insecure: flag(self.insecure),
            read_only: flag(self.read_only),
            token_file: self.token_file.clone(),
            signing_key_file: self.signing_key_file.clone(),
            log: self.log.clone(),
            log_format: self.log_format.clone(),
            otlp_endpoint: self.otlp_endpoint.clone(),
            limits,
        };
        // Names and values that are no text belong to others.
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let environment = ServeOptions::from_environment(std::env::vars_os().filter_map(text))?;
        let file = self.config.as_deref().map(ServeOptions::from_file).transpose()?.unwrap_or_default();
        Ok(flags.or(environment).or(file))
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let config = args.options().and_then(ServeConfig::resolve).map_err(|e| Failure::Usage(chain(&e)))?;
    // Until the server has ended: then the last traces are sent.
    let _logs = logs::start(config.log_format, &config.log, config.otlp_endpoint.as_deref())
        .map_err(|e| Failure::Failed(chain(&e)))?;
    for warning in &config.warnings {
        say(&format!("warning: {warning}"));
    }
    let has_tls = config.tls.is_some();
    let server = Server::bind(config)?;
    let scheme = if has_tls { "https" } else { "http" };
    let page = server.http_addr().map(|address| format!("page and metrics on {scheme}://{address}"));
    let flight = format!("listening on {}", server.location());
    let ready = || page.into_iter().chain([flight]).for_each(|line| say(&line));
    Ok(server.run_blocking(ready)?)
}

impl From<ServeError> for Failure {
    fn from(e: ServeError) -> Self {
        match e {
            ServeError::Store(e) => e.into(),
            ServeError::Insecure { .. } => Self::Usage(chain(&e)),
            _ => Self::Failed(chain(&e)),
        }
    }
}
