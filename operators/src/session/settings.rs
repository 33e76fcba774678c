//! The settings of a session, changed by `SET`.

use crate::connect::format_settings::FormatSettings;
use crate::table::datetime::duration_ns;
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::compile::Semantics;
use crate::table::expr::resolve::did_you_mean;
use crate::table::sql::literals::LiteralSettings;
use crate::table::value::{BinaryStyle, Display};
use millstream_engine::cores::parse_list;
use millstream_engine::epoch::watermark_policy::WatermarkPolicy;
use millstream_engine::runtime::job::{AtStateLimit, JoinOrder};
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
    /// How workers wait. `None`: as the sources of the query need it.
    pub wait: Option<crate::WaitProfile>,
    pub semantics: Semantics,
    pub formats: FormatSettings,
    pub literals: LiteralSettings,
    pub schema_inference: bool,
    pub asof_join: bool,
    pub watermark_policy: WatermarkPolicy,
    /// Whether micro-batches without new records run to emit rows and to evict state.
    pub no_data_batches: bool,
    pub idle_timeout_ns: Option<u64>,
    /// The maximum size of the rows that a join buffers, in bytes.
    pub join_state_bytes: Option<u64>,
    pub at_join_limit: AtStateLimit,
    pub join_order: JoinOrder,
    /// How far ahead of the clock event times may be, in milliseconds.
    pub max_future_skew_ms: Option<i64>,
    pub on_query_failure: OnQueryFailure,
    /// The settings that were set, in order, each with its value as text.
    changes: Vec<(String, String)>,
}

/// Parses a size in bytes, with Spark's suffixes: `512m`, `2g`. `None` for another text, for 0, and
/// for a size of 2^64 bytes or more.
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
            wait: None,
            semantics: Semantics::default(),
            formats: FormatSettings::default(),
            literals: LiteralSettings::default(),
            schema_inference: false,
            asof_join: false,
            watermark_policy: WatermarkPolicy::Min,
            no_data_batches: true,
            idle_timeout_ns: None,
            join_state_bytes: None,
            at_join_limit: AtStateLimit::Hold,
            join_order: JoinOrder::default(),
            max_future_skew_ms: None,
            on_query_failure: OnQueryFailure::default(),
            changes: Vec::new(),
        }
    }
}

/// The names of all settings that have an effect, except those of the formats, for error messages.
const NAMES: [&str; 34] = [
    "millstream.parallelism",
    "millstream.workers",
    "millstream.pin",
    "millstream.cores",
    "millstream.wait",
    "millstream.idleTimeout",
    "millstream.join.maxStateBytes",
    "millstream.join.onMaxStateBytes",
    "millstream.join.ordered",
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
    "spark.sql.legacy.parser.havingWithoutGroupByAsWhere",
    "spark.sql.function.concatBinaryAsString",
    "spark.sql.function.eltOutputAsString",
    "spark.sql.parser.escapedStringLiterals",
    "spark.sql.legacy.consecutiveStringLiterals.enabled",
    "spark.sql.mapKeyDedupPolicy",
    "spark.sql.legacy.negativeIndexInArrayInsert",
    "spark.sql.legacy.nullInEmptyListBehavior",
    "spark.sql.legacy.percentileDiscCalculation",
    "spark.sql.binaryOutputStyle",
    "spark.sql.join.asofJoin.enabled",
    "spark.sql.streaming.schemaInference",
    "spark.sql.streaming.multipleWatermarkPolicy",
    "spark.sql.streaming.noDataMicroBatches.enabled",
];

/// Names of Spark's settings that change how a query is executed or reported, but not its result.
/// They are accepted without effect. A name that ends with a dot stands for all that begin with it.
const OF_EXECUTION: [&str; 30] = [
    "spark.default.parallelism",
    "spark.driver.",
    "spark.executor.",
    "spark.memory.",
    "spark.shuffle.",
    "spark.sql.adaptive.",
    "spark.sql.autobroadcastjointhreshold",
    "spark.sql.broadcasttimeout",
    "spark.sql.cache.",
    "spark.sql.cbo.",
    "spark.sql.codegen.",
    "spark.sql.debug.",
    "spark.sql.exchange.",
    "spark.sql.execution.",
    "spark.sql.files.maxpartitionbytes",
    "spark.sql.files.maxpartitionnum",
    "spark.sql.files.minpartitionnum",
    "spark.sql.files.opencostinbytes",
    "spark.sql.inmemorycolumnarstorage.",
    "spark.sql.join.prefersortmergejoin",
    "spark.sql.maxplanstringlength",
    "spark.sql.optimizer.",
    "spark.sql.shuffle.partitions",
    "spark.sql.sources.parallelpartitiondiscovery.",
    "spark.sql.statistics.",
    "spark.sql.streaming.minbatchestoretain",
    "spark.sql.streaming.numrecentprogressupdates",
    "spark.sql.streaming.statestore.",
    "spark.sql.streaming.ui.",
    "spark.sql.ui.",
];

