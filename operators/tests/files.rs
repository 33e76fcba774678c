//! File sources with Spark's options, over real folders.
#![cfg(feature = "sql")]

mod folder;
mod waiting;

use folder::Folder;
use millstream::session::{Session, Trigger};
use millstream::table::types::Schema;
use millstream::table::value::Value;
use millstream::{Config, WaitProfile};
use std::path::{Path, PathBuf};

/// The first column of a stream's rows, in order, from runs on one checkpoint. Each run stops as
/// soon as it has read a row.
fn resumed(
    rows: usize,
    checkpoint: &Path,
    open: impl Fn(&Session) -> millstream::session::DataFrame,
) -> Vec<Value> {
    let mut seen = Vec::new();
    for run in 0.. {
        assert!(run < 10_000, "{} of {rows} rows", seen.len());
        let session = Session::new();
        let writer = open(&session).write_stream().format("memory").query_name("out");
        let query = writer
            .option("checkpointLocation", checkpoint.display())
            .trigger(Trigger::Continuous { interval_ns: 1_000_000 })
            .start()
            .unwrap();
        let progress = || (query.totals().records_in, query.exception());
        waiting::until("a row", progress, |(rows, error)| *rows > 0 || error.is_some());
        query.stop().unwrap();
        seen.extend(session.table("out").unwrap().take());
        if seen.len() >= rows {
            break;
        }
    }
    seen.into_iter().map(|mut row| row.swap_remove(0)).collect()
}

/// All rows of a folder's files, sorted, and the number of malformed records.
fn read(
    format: &str,
    ddl: Option<&str>,
    path: &Path,
    options: &[(&str, &str)],
) -> (Vec<String>, u64) {
    let session = Session::new();
    let mut reader = session.read_stream().format(format).option("path", path.display());
    if let Some(ddl) = ddl {
        reader = reader.schema(Schema::parse_ddl(ddl).unwrap());
    }
    for (key, value) in options {
        reader = reader.option(key, value);
    }
    let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
    let writer = reader.load().unwrap().write_stream().format("memory").query_name("out");
    let query = writer.trigger(Trigger::AvailableNow).config(config).start().unwrap();
    query.await_termination().unwrap();
    assert_eq!(query.status().message, "Stopped");
    let one = |row: &Vec<Value>| {
        let texts: Vec<_> = row
            .iter()
            .map(|value| match value {
                Value::Null => "-".to_string(),
                Value::String(text) => text.clone(),
                Value::Long(n) => n.to_string(),
                other => format!("{other:?}"),
            })
            .collect();
        texts.join("|")
    };
    let mut rows: Vec<_> = session.table("out").unwrap().rows().iter().map(one).collect();
    rows.sort();
    let totals = query.totals();
    (rows, totals.bad_records + totals.permissive_records)
}

#[test]
fn json_is_read_to_the_letter() {
    let folder = Folder::new("json-letter");
    let lines = "\u{FEFF}{'id': 1.10, 's': [1E5 , {}]}\n[{\"id\":2}, {\"id\":3}]\n{\"id\":4,\"s\":\"cut\n[]\n\n";
    folder.write("in/a.json", lines.as_bytes());
    let ddl = "id STRING, s STRING, _corrupt_record STRING";
    let path = folder.0.join("in");
    assert_eq!(
        read("json", Some(ddl), &path, &[]),
        (
            ["-|-|{\"id\":4,\"s\":\"cut", "1.10|[1E5 , {}]|-", "2|-|-", "3|-|-"]
                .map(String::from)
                .to_vec(),
            1
        )
    );
    // The whole file is one record, and only its first value is read.
    let (rows, bad) = read("json", Some(ddl), &path, &[("multiLine", "true")]);
    assert_eq!((rows, bad), (vec!["1.10|[1E5 , {}]|-".to_string()], 0));
    folder.write("bad/a.json", b"[{\"id\":1},\n{\"id\":2},\n{\"id\":]\n");
    let (rows, bad) =
        read("json", Some("id INT, s STRING"), &folder.0.join("bad"), &[("multiLine", "true")]);
    assert_eq!((rows, bad), (vec!["-|-".to_string()], 1), "all of an array, or nothing");
}

