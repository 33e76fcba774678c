//! The JSON form of a message in a field of type `google.protobuf.Any`.

use prost_reflect::{DynamicMessage, MessageDescriptor, SerializeOptions};

/// The maximum size of such a message, in bytes. Its form in memory is many times larger.
const BYTES_MAX: usize = 1 << 20;

/// Converts messages of type `Any`. The types of the messages in them must be in the descriptor set.
#[derive(Debug)]
pub struct AnyJson {
    any: MessageDescriptor,
    enums_as_ints: bool,
}

impl AnyJson {
    pub fn new(any: MessageDescriptor, enums_as_ints: bool) -> Self {
        Self { any, enums_as_ints }
    }

    /// The JSON of a message, with the names of the fields as they were declared.
    pub fn convert(&self, bytes: &[u8]) -> Result<Vec<u8>, &'static str> {
        if bytes.len() > BYTES_MAX {
            return Err("a message in an Any has more than 1 MiB");
        }
        let message = DynamicMessage::decode(self.any.clone(), bytes)
            .map_err(|_| "an Any is not a valid message")?;
        if message == DynamicMessage::new(self.any.clone()) {
            return Ok(b"{}".to_vec());
        }
        let options =
            SerializeOptions::new().use_proto_field_name(true).use_enum_numbers(self.enums_as_ints);
        let mut json = serde_json::Serializer::new(Vec::new());
        message.serialize_with_options(&mut json, &options).map_err(
            |_| "the message in an Any is not valid, or its type is not in the descriptor set",
        )?;
        Ok(json.into_inner())
    }
}
