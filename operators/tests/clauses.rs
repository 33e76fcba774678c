//! Clauses of a query that must not be taken for names, and clauses where none may be.
#![cfg(feature = "sql")]

mod script;

use millstream::session::{Session, Trigger};
use millstream::table::value::Value;
use millstream::{Config, WaitProfile};
use script::{rows, run};

/// The rows of a query over two streams: `a` with the keys 1 and 2, `b` with the keys 2 and 3.
fn joined(session: &Session, sql: &str) -> Result<usize, String> {
    let a = session.memory_stream("a", "k INT, t TIMESTAMP").unwrap();
    let b = session.memory_stream("b", "k INT, u TIMESTAMP").unwrap();
    let frame = session.sql(sql).map_err(|error| error.condition.clone())?;
    let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
    let writer = frame.write_stream().format("memory").query_name("out").config(config);
    let query = writer.trigger(Trigger::AsSoonAsPossible).start();
    let query = query.map_err(|error| error.condition().to_string())?;
    let row = |key: i64| vec![Value::Long(key), Value::Long(1_000_000)];
    a.add([row(1), row(2)]);
    b.add([row(2), row(3)]);
    query.process_all_available().unwrap();
    query.stop().unwrap();
    Ok(session.table("out").unwrap().rows().len())
}

#[test]
fn the_join_behind_a_watermark_without_an_alias_is_not_its_alias() {
    let marked = "FROM STREAM a WATERMARK t DELAY OF INTERVAL 1 MINUTE";
    for (join, expected) in [
        ("JOIN b USING (k)", Ok(1)),
        ("NATURAL JOIN b", Ok(1)),
        ("SEMI JOIN b USING (k)", Err("STREAM_STREAM_JOIN_WITHOUT_WATERMARK".to_string())),
        ("AS x JOIN b ON x.k = b.k", Ok(1)),
        ("x JOIN b ON x.k = b.k", Ok(1)),
    ] {
        let session = Session::new();
        let sql = format!("SELECT * {marked} {join}");
        assert_eq!(joined(&session, &sql), expected, "{join}");
    }
}

#[test]
fn one_expression_has_no_further_clauses() {
    let session = Session::new();
    session.memory_stream("a", "k INT").unwrap();
    for wrong in ["DISTINCT k", "k GROUP BY k", "k HAVING k > 1", "k FROM a", "k WHERE k > 1"] {
        let error = session.view("a").unwrap().select_expr([wrong]).err();
        assert_eq!(
            error.map(|error| error.condition).as_deref(),
            Some("PARSE_SYNTAX_ERROR"),
            "{wrong}"
        );
    }
    assert!(session.view("a").unwrap().select_expr(["k + 1 AS n"]).is_ok());
}

#[test]
fn a_rollup_of_many_columns_is_refused_at_once() {
    let session = Session::new();
    let columns: Vec<String> = (0..3_000).map(|at| format!("{at}")).collect();
    let sql =
        format!("SELECT count(*) FROM range(1) GROUP BY ROLLUP (id + {})", columns.join(", id + "));
    assert_eq!(session.sql(&sql).err().unwrap().condition, "GROUPING_SIZE_LIMIT_EXCEEDED");
}

#[test]
fn rows_are_sorted_and_distributed_as_one_partition() {
    let session = Session::new();
    let from = "FROM VALUES (1, 'b'), (2, 'a'), (3, NULL) AS t(n, s)";
    for (query, expected) in [
        ("SELECT n {from} SORT BY s DESC", "1, 2, 3"),
        ("SELECT n AS m {from} SORT BY m DESC NULLS LAST", "3, 2, 1"),
        ("SELECT n {from} CLUSTER BY s", "3, 2, 1"),
        ("SELECT n {from} DISTRIBUTE BY s", "1, 2, 3"),
        ("SELECT n {from} DISTRIBUTE BY n SORT BY s LIMIT 2", "3, 2"),
        ("SELECT count(*) AS c {from} GROUP BY n > 1 SORT BY c", "1, 2"),
        ("SELECT n FROM (SELECT * {from} SORT BY n DESC)", "3, 2, 1"),
    ] {
        let query = query.replace("{from}", from);
        assert_eq!(rows(&session, &query), [expected], "{query}");
    }
    for (clauses, condition) in [
        ("SORT BY n ORDER BY n", "UNSUPPORTED_FEATURE.COMBINATION_QUERY_RESULT_CLAUSES"),
        ("CLUSTER BY n SORT BY n", "UNSUPPORTED_FEATURE.COMBINATION_QUERY_RESULT_CLAUSES"),
        ("DISTRIBUTE BY x", "UNRESOLVED_COLUMN.WITH_SUGGESTION"),
        ("CLUSTER BY x", "UNRESOLVED_COLUMN.WITH_SUGGESTION"),
    ] {
        let query = format!("SELECT n {from} {clauses}");
        assert_eq!(run(&session, &query).unwrap_err(), condition, "{query}");
    }
}

#[test]
fn options_after_a_view_are_refused() {
    let query = "SELECT * FROM t WITH (header = true)";
    let session = Session::new();
    rows(&session, "CREATE TABLE t (a INT)");
    let error = session.sql(query).err().unwrap();
    assert_eq!((error.condition.as_str(), error.place.column), ("PARSE_SYNTAX_ERROR", 17));
}

#[test]
fn an_item_beside_aggregates_may_use_an_alias_before_it() {
    let session = Session::new();
    let from = "FROM VALUES (1, 10), (1, 20), (2, 30) AS t(k, v)";
    for (query, expected) in [
        (
            "SELECT k, sum(v) AS s, s + 1 AS t, t * 2 {from} GROUP BY k ORDER BY k",
            "1 30 31 62, 2 30 31 62",
        ),
        ("SELECT k + 1 AS a, a AS b, count(*) {from} GROUP BY k ORDER BY b", "2 2 2, 3 3 1"),
        ("SELECT max(v) AS m, m - 1 AS n {from} HAVING n > 1", "30 29"),
        // A column is found before an alias.
        ("SELECT max(v) AS k, k AS x {from} GROUP BY k ORDER BY x", "20 1, 30 2"),
    ] {
        let query = query.replace("{from}", from);
        assert_eq!(rows(&session, &query), [expected], "{query}");
    }
    let names = session.sql(&format!("SELECT sum(v) AS s, s + 1 {from}")).unwrap().schema();
    assert_eq!(names.fields[1].name, "(s + 1)");
    let query = format!("SELECT k AS a, sum(a) {from} GROUP BY k");
    let condition = "UNSUPPORTED_FEATURE.LATERAL_COLUMN_ALIAS_IN_AGGREGATE_FUNC";
    assert_eq!(run(&session, &query).unwrap_err(), condition);
}