#[test]
fn json_and_csv_in_other_character_sets() {
    let folder = Folder::new("charsets");
    let utf16: Vec<u8> = "\u{FEFF}[{\"s\":\"é\"},\n{\"s\":\"日\"}]"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    folder.write("json/a.json", &utf16);
    folder.write("csv/a.csv", b"\xE9,1\n\x80,2\n");
    let rows = |rows: [&str; 2]| (rows.map(String::from).to_vec(), 0);
    let json = read("json", Some("s STRING"), &folder.0.join("json"), &[("multiLine", "true")]);
    assert_eq!(json, rows(["é", "日"]), "the file tells its character set");
    let csv = |encoding: &str| {
        let ddl = Some("s STRING, n INT");
        read("csv", ddl, &folder.0.join("csv"), &[("encoding", encoding)])
    };
    assert_eq!(csv("ISO-8859-1"), rows(["\u{80}|2", "é|1"]));
    assert_eq!(csv("windows-1252"), rows(["é|1", "€|2"]));
}

/// A restart in the middle of an array continues with the next element.
#[test]
fn a_stream_continues_in_the_middle_of_an_array() {
    const ELEMENTS: usize = 30_000;
    let folder = Folder::new("json-array-resumed");
    let elements: Vec<String> = (0..ELEMENTS).map(|i| format!("{{\"n\":{i}}}")).collect();
    folder.write("in/a.json", format!("[{}]\n", elements.join(",")).as_bytes());
    let numbers = resumed(ELEMENTS, &folder.0.join("again"), |session| {
        let reader =
            session.read_stream().format("json").option("path", folder.0.join("in").display());
        reader.schema(Schema::parse_ddl("n BIGINT").unwrap()).load().unwrap()
    });
    assert!(numbers.iter().enumerate().all(|(i, n)| *n == Value::Long(i as i64)));
}

#[test]
fn text_by_lines_by_separator_and_whole() {
    let folder = Folder::new("text");
    folder.write("a.txt", b"one\r\ntwo;three\rfour");
    assert_eq!(read("text", None, &folder.0, &[]).0, ["four", "one", "two;three"]);
    assert_eq!(read("text", None, &folder.0, &[("lineSep", ";")]).0, ["one\r\ntwo", "three\rfour"]);
    let whole = read("text", None, &folder.0, &[("wholetext", "true")]).0;
    assert_eq!(whole, ["one\r\ntwo;three\rfour"]);
}

#[test]
fn folders_name_partition_columns() {
    let folder = Folder::new("partitions");
    folder.write("day=1/kind=a/x.csv", b"5\n");
    folder.write("day=2/kind=b%20c/y.csv", b"6\n");
    folder.write("day=3/kind=__HIVE_DEFAULT_PARTITION__/z.csv", b"7\n");
    assert_eq!(read("csv", Some("n INT"), &folder.0, &[]).0, ["5|1|a", "6|2|b c", "7|3|-"]);
    let placed = Some("kind STRING, n INT");
    assert_eq!(read("csv", placed, &folder.0, &[]).0, ["5|1|a", "6|2|b c", "7|3|-"]);
    let flat = [("recursiveFileLookup", "true")];
    assert_eq!(read("csv", Some("n INT"), &folder.0, &flat).0, ["5", "6", "7"]);
}

#[test]
fn records_over_several_lines() {
    let folder = Folder::new("multiline");
    folder.write("csv/a.csv", b"k,t\n1,\"a\nb\"\n2,\"never closed\n3,c\n");
    let options = [("multiLine", "true"), ("header", "true")];
    let (rows, bad) = read("csv", Some("k INT, t STRING"), &folder.0.join("csv"), &options);
    assert_eq!(bad, 0);
    assert_eq!(rows, ["1|a\nb", "2|never closed\n3,c\n"], "as Spark reads it");
    folder.write("json/a.json", b"[ {\"k\": 1,\n \"t\": \"x\"}, {\"k\": 2} ]\n");
    let options = [("multiLine", "true")];
    let (rows, bad) = read("json", Some("k INT, t STRING"), &folder.0.join("json"), &options);
    assert_eq!((bad, rows), (0, vec!["1|x".to_string(), "2|-".to_string()]));
}

#[test]
fn bad_records_in_each_mode() {
    let folder = Folder::new("modes");
    let long = "x".repeat(2000);
    folder.write("a.csv", format!("1,a\nx,b\n3,{long}\n\"4,c\n5,d\n").as_bytes());
    let ddl = Some("n INT, t STRING, _corrupt_record STRING");
    let limit = ("maxRecordBytes", "100");
    let (rows, bad) = read("csv", ddl, &folder.0, &[limit]);
    assert_eq!(bad, 3);
    let head = "x".repeat(99);
    let expected = [
        "-|-|\"4,c".to_string(),
        format!("-|-|3,{head}"),
        "-|b|x,b".into(),
        "1|a|-".into(),
        "5|d|-".into(),
    ];
    assert_eq!(rows, expected);
    let (rows, bad) = read("csv", ddl, &folder.0, &[limit, ("mode", "DROPMALFORMED")]);
    assert_eq!((rows, bad), (vec!["1|a|-".to_string(), "5|d|-".to_string()], 3));
}

