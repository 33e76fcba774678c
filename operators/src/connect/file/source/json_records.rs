//! Decodes records of JSON files: an object gives one row, an array one row per element.
//!
//! Spark decides only at the end of an array whether its rows are good, so all elements are decoded
//! before the first row is emitted. Their rows are buffered up to a limit. Elements beyond the
//! limit are decoded a second time when their rows are emitted.

use crate::connect::options::OptionReader;
use crate::table::error::{PlanError, PlanResult};
use crate::table::row::RowWriter;
use crate::table::text::json::{Features, Found, JsonReadOptions, RecordReader, SWITCHES, Source};
use crate::table::text::notation::Notation;
use crate::table::types::Field;

/// The number of row bytes that are buffered at least, however short the array is.
const KEPT_BYTES: usize = 1 << 20;
/// The number of fields from which a row buffer is reused without clearing it for each record.
const WIDE: usize = 256;

/// The result of decoding a record.
pub struct FirstRow {
    /// Whether the record has a row.
    pub row: bool,
    /// The error in the record, if there is one.
    pub fault: Option<&'static str>,
}

/// Decodes records of one schema.
#[derive(Clone, Debug)]
pub struct JsonRecords {
    reader: RecordReader,
    width: usize,
    /// The buffered rows of the current array. Row `i` ends at `ends[i]`; the first `given` rows
    /// were emitted.
    rows: Vec<u8>,
    ends: Vec<usize>,
    given: usize,
    /// The offset in the record after the last buffered element. The elements after it are decoded
    /// again. `None` if all are buffered.
    rest: Option<usize>,
    is_utf8: bool,
    fault: Option<&'static str>,
}

/// Parses the options that allow extensions of JSON and set the fallback for dates and timestamps.
/// A locale other than en-US is an error.
pub fn reading(
    reader: &mut OptionReader<'_>,
    notation: Notation,
    source: Source,
) -> PlanResult<JsonReadOptions> {
    let mut features = Features::RECORDS;
    for (name, feature) in SWITCHES {
        let feature = feature(&mut features);
        *feature = reader.flag(name, *feature)?;
    }
    let fallback = match reader.get("enableDateTimeParsingFallback") {
        None => None,
        Some(_) => Some(reader.flag("enableDateTimeParsingFallback", false)?),
    };
    if let Some(locale) = reader.get("locale")
        && !locale.replace('_', "-").eq_ignore_ascii_case("en-US")
    {
        return Err(PlanError::not_yet(format_args!("the locale '{locale}'")));
    }
    // Selects Spark's in-memory row format; it has no effect here.
    reader.get("useUnsafeRow");
    Ok(JsonReadOptions { notation, features, source, fallback })
}

impl JsonRecords {
    /// Creates a decoder of objects with these fields.
    pub fn new(fields: &[Field], reading: JsonReadOptions) -> Self {
        Self {
            reader: RecordReader::of_fields(fields, reading),
            width: fields.len(),
            rows: Vec::new(),
            ends: Vec::new(),
            given: 0,
            rest: None,
            is_utf8: true,
            fault: None,
        }
    }

    /// Decodes only the fields that are `wanted`; the others stay NULL, as if the schema lacked
    /// them.
    pub fn only(&mut self, wanted: &[bool]) {
        self.reader.only(wanted);
    }

