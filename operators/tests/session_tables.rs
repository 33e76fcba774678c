//! The tables of a session: `CREATE TABLE`, `INSERT`, `TRUNCATE`, `DROP`, and what reads them.
#![cfg(feature = "sql")]

mod script;

use millstream::session::{DataFrame, RowFormat, Session, Trigger};
use millstream::table::expr::cell::Cell;
use millstream::table::expr::user_function::UserFunction;
use millstream::table::types::DataType;
use millstream::table::value::Value;
use millstream::{Config, WaitProfile};
use script::{rows, run};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[test]
fn rows_are_inserted_cast_and_read_in_order() {
    let session = Session::new();
    let script = "
        CREATE TABLE t (a BIGINT, b STRING, c DECIMAL(4, 1)) USING parquet;
        INSERT INTO t VALUES (1, 'x', 1.25), (2, NULL, 3);
        INSERT INTO T (c, a) SELECT 7, 3;
        INSERT INTO TABLE t TABLE t;
        SELECT a, b, CAST(c AS STRING) FROM t";
    let all = "1 x 1.3, 2 NULL 3.0, 3 NULL 7.0";
    assert_eq!(rows(&session, script), [format!("{all}, {all}")]);
    assert_eq!(rows(&session, "INSERT OVERWRITE t VALUES (9, 'o', 0); SELECT a FROM t"), ["9"]);
    assert_eq!(rows(&session, "TRUNCATE TABLE t; SELECT count(*) FROM t"), ["0"]);
    assert_eq!(rows(&session, "INSERT INTO t (SELECT 1, 2, 3); SELECT b FROM t"), ["2"]);
}

#[test]
fn an_insert_may_follow_its_with_and_from_clauses() {
    let session = Session::new();
    let script = "
        CREATE TABLE t (a INT);
        CREATE TABLE u (a INT);
        WITH s AS (SELECT 1 AS c) INSERT INTO t SELECT c FROM s;
        WITH s AS (SELECT 2 AS c) FROM s INSERT INTO t SELECT c INSERT INTO u (a) SELECT c + 10;
        FROM range(5, 7) INSERT INTO u SELECT id WHERE id > 5;
        SELECT * FROM t;
        SELECT * FROM u";
    assert_eq!(rows(&session, script), ["1, 2", "12, 6"]);
    let script = "
        CREATE TABLE v (a INT, day INT) PARTITIONED BY (day);
        WITH s AS (SELECT 1 AS c)
            INSERT INTO v PARTITION (day = (SELECT 7)) SELECT c FROM s;
        WITH s AS (SELECT 2 AS c) INSERT INTO v (day, a) (SELECT c, 8 FROM s);
        WITH s AS (SELECT 3 AS c, 9 AS d) INSERT INTO v TABLE s;
        WITH s AS (SELECT 4 AS c, 5 AS d) INSERT INTO TABLE v FROM s SELECT d, c;
        WITH s AS (SELECT 6 AS c) INSERT INTO v (VALUES (6, 6));
        SELECT * FROM v";
    assert_eq!(rows(&session, script), ["1 7, 8 2, 3 9, 5 4, 6 6"]);
}

#[test]
fn having_filters_rows_if_the_setting_says_so() {
    let session = Session::new();
    let query = "SELECT id FROM range(3) HAVING id > 0";
    assert_eq!(run(&session, query).unwrap_err(), "MISSING_GROUP_BY");
    session.set("spark.sql.legacy.parser.havingWithoutGroupByAsWhere", "true").unwrap();
    assert_eq!(rows(&session, query), ["1, 2"]);
    let aggregate = run(&session, "SELECT 1 FROM range(3) HAVING max(id) > 0").unwrap_err();
    assert_eq!(aggregate, "INVALID_WHERE_CONDITION");
}

