//! Flags, environment and file, and what is refused.

use pheon_flight::config::{ConfigError, ServeConfig, ServeOptions};

use super::server::{Certificates, token, write};

fn options(toml: &str) -> ServeOptions {
    let folder = tempfile::tempdir().unwrap();
    ServeOptions::from_file(&write(&folder.path().join("pheon.toml"), toml, 0o644)).unwrap()
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", chain(cause)),
        None => error.to_string(),
    }
}

fn refused(options: ServeOptions) -> String {
    chain(&ServeConfig::resolve(options).unwrap_err())
}

#[test]
fn flags_before_environment_before_file() {
    let flags = options("listen = \"127.0.0.1:1\"\n");
    let variables = [
        ("PHEON_LISTEN", "127.0.0.1:2"),
        ("PHEON_LOG_FORMAT", "json"),
        ("PHEON_LIMIT_STREAMS_MAX", "9"),
        ("HOME", "/"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let environment = ServeOptions::from_environment(variables).unwrap();
    let file = options(
        "store = \"s\"\nlisten = \"127.0.0.1:3\"\nlog_format = \"text\"\nread_only = true\nhttp = \"localhost:8816\"\n\
         [limits]\nstreams_max = 5\nconnections_max = 6\nidle_timeout = \"5m\"\n",
    );
    let config = ServeConfig::resolve(flags.or(environment).or(file)).unwrap();
    assert_eq!(config.listen.port(), 1);
    assert_eq!(config.http.unwrap().port(), 8816);
    assert_eq!(config.log_format, pheon_flight::logs::LogFormat::Json);
    assert!(config.read_only && !config.insecure && config.credentials.is_none());
    assert_eq!((config.limits.streams_max, config.limits.connections_max), (9, 6));
    assert_eq!(config.limits.idle_timeout.as_secs(), 300);
    assert!(config.warnings.is_empty());
    let default = ServeConfig::resolve(options("store = \"s\"")).unwrap();
    assert_eq!(default.listen.to_string(), "127.0.0.1:8815");
    assert!(default.http.is_none());
}

#[test]
fn plaintext_stays_on_this_machine() {
    for address in ["0.0.0.0:8815", "[::]:8815", "192.0.2.1:8815"] {
        for member in ["listen", "http"] {
            let text = format!("store = \"s\"\n{member} = \"{address}\"\n");
            let message = refused(options(&text));
            assert!(message.contains(address) && message.contains("--insecure"), "{message}");
            let config = ServeConfig::resolve(options(&format!("{text}insecure = true\n"))).unwrap();
            assert_eq!(config.warnings.len(), 2, "no TLS, no credentials: {:?}", config.warnings);
        }
    }
    assert!(ServeConfig::resolve(options("store = \"s\"\nlisten = \"[::1]:0\"\n")).is_ok());
}

#[test]
fn certificates_that_do_not_do_are_named() {
    let certificates = Certificates::new();
    let tls = |certificate: &str, key: &str| {
        let path = |name| certificates.path(name).display().to_string();
        options(&format!(
            "store = \"s\"\nlisten = \"0.0.0.0:0\"\ntls_cert = \"{}\"\ntls_key = \"{}\"\n",
            path(certificate),
            path(key)
        ))
    };
    let config = ServeConfig::resolve(tls("server.pem", "server.key")).unwrap();
    assert_eq!(config.tls, Some(certificates.files()));
    assert_eq!(config.warnings.len(), 1, "no credentials: {:?}", config.warnings);
    let (_, other_key) = certificates.signed("localhost");
    certificates.write("other.key", &other_key, 0o600);
    certificates.write("open.key", &other_key, 0o644);
    certificates.write("empty.pem", "nothing\n", 0o644);
    for (certificate, key, named) in [
        ("server.pem", "other.key", "other.key"),
        ("server.pem", "missing.key", "missing.key"),
        ("server.pem", "open.key", "chmod 600"),
        ("server.pem", "server.pem", "chmod 600"),
        ("missing.pem", "server.key", "missing.pem"),
        ("empty.pem", "server.key", "empty.pem"),
    ] {
        let message = refused(tls(certificate, key));
        assert!(message.contains(named), "{certificate} {key}: {message}");
    }
    let half = ServeOptions { tls_key: None, ..tls("server.pem", "server.key") };
    assert!(matches!(ServeConfig::resolve(half), Err(ConfigError::TlsIncomplete)));
    let ca = ServeOptions { tls_client_ca: Some(certificates.path("ca.pem")), ..tls("server.pem", "server.key") };
    assert!(matches!(ServeConfig::resolve(ca), Err(ConfigError::ClientCaWithoutEntries)));
}

#[test]
fn token_files_and_signing_keys() {
    let folder = tempfile::tempdir().unwrap();
    let with = |member: &str, text: &str, mode: u32| {
        let path = write(&folder.path().join(member), text, mode);
        ServeConfig::resolve(options(&format!("store = \"s\"\n{member} = \"{}\"\n", path.display())))
    };
    let (entry, secret) = token("alice");
    let config = with("token_file", &entry, 0o600).unwrap();
    assert_eq!(config.credentials.as_ref().unwrap().tokens[0].name, "alice");
    assert!(config.warnings.is_empty());
    assert!(!format!("{config:?}").contains(&secret.hash().to_hex()));
    assert_eq!(with("token_file", &entry, 0o644).unwrap().warnings.len(), 1);
    assert!(matches!(with("token_file", &entry, 0o666), Err(ConfigError::Exposed { .. })));
    assert!(matches!(with("token_file", "", 0o600), Err(ConfigError::Credentials { .. })));
    let key = "k".repeat(32);
    assert!(with("signing_key_file", &key, 0o600).unwrap().signer.is_some());
    assert!(matches!(with("signing_key_file", &key, 0o644), Err(ConfigError::Exposed { .. })));
    assert!(matches!(with("signing_key_file", &key[1..], 0o600), Err(ConfigError::SigningKey { found_bytes: 31, .. })));
}

#[test]
fn other_mistakes_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder.path().join("pheon.toml"), "store = \"s\"\nlisten_on = \"x\"\n", 0o644);
    let message = chain(&ServeOptions::from_file(&path).unwrap_err());
    assert!(message.contains("pheon.toml, line 2") && message.contains("listen_on"), "{message}");
    assert!(refused(options("listen = \"127.0.0.1:0\"\n")).contains("store"));
    assert!(refused(options("store = \"s\"\nlisten = \"8815\"\n")).contains("8815"));
    assert!(refused(options("store = \"s\"\nlog = \"pheon=loudly\"\n")).contains("loudly"));
    assert!(refused(options("store = \"s\"\n[limits]\nstream_max = 3\n")).contains("streams_max"));
    let variable = [("PHEON_INSECURE".to_owned(), "maybe".to_owned())];
    assert!(chain(&ServeOptions::from_environment(variable).unwrap_err()).contains("PHEON_INSECURE"));
}
