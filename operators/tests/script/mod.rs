//! Scripts of a session and their results as text.

use millstream::session::{QueryError, Session};
use millstream::table::value::Value;

/// Runs a script. Returns the rows of its queries, one text per query, or the error condition.
pub fn run(session: &Session, script: &str) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    let ran = session.script(script, &mut |frame| {
        let cell = |value: &Value| match value {
            Value::Null => "NULL".to_string(),
            Value::String(text) => text.clone(),
            Value::Long(number) => number.to_string(),
            other => format!("{other:?}"),
        };
        let rows = frame.collect()?;
        let rows = rows.iter().map(|row| row.iter().map(cell).collect::<Vec<_>>().join(" "));
        all.push(rows.collect::<Vec<_>>().join(", "));
        Ok::<(), QueryError>(())
    });
    ran.map(|()| all).map_err(|error| error.condition().to_string())
}

/// Like [`run`], for a script without an error.
pub fn rows(session: &Session, script: &str) -> Vec<String> {
    run(session, script).unwrap_or_else(|condition| panic!("{script}: {condition}"))
}
