//! How often and where the engine evaluates an expression must not change a result: random values,
//! filters above sessions and generators, and merged sessions.
#![cfg(feature = "sql")]

use millstream::session::Session;
use millstream::table::datetime::Tz;
use millstream::table::expr::user_function::UserAggregate;
use millstream::table::expr::{call, lit};
use millstream::table::types::DataType;
use millstream::table::value::Value;

fn answer_in(session: &Session, query: &str) -> String {
    let frame = match session.sql(query) {
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

fn answer(query: &str) -> String {
    answer_in(&Session::new(), query)
}

fn number(query: &str) -> i64 {
    match Session::new().sql(query).unwrap().collect().unwrap()[0][0] {
        Value::Long(n) => n,
        ref other => panic!("{query}: {other:?}"),
    }
}

/// The number of rows for which a condition over random numbers is true, of 10,000.
fn times(condition: &str) -> i64 {
    number(&format!(
        "SELECT count(*) FROM (SELECT {condition} AS c FROM (SELECT explode(sequence(1, 10000)))) \
         WHERE c"
    ))
}

#[test]
fn a_random_value_is_evaluated_once_per_row() {
    for (condition, least, most) in [
        ("rand() BETWEEN 0.4 AND 0.6", 1700, 2300),
        ("rand() NOT BETWEEN 0.4 AND 0.6", 7700, 8300),
        (
            "random() BETWEEN 0.4 AND 0.6 + (CASE WHEN rand() BETWEEN 0 AND 1 THEN 0 END)",
            1700,
            2300,
        ),
        ("nullif(CAST(rand() * 2 AS INT), 0) = 0", 0, 0),
        ("CAST(CAST(rand() * 2 AS INT) AS STRING) LIKE ANY ('0', '1')", 10_000, 10_000),
        ("uuid() LIKE ALL ('%-%', '%-4%')", 10_000, 10_000),
        // As in Spark, these evaluate their operand for each branch.
        ("decode(CAST(rand() * 2 AS INT), 0, 'a', 1, 'b') IS NULL", 2000, 3000),
        ("CASE CAST(rand() * 2 AS INT) WHEN 0 THEN 'a' WHEN 1 THEN 'b' END IS NULL", 2000, 3000),
    ] {
        let found = times(condition);
        assert!((least..=most).contains(&found), "{condition}: {found}");
    }
    let ten = Session::new().sql("SELECT explode(sequence(1, 10000)) AS a").unwrap();
    let within =
        ten.filter(&call("rand", []).between(lit(0.4), lit(0.6))).unwrap().count().unwrap();
    assert!((1700..=2300).contains(&within), "{within}");
    let name =
        &Session::new().sql("SELECT rand() BETWEEN 0.4 AND 0.6").unwrap().schema().fields[0].name;
    assert_eq!(name, "((rand() >= 0.4) AND (rand() <= 0.6))");
    for (select, most) in [
        ("rand() AS r, r + 1 AS s, CASE WHEN x % 2 = 0 THEN r END AS t", 0),
        ("rand() + x AS q, q AS r, r + 1 AS s, if(x % 2 = 0, q, NULL) AS t", 0),
    ] {
        let values = format!("SELECT {select} FROM (SELECT explode(sequence(1, 100)) AS x)");
        let differ = format!("SELECT count(*) FROM ({values}) WHERE r + 1 <> s OR t <> r");
        assert_eq!(number(&differ), most, "{select}");
    }
    let outer = "SELECT a + x FROM VALUES (1) AS t(a) LATERAL VIEW explode(transform(array(2), \
                 v -> v + if(rand() BETWEEN v - 2 AND v, 1, 5))) AS x";
    assert_eq!(answer(outer), "4");
}

#[test]
fn a_full_join_reads_the_same_random_rows_twice() {
    let l = "(SELECT CAST(rand() * 1000 AS INT) AS k FROM (SELECT explode(sequence(1, 500))))";
    let r = "(SELECT explode(sequence(0, 999)) AS k)";
    for _ in 0..5 {
        let both = format!("FROM {l} AS l FULL JOIN {r} AS r ON l.k = r.k");
        assert_eq!(number(&format!("SELECT count(l.k) {both}")), 500);
        assert_eq!(number(&format!("SELECT count(DISTINCT r.k) {both}")), 1000);
        let left_out = format!("SELECT count_if(l.k IS NULL) + count(DISTINCT l.k) {both}");
        assert_eq!(number(&left_out), 1000);
    }
    for kind in ["JOIN", "LEFT JOIN", "FULL JOIN", "LEFT SEMI JOIN"] {
        let query = format!("SELECT 1 FROM {r} AS l {kind} {r} AS r ON rand() < 0.5");
        assert_eq!(answer(&query), "INVALID_NON_DETERMINISTIC_EXPRESSIONS", "{kind}");
    }
    let now = format!(
        "SELECT count(*) FROM {r} AS l JOIN {r} AS r ON now() > '2000-01-01' AND l.k = r.k"
    );
    assert_eq!(answer(&now), "1000");
}

#[test]
fn a_random_condition_applies_to_each_generated_row() {
    let query = "SELECT count(*) FROM VALUES (1) AS t(a) LATERAL VIEW explode(sequence(1, 1000)) AS x \
                 WHERE rand() < 0.5";
    let found = number(query);
    assert!((300..=700).contains(&found), "{found}");
}

const ROWS: &str = "(SELECT k, timestamp(t) AS t, x FROM VALUES \
    ('a', '2024-01-01 10:00:00', 1), ('a', '2024-01-01 10:00:30', 2), \
    ('a', '2024-01-01 10:00:15', 3), ('a', '2024-01-01 10:00:16', 3) AS v(k, t, x))";

#[test]
fn a_filter_on_a_session_does_not_split_it() {
    let from = format!("FROM {ROWS} WATERMARK t DELAY OF INTERVAL 1 HOUR AS s");
    let session = "session_window(t, '20 seconds')";
    for (clause, expected) in [
        ("HAVING session_window.start >= TIMESTAMP'2024-01-01 10:00:00'", "a 4"),
        ("HAVING session_window.start > TIMESTAMP'2024-01-01 10:00:00'", ""),
        ("HAVING session_window.end > TIMESTAMP'2024-01-01 10:00:40'", "a 4"),
        ("HAVING k = 'a'", "a 4"),
    ] {
        let query = format!("SELECT k, count(*) {from} GROUP BY {session}, k {clause}");
        assert_eq!(answer(&query), expected, "{query}");
    }
    let inner =
        format!("SELECT session_window.end AS e, k, count(*) AS n {from} GROUP BY {session}, k");
    let query = format!("SELECT k, n FROM ({inner}) WHERE e > TIMESTAMP'2024-01-01 10:00:40'");
    assert_eq!(answer(&query), "a 4");
}

#[test]
fn merged_sessions_have_the_distinct_values_of_all() {
    let query = |select: &str| {
        format!("SELECT {select} FROM {ROWS} GROUP BY k, session_window(t, '20 seconds')")
    };
    for (select, expected) in [
        ("count(*), count(DISTINCT x), sum(DISTINCT x)", "4 3 6"),
        ("count(DISTINCT k, x), sum(DISTINCT x) FILTER (WHERE x > 1)", "3 5"),
        ("avg(DISTINCT x), max(DISTINCT x), min(DISTINCT x)", "2.0 3 1"),
        ("sort_array(collect_list(DISTINCT x))", "[1, 2, 3]"),
        ("sum(DISTINCT CAST(x AS DECIMAL(5, 2))), count(DISTINCT CAST(x AS STRING))", "6.00 3"),
        ("length(listagg(DISTINCT CAST(x AS STRING), '-'))", "5"),
    ] {
        assert_eq!(answer(&query(select)), expected, "{select}");
    }
    let session = Session::new();
    session.register_aggregate(UserAggregate::new(
        "last_of",
        [DataType::Int],
        DataType::Int,
        [(DataType::Int, Value::Null)],
        |state, args| {
            state[0] = args[0].clone();
            Ok(())
        },
        |state| Ok(state[0].clone()),
    ));
    let condition = answer_in(&session, &query("last_of(x)"));
    assert_eq!(condition, "NOT_YET_SUPPORTED");
}

#[test]
fn every_nan_is_the_largest_number() {
    let of =
        |expr: &str| answer(&format!("SELECT {expr} FROM VALUES (sqrt(-1D)), (2D), (1D) AS t(x)"));
    for (expr, expected) in [
        ("percentile_approx(x, 0.0), percentile_approx(x, 1.0)", "1.0 NaN"),
        ("max(x), min(x), max_by(x, x), min_by(x, x)", "NaN 1.0 NaN 1.0"),
        ("sort_array(collect_list(x)), array_max(collect_list(x))", "[1.0, 2.0, NaN] NaN"),
        ("count(DISTINCT x), approx_count_distinct(x)", "3 3"),
    ] {
        assert_eq!(of(expr), expected, "{expr}");
    }
    assert_eq!(
        answer("SELECT x FROM VALUES (acos(2D)), (2D), (-1D) AS t(x) ORDER BY x"),
        "-1.0, 2.0, NaN"
    );
    let same = "SELECT hash(x) = hash(double('nan')), xxhash64(x) = xxhash64(double('nan')), \
                hash(float(x)) = hash(float('nan')) FROM VALUES (sqrt(-1D)), (-sqrt(-1D)) AS t(x)";
    assert_eq!(answer(same), "true true true, true true true");
}
