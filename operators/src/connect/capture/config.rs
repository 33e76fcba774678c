//! The options of the capture source.

use crate::connect::options::OptionReader;
use crate::connect::socket::framing::line::LineEnds;
use crate::table::datetime::{Tz, parse_timestamp};
use crate::table::error::{PlanError, PlanResult};
use crate::table::plan::Options;
use crate::table::types::{DataType, Field, Schema};
use millstream_engine::capture::{Direction, Head};
use std::path::PathBuf;

/// Default of `maxBytesPerTrigger`.
const BATCH_BYTES: u64 = 16 << 20;
/// Default of `maxUnfinishedBytes`, unless `maxLineLength` is larger.
const UNFINISHED_BYTES: u64 = 64 << 20;

/// The parsed options of the capture source.
#[derive(Clone, Debug)]
pub struct CaptureConfig {
    pub(super) path: PathBuf,
    /// The replay speed as a multiple of the recorded speed. `None` replays without waiting.
    pub(super) speed: Option<f64>,
    /// The recorded time at which the schedule starts, in nanoseconds since 1970.
    pub(super) schedule_start_ns: Option<u64>,
    pub(super) from_ns: Option<i64>,
    pub(super) to_ns: Option<i64>,
    pub(super) connections: Vec<u32>,
    /// The direction to read. `None` reads both.
    pub(super) direction: Option<Direction>,
    pub(super) ends: LineEnds,
    /// Whether a datagram contains lines instead of being a record.
    pub(super) datagram_lines: bool,
    pub(super) max_line: usize,
    pub(super) max_unfinished: usize,
    pub(super) include_timestamp: bool,
    /// Whether an unfinished line becomes a record when its connection is closed or half-closed,
    /// instead of being rejected.
    pub(super) keeps_last_line: bool,
    pub(super) batch_bytes: usize,
}

fn wrong(name: &str, value: &str, wanted: &str) -> PlanError {
    let reason = format!("source capture: option '{name}' is '{value}', but must be {wanted}");
    PlanError::new("INVALID_OPTION_VALUE", reason, "")
}

impl CaptureConfig {
    /// Parses the options, which docs/src/reference.md lists.
    pub fn read(options: &Options) -> PlanResult<Self> {
        let mut reader = OptionReader::new("source capture", options);
        let path = reader.required("path", "/data/tuesday.capture")?;
        if path.is_empty() {
            return Err(wrong("path", path, "a file, or a folder of capture files"));
        }
        let speed = speed(&mut reader)?;
        let schedule_start_ns =
            match time(&mut reader, "scheduleStart")? {
                None => None,
                Some(ns) => Some(u64::try_from(ns).map_err(|_| {
                    wrong("scheduleStart", &ns.to_string(), "a time at or after 1970")
                })?),
            };
        if schedule_start_ns.is_some() && speed.is_none() {
            let reason = "source capture: 'scheduleStart' without a pace";
            let fix = "Give 'speed' a factor, such as '1'";
            return Err(PlanError::new("INVALID_OPTION_VALUE", reason, fix));
        }
        let (from_ns, to_ns) = (time(&mut reader, "from")?, time(&mut reader, "to")?);
        if let (Some(from), Some(to)) = (from_ns, to_ns)
            && from >= to
        {
            let reason = "source capture: 'from' is not before 'to'";
            return Err(PlanError::new("INVALID_OPTION_VALUE", reason, "Exchange them"));
        }
        let direction = match reader.choice("direction", &["in", "out", "both"])? {
            "in" => Some(Direction::In),
            "out" => Some(Direction::Out),
            _ => None,
        };
        let connections = connections(&mut reader)?;
        let datagram_lines = reader.choice("datagram", &["record", "lines"])? == "lines";
        let ends = match reader.get("lineSep") {
            None => LineEnds::Any,
            Some("\n" | "\\n") => LineEnds::Lf,
            Some(other) => {
                let wanted = "'\\n'; omit it if \\n, \\r\\n and \\r end lines";
                return Err(wrong("lineSep", &other.escape_default().to_string(), wanted));
            }
        };
        let max_line = reader.number("maxLineLength", 1 << 20, 1, 1 << 30)?;
        let most = UNFINISHED_BYTES.max(max_line);
        let max_unfinished = reader.number("maxUnfinishedBytes", most, max_line, 1 << 40)? as usize;
        let include_timestamp = reader.flag("includeTimestamp", true)?;
        let keeps_last_line = reader.choice("lastLine", &["keep", "reject"])? == "keep";
        let batch_bytes = reader.number("maxBytesPerTrigger", BATCH_BYTES, 1, 1 << 40)? as usize;
        reader.finish()?;
        Ok(Self {
            path: PathBuf::from(path),
            speed,
            schedule_start_ns,
            from_ns,
            to_ns,
            connections,
            direction,
            ends,
            datagram_lines,
            max_line: max_line as usize,
            max_unfinished,
            include_timestamp,
            keeps_last_line,
            batch_bytes,
        })
    }

    /// The columns `value STRING` and, unless `includeTimestamp` is false, `timestamp TIMESTAMP`.
    pub fn schema(&self) -> Schema {
        let mut fields = vec![Field::new("value", DataType::String, true)];
        if self.include_timestamp {
            fields.push(Field::new("timestamp", DataType::Timestamp, true));
        }
        Schema::new(fields)
    }

    /// Whether the option `connection` includes the connection of an event.
    pub(super) fn includes(&self, head: &Head) -> bool {
        self.connections.is_empty() || self.connections.contains(&head.connection)
    }

    /// Whether the options `from` and `to` include an event.
    pub(super) fn is_in_range(&self, head: &Head) -> bool {
        self.from_ns.is_none_or(|from_ns| head.wall_ns >= from_ns)
            && self.to_ns.is_none_or(|to_ns| head.wall_ns < to_ns)
    }

    /// Whether the option `direction` includes the direction of an event.
    pub(super) fn has_direction(&self, head: &Head) -> bool {
        self.direction.is_none_or(|direction| direction == head.direction)
    }
}

fn speed(reader: &mut OptionReader<'_>) -> PlanResult<Option<f64>> {
    let Some(text) = reader.get("speed") else { return Ok(None) };
    if text.eq_ignore_ascii_case("max") {
        return Ok(None);
    }
    match text.trim_end_matches(['x', 'X']).parse::<f64>() {
        Ok(factor) if factor > 0.0 && factor.is_finite() => Ok(Some(factor)),
        _ => Err(wrong("speed", text, "'max', or a factor such as '1', '0.1' or '10'")),
    }
}

/// Parses a time: nanoseconds since 1970, or a timestamp, which is in UTC unless it names a zone.
/// `None` if the option is not given; any other text is an error.
fn time(reader: &mut OptionReader<'_>, name: &'static str) -> PlanResult<Option<i64>> {
    let Some(text) = reader.get(name) else { return Ok(None) };
    if let Ok(ns) = text.parse() {
        return Ok(Some(ns));
    }
    let ns = parse_timestamp(text, Some(Tz::UTC)).and_then(|us| us.checked_mul(1000));
    let wanted = "a time such as '2026-03-01 12:30:00.25', or nanoseconds since 1970";
    ns.map(Some).ok_or_else(|| wrong(name, text, wanted))
}

fn connections(reader: &mut OptionReader<'_>) -> PlanResult<Vec<u32>> {
    let Some(text) = reader.get("connection") else { return Ok(Vec::new()) };
    let numbers: Result<Vec<u32>, _> = text.split(',').map(|n| n.trim().parse()).collect();
    numbers.map_err(|_| wrong("connection", text, "connection numbers, such as '3' or '0,7'"))
}
