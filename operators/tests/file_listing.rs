//! Which files a source reads, and which values their folders give to rows. The expected results
//! are Spark's.
#![cfg(feature = "sql")]

mod folder;

use folder::Folder;
use millstream::session::Session;
use millstream::table::types::Schema;
use millstream::table::value::Value;

impl Folder {
    /// Writes a JSON file with one row.
    fn row(&self, file: &str, n: i64) {
        self.write(file, format!("{{\"n\":{n}}}\n").as_bytes());
    }

    /// The rows below a path as text, sorted, or the condition of the error.
    fn rows(
        &self,
        format: &str,
        ddl: Option<&str>,
        path: &str,
        options: &[(&str, &str)],
    ) -> String {
        let session = Session::new();
        let path = format!("{}/{path}", self.0.display());
        let mut reader = session.read().format(format).option("path", path);
        if let Some(ddl) = ddl {
            reader = reader.schema(Schema::parse_ddl(ddl).unwrap());
        }
        for (key, value) in options {
            reader = reader.option(key, value.replace("ROOT", &self.0.display().to_string()));
        }
        let frame = match reader.load() {
            Ok(frame) => frame,
            Err(error) => return error.condition.to_string(),
        };
        let schema = frame.schema();
        let shown = |row: Vec<Value>| {
            let cells = row.iter().zip(&schema.fields);
            let cells: Vec<_> = cells
                .map(|(v, f)| v.show(&f.data_type, millstream::table::datetime::Tz::UTC))
                .collect();
            cells.join("|")
        };
        match frame.collect() {
            Ok(rows) => {
                let mut rows: Vec<_> = rows.into_iter().map(shown).collect();
                rows.sort();
                rows.join(" ")
            }
            Err(error) => error.condition().to_string(),
        }
    }

    fn json(&self, path: &str, options: &[(&str, &str)]) -> String {
        self.rows("json", Some("n INT"), path, options)
    }
}

#[test]
fn hidden_names_are_skipped() {
    let folder = Folder::new("hidden");
    for (n, name) in
        ["a.json", "_b.json", ".c.json", "d.json._COPYING_", "e_.json"].iter().enumerate()
    {
        folder.row(&format!("in/{name}"), n as i64);
    }
    folder.row("in/_folder/x.json", 10);
    folder.row("in/.folder/x.json", 11);
    folder.row("in/folder/x.json", 12);
    assert_eq!(folder.json("in", &[]), "0 4");
    assert_eq!(folder.json("in", &[("recursiveFileLookup", "true")]), "0 12 4");
    assert_eq!(folder.json("in/_folder", &[]), "10", "a folder that is named is read");
    assert_eq!(folder.json("in/*.json", &[]), "0 4");
    assert_eq!(folder.json("in/_b.json", &[]), "");
}

#[test]
fn a_folder_of_a_partition_may_begin_with_an_underscore() {
    let folder = Folder::new("underscore");
    folder.row("in/_day=mon/a.json", 1);
    folder.row("in/_day=tue/b.json", 2);
    folder.row("in/_day=tue/_c.json", 3);
    assert_eq!(folder.json("in", &[]), "1|mon 2|tue");
}

#[test]
fn patterns_with_escapes_match_literally() {
    let folder = Folder::new("escapes");
    for (n, name) in ["a*b", "axb", "a[b", "a{b", "a,b"].iter().enumerate() {
        folder.row(&format!("{name}/x.json"), n as i64);
    }
    for (pattern, rows) in [
        (r"a\*b", "0"),
        ("a?b", "0 1 2 3 4"),
        (r"a\[b", "2"),
        (r"a\{b", "3"),
        (r"a{x,\,}b/*.json", "1 4"),
        ("{a[*]b,axb/x.json}", "0 1"),
        ("nothing*", "PATH_NOT_FOUND"),
        ("a[b", "INVALID_OPTION_VALUE"),
        ("a{b", "INVALID_OPTION_VALUE"),
    ] {
        assert_eq!(folder.json(pattern, &[]), rows, "{pattern}");
    }
    let filter = |pattern| folder.json("*", &[("pathGlobFilter", pattern)]);
    assert_eq!(filter("{x,y}.json"), "0 1 2 3 4");
    assert_eq!(filter("[!x]*"), "");
    assert_eq!(filter("[x"), "INVALID_OPTION_VALUE");
}

