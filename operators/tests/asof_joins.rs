//! ASOF joins: of tables, of a stream with a table, and of two streams.
#![cfg(feature = "sql")]

mod two_streams;

use millstream::session::{Session, Trigger};
use millstream::table::expr::col;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use two_streams::{BATCHES, CONTINUOUS, Event, Run, Setup, event, text};

const BOTH: [Trigger; 2] = [BATCHES, CONTINUOUS];
const TABLES: &str = "SET spark.sql.join.asofJoin.enabled = true;
    CREATE TEMPORARY VIEW l AS SELECT * FROM VALUES (1, 10), (1, 20), (2, 15), (3, NULL) AS l(k, t);
    CREATE TEMPORARY VIEW r AS SELECT * FROM VALUES (1, 5, 50), (1, 12, 51), (1, 12, 52), (3, 1, 53),
      (NULL, 1, 54) AS r(k, t, v)";

fn session() -> Session {
    let session = Session::new();
    session.script(TABLES, &mut |_| Ok(())).unwrap();
    session
}

/// The rows of a query, or its error condition.
fn answer(sql: &str) -> String {
    let rows = session().sql(sql).map_err(|error| error.condition);
    let rows =
        rows.and_then(|frame| frame.collect().map_err(|error| error.condition().to_string()));
    match rows {
        Ok(rows) => {
            let mut rows: Vec<_> = rows.iter().map(|row| text(row)).collect();
            rows.sort();
            rows.join("; ")
        }
        Err(condition) => condition,
    }
}

