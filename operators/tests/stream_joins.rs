//! Joins of two streams. Mistakes that are easy to make, and their tests:
//!
//! | mistake | tests here, in `join_steps`, `join_limits` and `join_model` |
//! |---|---|
//! | 1. a row that had a match is also emitted with NULLs | `a_matched_row_is_not_emitted_with_nulls_after_its_match_has_expired` |
//! | 2. a row that expires when it arrives finds no match | `a_row_that_expires_in_its_first_batch_matches_and_is_evicted`, `a_row_that_is_expired_on_arrival_matches_and_is_evicted` |
//! | 3. rows of one batch do not match each other | `rows_of_a_batch_match_each_other` |
//! | 4. an operator or a side uses the watermark of another one | `each_operator_has_its_own_watermark_also_after_a_restart`, `each_side_has_its_own_watermark_also_after_a_restart` |
//! | 5. rows without a match are late for operators downstream | `outer_rows_are_not_late_for_the_aggregate_after_the_join` |
//! | 6. NULL, NaN or -0.0 as keys are compared wrongly | `null_keys_match_only_where_null_equals_null_and_nan_and_zero_are_one_value` |
//! | 7. the faster input's watermark makes rows of the slower one late | `the_slow_side_loses_no_row_to_the_watermark_of_the_fast_one` |
//! | 8. asymmetric ranges give wrong results, or their bounds overflow | `ranges_can_be_asymmetric_one_sided_or_a_single_instant`, `each_side_of_an_asymmetric_range_is_kept_for_its_own_bound`, `bounds_at_the_ends_of_time_do_not_overflow` |
//! | 9. the index of expired rows is evicted, but not the rows | `rows_that_expire_free_their_index_and_themselves_of_all_keys`, `an_ended_side_does_not_delay_the_expiry_of_the_other` |
//! | 10. only keys with new rows are evicted | `keys_without_new_rows_are_evicted_too` |
//! | 11. a semi, anti, left or full join becomes an inner join | `each_kind_of_join_is_right_in_both_modes`, `each_kind_of_join_is_right_with_conditions_on_one_side_and_on_both` |
//! | 12. a row with very many matches blocks all others | `a_row_with_many_matches_is_joined_in_steps`, `a_row_with_very_many_matches_is_joined_in_steps_without_blocking_other_keys`, `an_unfinished_search_continues_after_a_restart` |
//! | 13. an idle side blocks the join for ever | `an_idle_side_delays_rows_until_the_timeout_only`, and `join_limits` |
//! | 14. joins of a stream with itself or its aggregate, or of three streams, fail | `self_joins_own_aggregates_three_streams_and_tables_in_between` |
//! | 15. a restart loses buffered rows or matched flags | `a_restart_keeps_rows_matched_flags_watermarks_and_pending_expiry`, and all tests that use `rows` |
#![cfg(feature = "sql")]

mod two_streams;

use millstream::session::{DataFrame, Session, Trigger};
use millstream::table::expr::col;
use millstream::table::value::Value;
use std::time::{Duration, Instant};
use two_streams::{BATCHES, CONTINUOUS, Event, Run, SECOND, Setup, event, text};

const BOTH: [Trigger; 2] = [BATCHES, CONTINUOUS];
/// Selects the columns of both sides.
const ALL: &str = "SELECT l.k, unix_seconds(l.t), l.v, r.k, unix_seconds(r.t), r.v FROM l";
/// The join condition: equal keys, and the right row is zero to ten seconds later than the left
/// one.
const SOON: &str = "l.k = r.k AND r.t >= l.t AND r.t <= l.t + INTERVAL '10' SECOND";
/// Rows that move both watermarks (without a delay) to 5000 seconds, and match nothing.
const END: [&[Event]; 2] = [&[(Some(100), Some(5000), -999)], &[(Some(101), Some(5000), -999)]];

fn start(sql: &str, trigger: Trigger) -> Run {
    Setup::new(sql, 0, trigger).start().unwrap()
}

/// The output of steps of left and right rows in both modes, after the watermark has passed all
/// rows: the rows of all steps, sorted. No row is late. The output stays the same if the query is
/// restarted after each step, with another parallelism and in the other mode.
fn rows(sql: &str, steps: &[[&[Event]; 2]]) -> Vec<String> {
    rows_of_ways(sql, steps, &[(CONTINUOUS, None), (CONTINUOUS, Some([BATCHES, CONTINUOUS]))])
}

/// The output of a micro-batch run without restarts. Checks that each of the `ways` has the same
/// output: a mode, and optionally the modes of the restarts after each step.
fn rows_of_ways(
    sql: &str,
    steps: &[[&[Event]; 2]],
    ways: &[(Trigger, Option<[Trigger; 2]>)],
) -> Vec<String> {
    let of_mode = |trigger, restarts: Option<[Trigger; 2]>| {
        let mut run = Setup::new(sql, 200, trigger).start().unwrap();
        let mut got = Vec::new();
        for (number, [l, r]) in steps.iter().enumerate() {
            got.extend(run.step(l, r));
            if let Some(triggers) = restarts {
                run.setup.trigger = triggers[number % 2];
                run.restart(2 - number % 2).unwrap();
                got.extend(run.take());
            }
        }
        got.extend(run.step(END[0], END[1]));
        (run, got)
    };
    let (_, mut batches) = of_mode(BATCHES, None);
    batches.sort();
    for (trigger, restarts) in ways {
        let (run, got) = of_mode(*trigger, *restarts);
        let got = run.wait_for(got, batches.len());
        assert_eq!(got, batches, "{sql} in {trigger:?}, started again in {restarts:?}");
    }
    batches.retain(|row| !row.contains("-999"));
    batches
}

#[test]
fn a_matched_row_is_not_emitted_with_nulls_after_its_match_has_expired() {
    // The right row expires at 100 s and the left one only at 110 s, because of its range.
    let sql = format!("{ALL} LEFT JOIN r ON {SOON}");
    let first: [&[Event]; 2] = [&[event(1, 100, 1)], &[event(1, 100, 2)]];
    let later: [&[Event]; 2] = [&[event(9, 105, 0)], &[event(8, 105, 0)]];
    let got = rows(&sql, &[first, later, [&[event(9, 200, 0)], &[event(8, 200, 0)]]]);
    assert_eq!(got, ["1 100 1 1 100 2", "9 105 0 - - -", "9 200 0 - - -"]);
    for trigger in BOTH {
        let mut run = start(&sql, trigger);
        assert_eq!(run.step(first[0], first[1]), ["1 100 1 1 100 2"]);
        run.step(later[0], later[1]);
        run.restart(1).unwrap();
        let got = run.wait_for(run.step(&[event(9, 200, 0)], &[event(8, 200, 0)]), 1);
        assert_eq!(got, ["9 105 0 - - -"], "the matched bit is in the checkpoint");
    }
}

