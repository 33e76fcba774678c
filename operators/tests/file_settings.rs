//! Session settings that are defaults for options of files: time zone, column names, missing or
//! damaged files.
#![cfg(feature = "sql")]

mod folder;

use folder::Folder;
use millstream::session::{Session, Trigger};
use millstream::table::types::Schema;
use millstream::table::value::Value;
use millstream::{Config, WaitProfile};
use std::path::Path;

fn in_new_york() -> Session {
    let session = Session::new();
    session.set("spark.sql.session.timeZone", "America/New_York").unwrap();
    session
}

fn rows(
    session: &Session,
    format: &str,
    ddl: Option<&str>,
    path: &Path,
    options: &[(&str, &str)],
) -> Vec<Vec<Value>> {
    let mut reader = session.read().format(format).option("path", path.display());
    if let Some(ddl) = ddl {
        reader = reader.schema(Schema::parse_ddl(ddl).unwrap());
    }
    for (key, value) in options {
        reader = reader.option(key, value);
    }
    reader.load().unwrap().collect().unwrap()
}

/// Runs a query as a stream into files. Returns the folder names and the contents of these files,
/// sorted and concatenated.
fn written(
    session: &Session,
    query: &str,
    format: &str,
    to: &Path,
    more: &[(&str, &str)],
) -> String {
    let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
    let mut writer = session.sql(query).unwrap().write_stream().format(format);
    writer = writer.option("path", to.join("out").display());
    writer = writer.option("checkpointLocation", to.join("checkpoint").display());
    for (key, value) in more {
        writer = writer.option(key, value);
    }
    let query = writer.trigger(Trigger::AvailableNow).config(config).start().unwrap();
    query.await_termination().unwrap();
    let mut texts = Vec::new();
    below(&to.join("out"), &mut texts);
    texts.sort();
    texts.concat()
}

