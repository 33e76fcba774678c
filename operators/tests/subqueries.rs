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

/// The value of an aggregation over no rows is computed, also where it is not a constant.
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

#[test]
fn a_subquery_in_on_filters_the_pairs_of_rows() {
    check(&[
        ("SELECT a.k, b.v FROM a JOIN b ON a.k = b.k AND v IN (SELECT v FROM c)", "1 11"),
        (
            "SELECT a.k, b.v FROM a JOIN b ON a.k = b.k AND NOT EXISTS (SELECT 1 FROM c WHERE c.v = b.v)",
            "1 10, 2 20",
        ),
        // The subquery reads both sides.
        (
            "SELECT a.k, b.v FROM a JOIN b ON a.k = b.k AND b.v NOT IN (SELECT c.v FROM c WHERE c.v > a.k)",
            "1 10, 2 20",
        ),
        (
            "SELECT * FROM a LEFT JOIN b ON a.k = b.k AND b.v IN (SELECT v FROM c) ORDER BY a.k",
            "1 1 11, 2 NULL NULL, 3 NULL NULL",
        ),
        (
            "SELECT * FROM a LEFT JOIN b ON a.k = b.k AND EXISTS (SELECT 1 FROM b x WHERE x.k = a.k + 1) ORDER BY a.k, v",
            "1 1 10, 1 1 11, 2 NULL NULL, 3 NULL NULL",
        ),
        (
            "SELECT a.k, v FROM a RIGHT JOIN b ON a.k = b.k AND v IN (SELECT v FROM c) ORDER BY v",
            "NULL 10, 1 11, NULL 20",
        ),
        (
            "SELECT a.k, v FROM a FULL JOIN b ON a.k = b.k AND v = 11 AND a.k IN (SELECT k FROM b) ORDER BY a.k, v",
            "NULL 10, NULL 20, 1 11, 2 NULL, 3 NULL",
        ),
        ("SELECT * FROM a SEMI JOIN b ON a.k = b.k AND v IN (SELECT v FROM c)", "1"),
        ("SELECT * FROM a ANTI JOIN b ON a.k = b.k AND v IN (SELECT v FROM c)", "2, 3"),
        (
            "SELECT * FROM a LEFT JOIN b ON v IN (SELECT c.v FROM c WHERE c.v > a.k)",
            "NOT_YET_SUPPORTED",
        ),
        ("SELECT * FROM a LEFT JOIN b ON k IN (SELECT v FROM c)", "AMBIGUOUS_REFERENCE"),
        (
            "SELECT * FROM a LEFT JOIN b ON x IN (SELECT v FROM c)",
            "UNRESOLVED_COLUMN.WITH_SUGGESTION",
        ),
    ]);
}

#[test]
fn a_correlated_subquery_may_have_subqueries_of_its_own_rows() {
    check(&[
        (
            "SELECT k FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND EXISTS (SELECT 1 FROM c WHERE c.v = b.v))",
            "1",
        ),
        (
            "SELECT k FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND b.v NOT IN (SELECT v FROM c))",
            "1, 2",
        ),
        (
            "SELECT k FROM a WHERE k IN (SELECT k FROM b WHERE b.k = a.k AND v = (SELECT min(v) FROM c))",
            "1",
        ),
    ]);
}

#[test]
fn exists_and_in_may_have_a_correlated_aggregation() {
    check(&[
        // Without GROUP BY there is always one row.
        ("SELECT k FROM a WHERE EXISTS (SELECT max(v) FROM b WHERE b.k = a.k)", "1, 2, 3"),
        ("SELECT k FROM a WHERE NOT EXISTS (SELECT max(v) FROM b WHERE b.k = a.k)", ""),
        ("SELECT k FROM a WHERE EXISTS (SELECT max(v) FROM b WHERE b.k = a.k LIMIT 0)", ""),
        (
            "SELECT k FROM a WHERE EXISTS (SELECT max(v) FROM b WHERE b.k = a.k GROUP BY b.k)",
            "1, 2",
        ),
        (
            "SELECT k FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k = a.k GROUP BY b.k HAVING count(*) > 1)",
            "1",
        ),
        (
            "SELECT k FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.k = a.k GROUP BY 1 HAVING count(*) > 1)",
            "2, 3",
        ),
        ("SELECT k FROM a WHERE 2 IN (SELECT count(*) FROM b WHERE b.k = a.k)", "1"),
        ("SELECT k FROM a WHERE 0 IN (SELECT count(*) FROM b WHERE b.k = a.k)", "3"),
        ("SELECT k FROM a WHERE 0 NOT IN (SELECT count(*) FROM b WHERE b.k = a.k)", "1, 2"),
        (
            "SELECT k, k IN (SELECT count(*) FROM b WHERE b.k = a.k) FROM a",
            "1 false, 2 false, 3 false",
        ),
        ("SELECT k FROM a WHERE 11 IN (SELECT max(v) FROM b WHERE b.k = a.k GROUP BY b.k)", "1"),
        ("SELECT k FROM a WHERE 10 IN (SELECT v FROM b WHERE b.k = a.k GROUP BY v)", "1"),
        ("SELECT k FROM a WHERE 0 IN (SELECT count(*) FROM b WHERE b.k = a.k GROUP BY b.k)", ""),
        (
            "SELECT k FROM a WHERE 20 NOT IN (SELECT max(v) FROM b WHERE b.k = a.k GROUP BY b.k)",
            "1, 3",
        ),
        (
            "SELECT k FROM a WHERE (1, 11) IN (SELECT b.k, max(v) FROM b WHERE b.k = a.k GROUP BY b.k)",
            "1",
        ),
        (
            "SELECT k FROM a WHERE 1 IN (SELECT count(*) FROM b WHERE b.k > a.k GROUP BY b.k)",
            "NOT_YET_SUPPORTED",
        ),
    ]);
}