#[test]
fn a_row_that_expires_in_its_first_batch_matches_and_is_evicted() {
    let sql = format!("{ALL} FULL JOIN r ON {SOON}");
    let run = start(&sql, BATCHES);
    run.step(&[event(9, 100, 0)], &[event(9, 100, 0)]);
    // The watermark of this batch is 100 s, and rows after 100 s are not late.
    let l = [event(1, 101, 1), event(2, 101, 2), event(9, 1000, 0)];
    let r = [event(1, 105, 3), event(3, 101, 4), event(9, 1000, 0)];
    assert_eq!(
        run.step(&l, &r),
        ["- - - 3 101 4", "1 101 1 1 105 3", "2 101 2 - - -", "9 1000 0 9 1000 0"]
    );
    // Without batches that have no rows, a batch has an earlier watermark for late rows than for the
    // rows that expire. Rows between the two expire in the batch that brings them.
    let mut setup = Setup::new(&sql, 0, BATCHES);
    setup.settings.push(("spark.sql.streaming.noDataMicroBatches.enabled", "false"));
    let run = setup.start().unwrap();
    run.step(&[event(9, 100, 0)], &[event(9, 100, 0)]);
    let got = run.step(&[event(1, 50, 1), event(2, 50, 2)], &[event(1, 55, 3), event(3, 50, 4)]);
    assert_eq!(got, ["- - - 3 50 4", "1 50 1 1 55 3", "2 50 2 - - -"]);
}

#[test]
fn a_row_that_is_expired_on_arrival_matches_and_is_evicted() {
    // A left row matches right rows that are ten to twenty seconds older. At the watermark 100 a
    // left row at 105 is not late, but no future right row can match it.
    let on =
        "l.k = r.k AND r.t >= l.t - INTERVAL '20' SECOND AND r.t <= l.t - INTERVAL '10' SECOND";
    let sql = format!("{ALL} FULL JOIN r ON {on}");
    for trigger in BOTH {
        for restarts in [false, true] {
            let mut run = start(&sql, trigger);
            let restart = |run: &mut Run, parallelism| {
                if restarts {
                    run.restart(parallelism).unwrap();
                }
            };
            run.step(&[], &[event(1, 90, 3), event(3, 91, 4)]);
            let mut got = run.step(&[event(9, 100, 0)], &[event(8, 100, 0)]);
            restart(&mut run, 2);
            got.extend(run.take());
            got.extend(run.step(&[event(1, 105, 1), event(2, 105, 2)], &[]));
            restart(&mut run, 1);
            let got = run.wait_for(got, 3);
            assert_eq!(got, ["1 105 1 1 90 3", "2 105 2 - - -", "9 100 0 - - -"], "{trigger:?}");
            let got = run.step(&[event(9, 1000, 0)], &[event(8, 1000, 0)]);
            let got = run.wait_for(got, 3);
            let expected = ["- - - 3 91 4", "- - - 8 100 0", "9 1000 0 - - -"];
            assert_eq!(got, expected, "{trigger:?}: each leaves once");
        }
    }
}

#[test]
fn rows_of_a_batch_match_each_other() {
    // The rows have different values, so that wrong reuse of a buffer would be visible.
    let sql = "SELECT l.k, l.v, r.v FROM l JOIN r ON l.k = r.k";
    let l: Vec<Event> = (0..50).map(|v| event(v % 3, 100, v)).collect();
    let r: Vec<Event> = (0..40).map(|v| event(v % 3, 100, 1000 + v)).collect();
    let mut expected = Vec::new();
    for (lk, _, lv) in &l {
        expected.extend(
            r.iter().filter(|(k, ..)| k == lk).map(|(k, _, v)| format!("{} {lv} {v}", k.unwrap())),
        );
    }
    expected.sort();
    assert_eq!(rows(sql, &[[&l, &r]]), expected);
}

#[test]
fn each_operator_has_its_own_watermark_also_after_a_restart() {
    // The rows that reach the second join may be older than the watermark, by the range of the
    // first join.
    let sql = "SELECT a.k, a.v, a.w, b.v FROM (SELECT l.k, l.t, l.v, r.v AS w FROM l JOIN r ON l.k = r.k \
               AND r.t >= l.t AND r.t <= l.t + INTERVAL '100' SECOND) a JOIN r b ON a.k = b.k AND \
               b.t >= a.t AND b.t <= a.t + INTERVAL '100' SECOND";
    for trigger in BOTH {
        let mut run = start(sql, trigger);
        run.step(&[event(1, 1000, 1)], &[event(7, 1000, 0)]);
        run.restart(2).unwrap();
        run.step(&[event(7, 1090, 0)], &[event(8, 1090, 0)]);
        // The left row is older than the watermark, but neither join may treat it as late.
        let got = run.wait_for(run.step(&[], &[event(1, 1095, 2)]), 1);
        assert_eq!(got, ["1 1 2 2"]);
    }
}

/// The rows of an input that is a join itself may be older than the watermark. The rows of the other
/// input wait for them, and may be as old. The results in micro-batch mode are Spark's.
#[test]
fn both_sides_of_a_join_are_behind_the_watermark_by_the_lag_of_the_input_that_is_a_join() {
    let pairs = |of: &str| {
        format!(
            "SELECT {of}.k, {of}.t, {of}.v, x.v AS w FROM {of} JOIN {of} x ON {of}.k = x.k AND \
             {of}.v < x.v AND x.t >= {of}.t AND x.t <= {of}.t + INTERVAL '100' SECOND"
        )
    };
    let lag_on_the_right = format!(
        "SELECT l.k, l.v, b.v, b.w FROM l LEFT JOIN ({}) b ON l.k = b.k AND b.t >= l.t AND \
         b.t <= l.t + INTERVAL '10' SECOND",
        pairs("r")
    );
    let lag_on_the_left = format!(
        "SELECT a.k, a.v, a.w, r.v FROM ({}) a JOIN r ON a.k = r.k AND r.t >= a.t AND \
         r.t <= a.t + INTERVAL '100' SECOND",
        pairs("l")
    );
    for trigger in BOTH {
        for restarts in [false, true] {
            let restart = |run: &mut Run| {
                if restarts {
                    run.restart(2).unwrap();
                }
            };
            let mut run = start(&lag_on_the_right, trigger);
            run.step(&[event(1, 1000, 1)], &[event(1, 1005, 2)]);
            let none = run.step(&[event(7, 1050, 0)], &[event(8, 1050, 0)]);
            assert!(none.is_empty(), "{trigger:?}: {none:?}");
            restart(&mut run);
            let got = run.wait_for(run.step(&[], &[event(1, 1095, 9)]), 1);
            assert_eq!(got, ["1 1 2 9"], "{trigger:?}, {restarts}");
            let end = run.step(&[event(7, 5000, 0)], &[event(8, 5000, 0)]);
            assert_eq!(run.wait_for(end, 1), ["7 0 - -"], "{trigger:?}, {restarts}");
            let mut run = start(&lag_on_the_left, trigger);
            run.step(&[event(1, 1000, 1), event(1, 1010, 2)], &[event(8, 1000, 0)]);
            run.step(&[event(7, 1090, 0)], &[event(8, 1090, 0)]);
            restart(&mut run);
            let got = run.wait_for(run.step(&[], &[event(1, 1050, 5)]), 1);
            assert_eq!(got, ["1 1 2 5"], "{trigger:?}, {restarts}");
            // Even this lag does not reach back to 985 s.
            assert!(run.step(&[], &[event(1, 985, 6)]).is_empty(), "{trigger:?}");
        }
    }
}

