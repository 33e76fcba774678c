//! Batches written to SQLite exactly once. The number of the last batch is stored in the
//! transaction of its rows. A query with a `checkpointLocation` delivers a batch again after a
//! failure; it is then skipped. This query has none, because its source is in memory.
//!
//! `cargo run -p millstream-examples --example foreach_batch_sqlite`

use millstream::session::{Session, Trigger};
use millstream::table::value::Value;
use rusqlite::{Connection, params};
use std::error::Error;

/// Adds a batch to the table `totals`, unless it was added before.
fn store(database: &mut Connection, rows: &[Vec<Value>], batch: u64) -> rusqlite::Result<()> {
    let batch = batch as i64;
    let transaction = database.transaction()?;
    let last: Option<i64> =
        transaction.query_row("SELECT max(number) FROM batches", [], |row| row.get(0))?;
    if last.is_some_and(|last| batch <= last) {
        return Ok(());
    }
    for row in rows {
        let [Value::String(city), Value::Long(cents)] = &row[..] else { continue };
        transaction.execute(
            "INSERT INTO totals VALUES (?1, ?2)
             ON CONFLICT (city) DO UPDATE SET cents = excluded.cents",
            params![city, cents],
        )?;
    }
    transaction.execute("INSERT INTO batches VALUES (?1)", params![batch])?;
    transaction.commit()
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("millstream-sqlite-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let file = folder.join("totals.db");
    let mut database = Connection::open(&file)?;
    database.execute_batch(
        "CREATE TABLE totals (city TEXT PRIMARY KEY, cents INTEGER);
         CREATE TABLE batches (number INTEGER PRIMARY KEY);",
    )?;

    let session = Session::new();
    let sales = session.memory_stream("sales", "city STRING, cents BIGINT")?;
    let query = session
        .sql("SELECT city, sum(cents) FROM sales GROUP BY city")?
        .write_stream()
        .output_mode("update")
        .foreach_batch(move |rows, batch| {
            store(&mut database, rows, batch).map_err(|error| error.to_string())
        })
        .trigger(Trigger::AsSoonAsPossible)
        .start()?;
    let sale = |city: &str, cents| vec![Value::String(city.to_string()), Value::Long(cents)];
    sales.add([sale("Oslo", 250), sale("Lima", 100)]);
    query.process_all_available()?;
    sales.add([sale("Oslo", 50)]);
    query.process_all_available()?;
    query.stop()?;

    let database = Connection::open(&file)?;
    let mut statement = database.prepare("SELECT city, cents FROM totals ORDER BY city")?;
    let totals: Vec<(String, i64)> =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    println!("{totals:?}");
    assert_eq!(totals, [("Lima".to_string(), 100), ("Oslo".to_string(), 300)]);
    drop(statement);
    drop(database);
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
