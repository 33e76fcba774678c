//! The descriptions of the SQL functions: `millstream functions`, and the page of the documentation.
//!
//! `UPDATE=1 cargo test -p millstream-cli --test function_docs` writes the page.

mod common;

use common::millstream;
use millstream::session::Session;
use millstream::table::function_docs::{self, FunctionDoc};
use millstream::table::functions_not_here;
use std::path::Path;

/// The rows of an example, a line for each.
fn result(doc: &FunctionDoc) -> Result<String, String> {
    let session = Session::new();
    session.set("spark.sql.session.timeZone", "UTC").unwrap();
    let query = format!("SELECT {}", doc.usage.example);
    let frame = session.sql(&query).map_err(|error| error.to_string())?;
    let rows = frame.collect().map_err(|error| error.to_string())?;
    let rows: Vec<_> = frame.cells(&rows).iter().map(|row| row.join(", ")).collect();
    Ok(rows.join("\n"))
}

#[test]
fn every_example_gives_the_result_that_is_shown() {
    let mut wrong = Vec::new();
    for doc in function_docs::all() {
        let found = result(&doc);
        if found.as_deref() != Ok(doc.usage.result) {
            wrong.push(format!("{}: {} gives {found:?}", doc.name, doc.usage.example));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_function_is_described_by_its_name() {
    let said = |name: &str| {
        let output = millstream().args(["functions", name]).output().unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, upper, _) = said("UPPER");
    assert_eq!(code, Some(0));
    let lines: Vec<_> = upper.lines().collect();
    assert_eq!(
        lines,
        [
            "upper(s)",
            "  in capitals (scalar function)",
            "",
            "  SELECT upper('Millstream');",
            "  MILLSTREAM",
            "",
            "  since Spark 1.0.1; reference: docs/src/functions.md#upper",
        ]
    );
    // An aggregate and a scalar function share this name.
    let (_, both, _) = said("some");
    assert!(both.contains("(scalar function)") && both.contains("(aggregate function)"), "{both}");
    let (code, _, error) = said("uper");
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("UNRESOLVED_ROUTINE") && error.contains("upper"), "{error}");
}

#[test]
fn the_page_of_functions_is_the_one_that_the_program_prints() {
    let output = millstream().args(["functions", "--markdown"]).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/functions.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&page, &printed).unwrap();
    }
    let kept = std::fs::read_to_string(&page).unwrap_or_default();
    assert!(kept == printed, "{} is not up to date; run this test with UPDATE=1", page.display());
}

/// What [the reference](../../docs/src/reference.md) describes as syntax, or as a function in FROM.
const SYNTAX: [&str; 7] =
    ["between", "case", "cast", "collations", "range", "sql_keywords", "when"];

#[test]
fn every_function_of_spark_is_here_or_has_a_reason() {
    let docs = function_docs::all();
    let mut wrong = Vec::new();
    for name in include_str!("functions-of-spark.txt").lines().filter(|l| !l.starts_with('#')) {
        let is_operator = !name.starts_with(|c: char| c.is_ascii_lowercase());
        let is_described = docs.iter().any(|doc| doc.name == name);
        let is_here = is_described || is_operator || SYNTAX.contains(&name);
        if is_here == functions_not_here::error(name).is_some() {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "here and listed as missing, or neither: {wrong:?}");
}