#[test]
fn each_side_has_its_own_watermark_also_after_a_restart() {
    let sql = format!("{ALL} FULL JOIN r ON {SOON}");
    for trigger in BOTH {
        let setup = Setup { delays: [Some(0), Some(50)], ..Setup::new(&sql, 0, trigger) };
        let mut run = setup.start().unwrap();
        // The left side's watermark is 1000, the right side's 950.
        run.step(&[event(9, 1000, 0)], &[event(8, 1000, 0)]);
        for parallelism in [2, 1, 3] {
            run.restart(parallelism).unwrap();
        }
        // The right side's watermark becomes 955. With the left side's watermark, the row at 960
        // would be late.
        run.step(&[event(9, 1001, 0)], &[event(8, 1005, 0)]);
        let got = run.step(&[], &[event(7, 960, 5)]);
        let end = run.step(&[event(9, 9000, 0)], &[event(8, 9000, 0)]);
        let got = run.wait_for([got, end].concat(), 6);
        assert!(got.contains(&"- - - 7 960 5".to_string()), "{trigger:?}: {got:?}");
        assert_eq!(got.iter().filter(|row| row.contains("1000 0")).count(), 2, "{got:?}");
    }
}

#[test]
fn outer_rows_are_not_late_for_the_aggregate_after_the_join() {
    let sql = "SELECT unix_seconds(window.start), count(*), count(w) FROM (SELECT l.t, r.v AS w FROM l \
               LEFT JOIN r ON l.k = r.k AND r.t >= l.t AND r.t <= l.t + INTERVAL '30' SECOND) \
               GROUP BY window(t, '10 seconds')";
    let steps: [[&[Event]; 2]; 4] = [
        [&[event(1, 100, 1), event(2, 101, 2)], &[event(1, 105, 3)]],
        [&[event(9, 125, 0)], &[event(8, 125, 0)]],
        [&[event(9, 150, 0)], &[event(8, 150, 0)]],
        [&[event(9, 1000, 0)], &[event(8, 1000, 0)]],
    ];
    let expected = ["100 2 1", "1000 1 0", "120 1 0", "150 1 0"];
    assert_eq!(rows(sql, &steps), expected);
    // Without a delay the watermark has passed the window at 100 s when the row at 101 s, which has
    // no match until 131 s, is emitted.
    for trigger in BOTH {
        let run = start(sql, trigger);
        let mut got = Vec::new();
        for [l, r] in &steps {
            got.extend(run.step(l, r));
        }
        got.extend(run.step(END[0], END[1]));
        assert_eq!(run.wait_for(got, 4), expected, "{trigger:?}");
    }
}

#[test]
fn null_keys_match_only_where_null_equals_null_and_nan_and_zero_are_one_value() {
    let step: [&[Event]; 2] =
        [&[(None, Some(100), 1), event(1, 100, 2)], &[(None, Some(100), 3), event(1, 100, 4)]];
    let sql = |on: &str| format!("SELECT l.v, r.v FROM l JOIN r ON {on}");
    assert_eq!(rows(&sql("l.k = r.k"), &[step]), ["2 4"]);
    assert_eq!(rows(&sql("l.k <=> r.k"), &[step]), ["1 3", "2 4"]);
    let outer = format!("{ALL} FULL JOIN r ON {SOON}");
    let got = rows(&outer, &[step]);
    assert_eq!(got, ["- - - - 100 3", "- 100 1 - - -", "1 100 2 1 100 4"]);
    // The numbers 1 and -1 become 0.0 and -0.0; all others become NaN.
    let double = |side: &str| {
        format!("CASE WHEN {side}.v < 2 THEN CAST(0 AS DOUBLE) * {side}.v ELSE double('NaN') END")
    };
    let sql = sql(&format!("{} = {}", double("l"), double("r")));
    let step: [&[Event]; 2] =
        [&[event(1, 100, 1), event(1, 100, 5)], &[event(1, 100, -1), event(1, 100, 6)]];
    assert_eq!(rows(&sql, &[step]), ["1 -1", "5 6"]);
    let nested = format!("struct({}) = struct({})", double("l"), double("r"));
    let sql = format!("SELECT l.v, r.v FROM l JOIN r ON {nested}");
    assert_eq!(rows(&sql, &[step]), ["1 -1", "5 6"]);
}

#[test]
fn the_slow_side_loses_no_row_to_the_watermark_of_the_fast_one() {
    let sql = format!("{ALL} LEFT JOIN r ON {SOON}");
    for trigger in BOTH {
        let run = start(&sql, trigger);
        // The left side's event times are ahead of the right side's.
        let l: Vec<Event> = (0..50).map(|i| event(i, 100 + 60 * i, i)).collect();
        assert!(run.step(&l, &[]).is_empty());
        let r: Vec<Event> = (0..50).map(|i| event(i, 105 + 60 * i, i)).collect();
        let got = run.wait_for(run.step(&[], &r), 50);
        let mut expected: Vec<_> = l
            .iter()
            .map(|(k, t, v)| (k.unwrap(), t.unwrap(), v))
            .map(|(k, t, v)| format!("{k} {t} {v} {k} {} {v}", t + 5))
            .collect();
        expected.sort();
        assert_eq!(got, expected);
    }
}

#[test]
fn ranges_can_be_asymmetric_one_sided_or_a_single_instant() {
    let l = [event(1, 1000, 1)];
    let r: Vec<Event> = [900, 950, 990, 999, 1000, 1001, 1010, 1050, 1100]
        .into_iter()
        .map(|t| event(1, t, t))
        .collect();
    for (low, high, within) in [
        (-50, 1, &[950, 990, 999, 1000, 1001][..]),
        (-100, -10, &[900, 950, 990]),
        (10, 50, &[1010, 1050]),
        (0, 0, &[1000]),
        (1, 0, &[]),
    ] {
        let on = format!(
            "l.k = r.k AND r.t BETWEEN l.t + INTERVAL '{low}' SECOND AND l.t + INTERVAL '{high}' SECOND"
        );
        for kind in ["JOIN", "FULL JOIN"] {
            let sql = format!("SELECT l.v, r.v FROM l {kind} r ON {on}");
            // The right rows arrive first, or the left rows arrive first.
            for steps in [[[&[][..], &r[..]], [&l[..], &[]]], [[&l[..], &[]], [&[], &r[..]]]] {
                let got = rows_of_ways(&sql, &steps, &[(CONTINUOUS, None)]);
                let mut expected: Vec<_> = within.iter().map(|v| format!("1 {v}")).collect();
                expected.sort();
                if kind == "FULL JOIN" {
                    let others = r.iter().filter(|(.., v)| !within.contains(v));
                    expected.extend(others.map(|(.., v)| format!("- {v}")));
                    expected.extend(within.is_empty().then(|| "1 -".to_string()));
                    expected.sort();
                }
                assert_eq!(got, expected, "{sql}");
            }
        }
    }
}

