use super::*;
use crate::table::expr::cell::Cell;
use crate::table::row::encode;
use crate::table::row::{Row, Slot};
use crate::table::types::{DataType, Field};
use crate::table::value::Value;
use bumpalo::Bump;
use proptest::prelude::*;

/// Generates a type and a value of that type. TINYINT and SMALLINT are left out because Avro has
/// only `int` for them, which reads back as INT.
fn typed_value() -> impl Strategy<Value = (DataType, Value)> {
    let leaf = prop_oneof![
        any::<i32>().prop_map(|v| (DataType::Int, Value::Long(i64::from(v)))),
        any::<i64>().prop_map(|v| (DataType::Long, Value::Long(v))),
        any::<i64>().prop_map(|v| (DataType::Timestamp, Value::Long(v))),
        any::<i32>().prop_map(|v| (DataType::Date, Value::Long(i64::from(v)))),
        any::<bool>().prop_map(|v| (DataType::Boolean, Value::Boolean(v))),
        (-1e9f64..1e9).prop_map(|v| (DataType::Double, Value::Double(v))),
        (-1e9f32..1e9).prop_map(|v| (DataType::Float, Value::Double(f64::from(v)))),
        (-99_999i128..=99_999).prop_map(|v| (DataType::Decimal(5, 2), Value::Decimal(v))),
        any::<i64>().prop_map(|v| (DataType::Decimal(38, 3), Value::Decimal(i128::from(v) << 50))),
        "[a-zé ]{0,12}".prop_map(|v| (DataType::String, Value::String(v))),
        prop::collection::vec(any::<u8>(), 0..20)
            .prop_map(|v| (DataType::Binary, Value::Binary(v))),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            (inner.clone(), 0usize..4, any::<bool>()).prop_map(|((t, v), n, has_null)| {
                let mut values = vec![v; n];
                values.extend(has_null.then_some(Value::Null));
                (DataType::Array(Box::new(t)), Value::Array(values))
            }),
            (inner.clone(), prop::collection::btree_set("[a-c]{0,3}", 0..20)).prop_map(
                |((t, v), keys)| {
                    let entries = keys.into_iter().map(|key| (Value::String(key), v.clone()));
                    let data_type = DataType::Map(Box::new(DataType::String), Box::new(t));
                    (data_type, Value::Map(entries.collect()))
                }
            ),
            prop::collection::vec((inner, any::<bool>(), any::<bool>()), 1..4).prop_map(
                |members| {
                    let field = |(index, (data_type, nullable))| {
                        Field::new(format!("f{index}"), data_type, nullable)
                    };
                    let (types, values): (Vec<_>, Vec<_>) = members
                        .into_iter()
                        .map(|((t, v), nullable, is_null)| {
                            ((t, nullable), if nullable && is_null { Value::Null } else { v })
                        })
                        .unzip();
                    (
                        DataType::Struct(types.into_iter().enumerate().map(field).collect()),
                        Value::Struct(values),
                    )
                }
            ),
        ]
    })
}

fn written(data_type: &DataType, value: &Value) -> Vec<u8> {
    let row = encode(std::slice::from_ref(value));
    let cell = Cell::of(Row(&row), Slot::new(0, 1), data_type.physical());
    let mut out = Vec::new();
    Encoder::new(data_type, &schema_of(data_type, true)).unwrap().encode(cell, &mut out).unwrap();
    out
}

fn read(writer: &str, reader: &str, bytes: &[u8]) -> Result<Value, String> {
    let (writer, reader) = (Schema::parse(writer).unwrap(), Schema::parse(reader).unwrap());
    let data_type = sql_type(&reader).unwrap().data_type;
    let decoder = Decoder::new(&writer, &reader).map_err(|error| error.to_string())?;
    let arena = Bump::new();
    let cell = decoder.decode(bytes, &arena).map_err(|error| error.to_string())?;
    Ok(cell.value(&data_type))
}

