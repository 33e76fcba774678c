//! Restarts over real files: which queries continue, which changes are rejected, and which damage
//! is reported.
#![cfg(feature = "sql")]

use millstream::connect::file::committed_files;
use millstream::session::{QueryError, Session, StreamingQuery, Trigger};
use millstream::table::value::Value;
use millstream::{Config, WaitProfile};
use millstream_engine::env::simulated_storage::Fault;
use millstream_engine::env::{Env, SimEnv};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const CONTINUOUS: Trigger = Trigger::Continuous { interval_ns: 5_000_000 };
const COUNT: &str = "SELECT k, count(*) AS c, sum(n) AS s FROM rows GROUP BY k";

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("millstream-restarts-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        drop(std::fs::remove_dir_all(&folder));
        Self(folder)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn start(
    session: &Session,
    sql: &str,
    checkpoint: &Path,
    trigger: Trigger,
) -> Result<StreamingQuery, QueryError> {
    let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
    let writer = session.sql(sql)?.write_stream().output_mode("complete").format("memory");
    let writer = writer.option("checkpointLocation", checkpoint.display()).config(config);
    writer.query_name("out").trigger(trigger).start()
}

fn row(k: &str, n: i64) -> Vec<Value> {
    vec![Value::String(k.to_string()), Value::Long(n)]
}

fn sorted(session: &Session) -> Vec<String> {
    let mut rows: Vec<_> =
        session.table("out").unwrap().rows().iter().map(|row| format!("{row:?}")).collect();
    rows.sort();
    rows
}

/// Creates a session with a stream, and a checkpoint of a query over the stream.
fn counted(checkpoint: &Path, trigger: Trigger) -> Session {
    let session = Session::new();
    let stream = session.memory_stream("rows", "k STRING, n BIGINT").unwrap();
    let query = start(&session, COUNT, checkpoint, trigger).unwrap();
    for n in 0..3 {
        stream.add([row("a", n), row("b", n)]);
        query.process_all_available().unwrap();
    }
    query.stop().unwrap();
    session
}

#[test]
fn a_count_continues_in_the_other_mode_and_at_another_parallelism() {
    let scratch = Scratch::new();
    let session = Session::new();
    let stream = session.memory_stream("rows", "k STRING, n BIGINT").unwrap();
    let (mut ids, mut last_epoch) = (Vec::new(), None);
    for (run, trigger) in
        [CONTINUOUS, Trigger::AsSoonAsPossible, CONTINUOUS, Trigger::Once].into_iter().enumerate()
    {
        session.set("millstream.parallelism", &(1 + run % 3).to_string()).unwrap();
        stream.add((0..20).map(|n| row(&format!("k{}", n % 5), n)));
        let query = start(&session, COUNT, &scratch.0, trigger).unwrap();
        if trigger == Trigger::Once {
            query.await_termination().unwrap();
        } else {
            query.process_all_available().unwrap();
            query.stop().unwrap();
        }
        ids.push((query.id().to_string(), query.run_id().to_string()));
        let epoch = query.last_progress().unwrap().committed.epoch;
        assert!(Some(epoch) > last_epoch, "epochs go on");
        last_epoch = Some(epoch);
        drop(query);
        let got = sorted(&session);
        assert_eq!(got.len(), 5, "run {run}: {got:?}");
        let count = format!("Long({})", 4 * (run + 1));
        assert!(got.iter().all(|row| row.contains(&count)), "run {run}: {got:?}");
    }
    assert!(ids.iter().all(|(id, _)| *id == ids[0].0), "the id stays");
    assert!(ids[1..].iter().all(|(_, run)| *run != ids[0].1), "the run's id does not");
}

#[test]
fn two_queries_on_one_checkpoint_are_refused_and_a_stale_lock_file_is_ignored() {
    let scratch = Scratch::new();
    let session = counted(&scratch.0, CONTINUOUS);
    assert!(scratch.0.join("lock").exists(), "left behind");
    let query = start(&session, COUNT, &scratch.0, CONTINUOUS).unwrap();
    let other = Session::new();
    other.memory_stream("rows", "k STRING, n BIGINT").unwrap();
    let Err(error) = start(&other, COUNT, &scratch.0, CONTINUOUS) else { panic!("refused") };
    assert_eq!(error.condition(), "CONCURRENT_STREAM_LOG_UPDATE");
    query.stop().unwrap();
}

#[test]
fn a_changed_query_is_refused_with_what_changed_and_an_allowed_change_is_not() {
    let scratch = Scratch::new();
    let session = counted(&scratch.0, CONTINUOUS);
    for (sql, part) in [
        ("SELECT n, count(*) AS c, sum(n) AS s FROM rows GROUP BY n", "stateful operator 0 was"),
        ("SELECT k, count(*) AS c FROM rows GROUP BY k", "stateful operator 0 was"),
        (
            "SELECT k, count(*) AS c, sum(n) AS s FROM (SELECT * FROM rows UNION ALL SELECT * FROM more) GROUP BY k",
            "source 1 [memory] was added",
        ),
    ] {
        let _ = session.memory_stream("more", "k STRING, n BIGINT").unwrap();
        let Err(error) = start(&session, sql, &scratch.0, CONTINUOUS) else { panic!("{sql}") };
        assert_eq!(error.condition(), "CHECKPOINT_QUERY_CHANGED");
        let text = error.to_string();
        assert!(text.contains(part) && text.contains("Allowed changes"), "{text}");
    }
    let filtered = "SELECT k AS key, count(*) AS c, sum(n) AS s FROM rows WHERE n > 1 GROUP BY k";
    start(&session, filtered, &scratch.0, CONTINUOUS).unwrap().stop().unwrap();
}

/// Each file that the last committed epoch needs is changed, and then removed, except its commit.
/// The next run names the file.
#[test]
fn a_flipped_byte_or_a_missing_file_is_named() {
    for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
        let scratch = Scratch::new();
        let session = counted(&scratch.0, trigger);
        let mut files = vec![scratch.0.join("metadata")];
        let last = |log: &str| {
            let names = std::fs::read_dir(scratch.0.join(log)).unwrap().flatten();
            let last = names.filter_map(|e| e.file_name().to_str()?.parse::<u64>().ok()).max();
            scratch.0.join(log).join(last.unwrap().to_string())
        };
        files.extend([last("offsets"), last("commits")]);
        let state = std::fs::read_dir(scratch.0.join("state/0")).unwrap().flatten();
        files.extend(state.map(|entry| entry.path()));
        assert!(files.len() >= 6, "{files:?}");
        for path in files {
            let whole = std::fs::read(&path).unwrap();
            let mut bytes = whole.clone();
            bytes[whole.len() / 2] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            let outcome = start(&session, COUNT, &scratch.0, trigger)
                .and_then(|query| Ok(query.process_all_available()?));
            let error = outcome.expect_err("damage");
            println!("flipped byte: {error}");
            assert_eq!(error.condition(), "CHECKPOINT_DAMAGED", "{error}");
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            std::fs::write(&path, &whole).unwrap();
            // If its last commit is missing, a query falls back to the previous epoch, provided
            // that this epoch is complete.
            if path.parent() != Some(&scratch.0.join("commits")) {
                std::fs::remove_file(&path).unwrap();
                let Err(error) = start(&session, COUNT, &scratch.0, trigger) else {
                    panic!("{} is missing", path.display())
                };
                println!("removed: {error}");
                let text = error.to_string();
                assert!(text.contains(path.to_str().unwrap()), "{text}");
                std::fs::write(&path, &whole).unwrap();
            }
        }
        std::fs::write(scratch.0.join("offsets/note.txt"), "x").unwrap();
        let Err(error) = start(&session, COUNT, &scratch.0, trigger) else { panic!("foreign") };
        assert_eq!(error.condition(), "CHECKPOINT_FOREIGN_FILE");
        std::fs::remove_file(scratch.0.join("offsets/note.txt")).unwrap();
        start(&session, COUNT, &scratch.0, trigger).unwrap().stop().unwrap();
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_at_start() {
    let scratch = Scratch::new();
    std::fs::create_dir_all(&scratch.0).unwrap();
    let file = scratch.0.join("file");
    std::fs::write(&file, "not a folder").unwrap();
    let session = Session::new();
    session.memory_stream("rows", "k STRING, n BIGINT").unwrap();
    let Err(error) = start(&session, COUNT, &file.join("c"), CONTINUOUS) else { panic!("started") };
    assert_eq!(error.condition(), "CHECKPOINT_WRITE_FAILED");
}

/// Whatever prefix of the writes a power failure leaves, the next start recovers.
#[test]
fn every_prefix_of_the_writes_recovers() {
    for trigger in [Trigger::Continuous { interval_ns: 1_000_000 }, Trigger::AsSoonAsPossible] {
        let mut operations = 0;
        loop {
            let world = Arc::new(SimEnv::new(operations));
            let session = Session::new();
            let stream = session.memory_stream("rows", "k STRING, n BIGINT").unwrap();
            stream.add((0..40).map(|n| row(&format!("k{}", n % 4), n)));
            stream.close();
            let run = || {
                let writer = session.sql(COUNT).unwrap().write_stream().output_mode("complete");
                let writer = writer.format("memory").query_name("out").trigger(trigger);
                writer.option("checkpointLocation", "/c").simulate(&world, 1)
            };
            world.sim_storage().fault_after(operations, Fault::Crash);
            let ended = run().is_ok();
            world.sim_storage().power_failure();
            world.sim_storage().recover();
            stream.add([row("k0", 100)]);
            run().unwrap_or_else(|error| panic!("after {operations} operations: {error}"));
            let got = sorted(&session);
            assert_eq!(got.len(), 4);
            assert!(got[0].contains("Long(11), Long(280)"), "{operations}: {got:?}");
            if ended {
                assert!(operations > 12, "{operations} operations");
                break;
            }
            operations += 1;
        }
    }
}

/// A run in continuous mode repeats the batch that a run in micro-batch mode has planned and not
/// committed. Then it emits the rows that the records of the batch release.
#[test]
fn a_batch_that_continuous_mode_repeats_releases_rows() {
    for parallelism in [1, 2] {
        let repeated = (0..).find(|writes| !repeats_after(*writes, parallelism)).unwrap();
        assert!(repeated > 5, "parallelism {parallelism}: {repeated}");
    }
}

/// Crashes a run in micro-batch mode after a number of writes, and repeats its batch in continuous
/// mode. Returns false if the run had ended before the crash.
fn repeats_after(writes: u64, parallelism: u64) -> bool {
    let (session, world) = (Session::new(), Arc::new(SimEnv::new(writes)));
    session.set("millstream.parallelism", &parallelism.to_string()).unwrap();
    let stream = session.memory_stream("rows", "t BIGINT, k STRING").unwrap();
    let timed = "(SELECT timestamp_seconds(t) AS t, k FROM rows) WATERMARK t DELAY OF INTERVAL \
                 5 SECONDS";
    let sql = format!(
        "SELECT a.k AS l, b.k AS r FROM {timed} a FULL JOIN {timed} b ON a.k = b.k AND \
         b.t > a.t AND b.t < a.t + INTERVAL 9 SECONDS"
    );
    let rows = [(98, "a"), (100, "b"), (101, "c"), (9_000, "end")];
    stream.add(rows.map(|(t, k)| vec![Value::Long(t), Value::String(k.to_string())]));
    stream.close();
    let start = |trigger: Trigger| {
        let writer = session.sql(&sql).unwrap().write_stream().trigger(trigger).format("csv");
        let writer = writer.option("checkpointLocation", "/c").option("path", "/out");
        writer.simulate(&world, 1)
    };
    world.sim_storage().fault_after(writes, Fault::Crash);
    if start(Trigger::AsSoonAsPossible).is_ok() {
        return false;
    }
    world.sim_storage().recover();
    start(CONTINUOUS).unwrap();
    let files = committed_files(world.storage(), Path::new("/out")).unwrap();
    let read = |path: &PathBuf| String::from_utf8(world.storage().read(path).unwrap()).unwrap();
    let text: String = files.unwrap_or_default().iter().map(read).collect();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    let case = format!("{writes} writes, parallelism {parallelism}");
    assert_eq!(lines, [",a", ",b", ",c", "a,", "b,", "c,"], "{case}");
    true
}

/// Text, CSV and JSON through a file source, in batches of two files, and CSV in continuous mode.
#[test]
fn files_are_read_once_each_over_restarts() {
    for (format, trigger) in [
        ("json", Trigger::AvailableNow),
        ("csv", CONTINUOUS),
        ("csv", Trigger::AvailableNow),
        ("text", Trigger::AvailableNow),
    ] {
        let scratch = Scratch::new();
        let (input, output) = (scratch.0.join("in"), scratch.0.join("out"));
        std::fs::create_dir_all(&input).unwrap();
        let mut wanted = Vec::new();
        for run in 0..3 {
            for file in 0..3 {
                let numbers = (0..50).map(|n| run * 1000 + file * 100 + n);
                let line = |n: i64| match format {
                    "json" => format!("{{\"n\":{n}}}\n"),
                    _ => format!("{n}\n"),
                };
                wanted.extend(numbers.clone());
                let text: String = numbers.map(line).collect();
                std::fs::write(input.join(format!("{run}-{file}")), text).unwrap();
            }
            let session = Session::new();
            let reader = session.read_stream().format(format).option("path", input.display());
            let reader = reader.option("maxFilesPerTrigger", 2);
            let reader = match format {
                "text" => reader,
                _ => reader.schema(millstream::table::types::Schema::parse_ddl("n INT").unwrap()),
            };
            let query = reader.load().unwrap().write_stream().format("csv").trigger(trigger);
            let query = query.option("path", output.display());
            let query = query.option("checkpointLocation", scratch.0.join("c").display());
            let query = query.start().unwrap();
            if trigger == CONTINUOUS {
                query.process_all_available().unwrap();
                query.stop().unwrap();
            } else {
                query.await_termination().unwrap();
            }
            let mut got = committed_numbers(&output);
            got.sort_unstable();
            assert_eq!(got, wanted, "{format}, run {run}");
        }
    }
}

fn committed_numbers(folder: &Path) -> Vec<i64> {
    let storage = millstream_engine::env::storage::FileStorage;
    let files = millstream::connect::file::committed_files(&storage, folder).unwrap();
    let text: String =
        files.unwrap().iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn sinks_check_checkpoint_trigger_and_output_mode_at_start() {
    let session = Session::new();
    session.memory_stream("rows", "k STRING, n BIGINT").unwrap();
    let frame = || session.sql("SELECT k FROM rows").unwrap().write_stream();
    let Err(error) = frame().format("text").option("path", "/tmp/x").start() else { panic!() };
    assert_eq!(error.condition(), "CHECKPOINT_LOCATION_MISSING");
    let Err(error) = frame().foreach_batch(|_, _| Ok(())).start() else { panic!() };
    assert_eq!(error.condition(), "FOREACH_BATCH_IN_CONTINUOUS_MODE");
    let counts = session.sql(COUNT).unwrap().write_stream().output_mode("update");
    let files = counts.format("json").option("path", "/tmp/x").option("checkpointLocation", "/c");
    let Err(error) = files.start() else { panic!() };
    assert_eq!(error.condition(), "STREAMING_OUTPUT_MODE.UNSUPPORTED_DATASOURCE");
}

/// Copies the files of `in` to `out`, an epoch each, with a checkpoint in `checkpoint`.
fn copy_files(scratch: &Scratch, checkpoint: &str) -> Result<(), QueryError> {
    let session = Session::new();
    let reader =
        session.read_stream().format("text").option("path", scratch.0.join("in").display());
    let query = reader.option("maxFilesPerTrigger", 1).load()?.write_stream().format("text");
    let query = query.option("path", scratch.0.join("out").display());
    let query = query.option("checkpointLocation", scratch.0.join(checkpoint).display());
    Ok(query.trigger(Trigger::AvailableNow).start()?.await_termination()?)
}

/// Three files, copied in three epochs.
fn copied_files() -> Scratch {
    let scratch = Scratch::new();
    std::fs::create_dir_all(scratch.0.join("in")).unwrap();
    for file in 0..3 {
        let path = scratch.0.join("in").join(file.to_string());
        std::fs::write(path, format!("{file}\n")).unwrap();
    }
    copy_files(&scratch, "c").unwrap();
    scratch
}

#[test]
fn a_file_sink_that_is_ahead_of_the_checkpoint_is_named_with_both_epochs() {
    let scratch = copied_files();
    let error = copy_files(&scratch, "new").unwrap_err().to_string();
    assert!(error.contains("goes up to epoch 2, but the checkpoint has none"), "{error}");
    // A checkpoint with one epoch, of a query that wrote elsewhere.
    let other = Scratch::new();
    std::fs::create_dir_all(other.0.join("in")).unwrap();
    std::fs::write(other.0.join("in").join("0"), "0\n").unwrap();
    copy_files(&other, "c").unwrap();
    std::fs::remove_dir_all(other.0.join("out")).unwrap();
    std::fs::rename(scratch.0.join("out"), other.0.join("out")).unwrap();
    std::fs::write(other.0.join("in").join("1"), "1\n").unwrap();
    let error = copy_files(&other, "c").unwrap_err().to_string();
    assert!(error.contains("goes up to epoch 2, but the checkpoint only to 0"), "{error}");
}

/// If the log of a file source or of a file sink is damaged or incomplete, it is reported before
/// any row is read twice or skipped.
#[test]
fn a_damaged_log_of_files_is_named() {
    let scratch = copied_files();
    let output = scratch.0.join("out");
    let run = || copy_files(&scratch, "c");
    for path in ["c/sources/0/2", "c/sources/0/1", "out/_spark_metadata/2", "out/_spark_metadata/1"]
    {
        let path = scratch.0.join(path);
        let whole = std::fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        bytes[whole.len() / 2] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let error = run().unwrap_err().to_string();
        assert!(
            error.contains(path.to_str().unwrap()) && error.contains("CHECKPOINT_DAMAGED"),
            "{error}"
        );
        std::fs::remove_file(&path).unwrap();
        let error = run().unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()) && error.contains("MISSING"), "{error}");
        std::fs::write(&path, &whole).unwrap();
    }
    run().unwrap();
    assert_eq!(committed_numbers(&output).len(), 3);
}

/// Expired groups leave free memory in the state. A run in mode complete, which emits the whole
/// table, must pass over it.
#[test]
fn a_checkpoint_of_mode_append_continues_in_mode_complete_after_many_groups_expired() {
    let groups = ["window(ts, '10 seconds')", "session_window(ts, '10 seconds')"];
    for (group, trigger) in groups
        .into_iter()
        .flat_map(|group| [CONTINUOUS, Trigger::AsSoonAsPossible].map(|trigger| (group, trigger)))
    {
        let scratch = Scratch::new();
        let session = Session::new();
        let stream = session.memory_stream("rows", "ts TIMESTAMP, k STRING").unwrap();
        let sql = format!(
            "SELECT k, count(*) AS c FROM STREAM rows WATERMARK ts DELAY OF INTERVAL 5 SECONDS
             GROUP BY {group}, k"
        );
        let run = |mode: &str, batches: &[(i64, i64)]| {
            let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
            let writer = session.sql(&sql).unwrap().write_stream().output_mode(mode);
            let writer = writer.format("memory").query_name("out").trigger(trigger).config(config);
            let writer = writer.option("checkpointLocation", scratch.0.display());
            let query = writer.start().unwrap();
            for (seconds, keys) in batches {
                let row = |key| {
                    let time = Value::Long(seconds * 1_000_000);
                    vec![time, Value::String(format!("k{key}"))]
                };
                stream.add((0..*keys).map(row));
                query.process_all_available().unwrap();
            }
            query.stop().unwrap();
        };
        run("append", &[(1, 6_000), (1_000, 3), (2_000, 2), (3_000, 2), (4_000, 2)]);
        run("complete", &[(5_000, 1), (5_001, 1), (5_002, 1), (5_003, 1)]);
        let rows = session.table("out").unwrap().rows();
        let counted = [Value::String("k0".to_string()), Value::Long(4)];
        assert!(rows.iter().any(|row| row[..] == counted), "{group} {trigger:?}: {rows:?}");
    }
}
