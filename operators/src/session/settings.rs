//! The settings of a session, changed by `SET`.

use crate::connect::format_settings::FormatSettings;
use crate::table::datetime::interval;
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::compile::Semantics;
use crate::table::expr::resolve::did_you_mean;
use crate::table::sql::literals::LiteralSettings;
use millstream_engine::cores::parse_list;
use millstream_engine::epoch::event_time::WatermarkPolicy;
use millstream_engine::runtime::job::AtStateLimit;
use std::sync::Mutex;

/// What happens to the other queries of a job when one of them fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnQueryFailure {
    /// The other queries stop at their next epoch.
    #[default]
    Stop,
    /// The other queries continue.
    Continue,
}

/// The values of all settings. A query of a job file uses the values set before it.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub parallelism: usize,
    pub workers: usize,
    pub pin: bool,
    /// The cores to which pinned workers are restricted.
    pub cores: Option<Vec<usize>>,
    pub wait: crate::WaitProfile,
    pub semantics: Semantics,
    pub formats: FormatSettings,
    pub literals: LiteralSettings,
    pub schema_inference: bool,
    pub asof_join: bool,
    pub watermark_policy: WatermarkPolicy,
    pub idle_timeout_ns: Option<u64>,
    /// The maximum size of the rows that a join buffers, in bytes.
    pub join_state_bytes: Option<u64>,
    pub at_join_limit: AtStateLimit,
    /// How far ahead of the clock event times may be, in milliseconds.
    pub max_future_skew_ms: Option<i64>,
    pub on_query_failure: OnQueryFailure,
}

/// Parses a size in bytes, with Spark's suffixes: `512m`, `2g`.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" => 10,
        "m" | "mb" => 20,
        "g" | "gb" => 30,
        "t" | "tb" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift).filter(|bytes| *bytes > 0)
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            parallelism: 1,
            workers: 1,
            pin: true,
            cores: None,
            wait: crate::WaitProfile::Balanced,
            semantics: Semantics::default(),
            formats: FormatSettings::default(),
            literals: LiteralSettings::default(),
            schema_inference: false,
            asof_join: false,
            watermark_policy: WatermarkPolicy::Min,
            idle_timeout_ns: None,
            join_state_bytes: None,
            at_join_limit: AtStateLimit::Hold,
            max_future_skew_ms: None,
            on_query_failure: OnQueryFailure::default(),
        }
    }
}

