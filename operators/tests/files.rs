//! Files as sources, with Spark's options, over real folders.
#![cfg(feature = "sql")]

use millstream::session::{Session, Trigger};
use millstream::table::types::Schema;
use millstream::table::value::Value;
use millstream::{Config, WaitProfile};
use std::path::{Path, PathBuf};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("millstream-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&folder));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn write(&self, file: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// All rows of a folder's files, sorted, and how many records were set aside.
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
    (rows, query.totals().bad_records)
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
    assert_eq!(read("csv", placed, &folder.0, &[]).0, ["-|7|3", "a|5|1", "b c|6|2"]);
    let flat = [("recursiveFileLookup", "true")];
    assert_eq!(read("csv", Some("n INT"), &folder.0, &flat).0, ["5", "6", "7"]);
}

#[test]
fn records_over_several_lines() {
    let folder = Folder::new("multiline");
    folder.write("csv/a.csv", b"k,t\n1,\"a\nb\"\n2,\"never closed\n3,c\n");
    let options = [("multiLine", "true"), ("header", "true")];
    let (rows, bad) = read("csv", Some("k INT, t STRING"), &folder.0.join("csv"), &options);
    assert_eq!(bad, 1, "the line whose quote is not closed, and no other");
    assert_eq!(rows, ["-|-", "1|a\nb", "3|c"]);
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
    while query.status().message != "Waiting for data to arrive" {
        std::thread::yield_now();
    }
    assert!(!query.status().is_trigger_active && !query.status().is_data_available);
    stream.add([vec![Value::Long(0)]]);
    assert!(query.await_termination().is_err());
    let status = query.status();
    assert!(status.message.starts_with("Terminated with exception: "), "{status:?}");
    assert!(status.message.contains("DIVIDE_BY_ZERO"), "{status:?}");
}

/// What a sink has written into folders is what a source reads from them, NULLs included.
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
}
