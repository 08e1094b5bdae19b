//! What reflection tells of Arrow Flight: `arrow-flight` has the generated code, but not the descriptors that it was made of.

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto,
};

const PACKAGE: &str = "arrow.flight.protocol";
const TIMESTAMP: &str = "google.protobuf.Timestamp";

/// A field's number, name and type.
type FieldOf = (i32, &'static str, &'static str);

/// Messages of Flight.proto that the service's methods use: a field is its number, its name, and its type; `*` before it for
/// many. What is not a type of protobuf is a message of this package.
#[rustfmt::skip]
const MESSAGES: [(&str, &[FieldOf]); 16] = [
    ("HandshakeRequest", &[(1, "protocol_version", "uint64"), (2, "payload", "bytes")]),
    ("HandshakeResponse", &[(1, "protocol_version", "uint64"), (2, "payload", "bytes")]),
    ("Empty", &[]),
    ("ActionType", &[(1, "type", "string"), (2, "description", "string")]),
    ("Criteria", &[(1, "expression", "bytes")]),
    ("Action", &[(1, "type", "string"), (2, "body", "bytes")]),
    ("Result", &[(1, "body", "bytes")]),
    ("SchemaResult", &[(1, "schema", "bytes")]),
    ("FlightDescriptor", &[(1, "type", "DescriptorType"), (2, "cmd", "bytes"), (3, "path", "*string")]),
    ("FlightInfo", &[
        (1, "schema", "bytes"), (2, "flight_descriptor", "FlightDescriptor"), (3, "endpoint", "*FlightEndpoint"),
        (4, "total_records", "int64"), (5, "total_bytes", "int64"), (6, "ordered", "bool"), (7, "app_metadata", "bytes"),
    ]),
    ("PollInfo", &[
        (1, "info", "FlightInfo"), (2, "flight_descriptor", "FlightDescriptor"), (3, "progress", "double"),
        (4, "expiration_time", TIMESTAMP),
    ]),
    ("FlightEndpoint", &[
        (1, "ticket", "Ticket"), (2, "location", "*Location"), (3, "expiration_time", TIMESTAMP), (4, "app_metadata", "bytes"),
    ]),
    ("Location", &[(1, "uri", "string")]),
    ("Ticket", &[(1, "ticket", "bytes")]),
    ("FlightData", &[
        (1, "flight_descriptor", "FlightDescriptor"), (2, "data_header", "bytes"), (3, "app_metadata", "bytes"),
        (1000, "data_body", "bytes"),
    ]),
    ("PutResult", &[(1, "app_metadata", "bytes")]),
];

/// Methods, what they take and what they give; `*` for a stream.
const METHODS: [(&str, &str, &str); 10] = [
    ("Handshake", "*HandshakeRequest", "*HandshakeResponse"),
    ("ListFlights", "Criteria", "*FlightInfo"),
    ("GetFlightInfo", "FlightDescriptor", "FlightInfo"),
    ("PollFlightInfo", "FlightDescriptor", "PollInfo"),
    ("GetSchema", "FlightDescriptor", "SchemaResult"),
    ("DoGet", "Ticket", "*FlightData"),
    ("DoPut", "*FlightData", "*PutResult"),
    ("DoExchange", "*FlightData", "*FlightData"),
    ("DoAction", "Action", "*Result"),
    ("ListActions", "Empty", "*ActionType"),
];

fn many(text: &str) -> (bool, &str) {
    text.strip_prefix('*').map_or((false, text), |one| (true, one))
}

fn field(&(number, name, kind): &(i32, &str, &str)) -> FieldDescriptorProto {
    let (repeated, kind) = many(kind);
    let local = |name: &str| Some(format!(".{PACKAGE}.{name}"));
    let (scalar, type_name) = match kind {
        "bytes" => (Type::Bytes, None),
        "string" => (Type::String, None),
        "bool" => (Type::Bool, None),
        "double" => (Type::Double, None),
        "int32" => (Type::Int32, None),
        "int64" => (Type::Int64, None),
        "uint64" => (Type::Uint64, None),
        "DescriptorType" => (Type::Enum, local("FlightDescriptor.DescriptorType")),
        TIMESTAMP => (Type::Message, Some(format!(".{TIMESTAMP}"))),
        message => (Type::Message, local(message)),
    };
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(if repeated { Label::Repeated } else { Label::Optional }.into()),
        r#type: Some(scalar.into()),
        type_name,
        ..FieldDescriptorProto::default()
    }
}

fn message(name: &str, fields: &[(i32, &str, &str)]) -> DescriptorProto {
    let mut message = DescriptorProto {
        name: Some(name.to_owned()),
        field: fields.iter().map(field).collect(),
        ..DescriptorProto::default()
    };
    if name == "FlightDescriptor" {
        let value = |(number, name): (i32, &str)| EnumValueDescriptorProto {
            name: Some(name.to_owned()),
            number: Some(number),
            ..EnumValueDescriptorProto::default()
        };
        message.enum_type.push(EnumDescriptorProto {
            name: Some("DescriptorType".to_owned()),
            value: [(0, "UNKNOWN"), (1, "PATH"), (2, "CMD")].map(value).into(),
            ..EnumDescriptorProto::default()
        });
    }
    message
}

fn method(&(name, input, output): &(&str, &str, &str)) -> MethodDescriptorProto {
    let ((takes_many, input), (gives_many, output)) = (many(input), many(output));
    MethodDescriptorProto {
        name: Some(name.to_owned()),
        input_type: Some(format!(".{PACKAGE}.{input}")),
        output_type: Some(format!(".{PACKAGE}.{output}")),
        client_streaming: Some(takes_many),
        server_streaming: Some(gives_many),
        ..MethodDescriptorProto::default()
    }
}

/// The descriptors of Flight and of what it builds on.
pub(crate) fn flight() -> FileDescriptorSet {
    const TIMESTAMP_FILE: &str = "google/protobuf/timestamp.proto";
    let timestamp = FileDescriptorProto {
        name: Some(TIMESTAMP_FILE.to_owned()),
        package: Some("google.protobuf".to_owned()),
        message_type: vec![message("Timestamp", &[(1, "seconds", "int64"), (2, "nanos", "int32")])],
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    };
    let flight = FileDescriptorProto {
        name: Some("Flight.proto".to_owned()),
        package: Some(PACKAGE.to_owned()),
        dependency: vec![TIMESTAMP_FILE.to_owned()],
        message_type: MESSAGES.iter().map(|(name, fields)| message(name, fields)).collect(),
        service: vec![ServiceDescriptorProto {
            name: Some("FlightService".to_owned()),
            method: METHODS.iter().map(method).collect(),
            ..ServiceDescriptorProto::default()
        }],
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    };
    FileDescriptorSet { file: vec![timestamp, flight] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_there() {
        let set = flight();
        let known: Vec<String> = set.file[1].message_type.iter().map(|m| format!(".{PACKAGE}.{}", m.name())).collect();
        for field in set.file[1].message_type.iter().flat_map(|m| &m.field) {
            if field.r#type() == Type::Message && !field.type_name().ends_with("Timestamp") {
                assert!(known.contains(&field.type_name().to_owned()), "{}", field.type_name());
            }
        }
        let methods = &set.file[1].service[0].method;
        assert!(methods.iter().all(|m| known.contains(&m.input_type().to_owned())));
        assert!(methods.iter().all(|m| known.contains(&m.output_type().to_owned())));
    }
}
