use super::*;
use crate::table::expr::cell::Cell;
use crate::table::types::DataType;
use crate::table::value::Value;
use bumpalo::Bump;
use proptest::prelude::*;
use std::sync::LazyLock;

const ALL: &[u8] = include_bytes!("../../../tests/protobuf/all.desc");
const OLD: &[u8] = include_bytes!("../../../tests/protobuf/old.desc");
const CASES: &str = include_str!("../../../tests/protobuf/cases.jsonl");

/// The message type and the bytes of each case.
static PARSED: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
    let parsed = CASES.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let bytes = |hex: &str| {
        (0..hex.len() / 2)
            .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
            .collect()
    };
    parsed
        .map(|case| {
            let text = |key: &str| case[key].as_str().unwrap().to_string();
            (text("message"), bytes(&text("hex")))
        })
        .collect()
});

/// Decodes a message, encodes the row, and decodes that again. Returns both rows; `None` if the
/// message is bad.
fn there_and_back(name: &str, bytes: &[u8], emits_defaults: bool) -> Option<(Value, Value)> {
    let set = if name.starts_with("old") { OLD } else { ALL };
    let message = message_type(set, name).unwrap();
    let recursion_max = Some(2);
    let options = ReadOptions {
        recursion_max,
        emits_defaults,
        // The name of a number without a symbol cannot be written.
        enums_as_ints: true,
        ..ReadOptions::default()
    };
    let shape = Shape::of(&message, &options).unwrap();
    let data_type = shape.data_type();
    let DataType::Struct(fields) = &data_type else { unreachable!() };
    let encoder = Encoder::new(fields, &message).unwrap();
    let (mut decoder, arena) = (Decoder::new(shape), Bump::new());
    let row: Cell<'_> = decoder.decode(bytes, &arena).ok()?;
    let mut out = Vec::new();
    encoder.encode(row, &mut out).unwrap();
    let again = decoder.decode(&out, &arena).unwrap();
    Some((row.value(&data_type), again.value(&data_type)))
}