#[cfg(feature = "compression")]
#[test]
fn compressed_files_are_read_by_their_names() {
    use std::io::Write;
    let folder = Folder::new("compressed");
    let lines = b"1\n2\n3\n";
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(lines).unwrap();
    folder.write("a.csv.gz", &gzip.finish().unwrap());
    let mut bzip = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip.write_all(lines).unwrap();
    folder.write("b.csv.bz2", &bzip.finish().unwrap());
    folder.write("c.csv.zst", &zstd::encode_all(&lines[..], 1).unwrap());
    let (rows, bad) = read("csv", Some("n INT"), &folder.0, &[]);
    assert_eq!((rows.concat(), bad), ("111222333".to_string(), 0));
}

#[test]
fn a_status_has_sparks_fields() {
    let session = Session::new();
    let stream = session.memory_stream("rows", "n BIGINT").unwrap();
    let rows = session.sql("SELECT 10 / n AS x FROM rows").unwrap();
    let writer = rows.write_stream().format("memory").query_name("out");
    let query = writer.trigger(Trigger::AsSoonAsPossible).start().unwrap();
    stream.add([vec![Value::Long(1)]]);
    query.process_all_available().unwrap();
    let message = || query.status().message;
    waiting::until("the end of the batch", message, |m| m == "Waiting for data to arrive");
    assert!(!query.status().is_trigger_active && !query.status().is_data_available);
    stream.add([vec![Value::Long(0)]]);
    assert!(query.await_termination().is_err());
    let status = query.status();
    assert!(status.message.starts_with("Terminated with exception: "), "{status:?}");
    assert!(status.message.contains("DIVIDE_BY_ZERO"), "{status:?}");
}

/// A source reads the same rows that a sink has written into partition folders, including NULLs.
#[test]
fn partitioned_files_come_back() {
    let folder = Folder::new("partition-by");
    let (out, checkpoint) = (folder.0.join("out"), folder.0.join("c"));
    let session = Session::new();
    let stream = session.memory_stream("rows", "k STRING, n INT, d DATE").unwrap();
    let rows = session.sql("SELECT * FROM rows").unwrap();
    let writer = rows.write_stream().format("json").partition_by(["k", "d"]);
    let writer =
        writer.option("path", out.display()).option("checkpointLocation", checkpoint.display());
    let query = writer.trigger(Trigger::AsSoonAsPossible).start().unwrap();
    let start_by = |columns: &[&str]| {
        let writer = session.sql("SELECT * FROM rows").unwrap().write_stream().format("json");
        let writer = writer.partition_by(columns.iter().copied()).option("path", out.display());
        let writer = writer.option("checkpointLocation", checkpoint.display());
        writer.trigger(Trigger::AsSoonAsPossible).start()
    };
    let row = |k: Option<&str>, n, d| {
        let k = k.map_or(Value::Null, |k| Value::String(k.to_string()));
        vec![k, Value::Long(n), Value::Long(d)]
    };
    stream.add([
        row(Some("a/b"), 1, 0),
        row(None, 2, 0),
        row(Some("a/b"), 3, 1),
        row(Some("a/b"), 4, 0),
    ]);
    query.process_all_available().unwrap();
    query.stop().unwrap();
    assert!(out.join("k=a%2Fb/d=1970-01-02").is_dir());
    let (rows, bad) = read("json", Some("n INT"), &out, &[]);
    assert_eq!(
        (rows, bad),
        (vec!["1|a/b|0", "2|-|0", "3|a/b|1", "4|a/b|0"].into_iter().map(String::from).collect(), 0)
    );
    start_by(&["k", "d"]).unwrap().stop().unwrap();
    for other in [&["k"][..], &[], &["d", "k"]] {
        let error = start_by(other).err().unwrap();
        assert_eq!(error.condition(), "CHECKPOINT_QUERY_CHANGED", "{other:?}");
    }
}

