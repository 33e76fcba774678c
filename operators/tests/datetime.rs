//! Dates, times and intervals, compared with Apache Spark's results (`spark/time.txt`).
#![cfg(feature = "sql")]

use millstream::session::Session;
use millstream::table::datetime::zone;

/// Evaluates an expression: its value as text, or `!` and the error condition.
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
fn time_functions_give_the_results_of_spark() {
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
        ("DATE'2020-01-31' + INTERVAL '99999999' YEAR", "!ARITHMETIC_OVERFLOW"),
        ("add_months(DATE'2020-01-31', 2147483647)", "!ARITHMETIC_OVERFLOW"),
        ("make_date(999999999, 1, 1)", "!ARITHMETIC_OVERFLOW"),
    ] {
        assert_eq!(shown(&session, expression), expected, "{expression}");
    }
}

#[test]
fn without_ansi_mode_times_are_cast_to_the_kind_that_a_function_takes() {
    let session = Session::new();
    session.set("spark.sql.session.timeZone", "America/New_York").unwrap();
    session.set("spark.sql.ansi.enabled", "false").unwrap();
    for (expression, expected) in [
        ("year(TIMESTAMP_NTZ'2022-03-13 02:15:00')", "2022"),
        ("dayofweek(TIMESTAMP_NTZ'2022-03-13 02:15:00')", "1"),
        ("last_day(TIMESTAMP_NTZ'2022-03-13 02:15:00')", "2022-03-31"),
        ("trunc(TIMESTAMP_NTZ'2022-03-13 02:15:00', 'MM')", "2022-03-01"),
        ("date_add(TIMESTAMP_NTZ'2022-03-13 02:15:00', 1)", "2022-03-14"),
        (
            "months_between(TIMESTAMP_NTZ'2022-03-13 02:15:00', TIMESTAMP'2020-01-01 00:00:00')",
            "26.39012097",
        ),
        (
            "to_utc_timestamp(TIMESTAMP_NTZ'2022-03-13 02:15:00', 'Asia/Tokyo')",
            "2022-03-12 17:15:00",
        ),
        ("convert_timezone('Asia/Tokyo', TIMESTAMP'2022-03-13 01:15:00')", "2022-03-13 15:15:00"),
        ("convert_timezone('UTC', 'Asia/Tokyo', DATE'2022-03-13')", "2022-03-13 09:00:00"),
        (
            "TIMESTAMP'2022-01-01 00:00:00' - '2022-03-13'",
            "!DATATYPE_MISMATCH.UNEXPECTED_INPUT_TYPE",
        ),
        (
            "'2022-03-13' - TIMESTAMP_NTZ'2022-01-01 00:00:00'",
            "!DATATYPE_MISMATCH.UNEXPECTED_INPUT_TYPE",
        ),
        ("date_add(DATE'2011-11-11', concat('1', ''))", "2011-11-12"),
        ("date_add(DATE'2011-11-11', CAST(NULL AS STRING))", "2011-11-11"),
        ("date_sub(DATE'2011-11-11', '1.2')", "!SECOND_FUNCTION_ARGUMENT_NOT_INTEGER"),
        ("date_add(DATE'2011-11-11', concat('x', ''))", "!SECOND_FUNCTION_ARGUMENT_NOT_INTEGER"),
    ] {
        assert_eq!(shown(&session, expression), expected, "{expression}");
    }
    let days = "SELECT date_add(DATE'2011-11-11', n) FROM VALUES ('1') AS t(n)";
    let error = session.sql(days).map(drop).unwrap_err();
    assert_eq!(error.condition, "DATATYPE_MISMATCH.UNEXPECTED_INPUT_TYPE");
}

#[test]
fn an_error_of_a_pattern_names_it_and_the_letters_to_write() {
    for (call, parts) in [
        ("to_date('31.12.2024', 'DD.MM.yyyy')", ["DATE by 'DD.MM.yyyy'", "dd.MM.yyyy"]),
        ("to_timestamp('2024-12-31', '%y-%M-%d')", ["TIMESTAMP by '%y-%M-%d'", "instead of %"]),
        ("to_timestamp('x', 'yyyy')", ["TIMESTAMP by 'yyyy'", "try_to_timestamp"]),
        ("to_date('x', 'yyyy')", ["DATE by 'yyyy'", "CAST(try_to_timestamp("]),
        ("unix_timestamp('x', 'yyyy')", ["a timestamp by 'yyyy'", "unix_timestamp(try_to_"]),
    ] {
        let frame = Session::new().sql(&format!("SELECT {call} AS v")).unwrap();
        let error = frame.collect().unwrap_err().to_string();
        assert!(error.starts_with("CANNOT_PARSE_TIMESTAMP"), "{call}: {error}");
        assert!(parts.iter().all(|part| error.contains(part)), "{call}: {error}");
    }
}

#[test]
fn intervals_without_units_have_no_errors_without_ansi_mode() {
    let session = Session::new();
    session.set("spark.sql.session.timeZone", "America/New_York").unwrap();
    session.set("spark.sql.ansi.enabled", "false").unwrap();
    let largest = "178956970 years 7 months 2147483647 days 2562047788 hours 54.775807 seconds";
    for (expression, expected) in [
        ("make_interval(178956970, 8)", "NULL"),
        ("make_interval(0,0,0,0,0,0,1234567890123.456789)", "NULL"),
        ("make_interval('x')", "NULL"),
        ("make_interval(178956970) + make_interval(178956970)", "-1 years -4 months"),
        ("-make_interval(0, -2147483648)", "-178956970 years -8 months"),
        ("make_interval(1,1,1,1,1,1,1) * 1e20", largest),
        ("make_interval(1,1,1,1,1,1,1) * 1e9", largest),
        ("make_interval(1,1,1,1,1,1,1) / 0", "NULL"),
        ("make_interval(1,1,1,1,1,1,1) / CAST('nan' AS DOUBLE)", "0 seconds"),
        ("make_interval(1) * '2'", "2 years"),
        ("make_interval(1) * 'x'", "NULL"),
        ("DATE'2020-01-31' + make_interval(0,1,0,1,26)", "2020-03-02"),
        ("DATE'2020-01-31' - make_interval(0,1,0,1,2)", "2019-12-29"),
        ("DATE'2020-01-31' + make_interval(99999999)", "!ARITHMETIC_OVERFLOW"),
        ("'2020-01-31' + make_interval(0,1)", "2020-02-29 00:00:00"),
        ("make_interval(1) + '1 day'", "NULL"),
        ("make_interval(1) + NULL", "!DATATYPE_MISMATCH.CAST_WITHOUT_SUGGESTION"),
        ("coalesce(make_interval(1), '1 day')", "!DATATYPE_MISMATCH.DATA_DIFF_TYPES"),
        ("make_interval(1) = '1 years'", "!DATATYPE_MISMATCH.BINARY_OP_DIFF_TYPES"),
        ("make_interval(1) || 'x'", "!DATATYPE_MISMATCH.UNEXPECTED_INPUT_TYPE"),
        ("upper(make_interval(1))", "!DATATYPE_MISMATCH.UNEXPECTED_INPUT_TYPE"),
        ("CAST('x' AS INTERVAL)", "NULL"),
        ("try_add(make_interval(178956970), make_interval(178956970))", "NULL"),
        ("try_multiply(make_interval(1), 1e20)", "NULL"),
        ("try_divide(make_interval(1), 0)", "NULL"),
    ] {
        assert_eq!(shown(&session, expression), expected, "{expression}");
    }
}
