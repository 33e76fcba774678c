//! Session settings that are the defaults of options of files and lines: `SET name = value`.
//!
//! If a setting has an option, the option overrides it.

use crate::table::datetime::Tz;
use crate::table::error::{PlanError, PlanResult};
use std::collections::BTreeMap;

/// The values that a setting accepts.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Flag,
    Words(&'static [&'static str]),
    /// A positive number.
    Count,
    Text,
}

/// A session setting and the option whose default it is.
struct Known {
    name: &'static str,
    /// The formats that have the option; all formats if empty.
    formats: &'static [&'static str],
    /// The option's name; empty if the setting has no option.
    option: &'static str,
    /// Whether the option is an option of writers.
    writes: bool,
    kind: Kind,
}

const fn known(
    name: &'static str,
    formats: &'static [&'static str],
    option: &'static str,
    kind: Kind,
) -> Known {
    Known { name, formats, option, writes: false, kind }
}

const fn writer(
    name: &'static str,
    formats: &'static [&'static str],
    option: &'static str,
    kind: Kind,
) -> Known {
    Known { name, formats, option, writes: true, kind }
}

static KNOWN: &[Known] = &[
    known("spark.sql.files.ignoreMissingFiles", &[], "ignoreMissingFiles", Kind::Flag),
    known("spark.sql.files.ignoreCorruptFiles", &[], "ignoreCorruptFiles", Kind::Flag),
    known(
        "spark.sql.columnNameOfCorruptRecord",
        &["csv", "json"],
        "columnNameOfCorruptRecord",
        Kind::Text,
    ),
    known("spark.sql.parquet.mergeSchema", &["parquet"], "mergeSchema", Kind::Flag),
    known("spark.sql.orc.mergeSchema", &["orc"], "mergeSchema", Kind::Flag),
    // `native` selects Spark's own decoder; it does not affect rows. Spark's other value, `hive`,
    // would select Hive's decoder.
    known("spark.sql.orc.impl", &["orc"], "", Kind::Words(&["native"])),
    known("spark.sql.orc.enableVectorizedReader", &["orc"], "", Kind::Flag),
    known("spark.sql.orc.enableNestedColumnVectorizedReader", &["orc"], "", Kind::Flag),
    known("spark.sql.orc.filterPushdown", &["orc"], "", Kind::Flag),
    known("spark.sql.orc.aggregatePushdown", &["orc"], "", Kind::Flag),
    known("spark.sql.orc.columnarReaderBatchSize", &["orc"], "", Kind::Count),
    known("spark.sql.orc.columnarWriterBatchSize", &["orc"], "", Kind::Count),
    // Names are always case-insensitive, so no other value is accepted.
    known("spark.sql.caseSensitive", &[], "", Kind::Words(&["false"])),
    writer("spark.sql.parquet.compression.codec", &["parquet"], "compression", Kind::Text),
    writer("spark.sql.orc.compression.codec", &["orc"], "compression", Kind::Text),
    writer("spark.sql.jsonGenerator.ignoreNullFields", &["json"], "ignoreNullFields", Kind::Flag),
    known(PARTITION_TYPES, &[], "", Kind::Flag),
    known(TIME_PARSER, &[], "", Kind::Words(&["CORRECTED", "EXCEPTION"])),
    known("spark.sql.parquet.datetimeRebaseModeInRead", &["parquet"], "datetimeRebaseMode", REBASE),
    known("spark.sql.parquet.int96RebaseModeInRead", &["parquet"], "int96RebaseMode", REBASE),
    writer("spark.sql.parquet.datetimeRebaseModeInWrite", &["parquet"], "", REBASE),
    // INT96 is never written, so the setting has no effect.
    writer("spark.sql.parquet.int96RebaseModeInWrite", &["parquet"], "", REBASE),
    writer(
        "spark.sql.parquet.outputTimestampType",
        &["parquet"],
        "",
        Kind::Words(&["TIMESTAMP_MICROS", "TIMESTAMP_MILLIS"]),
    ),
    known("spark.sql.parquet.binaryAsString", &["parquet"], "", Kind::Flag),
    known("spark.sql.parquet.inferTimestampNTZ.enabled", &["parquet"], "", Kind::Flag),
    known("spark.sql.legacy.parquet.nanosAsLong", &["parquet"], "", Kind::Flag),
    // These settings have a single valid value.
    known("spark.sql.parquet.int96AsTimestamp", &["parquet"], "", Kind::Words(&["true"])),
    known("spark.sql.parquet.int96TimestampConversion", &["parquet"], "", Kind::Words(&["false"])),
    known("spark.sql.parquet.fieldId.read.enabled", &["parquet"], "", Kind::Words(&["false"])),
    writer("spark.sql.parquet.writeLegacyFormat", &["parquet"], "", Kind::Words(&["false"])),
];