#[test]
fn concat_and_elt_of_binary_values_give_text_if_the_settings_say_so() {
    let session = Session::new();
    let query = "SELECT typeof(concat(X'61', X'62')), typeof(elt(1, X'61', X'62'))";
    assert_eq!(rows(&session, query), ["binary binary"]);
    session.set("spark.sql.function.concatBinaryAsString", "true").unwrap();
    assert_eq!(rows(&session, query), ["string binary"]);
    session.set("spark.sql.function.eltOutputAsString", "true").unwrap();
    let values = "SELECT concat(X'61', X'62') || X'63', elt(2, X'61', X'62')";
    assert_eq!(rows(&session, values), ["abc b"]);
}

#[test]
fn a_table_as_a_query_has_its_columns_and_rows() {
    let session = Session::new();
    let script = "CREATE TABLE s AS SELECT id, id * 2 AS twice FROM range(3);
                  CREATE TABLE IF NOT EXISTS s AS SELECT 'not made' AS a;
                  SELECT * FROM s;
                  CREATE OR REPLACE TABLE s (n INT);
                  SELECT * FROM s;
                  DESCRIBE s";
    let expected = ["0 0, 1 2, 2 4", "", "n int NULL"];
    assert_eq!(rows(&session, script), expected);
}

#[test]
fn partition_columns_are_the_last_and_may_have_a_constant_value() {
    let session = Session::new();
    let script = "CREATE TABLE p (day INT, a STRING, b INT) PARTITIONED BY (day);
                  INSERT INTO p VALUES ('x', 1, 2024);
                  INSERT INTO p PARTITION (day = 2000 + 25) VALUES ('y', 2);
                  INSERT INTO p PARTITION (day) SELECT 'z', 3, 2026;
                  SELECT * FROM p;
                  CREATE TABLE q PARTITIONED BY (k) AS SELECT 1 AS k, 'v' AS v;
                  SELECT * FROM q";
    assert_eq!(rows(&session, script), ["x 1 2024, y 2 2025, z 3 2026", "v 1"]);
}

#[test]
fn rows_of_values_need_no_parentheses() {
    let session = Session::new();
    for (query, expected) in [
        ("VALUES 1, 2", "1, 2"),
        ("SELECT * FROM VALUES 1, 2 AS t(x)", "1, 2"),
        ("SELECT x FROM VALUES -1, int(2.5), (3), (4) + 1 t(x)", "-1, 2, 3, 5"),
        ("SELECT x FROM (VALUES int(-2.5), CAST('7' AS INT) AS t(x))", "-2, 7"),
        (
            "SELECT * FROM (VALUES 1L, 2L UNION ALL VALUES CASE WHEN true THEN 3L END) ORDER BY 1",
            "1, 2, 3",
        ),
        ("SELECT 2 IN (VALUES 1, 2)", "Boolean(true)"),
        ("SELECT y FROM VALUES 'a', 'b' AS t(y) WHERE y > 'a'", "b"),
        ("SELECT (values - 1) FROM VALUES (5) AS t(values)", "4"),
        ("SELECT count(*) FROM VALUES DATE '2024-01-01', NULL, current_date() AS t(d)", "3"),
        ("SELECT count(*) FROM VALUES INTERVAL '1' DAY, INTERVAL 2 DAYS t", "2"),
        ("SELECT c = current_timestamp() FROM VALUES now() AS t(c)", "Boolean(true)"),
    ] {
        assert_eq!(rows(&session, query), [expected], "{query}");
    }
}

#[test]
fn a_view_over_a_table_sees_later_rows() {
    let session = Session::new();
    let script = "CREATE TABLE t (a INT);
                  CREATE VIEW v AS SELECT sum(a) AS s FROM t;
                  INSERT INTO t VALUES (1), (2);
                  SELECT * FROM v;
                  INSERT INTO t VALUES (4);
                  SELECT * FROM v;
                  SELECT a, (SELECT max(a) FROM t) AS m FROM t WHERE a IN (SELECT a FROM t WHERE a > 1)";
    assert_eq!(rows(&session, script), ["3", "7", "2 4, 4 4"]);
}

