//! Formats for `%t`: parts of a timestamp, which is given in milliseconds since 1970-01-01 UTC.

use chrono::{DateTime, Datelike, Timelike, Utc};

/// Whether a letter is a conversion of `%t`.
pub fn is_conversion(c: char) -> bool {
    "HIklMSLNpzZsQBbhAaCYyjmdeRTrDFc".contains(c)
}

/// Formats one part of a timestamp. `None` if the conversion is unknown or the timestamp is out of
/// range.
pub fn text(millis: i64, conversion: char) -> Option<String> {
    let at: DateTime<Utc> = DateTime::from_timestamp_millis(millis)?;
    let (_, hour12) = at.hour12();
    let day_half = if at.hour() < 12 { "am" } else { "pm" };
    let year = at.year();
    // Years before 1 are printed as years BC, without the era: year 0 is printed as 1.
    let year = if year > 0 { year } else { 1 - year };
    let clock = format!("{:02}:{:02}", at.hour(), at.minute());
    Some(match conversion {
        'H' => format!("{:02}", at.hour()),
        'I' => format!("{hour12:02}"),
        'k' => at.hour().to_string(),
        'l' => hour12.to_string(),
        'M' => format!("{:02}", at.minute()),
        'S' => format!("{:02}", at.second()),
        'L' => format!("{:03}", at.timestamp_subsec_millis()),
        'N' => format!("{:09}", at.timestamp_subsec_nanos()),
        'p' => day_half.to_string(),
        'z' => "+0000".to_string(),
        'Z' => "UTC".to_string(),
        's' => millis.div_euclid(1000).to_string(),
        'Q' => millis.to_string(),
        'B' => at.format("%B").to_string(),
        'b' | 'h' => at.format("%b").to_string(),
        'A' => at.format("%A").to_string(),
        'a' => at.format("%a").to_string(),
        'C' => format!("{:02}", year / 100),
        'Y' => format!("{year:04}"),
        'y' => format!("{:02}", year % 100),
        'j' => format!("{:03}", at.ordinal()),
        'm' => format!("{:02}", at.month()),
        'd' => format!("{:02}", at.day()),
        'e' => at.day().to_string(),
        'R' => clock,
        'T' => format!("{clock}:{:02}", at.second()),
        'r' => {
            let half = day_half.to_uppercase();
            format!("{hour12:02}:{:02}:{:02} {half}", at.minute(), at.second())
        }
        'D' => format!("{:02}/{:02}/{:02}", at.month(), at.day(), year % 100),
        'F' => format!("{year:04}-{:02}-{:02}", at.month(), at.day()),
        'c' => {
            let day = at.format("%a %b");
            format!("{day} {:02} {clock}:{:02} UTC {year:04}", at.day(), at.second())
        }
        _ => return None,
    })
}
