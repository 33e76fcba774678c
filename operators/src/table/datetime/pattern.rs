//! Patterns of dates and times, with Spark's letters (a subset of Java's): `yyyy-MM-dd HH:mm:ss`.
//!
//! | letters | field |
//! |---|---|
//! | `y`, `u` | year |
//! | `M`, `L` | month, by number or (three, four letters) by English name |
//! | `d`, `D` | day of month, of year |
//! | `E` | English day of week; only written |
//! | `a` | AM or PM |
//! | `H`, `k`, `K`, `h` | hour: 0-23, 1-24, 0-11, 1-12 |
//! | `m`, `s`, `S` | minute, second, fraction |
//! | `V`, `z` | zone by name |
//! | `X`, `x`, `Z`, `O` | offset |
//! | `Q`, `q`, `F`, `G` | quarter, week of month, era; only written |
//! | `'…'`, `[…]` | text, an optional part |

use super::{
    DAY_US, SECOND_US, Tz, date_of_days, local_us, offset_s, parse_offset, to_local, to_utc, zone,
};
use chrono::{Datelike, NaiveDate};
use std::fmt::Write;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

#[derive(Clone, Debug, PartialEq)]
enum Item {
    Text(String),
    /// A letter and how often it stands.
    Field(char, usize),
    Optional(Vec<Item>),
}

/// A pattern, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern(Vec<Item>);

/// What was read.
#[derive(Clone, Copy, Debug, Default)]
struct Fields {
    year: Option<i32>,
    month: Option<u32>,
    day: Option<u32>,
    day_of_year: Option<u32>,
    hour: Option<i64>,
    /// An hour of a half day.
    half_hour: Option<i64>,
    afternoon: Option<bool>,
    minute: i64,
    second: i64,
    micros: i64,
    offset_s: Option<i64>,
    zone: Option<Tz>,
}

impl Pattern {
    /// Reads a pattern; the error says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        let mut chars = text.chars().peekable();
        let items = parse(&mut chars, false)?;
        Ok(Self(items))
    }

    /// Microseconds since 1970 of a text; in `zone` unless the text names another.
    pub fn timestamp(&self, text: &str, zone: Tz) -> Option<i64> {
        let (local, fields) = self.read(text)?;
        Some(match (fields.offset_s, fields.zone) {
            (Some(offset_s), _) => local - offset_s * SECOND_US,
            (None, Some(zone)) => to_utc(local, zone),
            (None, None) => to_utc(local, zone),
        })
    }

    /// Microseconds of a wall clock without a zone.
    pub fn timestamp_ntz(&self, text: &str) -> Option<i64> {
        self.read(text).map(|(local, _)| local)
    }

    /// Days since 1970 of a text.
    pub fn date(&self, text: &str) -> Option<i64> {
        self.read(text).map(|(local, _)| local.div_euclid(DAY_US))
    }

    fn read(&self, text: &str) -> Option<(i64, Fields)> {
        let mut fields = Fields::default();
        let rest = read(&self.0, text, &mut fields, 0)?;
        if !rest.is_empty() {
            return None;
        }
        let year = fields.year.unwrap_or(1970);
        let date = match fields.day_of_year {
            Some(day) => NaiveDate::from_yo_opt(year, day)?,
            None => {
                NaiveDate::from_ymd_opt(year, fields.month.unwrap_or(1), fields.day.unwrap_or(1))?
            }
        };
        let hour = match (fields.hour, fields.half_hour, fields.afternoon) {
            (Some(hour), ..) => hour,
            (None, Some(hour), afternoon) => hour + if afternoon == Some(true) { 12 } else { 0 },
            (None, None, Some(true)) => 12,
            _ => 0,
        };
        let midnight = local_us(date.and_hms_opt(0, 0, 0)?);
        let time = ((hour * 60 + fields.minute) * 60 + fields.second) * SECOND_US + fields.micros;
        Some((midnight + time, fields))
    }

    /// A timestamp as text in a zone.
    pub fn text(&self, micros: i64, zone: Tz, out: &mut dyn Write) {
        write(&self.0, to_local(micros, zone), offset_s(micros, zone), zone, out);
    }
}