/// The expected results are those of Spark 4.3.
#[test]
fn tables_as_in_spark() {
    let cases = [
        ("l ASOF JOIN r MATCH_CONDITION (l.t >= r.t) ON l.k = r.k", "1 10 1 5 50; 1 20 1 12 52"),
        (
            "l INNER ASOF JOIN r MATCH_CONDITION (l.t > r.t) ON l.k = r.k",
            "1 10 1 5 50; 1 20 1 12 52",
        ),
        (
            "l LEFT ASOF JOIN r MATCH_CONDITION (l.t >= r.t) ON l.k = r.k",
            "1 10 1 5 50; 1 20 1 12 52; 2 15 - - -; 3 - - - -",
        ),
        (
            "l LEFT OUTER ASOF JOIN r MATCH_CONDITION (r.t < l.t) USING (k) WHERE k < 3",
            "1 10 5 50; 1 20 12 52; 2 15 - -",
        ),
        ("l ASOF JOIN r MATCH_CONDITION (l.t <= r.t) ON l.k = r.k", "1 10 1 12 51"),
        ("l ASOF JOIN r MATCH_CONDITION (l.t < r.t) USING (k)", "1 10 12 51"),
        (
            "l ASOF JOIN r MATCH_CONDITION (l.t >= r.t) ON l.k = r.k AND r.v < 52",
            "1 10 1 5 50; 1 20 1 12 51",
        ),
        (
            "l ASOF JOIN r MATCH_CONDITION (l.t >= r.t) ON l.k = r.k AND l.t - r.t > 8",
            "1 20 1 5 50",
        ),
        (
            "l ASOF JOIN r MATCH_CONDITION (l.t + 1 >= r.t * 2) ON l.k = r.k",
            "1 10 1 5 50; 1 20 1 5 50",
        ),
        ("l ASOF JOIN r MATCH_CONDITION ((l.t >= 5)) ON l.k = r.k", "1 10 1 12 52; 1 20 1 12 52"),
        (
            "l ASOF JOIN r MATCH_CONDITION (l.t >= r.t) ON l.k < r.k",
            "1 10 3 1 53; 1 20 3 1 53; 2 15 3 1 53",
        ),
        ("l ASOF JOIN r MATCH_CONDITION (l.t > r.t) WHERE l.k = 2", "2 15 1 12 52"),
        (
            "l ASOF JOIN r MATCH_CONDITION (l.t = r.t) ON l.k = r.k",
            "ASOF_JOIN_MATCH_CONDITION_INVALID_OPERATOR",
        ),
        (
            "l ASOF JOIN r MATCH_CONDITION (NOT l.t < r.t) ON l.k = r.k",
            "ASOF_JOIN_MATCH_CONDITION_INVALID_OPERATOR",
        ),
        (
            "l ASOF JOIN r MATCH_CONDITION (l.t >= l.k) ON l.k = r.k",
            "ASOF_JOIN_MATCH_CONDITION_TABLE_REFERENCE",
        ),
        (
            "l ASOF JOIN r MATCH_CONDITION (l.t + r.t >= r.t)",
            "ASOF_JOIN_MATCH_CONDITION_TABLE_REFERENCE",
        ),
        (
            "l ASOF JOIN r MATCH_CONDITION (l.t >= r.t + rand())",
            "ASOF_JOIN_MATCH_CONDITION_INVALID_EXPRESSION",
        ),
        (
            "l ASOF JOIN r MATCH_CONDITION (l.t >= (SELECT 1))",
            "ASOF_JOIN_MATCH_CONDITION_INVALID_EXPRESSION",
        ),
        (
            "l ASOF JOIN r MATCH_CONDITION (l.t >= max(r.t))",
            "ASOF_JOIN_MATCH_CONDITION_INVALID_EXPRESSION",
        ),
        (
            "l ASOF JOIN r MATCH_CONDITION (l.t >= DATE'2024-01-01')",
            "ASOF_JOIN_MATCH_CONDITION_INVALID_TYPE",
        ),
        (
            "l ASOF JOIN r MATCH_CONDITION (map(l.t, 1) >= map(r.t, 1))",
            "ASOF_JOIN_MATCH_CONDITION_INVALID_TYPE",
        ),
        (
            "l ASOF JOIN r MATCH_CONDITION (l.t > r.t) ON rand() > 2",
            "INVALID_NON_DETERMINISTIC_EXPRESSIONS",
        ),
        (
            "l ASOF JOIN r MATCH_CONDITION (l.t >= r.t) USING (k, z)",
            "UNRESOLVED_USING_COLUMN_FOR_JOIN",
        ),
        ("l RIGHT ASOF JOIN r MATCH_CONDITION (l.t >= r.t) ON l.k = r.k", "PARSE_SYNTAX_ERROR"),
        ("l NATURAL ASOF JOIN r MATCH_CONDITION (l.t >= r.t)", "PARSE_SYNTAX_ERROR"),
        ("l ASOF JOIN r ON l.k = r.k", "PARSE_SYNTAX_ERROR"),
        ("l ASOF JOIN r ON l.k = r.k MATCH_CONDITION (l.t >= r.t)", "PARSE_SYNTAX_ERROR"),
    ];
    for (from, expected) in cases {
        assert_eq!(answer(&format!("SELECT * FROM {from}")), expected, "{from}");
    }
    // An ASOF join as the right side of another one.
    let nested = "SELECT l.t, b.t FROM l LEFT ASOF JOIN (SELECT r.k, r.t FROM r ASOF JOIN l MATCH_CONDITION \
                  (r.t > l.t) USING (k)) AS b MATCH_CONDITION (l.t > b.t) ON l.k = b.k WHERE l.k = 1";
    assert_eq!(answer(nested), "10 -; 20 12");
    // Elsewhere the keywords of the join are ordinary names.
    assert_eq!(answer("SELECT asof.match_condition FROM VALUES (1) AS asof(match_condition)"), "1");
}

#[test]
fn the_setting_must_be_on() {
    let session = Session::new();
    let sql = "SELECT * FROM VALUES (1) AS l(t) ASOF JOIN VALUES (1) AS r(t) MATCH_CONDITION (l.t >= r.t)";
    assert_eq!(session.sql(sql).err().unwrap().condition, "UNSUPPORTED_FEATURE.ASOF_JOIN");
    let frame = session.sql("SELECT 1 AS t").unwrap();
    let error = frame.asof_join(&frame, &col("t").ge(col("t")), None, "inner").err().unwrap();
    assert_eq!(error.condition, "UNSUPPORTED_FEATURE.ASOF_JOIN");
}

