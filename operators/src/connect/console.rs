//! The console sink: rows as tables on standard output, in Spark's format, or as lines.
//!
//! In micro-batch mode it prints one table per batch, also without rows. In continuous mode it
//! prints the rows of output mode complete at the end of an epoch, and those of the other output
//! modes at each flush, if there are any. Lines are also printed whenever 64 KiB of them are waiting.

use super::line_format::LineWriter;
use super::options::OptionReader;
use crate::table::error::PlanResult;
use crate::table::plan::Options;
use crate::table::plan::analyzer::OutputMode;
use crate::table::row::{Row, decode};
use crate::table::types::{DataType, Schema};
use crate::table::value::{Display, Value};
use millstream_engine::epoch::trigger::Trigger;
use millstream_engine::error::EngineError;
use millstream_engine::event::Epoch;
use millstream_engine::measure::latency::LatencyRecorder;
use millstream_engine::runtime::stage::{FlushStatus, Push, Stage};
use std::io::Write;

/// How many bytes of lines may wait to be printed: a batch of any size needs no more memory.
pub const LINES_BYTES: usize = 64 << 10;

/// The options of the console sink.
#[derive(Clone, Copy, Debug)]
pub struct ConsoleOptions {
    limit: usize,
    truncate: bool,
}

/// The console sink: collects rows and prints them as tables.
pub struct Console {
    schema: Schema,
    types: Vec<DataType>,
    rows: Vec<Vec<Value>>,
    /// Whether rows beyond `limit` were dropped.
    hidden: bool,
    limit: usize,
    truncate: bool,
    display: Display,
    epoch: Epoch,
    /// Whether to print at markers only, instead of at each flush.
    at_marker: bool,
    /// Whether to print a table without rows.
    print_empty: bool,
    out: Box<dyn Write + Send>,
    latency: LatencyRecorder,
    /// The query's name if other queries of the job print tables too.
    query: Option<String>,
    /// Writes the rows as lines instead of tables.
    lines: Option<Lines>,
}

/// Rows as lines, which are printed without a heading.
struct Lines {
    writer: LineWriter,
    /// The lines that are not printed yet: less than [`LINES_BYTES`] and a row.
    text: Vec<u8>,
}

impl Console {
    /// Reads `numRows` (20) and `truncate` (true).
    pub fn read(options: &Options) -> PlanResult<ConsoleOptions> {
        let mut reader = OptionReader::new("sink console", options);
        let limit = reader.number("numRows", 20, 1, 1 << 20)? as usize;
        let truncate = reader.flag("truncate", true)?;
        reader.finish()?;
        Ok(ConsoleOptions { limit, truncate })
    }

    /// A console for a query whose first epoch in this run is `epoch`.
    pub fn new(
        ConsoleOptions { limit, truncate }: ConsoleOptions,
        display: Display,
        schema: Schema,
        (mode, trigger): (OutputMode, Trigger),
        epoch: Epoch,
        out: Box<dyn Write + Send>,
        latency: LatencyRecorder,
    ) -> Self {
        let types = schema.fields.iter().map(|f| f.data_type.clone()).collect();
        Self {
            schema,
            types,
            rows: Vec::new(),
            hidden: false,
            limit,
            truncate,
            display,
            epoch,
            at_marker: mode == OutputMode::Complete || !trigger.is_continuous(),
            print_empty: !trigger.is_continuous(),
            out,
            latency,
            query: None,
            lines: None,
        }
    }

    /// Prints each row as a line, after the lines of `head`. All rows are printed.
    pub fn with_lines(mut self, writer: LineWriter, head: Vec<u8>) -> Self {
        self.print_empty = false;
        self.lines = Some(Lines { writer, text: head });
        self
    }

    /// Puts the name of the query into the heading of each table.
    pub fn with_query(self, name: &str) -> Self {
        Self { query: Some(name.to_string()), ..self }
    }

    /// Whether there is something to print.
    fn has_output(&self) -> bool {
        !self.rows.is_empty() || self.lines.as_ref().is_some_and(|lines| !lines.text.is_empty())
    }

    fn print(&mut self) -> Result<(), EngineError> {
        let Some(lines) = &mut self.lines else { return self.print_table() };
        let written = print(&mut self.out, &lines.text);
        lines.text.clear();
        written?;
        self.latency.record_pending();
        Ok(())
    }

