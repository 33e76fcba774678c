//! `millstream functions`: what the language knows.

use crate::say::say;
use millstream::table::aggregates;
use millstream::table::expr::functions;

/// Prints every scalar function and aggregate with one line of help.
pub(crate) fn list() {
    let internal = |name: &str| {
        name.starts_with("getfield")
            || name.starts_with("datetime_")
            || name.starts_with("interval_")
            || [
                "getitem",
                "map_element",
                "map_size",
                "second_fraction",
                "array_sort_by",
                "json_field",
            ]
            .contains(&name)
    };
    let mut lines: Vec<(&str, &str)> =
        functions::all().filter(|f| !internal(f.name)).map(|f| (f.name, f.help)).collect();
    lines.extend(aggregates::NAMES.iter().map(|(name, _, help)| (*name, *help)));
    lines.extend([
        ("explode", "explode(array or map): a row for each element"),
        ("posexplode", "posexplode(array or map): with the place of each, from 0"),
        ("inline", "inline(array of structs): a row for each, a column for each field"),
        ("json_tuple", "json_tuple(text, 'a', 'b'): columns c0, c1 …"),
        ("stack", "stack(rows, a, b, c, d): so many rows of the values"),
    ]);
    lines.sort_unstable();
    for (name, help) in lines {
        say!("{name:<24}{help}");
    }
}
