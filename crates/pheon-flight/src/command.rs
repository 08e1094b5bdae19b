//! What a descriptor asks for: docs/flight.md, Descriptors.

use arrow_flight::FlightDescriptor;
use arrow_flight::flight_descriptor::DescriptorType;
use serde::{Deserialize, Serialize};
use tonic::Status;

/// A dataset or live map that is asked for, and which rows and columns of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScanCommand {
    /// A dataset, perhaps with `@` and a version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// A live map, in place of a dataset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<String>,
    /// These columns, in this order; `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    /// The first key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<KeyValue>,
    /// The key before which it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<KeyValue>,
    /// What keys begin with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<KeyValue>,
    /// The rows of these keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Vec<KeyValue>>,
    /// Runs of rows, each by the number of its first within the version and how many there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<Vec<(u64, u64)>>,
    /// Rows to skip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Rows to send at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// When the version was published, in milliseconds since 1970: it must be this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<u64>,
}

/// A key as JSON has it: one value, or a list of values for a key of several columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum KeyValue {
    /// Of one column.
    One(KeyScalar),
    /// Of several columns, in the key's order.
    Parts(Vec<KeyScalar>),
}

/// One value of a key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum KeyScalar {
    /// Text, or what text stands for.
    Text(String),
    /// A number, as it was written.
    Number(serde_json::Number),
    /// A truth value.
    Bool(bool),
}

impl KeyScalar {
    /// The text that [`pheon::parse_key`] reads.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Bool(truth) => truth.to_string(),
        }
    }
}

impl KeyValue {
    /// Its values, in the key's order.
    pub(crate) fn parts(&self) -> &[KeyScalar] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Parts(values) => values,
        }
    }
}

/// How rows are written.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PutCommand {
    pub(crate) put: String,
    #[serde(default)]
    pub(crate) mode: PutMode,
    pub(crate) key: Option<Vec<String>>,
    pub(crate) map: Option<bool>,
    pub(crate) value: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) on_duplicate: Duplicates,
    /// Whether small segments are merged after a change.
    pub(crate) compact: Option<bool>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PutMode {
    #[default]
    Publish,
    Append,
    Upsert,
    Delete,
}

impl PutMode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Append => "append",
            Self::Upsert => "upsert",
            Self::Delete => "delete",
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Duplicates {
    #[default]
    Error,
    First,
    Last,
}

impl From<Duplicates> for pheon::OnDuplicate {
    fn from(choice: Duplicates) -> Self {
        match choice {
            Duplicates::Error => Self::Error,
            Duplicates::First => Self::First,
            Duplicates::Last => Self::Last,
        }
    }
}

/// What to look keys up in.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LookupCommand {
    pub(crate) lookup: Option<String>,
    pub(crate) lookup_live: Option<String>,
    pub(crate) version: Option<u64>,
    pub(crate) columns: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) found: bool,
    /// All rows of each key, with their numbers, in place of aligned values.
    #[serde(default)]
    pub(crate) rows: bool,
    /// Only rows of this run, by the number of its first within the version and how many there are.
    pub(crate) within: Option<(u64, u64)>,
    /// When the version was published, in milliseconds since 1970: it must be this one.
    pub(crate) created: Option<u64>,
}

/// A dataset's name and the version asked for; `None`: the newest. What cannot be a version belongs to the name, which
/// then is no dataset's.
pub(crate) fn dataset_and_version(text: &str) -> (&str, Option<u64>) {
    let of_version = |(name, version): (&'_ str, &str)| -> Option<u64> {
        let canonical = version.bytes().all(|b| b.is_ascii_digit()) && !version.starts_with('0');
        version.parse().ok().filter(|_| canonical && !name.is_empty())
    };
    match text.rsplit_once('@') {
        Some(split) => match of_version(split) {
            Some(version) => (&text[..split.0.len()], Some(version)),
            None => (text, None),
        },
        None => (text, None),
    }
}

/// What a PATH descriptor names.
#[derive(Debug, PartialEq)]
pub(crate) enum Named<'a> {
    Dataset(&'a str),
    Live(&'a str),
}

fn named(path: &[String]) -> Result<Named<'_>, Status> {
    match path {
        [name] => Ok(Named::Dataset(name)),
        [live, name] if live == "live" => Ok(Named::Live(name)),
        _ => Err(Status::invalid_argument(format!(
            "path {path:?} names nothing: expected [\"dataset\"], [\"dataset@version\"] or [\"live\", \"name\"]"
        ))),
    }
}

fn parse<T: for<'de> Deserialize<'de>>(what: &str, json: &[u8]) -> Result<T, Status> {
    serde_json::from_slice(json).map_err(|e| Status::invalid_argument(format!("malformed {what} command: {e}")))
}

/// Whether a command's bytes are ours rather than Flight SQL's.
pub(crate) fn is_json(bytes: &[u8]) -> bool {
    bytes.first() == Some(&b'{')
}

fn check_json(bytes: &[u8]) -> Result<(), Status> {
    if is_json(bytes) {
        return Ok(());
    }
    Err(Status::invalid_argument("malformed command: expected a JSON object, or a Flight SQL command"))
}

