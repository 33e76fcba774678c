//! Files that a query names in FROM without a view.
#![cfg(feature = "sql")]

mod folder;
mod script;

use folder::Folder;
use millstream::session::Session;
use script::{rows, run};

#[test]
fn files_are_named_by_format_and_path() {
    let folder = Folder::new("files-in-from");
    folder.write("x.csv", b"1,a\n2,b\n");
    folder.write("many/1.json", b"{\"n\":1}\n");
    folder.write("many/2.json", b"{\"n\":2}\n");
    let (session, at) = (Session::new(), folder.0.display());
    for (query, expected) in [
        (format!("SELECT * FROM csv.`{at}/x.csv`"), "1 a, 2 b"),
        (format!("SELECT t._c1 FROM CSV.`{at}/x.csv` AS t WHERE _c0 = 2"), "b"),
        (format!("SELECT * FROM '{at}/x.csv'"), "1 a, 2 b"),
        (format!("SELECT sum(n) FROM json.`{at}/many`"), "3"),
        (format!("SELECT sum(n) FROM json.`{at}/many/*.json`"), "3"),
        (format!("SELECT sum(n) FROM '{at}/many/*.json'"), "3"),
        (format!("SELECT value FROM text.`{at}/x.csv`"), "1,a, 2,b"),
        (format!("SELECT `1`, a FROM csv.`{at}/x.csv` WITH (header = true)"), "2 b"),
        (format!("SELECT _c0 + 1 FROM csv.`{at}/x.csv` WITH ('inferSchema' = 'true')"), "2, 3"),
        (format!("DESCRIBE csv.`{at}/x.csv`"), "_c0 string NULL, _c1 string NULL"),
        (format!("SELECT * FROM csv.`{at}/x.csv` TABLESAMPLE (1 ROWS)"), "1 a"),
        (format!("CREATE TABLE t AS SELECT * FROM csv.`{at}/x.csv`; SELECT count(*) FROM t"), "2"),
    ] {
        assert_eq!(rows(&session, &query), [expected], "{query}");
    }
    // A view may have the name of a format.
    let query = format!("WITH csv AS (SELECT 7 AS n) SELECT n FROM csv, csv.`{at}/x.csv`");
    assert_eq!(rows(&session, &query), ["7, 7"]);
}

#[test]
fn read_files_takes_a_path_a_format_a_schema_and_options() {
    let folder = Folder::new("read-files");
    folder.write("x.csv", b"n;s\n1;a\n");
    folder.write("x.data", b"{\"n\":5}\n");
    let (session, at) = (Session::new(), folder.0.display());
    for (query, expected) in [
        (format!("read_files('{at}/x.csv', header => true, sep => ';')"), "1 a"),
        (format!("read_files('{at}/x.data', format => 'json')"), "5"),
        (format!("read_files(format => 'JSON', path => '{at}/x.' || 'data') AS t"), "5"),
        (
            format!(
                "READ_FILES('{at}/x.csv', schema => 'n INT, s STRING', sep => ';', header => 'true')"
            ),
            "1 a",
        ),
    ] {
        assert_eq!(rows(&session, &format!("SELECT * FROM {query}")), [expected], "{query}");
    }
    for (query, condition) in [
        ("read_files()".to_string(), "REQUIRED_PARAMETER_NOT_FOUND"),
        (format!("read_files('{at}/x.data')"), "DATA_SOURCE_NOT_FOUND"),
        (format!("read_files('{at}/x.data', format => 'kafka')"), "DATA_SOURCE_NOT_FOUND"),
        (format!("read_files('{at}/x.csv', 'csv')"), "UNEXPECTED_POSITIONAL_ARGUMENT"),
        (
            format!("read_files('{at}/x.csv', sep => ';', SEP => ',')"),
            "DUPLICATE_ROUTINE_PARAMETER_ASSIGNMENT.DOUBLE_NAMED_ARGUMENT_REFERENCE",
        ),
        (format!("read_files('{at}/x.csv', sep => n)"), "PARSE_SYNTAX_ERROR"),
        (format!("read_files('{at}/none.csv')"), "PATH_NOT_FOUND"),
    ] {
        let ran = run(&session, &format!("SELECT * FROM {query}"));
        assert_eq!(ran.unwrap_err(), condition, "{query}");
    }
}

#[test]
fn files_that_cannot_be_read_are_refused_with_their_path() {
    let session = Session::new();
    for (relation, condition, path) in [
        ("csv.`/nowhere/x.csv`", "PATH_NOT_FOUND", "/nowhere/x.csv"),
        ("json.`/nowhere/*.json`", "PATH_NOT_FOUND", "/nowhere"),
        ("'/nowhere/x.txt.gz'", "PATH_NOT_FOUND", "/nowhere/x.txt.gz"),
        ("'/nowhere/x'", "DATA_SOURCE_NOT_FOUND", "/nowhere/x"),
        ("csv.``", "INVALID_EMPTY_LOCATION", "path"),
        ("kafka.`topic`", "UNSUPPORTED_DATASOURCE_FOR_DIRECT_QUERY", "kafka"),
        ("avro.`x`", "TABLE_OR_VIEW_NOT_FOUND", "avro.x"),
    ] {
        let error = session.sql(&format!("SELECT * FROM {relation}")).err().unwrap();
        assert_eq!(error.condition, condition, "{relation}");
        assert!(error.reason.contains(path), "{relation}: {}", error.reason);
        assert!(error.place.line == 1, "{relation}");
    }
    let error = session.sql("SELECT * FROM sales.csv").err().unwrap();
    assert_eq!(error.condition, "TABLE_OR_VIEW_NOT_FOUND");
    assert!(error.fix.contains("csv.`sales.csv`"), "{}", error.fix);
}

#[test]
fn files_of_a_query_may_be_read_as_a_stream() {
    let folder = Folder::new("stream-of-files");
    folder.write("x.csv", b"1\n2\n");
    let (session, at) = (Session::new(), folder.0.display());
    for relation in [
        format!("csv.`{at}`"),
        format!("'{at}/x.csv'"),
        format!("('{at}/x.csv')"),
        format!("read_files('{at}', format => 'csv', schema => 'n INT')"),
    ] {
        let frame = session.sql(&format!("SELECT * FROM STREAM {relation}")).unwrap();
        assert!(frame.collect().is_err(), "a stream has no end: {relation}");
    }
}

#[test]
fn an_option_cannot_name_another_path() {
    let folder = Folder::new("two-paths");
    folder.write("x.csv", b"1\n");
    let (session, at) = (Session::new(), folder.0.display());
    for option in ["path", "PATH"] {
        let sql = format!("SELECT * FROM csv.`{at}` WITH ({option} = '/nowhere')");
        let error = session.sql(&sql).err().unwrap();
        assert_eq!(error.condition, "PARSE_SYNTAX_ERROR", "{sql}");
        assert!(error.reason.contains("`path`"), "{}", error.reason);
    }
}