type Options<'o> = &'o [(&'o str, &'o str)];
/// A test of writing: the format, the options, the file extension, and the expected bytes.
type Written<'c> = (&'c str, Options<'c>, &'c str, &'c str);
/// A test of schema inference: the format, the bytes of the file, the options, and the expected
/// schema.
type Inferred<'c> = (&'c str, &'c str, Options<'c>, &'c str);

/// The expected texts were written by Apache Spark for the same rows and options.
#[test]
fn lines_are_written_with_sparks_options() {
    let values = "SELECT * FROM VALUES \
        (' a ', 1, timestamp '2024-01-01 12:00:00.5', timestamp_ntz '2024-01-01 12:00:00.25', \
        date '2024-01-31', 1.5D, true, cast('nan' AS double)), \
        ('x\"y\\\\z', 2, NULL, NULL, NULL, NULL, NULL, NULL), ('', 3, NULL, NULL, NULL, 1e20D, false, NULL), \
        (NULL, 4, NULL, NULL, NULL, NULL, NULL, NULL), ('q,\"', 5, NULL, NULL, NULL, NULL, NULL, NULL), \
        ('#c', 6, NULL, NULL, NULL, NULL, NULL, NULL) AS t(s, i, t, n, d, x, o, f)";
    let cases: [Written<'_>; 6] = [
        (
            "csv",
            &[("header", "true")],
            "csv",
            "s,i,t,n,d,x,o,f\na,1,2024-01-01T12:00:00.500Z,2024-01-01T12:00:00.250,2024-01-31,1.5,true,NaN\n\
             \"x\\\"y\\\\z\",2,,,,,,\n\"\",3,,,,1.0E20,false,\n,4,,,,,,\n\"q,\\\"\",5,,,,,,\n\"#c\",6,,,,,,\n",
        ),
        (
            "csv",
            &[
                ("sep", "|"),
                ("quoteAll", "true"),
                ("nullValue", "NULL"),
                ("emptyValue", "EMPTY"),
                ("timestampFormat", "yyyy/MM/dd HH:mm"),
                ("dateFormat", "dd.MM.yyyy"),
                ("timestampNTZFormat", "HH:mm"),
            ],
            "csv",
            "\"a\"|\"1\"|\"2024/01/01 12:00\"|\"12:00\"|\"31.01.2024\"|\"1.5\"|\"true\"|\"NaN\"\n\
             \"x\\\"y\\\\z\"|\"2\"|\"NULL\"|\"NULL\"|\"NULL\"|\"NULL\"|\"NULL\"|\"NULL\"\n\
             \"EMPTY\"|\"3\"|\"NULL\"|\"NULL\"|\"NULL\"|\"1.0E20\"|\"false\"|\"NULL\"\n\
             \"NULL\"|\"4\"|\"NULL\"|\"NULL\"|\"NULL\"|\"NULL\"|\"NULL\"|\"NULL\"\n\
             \"q,\\\"\"|\"5\"|\"NULL\"|\"NULL\"|\"NULL\"|\"NULL\"|\"NULL\"|\"NULL\"\n\
             \"#c\"|\"6\"|\"NULL\"|\"NULL\"|\"NULL\"|\"NULL\"|\"NULL\"|\"NULL\"\n",
        ),
        (
            "csv",
            &[
                ("escapeQuotes", "false"),
                ("ignoreLeadingWhiteSpace", "false"),
                ("ignoreTrailingWhiteSpace", "false"),
                ("lineSep", "\r\n"),
            ],
            "csv",
            " a ,1,2024-01-01T12:00:00.500Z,2024-01-01T12:00:00.250,2024-01-31,1.5,true,NaN\r\n\
             x\"y\\z,2,,,,,,\r\n\"\",3,,,,1.0E20,false,\r\n,4,,,,,,\r\n\"q,\\\"\",5,,,,,,\r\n\"#c\",6,,,,,,\r\n",
        ),
        (
            "json",
            &[],
            "json",
            "{\"s\":\" a \",\"i\":1,\"t\":\"2024-01-01T12:00:00.500Z\",\"n\":\"2024-01-01T12:00:00.250\",\
             \"d\":\"2024-01-31\",\"x\":1.5,\"o\":true,\"f\":\"NaN\"}\n{\"s\":\"x\\\"y\\\\z\",\"i\":2}\n\
             {\"s\":\"\",\"i\":3,\"x\":1.0E20,\"o\":false}\n{\"i\":4}\n{\"s\":\"q,\\\"\",\"i\":5}\n{\"s\":\"#c\",\"i\":6}\n",
        ),
        (
            "json",
            &[
                ("ignoreNullFields", "false"),
                ("timestampFormat", "yyyy/MM/dd HH:mm"),
                ("dateFormat", "dd.MM.yyyy"),
                ("timestampNTZFormat", "HH:mm"),
                ("lineSep", "|"),
            ],
            "json",
            "{\"s\":\" a \",\"i\":1,\"t\":\"2024/01/01 12:00\",\"n\":\"12:00\",\"d\":\"31.01.2024\",\"x\":1.5,\"o\":true,\"f\":\"NaN\"}|\
             {\"s\":\"x\\\"y\\\\z\",\"i\":2,\"t\":null,\"n\":null,\"d\":null,\"x\":null,\"o\":null,\"f\":null}|\
             {\"s\":\"\",\"i\":3,\"t\":null,\"n\":null,\"d\":null,\"x\":1.0E20,\"o\":false,\"f\":null}|\
             {\"s\":null,\"i\":4,\"t\":null,\"n\":null,\"d\":null,\"x\":null,\"o\":null,\"f\":null}|\
             {\"s\":\"q,\\\"\",\"i\":5,\"t\":null,\"n\":null,\"d\":null,\"x\":null,\"o\":null,\"f\":null}|\
             {\"s\":\"#c\",\"i\":6,\"t\":null,\"n\":null,\"d\":null,\"x\":null,\"o\":null,\"f\":null}|",
        ),
        ("text", &[("lineSep", "\r\n")], "txt", " a \r\nx\"y\\z\r\n\r\n\r\nq,\"\r\n#c\r\n"),
    ];
    for (format, options, extension, expected) in cases {
        let folder = Folder::new("written");
        let selected = if format == "text" { "s" } else { "*" };
        let sql = format!("SELECT {selected} FROM ({values})");
        written(&folder, &sql, format, options);
        let files = parts(&folder.0.join("out"));
        assert!(files[0].to_string_lossy().ends_with(&format!("-c000.{extension}")));
        assert_eq!(std::fs::read_to_string(&files[0]).unwrap(), expected, "{format} {options:?}");
    }
}

