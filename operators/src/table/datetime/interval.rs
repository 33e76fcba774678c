//! The text form of intervals in Spark's notation: `INTERVAL '1 02:03:04.5' DAY TO SECOND`.

use super::{DAY_US, SECOND_US};
use crate::table::types::{DAY_TIME_UNITS, DataType, YEAR_MONTH_UNITS};

/// The lengths of a day, an hour, a minute and a second, in microseconds.
const UNIT_US: [i64; 4] = [DAY_US, 3600 * SECOND_US, 60 * SECOND_US, SECOND_US];

/// Formats an interval as Spark shows it: months or microseconds, according to the type.
pub fn text(value: i64, data_type: &DataType) -> String {
    let (number, units, from, to) = match *data_type {
        DataType::YearMonthInterval(from, to) => {
            (year_month(value, from, to), &YEAR_MONTH_UNITS[..], from, to)
        }
        DataType::DayTimeInterval(from, to) => {
            (day_time(value, from, to), &DAY_TIME_UNITS[..], from, to)
        }
        _ => return value.to_string(),
    };
    let sign = if value < 0 { "-" } else { "" };
    let unit = units[usize::from(from)];
    if from == to {
        format!("INTERVAL '{sign}{number}' {unit}")
    } else {
        format!("INTERVAL '{sign}{number}' {unit} TO {}", units[usize::from(to)])
    }
}

fn year_month(months: i64, from: u8, to: u8) -> String {
    let months = months.unsigned_abs();
    match (from, to) {
        (0, 0) => (months / 12).to_string(),
        (0, _) => format!("{}-{}", months / 12, months % 12),
        _ => months.to_string(),
    }
}

fn day_time(micros: i64, from: u8, to: u8) -> String {
    let mut rest = micros.unsigned_abs();
    let mut out = String::new();
    for unit in from..=to {
        let length = UNIT_US[usize::from(unit)] as u64;
        let count = rest / length;
        rest %= length;
        match unit {
            0 => out.push_str(&count.to_string()),
            _ if unit == from => out.push_str(&format!("{count:02}")),
            1 => out.push_str(&format!(" {count:02}")),
            _ => out.push_str(&format!(":{count:02}")),
        }
        if unit == 3 && rest > 0 {
            out.push_str(format!(".{rest:06}").trim_end_matches('0'));
        }
    }
    out
}

/// The length in microseconds of a day-time unit: 0 is DAY, 3 is SECOND.
pub fn unit_us(unit: u8) -> i64 {
    UNIT_US[usize::from(unit.min(3))]
}

/// Parses an interval of a type, either the bare value or the form that [`text`] writes. `None` if
/// it is malformed or out of range.
pub fn parse_shown(written: &str, data_type: &DataType) -> Option<i64> {
    let trimmed = written.trim();
    let upper = trimmed.to_ascii_uppercase();
    match upper.strip_prefix("INTERVAL") {
        None => parse(trimmed, data_type),
        Some(rest) => {
            let (text, units) = rest.trim().strip_prefix('\'')?.split_once('\'')?;
            let shown = data_type.to_string();
            (shown.strip_prefix("INTERVAL ")? == units.trim()).then(|| parse(text, data_type))?
        }
    }
}