#[test]
fn a_query_over_a_stream_sees_rows_that_are_inserted_while_it_runs() {
    let session = Session::new();
    rows(&session, "CREATE TABLE names (k INT, name STRING); INSERT INTO names VALUES (1, 'one')");
    let stream = session.memory_stream("events", "k INT").unwrap();
    let frame = session.sql("SELECT name FROM events JOIN names USING (k)").unwrap();
    let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
    let writer = frame.write_stream().format("memory").query_name("out").config(config);
    let query = writer.trigger(Trigger::AsSoonAsPossible).start().unwrap();
    stream.add([vec![Value::Long(1)], vec![Value::Long(2)]]);
    query.process_all_available().unwrap();
    rows(&session, "INSERT INTO names VALUES (2, 'two')");
    stream.add([vec![Value::Long(2)]]);
    query.process_all_available().unwrap();
    query.stop().unwrap();
    assert_eq!(rows(&session, "SELECT * FROM out"), ["one, two"]);
    for (script, condition) in [
        ("CREATE TABLE out (a INT)", "TABLE_OR_VIEW_ALREADY_EXISTS"),
        ("INSERT INTO out VALUES ('x')", "UNSUPPORTED_INSERT.NOT_ALLOWED"),
        ("INSERT INTO names SELECT k, 'x' FROM events", "UNSUPPORTED_INSERT.NOT_ALLOWED"),
    ] {
        assert_eq!(run(&session, script).unwrap_err(), condition, "{script}");
    }
}

#[test]
fn what_a_table_cannot_store_is_refused_and_nothing_is_written() {
    let session = Session::new();
    rows(&session, "CREATE TABLE t (a TINYINT NOT NULL, b STRING); INSERT INTO t VALUES (1, 'x')");
    for (script, condition) in [
        ("INSERT INTO t VALUES (1)", "INSERT_COLUMN_ARITY_MISMATCH.NOT_ENOUGH_DATA_COLUMNS"),
        ("INSERT INTO t VALUES (1, 2, 3)", "INSERT_COLUMN_ARITY_MISMATCH.TOO_MANY_DATA_COLUMNS"),
        ("INSERT INTO t VALUES (1, 'a'), (300, 'b')", "CAST_OVERFLOW_IN_TABLE_INSERT"),
        (
            "SET spark.sql.ansi.enabled = false; INSERT INTO t VALUES (300, 'b')",
            "CAST_OVERFLOW_IN_TABLE_INSERT",
        ),
        ("INSERT INTO t VALUES ('1', 'b')", "INCOMPATIBLE_DATA_FOR_TABLE.CANNOT_SAFELY_CAST"),
        ("INSERT INTO t VALUES (true, 'b')", "INCOMPATIBLE_DATA_FOR_TABLE.CANNOT_SAFELY_CAST"),
        ("INSERT INTO t VALUES (NULL, 'b')", "NOT_NULL_ASSERT_VIOLATION"),
        ("INSERT INTO t (b) VALUES ('b')", "NO_DEFAULT_COLUMN_VALUE_AVAILABLE"),
        ("INSERT INTO t (a, z) VALUES (1, 2)", "UNRESOLVED_COLUMN.WITH_SUGGESTION"),
        ("INSERT INTO t (a, A) VALUES (1, 2)", "COLUMN_ALREADY_EXISTS"),
        ("INSERT INTO nowhere VALUES (1)", "TABLE_OR_VIEW_NOT_FOUND"),
        ("CREATE TABLE t (a INT)", "TABLE_OR_VIEW_ALREADY_EXISTS"),
        ("CREATE TABLE u (a INT, A INT)", "COLUMN_ALREADY_EXISTS"),
        ("CREATE TABLE u (a INT) USING excel", "DATA_SOURCE_NOT_FOUND"),
        ("CREATE TABLE u", "PARSE_SYNTAX_ERROR"),
        ("DROP VIEW t", "EXPECT_VIEW_NOT_TABLE.NO_ALTERNATIVE"),
        ("DROP TABLE nowhere", "TABLE_OR_VIEW_NOT_FOUND"),
        ("INSERT INTO t BY NAME SELECT 1 AS a", "NOT_YET_SUPPORTED"),
        ("CREATE TABLE u (a INT) PARTITIONED BY (b)", "COLUMN_NOT_DEFINED_IN_TABLE"),
    ] {
        assert_eq!(run(&session, script).unwrap_err(), condition, "{script}");
        assert_eq!(rows(&session, "SELECT * FROM t"), ["1 x"], "{script}");
    }
}

