//! Event time: watermarks, windows, late rows and deduplication, in both modes, compared with a
//! naive model.
#![cfg(feature = "sql")]

mod waiting;

use millstream::connect::memory::MemoryStream;
use millstream::session::{Session, StreamingQuery, Trigger};
use millstream::table::types::Schema;
use millstream::table::value::Value;
use millstream::{Config, WaitProfile};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const SECOND: i64 = 1_000_000;
const CONTINUOUS: Trigger = Trigger::Continuous { interval_ns: 2_000_000 };

fn text(row: &[Value]) -> String {
    let one = |value: &Value| match value {
        Value::Null => "-".to_string(),
        Value::String(text) => text.clone(),
        Value::Long(v) => v.to_string(),
        other => format!("{other:?}"),
    };
    row.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn start(session: &Session, sql: &str, mode: &str, trigger: Trigger) -> StreamingQuery {
    start_on(session, sql, mode, trigger, None)
}

fn start_on(
    session: &Session,
    sql: &str,
    mode: &str,
    trigger: Trigger,
    checkpoint: Option<&Path>,
) -> StreamingQuery {
    let frame = session.sql(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let writer = frame.write_stream().output_mode(mode).format("memory").query_name("out");
    let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
    let writer = match checkpoint {
        Some(folder) => writer.option("checkpointLocation", folder.display()),
        None => writer,
    };
    let query = writer.trigger(trigger).config(config).start();
    query.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

fn events(session: &Session) -> MemoryStream {
    session.memory_stream("events", "ts TIMESTAMP, k STRING, n BIGINT").unwrap()
}

fn row(seconds: i64, key: u8, n: i64) -> Vec<Value> {
    let key = Value::String(char::from(b'a' + key).to_string());
    vec![Value::Long(seconds * SECOND), key, Value::Long(n)]
}

/// All output rows, sorted, and the number of late rows.
fn run(
    sql: &str,
    trigger: Trigger,
    parallelism: u32,
    batches: &[Vec<Event>],
) -> (Vec<String>, u64) {
    run_on(sql, trigger, parallelism, batches, None)
}

fn run_on(
    sql: &str,
    trigger: Trigger,
    parallelism: u32,
    batches: &[Vec<Event>],
    checkpoint: Option<&Path>,
) -> (Vec<String>, u64) {
    let session = Session::new();
    session.set("millstream.parallelism", &parallelism.to_string()).unwrap();
    let stream = events(&session);
    let query = start_on(&session, sql, "append", trigger, checkpoint);
    for batch in batches {
        stream.add(batch.iter().map(|(seconds, key, n)| row(*seconds, *key, *n)));
        query.process_all_available().unwrap();
    }
    query.stop().unwrap();
    let reports = query.recent_progress();
    let late = reports.iter().flat_map(|p| &p.committed.state).map(|state| state.late).sum();
    let rows = session.table("out").unwrap().rows();
    let mut rows: Vec<_> = rows.iter().map(|row| text(row)).collect();
    rows.sort();
    (rows, late)
}

/// Time in seconds, key, number.
type Event = (i64, u8, i64);

/// Batches whose rows are at most `disorder` seconds behind the largest earlier time. Then one row
/// of key z, so far ahead that all windows close.
fn batches(disorder: i64) -> impl Strategy<Value = Vec<Vec<Event>>> {
    let step = (0i64..4, 0..=disorder, 0u8..3, 0i64..100);
    let batch = proptest::collection::vec(step, 1..12);
    proptest::collection::vec(batch, 1..6).prop_map(|batches| {
        let mut now = 1000;
        let mut made: Vec<Vec<Event>> = batches
            .into_iter()
            .map(|batch| {
                batch
                    .into_iter()
                    .map(|(ahead, behind, key, n)| {
                        now += ahead;
                        (now - behind, key, n)
                    })
                    .collect()
            })
            .collect();
        made.push(vec![(now + 10_000, 25, 0)]);
        made
    })
}

/// The rows of all windows, except those of the last row.
fn windows(batches: &[Vec<Event>], width: i64, slide: i64) -> Vec<String> {
    let mut groups: BTreeMap<(i64, u8), (i64, i64)> = BTreeMap::new();
    for (seconds, key, n) in batches[..batches.len() - 1].iter().flatten() {
        let last = seconds.div_euclid(slide) * slide;
        for begin in (0..=width / slide).map(|i| last - i * slide) {
            if begin <= *seconds && *seconds < begin + width {
                let group = groups.entry((begin, *key)).or_default();
                *group = (group.0 + 1, group.1 + n);
            }
        }
    }
    let mut rows: Vec<_> = groups
        .into_iter()
        .map(|((begin, key), (count, sum))| {
            format!("{} {} {count} {sum}", begin * SECOND, char::from(b'a' + key))
        })
        .collect();
    rows.sort();
    rows
}

fn sessions(batches: &[Vec<Event>], gap: i64) -> Vec<String> {
    let mut by_key: BTreeMap<u8, Vec<i64>> = BTreeMap::new();
    for (seconds, key, _) in batches[..batches.len() - 1].iter().flatten() {
        by_key.entry(*key).or_default().push(*seconds);
    }
    let mut rows = Vec::new();
    for (key, mut times) in by_key {
        times.sort_unstable();
        let mut open: Option<(i64, i64, u32)> = None;
        for time in times.into_iter().map(Some).chain([None]) {
            open = match (open, time) {
                (Some((begin, last, count)), Some(time)) if time <= last + gap => {
                    Some((begin, time, count + 1))
                }
                (before, time) => {
                    if let Some((begin, last, count)) = before {
                        let (begin, end) = (begin * SECOND, (last + gap) * SECOND);
                        rows.push(format!("{begin} {end} {} {count}", char::from(b'a' + key)));
                    }
                    time.map(|time| (time, time, 1))
                }
            };
        }
    }
    rows.sort();
    rows
}

const E: &str = "(SELECT * FROM events WATERMARK ts DELAY OF INTERVAL 5 SECONDS) e";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// With disorder below the delay no row is late, and both modes agree with the model. (With
    /// disorder equal to the delay, a row may touch a session that has closed, and starts a new
    /// one.)
    #[test]
    fn both_modes_agree_with_the_model(batches in batches(4), parallelism in 1u32..3) {
        let tumbling = format!(
            "SELECT window.start, k, count(*), sum(n) FROM {E} GROUP BY window(ts, '10 seconds'), k"
        );
        let sliding = format!(
            "SELECT window.start, k, count(*), sum(n) FROM {E} GROUP BY window(ts, '7 seconds', '3 seconds'), k"
        );
        let session = format!(
            "SELECT session_window.start, session_window.end, k, count(*) FROM {E} GROUP BY session_window(ts, '2 seconds'), k"
        );
        for (sql, expected) in [
            (tumbling, windows(&batches, 10, 10)),
            (sliding, windows(&batches, 7, 3)),
            (session, sessions(&batches, 2)),
        ] {
            for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
                let (rows, late) = run(&sql, trigger, parallelism, &batches);
                prop_assert_eq!(&rows, &expected, "{:?} {}", trigger, &sql);
                prop_assert_eq!(late, 0);
            }
        }
    }

    /// With disorder above the delay each row is either used or counted as late, in both modes.
    #[test]
    fn every_row_is_counted_in_a_window_or_late(batches in batches(40), parallelism in 1u32..3) {
        let sql = format!("SELECT window.start, k, count(*) FROM {E} GROUP BY window(ts, '10 seconds'), k");
        let total: usize = batches[..batches.len() - 1].iter().map(Vec::len).sum();
        for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
            let (rows, late) = run(&sql, trigger, parallelism, &batches);
            let count = |row: &String| row.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
            let kept: u64 = rows.iter().map(count).sum();
            prop_assert_eq!(kept + late, total as u64, "{:?}", trigger);
            let windows: BTreeSet<_> = rows.iter().map(|row| row.rsplit_once(' ').unwrap().0).collect();
            prop_assert_eq!(windows.len(), rows.len(), "a window came out twice");
        }
    }

    /// Pre-aggregation before an exchange does not change which rows are late.
    #[test]
    fn parallelism_does_not_change_which_rows_are_late(batches in batches(40), parallelism in 2u32..4) {
        let sql = format!("SELECT window.start, k, count(*), sum(n) FROM {E} GROUP BY window(ts, '10 seconds'), k");
        for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
            let expected = run(&sql, trigger, 1, &batches);
            prop_assert_eq!(run(&sql, trigger, parallelism, &batches), expected, "{:?}", trigger);
        }
    }

    /// Slices, and rows assigned to each of their windows (which `first` requires), give the same
    /// windows and the same number of late rows.
    #[test]
    fn slices_give_the_results_of_separate_windows(
        batches in batches(40), parallelism in 1u32..3, slide in 1i64..12, more in 0i64..25,
        owned: bool,
    ) {
        let window = format!("window(ts, '{} seconds', '{slide} seconds')", slide + more);
        // A function whose values own heap memory makes slices use another representation.
        let owned = if owned { ", max(concat(k, n))" } else { "" };
        let of = |functions: &str| format!(
            "SELECT window.start, window.end, k, count(*), sum(n), min(n), max(n), avg(n), \
             sum(CAST(n AS DECIMAL(20, 2))), bool_or(n > 3) FILTER (WHERE n % 2 = 0) {owned} {functions} \
             FROM {E} GROUP BY {window}, k"
        );
        for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
            let (mut expected, late) = run(&of(", first(n)"), trigger, parallelism, &batches);
            expected.iter_mut().for_each(|row| row.truncate(row.rfind(' ').unwrap()));
            expected.sort();
            let got = run(&of(""), trigger, parallelism, &batches);
            prop_assert_eq!(&got, &(expected, late), "{:?} {}", trigger, window);
            // With a checkpoint, slices keep values that are otherwise freed.
            let folder = std::env::temp_dir().join(format!("millstream-slices-{}", std::process::id()));
            let kept = run_on(&of(""), trigger, parallelism, &batches, Some(&folder));
            std::fs::remove_dir_all(&folder).unwrap();
            prop_assert_eq!(kept, got, "{:?} {} with a checkpoint", trigger, window);
        }
    }

    /// Each key is emitted once, in both modes, and keys expire with the watermark.
    #[test]
    fn duplicates_are_dropped(batches in batches(4), parallelism in 1u32..3) {
        let all: BTreeSet<(i64, u8)> =
            batches.iter().flatten().map(|(seconds, key, _)| (*seconds, *key)).collect();
        let mut expected: Vec<_> = all
            .iter()
            .map(|(seconds, key)| format!("{} {}", seconds * SECOND, char::from(b'a' + key)))
            .collect();
        expected.sort();
        for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
            let session = Session::new();
            session.set("millstream.parallelism", &parallelism.to_string()).unwrap();
            let stream = events(&session);
            let frame = session.view("events").unwrap().with_watermark("ts", "5 seconds").unwrap();
            let frame = frame.drop_duplicates(["ts", "k"]).unwrap();
            let frame = frame.select_expr(["ts", "k"]).unwrap();
            let writer = frame.write_stream().format("memory").query_name("out");
            let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
            let query = writer.trigger(trigger).config(config).start().unwrap();
            for batch in &batches {
                stream.add(batch.iter().map(|(seconds, key, n)| row(*seconds, *key, *n)));
                query.process_all_available().unwrap();
            }
            // One more epoch removes the keys that the last watermark has passed.
            query.process_all_available().unwrap();
            let left = query.last_progress().unwrap().committed.state[0].rows;
            query.stop().unwrap();
            let rows = session.table("out").unwrap().rows();
            let mut rows: Vec<_> = rows.iter().map(|row| text(row)).collect();
            rows.sort();
            prop_assert_eq!(&rows, &expected);
            prop_assert!(left <= 1, "{} keys are left", left);
        }
    }
}

