//! The formats of `millstream sql`.

mod common;

use common::{Scratch, millstream};
use std::process::{Output, Stdio};

const SCRIPT: &str = "SELECT * FROM VALUES (1, 'a,b', NULL), (2, 'c|d', 1.50) AS t(n, s, d)";

fn sql(script: &str, args: &[&str]) -> Output {
    millstream().args(["sql", script]).args(args).output().unwrap()
}

fn printed(script: &str, args: &[&str]) -> String {
    let output = sql(script, args);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{script}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_result_is_a_table_json_lines_csv_or_markdown() {
    let table = "+---+---+----+\n|n  |s  |d   |\n+---+---+----+\n|1  |a,b|NULL|\n|2  |c|d|1.50|\n\
                 +---+---+----+\n";
    assert_eq!(printed(SCRIPT, &[]), table);
    assert_eq!(printed(SCRIPT, &["--format", "table"]), table);
    assert_eq!(
        printed(SCRIPT, &["--format", "json"]),
        "{\"n\":1,\"s\":\"a,b\"}\n{\"n\":2,\"s\":\"c|d\",\"d\":1.50}\n"
    );
    assert_eq!(printed(SCRIPT, &["--format", "csv"]), "n,s,d\n1,\"a,b\",\n2,c|d,1.50\n");
    assert_eq!(
        printed(SCRIPT, &["--format", "markdown"]),
        "| n | s    | d    |\n|---|------|------|\n| 1 | a,b  | NULL |\n| 2 | c\\|d | 1.50 |\n"
    );
}

/// A reader of JSON lines or CSV would not see that rows are missing.
#[test]
fn tables_are_cut_by_default_and_lines_are_not() {
    let many = "SELECT id FROM range(1001)";
    assert!(printed(many, &[]).ends_with("only showing top 1000 rows\n"));
    assert_eq!(printed(many, &["--format", "json"]).lines().count(), 1001);
    assert_eq!(printed(many, &["--format", "csv", "--rows", "2"]), "id\n0\n1\n");
    assert_eq!(sql(SCRIPT, &["--format", "csv", "--truncate"]).status.code(), Some(2));
}

#[test]
fn console_sinks_print_lines_or_refuse_to() {
    let scratch = Scratch::new("sql-formats");
    scratch.write("in.csv", "a\nb\na\n");
    let view = format!(
        "CREATE TEMPORARY VIEW words (word STRING) USING csv OPTIONS (path '{}');",
        scratch.path("in.csv")
    );
    let query = |mode: &str, select: &str| {
        format!(
            "{view} CREATE STREAMING TABLE t USING console OPTIONS (outputMode '{mode}', trigger \
             'available-now') AS {select}"
        )
    };
    let words = query("append", "SELECT word FROM STREAM words");
    assert!(printed(&words, &[]).contains("Batch: 0"));
    let json = "{\"word\":\"a\"}\n{\"word\":\"b\"}\n{\"word\":\"a\"}\n";
    assert_eq!(printed(&words, &["--format", "json"]), json);
    assert_eq!(printed(&words, &["--format", "csv"]), "word\na\nb\na\n");
    let counts = "SELECT word, count(*) AS n FROM STREAM words GROUP BY word";
    let updated = printed(&query("update", counts), &["--format", "json"]);
    let mut updated: Vec<_> = updated.lines().collect();
    updated.sort_unstable();
    assert_eq!(updated, ["{\"word\":\"a\",\"n\":2}", "{\"word\":\"b\",\"n\":1}"]);
    for (script, format) in [(query("complete", counts), "json"), (words, "markdown")] {
        let output = sql(&script, &["--format", format]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains("UNSUPPORTED_OPTION"), "{error}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn without_a_query_standard_input_is_a_script() {
    use std::io::Write;
    let mut command = millstream();
    command.args(["sql", "--format", "json"]).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let script =
        "CREATE TABLE t (n INT);\nINSERT INTO t VALUES (1), (2);\nSELECT sum(n) AS s FROM t;";
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "{\"s\":3}\n");
    // Neither a prompt nor a time nor progress.
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
