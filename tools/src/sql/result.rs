//! Prints the result of a query in one of several formats.

use crate::progress;
use crate::stdout;
use clap::ValueEnum;
use comfy_table::Table;
use comfy_table::presets;
use millstream::session::{ConsoleFormat, DataFrame, QueryError, RowFormat, Session, only_showing};

/// The format of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Tables with rules, as Spark's `show` prints them
    Table,
    /// A JSON object per row
    Json,
    /// Comma-separated values with a header
    Csv,
    /// A Markdown table
    Markdown,
}

/// The number of rows of a table, if the user does not choose it.
const TABLE_ROWS: usize = 1000;

/// Prints results.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResultPrinter {
    pub format: Format,
    /// The number of rows to print; `None` is the default of the format.
    pub rows: Option<usize>,
    /// Whether the cells of a table are cut.
    pub truncate: bool,
}

impl ResultPrinter {
    /// Makes the console sinks of a session print in this format, if they can.
    pub fn prepare(&self, session: &Session) {
        session.set_console_format(match self.format {
            Format::Table => ConsoleFormat::Tables,
            Format::Json => ConsoleFormat::Lines(RowFormat::Json),
            Format::Csv => ConsoleFormat::Lines(RowFormat::Csv),
            Format::Markdown => ConsoleFormat::Refused,
        });
    }

    /// Runs a query and prints its rows. Returns their number, with those that are not printed.
    pub fn print(&self, frame: &DataFrame) -> Result<usize, QueryError> {
        let mut rows = frame.collect()?;
        let count = rows.len();
        let most = match self.format {
            Format::Table | Format::Markdown => self.rows.unwrap_or(TABLE_ROWS),
            Format::Json | Format::Csv => self.rows.unwrap_or(usize::MAX),
        };
        rows.truncate(most);
        let print = |text: String| stdout::bytes(text.as_bytes());
        match self.format {
            Format::Table => print(frame.table_of(&rows, self.truncate)),
            Format::Json => frame.lines(RowFormat::Json, &rows, &mut stdout::bytes)?,
            Format::Csv => frame.lines(RowFormat::Csv, &rows, &mut stdout::bytes)?,
            Format::Markdown => print(markdown(&frame.columns(), frame.cells(&rows))),
        }
        if count > most {
            let note = only_showing(most);
            match self.format {
                Format::Table => stdout::line(format_args!("{note}")),
                _ => progress::notice(&note),
            }
        }
        Ok(count)
    }
}

/// Formats cells as a Markdown table, with a line end.
fn markdown(columns: &[String], rows: Vec<Vec<String>>) -> String {
    // A bar would end the cell, and a line end the table.
    let cell = |text: &String| {
        let text = text.replace('\\', "\\\\").replace('|', "\\|");
        text.replace("\r\n", "<br>").replace(['\n', '\r'], "<br>")
    };
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(columns.iter().map(cell));
    table.add_rows(rows.iter().map(|row| row.iter().map(cell).collect::<Vec<_>>()));
    format!("{table}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_and_line_ends_do_not_end_a_cell_of_markdown() {
        let columns = ["a|b".to_string(), "c".to_string()];
        let rows = vec![vec!["x\ny\rz\r\n".to_string(), "NULL".to_string()]];
        let text = markdown(&columns, rows);
        let lines: Vec<_> = text.lines().map(|line| line.replace(' ', "")).collect();
        assert_eq!(lines[0], "|a\\|b|c|");
        assert!(lines[1].chars().all(|c| c == '|' || c == '-'), "{text}");
        assert_eq!(lines[2], "|x<br>y<br>z<br>|NULL|");
        assert!(!text.contains('\r'), "{text:?}");
        assert_eq!(lines.len(), 3);
    }
}