/// The result of a window does not wait for the end of an epoch.
#[test]
fn a_window_is_emitted_when_the_watermark_passes_its_end() {
    let session = Session::new();
    let stream = events(&session);
    let hour = Trigger::Continuous { interval_ns: 3_600_000_000_000 };
    let sql = format!("SELECT window.end, count(*) FROM {E} GROUP BY window(ts, '10 seconds')");
    let query = start(&session, &sql, "append", hour);
    stream.add([row(1, 0, 0), row(9, 0, 0), row(12, 0, 0), row(15, 0, 0)]);
    let table = session.table("out").unwrap();
    let result = || (table.rows().len(), query.exception());
    waiting::until("the window", result, |(rows, error)| *rows > 0 || error.is_some());
    assert_eq!(text(&table.rows()[0]), format!("{} 2", 10 * SECOND));
    query.stop().unwrap();
    // The result is counted, although no single record caused it.
    let totals = query.totals();
    assert_eq!((totals.rows_emitted, totals.latency.count), (1, 0));
}

/// In mode update every change is emitted immediately, and a late row changes nothing.
#[test]
fn update_mode_emits_each_change_and_evicts_closed_windows() {
    for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
        let session = Session::new();
        let stream = events(&session);
        let sql =
            format!("SELECT window.start, count(*) FROM {E} GROUP BY window(ts, '10 seconds')");
        let query = start(&session, &sql, "update", trigger);
        for seconds in [1, 2, 30, 3, 31] {
            stream.add([row(seconds, 0, 0)]);
            query.process_all_available().unwrap();
        }
        query.process_all_available().unwrap();
        let state = query.last_progress().unwrap().committed.state[0];
        query.stop().unwrap();
        let rows = session.table("out").unwrap().rows();
        let rows: Vec<_> = rows.iter().map(|row| text(row)).collect();
        assert_eq!(rows, ["0 1", "0 2", "30000000 1", "30000000 2"], "{trigger:?}");
        assert_eq!(state.rows, 1);
        let late: u64 = query.recent_progress().iter().map(|p| p.committed.state[0].late).sum();
        assert_eq!(late, 1);
    }
}