fn parse(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    inside: bool,
) -> Result<Vec<Item>, String> {
    let mut items: Vec<Item> = Vec::new();
    let literal = |items: &mut Vec<Item>, c: char| match items.last_mut() {
        Some(Item::Text(text)) => text.push(c),
        _ => items.push(Item::Text(c.to_string())),
    };
    while let Some(c) = chars.next() {
        match c {
            '\'' if chars.peek() == Some(&'\'') => {
                chars.next();
                literal(&mut items, '\'');
            }
            '\'' => loop {
                match chars.next() {
                    Some('\'') if chars.peek() == Some(&'\'') => {
                        chars.next();
                        literal(&mut items, '\'');
                    }
                    Some('\'') => break,
                    Some(c) => literal(&mut items, c),
                    None => return Err("a quote is not closed".to_string()),
                }
            },
            '[' if inside => return Err("optional parts stand inside one another".to_string()),
            '[' => items.push(Item::Optional(parse(chars, true)?)),
            ']' if inside => return Ok(items),
            ']' => return Err("']' without '['".to_string()),
            '{' | '}' | '#' => return Err(format!("'{c}' is reserved")),
            c if c.is_ascii_alphabetic() => {
                let mut count = 1;
                while chars.peek() == Some(&c) {
                    chars.next();
                    count += 1;
                }
                let most = match c {
                    'y' | 'u' => 6,
                    'M' | 'L' | 'E' | 'O' | 'z' | 'Q' | 'q' | 'G' => 4,
                    'd' | 'H' | 'h' | 'k' | 'K' | 'm' | 's' | 'V' => 2,
                    'D' => 3,
                    'S' => 9,
                    'a' | 'F' => 1,
                    'X' | 'x' | 'Z' => 5,
                    'Y' | 'w' | 'W' | 'e' | 'c' => {
                        return Err(format!("week-based fields such as '{c}' are not supported"));
                    }
                    _ => return Err(format!("there is no field '{c}'")),
                };
                if count > most {
                    return Err(format!("'{c}' stands {count} times, at most {most} are allowed"));
                }
                if c == 'V' && count != 2 {
                    return Err("a zone's name is written VV".to_string());
                }
                items.push(Item::Field(c, count));
            }
            c => literal(&mut items, c),
        }
    }
    if inside { Err("'[' is not closed".to_string()) } else { Ok(items) }
}

/// Fewest and most digits of a number, if the field is one.
fn digits(letter: char, count: usize) -> Option<(usize, usize)> {
    Some(match (letter, count) {
        ('y' | 'u', 2) => (2, 2),
        ('y' | 'u', n) => (n, if n < 4 { 6 } else { n.max(6) }),
        ('M' | 'L', n) if n > 2 => return None,
        ('M' | 'L' | 'd' | 'H' | 'h' | 'k' | 'K' | 'm' | 's', 1) => (1, 2),
        ('M' | 'L' | 'd' | 'H' | 'h' | 'k' | 'K' | 'm' | 's', _) => (2, 2),
        ('D', n) => (n, 3),
        ('S', n) => (1, n),
        _ => return None,
    })
}

/// Reads items from the front of a text; `keep` digits belong to what follows.
fn read<'t>(items: &[Item], text: &'t str, fields: &mut Fields, keep: usize) -> Option<&'t str> {
    let mut rest = text;
    for (i, item) in items.iter().enumerate() {
        rest = match item {
            Item::Text(text) => rest.strip_prefix(text.as_str())?,
            Item::Optional(part) => {
                let mut tried = *fields;
                match read(part, rest, &mut tried, 0) {
                    Some(after) => {
                        *fields = tried;
                        after
                    }
                    None => rest,
                }
            }
            Item::Field(letter, count) => {
                // Digits that stand right behind this number and are counted belong to others.
                let mut after = keep;
                for next in &items[i + 1..] {
                    match next {
                        Item::Field(letter, count) => match digits(*letter, *count) {
                            Some((least, _)) => after += least,
                            None => break,
                        },
                        _ => break,
                    }
                }
                field(*letter, *count, rest, after, fields)?
            }
        };
    }
    Some(rest)
}

