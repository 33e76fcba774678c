//! Each row of a stream is joined with a row of a table.
//!
//! `cargo run -p millstream-examples --example join_with_table`

use millstream::session::{Session, Trigger};
use millstream::table::value::Value;
use std::error::Error;

fn text(text: &str) -> Value {
    Value::String(text.to_string())
}

fn main() -> Result<(), Box<dyn Error>> {
    let session = Session::new();
    let clicks = session.memory_stream("clicks", "page STRING, user STRING")?;
    // A table may also be a file: `session.read().format("csv")`.
    session
        .sql("SELECT * FROM VALUES ('ann', 'Oslo'), ('bob', 'Lima') AS t(name, city)")?
        .create_temp_view("users");

    let with_city = session
        .sql("SELECT page, user, city FROM clicks LEFT JOIN users ON clicks.user = users.name")?;
    let query = with_city
        .write_stream()
        .output_mode("append")
        .format("memory")
        .query_name("with_city")
        .trigger(Trigger::AsSoonAsPossible)
        .start()?;
    clicks.add([vec![text("/"), text("ann")], vec![text("/help"), text("eve")]]);
    query.process_all_available()?;
    query.stop()?;

    let rows = session.table("with_city").expect("the sink made it").rows();
    for row in &rows {
        println!("{:?} by {:?} of {:?}", row[0], row[1], row[2]);
    }
    assert_eq!(rows[0], [text("/"), text("ann"), text("Oslo")]);
    assert_eq!(rows[1], [text("/help"), text("eve"), Value::Null], "kept, because of LEFT JOIN");
    Ok(())
}
