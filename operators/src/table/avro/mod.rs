//! Avro schemas, and the conversion between binary Avro and rows. The functions `from_avro` and
//! `to_avro` use this module.
//!
//! * [`Schema`]: an Avro schema, parsed from JSON. [`sql_type`] gives the SQL type of its values,
//!   as Spark maps it, and [`schema_of`] the schema that Spark gives to a SQL type.
//! * [`Decoder`]: decodes values that were written with one schema to rows of another, by Avro's
//!   rules of schema resolution. Both schemas are compared once; decoding a value allocates little
//!   beyond its row.
//! * [`Encoder`]: encodes values of a SQL type by a schema.
//!
//! The binary form and the rules of resolution are those of the Avro specification 1.12,
//! <https://avro.apache.org/docs/1.12.0/specification/>.

mod decode;
mod default_value;
mod encode;
mod schema;
mod sql_type;
#[cfg(test)]
mod tests;

pub use decode::{DecodeError, Decoder};
pub use encode::{EncodeError, Encoder};
pub use schema::{Schema, SchemaError};
pub use sql_type::{schema_of, sql_type};