#[test]
fn data_frames_give_the_same_rows_as_sql() {
    let session = session();
    let [l, r] = ["l", "r"].map(|name| session.view(name).unwrap().alias(name));
    let closest = col("l.t").ge(col("r.t"));
    let rows = |frame: &millstream::session::DataFrame| {
        let mut rows: Vec<_> = frame.collect().unwrap().iter().map(|row| text(row)).collect();
        rows.sort();
        rows.join("; ")
    };
    let on = col("l.k").eq(col("r.k"));
    let inner = l.asof_join(&r, &closest, Some(&on), "inner").unwrap();
    assert_eq!(rows(&inner), "1 10 1 5 50; 1 20 1 12 52");
    let left = l.asof_join_using(&r, &closest, ["k"], "left_outer").unwrap();
    assert_eq!(rows(&left), "1 10 5 50; 1 20 12 52; 2 15 - -; 3 - - -");
    assert_eq!(left.columns(), ["k", "t", "t", "v"]);
    let wrong = l.asof_join(&r, &closest, None, "full").err().unwrap();
    assert_eq!(wrong.condition, "UNSUPPORTED_JOIN_TYPE");
}

#[test]
fn a_stream_takes_the_closest_row_of_a_table() {
    const LEFTS: [Event; 6] = [
        (Some(1), Some(9), 1),
        (Some(1), Some(10), 2),
        (Some(1), Some(25), 3),
        (Some(2), Some(25), 4),
        (None, Some(25), 5),
        (Some(1), None, 6),
    ];
    // Of the rows at 20, `>=` and `>` take the last one, `<=` and `<` the first one, as on tables.
    let cases = [
        (">=", ["1 -", "2 100", "3 201", "4 -", "5 -", "6 -"]),
        (">", ["1 -", "2 -", "3 201", "4 -", "5 -", "6 -"]),
        ("<=", ["1 100", "2 100", "3 -", "4 -", "5 -", "6 -"]),
        ("<", ["1 100", "2 200", "3 -", "4 -", "5 -", "6 -"]),
    ];
    for (op, expected) in cases {
        for on in ["ON l.k = d.k", "USING (k)"] {
            for kind in ["LEFT ASOF", "ASOF"] {
                let sql = format!(
                    "SELECT l.v, d.w FROM l {kind} JOIN VALUES (1, 10, 100), (1, 20, 200), (1, 20, 201), \
                     (1, NULL, 300), (NULL, 20, 400) AS d(k, t, w) \
                     MATCH_CONDITION (unix_seconds(l.t) {op} d.t) {on}"
                );
                let kept = |row: &&str| kind == "LEFT ASOF" || !row.ends_with('-');
                let expected: Vec<_> = expected.iter().copied().filter(kept).collect();
                for trigger in BOTH {
                    for mode in ["append", "update"] {
                        let setup = Setup { mode, ..Setup::new(&sql, 0, trigger) };
                        let mut run = setup.start().unwrap();
                        let mut got = run.step(&LEFTS[..3], &[]);
                        run.restart(2).unwrap();
                        got.extend(run.step(&LEFTS[3..], &[]));
                        got.sort();
                        assert_eq!(got, expected, "{sql} {trigger:?} {mode}");
                    }
                }
            }
        }
    }
}

/// `b.k` after USING, and SELECT * with the key once.
#[test]
fn streams_are_joined_by_using() {
    for op in [">=", "<="] {
        for trigger in BOTH {
            let sql = format!(
                "SELECT k, a.k, b.k, a.v, b.v FROM l a ASOF JOIN r b MATCH_CONDITION (a.t {op} b.t) USING (k)"
            );
            let run = Setup::new(&sql, 0, trigger).start().unwrap();
            let mut got = run.step(&[event(1, 100, 1)], &[event(1, 100, 2), event(2, 100, 3)]);
            got.extend(run.step(END[0], END[1]));
            got.extend(run.step(&[], &[]));
            assert_eq!(run.wait_for(got, 1), ["1 1 1 1 2"], "{sql}");
            let sql = sql.replace("k, a.k, b.k, a.v, b.v", "*");
            let columns = Setup::new(&sql, 0, trigger).session().sql(&sql).unwrap().columns();
            assert_eq!(columns, ["k", "t", "v", "t", "v"]);
        }
    }
}

const FINAL: &str =
    "SELECT l.v, r.v FROM l LEFT ASOF JOIN r MATCH_CONDITION (l.t >= r.t) ON l.k = r.k";
const END: [&[Event]; 2] = [&[(Some(100), Some(5000), -1)], &[(Some(101), Some(5000), -2)]];

