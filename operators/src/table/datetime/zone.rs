//! Time zones by Java's IDs: regions, offsets, and offsets with the prefix `UTC`, `GMT` or `UT`.
//!
//! The tables of `chrono-tz` end with 2099. For an instant in a later year, the offset is looked up
//! in a year from 2088 to 2099 with the same weekdays. These twelve years cover every weekday for 1
//! January and 1 March. That is enough because the rules in force depend only on weekdays within a
//! month.

use super::calendar::{Date, weekday};
use super::{DAY_US, SECOND_US};
use crate::table::error::{PlanError, PlanResult};
use chrono::{DateTime, LocalResult, NaiveDateTime, Offset, TimeZone};
use chrono_tz::OffsetComponents;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

/// A time zone: a region such as `Europe/Berlin`, or a fixed offset from UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tz(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Region(chrono_tz::Tz),
    /// The offset in seconds ahead of UTC, and the index of the ID's prefix in `PREFIXES`.
    Fixed(i32, u8),
}

/// The prefixes that an offset may have in a zone's ID.
const PREFIXES: [&str; 4] = ["", "UTC", "GMT", "UT"];

/// The first day after the tables of `chrono-tz`.
const TABLES_END: Date = Date { year: 2100, month: 1, day: 1 };
/// The years in which the offsets of all later years are looked up.
const LAST_YEARS: std::ops::Range<i64> = 2088..2100;
/// The largest offset from UTC that Java allows, in seconds.
const MAX_S: i32 = 18 * 3600;

/// Zones whose legal standard time is summer time. Java treats their winter time as standard.
const WINTER_IS_STANDARD: [&str; 4] =
    ["Europe/Dublin", "Eire", "Africa/Casablanca", "Africa/El_Aaiun"];

/// The short zone IDs of Java's `ZoneId.SHORT_IDS`.
const SHORT_IDS: [(&str, &str); 28] = [
    ("ACT", "Australia/Darwin"),
    ("AET", "Australia/Sydney"),
    ("AGT", "America/Argentina/Buenos_Aires"),
    ("ART", "Africa/Cairo"),
    ("AST", "America/Anchorage"),
    ("BET", "America/Sao_Paulo"),
    ("BST", "Asia/Dhaka"),
    ("CAT", "Africa/Harare"),
    ("CNT", "America/St_Johns"),
    ("CST", "America/Chicago"),
    ("CTT", "Asia/Shanghai"),
    ("EAT", "Africa/Addis_Ababa"),
    ("ECT", "Europe/Paris"),
    ("EST", "-05:00"),
    ("HST", "-10:00"),
    ("IET", "America/Indiana/Indianapolis"),
    ("IST", "Asia/Kolkata"),
    ("JST", "Asia/Tokyo"),
    ("MIT", "Pacific/Apia"),
    ("MST", "-07:00"),
    ("NET", "Asia/Yerevan"),
    ("NST", "Pacific/Auckland"),
    ("PLT", "Asia/Karachi"),
    ("PNT", "America/Phoenix"),
    ("PRT", "America/Puerto_Rico"),
    ("PST", "America/Los_Angeles"),
    ("SST", "Pacific/Guadalcanal"),
    ("VST", "Asia/Ho_Chi_Minh"),
];

impl Tz {
    /// Coordinated universal time.
    pub const UTC: Self = Self(Kind::Region(chrono_tz::Tz::UTC));

    /// A zone with a fixed offset in seconds; `None` beyond 18 hours. The zone's ID is the offset,
    /// or `Z` for 0.
    pub fn fixed(offset_s: i32) -> Option<Self> {
        (-MAX_S..=MAX_S).contains(&offset_s).then_some(Self(Kind::Fixed(offset_s, 0)))
    }

    /// Whether the zone is known to have the same offset from UTC at all times. False for a place
    /// such as Asia/Tokyo, even if its clocks have not changed for long.
    pub fn is_fixed(self) -> bool {
        match self.0 {
            Kind::Fixed(..) => true,
            Kind::Region(region) => {
                let name = region.name();
                name.starts_with("Etc/")
                    || ["UTC", "GMT", "UCT", "Zulu", "Universal", "Greenwich", "GMT0"]
                        .contains(&name)
            }
        }
    }

