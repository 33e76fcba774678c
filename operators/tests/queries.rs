//! Queries over constants, each with the answer that Spark gives: what binds how close, what is
//! grouped, joined and ordered, and under which condition a query is refused.
#![cfg(feature = "sql")]

use millstream::session::Session;
use millstream::table::datetime::Tz;
use millstream::table::value::Value;

/// The rows of a query, cells between `|` and rows between `;`, or the condition that it is refused
/// or fails with.
fn answer(sql: &str) -> String {
    let session = Session::new();
    let frame = match session.sql(sql) {
        Ok(frame) => frame,
        Err(error) => return error.condition,
    };
    let fields = frame.schema().fields;
    match frame.collect() {
        Ok(rows) => {
            let line = |row: Vec<Value>| {
                let cells = row.iter().zip(&fields);
                let cells = cells.map(|(cell, field)| cell.show(&field.data_type, Tz::UTC));
                cells.collect::<Vec<_>>().join("|")
            };
            rows.into_iter().map(line).collect::<Vec<_>>().join(";")
        }
        Err(error) => {
            let text = error.to_string();
            text.split([':', ' ']).next().unwrap_or_default().to_string()
        }
    }
}

#[track_caller]
fn check(cases: &[(&str, &str)]) {
    for (sql, expected) in cases {
        assert_eq!(answer(sql), *expected, "{sql}");
    }
}

/// Of expressions.
#[track_caller]
fn check_values(cases: &[(&str, &str)]) {
    for (expr, expected) in cases {
        assert_eq!(answer(&format!("SELECT {expr}")), *expected, "{expr}");
    }
}

#[test]
fn operators_bind_as_close_as_in_spark() {
    check_values(&[
        ("1 & 2 >> 1", "1"),
        ("5 & 3 << 1 | 1", "5"),
        ("3 ^ 1 << 1", "1"),
        ("8 >> 1 + 1", "2"),
        ("-8 >>> 1 + 1", "1073741822"),
        ("8 >> 1 >>> 1 << 2", "8"),
        ("1 || 2 * 3", "16"),
        ("1 - 2 || 3", "-13"),
        ("-1::STRING", "-1"),
        ("-1.5::STRING || 'a'", "-1.5a"),
        ("- 5 % 3", "-2"),
        ("1 < 2 BETWEEN true AND true", "true"),
        ("5 BETWEEN 1 AND 3 | 4", "true"),
        ("1 = 2 IS NULL", "false"),
        ("NOT 1 = 2 IS NULL", "true"),
        ("1 = 1 AND true IS NOT DISTINCT FROM false OR true", "true"),
        ("true IS NOT UNKNOWN", "true"),
        ("!!true", "true"),
        ("1 !< 2", "false"),
        ("1 !> 2", "true"),
    ]);
}

/// A condition is no operand without parentheses.
#[test]
fn conditions_are_no_operands() {
    for expr in [
        "1 IN (1, 2) = true",
        "1 IS NULL = false",
        "1 IS NULL IS NULL",
        "'a' LIKE 'b' LIKE 'c'",
        "1 BETWEEN 0 AND 2 BETWEEN false AND true",
        "true = NOT false",
        "1 + NOT true",
        "- NOT true",
    ] {
        assert_eq!(answer(&format!("SELECT {expr}")), "PARSE_SYNTAX_ERROR", "{expr}");
    }
    check_values(&[("(1 IS NULL) = false", "true"), ("(NOT true) = false", "true")]);
}