/// The statistics that a user needs to choose the delay.
#[test]
fn progress_says_how_far_rows_are_behind() {
    let session = Session::new();
    let stream = events(&session);
    let sql = format!("SELECT window.start, count(*) FROM {E} GROUP BY window(ts, '10 seconds')");
    let query = start(&session, &sql, "append", Trigger::AsSoonAsPossible);
    stream.add([row(100, 0, 0), row(97, 0, 0), row(99, 0, 0), row(60, 0, 0)]);
    query.process_all_available().unwrap();
    let reports: Vec<_> = query.recent_progress().iter().map(|p| p.to_json()).collect();
    query.stop().unwrap();
    let time = &reports[0]["eventTime"];
    assert_eq!(time["max"], "1970-01-01T00:01:40.000Z");
    assert_eq!(time["min"], "1970-01-01T00:01:00.000Z");
    assert_eq!(time["avg"], "1970-01-01T00:01:29.000Z");
    assert_eq!(time["behindUs"]["count"], 3);
    assert_eq!(time["behindUs"]["max"], 40 * SECOND);
    let p50 = time["behindUs"]["p50"].as_i64().unwrap();
    assert!((3 * SECOND..=3 * SECOND * 9 / 8).contains(&p50), "{p50}");
    assert_eq!(reports[0]["eventTime"]["watermark"], "1970-01-01T00:00:00.000Z");
    assert_eq!(reports[1]["eventTime"]["watermark"], "1970-01-01T00:01:35.000Z");
    assert_eq!(reports[1]["stateOperators"][0]["numRowsRemoved"], 1);
}

