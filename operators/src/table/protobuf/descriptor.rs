//! Message types of a descriptor set.

use prost_reflect::{DescriptorPool, MessageDescriptor};
use std::fmt;

/// Why a descriptor set or a message type is not usable.
#[derive(Debug, PartialEq, Eq)]
pub struct SchemaError {
    /// Spark's error condition.
    pub condition: &'static str,
    /// The problem.
    pub reason: String,
}

impl SchemaError {
    pub fn new(condition: &'static str, reason: impl Into<String>) -> Self {
        Self { condition, reason: reason.into() }
    }
}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// Finds a message type in a descriptor set, by its full name or by its name without the package.
pub fn message_type(set: &[u8], name: &str) -> Result<MessageDescriptor, SchemaError> {
    let pool = DescriptorPool::decode(set).map_err(|error| {
        let text = error.to_string();
        let condition = match text.contains("imported file") {
            true => "PROTOBUF_DEPENDENCY_NOT_FOUND",
            false => "CANNOT_PARSE_PROTOBUF_DESCRIPTOR",
        };
        SchemaError::new(condition, format!("the descriptor set is not usable: {text}"))
    })?;
    if let Some(found) = pool.get_message_by_name(name) {
        return Ok(found);
    }
    let is_named = |message: &MessageDescriptor| message.name() == name;
    let mut named = pool.all_messages().filter(is_named);
    match (named.next(), named.next()) {
        (Some(found), None) => Ok(found),
        (Some(first), Some(second)) => Err(SchemaError::new(
            "PROTOBUF_MESSAGE_NOT_FOUND",
            format!(
                "the message type `{name}` may be `{}` or `{}`",
                first.full_name(),
                second.full_name()
            ),
        )),
        (None, _) => Err(SchemaError::new(
            "PROTOBUF_MESSAGE_NOT_FOUND",
            format!("the descriptor set has no message type `{name}`"),
        )),
    }
}