#[test]
fn partitions_begin_below_what_the_pattern_matches() {
    let folder = Folder::new("bases");
    folder.row("in/p=1/a.json", 1);
    folder.row("in/p=2/a.json", 2);
    assert_eq!(folder.json("in", &[]), "1|1 2|2");
    assert_eq!(folder.json("in/p=1", &[]), "1");
    assert_eq!(folder.json("in/p=*", &[]), "1 2");
    assert_eq!(folder.json("in/p=*/*.json", &[]), "1 2");
    assert_eq!(folder.json("*", &[]), "1|1 2|2");
    assert_eq!(folder.json("in/p=*", &[("basePath", "ROOT/in")]), "1|1 2|2");
    assert_eq!(folder.json("in/p=1", &[("basePath", "ROOT")]), "1|1");
    assert_eq!(folder.json("in", &[("basePath", "ROOT/in/p=1")]), "INVALID_OPTION_VALUE");
    assert_eq!(folder.json("in", &[("basePath", "ROOT/none")]), "INVALID_OPTION_VALUE");
}

#[test]
fn files_among_the_folders_of_partitions() {
    let folder = Folder::new("among");
    folder.row("in/a.json", 1);
    folder.row("in/p=1/b.json", 2);
    folder.row("in/p=1/below/c.json", 3);
    folder.row("in/p=1/_temporary/d.json", 4);
    assert_eq!(folder.json("in", &[]), "2|1 3|1");
    folder.row("two/p=1/q=2/a.json", 1);
    folder.row("two/p=1/b.json", 2);
    assert_eq!(folder.json("two", &[]), "CONFLICTING_PARTITION_COLUMN_NAMES");
}

#[test]
fn partition_columns_follow_those_of_a_given_schema() {
    let folder = Folder::new("order");
    folder.row("in/p=7/a.json", 1);
    let rows = |ddl| folder.rows("json", Some(ddl), "in", &[]);
    assert_eq!(rows("p STRING, n INT"), "1|7");
    assert_eq!(rows("p DECIMAL(5,2), n INT"), "1|7.00");
    assert_eq!(rows("n INT, p BINARY"), "1|[37]");
    assert_eq!(rows("n INT, p DATE"), "INVALID_PARTITION_VALUE");
    folder.row("own/n=7/a.json", 1);
    assert_eq!(folder.rows("json", None, "own", &[]), "7", "the folder wins");
}

#[test]
fn a_text_file_has_partition_columns_and_metadata() {
    let folder = Folder::new("text");
    folder.write("in/p=7/a.txt", b"\xEF\xBB\xBFone\ntwo");
    folder.write("in/p=7/b.txt", b"");
    assert_eq!(folder.rows("text", None, "in", &[]), "one|7 two|7");
    assert_eq!(folder.rows("text", Some("line STRING, p STRING"), "in", &[]), "one|7 two|7");
    let int = folder.rows("text", Some("line INT"), "in", &[]);
    assert_eq!(int, "UNSUPPORTED_DATA_TYPE_FOR_DATASOURCE");
    let two = folder.rows("text", Some("a STRING, b STRING"), "in", &[]);
    assert_eq!(two, "UNSUPPORTED_USER_SPECIFIED_SCHEMA");
    let session = Session::new();
    let frame = session.read().format("text").option("path", folder.0.join("in").display());
    frame.load().unwrap().create_temp_view("t");
    let query =
        "SELECT _metadata.file_name, _metadata.file_size, value, p FROM t WHERE value = 'two'";
    let found = session.sql(query).unwrap().collect().unwrap();
    let text = |text: &str| Value::String(text.to_string());
    assert_eq!(found, [[text("a.txt"), Value::Long(10), text("two"), Value::Long(7)]]);
}