fn field<'t>(
    letter: char,
    count: usize,
    text: &'t str,
    after: usize,
    fields: &mut Fields,
) -> Option<&'t str> {
    if let Some((least, most)) = digits(letter, count) {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) if matches!(letter, 'y' | 'u') => (true, rest),
            _ => (false, text.strip_prefix('+').filter(|_| letter == 'y').unwrap_or(text)),
        };
        let there = digits.bytes().take_while(u8::is_ascii_digit).count();
        let take = most.min(there.saturating_sub(after).max(least));
        if there < take || take < least {
            return None;
        }
        let (number, rest) = digits.split_at(take);
        let value: i64 = number.parse().ok()?;
        let within = |low: i64, high: i64| (low..=high).contains(&value).then_some(value);
        match letter {
            'y' | 'u' => {
                let value = if count == 2 { value + 2000 } else { value };
                fields.year = Some(if negative { -value } else { value } as i32);
            }
            'M' | 'L' => fields.month = Some(within(1, 12)? as u32),
            'd' => fields.day = Some(within(1, 31)? as u32),
            'D' => fields.day_of_year = Some(within(1, 366)? as u32),
            'H' => fields.hour = Some(within(0, 23)?),
            'k' => fields.hour = Some(within(1, 24)? % 24),
            'K' => fields.half_hour = Some(within(0, 11)?),
            'h' => fields.half_hour = Some(within(1, 12)? % 12),
            'm' => fields.minute = within(0, 59)?,
            's' => fields.second = within(0, 59)?,
            _ => {
                let mut micros = 0;
                for i in 0..6 {
                    micros =
                        micros * 10 + i64::from(number.as_bytes().get(i).map_or(0, |b| b - b'0'));
                }
                fields.micros = micros;
            }
        }
        return Some(rest);
    }
    match letter {
        'M' | 'L' => {
            let index = MONTHS.iter().position(|name| {
                let name = if count == 3 { &name[..3] } else { name };
                starts_with(text, name)
            })?;
            fields.month = Some(index as u32 + 1);
            Some(&text[if count == 3 { 3 } else { MONTHS[index].len() }..])
        }
        'a' => {
            fields.afternoon = Some(starts_with(text, "PM"));
            (starts_with(text, "AM") || starts_with(text, "PM")).then(|| &text[2..])
        }
        'X' | 'x' | 'Z' | 'O' => {
            let letters = text.bytes().take_while(u8::is_ascii_alphabetic).count();
            let signed = text[letters..]
                .bytes()
                .take_while(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b':'))
                .count();
            let (offset, rest) = text.split_at(letters + signed);
            fields.offset_s = Some(parse_offset(offset).filter(|_| !offset.is_empty())?);
            Some(rest)
        }
        'V' | 'z' => {
            let inside =
                |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '+' | '-' | ':');
            let end = text.find(|c| !inside(c)).unwrap_or(text.len());
            let (name, rest) = text.split_at(end);
            match parse_offset(name).filter(|_| !name.is_empty()) {
                Some(offset_s) => fields.offset_s = Some(offset_s),
                None => fields.zone = Some(zone(name).ok()?),
            }
            Some(rest)
        }
        _ => None,
    }
}

fn starts_with(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
}

