//! Subqueries in expressions, with the results of Apache Spark.
#![cfg(feature = "sql")]

use millstream::session::Session;
use millstream::table::datetime::Tz;
use millstream::table::value::Value;

/// The tables `a`, `b` and `c`, before a query over them.
const TABLES: &str = "WITH a AS (SELECT * FROM VALUES (1), (2), (3) AS t(k)), \
    b AS (SELECT * FROM VALUES (1, 10), (1, 11), (2, 20) AS t(k, v)), \
    c AS (SELECT * FROM VALUES (11), (30) AS t(v)) ";

/// The rows of a query as text, or its error condition.
fn answer(query: &str) -> String {
    let frame = match Session::new().sql(query) {
        Ok(frame) => frame,
        Err(error) => return error.condition,
    };
    let fields = frame.schema().fields;
    let rows = match frame.collect() {
        Ok(rows) => rows,
        Err(error) => return error.condition().to_string(),
    };
    let text = |row: &Vec<Value>| {
        let cells =
            row.iter().zip(&fields).map(|(cell, field)| cell.show(&field.data_type, Tz::UTC));
        cells.collect::<Vec<_>>().join(" ")
    };
    rows.iter().map(text).collect::<Vec<_>>().join(", ")
}

#[track_caller]
fn check(cases: &[(&str, &str)]) {
    for (query, expected) in cases {
        assert_eq!(answer(&format!("{TABLES} {query}")), *expected, "{query}");
    }
}

#[test]
fn a_needle_of_in_may_be_a_correlated_subquery() {
    let max = "(SELECT max(b.v) FROM b WHERE b.k = a.k)";
    for (condition, expected) in [
        ("{max} IN (SELECT v FROM c)", "1"),
        ("({max}, k) IN (SELECT v, 1 FROM c)", "1"),
        // The IN subquery is itself correlated.
        ("{max} IN (SELECT v FROM c WHERE c.v > a.k)", "1"),
        ("{max} IN (SELECT v FROM b WHERE b.k = a.k)", "1, 2"),
        ("{max} IN (SELECT v FROM b WHERE b.k = a.k ORDER BY v LIMIT 1)", "2"),
        ("{max} NOT IN (SELECT v FROM c WHERE c.v > a.k)", "2"),
        ("({max}, k) NOT IN (SELECT v, 1 FROM c WHERE c.v > a.k)", "2, 3"),
    ] {
        let condition = condition.replace("{max}", max);
        check(&[(&format!("SELECT k FROM a WHERE {condition}"), expected)]);
    }
    check(&[(
        "SELECT k, (SELECT max(b.v) FROM b WHERE b.k = a.k) IN (SELECT v FROM b WHERE b.k = a.k), \
         ((SELECT max(b.v) FROM b WHERE b.k = a.k), k) IN (SELECT v, k FROM b WHERE b.k = a.k) \
         FROM a",
        "1 true true, 2 true true, 3 false false",
    )]);
}

#[test]
fn columns_of_subqueries_are_not_visible_by_name() {
    check(&[
        (
            "SELECT value, (SELECT max(v) FROM b WHERE b.k = value) FROM (SELECT k AS value FROM a)",
            "1 11, 2 20, 3 NULL",
        ),
        (
            "SELECT k, (SELECT v FROM b WHERE b.k = a.k ORDER BY v LIMIT 1) FROM a",
            "1 10, 2 20, 3 NULL",
        ),
        ("SELECT k FROM a WHERE (SELECT v FROM b WHERE b.k = a.k LIMIT 1) = 20 AND k = 2", "2"),
        (
            "SELECT k FROM a WHERE (SELECT max(v) FROM b WHERE b.k = a.k) > 0 AND there",
            "UNRESOLVED_COLUMN.WITH_SUGGESTION",
        ),
        (
            "SELECT EXISTS (SELECT 1 FROM b WHERE b.k = a.k), `exists` FROM a",
            "UNRESOLVED_COLUMN.WITH_SUGGESTION",
        ),
        (
            "SELECT *, (SELECT max(v) FROM b WHERE b.k = a.k) FROM a \
             WHERE EXISTS (SELECT 1 FROM b WHERE b.k = a.k) OR k = 3 ORDER BY k DESC",
            "3 NULL, 2 20, 1 11",
        ),
    ]);
}

#[test]
fn parentheses_around_a_subquery_change_nothing() {
    check(&[
        (
            "SELECT k FROM b WHERE v IN ((SELECT v FROM b AS x WHERE x.k = b.k ORDER BY v LIMIT 1))",
            "1, 2",
        ),
        ("SELECT k FROM a WHERE EXISTS ((SELECT 1 FROM b WHERE b.k = a.k LIMIT 1 OFFSET 1))", "1"),
        ("SELECT k FROM a WHERE EXISTS ((SELECT 1 FROM b WHERE b.k = a.k))", "1, 2"),
        ("SELECT 1 WHERE EXISTS ((SELECT 1) UNION (SELECT 2))", "1"),
        ("SELECT 1 WHERE EXISTS (((VALUES (1))))", "1"),
        ("SELECT 1 WHERE EXISTS (TABLE a)", "1"),
        ("SELECT * FROM (TABLE c)", "11, 30"),
        ("SELECT exists((SELECT array(1, 2)), x -> x > 1)", "true"),
        ("SELECT k, exists(array(k), x -> x > 2) FROM a", "1 false, 2 false, 3 true"),
    ]);
}

