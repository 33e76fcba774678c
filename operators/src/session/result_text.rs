//! The rows of a result as text: JSON lines, CSV, and the cells of a table.

use crate::connect::console::LINES_BYTES;
use crate::connect::file::line_options;
use crate::connect::line_format::{LineFormat, LineWriter};
use crate::connect::options::OptionReader;
use crate::session::Session;
use crate::session::dataframe::DataFrame;
use crate::table::error::PlanResult;
use crate::table::plan::Options;
use crate::table::row::{Row, encode};
use crate::table::types::Schema;
use crate::table::value::Value;

/// A format in which a row is a line of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowFormat {
    /// A JSON object, as `to_json` writes it: NULL fields are omitted.
    Json,
    /// A record as the CSV sink writes it. The first line has the names of the columns.
    Csv,
}

/// What console sinks print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConsoleFormat {
    /// Tables with a heading, as Spark prints them: the first rows of each epoch.
    #[default]
    Tables,
    /// A line per row, without headings, for all rows.
    Lines(RowFormat),
    /// Nothing: a query with a console sink is refused.
    Refused,
}

impl Session {
    /// A writer of rows in a format, with the session's time zone and settings.
    pub(super) fn row_writer(&self, format: RowFormat, schema: &Schema) -> PlanResult<LineWriter> {
        let settings = self.lock().settings.formats.clone();
        let options = Options::new();
        let mut reader = OptionReader::with_settings("result", &options, &settings);
        let format = match format {
            RowFormat::Json => LineFormat::Json,
            RowFormat::Csv => LineFormat::Csv,
        };
        let (options, _) = line_options(format, &mut reader)?;
        LineWriter::without(format, options, schema, &[])
    }
}

impl DataFrame {
    /// Formats rows of this query, which `collect` has returned, as lines, and passes the lines to
    /// `print` in parts of about 64 KiB. Fails for CSV if a column is an array, a map or a struct.
    pub fn lines(
        &self,
        format: RowFormat,
        rows: &[Vec<Value>],
        print: &mut dyn FnMut(&[u8]),
    ) -> PlanResult<()> {
        let mut writer = self.session.row_writer(format, &self.schema())?;
        let mut out = match format {
            RowFormat::Json => Vec::new(),
            RowFormat::Csv => writer.header(),
        };
        for row in rows {
            writer.write(Row(&encode(row)), &mut out);
            if out.len() >= LINES_BYTES {
                print(&out);
                out.clear();
            }
        }
        print(&out);
        Ok(())
    }

    /// Formats each value of rows of this query as `show` does, without cutting it.
    pub fn cells(&self, rows: &[Vec<Value>]) -> Vec<Vec<String>> {
        let display = self.session.lock().settings.display();
        let fields = self.schema().fields;
        let cell = |(value, field): (&Value, &crate::table::types::Field)| {
            value.show_as(&field.data_type, display)
        };
        rows.iter().map(|row| row.iter().zip(&fields).map(cell).collect()).collect()
    }

    /// Formats rows of this query as Spark's `show` does. `truncate` shortens long values.
    pub fn table_of(&self, rows: &[Vec<Value>], truncate: bool) -> String {
        let display = self.session.lock().settings.display();
        crate::connect::console::table(&self.schema(), rows, truncate, display)
    }
}