fn write(items: &[Item], local_us: i64, offset_s: i64, zone: Tz, out: &mut dyn Write) {
    let Some(date) = date_of_days(local_us.div_euclid(DAY_US)) else { return };
    let time = local_us.rem_euclid(DAY_US);
    let (hour, minute) = (time / (3600 * SECOND_US), time / (60 * SECOND_US) % 60);
    let (second, micros) = (time / SECOND_US % 60, time % SECOND_US);
    for item in items {
        let (letter, count) = match item {
            Item::Text(text) => {
                let _ = out.write_str(text);
                continue;
            }
            Item::Optional(part) => {
                write(part, local_us, offset_s, zone, out);
                continue;
            }
            Item::Field(letter, count) => (*letter, *count),
        };
        let quarter = i64::from(date.month0() / 3) + 1;
        let number = match letter {
            'y' | 'u' if count == 2 => i64::from(date.year().rem_euclid(100)),
            'y' | 'u' => i64::from(date.year()),
            'M' | 'L' if count <= 2 => i64::from(date.month()),
            'd' => i64::from(date.day()),
            'D' => i64::from(date.ordinal()),
            'H' => hour,
            'k' => (hour + 23) % 24 + 1,
            'K' => hour % 12,
            'h' => (hour + 11) % 12 + 1,
            'm' => minute,
            's' => second,
            'F' => i64::from(date.day0() / 7) + 1,
            'Q' | 'q' if count <= 2 => quarter,
            _ => -1,
        };
        // Writing to a string does not fail.
        let _ = match letter {
            'M' | 'L' if count > 2 => {
                let name = MONTHS[date.month0() as usize];
                out.write_str(if count == 3 { &name[..3] } else { name })
            }
            'E' => {
                let name = DAYS[date.weekday().num_days_from_monday() as usize];
                out.write_str(if count < 4 { &name[..3] } else { name })
            }
            'a' => out.write_str(if hour < 12 { "AM" } else { "PM" }),
            'G' => out.write_str(match (date.year() > 0, count) {
                (true, 4) => "Anno Domini",
                (false, 4) => "Before Christ",
                (true, _) => "AD",
                (false, _) => "BC",
            }),
            'S' => {
                // At most nine of them.
                let shown = micros * 1000 / 10i64.pow(9 - count as u32);
                write!(out, "{shown:0count$}")
            }
            'Q' | 'q' if count == 3 => write!(out, "Q{quarter}"),
            'Q' | 'q' if count == 4 => out
                .write_str(["1st", "2nd", "3rd", "4th"][quarter as usize - 1])
                .and_then(|()| out.write_str(" quarter")),
            'V' => out.write_str(zone.name()),
            'z' => {
                let at = local_us - offset_s * SECOND_US;
                let name = chrono::DateTime::from_timestamp_micros(at)
                    .map(|at| at.with_timezone(&zone).format("%Z").to_string());
                out.write_str(name.as_deref().unwrap_or(zone.name()))
            }
            'X' | 'x' | 'Z' | 'O' => {
                offset_text(letter, count, offset_s, out);
                Ok(())
            }
            _ if number < 0 => write!(out, "-{:0count$}", -number),
            _ => write!(out, "{number:0count$}"),
        };
    }
}

fn offset_text(letter: char, count: usize, offset_s: i64, out: &mut dyn Write) {
    let sign = if offset_s < 0 { '-' } else { '+' };
    let (hours, minutes) = (offset_s.abs() / 3600, offset_s.abs() / 60 % 60);
    let seconds = offset_s.abs() % 60;
    // Writing to a string does not fail.
    let _ = match (letter, count) {
        ('X', _) | ('Z', 5) if offset_s == 0 => write!(out, "Z"),
        ('O', 4) | ('Z', 4) if offset_s == 0 => write!(out, "GMT"),
        ('O', 4) | ('Z', 4) => write!(out, "GMT{sign}{hours:02}:{minutes:02}"),
        ('O', _) if offset_s == 0 => write!(out, "GMT"),
        ('O', _) if minutes == 0 => write!(out, "GMT{sign}{hours}"),
        ('O', _) => write!(out, "GMT{sign}{hours}:{minutes:02}"),
        ('X' | 'x', 1) if minutes == 0 => write!(out, "{sign}{hours:02}"),
        ('X' | 'x', 1 | 2) | ('Z', 1..=3) => write!(out, "{sign}{hours:02}{minutes:02}"),
        ('X' | 'x', 4) if seconds != 0 => {
            write!(out, "{sign}{hours:02}{minutes:02}{seconds:02}")
        }
        ('X' | 'x', 4) => write!(out, "{sign}{hours:02}{minutes:02}"),
        _ => write!(out, "{sign}{hours:02}:{minutes:02}"),
    };
}

#[cfg(test)]
mod tests {
    use super::super::{parse_date, parse_timestamp};
    use super::*;
    use proptest::prelude::*;

    fn read(pattern: &str, text: &str) -> Option<i64> {
        Pattern::new(pattern).unwrap().timestamp(text, Tz::UTC)
    }

