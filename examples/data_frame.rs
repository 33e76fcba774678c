//! A query built from methods instead of SQL: the number and the sum of large orders per customer.
//!
//! `cargo run -p millstream-examples --example data_frame`

use millstream::session::{Session, Trigger};
use millstream::table::expr::{call, col, lit};
use millstream::table::value::Value;
use std::error::Error;

fn order(customer: &str, cents: i64) -> Vec<Value> {
    vec![Value::String(customer.to_string()), Value::Long(cents)]
}

fn main() -> Result<(), Box<dyn Error>> {
    let session = Session::new();
    let orders = session.memory_stream("orders", "customer STRING, cents BIGINT")?;
    let large = session
        .view("orders")
        .expect("it was just made")
        .filter(&col("cents").ge(lit(1_000)))?
        .group_by([call("upper", [col("customer")]).alias("customer")])
        .agg([call("count", [lit(1)]).alias("n"), call("sum", [col("cents")]).alias("cents")])?;
    print!("{}", large.explain());
    let query = large
        .write_stream()
        .output_mode("update")
        .format("memory")
        .query_name("large")
        .trigger(Trigger::AsSoonAsPossible)
        .start()?;
    orders.add([order("ann", 1_500), order("bob", 20), order("ann", 2_500)]);
    query.process_all_available()?;
    query.stop()?;

    let rows = session.table("large").expect("the sink made it").rows();
    println!("{:?}: {:?} large orders, {:?} cents", rows[0][0], rows[0][1], rows[0][2]);
    assert_eq!(rows, [[Value::String("ANN".to_string()), Value::Long(2), Value::Long(4_000)]]);
    Ok(())
}
