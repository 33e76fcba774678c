//! Tests of whole files: written and read back, written by Spark, and damaged.

use super::read::{Reader, schema};
use super::stream::Codec;
use super::write::Encoder;
use crate::connect::columnar::column::Column;
use crate::connect::columnar::read::From;
use crate::connect::columnar::schema::to_arrow;
use crate::connect::columnar::write::Written;
use crate::table::row::{Row, RowWriter};
use crate::table::types::{DataType, Field, Schema};
use crate::table::value::Value;
use arrow_array::builder::{Int32Builder, ListBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array,
    Int64Array, RecordBatch, StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType as Arrow, Field as ArrowField, Schema as ArrowSchema};
use std::sync::Arc;

fn fields(ddl: &str) -> Vec<Field> {
    Schema::parse_ddl(ddl).unwrap().fields
}

fn file(ddl: &str, codec: Codec, batches: &[Vec<ArrayRef>]) -> Vec<u8> {
    let fields = fields(ddl);
    let arrow = |field: &Field| ArrowField::new(&field.name, to_arrow(&field.data_type), true);
    let arrow = Arc::new(ArrowSchema::new(fields.iter().map(arrow).collect::<Vec<_>>()));
    let written = Written::default();
    let mut encoder = Encoder::new(codec, &fields, written.clone()).unwrap();
    for batch in batches {
        encoder.write(RecordBatch::try_new(arrow.clone(), batch.clone()).unwrap()).unwrap();
    }
    encoder.finish().unwrap();
    let mut bytes = Vec::new();
    written.take_into(&mut bytes);
    bytes
}

fn open(bytes: &[u8], ddl: &str, offset: u64) -> Result<Reader, String> {
    let wanted: Vec<(usize, String, DataType)> =
        fields(ddl).into_iter().enumerate().map(|(i, f)| (i, f.name, f.data_type)).collect();
    Reader::open(From::Bytes(bytes.to_vec().into()), &wanted, offset)
}

/// Reads all columns of a file that fits one batch.
fn read(bytes: &[u8], ddl: &str) -> Result<Vec<Option<ArrayRef>>, String> {
    let batch = open(bytes, ddl, 0)?.next()?;
    Ok(batch.map(|(_, columns)| columns).unwrap_or_default())
}

fn value(column: &Column, row: usize, data_type: &DataType) -> Value {
    let mut bytes = Vec::new();
    column.put(row, &mut RowWriter::new(&mut bytes, 1), 0);
    Row(&bytes).value(0, 1, data_type)
}

fn text(array: &ArrayRef, row: usize) -> String {
    match array.as_string_opt::<i32>() {
        Some(array) => array.value(row).to_string(),
        None => String::from_utf8(array.as_binary::<i32>().value(row).to_vec()).unwrap(),
    }
}

fn sample() -> Vec<ArrayRef> {
    let mut lists = ListBuilder::new(Int32Builder::new());
    lists.append_value([Some(1), None, Some(3)]);
    lists.append_null();
    lists.append_value([]);
    let lists = lists.finish();
    let Arrow::List(field) = to_arrow(&fields("l ARRAY<INT>")[0].data_type) else {
        panic!("a list")
    };
    let (_, offsets, values, nulls) = lists.into_parts();
    let lists = arrow_array::ListArray::new(field, offsets, values, nulls);
    let Arrow::Struct(parts) = to_arrow(&fields("s STRUCT<a: INT, B: STRING>")[0].data_type) else {
        panic!("a struct")
    };
    let within = StructArray::new(
        parts,
        vec![
            Arc::new(Int32Array::from(vec![Some(7), None, None])),
            Arc::new(StringArray::from(vec![Some("x"), None, Some("z")])),
        ],
        Some(NullBuffer::from(vec![true, false, true])),
    );
    let decimals = Decimal128Array::from(vec![Some(i128::MAX / 2), None, Some(-5)]);
    vec![
        Arc::new(Int32Array::from(vec![1, 2, 3])),
        Arc::new(StringArray::from(vec![Some("one"), None, Some("")])),
        Arc::new(decimals.with_precision_and_scale(38, 2).unwrap()),
        Arc::new(
            TimestampMicrosecondArray::from(vec![-62_135_596_800_000_000, -1_500_000, 1])
                .with_timezone("UTC"),
        ),
        Arc::new(TimestampMicrosecondArray::from(vec![Some(-1), Some(0), None])),
        Arc::new(Date32Array::from(vec![-719_162, -141_428, 0])),
        Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])),
        Arc::new(lists),
        Arc::new(within),
        Arc::new(Float64Array::from(vec![f64::NAN, -0.0, 1.5])),
        Arc::new(Int64Array::from(vec![Some(93_784_500_000), None, Some(-1)])),
    ]
}

