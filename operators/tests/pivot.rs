//! PIVOT and UNPIVOT, with the results of Apache Spark.
#![cfg(feature = "sql")]

mod script;

use millstream::session::{Session, Trigger};
use millstream::table::value::Value;
use millstream::{Config, WaitProfile};
use script::{rows, run};

/// The table `sales` before a statement.
const SALES: &str = "CREATE OR REPLACE TABLE sales (course STRING, year INT, earnings INT);
    INSERT INTO sales VALUES ('net', 2012, 10), ('java', 2012, 20), ('net', 2012, 5),
        ('net', 2013, 48), ('java', 2013, 30), ('java', 2014, NULL);";

/// The column names and the rows of a query over `sales`.
fn answer(query: &str) -> String {
    let session = Session::new();
    rows(&session, SALES);
    match session.sql(query) {
        Ok(frame) => {
            let names: Vec<_> = frame.schema().fields.into_iter().map(|f| f.name).collect();
            format!("{}: {}", names.join(" "), rows(&session, query).concat())
        }
        Err(error) => error.condition,
    }
}

#[track_caller]
fn check(cases: &[(&str, &str)]) {
    for (query, expected) in cases {
        assert_eq!(answer(query), *expected, "{query}");
    }
}

#[test]
fn a_pivot_has_a_column_for_each_value_and_aggregate() {
    check(&[
        (
            "SELECT * FROM sales PIVOT (sum(earnings) FOR course IN ('net', 'java')) ORDER BY year",
            "year net java: 2012 15 20, 2013 48 30, 2014 NULL NULL",
        ),
        (
            "SELECT * FROM sales PIVOT (sum(earnings) AS s, count(earnings) c FOR course IN \
             ('net' AS n, 'java' j)) ORDER BY year",
            "year n_s n_c j_s j_c: 2012 15 2 20 1, 2013 48 1 30 1, 2014 NULL NULL NULL 0",
        ),
        (
            "SELECT * FROM (SELECT course, earnings FROM sales) \
             PIVOT (sum(earnings), max(earnings) FOR course IN ('net'))",
            "net_sum(earnings) net_max(earnings): 63 48",
        ),
        (
            "SELECT * FROM sales PIVOT (sum(earnings) FOR (course, year) IN \
             (('net', 2012), ('java', 2013) AS x))",
            "{net, 2012} x: 15 30",
        ),
        // A name may begin with digits.
        (
            "SELECT 2012_s, 2013_m FROM (SELECT year, earnings FROM sales) \
             PIVOT (sum(earnings) s, max(earnings) m FOR year IN (2012, 2013))",
            "2012_s 2013_m: 35 48",
        ),
        (
            "SELECT p.net FROM sales PIVOT (min(year) FOR course IN ('net', NULL)) AS p \
             ORDER BY earnings",
            "net: NULL, 2012, 2012, NULL, NULL, 2013",
        ),
        // An aggregate that is not a number is computed by a filter, so `count` has no NULL.
        (
            "SELECT * FROM (SELECT course, year FROM sales) PIVOT (count(1) n, max(course) m \
             FOR year IN (2012, 2020))",
            "2012_n 2012_m 2020_n 2020_m: 3 net 0 NULL",
        ),
        (
            "SELECT * FROM (SELECT course, year FROM sales) PIVOT (count(1) FOR year IN \
             (2012, 2020)) ORDER BY course",
            "course 2012 2020: java 1 NULL, net 2 NULL",
        ),
    ]);
}