    /// Parses a zone ID like `ZoneId.of`, with single-digit hours and minutes allowed as in Spark.
    pub fn named(name: &str) -> Option<Self> {
        let name = SHORT_IDS.iter().find(|(short, _)| *short == name).map_or(name, |(_, id)| id);
        if name == "Z" {
            return Self::fixed(0);
        }
        let prefix = PREFIXES.into_iter().find(|prefix| {
            name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(['+', '-']))
        });
        if let Some(prefix) = prefix {
            return Self::of_offset(prefix, parse_id_offset(&name[prefix.len()..])?);
        }
        if name == "UT" {
            return Self::of_offset("UT", 0);
        }
        let region = name.parse().ok()?;
        // Rejects the names of `chrono-tz` that are not in Java's table.
        NAMES.zones.contains_key(name).then_some(Self(Kind::Region(region)))
    }

    /// A zone with a fixed offset in seconds and the prefix `UTC`, `GMT`, `UT` or none; `None`
    /// beyond 18 hours, and for another prefix.
    pub fn of_offset(prefix: &'static str, offset_s: i32) -> Option<Self> {
        match (prefix, Self::fixed(offset_s)?) {
            ("", zone) => Some(zone),
            ("UTC", _) if offset_s == 0 => Some(Self::UTC),
            ("GMT", _) if offset_s == 0 => Some(Self(Kind::Region(chrono_tz::Tz::GMT))),
            (prefix, _) => {
                let prefix = PREFIXES.iter().position(|known| *known == prefix)?;
                Some(Self(Kind::Fixed(offset_s, prefix as u8)))
            }
        }
    }

    /// The zone's ID, as `ZoneId.getId` returns it.
    pub fn name(&self) -> Cow<'static, str> {
        match self.0 {
            Kind::Region(region) => Cow::Borrowed(region.name()),
            Kind::Fixed(0, 0) => Cow::Borrowed("Z"),
            Kind::Fixed(0, prefix) => Cow::Borrowed(PREFIXES[usize::from(prefix)]),
            Kind::Fixed(offset_s, prefix) => {
                let prefix = PREFIXES[usize::from(prefix)];
                let sign = if offset_s < 0 { '-' } else { '+' };
                let all = offset_s.abs();
                let (hours, minutes, seconds) = (all / 3600, all / 60 % 60, all % 60);
                let mut name = format!("{prefix}{sign}{hours:02}:{minutes:02}");
                if seconds != 0 {
                    name.push_str(&format!(":{seconds:02}"));
                }
                Cow::Owned(name)
            }
        }
    }

    /// The zone's English name at an instant: `PST` or, in full, `Pacific Standard Time`. The ID if
    /// the zone has no name.
    pub fn text(&self, utc_us: i64, full: bool) -> Cow<'static, str> {
        let name = self.name();
        let Some(names) = NAMES.zones.get(name.as_ref()) else { return name };
        Cow::Borrowed(names[usize::from(self.is_summer(utc_us)) * 2 + usize::from(full)])
    }

    /// The zone's English name without standard or summer time: `PT` or, in full, `Pacific Time`.
    /// The ID if the zone has no name.
    pub fn generic_text(&self, full: bool) -> Cow<'static, str> {
        let name = self.name();
        let Some(names) = NAMES.zones.get(name.as_ref()) else { return name };
        Cow::Borrowed(names[4 + usize::from(full)])
    }

    fn is_summer(&self, utc_us: i64) -> bool {
        let Kind::Region(region) = self.0 else { return false };
        if WINTER_IS_STANDARD.contains(&region.name()) {
            return self.offset_s(utc_us) >= 3600;
        }
        naive(within_tables(utc_us))
            .is_some_and(|at| region.offset_from_utc_datetime(&at).dst_offset().num_seconds() > 0)
    }

    /// The offset from UTC at an instant, in seconds.
    pub fn offset_s(&self, utc_us: i64) -> i64 {
        match self.0 {
            Kind::Region(chrono_tz::Tz::UTC) => 0,
            Kind::Fixed(offset_s, _) => i64::from(offset_s),
            Kind::Region(region) => match naive(within_tables(utc_us)) {
                Some(at) => i64::from(region.offset_from_utc_datetime(&at).fix().local_minus_utc()),
                None => 0,
            },
        }
    }

    /// The offset from UTC at a local time, in seconds. An ambiguous time has the earlier offset. A
    /// skipped time has the offset before the gap, so it moves forward by the gap's length.
    pub(super) fn local_offset_s(&self, local_us: i64) -> i64 {
        let region = match self.0 {
            Kind::Region(chrono_tz::Tz::UTC) => return 0,
            Kind::Fixed(offset_s, _) => return i64::from(offset_s),
            Kind::Region(region) => region,
        };
        if local_us < TABLES_END.days() * DAY_US
            && let Some(at) = naive(local_us)
        {
            return match region.offset_from_local_datetime(&at) {
                LocalResult::Single(found) | LocalResult::Ambiguous(found, _) => {
                    i64::from(found.fix().local_minus_utc())
                }
                LocalResult::None => self.offset_s(local_us.saturating_sub(2 * DAY_US)),
            };
        }
        let (before, after) = (
            self.offset_s(local_us.saturating_sub(DAY_US)),
            self.offset_s(local_us.saturating_add(DAY_US)),
        );
        let holds = |offset_s: i64| {
            self.offset_s(local_us.saturating_sub(offset_s * SECOND_US)) == offset_s
        };
        if !holds(before) && holds(after) { after } else { before }
    }
}