#[test]
fn the_reported_watermark_moves_in_continuous_mode() {
    let session = Session::new();
    let stream = events(&session);
    let sql = format!("SELECT window.start, count(*) FROM {E} GROUP BY window(ts, '10 seconds')");
    let query = start(&session, &sql, "append", CONTINUOUS);
    stream.add([row(100, 0, 0)]);
    query.process_all_available().unwrap();
    let report = query.last_progress().unwrap().to_json();
    query.stop().unwrap();
    assert_eq!(report["eventTime"]["watermark"], "1970-01-01T00:01:35.000Z");
}

/// As with a filter, a row that a semi join drops does not move the watermark.
#[test]
fn rows_dropped_by_a_semi_join_do_not_move_the_watermark() {
    for (condition, moves) in [
        ("k IN (SELECT * FROM VALUES ('a') AS t(c))", false),
        ("x IN (SELECT * FROM VALUES ('a!') AS t(c))", false),
        ("NOT EXISTS (SELECT 1 FROM VALUES ('b') AS t(c) WHERE c = k)", false),
        ("k IN (SELECT * FROM VALUES ('a'), ('b') AS t(c))", true),
    ] {
        let session = Session::new();
        let stream = events(&session);
        let sql = format!(
            "SELECT window.start, count(*) FROM (SELECT *, k || '!' AS x FROM {E}) \
             WHERE {condition} GROUP BY window(ts, '10 seconds')"
        );
        let query = start(&session, &sql, "append", Trigger::AsSoonAsPossible);
        stream.add([row(1, 0, 1), row(100, 1, 1)]);
        query.process_all_available().unwrap();
        query.process_all_available().unwrap();
        query.stop().unwrap();
        let rows = session.table("out").unwrap().rows();
        let expected: &[&str] = if moves { &["0 1"] } else { &[] };
        let rows: Vec<_> = rows.iter().map(|row| text(row)).collect();
        assert_eq!(rows, expected, "{condition}");
    }
}

/// A row with a gap that is not positive has no session, but it moves the watermark.
#[test]
fn rows_without_a_session_move_the_watermark() {
    let session = Session::new();
    let stream = events(&session);
    let sql = format!(
        "SELECT session_window.start, k, count(*) FROM {E} \
         GROUP BY session_window(ts, if(n > 0, '2 seconds', '0 seconds')), k"
    );
    let query = start(&session, &sql, "append", Trigger::AsSoonAsPossible);
    stream.add([row(1, 0, 1), row(100, 0, 0)]);
    query.process_all_available().unwrap();
    query.process_all_available().unwrap();
    query.stop().unwrap();
    let rows = session.table("out").unwrap().rows();
    assert_eq!(rows.iter().map(|row| text(row)).collect::<Vec<_>>(), ["1000000 a 1"]);
}

