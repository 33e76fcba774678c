//! `--shift-time`: moves the times in the payload so that the first one is the time of the replay.
//!
//! All times of a loop are moved by the same amount, whatever the speed. Their differences stay the
//! same, and so do session windows. Tumbling and sliding windows may contain other rows, because
//! the amount is not a multiple of their length.

use crate::capture::payload_time::PayloadTime;
use regex::bytes::Regex;
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::ops::Range;

/// The field of a line that contains its time.
#[derive(Clone, Debug)]
pub(crate) enum TimeField {
    /// The CSV column with this index.
    Column(usize),
    /// The JSON field with this name, or the CSV column with this name in a header line.
    Name(String),
    /// The group of a regular expression.
    Group(Regex),
}

/// Characters that occur in regular expressions but not in names of columns.
const REGEX_MARKS: [char; 10] = ['\\', '[', ']', '*', '+', '?', '^', '$', '{', ')'];
/// Separators of CSV columns. A stream has the first one with which the wanted column is found.
const SEPARATORS: [u8; 4] = [b',', b'\t', b';', b'|'];

impl TimeField {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Ok(column) = text.parse::<usize>() {
            let index = column.checked_sub(1).ok_or("columns are counted from 1")?;
            return Ok(Self::Column(index));
        }
        if text.is_empty() {
            return Err("give a JSON field, a CSV column, or a regular expression".to_string());
        }
        if !text.contains('(') && !text.contains(REGEX_MARKS) {
            return Ok(Self::Name(text.to_string()));
        }
        let regex = Regex::new(text).map_err(|error| error.to_string())?;
        match regex.captures_len() {
            2 => Ok(Self::Group(regex)),
            groups => Err(format!(
                "the regular expression has {} groups; the time is in its only one, such as \
                 time=(\\d+)",
                groups - 1
            )),
        }
    }
}

impl std::fmt::Display for TimeField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Column(index) => write!(f, "CSV column {}", index + 1),
            Self::Name(name) => write!(f, "the JSON field or CSV column {name}"),
            Self::Group(regex) => write!(f, "the group of {regex}"),
        }
    }
}

/// The numbers of lines by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ShiftCounts {
    /// Lines whose time was moved.
    pub moved: u64,
    /// Lines in which no time was found.
    pub without_time: u64,
    /// Lines among `moved` whose length has changed.
    pub resized: u64,
    /// Lines whose format cannot represent the moved time. They are replayed unchanged.
    pub out_of_range: u64,
}

impl ShiftCounts {
    pub(super) fn lines(&self) -> u64 {
        self.moved + self.without_time + self.out_of_range
    }
}

/// A range of a line, and the bytes that replace it.
pub(super) struct Replacement {
    pub range: Range<usize>,
    pub bytes: Vec<u8>,
}

/// The CSV format of a stream of lines, as far as it is known.
#[derive(Clone, Copy, Default)]
struct Csv {
    separator: Option<u8>,
    /// The index of the column `field`, once a header of the stream has named it.
    named: Option<usize>,
}

/// Moves the times of lines.
pub(super) struct Shifter {
    field: TimeField,
    /// The open streams, by connection.
    streams: HashMap<u64, Csv>,
    /// The index in the last header of any stream, for streams without a header of their own.
    named: Option<usize>,
    /// The amount by which the times of this loop are moved. `None` before the first time.
    by_ns: Option<i64>,
    /// The largest time that was written. The next loop starts at this time or later.
    last_ns: i64,
    pub counts: ShiftCounts,
}

impl Shifter {
    pub(super) fn new(field: TimeField) -> Self {
        Self {
            field,
            streams: HashMap::new(),
            named: None,
            by_ns: None,
            last_ns: i64::MIN,
            counts: ShiftCounts::default(),
        }
    }

    pub(super) fn field(&self) -> &TimeField {
        &self.field
    }

    /// Starts another loop over the recording, with new connections.
    pub(super) fn begin_loop(&mut self) {
        self.by_ns = None;
        self.streams.clear();
    }

    /// Forgets the format of a stream that has ended.
    pub(super) fn end_stream(&mut self, connection: u64) {
        self.streams.remove(&connection);
    }