/// Writes the rows of a query over tables into `out`, in one batch.
fn written(folder: &Folder, sql: &str, format: &str, options: &[(&str, &str)]) {
    let session = Session::new();
    let table = session.sql(sql).unwrap();
    let stream = session.memory_stream_of("rows", table.schema()).unwrap();
    stream.add(table.collect().unwrap());
    stream.close();
    let mut writer = session.view("rows").unwrap().write_stream().format(format);
    for (key, value) in options {
        writer = writer.option(key, value);
    }
    let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
    let query = writer
        .option("path", folder.0.join("out").display())
        .option("checkpointLocation", folder.0.join("checkpoint").display())
        .trigger(Trigger::AvailableNow)
        .config(config)
        .start()
        .unwrap();
    query.await_termination().unwrap();
}

fn parts(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut parts: Vec<_> =
        entries.filter(|path| path.to_string_lossy().contains("part-")).collect();
    parts.sort();
    parts
}

/// Files written with compression can be read again.
#[cfg(feature = "compression")]
#[test]
fn compressed_lines_come_back() {
    for codec in ["none", "gzip", "deflate", "bzip2", "zstd"] {
        let folder = Folder::new("codecs");
        let sql = "SELECT explode(sequence(1, 20000)) AS n";
        written(&folder, sql, "json", &[("compression", codec)]);
        let (rows, bad) = read("json", Some("n INT"), &folder.0.join("out"), &[]);
        assert_eq!((rows.len(), bad), (20_000, 0), "{codec}");
        assert!(rows.contains(&"20000".to_string()));
    }
}