/// Whether a setting is one of Spark's that are accepted without effect.
pub(crate) fn is_of_execution(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    OF_EXECUTION.iter().any(|name| match name.ends_with('.') {
        true => key.starts_with(name),
        false => key == *name,
    })
}

/// A setting's key and the text of its new value.
struct SettingValue<'a> {
    key: &'a str,
    text: &'a str,
}

impl SettingValue<'_> {
    /// The error for an invalid value. `wanted` describes the valid values.
    fn wrong(&self, wanted: &str) -> PlanError {
        let reason = format!("'{}' is '{}', but must be {wanted}", self.key, self.text);
        PlanError::new("INVALID_CONF_VALUE", reason, "")
    }

    /// Parses a number of instances or threads, from 1 to 256.
    fn count(&self) -> PlanResult<usize> {
        let count = self.text.parse().ok().filter(|n| (1..=256).contains(n));
        count.ok_or_else(|| self.wrong("a number from 1 to 256"))
    }

    /// Parses `true` or `false`, in any case.
    fn flag(&self) -> PlanResult<bool> {
        self.choice(&[("true", true), ("false", false)], "true or false")
    }

    /// Parses one of several words, in any case.
    fn choice<T: Copy>(&self, choices: &[(&str, T)], wanted: &str) -> PlanResult<T> {
        let found = choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(self.text));
        found.map(|(_, choice)| *choice).ok_or_else(|| self.wrong(wanted))
    }

    /// Parses a duration of at least `least_ns` nanoseconds, without months. `None` is the word
    /// `none`. `wanted` describes the value in the error.
    fn duration_ns(&self, least_ns: u64, wanted: &str) -> PlanResult<Option<u64>> {
        if self.text == "none" {
            return Ok(None);
        }
        let length_ns = duration_ns(self.text).filter(|ns| *ns >= least_ns);
        length_ns.map(Some).ok_or_else(|| self.wrong(wanted))
    }

    /// Parses a list of cores. `None` is the word `auto`.
    fn cores(&self) -> PlanResult<Option<Vec<usize>>> {
        match (self.text, parse_list(self.text)) {
            ("auto", _) => Ok(None),
            (_, Ok(list)) => Ok(Some(list)),
            (_, Err(_)) => Err(self.wrong("a list of cores such as 0-3,6, or auto")),
        }
    }

    /// Parses a size in bytes. `None` is the word `none`.
    fn size(&self) -> PlanResult<Option<u64>> {
        match (self.text.trim(), bytes(self.text)) {
            ("none", _) => Ok(None),
            (_, Some(bytes)) => Ok(Some(bytes)),
            (_, None) => Err(self.wrong("a size such as '512m' or '2g', or none")),
        }
    }
}

impl Settings {
    /// Changes a setting. An unknown key or an invalid value is an error.
    pub fn set(&mut self, key: &str, value: &str) -> PlanResult<()> {
        let lower_key = key.to_ascii_lowercase();
        let setting = SettingValue { key, text: value };
        match lower_key.starts_with("millstream.") {
            true => self.set_own(&lower_key, &setting)?,
            false => self.set_of_spark(&lower_key, &setting)?,
        }
        self.changes.retain(|(changed, _)| *changed != lower_key);
        self.changes.push((lower_key, value.to_string()));
        Ok(())
    }

    /// How `show` and the console sink format values.
    pub fn display(&self) -> Display {
        Display { zone: self.semantics.zone, binary: self.semantics.binary_style }
    }

