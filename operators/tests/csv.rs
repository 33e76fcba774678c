//! CSV in files and in columns: reading, schema inference and writing give Spark's results.
#![cfg(feature = "sql")]

mod folder;

use folder::Folder;
use millstream::session::Session;
use millstream::table::types::Schema;
use millstream::table::value::Value;

/// The text of a statement's only value, or its error's condition.
fn one(statement: &str) -> String {
    let frame = match Session::new().sql(statement) {
        Ok(frame) => frame,
        Err(error) => return format!("ERR {}", error.condition),
    };
    match frame.collect() {
        Ok(rows) => match rows.first().and_then(|row| row.first()) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) => "NULL".to_string(),
            other => format!("{other:?}"),
        },
        Err(error) => format!("ERR {error}").split(':').next().unwrap_or_default().to_string(),
    }
}

#[test]
fn functions_of_csv() {
    for (expression, expected) in [
        ("CAST(from_csv('a\nb,c', 'x STRING, y STRING') AS STRING)", "{a\nb, c}"),
        ("CAST(from_csv('1,2,3', 'x INT, y INT') AS STRING)", "{1, 2}"),
        ("CAST(from_csv('', 'x INT') AS STRING)", "{null}"),
        ("CAST(from_csv('x', 'x INT, _corrupt_record STRING') AS STRING)", "{null, x}"),
        ("CAST(from_csv(NULL, 'x INT') AS STRING)", "NULL"),
        ("CAST(from_csv('1;x', 'x INT, y STRING', map('sep', ';')) AS STRING)", "{1, x}"),
        ("CAST(from_csv('#a,b', 'x STRING', map('comment', '#')) AS STRING)", "{null}"),
        ("CAST(from_csv('1,x', schema_of_csv('1,a')) AS STRING)", "{1, x}"),
        ("from_csv('a', 'x STRING', map('mode', 'DROPMALFORMED'))", "ERR PARSE_MODE_UNSUPPORTED"),
        ("from_csv('1', 'x ARRAY<INT>')", "ERR UNSUPPORTED_DATATYPE"),
        ("from_csv('1', 1)", "ERR INVALID_SCHEMA.NON_STRING_LITERAL"),
        ("from_csv(1, 'x INT')", "ERR DATATYPE_MISMATCH.UNEXPECTED_INPUT_TYPE"),
        ("from_csv('1', 'x INT', map('quote', 'ab'))", "ERR OPTION_VALUE_EXCEEDS_ONE_CHARACTER"),
        (
            "schema_of_csv('1,abc,2.5,true,2024-01-01,')",
            "STRUCT<_c0: INT, _c1: STRING, _c2: DOUBLE, _c3: BOOLEAN, _c4: DATE, _c5: STRING>",
        ),
        ("schema_of_csv(NULL)", "ERR DATATYPE_MISMATCH.UNEXPECTED_NULL"),
        (
            "to_csv(named_struct('a', 1, 'b', 'x,\"y\"', 'c', CAST(NULL AS INT), 'd', 1.50))",
            "1,\"x,\\\"y\\\"\",,1.50",
        ),
        (
            "to_csv(named_struct('a', CAST(0 AS DECIMAL(18,18)), 'b', X'0102', 'c', '', \
             'd', INTERVAL '1-2' YEAR TO MONTH))",
            "0E-18,[01 02],\"\",INTERVAL '1-2' YEAR TO MONTH",
        ),
        (
            "to_csv(named_struct('a', array(1, 2), 'b', map('k', 1), 'c', named_struct('z', 1, 'y', 'q')))",
            "\"[1, 2]\",{k -> 1},\"{1, q}\"",
        ),
        (
            "to_csv(named_struct('a', named_struct('x', NULL, 'y', array(NULL, 'a')), 'b', map('k', NULL)))",
            "\"{, [, a]}\",{k ->}",
        ),
        ("to_csv(named_struct('a', 1), map('quoteAll', 'true'))", "\"1\""),
        ("to_csv(1)", "ERR DATATYPE_MISMATCH.UNSUPPORTED_INPUT_TYPE"),
    ] {
        assert_eq!(one(&format!("SELECT {expression}")), expected, "{expression}");
    }
}