const REBASE: Kind = Kind::Words(&["EXCEPTION", "CORRECTED", "LEGACY"]);
const PARTITION_TYPES: &str = "spark.sql.sources.partitionColumnTypeInference.enabled";
const TIME_PARSER: &str = "spark.sql.legacy.timeParserPolicy";

/// The session settings that file and line formats use as defaults.
#[derive(Clone, Debug)]
pub struct FormatSettings {
    /// The time zone of timestamps that do not name one, unless the option `timeZone` is given.
    pub zone: Tz,
    /// Whether values that do not fit are errors, unless an option says otherwise.
    pub ansi: bool,
    /// Whether inferred timestamps without a zone are TIMESTAMP_NTZ.
    pub timestamps_without_zone: bool,
    /// Explicitly set values, by their index in [`KNOWN`].
    set: BTreeMap<usize, String>,
}

impl Default for FormatSettings {
    fn default() -> Self {
        Self { zone: Tz::UTC, ansi: true, timestamps_without_zone: false, set: BTreeMap::new() }
    }
}

impl FormatSettings {
    /// Changes a setting. Returns false if there is no setting of this name, and an error if the
    /// setting does not accept the value.
    pub fn set(&mut self, name: &str, value: &str) -> PlanResult<bool> {
        let Some(index) = KNOWN.iter().position(|known| known.name.eq_ignore_ascii_case(name))
        else {
            return Ok(false);
        };
        let wanted = match KNOWN[index].kind {
            Kind::Flag if !is_flag(value) => "true or false".to_string(),
            Kind::Count if value.parse::<u32>().map_or(true, |count| count == 0) => {
                "a number above 0".to_string()
            }
            Kind::Words(words) if !words.iter().any(|word| word.eq_ignore_ascii_case(value)) => {
                words.join(" or ")
            }
            _ => {
                self.set.insert(index, value.to_string());
                return Ok(true);
            }
        };
        let name = KNOWN[index].name;
        let reason = format!("'{name}' is '{value}', but must be {wanted}");
        Err(PlanError::new("INVALID_CONF_VALUE", reason, ""))
    }

    /// The names of all settings.
    pub fn names() -> impl Iterator<Item = &'static str> {
        KNOWN.iter().map(|known| known.name)
    }

    /// The value of a setting. `None` if it was not set.
    pub fn get(&self, name: &str) -> Option<&str> {
        let index = KNOWN.iter().position(|known| known.name.eq_ignore_ascii_case(name))?;
        self.set.get(&index).map(String::as_str)
    }

    /// The default that a setting gives an option; `None` if the setting was not set. `what` names
    /// the connector, such as "source csv".
    pub fn of_option(&self, what: &str, option: &str) -> Option<&str> {
        if self.set.is_empty() {
            return None;
        }
        let (role, format) = what.split_once(' ').unwrap_or(("", what));
        let found = self.set.iter().find(|(index, _)| {
            let known = &KNOWN[**index];
            known.option.eq_ignore_ascii_case(option)
                && known.writes == (role == "sink")
                && (known.formats.is_empty() || known.formats.contains(&format))
        });
        found.map(|(_, value)| value.as_str())
    }

    /// Whether the type of a partition column is inferred from the folder names; otherwise it is
    /// STRING.
    pub fn infers_partition_types(&self) -> bool {
        self.get(PARTITION_TYPES).is_none_or(|value| value.eq_ignore_ascii_case("true"))
    }

    /// The name of the column for bad records, if no option names it.
    pub fn corrupt_column(&self) -> &str {
        self.get("spark.sql.columnNameOfCorruptRecord").unwrap_or("_corrupt_record")
    }
}

fn is_flag(value: &str) -> bool {
    value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_the_default_of_the_option_of_its_formats() {
        let mut settings = FormatSettings::default();
        assert!(settings.set("spark.sql.PARQUET.mergeSchema", "true").unwrap());
        assert_eq!(settings.of_option("source parquet", "MERGESCHEMA"), Some("true"));
        assert_eq!(settings.of_option("source orc", "mergeSchema"), None);
        assert!(settings.set("spark.sql.orc.compression.codec", "zlib").unwrap());
        assert_eq!(settings.of_option("sink orc", "compression"), Some("zlib"));
        assert_eq!(settings.of_option("source orc", "compression"), None);
        assert!(!settings.set("spark.sql.no.such.setting", "1").unwrap());
        let error = settings.set("spark.sql.files.ignoreCorruptFiles", "maybe").unwrap_err();
        assert_eq!(error.condition, "INVALID_CONF_VALUE");
        assert!(settings.set("spark.sql.legacy.timeParserPolicy", "LEGACY").is_err());
        assert!(settings.set("spark.sql.orc.impl", "native").unwrap());
        assert!(settings.set("spark.sql.orc.impl", "hive").is_err());
        assert!(settings.set("spark.sql.orc.columnarReaderBatchSize", "512").unwrap());
        assert!(settings.set("spark.sql.orc.columnarReaderBatchSize", "0").is_err());
    }
}