    /// The error in the current record, if there is one.
    pub fn fault(&self) -> Option<&'static str> {
        self.fault
    }

    /// Whether the current record may have more rows.
    #[inline]
    pub fn has_more(&self) -> bool {
        self.given < self.ends.len() || self.rest.is_some()
    }

    /// Decodes a record and writes its first row to `out`. `out` must be empty or contain an
    /// earlier row of this decoder.
    #[inline]
    pub fn first(&mut self, record: &[u8], out: &mut Vec<u8>) -> FirstRow {
        self.is_utf8 = record.is_ascii() || std::str::from_utf8(record).is_ok();
        self.ends.clear();
        self.given = 0;
        self.rest = None;
        let mut writer = if self.width < WIDE {
            out.clear();
            RowWriter::new(out, self.width)
        } else {
            RowWriter::reuse(out, self.width)
        };
        let found = self.reader.read(record, self.is_utf8, &mut writer);
        let row = match found {
            Found::Row(fault) => {
                self.fault = fault;
                true
            }
            Found::Nothing => {
                self.fault = None;
                false
            }
            Found::Array => self.array(record, out),
        };
        FirstRow { row, fault: self.fault }
    }

    /// Decodes all elements of an array and writes the first row.
    #[cold]
    fn array(&mut self, record: &[u8], out: &mut Vec<u8>) -> bool {
        let kept_bytes_max = KEPT_BYTES.max(2 * record.len());
        let Self { reader, width, rows, ends, rest, .. } = self;
        rows.clear();
        let mut elements = reader.elements(record, self.is_utf8, None);
        let mut fault = None;
        loop {
            let (from, before) = (rows.len(), elements.at());
            match elements.next(&mut RowWriter::new(rows, *width)) {
                Ok(Some(partial)) => {
                    fault = fault.or(partial);
                    if rest.is_some() || (rows.len() > kept_bytes_max && from > 0) {
                        rows.truncate(from);
                        rest.get_or_insert(before);
                    } else {
                        ends.push(rows.len());
                    }
                }
                Ok(None) => break,
                Err(broken) => {
                    // The whole array is invalid. The record gives one row of NULLs.
                    ends.clear();
                    *rest = None;
                    self.fault = Some(broken.0);
                    return true;
                }
            }
        }
        self.fault = fault;
        self.next(record, out)
    }

    /// Writes the next row of an array to `out`, replacing its content. Returns false after the last
    /// row, and at a malformed element, which ends the array.
    pub fn next(&mut self, record: &[u8], out: &mut Vec<u8>) -> bool {
        out.clear();
        if let Some(end) = self.ends.get(self.given) {
            let begin = self.given.checked_sub(1).map_or(0, |before| self.ends[before]);
            out.extend_from_slice(&self.rows[begin..*end]);
            self.given += 1;
            return true;
        }
        let Some(after) = self.rest else { return false };
        let mut elements = self.reader.elements(record, self.is_utf8, Some(after));
        let read = elements.next(&mut RowWriter::new(out, self.width));
        self.rest = matches!(read, Ok(Some(_))).then(|| elements.at());
        self.rest.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::row::Row;
    use crate::table::types::{DataType, Schema};
    use crate::table::value::Value;

    #[test]
    fn a_reused_row_keeps_no_value_of_the_row_before() {
        let ddl: Vec<String> = (0..1000).map(|i| format!("k{i} STRING")).collect();
        let schema = Schema::parse_ddl(&ddl.join(", ")).unwrap();
        let reading = JsonReadOptions { source: Source::Bytes, ..JsonReadOptions::default() };
        let mut records = JsonRecords::new(&schema.fields, reading);
        let (mut reused, mut key) = (Vec::new(), String::new());
        for i in [0, 63, 64, 999, 3, 500] {
            key.push('x');
            let record = format!(r#"{{"k{i}":"{key}","k{}":"y"}}"#, (i * 7 + 1) % 1000);
            let mut fresh = Vec::new();
            assert!(records.first(record.as_bytes(), &mut reused).row);
            assert!(records.first(record.as_bytes(), &mut fresh).row);
            assert_eq!(reused, fresh, "{record}");
        }
    }

    fn rows(text: &str, ddl: &str) -> (Vec<Value>, Option<&'static str>) {
        let fields = Schema::parse_ddl(ddl).unwrap().fields;
        let mut records = JsonRecords::new(
            &fields,
            JsonReadOptions { source: Source::Bytes, ..JsonReadOptions::default() },
        );
        let (mut out, mut values) = (Vec::new(), Vec::new());
        let given = records.first(text.as_bytes(), &mut out);
        let mut there = given.row;
        while there {
            values.push(Row(&out).value(0, fields.len(), &DataType::Int));
            there = records.has_more() && records.next(text.as_bytes(), &mut out);
        }
        (values, given.fault)
    }

    #[test]
    fn an_array_is_a_row_for_each_element_or_one_without_values() {
        for (text, expected, bad) in [
            (r#"{"a":1}"#, vec![Value::Long(1)], false),
            (r#"[{"a":1},{"a":2}]"#, vec![Value::Long(1), Value::Long(2)], false),
            (r#"[{"a":1},{"a":"x"}]"#, vec![Value::Long(1), Value::Null], true),
            (r#"[{"a":1},{"a":]"#, vec![Value::Null], true),
            (r#"[{"a":1},2]"#, vec![Value::Null], true),
            ("[]", vec![], false),
            (" ", vec![], false),
            ("\u{FEFF}{\"a\":1}", vec![Value::Long(1)], false),
        ] {
            let (values, fault) = rows(text, "a INT");
            assert_eq!((values, fault.is_some()), (expected, bad), "{text}");
        }
    }

    #[test]
    fn rows_of_a_long_array_are_not_all_in_memory() {
        let columns: Vec<String> = (0..100).map(|i| format!("c{i} INT")).collect();
        let elements: Vec<String> = (0..3000).map(|i| format!("{{\"c0\":{i}}}")).collect();
        let text = format!("[{}]", elements.join(","));
        let (values, fault) = rows(&text, &columns.join(", "));
        assert_eq!((values.len(), fault), (3000, None));
        assert!(values.iter().enumerate().all(|(i, value)| *value == Value::Long(i as i64)));
    }
}
