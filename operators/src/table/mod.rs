//! Tables: rows with a schema, expressions over them, and queries in Spark SQL or as a DataFrame
//! ([`crate::session`]). Both APIs build a [logical plan](plan), which [`physical`] translates to
//! stages.
//!
//! * [`types`]: data types and schemas. [`row`]: the binary row layout. [`value`]: a value outside
//!   a row, for input and output. [`datetime`]: calendars, time zones, patterns. [`text`]: text
//!   forms of values, CSV and JSON, regular expressions, and invalid UTF-8.
//! * `avro`: schemas and the binary form of Avro. `protobuf`: message types, and the binary form of
//!   their messages. `schema_registry`: a client of schema registries.
//! * [`arbitrary_state`]: processors of rows, with state and timers for each key.
//! * [`function_docs`]: descriptions of the SQL functions for users.
//! * [`expr`]: unresolved expressions, their resolution by Spark's rules, and their compilation to
//!   typed closures.

pub mod arbitrary_state;
pub(crate) mod avro;
pub mod datetime;
mod deep_recursion;
pub mod error;
pub mod expr;
pub mod function_docs;
pub mod functions_not_here;
pub mod physical;
pub mod plan;
#[cfg(feature = "protobuf")]
pub(crate) mod protobuf;
pub mod row;
pub(crate) mod schema_registry;
pub mod sql;
pub mod text;
pub mod types;
pub mod value;
pub(crate) mod variant;