    /// Restores the default of a setting, or of all. A key that was not set, or that is unknown, is
    /// no error, as in Spark.
    pub fn reset(&mut self, key: Option<&str>) {
        let mut changes = std::mem::take(&mut *self).changes;
        changes.retain(|(changed, _)| key.is_some_and(|key| !changed.eq_ignore_ascii_case(key)));
        for (key, value) in changes {
            // The value was valid when it was set.
            let _ = self.set(&key, &value);
        }
    }

    /// Changes a setting that Spark does not have. Fails for a wrong value, and with
    /// `UNKNOWN_SETTING` for an unknown key.
    fn set_own(&mut self, lower_key: &str, value: &SettingValue<'_>) -> PlanResult<()> {
        match lower_key {
            "millstream.parallelism" => self.parallelism = value.count()?,
            "millstream.workers" => self.workers = value.count()?,
            "millstream.pin" => self.pin = value.flag()?,
            "millstream.cores" => self.cores = value.cores()?,
            "millstream.wait" => {
                let profiles = [
                    ("spin", crate::WaitProfile::Spin),
                    ("balanced", crate::WaitProfile::Balanced),
                    ("park", crate::WaitProfile::Park),
                ];
                self.wait = Some(value.choice(&profiles, "spin, balanced or park")?);
            }
            "millstream.idletimeout" => {
                let wanted = "a length of time such as '10 seconds' or '500ms', or none";
                self.idle_timeout_ns = value.duration_ns(1, wanted)?;
            }
            "millstream.join.maxstatebytes" => self.join_state_bytes = value.size()?,
            "millstream.join.onmaxstatebytes" => {
                let limits = [("hold", AtStateLimit::Hold), ("fail", AtStateLimit::Fail)];
                self.at_join_limit = value.choice(&limits, "hold or fail")?;
            }
            "millstream.join.ordered" => {
                self.join_order =
                    if value.flag()? { JoinOrder::OfInput } else { JoinOrder::OfInstances };
            }
            "millstream.eventtime.maxfutureskew" => {
                let wanted = "a length of time such as '10 minutes' or '30s', or none";
                let skew_ns = value.duration_ns(0, wanted)?;
                self.max_future_skew_ms = skew_ns.map(|ns| (ns / 1_000_000) as i64);
            }
            "millstream.onqueryfailure" => {
                let reactions =
                    [("stop", OnQueryFailure::Stop), ("continue", OnQueryFailure::Continue)];
                self.on_query_failure = value.choice(&reactions, "stop or continue")?;
            }
            _ => return self.set_of_formats(lower_key, value),
        }
        Ok(())
    }

    /// Changes a setting that Spark has, too. Fails for a wrong value, and with `UNKNOWN_SETTING`
    /// for an unknown key.
    fn set_of_spark(&mut self, lower_key: &str, value: &SettingValue<'_>) -> PlanResult<()> {
        match lower_key {
            "spark.sql.session.timezone" => {
                let zone = crate::table::datetime::zone(value.text).map_err(|mut error| {
                    error.condition = "INVALID_CONF_VALUE.TIME_ZONE".into();
                    error
                })?;
                (self.semantics.zone, self.formats.zone) = (zone, zone);
            }
            "spark.sql.ansi.enabled" => {
                let ansi = value.flag()?;
                (self.semantics.ansi, self.formats.ansi) = (ansi, ansi);
            }
            "spark.sql.decimaloperations.allowprecisionloss" => {
                self.semantics.precision_loss = value.flag()?;
            }
            "spark.sql.legacy.nullinemptylistbehavior" => {
                self.semantics.null_in_empty_list = Some(value.flag()?);
            }
            "spark.sql.timestamptype" => {
                let types = [("TIMESTAMP_NTZ", true), ("TIMESTAMP_LTZ", false)];
                let without_zone = value.choice(&types, "TIMESTAMP_LTZ or TIMESTAMP_NTZ")?;
                self.semantics.timestamps_without_zone = without_zone;
                self.formats.timestamps_without_zone = without_zone;
            }
            "spark.sql.mapkeydeduppolicy" => {
                let policies = [("EXCEPTION", false), ("LAST_WIN", true)];
                self.semantics.last_key_wins = value.choice(&policies, "EXCEPTION or LAST_WIN")?;
            }
            "spark.sql.legacy.negativeindexinarrayinsert" => {
                self.semantics.legacy_array_insert = value.flag()?;
            }
            "spark.sql.legacy.percentiledisccalculation" => {
                self.semantics.legacy_percentile_disc = value.flag()?;
            }
            "spark.sql.chunkbase64string.enabled" => self.semantics.base64_lines = value.flag()?,
            "spark.sql.streaming.multiplewatermarkpolicy" => {
                let policies = [("min", WatermarkPolicy::Min), ("max", WatermarkPolicy::Max)];
                self.watermark_policy = value.choice(&policies, "min or max")?;
            }
            "spark.sql.streaming.nodatamicrobatches.enabled" => {
                self.no_data_batches = value.flag()?;
            }
            "spark.sql.binaryoutputstyle" => {
                let styles = [
                    ("UTF-8", BinaryStyle::Utf8),
                    ("BASIC", BinaryStyle::Basic),
                    ("BASE64", BinaryStyle::Base64),
                    ("HEX", BinaryStyle::Hex),
                    ("HEX_DISCRETE", BinaryStyle::HexDiscrete),
                ];
                let wanted = "UTF-8, BASIC, BASE64, HEX or HEX_DISCRETE";
                self.semantics.binary_style = value.choice(&styles, wanted)?;
            }
            "spark.sql.join.asofjoin.enabled" => self.asof_join = value.flag()?,
            "spark.sql.streaming.schemainference" => self.schema_inference = value.flag()?,
            _ => return self.set_of_formats(lower_key, value),
        }
        Ok(())
    }

