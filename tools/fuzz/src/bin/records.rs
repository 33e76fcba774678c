//! Fuzzes text, CSV and JSON files with several options: no panic, no overlapping records, records
//! of bounded length.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millstream::connect::file::{Decoder, Input};
use millstream::connect::options::OptionReader;
use millstream::table::row::{Row, decode};
use millstream::table::types::Schema;

const RECORD_BYTES: usize = 256;
const DDL: &str = "a INT, b STRING, _corrupt_record STRING, c DOUBLE, d DECIMAL(10,3), t TIMESTAMP, \
                   e DATE, f BOOLEAN, xs ARRAY<BIGINT>, s STRUCT<x: INT, y: STRING>";
const FLAT: &str =
    "a INT, b STRING, _corrupt_record STRING, c DOUBLE, d DECIMAL(10,3), t TIMESTAMP";

fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    let (format, ddl) =
        [("text", None), ("csv", Some(FLAT)), ("json", Some(DDL))][usize::from(choice % 3)];
    let mut options: Vec<(String, String)> = Vec::new();
    let mut set = |bit: u8, key: &str, value: &str| {
        if choice >> bit & 1 == 1 {
            options.push((key.to_string(), value.to_string()));
        }
    };
    match format {
        "text" => {
            set(2, "wholetext", "true");
            set(3, "lineSep", "ab");
        }
        "csv" => {
            set(2, "multiLine", "true");
            set(3, "quote", "'");
            set(4, "ignoreLeadingWhiteSpace", "true");
            set(5, "timestampFormat", "d/M/yyyy[ HH:mm:ss]");
        }
        _ => {
            set(2, "multiLine", "true");
            set(3, "allowUnquotedFieldNames", "true");
            set(4, "allowComments", "true");
            set(5, "timestampFormat", "d/M/yyyy[ HH:mm:ss]");
            set(6, "encoding", "UTF-8");
        }
    }
    let schema = ddl.map(|ddl| Schema::parse_ddl(ddl).expect("a schema"));
    let mut reader = OptionReader::new("fuzz", &options);
    let mut decoder = Decoder::read(format, schema, &[], &mut reader).expect("options");
    let schema = decoder.schema();
    let from = Box::new(std::io::Cursor::new(bytes.to_vec()));
    let mut input = Input::new(from, 0, decoder.framing().clone(), RECORD_BYTES);
    let (mut row, mut end) = (Vec::new(), 0);
    while let Some(found) = input.record().expect("memory can be read") {
        assert!(found.offset >= end, "records overlap");
        end = found.offset + found.length;
        assert!(end <= bytes.len() as u64 && found.length > 0, "a record without bytes");
        let record = input.bytes(&found).to_vec();
        assert!(record.len() <= RECORD_BYTES + 1);
        let _ = decoder.decode(&record, &mut row);
        let mut there = !row.is_empty();
        while there {
            decode(Row(&row), schema.fields.iter().map(|field| &field.data_type));
            there = decoder.has_more_rows() && decoder.next_row(&record, &mut row);
        }
        decoder.undecoded(&record, &mut row);
        decode(Row(&row), schema.fields.iter().map(|field| &field.data_type));
    }
});
