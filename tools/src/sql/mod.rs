//! `millstream sql`: runs queries over files, tables of the session and constants, and prints their
//! results. Without a query, it is an interactive [shell] if standard input and output are
//! terminals, and otherwise reads a script from standard input.

mod completion;
mod result;
mod shell;
mod signals;

use crate::failure::Failure;
use crate::progress;
use clap::Args as ClapArgs;
use millstream::session::Session;
use result::{Format, ResultPrinter};
use std::io::IsTerminal;
use std::path::Path;

const SCRIPT_EXPECTED: &str = "Standard output is not a terminal, so there is no shell: enter \
                               statements, each with a ';', and Ctrl-D on a line of its own to run \
                               them.";

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    millstream sql \"SELECT upper('a') AS u, 7 DIV 2\"\n  \
    millstream sql \"CREATE TEMPORARY VIEW t (k STRING, n INT) USING csv OPTIONS (path '/data'); \
    SELECT k, sum(n) FROM t GROUP BY k ORDER BY k\"\n  \
    millstream sql --file report.sql --format csv > report.csv\n  \
    millstream sql                                          # a shell\n\n\
    Queries are separated by ';'. Files are read once, as they are now; use `run` for streams.")]
pub(crate) struct Args {
    /// The queries; `-` reads them from standard input. Without queries: a shell if standard input
    /// and output are terminals, otherwise standard input
    sql: Option<String>,
    /// Read the queries from a file
    #[arg(long, conflicts_with = "sql")]
    file: Option<std::path::PathBuf>,
    /// Format of results: tables as `show` prints them, JSON lines as `to_json` writes them, CSV
    /// with a header as the CSV sink quotes it, or Markdown. JSON and CSV also apply to console
    /// sinks, except in output mode complete
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Number of rows to show; the default is 1000 for table and markdown, all for json and csv
    #[arg(long)]
    rows: Option<usize>,
    /// Run on these cores only, in the syntax of `taskset`: `0-3,6`
    #[arg(long, value_name = "LIST")]
    cores: Option<String>,
    /// Cut cells of tables to 20 characters, as `show` does
    #[arg(long)]
    truncate: bool,
    /// Show no progress on a terminal
    #[arg(long, short)]
    quiet: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    if args.truncate && args.format != Format::Table {
        return Err(Failure::Wrong("--truncate needs --format table".to_string()));
    }
    if let Some(cores) = &args.cores {
        crate::run::restrict_to(cores)?;
    }
    let session = Session::new();
    session.on_notice(progress::notice);
    session.set_console(|| Box::new(progress::Stdout));
    let printer = ResultPrinter { format: args.format, rows: args.rows, truncate: args.truncate };
    printer.prepare(&session);
    let text = match (&args.file, args.sql.as_deref()) {
        (Some(path), _) => crate::run::read(path)?,
        (None, Some("-")) => crate::run::read(Path::new("-"))?,
        (None, Some(text)) => text.to_string(),
        (None, None) if std::io::stdin().is_terminal() => {
            // The prompt of a shell would be part of a file or pipe.
            if std::io::stdout().is_terminal() {
                return shell::run(session, printer, args.quiet);
            }
            eprintln!("{SCRIPT_EXPECTED}");
            crate::run::read(Path::new("-"))?
        }
        (None, None) => crate::run::read(Path::new("-"))?,
    };
    let watch = progress::Watch::start(args.quiet, {
        let session = session.clone();
        move || session.statement_records()
    });
    let outcome = session.script(&text, &mut |frame| printer.print(&frame).map(drop));
    drop(watch);
    Ok(outcome?)
}
