//! Batches written to SQLite exactly once, also after a failure. The number of the last batch is
//! stored in the transaction of its rows. After a restart, a query with a
//! `checkpointLocation` delivers an uncommitted batch again, with the same number and rows. If the
//! database already has this batch, the function skips it.
//!
//! `cargo run -p millstream-examples --example foreach_batch_sqlite`

use millstream::session::{Session, Trigger};
use millstream::table::types::Schema;
use millstream::table::value::Value;
use rusqlite::{Connection, params};
use std::error::Error;
use std::fs;
use std::path::Path;

/// Adds the sales of a batch to the table `totals`, unless they were added before. Returns whether
/// they were added.
fn store(database: &mut Connection, rows: &[Vec<Value>], batch: u64) -> rusqlite::Result<bool> {
    let batch = batch as i64;
    let transaction = database.transaction()?;
    let last: Option<i64> =
        transaction.query_row("SELECT max(number) FROM batches", [], |row| row.get(0))?;
    if last.is_some_and(|last| batch <= last) {
        return Ok(false);
    }
    for row in rows {
        let [Value::String(city), Value::Long(cents)] = &row[..] else { continue };
        transaction.execute(
            "INSERT INTO totals VALUES (?1, ?2)
             ON CONFLICT (city) DO UPDATE SET cents = cents + excluded.cents",
            params![city, cents],
        )?;
    }
    transaction.execute("INSERT INTO batches VALUES (?1)", params![batch])?;
    transaction.commit()?;
    Ok(true)
}

/// Adds the sales of all new files and ends. If `fails`, the query ends after it has stored its
/// first batch and before it has committed it, as in a crash.
fn add_new_files(folder: &Path, fails: bool) -> Result<(), Box<dyn Error>> {
    let session = Session::new();
    let sales = session.read_stream().format("csv").option("path", folder.join("in").display());
    let sales = sales.schema(Schema::parse_ddl("city STRING, cents BIGINT")?).load()?;
    let mut database = Connection::open(folder.join("totals.db"))?;
    let query = sales
        .write_stream()
        .option("checkpointLocation", folder.join("checkpoint").display())
        .foreach_batch(move |rows, batch| {
            let added = store(&mut database, rows, batch).map_err(|error| error.to_string())?;
            println!(
                "batch {batch}: {}",
                if added { "added" } else { "skipped, it was added before" }
            );
            if fails { Err("a failure before the commit".to_string()) } else { Ok(()) }
        })
        .trigger(Trigger::AvailableNow)
        .start()?;
    Ok(query.await_termination()?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("millstream-sqlite-{}", std::process::id()));
    fs::create_dir_all(folder.join("in"))?;
    let database = Connection::open(folder.join("totals.db"))?;
    database.execute_batch(
        "CREATE TABLE totals (city TEXT PRIMARY KEY, cents INTEGER);
         CREATE TABLE batches (number INTEGER PRIMARY KEY);",
    )?;

    fs::write(folder.join("in/1.csv"), "Oslo,250\nLima,100\n")?;
    assert!(add_new_files(&folder, true).is_err());
    // The restarted query delivers the batch again, and then the new file.
    fs::write(folder.join("in/2.csv"), "Oslo,50\n")?;
    add_new_files(&folder, false)?;

    let mut statement = database.prepare("SELECT city, cents FROM totals ORDER BY city")?;
    let totals: Vec<(String, i64)> =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    println!("{totals:?}");
    assert_eq!(totals, [("Lima".to_string(), 100), ("Oslo".to_string(), 300)]);
    drop(statement);
    drop(database);
    fs::remove_dir_all(&folder)?;
    Ok(())
}
