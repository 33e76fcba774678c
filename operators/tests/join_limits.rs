//! A join with a side that has no rows: what progress reports show, the limit of the other side's
//! rows, and the idle time-out.
#![cfg(feature = "sql")]

mod two_streams;

use millstream::JoinState;
use millstream::session::Trigger;
use two_streams::{BATCHES, CONTINUOUS, Event, Run, Setup, event};

const BOTH: [Trigger; 2] = [BATCHES, CONTINUOUS];
const SQL: &str = "SELECT l.v, r.v FROM l LEFT JOIN r ON l.k = r.k AND r.t >= l.t AND r.t <= l.t + INTERVAL 10 SECONDS";

fn start(sql: &str, trigger: Trigger, settings: &[(&str, &str)]) -> Run {
    let mut run = Setup::new(sql, 0, trigger).start().unwrap();
    for (key, value) in settings {
        run.session.set(key, value).unwrap();
    }
    run.restart(1).unwrap();
    run
}

/// The join metrics of the last epoch.
fn join_of(run: &Run) -> serde_json::Value {
    run.query().last_progress().unwrap().to_json()["stateOperators"][0]["join"].clone()
}

#[test]
fn progress_reports_the_rows_of_each_side_and_the_slow_side() {
    for trigger in BOTH {
        let run = start(SQL, trigger, &[]);
        // The right side's watermark, 100, does not let the row at 95 expire yet.
        run.step(&[event(3, 95, 3), event(1, 100, 1), event(2, 101, 2)], &[event(1, 100, 7)]);
        let join = join_of(&run);
        assert_eq!((&join["left"]["numRows"], &join["right"]["numRows"]), (&3.into(), &1.into()));
        assert!(join["left"]["bytes"].as_u64().unwrap() >= 3 * 40, "{join}");
        assert_eq!(join["left"]["oldestEventTime"], "1970-01-01T00:01:35.000Z");
        let total = |of: &dyn Fn(&JoinState) -> u64| -> u64 {
            let progress = run.query().recent_progress();
            let states = progress.iter().flat_map(|p| &p.committed.state);
            states.filter_map(|state| state.join).map(|join| of(&join)).sum()
        };
        assert_eq!(total(&|join| join.matches), 1);
        assert_eq!([0, 1].map(|side| total(&|join| join.inputs[side].received)), [3, 1]);
        run.step(&[event(1, 200, 4)], &[]);
        run.step(&[event(1, 201, 5)], &[]);
        let join = join_of(&run);
        assert_eq!(join["waitingFor"]["side"], "right", "{join}");
        assert!(join["waitingFor"]["since"].as_str().unwrap().starts_with("20"), "{join}");
        assert_eq!(join["right"]["isHeld"], false);
        run.step(&[event(9, 400, 6)], &[event(9, 400, 8)]);
        run.step(&[], &[]);
        assert_eq!([0, 1].map(|side| total(&|join| join.inputs[side].evicted)), [5, 1]);
    }
}

/// The watermark is held back by the side with the lower one, also if both sides have sent rows
/// before, and after a restart.
#[test]
fn progress_names_the_side_that_holds_back_the_watermark() {
    let waits = |run: &Run| {
        let waiting = join_of(run)["waitingFor"].clone();
        waiting["side"].as_str().map(str::to_string)
    };
    for trigger in BOTH {
        let mut run = start(SQL, trigger, &[]);
        // The right side is behind, although it was the last one to send rows.
        run.step(&[event(1, 500, 1)], &[]);
        run.step(&[], &[event(2, 100, 2)]);
        run.step(&[event(3, 501, 3)], &[]);
        assert_eq!(waits(&run).as_deref(), Some("right"), "{trigger:?}");
        // The left side has sent nothing since, and the right side has overtaken it.
        run.step(&[], &[event(4, 900, 4)]);
        run.step(&[], &[event(4, 901, 4)]);
        assert_eq!(waits(&run).as_deref(), Some("left"), "{trigger:?}");
        run.restart(1).unwrap();
        run.step(&[event(5, 902, 5)], &[]);
        assert_eq!(waits(&run).as_deref(), Some("right"), "{trigger:?}");
    }
    // One side has never sent a row, before the restart neither.
    let mut run = start(SQL, CONTINUOUS, &[]);
    run.step(&[event(1, 500, 1)], &[]);
    run.restart(1).unwrap();
    run.wait_for_epoch();
    assert_eq!(waits(&run).as_deref(), Some("right"));
    // With the higher watermark of both sides no side is waited for.
    let policy = [("spark.sql.streaming.multipleWatermarkPolicy", "max")];
    let run = start(SQL, BATCHES, &policy);
    run.step(&[event(1, 500, 1)], &[]);
    assert_eq!(waits(&run), None);
}

