//! Session options as Flight.proto has them: `catalog` and `schema`, of which each has one value. Calls stand alone, so there
//! is nothing else to keep.

use std::collections::HashMap;

use bytes::Bytes;
use pheon_sql::{CATALOG, SCHEMA};
use prost::Message;
use tonic::Status;

/// Actions that this module answers.
pub(super) const ACTIONS: [(&str, &str); 3] = [
    (SET, "Sets options of the session: catalog and schema, to the only values that they have"),
    (GET, "The options of the session"),
    (CLOSE, "Ends the session, which has nothing that would have to end"),
];
const SET: &str = "SetSessionOptions";
const GET: &str = "GetSessionOptions";
const CLOSE: &str = "CloseSession";

/// Why an option was not set.
const INVALID_NAME: i32 = 1;
const INVALID_VALUE: i32 = 2;
/// What became of a session that was closed.
const CLOSED: i32 = 1;

#[derive(Clone, PartialEq, Message)]
pub(super) struct StringList {
    #[prost(string, repeated, tag = "1")]
    pub(super) values: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum OptionValue {
    #[prost(string, tag = "1")]
    String(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(sfixed64, tag = "3")]
    Int64(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    Strings(StringList),
}

/// `SessionOptionValue`. Without a value: unset.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SessionOption {
    #[prost(oneof = "OptionValue", tags = "1, 2, 3, 4, 5")]
    pub(super) value: Option<OptionValue>,
}

/// `SetSessionOptionsRequest` and `GetSessionOptionsResult`, which are alike.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SessionOptions {
    #[prost(map = "string, message", tag = "1")]
    pub(super) options: HashMap<String, SessionOption>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OptionError {
    #[prost(int32, tag = "1")]
    pub(super) value: i32,
}

/// `SetSessionOptionsResult`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OptionErrors {
    #[prost(map = "string, message", tag = "1")]
    pub(super) errors: HashMap<String, OptionError>,
}

/// `CloseSessionResult`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Closed {
    #[prost(int32, tag = "1")]
    pub(super) status: i32,
}

/// The answer to an action; `None` if it is another module's.
pub(super) fn answer(action: &str, body: &[u8]) -> Result<Option<Bytes>, Status> {
    let answer = match action {
        SET => {
            let malformed = |e| Status::invalid_argument(format!("malformed body of {SET}: {e}"));
            let asked = SessionOptions::decode(body).map_err(malformed)?;
            let wrong = asked.options.into_iter().filter_map(|(name, option)| {
                let error = check(&name, &option)?;
                Some((name, OptionError { value: error }))
            });
            OptionErrors { errors: wrong.collect() }.encode_to_vec()
        }
        GET => {
            let of = |(name, value): (&str, &str)| {
                (name.to_owned(), SessionOption { value: Some(OptionValue::String(value.to_owned())) })
            };
            SessionOptions { options: OPTIONS.into_iter().map(of).collect() }.encode_to_vec()
        }
        CLOSE => Closed { status: CLOSED }.encode_to_vec(),
        _ => return Ok(None),
    };
    Ok(Some(answer.into()))
}

const OPTIONS: [(&str, &str); 2] = [("catalog", CATALOG), ("schema", SCHEMA)];

/// Why an option cannot have a value, if it cannot.
fn check(name: &str, option: &SessionOption) -> Option<i32> {
    let Some((_, only)) = OPTIONS.iter().find(|(known, _)| *known == name) else { return Some(INVALID_NAME) };
    match &option.value {
        None => None,
        Some(OptionValue::String(value)) if value.is_empty() || value == only => None,
        Some(_) => Some(INVALID_VALUE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> SessionOption {
        SessionOption { value: Some(OptionValue::String(value.to_owned())) }
    }

    #[test]
    fn only_what_there_is_can_be_set() {
        let options = [
            ("catalog", text("pheon")),
            ("schema", text("other")),
            ("timezone", text("UTC")),
            ("unset", SessionOption::default()),
        ];
        let options = options.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
        let body = SessionOptions { options }.encode_to_vec();
        let errors = OptionErrors::decode(answer(SET, &body).unwrap().unwrap()).unwrap().errors;
        let mut errors: Vec<_> = errors.iter().map(|(name, e)| (name.as_str(), e.value)).collect();
        errors.sort_unstable();
        assert_eq!(errors, [("schema", INVALID_VALUE), ("timezone", INVALID_NAME), ("unset", INVALID_NAME)]);
        assert!(answer(SET, b"\xff").is_err());
    }

    #[test]
    fn options_are_told_and_sessions_closed() {
        let options = SessionOptions::decode(answer(GET, b"").unwrap().unwrap()).unwrap().options;
        assert_eq!(options.get("catalog"), Some(&text("pheon")));
        assert_eq!(options.get("schema"), Some(&text("public")));
        assert_eq!(Closed::decode(answer(CLOSE, b"").unwrap().unwrap()).unwrap().status, CLOSED);
        assert!(answer("other", b"").unwrap().is_none());
    }
}