    /// Changes a setting of the formats, of names or of literals. A setting of Spark's execution is
    /// accepted without effect. Any other key is the error `UNKNOWN_SETTING`, which suggests a
    /// similar one if there is one.
    fn set_of_formats(&mut self, lower_key: &str, value: &SettingValue<'_>) -> PlanResult<()> {
        if self.formats.set(lower_key, value.text)? {
            self.semantics.corrupt_column = interned(self.formats.corrupt_column());
            return Ok(());
        }
        let named = self.semantics.naming.setting(lower_key);
        if let Some(setting) = named.or_else(|| self.literals.setting(lower_key)) {
            *setting = value.flag()?;
            return Ok(());
        }
        if is_of_execution(lower_key) {
            return Ok(());
        }
        let all: Vec<&str> = NAMES.into_iter().chain(FormatSettings::names()).collect();
        let near = did_you_mean(value.key, all.iter().copied());
        Err(PlanError::new(
            "UNKNOWN_SETTING",
            format!("there is no setting '{}'", value.key),
            format!("{near}Settings: {}", all.join(", ")),
        ))
    }
}

/// Returns a copy of a text that lives as long as the process, so that the copyable rules of
/// expressions can contain it. The copies are never freed. They take little memory, because a
/// session sets only a few different texts.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_sparks_execution_are_accepted() {
        let mut settings = Settings::default();
        settings.set("spark.sql.shuffle.partitions", "200").unwrap();
        settings.set("spark.sql.adaptive.coalescePartitions.enabled", "true").unwrap();
        for key in ["spark.sql.shuffle.partition", "spark.sql.adaptive"] {
            assert_eq!(settings.set(key, "1").unwrap_err().condition, "UNKNOWN_SETTING");
        }
    }

    #[test]
    fn a_reset_restores_the_default_of_one_setting_or_of_all() {
        let mut settings = Settings::default();
        settings.set("millstream.pin", "false").unwrap();
        settings.set("spark.sql.ansi.enabled", "false").unwrap();
        settings.reset(Some("spark.SQL.ansi.enabled"));
        assert!(!settings.pin && settings.semantics.ansi);
        settings.reset(Some("no.such.setting"));
        assert!(!settings.pin);
        settings.reset(None);
        assert!(settings.pin);
    }

    #[test]
    fn values_of_settings_are_case_insensitive() {
        let mut settings = Settings::default();
        settings.set("millstream.pin", "FALSE").unwrap();
        settings.set("Millstream.Wait", "Park").unwrap();
        settings.set("spark.sql.ansi.enabled", "False").unwrap();
        assert!(!settings.pin && !settings.semantics.ansi);
        assert_eq!(settings.wait, Some(crate::WaitProfile::Park));
        for (key, value) in [("millstream.pin", "no"), ("spark.sql.ansi.enabled", "1")] {
            let error = settings.set(key, value).unwrap_err();
            assert!(error.reason.contains("must be true or false"), "{error}");
        }
    }
}