/// The types were inferred by Apache Spark from the same files.
#[test]
fn schemas_are_inferred_as_spark_does() {
    let cases: [Inferred<'_>; 11] = [
        (
            "csv",
            "a,b,c,d,e,f,g\n1,2.5,true,2024-01-01,2024-01-01 12:00:00,x,\n2,3,false,2024-01-02,2024-01-01T12:00:00Z,9999999999,\n",
            &[("header", "true"), ("inferSchema", "true")],
            "a INT, b DOUBLE, c BOOLEAN, d DATE, e TIMESTAMP, f STRING, g STRING",
        ),
        (
            "csv",
            "1,9999999999,99999999999999999999,1e5,NaN,2024-01-01T01:02:03\n",
            &[("inferSchema", "true")],
            "_c0 INT, _c1 BIGINT, _c2 DECIMAL(20,0), _c3 DOUBLE, _c4 DOUBLE, _c5 TIMESTAMP",
        ),
        ("csv", "1,2\n3\n4,5,6\n", &[("inferSchema", "true")], "_c0 INT, _c1 INT"),
        ("csv", "1,x\n", &[], "_c0 STRING, _c1 STRING"),
        ("csv", "b,b,\n1,2,3\n", &[("header", "true")], "b0 STRING, b1 STRING, _c2 STRING"),
        (
            "json",
            "{\"b\":1,\"a\":1.5,\"s\":\"x\",\"n\":null,\"o\":{\"y\":1,\"x\":\"q\"},\"l\":[1,2.5],\"e\":[],\"t\":\"2024-01-01T00:00:00Z\"}\n{\"b\":\"z\",\"a\":2,\"big\":12345678901234567890,\"l\":null,\"o\":{\"z\":true}}\n",
            &[],
            "a DOUBLE, b STRING, big DECIMAL(20,0), e ARRAY<STRING>, l ARRAY<DOUBLE>, n STRING, o STRUCT<x: STRING, y: BIGINT, z: BOOLEAN>, s STRING, t STRING",
        ),
        ("json", "{\"a\":1}\nbad\n", &[], "_corrupt_record STRING, a BIGINT"),
        (
            "json",
            "{\"a\":1.5,\"b\":true}\n",
            &[("primitivesAsString", "true")],
            "a STRING, b STRING",
        ),
        (
            "json",
            "{\"a\":1.5,\"t\":\"2024-01-01T00:00:00Z\",\"d\":\"2024-01-01\"}\n",
            &[("inferTimestamp", "true"), ("prefersDecimal", "true")],
            "a DECIMAL(2,1), d TIMESTAMP, t TIMESTAMP",
        ),
        ("json", "[{\"a\":1},{\"b\":[[true]]}]", &[], "a BIGINT, b ARRAY<ARRAY<BOOLEAN>>"),
        (
            "json",
            "{\"a\":[{\"x\":1},{\"y\":2}],\"b\":{}}\n",
            &[],
            "a ARRAY<STRUCT<x: BIGINT, y: BIGINT>>",
        ),
    ];
    for (format, bytes, options, expected) in &cases {
        let folder = Folder::new("inferred");
        folder.write("a.txt", bytes.as_bytes());
        let session = Session::new();
        let mut reader = session.read().format(format).option("path", folder.0.display());
        for (key, value) in *options {
            reader = reader.option(key, value);
        }
        let schema = reader.load().unwrap().schema();
        assert_eq!(schema.tree(), Schema::parse_ddl(expected).unwrap().tree(), "{bytes}");
    }
}

/// A stream infers its schema only if the setting for it is on, because the files may change.
#[test]
fn a_stream_needs_a_schema() {
    let folder = Folder::new("unasked");
    folder.write("a.json", b"{\"a\":1}\n");
    let job = format!(
        "CREATE TEMPORARY VIEW t USING json OPTIONS (path '{}'); \
         CREATE STREAMING TABLE o USING noop AS SELECT a FROM STREAM t",
        folder.0.display()
    );
    let overrides = millstream::session::Overrides::default();
    let error = Session::new().job(&job, &overrides).err().unwrap();
    assert_eq!(error.condition, "STREAMING_FILE_SCHEMA_MISSING");
    let asked = format!("SET spark.sql.streaming.schemaInference = true; {job}");
    Session::new().job(&asked, &overrides).unwrap();
}

#[test]
fn no_file_has_a_column_of_intervals() {
    let folder = Folder::new("intervals");
    folder.write("a", b"1 day\n");
    for format in ["csv", "json"] {
        let session = Session::new();
        let reader = session.read().format(format).schema(Schema::parse_ddl("a INTERVAL").unwrap());
        let error = reader.option("path", folder.0.display()).load().err().unwrap();
        assert_eq!(error.condition, "UNSUPPORTED_DATA_TYPE_FOR_DATASOURCE", "{format}");
    }
}