#[test]
fn every_format_has_metadata() {
    let folder = Folder::new("metadata");
    folder.row("json/a", 1);
    folder.write("csv/a", b"1\n");
    folder.write("text/a", b"1\n");
    for format in ["json", "csv", "text"] {
        let session = Session::new();
        let frame = session.read().format(format).option("path", folder.0.join(format).display());
        let ddl = if format == "text" { "n STRING" } else { "n INT" };
        let frame = frame.schema(Schema::parse_ddl(ddl).unwrap()).load().unwrap();
        frame.create_temp_view("t");
        let query = "SELECT CAST(n AS INT), _metadata.file_name FROM t";
        let found = session.sql(query).unwrap().collect().unwrap();
        assert_eq!(found, [[Value::Long(1), Value::String("a".to_string())]], "{format}");
    }
}

#[test]
fn an_empty_file_has_no_rows_whatever_its_name_says() {
    let folder = Folder::new("empty");
    for name in ["a.json", "b.json.gz", "c.json.bz2", "d.json.zst", "e.json.deflate"] {
        folder.write(&format!("in/{name}"), b"");
    }
    folder.row("in/f.json", 1);
    assert_eq!(folder.json("in", &[]), "1");
    assert_eq!(folder.rows("json", None, "in", &[]), "1");
    #[cfg(feature = "columnar")]
    {
        folder.write("columns/a.parquet", b"");
        assert_eq!(folder.rows("parquet", Some("n INT"), "columns", &[]), "");
        assert_eq!(folder.rows("orc", Some("n INT"), "columns", &[]), "");
    }
}

#[test]
fn empty_files_of_records_are_a_table_without_columns() {
    let folder = Folder::new("empty-table");
    folder.write("csv/a.csv", b"");
    folder.write("json/a.json", b"");
    for format in ["csv", "json"] {
        assert_eq!(folder.rows(format, None, format, &[]), "");
    }
    assert_eq!(folder.rows("csv", None, "none", &[]), "PATH_NOT_FOUND");
}

#[test]
fn times_of_files_are_compared_in_the_zone() {
    let folder = Folder::new("modified");
    folder.row("in/a.json", 1);
    let changed = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    let file = std::fs::File::options().write(true).open(folder.0.join("in/a.json")).unwrap();
    file.set_modified(changed).unwrap();
    // 1,700,000,000 s is 2023-11-14T22:13:20 in UTC.
    let rows =
        |name: &str, time: &str, zone: &str| folder.json("in", &[(name, time), ("timeZone", zone)]);
    assert_eq!(rows("modifiedAfter", "2023-11-14T22:13:19", "UTC"), "1");
    assert_eq!(rows("modifiedAfter", "2023-11-14T22:13:20", "UTC"), "", "strictly after");
    assert_eq!(rows("modifiedBefore", "2023-11-14T22:13:20", "UTC"), "", "strictly before");
    assert_eq!(rows("modifiedBefore", "2023-11-15", "UTC"), "1");
    assert_eq!(rows("modifiedAfter", "2023-11-14T17:13:19", "America/New_York"), "1");
    assert_eq!(rows("modifiedAfter", "2023-11-14T17:13:20", "America/New_York"), "");
    assert_eq!(rows("modifiedAfter", "yesterday", "UTC"), "INVALID_OPTION_VALUE");
    let session = Session::new();
    let stream = session.read_stream().format("json").schema(Schema::parse_ddl("n INT").unwrap());
    let stream = stream.option("path", folder.0.join("in").display());
    let error = stream.option("modifiedAfter", "2023-11-15").load().err().unwrap();
    assert_eq!(error.condition, "INVALID_OPTION_VALUE", "as in Spark");
}

#[test]
fn files_that_cannot_be_read_may_be_ignored() {
    let folder = Folder::new("damaged");
    folder.row("in/a.json", 1);
    folder.write("in/b.json.gz", b"this was never compressed");
    assert_eq!(folder.json("in", &[]), "FILE_SOURCE_FAILED");
    assert_eq!(folder.json("in", &[("ignoreCorruptFiles", "true")]), "1");
    let session = Session::new();
    session.set("spark.sql.files.ignoreCorruptFiles", "true").unwrap();
    let frame = session.read().format("json").option("path", folder.0.join("in").display());
    assert_eq!(frame.load().unwrap().collect().unwrap(), [[Value::Long(1)]]);
}

