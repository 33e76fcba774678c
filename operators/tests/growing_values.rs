//! Aggregates with growing values: restarts do not change the results, and the checkpoint grows
//! only by the additions.
#![cfg(feature = "sql")]

use millstream::session::{Session, Trigger};
use millstream::table::value::Value;
use millstream::{Config, WaitProfile};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const CONTINUOUS: Trigger = Trigger::Continuous { interval_ns: 5_000_000 };
/// Functions with growing values, together with one without.
const GROWING: &str = "sort_array(collect_list(n)) AS l, sort_array(collect_set(n)) AS s, \
    percentile_approx(n, array(0.1, 0.5)) AS p, approx_count_distinct(n) AS d, \
    length(listagg(CAST(n AS STRING), ',')) AS j, max(repeat(CAST(n AS STRING), 2000)) AS m, \
    count(*) AS c";

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("millstream-growing-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        drop(std::fs::remove_dir_all(&folder));
        Self(folder)
    }

    fn bytes(&self) -> u64 {
        fn of(folder: &Path) -> u64 {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
                Ok(meta) if meta.is_dir() => of(&entry.path()),
                Ok(meta) => meta.len(),
                Err(_) => 0,
            };
            entries.map(bytes).sum()
        }
        of(&self.0)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn row(n: i64) -> Vec<Value> {
    let seconds = n / 4 * 1_000_000;
    vec![Value::String(format!("k{}", n % 3)), Value::Long(n * 7919 % 1009), Value::Long(seconds)]
}

/// The result of a query over rows that arrive in pieces. Each piece is processed in a separate run
/// with another parallelism.
fn outcome(
    sql: &str,
    mode: &str,
    pieces: &[std::ops::Range<i64>],
    trigger: Trigger,
) -> Vec<String> {
    let scratch = Scratch::new();
    let session = Session::new();
    let stream = session.memory_stream("rows", "k STRING, n BIGINT, t TIMESTAMP").unwrap();
    let mut rows = Vec::new();
    for (run, piece) in pieces.iter().enumerate() {
        session.set("millstream.parallelism", &(1 + run % 3).to_string()).unwrap();
        let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
        let writer = session.sql(sql).unwrap().write_stream().output_mode(mode).format("memory");
        let writer = writer.option("checkpointLocation", scratch.0.display()).config(config);
        let query = writer.query_name("out").trigger(trigger).start().unwrap();
        // Each run has an epoch for every 25 rows.
        let mut rest = piece.clone().peekable();
        while rest.peek().is_some() {
            let chunk: Vec<_> = rest.by_ref().take(25).map(row).collect();
            stream.add(chunk);
            query.process_all_available().unwrap();
        }
        query.stop().unwrap();
        drop(query);
        let shown: Vec<_> = session.table("out").unwrap().rows();
        let shown = shown.iter().map(|row| format!("{row:?}"));
        if mode == "complete" {
            rows.clear();
        }
        rows.extend(shown);
    }
    rows.sort();
    rows.dedup();
    rows
}

#[test]
fn restarts_change_nothing_in_any_kind_of_group() {
    let marked = "rows WATERMARK t DELAY OF INTERVAL 5 SECONDS";
    for (from, keys, mode) in [
        ("rows", "k", "complete"),
        ("rows", "session_window(t, '3 seconds'), k", "complete"),
        (marked, "window(t, '10 seconds'), k", "append"),
        (marked, "window(t, '10 seconds', '5 seconds'), k", "append"),
        (marked, "session_window(t, '3 seconds'), k", "append"),
    ] {
        let sql = format!("SELECT k, {GROWING} FROM {from} GROUP BY {keys}");
        // These rows are much later than all others and close every window.
        let (last, end) = (100_000..100_001, 200_000..200_001);
        for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
            let once = [0..400, last.clone(), end.clone()];
            let once = outcome(&sql, mode, &once, trigger);
            let often = [0..100, 100..130, 130..131, 131..400, last.clone(), end.clone()];
            let often = outcome(&sql, mode, &often, trigger);
            assert!(once.len() >= 3, "{sql}: {once:?}");
            assert_eq!(often, once, "{sql} {trigger:?}");
        }
    }
}

#[test]
fn the_checkpoint_grows_by_the_added_values_only() {
    let scratch = Scratch::new();
    let session = Session::new();
    let stream = session.memory_stream("rows", "k STRING, n BIGINT, t TIMESTAMP").unwrap();
    let sql = "SELECT 1 AS k, size(collect_list(n)) AS l, approx_count_distinct(n) AS d, \
        percentile_approx(n, 0.5) AS p FROM rows GROUP BY 1";
    let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
    let writer = session.sql(sql).unwrap().write_stream().output_mode("complete").format("memory");
    let writer = writer.option("checkpointLocation", scratch.0.display()).config(config);
    let trigger = Trigger::AsSoonAsPossible;
    let query = writer.query_name("out").trigger(trigger).start().unwrap();
    for epoch in 0..20 {
        stream.add((0..1000).map(|n| row(epoch * 1000 + n)));
        query.process_all_available().unwrap();
    }
    query.stop().unwrap();
    let rows = session.table("out").unwrap().rows();
    assert!(format!("{rows:?}").contains("20000"), "{rows:?}");
    // There are 20,000 values. If each epoch wrote all of them, it would be 210,000.
    assert!(scratch.bytes() < 2_000_000, "{} bytes", scratch.bytes());
}
