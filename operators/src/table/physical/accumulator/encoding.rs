//! The encoding of accumulators in checkpoints, and their display in `inspect`.

use crate::table::datetime::Tz;
use crate::table::physical::accumulator::collected_values::Values;
use crate::table::physical::accumulator::histogram::Histogram;
use crate::table::physical::accumulator::hyperloglog::HyperLogLog;
use crate::table::physical::accumulator::moments::{CoMoments, Moments};
use crate::table::physical::accumulator::percentile::QuantileSummary;
use crate::table::physical::accumulator::value_counts::ValueCounts;
use crate::table::physical::accumulator::{Accumulator, Wide};
use crate::table::row::{Row, decode, encode};
use crate::table::types::DataType;
use crate::table::value::Value;

/// Writes an optional value: a presence byte, then the bytes, or zeros if there is no value.
pub(super) fn put<const N: usize>(value: Option<[u8; N]>, out: &mut Vec<u8>) {
    out.push(u8::from(value.is_some()));
    out.extend_from_slice(&value.unwrap_or([0; N]));
}

pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

/// Reads an optional value that [`put`] wrote. The outer `None` means that the input is truncated,
/// the inner one that there is no value.
fn take_option<const N: usize>(bytes: &mut &[u8]) -> Option<Option<[u8; N]>> {
    let [there] = take::<1>(bytes)?;
    let value = take::<N>(bytes)?;
    Some((there != 0).then_some(value))
}