/// The clause follows a relation, before or after its alias.
#[test]
fn the_watermark_clause_is_parsed() {
    let session = Session::new();
    session.memory_stream("events", "ts TIMESTAMP, s STRUCT<t: TIMESTAMP>, w STRING").unwrap();
    let check = |from: &str, column: &str| {
        let sql = format!("SELECT window.start FROM {from} GROUP BY window({column}, '1 minute')");
        let frame = session.sql(&sql)?;
        frame.write_stream().format("noop").check().map(drop)
    };
    for (from, column) in [
        ("STREAM events WATERMARK ts DELAY OF INTERVAL 10 MINUTES", "ts"),
        ("STREAM(events) WATERMARK ts DELAY OF INTERVAL '10' MINUTES AS e", "e.ts"),
        ("events WATERMARK ts DELAY OF INTERVAL '10 minutes' e", "e.ts"),
        ("events WATERMARK s.t AS t DELAY OF INTERVAL 1 HOUR", "t"),
        ("(SELECT ts AS x FROM events) WATERMARK x DELAY OF INTERVAL 0 SECONDS AS q", "q.x"),
        ("(SELECT * FROM events WATERMARK ts DELAY OF INTERVAL 1 DAY 2 HOURS WHERE w > 'a')", "ts"),
    ] {
        check(from, column).unwrap_or_else(|error| panic!("{from}: {error}"));
    }
    for (from, column, condition) in [
        ("events", "ts", "STREAMING_OUTPUT_MODE.UNSUPPORTED_OPERATION"),
        (
            "events WATERMARK s.t DELAY OF INTERVAL 1 HOUR",
            "ts",
            "EVENT_TIME_MUST_BE_TOP_LEVEL_COLUMN",
        ),
        (
            "events WATERMARK w DELAY OF INTERVAL 1 HOUR",
            "ts",
            "EVENT_TIME_IS_NOT_ON_TIMESTAMP_TYPE",
        ),
        (
            "events WATERMARK to_timestamp(w) DELAY OF INTERVAL 1 HOUR",
            "ts",
            "REQUIRES_EXPLICIT_NAME_IN_WATERMARK_CLAUSE",
        ),
        ("events WATERMARK ts", "ts", "PARSE_SYNTAX_ERROR"),
        ("events WATERMARK ts DELAY OF 5", "ts", "PARSE_SYNTAX_ERROR"),
    ] {
        let error = check(from, column).err().unwrap_or_else(|| panic!("{from} was taken"));
        assert_eq!(error.condition, condition, "{from}: {error}");
    }
    // A column named `watermark` is not a clause.
    session.memory_stream("w", "watermark INT, delay INT").unwrap();
    session.sql("SELECT watermark, delay FROM w watermark WHERE watermark.delay > 1").unwrap();
}