    /// Finds and moves the time of a line. `played_ns` is the wall-clock time at which the line is
    /// replayed. Returns `None` if the line stays unchanged.
    pub(super) fn line(
        &mut self,
        connection: u64,
        line: &[u8],
        played_ns: i64,
    ) -> Option<Replacement> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() || self.is_header(connection, line) {
            return None;
        }
        let Some((time, range)) = self.find(connection, line) else {
            self.counts.without_time += 1;
            return None;
        };
        let first_ns = played_ns.max(self.last_ns);
        let by_ns = *self.by_ns.get_or_insert(first_ns.saturating_sub(time.ns));
        let (ns, mut bytes) = (time.ns.saturating_add(by_ns), Vec::with_capacity(range.len()));
        if !time.write(ns, &mut bytes) {
            self.counts.out_of_range += 1;
            return None;
        }
        self.last_ns = self.last_ns.max(ns);
        self.counts.moved += 1;
        self.counts.resized += u64::from(bytes.len() != range.len());
        Some(Replacement { range, bytes })
    }

    /// Whether the line is a CSV header that has the column. If so, the line determines the
    /// stream's separator and the column's index.
    fn is_header(&mut self, connection: u64, line: &[u8]) -> bool {
        let TimeField::Name(name) = &self.field else { return false };
        if line.first() == Some(&b'{') {
            return false;
        }
        let csv = self.streams.entry(connection).or_default();
        for separator in csv.separators() {
            let index = columns(line, separator).position(|range| line[range] == *name.as_bytes());
            if let Some(index) = index {
                csv.decide(line, separator);
                csv.named = Some(index);
                self.named = csv.named;
                return true;
            }
        }
        false
    }

    fn find(&mut self, connection: u64, line: &[u8]) -> Option<(PayloadTime, Range<usize>)> {
        let range = match &self.field {
            TimeField::Column(index) => return self.column(connection, line, *index),
            TimeField::Name(name) if line.first() == Some(&b'{') => json_field(line, name)?,
            TimeField::Name(_) => {
                let named = self.streams.get(&connection).and_then(|csv| csv.named);
                return self.column(connection, line, named.or(self.named)?);
            }
            TimeField::Group(regex) => regex.captures(line)?.get(1)?.range(),
        };
        Some((PayloadTime::parse(&line[range.clone()])?, range))
    }

    /// The time in a column. The first time that is found determines the stream's separator.
    fn column(
        &mut self,
        connection: u64,
        line: &[u8],
        index: usize,
    ) -> Option<(PayloadTime, Range<usize>)> {
        let csv = self.streams.entry(connection).or_default();
        for separator in csv.separators() {
            let Some(range) = columns(line, separator).nth(index) else { continue };
            if let Some(time) = PayloadTime::parse(&line[range.clone()]) {
                csv.decide(line, separator);
                return Some((time, range));
            }
        }
        None
    }
}

impl Csv {
    /// The separators that the stream may have.
    fn separators(&self) -> impl Iterator<Item = u8> + use<> {
        let decided = self.separator;
        SEPARATORS.into_iter().filter(move |separator| decided.is_none_or(|one| one == *separator))
    }

    /// Sets the separator to the one with which the column was found in this line, unless the line
    /// then has only one column.
    fn decide(&mut self, line: &[u8], separator: u8) {
        if columns(line, separator).nth(1).is_some() {
            self.separator = Some(separator);
        }
    }
}

/// The range of a top-level field's value, of a string without its quotes. `None` if the line is
/// not a JSON object or has no such field. Of a repeated field, the last one counts.
fn json_field(line: &[u8], name: &str) -> Option<Range<usize>> {
    let fields: HashMap<String, &RawValue> = serde_json::from_slice(line).ok()?;
    let value = fields.get(name)?.get();
    // The value is a part of the line.
    let from = (value.as_ptr() as usize).checked_sub(line.as_ptr() as usize)?;
    let quoted = value.len() >= 2 && value.starts_with('"');
    Some(if quoted { from + 1..from + value.len() - 1 } else { from..from + value.len() })
}

/// The columns of a CSV line, without their quotes.
fn columns(line: &[u8], separator: u8) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut next = Some(0);
    std::iter::from_fn(move || {
        let from = next?;
        let is_quoted = line.get(from) == Some(&b'"');
        let close = match is_quoted {
            true => closing_quote(&line[from + 1..]).map(|at| from + 1 + at),
            false => None,
        };
        let search = close.unwrap_or(from);
        let end = line[search..].iter().position(|byte| *byte == separator);
        let end = end.map(|at| search + at);
        next = end.map(|end| end + 1);
        Some(match close {
            Some(close) => from + 1..close,
            None => from..end.unwrap_or(line.len()),
        })
    })
}

