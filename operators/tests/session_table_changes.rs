//! Statements that change the relations of a session under views, prepared queries, running queries
//! and other threads; and names of the user that are those of built-in functions.
#![cfg(feature = "sql")]

mod script;

use millstream::session::{Session, Trigger};
use millstream::table::expr::cell::Cell;
use millstream::table::expr::user_function::UserFunction;
use millstream::table::types::DataType;
use millstream::table::value::Value;
use millstream::{Config, WaitProfile};
use script::{rows, run};
use std::sync::Barrier;

fn quiet() -> Config {
    Config { pin: false, wait: WaitProfile::Park, ..Config::default() }
}

#[test]
fn a_view_and_a_prepared_query_over_a_dropped_table_fail() {
    let session = Session::new();
    rows(&session, "CREATE TABLE t (a INT); CREATE VIEW v AS SELECT a FROM t");
    let prepared = session.sql("SELECT a FROM t").unwrap();
    let of_subquery = session.sql("SELECT (SELECT max(a) FROM t)").unwrap();
    let of_join = session.sql("SELECT 1 FROM range(1) JOIN t ON id = a").unwrap();
    rows(&session, "DROP TABLE t");
    for query in [&prepared, &of_subquery, &of_join] {
        assert_eq!(query.collect().unwrap_err().condition(), "TABLE_OR_VIEW_NOT_FOUND");
    }
    assert_eq!(run(&session, "SELECT * FROM v").unwrap_err(), "TABLE_OR_VIEW_NOT_FOUND");
    rows(&session, "CREATE TABLE T (A INT NOT NULL); INSERT INTO t VALUES (5)");
    assert_eq!(rows(&session, "SELECT * FROM v"), ["5"], "a new table with the same columns");
    assert_eq!(prepared.collect().unwrap(), [[Value::Long(5)]]);
}

#[test]
fn a_view_over_a_table_whose_columns_have_changed_fails() {
    for columns in ["a BIGINT, b STRING", "b STRING, a INT", "a INT", "a INT, b STRING, c INT"] {
        let session = Session::new();
        let script = "CREATE TABLE t (a INT, b STRING); CREATE VIEW v AS SELECT b, a FROM t";
        rows(&session, script);
        let prepared = session.sql("SELECT a FROM t").unwrap();
        rows(&session, &format!("CREATE OR REPLACE TABLE t ({columns})"));
        let refused = run(&session, "SELECT * FROM v").unwrap_err();
        assert_eq!(refused, "INCOMPATIBLE_VIEW_SCHEMA_CHANGE", "{columns}");
        let refused = prepared.collect().unwrap_err();
        assert_eq!(refused.condition(), "INCOMPATIBLE_VIEW_SCHEMA_CHANGE", "{columns}");
        assert!(rows(&session, "SELECT * FROM t").concat().is_empty(), "a new query");
    }
}

#[test]
fn a_query_over_a_stream_fails_when_its_table_is_dropped_or_replaced() {
    for (change, condition) in [
        ("DROP TABLE names", "TABLE_OR_VIEW_NOT_FOUND"),
        ("CREATE OR REPLACE TABLE names (name STRING, k INT)", "INCOMPATIBLE_VIEW_SCHEMA_CHANGE"),
    ] {
        for sql in [
            "SELECT name FROM events JOIN names USING (k)",
            "SELECT k FROM events WHERE k > (SELECT max(k) FROM names)",
        ] {
            let session = Session::new();
            rows(&session, "CREATE TABLE names (k INT, name STRING)");
            let stream = session.memory_stream("events", "k INT").unwrap();
            let writer = session.sql(sql).unwrap().write_stream().format("noop").config(quiet());
            let query = writer.trigger(Trigger::AsSoonAsPossible).start().unwrap();
            stream.add([vec![Value::Long(1)]]);
            query.process_all_available().unwrap();
            rows(&session, change);
            stream.add([vec![Value::Long(2)]]);
            let error = query.await_termination().unwrap_err();
            assert_eq!(error.condition(), condition, "{sql}, {change}");
        }
    }
}