impl ScanCommand {
    /// Reads a descriptor.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` says what is wrong with it.
    pub fn of_descriptor(descriptor: &FlightDescriptor) -> Result<Self, Status> {
        let command = match descriptor.r#type() {
            DescriptorType::Path => match named(&descriptor.path)? {
                Named::Dataset(name) => Self { dataset: Some(name.to_owned()), ..Self::default() },
                Named::Live(name) => Self { live: Some(name.to_owned()), ..Self::default() },
            },
            DescriptorType::Cmd => {
                check_json(&descriptor.cmd)?;
                parse("scan", &descriptor.cmd)?
            }
            DescriptorType::Unknown => return Err(unknown_descriptor()),
        };
        command.check()?;
        Ok(command)
    }

    /// Says what contradicts itself.
    pub(crate) fn check(&self) -> Result<(), Status> {
        let problem = match (&self.dataset, &self.live) {
            (Some(_), Some(_)) => "\"dataset\" and \"live\" exclude each other",
            (None, None) => "malformed scan command: \"dataset\" or \"live\" must be there",
            _ if self.keys.is_some() && (self.from.is_some() || self.to.is_some() || self.prefix.is_some()) => {
                "\"keys\" may not stand beside \"from\", \"to\" and \"prefix\""
            }
            _ if self.rows.is_some()
                && (self.keys.is_some() || self.from.is_some() || self.to.is_some() || self.prefix.is_some()) =>
            {
                "\"rows\" may not stand beside \"keys\", \"from\", \"to\" and \"prefix\""
            }
            _ if self.prefix.is_some() && (self.from.is_some() || self.to.is_some()) => {
                "\"prefix\" may not stand beside \"from\" and \"to\""
            }
            (None, Some(_)) if self.from.is_some() || self.to.is_some() || self.prefix.is_some() => {
                "a live map has no order of keys: \"from\", \"to\" and \"prefix\" do not apply to it"
            }
            (None, Some(_)) if self.created.is_some() => "a live map has no versions: \"created\" does not apply",
            (None, Some(_)) if self.rows.is_some() => {
                "the entries of a live map have no numbers: \"rows\" does not apply"
            }
            (None, Some(_)) if self.keys.is_some() => {
                "\"keys\" does not apply to a live map: look keys up with DoExchange"
            }
            _ => return Ok(()),
        };
        Err(Status::invalid_argument(problem))
    }
}

impl PutCommand {
    pub(crate) fn of_descriptor(descriptor: &FlightDescriptor) -> Result<Self, Status> {
        match descriptor.r#type() {
            DescriptorType::Path => match named(&descriptor.path)? {
                Named::Dataset(name) => Ok(Self { put: name.to_owned(), ..Self::default() }),
                Named::Live(_) => {
                    Err(Status::invalid_argument("live maps are not written with DoPut: use the action \"live\""))
                }
            },
            DescriptorType::Cmd => {
                check_json(&descriptor.cmd)?;
                parse("put", &descriptor.cmd)
            }
            DescriptorType::Unknown => Err(unknown_descriptor()),
        }
    }
}

impl LookupCommand {
    pub(crate) fn of_descriptor(descriptor: &FlightDescriptor) -> Result<Self, Status> {
        let command: Self = match descriptor.r#type() {
            DescriptorType::Path => match named(&descriptor.path)? {
                Named::Dataset(name) => Self { lookup: Some(name.to_owned()), ..Self::default() },
                Named::Live(name) => Self { lookup_live: Some(name.to_owned()), ..Self::default() },
            },
            DescriptorType::Cmd => {
                check_json(&descriptor.cmd)?;
                parse("lookup", &descriptor.cmd)?
            }
            DescriptorType::Unknown => return Err(unknown_descriptor()),
        };
        let problem = match (&command.lookup, &command.lookup_live) {
            (Some(_), Some(_)) => "\"lookup\" and \"lookup_live\" exclude each other",
            (None, None) => "malformed lookup command: \"lookup\" or \"lookup_live\" must be there",
            (None, Some(_)) if command.version.is_some() || command.created.is_some() => "a live map has no versions",
            (None, Some(_)) if command.rows => "a live map has one entry a key: \"rows\" does not apply",
            _ if command.within.is_some() && !command.rows => "\"within\" belongs to \"rows\"",
            _ if command.rows && command.found => "\"found\" and \"rows\" exclude each other",
            (None, Some(_)) if command.columns.is_some() => "a live map has one column: \"columns\" does not apply",
            _ => return Ok(command),
        };
        Err(Status::invalid_argument(problem))
    }
}