/// Parses an interval of a type to months or microseconds: `1 02:03:04.5`, `-1-2`, `90`. As in
/// Spark, the text must have every unit of the type and no other unit. `None` if it has not, or if
/// it is malformed or out of range.
pub fn parse(written: &str, data_type: &DataType) -> Option<i64> {
    let trimmed = written.trim();
    let (sign, digits) = match trimmed.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1i128, trimmed.strip_prefix('+').unwrap_or(trimmed)),
    };
    let number = |text: &str| {
        let fits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        // The sign is applied last, in 128 bits, because the smallest value has no positive
        // counterpart.
        fits.then(|| text.parse::<i64>().ok()).flatten().map(i128::from)
    };
    let value = match *data_type {
        DataType::YearMonthInterval(from, to) if from == to => {
            number(digits)?.checked_mul(if from == 0 { 12 } else { 1 })?
        }
        DataType::YearMonthInterval(..) => {
            let (years, months) = digits.split_once('-')?;
            let months = number(months).filter(|m| *m < 12)?;
            number(years)?.checked_mul(12)?.checked_add(months)?
        }
        DataType::DayTimeInterval(from, to) => {
            let (days, clock) = match from == 0 && to > 0 {
                true => digits.split_once(' ').map(|(days, clock)| (Some(days), clock))?,
                false => (None, digits),
            };
            let mut parts = days.into_iter().chain(clock.split(':'));
            let mut total = 0i128;
            for unit in from..=to {
                let part = parts.next()?;
                // A fraction has one to nine digits; those below a microsecond are dropped.
                let (whole, fraction) = match part.split_once('.') {
                    Some((whole, fraction)) if unit == 3 && matches!(fraction.len(), 1..=9) => {
                        (whole, fraction)
                    }
                    Some(_) => return None,
                    None => (part, "0"),
                };
                let most =
                    if unit == from { i128::MAX } else { [0, 23, 59, 59][usize::from(unit)] };
                let count = number(whole).filter(|count| *count <= most)?;
                total = (count * i128::from(UNIT_US[usize::from(unit)])).checked_add(total)?;
                let nanos = number(fraction)? * 10i128.pow(9 - fraction.len() as u32);
                total = total.checked_add(nanos / 1000)?;
            }
            if parts.next().is_some() {
                return None;
            }
            total
        }
        _ => return None,
    };
    let value = sign * value;
    match data_type {
        DataType::YearMonthInterval(..) => i32::try_from(value).ok().map(i64::from),
        _ => i64::try_from(value).ok(),
    }
}

/// Whether a text has the separators of an interval type. Seconds may have a fraction. Neither the
/// numbers of digits nor the range of the numbers are checked.
pub fn has_shape(written: &str, data_type: &DataType) -> bool {
    let digits = written.trim().trim_start_matches(['-', '+']);
    let signs: String = digits.chars().filter(|c| !c.is_ascii_digit()).collect();
    let expected = match *data_type {
        DataType::YearMonthInterval(from, to) if from < to => "-".to_string(),
        DataType::DayTimeInterval(from, to) => {
            let clock = ":".repeat(usize::from(to - from.max(1).min(to)));
            if from == 0 && to > 0 { format!(" {clock}") } else { clock }
        }
        _ => String::new(),
    };
    let last_is_seconds = matches!(data_type, DataType::DayTimeInterval(_, 3));
    signs == expected || last_is_seconds && signs == format!("{expected}.")
}

/// A duration of months and microseconds. Months are separate because their length in days varies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Length {
    /// The whole months, which may be negative.
    pub months: i64,
    /// Microseconds, to be added to the months.
    pub micros: i64,
}

/// Parses a duration such as `10 minutes`, `1 hour 30 minutes` or `interval 2 days`. The error is
/// the sub-condition of Spark's error.
pub fn length(text: &str) -> Result<Length, &'static str> {
    let trimmed = text.trim();
    let rest = match trimmed.get(..8) {
        Some(word) if word.eq_ignore_ascii_case("interval") => trimmed[8..].trim_start(),
        _ => trimmed,
    };
    let words: Vec<&str> = rest.split_whitespace().collect();
    if words.is_empty() {
        return Err("INPUT_IS_EMPTY");
    }
    let mut length = Length::default();
    for pair in words.chunks(2) {
        let first = pair[0].strip_prefix(['-', '+']).unwrap_or(pair[0]);
        if !first.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            return Err("UNRECOGNIZED_NUMBER");
        }
        let [count, unit] = pair else { return Err("MISSING_UNIT") };
        let (value, months, _) = of_unit(count, unit).ok_or("INVALID_UNIT")?;
        let part = if months { &mut length.months } else { &mut length.micros };
        *part = part.checked_add(value).ok_or("ARITHMETIC_EXCEPTION")?;
    }
    Ok(length)
}