/// A left row is kept as long as the upper bound asks for it, and a right row as long as the lower
/// one does.
#[test]
fn each_side_of_an_asymmetric_range_is_kept_for_its_own_bound() {
    // The range of the right time, and the rows: the first one waits while the watermark passes it,
    // the second one completes the match.
    for (low, high, first, second) in [(2, 10, 0, 1), (-10, -2, 1, 0)] {
        let sql = format!(
            "SELECT l.v, r.v FROM l FULL JOIN r ON l.k = r.k AND r.t BETWEEN \
             l.t + INTERVAL '{low}' SECOND AND l.t + INTERVAL '{high}' SECOND"
        );
        for trigger in BOTH {
            let run = start(&sql, trigger);
            let step = |side: usize, rows: &[Event]| {
                let sides = if side == 0 { [rows, &[]] } else { [&[], rows] };
                run.step(sides[0], sides[1])
            };
            let mut got = step(first, &[event(1, 100, 1), event(2, 100, 2)]);
            // These rows have no match.
            got.extend(step(0, &[event(8, 106, 8)]));
            got.extend(step(1, &[event(9, 106, 9)]));
            got.retain(|row| !row.contains(['8', '9']));
            assert!(got.is_empty(), "{got:?} {low} {trigger:?}");
            let mut got = step(second, &[event(1, 108, 3)]);
            got.retain(|row| !row.contains(['8', '9']));
            let matched = |a: i64, b: i64| if first == 0 { [a, b] } else { [b, a] };
            let shown = |[l, r]: [i64; 2]| format!("{l} {r}");
            assert_eq!(got, [shown(matched(1, 3))], "{low} {trigger:?}");
            let got = run.step(END[0], END[1]);
            let alone = if first == 0 { "2 -" } else { "- 2" }.to_string();
            let got = run.wait_for(got, 1);
            assert!(got.contains(&alone) && !got.contains(&"1 -".to_string()), "{got:?} {low}");
        }
    }
}

#[test]
fn bounds_at_the_ends_of_time_do_not_overflow() {
    let sql = "SELECT l.v, r.v FROM l LEFT JOIN r ON l.k = r.k AND r.t >= l.t - INTERVAL '10' SECOND \
               AND r.t <= l.t + INTERVAL '10' SECOND";
    // The largest second that a TIMESTAMP can hold.
    let last = i64::MAX / 1_000_000;
    for trigger in BOTH {
        let run = Setup::new(sql, 200, trigger).start().unwrap();
        let l = [event(1, 1000, 1), event(1, last - 11, 2), event(1, last, 3)];
        let r = [event(1, 1005, 4), event(1, last - 1, 5), event(1, last, 6)];
        let got = run.wait_for(run.step(&l, &r), 4);
        assert_eq!(got, ["1 4", "2 5", "3 5", "3 6"]);
    }
    // A right row could only match left rows before the first TIMESTAMP.
    let sql = "SELECT l.v, r.v FROM l RIGHT JOIN r ON l.k = r.k AND r.t >= l.t + INTERVAL '106751990' DAY";
    for trigger in BOTH {
        let run = Setup::new(sql, 0, trigger).start().unwrap();
        let mut got = run.step(&[event(1, 200_000, 1)], &[event(1, 200_000, 2)]);
        got.extend(run.step(&[event(1, 200_001, 3)], &[event(2, 200_001, 4)]));
        got.extend(run.step(&[], &[]));
        // The second right row arrives at a watermark to which the bound cannot be added.
        assert_eq!(run.wait_for(got, 2), ["- 2", "- 4"], "{trigger:?}");
    }
}

/// Waits until the join has no more than so many rows.
fn wait_until_rows_are_at_most(rows: u64, run: &Run) {
    let begun = std::time::Instant::now();
    while state(run).0 > rows {
        assert!(begun.elapsed().as_secs() < 60, "{} rows are never removed", state(run).0);
        run.wait_for_epoch();
    }
}

/// A range may be given in seconds, by casts of the times to numbers. The watermarks by which the
/// left row at 1000 s is emitted without a match are Spark's.
#[test]
fn ranges_of_seconds_and_of_days_expire_rows_as_in_spark() {
    let berlin = "Europe/Berlin";
    for (on, zone, last) in [
        ("CAST(r.t AS LONG) <= CAST(l.t AS LONG) + 10", berlin, 1010),
        ("CAST(r.t AS LONG) < CAST(l.t AS LONG) + 10", berlin, 1009),
        ("CAST(r.t AS LONG) - CAST(l.t AS LONG) <= 10", berlin, 1010),
        ("CAST(r.t AS LONG) <= CAST(l.t AS LONG) + 10.0", berlin, 1010),
        ("CAST(r.t AS LONG) - 0.5BD <= CAST(l.t AS LONG) + 9.50BD", berlin, 1010),
        ("CAST(r.t AS DOUBLE) <= CAST(l.t AS DOUBLE) + 10", berlin, 1010),
        ("CAST(r.t AS DOUBLE) <= CAST(l.t AS LONG) + 10.0BD", berlin, 1010),
        ("r.t <= CAST(CAST(l.t AS LONG) + 10 AS TIMESTAMP)", berlin, 1010),
        ("r.t <= l.t + INTERVAL 1 DAY", "UTC", 87_400),
        ("r.t <= l.t + INTERVAL 1 DAY", "+02:00", 87_400),
        ("r.t - l.t <= INTERVAL 25 HOURS", "UTC", 91_000),
        // A day in Berlin may have 25 hours, so rows are kept for a day longer.
        ("r.t <= l.t + INTERVAL 1 DAY", berlin, 2 * 86_400 + 1000),
    ] {
        for left in ["r.t >= l.t", "CAST(r.t AS LONG) >= CAST(l.t AS LONG)"] {
            let sql =
                format!("SELECT l.v, r.v FROM l LEFT JOIN r ON l.k = r.k AND {left} AND {on}");
            let mut setup = Setup::new(&sql, 0, BATCHES);
            setup.settings.push(("spark.sql.session.timeZone", zone));
            let run = setup.start().unwrap();
            run.step(&[event(1, 1000, 1)], &[event(8, 1000, 0)]);
            let none = run.step(&[event(7, last, 0)], &[event(8, last, 0)]);
            assert!(none.is_empty(), "{on} at {last}: {none:?}");
            let got = run.step(&[event(7, last + 1, 0)], &[event(8, last + 1, 0)]);
            assert_eq!(got, ["1 -"], "{on} after {last}");
        }
    }
}