#[test]
fn a_table_and_a_view_cannot_share_a_name() {
    let session = Session::new();
    rows(&session, "CREATE TABLE t (a INT); CREATE VIEW v AS SELECT 1 AS a");
    for script in [
        "CREATE VIEW T AS SELECT 2 AS a",
        "CREATE OR REPLACE VIEW t AS SELECT 2 AS a",
        "CREATE OR REPLACE TEMPORARY VIEW t AS SELECT 2 AS a",
        "CREATE TEMPORARY VIEW t (a STRING) USING csv OPTIONS (path '/nowhere')",
        "CREATE TABLE V (b INT)",
        "CREATE OR REPLACE TABLE v (b INT)",
        "CREATE TABLE v AS SELECT 2 AS b",
    ] {
        let refused = run(&session, script).unwrap_err();
        assert_eq!(refused, "TABLE_OR_VIEW_ALREADY_EXISTS", "{script}");
    }
    let stream = session.memory_stream("t", "a INT").err().unwrap();
    assert_eq!(stream.condition, "TABLE_OR_VIEW_ALREADY_EXISTS");
    let kept = "CREATE VIEW IF NOT EXISTS t AS SELECT 3 AS a;
                CREATE TABLE IF NOT EXISTS v (b INT);
                SHOW TABLES;
                SELECT a FROM v;
                INSERT INTO t VALUES (4);
                SELECT a FROM t";
    assert_eq!(rows(&session, kept)[1..], ["1", "4"]);
    let moved = "DROP TABLE t; DROP VIEW v; CREATE VIEW t AS SELECT 5 AS a;
                 CREATE TABLE v (a INT); SELECT a FROM t; SELECT a FROM v";
    assert_eq!(rows(&session, moved), ["5", ""]);
}

#[test]
fn a_view_and_the_result_of_a_query_cannot_share_a_name() {
    let session = Session::new();
    session.memory_stream("events", "k INT").unwrap();
    let start = |name: &str| {
        let frame = session.sql("SELECT k FROM events").unwrap();
        let writer = frame.write_stream().format("memory").query_name(name).config(quiet());
        writer.trigger(Trigger::AsSoonAsPossible).start()
    };
    start("result").unwrap().stop().unwrap();
    for script in [
        "CREATE VIEW RESULT AS SELECT 2 AS a",
        "CREATE OR REPLACE VIEW result AS SELECT 2 AS a",
        "CREATE VIEW IF NOT EXISTS result AS SELECT 2 AS a",
        "CREATE TABLE result (a INT)",
        "CREATE TABLE IF NOT EXISTS result (a INT)",
        "CREATE OR REPLACE TABLE result (a INT)",
        "CREATE TEMPORARY VIEW result (a STRING) USING csv OPTIONS (path '/nowhere')",
    ] {
        let refused = run(&session, script).unwrap_err();
        assert_eq!(refused, "TABLE_OR_VIEW_ALREADY_EXISTS", "{script}");
    }
    let stream = session.memory_stream("Result", "a INT").err().unwrap();
    assert_eq!(stream.condition, "TABLE_OR_VIEW_ALREADY_EXISTS");
    rows(&session, "CREATE VIEW v AS SELECT 1 AS a");
    for view in ["v", "V", "events"] {
        let refused = start(view).err().unwrap();
        assert_eq!(refused.condition(), "TABLE_OR_VIEW_ALREADY_EXISTS", "{view}");
    }
    start("result").unwrap().stop().unwrap();
    session.sql("SELECT 7 AS a").unwrap().create_temp_view("result");
    assert_eq!(rows(&session, "SELECT * FROM result"), ["7"], "a program may hide a table");
}

