//! `millstream functions`: lists the SQL functions.

use crate::stdout::say;
use millstream::table::expr::functions;
use millstream::table::plan::aggregate_function;

/// Prints every scalar function, aggregate and generator with one line of help.
pub(crate) fn list() {
    let mut lines = functions::documented();
    let others = aggregate_function::NAMES.iter().map(|entry| (entry.name, entry.help)).chain([
        ("explode", "explode(array or map): a row for each element"),
        ("explode_outer", "explode_outer(array or map): a row of NULLs if there is no element"),
        ("posexplode", "posexplode(array or map): with the position of each, from 0"),
        (
            "posexplode_outer",
            "posexplode_outer(array or map): a row of NULLs if there is no element",
        ),
        ("inline", "inline(array of structs): a row for each, a column for each field"),
        ("inline_outer", "inline_outer(array of structs): a row of NULLs if there is no element"),
        ("json_tuple", "json_tuple(text, 'a', 'b'): columns c0, c1 …"),
        ("stack", "stack(rows, a, b, c, d): so many rows of the values"),
    ]);
    lines.extend(others.map(|(name, help)| (name.to_string(), help.to_string())));
    lines.sort_unstable();
    // `some` is both an aggregate and an alias, but is listed once.
    lines.dedup_by(|next, line| next.0 == line.0);
    for (name, help) in lines {
        say!("{name:<24}{help}");
    }
}
