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

/// Rounding off all 38 digits of a DECIMAL doubles a remainder that may have no room for it.
#[test]
fn a_decimal_of_38_fraction_digits_is_rounded_to_fewer() {
    let session = Session::new();
    let nines = format!("0.{}", "9".repeat(38));
    for (number, to, expected) in [
        (nines.as_str(), "DECIMAL(1, 0)", "1 | decimal(1,0)"),
        ("0.88", "DECIMAL(2, 0)", "1 | decimal(2,0)"),
        ("-0.88", "DECIMAL(2, 0)", "-1 | decimal(2,0)"),
        ("0.5", "DECIMAL(2, 0)", "1 | decimal(2,0)"),
        ("0.49", "DECIMAL(2, 0)", "0 | decimal(2,0)"),
        ("0.9", "INT", "0 | int"),
    ] {
        let expression = format!("CAST(CAST('{number}' AS DECIMAL(38, 38)) AS {to})");
        assert_eq!(ours(&session, &expression), expected, "{expression}");
    }
    let all = format!("CAST(CAST('{nines}' AS DECIMAL(38, 38)) AS DECIMAL(38, 37))");
    assert_eq!(ours(&session, &all), format!("1.{} | decimal(38,37)", "0".repeat(37)));
    let too_large = "CAST(1 AS DECIMAL(38, 38))";
    assert_eq!(ours(&session, too_large), "ERR NUMERIC_VALUE_OUT_OF_RANGE.WITH_SUGGESTION");
    session.set("spark.sql.ansi.enabled", "false").unwrap();
    assert_eq!(ours(&session, too_large), "NULL | decimal(38,38)");
}