impl Accumulator {
    /// The name of this kind of accumulator in a checkpoint's layout.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Count(_) => "count",
            Self::SumLong(_) => "sum long",
            Self::SumDouble(_) => "sum double",
            Self::SumDecimal(_) => "sum decimal",
            Self::AvgDouble(..) => "avg double",
            Self::AvgDecimal(..) => "avg decimal",
            Self::Bool(_) => "boolean",
            Self::Long(_) => "long",
            Self::Double(_) => "double",
            Self::Decimal(_) => "decimal",
            Self::Bytes(_) => "bytes",
            Self::Moments(_) => "moments",
            Self::CoMoments(_) => "co-moments",
            Self::Held(_) => "held",
            Self::Values(values) if values.is_set() => "set",
            Self::Values(_) => "list",
            Self::Distinct(_) => "distinct",
            Self::Percentile(_) => "percentile",
            Self::Counts(_) => "counts",
            Self::Histogram(_) => "histogram",
            Self::Shape(_) => "type of VARIANT",
            Self::Frequent(_) => "frequent items",
            Self::Vector(_) => "vector",
            Self::Top(_) => "top",
            Self::User(..) => "user",
            Self::Once(_) => "once",
        }
    }

    /// Creates an empty accumulator of a kind; `None` if the kind is unknown, and for user-defined
    /// functions, DISTINCT and frequent items, whose decoding depends on types.
    fn of_kind(kind: &str) -> Option<Self> {
        Some(match kind {
            "moments" => Self::Moments(Box::default()),
            "co-moments" => Self::CoMoments(Box::default()),
            "held" => Self::Held(None),
            "set" | "list" => Self::Values(Box::new(Values::of_rows())),
            "distinct" => Self::Distinct(Box::new(HyperLogLog::new(9))),
            "percentile" => Self::Percentile(Box::new(QuantileSummary::new(10_000))),
            "counts" => Self::Counts(Box::new(ValueCounts::new(&DataType::Long))),
            "histogram" => Self::Histogram(Box::new(Histogram::new(2))),
            "type of VARIANT" => Self::Shape(Box::default()),
            "vector" => Self::Vector(Box::default()),
            "top" => Self::Top(Box::default()),
            "count" => Self::Count(0),
            "sum long" => Self::SumLong(None),
            "sum double" => Self::SumDouble(None),
            "sum decimal" => Self::SumDecimal(None),
            "avg double" => Self::AvgDouble(0.0, 0),
            "avg decimal" => Self::AvgDecimal(Wide(0), 0),
            "boolean" => Self::Bool(None),
            "long" => Self::Long(None),
            "double" => Self::Double(None),
            "decimal" => Self::Decimal(None),
            "bytes" => Self::Bytes(None),
            _ => return None,
        })
    }

    fn show(&self) -> String {
        fn or_null<T: ToString>(value: Option<T>) -> String {
            value.map_or("NULL".to_string(), |value| value.to_string())
        }
        match self {
            Self::Count(n) => n.to_string(),
            Self::SumLong(v) | Self::Long(v) => or_null(*v),
            Self::SumDouble(v) | Self::Double(v) => or_null(*v),
            Self::SumDecimal(v) | Self::Decimal(v) => {
                or_null(v.map(|Wide(v)| format!("{v} unscaled")))
            }
            Self::AvgDouble(sum, n) => format!("{sum} / {n}"),
            Self::AvgDecimal(sum, n) => format!("{} unscaled / {n}", { sum.0 }),
            Self::Bool(v) => or_null(*v),
            Self::Bytes(v) => or_null(v.as_ref().map(|v| v.escape_ascii().to_string())),
            Self::Moments(m) => format!("{m:?}"),
            Self::CoMoments(m) => format!("{m:?}"),
            Self::Held(v) => or_null(v.as_ref().map(|v| format!("{} bytes", v.len()))),
            Self::Values(values) => format!("{} values", values.len()),
            Self::Distinct(sketch) => format!("about {}", sketch.estimate()),
            Self::Percentile(p) => format!("{} values", p.count()),
            Self::Counts(counts) => format!("{} values", counts.total()),
            Self::Histogram(histogram) => format!("{} bins", histogram.bins().len()),
            Self::Shape(shape) => shape.text(),
            Self::Frequent(items) => format!("{} values", items.len()),
            Self::Vector(mean) => format!("{:?}", mean.elements().unwrap_or_default()),
            Self::Top(top) => format!("{} values", top.len()),
            Self::User(state, _) => format!("{state:?}"),
            Self::Once(once) => once.1.show(),
        }
    }

    /// Appends the encoded value. For a value that is written in parts
    /// ([`GroupParts`](crate::table::physical::accumulator::growing::GroupParts)), appends only a
    /// mark.
    pub fn encode_beside_parts(&self, out: &mut Vec<u8>) {
        match self {
            Self::Values(_) | Self::Percentile(_) => out.extend_from_slice(&IN_PARTS.to_le_bytes()),
            Self::Counts(_) => out.extend_from_slice(&COUNTS_IN_PARTS.to_le_bytes()),
            Self::Distinct(_) => out.push(SKETCH_IN_PARTS),
            fixed => fixed.encode(out),
        }
    }

    /// Appends the complete encoded value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Count(n) => out.extend_from_slice(&n.to_le_bytes()),
            Self::SumLong(v) | Self::Long(v) => put(v.map(i64::to_le_bytes), out),
            Self::SumDouble(v) | Self::Double(v) => put(v.map(f64::to_le_bytes), out),
            Self::SumDecimal(v) | Self::Decimal(v) => put(v.map(|v| v.0.to_le_bytes()), out),
            Self::AvgDouble(sum, n) => {
                out.extend_from_slice(&sum.to_le_bytes());
                out.extend_from_slice(&n.to_le_bytes());
            }
            Self::AvgDecimal(sum, n) => {
                out.extend_from_slice(&{ sum.0 }.to_le_bytes());
                out.extend_from_slice(&n.to_le_bytes());
            }
            Self::Bool(v) => put(v.map(|v| [u8::from(v)]), out),
            Self::Moments(m) => m.parts().into_iter().for_each(|p| out.extend(p.to_le_bytes())),
            Self::CoMoments(m) => m.parts().into_iter().for_each(|p| out.extend(p.to_le_bytes())),
            Self::Values(values) => values.encode(out),
            Self::Distinct(sketch) => sketch.encode(out),
            Self::Percentile(p) => p.encode(out),
            Self::Counts(counts) => counts.encode(out),
            Self::Histogram(histogram) => histogram.encode(out),
            Self::Shape(shape) => shape.encode(out),
            Self::Frequent(items) => items.encode(out),
            Self::Vector(mean) => mean.encode(out),
            Self::Top(top) => top.encode(out),
            Self::User(state, _) => {
                let row = encode(state);
                out.extend_from_slice(&(row.len() as u32).to_le_bytes());
                out.extend_from_slice(&row);
            }
            Self::Once(once) => {
                once.0.encode(out);
                once.1.encode(out);
            }
            Self::Bytes(v) | Self::Held(v) => {
                let length = v.as_ref().map(|v| (v.len() as u32).to_le_bytes());
                put(length, out);
                out.extend_from_slice(v.as_deref().unwrap_or_default());
            }
        }
    }

    /// Decodes a value of this kind from the front of `bytes`; `None` if they are damaged. A value
    /// that is written in parts is left unchanged.
    pub fn decode(&mut self, bytes: &mut &[u8]) -> Option<()> {
        if self.skip_in_parts(bytes) {
            return Some(());
        }
        match self {
            Self::Count(n) => *n = i64::from_le_bytes(take(bytes)?),
            Self::SumLong(v) | Self::Long(v) => *v = take_option(bytes)?.map(i64::from_le_bytes),
            Self::SumDouble(v) | Self::Double(v) => {
                *v = take_option(bytes)?.map(f64::from_le_bytes);
            }
            Self::SumDecimal(v) | Self::Decimal(v) => {
                *v = take_option(bytes)?.map(|v| Wide(i128::from_le_bytes(v)));
            }
            Self::AvgDouble(sum, n) => {
                *sum = f64::from_le_bytes(take(bytes)?);
                *n = i64::from_le_bytes(take(bytes)?);
            }
            Self::AvgDecimal(sum, n) => {
                *sum = Wide(i128::from_le_bytes(take(bytes)?));
                *n = i64::from_le_bytes(take(bytes)?);
            }
            Self::Bool(v) => *v = take_option::<1>(bytes)?.map(|[v]| v != 0),
            Self::Moments(m) => {
                let mut parts = [0.0; 5];
                for part in &mut parts {
                    *part = f64::from_le_bytes(take(bytes)?);
                }
                **m = Moments::of(parts);
            }
            Self::CoMoments(m) => {
                let mut parts = [0.0; 6];
                for part in &mut parts {
                    *part = f64::from_le_bytes(take(bytes)?);
                }
                **m = CoMoments::of(parts);
            }
            Self::Values(values) => values.decode(bytes)?,
            Self::Distinct(sketch) => sketch.decode(bytes)?,
            Self::Percentile(p) => p.decode(bytes)?,
            Self::Counts(counts) => counts.decode(bytes)?,
            Self::Histogram(histogram) => histogram.decode(bytes)?,
            Self::Shape(shape) => shape.decode(bytes)?,
            Self::Frequent(items) => items.decode(bytes)?,
            Self::Vector(mean) => mean.decode(bytes)?,
            Self::Top(top) => top.decode(bytes)?,
            Self::User(state, function) => {
                let length = u32::from_le_bytes(take(bytes)?) as usize;
                let (row, rest) = bytes.split_at_checked(length)?;
                *bytes = rest;
                *state = decode(Row(row), function.state_types()).into();
            }
            Self::Once(once) => {
                once.0.decode(bytes)?;
                once.1.decode(bytes)?;
            }
            Self::Bytes(v) | Self::Held(v) => match take_option(bytes)?.map(u32::from_le_bytes) {
                None => *v = None,
                Some(length) => {
                    let (value, rest) = bytes.split_at_checked(length as usize)?;
                    *bytes = rest;
                    *v = Some(value.to_vec());
                }
            },
        }
        Some(())
    }
}

