//! The token file: who may call, known by what, with which rights.
//!
//! ```toml
//! [[token]]
//! name = "alice"
//! sha256 = "..."                # of the secret; `pheon token` prints both
//! read = ["prices", "fx*"]
//! write = ["live/counters"]
//! admin = []
//! expires = 2027-01-01          # optional
//!
//! [[certificate]]
//! common_name = "worker-1"      # of a client certificate that the client CA signed
//! read = ["*"]
//! ```

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use toml::value::Datetime;

use super::pattern::{Pattern, PatternError};
use super::secret::SecretHash;

/// What somebody may do, as patterns of datasets. None includes another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Datasets whose rows may be read.
    pub read: Vec<Pattern>,
    /// Datasets whose rows may be changed.
    pub write: Vec<Pattern>,
    /// Datasets that may be administered.
    pub admin: Vec<Pattern>,
}

impl Rights {
    /// Reads patterns.
    ///
    /// # Errors
    /// [`PatternError`] names the first that is none.
    pub fn parse<S: AsRef<str>>(read: &[S], write: &[S], admin: &[S]) -> Result<Self, PatternError> {
        let all = |texts: &[S]| texts.iter().map(|t| Pattern::parse(t.as_ref())).collect::<Result<Vec<_>, _>>();
        Ok(Self { read: all(read)?, write: all(write)?, admin: all(admin)? })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.read.is_empty() && self.write.is_empty() && self.admin.is_empty()
    }
}

/// Somebody who is known by a secret.
#[derive(Clone, Debug)]
pub struct TokenEntry {
    /// His name. Several entries may have one name, while a secret is being replaced.
    pub name: String,
    /// Of his secret.
    pub hash: SecretHash,
    /// From when on it counts no more, in seconds since 1970-01-01 UTC.
    pub expires_unix: Option<u64>,
    /// What he may do.
    pub rights: Arc<Rights>,
}

/// Somebody who is known by a client certificate.
#[derive(Clone, Debug)]
pub struct CertificateEntry {
    /// The common name of the certificate's subject.
    pub common_name: String,
    /// What he may do.
    pub rights: Arc<Rights>,
}

/// Everybody who may call. Once anybody is named, nobody else may.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Known by secrets.
    pub tokens: Vec<TokenEntry>,
    /// Known by certificates.
    pub certificates: Vec<CertificateEntry>,
}

/// What is wrong with a token file. Never has a secret, nor a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CredentialsError {
    /// Not TOML, or not these members.
    Syntax {
        /// The line, counted from 1, where it is known.
        line: Option<usize>,
        /// What the reader of TOML says.
        problem: String,
    },
    /// A file without an entry would lock everybody out.
    Empty,
    /// An entry's name is empty, long, or has characters that do not belong in a log.
    Name {
        /// As given.
        name: String,
    },
    /// Not 64 hexadecimal digits.
    Hash {
        /// The entry's name.
        name: String,
    },
    /// Two entries have the same secret, or the same common name: whose rights would count?
    Twice {
        /// The second entry's name.
        name: String,
    },
    /// A pattern that is none.
    Pattern {
        /// The entry's name.
        name: String,
        /// Which.
        source: PatternError,
    },
    /// A date that is none.
    Expires {
        /// The entry's name.
        name: String,
        /// As given.
        found: String,
    },
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax { line: Some(line), problem } => write!(f, "line {line}: {problem}"),
            Self::Syntax { line: None, problem } => f.write_str(problem),
            Self::Empty => f.write_str(
                "it has no [[token]] and no [[certificate]]: nobody could call; make one with `pheon token`",
            ),
            Self::Name { name } => write!(f, "the name {name:?}: expected 1 to 64 printable characters"),
            Self::Hash { name } => {
                write!(f, "sha256 of {name:?}: expected 64 hexadecimal digits, as `pheon token` prints them")
            }
            Self::Twice { name } => write!(f, "{name:?} has the secret or the common name of an entry before it"),
            Self::Pattern { name, .. } => write!(f, "rights of {name:?}"),
            Self::Expires { name, found } => {
                write!(f, "expires of {name:?}: expected a date or a date and time, found {found}")
            }
        }
    }
}