#[test]
fn a_lateral_subquery_refers_to_the_relations_before_it() {
    check(&[
        (
            "SELECT * FROM a, LATERAL (SELECT *, v + a.k FROM b WHERE b.k = a.k) AS l(x, y, z)",
            "1 1 10 11, 1 1 11 12, 2 2 20 22",
        ),
        (
            "SELECT * FROM a, LATERAL (SELECT k + rand() AS r)",
            "UNSUPPORTED_SUBQUERY_EXPRESSION_CATEGORY.NON_DETERMINISTIC_LATERAL_SUBQUERIES",
        ),
        (
            "SELECT * FROM a, LATERAL (SELECT rand() FROM c)",
            "UNSUPPORTED_SUBQUERY_EXPRESSION_CATEGORY.NON_DETERMINISTIC_LATERAL_SUBQUERIES",
        ),
        (
            "SELECT * FROM a JOIN LATERAL (SELECT v FROM c) ON v > rand()",
            "UNSUPPORTED_SUBQUERY_EXPRESSION_CATEGORY.LATERAL_JOIN_CONDITION_NON_DETERMINISTIC",
        ),
        ("SELECT * FROM a, LATERAL (SELECT k + 1 AS n, k * 2) AS l WHERE l.n > 2", "2 3 4, 3 4 6"),
        ("SELECT * FROM a JOIN LATERAL (SELECT k AS n WHERE k > 1) l ON l.n < 3", "2 2"),
        (
            "SELECT * FROM a, LATERAL (SELECT explode(sequence(1, k)) AS n) l WHERE n > 1",
            "2 2, 3 2, 3 3",
        ),
        ("SELECT a.k, l.v FROM a, LATERAL (SELECT v FROM b WHERE b.k = a.k) l", "1 10, 1 11, 2 20"),
        (
            "SELECT * FROM a LEFT JOIN LATERAL (SELECT v, v + a.k FROM b WHERE b.k = a.k) AS l(x, y) ORDER BY k, x",
            "1 10 11, 1 11 12, 2 20 22, 3 NULL NULL",
        ),
        // Only the items refer to the left rows.
        (
            "SELECT * FROM a CROSS JOIN LATERAL (SELECT a.k + v AS n FROM c WHERE v > 11) WHERE k < 3",
            "1 31, 2 32",
        ),
        (
            "SELECT * FROM a, LATERAL (SELECT count(*) AS n, max(v) FROM b WHERE b.k = a.k)",
            "1 2 11, 2 1 20, 3 0 NULL",
        ),
        (
            "SELECT * FROM a, LATERAL (SELECT b.k AS x, sum(v) AS s FROM b WHERE b.k = a.k GROUP BY b.k) l",
            "1 1 21, 2 2 20",
        ),
        (
            "SELECT a.k, s FROM a LEFT JOIN LATERAL (SELECT sum(v) AS s FROM b WHERE b.k = a.k GROUP BY b.k HAVING count(*) > 1) ON TRUE ORDER BY k",
            "1 21, 2 NULL, 3 NULL",
        ),
        // Not correlated.
        ("SELECT count(*) FROM a, LATERAL (SELECT * FROM c)", "6"),
        (
            "SELECT * FROM a LEFT JOIN LATERAL (SELECT v FROM c WHERE v > 99) ORDER BY k",
            "1 NULL, 2 NULL, 3 NULL",
        ),
        // A lateral relation may follow a lateral relation.
        (
            "SELECT * FROM a, LATERAL (SELECT k + 1 AS n) x, LATERAL (SELECT n + 1 AS m) WHERE k = 1",
            "1 2 3",
        ),
        ("SELECT * FROM a, LATERAL (SELECT * FROM b WHERE b.k = a.k LIMIT 1)", "NOT_YET_SUPPORTED"),
        ("SELECT * FROM a RIGHT JOIN LATERAL (SELECT k AS n)", "INVALID_LATERAL_JOIN_TYPE"),
        (
            "SELECT * FROM a, LATERAL (SELECT x FROM b WHERE b.k = a.k)",
            "UNRESOLVED_COLUMN.WITH_SUGGESTION",
        ),
    ]);
}

