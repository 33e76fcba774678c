//! Expressions, compared with the results of Apache Spark (the `.jsonl` files in `spark/`, made by
//! `tools/spark/expressions.py`): type and value, or the error condition. `spark/differs.txt` lists
//! deliberate differences with reasons. The test also fails if a listed expression no longer
//! differs.
#![cfg(feature = "sql")]

use millstream::session::{QueryError, Session};
use millstream::table::datetime::{Tz, zone};
use millstream::table::types::DataType;
use millstream::table::value::Value;
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// A type as Spark's `simpleString` writes it, which quotes no names.
fn simple(data_type: &DataType) -> String {
    data_type.to_string().to_lowercase().replace(", ", ",").replace(": ", ":").replace('`', "")
}

/// Type and value as text, or the error's condition.
fn ours(session: &Session, zone: Tz, sql: &str) -> Result<(String, Option<String>), String> {
    let failed = |error: QueryError| error.condition().to_string();
    let is_query = sql.starts_with("SELECT ") || sql.starts_with("WITH ");
    let query = if is_query { sql.to_string() } else { format!("SELECT {sql} AS x") };
    let frame = session.sql(&query).map_err(|error| error.condition.clone())?;
    let data_type = frame.schema().fields[0].data_type.clone();
    let row = frame.collect().map_err(failed)?.remove(0).remove(0);
    let text = match (&row, &data_type) {
        (Value::Binary(_), DataType::Variant) => {
            let cast = format!("SELECT CAST(x AS STRING) FROM ({query}) AS t(x)");
            let rows = session.sql(&cast).map_err(|error| error.condition.clone())?;
            rows.collect().map_err(failed)?[0][0].display(&DataType::String, zone)
        }
        (Value::Binary(bytes), DataType::Binary) => {
            Some(bytes.iter().map(|b| format!("{b:02X}")).collect())
        }
        (row, _) => row.display(&data_type, zone),
    };
    Ok((simple(&data_type), text))
}

#[test]
fn expressions_give_the_results_of_spark() {
    let zone = zone("America/New_York").unwrap();
    let session = Session::new();
    session.set("spark.sql.session.timeZone", &zone.name()).unwrap();
    let differs: BTreeMap<&str, &str> = include_str!("spark/differs.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(" -- ").expect("an expression, --, and why"))
        .collect();
    let (mut wrong, mut checked) = (Vec::new(), 0);
    let lists = [
        include_str!("spark/expected.jsonl"),
        include_str!("spark/text.jsonl"),
        include_str!("spark/templates.jsonl"),
        include_str!("spark/scalars.jsonl"),
        include_str!("spark/time-of-day.jsonl"),
        include_str!("spark/xpath.jsonl"),
        include_str!("spark/xml.jsonl"),
        include_str!("spark/variant.jsonl"),
        include_str!("spark/aggregates.jsonl"),
        include_str!("spark/windows.jsonl"),
        include_str!("spark/functions-4.3.jsonl"),
        include_str!("spark/calendar-interval.jsonl"),
        include_str!("spark/constant-arguments.jsonl"),
    ];
    for line in lists.into_iter().flat_map(str::lines) {
        let expected: Json = serde_json::from_str(line).unwrap();
        let text = |key: &str| expected[key].as_str().map(str::to_string);
        let sql = text("sql").unwrap();
        let theirs = match text("error") {
            Some(condition) => Err(condition),
            // `simple` is in lower case too.
            None => Ok((text("type").unwrap().to_lowercase(), text("text"))),
        };
        let ours = ours(&session, zone, &sql);
        let same = ours == theirs;
        checked += 1;
        match (same, differs.get(sql.as_str())) {
            (true, None) | (false, Some(_)) => {}
            (true, Some(_)) => wrong.push(format!("{sql}\n    no longer differs")),
            (false, None) => wrong.push(format!("{sql}\n    ours  {ours:?}\n    Spark {theirs:?}")),
        }
    }
    assert!(checked > 500);
    assert!(wrong.is_empty(), "{} of {checked} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// Expressions that Spark rejects and Millstream accepts: `to_avro` with a union, of a value whose
/// type is that of one branch.
const WRITTEN_AS_A_BRANCH: [&str; 3] = [
    r#"to_avro(1, '["string", "int"]')"#,
    r#"to_avro(named_struct('member0', 1, 'member1', CAST(NULL AS STRING)), '["null", "int", "string"]')"#,
    r#"to_avro(named_struct('member0', CAST(NULL AS INT), 'member1', 'x'), '["int", "string"]')"#,
];

/// `tools/spark/avro.py` writes `spark/avro.jsonl`. Most Avro errors of Spark have no condition,
/// which the file shows as `?`. For these and for internal errors, any error of Millstream is
/// correct.
#[test]
fn avro_functions_give_the_results_of_spark() {
    let zone = zone("America/New_York").unwrap();
    let session = Session::new();
    session.set("spark.sql.session.timeZone", &zone.name()).unwrap();
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for line in include_str!("spark/avro.jsonl").lines() {
        let expected: Json = serde_json::from_str(line).unwrap();
        let text = |key: &str| expected[key].as_str().map(str::to_string);
        let sql = text("sql").unwrap();
        let theirs = match text("error") {
            Some(condition) => Err(condition),
            None => Ok((text("type").unwrap(), text("text"))),
        };
        let ours = ours(&session, zone, &sql);
        let is_same = match (&ours, &theirs) {
            (Err(_), Err(condition)) if condition == "?" || condition == "INTERNAL_ERROR" => true,
            (Ok(_), Err(_)) if WRITTEN_AS_A_BRANCH.contains(&sql.as_str()) => true,
            // The type TIME is not supported yet.
            (Err(_), _) if sql.contains("time-micros") => true,
            (ours, theirs) => ours == theirs,
        };
        checked += 1;
        if !is_same {
            wrong.push(format!("{sql}\n    ours  {ours:?}\n    Spark {theirs:?}"));
        }
    }
    assert!(checked > 300);
    assert!(wrong.is_empty(), "{} of {checked} differ:\n{}", wrong.len(), wrong.join("\n"));
}