/// The row that a match has removed is not the next one to expire.
#[test]
fn the_oldest_row_of_a_semi_join_is_one_that_is_buffered() {
    let sql = "SELECT l.v FROM l LEFT SEMI JOIN r ON l.k = r.k AND r.t >= l.t AND r.t <= l.t + INTERVAL 10 SECONDS";
    for trigger in BOTH {
        let run = start(sql, trigger, &[]);
        run.step(&[event(1, 100, 1), event(2, 101, 2), event(3, 102, 3)], &[]);
        run.step(&[], &[event(1, 100, 7), event(2, 101, 8)]);
        assert_eq!(join_of(&run)["left"]["oldestEventTime"], "1970-01-01T00:01:42.000Z");
    }
}

/// The rows read include those that are not buffered: left rows of a semi join that match on
/// arrival, rows with NULL as key and late rows.
#[test]
fn progress_counts_all_rows_that_a_join_reads() {
    let sql = "SELECT l.v FROM l LEFT SEMI JOIN r ON l.k = r.k AND r.t >= l.t - INTERVAL 9 SECONDS AND \
               r.t <= l.t + INTERVAL 9 SECONDS";
    let read = |run: &Run| {
        [0, 1].map(|side: usize| -> u64 {
            let progress = run.query().recent_progress();
            let states = progress.iter().flat_map(|p| &p.committed.state);
            states.filter_map(|state| state.join).map(|join| join.inputs[side].received).sum()
        })
    };
    for trigger in BOTH {
        let run = start(sql, trigger, &[]);
        let got = run.step(&[], &[event(1, 100, 1), event(2, 100, 2)]);
        let more = run.step(&[event(1, 100, 3), event(1, 101, 4), event(7, 101, 5)], &[]);
        assert_eq!([got, more].concat(), ["3", "4"], "{trigger:?}");
        run.step(&[event(9, 900, 6)], &[event(9, 901, 7)]);
        run.step(&[event(1, 90, 8)], &[event(1, 90, 9)]);
        run.step(&[], &[]);
        assert_eq!(read(&run), [5, 4], "{trigger:?}");
    }
}

/// Left rows a second apart, each with its own key.
fn lefts(rows: std::ops::Range<i64>) -> Vec<Event> {
    rows.map(|v| event(v, 100 + v, v)).collect()
}

#[test]
fn the_side_that_is_ahead_waits_at_the_limit_and_loses_no_row() {
    let settings = [("millstream.join.maxStateBytes", "10k")];
    let mut run = start(SQL, CONTINUOUS, &settings);
    let rows = 50_000;
    let mut got = run.step(&lefts(0..rows), &[]);
    run.step(&[], &[]);
    run.wait_for_epoch();
    let state = run.query().last_progress().unwrap().committed.state[0];
    assert!(state.rows < rows as u64 / 5, "{} rows are buffered", state.rows);
    assert!(state.join.unwrap().inputs[0].is_held);
    assert_eq!(state.join.unwrap().waiting_for.map(|waited| waited.input), Some(1));
    // The side that is behind has sent rows, but not enough for the other one to continue.
    run.step(&[], &[event(-1, 100, 100)]);
    run.wait_for_epoch();
    let join = run.query().last_progress().unwrap().committed.state[0].join.unwrap();
    assert!(join.inputs[0].is_held);
    assert_eq!(join.waiting_for.map(|waited| waited.input), Some(1));
    // The query is stopped and started while a side is paused.
    run.restart(2).unwrap();
    run.wait_for_epoch();
    // The right side catches up, in steps.
    for t in (101..100 + rows + 20).step_by(1000) {
        got.extend(run.step(&[], &[event(-1, t, t)]));
    }
    got.extend(run.step(&[event(-1, 100 + rows + 100, -1)], &[event(-2, 100 + rows + 100, 0)]));
    let got = run.wait_for(got, rows as usize);
    assert_eq!(got.len() as i64, rows);
    let mut once = got.clone();
    once.dedup();
    assert_eq!(once.len(), got.len());
    let state = run.query().last_progress().unwrap().committed.state[0];
    assert!(!state.join.unwrap().inputs.iter().any(|input| input.is_held));
}

