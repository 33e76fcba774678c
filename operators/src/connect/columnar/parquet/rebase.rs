//! The calendar of a file's dates and timestamps: the proleptic Gregorian calendar, or the hybrid
//! one of Spark 2 and Hive, which is Julian before 1582-10-15.
//!
//! Spark records in the footer its version and whether it used the hybrid calendar. For a file
//! without Spark's version, an option decides.

use crate::connect::columnar::julian_calendar::{
    days_of_hybrid, days_to_hybrid, standard_offset_s,
};
use crate::connect::columnar::orc::read::machine_zone;
use crate::table::datetime::{DAY_US, Tz, to_local, to_utc, zone};
use parquet::file::metadata::KeyValue;

/// 1582-10-15 in days since 1970-01-01. From this day on both calendars agree.
pub const SAME_FROM_DAYS: i64 = -141_427;
/// 1900-01-01 00:00:00 UTC in microseconds. Before this instant the two calendars also differ in
/// zone offsets: Java's old date classes ignore local mean time.
pub const SAME_FROM_US: i64 = -2_208_988_800_000_000;

/// Keys of Spark's metadata in a footer.
pub const VERSION: &str = "org.apache.spark.version";
pub const ZONE: &str = "org.apache.spark.timeZone";
pub const LEGACY_DATETIME: &str = "org.apache.spark.legacyDateTime";
pub const LEGACY_INT96: &str = "org.apache.spark.legacyINT96";

/// The rebase mode: how old dates and timestamps are read if the file does not name its calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Old values use the proleptic Gregorian calendar.
    Corrected,
    /// Old values use the hybrid calendar.
    Legacy,
    /// Dates before 1582-10-15 and timestamps before 1900 are an error.
    Exception,
}

impl Mode {
    /// The modes' names; the first is the default.
    pub const WORDS: [&'static str; 3] = ["CORRECTED", "LEGACY", "EXCEPTION"];

    /// The mode of one of [`WORDS`](Self::WORDS).
    pub fn of(word: &str) -> Self {
        match word {
            "LEGACY" => Self::Legacy,
            "EXCEPTION" => Self::Exception,
            _ => Self::Corrected,
        }
    }
}

/// How values are converted to the proleptic Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calendar {
    /// The file uses the proleptic Gregorian calendar: no conversion.
    Proleptic,
    /// The file uses the hybrid calendar, in this time zone.
    Hybrid(Tz),
    /// The calendar is unknown: a value that may differ between the calendars is an error.
    Refused,
}

/// The calendars of a file: one for dates and INT64 timestamps, one for INT96.
#[derive(Clone, Copy, Debug)]
pub struct Calendars {
    pub datetime: Calendar,
    pub int96: Calendar,
}

impl Calendars {
    /// Determines the calendars from the footer's metadata, or from the options if the metadata
    /// has no Spark version.
    pub fn of_file(notes: &[KeyValue], datetime: Mode, int96: Mode) -> Self {
        let note = |key: &str| {
            notes.iter().find(|note| note.key == key).map(|n| n.value.as_deref().unwrap_or(""))
        };
        let calendar = |by_option: Mode, since: &str, legacy: &str| {
            let mode = match note(VERSION) {
                Some(version) if version < since || note(legacy).is_some() => Mode::Legacy,
                Some(_) => Mode::Corrected,
                None => by_option,
            };
            match mode {
                Mode::Corrected => Calendar::Proleptic,
                Mode::Legacy => {
                    let of_writer = note(ZONE).and_then(|name| zone(name).ok());
                    Calendar::Hybrid(of_writer.unwrap_or_else(machine_zone))
                }
                Mode::Exception => Calendar::Refused,
            }
        };
        Self {
            datetime: calendar(datetime, "3.0.0", LEGACY_DATETIME),
            int96: calendar(int96, "3.1.0", LEGACY_INT96),
        }
    }
}

/// The error message for a value whose calendar is unknown.
pub fn refusal(what: &str, fix: &str) -> String {
    format!(
        "[INCONSISTENT_BEHAVIOR_CROSS_VERSION.{what}] there is a date before 1582-10-15 or a time \
         before 1900-01-01T00:00:00Z, which the calendars of Spark 2 and Spark 3 read differently. \
         {fix}"
    )
}

/// Converts microseconds from the hybrid to the proleptic Gregorian calendar.
pub fn micros_of_old(micros: i64, zone: Tz) -> i64 {
    if micros >= SAME_FROM_US {
        return micros;
    }
    let local = micros.saturating_add(old_offset_us(zone));
    let days = local.div_euclid(DAY_US);
    to_utc(local.saturating_add((days_of_hybrid(days) - days) * DAY_US), zone)
}

/// Converts microseconds from the proleptic Gregorian to the hybrid calendar.
pub fn micros_to_old(micros: i64, zone: Tz) -> i64 {
    if micros >= SAME_FROM_US {
        return micros;
    }
    let local = to_local(micros, zone);
    let days = local.div_euclid(DAY_US);
    let old = local.saturating_add((days_to_hybrid(days) - days) * DAY_US);
    old.saturating_sub(old_offset_us(zone))
}

/// The offset from UTC, in microseconds, that Java's old date classes use for all times before
/// 1900.
fn old_offset_us(zone: Tz) -> i64 {
    standard_offset_s(zone) * 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(of: &[(&str, &str)]) -> Vec<KeyValue> {
        of.iter().map(|(k, v)| KeyValue::new(k.to_string(), v.to_string())).collect()
    }

    #[test]
    fn the_calendar_of_a_file_is_read_from_the_footer() {
        let of = |list: &[(&str, &str)], mode| {
            let calendars = Calendars::of_file(&notes(list), mode, mode);
            (calendars.datetime, calendars.int96)
        };
        let la = zone("America/Los_Angeles").unwrap();
        let (new, old) = (Calendar::Proleptic, Calendar::Hybrid(la));
        let written = |version| [(VERSION, version), (ZONE, "America/Los_Angeles")];
        assert_eq!(of(&written("2.4.8"), Mode::Corrected), (old, old));
        assert_eq!(of(&written("3.0.1"), Mode::Legacy), (new, old));
        assert_eq!(of(&written("4.0.0"), Mode::Legacy), (new, new));
        let mut legacy = written("4.0.0").to_vec();
        legacy.push((LEGACY_DATETIME, ""));
        assert_eq!(of(&legacy, Mode::Corrected), (old, new));
        assert_eq!(of(&[], Mode::Exception), (Calendar::Refused, Calendar::Refused));
        assert_eq!(of(&[], Mode::Corrected), (new, new));
        assert_eq!(of(&[(ZONE, "America/Los_Angeles")], Mode::Legacy), (old, old));
    }

    #[test]
    fn rebased_times_keep_their_local_time() {
        // 1500-01-01 00:00:00 in Los Angeles, as Spark writes it in each calendar.
        let la = zone("America/Los_Angeles").unwrap();
        let (old, new) = (-14_830_963_200_000_000, -14_831_741_222_000_000);
        assert_eq!(micros_of_old(old, la), new);
        assert_eq!(micros_to_old(new, la), old);
        // From the end of 1883 on, Los Angeles has its offset of 1900 in both calendars.
        assert_eq!(micros_of_old(-2_524_492_800_000_000, la), -2_524_492_800_000_000);
        assert_eq!(micros_to_old(5, la), 5);
        assert_eq!(micros_of_old(i64::MIN, la), micros_of_old(i64::MIN, la));
    }
}
