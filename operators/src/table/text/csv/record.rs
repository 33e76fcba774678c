//! Reads CSV records into rows of a schema.

use crate::table::row::{Bytes, RowWriter};
use crate::table::text::csv::dialect::LineEnd;
use crate::table::text::csv::options::ReadOptions;
use crate::table::text::csv::parser::{FieldText, Parsed, Parser, Stop};
use crate::table::text::csv::values::Values;
use crate::table::text::utf8;
use crate::table::types::DataType;

/// A column that a record is read to.
#[derive(Clone, Debug)]
pub struct Column {
    /// The index of the column in the row.
    pub index: usize,
    /// The type of the column.
    pub data_type: DataType,
    /// Whether the query needs the column.
    pub wanted: bool,
}

/// The reason why a record is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The record does not fit the schema. The fields that could be read are in the row.
    Misfit(&'static str),
    /// The parser failed. The query ends in every parse mode.
    Broken(&'static str),
}

/// Reads records of one schema into rows. Buffers are reused from record to record.
#[derive(Clone, Debug)]
pub struct RecordReader {
    parser: Parser,
    values: Values,
    columns: Vec<Column>,
    prunes: bool,
}

impl RecordReader {
    /// Creates a reader of records with these columns.
    pub fn new(options: &ReadOptions, columns: Vec<Column>) -> Self {
        let parser = Parser::new(options.dialect.clone());
        Self { parser, values: options.values.clone(), columns, prunes: options.prunes }
    }

    /// Restricts reading to the columns marked in `needed`. The other columns are NULL, and their
    /// fields are not converted.
    pub fn set_needed_columns(&mut self, needed: &[bool]) {
        for column in &mut self.columns {
            column.wanted = needed[column.index];
        }
        let wanted = self.columns.iter().map(|column| column.wanted).collect();
        self.parser.set_wanted(if self.prunes { wanted } else { Vec::new() });
    }

    /// Sets the line end of the next file.
    pub fn set_line_end(&mut self, line_end: LineEnd) {
        self.parser.set_line_end(line_end);
    }

    /// Parses a record and writes its fields into a row. Fails if the record is malformed or does
    /// not fit the schema.
    #[inline]
    pub fn read<B: Bytes>(
        &mut self,
        record: &[u8],
        writer: &mut RowWriter<'_, B>,
    ) -> Result<(), Fault> {
        let selects = self.parser.selects();
        if selects && !self.columns.iter().any(|column| column.wanted) {
            return Ok(());
        }
        match self.parser.parse_record(record) {
            Parsed::Record => {}
            Parsed::Malformed(Stop::Quote) => {
                return Err(Fault::Broken("a quote inside quotes is not escaped"));
            }
            Parsed::Malformed(_) => {
                return Err(Fault::Broken(
                    "it has more fields than maxColumns or more characters in one than \
                     maxCharsPerColumn",
                ));
            }
            _ => return Err(Fault::Misfit("there is no record")),
        }
        let fields = self.parser.fields();
        let mut fault = None;
        if !selects && fields.len() != self.columns.len() {
            let doubled = memchr::memmem::find(record, b"\"\"").is_some();
            fault = Some(Fault::Misfit(match doubled {
                true => {
                    "its number of fields differs from the schema's; it has \"\", which is a \
                     quote within quotes only with option escape '\"'"
                }
                false => "its number of fields differs from the schema's",
            }));
        }
        // UTF-8 is validated once for the whole record. Only copied fields, and the fields of an
        // invalid record, are validated one by one.
        let whole = std::str::from_utf8(record).ok();
        for (column, field) in self.columns.iter().zip(fields) {
            if !column.wanted {
                continue;
            }
            let bytes = match field {
                FieldText::Null | FieldText::Skipped => continue,
                FieldText::Empty => self.values.empty.as_bytes(),
                FieldText::Input(range) => &record[range.clone()],
                FieldText::Copied(range) => &self.parser.copied()[range.clone()],
            };
            if bytes == self.values.null.as_bytes() {
                continue;
            }
            let text = match (whole, field) {
                (Some(whole), FieldText::Input(range)) => whole.get(range.clone()),
                _ => std::str::from_utf8(bytes).ok(),
            };
            let fits = match text {
                Some(text) => self.values.put(text, &column.data_type, writer, column.index),
                // Invalid UTF-8 becomes U+FFFD.
                None => {
                    let text = utf8::decode(bytes);
                    self.values.put(&text, &column.data_type, writer, column.index)
                }
            };
            if !fits {
                fault =
                    fault.or(Some(Fault::Misfit("a field does not have the type of its column")));
            }
        }
        fault.map_or(Ok(()), Err)
    }

    /// Compares a header with the names of the needed columns, ignoring case. The error describes
    /// the first difference. A header that is not a well-formed record is accepted.
    pub fn check_header(&mut self, record: &[u8], names: &[&str]) -> Result<(), String> {
        if !matches!(self.parser.parse(record, true), Some((Parsed::Record, _))) {
            return Ok(());
        }
        let fields = self.parser.fields();
        let selects = self.parser.selects();
        if !selects && fields.len() != self.columns.len() {
            return Err(format!(
                "its header has {} names, and the schema {} columns",
                fields.len(),
                self.columns.len()
            ));
        }
        for (i, column) in self.columns.iter().enumerate().filter(|(_, column)| column.wanted) {
            let found = match fields.get(i) {
                Some(FieldText::Input(range)) => &record[range.clone()],
                Some(FieldText::Copied(range)) => &self.parser.copied()[range.clone()],
                _ => &[],
            };
            let (found, name) = (utf8::decode(found), names[column.index]);
            if found.to_lowercase() != name.to_lowercase() {
                return Err(format!("its header has `{found}` where the schema has `{name}`"));
            }
        }
        Ok(())
    }
}