#[test]
fn a_left_row_is_emitted_when_no_closer_match_can_arrive() {
    for trigger in BOTH {
        let mut run = Setup::new(FINAL, 10, trigger).start().unwrap();
        assert!(run.step(&[event(1, 100, 1), event(2, 100, 2)], &[event(1, 90, 10)]).is_empty());
        // Adds a closer right row, and a right row that is later than the left row.
        assert!(run.step(&[], &[event(1, 99, 11), event(1, 101, 12)]).is_empty());
        run.restart(2).unwrap();
        let got = run.step(&[event(9, 111, 9)], &[event(9, 111, 19)]);
        assert_eq!(run.wait_for(got, 2), ["1 11", "2 -"]);
        // The last right row before the watermark is kept, also after a restart.
        run.restart(1).unwrap();
        let got = run.step(&[event(1, 105, 3)], &[]);
        assert!(got.is_empty(), "{got:?}");
        let got = run.step(END[0], END[1]);
        assert_eq!(run.wait_for(got, 2), ["3 12", "9 19"]);
    }
}

#[test]
fn the_latest_arrival_of_one_time_is_the_closest() {
    for (op, expected) in [(">=", "1 3"), (">", "1 1")] {
        let sql = FINAL.replace(">=", op);
        for trigger in BOTH {
            let run = Setup::new(&sql, 0, trigger).start().unwrap();
            run.step(&[], &[event(1, 90, 1), event(1, 100, 2), event(1, 100, 3)]);
            let mut got = run.step(&[event(1, 100, 1)], &[]);
            got.extend(run.step(END[0], END[1]));
            assert_eq!(run.wait_for(got, 2), ["-1 -", expected], "{op}");
        }
    }
}

#[test]
fn rows_that_no_left_row_can_match_are_evicted() {
    let run = Setup::new(FINAL, 0, BATCHES).start().unwrap();
    for round in 0..20 {
        let r: Vec<Event> = (0..50).map(|i| event(i % 5, round * 100 + i, i)).collect();
        run.step(&[event(1, round * 100 + 60, 1)], &r);
    }
    run.step(&[event(9, 4000, 1)], &[event(9, 4000, 1)]);
    run.step(&[event(9, 5000, 1)], &[event(9, 5000, 1)]);
    run.step(&[], &[]);
    let state = run.query().last_progress().unwrap().committed.state[0];
    // The join keeps one right row for each of five keys, and the rows of key 9.
    assert!(state.rows <= 9, "{}", state.rows);
}

#[test]
fn in_update_mode_a_row_is_emitted_at_once_and_again_when_it_changes() {
    let setup = Setup { mode: "update", ..Setup::new(FINAL, 10, CONTINUOUS) };
    let mut run = setup.start().unwrap();
    assert_eq!(run.step(&[event(1, 100, 1)], &[]), ["1 -"]);
    assert_eq!(run.step(&[], &[event(1, 95, 10)]), ["1 10"]);
    assert!(run.step(&[], &[event(1, 93, 11)]).is_empty(), "it is no closer");
    assert!(run.step(&[], &[event(1, 101, 12)]).is_empty(), "it is behind");
    run.restart(2).unwrap();
    assert_eq!(run.step(&[event(1, 102, 2)], &[event(1, 98, 13)]), ["1 13", "2 12"]);
    assert_eq!(run.step(&[event(1, 130, 3)], &[event(2, 130, 0)]), ["3 12"]);
    let matches = || -> u64 {
        let progress = run.query().recent_progress();
        let states = progress.iter().flat_map(|progress| &progress.committed.state);
        states.filter_map(|state| state.join).map(|join| join.matches).sum()
    };
    while matches() < 3 {
        run.wait_for_epoch();
    }
    assert_eq!(matches(), 3, "a row that is emitted again has a match again");
    // The watermark has passed the first two rows.
    assert!(run.step(&[], &[event(1, 121, 14)]).iter().all(|row| row == "3 14"));
}

