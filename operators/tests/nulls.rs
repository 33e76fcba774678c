//! Operations on NULL that do not evaluate the other operands, as in Apache Spark.
#![cfg(feature = "sql")]

use millstream::session::Session;

/// A row of NULLs.
const NULLS: &str = "FROM (SELECT CAST(c AS INT) AS i, c AS s, CAST(c AS DATE) AS d \
                     FROM VALUES (CAST(NULL AS STRING)) AS t(c))";

/// The value of an expression over a relation, or its error condition.
fn shown(session: &Session, expression: &str, from: &str) -> String {
    let query = format!("SELECT CAST({expression} AS STRING) AS v {from}");
    let rows = match session.sql(&query) {
        Ok(frame) => frame.collect().map_err(|error| error.condition().to_string()),
        Err(error) => Err(error.condition.to_string()),
    };
    match rows {
        Ok(mut rows) => format!("{:?}", rows.remove(0).remove(0)),
        Err(condition) => condition,
    }
}

const FAILS: &str = "CAST_INVALID_INPUT";

#[test]
fn an_operation_ends_at_its_first_null() {
    let session = Session::new();
    for (expression, expected) in [
        ("i > CAST('x' AS INT)", "Null"),
        ("CAST('x' AS INT) > i", FAILS),
        ("d = CAST('x' AS DATE)", "Null"),
        ("s < CAST(CAST('x' AS INT) AS STRING)", "Null"),
        ("i <=> CAST('x' AS INT)", FAILS),
        ("i + CAST('x' AS INT)", "Null"),
        ("CAST('x' AS INT) + i", FAILS),
        // The divisor is evaluated before the dividend.
        ("CAST('x' AS INT) % i", "Null"),
        ("CAST('x' AS INT) / i", "Null"),
        ("i / CAST('x' AS INT)", FAILS),
        ("i BETWEEN CAST('x' AS INT) AND 3", "Null"),
        ("s LIKE CAST(CAST('x' AS INT) AS STRING)", "Null"),
        ("contains(s, CAST(CAST('x' AS INT) AS STRING))", "Null"),
        ("substring(s, CAST('x' AS INT), 3)", "Null"),
        ("lpad(s, CAST('x' AS INT), '*')", "Null"),
        ("s || CAST(CAST('x' AS INT) AS STRING)", FAILS),
        ("concat_ws(s, CAST(CAST('x' AS INT) AS STRING))", FAILS),
    ] {
        assert_eq!(shown(&session, expression, NULLS), expected, "{expression}");
    }
}

#[test]
fn a_constant_null_decides_an_operation_from_either_side() {
    let session = Session::new();
    for (expression, expected) in [
        ("CAST('x' AS INT) > NULL", "Null"),
        ("CAST('x' AS INT) % CAST(NULL AS INT)", "Null"),
        ("CAST(NULL AS INT) / CAST('x' AS INT)", "Null"),
        ("CAST('x' AS INT) <=> NULL", FAILS),
        ("concat(NULL, CAST(CAST('x' AS INT) AS STRING))", FAILS),
        ("regexp_replace(NULL, '[^]', '-')", "Null"),
        ("regexp_instr(CAST(NULL AS STRING), 'a{2')", "Null"),
        ("CAST(NULL AS STRING) RLIKE 'a{2'", "Null"),
        ("CAST(split(NULL, 'a{2') AS STRING)", "Null"),
        ("CAST(str_to_map(NULL, 'a{2') AS STRING)", "Null"),
        ("regexp_instr('a', 'a{2')", "INVALID_PARAMETER_VALUE.PATTERN"),
    ] {
        assert_eq!(shown(&session, expression, ""), expected, "{expression}");
    }
}

#[test]
fn constant_rows_are_computed_without_simplification() {
    let session = Session::new();
    let values = "FROM VALUES (1) AS t(a)";
    for (expression, from, expected) in [
        ("CAST('x' AS INT) > NULL", values, FAILS),
        ("CAST('x' AS INT) + CAST(NULL AS INT)", values, FAILS),
        ("NULL > CAST('x' AS INT)", values, "Null"),
        ("make_date(CAST('x' AS INT), NULL, 1)", values, FAILS),
        ("transform(array(1), x -> CAST('x' AS INT) + NULL)[0]", values, FAILS),
        (
            "CAST('x' AS INT) > NULL",
            "FROM (SELECT DISTINCT a FROM VALUES (1), (2) AS t(a)) LIMIT 1",
            "Null",
        ),
        ("max(CAST('x' AS INT) + NULL)", values, "Null"),
        // Only a literal NULL decides before the operands are evaluated.
        ("CAST('x' AS INT) > nullif(1, 1)", "", FAILS),
        ("sequence(CAST('x' AS INT), NULL)", "", FAILS),
        ("array_repeat(CAST('x' AS INT), NULL)", "", "Null"),
        ("array_repeat(CAST('x' AS INT), i)", NULLS, "Null"),
        ("array_repeat(CAST('x' AS INT), 0)", "", FAILS),
    ] {
        assert_eq!(shown(&session, expression, from), expected, "{expression} {from}");
    }
}