const DDL: &str = "i INT, t STRING, d DECIMAL(38,2), ts TIMESTAMP, n TIMESTAMP_NTZ, day DATE, \
    b BOOLEAN, l ARRAY<INT>, s STRUCT<a: INT, B: STRING>, f DOUBLE, iv INTERVAL DAY TO SECOND";

#[test]
fn rows_come_back_with_their_types() {
    for codec in [Codec::None, Codec::Zlib, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let bytes = file(DDL, codec, &[sample()]);
        let found = schema(From::Bytes(bytes.clone().into())).unwrap();
        let types = |fields: &[Field]| {
            fields.iter().map(|f| (f.name.clone(), f.data_type.to_string())).collect::<Vec<_>>()
        };
        assert_eq!(types(&found.fields), types(&fields(DDL)), "{codec:?}");
        let read = read(&bytes, DDL).unwrap();
        for ((read, written), field) in read.iter().zip(sample()).zip(fields(DDL)) {
            let rows = |array: &ArrayRef| {
                let column = Column::of(array, &field.data_type).unwrap();
                (0..3).map(|row| value(&column, row, &field.data_type)).collect::<Vec<_>>()
            };
            let (read, written) = (rows(read.as_ref().unwrap()), rows(&written));
            assert_eq!(format!("{read:?}"), format!("{written:?}"), "{}", field.name);
        }
    }
}

#[test]
fn rows_are_found_at_any_offset_over_stripes() {
    let numbers =
        |from: i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(from..from + 5000)) };
    let mut bytes = Vec::new();
    // The batches have enough rows for more than one stripe.
    let batches: Vec<_> = (0..600).map(|i| vec![numbers(i * 5000)]).collect();
    bytes.extend(file("n BIGINT", Codec::Zstd, &batches));
    for offset in [0, 1, 1023, 1024, 2_000_000, 2_097_152, 2_999_999] {
        let mut reader = open(&bytes, "n BIGINT", offset).unwrap();
        let (rows, columns) = reader.next().unwrap().unwrap();
        let column = columns[0].as_ref().unwrap().as_primitive::<Int64Type>().clone();
        assert_eq!(column.value(0), offset as i64);
        assert_eq!(column.value(rows - 1), offset as i64 + rows as i64 - 1);
    }
    assert!(open(&bytes, "n BIGINT", 3_000_000).unwrap().next().unwrap().is_none());
}

#[test]
fn fields_are_found_by_name_and_may_be_missing() {
    let bytes = file(DDL, Codec::Zlib, &[sample()]);
    let read =
        read(&bytes, "S STRUCT<b: STRING, none: INT, A: BIGINT>, none INT, I STRING").unwrap();
    let within = read[0].as_ref().unwrap().as_struct();
    assert_eq!(text(within.column(0), 2), "z");
    assert_eq!(within.column(1).null_count(), 3);
    assert_eq!(within.column(2).as_primitive::<Int64Type>().value(0), 7);
    assert!(within.is_null(1));
    assert!(read[1].is_none());
    assert_eq!(text(read[2].as_ref().unwrap(), 2), "3");
}

#[test]
fn columns_of_old_hive_are_found_by_position() {
    let mut texts = StringBuilder::new();
    texts.append_value("x");
    let bytes = file(
        "_col0 INT, _col1 STRING",
        Codec::None,
        &[vec![Arc::new(Int32Array::from(vec![5])), Arc::new(texts.finish())]],
    );
    let read = read(&bytes, "id INT, name STRING, more INT").unwrap();
    assert_eq!(read[0].as_ref().unwrap().as_primitive::<Int32Type>().value(0), 5);
    assert_eq!(text(read[1].as_ref().unwrap(), 0), "x");
    assert!(read[2].is_none());
}

