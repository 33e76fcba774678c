//! Compares expressions with the results of Apache Spark. `tools/spark/families.py --record` wrote
//! the results to `spark/families.jsonl`: a value as text or an error condition, for each
//! expression in one ANSI mode and one time zone. Known differences are listed with their reasons
//! in `spark/families-differ.txt`. The test fails if a listed expression no longer differs.
#![cfg(feature = "sql")]

use millstream::session::{QueryError, Session};
use millstream::table::value::Value;
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// The last digit of these functions depends on the mathematics library.
const TRANSCENDENTAL: [&str; 1] = ["cbrt("];

fn session(ansi: bool, zone: &str) -> Session {
    let session = Session::new();
    session.set("spark.sql.session.timeZone", zone).unwrap();
    session.set("spark.sql.ansi.enabled", if ansi { "true" } else { "false" }).unwrap();
    session
}

/// The value as text, or the error's condition.
fn ours(session: &Session, sql: &str) -> Result<String, String> {
    let failed = |error: QueryError| error.condition().to_string();
    let frame = session
        .sql(&format!("SELECT CAST({sql} AS STRING) AS v"))
        .map_err(|error| error.condition.clone())?;
    let rows = frame.collect().map_err(failed)?;
    match rows.first().map(|row| &row[0]) {
        None => Ok("no row".to_string()),
        Some(Value::Null) => Ok("NULL".to_string()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(format!("no text: {other:?}")),
    }
}

fn same(sql: &str, ours: &Result<String, String>, spark: &Json) -> bool {
    match (ours, spark.get("error")) {
        // The error has no stable name in Spark.
        (Err(_), Some(Json::Null)) => true,
        // One side may name only the condition, the other its subclass.
        (Err(ours), Some(Json::String(spark))) => {
            ours.starts_with(spark.as_str()) || spark.starts_with(ours.as_str())
        }
        (Ok(text), None) => {
            let spark = spark["value"].as_str().unwrap_or_default();
            text == spark
                || TRANSCENDENTAL.iter().any(|name| sql.contains(name)) && close(text, spark)
        }
        _ => false,
    }
}

fn close(one: &str, other: &str) -> bool {
    let (one, other) = (one.parse::<f64>(), other.parse::<f64>());
    matches!((one, other), (Ok(a), Ok(b)) if (a - b).abs() <= 1e-14 * a.abs())
}

#[test]
fn families_of_functions_answer_as_spark_does() {
    let differ: BTreeMap<&str, &str> = include_str!("spark/families-differ.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(" -- ").expect("an expression, --, and why"))
        .collect();
    let mut sessions: BTreeMap<(bool, String), Session> = BTreeMap::new();
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for line in include_str!("spark/families.jsonl").lines() {
        let spark: Json = serde_json::from_str(line).unwrap();
        let sql = spark["sql"].as_str().unwrap();
        let (ansi, zone) = (spark["ansi"].as_bool().unwrap(), spark["zone"].as_str().unwrap());
        let session =
            sessions.entry((ansi, zone.to_string())).or_insert_with(|| session(ansi, zone));
        let ours = ours(session, sql);
        checked += 1;
        match (same(sql, &ours, &spark), differ.get(sql)) {
            (true, None) | (false, Some(_)) => {}
            (true, Some(_)) => wrong.push(format!("{sql}\n    no longer differs")),
            (false, None) => wrong.push(format!("{sql}\n    ours  {ours:?}\n    Spark {line}")),
        }
    }
    assert!(checked > 2000);
    assert!(wrong.is_empty(), "{} of {checked} differ:\n{}", wrong.len(), wrong.join("\n"));
}
