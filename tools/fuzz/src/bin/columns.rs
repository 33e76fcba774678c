//! Fuzzes Parquet and ORC files: whatever its bytes are, a file is read or rejected. A file that
//! begins like ORC is read as ORC, any other as Parquet.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millstream::connect::columnar::{ColumnFormat, ColumnInput, ReadOptions};
use millstream::table::row::{Row, RowWriter};
use millstream::table::types::Schema;
use std::sync::Once;

static QUIET: Once = Once::new();

const DDL: &str = "a TINYINT, b BIGINT, c DOUBLE, d STRING, e DECIMAL(20,2), f TIMESTAMP, \
    g ARRAY<BIGINT>, h MAP<STRING, BIGINT>, i STRUCT<x: BIGINT, y: STRING>, j BOOLEAN, k DATE, l BINARY";

fuzz_target!(|data: &[u8]| {
    // A panic of the decoder is caught and the file is rejected, which is not a finding. A panic
    // elsewhere still ends the run.
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    let format = if data.starts_with(b"ORC") { ColumnFormat::Orc } else { ColumnFormat::Parquet };
    let options = ReadOptions::of(format);
    let Ok(schema) = Schema::parse_ddl(DDL) else { return };
    let fields = schema.fields.iter().enumerate();
    let wanted: Vec<_> = fields.map(|(i, f)| (i, f.name.clone(), f.data_type.clone())).collect();
    let Ok(mut input) = ColumnInput::of_bytes(&options, data.to_vec(), &wanted) else { return };
    let mut row = Vec::new();
    // A few bytes can claim a billion values, so the number of rows is limited.
    for _ in 0..10_000 {
        row.clear();
        match input.row(|| RowWriter::new(&mut row, wanted.len())) {
            Ok(true) => {
                for (i, field) in schema.fields.iter().enumerate() {
                    let _ = Row(&row).value(i, wanted.len(), &field.data_type);
                }
            }
            _ => return,
        }
    }
});