#[test]
fn a_wrong_pivot_has_the_condition_of_spark() {
    let of = |rest: &str| format!("SELECT * FROM sales PIVOT ({rest})");
    for (rest, condition) in [
        ("abs(earnings) FOR year IN (2012)", "_LEGACY_ERROR_TEMP_1006"),
        ("sum(earnings) FOR nothing IN (2012)", "UNRESOLVED_COLUMN.WITH_SUGGESTION"),
        ("sum(nothing) FOR year IN (2012)", "UNRESOLVED_COLUMN.WITH_SUGGESTION"),
        ("sum(avg(earnings)) FOR year IN (2012)", "NESTED_AGGREGATE_FUNCTION"),
        ("sum(earnings) FOR (course, year) IN ('net')", "PIVOT_VALUE_DATA_TYPE_MISMATCH"),
        ("sum(earnings) FOR year IN (course)", "NON_LITERAL_PIVOT_VALUES"),
        ("sum(earnings) FOR year IN (ANY)", "PARSE_SYNTAX_ERROR"),
    ] {
        assert_eq!(answer(&of(rest)), condition, "{rest}");
    }
    let query = "SELECT * FROM (SELECT map(1, 2) m, 1 n) PIVOT (sum(n) FOR m IN (map(1, 2)))";
    assert_eq!(answer(query), "INCOMPARABLE_PIVOT_COLUMN");
}

#[test]
fn an_unpivot_has_a_row_for_each_column() {
    let wide = "(SELECT * FROM VALUES ('net', 15, NULL, 1L), ('java', 20, 30, 2L) \
                AS t(course, a, b, c))";
    let of = |rest: &str| answer(&format!("SELECT * FROM {wide} UNPIVOT {rest}"));
    for (rest, expected) in [
        ("(v FOR name IN (a, b))", "course c name v: net 1 a 15, java 2 a 20, java 2 b 30"),
        (
            "INCLUDE NULLS (v FOR name IN (a AS x, B y)) AS u WHERE u.course = 'net'",
            "course c name v: net 1 x 15, net 1 y NULL",
        ),
        (
            "EXCLUDE NULLS ((v, w) FOR name IN ((a, b), (b, a) z))",
            "course c name v w: net 1 a_b 15 NULL, net 1 z NULL 15, java 2 a_b 20 30, java 2 z 30 20",
        ),
        // The common type of INT and BIGINT is BIGINT.
        (
            "(v FOR name IN (a, c)) WHERE course = 'net'",
            "course b name v: net NULL a 15, net NULL c 1",
        ),
        ("(v FOR name IN (a, course))", "UNPIVOT_VALUE_DATA_TYPE_MISMATCH"),
        ("((v, w) FOR name IN (a, b))", "UNPIVOT_VALUE_SIZE_MISMATCH"),
        ("(v FOR name IN (a, d))", "UNRESOLVED_COLUMN.WITH_SUGGESTION"),
    ] {
        assert_eq!(of(rest), expected, "{rest}");
    }
}

/// The result of a query over a stream `s` in an output mode, or its error condition.
fn of_stream(query: &str, mode: &str) -> Result<Vec<Vec<Value>>, String> {
    let session = Session::new();
    let stream = session.memory_stream("s", "k STRING, a INT, b INT").unwrap();
    let frame = session.sql(query).map_err(|error| error.condition)?;
    let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
    let writer = frame.write_stream().format("memory").query_name("out").output_mode(mode);
    let query = writer.config(config).trigger(Trigger::AsSoonAsPossible).start();
    let query = query.map_err(|error| error.condition().to_string())?;
    stream.add([vec![Value::String("x".into()), Value::Long(1), Value::Long(2)]]);
    query.process_all_available().unwrap();
    query.stop().unwrap();
    Ok(session.table("out").unwrap().rows())
}

#[test]
fn an_unpivot_of_a_stream_runs_and_a_pivot_has_the_rules_of_two_aggregations() {
    let unpivot = "SELECT v FROM s UNPIVOT (v FOR name IN (a, b))";
    let expected = vec![vec![Value::Long(1)], vec![Value::Long(2)]];
    assert_eq!(of_stream(unpivot, "append"), Ok(expected));
    let pivot = "SELECT * FROM s PIVOT (sum(a) FOR b IN (2))";
    for mode in ["append", "update", "complete"] {
        let condition = of_stream(pivot, mode).unwrap_err();
        assert!(condition.contains("STREAMING"), "{mode}: {condition}");
    }
    assert!(run(&Session::new(), "SELECT * FROM VALUES 1 PIVOT").is_err());
}
