//! Formats differences between rows.

use serde_json::{Map, Value};

/// An expected row, the row that was found instead, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// The position, if rows have an order.
    pub place: Option<String>,
    pub expected: Option<String>,
    pub actual: Option<String>,
}

/// Formats at most `most` differences: `-` is an expected row, `+` a found one.
pub(super) fn text(differences: &[Difference], most: usize) -> String {
    let count = |what: fn(&Difference) -> bool| differences.iter().filter(|d| what(d)).count();
    let both = count(|d| d.expected.is_some() && d.actual.is_some());
    let missing = count(|d| d.actual.is_none());
    let unexpected = count(|d| d.expected.is_none());
    let named = [(both, "differ"), (missing, "missing"), (unexpected, "unexpected")];
    let counts: Vec<_> = named
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    let mut text = format!("rows: {}\n", counts.join(", "));
    for difference in differences.iter().take(most) {
        if let Some(place) = &difference.place {
            text.push_str(&format!("  {place}:\n"));
        }
        for (sign, line) in [('-', &difference.expected), ('+', &difference.actual)] {
            if let Some(line) = line {
                text.push_str(&format!("  {sign} {line}\n"));
            }
        }
        if let (Some(expected), Some(actual)) = (&difference.expected, &difference.actual) {
            text.push_str(&format!("    {}\n", columns(expected, actual).join("; ")));
        }
    }
    if differences.len() > most {
        let more = differences.len() - most;
        text.push_str(&format!("  and {more} more (--differences N prints more)\n"));
    }
    text
}

/// The columns in which two rows differ.
fn columns(expected: &str, actual: &str) -> Vec<String> {
    let parse =
        |line: &str| -> Map<String, Value> { serde_json::from_str(line).unwrap_or_default() };
    let (expected, actual) = (parse(expected), parse(actual));
    let mut found = Vec::new();
    for (name, value) in &expected {
        match actual.get(name) {
            Some(other) if other == value => {}
            Some(other) => found.push(format!("{name}: expected {value}, found {other}")),
            None => found.push(format!("{name}: expected {value}, found no such column")),
        }
    }
    let new = actual.keys().filter(|name| !expected.contains_key(*name));
    found.extend(new.map(|name| format!("{name}: not expected")));
    found
}