#[cfg(unix)]
#[test]
fn pipes_and_circular_links_are_skipped() {
    let folder = Folder::new("pipes");
    folder.row("in/a.json", 1);
    folder.row("in/p=2/b.json", 2);
    let link = |to: &str, name: &str| {
        std::os::unix::fs::symlink(folder.0.join(to), folder.0.join(name)).unwrap();
    };
    link("in", "in/circle");
    link("in/itself", "in/itself");
    link("in/nowhere", "in/broken.json");
    let pipe = std::process::Command::new("mkfifo").arg(folder.0.join("in/pipe.json")).status();
    assert!(pipe.unwrap().success());
    assert_eq!(folder.json("in", &[("recursiveFileLookup", "true")]), "1 2");
    // The path itself must not be a pipe, a device or a broken link, with or without a schema.
    for (path, condition) in [
        ("in/pipe.json", "FILE_SOURCE_FAILED"),
        ("zero", "FILE_SOURCE_FAILED"),
        ("in/itself", "PATH_NOT_FOUND"),
    ] {
        if path == "zero" {
            std::os::unix::fs::symlink("/dev/zero", folder.0.join(path)).unwrap();
        }
        for format in ["json", "csv", "text", "parquet", "orc"] {
            for ddl in [None, Some("value STRING")] {
                assert_eq!(folder.rows(format, ddl, path, &[]), condition, "{format} {path}");
            }
        }
    }
}

/// An aggregate without keys has one row, even if the source has no file.
#[cfg(unix)]
#[test]
fn an_aggregate_without_keys_has_a_row_over_no_file() {
    let folder = Folder::new("no-file");
    std::fs::create_dir_all(folder.0.join("in")).unwrap();
    std::fs::create_dir_all(folder.0.join("other")).unwrap();
    folder.row("other/a.json", 1);
    let formats = ["json", "csv", "text", "parquet", "orc"];
    let formats = &formats[..if cfg!(feature = "columnar") { 5 } else { 3 }];
    for (path, filter) in [("in", "*"), ("other", "*.none")] {
        for format in formats {
            let session = Session::new();
            let reader =
                session.read().format(format).option("path", folder.0.join(path).display());
            let reader = reader.option("pathGlobFilter", filter);
            let ddl = if *format == "text" { "value STRING" } else { "a STRING" };
            let frame = reader.schema(Schema::parse_ddl(ddl).unwrap()).load().unwrap();
            frame.create_temp_view("v");
            let column = ddl.split(' ').next().unwrap();
            for (statement, expected) in [
                ("SELECT count(*) FROM v", "0"),
                ("SELECT max(COLUMN) AS m FROM v", "NULL"),
                ("SELECT count(*), 1 FROM (SELECT max(COLUMN) AS m FROM v)", "1 1"),
                ("SELECT count(*) FROM v GROUP BY COLUMN", ""),
                ("SELECT count(*) FROM v HAVING count(*) > 0", ""),
                ("SELECT coalesce((SELECT count(*) FROM v), -1)", "0"),
                ("SELECT coalesce((SELECT max(COLUMN) FROM v), 'none')", "none"),
                ("SELECT * FROM v ORDER BY 1", ""),
                (
                    "SELECT sum(c) FROM (SELECT count(*) AS c FROM v UNION ALL \
                     SELECT count(*) + 5 FROM v)",
                    "5",
                ),
                ("SELECT count(DISTINCT COLUMN) FROM v", "0"),
                ("SELECT count(*) FROM v GROUP BY ROLLUP(COLUMN)", ""),
            ] {
                let statement = statement.replace("COLUMN", column);
                let frame = session.sql(&statement).unwrap();
                let types: Vec<_> =
                    frame.schema().fields.iter().map(|f| f.data_type.clone()).collect();
                let rows = frame.collect().unwrap_or_else(|e| panic!("{statement}: {e}"));
                let shown = rows.iter().map(|row| {
                    let cells = row.iter().zip(&types);
                    let cells = cells.map(|(v, t)| v.show(t, millstream::table::datetime::Tz::UTC));
                    cells.collect::<Vec<_>>().join(" ")
                });
                let shown = shown.collect::<Vec<_>>().join(";");
                assert_eq!(shown, expected, "{format} {statement}");
            }
        }
    }
}