/// Looks up the zone that a setting, an option or an argument names. Fails with INVALID_TIMEZONE.
pub fn zone(name: &str) -> PlanResult<Tz> {
    Tz::named(name).ok_or_else(|| {
        PlanError::new(
            "INVALID_TIMEZONE",
            format!("'{name}' is not a time zone"),
            "Use a region such as 'Europe/Berlin', 'UTC', or an offset such as '+05:30'",
        )
    })
}

/// Converts microseconds of a zone's local time to microseconds since 1970 in UTC.
pub fn to_utc(local_us: i64, zone: Tz) -> i64 {
    // The subtraction saturates, so that a timestamp at the limits of its range does not overflow.
    local_us.saturating_sub(zone.local_offset_s(local_us) * SECOND_US)
}

/// Converts microseconds since 1970 in UTC to microseconds of the zone's local time.
pub fn to_local(utc_us: i64, zone: Tz) -> i64 {
    utc_us.saturating_add(zone.offset_s(utc_us) * SECOND_US)
}

/// Applies `shift` to the local time of an instant, and converts the result back to an instant. If
/// the shifted local time is ambiguous, it keeps the original offset where possible. `None` on
/// overflow, or if `shift` returns it.
pub fn on_clock(utc_us: i64, zone: Tz, shift: impl FnOnce(i64) -> Option<i64>) -> Option<i64> {
    let before_s = zone.offset_s(utc_us);
    let local = shift(utc_us.checked_add(before_s * SECOND_US)?)?;
    let kept = local.checked_sub(before_s * SECOND_US)?;
    if zone.offset_s(kept) == before_s {
        return Some(kept);
    }
    local.checked_sub(zone.local_offset_s(local) * SECOND_US)
}

fn naive(us: i64) -> Option<NaiveDateTime> {
    DateTime::from_timestamp_micros(us).map(|at| at.naive_utc())
}

/// Maps an instant to an instant within the tables at which every zone has the same offset.
fn within_tables(utc_us: i64) -> i64 {
    let end = TABLES_END.days() * DAY_US;
    if utc_us < end {
        // Before a table's first entry, the offset is that of local mean time.
        return utc_us.max(-DAY_US * 400_000);
    }
    let year = Date::of_days(utc_us.div_euclid(DAY_US));
    let month = if year.month <= 2 { 1 } else { 3 };
    let anchor = |year: i64| Date { year, month, day: 1 }.days();
    let here = anchor(year.year);
    let same = LAST_YEARS.map(anchor).find(|days| weekday(*days) == weekday(here));
    utc_us - (here - same.unwrap_or(here)) * DAY_US
}

