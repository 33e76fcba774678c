//! Compares rows: in order, as a multiset, or by key, with tolerance for numbers and times.

use super::difference::Difference;
use super::json_value::{JsonRow, JsonValue};
use crate::capture::payload_time::PayloadTime;
use crate::capture::times;
use clap::ValueEnum;
use similar::DiffTag;
use similar::algorithms::{Capture, Replace, myers};
use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

/// The time that a search for the smallest differences of all sequences may take. Sequences that have
/// little in common would take hours. After this time, whole stretches count as different.
const SEARCH_TIME: Duration = Duration::from_secs(2);

/// How rows are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// The same rows in the same order
    Sequence,
    /// The same rows in any order
    Multiset,
    /// For each key the same rows in the same order
    PerKey,
    /// For each key the same last row
    LastPerKey,
}

/// How much two values may differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Tolerance {
    /// For numbers: the difference may be this part of the larger absolute value, or of 1 if both
    /// are smaller.
    Number(f64),
    /// For timestamps: the largest difference, in nanoseconds.
    Time(u64),
}

/// Parses a tolerance: a number, or a duration with its unit.
pub(super) fn tolerance(text: &str) -> Result<Tolerance, String> {
    if let Ok(number) = text.parse::<f64>() {
        return match number >= 0.0 && number.is_finite() {
            true => Ok(Tolerance::Number(number)),
            false => Err(format!("{text} is not a tolerance: write 1e-9")),
        };
    }
    let wrong = |_| format!("{text} is not a tolerance: write 1e-9 for numbers, 5ms for times");
    times::parse_ns(text).map(Tolerance::Time).map_err(wrong)
}

/// A comparison with its parameters.
pub(super) struct Comparison<'a> {
    mode: Mode,
    key: &'a [String],
    tolerances: &'a [Tolerance],
    /// When the search for the smallest difference ends.
    latest: Instant,
}

fn parse(lines: &[String]) -> Vec<JsonRow> {
    lines.iter().map(|line| JsonValue::row(line)).collect()
}

fn key_of(row: &JsonRow, key: &[String]) -> String {
    let values: Vec<_> =
        key.iter().map(|column| row.get(column).unwrap_or(&JsonValue::Null).to_string()).collect();
    values.join(", ")
}

/// The indices of the rows of each key. Keys are in the order of their first row.
fn by_key(rows: &[JsonRow], key: &[String]) -> (Vec<String>, HashMap<String, Vec<usize>>) {
    let (mut order, mut found) = (Vec::new(), HashMap::<String, Vec<usize>>::new());
    for (at, row) in rows.iter().enumerate() {
        let key = key_of(row, key);
        let positions = found.entry(key.clone()).or_default();
        if positions.is_empty() {
            order.push(key);
        }
        positions.push(at);
    }
    (order, found)
}

/// The lines to store in a file of expected rows: only the last one per key if the others do not
/// count.
pub(super) fn kept(mode: Mode, key: &[String], lines: &[String]) -> Vec<String> {
    if mode != Mode::LastPerKey {
        return lines.to_vec();
    }
    let (order, found) = by_key(&parse(lines), key);
    let last = order.iter().filter_map(|key| found[key].last());
    last.map(|at| lines[*at].clone()).collect()
}

/// A stretch in which two sequences of rows differ: the rows of each.
struct Block {
    wanted: Range<usize>,
    got: Range<usize>,
}

/// A row that equals others within the tolerances of a comparison.
struct Tolerant<'r> {
    row: &'r JsonRow,
    by: &'r Comparison<'r>,
}

impl PartialEq for Tolerant<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.by.is_same(self.row, other.row)
    }
}

impl<'a> Comparison<'a> {
    /// Creates a comparison. Its time limit ([`SEARCH_TIME`]) starts now.
    pub(super) fn new(mode: Mode, key: &'a [String], tolerances: &'a [Tolerance]) -> Self {
        Self { mode, key, tolerances, latest: Instant::now() + SEARCH_TIME }
    }

    /// The differences between expected and actual rows.
    pub(super) fn compare(&self, expected: &[String], actual: &[String]) -> Vec<Difference> {
        let (wanted, got) = (parse(expected), parse(actual));
        match self.mode {
            Mode::Sequence => self.in_order(None, (&wanted, expected), (&got, actual)),
            Mode::Multiset => self.in_any_order((&wanted, expected), (&got, actual)),
            Mode::PerKey | Mode::LastPerKey => self.per_key((&wanted, expected), (&got, actual)),
        }
    }