/// A bound by rounded times is wider than the condition, so each pair is tested.
#[test]
fn pairs_of_a_range_of_seconds_are_tested() {
    let times = "SELECT k, t, v FROM";
    let sql = format!(
        "SELECT l.v, r.v FROM ({times} l) l JOIN ({times} r) r ON l.k = r.k \
         AND CAST(r.t AS LONG) BETWEEN CAST(l.t AS LONG) AND CAST(l.t AS LONG) + 2"
    );
    let step: [&[Event]; 2] = [
        &[event(1, 100, 1)],
        &[event(1, 99, 2), event(1, 100, 3), event(1, 102, 4), event(1, 103, 5)],
    ];
    assert_eq!(rows(&sql, &[step]), ["1 3", "1 4"]);
}

/// If a side has several columns with a watermark, the key by which rows expire decides whether a
/// row is late, and a key with watermarks on both sides decides when rows expire.
#[test]
fn the_key_by_which_rows_expire_is_the_one_with_watermarks_on_both_sides() {
    let windows = |of: &str| {
        format!(
            "(SELECT k, t, timestamp_seconds(unix_seconds(t)) AS u, window(t, '10 seconds') AS w, v \
             FROM {of})"
        )
    };
    let (l, r) = (windows("l"), windows("r"));
    for trigger in BOTH {
        let sql = format!(
            "SELECT a.v, unix_seconds(a.t), b.v FROM {l} a LEFT JOIN {r} b ON a.k = b.k AND a.w = b.w"
        );
        let run = start(&sql, trigger);
        run.step(&[event(7, 1005, 0)], &[event(8, 1005, 0)]);
        // The watermark 1005 s has passed the time of these rows, but not the end of their window.
        let got = run.step(&[event(1, 1002, 1)], &[event(1, 1003, 2)]);
        assert_eq!(run.wait_for(got, 1), ["1 1002 2"], "{trigger:?}");
        // The watermark of the left column has no match in the right one.
        let sql = format!(
            "SELECT a.v, b.v FROM {l} a LEFT JOIN {r} b ON a.t = b.u AND a.w = b.w AND a.k = b.k"
        );
        let run = start(&sql, trigger);
        run.step(&[event(1, 1005, 1), event(2, 1005, 2)], &[event(8, 1005, 0)]);
        run.step(&[event(7, 1009, 0)], &[event(8, 1009, 0)]);
        let got = run.step(&[], &[event(1, 1005, 3)]);
        assert_eq!(run.wait_for(got, 1), ["1 3"], "{trigger:?}: the window is still open");
        let got = run.step(&[event(7, 1010, 0)], &[event(8, 1010, 0)]);
        assert_eq!(run.wait_for(got, 2), ["0 -", "2 -"], "{trigger:?}");
    }
}

/// The number of buffered rows, and their memory.
fn state(run: &Run) -> (u64, u64) {
    let state = run.query().last_progress().unwrap().committed.state[0];
    (state.rows, state.memory_bytes)
}

#[test]
fn rows_that_expire_free_their_index_and_themselves_of_all_keys() {
    let sql = format!("SELECT l.v, r.v FROM l JOIN r ON {SOON}");
    let run = start(&sql, BATCHES);
    let mut most = 0;
    for round in 0..40 {
        // The rows have keys that never occur again.
        let row = |i: i64| event(round * 1000 + i, 1000 + round * 100, i);
        let l: Vec<Event> = (0..300).map(row).collect();
        let r: Vec<Event> = (0..300).map(|i| row(i + 500)).collect();
        run.step(&l, &r);
        let (rows, bytes) = state(&run);
        assert_eq!(rows, 600, "only those of this round are left");
        // The memory reaches its maximum in the first 20 rounds.
        if round < 20 {
            most = most.max(bytes);
        }
        assert!(bytes <= most, "round {round}: {bytes} bytes, and {most} before");
    }
}

#[test]
fn keys_without_new_rows_are_evicted_too() {
    let sql = format!("SELECT l.v, r.v FROM l FULL JOIN r ON {SOON}");
    for trigger in BOTH {
        let mut run = Setup::new(&sql, 50, trigger).start().unwrap();
        let old = |from: i64| (from..from + 100).map(|k| event(k, 1000, k)).collect::<Vec<_>>();
        let mut got = run.step(&old(0), &old(500));
        run.restart(2).unwrap();
        // Two keys move the watermark. The other keys get no more rows.
        got.extend(run.step(&[event(-1, 2000, -1)], &[event(-2, 2000, -2)]));
        let got = run.wait_for(got, 200);
        assert_eq!(got.len(), 200, "{trigger:?}");
        run.step(&[], &[]);
        wait_until_rows_are_at_most(2, &run);
        run.restart(1).unwrap();
        run.step(&[event(-1, 2001, -3)], &[]);
        assert_eq!(state(&run).0, 3, "{trigger:?}: nor does the checkpoint have them");
    }
}

/// A side that has ended counts as idle, so the join ignores it after the idle time-out.
#[test]
fn an_ended_side_does_not_delay_the_expiry_of_the_other() {
    let sql = format!("SELECT l.v, r.v FROM l LEFT JOIN r ON {SOON}");
    let mut run = start(&sql, CONTINUOUS);
    let mut got = run.step(&[event(1, 100, 1)], &[event(1, 100, -1)]);
    run.streams[1].close();
    run.session.set("millstream.idleTimeout", "20 milliseconds").unwrap();
    run.restart(1).unwrap();
    for round in 1..6 {
        let l: Vec<Event> = (0..50).map(|v| event(v, 1000 * round + v, v)).collect();
        got.extend(run.step(&l, &[]));
        // All rows have been emitted except those of the last eleven seconds: their right rows may
        // still arrive.
        got = run.wait_for(got, 1 + 50 * round as usize - 11);
        wait_until_rows_are_at_most(11, &run);
    }
    assert_eq!(got.len(), 1 + 50 * 5 - 11);
}

