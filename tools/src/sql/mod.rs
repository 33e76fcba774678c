//! `millstream sql`: runs queries over files and constants, and prints their results as tables.

use crate::failure::Failure;
use crate::stdout::say;
use clap::Args as ClapArgs;
use millstream::session::Session;
use std::path::Path;

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    millstream sql \"SELECT upper('a') AS u, 7 DIV 2\"\n  \
    millstream sql \"CREATE TEMPORARY VIEW t (k STRING, n INT) USING csv OPTIONS (path '/data'); \
    SELECT k, sum(n) FROM t GROUP BY k ORDER BY k\"\n  \
    millstream sql --file report.sql --rows 100\n\n\
    Queries are separated by ';'. Files are read once, as they are now; use `run` for streams.")]
pub(crate) struct Args {
    /// The queries; `-` reads them from standard input
    #[arg(required_unless_present = "file")]
    sql: Option<String>,
    /// Read the queries from a file
    #[arg(long, conflicts_with = "sql")]
    file: Option<std::path::PathBuf>,
    /// Number of rows to show
    #[arg(long, default_value_t = 1000)]
    rows: usize,
    /// Run on these cores only, in the syntax of `taskset`: `0-3,6`
    #[arg(long, value_name = "LIST")]
    cores: Option<String>,
    /// Cut cells to 20 characters, as `show` does
    #[arg(long)]
    truncate: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    if let Some(cores) = &args.cores {
        crate::run::restrict_to(cores)?;
    }
    let text = match (&args.file, args.sql.as_deref()) {
        (Some(path), _) => crate::run::read(path)?,
        (None, Some("-")) => crate::run::read(Path::new("-"))?,
        (None, text) => text.unwrap_or_default().to_string(),
    };
    let session = Session::new();
    session.on_notice(|line| eprintln!("{line}"));
    session.script(&text, &mut |frame| {
        let table = frame.show(args.rows, args.truncate)?;
        say!("{}", table.strip_suffix('\n').unwrap_or(&table));
        Ok(())
    })?;
    Ok(())
}