#[test]
fn a_limit_may_end_the_query() {
    for trigger in BOTH {
        let settings =
            [("millstream.join.maxStateBytes", "1k"), ("millstream.join.onMaxStateBytes", "fail")];
        let run = start(SQL, trigger, &settings);
        run.add(&lefts(0..1000), &[]);
        let error = run.query().process_all_available().unwrap_err();
        assert_eq!(error.condition(), "JOIN_STATE_LIMIT_EXCEEDED");
        // In micro-batch mode both sides have the same watermark.
        let names_side = error.to_string().contains("waits for the right side");
        assert_eq!(names_side, trigger == CONTINUOUS, "{error}");
    }
    // No side can wait in micro-batch mode, nor if one source feeds both sides.
    let settings = [("millstream.join.maxStateBytes", "1k")];
    let of_itself = "SELECT a.v, b.v FROM l a JOIN l b ON a.k = b.k AND b.t >= a.t AND b.t <= a.t + INTERVAL 1 HOUR";
    for (sql, trigger) in [(SQL, BATCHES), (of_itself, CONTINUOUS)] {
        let run = start(sql, trigger, &settings);
        run.add(&lefts(0..1000), &[]);
        let error = run.query().process_all_available().unwrap_err();
        assert_eq!(error.condition(), "JOIN_STATE_LIMIT_EXCEEDED", "{sql}");
    }
    // The join does not wait if rows never expire.
    let settings = [("millstream.join.maxStateBytes", "1k")];
    let run = start("SELECT l.v, r.v FROM l JOIN r ON l.k = r.k", CONTINUOUS, &settings);
    run.add(&lefts(0..1000), &[]);
    let error = run.query().process_all_available().unwrap_err();
    assert_eq!(error.condition(), "JOIN_STATE_LIMIT_EXCEEDED");
}

/// With an idle time-out the join continues without the silent side.
#[test]
fn an_idle_side_is_ignored_after_the_idle_timeout() {
    let settings =
        [("millstream.join.maxStateBytes", "10k"), ("millstream.idleTimeout", "50 milliseconds")];
    let run = start(SQL, CONTINUOUS, &settings);
    let rows = 5_000;
    let got = run.step(&lefts(0..rows), &[]);
    // The last rows wait until ten seconds of event time have passed.
    let got = run.wait_for(got, rows as usize - 11);
    assert!(got.iter().all(|row| row.ends_with(" -")), "{:?}", got.last());
}

#[test]
fn settings_are_checked() {
    let run = start(SQL, BATCHES, &[]);
    for (key, value) in [
        ("millstream.join.maxStateBytes", "many"),
        ("millstream.join.maxStateBytes", "0"),
        ("millstream.join.onMaxStateBytes", "stop"),
    ] {
        assert!(run.session.set(key, value).is_err(), "{key} = {value}");
    }
    for value in ["1s", "500ms", "2m", "10 seconds", "1 minute 30 seconds", "none"] {
        run.session.set("millstream.idleTimeout", value).unwrap();
        run.session.set("millstream.eventTime.maxFutureSkew", value).unwrap();
    }
    for value in ["0s", "1", "s", "-1 second", "1 month"] {
        assert!(run.session.set("millstream.idleTimeout", value).is_err(), "{value}");
    }
    for value in ["none", "1000", "512m", "2GB"] {
        run.session.set("millstream.join.maxStateBytes", value).unwrap();
    }
}