proptest! {
    #[test]
    fn written_values_are_read_back((data_type, value) in typed_value(), is_null: bool) {
        let value = if is_null { Value::Null } else { value };
        let bytes = written(&data_type, &value);
        let schema = schema_of(&data_type, true);
        prop_assert_eq!(&sql_type(&schema).unwrap().data_type, &data_type);
        let arena = Bump::new();
        let cell = Decoder::new(&schema, &schema).unwrap().decode(&bytes, &arena).unwrap();
        prop_assert_eq!(cell.value(&data_type), value);
    }

    #[test]
    fn changed_and_cut_bytes_never_panic(
        (data_type, value) in typed_value(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = written(&data_type, &value);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        let schema = schema_of(&data_type, true);
        let arena = Bump::new();
        if let Ok(cell) = Decoder::new(&schema, &schema).unwrap().decode(&bytes, &arena) {
            // Converting the cell to a value reads every byte of the row.
            let _ = cell.value(&data_type);
        }
    }

    #[test]
    fn any_text_as_a_schema_is_parsed_or_refused(text in r#"[\[\]{}":,a-z0-9. ]{0,60}"#) {
        let _ = Schema::parse(&text);
    }
}

#[test]
fn a_few_bytes_that_declare_many_values_are_refused() {
    // One block of 2^40 nulls.
    let nulls = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01, 0x00];
    let schema = r#"{"type": "array", "items": "null"}"#;
    assert_eq!(read(schema, schema, &nulls), Err("byte 7: the value has too many fields".into()));
    // Many blocks in an array of arrays: each block is within the limit, their sum is not.
    let million = [0x80, 0x89, 0x7A, 0x00];
    let mut bytes = vec![0x80, 0x10];
    bytes.extend(million.repeat(1024));
    bytes.push(0);
    let nested = format!(r#"{{"type": "array", "items": {schema}}}"#);
    let refused = read(&nested, &nested, &bytes).unwrap_err();
    assert!(refused.ends_with("the value has too many fields"), "{refused}");
    // A block that states more elements than the data has bytes.
    let schema = r#"{"type": "array", "items": "long"}"#;
    let refused = read(schema, schema, &[0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F]).unwrap_err();
    assert_eq!(refused, "byte 6: a block has more elements than bytes are left");
}

#[test]
fn a_schema_that_expands_exponentially_is_refused() {
    let mut fields = String::from(r#"{"name": "f", "type": "int"}"#);
    for level in 0..20 {
        let inner = format!(r#"{{"type": "record", "name": "R{level}", "fields": [{fields}]}}"#);
        fields =
            format!(r#"{{"name": "a", "type": {inner}}}, {{"name": "b", "type": "R{level}"}}"#);
    }
    let text = format!(r#"{{"type": "record", "name": "Top", "fields": [{fields}]}}"#);
    assert_eq!(Schema::parse(&text).unwrap_err().0, "the schema has more than 100000 types");
}

#[test]
fn the_last_of_several_map_entries_with_one_key_is_kept() {
    let schema = r#"{"type": "map", "values": "int"}"#;
    let bytes = [0x06, 0x02, b'a', 0x02, 0x02, b'b', 0x04, 0x02, b'a', 0x06, 0x00];
    let entry = |key: &str, value| (Value::String(key.into()), Value::Long(value));
    let expected = Value::Map(vec![entry("b", 2), entry("a", 3)]);
    assert_eq!(read(schema, schema, &bytes), Ok(expected));
    // More keys than `PAIRS_MAX`, so that duplicates are found by hashing.
    let mut bytes = vec![80];
    for index in 0..40u8 {
        bytes.extend([0x02, b'a' + index % 20, 2 * index]);
    }
    bytes.push(0);
    let expected = (20..40).map(|i| entry(&char::from(b'a' + i % 20).to_string(), i64::from(i)));
    assert_eq!(read(schema, schema, &bytes), Ok(Value::Map(expected.collect())));
}

#[test]
fn an_incompatible_union_branch_fails_only_when_a_value_uses_it() {
    let writer = r#"["int", "string"]"#;
    assert_eq!(read(writer, r#""long""#, &[0x00, 0x04]), Ok(Value::Long(2)));
    let refused = read(writer, r#""long""#, &[0x02, 0x02, b'x']).unwrap_err();
    assert_eq!(refused, "byte 1: the reader has no type for this branch of the union");
    let refused = read(r#"["boolean", "string"]"#, r#""long""#, &[0x00, 0x01]).unwrap_err();
    assert_eq!(refused, "data of type `union` cannot be read as `long`");
}

#[test]
fn fields_that_the_reader_lacks_are_skipped() {
    let field = |name: &str, of: &str| format!(r#"{{"name": "{name}", "type": {of}}}"#);
    let record = |fields: &[String]| {
        format!(r#"{{"type": "record", "name": "R", "fields": [{}]}}"#, fields.join(", "))
    };
    let types = [
        (r#""null""#, vec![]),
        (r#""boolean""#, vec![1]),
        (r#""float""#, vec![0; 4]),
        (r#""double""#, vec![0; 8]),
        (r#"{"type": "array", "items": "string"}"#, vec![2, 2, b'x', 0]),
        (r#"{"type": "array", "items": "null"}"#, vec![2, 0]),
        (r#"{"type": "map", "values": "int"}"#, vec![2, 2, b'x', 4, 0]),
        (r#"{"type": "fixed", "name": "F", "size": 3}"#, vec![1, 2, 3]),
        (r#"{"type": "enum", "name": "E", "symbols": ["A"]}"#, vec![0]),
        (r#"["null", "string"]"#, vec![2, 2, b'x']),
        (r#"{"type": "record", "name": "P", "fields": [{"name": "x", "type": "int"}]}"#, vec![6]),
    ];
    for (of, mut bytes) in types {
        let writer = record(&[field("gone", of), field("kept", r#""int""#)]);
        let reader = record(&[field("kept", r#""int""#)]);
        bytes.push(10);
        assert_eq!(read(&writer, &reader, &bytes), Ok(Value::Struct(vec![Value::Long(5)])), "{of}");
    }
}

#[test]
fn a_decimal_must_fit_its_bytes_and_have_at_most_38_digits() {
    let read = |of: &str, precision: &str| {
        let json = format!(r#"{{{of}, "logicalType": "decimal", "precision": {precision}}}"#);
        let found = Schema::parse(&json).and_then(|schema| sql_type(&schema));
        found.map(|found| found.data_type.to_string()).ok()
    };
    let (bytes, fixed) = (r#""type": "bytes""#, r#""type": "fixed", "name": "F", "size": 4"#);
    for (of, precision, expected) in [
        (bytes, "38", Some("DECIMAL(38,0)")),
        (bytes, "39", None),
        (bytes, "70000", None),
        (bytes, "2147483648", Some("BINARY")),
        (bytes, "0", Some("BINARY")),
        (fixed, "9", Some("DECIMAL(9,0)")),
        (fixed, "10", Some("BINARY")),
        (fixed, "39", Some("BINARY")),
    ] {
        assert_eq!(read(of, precision).as_deref(), expected, "{of} {precision}");
    }
}