/// The folders named `column=value` and the contents of files, except names that start with `_` or
/// `.`.
fn below(folder: &Path, texts: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with(['_', '.']) {
            continue;
        }
        if path.is_dir() {
            texts.push(format!("{name}: "));
            below(&path, texts);
        } else {
            texts.push(std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// 2024-03-10T06:02:03Z, which is 01:02:03 in New York, shortly before the clock change.
const AT_US: i64 = 1_710_050_523_000_000;

#[test]
fn times_without_a_zone_are_read_in_the_zone_of_the_session() {
    let folder = Folder::new("zone-read");
    folder.write("csv/a.csv", b"2024-03-10 01:02:03\n");
    folder.write("json/a.json", b"{\"t\":\"2024-03-10 01:02:03\"}\n");
    let session = in_new_york();
    for format in ["csv", "json"] {
        let path = folder.0.join(format);
        let of =
            |options: &[(&str, &str)]| rows(&session, format, Some("t TIMESTAMP"), &path, options);
        assert_eq!(of(&[]), [[Value::Long(AT_US)]], "{format}");
        let utc = of(&[("timeZone", "UTC")]);
        assert_eq!(utc, [[Value::Long(AT_US - 5 * 3_600_000_000)]], "{format}");
        let pattern = of(&[("timestampFormat", "yyyy-MM-dd HH:mm:ss")]);
        assert_eq!(pattern, [[Value::Long(AT_US)]], "{format}");
    }
    let inferred = [("inferSchema", "true"), ("inferTimestamp", "true")];
    for format in ["csv", "json"] {
        let found = rows(&session, format, None, &folder.0.join(format), &inferred);
        assert_eq!(found, [[Value::Long(AT_US)]], "{format}");
    }
}

#[test]
fn times_in_folder_names_are_read_in_the_zone_of_the_session() {
    let folder = Folder::new("zone-folders");
    folder.write("in/t=2024-03-10 01%3A02%3A03/a.json", b"{\"n\":1}\n");
    let session = in_new_york();
    let found = rows(&session, "json", Some("n INT"), &folder.0.join("in"), &[]);
    assert_eq!(found, [[Value::Long(1), Value::Long(AT_US)]]);
    let utc = rows(&session, "json", Some("n INT"), &folder.0.join("in"), &[("timeZone", "UTC")]);
    assert_eq!(utc, [[Value::Long(1), Value::Long(AT_US - 5 * 3_600_000_000)]]);
}

#[test]
fn times_are_written_in_the_zone_of_the_session() {
    let folder = Folder::new("zone-write");
    folder.write("in/a.json", b"{\"n\":1}\n");
    let session = in_new_york();
    let input = session.read_stream().format("json").option("path", folder.0.join("in").display());
    let input = input.schema(Schema::parse_ddl("n INT").unwrap()).load().unwrap();
    input.create_temp_view("input");
    let query = "SELECT n, TIMESTAMP '2024-03-10 01:02:03' AS t FROM input";
    let to = |name: &str| folder.0.join(name);
    let csv = written(&session, query, "csv", &to("csv"), &[]);
    assert_eq!(csv, "1,2024-03-10T01:02:03.000-05:00\n");
    let json = written(&session, query, "json", &to("json"), &[]);
    assert_eq!(json, "{\"n\":1,\"t\":\"2024-03-10T01:02:03.000-05:00\"}\n");
    let utc = written(&session, query, "csv", &to("utc"), &[("timeZone", "UTC")]);
    assert_eq!(utc, "1,2024-03-10T06:02:03.000Z\n");
    let by = [("partitionBy", "t")];
    let folders = written(&session, query, "csv", &to("folders"), &by);
    assert_eq!(folders, "1\nt=2024-03-10 01%3A02%3A03: ");
}

#[test]
fn the_corrupt_record_has_the_name_that_is_set() {
    let folder = Folder::new("corrupt-name");
    folder.write("in/a.json", b"{\"n\":\n");
    let session = Session::new();
    session.set("spark.sql.columnNameOfCorruptRecord", "bad").unwrap();
    let found = rows(&session, "json", Some("n INT, bad STRING"), &folder.0.join("in"), &[]);
    assert_eq!(found, [[Value::Null, Value::String("{\"n\":".to_string())]]);
    let parsed = session.sql("SELECT from_json('{\"n\":', 'n INT, bad STRING').bad").unwrap();
    assert_eq!(parsed.collect().unwrap(), [[Value::String("{\"n\":".to_string())]]);
    // The name of the default is then a column like any other.
    for function in ["from_json('{}',", "from_csv('1',"] {
        let of = |schema: &str| session.sql(&format!("SELECT {function} '{schema}')")).map(|_| ());
        of("n INT, _corrupt_record INT").unwrap();
        let error = of("n INT, bad INT").unwrap_err();
        assert_eq!(error.condition, "INVALID_CORRUPT_RECORD_TYPE");
    }
}

/// Each line: the texts of a column, and the types that Spark infers for CSV, for CSV without
/// `preferDate`, for JSON and for folder names.
#[test]
fn inferred_times_have_the_type_that_the_session_says() {
    let folder = Folder::new("inferred-times");
    let session = in_new_york();
    session.set("spark.sql.timestampType", "TIMESTAMP_NTZ").unwrap();
    let inferred = |format: &str, path: &Path, option: (&str, &str)| {
        let reader = session.read().format(format).option("path", path.display());
        let table = reader.option(option.0, option.1).option("inferSchema", "true").load().unwrap();
        table.schema().fields.last().unwrap().data_type.to_string()
    };
    let cases = "\
        2024-01-01 10:00:00 = TIMESTAMP_NTZ TIMESTAMP_NTZ TIMESTAMP_NTZ TIMESTAMP_NTZ
        2024-01-01T10:00:00Z = TIMESTAMP TIMESTAMP TIMESTAMP STRING
        2024-01-01 = DATE TIMESTAMP_NTZ TIMESTAMP_NTZ DATE
        2024-01-01T10:00 = TIMESTAMP_NTZ TIMESTAMP_NTZ TIMESTAMP_NTZ STRING
        10:00 = TIMESTAMP TIMESTAMP TIMESTAMP STRING
        2024-01-01 10:00:00|2024-01-01T10:00:00Z = TIMESTAMP TIMESTAMP TIMESTAMP STRING
        2024-01-01|2024-01-01 10:00:00+01:00 = TIMESTAMP TIMESTAMP TIMESTAMP STRING
        2024-01-01 10:00:00|2024-01-01 = TIMESTAMP_NTZ TIMESTAMP_NTZ TIMESTAMP_NTZ TIMESTAMP_NTZ
        2024-01-01|2024-01-01T10:00 = TIMESTAMP_NTZ TIMESTAMP_NTZ TIMESTAMP_NTZ STRING";
    for (i, line) in cases.lines().enumerate() {
        let (texts, types) = line.trim().split_once(" = ").unwrap();
        let texts: Vec<&str> = texts.split('|').collect();
        let root = folder.0.join(i.to_string());
        let (csv, json) = (root.join("csv"), root.join("json"));
        for path in [&csv, &json] {
            std::fs::create_dir_all(path).unwrap();
        }
        let object = |text: &&str| format!("{{\"a\": \"{text}\"}}\n");
        std::fs::write(csv.join("a.csv"), texts.join("\n") + "\n").unwrap();
        std::fs::write(json.join("a.json"), texts.iter().map(object).collect::<String>()).unwrap();
        for text in &texts {
            let below = root.join("folders").join(format!("t={}", text.replace(':', "%3A")));
            std::fs::create_dir_all(&below).unwrap();
            std::fs::write(below.join("a.csv"), "1\n").unwrap();
        }
        let found = [
            inferred("csv", &csv, ("preferDate", "true")),
            inferred("csv", &csv, ("preferDate", "false")),
            inferred("json", &json, ("inferTimestamp", "true")),
            inferred("csv", &root.join("folders"), ("preferDate", "true")),
        ];
        assert_eq!(found.join(" "), types, "{texts:?}");
    }
}

/// Each format is written with a pattern of TIME and read with it again.
#[test]
fn times_of_day_have_the_pattern_of_their_option() {
    let folder = Folder::new("time-format");
    folder.write("in/a.json", b"{\"n\":1}\n");
    let session = Session::new();
    let input = session.read_stream().format("json").option("path", folder.0.join("in").display());
    let input = input.schema(Schema::parse_ddl("n INT").unwrap()).load().unwrap();
    input.create_temp_view("input");
    let query = "SELECT n, TIME '13:02:03.5' AS t FROM input";
    let pattern = [("timeFormat", "hh.mm.ss.S a")];
    for (format, text) in
        [("csv", "1,01.02.03.5 PM\n"), ("json", "{\"n\":1,\"t\":\"01.02.03.5 PM\"}\n")]
    {
        let to = folder.0.join(format);
        assert_eq!(written(&session, query, format, &to, &pattern), text);
        let read = |options: &[(&str, &str)]| {
            rows(&session, format, Some("n INT, t TIME"), &to.join("out"), options)
        };
        let time = Value::Long(((13 * 60 + 2) * 60 + 3) * 1_000_000_000 + 500_000_000);
        assert_eq!(read(&pattern), [[Value::Long(1), time]]);
        // Without the pattern the text is not a TIME, so the record is bad.
        assert_eq!(read(&[])[0][1], Value::Null);
        // A TIME has no date to be written.
        let writer = session.sql(query).unwrap().write_stream().format(format);
        let writer = writer.option("path", folder.0.join("no").display());
        let writer = writer.option("timeFormat", "yyyy HH:mm");
        let error = writer.option("checkpointLocation", folder.0.join("c").display()).check();
        assert_eq!(error.unwrap_err().condition, "INVALID_DATETIME_PATTERN.WITH_SUGGESTION");
    }
}
