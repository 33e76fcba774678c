//! The proleptic Gregorian calendar for every day in the range of DATE: ±5.8 million years.
//!
//! Days are counted from 1970-01-01. A year before 1 is zero or negative: year 0 is 1 BC.

/// A day of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    /// The year; 0 is 1 BC.
    pub year: i64,
    /// 1 to 12.
    pub month: u32,
    /// 1 to the last day of the month.
    pub day: u32,
}

/// Days from 0000-03-01, where the algorithm starts counting, to 1970-01-01.
const EPOCH: i64 = 719_468;
/// Days in 400 years, after which the calendar repeats.
const CYCLE: i64 = 146_097;

/// Whether a year has a 29th of February.
pub fn is_leap(year: i64) -> bool {
    year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0)
}

/// The number of days in a month. January is 1.
pub fn days_of_month(year: i64, month: u32) -> u32 {
    match month {
        2 => 28 + u32::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl Date {
    /// Creates a date; `None` if there is no such day.
    pub fn new(year: i64, month: u32, day: u32) -> Option<Self> {
        let fits = (1..=12).contains(&month) && day >= 1 && day <= days_of_month(year, month);
        fits.then_some(Self { year, month, day })
    }

    /// Creates a date from a year and a day of year, counted from 1. `None` if the year has no such
    /// day.
    pub fn of_ordinal(year: i64, ordinal: u32) -> Option<Self> {
        let most = 365 + u32::from(is_leap(year));
        let first = Self { year, month: 1, day: 1 }.days();
        (1..=most).contains(&ordinal).then(|| Self::of_days(first + i64::from(ordinal) - 1))
    }

    /// Converts a number of days since 1970 to a date. The algorithm starts years in March, so that
    /// the leap day is the last day of a year.
    pub fn of_days(days: i64) -> Self {
        let days = days + EPOCH;
        let (cycle, day) = (days.div_euclid(CYCLE), days.rem_euclid(CYCLE));
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let of_year = day - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        Self {
            year: year + cycle * 400 + i64::from(month <= 2),
            month: month as u32,
            day: day as u32,
        }
    }

    /// The number of days since 1970-01-01.
    pub fn days(self) -> i64 {
        let year = self.year - i64::from(self.month <= 2);
        let (cycle, year) = (year.div_euclid(400), year.rem_euclid(400));
        let month = i64::from((self.month + 9) % 12);
        let of_year = (153 * month + 2) / 5 + i64::from(self.day) - 1;
        cycle * CYCLE + year * 365 + year / 4 - year / 100 + of_year - EPOCH
    }

    /// The day of year, counted from 1.
    pub fn ordinal(self) -> i64 {
        self.days() - Self { year: self.year, month: 1, day: 1 }.days() + 1
    }

    /// The day of the week; Monday is 0.
    pub fn weekday(self) -> i64 {
        weekday(self.days())
    }

    /// The quarter, counted from 1.
    pub fn quarter(self) -> i64 {
        i64::from((self.month - 1) / 3 + 1)
    }

    /// The ISO year and week. A week belongs to the year of its Thursday.
    pub fn iso_week(self) -> (i64, i64) {
        let thursday = self.days() - self.weekday() + 3;
        let thursday = Self::of_days(thursday);
        (thursday.year, (thursday.ordinal() - 1) / 7 + 1)
    }
}

/// The day of the week of a number of days since 1970; Monday is 0.
pub fn weekday(days: i64) -> i64 {
    (days + 3).rem_euclid(7)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn days_since_1970_convert_to_dates_and_back() {
        for (days, year, month, day) in [
            (0, 1970, 1, 1),
            (-1, 1969, 12, 31),
            (-719_528, 0, 1, 1),
            (-719_529, -1, 12, 31),
            (19_782, 2024, 2, 29),
            (3_672_333, 12_024, 7, 4),
        ] {
            let date = Date { year, month, day };
            assert_eq!((Date::of_days(days), date.days()), (date, days));
        }
        assert_eq!(Date::new(2023, 2, 29), None);
        assert_eq!(Date::of_ordinal(2024, 366), Date::new(2024, 12, 31));
        assert_eq!(Date::of_ordinal(2023, 366), None);
        assert_eq!(Date::new(2021, 1, 3).map(Date::iso_week), Some((2020, 53)));
        assert_eq!(Date::new(2024, 12, 30).map(Date::iso_week), Some((2025, 1)));
    }

    proptest! {
        #[test]
        fn every_day_number_survives_conversion_to_a_date(days in i64::from(i32::MIN)..=i64::from(i32::MAX)) {
            let date = Date::of_days(days);
            prop_assert_eq!(date.days(), days);
            prop_assert_eq!(Date::new(date.year, date.month, date.day), Some(date));
            prop_assert_eq!(Date::of_ordinal(date.year, date.ordinal() as u32), Some(date));
        }
    }
}