#[test]
fn dropped_names_are_free_again() {
    let session = Session::new();
    let script = "CREATE TABLE t (a INT);
                  DROP TABLE T;
                  DROP TABLE IF EXISTS t;
                  CREATE VIEW t AS SELECT 1 AS a;
                  DROP VIEW t;
                  DROP VIEW IF EXISTS t;
                  CREATE TEMPORARY VIEW t AS SELECT 2 AS a;
                  DROP TABLE t;
                  CREATE TABLE default.t AS SELECT 3 AS a;
                  SELECT * FROM t";
    assert_eq!(rows(&session, script), ["3"]);
}

#[test]
fn a_range_counts_from_its_start_to_before_its_end() {
    let session = Session::new();
    for (call, expected) in [
        ("range(3)", "0, 1, 2"),
        ("range(2, 5)", "2, 3, 4"),
        ("range(1, 8, 3)", "1, 4, 7"),
        ("range(5, 0, -2)", "5, 3, 1"),
        ("range(0, 4, 1, 8)", "0, 1, 2, 3"),
        ("range(5, 5)", ""),
        ("range(5, 1)", ""),
        ("RANGE(9223372036854775806, 9223372036854775807)", "9223372036854775806"),
    ] {
        assert_eq!(rows(&session, &format!("SELECT * FROM {call}")), [expected], "{call}");
    }
    let sums =
        "SELECT count(*), count(DISTINCT id), min(r.id), max(id) FROM range(-50000, 60001, 7) r";
    assert_eq!(rows(&session, sums), ["15715 15715 -50000 59998"]);
    let wide = "SELECT count(*), min(id), max(id) \
                FROM range(-9223372036854775808, 9223372036854775807, 922337203685477)";
    assert_eq!(rows(&session, wide), ["20001 -9223372036854775808 9223372036854764192"]);
    for (call, condition) in [
        ("range()", "WRONG_NUM_ARGS.WITHOUT_SUGGESTION"),
        ("range(1, 2, 3, 4, 5)", "WRONG_NUM_ARGS.WITHOUT_SUGGESTION"),
        ("range(1, 2, 0)", "FAILED_FUNCTION_CALL"),
        ("range('a')", "CAST_INVALID_INPUT"),
        ("range(NULL)", "UNEXPECTED_INPUT_TYPE"),
        ("range(true)", "UNEXPECTED_INPUT_TYPE"),
        ("range((SELECT 3))", "NON_FOLDABLE_ARGUMENT"),
    ] {
        let refused = run(&session, &format!("SELECT * FROM {call}")).unwrap_err();
        assert_eq!(refused, condition, "{call}");
    }
}

#[test]
fn set_operations_of_all_count_equal_rows() {
    let session = Session::new();
    let tables = "CREATE TABLE l AS VALUES (1, 'a'), (1, 'a'), (1, 'a'), (NULL, 'n'), (2, 'b');
                  CREATE TABLE r AS VALUES (1, 'a'), (1, 'a'), (NULL, 'n'), (3, 'c');";
    rows(&session, tables);
    for (query, expected) in [
        ("TABLE_L EXCEPT ALL TABLE_R", "1 a, 2 b"),
        ("TABLE_L INTERSECT ALL TABLE_R", "NULL n, 1 a, 1 a"),
        ("TABLE_R EXCEPT ALL TABLE_L", "3 c"),
        ("TABLE_L MINUS ALL TABLE_L", ""),
    ] {
        let query =
            query.replace("TABLE_L", "SELECT * FROM l").replace("TABLE_R", "SELECT * FROM r");
        let sorted = format!("SELECT * FROM ({query}) ORDER BY 1");
        assert_eq!(rows(&session, &sorted), [expected], "{query}");
    }
    let widened = "SELECT typeof(col1) FROM (VALUES (1), (1) EXCEPT ALL VALUES (1L))";
    assert_eq!(rows(&session, widened), ["bigint"]);
    session.memory_stream("s", "a INT").unwrap();
    let of_stream = run(&session, "SELECT * FROM s EXCEPT ALL SELECT 1").unwrap_err();
    assert_eq!(of_stream, "NOT_YET_SUPPORTED");
}