/// A stateful operator has a single event time, whose watermark is declared once.
#[test]
fn a_second_event_time_is_refused() {
    let session = Session::new();
    events(&session);
    let twice = "(SELECT * FROM events WATERMARK ts DELAY OF INTERVAL 1 MINUTE) WATERMARK ts DELAY \
                 OF INTERVAL 2 MINUTES";
    let windows = "SELECT window.start, count(*) FROM";
    let check = |sql: &str| session.sql(sql)?.write_stream().format("noop").check().map(drop);
    for (sql, condition) in [
        (
            format!("{windows} {E} GROUP BY window(ts, '1 minute'), ts"),
            "MULTIPLE_EVENT_TIME_COLUMNS",
        ),
        (format!("{windows} {twice} GROUP BY window(ts, '1 minute')"), "WATERMARK_REDEFINED"),
    ] {
        let error = check(&sql).err().unwrap_or_else(|| panic!("{sql} was taken"));
        assert_eq!(error.condition, condition, "{sql}: {error}");
    }
    let again = session.sql(&format!("SELECT ts, ts AS again, k FROM {E}")).unwrap();
    let deduplicated = again.drop_duplicates(["ts", "k"]).unwrap();
    let error = deduplicated.write_stream().format("noop").check().map(drop).unwrap_err();
    assert_eq!(error.condition, "MULTIPLE_EVENT_TIME_COLUMNS", "{error}");
    // Without stateful operators a second declaration is allowed, and another time column is an
    // ordinary value.
    for sql in [
        format!("SELECT k FROM {twice}"),
        format!("{windows} {E} GROUP BY window(ts, '1 minute'), CAST(ts AS STRING)"),
        format!("SELECT window.start, max(ts) FROM {E} GROUP BY window(ts, '1 minute')"),
    ] {
        check(&sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

/// One input without records holds the watermark back, unless the policy is max.
#[test]
fn several_inputs_have_one_watermark() {
    for (policy, expected) in [("min", 0), ("max", 1)] {
        for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
            let session = Session::new();
            session.set("spark.sql.streaming.multipleWatermarkPolicy", policy).unwrap();
            let stream = events(&session);
            let quiet = session.memory_stream("quiet", "ts TIMESTAMP").unwrap();
            let sql = "SELECT window.start, count(*) FROM (SELECT ts FROM events WATERMARK ts DELAY OF \
                INTERVAL 0 SECONDS UNION ALL SELECT ts FROM quiet WATERMARK ts DELAY OF INTERVAL 0 \
                SECONDS) GROUP BY window(ts, '10 seconds')";
            let query = start(&session, sql, "append", trigger);
            stream.add([row(1, 0, 0), row(11, 0, 0)]);
            query.process_all_available().unwrap();
            let rows = || session.table("out").unwrap().rows().len();
            assert_eq!(rows(), expected, "{policy} {trigger:?}");
            quiet.add([vec![Value::Long(11 * SECOND)]]);
            query.process_all_available().unwrap();
            assert_eq!(rows(), 1, "{policy} {trigger:?}");
            query.stop().unwrap();
        }
    }
}

/// Without batches of no data, the keys that the watermark has passed are removed by the next batch
/// that has records.
#[test]
fn without_no_data_batches_deduplication_keeps_its_keys_until_the_next_records() {
    for (enabled, expected) in [("true", [0, 0]), ("false", [1, 1])] {
        let session = Session::new();
        session.set("spark.sql.streaming.noDataMicroBatches.enabled", enabled).unwrap();
        let stream = events(&session);
        let sql = "SELECT DISTINCT ts, k FROM events WATERMARK ts DELAY OF INTERVAL 0 SECONDS";
        let query = start(&session, sql, "append", Trigger::AsSoonAsPossible);
        let mut keys = Vec::new();
        // The key of a record is removed when a later batch knows the record's time as watermark.
        for (record, next_watermark_ms) in [(row(1, 0, 0), 1000), (row(11, 0, 0), 11_000)] {
            stream.add([record]);
            query.process_all_available().unwrap();
            assert_eq!(query.watermark_ms(), Some(next_watermark_ms), "enabled = {enabled}");
        }
        let left = || query.last_progress().unwrap().committed.state[0].rows;
        keys.push(left());
        stream.add([row(20, 0, 0)]);
        query.process_all_available().unwrap();
        query.stop().unwrap();
        keys.push(left());
        assert_eq!(keys, expected, "enabled = {enabled}");
    }
}

/// Without batches of no data, a window that the watermark has passed is emitted by the next batch
/// that has records.
#[test]
fn without_no_data_batches_windows_wait_for_the_next_records() {
    for (enabled, expected) in [("true", ["0 1", "0 1"]), ("false", ["", "0 1"])] {
        let session = Session::new();
        session.set("spark.sql.streaming.noDataMicroBatches.enabled", enabled).unwrap();
        let stream = events(&session);
        let sql = "SELECT window.start, count(*) FROM events WATERMARK ts DELAY OF INTERVAL 0 SECONDS \
                   GROUP BY window(ts, '10 seconds')";
        let query = start(&session, sql, "append", Trigger::AsSoonAsPossible);
        let mut emitted = Vec::new();
        for record in [row(1, 0, 0), row(11, 0, 0)] {
            stream.add([record]);
            query.process_all_available().unwrap();
        }
        let rows = || session.table("out").unwrap().rows();
        emitted.push(rows().iter().map(|row| text(row)).collect::<Vec<_>>().join(", "));
        // The record is of the second window, which stays open.
        stream.add([row(11, 1, 0)]);
        query.process_all_available().unwrap();
        emitted.push(rows().iter().map(|row| text(row)).collect::<Vec<_>>().join(", "));
        query.stop().unwrap();
        assert_eq!(emitted, expected, "enabled = {enabled}");
    }
}

/// An idle input stops holding the watermark back. When it becomes active again, its late rows are
/// counted.
#[test]
fn an_idle_input_stops_holding_the_watermark_back() {
    let session = Session::new();
    session.set("millstream.idleTimeout", "20 milliseconds").unwrap();
    let stream = events(&session);
    let quiet = session.memory_stream("quiet", "ts TIMESTAMP").unwrap();
    let sql = "SELECT window.start, count(*) FROM (SELECT ts FROM events WATERMARK ts DELAY OF \
        INTERVAL 0 SECONDS UNION ALL SELECT ts FROM quiet WATERMARK ts DELAY OF INTERVAL 0 SECONDS) \
        GROUP BY window(ts, '10 seconds')";
    let query = start(&session, sql, "append", CONTINUOUS);
    quiet.add([vec![Value::Long(2 * SECOND)]]);
    stream.add([row(1, 0, 0), row(11, 0, 0)]);
    let table = session.table("out").unwrap();
    // Both inputs are idle. When the first becomes active, only the other one is ignored.
    let result = || {
        stream.add([row(11, 0, 0)]);
        (table.rows().len(), query.exception())
    };
    waiting::until("the window", result, |(rows, error)| *rows > 0 || error.is_some());
    assert_eq!(text(&table.rows()[0]), "0 2");
    // The input becomes active: one of its rows is late, and it holds the watermark back again.
    quiet.add([vec![Value::Long(3 * SECOND)], vec![Value::Long(12 * SECOND)]]);
    query.process_all_available().unwrap();
    query.stop().unwrap();
    let reports = query.recent_progress();
    let late: u64 = reports.iter().map(|p| p.committed.state[0].late).sum();
    assert_eq!(late, 1);
    assert_eq!(table.rows().len(), 1);
}

/// A late row is passed to the side output.
#[test]
fn late_rows_go_to_a_side_output() {
    use std::sync::{Arc, Mutex};
    for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
        for parallelism in ["1", "2"] {
            let session = Session::new();
            session.set("millstream.parallelism", parallelism).unwrap();
            let stream = events(&session);
            let sql = format!(
                "SELECT window.start, k, sum(n) FROM {E} GROUP BY window(ts, '10 seconds'), k"
            );
            let late = Arc::new(Mutex::new(Vec::new()));
            let (rows, config) = (late.clone(), Config { pin: false, ..Config::default() });
            let writer = session.sql(&sql).unwrap().write_stream().format("noop").trigger(trigger);
            let writer = writer.config(config).on_late(move |row| {
                assert_eq!(row.columns.fields.len(), row.values.len());
                rows.lock().unwrap().push((row.values.clone(), row.watermark_us));
            });
            let query = writer.start().unwrap();
            stream.add([row(1, 0, 0), row(100, 0, 0)]);
            query.process_all_available().unwrap();
            stream.add([row(2, 0, 7), row(99, 0, 0)]);
            query.process_all_available().unwrap();
            query.stop().unwrap();
            let late = late.lock().unwrap();
            assert_eq!(late.len(), 1, "{trigger:?}");
            assert!(late[0].0.contains(&Value::Long(7)) && late[0].1 == 95 * SECOND);
        }
    }
}

/// Microseconds since 1970, a year in the future.
fn next_year_us() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_micros() as i64 + 365 * 86_400 * SECOND
}