#[test]
fn times_are_of_the_session() {
    let session = Session::new();
    session.set("spark.sql.session.timeZone", "Asia/Tokyo").unwrap();
    let text = "SELECT to_csv(from_csv('2024-01-05 09:00', 't TIMESTAMP')), \
                to_csv(named_struct('t', TIMESTAMP '1970-01-01 09:00:00'), map('timeZone', 'UTC'))";
    let rows = session.sql(text).unwrap().collect().unwrap();
    let shown = |i: usize| match &rows[0][i] {
        Value::String(text) => text.clone(),
        other => format!("{other:?}"),
    };
    assert_eq!(shown(0), "2024-01-05T09:00:00.000+09:00");
    assert_eq!(shown(1), "1970-01-01T00:00:00.000Z");
    session.set("spark.sql.session.timeZone", "America/New_York").unwrap();
    let text = "SELECT to_csv(named_struct('t', TIMESTAMP '0068-09-03 08:23:58'))";
    let rows = session.sql(text).unwrap().collect().unwrap();
    let seconds = Value::String("0068-09-03T08:23:58.000-04:56:02".into());
    assert_eq!(rows[0][0], seconds, "the zone's offset of old times has seconds");
}

/// A folder with these files.
fn folder_of(name: &str, files: &[(&str, &str)]) -> Folder {
    let folder = Folder::new(name);
    files.iter().for_each(|(file, text)| drop(folder.write(file, text.as_bytes())));
    folder
}

