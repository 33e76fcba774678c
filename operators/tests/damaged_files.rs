//! A Parquet or ORC file that is truncated or has wrong bytes is either read or rejected by an
//! error that names the file. No panic of a decoder reaches the query or is printed.
#![cfg(all(feature = "sql", feature = "columnar"))]

mod folder;

use folder::Folder;
use millstream::session::{Session, Trigger};
use millstream::table::types::Schema;
use millstream::{Config, WaitProfile};
use std::sync::atomic::{AtomicUsize, Ordering};

const ROWS: &str = "SELECT x AS i, CAST(x AS BIGINT) * 1000003 AS l, x / 7 AS d, \
    CAST(x AS DECIMAL(20,3)) AS dec, concat('text ', x % 13) AS s, x % 3 = 0 AS b, \
    date_add(DATE'1999-12-31', x) AS day, timestamp_seconds(x * 86399) AS t, \
    CASE WHEN x % 5 > 0 THEN array(x, NULL, x + 1) END AS a, \
    map(concat('k', x), named_struct('p', x, 'q', array('u', 'v'))) AS m \
    FROM (SELECT explode(sequence(1, 700)) AS x)";

/// The bytes of a file with test rows.
fn written(format: &str, codec: &str) -> Vec<u8> {
    let folder = Folder::new(&format!("whole-{format}-{codec}"));
    let session = Session::new();
    let table = session.sql(ROWS).unwrap();
    let stream = session.memory_stream_of("rows", table.schema()).unwrap();
    stream.add(table.collect().unwrap());
    stream.close();
    let writer = session.view("rows").unwrap().write_stream().format(format);
    let query = writer
        .option("path", folder.0.join("out").display())
        .option("compression", codec)
        .option("checkpointLocation", folder.0.join("checkpoint").display())
        .trigger(Trigger::AvailableNow)
        .config(Config { pin: false, wait: WaitProfile::Park, ..Config::default() })
        .start()
        .unwrap();
    query.await_termination().unwrap();
    let files = std::fs::read_dir(folder.0.join("out")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.is_file()).collect();
    assert_eq!(files.len(), 1, "{format} {codec}: {files:?}");
    std::fs::read(files.remove(0)).unwrap()
}

/// A reproducible sequence of numbers.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % most
    }
}

/// The file with one of four kinds of damage: it is truncated, a range is removed, a byte of the end
/// is changed, or some bits are flipped.
fn damaged(whole: &[u8], seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed);
    let mut bytes = whole.to_vec();
    match seed % 4 {
        0 => bytes.truncate(dice.below(whole.len())),
        1 => {
            let from = dice.below(whole.len());
            let to = (from + 1 + dice.below(200)).min(whole.len());
            bytes.drain(from..to);
        }
        // The footer is within the last 1,500 bytes.
        2 => {
            let at = whole.len() - 1 - dice.below(whole.len().min(1500));
            bytes[at] = dice.below(256) as u8;
        }
        _ => {
            for _ in 0..1 + dice.below(8) {
                let at = dice.below(whole.len());
                bytes[at] ^= 1 << dice.below(8);
            }
        }
    }
    bytes
}

#[test]
fn damage_is_an_error_that_names_the_file_or_other_rows() {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    std::panic::set_hook(Box::new(|info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        eprintln!("{info}");
    }));
    for (format, codec) in [
        ("parquet", "none"),
        ("parquet", "snappy"),
        ("parquet", "gzip"),
        ("parquet", "zstd"),
        ("orc", "none"),
        ("orc", "zlib"),
    ] {
        let whole = written(format, codec);
        let folder = Folder::new(&format!("damaged-{format}-{codec}"));
        let read = |bytes: &[u8], ddl: Option<&Schema>| {
            let path = folder.write(&format!("file.{format}"), bytes);
            let session = Session::new();
            let mut reader = session.read().format(format).option("path", path.display());
            if let Some(schema) = ddl {
                reader = reader.schema(schema.clone());
            }
            let named = |error: String| match error.contains(&path.display().to_string()) {
                true => error,
                false => panic!("{format} {codec}: the error does not name the file: {error}"),
            };
            let frame = reader.load().map_err(|error| named(error.to_string()))?;
            let schema = frame.schema();
            // A damaged file may claim many rows.
            let rows = frame.limit(2000).collect().map_err(|error| named(error.to_string()))?;
            Ok::<_, String>((rows, schema))
        };
        let (rows, schema) = read(&whole, None).unwrap();
        assert_eq!(rows.len(), 700);
        let mut refused = 0;
        for seed in 0..60 {
            let bytes = damaged(&whole, seed);
            // The schema is given, or is read from the damaged footer.
            let ddl = (seed % 3 > 0).then_some(&schema);
            if let Err(error) = read(&bytes, ddl) {
                assert!(!error.contains("PANICKED"), "{format} {codec} {seed}: {error}");
                refused += 1;
            }
        }
        assert!(refused >= 30, "{format} {codec}: {refused} of 60 were refused");
    }
    assert_eq!(PANICS.load(Ordering::Relaxed), 0, "no panic is printed");
}
