//! Counts in windows of event time: each count is emitted once, when its window is complete.
//!
//! `cargo run -p millstream-examples --example window`

use millstream::session::{Session, Trigger};
use millstream::table::value::Value;
use std::error::Error;

/// A sensor's reading: its event time in seconds, and its value.
fn reading(time_s: i64, value: i64) -> Vec<Value> {
    vec![Value::Long(time_s * 1_000_000), Value::Long(value)]
}

fn main() -> Result<(), Box<dyn Error>> {
    let session = Session::new();
    let readings = session.memory_stream("readings", "time TIMESTAMP, value BIGINT")?;

    // A reading may arrive up to 5 seconds of event time late.
    session
        .view("readings")
        .expect("it was just made")
        .with_watermark("time", "5 seconds")?
        .create_temp_view("in_time");
    let highest = session.sql(
        "SELECT window.start AS start, count(*) AS n, max(value) AS highest
         FROM in_time GROUP BY window(time, '10 seconds')",
    )?;
    let query = highest
        .write_stream()
        .output_mode("append")
        .format("memory")
        .query_name("highest")
        .trigger(Trigger::AsSoonAsPossible)
        .start()?;

    readings.add([reading(1, 7), reading(9, 3), reading(12, 5)]);
    query.process_all_available()?;
    let results = session.table("highest").expect("the sink made it");
    assert!(results.rows().is_empty(), "the watermark is at 7 s: the first window may get more");

    // The reading at 8 s is out of order but not late. The reading at 16 s moves the watermark past
    // the end of the first window.
    readings.add([reading(8, 9), reading(16, 1)]);
    query.process_all_available()?;
    query.stop()?;

    let rows = results.rows();
    println!("window from 0 s: {:?} readings, highest {:?}", rows[0][1], rows[0][2]);
    assert_eq!(rows, [[Value::Long(0), Value::Long(3), Value::Long(9)]]);
    Ok(())
}