/// The way in which a limit of the future skew is configured.
#[derive(Clone, Copy, Debug)]
enum Limit {
    Clause,
    Setting,
}

/// A row from a sender whose clock is a year ahead would make all other rows late.
#[test]
fn a_row_far_in_the_future_is_rejected_and_makes_no_other_row_late() {
    use std::sync::{Arc, Mutex};
    for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
        for (parallelism, limit) in [("1", Limit::Clause), ("2", Limit::Setting)] {
            let session = Session::new();
            session.set("millstream.parallelism", parallelism).unwrap();
            let clause = match limit {
                Limit::Clause => "MAX FUTURE SKEW OF INTERVAL 1 HOUR",
                Limit::Setting => {
                    session.set("millstream.eventTime.maxFutureSkew", "1 hour").unwrap();
                    ""
                }
            };
            let stream = events(&session);
            let sql = format!(
                "SELECT window.start, k, sum(n) FROM events WATERMARK ts \
                 DELAY OF INTERVAL 5 SECONDS {clause} AS e GROUP BY window(ts, '10 seconds'), k"
            );
            let aside = Arc::new(Mutex::new(Vec::new()));
            let (rows, config) = (aside.clone(), Config { pin: false, ..Config::default() });
            let writer = session.sql(&sql).unwrap().write_stream().trigger(trigger).config(config);
            let writer = writer.format("memory").query_name("out");
            let writer = writer.on_late(move |row| {
                let (of, values) = (row.operator.to_string(), row.values.clone());
                rows.lock().unwrap().push((of, values, row.ahead_of_us.is_some()));
            });
            let query = writer.start().unwrap();
            stream.add([
                row(1, 0, 3),
                vec![Value::Long(next_year_us()), row(0, 0, 0)[1].clone(), Value::Long(7)],
            ]);
            query.process_all_available().unwrap();
            stream.add([row(2, 0, 4), row(100, 0, 0)]);
            query.process_all_available().unwrap();
            stream.add([row(101, 0, 0)]);
            query.process_all_available().unwrap();
            query.stop().unwrap();
            let of = format!("{trigger:?} {limit:?}");
            assert_eq!(query.totals().ahead, 1, "{of}");
            let aside = aside.lock().unwrap();
            assert_eq!(aside.len(), 1, "{of}: {aside:?}");
            let (operator, values, ahead) = &aside[0];
            assert!(operator == "watermark" && values[2] == Value::Long(7) && *ahead, "{of}");
            let out = session.table("out").unwrap().rows();
            let out: Vec<String> = out.iter().map(|row| text(row)).collect();
            assert_eq!(out, ["0 a 7"], "{of}: the row of second 2 is not late");
            let json: Vec<_> = query.recent_progress().iter().map(|p| p.to_json()).collect();
            let counted =
                json.iter().filter_map(|p| p["eventTime"]["numRowsAheadOfClock"].as_u64());
            assert_eq!(counted.sum::<u64>(), 1, "{of}");
        }
    }
}

/// Without the limit Spark's rule applies: the largest event time moves the watermark.
#[test]
fn without_a_limit_a_row_far_in_the_future_moves_the_watermark() {
    let session = Session::new();
    let stream = events(&session);
    let sql = format!("SELECT window.start, sum(n) FROM {E} GROUP BY window(ts, '10 seconds')");
    let query = start(&session, &sql, "append", Trigger::AsSoonAsPossible);
    let ahead = vec![Value::Long(next_year_us()), row(0, 0, 0)[1].clone(), Value::Long(7)];
    stream.add([row(1, 0, 3), ahead]);
    query.process_all_available().unwrap();
    stream.add([row(2, 0, 4)]);
    query.process_all_available().unwrap();
    query.stop().unwrap();
    assert_eq!(query.totals().ahead, 0);
    let late: u64 = query.recent_progress().iter().map(|p| p.committed.state[0].late).sum();
    assert_eq!(late, 1);
}