#[test]
fn rows_have_the_metadata_of_their_file() {
    let folder = Folder::new("metadata");
    let path = folder.write("k=7/a.json", b"{\"a\":1}\n{\"a\":2}\n");
    let session = Session::new();
    let reader = session.read().format("json").schema(Schema::parse_ddl("a INT").unwrap());
    let table = reader.option("path", folder.0.display()).load().unwrap();
    table.create_temp_view("t");
    let show = |sql: &str| format!("{:?}", session.sql(sql).unwrap().collect().unwrap());
    assert_eq!(show("SELECT * FROM t WHERE a = 1"), "[[Long(1), Long(7)]]");
    assert_eq!(
        show("SELECT *, _metadata.file_name AS f, _metadata.file_size AS s FROM t WHERE a = 1"),
        "[[Long(1), Long(7), String(\"a.json\"), Long(16)]]"
    );
    let found =
        show("SELECT t._metadata.file_path FROM t WHERE _metadata.file_name = 'a.json' AND a = 2");
    assert_eq!(found, format!("[[String(\"file://{}\")]]", path.display()));
    let age = "SELECT a FROM t WHERE _metadata.file_modification_time > timestamp '2020-01-01' \
        AND _metadata.file_block_start = 0 AND _metadata.file_block_length = 16";
    assert_eq!(show(age), "[[Long(1)], [Long(2)]]");
    use millstream::table::expr::col;
    let filtered = table.filter(&col("_metadata.file_size").gt(1)).unwrap();
    assert_eq!(filtered.columns(), ["a", "k"]);
    assert_eq!(filtered.count().unwrap(), 2);
    let with = filtered.with_column("b", col("a").add(1)).unwrap();
    assert_eq!(with.collect().unwrap()[1], [Value::Long(2), Value::Long(7), Value::Long(3)]);
    // The column is found inside of any expression.
    use millstream::table::expr::user_function::UserFunction;
    use millstream::table::types::DataType;
    let same =
        UserFunction::new("same", [DataType::String], DataType::String, |args, _| Ok(args[0]));
    let name = std::sync::Arc::new(same).call([col("_metadata.file_name")]).alias("f");
    let found = table.select([name]).unwrap().limit(1).collect().unwrap();
    assert_eq!(found, [[Value::String("a.json".to_string())]]);
}

/// A field that the query does not read is not parsed, in any mode, as in Spark.
#[test]
fn fields_that_nothing_reads_are_skipped() {
    let folder = Folder::new("skipped");
    folder.write("a.csv", b"1,x\n2,3\n");
    let query = |options: &str, sql: &str| {
        let session = Session::new();
        let script = format!(
            "CREATE TEMPORARY VIEW t (a INT, b INT) USING csv OPTIONS (path '{}' {options}); {sql}",
            folder.0.display()
        );
        let mut rows = Vec::new();
        let outcome = session.script(&script, &mut |frame| {
            rows = frame.collect()?;
            Ok(())
        });
        outcome.map(|()| format!("{rows:?}")).map_err(|error| error.condition().to_string())
    };
    assert_eq!(query("", "SELECT a FROM t").unwrap(), "[[Long(1)], [Long(2)]]");
    assert_eq!(query("", "SELECT b FROM t WHERE a > 1").unwrap(), "[[Long(3)]]");
    for mode in ["FAILFAST", "DROPMALFORMED"] {
        let all = query(&format!(", mode '{mode}'"), "SELECT a FROM t").unwrap();
        assert_eq!(all, "[[Long(1)], [Long(2)]]", "{mode}");
    }
    let failed = query(", mode 'FAILFAST'", "SELECT b FROM t").unwrap_err();
    assert_eq!(failed, "MALFORMED_RECORD_IN_PARSING");
    let dropped = query(", mode 'DROPMALFORMED'", "SELECT b FROM t").unwrap();
    assert_eq!(dropped, "[[Long(3)]]");
    let dropped = query(", mode 'DROPMALFORMED', columnPruning 'false'", "SELECT a FROM t");
    assert_eq!(dropped.unwrap(), "[[Long(1)], [Long(2)]]", "b is there, and is not converted");
}

#[cfg(feature = "columnar")]
mod columnar {
    use super::*;

    const ALL: &str = "SELECT cast(n % 100 AS TINYINT) AS a, cast(n AS SMALLINT) AS b, cast(n AS INT) AS c, \
        n AS d, cast(n AS FLOAT) / 2 AS e, n / 3 AS f, 'text ' || n AS g, cast('b' || n AS BINARY) AS h, \
        n % 2 = 0 AS i, date_add(date '2024-01-01', cast(n AS INT)) AS j, \
        timestamp '2024-01-01 00:00:00' + make_dt_interval(0, 0, 0, n) AS k, \
        cast('2024-01-01 00:00:01.5' AS TIMESTAMP_NTZ) AS l, \
        nullif(n, 3) AS o";
    const NESTED: &str = ", cast(n AS DECIMAL(20,2)) AS p, array(n, NULL, n + 1) AS q, \
        map('k', n) AS r, named_struct('x', n, 'y', array(named_struct('z', 'q'))) AS s, \
        if(n = 2, NULL, cast(array() AS ARRAY<INT>)) AS t";

