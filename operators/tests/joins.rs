//! Joins with tables, subqueries over tables, queries over tables alone, user-defined functions,
//! and the time of a batch.
#![cfg(feature = "sql")]

use millstream::session::{Session, Trigger};
use millstream::table::expr::user_function::{UserAggregate, UserFunction};
use millstream::table::expr::{call, col};
use millstream::table::types::{DataType, Schema};
use millstream::table::value::Value;
use millstream::{Config, WaitProfile};

const TRIGGERS: [Trigger; 2] =
    [Trigger::Continuous { interval_ns: 5_000_000 }, Trigger::AsSoonAsPossible];

/// `dim(k, v)` contains a key twice, a NULL key and a NULL value; `none` has no rows.
const TABLES: &str = "CREATE TEMPORARY VIEW dim AS SELECT * FROM VALUES ('a', 1), ('a', 2), \
    ('b', 3), (NULL, 4), ('x', NULL) AS t(k, v); \
    CREATE TEMPORARY VIEW none AS SELECT * FROM dim WHERE false";

fn text(row: &[Value]) -> String {
    let one = |value: &Value| match value {
        Value::Null => "-".to_string(),
        Value::String(text) => text.clone(),
        Value::Long(v) => v.to_string(),
        Value::Boolean(v) => v.to_string(),
        other => format!("{other:?}"),
    };
    row.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn session() -> Session {
    let session = Session::new();
    session.script(TABLES, &mut |_| Ok(())).unwrap();
    session
}

/// The rows of a query over the stream `e(w, n)` = (a 1), (a 9), (b 2), (z 5), (NULL 7). Both modes
/// must give the same rows.
fn streamed(sql: &str) -> Vec<String> {
    let answers = TRIGGERS.map(|trigger| {
        let session = session();
        let stream = session.memory_stream("e", "w STRING, n BIGINT").unwrap();
        let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
        let writer = session.sql(sql).unwrap().write_stream().format("memory").query_name("out");
        let query = writer.trigger(trigger).config(config).start().unwrap();
        let row = |w: Option<&str>, n| {
            vec![w.map_or(Value::Null, |w| Value::String(w.into())), Value::Long(n)]
        };
        stream.add([row(Some("a"), 1), row(Some("a"), 9), row(Some("b"), 2)]);
        stream.add([row(Some("z"), 5), row(None, 7)]);
        query.process_all_available().unwrap();
        query.stop().unwrap();
        let rows = session.table("out").unwrap().rows();
        let mut rows: Vec<_> = rows.iter().map(|row| text(row)).collect();
        rows.sort();
        rows
    });
    assert_eq!(answers[0], answers[1], "{sql}");
    let [answer, _] = answers;
    answer
}

/// The rows of a query over tables, in order.
fn batch(sql: &str) -> Vec<String> {
    let rows = session().sql(sql).unwrap_or_else(|error| panic!("{sql}: {error}")).collect();
    rows.unwrap_or_else(|error| panic!("{sql}: {error}")).iter().map(|row| text(row)).collect()
}

#[test]
fn a_stream_is_joined_with_a_table() {
    for (sql, expected) in [
        (
            "SELECT e.n, d.v FROM e JOIN dim d ON e.w = d.k",
            &["1 1", "1 2", "2 3", "9 1", "9 2"][..],
        ),
        ("SELECT e.n, d.v FROM dim d JOIN e ON e.w = d.k AND d.v > 1", &["1 2", "2 3", "9 2"]),
        (
            "SELECT n, v FROM e LEFT JOIN dim ON w = k AND n < 5",
            &["1 1", "1 2", "2 3", "5 -", "7 -", "9 -"],
        ),
        (
            "SELECT n, v FROM dim RIGHT JOIN e ON w = k",
            &["1 1", "1 2", "2 3", "5 -", "7 -", "9 1", "9 2"],
        ),
        ("SELECT n FROM e LEFT SEMI JOIN dim ON w = k", &["1", "2", "9"]),
        ("SELECT n FROM e LEFT ANTI JOIN dim ON w = k", &["5", "7"]),
        ("SELECT n, v FROM e JOIN dim ON n < v", &["1 2", "1 3", "1 4", "2 3", "2 4"]),
        ("SELECT n FROM e CROSS JOIN (SELECT 1 AS one) WHERE n > 5", &["7", "9"]),
        ("SELECT n FROM e, dim WHERE w = k AND v = 3", &["2"]),
        (
            "SELECT k, v, n FROM e JOIN (SELECT k AS w, k, v FROM dim) d USING (w)",
            &["a 1 1", "a 1 9", "a 2 1", "a 2 9", "b 3 2"],
        ),
        (
            "SELECT * FROM e NATURAL JOIN (SELECT k AS w, v FROM dim)",
            &["a 1 1", "a 1 2", "a 9 1", "a 9 2", "b 2 3"],
        ),
        ("SELECT n FROM e JOIN dim ON e.w <=> dim.k WHERE dim.v = 4", &["7"]),
        // Only pairs with equal keys are tested: 1 / 0 would be an error.
        (
            "SELECT n, v FROM (SELECT * FROM e WHERE n <> 2) JOIN dim ON 1 / (n * (v - 3)) < 2 AND w <=> k",
            &["1 1", "1 2", "7 4", "9 1", "9 2"],
        ),
        ("SELECT n, v FROM e JOIN dim ON e.w <=> dim.k AND n = v", &["1 1"]),
        ("SELECT n FROM e LEFT ANTI JOIN dim ON e.w <=> dim.k", &["5"]),
    ] {
        assert_eq!(streamed(sql), expected, "{sql}");
    }
}

#[test]
fn subqueries_over_tables() {
    for (sql, expected) in [
        ("SELECT n FROM e WHERE w IN (SELECT k FROM dim)", &["1", "2", "9"][..]),
        // If the keys contain a NULL, NOT IN of an absent value is NULL.
        ("SELECT n FROM e WHERE w NOT IN (SELECT k FROM dim)", &[]),
        ("SELECT n FROM e WHERE w NOT IN (SELECT k FROM dim WHERE k IS NOT NULL)", &["5"]),
        ("SELECT n FROM e WHERE w NOT IN (SELECT k FROM none)", &["1", "2", "5", "7", "9"]),
        ("SELECT n FROM e WHERE (w IN (SELECT k FROM dim)) IS NULL", &["5", "7"]),
        ("SELECT n FROM e WHERE w IN (SELECT k FROM dim) OR n = 7", &["1", "2", "7", "9"]),
        ("SELECT n FROM e WHERE (w, n) IN (SELECT k, v FROM dim)", &["1"]),
        ("SELECT n FROM e WHERE EXISTS (SELECT 1 FROM none)", &[]),
        ("SELECT n FROM e WHERE NOT EXISTS (SELECT 1 FROM none) AND n < 3", &["1", "2"]),
        (
            "SELECT n FROM e WHERE EXISTS (SELECT 1 FROM dim d WHERE d.k = e.w AND d.v > e.n)",
            &["1", "2"],
        ),
        ("SELECT n FROM e WHERE NOT EXISTS (SELECT * FROM dim WHERE k = w)", &["5", "7"]),
        (
            "SELECT n FROM e WHERE n < 2 OR EXISTS (SELECT 1 FROM dim WHERE k = w AND v = 3)",
            &["1", "2"],
        ),
        ("SELECT n FROM e WHERE n IN (SELECT v FROM dim WHERE k = w)", &["1"]),
        ("SELECT n FROM e WHERE n NOT IN (SELECT v FROM dim WHERE k = w)", &["2", "5", "7", "9"]),
        ("SELECT n FROM e WHERE n > (SELECT max(v) FROM dim)", &["5", "7", "9"]),
        ("SELECT n + (SELECT min(v) FROM dim) AS m FROM e WHERE n = 9", &["10"]),
        ("SELECT n FROM e WHERE n >= (SELECT max(v) FROM dim WHERE k = w)", &["9"]),
        (
            "SELECT w, n, (SELECT count(*) FROM dim WHERE k = w) AS c, (SELECT sum(v) FROM dim WHERE k = w) AS s FROM e",
            &["- 7 0 -", "a 1 2 3", "a 9 2 3", "b 2 1 3", "z 5 0 -"],
        ),
        ("SELECT * FROM e WHERE w NOT IN (SELECT 'a') AND n IN (SELECT 2)", &["b 2"]),
    ] {
        assert_eq!(streamed(sql), expected, "{sql}");
    }
}

#[test]
fn queries_that_a_stream_cannot_answer_are_refused() {
    let session = session();
    session.memory_stream("e", "w STRING, n BIGINT").unwrap();
    for (sql, condition) in [
        ("SELECT n FROM e RIGHT JOIN dim ON w = k", "STREAM_STATIC_JOIN_UNSUPPORTED"),
        ("SELECT n FROM dim LEFT JOIN e ON w = k", "STREAM_STATIC_JOIN_UNSUPPORTED"),
        ("SELECT n FROM e FULL JOIN dim ON w = k", "STREAM_STATIC_JOIN_UNSUPPORTED"),
        ("SELECT v FROM dim LEFT SEMI JOIN e ON w = k", "STREAM_STATIC_JOIN_UNSUPPORTED"),
        (
            "SELECT v FROM dim WHERE k IN (SELECT w FROM e)",
            "INVALID_SUBQUERY_EXPRESSION.STREAMING_QUERY",
        ),
        (
            "SELECT n FROM e WHERE n > (SELECT max(n) FROM e)",
            "INVALID_SUBQUERY_EXPRESSION.STREAMING_QUERY",
        ),
        ("SELECT n FROM e UNION ALL SELECT v FROM dim", "STREAMING_UNION_WITH_TABLE_UNSUPPORTED"),
        ("SELECT v FROM dim", "WRITE_STREAM_NOT_ALLOWED"),
        (
            "SELECT n FROM e WHERE n = (SELECT v FROM dim WHERE k = w)",
            "UNSUPPORTED_SUBQUERY_EXPRESSION_CATEGORY.MUST_AGGREGATE_CORRELATED_SCALAR_SUBQUERY",
        ),
        (
            "SELECT n FROM e WHERE n = (SELECT k, v FROM dim)",
            "INVALID_SUBQUERY_EXPRESSION.SCALAR_SUBQUERY_RETURN_MORE_THAN_ONE_OUTPUT_COLUMN",
        ),
        ("SELECT n FROM e WHERE n = (SELECT v FROM dim)", "SCALAR_SUBQUERY_TOO_MANY_ROWS"),
        ("SELECT nn FROM e WHERE n IN (SELECT v FROM dim)", "UNRESOLVED_COLUMN.WITH_SUGGESTION"),
        ("SELECT n FROM e WHERE n IN (SELECT vv FROM dim)", "UNRESOLVED_COLUMN.WITH_SUGGESTION"),
    ] {
        let started = session.sql(sql).map_err(Into::into).and_then(|frame| {
            frame.write_stream().format("noop").trigger(Trigger::AsSoonAsPossible).start()
        });
        let error = started.err().unwrap_or_else(|| panic!("{sql} was started"));
        assert_eq!(error.condition(), condition, "{sql}: {error}");
    }
}

#[test]
fn batch_queries_over_tables_give_the_expected_rows() {
    for (sql, expected) in [
        (
            "SELECT count(DISTINCT k), count(DISTINCT k, v), sum(DISTINCT length(k)) FROM dim",
            &["3 3 1"][..],
        ),
        (
            "SELECT k, v FROM dim FULL JOIN (SELECT * FROM VALUES ('a'), ('q') AS t(z)) ON k = z ORDER BY v, k",
            &["- -", "x -", "a 1", "a 2", "b 3", "- 4"],
        ),
        (
            "SELECT z, v FROM dim RIGHT JOIN (SELECT * FROM VALUES ('a'), ('q') AS t(z)) ON k = z ORDER BY z, v",
            &["a 1", "a 2", "q -"],
        ),
        ("SELECT k FROM dim WHERE v = (SELECT max(v) FROM dim)", &["-"]),
        ("SELECT k FROM dim UNION SELECT 'q'", &["-", "a", "b", "q", "x"]),
        ("SELECT k FROM dim EXCEPT SELECT 'a'", &["b", "-", "x"]),
        (
            "SELECT k FROM dim INTERSECT SELECT * FROM VALUES (NULL), ('a'), ('z') AS t(k)",
            &["a", "-"],
        ),
        (
            "SELECT k, count(*) AS c FROM dim GROUP BY k HAVING count(*) > (SELECT 1) ORDER BY k",
            &["a 2"],
        ),
    ] {
        let mut rows = batch(sql);
        // The order in which two inputs are read is not defined.
        if sql.contains("UNION") {
            rows.sort();
        }
        assert_eq!(rows, expected, "{sql}");
    }
}

#[test]
fn a_script_runs_a_query_that_ends_and_reads_its_table() {
    let folder = std::env::temp_dir().join(format!("millstream-joins-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("in")).unwrap();
    std::fs::write(folder.join("in/a.csv"), "a,1\nb,2\na,3\n").unwrap();
    let script = format!(
        "CREATE TEMPORARY VIEW t (k STRING, n INT) USING csv OPTIONS (path '{}'); \
         CREATE STREAMING TABLE counts USING memory OPTIONS (outputMode 'complete', trigger \
         'available-now') AS SELECT k, sum(n) AS s FROM STREAM t GROUP BY k; \
         SELECT t.k, n, s FROM t JOIN counts c ON t.k = c.k ORDER BY k, n",
        folder.join("in").display()
    );
    let mut shown = Vec::new();
    let session = Session::new();
    let collect = &mut |frame: millstream::session::DataFrame| {
        shown.extend(frame.collect()?.iter().map(|row| text(row)));
        Ok(())
    };
    session.script(&script, collect).unwrap();
    assert_eq!(shown, ["a 1 4", "a 3 4", "b 2 2"]);
    let endless = script.replace("available-now", "asap");
    let error = Session::new().script(&endless, &mut |_| Ok(())).unwrap_err();
    assert_eq!(error.condition(), "STREAMING_TABLE_IN_SCRIPT");
    std::fs::remove_dir_all(&folder).unwrap();
}

/// A table is read when a query starts. In continuous mode a file that is created later is seen
/// after an epoch has ended at the earliest; here none ends before the rows are processed.
#[test]
fn a_table_of_files_is_read_at_the_start() {
    let folder = std::env::temp_dir().join(format!("millstream-table-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("a.json"), "{\"k\":\"a\",\"v\":1}\n").unwrap();
    let session = Session::new();
    let schema = Schema::parse_ddl("k STRING, v INT").unwrap();
    let table = session.read().format("json").option("path", folder.display()).schema(schema);
    table.load().unwrap().create_temp_view("dim");
    let stream = session.memory_stream("e", "w STRING").unwrap();
    let frame = session.sql("SELECT v FROM e JOIN dim ON w = k").unwrap();
    let hourly = Trigger::Continuous { interval_ns: 3_600_000_000_000 };
    let writer = frame.write_stream().format("memory").query_name("out").trigger(hourly);
    let query = writer.start().unwrap();
    std::fs::write(folder.join("b.json"), "{\"k\":\"b\",\"v\":2}\n").unwrap();
    let key = |k: &str| vec![Value::String(k.to_string())];
    stream.add([key("b"), key("a")]);
    query.process_all_available().unwrap();
    query.stop().unwrap();
    assert_eq!(session.table("out").unwrap().rows(), [[Value::Long(1)]]);
    let table = session.view("dim").unwrap();
    assert_eq!(table.collect().unwrap().len(), 2);
    let refused = session.read().format("socket").option("host", "x").option("port", 1).load();
    assert_eq!(refused.err().unwrap().condition, "UNSUPPORTED_BATCH_DATASOURCE");
    std::fs::remove_dir_all(&folder).unwrap();
}

fn own_functions(session: &Session) {
    session.register_function(UserFunction::new(
        "twice",
        [DataType::Long],
        DataType::Long,
        |args, _| match args[0].long() {
            13 => Err("unlucky".to_string()),
            v => Ok(if args[0].is_null() {
                args[0]
            } else {
                millstream::table::expr::cell::Cell::Long(v * 2)
            }),
        },
    ));
    session.register_aggregate(UserAggregate::new(
        "longest",
        [DataType::String],
        DataType::String,
        [(DataType::String, Value::Null)],
        |state, args| {
            if let Value::String(text) = &args[0] {
                let longer = match &state[0] {
                    Value::String(so_far) => text.len() > so_far.len(),
                    _ => true,
                };
                if longer {
                    state[0] = args[0].clone();
                }
            }
            Ok(())
        },
        |state| Ok(state[0].clone()),
    ));
}

/// The state of user-defined aggregates is checkpointed, and a change of their state type is an
/// incompatible change of the query.
#[test]
fn user_defined_functions_are_usable_in_sql_and_keep_state() {
    let folder = std::env::temp_dir().join(format!("millstream-own-{}", std::process::id()));
    let session = Session::new();
    own_functions(&session);
    let stream = session.memory_stream("e", "w STRING, n BIGINT").unwrap();
    let sql = "SELECT twice(n) AS t, longest(w) AS l FROM e WHERE twice(n) < 100 GROUP BY twice(n)";
    let start = || {
        let writer = session.sql(sql).unwrap().write_stream().output_mode("update");
        let writer = writer.format("memory").query_name("out");
        writer.option("checkpointLocation", folder.display()).start().unwrap()
    };
    let query = start();
    let row = |w: &str, n| vec![Value::String(w.to_string()), Value::Long(n)];
    stream.add([row("abc", 1), row("x", 2), row("ab", 1), row("y", 60)]);
    query.process_all_available().unwrap();
    query.stop().unwrap();
    drop(query);
    let query = start();
    stream.add([row("b", 1), row("longer", 2)]);
    query.process_all_available().unwrap();
    let rows = session.table("out").unwrap().rows();
    assert_eq!(rows.iter().map(|r| text(r)).collect::<Vec<_>>(), ["2 abc", "4 longer"]);
    stream.add([row("b", 13)]);
    let error = query.await_termination().unwrap_err();
    assert_eq!(error.condition(), "FAILED_EXECUTE_UDF");
    drop(query);
    let wrong = session.sql("SELECT twice(w, n) FROM e").err().unwrap();
    assert_eq!(wrong.condition, "WRONG_NUM_ARGS.WITHOUT_SUGGESTION");
    drop(std::fs::remove_dir_all(&folder));
}

/// The current time is the same for all records of a batch, and it never decreases from batch to
/// batch.
#[test]
fn the_current_time_is_that_of_the_batch() {
    let session = Session::new();
    let stream = session.memory_stream("e", "n BIGINT").unwrap();
    let frame = session.view("e").unwrap();
    let now = || call("current_timestamp", []);
    let frame = frame
        .select([
            col("n"),
            now().alias("t"),
            call("unix_date", [call("current_date", [])]).alias("d"),
        ])
        .unwrap();
    let writer = frame.write_stream().format("memory").query_name("out");
    let query = writer.trigger(Trigger::AsSoonAsPossible).start().unwrap();
    let mut times = Vec::new();
    for _ in 0..3 {
        stream.add((0..50).map(|n| vec![Value::Long(n)]));
        query.process_all_available().unwrap();
        let rows = session.table("out").unwrap().take();
        let all: Vec<_> = rows.iter().map(|row| format!("{:?}", row[1])).collect();
        assert!(rows.len() == 50 && all.iter().all(|time| *time == all[0]));
        let Value::Long(micros) = rows[0][1] else { panic!("a time") };
        assert_eq!(rows[0][2], Value::Long(micros.div_euclid(86_400_000_000)));
        times.push(micros);
    }
    query.stop().unwrap();
    assert!(times.is_sorted(), "{times:?}");
    // The time is later than 2020 on any machine with a working clock.
    assert!(times[0] > 1_577_836_800_000_000);
}

/// Without ANSI mode, integers wrap around, and other errors give NULL.
#[test]
fn without_ansi_integers_wrap_around() {
    let session = Session::new();
    session.set("spark.sql.ansi.enabled", "false").unwrap();
    for (sql, expected) in [
        ("2147483647 + 1", "-2147483648"),
        ("9223372036854775807L * 2", "-2"),
        ("- (-128Y)", "-128"),
        ("abs(-2147483648)", "-2147483648"),
        ("cast(300 AS TINYINT)", "44"),
        ("cast(3e9D AS INT)", "2147483647"),
        ("cast(300.7 AS TINYINT)", "44"),
        ("cast('x' AS INT)", "-"),
        ("1 / 0", "-"),
        ("try_add(2147483647, 1)", "-"),
        ("try_cast(300 AS TINYINT)", "-"),
        ("element_at(array(1), 5)", "-"),
    ] {
        let rows = session.sql(&format!("SELECT {sql} AS x")).unwrap().collect().unwrap();
        assert_eq!(text(&rows[0]), expected, "{sql}");
    }
    let sum = "SELECT sum(x) FROM VALUES (9223372036854775807L), (1L) AS t(x)";
    assert_eq!(text(&session.sql(sum).unwrap().collect().unwrap()[0]), i64::MIN.to_string());
}

/// The DataFrame API gives the same results as SQL.
#[test]
fn data_frames_give_the_same_rows_as_sql() {
    use millstream::table::expr::{lit, when};
    let session = session();
    let dim = session.view("dim").unwrap();
    let other = session.sql("SELECT * FROM VALUES ('a', 10), ('q', 20) AS o(k, w)").unwrap();
    let sorted = |frame: millstream::session::DataFrame| {
        let rows = frame.collect().unwrap();
        let mut rows: Vec<_> = rows.iter().map(|row| text(row)).collect();
        rows.sort();
        rows
    };
    let sql = |text: &str| sorted(session.sql(text).unwrap());
    session
        .sql("SELECT * FROM VALUES ('a', 10), ('q', 20) AS o(k, w)")
        .unwrap()
        .create_temp_view("o");
    let (d, o) = (dim.alias("d"), other.alias("o"));
    let on = col("d.k").eq(col("o.k"));
    for how in ["inner", "left_outer", "right", "full", "left_semi", "leftanti"] {
        let words = match how {
            "inner" => "JOIN",
            "left_outer" => "LEFT JOIN",
            "right" => "RIGHT JOIN",
            "full" => "FULL JOIN",
            "left_semi" => "LEFT SEMI JOIN",
            _ => "LEFT ANTI JOIN",
        };
        let wanted = sql(&format!("SELECT * FROM dim d {words} o ON d.k = o.k"));
        assert_eq!(sorted(d.join(&o, &on, how).unwrap()), wanted, "{how}");
        let wanted = sql(&format!("SELECT * FROM dim d {words} o USING (k)"));
        assert_eq!(sorted(d.join_using(&o, ["k"], how).unwrap()), wanted, "{how}");
    }
    let pairs: [(millstream::session::DataFrame, &str); 14] = [
        (d.cross_join(&o).unwrap(), "SELECT * FROM dim CROSS JOIN o"),
        (dim.drop(["V", "nothing"]).unwrap(), "SELECT k FROM dim"),
        (
            dim.with_column_renamed("v", "x").unwrap().select([col("x")]).unwrap(),
            "SELECT v FROM dim",
        ),
        (
            dim.with_columns([("v", col("v").add(1)), ("w", col("v"))]).unwrap(),
            "SELECT k, v + 1, v FROM dim",
        ),
        (dim.select_expr(["upper(k) AS u", "v * 2"]).unwrap(), "SELECT upper(k), v * 2 FROM dim"),
        (
            dim.filter_expr("v > 1 AND k IS NOT NULL").unwrap(),
            "SELECT * FROM dim WHERE v > 1 AND k IS NOT NULL",
        ),
        (
            dim.rollup([col("k")]).agg([call("count", [lit(1)])]).unwrap(),
            "SELECT k, count(1) FROM dim GROUP BY ROLLUP (k)",
        ),
        (
            dim.cube([col("k"), col("v")]).unwrap().count().unwrap(),
            "SELECT k, v, count(*) FROM dim GROUP BY CUBE (k, v)",
        ),
        (dim.group_by([col("k")]).max(["v"]).unwrap(), "SELECT k, max(v) FROM dim GROUP BY k"),
        (dim.group_by([]).min(["v", "k"]).unwrap(), "SELECT min(v), min(k) FROM dim"),
        (
            dim.filter(&col("v").is_in([1, 3]).not()).unwrap(),
            "SELECT * FROM dim WHERE NOT v IN (1, 3)",
        ),
        (
            dim.select([when(col("v").lt(2), "low")
                .when(col("v").is_null(), "none")
                .otherwise("high")])
                .unwrap(),
            "SELECT CASE WHEN v < 2 THEN 'low' WHEN v IS NULL THEN 'none' ELSE 'high' END FROM dim",
        ),
        (
            dim.select([
                call("count", [col("k")]).distinct(),
                call("sum", [col("v")]).filter(col("v").between(2, 3)),
            ])
            .unwrap(),
            "SELECT count(DISTINCT k), sum(v) FILTER (WHERE v BETWEEN 2 AND 3) FROM dim",
        ),
        (
            dim.union_by_name(&dim.select([col("v"), col("k")]).unwrap()).unwrap(),
            "SELECT * FROM dim UNION ALL SELECT * FROM dim",
        ),
    ];
    for (frame, text) in pairs {
        assert_eq!(sorted(frame), sql(text), "{text}");
    }
    let wider = dim.select([col("v"), col("k"), col("v").alias("w")]).unwrap();
    let error = dim.union_by_name(&wider).map(|_| ()).unwrap_err();
    assert_eq!(error.condition, "NUM_COLUMNS_MISMATCH");
    // DISTINCT and FILTER belong to the aggregate inside of an alias or a cast.
    let aliased = call("sum", [col("v")]).cast(DataType::String).alias("s");
    let filtered = dim.select([aliased.filter(col("v").between(2, 3))]).unwrap();
    assert_eq!(
        sorted(filtered),
        sql("SELECT CAST(sum(v) FILTER (WHERE v BETWEEN 2 AND 3) AS STRING) AS s FROM dim")
    );
    let first = std::sync::Arc::new(UserAggregate::new(
        "any_of",
        [DataType::Long],
        DataType::Long,
        [(DataType::Long, Value::Null)],
        |_, _| Ok(()),
        |state| Ok(state[0].clone()),
    ));
    for (expr, condition) in [
        (first.call([col("v")]).filter(col("v").gt(1)), "NOT_YET_SUPPORTED"),
        (first.call([col("v")]).distinct(), "NOT_YET_SUPPORTED"),
        (col("v").distinct(), "INVALID_SQL_SYNTAX.FUNCTION_WITH_UNSUPPORTED_SYNTAX"),
        (
            col("v").cast(DataType::Int).filter(col("v").gt(1)),
            "INVALID_SQL_SYNTAX.FUNCTION_WITH_UNSUPPORTED_SYNTAX",
        ),
    ] {
        let error = dim.select([expr]).map(|_| ()).unwrap_err();
        assert!(error.condition.starts_with(condition), "{}", error.condition);
    }
    let rows = dim.order_by([col("v").desc().nulls_first()]).unwrap().limit(2).collect().unwrap();
    assert_eq!(rows.iter().map(|row| text(row)).collect::<Vec<_>>(), ["x -", "- 4"]);
    assert!(dim.count().unwrap() == 5 && !dim.is_streaming());
}

/// A subexpression that occurs several times outside lambdas is evaluated once per record, and only
/// if it is needed.
#[test]
fn common_subexpressions_are_computed_once() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    for (sql, calls) in [
        ("SELECT slow(n) + 1 AS a, slow(n) * slow(n) AS b FROM t", 4),
        ("SELECT n FROM t WHERE slow(n) > 1 OR slow(n) < 0", 4),
        ("SELECT CASE WHEN n > 2 THEN slow(n) ELSE slow(n) + slow(n) END AS a FROM t", 4),
        ("SELECT if(n > 2, slow(n), 0) AS a, if(n > 3, slow(n), 0) AS b FROM t", 2),
        (
            "SELECT slow(n) AS a, sum(slow(n)) AS b, max(slow(n) + 1) AS c FROM t GROUP BY slow(n)",
            4,
        ),
        ("SELECT a + a AS b FROM (SELECT slow(n) AS a FROM t)", 4),
        ("SELECT transform(array(n, n), x -> slow(x) + slow(x)) AS a FROM t", 16),
    ] {
        let session = Session::new();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        session.register_function(UserFunction::new(
            "slow",
            [DataType::Long],
            DataType::Long,
            move |args, _| {
                counted.fetch_add(1, Ordering::Relaxed);
                Ok(args[0])
            },
        ));
        session
            .script(
                "CREATE TEMP VIEW t AS SELECT * FROM VALUES (1L), (2L), (3L), (4L) AS t(n)",
                &mut |_| Ok(()),
            )
            .unwrap();
        let rows = session.sql(sql).unwrap().collect().unwrap();
        assert!(!rows.is_empty());
        assert_eq!(count.load(Ordering::Relaxed), calls, "{sql}");
    }
}

/// After a join two columns may have one name. They do not prevent changes of other columns.
#[test]
fn columns_of_a_data_frame_change_beside_two_of_one_name() {
    let session = Session::new();
    let table = |sql: &str| session.sql(sql).unwrap();
    let left = table("SELECT * FROM VALUES ('a', 1) AS l(k, v)").alias("l");
    let right = table("SELECT * FROM VALUES ('a', 2) AS r(k, w)").alias("r");
    let joined = left.join(&right, &col("l.k").eq(col("r.k")), "inner").unwrap();
    let shown = |frame: millstream::table::error::PlanResult<millstream::session::DataFrame>| {
        let frame = frame.unwrap();
        let rows: Vec<_> = frame.collect().unwrap().iter().map(|row| text(row)).collect();
        (frame.columns().join(" "), rows.join(", "))
    };
    let pair = |names: &str, row: &str| (names.to_string(), row.to_string());
    assert_eq!(shown(joined.with_column("v", col("v").add(1))), pair("k v k w", "a 2 a 2"));
    assert_eq!(shown(joined.with_column("k", col("v"))), pair("k v k w", "1 1 1 2"));
    let twice = joined.with_columns([("x", col("w")), ("X", col("v"))]).err().unwrap();
    assert_eq!(twice.condition, "COLUMN_ALREADY_EXISTS");
    let added = joined.with_columns([("x", col("w")), ("w", col("v"))]);
    assert_eq!(shown(added), pair("k v k w x", "a 1 a 1 2"));
    assert_eq!(shown(joined.with_column_renamed("v", "z")), pair("k z k w", "a 1 a 2"));
    assert_eq!(shown(joined.drop(["v"])), pair("k k w", "a a 2"));
    assert_eq!(shown(joined.drop(["k"])), pair("v w", "1 2"));
}

/// A condition that is copied below the projections would double at each of them.
#[test]
fn a_condition_above_many_projections_is_planned_in_time() {
    for watermark in ["", " WATERMARK timestamp DELAY OF INTERVAL 1 SECOND"] {
        let mut query = format!("SELECT value AS a FROM STREAM r{watermark}");
        for _ in 0..60 {
            query = format!("SELECT a + a AS a FROM ({query})");
        }
        let session = Session::new();
        session.read_stream().format("rate").load().unwrap().create_temp_view("r");
        let rows = session.sql(&format!("SELECT * FROM ({query}) WHERE a > 0")).unwrap();
        let query = rows.write_stream().format("noop").start().unwrap();
        query.stop().unwrap();
    }
}
