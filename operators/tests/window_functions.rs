//! Window functions over tables: aggregates over moving frames, compared with a naive model, and
//! what streams and queries cannot have. `spark/windows.jsonl` has Spark's results.
#![cfg(feature = "sql")]

use millstream::session::Session;
use millstream::table::value::Value;
use proptest::prelude::*;

fn long(value: Option<i64>) -> Value {
    value.map_or(Value::Null, Value::Long)
}

/// The results of the aggregates over the rows of a frame.
fn model(frame: &[Option<i64>]) -> Vec<Value> {
    let values: Vec<i64> = frame.iter().flatten().copied().collect();
    let sum = values.iter().sum::<i64>();
    vec![
        Value::Long(values.len() as i64),
        long((!values.is_empty()).then_some(sum)),
        long(values.iter().min().copied()),
        long(values.iter().max().copied()),
        long(frame.first().copied().flatten()),
        long(frame.last().copied().flatten()),
        Value::Array(values.into_iter().map(Value::Long).collect()),
    ]
}

const AGGREGATES: [&str; 7] = [
    "count(v)",
    "sum(v)",
    "min(v)",
    "max(v)",
    "first_value(v)",
    "last_value(v)",
    "collect_list(v)",
];

fn bound(offset: i64) -> String {
    match offset {
        0 => "CURRENT ROW".to_string(),
        rows if rows < 0 => format!("{} PRECEDING", -rows),
        rows => format!("{rows} FOLLOWING"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Frames of every size, also those that are too large to be computed anew for each row.
    #[test]
    fn aggregates_over_moving_frames_are_those_of_the_rows_of_the_frame(
        values in proptest::collection::vec(proptest::option::of(-9i64..9), 1..150),
        start in prop_oneof![Just(None), (-90i64..20).prop_map(Some)],
        length in prop_oneof![Just(None), (0i64..120).prop_map(Some)],
        partitions in 1i64..3,
    ) {
        let end = length.map(|length| start.unwrap_or(-20) + length);
        let from = start.map_or("UNBOUNDED PRECEDING".to_string(), bound);
        let to = end.map_or("UNBOUNDED FOLLOWING".to_string(), bound);
        let rows: Vec<String> = values.iter().enumerate().map(|(id, v)| {
            let v = v.map_or("CAST(NULL AS BIGINT)".to_string(), |v| format!("{v}L"));
            format!("({id}L, {v})")
        }).collect();
        let calls = AGGREGATES.map(|call| format!("{call} OVER w")).join(", ");
        let sql = format!(
            "SELECT id, {calls} FROM VALUES {} AS t(id, v) \
             WINDOW w AS (PARTITION BY id % {partitions} ORDER BY id ROWS BETWEEN {from} AND {to}) \
             ORDER BY id",
            rows.join(", ")
        );
        let got = Session::new().sql(&sql).unwrap().collect().unwrap();
        for (id, got) in got.iter().enumerate() {
            let of_partition: Vec<usize> =
                (0..values.len()).filter(|other| other % partitions as usize == id % partitions as usize).collect();
            let at = of_partition.iter().position(|other| *other == id).unwrap() as i64;
            let clamp = |row: i64| row.clamp(0, of_partition.len() as i64) as usize;
            let first = start.map_or(0, |start| clamp(at + start));
            let last = end.map_or(of_partition.len(), |end| clamp(at + end + 1));
            let frame: Vec<Option<i64>> =
                of_partition.get(first..last).unwrap_or(&[]).iter().map(|row| values[*row]).collect();
            let mut expected = vec![Value::Long(id as i64)];
            expected.extend(model(&frame));
            prop_assert_eq!(got, &expected, "row {} of {}", id, sql);
        }
    }
}

#[test]
fn a_window_function_over_a_stream_is_refused_with_the_condition_of_spark() {
    let session = Session::new();
    session.memory_stream("events", "k BIGINT, v BIGINT").unwrap();
    for sql in [
        "SELECT row_number() OVER (ORDER BY k) FROM events",
        "SELECT k, sum(sum(v)) OVER () FROM events GROUP BY k",
        "SELECT k FROM events QUALIFY rank() OVER (ORDER BY v) = 1",
    ] {
        let error = session.sql(sql).err().map(|error| error.condition);
        let expected = "NON_TIME_WINDOW_NOT_SUPPORTED_IN_STREAMING".to_string();
        assert_eq!(error, Some(expected), "{sql}");
    }
}

#[test]
fn hidden_columns_of_window_functions_are_not_selected_by_a_star() {
    let session = Session::new();
    let sql = "SELECT *, rank() OVER (ORDER BY x DESC) AS r FROM VALUES (1), (2) AS t(x) \
               QUALIFY count(*) OVER () = 2 ORDER BY r";
    let frame = session.sql(sql).unwrap();
    let names: Vec<String> = frame.schema().fields.iter().map(|f| f.name.clone()).collect();
    assert_eq!(names, ["x", "r"]);
    let expected = [[2, 1], [1, 2]].map(|row| row.map(Value::Long).to_vec());
    assert_eq!(frame.collect().unwrap(), expected);
}

#[test]
fn windows_over_the_same_rows_share_one_operator() {
    let session = Session::new();
    let sql = "SELECT rank() OVER (ORDER BY x), sum(x) OVER (ORDER BY x), count(*) OVER () \
               FROM VALUES (1) AS t(x)";
    let plan = session.sql(sql).unwrap().explain();
    assert_eq!(plan.matches("Window [").count(), 2, "{plan}");
}
