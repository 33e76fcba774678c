//! A query that continues where it ended: its checkpoint contains the counts and the list of files
//! that were read. Each file is counted once, however often the query is started.
//!
//! `cargo run -p millstream-examples --example checkpoint_restart`

use millstream::session::{Session, Trigger};
use millstream::table::value::Value;
use std::error::Error;
use std::fs;
use std::path::Path;

/// Counts the words of all new files and ends. Returns the counts that have changed.
fn count_new_files(folder: &Path) -> Result<Vec<(Value, Value)>, Box<dyn Error>> {
    let session = Session::new();
    let words = session.read_stream().format("text");
    words.option("path", folder.join("in").display()).load()?.create_temp_view("words");
    let counts = session.sql("SELECT value, count(*) FROM words GROUP BY value")?;
    let query = counts
        .write_stream()
        .output_mode("update")
        .format("memory")
        .query_name("counts")
        .option("checkpointLocation", folder.join("checkpoint").display())
        .trigger(Trigger::AvailableNow)
        .start()?;
    query.await_termination()?;
    let rows = session.table("counts").expect("the sink made it").rows();
    let mut counts: Vec<_> = rows.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    counts.sort_by_key(|(word, _)| format!("{word:?}"));
    Ok(counts)
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("millstream-restart-{}", std::process::id()));
    fs::create_dir_all(folder.join("in"))?;
    let count = |word: &str, n| (Value::String(word.to_string()), Value::Long(n));

    fs::write(folder.join("in/1.txt"), "apple\npear\napple\n")?;
    assert_eq!(count_new_files(&folder)?, [count("apple", 2), count("pear", 1)]);

    // The next run reads the new file only, and adds to the counts of the first run.
    fs::write(folder.join("in/2.txt"), "apple\n")?;
    let changed = count_new_files(&folder)?;
    println!("after the second file: {:?} {:?}", changed[0].0, changed[0].1);
    assert_eq!(changed, [count("apple", 3)]);

    fs::remove_dir_all(&folder)?;
    Ok(())
}