/// A function that the query of the INSERT calls changes the table, as another thread would.
#[test]
fn an_insert_into_a_table_that_is_dropped_or_replaced_meanwhile_fails() {
    for (change, after) in [
        ("DROP TABLE IF EXISTS t", Err("TABLE_OR_VIEW_NOT_FOUND".to_string())),
        ("CREATE OR REPLACE TABLE t (a BIGINT)", Ok(vec![String::new()])),
    ] {
        for insert in ["INSERT INTO t", "INSERT OVERWRITE t"] {
            let session = Session::new();
            let own = session.clone();
            let args = [DataType::Long];
            let function = UserFunction::new("change", args, DataType::Boolean, move |_, _| {
                rows(&own, change);
                Ok(Cell::Bool(true))
            });
            session.register_function(function);
            rows(&session, "CREATE TABLE t (a BIGINT)");
            let script = format!("{insert} SELECT id FROM range(3) WHERE change(id)");
            let refused = run(&session, &script).unwrap_err();
            assert_eq!(refused, "TABLE_OR_VIEW_NOT_FOUND", "{script}, {change}");
            assert_eq!(run(&session, "SELECT * FROM t"), after, "{script}, {change}");
        }
    }
}

#[test]
fn of_several_threads_that_create_a_name_one_succeeds() {
    const EACH: [&str; 4] = [
        "CREATE TABLE x (a INT)",
        "CREATE VIEW x AS SELECT 1 AS a",
        "CREATE TABLE x AS SELECT 2 AS a",
        "CREATE TABLE x (a STRING)",
    ];
    for _ in 0..200 {
        let (session, start) = (Session::new(), Barrier::new(EACH.len()));
        let created = std::thread::scope(|scope| {
            let create = |script| {
                let (session, start) = (&session, &start);
                scope.spawn(move || {
                    start.wait();
                    run(session, script).is_ok()
                })
            };
            EACH.map(create).map(|thread| thread.join().unwrap())
        });
        assert_eq!(created.iter().filter(|created| **created).count(), 1, "{created:?}");
        assert!(run(&session, "DROP TABLE x").is_ok());
        assert_eq!(run(&session, "DROP TABLE x").unwrap_err(), "TABLE_OR_VIEW_NOT_FOUND");
    }
}

#[test]
fn partition_columns_of_an_insert_must_be_columns_of_the_table() {
    let session = Session::new();
    rows(&session, "CREATE TABLE p (a INT, day INT) PARTITIONED BY (day)");
    for (script, condition) in [
        ("INSERT INTO p PARTITION (hour = 1) VALUES (1)", "PARTITIONS_NOT_FOUND"),
        ("INSERT INTO p PARTITION (hour) VALUES (1, 2)", "PARTITIONS_NOT_FOUND"),
        ("INSERT INTO p PARTITION (day = 1, hour) VALUES (1)", "PARTITIONS_NOT_FOUND"),
        ("INSERT OVERWRITE p PARTITION (day = 1) VALUES (1)", "NOT_YET_SUPPORTED"),
        ("INSERT OVERWRITE TABLE p PARTITION (day) VALUES (1, 2)", "NOT_YET_SUPPORTED"),
    ] {
        assert_eq!(run(&session, script).unwrap_err(), condition, "{script}");
        assert_eq!(rows(&session, "SELECT * FROM p"), [""], "{script}");
    }
}

#[test]
fn a_column_may_be_not_null_behind_its_comment() {
    let session = Session::new();
    let create = "CREATE TABLE t (a INT COMMENT 'the key' NOT NULL, b INT NOT  NULL COMMENT 'b',
                  c STRING COMMENT 'free')";
    rows(&session, create);
    for values in ["(NULL, 1, 'x')", "(1, NULL, 'x')"] {
        let refused = run(&session, &format!("INSERT INTO t VALUES {values}")).unwrap_err();
        assert_eq!(refused, "NOT_NULL_ASSERT_VIOLATION", "{values}");
    }
    assert_eq!(rows(&session, "INSERT INTO t VALUES (1, 2, NULL); SELECT * FROM t"), ["1 2 NULL"]);
    for wrong in ["a INT NOT", "a INT NOT NULLS", "a INT NOT NULL COMMENT 'x' NOT NULL NOT NULL"] {
        assert!(run(&session, &format!("CREATE TABLE u ({wrong})")).is_err(), "{wrong}");
    }
}