    fn text(pattern: &str, at: &str, zone: Tz) -> String {
        let mut out = String::new();
        let at = parse_timestamp(at, Some(Tz::UTC)).unwrap();
        Pattern::new(pattern).unwrap().text(at, zone, &mut out);
        out
    }

    #[test]
    fn reads() {
        let at = |text| parse_timestamp(text, Some(Tz::UTC));
        for (pattern, written, expected) in [
            ("yyyy-MM-dd HH:mm:ss", "2024-03-01 12:34:56", "2024-03-01 12:34:56"),
            ("yyyyMMddHHmmss", "20240301123456", "2024-03-01 12:34:56"),
            ("dd/MMM/yyyy:HH:mm:ss Z", "01/Mar/2024:12:34:56 +0200", "2024-03-01 10:34:56"),
            ("yyyy-MM-dd'T'HH:mm:ss.SSSXXX", "2024-03-01T12:34:56.7Z", "2024-03-01 12:34:56.7"),
            ("yyyy-MM-dd'T'HH:mm:ss[.SSS][XXX]", "2024-03-01T12:34:56", "2024-03-01 12:34:56"),
            ("d/M/yy h:m a", "1/3/24 1:05 PM", "2024-03-01 13:05:00"),
            ("yyyy-MM-dd HH:mm VV", "2024-07-01 12:00 America/New_York", "2024-07-01 16:00:00"),
            ("yyyy-DDD", "2024-060", "2024-02-29 00:00:00"),
            ("MMMM d, yyyy", "march 1, 2024", "2024-03-01 00:00:00"),
        ] {
            assert_eq!(read(pattern, written), at(expected), "{pattern}");
        }
        assert_eq!(Pattern::new("MM-dd").unwrap().date("02-03"), parse_date("1970-02-03"));
        for (pattern, bad) in [
            ("yyyy-MM-dd", "2024-13-01"),
            ("yyyy-MM-dd", "2024-02-30"),
            ("yyyy-MM-dd", "2024-03-01 "),
            ("yyyy-MM-dd", "24-03-01"),
            ("HH:mm", "24:00"),
            ("HH:mm", "1:00"),
            ("VV", "Nowhere"),
        ] {
            assert_eq!(read(pattern, bad), None, "{pattern} {bad}");
        }
        for bad in ["YYYY", "yyyy-MM-dd'T", "[yyyy", "yyyy]", "b", "VVV", "SSSSSSSSSS"] {
            assert!(Pattern::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn writes() {
        let at = "2024-03-01 13:04:05.067";
        let berlin = Tz::Europe__Berlin;
        assert_eq!(text("yyyy/MM/dd HH-mm-ss.SSS", at, Tz::UTC), "2024/03/01 13-04-05.067");
        assert_eq!(text("EEE, d MMM yy h:mm a", at, Tz::UTC), "Fri, 1 Mar 24 1:04 PM");
        assert_eq!(text("EEEE MMMM D q", at, Tz::UTC), "Friday March 61 1");
        assert_eq!(
            text("HH:mm XXX x Z O VV", at, berlin),
            "14:04 +01:00 +01 +0100 GMT+1 Europe/Berlin"
        );
        assert_eq!(text("HH z X", at, Tz::UTC), "13 UTC Z");
        assert_eq!(text("''yyyy''['x']", at, Tz::UTC), "'2024'x");
    }

    proptest! {
        #[test]
        fn no_text_or_pattern_panics(pattern in "[a-zA-Z'\\[\\]: .-]{0,12}", text in "\\PC{0,20}", at: i64) {
            if let Ok(pattern) = Pattern::new(&pattern) {
                let _ = pattern.timestamp(&text, Tz::UTC);
                pattern.text(at / 2, Tz::America__New_York, &mut String::new());
            }
        }

        #[test]
        fn what_is_written_is_read_again(at in -60_000_000_000_000_000i64..250_000_000_000_000_000) {
            let pattern = Pattern::new("yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX").unwrap();
            let mut out = String::new();
            pattern.text(at, Tz::UTC, &mut out);
            prop_assert_eq!(pattern.timestamp(&out, Tz::Asia__Tokyo), Some(at));
        }
    }
}