    fn print_table(&mut self) -> Result<(), EngineError> {
        let table = table(&self.schema, &self.rows, self.truncate, self.display);
        let line = "-------------------------------------------";
        let tail = if self.hidden { only_showing(self.limit) } else { String::new() };
        let query = self.query.as_ref().map(|name| format!(" of {name}")).unwrap_or_default();
        let text = format!("{line}\nBatch: {}{query}\n{line}\n{table}{tail}\n", self.epoch);
        self.rows.clear();
        self.hidden = false;
        print(&mut self.out, text.as_bytes())?;
        self.latency.record_pending();
        Ok(())
    }
}

fn print(out: &mut dyn Write, text: &[u8]) -> Result<(), EngineError> {
    let printed = out.write_all(text).and_then(|()| out.flush());
    printed.map_err(|error| {
        EngineError::operator("CONSOLE_SINK_FAILED", format!("cannot print: {error}"), "")
    })
}

/// The line below a table that leaves out rows, without its line end, as Spark prints it.
pub fn only_showing(rows: usize) -> String {
    let noun = if rows == 1 { "row" } else { "rows" };
    format!("only showing top {rows} {noun}")
}

/// Formats rows as Spark's `show` does.
pub fn table(schema: &Schema, rows: &[Vec<Value>], truncate: bool, display: Display) -> String {
    let mut lines: Vec<Vec<Shown>> =
        vec![schema.fields.iter().map(|field| Shown::new(&field.name, false)).collect()];
    for row in rows {
        let cells = row
            .iter()
            .zip(&schema.fields)
            .map(|(value, field)| Shown::new(&value.show_as(&field.data_type, display), truncate));
        lines.push(cells.collect());
    }
    let width =
        |column: usize| lines.iter().map(|line| line[column].width).max().unwrap_or(0).max(3);
    let widths: Vec<usize> = (0..schema.fields.len()).map(width).collect();
    let mut rule: String = widths.iter().map(|w| format!("+{}", "-".repeat(*w))).collect();
    if widths.is_empty() {
        rule.push('+');
    }
    let mut out = format!("{rule}+\n");
    for (at, line) in lines.iter().enumerate() {
        for (Shown { text, width: have }, width) in line.iter().zip(&widths) {
            let pad = " ".repeat(width - have);
            out.push('|');
            out.push_str(&if truncate { format!("{pad}{text}") } else { format!("{text}{pad}") });
        }
        out.push_str(if widths.is_empty() { "||\n" } else { "|\n" });
        if at == 0 {
            out.push_str(&format!("{rule}+\n"));
        }
    }
    out.push_str(&format!("{rule}+\n"));
    out
}

/// A cell of a table with its width on a terminal.
struct Shown {
    text: String,
    width: usize,
}

impl Shown {
    /// Escapes line ends and the other control characters that Spark escapes, and cuts the text to
    /// 20 characters if `truncate`. Lengths count UTF-16 units, as in Spark.
    fn new(text: &str, truncate: bool) -> Self {
        let mut shown = String::with_capacity(text.len());
        for c in text.chars() {
            match c {
                '\n' => shown.push_str("\\n"),
                '\r' => shown.push_str("\\r"),
                '\t' => shown.push_str("\\t"),
                '\u{0C}' => shown.push_str("\\f"),
                '\u{08}' => shown.push_str("\\b"),
                '\u{0B}' => shown.push_str("\\v"),
                '\u{07}' => shown.push_str("\\a"),
                c => shown.push(c),
            }
        }
        if truncate && shown.len() > 20 && shown.encode_utf16().count() > 20 {
            let head: Vec<u16> = shown.encode_utf16().take(17).collect();
            // An unpaired surrogate is printed as a question mark.
            shown = char::decode_utf16(head).map(|c| c.unwrap_or('?')).collect();
            shown.push_str("...");
        }
        let width = shown.chars().map(|c| c.len_utf16() + usize::from(is_wide(c))).sum();
        Self { text: shown, width }
    }
}

/// Whether Spark counts a character as two columns wide: East Asian letters and full-width forms.
fn is_wide(c: char) -> bool {
    matches!(
        c,
        '\u{1100}'..='\u{115F}'
            | '\u{2E80}'..='\u{A4CF}'
            | '\u{AC00}'..='\u{D7A3}'
            | '\u{F900}'..='\u{FAFF}'
            | '\u{FE10}'..='\u{FE19}'
            | '\u{FE30}'..='\u{FE6F}'
            | '\u{FF00}'..='\u{FF60}'
            | '\u{FFE0}'..='\u{FFE6}'
    )
}