#[test]
fn binary_values_are_shown_in_the_style_of_the_session() {
    let session = Session::new();
    for (style, expected) in [
        ("UTF-8", "|ab |"),
        ("BASIC", "|[97, 98]|"),
        ("base64", "|YWI|"),
        ("HEX", "|6162|"),
        ("HEX_DISCRETE", "|[61 62]|"),
    ] {
        session.set("spark.sql.binaryOutputStyle", style).unwrap();
        let shown =
            session.sql("SELECT X'6162' AS b, array(X'6162') AS all").unwrap().show(1, false);
        assert!(shown.unwrap().contains(expected), "{style}");
        let csv = rows(&session, "SELECT to_csv(struct(X'6162'))");
        let expected = expected.trim_matches(['|', ' ']);
        assert_eq!(csv, [if style == "BASIC" { "\"[97, 98]\"" } else { expected }]);
    }
}

/// A function of the running query cancels its script, as another thread would.
#[test]
fn a_cancelled_script_fails_and_the_session_goes_on() {
    let session = Session::new();
    let own = session.clone();
    session.register_function(UserFunction::new(
        "cancel",
        [DataType::Long],
        DataType::Boolean,
        move |_, _| {
            own.cancel_script();
            Ok(Cell::Bool(true))
        },
    ));
    let endless = "SELECT count(*) FROM range(1000000000) WHERE cancel(id)";
    for script in [
        format!("CREATE TABLE a (n INT); {endless}; CREATE TABLE never (n INT)"),
        format!("CREATE TABLE b AS {endless}"),
        format!("SELECT count(*) FROM range(10) r JOIN ({endless}) s ON true"),
    ] {
        assert_eq!(run(&session, &script), Err("OPERATION_CANCELED".to_string()), "{script}");
    }
    assert_eq!(rows(&session, "SHOW TABLES"), [" a Boolean(true)"]);
    assert_eq!(rows(&session, "SELECT count(*) FROM range(100)"), ["100"]);
}

/// A query that ends when `stopped` returns true, which is called for each row.
fn query_until(session: &Session, stopped: impl Fn() -> bool + Send + Sync + 'static) -> DataFrame {
    session.register_function(UserFunction::new(
        "wait_here",
        [DataType::Long],
        DataType::Boolean,
        move |_, _| {
            while !stopped() {
                std::thread::yield_now();
            }
            Ok(Cell::Bool(true))
        },
    ));
    session.sql("SELECT count(*) FROM range(10) WHERE wait_here(id)").unwrap()
}

/// Several times the interval in which a statement looks whether it is cancelled.
const LONG: Duration = Duration::from_millis(200);

#[test]
fn a_cancel_without_a_running_script_has_no_effect() {
    let session = Session::new();
    session.cancel_script();
    let mut shown = Vec::new();
    let cancelled = session.script("SELECT id FROM range(3); SELECT 2", &mut |frame| {
        session.cancel_script();
        shown.push(frame);
        Ok(())
    });
    assert_eq!(cancelled.unwrap_err().condition(), "OPERATION_CANCELED");
    session.cancel_script();
    let begun = Instant::now();
    let long = query_until(&session, move || begun.elapsed() > LONG);
    assert_eq!(long.collect().unwrap(), [[Value::Long(10)]]);
    // A DataFrame of the cancelled script is an ordinary one after its end.
    let begun = Instant::now();
    query_until(&session, move || begun.elapsed() > LONG);
    assert_eq!(shown.len(), 1);
    assert_eq!(shown[0].filter_expr("wait_here(id)").unwrap().count().unwrap(), 3);
}