/// A stream reports each skipped path once, and counts the paths.
#[test]
fn a_stream_counts_paths_that_are_not_files() {
    use std::sync::Mutex;
    static NOTICES: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let folder = Folder::new("special");
    folder.row("in/a.json", 1);
    std::os::unix::fs::symlink("/dev/zero", folder.0.join("in/zero.json")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.0.join("in/s.json")).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(folder.0.join("in/pipe.json")).status();
    assert!(pipe.unwrap().success());
    let session = Session::new();
    session.on_notice(|line| NOTICES.lock().unwrap().push(line.to_string()));
    let frame = session.read_stream().format("json").option("path", folder.0.join("in").display());
    let frame = frame.schema(Schema::parse_ddl("n INT").unwrap()).load().unwrap();
    let writer = frame.write_stream().format("memory").query_name("out");
    let query = writer.trigger(millstream::session::Trigger::AvailableNow).start().unwrap();
    query.await_termination().unwrap();
    assert_eq!(session.table("out").unwrap().rows(), [[Value::Long(1)]]);
    assert_eq!(query.totals().skipped_paths, 3);
    let notices = NOTICES.lock().unwrap();
    let told: Vec<_> = notices.iter().filter(|line| line.starts_with("skipped")).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    for kind in [
        "pipe.json: it is a named pipe (FIFO)",
        "s.json: it is a socket",
        "zero.json: it is a device",
    ] {
        assert!(told.iter().any(|line| line.ends_with(kind)), "{kind}: {told:?}");
    }
}

/// Archived files would be listed again, and archived again, for ever.
#[test]
fn an_archive_inside_the_folder_that_is_read_is_refused() {
    let folder = Folder::new("archive");
    folder.write("in/a.txt", b"a\n");
    let path = |name: &str| folder.0.join(name).display().to_string();
    let stream_of = |from: &str, recursive: &str, archive: &str| {
        let reader = Session::new().read_stream().format("text").option("path", path(from));
        let reader = reader.option("recursiveFileLookup", recursive);
        let reader = reader.option("cleanSource", "archive");
        let reader = reader.option("sourceArchiveDir", path(archive));
        reader.load().err().map(|error| error.condition)
    };
    let stream = |recursive: &str, archive: &str| stream_of("in", recursive, archive);
    let refused = Some("INVALID_OPTION_VALUE".to_string());
    assert_eq!(stream("true", "in/done"), refused);
    assert_eq!(stream("true", "in"), refused);
    for (recursive, archive) in [("true", "done"), ("true", "in-done"), ("false", "in/done")] {
        assert_eq!(stream(recursive, archive), None, "{archive}");
    }
    // A pattern through a link, with a `..`, and with a match that is a link.
    std::fs::create_dir_all(folder.0.join("real/a")).unwrap();
    std::os::unix::fs::symlink(folder.0.join("real"), folder.0.join("link")).unwrap();
    std::fs::create_dir_all(folder.0.join("days")).unwrap();
    std::os::unix::fs::symlink(folder.0.join("real/a"), folder.0.join("days/1")).unwrap();
    for (from, archive) in [
        ("link/*", "real/done"),
        ("real/*", "link/done"),
        ("in/../link/*", "real/done"),
        ("link/*", "in/../real/done"),
        ("days/*", "real/a/done"),
    ] {
        assert_eq!(stream_of(from, "false", archive), refused, "{from}, {archive}");
    }
    for (from, archive) in [("link/*", "done"), ("days/*", "real/b/done")] {
        assert_eq!(stream_of(from, "false", archive), None, "{from}, {archive}");
    }
}
