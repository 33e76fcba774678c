//! Clauses of a query that must not be taken for names, and clauses where none may be.
#![cfg(feature = "sql")]

use millstream::session::{Session, Trigger};
use millstream::table::value::Value;
use millstream::{Config, WaitProfile};

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