#[test]
fn joins_of_streams_that_cannot_be_answered_are_refused() {
    let refused = |sql: &str, delays: [Option<i64>; 2]| {
        let setup = Setup { delays, ..Setup::new(sql, 0, CONTINUOUS) };
        setup.start().err().unwrap().condition().to_string()
    };
    let both = [Some(0); 2];
    let from = "SELECT l.v, r.v FROM l ASOF JOIN r MATCH_CONDITION";
    let left_from = from.replace("ASOF", "LEFT ASOF");
    let other = "STREAM_STREAM_ASOF_JOIN_UNSUPPORTED";
    let unmarked = "STREAM_STREAM_JOIN_WITHOUT_WATERMARK";
    assert_eq!(refused(&format!("{left_from} (l.t <= r.t) ON l.k = r.k"), both), other);
    assert_eq!(refused(&format!("{left_from} (r.t > l.t) ON l.k = r.k"), both), other);
    assert_eq!(refused(&format!("{from} (l.t <= r.t) ON l.k = r.k AND l.v < r.v"), both), other);
    assert_eq!(refused(&format!("{from} (l.t < r.t) ON l.k = r.k"), [None, Some(0)]), unmarked);
    assert_eq!(refused(&format!("{from} (l.t >= r.t) ON l.k = r.k AND l.v < r.v"), both), other);
    assert_eq!(refused(&format!("{from} (l.t >= r.t) ON l.k = r.k"), [Some(0), None]), unmarked);
    assert_eq!(refused(&format!("{from} (l.v >= r.v) ON l.k = r.k"), both), unmarked);
    let sql = "SELECT * FROM VALUES (1, 2) AS d(k, v) ASOF JOIN r MATCH_CONDITION (d.v >= r.v) ON d.k = r.k";
    assert_eq!(refused(sql, both), "STREAM_STATIC_JOIN_UNSUPPORTED");
}

const FORWARD: &str =
    "SELECT l.v, r.v FROM l ASOF JOIN r MATCH_CONDITION (l.t <= r.t) ON l.k = r.k";

#[test]
fn a_left_row_is_emitted_with_the_first_row_after_it_when_none_can_arrive_in_between() {
    for trigger in BOTH {
        let mut run = Setup::new(FORWARD, 10, trigger).start().unwrap();
        let lefts = [event(1, 100, 1), event(1, 106, 2), event(2, 100, 3), (None, Some(100), 4)];
        assert!(run.step(&lefts, &[event(1, 108, 10), (None, Some(101), 11)]).is_empty());
        // The watermark is 101: a right row at 102 may still arrive.
        assert!(run.step(&[event(9, 111, 9)], &[event(9, 111, 19)]).is_empty());
        run.restart(2).unwrap();
        assert!(run.step(&[], &[event(1, 102, 12)]).is_empty());
        let got = run.step(&[event(9, 114, 8)], &[event(9, 112, 18)]);
        assert_eq!(run.wait_for(got, 1), ["1 12"]);
        run.restart(1).unwrap();
        let mut got = run.step(&[event(9, 200, 7)], &[event(9, 200, 17)]);
        got.extend(run.step(END[0], END[1]));
        assert_eq!(run.wait_for(got, 4), ["2 10", "7 17", "8 17", "9 19"], "{trigger:?}");
    }
}

#[test]
fn the_latest_arrival_of_the_first_time_is_the_closest() {
    for (op, expected) in [("<=", "1 2"), ("<", "1 4")] {
        for trigger in BOTH {
            let run = Setup::new(&FORWARD.replace("<=", op), 0, trigger).start().unwrap();
            run.step(&[], &[event(1, 100, 1), event(1, 100, 2), event(1, 101, 3)]);
            run.step(&[], &[event(1, 101, 4)]);
            let mut got = run.step(&[event(1, 100, 1)], &[]);
            got.extend(run.step(END[0], END[1]));
            got.extend(run.step(&[], &[]));
            assert_eq!(run.wait_for(got, 1), [expected], "{op} {trigger:?}");
        }
    }
}

