//! Protobuf messages: the conversion between their binary form and rows. The functions
//! `from_protobuf` and `to_protobuf` use this module.
//!
//! * [`message_type`]: finds a message type in a descriptor set, the output of `protoc
//!   --descriptor_set_out`.
//! * [`Shape`]: the SQL type of a message type, as Spark maps it, and what decoding needs to know.
//! * [`Decoder`]: decodes messages to rows. It allocates nothing beyond the row for most types.
//! * [`Encoder`]: encodes rows as messages.
//!
//! The crate `prost-reflect` reads descriptors and makes JSON of messages in fields of type `Any`.
//! The binary form is that of <https://protobuf.dev/programming-guides/encoding/>.

mod any_json;
mod decode;
mod descriptor;
mod encode;
mod message_index;
mod shape;
#[cfg(test)]
mod tests;
mod wire;

pub use decode::Decoder;
pub use descriptor::{SchemaError, message_type};
pub use encode::Encoder;
pub use message_index::MessageIndex;
pub use shape::{ReadOptions, Shape};