#[test]
fn each_kind_of_join_is_right_with_conditions_on_one_side_and_on_both() {
    let step: [&[Event]; 2] = [
        &[event(1, 100, 1), event(1, 100, 50), event(2, 100, 3), event(4, 100, 9)],
        &[event(1, 101, 40), event(1, 102, 5), event(3, 100, 6), event(4, 101, 99)],
    ];
    // The pairs of key 1 are 1-40, 1-5 and 50-none; 9-99 fails a condition that only reads the left
    // side.
    let on = format!("{SOON} AND l.v < r.v AND l.v <> 9 AND r.v <> 6");
    let both: [&[[&[Event]; 2]]; 2] =
        [&[[step[0], &[]], [&[], step[1]]], &[[&[], step[1]], [step[0], &[]]]];
    for (kind, expected) in [
        ("JOIN", vec!["1 40", "1 5"]),
        ("LEFT JOIN", vec!["1 40", "1 5", "3 -", "50 -", "9 -"]),
        ("RIGHT JOIN", vec!["- 6", "- 99", "1 40", "1 5"]),
        ("FULL JOIN", vec!["- 6", "- 99", "1 40", "1 5", "3 -", "50 -", "9 -"]),
    ] {
        for steps in both {
            let sql = format!("SELECT l.v, r.v FROM l {kind} r ON {on}");
            assert_eq!(rows(&sql, steps), expected, "{kind}");
        }
    }
    for steps in both {
        assert_eq!(rows(&format!("SELECT l.v FROM l LEFT SEMI JOIN r ON {on}"), steps), ["1"]);
        let anti = format!("SELECT l.v FROM l LEFT ANTI JOIN r ON {on}");
        for restarts in [false, true] {
            let mut run = Setup::new(&anti, 200, CONTINUOUS).start().unwrap();
            let mut got = Vec::new();
            for [l, r] in steps {
                got.extend(run.step(l, r));
                if restarts {
                    run.restart(2).unwrap();
                }
            }
            got.extend(run.step(END[0], END[1]));
            assert_eq!(run.wait_for(got, 3), ["3", "50", "9"], "{anti}");
        }
    }
}

#[test]
fn each_kind_of_join_is_right_in_both_modes() {
    let step: [&[Event]; 2] = [
        &[event(1, 100, 1), event(1, 100, 2), event(2, 100, 3)],
        &[event(1, 101, 4), event(1, 102, 5), event(3, 100, 6)],
    ];
    let pairs = ["1 4", "1 5", "2 4", "2 5"];
    let with = |more: &[&str]| {
        let mut all: Vec<String> = pairs.iter().chain(more).map(ToString::to_string).collect();
        all.sort();
        all
    };
    for (kind, expected) in [
        ("JOIN", with(&[])),
        ("LEFT JOIN", with(&["3 -"])),
        ("RIGHT JOIN", with(&["- 6"])),
        ("FULL JOIN", with(&["3 -", "- 6"])),
    ] {
        let sql = format!("SELECT l.v, r.v FROM l {kind} r ON {SOON}");
        assert_eq!(rows(&sql, &[step]), expected, "{kind}");
        // The left rows arrive before the right rows, and then in the reverse order.
        assert_eq!(rows(&sql, &[[step[0], &[]], [&[], step[1]]]), expected, "{kind}");
        assert_eq!(rows(&sql, &[[&[], step[1]], [step[0], &[]]]), expected, "{kind}");
    }
    let sql = format!("SELECT l.v FROM l LEFT SEMI JOIN r ON {SOON}");
    for steps in
        [[step, [&[], &[]]], [[step[0], &[]], [&[], step[1]]], [[&[], step[1]], [step[0], &[]]]]
    {
        assert_eq!(rows(&sql, &steps), ["1", "2"]);
    }
}

#[test]
fn a_row_with_many_matches_is_joined_in_steps() {
    let run = start("SELECT l.v, r.v FROM l JOIN r ON l.k = r.k", BATCHES);
    let many = 20_000;
    let l: Vec<Event> = (0..many).map(|v| event(1, 100, v)).collect();
    run.step(&l, &[]);
    let got = run.step(&[], &[event(1, 100, -1)]);
    assert_eq!(got.len() as i64, many);
    // In continuous mode, rows of this key and of other keys arrive during the search.
    let run = start("SELECT l.v, r.v FROM l JOIN r ON l.k = r.k", CONTINUOUS);
    run.step(&l, &[event(2, 100, -5)]);
    let got = run
        .step(&[event(1, 100, -10), event(2, 100, -11)], &[event(1, 100, -1), event(1, 100, -2)]);
    let got = run.wait_for(got, 2 * many as usize + 3);
    assert_eq!(got.len() as i64, 2 * many + 3);
    let mut once = got.clone();
    once.dedup();
    assert_eq!(once.len(), got.len(), "each pair leaves once");
}

#[test]
fn an_idle_side_delays_rows_until_the_timeout_only() {
    let sql = format!("{ALL} LEFT JOIN r ON {SOON}");
    for trigger in BOTH {
        let run = start(&sql, trigger);
        run.step(&[event(1, 100, 1)], &[]);
        assert!(
            run.step(&[event(1, 5000, 2)], &[]).is_empty(),
            "the right side may still give a match"
        );
        assert_eq!(run.step(&[], &[event(1, 105, 3)]), ["1 100 1 1 105 3"], "{trigger:?}");
    }
    // Only continuous mode has a time-out.
    let mut setup = Setup::new(&sql, 0, CONTINUOUS);
    setup.settings.push(("millstream.idleTimeout", "50 milliseconds"));
    let run = setup.start().unwrap();
    let got = run.step(&[event(1, 100, 1), event(1, 5000, 2)], &[]);
    assert_eq!(run.wait_for(got, 1), ["1 100 1 - - -"], "the right side is ignored");
}

#[test]
fn self_joins_own_aggregates_three_streams_and_tables_in_between() {
    let step: [&[Event]; 2] = [&[event(1, 100, 1), event(1, 104, 2)], &[event(1, 102, 3)]];
    // The stream is joined with itself: one source, read once.
    let sql = "SELECT a.v, b.v FROM l a JOIN l b ON a.k = b.k AND b.t > a.t";
    assert_eq!(rows(sql, &[step]), ["1 2"]);
    // The stream is joined with an aggregate of itself.
    let sql = "SELECT a.v, b.c FROM (SELECT k, v, window(t, '10 seconds') AS w FROM l) a JOIN (SELECT k, \
               window AS w, count(*) AS c FROM l GROUP BY window(t, '10 seconds'), k) b \
               ON a.k = b.k AND a.w = b.w";
    assert_eq!(rows(sql, &[step]), ["1 2", "2 2"]);
    // Three streams and a table are joined.
    let sql = "SELECT a.v, r.v, b.v, d.name FROM l a JOIN r ON a.k = r.k JOIN (VALUES (1, 10), (2, 20)) AS \
               d(k, name) ON a.k = d.k JOIN l b ON r.k = b.k";
    assert_eq!(rows(sql, &[step]), ["1 3 1 10", "1 3 2 10", "2 3 1 10", "2 3 2 10"]);
    // USING keeps the right side's column readable.
    let sql = "SELECT k, l.v, r.v, r.k FROM l LEFT JOIN r USING (k, t)";
    let step: [&[Event]; 2] = [&[event(1, 100, 1), event(2, 100, 2)], &[event(1, 100, 3)]];
    let got = rows(sql, &[step]);
    assert_eq!(got, ["1 1 3 1", "2 2 - -"]);
}