#[test]
fn a_reset_in_a_script_restores_how_the_literals_after_it_are_read() {
    let session = Session::new();
    let script = r"SET spark.sql.parser.escapedStringLiterals = true;
                   SELECT length('\t');
                   RESET spark.sql.parser.escapedStringLiterals;
                   SELECT length('\t');
                   SET spark.sql.parser.escapedStringLiterals = true;
                   RESET;
                   SELECT length('\t')";
    assert_eq!(rows(&session, script), ["2", "1", "1"]);
}

/// Functions of the user with the names of those that `range`, EXCEPT ALL and INTERSECT ALL use.
fn shadow_functions(session: &Session) {
    for name in ["sequence", "explode", "least", "count_if", "sum", "bigint"] {
        let args = [DataType::Long, DataType::Long];
        let function = UserFunction::new(name, args, DataType::Long, |_, _| Ok(Cell::Long(-1)));
        session.register_function(function);
    }
}

#[test]
fn range_and_set_operations_do_not_call_functions_of_the_user() {
    let session = Session::new();
    shadow_functions(&session);
    let views = "CREATE VIEW l AS SELECT 'not this' AS x; CREATE VIEW r AS SELECT 'nor this' AS x";
    rows(&session, views);
    for (query, expected) in [
        ("SELECT * FROM range(3)", "0, 1, 2"),
        ("SELECT count(*) FROM range(20000)", "20000"),
        ("SELECT * FROM VALUES 1, 1, 2 EXCEPT ALL VALUES 1, 2", "1"),
        ("SELECT * FROM VALUES 1, 1, 2 INTERSECT ALL VALUES 1, 1, 3", "1, 1"),
    ] {
        assert_eq!(rows(&session, query), [expected], "{query}");
    }
    // Arguments of `range` are the user's text, and a function of the user is not a constant.
    let refused = run(&session, "SELECT * FROM range(sum(1, 2), 1)").unwrap_err();
    assert_eq!(refused, "NON_FOLDABLE_ARGUMENT");
}

#[test]
fn copies_of_a_row_are_made_in_chunks_without_loss() {
    let session = Session::new();
    let many = "SELECT 1 AS x FROM range(40000) UNION ALL SELECT 2 FROM range(16384)";
    for (query, expected) in [
        (format!("({many}) EXCEPT ALL SELECT 1"), "1 39999, 2 16384"),
        (format!("({many}) EXCEPT ALL SELECT 1 FROM range(39999)"), "1 1, 2 16384"),
        (format!("({many}) INTERSECT ALL (SELECT 1 FROM range(32769))"), "1 32769"),
        (format!("({many}) EXCEPT ALL ({many})"), ""),
    ] {
        let counted = format!("SELECT x, count(*) FROM ({query}) GROUP BY x ORDER BY x");
        assert_eq!(rows(&session, &counted), [expected], "{query}");
    }
}

