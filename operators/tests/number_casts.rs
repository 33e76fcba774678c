//! Numbers, compared with Apache Spark's results in ANSI mode (`numbers/ansi.txt`) and without it
//! (`numbers/older.txt`). A line is an expression, `=>`, and its value and type, or `ERR` and the
//! error condition.
#![cfg(feature = "sql")]

use millstream::session::{QueryError, Session};
use millstream::table::datetime::Tz;

/// Value and type as text, or the error's condition.
fn ours(session: &Session, expression: &str) -> String {
    let shown = || -> Result<String, String> {
        let frame = session
            .sql(&format!("SELECT {expression} AS x"))
            .map_err(|error| error.condition.clone())?;
        let data_type = frame.schema().fields[0].data_type.clone();
        let rows = frame.collect().map_err(|error: QueryError| error.condition().to_string())?;
        let text = rows[0][0].show(&data_type, Tz::UTC);
        let name = data_type.to_string().to_lowercase().replace(", ", ",").replace(": ", ":");
        Ok(format!("{} | {name}", text.trim()))
    };
    shown().unwrap_or_else(|condition| format!("ERR {condition}"))
}

fn compare(ansi: &str, answers: &str) {
    let session = Session::new();
    session.set("spark.sql.ansi.enabled", ansi).unwrap();
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for line in answers.lines() {
        let (expression, spark) = line.rsplit_once(" => ").expect("an expression and its answer");
        let ours = ours(&session, expression);
        compared += 1;
        if ours != spark {
            wrong.push(format!("{expression}\n    ours  {ours}\n    Spark {spark}"));
        }
    }
    assert!(compared > 500);
    assert!(wrong.is_empty(), "{} of {compared} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn number_casts_are_those_of_spark_in_ansi_mode() {
    compare("true", include_str!("numbers/ansi.txt"));
}

#[test]
fn number_casts_are_those_of_spark_without_ansi_mode() {
    compare("false", include_str!("numbers/older.txt"));
}
