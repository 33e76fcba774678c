//! Dates, times and intervals against what Apache Spark made of them (`spark/time.txt`).
#![cfg(feature = "sql")]

use millstream::session::Session;
use millstream::table::datetime::zone;

/// The value of an expression as Spark shows it, or the condition under which it is refused.
fn shown(session: &Session, expression: &str) -> String {
    let zone = zone("America/New_York").unwrap();
    let refused = |condition: &str| format!("!{condition}");
    let frame = match session.sql(&format!("SELECT {expression} AS v")) {
        Ok(frame) => frame,
        Err(error) => return refused(&error.condition),
    };
    let data_type = frame.schema().fields[0].data_type.clone();
    match frame.collect() {
        Ok(mut rows) => {
            let value = rows.remove(0).remove(0);
            value.display(&data_type, zone).unwrap_or_else(|| "NULL".to_string())
        }
        Err(error) => refused(error.condition()),
    }
}

#[test]
fn times_are_what_spark_makes_of_them() {
    let session = Session::new();
    session.set("spark.sql.session.timeZone", "America/New_York").unwrap();
    let (mut wrong, mut checked) = (Vec::new(), 0);
    let lines = include_str!("spark/time.txt").lines().filter(|line| !line.starts_with('#'));
    for line in lines {
        let (expression, expected) = line.split_once(" =>").expect("an expression and =>");
        let ours = shown(&session, expression);
        checked += 1;
        if ours.trim() != expected.trim() {
            wrong.push(format!("{expression}\n    ours  {ours}\n    Spark {expected}"));
        }
    }
    assert!(checked > 300, "{checked}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn overflows_and_bad_zones_are_errors_without_ansi_mode_too() {
    let session = Session::new();
    session.set("spark.sql.ansi.enabled", "false").unwrap();
    for (expression, expected) in [
        ("from_utc_timestamp(TIMESTAMP'2024-01-01', 'xx')", "!INVALID_TIMEZONE"),
        ("timestamp_seconds(9999999999999999)", "!DATETIME_OVERFLOW"),
        ("INTERVAL 1 DAY / 0", "!INTERVAL_DIVIDED_BY_ZERO"),
        (
            "INTERVAL 106751991 DAY + INTERVAL 1 DAY",
            "!INTERVAL_ARITHMETIC_OVERFLOW.WITH_SUGGESTION",
        ),
        ("to_date('x', 'yyyy')", "NULL"),
        ("make_date(2024, 13, 1)", "NULL"),
        ("next_day('2024-01-01', 'x')", "NULL"),
        ("try_add(INTERVAL 2147483647 MONTH, INTERVAL 1 MONTH)", "NULL"),
    ] {
        assert_eq!(shown(&session, expression), expected, "{expression}");
    }
}
