//! Which datasets a right is for.

use std::fmt;

/// `*` (everything), `prefix*` or an exact name. Live maps are named `live/NAME`: only `*` and patterns that begin with
/// `live/` are for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// `*`.
    All,
    /// `prefix*`.
    Prefix(String),
    /// One name.
    Exact(String),
}

/// A pattern that nothing could match, or that means something else than it seems to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError {
    /// As given.
    pub pattern: String,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a pattern of datasets: expected a name, a prefix followed by *, or *; of live maps with live/ before it",
            self.pattern
        )
    }
}

impl std::error::Error for PatternError {}

/// What stands before the name of a live map where rights are concerned.
const LIVE: &str = "live/";

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`PatternError`] for an empty one, or for a character that no name has.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let error = || PatternError { pattern: text.to_owned() };
        let (stem, is_prefix) = text.strip_suffix('*').map_or((text, false), |stem| (stem, true));
        let name = stem.strip_prefix(LIVE).unwrap_or(stem);
        let is_named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '@');
        if !name.chars().all(is_named) {
            return Err(error());
        }
        match (stem, is_prefix) {
            ("", true) => Ok(Self::All),
            (_, true) => Ok(Self::Prefix(stem.to_owned())),
            _ if name.is_empty() => Err(error()),
            _ => Ok(Self::Exact(stem.to_owned())),
        }
    }

    /// Whether the pattern is for `dataset`.
    pub fn matches(&self, dataset: &str) -> bool {
        match self {
            Self::All => true,
            // `l*` is for datasets: it must not open every live map.
            Self::Prefix(prefix) => dataset.starts_with(prefix) && dataset.contains('/') == prefix.contains('/'),
            Self::Exact(name) => dataset == name,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Exact(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_prefixes_and_everything() {
        let matches = |pattern: &str, name: &str| Pattern::parse(pattern).unwrap().matches(name);
        assert!(matches("*", "prices") && matches("*", "live/counters"));
        assert!(matches("prices", "prices") && !matches("prices", "prices2") && !matches("prices", "price"));
        assert!(matches("pri*", "prices") && matches("pri*", "pri") && !matches("pri*", "xpri"));
        assert!(!matches("l*", "live/counters"), "a prefix of datasets is not for live maps");
        assert!(matches("live/*", "live/counters") && !matches("live/*", "livestock"));
        assert!(matches("live/c*", "live/counters") && !matches("live/c*", "live/x"));
        assert!(matches("live/counters", "live/counters") && !matches("counters", "live/counters"));
        assert!(!matches("Prices", "prices"));
    }

    #[test]
    fn what_is_no_pattern() {
        for text in ["", "a*b", "**", "a/b", "../x", "live/", "a b", "pr?ces", "[a]", "a,b", "live/a/b"] {
            assert!(Pattern::parse(text).is_err(), "{text:?}");
        }
        for text in ["*", "a", "a*", "live/a", "live/*", "live/a*", "a.b-c_d@3"] {
            assert_eq!(Pattern::parse(text).unwrap().to_string(), text);
        }
    }
}