impl Settings {
    /// Changes a setting. An unknown key or an invalid value is an error.
    pub fn set(&mut self, key: &str, value: &str) -> PlanResult<()> {
        let wrong = |wanted: &str| {
            let reason = format!("'{key}' is '{value}', but must be {wanted}");
            Err(PlanError::new("INVALID_CONF_VALUE", reason, ""))
        };
        let count = || value.parse::<usize>().ok().filter(|n| (1..=256).contains(n));
        match key.to_ascii_lowercase().as_str() {
            "millstream.parallelism" => match count() {
                Some(n) => self.parallelism = n,
                None => return wrong("a number from 1 to 256"),
            },
            "millstream.workers" => match count() {
                Some(n) => self.workers = n,
                None => return wrong("a number from 1 to 256"),
            },
            "millstream.pin" => match value.parse() {
                Ok(pin) => self.pin = pin,
                Err(_) => return wrong("true or false"),
            },
            "millstream.cores" => {
                self.cores = match (value, parse_list(value)) {
                    ("auto", _) => None,
                    (_, Ok(list)) => Some(list),
                    (_, Err(_)) => return wrong("a list of cores such as 0-3,6, or auto"),
                }
            }
            "millstream.wait" => {
                self.wait = match value.to_ascii_lowercase().as_str() {
                    "spin" => crate::WaitProfile::Spin,
                    "balanced" => crate::WaitProfile::Balanced,
                    "park" => crate::WaitProfile::Park,
                    _ => return wrong("spin, balanced or park"),
                }
            }
            "spark.sql.session.timezone" => {
                let zone = crate::table::datetime::zone(value).map_err(|mut error| {
                    error.condition = "INVALID_CONF_VALUE.TIME_ZONE".into();
                    error
                })?;
                self.semantics.zone = zone;
                self.formats.zone = zone;
            }
            "spark.sql.ansi.enabled" => match value.to_ascii_lowercase().parse() {
                Ok(ansi) => {
                    self.semantics.ansi = ansi;
                    self.formats.ansi = ansi;
                }
                Err(_) => return wrong("true or false"),
            },
            "spark.sql.decimaloperations.allowprecisionloss" => {
                match value.to_ascii_lowercase().parse() {
                    Ok(allowed) => self.semantics.precision_loss = allowed,
                    Err(_) => return wrong("true or false"),
                }
            }
            "spark.sql.legacy.nullinemptylistbehavior" => {
                match value.to_ascii_lowercase().parse() {
                    Ok(is_null) => self.semantics.null_in_empty_list = Some(is_null),
                    Err(_) => return wrong("true or false"),
                }
            }
            "spark.sql.timestamptype" => {
                let without_zone = match value.to_ascii_uppercase().as_str() {
                    "TIMESTAMP_NTZ" => true,
                    "TIMESTAMP_LTZ" => false,
                    _ => return wrong("TIMESTAMP_LTZ or TIMESTAMP_NTZ"),
                };
                self.semantics.timestamps_without_zone = without_zone;
                self.formats.timestamps_without_zone = without_zone;
            }
            "spark.sql.mapkeydeduppolicy" => {
                self.semantics.last_key_wins = match value.to_ascii_uppercase().as_str() {
                    "EXCEPTION" => false,
                    "LAST_WIN" => true,
                    _ => return wrong("EXCEPTION or LAST_WIN"),
                }
            }
            "spark.sql.legacy.negativeindexinarrayinsert" => {
                match value.to_ascii_lowercase().parse() {
                    Ok(legacy) => self.semantics.legacy_array_insert = legacy,
                    Err(_) => return wrong("true or false"),
                }
            }
            "spark.sql.chunkbase64string.enabled" => match value.to_ascii_lowercase().parse() {
                Ok(lines) => self.semantics.base64_lines = lines,
                Err(_) => return wrong("true or false"),
            },
            "spark.sql.streaming.multiplewatermarkpolicy" => {
                self.watermark_policy = match value.to_ascii_lowercase().as_str() {
                    "min" => WatermarkPolicy::Min,
                    "max" => WatermarkPolicy::Max,
                    _ => return wrong("min or max"),
                }
            }
            "millstream.idletimeout" => {
                let length = interval::length(value).ok().filter(|l| l.months == 0 && l.micros > 0);
                self.idle_timeout_ns = match (value, length) {
                    ("none", _) => None,
                    (_, Some(length)) => Some(length.micros as u64 * 1000),
                    (_, None) => return wrong("a length of time such as '10 seconds', or none"),
                }
            }
            "millstream.join.maxstatebytes" => {
                self.join_state_bytes = match (value.trim(), bytes(value)) {
                    ("none", _) => None,
                    (_, Some(bytes)) => Some(bytes),
                    (_, None) => return wrong("a size such as '512m' or '2g', or none"),
                }
            }
            "millstream.join.onmaxstatebytes" => {
                self.at_join_limit = match value.to_ascii_lowercase().as_str() {
                    "hold" => AtStateLimit::Hold,
                    "fail" => AtStateLimit::Fail,
                    _ => return wrong("hold or fail"),
                }
            }
            "millstream.eventtime.maxfutureskew" => {
                let length =
                    interval::length(value).ok().filter(|l| l.months == 0 && l.micros >= 0);
                self.max_future_skew_ms = match (value, length) {
                    ("none", _) => None,
                    (_, Some(length)) => Some(length.micros / 1000),
                    (_, None) => return wrong("a length of time such as '10 minutes', or none"),
                }
            }
            "millstream.onqueryfailure" => {
                self.on_query_failure = match value.to_ascii_lowercase().as_str() {
                    "stop" => OnQueryFailure::Stop,
                    "continue" => OnQueryFailure::Continue,
                    _ => return wrong("stop or continue"),
                }
            }
            "spark.sql.join.asofjoin.enabled" => match value.to_ascii_lowercase().parse() {
                Ok(enabled) => self.asof_join = enabled,
                Err(_) => return wrong("true or false"),
            },
            "spark.sql.streaming.schemainference" => match value.to_ascii_lowercase().parse() {
                Ok(infers) => self.schema_inference = infers,
                Err(_) => return wrong("true or false"),
            },
            other => {
                if self.formats.set(other, value)? {
                    self.semantics.corrupt_column = interned(self.formats.corrupt_column());
                    return Ok(());
                }
                let known = self.semantics.naming.setting(other);
                if let Some(setting) = known.or_else(|| self.literals.setting(other)) {
                    match value.to_ascii_lowercase().parse() {
                        Ok(on) => *setting = on,
                        Err(_) => return wrong("true or false"),
                    }
                    return Ok(());
                }
                let all = [
                    "millstream.parallelism",
                    "millstream.workers",
                    "millstream.pin",
                    "millstream.cores",
                    "millstream.wait",
                    "millstream.idleTimeout",
                    "millstream.join.maxStateBytes",
                    "millstream.join.onMaxStateBytes",
                    "millstream.eventTime.maxFutureSkew",
                    "millstream.onQueryFailure",
                    "spark.sql.session.timeZone",
                    "spark.sql.ansi.enabled",
                    "spark.sql.decimalOperations.allowPrecisionLoss",
                    "spark.sql.timestampType",
                    "spark.sql.chunkBase64String.enabled",
                    "spark.sql.groupByAliases",
                    "spark.sql.groupByOrdinal",
                    "spark.sql.orderByOrdinal",
                    "spark.sql.legacy.setopsPrecedence.enabled",
                    "spark.sql.parser.escapedStringLiterals",
                    "spark.sql.legacy.consecutiveStringLiterals.enabled",
                    "spark.sql.mapKeyDedupPolicy",
                    "spark.sql.legacy.negativeIndexInArrayInsert",
                    "spark.sql.legacy.nullInEmptyListBehavior",
                    "spark.sql.join.asofJoin.enabled",
                    "spark.sql.streaming.schemaInference",
                    "spark.sql.streaming.multipleWatermarkPolicy",
                ];
                let all: Vec<&str> = all.into_iter().chain(FormatSettings::names()).collect();
                return Err(PlanError::new(
                    "UNKNOWN_SETTING",
                    format!("there is no setting '{key}'"),
                    format!(
                        "{}Settings: {}",
                        did_you_mean(key, all.iter().copied()),
                        all.join(", ")
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// Returns a copy of a text that lives as long as the process, so that the copyable rules of
/// expressions can contain it. This leaks little memory, because a session sets only a few
/// different texts.
fn interned(text: &str) -> &'static str {
    static TEXTS: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
    let mut texts = TEXTS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(known) = texts.iter().find(|known| **known == text) {
        return known;
    }
    let made: &'static str = Box::leak(text.to_string().into_boxed_str());
    texts.push(made);
    made
}