#[test]
fn values_that_read_the_clock_are_evaluated_when_the_query_runs() {
    let session = Session::new();
    let view = "CREATE VIEW v AS SELECT * FROM VALUES (1, now()), (2, now()),
                    (3, TIMESTAMP '2020-01-01 00:00:00'), (4, current_timestamp() - INTERVAL 1 DAY),
                    (5, NULL) AS t(n, time)";
    rows(&session, view);
    let clock = session.sql("SELECT unix_micros(time) FROM v WHERE n = 1").unwrap();
    let micros = || match clock.collect().unwrap()[0][0] {
        Value::Long(micros) => micros,
        ref other => panic!("{other:?}"),
    };
    let first = micros();
    while micros() == first {}
    let same = "SELECT n, time = now(), time < now() FROM v ORDER BY n";
    let [yes, no] = [true, false].map(|value| format!("Boolean({value})"));
    let expected = format!("1 {yes} {no}, 2 {yes} {no}, 3 {no} {yes}, 4 {no} {yes}, 5 NULL NULL");
    assert_eq!(rows(&session, same), [expected]);
    let types = "SELECT typeof(col1), typeof(col2) FROM VALUES (current_date(), 1), (NULL, 2.5)";
    assert_eq!(rows(&session, types), ["date decimal(11,1), date decimal(11,1)"]);
    for (query, condition) in [
        ("VALUES (rand())", "CANNOT_EVALUATE_EXPRESSION_IN_INLINE_TABLE"),
        ("VALUES (now(), rand(5))", "CANNOT_EVALUATE_EXPRESSION_IN_INLINE_TABLE"),
        ("VALUES (now(), 1 / 0)", "FAILED_SQL_EXPRESSION_EVALUATION"),
    ] {
        let refused = run(&session, query).unwrap_err();
        assert_eq!(refused, format!("INVALID_INLINE_TABLE.{condition}"), "{query}");
    }
    let inserted = "CREATE TABLE t (time TIMESTAMP); INSERT INTO t VALUES (now());
                    SELECT time <= now() FROM t";
    assert_eq!(rows(&session, inserted), [yes]);
}

/// VALUES beside a stream is a table, which is read when the query starts. Elsewhere in the query
/// `now()` is the time of the batch.
#[test]
fn values_in_a_query_over_a_stream_have_the_time_of_its_start() {
    let session = Session::new();
    let stream = session.memory_stream("events", "k INT").unwrap();
    let sql = "SELECT unix_micros(time) AS time FROM events CROSS JOIN (VALUES (now())) AS t(time)";
    let planned = session.sql(sql).unwrap();
    let clock = session.sql("SELECT unix_micros(now())").unwrap();
    let before = clock.collect().unwrap()[0][0].clone();
    let writer = planned.write_stream().format("memory").query_name("out").config(quiet());
    let query = writer.trigger(Trigger::AsSoonAsPossible).start().unwrap();
    stream.add([vec![Value::Long(1)]]);
    query.process_all_available().unwrap();
    query.stop().unwrap();
    let found = session.table("out").unwrap().rows()[0][0].clone();
    let (Value::Long(before), Value::Long(found)) = (before, found) else { panic!() };
    assert!(found >= before, "{found} is the time of planning, before {before}");
}

#[test]
fn rows_that_a_condition_drops_beside_a_scalar_subquery_do_not_advance_the_watermark() {
    for condition in
        ["k < 5 AND k > (SELECT max(k) FROM limits)", "k > (SELECT max(k) FROM limits) AND k < 5"]
    {
        let session = Session::new();
        rows(&session, "CREATE TABLE limits (k INT); INSERT INTO limits VALUES (0)");
        let stream = session.memory_stream("events", "k INT, time TIMESTAMP").unwrap();
        let source = "events WATERMARK time DELAY OF INTERVAL 0 SECONDS";
        let query = session.sql(&format!("SELECT k FROM {source} WHERE {condition}")).unwrap();
        let writer = query.write_stream().format("memory").query_name("out").config(quiet());
        let query = writer.trigger(Trigger::AsSoonAsPossible).start().unwrap();
        let row = |k: i64, seconds: i64| vec![Value::Long(k), Value::Long(seconds * 1_000_000)];
        stream.add([row(1, 10), row(9, 20)]);
        query.process_all_available().unwrap();
        assert_eq!(query.watermark_ms(), Some(10_000), "{condition}");
        query.stop().unwrap();
        assert_eq!(rows(&session, "SELECT * FROM out"), ["1"], "{condition}");
    }
}