/// Parses a count and a unit, as in `INTERVAL 90 SECONDS`. Returns three values: the length in
/// months or microseconds, whether it is in months, and the index of the unit in its interval type.
/// WEEK has the index of DAY. `None` if the unit is unknown, if the count is malformed or too
/// large, or if a unit other than SECOND has a fraction.
pub fn of_unit(count: &str, unit: &str) -> Option<(i64, bool, u8)> {
    let singular = unit.to_ascii_uppercase();
    let singular = singular.strip_suffix('S').unwrap_or(&singular);
    let (months, length, place) = match singular {
        "YEAR" => (true, 12, 0),
        "MONTH" => (true, 1, 1),
        "WEEK" => (false, 7 * DAY_US, 0),
        "DAY" => (false, DAY_US, 0),
        "HOUR" => (false, UNIT_US[1], 1),
        "MINUTE" => (false, UNIT_US[2], 2),
        "SECOND" => (false, SECOND_US, 3),
        "MILLISECOND" => (false, 1000, 3),
        "MICROSECOND" => (false, 1, 3),
        _ => return None,
    };
    let count = count.trim();
    let (negative, digits) = match count.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, count.strip_prefix('+').unwrap_or(count)),
    };
    // At most nine digits of a second are accepted; those below a microsecond are dropped.
    let (whole, fraction) = match digits.split_once('.') {
        Some((whole, fraction)) if length == SECOND_US && fraction.len() <= 9 => (whole, fraction),
        Some(_) => return None,
        None => (digits, ""),
    };
    let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() && fraction.is_empty() || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let padded = format!("{fraction:0<6}");
    let value = whole.checked_mul(length)?.checked_add(padded.get(..6)?.parse().ok()?)?;
    Some((if negative { -value } else { value }, months, place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_survives_formatting_and_parsing() {
        for (data_type, written) in [
            (DataType::DayTimeInterval(0, 3), "1 02:03:04.5"),
            (DataType::DayTimeInterval(0, 3), "-0 00:01:30"),
            (DataType::DayTimeInterval(3, 3), "90"),
            (DataType::DayTimeInterval(0, 0), "2"),
            (DataType::DayTimeInterval(3, 3), "05.25"),
            (DataType::YearMonthInterval(0, 1), "1-2"),
            (DataType::YearMonthInterval(1, 1), "-3"),
        ] {
            let value = parse(written, &data_type).unwrap();
            let shown = text(value, &data_type);
            assert!(shown.contains(&format!("'{written}'")), "{shown}");
        }
        assert_eq!(parse("1 24:00:00", &DataType::DayTimeInterval(0, 3)), None);
        let seconds = |text| parse(text, &DataType::DayTimeInterval(3, 3));
        assert_eq!(seconds("-1.123456789"), Some(-1_123_456));
        for bad in ["1.123456abc", "1.12345é", "1.1234567x", "1.1234567890", "1.", "1.-5", "1.5.5"]
        {
            assert_eq!(seconds(bad), None, "{bad}");
        }
        let year_month = DataType::YearMonthInterval(0, 1);
        assert_eq!(parse("-178956970-8", &year_month), Some(i64::from(i32::MIN)));
        assert_eq!(parse("178956970-8", &year_month), None);
        let day_time = DataType::DayTimeInterval(0, 3);
        assert_eq!(parse("-106751991 04:00:54.775808", &day_time), Some(i64::MIN));
        assert!(has_shape("178956970-8", &year_month) && has_shape("1 24:00:00.5", &day_time));
        assert!(!has_shape("1", &year_month) && !has_shape("15:40", &day_time));
        assert_eq!(of_unit("1.5", "seconds"), Some((1_500_000, false, 3)));
        assert_eq!(of_unit("-2", "week"), Some((-14 * DAY_US, false, 0)));
        assert_eq!(of_unit(".5", "second"), Some((500_000, false, 3)));
        for bad in ["--5", "++5", "-+5", "1.-5", "1.+5", ".", "", "1.0000000001"] {
            assert_eq!(of_unit(bad, "seconds"), None, "{bad}");
        }
        assert_eq!(length("--5 days"), Err("UNRECOGNIZED_NUMBER"));
    }
}