/// The position of the quote that ends a quoted column; a doubled quote does not end it.
fn closing_quote(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += text[at..].iter().position(|byte| *byte == b'"')?;
        if text.get(at + 1) != Some(&b'"') {
            return Some(at);
        }
        at += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_NS: i64 = 1_800_000_000_000_000_000;

    fn shifter(field: &str) -> Shifter {
        Shifter::new(TimeField::parse(field).unwrap())
    }

    fn shifted(shifter: &mut Shifter, line: &str) -> String {
        let mut bytes = line.as_bytes().to_vec();
        if let Some(Replacement { range, bytes: new }) = shifter.line(0, line.as_bytes(), NOW_NS) {
            bytes.splice(range, new);
        }
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_first_time_becomes_now_and_differences_are_kept() {
        let mut json = shifter("ts");
        for (line, after) in [
            (r#"{"id":1,"ts":1700000000}"#, r#"{"id":1,"ts":1800000000}"#),
            (r#"{"ts" : "1700000007", "id":2}"#, r#"{"ts" : "1800000007", "id":2}"#),
            (r#"{"ts":1699999999,"s":"\"ts\":1"}"#, r#"{"ts":1799999999,"s":"\"ts\":1"}"#),
            (r#"{"ts":"2023-11-14T22:13:20Z"}"#, r#"{"ts":"2027-01-15T08:00:00Z"}"#),
        ] {
            assert_eq!(shifted(&mut json, line), after);
        }
        assert_eq!(json.counts, ShiftCounts { moved: 4, ..ShiftCounts::default() });
    }

    #[test]
    fn columns_are_found_by_number_and_by_header() {
        let mut numbered = shifter("2");
        assert_eq!(shifted(&mut numbered, "a,1700000000,b"), "a,1800000000,b");
        assert_eq!(
            shifted(&mut numbered, "\"a,\"\"x\",\"1700000001\""),
            "\"a,\"\"x\",\"1800000001\""
        );
        let mut numbered = shifter("2");
        assert_eq!(shifted(&mut numbered, "a;1700000002\r"), "a;1800000000\r");
        let mut named = shifter("time");
        for (line, after) in [
            ("id\ttime\tprice", "id\ttime\tprice"),
            ("1\t1700000000123\t7", "1\t1800000000000\t7"),
            ("2\t1700000000124\t8", "2\t1800000000001\t8"),
        ] {
            assert_eq!(shifted(&mut named, line), after);
        }
        assert_eq!(named.counts, ShiftCounts { moved: 2, ..ShiftCounts::default() });
    }

    #[test]
    fn the_separator_of_a_stream_is_detected_once_outside_quotes() {
        let mut numbered = shifter("2");
        for (line, after) in [
            // With no separator the second column is a time, so this line determines none.
            ("names, and times", "names, and times"),
            (r#""a,b";1700000000;3"#, r#""a,b";1800000000;3"#),
            ("a,b;1700000001;3", "a,b;1800000001;3"),
            ("a,1700000002", "a,1700000002"),
        ] {
            assert_eq!(shifted(&mut numbered, line), after);
        }
        assert_eq!(
            numbered.counts,
            ShiftCounts { moved: 2, without_time: 2, ..ShiftCounts::default() }
        );
        // Each other stream has its own separator.
        let other = numbered.line(1, b"a,1700000003", NOW_NS).unwrap();
        assert_eq!(other.bytes, b"1800000003");
        let mut named = shifter("at");
        for (line, after) in [
            ("id;price, net;at", "id;price, net;at"),
            ("1;2,5;1700000000", "1;2,5;1800000000"),
            ("2;1700000001,5;1700000001", "2;1700000001,5;1800000001"),
        ] {
            assert_eq!(shifted(&mut named, line), after);
        }
        let mut first = shifter("1");
        for (line, after) in [("1700000000", "1800000000"), ("1700000001;a,b", "1800000001;a,b")] {
            assert_eq!(shifted(&mut first, line), after);
        }
    }

    #[test]
    fn a_group_is_found_anywhere() {
        let mut group = shifter(r"at=(\d+)");
        assert_eq!(shifted(&mut group, "<34> x at=1700000000 y"), "<34> x at=1800000000 y");
    }

    #[test]
    fn lines_without_a_time_are_counted_and_unchanged() {
        let mut field = shifter("ts");
        for line in
            [r#"{"id":1}"#, r#"{"ts":null}"#, r#"{"ts":"#, "1,2", "no header", r#"{"ts":12}"#]
        {
            assert_eq!(shifted(&mut field, line), line);
        }
        assert_eq!(field.counts, ShiftCounts { without_time: 6, ..ShiftCounts::default() });
    }

    #[test]
    fn each_loop_starts_at_the_end_time_of_the_previous_one() {
        let mut column = shifter("1");
        assert_eq!(shifted(&mut column, "1700000000"), "1800000000");
        assert_eq!(shifted(&mut column, "1700000050"), "1800000050");
        column.begin_loop();
        assert_eq!(shifted(&mut column, "1700000000"), "1800000050");
        assert_eq!(shifted(&mut column, "1700000050"), "1800000100");
    }

    #[test]
    fn wrong_fields_are_refused() {
        for (text, part) in [
            ("0", "from 1"),
            ("", "JSON field"),
            (r"\d+", "has 0 groups"),
            ("(a)(b)", "has 2 groups"),
            ("(a", "unclosed"),
        ] {
            let error = TimeField::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