#[test]
fn a_generator_in_from_is_a_relation() {
    check(&[
        ("SELECT * FROM explode(array(1, 2)) AS t(n)", "1, 2"),
        ("SELECT t.col + 1 FROM EXPLODE(array(1, 2)) t", "2, 3"),
        ("SELECT * FROM a, LATERAL explode(sequence(1, k)) AS t(n) WHERE k = 2", "2 1, 2 2"),
        (
            "SELECT k, pos FROM a LEFT JOIN LATERAL posexplode(IF(k = 1, array('x'), array())) t ON true ORDER BY k",
            "1 0, 2 NULL, 3 NULL",
        ),
        // As in Spark, a LEFT join to a function without a condition is an inner one.
        (
            "SELECT k, pos FROM a LEFT JOIN LATERAL posexplode(IF(k = 1, array('x'), array())) t ORDER BY k",
            "1 0",
        ),
        ("SELECT k, l.n FROM a JOIN LATERAL stack(2, k, k * 10) AS l(n) ON l.n > 10", "2 20, 3 30"),
    ]);
}

#[test]
fn a_scalar_subquery_may_be_grouped_by_what_it_is_compared_with() {
    check(&[
        (
            "SELECT k, (SELECT count(*) FROM b WHERE b.k = a.k GROUP BY b.k) FROM a",
            "1 2, 2 1, 3 NULL",
        ),
        ("SELECT k FROM a WHERE (SELECT max(v) FROM b WHERE b.k = a.k GROUP BY k) IS NULL", "3"),
        (
            "SELECT k, (SELECT max(v) FROM b WHERE b.k = a.k GROUP BY k HAVING count(*) > 1) AS m FROM a",
            "1 11, 2 NULL, 3 NULL",
        ),
        (
            "SELECT (SELECT max(v) FROM b WHERE b.k = a.k GROUP BY v) FROM a",
            "UNSUPPORTED_SUBQUERY_EXPRESSION_CATEGORY.MUST_AGGREGATE_CORRELATED_SCALAR_SUBQUERY",
        ),
    ]);
}

#[test]
fn a_condition_that_one_side_of_a_join_cannot_evaluate_leaves_no_joins_behind() {
    // The condition is tried on the left rows first, where `b.v` is unknown.
    let on = "a.k = b.k AND (EXISTS (SELECT 1 FROM c WHERE c.v > 20) OR b.v = 10)";
    let query = format!("{TABLES} SELECT a.k, b.v FROM a LEFT JOIN b ON {on} ORDER BY a.k, b.v");
    assert_eq!(answer(&query), "1 10, 1 11, 2 20, 3 NULL");
    let plan = Session::new().sql(&query).unwrap().explain();
    assert_eq!(plan.matches("Join").count(), 2, "{plan}");
}

#[test]
fn qualify_in_a_correlated_subquery_is_refused() {
    let numbered = "row_number() OVER (ORDER BY v) = 1";
    for query in [
        format!(
            "SELECT k FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k = a.k QUALIFY {numbered})"
        ),
        format!("SELECT k FROM a WHERE k IN (SELECT k FROM b WHERE b.k = a.k QUALIFY {numbered})"),
        format!("SELECT (SELECT v FROM b WHERE b.k = a.k QUALIFY {numbered} LIMIT 1) FROM a"),
        format!("SELECT * FROM a, LATERAL (SELECT v FROM b WHERE b.k = a.k QUALIFY {numbered})"),
        format!("SELECT * FROM a, LATERAL (SELECT a.k + 1 AS x QUALIFY {numbered})"),
    ] {
        assert_eq!(answer(&format!("{TABLES} {query}")), "NOT_YET_SUPPORTED", "{query}");
    }
}
