//! The functions that tell where a row comes from. The expected results are those of Spark 4.3.
#![cfg(feature = "sql")]

mod folder;

use folder::Folder;
use millstream::session::Session;
use millstream::table::expr::{call, col, lit};
use millstream::table::types::Schema;
use millstream::table::value::Value;
use millstream_engine::epoch::trigger::Trigger;

/// A session with the views `j`, of two JSON files, `p`, of a CSV file, and the stream `sj` of the
/// files of `j`.
fn session(folder: &Folder) -> Session {
    folder.write("j d/a.json", b"{\"a\":1}\n{\"a\":2}\n");
    folder.write("j d/b.json", b"{\"a\":3}\n");
    folder.write("p/x.csv", b"1\n2\n");
    let session = Session::new();
    for (view, format, path) in [("j", "json", "j d"), ("p", "csv", "p")] {
        let reader = session.read().format(format).schema(Schema::parse_ddl("a INT").unwrap());
        let path = folder.0.join(path);
        reader.option("path", path.display()).load().unwrap().create_temp_view(view);
    }
    let reader = session.read_stream().format("json").schema(Schema::parse_ddl("a INT").unwrap());
    let path = folder.0.join("j d");
    reader.option("path", path.display()).load().unwrap().create_temp_view("sj");
    session
}

/// The rows of a query, or the condition of its error. The folder's path is left out.
fn shown(session: &Session, folder: &Folder, sql: &str) -> String {
    let frame = match session.sql(sql) {
        Ok(frame) => frame,
        Err(error) => return error.condition.clone(),
    };
    match frame.collect() {
        Ok(rows) => {
            let rows: Vec<_> = frame.cells(&rows).iter().map(|row| row.join(",")).collect();
            let prefix = format!("file://{}/", folder.0.display());
            rows.join(" ").replace(&prefix, "")
        }
        Err(error) => error.condition().to_string(),
    }
}

#[test]
fn a_row_knows_its_file() {
    let folder = Folder::new("row-origin");
    let session = session(&folder);
    for (sql, expected) in [
        (
            "SELECT a, input_file_name(), input_file_block_start(), input_file_block_length() \
             FROM j ORDER BY a",
            "1,j%20d/a.json,0,16 2,j%20d/a.json,0,16 3,j%20d/b.json,0,8",
        ),
        ("SELECT input_file_name(), input_file_block_start(), input_file_block_length()", ",-1,-1"),
        ("SELECT input_file_name() || 'x' FROM VALUES (1) t(a)", "x"),
        (
            "SELECT input_file_name() FROM (SELECT a+1 AS b FROM j WHERE a > 1) ORDER BY b",
            "j%20d/a.json j%20d/b.json",
        ),
        ("SELECT *, input_file_name() FROM p WHERE a = 1", "1,p/x.csv"),
        (
            "SELECT *, input_file_name() FROM (SELECT a, a FROM p AS q) AS r WHERE 1 = 1 LIMIT 1",
            "1,1,p/x.csv",
        ),
        (
            "SELECT input_file_name(), count(*) FROM j GROUP BY 1 ORDER BY 1",
            "j%20d/a.json,2 j%20d/b.json,1",
        ),
        ("SELECT count(*) FROM j GROUP BY input_file_name() ORDER BY 1", "1 2"),
        ("SELECT input_file_name() || 'x' FROM (SELECT a FROM j GROUP BY a)", "x x x"),
        ("SELECT input_file_name() || 'x' FROM (SELECT a FROM j LIMIT 2)", "x x"),
        ("SELECT input_file_name() || 'x' FROM (SELECT DISTINCT a FROM p)", "x x"),
        (
            "SELECT a, input_file_name() FROM j JOIN p USING (a)",
            "MULTI_SOURCES_UNSUPPORTED_FOR_EXPRESSION",
        ),
        (
            "SELECT input_file_name() AS f FROM (SELECT a FROM j UNION ALL SELECT a FROM p) ORDER BY f",
            "j%20d/a.json j%20d/a.json j%20d/b.json p/x.csv p/x.csv",
        ),
        ("SELECT a FROM j ORDER BY input_file_name() DESC, a", "3 1 2"),
        ("SELECT a FROM j WHERE input_file_name() LIKE '%a.json'", "1 2"),
        ("SELECT a FROM (SELECT a, input_file_name() AS f FROM j) WHERE f LIKE '%a.json'", "1 2"),
        ("SELECT a, (SELECT input_file_name() FROM p LIMIT 1) FROM j WHERE a > 2", "3,p/x.csv"),
        ("SELECT input_file_name(1)", "WRONG_NUM_ARGS.WITHOUT_SUGGESTION"),
        // Spark gives the file here, depending on how it joins.
        ("SELECT input_file_name() FROM j JOIN VALUES (1) v(b) ON a = b", "NOT_YET_SUPPORTED"),
    ] {
        assert_eq!(shown(&session, &folder, sql), expected, "{sql}");
    }
    let table = session.sql("SELECT a FROM j WHERE a < 3").unwrap();
    let of_a =
        table.filter(&call("endswith", [call("input_file_name", []), lit("a.json")])).unwrap();
    assert_eq!(of_a.columns(), ["a"]);
    assert_eq!(of_a.count().unwrap(), 2);
    let starts = of_a.select([col("a"), call("input_file_block_start", [])]).unwrap();
    assert_eq!(starts.collect().unwrap()[1], [Value::Long(2), Value::Long(0)]);
}