    fn session(rows: u64) -> String {
        format!("(SELECT id AS n FROM (SELECT explode(sequence(0L, {rows}L)) AS id))")
    }

    /// Rows of many types are written by a stream and read again as a table.
    #[test]
    fn rows_come_back() {
        for format in ["parquet", "orc"] {
            for codec in ["none", "snappy", "zstd"] {
                let folder = Folder::new(&format!("columns-{format}"));
                let sql = format!("{ALL}{NESTED} FROM {}", session(9999));
                written(&folder, &sql, format, &[("compression", codec)]);
                let expected = Session::new().sql(&sql).unwrap().collect().unwrap();
                let session = Session::new();
                let out = folder.0.join("out");
                let table = session.read().format(format).option("path", out.display()).load();
                let table = table.unwrap();
                let got = table.collect().unwrap();
                assert_eq!(got.len(), 10_000);
                for (got, expected) in got.iter().zip(&expected) {
                    assert_eq!(got, expected, "{format} {codec}");
                }
                // A query may read some of the columns.
                table.create_temp_view("t");
                let sums =
                    session.sql("SELECT sum(d), count(o) FROM t").unwrap().collect().unwrap();
                assert_eq!(sums, [[Value::Long(49_995_000), Value::Long(9_999)]]);
            }
        }
    }

    /// A restart in the middle of a file continues with the next row.
    #[test]
    fn a_stream_continues_in_the_middle_of_a_file() {
        for format in ["parquet", "orc"] {
            let folder = Folder::new(&format!("resumed-{format}"));
            written(&folder, &format!("SELECT n FROM {}", session(49_999)), format, &[]);
            let numbers = resumed(50_000, &folder.0.join("again"), |session| {
                session.set("spark.sql.streaming.schemaInference", "true").unwrap();
                let out = folder.0.join("out");
                session.read_stream().format(format).option("path", out.display()).load().unwrap()
            });
            assert!(
                numbers.iter().enumerate().all(|(i, n)| *n == Value::Long(i as i64)),
                "{format}"
            );
        }
    }

    #[test]
    fn incompatible_types_and_damaged_files_are_errors() {
        let folder = Folder::new("columns-refused");
        written(&folder, "SELECT 1 AS a, 'x' AS b", "parquet", &[]);
        let out = folder.0.join("out");
        let count = |ddl: &str| {
            let session = Session::new();
            let reader = session.read().format("parquet").option("path", out.display());
            let table = reader.schema(Schema::parse_ddl(ddl).unwrap()).load().unwrap();
            table.collect().map_err(|error| error.to_string())
        };
        assert_eq!(count("a BIGINT, c INT").unwrap(), [[Value::Long(1), Value::Null]]);
        // An integer is read as any type that its value fits, whatever its stored width.
        assert_eq!(count("a TINYINT").unwrap(), [[Value::Long(1)]]);
        let error = count("a STRING").unwrap_err();
        assert!(error.contains("column `a` is INT in the file"), "{error}");
        let whole = std::fs::read(&parts(&out)[0]).unwrap();
        std::fs::write(&parts(&out)[0], &whole[..whole.len() - 9]).unwrap();
        let error = count("a INT").unwrap_err();
        assert!(error.contains("FILE_SOURCE_FAILED") && error.contains("part-00000"), "{error}");
        let session = Session::new();
        let refused = [
            ("v", "a INT, b VOID", "orc"),
            ("t", "a INT, t TIME(3)", "orc"),
            ("u", "a ARRAY<STRUCT<t: TIME>>", "parquet"),
            ("i", "a INTERVAL", "orc"),
            ("j", "a ARRAY<INTERVAL>", "parquet"),
            ("k", "a INTERVAL", "csv"),
            ("l", "a STRUCT<b: INTERVAL>", "json"),
        ];
        for (name, columns, format) in refused {
            session.memory_stream(name, columns).unwrap();
            let writer =
                session.view(name).unwrap().write_stream().format(format).option("path", "/tmp/x");
            let error = writer.option("checkpointLocation", "/tmp/c").check().unwrap_err();
            assert_eq!(error.condition, "UNSUPPORTED_DATA_TYPE_FOR_DATASOURCE", "{columns}");
        }
    }
}