/// A row that was rejected before a restart does not affect the watermark after it.
#[test]
fn a_restart_continues_from_a_watermark_that_no_future_row_has_moved() {
    let folder = std::env::temp_dir().join(format!("millstream-skew-{}", std::process::id()));
    drop(std::fs::remove_dir_all(&folder));
    std::fs::create_dir_all(folder.join("in")).unwrap();
    let ahead_s = next_year_us() / SECOND;
    let files = [format!("1,3\n{ahead_s},7\n"), "2,4\n".to_string(), "101,0\n".to_string()];
    let (mut late, mut ahead) = (0, 0);
    for (i, file) in files.iter().enumerate() {
        std::fs::write(folder.join(format!("in/{i}.csv")), file).unwrap();
        let session = Session::new();
        session.set("millstream.eventTime.maxFutureSkew", "10 minutes").unwrap();
        let schema = Schema::parse_ddl("s BIGINT, n BIGINT").unwrap();
        let reader = session.read_stream().format("csv").schema(schema);
        let reader = reader.option("path", folder.join("in").display());
        reader.load().unwrap().create_temp_view("f");
        let sql = "SELECT window.start, sum(n) FROM f WATERMARK timestamp_seconds(s) AS ts \
                   DELAY OF INTERVAL 5 SECONDS GROUP BY window(ts, '10 seconds')";
        let checkpoint = folder.join("checkpoint");
        let query = start_on(&session, sql, "update", Trigger::AvailableNow, Some(&checkpoint));
        query.await_termination().unwrap();
        late += query.recent_progress().iter().map(|p| p.committed.state[0].late).sum::<u64>();
        ahead += query.totals().ahead;
    }
    assert_eq!((late, ahead), (0, 1));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_limit_of_future_event_times_needs_a_watermark() {
    let session = Session::new();
    events(&session);
    let stream = session.sql("SELECT * FROM STREAM events").unwrap();
    let error = stream.with_max_future_skew("1 hour").err().unwrap();
    assert_eq!(error.condition, "MAX_FUTURE_SKEW_WITHOUT_WATERMARK");
    let timed = stream.with_watermark("ts", "1 minute").unwrap();
    let error = timed.with_max_future_skew("-1 hour").err().unwrap();
    assert_eq!(error.condition, "MAX_FUTURE_SKEW_NEGATIVE");
    let limited = timed.with_max_future_skew("1 hour").unwrap();
    assert!(limited.explain().contains("60000 ms behind, at most 3600000 ms ahead of the clock"));
    let wrong = session.set("millstream.eventTime.maxFutureSkew", "soon").err().unwrap();
    assert_eq!(wrong.condition, "INVALID_CONF_VALUE");
    session.set("millstream.eventTime.maxFutureSkew", "none").unwrap();
}

/// A NULL time counts as 1970 for the expiry of its key, as in Spark. Until the end of its batch the
/// key drops duplicates although it has expired already.
#[test]
fn keys_of_rows_without_an_event_time_expire_within_the_watermark() {
    let session = Session::new();
    let stream = events(&session);
    let sql = "SELECT * FROM events WATERMARK ts DELAY OF INTERVAL 10 SECONDS";
    let frame = session.sql(sql).unwrap().drop_duplicates_within_watermark(["k"]).unwrap();
    let writer = frame.write_stream().output_mode("append").format("memory").query_name("out");
    let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
    let query = writer.trigger(Trigger::AsSoonAsPossible).config(config).start().unwrap();
    let timeless = |key: u8, n: i64| {
        let mut row = row(0, key, n);
        row[0] = Value::Null;
        row
    };
    let add = |rows: Vec<Vec<Value>>| {
        stream.add(rows);
        query.process_all_available().unwrap();
        let rows = session.table("out").unwrap().take();
        rows.iter().map(|row| text(&row[1..])).collect::<Vec<_>>()
    };
    assert_eq!(add(vec![timeless(0, 1), timeless(0, 2)]), ["a 1"]);
    assert_eq!(add(vec![row(100, 1, 3)]), ["b 3"]);
    assert_eq!(add(vec![timeless(0, 4), timeless(0, 5), row(100, 0, 6)]), ["a 4"]);
    assert_eq!(add(vec![timeless(0, 7)]), ["a 7"]);
    query.stop().unwrap();
    let last = query.recent_progress().last().map(|p| p.committed.state[0].rows);
    assert_eq!(last, Some(1), "only the key b is kept");
}