fn unknown_descriptor() -> Status {
    Status::invalid_argument("malformed descriptor: its type is neither PATH nor CMD")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(json: &str) -> Result<ScanCommand, String> {
        ScanCommand::of_descriptor(&FlightDescriptor::new_cmd(json.to_owned())).map_err(|s| s.message().to_owned())
    }

    #[test]
    fn names_and_versions() {
        for (text, expected) in [
            ("prices", ("prices", None)),
            ("prices@3", ("prices", Some(3))),
            ("prices@03", ("prices@03", None)),
            ("prices@", ("prices@", None)),
            ("prices@x", ("prices@x", None)),
            ("@3", ("@3", None)),
            ("a@b@7", ("a@b", Some(7))),
            ("prices@99999999999999999999", ("prices@99999999999999999999", None)),
        ] {
            assert_eq!(dataset_and_version(text), expected, "{text}");
        }
    }

    #[test]
    fn paths() {
        let path = |parts: &[&str]| {
            ScanCommand::of_descriptor(&FlightDescriptor::new_path(parts.iter().map(|&p| p.into()).collect()))
        };
        assert_eq!(path(&["prices"]).unwrap().dataset.as_deref(), Some("prices"));
        assert_eq!(path(&["live", "counters"]).unwrap().live.as_deref(), Some("counters"));
        for wrong in [&[][..], &["a", "b"], &["live", "a", "b"]] {
            assert_eq!(path(wrong).unwrap_err().code(), tonic::Code::InvalidArgument, "{wrong:?}");
        }
        assert!(PutCommand::of_descriptor(&FlightDescriptor::new_path(vec!["live".into(), "a".into()])).is_err());
        let unknown = FlightDescriptor::default();
        assert!(ScanCommand::of_descriptor(&unknown).unwrap_err().message().contains("neither PATH nor CMD"));
    }

    #[test]
    fn scans() {
        let command = scan(r#"{"dataset": "a", "keys": ["x", 3, true, ["y", 1.50]], "columns": ["c"], "limit": 5}"#);
        let command = command.unwrap();
        assert_eq!(command.limit, Some(5));
        let texts: Vec<Vec<String>> =
            command.keys.as_ref().unwrap().iter().map(|k| k.parts().iter().map(KeyScalar::text).collect()).collect();
        assert_eq!(texts, [vec!["x"], vec!["3"], vec!["true"], vec!["y", "1.5"]]);
        let again: ScanCommand = serde_json::from_slice(&serde_json::to_vec(&command).unwrap()).unwrap();
        assert_eq!(again, command, "a ticket says the same");
    }

    #[test]
    fn wrong_scans_say_why() {
        for (json, hint) in [
            ("{}", "must be there"),
            (r#"{"dataset": "a", "live": "b"}"#, "exclude"),
            (r#"{"dataset": "a", "colums": []}"#, "unknown field `colums`"),
            (r#"{"dataset": "a", "keys": [1], "from": 2}"#, "may not stand beside"),
            (r#"{"dataset": "a", "prefix": "x", "to": "y"}"#, "may not stand beside"),
            (r#"{"live": "a", "from": 1}"#, "no order"),
            (r#"{"live": "a", "keys": [1]}"#, "DoExchange"),
            (r#"{"live": "a", "rows": [[0, 1]]}"#, "no numbers"),
            (r#"{"live": "a", "created": 1}"#, "no versions"),
            (r#"{"dataset": "a", "rows": [[0, 1]], "keys": [1]}"#, "may not stand beside"),
            (r#"{"dataset": "a", "keys": [null]}"#, "malformed scan command"),
            (r#"{"dataset": "a", "limit": -1}"#, "malformed scan command"),
            (r#"{"dataset": "a""#, "malformed scan command"),
            ("dataset", "a JSON object"),
        ] {
            let error = scan(json).unwrap_err();
            assert!(error.contains(hint), "{json}: {error}");
        }
    }

    #[test]
    fn puts_and_lookups() {
        let put = |json: &str| PutCommand::of_descriptor(&FlightDescriptor::new_cmd(json.to_owned()));
        let command = put(r#"{"put": "a", "mode": "upsert", "key": ["k"], "on_duplicate": "last"}"#).unwrap();
        assert_eq!((command.mode, command.on_duplicate), (PutMode::Upsert, Duplicates::Last));
        assert!(put(r#"{"put": "a", "mode": "replace"}"#).unwrap_err().message().contains("replace"));
        assert!(put(r#"{"mode": "append"}"#).unwrap_err().message().contains("`put`"));
        let lookup = |json: &str| LookupCommand::of_descriptor(&FlightDescriptor::new_cmd(json.to_owned()));
        assert_eq!(lookup(r#"{"lookup": "a", "version": 3, "found": true}"#).unwrap().version, Some(3));
        for (json, hint) in [
            (r#"{"lookup": "a", "lookup_live": "b"}"#, "exclude"),
            (r#"{"lookup_live": "b", "version": 1}"#, "no versions"),
            (r#"{"lookup_live": "b", "created": 1}"#, "no versions"),
            (r#"{"lookup_live": "b", "columns": []}"#, "one column"),
            (r#"{"lookup_live": "b", "rows": true}"#, "one entry a key"),
            (r#"{"lookup": "b", "rows": true, "found": true}"#, "exclude"),
            (r#"{"found": true}"#, "must be there"),
        ] {
            assert!(lookup(json).unwrap_err().message().contains(hint), "{json}");
        }
    }
}