#[test]
fn a_cancelled_script_does_not_end_the_queries_of_other_threads_and_scripts() {
    let session = Session::new();
    let released = Arc::new(AtomicBool::new(false));
    let release = released.clone();
    let held = query_until(&session, move || released.load(Ordering::SeqCst));
    std::thread::scope(|scope| {
        let other = scope.spawn(|| held.collect());
        let script = session.script("SELECT 1; CREATE TABLE never (n INT)", &mut |_| {
            session.cancel_script();
            assert_eq!(rows(&session, "SELECT 2"), ["2"], "another script");
            // The other thread looks for a cancel meanwhile.
            let begun = Instant::now();
            while begun.elapsed() < LONG {}
            Ok(())
        });
        release.store(true, Ordering::SeqCst);
        assert_eq!(script.unwrap_err().condition(), "OPERATION_CANCELED");
        assert_eq!(other.join().unwrap().unwrap(), [[Value::Long(10)]]);
    });
    assert_eq!(rows(&session, "SHOW TABLES"), [""]);
}

#[test]
fn a_script_can_be_cancelled_between_its_begin_and_its_first_statement() {
    let session = Session::new();
    let script = session.begin_script();
    session.cancel_script();
    let error = script.run("CREATE TABLE never (n INT)", &mut |_| Ok(())).unwrap_err();
    assert_eq!(error.condition(), "OPERATION_CANCELED");
    drop(session.begin_script());
    assert_eq!(rows(&session, "SHOW TABLES"), [""]);
}

/// All rows of the left side come from one row, so the worker stays in a single step.
#[test]
fn a_cancelled_cross_join_of_large_tables_ends() {
    let session = Session::new();
    let own = session.clone();
    session.register_function(UserFunction::new(
        "cancel",
        [DataType::Long],
        DataType::Boolean,
        move |_, _| {
            own.cancel_script();
            Ok(Cell::Bool(true))
        },
    ));
    let endless = "SELECT count(*) FROM range(100000) a CROSS JOIN range(100000) b \
                   JOIN range(100000) c ON cancel(a.id + b.id + c.id)";
    assert_eq!(run(&session, endless), Err("OPERATION_CANCELED".to_string()));
}

