//! The JSON form of a message in a field of type `google.protobuf.Any`.

use prost_reflect::{DynamicMessage, MessageDescriptor, ReflectMessage, SerializeOptions, Value};

/// The maximum size of such a message, in bytes. Its form in memory is many times larger.
const BYTES_MAX: usize = 1 << 20;

/// The maximum number of messages of type `Any` that are nested in each other. The conversion to JSON
/// recurses, and keeps copies of the bytes at each level.
const ANY_DEPTH_MAX: usize = 32;

/// The maximum nesting depth of all messages, as for the message in one `Any`.
const DEPTH_MAX: usize = 100;

const INVALID: &str =
    "the message in an Any is not valid, or its type is not in the descriptor set";

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
        check_depth(&message, 0, 0)?;
        let options =
            SerializeOptions::new().use_proto_field_name(true).use_enum_numbers(self.enums_as_ints);
        let mut json = serde_json::Serializer::new(Vec::new());
        message.serialize_with_options(&mut json, &options).map_err(|_| INVALID)?;
        Ok(json.into_inner())
    }
}

/// Fails if messages are nested too deep. `anys` and `depth` count the messages that enclose this
/// one: those of type `Any`, and all.
fn check_depth(message: &DynamicMessage, anys: usize, depth: usize) -> Result<(), &'static str> {
    if depth >= DEPTH_MAX {
        return Err("the messages in an Any are nested too deep");
    }
    if message.descriptor().full_name() == "google.protobuf.Any" {
        return match anys < ANY_DEPTH_MAX {
            true => check_content(message, anys + 1, depth + 1),
            false => Err("messages of type Any are nested too deep"),
        };
    }
    for (_, value) in message.fields() {
        check_value(value, anys, depth)?;
    }
    message.extensions().try_for_each(|(_, value)| check_value(value, anys, depth))
}

fn check_value(value: &Value, anys: usize, depth: usize) -> Result<(), &'static str> {
    match value {
        Value::Message(message) => check_depth(message, anys, depth + 1),
        Value::List(values) => values.iter().try_for_each(|value| check_value(value, anys, depth)),
        Value::Map(entries) => entries.values().try_for_each(|v| check_value(v, anys, depth)),
        _ => Ok(()),
    }
}

/// Checks the message in an `Any`. One without a known type fails when it is converted.
fn check_content(any: &DynamicMessage, anys: usize, depth: usize) -> Result<(), &'static str> {
    let (url, bytes) = (any.get_field_by_number(1), any.get_field_by_number(2));
    let name = url.as_ref().and_then(|url| url.as_str()?.rsplit('/').next());
    let known = name.and_then(|name| any.descriptor().parent_pool().get_message_by_name(name));
    match (known, bytes.as_ref().and_then(|bytes| bytes.as_bytes())) {
        (Some(known), Some(bytes)) => {
            let content = DynamicMessage::decode(known, bytes.as_ref()).map_err(|_| INVALID)?;
            check_depth(&content, anys, depth)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::protobuf::message_type;
    use crate::table::protobuf::wire::write_varint;

    /// A message in this number of nested `Any`.
    fn chain(depth: usize, innermost: &[u8]) -> Vec<u8> {
        const URL: &[u8] = b"/google.protobuf.Any";
        let (mut parts, mut length) = (vec![innermost.to_vec()], innermost.len());
        for _ in 0..depth {
            let mut head = [&[0x0A, URL.len() as u8], URL, &[0x12]].concat();
            write_varint(length as u64, &mut head);
            length += head.len();
            parts.push(head);
        }
        parts.reverse();
        parts.concat()
    }

    #[test]
    fn an_any_that_is_nested_too_deep_is_refused() {
        let set = include_bytes!("../../../tests/protobuf/all.desc");
        let any = AnyJson::new(message_type(set, "google.protobuf.Any").unwrap(), false);
        assert_eq!(any.convert(&chain(1, b"")), Err(INVALID), "the inner one has no type");
        let point = b"\x0A\x0B/test.Point";
        let shallow = |depth: usize| any.convert(&chain(depth - 1, point));
        let json = String::from_utf8(shallow(ANY_DEPTH_MAX).unwrap()).unwrap();
        assert_eq!(json.matches("google.protobuf.Any").count(), ANY_DEPTH_MAX - 1, "{json}");
        assert!(json.contains("test.Point"), "{json}");
        let refused = Err("messages of type Any are nested too deep");
        assert_eq!(shallow(ANY_DEPTH_MAX + 1), refused);
        let long = chain(40_000, b"");
        assert!(long.len() > BYTES_MAX / 2 && long.len() <= BYTES_MAX, "{}", long.len());
        assert_eq!(any.convert(&long), refused);
    }
}