#[test]
fn an_incompatible_type_is_refused_with_the_name_of_the_column() {
    let bytes = file(DDL, Codec::None, &[sample()]);
    for (ddl, part) in [
        ("day INT", "column `day` is DATE in the file and cannot be read as INT"),
        ("s INT", "column `s` is STRUCT<"),
        ("l STRING", "column `l` is ARRAY<INT>"),
        ("i BINARY", "column `i` is INT"),
        ("n TIMESTAMP", "column `n` is TIMESTAMP_NTZ"),
        ("ts TIMESTAMP_NTZ", "column `ts` is TIMESTAMP"),
    ] {
        let error = read(&bytes, ddl).unwrap_err();
        assert!(error.starts_with(part), "{ddl}: {error}");
    }
}

/// The file was written by Spark 4.3 in UTC. Its days before 1582-10-15 use the hybrid calendar:
/// `SELECT * FROM VALUES (DATE'0001-01-01', TIMESTAMP'0001-01-01 00:00:00',
/// TIMESTAMP_NTZ'0001-01-01 00:00:00.000001', INTERVAL '1-2' YEAR TO MONTH,
/// map('k', named_struct('X', 1.50BD))), (DATE'1582-10-04', TIMESTAMP'1582-10-04 23:59:59.5',
/// NULL, NULL, NULL) AS t(d, t, n, i, m)`.
#[test]
fn days_of_the_old_calendar_keep_their_dates() {
    let bytes = include_bytes!("fixtures/spark-old-days.orc");
    let found = schema(From::Bytes(bytes.to_vec().into())).unwrap();
    let types: Vec<String> = found.fields.iter().map(|f| f.data_type.to_string()).collect();
    assert_eq!(
        types,
        [
            "DATE",
            "TIMESTAMP",
            "TIMESTAMP_NTZ",
            "INTERVAL YEAR TO MONTH",
            "MAP<STRING, STRUCT<X: DECIMAL(3,2)>>"
        ]
    );
    let ddl =
        "d DATE, n TIMESTAMP_NTZ, i INTERVAL YEAR TO MONTH, m MAP<STRING, STRUCT<x: DECIMAL(5,3)>>";
    let read = read(bytes, ddl).unwrap();
    let days = read[0].as_ref().unwrap().as_primitive::<Date32Type>();
    assert_eq!(days.values().to_vec(), [-719_162, -141_438]);
    let times = read[1].as_ref().unwrap().as_primitive::<TimestampMicrosecondType>();
    assert_eq!(times.value(0), -62_135_596_799_999_999);
    assert_eq!(read[2].as_ref().unwrap().as_primitive::<Int32Type>().value(0), 14);
    let map = read[3].as_ref().unwrap().as_map();
    let values = map.values().as_struct().column(0).as_primitive::<Decimal128Type>();
    assert_eq!((text(map.keys(), 0).as_str(), values.value(0)), ("k", 1500));
}

/// A damaged file is an error or yields other rows; it never causes a panic.
#[test]
fn damage_is_an_error_or_other_rows() {
    for codec in [Codec::None, Codec::Zlib, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let whole = file(DDL, codec, &[sample()]);
        let try_all = |bytes: &[u8]| {
            drop(schema(From::Bytes(bytes.to_vec().into())));
            if let Ok(mut reader) = open(bytes, DDL, 0) {
                // A damaged file may claim very many rows; the test reads three batches at most.
                for _ in 0..3 {
                    if !matches!(reader.next(), Ok(Some(_))) {
                        break;
                    }
                }
            }
        };
        // Tests every byte of the uncompressed file and every seventh of a compressed one.
        let step = if codec == Codec::None { 1 } else { 7 };
        for length in (0..whole.len()).step_by(step) {
            let cut = &whole[..length];
            let rows = open(cut, DDL, 0).and_then(|mut reader| reader.next());
            assert!(length == 0 || rows.is_err(), "{codec:?} cut to {length}");
            try_all(&whole[length..]);
        }
        for at in (0..whole.len()).step_by(step) {
            for value in [0, 0xFF, whole[at] ^ 1] {
                let mut damaged = whole.clone();
                damaged[at] = value;
                try_all(&damaged);
            }
        }
    }
}