/// The rows of a query over a table `t` of the folder's files, sorted, or the error.
fn query(
    folder: &Folder,
    ddl: Option<&str>,
    options: &[(&str, &str)],
    query: &str,
) -> Result<Vec<String>, String> {
    let session = Session::new();
    let mut reader = session.read().format("csv").option("path", folder.0.display());
    if let Some(ddl) = ddl {
        reader = reader.schema(Schema::parse_ddl(ddl).unwrap());
    }
    for (key, value) in options {
        reader = reader.option(key, value);
    }
    let frame = reader.load().map_err(|error| error.to_string())?;
    frame.create_temp_view("t");
    let rows = session.sql(query).map_err(|error| error.to_string())?.collect();
    let shown = |value: &Value| match value {
        Value::Null => "NULL".to_string(),
        Value::String(text) => text.clone(),
        Value::Long(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    let line = |row: &Vec<Value>| row.iter().map(shown).collect::<Vec<_>>().join("|");
    let mut lines: Vec<String> = rows.map_err(|e| e.to_string())?.iter().map(line).collect();
    lines.sort();
    Ok(lines)
}

/// Columns that a query does not need are not parsed, unless records may span lines or pruning is
/// off.
#[test]
fn a_malformed_column_that_is_not_read_is_no_error() {
    let folder = folder_of("csv-pruning", &[("f.csv", "1,2\nx,4\n1,2,3\n7\n")]);
    let drop = ("mode", "DROPMALFORMED");
    let rows = |options: &[(&str, &str)], sql: &str| {
        query(&folder, Some("a INT, b INT"), options, sql).unwrap().join(" ")
    };
    assert_eq!(rows(&[drop], "SELECT * FROM t"), "1|2");
    assert_eq!(rows(&[drop], "SELECT b FROM t"), "2 2 4 NULL");
    assert_eq!(rows(&[drop], "SELECT a FROM t"), "1 1 7");
    assert_eq!(rows(&[drop], "SELECT count(*) FROM t"), "4");
    for whole in [("multiLine", "true"), ("columnPruning", "false")] {
        assert_eq!(rows(&[drop, whole], "SELECT b FROM t"), "2 4");
        assert_eq!(rows(&[drop, whole], "SELECT count(*) FROM t"), "2");
    }
    let kept = Some("a INT, b INT, _corrupt_record STRING");
    let all = query(&folder, kept, &[], "SELECT * FROM t").unwrap();
    assert_eq!(all, ["1|2|1,2,3", "1|2|NULL", "7|NULL|7", "NULL|4|x,4"]);
    // Which records are bad depends on the columns that are read.
    for only in ["SELECT _corrupt_record FROM t", "SELECT count(_corrupt_record) FROM t"] {
        let error = query(&folder, kept, &[], only).unwrap_err();
        assert!(error.contains("QUERY_ONLY_CORRUPT_RECORD_COLUMN"), "{error}");
    }
    let with_another = "SELECT a, _corrupt_record FROM t WHERE _corrupt_record IS NOT NULL";
    assert_eq!(query(&folder, kept, &[], with_another).unwrap(), ["NULL|x,4"]);
    let fails = query(&folder, Some("a INT, b INT"), &[("mode", "FAILFAST")], "SELECT a FROM t");
    assert!(fails.is_err());
    for limit in [("maxColumns", "2"), ("maxCharsPerColumn", "0")] {
        assert!(query(&folder, kept, &[limit], "SELECT * FROM t").is_err(), "{limit:?}");
    }
}

#[test]
fn headers_and_schemas_of_files() {
    let folder =
        folder_of("csv-header", &[("a.csv", "\n a, b\n1,2\n"), ("b.csv", " a, b\n3.5,x\n")]);
    let inferred =
        [("header", "true"), ("inferSchema", "true"), ("ignoreLeadingWhiteSpace", "true")];
    let rows = query(&folder, None, &inferred, "SELECT typeof(a), typeof(b), b FROM t").unwrap();
    assert_eq!(rows, ["double|string|2", "double|string|x"]);
    let strict = [("header", "true"), ("enforceSchema", "false")];
    let error = query(&folder, Some("x INT, b STRING"), &strict, "SELECT * FROM t").unwrap_err();
    assert!(error.contains("its header has ` a` where the schema has `x`"), "{error}");
}

/// If records may span lines, an unclosed quote takes the rest of the file, up to the maximum
/// record length.
#[test]
fn a_quote_that_is_never_closed() {
    let folder = folder_of("csv-open-quote", &[("f.csv", "1,\"a\n2,b\n3,c\n")]);
    let ddl = Some("a INT, b STRING");
    let lines = [("multiLine", "true")];
    assert_eq!(query(&folder, ddl, &lines, "SELECT * FROM t").unwrap(), ["1|a\n2,b\n3,c\n"]);
    let bounded = [("multiLine", "true"), ("maxRecordBytes", "8")];
    let rows = query(&folder, ddl, &bounded, "SELECT * FROM t").unwrap();
    assert_eq!(rows, ["2|b", "3|c", "NULL|NULL"]);
}

#[test]
fn a_header_in_another_order_is_reported_once() {
    use std::sync::Mutex;
    static NOTICES: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let folder = Folder::new("csv-header");
    std::fs::create_dir_all(folder.0.join("in")).unwrap();
    for file in ["x.csv", "y.csv"] {
        std::fs::write(folder.0.join("in").join(file), "b,a\n1,2\n").unwrap();
    }
    let session = Session::new();
    session.on_notice(|line| NOTICES.lock().unwrap().push(line.to_string()));
    let reader = session.read().format("csv").option("path", folder.0.join("in").display());
    let reader = reader.option("header", true).schema(Schema::parse_ddl("a INT, b INT").unwrap());
    let rows = reader.load().unwrap().collect().unwrap();
    assert_eq!(rows, [[Value::Long(1), Value::Long(2)], [Value::Long(1), Value::Long(2)]]);
    let notices = NOTICES.lock().unwrap();
    let told: Vec<_> = notices.iter().filter(|line| line.contains("its header")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains(".csv: its header has `b` where the schema has `a`"), "{told:?}");
}