/// Parses the offset in a zone ID, in seconds. After the sign it has one of the forms `h`, `hh`,
/// `hhmm`, `hhmmss`, `h:m` and `h:mm:ss`, where `h` and, without seconds, `m` may have one or two
/// digits.
fn parse_id_offset(text: &str) -> Option<i32> {
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let digits = text.get(1..)?;
    let two = |text: &str, most: i32| {
        let fits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        fits.then(|| text.parse::<i32>().ok()).flatten().filter(|v| *v <= most)
    };
    let padded;
    let (hours, minutes, seconds) = match digits.split_once(':') {
        Some((hours, rest)) => {
            if hours.is_empty() {
                return None;
            }
            padded = (format!("{hours:0>2}"), rest.split_once(':'));
            match padded.1 {
                Some((minutes, seconds)) => (padded.0.as_str(), minutes, seconds),
                None if rest.len() == 1 => {
                    let minute = rest.parse::<u8>().ok()?;
                    return Some(sign * (two(&padded.0, 18)? * 60 + i32::from(minute)) * 60);
                }
                None => (padded.0.as_str(), rest, "00"),
            }
        }
        None if digits.len() == 1 => {
            padded = (format!("0{digits}"), None);
            (padded.0.as_str(), "00", "00")
        }
        None => (
            digits.get(..2)?,
            if digits.len() == 2 { "00" } else { digits.get(2..4)? },
            if digits.len() <= 4 { "00" } else { digits.get(4..)? },
        ),
    };
    let (hours, minutes, seconds) = (two(hours, 18)?, two(minutes, 59)?, two(seconds, 59)?);
    let offset_s = (hours * 60 + minutes) * 60 + seconds;
    (offset_s <= MAX_S).then_some(sign * offset_s)
}

/// The English names of zones.
struct Names {
    /// The names of each region: standard time, summer time and without a season, each short and in
    /// full.
    zones: HashMap<&'static str, [&'static str; 6]>,
    /// Regions by ID and by short name, in upper case.
    short: HashMap<String, &'static str>,
    /// Regions by ID and by full name, in upper case.
    long: HashMap<String, &'static str>,
    /// Length of the longest name, in bytes.
    longest: usize,
}

static NAMES: LazyLock<Names> = LazyLock::new(|| {
    let mut zones = HashMap::new();
    let (mut short, mut long) = (HashMap::new(), HashMap::new());
    for line in include_str!("zone_names.txt").lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&'static str> = line.split('\t').collect();
        match fields[..] {
            ["short", region, ref names @ ..] => {
                short.extend(names.iter().map(|name| (name.to_uppercase(), region)));
            }
            ["long", region, ref names @ ..] => {
                long.extend(names.iter().map(|name| (name.to_uppercase(), region)));
            }
            [short, long, short_summer, long_summer, short_generic, long_generic, regions] => {
                let names = [short, long, short_summer, long_summer, short_generic, long_generic];
                zones.extend(regions.split(' ').map(|region| (region, names)));
            }
            _ => {}
        }
    }
    for region in zones.keys() {
        short.insert(region.to_uppercase(), region);
        long.insert(region.to_uppercase(), region);
    }
    let longest = short.keys().chain(long.keys()).map(String::len).max().unwrap_or(0);
    Names { zones, short, long, longest }
});

/// Matches the longest zone name at the start of a text. Returns the zone and the length of its
/// name in bytes. Besides IDs, `Some(true)` allows full English names, and `Some(false)` short
/// ones.
pub fn at_front(text: &str, names: Option<bool>) -> Option<(Tz, usize)> {
    let ascii = text.bytes().take_while(u8::is_ascii).count().min(NAMES.longest);
    let upper = text[..ascii].to_ascii_uppercase();
    let table = if names == Some(true) { &NAMES.long } else { &NAMES.short };
    (1..=ascii).rev().find_map(|length| {
        let region = *table.get(&upper[..length])?;
        // A region's ID is always allowed.
        let own = region.len() == length && region.eq_ignore_ascii_case(&upper[..length]);
        if names.is_none() && !own {
            return None;
        }
        Some((Tz::named(region)?, length))
    })
}

#[cfg(test)]
mod tests {
    use super::super::{parse_timestamp, write_timestamp};
    use super::*;

    fn text(at: &str, zone: Tz) -> String {
        let mut out = String::new();
        let at = parse_timestamp(at, Some(zone)).unwrap();
        write_timestamp(at, zone, &mut out).unwrap();
        out
    }