#[test]
fn in_update_mode_a_row_is_emitted_again_for_each_closer_row_after_it() {
    for (kind, first) in [("LEFT ASOF", vec!["1 -", "2 -"]), ("ASOF", vec![])] {
        let sql = FORWARD.replace("ASOF", kind);
        let setup = Setup { mode: "update", ..Setup::new(&sql, 10, CONTINUOUS) };
        let mut run = setup.start().unwrap();
        assert_eq!(run.step(&[event(1, 100, 1), event(1, 103, 2)], &[]), first);
        assert_eq!(run.step(&[], &[event(1, 105, 10)]), ["1 10", "2 10"]);
        assert!(run.step(&[], &[event(1, 106, 11)]).is_empty(), "it is no closer");
        assert!(run.step(&[], &[event(1, 99, 12)]).is_empty(), "it is before");
        run.restart(2).unwrap();
        assert_eq!(run.step(&[], &[event(1, 102, 13)]), ["1 13"]);
        assert_eq!(run.step(&[event(1, 104, 3)], &[event(1, 103, 14)]), ["2 14", "3 10"]);
        // Of two rows of one time the later arrival is the closer one.
        assert_eq!(run.step(&[], &[event(1, 103, 15)]), ["2 15"]);
        run.step(&[event(9, 300, 4)], &[event(9, 300, 5)]);
        run.wait_for_epoch();
        assert!(run.step(&[], &[event(1, 291, 16)]).is_empty(), "no earlier row waits");
    }
}

/// A left row leaves with the right row that it matches, and a right row when the watermark reaches
/// it. Left rows without a later right row stay.
#[test]
fn rows_of_a_forward_join_are_evicted_when_their_match_is_final() {
    for mode in ["append", "update"] {
        let setup = Setup { mode, ..Setup::new(FORWARD, 0, BATCHES) };
        let run = setup.start().unwrap();
        for round in 0..20 {
            let l: Vec<Event> = (0..50).map(|i| event(i % 5, round * 100 + i, i)).collect();
            run.step(&l, &[event(0, round * 100 + 60, 1), event(1, round * 100 + 60, 2)]);
        }
        run.step(&[event(9, 4000, 1)], &[event(9, 4000, 1)]);
        run.step(&[event(9, 5000, 1)], &[event(9, 5000, 1)]);
        run.step(&[], &[]);
        let join = run.query().last_progress().unwrap().committed.state[0].join.unwrap();
        // The rows of three keys without right rows, and those of key 9.
        let [left, right] = join.inputs.map(|input| input.rows);
        assert!((600..=602).contains(&left) && right <= 2, "{left} {right}, {mode}");
    }
}

/// The rows of one step of both streams: keys, times and numbers.
type Step = (Vec<Event>, Vec<Event>);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = (0..3i64, 0..20i64);
    let side = || proptest::collection::vec(one.clone(), 0..6);
    proptest::collection::vec((side(), side()), 1..6).prop_map(|steps| {
        let mut number = 0;
        let mut numbered = |begin: i64, rows: Vec<(i64, i64)>| -> Vec<Event> {
            let row = |(k, t): (i64, i64)| {
                number += 1;
                event(k, begin + t, number)
            };
            rows.into_iter().map(row).collect()
        };
        let steps = steps.into_iter().enumerate();
        steps
            .map(|(i, (l, r))| {
                let begin = 100 + i as i64 * 10;
                (numbered(begin, l), numbered(begin, r))
            })
            .collect()
    })
}

fn op() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just(">="), Just(">"), Just("<="), Just("<")]
}