    /// Compares the rows of a sequence, or of a key. The rows that differ are as few as can be found in
    /// [`SEARCH_TIME`].
    fn in_order(
        &self,
        key: Option<&str>,
        (wanted, expected): (&[JsonRow], &[String]),
        (got, actual): (&[JsonRow], &[String]),
    ) -> Vec<Difference> {
        let place = |at: usize| match key {
            Some(key) => format!("{}, row {}", self.name_key(key), at + 1),
            None => format!("row {}", at + 1),
        };
        let mut found = Vec::new();
        for block in self.blocks(wanted, got) {
            let (missing, unexpected) =
                (&expected[block.wanted.clone()], &actual[block.got.clone()]);
            for at in 0..missing.len().max(unexpected.len()) {
                let (wanted_at, got_at) = (block.wanted.start + at, block.got.start + at);
                let at_both = match (missing.get(at), unexpected.get(at)) {
                    (Some(_), Some(_)) if wanted_at != got_at => {
                        format!("{}, found as row {}", place(wanted_at), got_at + 1)
                    }
                    (Some(_), _) => place(wanted_at),
                    (None, _) => format!("{} of those found", place(got_at)),
                };
                found.push(Difference {
                    place: Some(at_both),
                    expected: missing.get(at).cloned(),
                    actual: unexpected.get(at).cloned(),
                });
            }
        }
        found
    }

    /// The stretches in which two sequences of rows differ.
    fn blocks(&self, wanted: &[JsonRow], got: &[JsonRow]) -> Vec<Block> {
        fn tolerant<'r>(rows: &'r [JsonRow], by: &'r Comparison<'r>) -> Vec<Tolerant<'r>> {
            rows.iter().map(|row| Tolerant { row, by }).collect()
        }
        let (wanted, got) = (tolerant(wanted, self), tolerant(got, self));
        let mut hook = Replace::new(Capture::new());
        let (all_wanted, all_got) = (0..wanted.len(), 0..got.len());
        let (wanted, got, latest) = (&wanted[..], &got[..], Some(self.latest));
        let Ok(()) = myers::diff_deadline(&mut hook, wanted, all_wanted, got, all_got, latest);
        let blocks = hook.into_inner().into_ops().into_iter();
        let blocks = blocks.filter(|op| op.tag() != DiffTag::Equal);
        blocks.map(|op| Block { wanted: op.old_range(), got: op.new_range() }).collect()
    }

    fn name_key(&self, key: &str) -> String {
        format!("{} = {key}", self.key.join(", "))
    }

    fn per_key(
        &self,
        (wanted, expected): (&[JsonRow], &[String]),
        (got, actual): (&[JsonRow], &[String]),
    ) -> Vec<Difference> {
        let (order, wanted_of) = by_key(wanted, self.key);
        let (later, got_of) = by_key(got, self.key);
        let new = later.iter().filter(|key| !wanted_of.contains_key(*key));
        let mut found = Vec::new();
        for key in order.iter().chain(new) {
            let of = |all: &HashMap<String, Vec<usize>>| -> Vec<usize> {
                let positions = all.get(key).map(Vec::as_slice).unwrap_or_default();
                let from = match self.mode {
                    Mode::LastPerKey => positions.len().saturating_sub(1),
                    _ => 0,
                };
                positions[from..].to_vec()
            };
            let (wanted_at, got_at) = (of(&wanted_of), of(&got_of));
            let rows = |all: &[JsonRow], at: &[usize]| -> Vec<JsonRow> {
                at.iter().map(|at| all[*at].clone()).collect()
            };
            let lines = |all: &[String], at: &[usize]| -> Vec<String> {
                at.iter().map(|at| all[*at].clone()).collect()
            };
            found.extend(self.in_order(
                Some(key),
                (&rows(wanted, &wanted_at), &lines(expected, &wanted_at)),
                (&rows(got, &got_at), &lines(actual, &got_at)),
            ));
        }
        found
    }

    fn in_any_order(
        &self,
        (wanted, expected): (&[JsonRow], &[String]),
        (got, actual): (&[JsonRow], &[String]),
    ) -> Vec<Difference> {
        // Identical rows are matched first, because most rows are.
        let mut left: HashMap<&JsonRowKey, Vec<usize>> = HashMap::new();
        let keys: Vec<JsonRowKey> = got.iter().map(text_of).collect();
        for (at, key) in keys.iter().enumerate().rev() {
            left.entry(key).or_default().push(at);
        }
        let mut missing = Vec::new();
        for (at, row) in wanted.iter().enumerate() {
            if left.get_mut(&text_of(row)).and_then(Vec::pop).is_none() {
                missing.push(at);
            }
        }
        let mut unexpected: Vec<usize> = left.into_values().flatten().collect();
        unexpected.sort_unstable();
        // Each row takes the first row within the tolerances. If tolerances overlap, another
        // assignment might match more rows.
        if !self.tolerances.is_empty() {
            missing.retain(|at| {
                let same = |other: &usize| self.is_same(&wanted[*at], &got[*other]);
                match unexpected.iter().position(same) {
                    Some(found) => {
                        unexpected.remove(found);
                        false
                    }
                    None => true,
                }
            });
        }
        pair(&missing, &mut unexpected, (wanted, expected), (got, actual))
    }

    fn is_same(&self, a: &JsonRow, b: &JsonRow) -> bool {
        a.len() == b.len()
            && a.iter().all(|(name, value)| {
                b.get(name).is_some_and(|other| self.is_same_value(value, other))
            })
    }

    fn is_same_value(&self, a: &JsonValue, b: &JsonValue) -> bool {
        match (a, b) {
            (JsonValue::Number(a), JsonValue::Number(b)) => {
                a == b || self.is_near(a.as_f64(), b.as_f64())
            }
            (JsonValue::String(a), JsonValue::String(b)) => a == b || self.is_near_time(a, b),
            (JsonValue::Array(a), JsonValue::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| self.is_same_value(a, b))
            }
            (JsonValue::Object(a), JsonValue::Object(b)) => self.is_same(a, b),
            _ => a == b,
        }
    }

    fn is_near(&self, a: f64, b: f64) -> bool {
        self.tolerances.iter().any(|tolerance| match tolerance {
            Tolerance::Number(most) => (a - b).abs() <= most * a.abs().max(b.abs()).max(1.0),
            Tolerance::Time(_) => false,
        })
    }

    fn is_near_time(&self, a: &str, b: &str) -> bool {
        self.tolerances.iter().any(|tolerance| {
            let Tolerance::Time(most) = tolerance else { return false };
            match (time_of(a), time_of(b)) {
                (Some(a), Some(b)) => a.abs_diff(b) <= *most,
                _ => false,
            }
        })
    }
}