#[test]
fn the_records_of_the_running_statement_are_counted() {
    let folder = std::env::temp_dir().join(format!("millstream-counted-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("a.csv"), "1\n2\n3\n").unwrap();
    let session = Session::new();
    let view = format!(
        "CREATE TEMPORARY VIEW numbers (n INT) USING csv OPTIONS (path '{}')",
        folder.display()
    );
    rows(&session, &view);
    let mut counted = Vec::new();
    let count = session.script("SELECT n FROM numbers; SELECT 1", &mut |frame| {
        frame.collect()?;
        counted.push(session.statement_records());
        // A query outside of the script is not counted.
        session.sql("SELECT n FROM numbers")?.collect()?;
        counted.push(session.statement_records());
        Ok(())
    });
    count.unwrap();
    assert_eq!(counted, [3, 3, 0, 0]);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_result_is_formatted_as_lines_of_json_and_csv() {
    let session = Session::new();
    let frame = session
        .sql("SELECT 1 AS n, 'a \"b\", c' AS s, NULL AS x, timestamp'2024-01-02 03:04:05' AS t")
        .unwrap();
    let collected = frame.collect().unwrap();
    let lines = |format| {
        let mut lines = Vec::new();
        frame.lines(format, &collected, &mut |part| lines.extend_from_slice(part)).unwrap();
        String::from_utf8(lines).unwrap()
    };
    assert_eq!(
        lines(RowFormat::Json),
        "{\"n\":1,\"s\":\"a \\\"b\\\", c\",\"t\":\"2024-01-02T03:04:05.000Z\"}\n"
    );
    assert_eq!(lines(RowFormat::Csv), "n,s,x,t\n1,\"a \\\"b\\\", c\",,2024-01-02T03:04:05.000Z\n");
    assert_eq!(frame.cells(&collected)[0], ["1", "a \"b\", c", "NULL", "2024-01-02 03:04:05"]);
    let nested = session.sql("SELECT array(1) AS a").unwrap();
    let error = nested.lines(RowFormat::Csv, &[], &mut |_| {}).unwrap_err();
    assert_eq!(error.condition, "UNSUPPORTED_DATA_TYPE_FOR_DATASOURCE", "{error}");
}

#[test]
fn functions_are_shown_and_described() {
    let session = Session::new();
    for (statement, expected) in [
        ("SHOW FUNCTIONS LIKE 'date_tr*'", "date_trunc"),
        ("SHOW SYSTEM FUNCTIONS 'ABS|acos'", "abs, acos"),
        ("SHOW ALL FUNCTIONS IN default LIKE 'absolutely'", ""),
        ("SHOW USER FUNCTIONS", ""),
        (
            "DESCRIBE FUNCTION date_trunc",
            "Function: date_trunc, Usage: date_trunc('HOUR', timestamp) - down to a unit; NULL for a \
             word that is none",
        ),
    ] {
        assert_eq!(rows(&session, statement), [expected], "{statement}");
    }
    let described = rows(&session, "DESC FUNCTION EXTENDED default.ABS").concat();
    assert!(described.contains("> SELECT abs(") && described.contains("Since: 1."), "{described}");
    let error = session.script("DESCRIBE FUNCTION dat_trunc", &mut |_| Ok(())).unwrap_err();
    assert_eq!(error.condition(), "UNRESOLVED_ROUTINE");
    assert!(error.to_string().contains("date_trunc"), "{error}");
    session.register_function(UserFunction::new("mine", [], DataType::Long, |_, _| {
        Err(String::new())
    }));
    assert_eq!(rows(&session, "SHOW USER FUNCTIONS"), ["mine"]);
    assert!(rows(&session, "DESCRIBE FUNCTION Mine").concat().starts_with("Function: Mine"));
    // FUNCTION alone is the name of a table.
    let table = "CREATE TABLE function (a INT); DESCRIBE function; DESC TABLE function";
    assert_eq!(rows(&session, table), ["a int NULL", "a int NULL"]);
}

#[test]
fn tables_are_shown_by_a_pattern() {
    let session = Session::new();
    rows(
        &session,
        "CREATE TABLE people (a INT); CREATE TABLE pens (a INT); CREATE VIEW v AS SELECT 1",
    );
    let names = |statement: &str| rows(&session, statement).concat().replace("Boolean(true)", "");
    for (statement, expected) in [
        ("SHOW TABLES LIKE 'pe*'", " pens ,  people "),
        ("SHOW TABLES IN default 'p*S|V'", " pens ,  v "),
        ("SHOW VIEWS LIKE '*x*'", ""),
        ("SHOW COLUMNS IN people FROM default", "a"),
    ] {
        assert_eq!(names(statement), expected, "{statement}");
    }
    assert_eq!(run(&session, "SHOW TABLES IN other").unwrap_err(), "SCHEMA_NOT_FOUND");
}

#[test]
fn explain_has_the_plan_of_a_query() {
    let session = Session::new();
    session.memory_stream("s", "k INT").unwrap();
    for (statement, parts) in [
        ("EXPLAIN SELECT id FROM range(3) WHERE id > 1", &["== Logical Plan ==", "id"][..]),
        ("EXPLAIN EXTENDED SELECT k FROM s", &["== Schema ==", "== Optimized Logical Plan =="]),
        ("EXPLAIN FORMATTED VALUES 1", &["== Optimized Logical Plan =="]),
        ("EXPLAIN COST TABLE s", &["== Optimized Logical Plan =="]),
        ("EXPLAIN CODEGEN WITH t AS (SELECT 1 AS a) SELECT a FROM t", &["AS a"]),
    ] {
        let plan = rows(&session, statement).concat();
        assert!(parts.iter().all(|part| plan.contains(part)), "{statement}: {plan}");
    }
    assert_eq!(
        run(&session, "EXPLAIN SELECT nothing FROM s").unwrap_err(),
        "UNRESOLVED_COLUMN.WITH_SUGGESTION"
    );
    assert_eq!(run(&session, "EXPLAIN DROP TABLE s").unwrap_err(), "PARSE_SYNTAX_ERROR");
}