impl std::error::Error for CredentialsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Pattern { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    token: Vec<TokenTable>,
    #[serde(default)]
    certificate: Vec<CertificateTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenTable {
    name: String,
    sha256: String,
    expires: Option<Datetime>,
    #[serde(default)]
    read: Vec<String>,
    #[serde(default)]
    write: Vec<String>,
    #[serde(default)]
    admin: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CertificateTable {
    common_name: String,
    #[serde(default)]
    read: Vec<String>,
    #[serde(default)]
    write: Vec<String>,
    #[serde(default)]
    admin: Vec<String>,
}

const NAME_CHARS_MAX: usize = 64;

impl Credentials {
    /// Reads a token file.
    ///
    /// # Errors
    /// [`CredentialsError`], without the file's name.
    pub fn parse(text: &str) -> Result<Self, CredentialsError> {
        let file: File = toml::from_str(text).map_err(|e| CredentialsError::Syntax {
            line: e.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1),
            problem: e.message().to_owned(),
        })?;
        let mut found = Self::default();
        for t in file.token {
            check_name(&t.name)?;
            let hash = SecretHash::from_hex(&t.sha256).ok_or(CredentialsError::Hash { name: t.name.clone() })?;
            if found.tokens.iter().any(|other| other.hash == hash) {
                return Err(CredentialsError::Twice { name: t.name });
            }
            let expires_unix = match t.expires {
                None => None,
                Some(at) => Some(
                    unix_seconds(&at)
                        .ok_or_else(|| CredentialsError::Expires { name: t.name.clone(), found: at.to_string() })?,
                ),
            };
            let rights = rights(&t.name, &t.read, &t.write, &t.admin)?;
            found.tokens.push(TokenEntry { name: t.name, hash, expires_unix, rights });
        }
        for c in file.certificate {
            check_name(&c.common_name)?;
            if found.certificates.iter().any(|other| other.common_name == c.common_name) {
                return Err(CredentialsError::Twice { name: c.common_name });
            }
            let rights = rights(&c.common_name, &c.read, &c.write, &c.admin)?;
            found.certificates.push(CertificateEntry { common_name: c.common_name, rights });
        }
        if found.tokens.is_empty() && found.certificates.is_empty() {
            return Err(CredentialsError::Empty);
        }
        Ok(found)
    }

    /// The entry of a token file for this secret's hash.
    ///
    /// # Errors
    /// [`CredentialsError`] if a name or a pattern is none.
    pub fn entry(
        name: &str,
        hash: SecretHash,
        expires: Option<&str>,
        rights: [&[String]; 3],
    ) -> Result<String, CredentialsError> {
        use fmt::Write as _;
        let mut text = format!("[[token]]\nname = {}\nsha256 = \"{}\"\n", quoted(name), hash.to_hex());
        if let Some(date) = expires {
            let _ = writeln!(text, "expires = {date}");
        }
        for (right, patterns) in ["read", "write", "admin"].into_iter().zip(rights) {
            let patterns: Vec<_> = patterns.iter().map(|p| quoted(p)).collect();
            let _ = writeln!(text, "{right} = [{}]", patterns.join(", "));
        }
        // What is printed is what will be read.
        Self::parse(&text).map(|_| text)
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn check_name(name: &str) -> Result<(), CredentialsError> {
    let count = name.chars().count();
    if count == 0 || count > NAME_CHARS_MAX || name.chars().any(|c| c.is_control() || c == ':') {
        return Err(CredentialsError::Name { name: name.chars().take(2 * NAME_CHARS_MAX).collect() });
    }
    Ok(())
}

fn rights(name: &str, read: &[String], write: &[String], admin: &[String]) -> Result<Arc<Rights>, CredentialsError> {
    Rights::parse(read, write, admin)
        .map(Arc::new)
        .map_err(|source| CredentialsError::Pattern { name: name.to_owned(), source })
}

/// A local date or time is taken as UTC.
fn unix_seconds(at: &Datetime) -> Option<u64> {
    let date = at.date?;
    let (y, m, d) = (i64::from(date.year), i64::from(date.month), i64::from(date.day));
    // Days since 1970-01-01 in the Gregorian calendar, counted in years that begin in March.
    let (y, m) = if m > 2 { (y, m - 3) } else { (y - 1, m + 9) };
    let day_of_era_year = (153 * m + 2) / 5 + d - 1;
    let days = 365 * y + y / 4 - y / 100 + y / 400 + day_of_era_year - 719_468;
    let mut seconds = days * 86_400;
    if let Some(time) = at.time {
        seconds += i64::from(time.hour) * 3600 + i64::from(time.minute) * 60 + i64::from(time.second.unwrap_or(0));
    }
    if let Some(toml::value::Offset::Custom { minutes }) = at.offset {
        seconds -= i64::from(minutes) * 60;
    }
    u64::try_from(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn reads_entries() {
        let text = format!(
            "[[token]]\nname = \"alice\"\nsha256 = \"{HASH}\"\nread = [\"prices\", \"fx*\"]\nexpires = 2027-01-01\n\
             [[certificate]]\ncommon_name = \"worker-1\"\nwrite = [\"*\"]\n"
        );
        let found = Credentials::parse(&text).unwrap();
        assert_eq!(found.tokens[0].name, "alice");
        assert_eq!(found.tokens[0].hash, SecretHash::of("abc"));
        assert_eq!(found.tokens[0].expires_unix, Some(1_798_761_600));
        assert_eq!(found.tokens[0].rights.read, [Pattern::Exact("prices".into()), Pattern::Prefix("fx".into())]);
        assert!(found.tokens[0].rights.write.is_empty());
        assert_eq!(found.certificates[0].common_name, "worker-1");
        assert_eq!(found.certificates[0].rights.write, [Pattern::All]);
    }

    #[test]
    fn dates() {
        let unix = |text: &str| unix_seconds(&text.parse().unwrap());
        assert_eq!(unix("1970-01-01"), Some(0));
        assert_eq!(unix("2000-02-29T12:00:01Z"), Some(951_825_601));
        assert_eq!(unix("2024-03-01T00:00:00+01:00"), Some(1_709_247_600));
        assert_eq!(unix("1969-12-31"), None);
        assert_eq!(unix("12:00:00"), None);
    }

    #[test]
    fn says_what_is_wrong() {
        let wrong = |text: &str| {
            let e = Credentials::parse(text).unwrap_err();
            assert!(!e.to_string().contains("ba7816"), "{e}");
            e
        };
        assert_eq!(wrong(""), CredentialsError::Empty);
        assert!(matches!(wrong("[[token]]\nname = \"a\"\nsha256 ="), CredentialsError::Syntax { line: Some(3), .. }));
        let misspelt = format!("[[token]]\nname = \"a\"\nsha256 = \"{HASH}\"\nreads = [\"*\"]\n");
        assert!(wrong(&misspelt).to_string().contains("reads"));
        assert_eq!(wrong("[[token]]\nname = \"a\"\nsha256 = \"abc\"\n"), CredentialsError::Hash { name: "a".into() });
        for name in ["", "a\\u0007", "a:b", &"n".repeat(65)] {
            let text = format!("[[token]]\nname = \"{name}\"\nsha256 = \"{HASH}\"\n");
            assert!(matches!(wrong(&text), CredentialsError::Name { .. }), "{name}");
        }
        let one = format!("[[token]]\nname = \"a\"\nsha256 = \"{HASH}\"\n");
        assert_eq!(wrong(&format!("{one}{one}")), CredentialsError::Twice { name: "a".into() });
        assert!(matches!(wrong(&format!("{one}read = [\"a/b\"]\n")), CredentialsError::Pattern { .. }));
        assert!(matches!(wrong(&format!("{one}expires = 10:00:00\n")), CredentialsError::Expires { .. }));
    }

    #[test]
    fn entries_that_are_printed_can_be_read() {
        let read = ["prices".to_owned(), "live/*".to_owned()];
        let text =
            Credentials::entry("al \"ice\"", SecretHash::of("abc"), Some("2027-01-01"), [&read, &[], &[]]).unwrap();
        let found = Credentials::parse(&text).unwrap();
        assert_eq!(found.tokens[0].name, "al \"ice\"");
        assert_eq!(found.tokens[0].rights.read.len(), 2);
        assert!(Credentials::entry("a", SecretHash::of("abc"), None, [&["a b".to_owned()], &[], &[]]).is_err());
    }
}
