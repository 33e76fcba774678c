//! A client of a schema registry with the HTTP interface of Confluent's. The functions `from_avro`
//! and `to_avro` use it.
//!
//! * [`RegistryOptions`]: the addresses and credentials, from the options of a function.
//! * [`Registry`]: the client. All calls with the same options share one. It asks for each schema
//!   once and caches it, because the schema of an id never changes.
//! * [`Header`]: the bytes before a record that state the id of its schema.
//!
//! A registry that cannot be reached must never be mistaken for a record that cannot be read: see
//! [`Failure`]. Requests run on threads of their own, and are repeated with increasing delays. The
//! caller waits, but stops waiting when its query ends.

#[cfg(feature = "schema-registry")]
mod client;
#[cfg(not(feature = "schema-registry"))]
mod disabled;
#[cfg(all(test, feature = "schema-registry"))]
#[path = "../../../tests/registry/mod.rs"]
pub mod fake;
#[cfg(feature = "schema-registry")]
mod http;
mod options;

#[cfg(feature = "schema-registry")]
pub use client::Registry;
#[cfg(not(feature = "schema-registry"))]
pub use disabled::Registry;
pub use options::{ADDRESS, OPTIONS, RegistryOptions, SECRETS, SUBJECT};

/// A schema of the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The id, which is in the header of each record.
    pub id: u32,
    /// The language of the schema: `AVRO`, `PROTOBUF` or `JSON`.
    pub language: String,
    /// The schema.
    pub text: String,
    /// The schemas that this one refers to, each after those that it refers to itself.
    pub references: Vec<String>,
}

/// Why the registry gave no schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The registry has no such schema. A record that names it is bad.
    Unknown(String),
    /// The registry did not answer, or could not, until the time for retries was over. This says
    /// nothing about the record.
    Unavailable(String),
    /// The registry refused the request, for example because of the credentials. A retry would not
    /// help.
    Refused(String),
    /// The query ended while it waited for the registry.
    Canceled(String),
}

impl Failure {
    /// The error condition; `None` if the record is to blame.
    pub fn condition(&self) -> Option<&'static str> {
        match self {
            Self::Unknown(_) => None,
            Self::Unavailable(_) => Some("SCHEMA_REGISTRY_UNAVAILABLE"),
            Self::Refused(_) => Some("SCHEMA_REGISTRY_FAILED"),
            Self::Canceled(_) => Some("OPERATION_CANCELED"),
        }
    }

    /// The reason, with the address of the registry.
    pub fn reason(&self) -> &str {
        match self {
            Self::Unknown(reason)
            | Self::Unavailable(reason)
            | Self::Refused(reason)
            | Self::Canceled(reason) => reason,
        }
    }

    /// What the user can do.
    pub fn fix(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "Check the subject, and that the address is that of the registry",
            Self::Unavailable(_) => {
                "Start the registry or correct its address; the query resumes at its checkpoint"
            }
            Self::Refused(_) => "Check the address and the credentials",
            Self::Canceled(_) => "",
        }
    }
}

/// The 5 bytes before a record: a zero and the id of the schema, big endian.
pub struct Header;

impl Header {
    /// Splits a record into the id of its schema and the bytes after the header.
    pub fn split(record: &[u8]) -> Result<(u32, &[u8]), &'static str> {
        match record {
            [0, a, b, c, d, rest @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), rest)),
            [0, ..] | [] => Err("the record is shorter than the header of 5 bytes"),
            _ => Err("the record does not begin with the zero of the header"),
        }
    }

    /// Appends a header.
    pub fn write(id: u32, out: &mut Vec<u8>) {
        out.push(0);
        out.extend_from_slice(&id.to_be_bytes());
    }
}