impl Stage for Console {
    fn is_ready(&mut self) -> bool {
        true
    }
    fn watermark(&mut self, _micros: i64) -> Result<(), EngineError> {
        Ok(())
    }
    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        if self.print_empty || self.has_output() {
            self.epoch = epoch;
            self.print()?;
        }
        self.epoch = epoch + 1;
        self.latency.publish();
        Ok(())
    }
    fn end(&mut self) -> Result<(), EngineError> {
        Ok(())
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        if !self.at_marker && self.has_output() {
            self.print()?;
        }
        Ok(FlushStatus::Flushed)
    }

    fn next_timer_ns(&self) -> Option<u64> {
        None
    }
}

impl<'a> Push<Row<'a>> for Console {
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        self.latency.add_pending(ingest_ns);
        if let Some(lines) = &mut self.lines {
            lines.writer.write(row, &mut lines.text);
            return if lines.text.len() < LINES_BYTES { Ok(()) } else { self.print() };
        }
        if self.rows.len() == self.limit {
            self.hidden = true;
            return Ok(());
        }
        self.rows.push(decode(row, self.types.iter()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::line_format::LineFormat;
    use crate::table::datetime::Tz;
    use crate::table::row::encode;
    use crate::table::value::BinaryStyle;
    use millstream_engine::env::RealEnv;
    use millstream_engine::measure::latency::Latency;
    use std::sync::{Arc, Mutex};

    const UTC: Display = Display { zone: Tz::UTC, binary: BinaryStyle::HexDiscrete };

    #[test]
    fn prints_as_spark_does() {
        let schema = Schema::parse_ddl("word STRING, n BIGINT").unwrap();
        let rows = [
            vec![Value::String("a word that is far too long".into()), Value::Long(1)],
            vec![Value::Null, Value::Long(12345)],
        ];
        let expected = "\
+--------------------+-----+
|                word|    n|
+--------------------+-----+
|a word that is fa...|    1|
|                NULL|12345|
+--------------------+-----+
";
        assert_eq!(table(&schema, &rows, true, UTC), expected);
        let wide = "+---+---+\n|word|n  |\n".len();
        assert!(table(&schema, &[], false, UTC).len() > wide);
        assert_eq!(
            table(&schema, &[], true, UTC),
            "+----+---+\n|word|  n|\n+----+---+\n+----+---+\n"
        );
    }

    #[test]
    fn control_characters_are_escaped_and_wide_ones_count_as_two() {
        let schema = Schema::parse_ddl("s STRING").unwrap();
        let row = |text: &str| vec![Value::String(text.into())];
        let rows = [row("a\tb\r\n"), row("客舍"), row("😀")];
        let expected = "\
+--------+
|s       |
+--------+
|a\\tb\\r\\n|
|客舍    |
|😀      |
+--------+
";
        assert_eq!(table(&schema, &rows, false, UTC), expected);
    }
    #[derive(Clone, Default)]
    struct Printed(Arc<Mutex<Vec<u8>>>);

    impl Write for Printed {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_lines_of_a_large_batch_are_printed_before_it_ends() {
        let schema = Schema::parse_ddl("n BIGINT").unwrap();
        let writer = LineWriter::new(LineFormat::Json, &schema).unwrap();
        let printed = Printed::default();
        let mut console = Console::new(
            Console::read(&Options::new()).unwrap(),
            UTC,
            schema,
            (OutputMode::Append, Trigger::AsSoonAsPossible),
            0,
            Box::new(printed.clone()),
            Latency::default().recorder(Arc::new(RealEnv::default())),
        )
        .with_lines(writer, b"head\n".to_vec());
        let mut expected = "head\n".to_string();
        for n in 0..20_000 {
            expected.push_str(&format!("{{\"n\":{n}}}\n"));
            console.push(Row(&encode(&[Value::Long(n)])), 0).unwrap();
            let waiting = expected.len() - printed.0.lock().unwrap().len();
            assert!(waiting < LINES_BYTES, "{waiting} bytes wait");
        }
        console.marker(0).unwrap();
        assert_eq!(String::from_utf8(printed.0.lock().unwrap().clone()).unwrap(), expected);
    }
}
