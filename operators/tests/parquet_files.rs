//! Parquet files with the layouts of other writers, and the rows that Apache Spark reads from them.
#![cfg(all(feature = "sql", feature = "columnar"))]

mod folder;

use folder::Folder;
use millstream::session::{Session, Trigger};
use millstream::table::types::Schema;
use millstream::table::value::Value;
use millstream::{Config, WaitProfile};
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type, Int96, Int96Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::sync::Arc;

/// The stored values of a column.
enum Stored {
    Int(Vec<i32>),
    Long(Vec<i64>),
    Int96(Vec<Int96>),
    Text(Vec<&'static str>),
}

type Column = (Stored, Vec<i16>, Vec<i16>);

/// Writes a file with a schema, and with metadata entries in its footer.
fn write(folder: &Folder, fields: &str, notes: &[(&str, &str)], columns: Vec<Column>) {
    let schema = parse_message_type(&format!("message m {{ {fields} }}")).unwrap();
    let note = |(key, value): &(&str, &str)| KeyValue::new(key.to_string(), value.to_string());
    let notes = notes.iter().map(note).collect();
    let properties = WriterProperties::builder().set_key_value_metadata(Some(notes)).build();
    let mut writer =
        SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for (stored, definition, repetition) in columns {
        let mut column = group.next_column().unwrap().unwrap();
        let repetition = (!repetition.is_empty()).then_some(repetition.as_slice());
        let levels = (Some(definition.as_slice()), repetition);
        macro_rules! put {
            ($type:ty, $values:expr) => {
                column.typed::<$type>().write_batch($values, levels.0, levels.1).unwrap()
            };
        }
        match stored {
            Stored::Int(values) => put!(Int32Type, &values),
            Stored::Long(values) => put!(Int64Type, &values),
            Stored::Int96(values) => put!(Int96Type, &values),
            Stored::Text(values) => {
                put!(ByteArrayType, &values.into_iter().map(ByteArray::from).collect::<Vec<_>>())
            }
        };
        column.close().unwrap();
    }
    group.close().unwrap();
    folder.write("a.parquet", &writer.into_inner().unwrap());
}

/// A column with a value in each row.
fn all(stored: Stored) -> Column {
    let rows = match &stored {
        Stored::Int(values) => values.len(),
        Stored::Long(values) => values.len(),
        Stored::Int96(values) => values.len(),
        Stored::Text(values) => values.len(),
    };
    (stored, vec![1; rows], Vec::new())
}

/// A session with settings.
fn session(settings: &[(&str, &str)]) -> Session {
    let session = Session::new();
    settings.iter().for_each(|(key, value)| session.set(key, value).unwrap());
    session
}

/// The rows of the folder's files as JSON, read with or without a schema and with options.
fn read_in(
    folder: &Folder,
    settings: &[(&str, &str)],
    ddl: &str,
    options: &[(&str, &str)],
) -> Result<Vec<String>, String> {
    let session = session(settings);
    let mut reader = session.read().format("parquet").option("path", folder.0.display());
    if !ddl.is_empty() {
        reader = reader.schema(Schema::parse_ddl(ddl).unwrap());
    }
    for (key, value) in options {
        reader = reader.option(key, value);
    }
    let table = reader.load().map_err(|error| error.to_string())?;
    table.create_temp_view("v");
    let table = session.sql("SELECT to_json(struct(*)) AS r FROM v").unwrap();
    let rows = table.collect().map_err(|error| error.to_string())?;
    let text = |row: &Vec<Value>| match &row[0] {
        Value::String(text) => text.clone(),
        other => format!("{other:?}"),
    };
    Ok(rows.iter().map(text).collect())
}

fn read(folder: &Folder, ddl: &str) -> Result<Vec<String>, String> {
    read_in(folder, &[], ddl, &[])
}

#[test]
fn nested_fields_are_found_by_name() {
    let folder = Folder::new("parquet-names");
    // The struct is NULL in the second row.
    let fields = "optional group st { optional int32 x; optional int32 Y; }";
    let columns = vec![
        (Stored::Int(vec![1, 3]), vec![2, 0, 2], vec![]),
        (Stored::Int(vec![2]), vec![2, 0, 1], vec![]),
    ];
    write(&folder, fields, &[], columns);
    for (ddl, expected) in [
        ("st STRUCT<y: INT, X: INT>", [r#"{"st":{"y":2,"X":1}}"#, "{}", r#"{"st":{"X":3}}"#]),
        // The schema has a missing field between two fields that are widened.
        (
            "st STRUCT<y: BIGINT, z: STRING, x: BIGINT>",
            [r#"{"st":{"y":2,"x":1}}"#, "{}", r#"{"st":{"x":3}}"#],
        ),
        // A struct of which the file has no requested field is still NULL where the file's struct
        // is NULL.
        ("ST STRUCT<z: INT>", [r#"{"ST":{}}"#, "{}", r#"{"ST":{}}"#]),
        ("no STRUCT<z: INT>", ["{}", "{}", "{}"]),
    ] {
        assert_eq!(read(&folder, ddl).unwrap(), expected, "{ddl}");
    }
    let error = read(&folder, "st STRUCT<x: STRING>").unwrap_err();
    assert!(error.contains("column `st.x` is INT in the file"), "{error}");
    let error = read(&folder, "st ARRAY<INT>").unwrap_err();
    assert!(error.contains("column `st` is a STRUCT in the file"), "{error}");
}

#[test]
fn names_that_differ_only_in_case_are_refused_when_they_are_read() {
    let folder = Folder::new("parquet-case");
    let fields = "optional int32 a; optional int32 A; optional int32 b;";
    let int = || all(Stored::Int(vec![1]));
    write(&folder, fields, &[], vec![int(), int(), int()]);
    assert_eq!(read(&folder, "B INT").unwrap(), [r#"{"B":1}"#]);
    let error = read(&folder, "a INT").unwrap_err();
    assert!(error.contains("Found duplicate field(s) `a`: [a, A]"), "{error}");
    assert!(read(&folder, "").unwrap_err().contains("COLUMN_ALREADY_EXISTS"));
}

#[test]
fn lists_of_every_layout_are_read() {
    let folder = Folder::new("parquet-lists");
    // [1, 2], an empty list or NULL, and [3], in each layout.
    let values = || Stored::Int(vec![1, 2, 3]);
    let repetition = vec![0, 1, 0, 0];
    for (fields, definition, second) in [
        ("repeated int32 a;", vec![1, 1, 0, 1], r#"{"a":[]}"#),
        ("required group a (LIST) { repeated int32 array; }", vec![1, 1, 0, 1], r#"{"a":[]}"#),
        ("optional group a (LIST) { repeated int32 item; }", vec![2, 2, 0, 2], "{}"),
        (
            "optional group a (LIST) { repeated group list { optional int32 element; } }",
            vec![3, 3, 0, 3],
            "{}",
        ),
        (
            "optional group a (LIST) { repeated group bag { optional int32 array; } }",
            vec![3, 3, 1, 3],
            r#"{"a":[]}"#,
        ),
    ] {
        write(&folder, fields, &[], vec![(values(), definition, repetition.clone())]);
        for ddl in ["", "a ARRAY<BIGINT>"] {
            let expected = [r#"{"a":[1,2]}"#, second, r#"{"a":[3]}"#];
            assert_eq!(read(&folder, ddl).unwrap(), expected, "{fields} {ddl}");
        }
    }
}

#[test]
fn int96_has_the_whole_range_of_times() {
    let folder = Folder::new("parquet-int96");
    // 0001-01-01, 1500-01-01 12:00, 1970-01-01 and 9999-12-31 as Julian days, which start at
    // midnight.
    let time = |day: u32, nanos: u64| {
        let mut time = Int96::new();
        time.set_data(nanos as u32, (nanos >> 32) as u32, day);
        time
    };
    let times = vec![
        time(1_721_426, 0),
        time(2_268_924, 43_200_000_000_000),
        time(2_440_588, 1_999),
        time(5_373_484, 0),
    ];
    write(&folder, "optional int96 t;", &[], vec![all(Stored::Int96(times))]);
    let expected = [
        r#"{"t":"0001-01-01T00:00:00.000Z"}"#,
        r#"{"t":"1500-01-01T12:00:00.000Z"}"#,
        r#"{"t":"1970-01-01T00:00:00.000001Z"}"#,
        r#"{"t":"9999-12-31T00:00:00.000Z"}"#,
    ];
    for ddl in ["t TIMESTAMP", ""] {
        let cut = |text: &String| text[..17].to_string();
        let found: Vec<_> = read(&folder, ddl).unwrap().iter().map(cut).collect();
        let wanted: Vec<_> = expected.iter().map(|text| text[..17].to_string()).collect();
        assert_eq!(found, wanted, "{ddl}");
    }
    let error = read_in(&folder, &[], "", &[("int96RebaseMode", "EXCEPTION")]).unwrap_err();
    assert!(error.contains("READ_ANCIENT_DATETIME"), "{error}");
}

#[test]
fn wall_clocks_and_instants_are_read_as_each_other() {
    let folder = Folder::new("parquet-ntz");
    let fields =
        "optional int64 n (TIMESTAMP(MILLIS,false)); optional int64 t (TIMESTAMP(NANOS,true));";
    let columns = vec![all(Stored::Long(vec![1_710_050_000_000])), all(Stored::Long(vec![1_999]))];
    write(&folder, fields, &[], columns);
    let zone = [("spark.sql.session.timeZone", "America/New_York")];
    let cast = |ddl: &str| read_in(&folder, &zone, ddl, &[]).unwrap().remove(0);
    let own = cast("");
    assert!(own.contains(r#""n":"2024-03-10T05:53:20"#), "{own}");
    assert!(own.contains(r#""t":"1969-12-31T19:00:00.000"#), "{own}");
    let other = cast("n TIMESTAMP, t TIMESTAMP_NTZ");
    assert!(other.contains(r#""n":"2024-03-10T00:53:20.000-05:00""#), "{other}");
    assert!(other.contains(r#""t":"1970-01-01T00:00:00.000"#), "{other}");
}

#[test]
fn the_calendar_of_dates_is_that_of_the_writer() {
    let folder = Folder::new("parquet-calendar");
    let date = || vec![all(Stored::Int(vec![-171_655, 0]))];
    let (old, new) = (r#"{"d":"1500-01-01"}"#, r#"{"d":"1500-01-10"}"#);
    let version = |of| [("org.apache.spark.version", of)];
    let spark2 = version("2.4.8");
    let spark4 = version("4.0.0");
    let legacy = [spark4[0], ("org.apache.spark.legacyDateTime", "")];
    for (notes, mode, expected) in [
        (&spark2[..], "CORRECTED", old),
        (&spark4[..], "LEGACY", new),
        (&legacy[..], "CORRECTED", old),
        (&[][..], "CORRECTED", new),
        (&[][..], "legacy", old),
    ] {
        write(&folder, "optional int32 d (DATE);", notes, date());
        let rows = read_in(&folder, &[], "", &[("datetimeRebaseMode", mode)]).unwrap();
        assert_eq!(rows, [expected, r#"{"d":"1970-01-01"}"#], "{notes:?} {mode}");
    }
    let set = [("spark.sql.parquet.datetimeRebaseModeInRead", "EXCEPTION")];
    let error = read_in(&folder, &set, "", &[]).unwrap_err();
    assert!(error.contains("READ_ANCIENT_DATETIME"), "{error}");
}

#[test]
fn an_unreadable_column_is_refused_only_when_it_is_read() {
    let folder = Folder::new("parquet-time");
    let fields = "optional int64 t (TIME(MICROS,true)); optional binary s (UTF8);";
    let columns = vec![all(Stored::Long(vec![5])), all(Stored::Text(vec!["a"]))];
    write(&folder, fields, &[], columns);
    let error = read(&folder, "").unwrap_err();
    assert!(error.contains("column `t` is TIME(MICROS), which cannot be read"), "{error}");
    assert_eq!(read(&folder, "s STRING").unwrap(), [r#"{"s":"a"}"#]);
    assert_eq!(read(&folder, "t BIGINT").unwrap(), [r#"{"t":5}"#]);
    let error = read(&folder, "t TIMESTAMP").unwrap_err();
    assert!(error.contains("column `t` is TIME(MICROS) in the file"), "{error}");
}

/// Writes the rows of a query into the folder `out`.
fn written(folder: &Folder, settings: &[(&str, &str)], sql: &str) -> Result<(), String> {
    let session = session(settings);
    let table = session.sql(sql).unwrap();
    let stream = session.memory_stream_of("rows", table.schema()).unwrap();
    stream.add(table.collect().unwrap());
    stream.close();
    let writer = session.view("rows").unwrap().write_stream().format("parquet");
    let query = writer
        .option("path", folder.0.join("out").display())
        .option("checkpointLocation", folder.0.join("checkpoint").display())
        .trigger(Trigger::AvailableNow)
        .config(Config { pin: false, wait: WaitProfile::Park, ..Config::default() })
        .start()
        .map_err(|error| error.to_string())?;
    query.await_termination().map_err(|error| error.to_string())
}

#[test]
fn written_rows_are_read_back_without_a_schema() {
    let sql = "SELECT INTERVAL '3' MONTH AS y, INTERVAL '1 02:03:04.5' DAY TO SECOND AS t, \
               NULL AS v, array(NULL) AS av, CAST(1.5 AS DECIMAL(5,2)) AS d5, \
               CAST(-1.5 AS DECIMAL(15,2)) AS d15, CAST(-1.5 AS DECIMAL(38,18)) AS d38, \
               DATE'1500-01-01' AS d, TIMESTAMP'1500-01-01 00:00:00' AS ts, \
               map('k', named_struct('d', DATE'0001-01-01', 't', TIMESTAMP'1890-01-01 00:00:00')) AS m";
    let zone = ("spark.sql.session.timeZone", "America/Los_Angeles");
    let legacy = ("spark.sql.parquet.datetimeRebaseModeInWrite", "LEGACY");
    let millis = ("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MILLIS");
    for set in [&[zone][..], &[zone, legacy], &[zone, legacy, millis]] {
        let folder = Folder::new("parquet-back");
        written(&folder, set, sql).unwrap();
        let session = session(&[zone]);
        let wanted = session.sql(sql).unwrap().collect().unwrap();
        let reader =
            session.read().format("parquet").option("path", folder.0.join("out").display());
        let table = reader.load().unwrap();
        let types: Vec<_> = table.schema().fields.iter().map(|f| f.data_type.to_string()).collect();
        assert_eq!(types[..3], ["INTERVAL MONTH", "INTERVAL DAY TO SECOND", "VOID"], "{set:?}");
        assert_eq!(table.collect().unwrap(), wanted, "{set:?}");
    }
    let folder = Folder::new("parquet-exception");
    let exception = [("spark.sql.parquet.datetimeRebaseModeInWrite", "EXCEPTION")];
    let error = written(&folder, &exception, "SELECT DATE'1500-01-01' AS d").unwrap_err();
    assert!(error.contains("WRITE_ANCIENT_DATETIME"), "{error}");
}