/// Parses a timestamp as the engine writes it: with an offset from UTC, or without one.
fn time_of(text: &str) -> Option<i64> {
    PayloadTime::parse_date(text.as_bytes()).map(|time| time.ns)
}

/// A row as text, independent of the order of its columns.
type JsonRowKey = String;

fn text_of(row: &JsonRow) -> JsonRowKey {
    row.iter().map(|(name, value)| format!("{name}={value};")).collect()
}

/// Pairs each missing row with the unexpected row that has the most equal columns, if it has any. A
/// row that is paired is not available to later ones. Rows without a partner are differences of
/// their own.
fn pair(
    missing: &[usize],
    unexpected: &mut Vec<usize>,
    (wanted, expected): (&[JsonRow], &[String]),
    (got, actual): (&[JsonRow], &[String]),
) -> Vec<Difference> {
    /// Above this number of unexpected rows, rows are not paired: it would take long, and the list
    /// would be too long to read.
    const PAIRED: usize = 1000;
    let mut found = Vec::new();
    for at in missing {
        let alike = |other: &usize| {
            wanted[*at]
                .iter()
                .filter(|(name, value)| got[*other].get(*name) == Some(*value))
                .count()
        };
        let best = match unexpected.len() <= PAIRED {
            true => unexpected.iter().enumerate().max_by_key(|(_, other)| alike(other)),
            false => None,
        };
        let best = best.filter(|(_, other)| alike(other) > 0).map(|(position, _)| position);
        let twin = best.map(|position| unexpected.remove(position));
        found.push(Difference {
            place: None,
            expected: Some(expected[*at].clone()),
            actual: twin.map(|twin| actual[twin].clone()),
        });
    }
    let rest = unexpected.iter().map(|at| Difference {
        place: None,
        expected: None,
        actual: Some(actual[*at].clone()),
    });
    found.extend(rest);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
        numbers.into_iter().map(|n| format!("{{\"n\":{n},\"half\":{}}}", n as f64 / 2.0)).collect()
    }

    fn differences(expected: &[String], actual: &[String]) -> Vec<(Option<String>, [bool; 2])> {
        let tolerances = [Tolerance::Number(1e-6)];
        let comparison = Comparison::new(Mode::Sequence, &[], &tolerances);
        let found = comparison.compare(expected, actual).into_iter();
        found.map(|d| (d.place, [d.expected.is_some(), d.actual.is_some()])).collect()
    }

    #[test]
    fn a_row_too_many_does_not_make_the_rows_behind_it_different() {
        let expected = rows(0..1000);
        let mut actual = expected.clone();
        // Within the tolerance.
        actual[1] = "{\"n\":1,\"half\":0.5000001}".to_string();
        actual[998] = "{\"n\":998,\"half\":7}".to_string();
        actual.remove(500);
        actual.insert(10, "{\"n\":10,\"half\":0}".to_string());
        actual.insert(10, "{\"n\":9,\"half\":0}".to_string());
        let place = |text: &str| Some(text.to_string());
        let wanted = [
            (place("row 11 of those found"), [false, true]),
            (place("row 12 of those found"), [false, true]),
            (place("row 501"), [true, false]),
            (place("row 999, found as row 1000"), [true, true]),
        ];
        assert_eq!(differences(&expected, &actual), wanted);
    }

    #[test]
    fn long_sequences_that_have_nothing_in_common_are_compared() {
        let (expected, actual) = (rows(0..100_000), rows(200_000..300_001));
        let found = differences(&expected, &actual);
        assert_eq!(found.len(), 100_001);
        assert!(found[..100_000].iter().all(|(_, both)| *both == [true, true]));
    }
}