impl Accumulator {
    /// Whether `bytes` starts with the mark of a value that is written in parts. The mark is
    /// skipped.
    fn skip_in_parts(&self, bytes: &mut &[u8]) -> bool {
        let (mark, counts) = (IN_PARTS.to_le_bytes(), COUNTS_IN_PARTS.to_le_bytes());
        let mark: &[u8] = match self {
            Self::Values(_) | Self::Percentile(_) => &mark,
            Self::Distinct(_) => &[SKETCH_IN_PARTS],
            Self::Counts(_) => &counts,
            _ => return false,
        };
        match bytes.strip_prefix(mark) {
            Some(rest) => {
                *bytes = rest;
                true
            }
            None => false,
        }
    }
}

/// The mark of a list, set or quantile summary that is written in parts. It is encoded at the
/// position of the number of values, or of the accuracy.
const IN_PARTS: u32 = u32::MAX;
/// The mark of a sketch that is written in parts. It is encoded at the position of the precision.
const SKETCH_IN_PARTS: u8 = u8::MAX;
/// The mark of counts of values that are written in parts. It is encoded at the position of the
/// number of rows.
const COUNTS_IN_PARTS: u64 = u64::MAX;

/// The kind of a list of sessions. The kinds after it in the layout are those of each session's
/// values.
pub(in crate::table::physical) const SESSIONS: &str = "sessions";
/// The kind of a timestamp in microseconds.
pub(in crate::table::physical) const TIME: &str = "time";

/// Formats a checkpoint value for `inspect`: one text per kind, or one per session for session
/// windows. `None` if the bytes do not match the kinds, or for a user-defined or DISTINCT
/// aggregate.
pub fn show_state(kinds: &[String], mut value: &[u8]) -> Option<Vec<String>> {
    let time = |value: &mut &[u8]| {
        let micros = i64::from_le_bytes(take(value)?);
        if micros == i64::MAX {
            return Some("never".to_string());
        }
        Value::Long(micros).display(&DataType::Timestamp, Tz::UTC)
    };
    let show = |kind: &String, value: &mut &[u8]| {
        if kind == TIME {
            return time(value);
        }
        let mut accumulator = Accumulator::of_kind(kind)?;
        if accumulator.skip_in_parts(value) {
            return Some("in parts".to_string());
        }
        // The kind does not tell the type of the values, so only their number is shown.
        if let Accumulator::Values(_) = accumulator {
            return Values::take_count(value).map(|count| format!("{count} values"));
        }
        if let Accumulator::Counts(_) = accumulator {
            return ValueCounts::take_total(value).map(|total| format!("{total} values"));
        }
        accumulator.decode(value)?;
        Some(accumulator.show())
    };
    match kinds {
        [first, kinds @ ..] if first == SESSIONS => {
            let count = u64::from_le_bytes(take(&mut value)?);
            let mut sessions = Vec::new();
            for _ in 0..count {
                let span = format!("{} to {}", time(&mut value)?, time(&mut value)?);
                let values = kinds.iter().map(|kind| show(kind, &mut value));
                let values = values.collect::<Option<Vec<_>>>()?;
                sessions.push(format!("{span}: {}", values.join(" ")));
            }
            Some(sessions)
        }
        kinds => kinds.iter().map(|kind| show(kind, &mut value)).collect(),
    }
}
