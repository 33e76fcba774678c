use super::super::{parse_date, parse_timestamp};
use super::*;
use proptest::prelude::*;

fn reading(pattern: &str) -> Pattern {
    Pattern::new(pattern, Direction::Read).unwrap()
}

fn read(pattern: &str, text: &str) -> Option<i64> {
    reading(pattern).timestamp(text, Tz::UTC)
}

fn text(pattern: &str, at: &str, zone: &str) -> String {
    let mut out = String::new();
    let at = parse_timestamp(at, Some(Tz::UTC)).unwrap();
    let pattern = Pattern::new(pattern, Direction::Write).unwrap();
    pattern.text(at, Tz::named(zone).unwrap(), &mut out);
    out
}

#[test]
fn patterns_parse_texts_as_spark_does() {
    let at = |text| parse_timestamp(text, Some(Tz::UTC));
    for (pattern, written, expected) in [
        ("yyyy-MM-dd HH:mm:ss", "2024-03-01 12:34:56", "2024-03-01 12:34:56"),
        ("yyyyMMddHHmmss", "20240301123456", "2024-03-01 12:34:56"),
        ("yyyyMMddHHmmss.SSS", "20240301123456.789", "2024-03-01 12:34:56.789"),
        ("dd/MMM/yyyy:HH:mm:ss Z", "01/Mar/2024:12:34:56 +0200", "2024-03-01 10:34:56"),
        ("yyyy-MM-dd'T'HH:mm:ss.SSSXXX", "2024-03-01T12:34:56.7Z", "2024-03-01 12:34:56.7"),
        ("yyyy-MM-dd'T'HH:mm:ss[.SSS][XXX]", "2024-03-01t12:34:56", "2024-03-01 12:34:56"),
        ("d/M/yy h:m a", "1/3/24 1:05 pm", "2024-03-01 13:05:00"),
        ("yyyy-MM-dd HH:mm VV", "2024-07-01 12:00 America/New_York", "2024-07-01 16:00:00"),
        ("yyyy VV", "2024 UTC+05:00", "2023-12-31 19:00:00"),
        ("yyyy z", "2024 pst", "2024-01-01 08:00:00"),
        ("yyyy zzzz", "2024 Pacific Daylight Time", "2024-01-01 08:00:00"),
        ("yyyy O", "2024 GMT+5", "2023-12-31 19:00:00"),
        ("yyyy-DDD", "2024-060", "2024-02-29 00:00:00"),
        ("yyyy HH h", "2024 13 1", "2024-01-01 13:00:00"),
        ("MMMM d, yyyy", "march 1, 2024", "2024-03-01 00:00:00"),
        ("G y", "BC 1", "0000-01-01 00:00:00"),
        ("g", "60000", "2023-02-25 00:00:00"),
        ("a", "PM", "1970-01-01 12:00:00"),
        ("ss.SSS'T", "03.4T", "1970-01-01 00:00:03.4"),
        ("y-M-d", "-1-1-1", "-0001-01-01 00:00:00"),
        ("yyyy-MM-dd", "+12024-02-29", "+12024-02-29 00:00:00"),
    ] {
        assert_eq!(read(pattern, written), at(expected), "{pattern}");
    }
    assert_eq!(reading("MM-dd").date("02-03"), parse_date("1970-02-03"));
    assert_eq!(reading("yyyy z").timestamp_ntz("2024 PST"), at("2024-01-01"));
    for (pattern, bad) in [
        ("yyyy-MM-dd", "2024-13-01"),
        ("yyyy-MM-dd", "2024-02-30"),
        ("yyyy-MM-dd", "2024-03-01 "),
        ("yyyy-MM-dd", "24-03-01"),
        ("yyyy-MM-dd", "+2024-03-01"),
        ("yyyyMMdd", "120240229"),
        // The fraction has no fixed width, so the year consumes its digits too.
        ("yyyyMMddHHmmssSSS", "20240301123456789"),
        ("yy", "-12"),
        ("HH:mm", "24:00"),
        ("HH:mm", "1:00"),
        ("VV", "Nowhere"),
        ("VV", "PST"),
        ("yyyy VV", "2024 UTC+5"),
        ("yyyy XXX", "2024 +18:30"),
        ("yyyy HH a", "2024 13 AM"),
        ("dd-DDD", "30-365"),
        ("yyyy-MM-dd-DDD", "2020-11-31-366"),
        ("SS yyyy SS", "12 2024 13"),
        ("ss.SSSSyyyy", "12.1232019"),
    ] {
        assert_eq!(read(pattern, bad), None, "{pattern} {bad}");
    }
}