#[test]
fn order_by_in_a_correlated_subquery_finds_aliases() {
    check(&[
        (
            "SELECT k, (SELECT -v AS z FROM b WHERE b.k = a.k ORDER BY Z LIMIT 1) FROM a WHERE k = 1",
            "1 -11",
        ),
        (
            "SELECT k, (SELECT v AS z FROM b WHERE b.k = a.k ORDER BY -z LIMIT 1) FROM a WHERE k = 1",
            "1 11",
        ),
        (
            "SELECT k, (SELECT struct(-v AS f) AS z FROM b WHERE b.k = a.k ORDER BY z.f LIMIT 1).f \
             FROM a WHERE k = 1",
            "1 -11",
        ),
    ]);
}

#[test]
fn a_with_clause_passes_on_the_settings() {
    let session = Session::new();
    session.set("spark.sql.join.asofJoin.enabled", "true").unwrap();
    let query = "WITH l AS (SELECT 5 AS t), r AS (SELECT 3 AS t) \
        SELECT r.t FROM l ASOF JOIN r MATCH_CONDITION (l.t >= r.t)";
    assert_eq!(session.sql(query).unwrap().collect().unwrap(), [[Value::Long(3)]]);
}

/// The value of an aggregation over no rows is computed, also where it is no constant.
#[test]
fn an_outer_row_without_a_group_gets_the_value_over_no_rows() {
    let of = |value: &str| format!("SELECT k, (SELECT {value} FROM b WHERE b.k = a.k) FROM a");
    for (value, expected) in [
        ("count(*) + 5", "1 7, 2 6, 3 5"),
        ("1 / (count(*) + 1)", "1 0.3333333333333333, 2 0.5, 3 1.0"),
        ("coalesce(max(v), -count(*) - 1)", "1 11, 2 20, 3 -1"),
        ("count(*) + (SELECT max(v) FROM c)", "1 32, 2 31, 3 30"),
        ("IF(now() > TIMESTAMP '2000-01-01 00:00:00', count(*), -1)", "1 2, 2 1, 3 0"),
        ("IF(rand() < 2, count(*), -1)", "1 2, 2 1, 3 0"),
        ("CASE WHEN count(*) > 0 THEN 1 / count(*) END", "1 0.5, 2 1.0, 3 NULL"),
        // As in Spark, the value over no rows is an error whether or not a row needs it.
        ("1 / count(*)", "DIVIDE_BY_ZERO"),
    ] {
        check(&[(&of(value), expected)]);
    }
    check(&[(
        "SELECT k, (SELECT 1 / count(*) FROM b WHERE b.k = a.k) FROM a WHERE k < 3",
        "DIVIDE_BY_ZERO",
    )]);
    let session = Session::new();
    session.set("spark.sql.ansi.enabled", "false").unwrap();
    let query = format!("{TABLES} {}", of("1 / count(*)"));
    let rows = session.sql(&query).unwrap().collect().unwrap();
    assert_eq!(rows[2], [Value::Long(3), Value::Null]);
}

#[test]
fn a_correlated_scalar_subquery_is_named_after_its_outer_columns() {
    for (selected, name) in [
        ("(SELECT max(v) FROM b WHERE b.k = a.k)", "scalarsubquery(k)"),
        ("(SELECT v FROM b WHERE b.k = a.k LIMIT 1)", "scalarsubquery(k)"),
        ("(SELECT max(v) FROM b WHERE b.k = a.k AND b.v = a.k)", "scalarsubquery(k, k)"),
        ("1 + (SELECT count(*) FROM b WHERE b.k = a.k)", "(1 + scalarsubquery(k))"),
        ("(SELECT max(v) FROM b)", "scalarsubquery()"),
        ("(SELECT max(v) FROM b WHERE b.k = a.k) AS m", "m"),
    ] {
        let query = format!("{TABLES} SELECT {selected} FROM a");
        let schema = Session::new().sql(&query).unwrap().schema();
        assert_eq!(schema.fields[0].name, name, "{selected}");
    }
}

#[test]
fn explain_shows_the_plans_of_scalar_subqueries() {
    let query = format!("{TABLES} SELECT v FROM b WHERE v > (SELECT max(v) FROM c WHERE v < 20)");
    let explained = Session::new().sql(&query).unwrap().explain();
    let (_, subquery) = explained.split_once("+- Scalar subquery\n").expect(&explained);
    assert!(subquery.trim_start().starts_with("+- Project"), "{explained}");
    assert!(subquery.contains("functions [max(v)]"), "{explained}");
}