#[test]
fn a_restart_keeps_rows_matched_flags_watermarks_and_pending_expiry() {
    let sql = format!("{ALL} FULL JOIN r ON {SOON}");
    for (from, to) in
        [(BATCHES, BATCHES), (CONTINUOUS, CONTINUOUS), (BATCHES, CONTINUOUS), (CONTINUOUS, BATCHES)]
    {
        let mut run = start(&sql, from);
        let mut got =
            run.step(&[event(1, 100, 1), event(2, 101, 2)], &[event(1, 101, 3), event(3, 103, 4)]);
        run.setup.trigger = to;
        run.restart(3).unwrap();
        got.extend(run.take());
        // The left row at 99 is late by the watermark of the first run.
        got.extend(run.step(&[event(3, 99, 9)], &[event(2, 105, 5)]));
        run.setup.trigger = from;
        run.restart(2).unwrap();
        got.extend(run.take());
        got.extend(run.step(END[0], END[1]));
        let got = run.wait_for(got, 3);
        assert_eq!(got, ["- - - 3 103 4", "1 100 1 1 101 3", "2 101 2 2 105 5"], "{from:?} {to:?}");
    }
}

#[test]
fn data_frames_of_streams_are_joined() {
    let setup = Setup::new("SELECT 1", 0, BATCHES);
    let session = setup.session();
    let (l, r) = (session.view("l").unwrap(), session.view("r").unwrap());
    for how in ["inner", "left_semi"] {
        let joined = l.join_using(&r, ["k", "t"], how).unwrap();
        let query = joined.write_stream().format("memory").query_name(how).start().unwrap();
        // The next query reads the same streams.
        query.stop().unwrap();
    }
    let (a, b) = (l.alias("a"), r.alias("b"));
    let on = session.expr("a.k = b.k").unwrap();
    let query = a.join(&b, &on, "inner").unwrap().write_stream().format("noop").start();
    query.unwrap().stop().unwrap();
    let refused = a.join(&b, &on, "full_outer").unwrap().write_stream().format("noop").start();
    assert_eq!(refused.err().unwrap().condition(), "STREAM_STREAM_JOIN_WITHOUT_WATERMARK");
}

/// The rows of a query that `of` makes from the frames `l` and `r`, sorted. After the rows of two
/// steps, the watermark passes all of them.
fn rows_of_frames(
    trigger: Trigger,
    wanted: usize,
    of: impl FnOnce(&DataFrame, &DataFrame) -> DataFrame,
) -> Vec<String> {
    let session = Session::new();
    let [(l, left), (r, right)] = ["l", "r"].map(|name| {
        let stream = session.memory_stream(name, "k BIGINT, t TIMESTAMP, v BIGINT").unwrap();
        let frame = session.view(name).unwrap().with_watermark("t", "0 seconds").unwrap();
        (stream, frame.alias(name))
    });
    let writer = of(&left, &right).write_stream().format("memory").query_name("out");
    let query = writer.trigger(trigger).start().unwrap();
    let row = |(k, t, v): (i64, i64, i64)| [k, t * SECOND, v].map(Value::Long).to_vec();
    // Until both streams have rows, the watermark stays, so that no row is late.
    l.add([(1, 100, 1), (1, 100, 2), (2, 100, 3)].map(row));
    query.process_all_available().unwrap();
    r.add([(1, 101, 4), (1, 102, 5), (3, 103, 6)].map(row));
    query.process_all_available().unwrap();
    l.add([(8, 900, -1)].map(row));
    r.add([(9, 900, -1)].map(row));
    let (mut rows, begun) = (Vec::new(), Instant::now());
    while rows.is_empty() || rows.len() < wanted && begun.elapsed() < Duration::from_secs(20) {
        query.process_all_available().unwrap();
        rows.extend(session.table("out").unwrap().take().iter().map(|row| text(row)));
    }
    rows.sort();
    query.stop().unwrap();
    rows
}

#[test]
fn each_kind_of_join_of_data_frames_gives_its_rows() {
    let pairs = ["1 4", "1 5", "2 4", "2 5"];
    for (how, pairs, alone) in [
        ("inner", &pairs[..], &[][..]),
        ("left_outer", &pairs, &["3 -"]),
        ("right_outer", &pairs, &["- 6"]),
        ("full_outer", &pairs, &["- 6", "3 -"]),
        ("left_semi", &[], &["1", "2"]),
    ] {
        let columns: &[&str] = if how == "left_semi" { &["l.v"] } else { &["l.v", "r.v"] };
        let mut expected = [alone, pairs].concat();
        expected.sort_unstable();
        for trigger in BOTH {
            let rows = rows_of_frames(trigger, expected.len(), |l, r| {
                let on = Session::new().expr(SOON).unwrap();
                let joined = l.join(r, &on, how).unwrap();
                joined.select(columns.iter().map(|name| col(name))).unwrap()
            });
            assert_eq!(rows, expected, "{how} in {trigger:?}");
        }
    }
}

/// Rows without a match are older than the watermark, and not late for a deduplication after the
/// join.
#[test]
fn a_join_may_precede_a_deduplication() {
    for trigger in BOTH {
        let rows = rows_of_frames(trigger, 2, |l, r| {
            let on = Session::new().expr(SOON).unwrap();
            let joined = l.join(r, &on, "left_outer").unwrap();
            let columns = ["l.k", "l.t", "r.k"].map(col);
            let columns = columns.into_iter().zip(["a", "t", "b"]).map(|(c, name)| c.alias(name));
            let distinct = joined.select(columns).unwrap().drop_duplicates(["a", "t"]).unwrap();
            distinct.select(["a", "b"].map(col)).unwrap()
        });
        assert_eq!(rows, ["1 1", "2 -"], "{trigger:?}");
    }
}

#[test]
fn an_outer_join_by_windows_emits_unmatched_rows_when_their_window_ends() {
    let windows = |of: &str| format!("(SELECT k, window(t, '10 seconds') AS w, v FROM {of})");
    let sql = format!(
        "SELECT a.v, b.v FROM {} a FULL JOIN {} b ON a.k = b.k AND a.w = b.w",
        windows("l"),
        windows("r")
    );
    let step: [&[Event]; 2] = [
        &[event(1, 100, 1), event(1, 109, 2), event(1, 110, 3)],
        &[event(1, 105, 4), event(2, 105, 5)],
    ];
    assert_eq!(rows(&sql, &[step]), ["- 5", "1 4", "2 4", "3 -"]);
    for trigger in BOTH {
        let run = start(&sql, trigger);
        run.step(&[event(1, 101, 1)], &[event(2, 102, 2)]);
        let none = run.step(&[event(7, 109, 3)], &[event(8, 109, 4)]);
        assert!(none.is_empty(), "{trigger:?}: {none:?}");
        let got = run.step(&[event(7, 110, 5)], &[event(8, 110, 6)]);
        assert_eq!(run.wait_for(got, 4), ["- 2", "- 4", "1 -", "3 -"], "{trigger:?}");
    }
}