#[test]
fn patterns_format_times_as_spark_does() {
    let at = "2024-03-01 13:04:05.067";
    for (pattern, zone, expected) in [
        ("yyyy/MM/dd HH-mm-ss.SSS", "UTC", "2024/03/01 13-04-05.067"),
        ("EEE, d MMM yy h:mm a", "UTC", "Fri, 1 Mar 24 1:04 PM"),
        ("EEEE MMMM D q QQQ qqqq F", "UTC", "Friday March 61 1 Q1 1st quarter 1"),
        ("HH:mm XXX x Z O VV", "Europe/Berlin", "14:04 +01:00 +01 +0100 GMT+1 Europe/Berlin"),
        ("z zzzz v vvvv", "America/New_York", "EST Eastern Standard Time ET Eastern Time"),
        ("XXX X O OOOO VV z", "+05:30", "+05:30 +0530 GMT+5:30 GMT+05:30 +05:30 +05:30"),
        ("z X ZZZZ OOOO", "UTC", "UTC Z GMT GMT"),
        ("''yyyy''['x']", "UTC", "'2024'x"),
        ("'a''b' ''''", "UTC", "a'b '"),
        ("S SSSSSSSSS g", "UTC", "0 067000000 60370"),
        ("", "UTC", ""),
    ] {
        assert_eq!(text(pattern, at, zone), expected, "{pattern}");
    }
    let years = "y yy yyy yyyy yyyyy yyyyyy";
    let far = "12024 24 12024 +12024 12024 012024";
    assert_eq!(text(years, "12024-01-01", "UTC"), far);
    assert_eq!(text(years, "-0044-01-01", "UTC"), "-44 44 -044 -0044 -00044 -000044");
    assert_eq!(text("G yy yyyy", "-0044-01-01", "UTC"), "BC 45 0045");
}

#[test]
fn patterns_are_refused_with_the_error_conditions_of_spark() {
    let condition = |pattern: &str, direction| {
        Pattern::new(pattern, direction).err().map(|error| error.condition)
    };
    let recognition = "INCONSISTENT_BEHAVIOR_CROSS_VERSION.DATETIME_PATTERN_RECOGNITION";
    let week = "INCONSISTENT_BEHAVIOR_CROSS_VERSION.DATETIME_WEEK_BASED_PATTERN";
    let suggestion = "INVALID_DATETIME_PATTERN.WITH_SUGGESTION";
    let illegal = "INVALID_DATETIME_PATTERN.ILLEGAL_CHARACTER";
    for (pattern, expected) in [
        ("YYYY", recognition),
        ("YYYY'x", week),
        ("u", recognition),
        ("e", week),
        ("n", illegal),
        ("pp", illegal),
        ("MMMMM", recognition),
        ("MMMMM'", "INVALID_DATETIME_PATTERN.LENGTH"),
        ("yyyyyyy", recognition),
        ("SSSSSSSSSS", recognition),
        ("ddd", recognition),
        ("{", recognition),
        ("yyyy]", recognition),
        ("yyyy'T", suggestion),
        ("VVV", suggestion),
        ("OO", suggestion),
        ("XXXXXX", suggestion),
        ("ZZZZZZ", recognition),
        ("b", suggestion),
    ] {
        assert_eq!(condition(pattern, Direction::Write), Some(expected), "{pattern}");
        assert_eq!(condition(pattern, Direction::Read), Some(expected), "{pattern}");
    }
    assert_eq!(condition("E", Direction::Read), Some(recognition));
    assert_eq!(condition("QQ", Direction::Read), Some(illegal));
    let length = "INVALID_DATETIME_PATTERN.LENGTH";
    assert_eq!(condition("QQQQQ", Direction::Write), Some(length));
    for taken in ["E", "[yyyy", "é%", "'Y'", "[[yyyy]MM]"] {
        assert_eq!(condition(taken, Direction::Write), None, "{taken}");
    }
}

proptest! {
    #[test]
    fn no_text_or_pattern_panics(
        pattern in "[a-zA-Z'\\[\\]: .-]{0,12}", text in "\\PC{0,20}", at: i64
    ) {
        if let Ok(pattern) = Pattern::new(&pattern, Direction::Read) {
            let _ = pattern.timestamp(&text, Tz::UTC);
        }
        if let Ok(pattern) = Pattern::new(&pattern, Direction::Write) {
            pattern.text(at, Tz::named("America/New_York").unwrap(), &mut String::new());
        }
    }

    #[test]
    fn formatted_times_are_parsed_back(at: i64) {
        let pattern = "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX";
        let mut out = String::new();
        Pattern::new(pattern, Direction::Write).unwrap().text(at, Tz::UTC, &mut out);
        let tokyo = Tz::named("Asia/Tokyo").unwrap();
        prop_assert_eq!(reading(pattern).timestamp(&out, tokyo), Some(at));
    }
}
