//! The hybrid calendar: Julian before 1582-10-15, Gregorian from that day on. The ten days between
//! 1582-10-04 and 1582-10-15 do not exist in it.
//!
//! Hive, Spark 2 and the Java writer of ORC count days and microseconds in this calendar. A
//! conversion keeps the date's digits: 1500-02-28 stays 1500-02-28. A date that exists in the
//! hybrid calendar only, such as 1500-02-29, becomes the next day.

use crate::table::datetime::calendar::Date;
use crate::table::datetime::{Tz, to_local, to_utc};

/// 1582-10-15 in days since 1970-01-01. From this day on both calendars agree.
const SAME_FROM_DAYS: i64 = -141_427;
/// 1900-01-01 in microseconds. Before this instant Java's old date classes ignore changes of a
/// zone's offset.
const OFFSETS_FROM_US: i64 = -2_208_988_800_000_000;
const DAY_US: i64 = 86_400_000_000;

/// Converts days since 1970 from the hybrid to the proleptic Gregorian calendar.
pub fn days_of_hybrid(days: i64) -> i64 {
    if days >= SAME_FROM_DAYS {
        return days;
    }
    let (year, month, day) = julian(days);
    days_of(year, month, day)
}

/// The local time of an instant, as Java's old date classes compute it. Before 1900 they use the
/// zone's present standard offset.
pub fn hybrid_local(micros: i64, zone: Tz) -> i64 {
    let offset_s = match micros < OFFSETS_FROM_US {
        true => standard_offset_s(zone),
        false => zone.offset_s(micros),
    };
    micros.saturating_add(offset_s * 1_000_000)
}

/// The offset from UTC, in seconds, that Java's old date classes use for all times before 1900. It
/// is the zone's present standard offset, without daylight saving time.
pub fn standard_offset_s(zone: Tz) -> i64 {
    // The smallest offset of the twelve months from 2036-01-01 on is the standard offset.
    const NOW_US: i64 = 24_106 * DAY_US;
    let months = (0..12).map(|month| zone.offset_s(NOW_US + month * 30 * DAY_US));
    months.min().unwrap_or(0)
}

/// Converts microseconds since 1970 from the hybrid to the proleptic Gregorian calendar. The local
/// time in `zone` keeps its digits.
pub fn micros_of_hybrid(micros: i64, zone: Tz) -> i64 {
    if micros >= OFFSETS_FROM_US || (zone == Tz::UTC && micros >= SAME_FROM_DAYS * DAY_US) {
        return micros;
    }
    let local = hybrid_local(micros, zone);
    let days = local.div_euclid(DAY_US);
    let shift = days_of_hybrid(days) - days;
    if shift == 0 && local == to_local(micros, zone) {
        return micros;
    }
    to_utc(local.saturating_add(shift * DAY_US), zone)
}

/// Converts days since 1970 from the proleptic Gregorian to the hybrid calendar. A day that the
/// hybrid calendar skips becomes 1582-10-15.
pub fn days_to_hybrid(days: i64) -> i64 {
    if days >= SAME_FROM_DAYS {
        return days;
    }
    // Both calendars agree in the years 200 to 300. Each later century without a Gregorian leap
    // year adds a day of difference.
    let (mut low, mut high) = (days.saturating_sub(30_000), SAME_FROM_DAYS);
    while low < high {
        let middle = low + (high - low) / 2;
        if days_of_hybrid(middle) < days { low = middle + 1 } else { high = middle }
    }
    low
}

/// Year, month and day in the Julian calendar.
fn julian(days: i64) -> (i64, i64, i64) {
    // Years begin in March, so that the leap day is the last; day 0 is 0000-03-01.
    let days = days + 719_470;
    let cycle = days.div_euclid(1461);
    let of_cycle = days.rem_euclid(1461);
    let year_of_cycle = (of_cycle - of_cycle / 1460) / 365;
    let of_year = of_cycle - 365 * year_of_cycle;
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let year = cycle * 4 + year_of_cycle;
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
}

/// Converts a date to days since 1970-01-01 by the rules of the Gregorian calendar, which may lack
/// the day.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    Date { year, month: month as u32, day: day as u32 }.days()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_read_as_they_were_written() {
        for (old, year, month, day) in [
            (-719_164, 1, 1, 1),
            (-141_428, 1582, 10, 4),
            (-141_427, 1582, 10, 15),
            (-171_597, 1500, 2, 28),
            // 1500-02-29 does not exist in the Gregorian calendar.
            (-171_596, 1500, 3, 1),
            (-171_595, 1500, 3, 1),
            (0, 1970, 1, 1),
            (-735_527, -44, 3, 15),
        ] {
            assert_eq!(days_of_hybrid(old), days_of(year, month, day), "{old}");
        }
    }

    #[test]
    fn days_convert_to_the_julian_calendar_and_back() {
        for days in (-800_000..-141_438).step_by(97) {
            assert_eq!(days_of_hybrid(days_to_hybrid(days)), days, "{days}");
        }
        // The hybrid calendar skips 1582-10-05 to 1582-10-14.
        assert_eq!(days_to_hybrid(-141_437), -141_427);
        assert_eq!(days_to_hybrid(-141_438), -141_428);
        assert_eq!(days_to_hybrid(-171_664), -171_655);
    }

    #[test]
    fn times_keep_their_local_time() {
        // 0001-01-01 00:00:00 in UTC, as Spark writes it to an ORC file.
        assert_eq!(micros_of_hybrid(-719_164 * DAY_US, Tz::UTC), -62_135_596_800_000_000);
        assert_eq!(micros_of_hybrid(1_000_000, Tz::UTC), 1_000_000);
        // Spark wrote these values in New York, which used local mean time until 1883.
        let zone = Tz::named("America/New_York").unwrap();
        for (old, new) in [
            (-2_999_999_762_000_000, -3_000_000_000_000_000),
            (-2_717_650_800_000_000, -2_717_650_800_000_000),
            (1_710_050_000_000_001, 1_710_050_000_000_001),
        ] {
            assert_eq!(micros_of_hybrid(old, zone), new, "{old}");
        }
    }

    #[test]
    fn before_1900_a_zone_has_its_standard_offset_of_today() {
        for (name, offset_s) in [
            ("America/New_York", -18_000),
            ("Asia/Kolkata", 19_800),
            ("Asia/Kathmandu", 20_700),
            ("America/Sao_Paulo", -10_800),
            ("Europe/Moscow", 10_800),
            ("Europe/Dublin", 0),
            ("Africa/Monrovia", 0),
        ] {
            let zone = Tz::named(name).unwrap();
            assert_eq!(standard_offset_s(zone), offset_s, "{name}");
            let second = 1_000_000;
            let local = hybrid_local(OFFSETS_FROM_US - second, zone);
            assert_eq!(local, OFFSETS_FROM_US - second + offset_s * second, "{name}");
        }
    }
}