#[test]
fn joins_that_no_stream_can_answer_are_refused() {
    let condition = |sql: &str, mode: &'static str, delays: [Option<i64>; 2]| {
        let setup = Setup { mode, delays, ..Setup::new(sql, 0, BATCHES) };
        setup.start().err().map_or("accepted".to_string(), |error| error.condition().to_string())
    };
    let both = [Some(5), Some(5)];
    let without = "STREAM_STREAM_JOIN_WITHOUT_WATERMARK";
    let one_side = "STREAM_STREAM_JOIN_WATERMARK_ON_ONE_SIDE";
    let mode = "STREAM_STREAM_JOIN_OUTPUT_MODE_UNSUPPORTED";
    for (kind, on, output, delays, expected) in [
        ("LEFT JOIN", "l.k = r.k", "append", both, without),
        ("RIGHT JOIN", "l.k = r.k", "append", both, without),
        ("FULL JOIN", "l.k = r.k", "append", both, without),
        ("LEFT SEMI JOIN", "l.k = r.k", "append", both, without),
        ("LEFT JOIN", "l.k = r.k AND r.t >= l.t", "append", both, without),
        ("RIGHT JOIN", "l.k = r.k AND r.t <= l.t", "append", both, without),
        ("FULL JOIN", "l.k = r.k AND r.t <= l.t", "append", both, without),
        ("LEFT JOIN", "l.k = r.k AND r.t <= l.t", "append", [Some(5), None], without),
        ("LEFT JOIN", "l.k = r.k AND r.t <= l.t", "append", [None, Some(5)], "accepted"),
        ("LEFT JOIN", "l.k = r.k AND r.t <= l.t", "append", both, "accepted"),
        ("RIGHT JOIN", "l.k = r.k AND r.t >= l.t", "append", both, "accepted"),
        ("FULL JOIN", "l.k = r.k AND r.t = l.t", "append", both, "accepted"),
        ("LEFT JOIN", "l.t = r.t", "append", [Some(5), None], one_side),
        ("LEFT JOIN", "l.t = r.t", "append", [None, Some(5)], one_side),
        ("LEFT JOIN", "l.t = r.t", "append", [None, None], without),
        ("JOIN", "l.t = r.t", "append", [Some(5), None], "accepted"),
        ("LEFT JOIN", "l.t = r.t", "update", both, mode),
        ("JOIN", "l.t = r.t", "update", both, "accepted"),
        ("LEFT SEMI JOIN", "l.t = r.t", "update", both, "accepted"),
        ("JOIN", "l.t = r.t", "complete", both, mode),
        ("JOIN", "l.v < r.v", "append", both, "STREAM_STREAM_JOIN_WITHOUT_EQUALITY"),
        ("CROSS JOIN", "", "append", both, "STREAM_STREAM_JOIN_WITHOUT_EQUALITY"),
        ("LEFT ANTI JOIN", SOON, "append", both, "STREAM_STREAM_LEFT_ANTI_JOIN_UNSUPPORTED"),
    ] {
        let on = if on.is_empty() { String::new() } else { format!("ON {on}") };
        let sql = format!("SELECT l.v FROM l {kind} r {on}");
        assert_eq!(condition(&sql, output, delays), expected, "{sql} in {output}");
    }
}

/// The results belong to many keys, so several instances would mix their order.
#[test]
fn an_ordered_join_keeps_the_order_of_the_rows_that_complete_matches() {
    let sql = "SELECT l.v, r.v FROM l JOIN r ON l.k = r.k";
    for trigger in BOTH {
        let setup = Setup { parallelism: 4, workers: 4, ..Setup::new(sql, 0, trigger) };
        let mut run = setup.ordered().start().unwrap();
        let rows: Vec<Event> = (0..500).map(|v| event(v * 7 % 500, 100 + v, v)).collect();
        run.step(&rows, &[]);
        run.restart(3).unwrap();
        run.add(&[], &rows);
        run.query().process_all_available().unwrap();
        let expected: Vec<_> = (0..500).map(|v| format!("{v} {v}")).collect();
        assert_eq!(run.take_in_order(), expected, "{trigger:?}");
    }
    // More matches of a row than a step examines.
    let setup = Setup { parallelism: 4, workers: 4, ..Setup::new(sql, 0, BATCHES) };
    let run = setup.ordered().start().unwrap();
    run.step(&(0..500).map(|v| event(0, 100, v)).collect::<Vec<_>>(), &[]);
    run.add(&[], &(0..5).map(|v| event(0, 100, v)).collect::<Vec<_>>());
    run.query().process_all_available().unwrap();
    let expected = (0..5).flat_map(|right| (0..500).map(move |left| format!("{left} {right}")));
    assert_eq!(run.take_in_order(), expected.collect::<Vec<_>>());
    let of_one_source = "SELECT a.v, b.v FROM l a JOIN l b ON a.k = b.k";
    let refused = Setup::new(of_one_source, 0, BATCHES).ordered().start();
    assert_eq!(refused.err().unwrap().condition(), "ORDERED_JOIN_UNSUPPORTED");
    let session = Setup::new(sql, 0, BATCHES).session();
    assert!(session.set("millstream.join.ordered", "sometimes").is_err());
}

/// The example of the documentation: rows of the same key and window.
#[test]
fn windows_are_compared_in_on() {
    let side = |name: &str| format!("(SELECT k, window(t, '1 minute') AS w, v FROM {name}) {name}");
    let sql = format!(
        "SELECT l.k, unix_seconds(l.w.start), l.v, r.v FROM {} LEFT JOIN {} ON l.k = r.k AND l.w = r.w",
        side("l"),
        side("r")
    );
    let lefts = [event(1, 60, 1), event(1, 119, 2), event(1, 120, 3)];
    let got = rows(&sql, &[[&lefts, &[event(1, 100, 4), event(2, 100, 5)]]]);
    assert_eq!(got, ["1 120 3 -", "1 60 1 4", "1 60 2 4"]);
}

/// In micro-batch mode no idle time-out applies, so the error must not advise one.
#[test]
fn the_error_at_the_limit_advises_what_works_in_the_mode() {
    for (trigger, sql_range, works, does_not) in [
        (BATCHES, " AND r.t >= l.t AND r.t <= l.t", "multipleWatermarkPolicy", "or set millstream"),
        (CONTINUOUS, "", "Let rows expire", "idleTimeout"),
    ] {
        let sql = format!("SELECT l.v, r.v FROM l JOIN r ON l.k = r.k{sql_range}");
        let mut setup = Setup::new(&sql, 0, trigger);
        setup.settings.push(("millstream.join.maxStateBytes", "1k"));
        let run = setup.start().unwrap();
        run.add(&(0..1000).map(|v| event(v, 100 + v, v)).collect::<Vec<_>>(), &[]);
        let error = run.query().process_all_available().unwrap_err().to_string();
        assert!(error.contains(works) && !error.contains(does_not), "{error}");
    }
}
