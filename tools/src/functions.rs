//! `millstream functions`: what the language knows.

use crate::Failure;
use millstream::table::expr::functions;
use std::io::Write;

/// Prints every scalar function and aggregate with one line of help.
pub(crate) fn list() -> Result<(), Failure> {
    let mut lines: Vec<(&str, &str)> = functions::all()
        .filter(|f| !f.name.starts_with("get") || f.name == "get")
        .map(|f| (f.name, f.help))
        .collect();
    lines.extend([
        ("count", "count(*), count(a): number of rows, or of rows where a is not NULL"),
        ("sum", "sum(a): an error where it overflows"),
        ("avg", "avg(a): the mean"),
        ("min", "min(a): the smallest that is not NULL"),
        ("max", "max(a): the largest that is not NULL"),
        ("explode", "explode(array): a row for each element"),
    ]);
    lines.sort_unstable();
    let mut out = std::io::stdout().lock();
    for (name, help) in lines {
        writeln!(out, "{name:<16}{help}")?;
    }
    Ok(())
}