/// The closest right row of each left row, computed from scratch.
fn model(steps: &[Step], op: &str, left: bool) -> Vec<String> {
    let all_r: Vec<&Event> = steps.iter().flat_map(|(_, r)| r).collect();
    let mut rows = Vec::new();
    for l in steps.iter().flat_map(|(l, _)| l) {
        let matches = |r: &&&Event| {
            r.0 == l.0
                && match op {
                    ">" => r.1 < l.1,
                    ">=" => r.1 <= l.1,
                    "<" => r.1 > l.1,
                    _ => r.1 >= l.1,
                }
        };
        // Of rows with equal times the last one counts.
        let matching = all_r.iter().filter(matches);
        match matching.max_by_key(|r| if op.starts_with('<') { r.1.map(|t| -t) } else { r.1 }) {
            Some(r) => rows.push(format!("{} {}", l.2, r.2)),
            None if left => rows.push(format!("{} -", l.2)),
            None => {}
        }
    }
    rows.sort();
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// The output equals a join of all rows, in any order of arrival and with a restart at any
    /// point.
    #[test]
    fn a_join_of_streams_gives_the_rows_of_a_join_of_tables(
        steps in steps(),
        op in op(),
        left: bool,
        continuous: bool,
        restart in 0..6usize,
    ) {
        // A row without a row after it is never certain to have none.
        let left = left && op.starts_with('>');
        let kind = if left { "LEFT" } else { "INNER" };
        let sql = format!(
            "SELECT l.v, r.v FROM l {kind} ASOF JOIN r MATCH_CONDITION (l.t {op} r.t) ON l.k = r.k"
        );
        let trigger = if continuous { CONTINUOUS } else { BATCHES };
        // No row is late.
        let mut run = Setup::new(&sql, 25, trigger).start().unwrap();
        let mut got = Vec::new();
        for (i, (l, r)) in steps.iter().enumerate() {
            got.extend(run.step(l, r));
            if i == restart {
                got.extend(run.take());
                run.restart(1 + i % 2).unwrap();
            }
        }
        got.extend(run.step(END[0], END[1]));
        let expected = model(&steps, op, left);
        let mut got = run.wait_for(got, expected.len());
        got.sort();
        prop_assert_eq!(got, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// In update mode, the last result of each left row is the row of a join of all rows, and each
    /// result is closer than the one before.
    #[test]
    fn in_update_mode_the_last_results_are_the_rows_of_a_join_of_tables(
        steps in steps(),
        op in op(),
        left: bool,
        continuous: bool,
        restart in 0..6usize,
    ) {
        let kind = if left { "LEFT" } else { "INNER" };
        let sql = format!(
            "SELECT l.v, r.v FROM l {kind} ASOF JOIN r MATCH_CONDITION (l.t {op} r.t) ON l.k = r.k"
        );
        let trigger = if continuous { CONTINUOUS } else { BATCHES };
        // No row is late.
        let setup = Setup { mode: "update", ..Setup::new(&sql, 25, trigger) };
        let mut run = setup.start().unwrap();
        let closeness = |r: &Event| if op.starts_with('<') { r.1.map(|t| -t) } else { r.1 };
        let rights: BTreeMap<String, (Option<i64>, i64)> =
            steps.iter().flat_map(|(_, r)| r).map(|r| (r.2.to_string(), (closeness(r), r.2))).collect();
        let mut last: BTreeMap<String, String> = BTreeMap::new();
        let mut take = |run: &Run| {
            for row in run.take_in_order() {
                let (l, r) = row.split_once(' ').unwrap();
                let before = last.insert(l.to_string(), r.to_string());
                let before = before.filter(|before| before != "-");
                assert!(before.is_none_or(|before| rights[&before] < rights[r]), "{row}");
            }
            let mut rows: Vec<_> = last.iter().map(|(l, r)| format!("{l} {r}")).collect();
            rows.sort();
            rows
        };
        for (i, (l, r)) in steps.iter().enumerate() {
            run.add(l, r);
            run.query().process_all_available().unwrap();
            take(&run);
            if i == restart {
                run.restart(1 + i % 2).unwrap();
            }
        }
        let expected = model(&steps, op, left);
        let begun = Instant::now();
        let mut got = take(&run);
        while got != expected && begun.elapsed() < Duration::from_secs(20) {
            std::thread::yield_now();
            got = take(&run);
        }
        prop_assert_eq!(got, expected);
    }
}

#[test]
fn values_of_any_ordered_type_are_compared() {
    let cases = [
        ("'x'", "'w'"),
        ("1.5D", "double('-0.0')"),
        ("double('NaN')", "double('NaN')"),
        ("DATE'2024-01-05'", "TIMESTAMP'2024-01-01 00:00:00'"),
        ("named_struct('a', 3)", "named_struct('a', 2)"),
        ("array(1)", "array(0)"),
        ("12.50BD", "12.5BD"),
        ("X'02'", "X'01'"),
        ("true", "false"),
        ("INTERVAL '1' DAY", "INTERVAL '2' HOUR"),
    ];
    for (l, r) in cases {
        let sql = format!(
            "SELECT l.k, r.k FROM VALUES (1, {l}) AS l(k, t) ASOF JOIN VALUES (2, {r}) AS r(k, t) \
             MATCH_CONDITION (l.t >= r.t)"
        );
        assert_eq!(answer(&sql), "1 2", "{sql}");
    }
}