#[test]
fn rows_have_numbers_and_partitions() {
    let folder = Folder::new("row-numbers");
    let session = session(&folder);
    session.set("millstream.parallelism", "3").unwrap();
    for (sql, expected) in [
        ("SELECT monotonically_increasing_id(), a FROM p ORDER BY a", "0,1 1,2"),
        (
            "SELECT monotonically_increasing_id() AS i FROM VALUES (1),(2),(3) t(a) \
             WHERE monotonically_increasing_id() > 0",
            "0 1",
        ),
        (
            "SELECT monotonically_increasing_id(), monotonically_increasing_id() + 1 \
             FROM VALUES (1),(2),(3) t(a)",
            "0,1 1,2 2,3",
        ),
        (
            "SELECT monotonically_increasing_id() FROM VALUES (1),(2),(3) t(a) ORDER BY a DESC",
            "2 1 0",
        ),
        (
            "SELECT monotonically_increasing_id(), if(a > 2, monotonically_increasing_id(), -1) \
             FROM VALUES (1),(2),(3) t(a)",
            "0,-1 1,-1 2,0",
        ),
        (
            "SELECT transform(array(1,2), x -> monotonically_increasing_id()) FROM VALUES (1),(2) t(a)",
            "[0, 1] [2, 3]",
        ),
        (
            "SELECT max(monotonically_increasing_id()) FROM VALUES (1) t(a)",
            "AGGREGATE_FUNCTION_WITH_NONDETERMINISTIC_EXPRESSION",
        ),
        (
            "SELECT monotonically_increasing_id() FROM (SELECT a % 2 AS b FROM range(9) AS t(a) \
             GROUP BY a % 2)",
            "0 1",
        ),
        ("SELECT spark_partition_id(), count(*) FROM VALUES (1),(2),(3) t(a) GROUP BY 1", "0,3"),
        (
            "SELECT typeof(monotonically_increasing_id()), typeof(spark_partition_id()), \
             typeof(input_file_name()), typeof(input_file_block_start())",
            "bigint,int,string,bigint",
        ),
    ] {
        assert_eq!(shown(&session, &folder, sql), expected, "{sql}");
    }
}

#[test]
fn rows_of_a_stream_know_their_file_and_have_no_numbers() {
    let folder = Folder::new("row-origin-stream");
    let session = session(&folder);
    let numbered = session.sql("SELECT monotonically_increasing_id() FROM sj").unwrap();
    let numbered = numbered.write_stream().format("memory").query_name("o").check().unwrap_err();
    assert_eq!(numbered.condition, "_LEGACY_ERROR_TEMP_3102");
    let frame = session.sql("SELECT a, input_file_name() AS f, spark_partition_id() AS p FROM sj");
    let writer = frame.unwrap().write_stream().format("memory").query_name("of_files");
    writer.trigger(Trigger::AvailableNow).start().unwrap().await_termination().unwrap();
    let rows = shown(&session, &folder, "SELECT * FROM of_files ORDER BY a");
    assert_eq!(rows, "1,j%20d/a.json,0 2,j%20d/a.json,0 3,j%20d/b.json,0");
}