/// The debug form, in which NaN equals NaN.
fn shown(value: &Value) -> String {
    format!("{value:?}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Decodes damaged messages. A row that is decoded is the same after it is encoded and decoded
    /// again.
    #[test]
    fn damaged_messages_are_errors_or_rows_that_can_be_written(
        case in 0usize..10_000,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
        tail in prop::collection::vec(any::<u8>(), 0..12),
        emits_defaults in any::<bool>(),
    ) {
        let (name, mut bytes) = PARSED[case % PARSED.len()].clone();
        for (at, byte) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        bytes.extend(tail);
        if let Some((first, second)) = there_and_back(&name, &bytes, emits_defaults) {
            prop_assert_eq!(shown(&first), shown(&second));
        }
    }

    #[test]
    fn any_bytes_are_an_error_or_a_row(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        for name in ["test.Nested", "test.Known", "test.Wrapped", "old.Old"] {
            let set = if name.starts_with("old") { OLD } else { ALL };
            let options = ReadOptions { any_as_json: true, unwraps: true, ..ReadOptions::default() };
            let shape = Shape::of(&message_type(set, name).unwrap(), &options).unwrap();
            let data_type = shape.data_type();
            let arena = Bump::new();
            if let Ok(row) = Decoder::new(shape).decode(&bytes, &arena) {
                row.value(&data_type);
            }
        }
    }
}

#[test]
fn every_case_can_be_decoded() {
    assert!(PARSED.len() > 60);
    for (name, bytes) in &*PARSED {
        assert!(there_and_back(name, bytes, false).is_some(), "{name} {bytes:?}");
    }
}

/// Required fields of every type, of which the row has NULL.
#[test]
fn a_required_field_of_type_void_is_written_as_the_default_of_its_type() {
    use prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
    use prost_reflect::prost_types::{FileDescriptorProto, FileDescriptorSet};
    let field = |(index, r#type): (usize, Type)| prost_reflect::prost_types::FieldDescriptorProto {
        name: Some(format!("f{index}")),
        number: Some(index as i32 + 1),
        label: Some(Label::Required.into()),
        r#type: Some(r#type.into()),
        type_name: matches!(r#type, Type::Enum).then(|| "Size".to_string()),
        ..Default::default()
    };
    let types = [
        Type::Int32,
        Type::Sint64,
        Type::Bool,
        Type::Fixed32,
        Type::Double,
        Type::String,
        Type::Enum,
    ];
    let value =
        |(name, number): (&str, i32)| prost_reflect::prost_types::EnumValueDescriptorProto {
            name: Some(name.to_string()),
            number: Some(number),
            ..Default::default()
        };
    let set = FileDescriptorSet {
        file: vec![FileDescriptorProto {
            name: Some("f".to_string()),
            message_type: vec![prost_reflect::prost_types::DescriptorProto {
                name: Some("M".to_string()),
                field: types.into_iter().enumerate().map(field).collect(),
                ..Default::default()
            }],
            enum_type: vec![prost_reflect::prost_types::EnumDescriptorProto {
                name: Some("Size".to_string()),
                value: [("LARGE", 2), ("SMALL", 1)].into_iter().map(value).collect(),
                ..Default::default()
            }],
            ..Default::default()
        }],
    };
    let set = prost_reflect::DescriptorPool::from_file_descriptor_set(set).unwrap().encode_to_vec();
    let message = message_type(&set, "M").unwrap();
    let typed = |data_types: Vec<DataType>| {
        let fields: Vec<_> = data_types
            .into_iter()
            .enumerate()
            .map(|(index, data_type)| {
                crate::table::types::Field::new(format!("f{index}"), data_type, true)
            })
            .collect();
        let arena = Bump::new();
        let mut out = bumpalo::collections::Vec::new_in(&arena);
        crate::table::row::RowWriter::new(&mut out, fields.len());
        let mut written = Vec::new();
        let encoder = Encoder::new(&fields, &message).unwrap();
        encoder.encode(Cell::Bytes(&out), &mut written).unwrap();
        written
    };
    use DataType as T;
    let own = vec![T::Int, T::Long, T::Boolean, T::Int, T::Double, T::String, T::Int];
    let expected = [
        &[0x08, 0, 0x10, 0, 0x18, 0, 0x25, 0, 0, 0, 0, 0x29, 0, 0, 0, 0, 0, 0, 0, 0][..],
        &[0x32, 0, 0x38, 2],
    ]
    .concat();
    assert_eq!(typed(own), expected);
    assert_eq!(typed(vec![T::Null; 7]), expected);
}

#[test]
fn few_bytes_do_not_take_much_memory() {
    let decode = |name: &str, part: &[u8], count: usize| {
        let shape = Shape::of(&message_type(ALL, name).unwrap(), &ReadOptions::default()).unwrap();
        let arena = Bump::new();
        let decoded = Decoder::new(shape).decode(&part.repeat(count), &arena).map(drop);
        (decoded.map_err(|error| error.to_string()), arena.allocated_bytes())
    };
    // Each empty message is a row of 18 fields.
    assert_eq!(decode("test.Wide", &[0x0A, 0], 20_000).0, Ok(()));
    // So many numbers of one field, of which the last one counts.
    assert_eq!(decode("test.Scalars", &[0x10, 5], 100_000).0, Ok(()));
    // So many symbols, of a byte each.
    let paints = |count: usize, symbol: u8| {
        let mut part = vec![0x6A];
        wire::write_varint(count as u64, &mut part);
        part.resize(part.len() + count, symbol);
        part
    };
    assert_eq!(decode("test.Nested", &paints(100_000, 99), 1).0, Ok(()));
    let (decoded, bytes) = decode("test.Nested", &paints(4_000_000, 99), 1);
    assert!(decoded.unwrap_err().contains("or too long values"));
    assert!(bytes < 1 << 29, "{bytes}");
    for (decoded, bytes) in
        [decode("test.Wide", &[0x0A, 0], 900_000), decode("test.Scalars", &[0x10, 5], 9_000_000)]
    {
        assert!(decoded.unwrap_err().contains("the message has too many fields"));
        assert!(bytes < 1 << 29, "{bytes}");
    }
}