    #[test]
    fn zone_names_are_parsed_as_in_java() {
        for (name, id, offset_s) in [
            ("UTC", "UTC", 0),
            ("Z", "Z", 0),
            ("+05:30", "+05:30", 19_800),
            ("-3", "-03:00", -10_800),
            ("+5:30", "+05:30", 19_800),
            ("+05:3", "+05:03", 18_180),
            ("+0530", "+05:30", 19_800),
            ("+18:00", "+18:00", 64_800),
            ("+01:02:03", "+01:02:03", 3723),
            ("UTC+1", "UTC+01:00", 3600),
            ("UTC+0", "UTC", 0),
            ("GMT-03:00", "GMT-03:00", -10_800),
            ("GMT0", "GMT0", 0),
            ("UT+1", "UT+01:00", 3600),
            ("EST", "-05:00", -18_000),
            ("PST", "America/Los_Angeles", -28_800),
            ("Etc/GMT+3", "Etc/GMT+3", -10_800),
            ("Asia/Kolkata", "Asia/Kolkata", 19_800),
        ] {
            let zone = Tz::named(name).unwrap();
            assert_eq!((zone.name().as_ref(), zone.offset_s(0)), (id, offset_s), "{name}");
        }
        for bad in [
            "",
            " UTC",
            "utc",
            "z",
            "+19",
            "+18:01",
            "+1:2:3",
            "europe/paris",
            "+",
            "UTC+",
            "é",
            "+é",
        ] {
            assert_eq!(Tz::named(bad), None, "{bad}");
        }
    }

    #[test]
    fn gaps_and_overlaps_are_resolved_also_after_the_last_table_entry() {
        let new_york = Tz::named("America/New_York").unwrap();
        for (written, shown) in [
            ("2024-03-10 02:30:00", "2024-03-10 03:30:00"),
            ("2100-03-14 02:30:00", "2100-03-14 03:30:00"),
            ("2405-03-13 02:30:00", "2405-03-13 03:30:00"),
        ] {
            assert_eq!(text(written, new_york), shown);
        }
        for overlap in ["2024-11-03 01:30:00", "2100-11-07 01:30:00", "9999-11-07 01:30:00"] {
            let first = parse_timestamp(overlap, Some(new_york)).unwrap();
            assert_eq!(new_york.offset_s(first), -4 * 3600, "{overlap}");
            assert_eq!(new_york.offset_s(first + 3600 * SECOND_US), -5 * 3600, "{overlap}");
        }
        let berlin = Tz::named("Europe/Berlin").unwrap();
        let hour = |year: i64, month: u32| {
            berlin.offset_s(Date { year, month, day: 1 }.days() * DAY_US) / 3600
        };
        assert!((2090..12_100).all(|year| (hour(year, 1), hour(year, 7)) == (1, 2)));
    }

    #[test]
    fn shifting_a_time_keeps_the_offset_in_an_overlap() {
        let new_york = Tz::named("America/New_York").unwrap();
        let at = |text: &str| parse_timestamp(text, Some(Tz::UTC)).unwrap();
        let moved = |from: &str, days: i64| {
            on_clock(at(from), new_york, |local| local.checked_add(days * DAY_US))
        };
        assert_eq!(moved("2024-11-04 06:30:00", -1), Some(at("2024-11-03 06:30:00")));
        assert_eq!(moved("2024-11-02 05:30:00", 1), Some(at("2024-11-03 05:30:00")));
        assert_eq!(moved("2024-03-09 07:30:00", 1), Some(at("2024-03-10 07:30:00")));
        assert_eq!(on_clock(i64::MAX, new_york, |local| local.checked_add(DAY_US)), None);
    }

    #[test]
    fn zones_have_short_and_long_english_names() {
        let at = |month| Date { year: 2024, month, day: 1 }.days() * DAY_US;
        let names = |zone: &str, month| {
            let zone = Tz::named(zone).unwrap();
            (zone.text(at(month), false).into_owned(), zone.text(at(month), true).into_owned())
        };
        let pair = |a: &str, b: &str| (a.to_string(), b.to_string());
        assert_eq!(names("America/New_York", 1), pair("EST", "Eastern Standard Time"));
        assert_eq!(names("America/New_York", 7), pair("EDT", "Eastern Daylight Time"));
        assert_eq!(names("Europe/Dublin", 1), pair("GMT", "Greenwich Mean Time"));
        assert_eq!(names("+05:30", 1), pair("+05:30", "+05:30"));
        assert_eq!(at_front("PST!", Some(false)).map(|(_, n)| n), Some(3));
        assert_eq!(at_front("PST", None), None);
        assert_eq!(at_front("europe/paris x", None).map(|(z, _)| z), Tz::named("Europe/Paris"));
    }
}
