//! Planning of long and of deeply nested queries, which must end in reasonable time and must not
//! crash the process.

#![cfg(feature = "sql")]

use millstream::session::Session;
use millstream::table::expr::{Expr, call, col, lit, when};
use millstream::table::value::Value;

/// The rows of a query.
fn rows(sql: &str) -> Result<Vec<Vec<Value>>, String> {
    let session = Session::new();
    let frame = session.sql(sql).map_err(|error| error.to_string())?;
    frame.collect().map_err(|error| error.to_string())
}

/// The single value of a query.
fn value(sql: &str) -> Value {
    let mut rows =
        rows(sql).unwrap_or_else(|error| panic!("{}: {error}", &sql[..sql.len().min(80)]));
    assert_eq!((rows.len(), rows[0].len()), (1, 1));
    rows.remove(0).remove(0)
}

fn joined(n: usize, separator: &str, item: impl Fn(usize) -> String) -> String {
    (0..n).map(item).collect::<Vec<_>>().join(separator)
}

const ROW: &str = "(SELECT 5 AS id, CAST(NULL AS INT) AS no, 0.5D AS half, 1.25 AS dec)";

#[test]
fn long_operator_chains_have_the_value_of_nested_expressions() {
    let n = 3000;
    let ids = |operator: &str| joined(n, operator, |_| "id".to_string());
    let long = |value: i64| Value::Long(value);
    for (expression, expected) in [
        (ids(" + "), long(5 * n as i64)),
        (ids(" - "), long(-5 * (n as i64 - 2))),
        (ids(" | "), long(5)),
        (ids(" & "), long(5)),
        (format!("id{}", " + 2 - 1".repeat(n)), long(5 + n as i64)),
        (format!("no{}", " + 1".repeat(n)), Value::Null),
        (format!("id{}", " + CAST(1 AS BIGINT)".repeat(n)), long(5 + n as i64)),
        (format!("1{}", " + 1".repeat(n)), long(1 + n as i64)),
        (format!("length({})", ids(" || ")), long(n as i64)),
        (format!("length('' || {})", joined(n, " || ", |i| format!("{i}"))), long(10_890)),
        (format!("size({})", joined(n, " || ", |i| format!("array({i})"))), long(n as i64)),
        (format!("({}) IS NULL", ids(" || no || ")), Value::Boolean(true)),
        (joined(n, " AND ", |i| format!("id <> {}", i + 6)), Value::Boolean(true)),
        (joined(n, " OR ", |i| format!("id = {i}")), Value::Boolean(true)),
        (joined(n, " OR ", |i| format!("id = {i} AND id > 7")), Value::Boolean(false)),
        (joined(n, " AND ", |i| format!("no = {i}")), Value::Null),
        // Operands after the one that decides are not evaluated.
        (
            format!("{} OR 1 / (id - 5) = 1", joined(n, " OR ", |i| format!("id = {i}"))),
            Value::Boolean(true),
        ),
        (format!("CASE {} END", joined(n, " ", |i| format!("WHEN id = {i} THEN {i}"))), long(5)),
        (format!("id IN ({})", joined(n, ", ", |i| i.to_string())), Value::Boolean(true)),
        (format!("coalesce({}, id)", joined(n, ", ", |_| "no".to_string())), long(5)),
        (format!("size(array({}))", joined(n, ", ", |i| i.to_string())), long(n as i64)),
        (format!("id LIKE ANY ({})", joined(n, ", ", |i| format!("'{i}'"))), Value::Boolean(true)),
    ] {
        assert_eq!(
            value(&format!("SELECT {expression} FROM {ROW}")),
            expected,
            "{:.60}",
            expression
        );
    }
}

/// A long run of operators has exactly the same value and type as two shorter runs. The second run
/// starts with the result of a subquery over the first 40 terms.
#[test]
fn long_operator_chains_compute_in_the_order_of_nested_expressions() {
    let operators = ["+", "-", "*", "+", "-", "/"];
    for (terms, ansi) in [
        (["half", "0.1D", "id", "3"], true),
        (["dec", "0.01", "id", "2.5"], true),
        (["id", "CAST(7 AS BIGINT)", "half", "dec"], true),
        (["id", "no", "half", "dec"], true),
        (["half", "dec", "CAST(id AS FLOAT)", "1"], false),
        (
            [
                "CAST(id AS TINYINT)",
                "CAST(3 AS TINYINT)",
                "CAST(id AS TINYINT)",
                "CAST(2 AS TINYINT)",
            ],
            false,
        ),
    ] {
        let term = |i: usize| terms[(i * 7 + i / 3) % 4];
        let link = |i: usize| format!(" {} {}", operators[(i * 5 + i / 4) % 6], term(i));
        let run = |from: usize, to: usize| (from..to).map(link).collect::<String>();
        for n in [60, 64, 65, 66, 90, 200] {
            let session = Session::new();
            session.set("spark.sql.ansi.enabled", &ansi.to_string()).unwrap();
            let read = |sql: &str| {
                let frame = session.sql(sql).unwrap();
                let data_type = frame.schema().fields[0].data_type.clone();
                (data_type, frame.collect().map_err(|error| error.to_string()))
            };
            let whole = read(&format!("SELECT id{} AS x FROM {ROW}", run(0, n)));
            let parts = read(&format!(
                "SELECT x{} AS x FROM (SELECT id{} AS x, * FROM {ROW})",
                run(40, n),
                run(0, 40)
            ));
            assert_eq!(whole, parts, "{terms:?} {n}");
        }
    }
}

#[test]
fn the_error_of_an_operator_chain_is_that_of_its_first_failing_operand() {
    let n = 200;
    let failing = format!("id{} + CAST('x' AS INT){}", " + 1".repeat(n), " + 1 / 0".repeat(n));
    let error = rows(&format!("SELECT {failing} FROM {ROW}")).unwrap_err();
    assert!(error.contains("CAST_INVALID_INPUT"), "{error}");
    let overflow = format!("CAST(2147483000 AS INT){}", " + id".repeat(n));
    let error = rows(&format!("SELECT {overflow} FROM {ROW}")).unwrap_err();
    assert!(error.contains("ARITHMETIC_OVERFLOW"), "{error}");
    let wrong = format!("SELECT id{} + array(1) FROM {ROW}", " + 1".repeat(n));
    assert!(rows(&wrong).unwrap_err().contains("DATATYPE_MISMATCH"));
    let filters = joined(n, " AND ", |i| format!("(no = {i} OR id = 5)"));
    let guarded =
        format!("SELECT count(*) FROM {ROW} WHERE id = 6 AND {filters} AND 1 / (id - 5) = 1");
    assert_eq!(value(&guarded), Value::Long(0));
}

#[test]
fn the_column_name_of_an_operator_chain_is_that_of_nested_expressions() {
    for (n, operator) in [(3, "+"), (64, "-"), (65, "+"), (100, "AND"), (300, "*")] {
        let id = if operator == "AND" { "(id = 5)" } else { "id" };
        let frame = Session::new().sql(&format!(
            "SELECT {} FROM {ROW}",
            joined(n, &format!(" {operator} "), |_| id.to_string())
        ));
        let name = frame.unwrap().columns().remove(0);
        let expected = "(".repeat(n - 1) + id + &format!(" {operator} {id})").repeat(n - 1);
        assert_eq!(name, expected);
    }
}

#[test]
fn long_lists_of_branches_columns_and_views() {
    let n = 2000;
    let branches = joined(n, " UNION ALL ", |i| format!("SELECT {i} AS x"));
    assert_eq!(value(&format!("SELECT sum(x) FROM ({branches})")), Value::Long(1_999_000));
    let widened = format!("{branches} UNION ALL SELECT 1.5 UNION ALL {branches}");
    assert_eq!(rows(&widened).unwrap().len(), 2 * n + 1);
    let columns = joined(n, ", ", |i| format!("id + {i} AS c{i}"));
    let names = joined(n, " + ", |i| format!("c{i}"));
    let sum = value(&format!("SELECT {names} FROM (SELECT {columns} FROM {ROW})"));
    assert_eq!(sum, Value::Long(5 * 2000 + 1_999_000));
    let sums = joined(n, ", ", |i| format!("sum(id + {i}) AS c{i}"));
    assert_eq!(rows(&format!("SELECT {sums} FROM {ROW}")).unwrap()[0][1999], Value::Long(2004));
    let views = joined(n, ", ", |i| format!("v{i} AS (SELECT {i} AS x)"));
    assert_eq!(value(&format!("WITH {views} SELECT x FROM V1999")), Value::Long(1999));
    let literals = joined(20_000, ", ", |i| format!("({i}, 'x{i}')"));
    let counted = value(&format!("SELECT count(DISTINCT s) FROM VALUES {literals} AS t(i, s)"));
    assert_eq!(counted, Value::Long(20_000));
}

/// Long queries are planned while they are parsed. A short query of the same form has the same
/// result or the same error.
#[test]
fn long_queries_mean_what_short_ones_mean() {
    let branches = |n: usize| joined(n, " UNION ALL ", |i| format!("SELECT {i} % 3 AS x"));
    let views = |n: usize| joined(n, ", ", |i| format!("v{i} AS (SELECT {i} % 3 AS x)"));
    let reads = |n: usize| joined(n, " UNION ALL ", |i| format!("SELECT x FROM v{i}"));
    for (text, of) in [
        ("UNION ORDER BY x DESC LIMIT 2", [2, 2].as_slice()),
        ("UNION ORDER BY ALL LIMIT 2", &[0, 0]),
        ("UNION ORDER BY 1 LIMIT 1 OFFSET 1", &[0]),
        ("UNION UNION SELECT 0 ORDER BY 1", &[0, 1, 2]),
        ("UNION EXCEPT SELECT 1 ORDER BY 1", &[0, 2]),
        ("UNION INTERSECT SELECT 1 ORDER BY 1 LIMIT 1", &[0]),
        ("UNION UNION ALL (SELECT 7 ORDER BY 1 LIMIT 1) ORDER BY x DESC LIMIT 2", &[7, 2]),
        ("UNION UNION ALL VALUES (8), (9) ORDER BY x DESC LIMIT 3", &[9, 8, 2]),
        ("(UNION) UNION ALL SELECT 5 ORDER BY 1 DESC LIMIT 1", &[5]),
        ("WITH VIEWS SELECT x FROM V2", &[2]),
        ("WITH VIEWS READS ORDER BY x LIMIT 1", &[0]),
        ("WITH VIEWS, w (y) AS (SELECT max(x) FROM v1) SELECT y + 4 FROM w", &[5]),
    ] {
        for n in [6, 64, 65, 66, 200] {
            let text = text.replace("UNION UNION", "BRANCHES UNION").replace("VIEWS", &views(n));
            let text = text.replace("READS", &reads(n));
            let text = match text.strip_prefix("UNION ") {
                Some(rest) => format!("{} {rest}", branches(n)),
                None => text.replace("BRANCHES", &branches(n)).replace("(UNION)", &branches(n)),
            };
            let found = rows(&text).unwrap_or_else(|error| panic!("{n}: {error}"));
            let expected: Vec<_> = of.iter().map(|x| vec![Value::Long(*x)]).collect();
            assert_eq!(found, expected, "{n}: {text:.300}");
        }
    }
    for (text, condition) in [
        ("SELECT nothing UNION ALL BRANCHES", "UNRESOLVED_COLUMN.WITHOUT_SUGGESTION at line 1"),
        ("BRANCHES UNION ALL SELECT nothing", "UNRESOLVED_COLUMN.WITHOUT_SUGGESTION at line 1"),
        ("BRANCHES UNION ALL SELECT 1, 2", "NUM_COLUMNS_MISMATCH"),
        ("BRANCHES UNION ALL SELECT array(1)", "INCOMPATIBLE_COLUMN_TYPE"),
        ("BRANCHES ORDER BY y", "UNRESOLVED_COLUMN"),
        // Syntax errors are reported first, wherever they are.
        ("SELECT nothing UNION ALL BRANCHES UNION ALL SELEC 1", "PARSE_SYNTAX_ERROR"),
        ("SELECT nothing UNION ALL BRANCHES LIMIT 1 1", "PARSE_SYNTAX_ERROR"),
        ("SELECT 1 ORDER BY 1 UNION ALL BRANCHES", "PARSE_SYNTAX_ERROR"),
        ("BRANCHES UNION ALL", "PARSE_SYNTAX_ERROR"),
        ("BRANCHES UNION ALL WITH w AS (SELECT 1) SELECT * FROM w", "PARSE_SYNTAX_ERROR"),
        ("WITH VIEWS WITH w AS (SELECT 1) SELECT * FROM w", "PARSE_SYNTAX_ERROR"),
        ("WITH w AS (SELECT nothing), VIEWS SELEC 1", "PARSE_SYNTAX_ERROR"),
        ("WITH VIEWS, V2 AS (SELECT 1) SELECT * FROM w", "DUPLICATED_CTE_NAMES"),
        ("WITH w AS (SELECT nothing), VIEWS SELECT 1", "UNRESOLVED_COLUMN"),
        ("WITH VIEWS SELECT * FROM w", "TABLE_OR_VIEW_NOT_FOUND"),
    ] {
        for n in [6, 100] {
            let text = text.replace("BRANCHES", &branches(n)).replace("VIEWS", &views(n));
            let error = rows(&text).expect_err(&text[..text.len().min(300)]);
            assert!(error.starts_with(condition), "{n}: {error:.300}\n{text:.300}");
        }
    }
}

#[test]
fn views_are_named_in_any_case() {
    let session = Session::new();
    let shown = |text: &str| {
        let mut all = Vec::new();
        let ran = session.script(text, &mut |frame| {
            all.extend(frame.collect()?);
            Ok(())
        });
        ran.map(|()| all).map_err(|error| error.to_string())
    };
    let named = "CREATE TEMPORARY VIEW Made AS SELECT 1 AS x; SELECT * FROM MADE";
    assert_eq!(shown(named), Ok(vec![vec![Value::Long(1)]]));
    let replaced = "CREATE OR REPLACE TEMPORARY VIEW mADE AS SELECT 2 AS x; SELECT * FROM Made";
    assert_eq!(shown(replaced), Ok(vec![vec![Value::Long(2)]]));
}

/// The limit of copied expressions and operators applies to each statement, not to the whole text.
#[test]
fn the_copy_limit_applies_to_each_statement() {
    let columns = joined(30_000, ", ", |i| format!("{i} AS c{i}"));
    let reads = "SELECT count(*) FROM (SELECT * FROM (SELECT * FROM wide));".repeat(16);
    let mut counted = 0;
    let text = format!("CREATE TEMPORARY VIEW wide AS SELECT {columns}; {reads}");
    let ran = Session::new().script(&text, &mut |frame| {
        counted += frame.collect()?.len();
        Ok(())
    });
    assert!(ran.is_ok(), "{:?}", ran.map_err(|error| error.to_string()));
    assert_eq!(counted, 16);
}

fn wrapped(n: usize, before: &str, inner: &str, after: &str) -> String {
    before.repeat(n) + inner + &after.repeat(n)
}

/// Texts nested `n` levels deep.
fn deep(n: usize) -> Vec<String> {
    let of_row = |expression: String| format!("SELECT {expression} FROM {ROW}");
    let mut texts = vec![
        of_row(wrapped(n, "(", "id", ")")),
        of_row(wrapped(n, "abs(", "id", ")")),
        of_row(wrapped(n, "CASE WHEN id > 1 THEN ", "id", " END")),
        of_row(wrapped(n, "id + (", "id", ")")),
        of_row("- ".repeat(n) + "id"),
        of_row("NOT ".repeat(n) + "(id = 1)"),
        of_row(format!("CAST(NULL AS {}) IS NULL", wrapped(n, "STRUCT<a: ", "INT", ">"))),
        of_row(format!("size({})", wrapped(n, "array(", "1", ")"))),
        wrapped(n, "SELECT * FROM (", &format!("SELECT id FROM {ROW}"), ")"),
        format!("SELECT {}", wrapped(n, "(SELECT ", "1", ")")),
    ];
    let chain = joined(n, ", ", |i| match i {
        0 => "c0 AS (SELECT 1 AS x)".to_string(),
        i => format!("c{i} AS (SELECT * FROM c{})", i - 1),
    });
    texts.push(format!("WITH {chain} SELECT * FROM c{}", n - 1));
    texts
}

#[test]
fn three_hundred_levels_are_planned() {
    for text in deep(300) {
        let answer = rows(&text);
        assert!(answer.is_ok(), "{text:.60}: {answer:?}");
    }
}

/// A query over constants is evaluated without the engine. Its result is the same as that of a
/// query over a row.
#[test]
fn constants_are_what_a_query_over_a_row_gives() {
    for expression in [
        "1 + 1",
        "CAST(NULL AS INT)",
        "array(1, NULL, 3)",
        "named_struct('a', 1, 'b', 'x')",
        "date '2024-01-31' + INTERVAL 1 MONTH",
        "(SELECT (SELECT 7) + 1)",
        "(SELECT max(x) FROM VALUES (1), (5) AS t(x))",
        "(SELECT x FROM VALUES (1) AS t(x) WHERE x > 1)",
        "1 / 0",
        "CAST('x' AS INT)",
        "(SELECT x FROM VALUES (1), (2) AS t(x))",
        "raise_error('no')",
        "current_timestamp() IS NULL",
        "rand() < 2",
    ] {
        let alone = rows(&format!("SELECT {expression} AS v"));
        let of_row =
            rows(&format!("SELECT v FROM (SELECT id, {expression} AS v FROM {ROW}) WHERE id > 0"));
        assert_eq!(alone, of_row, "{expression}");
    }
    for (text, expected) in [
        ("SELECT * FROM (SELECT 1 AS a, 'x' AS b) WHERE a = 2", 0),
        ("SELECT 1 LIMIT 0", 0),
        ("SELECT 1 AS a UNION ALL SELECT 2", 2),
        ("SELECT explode(array(1, 2, 3))", 3),
        ("SELECT count(*)", 1),
        ("VALUES (1), (2)", 2),
    ] {
        assert_eq!(rows(text).map(|rows| rows.len()), Ok(expected), "{text}");
    }
}

#[test]
fn a_text_of_many_queries_shows_each_in_order() {
    let mut shown = Vec::new();
    let text = joined(3000, "; ", |i| format!("SELECT {i} AS x"));
    let ran = Session::new().script(&text, &mut |frame| {
        shown.extend(frame.collect()?.remove(0));
        Ok(())
    });
    assert!(ran.is_ok());
    assert_eq!(shown, (0..3000).map(Value::Long).collect::<Vec<_>>());
}

#[test]
fn nesting_beyond_the_limit_is_an_error() {
    for text in deep(5000) {
        let error = rows(&text).expect_err(&text[..60]);
        assert!(
            error.starts_with("FAILED_TO_PARSE_TOO_COMPLEX at line 1, column "),
            "{error:.300}"
        );
    }
    let joins = joined(5000, " CROSS JOIN ", |i| format!("(SELECT 1 AS x) t{i}"));
    let tables = joined(5000, ", ", |i| format!("(SELECT 1 AS x) t{i}"));
    for from in [joins, tables] {
        let error = rows(&format!("SELECT 1 FROM {from}")).unwrap_err();
        assert!(error.starts_with("FAILED_TO_PARSE_TOO_COMPLEX"), "{error:.300}");
    }
    for (operators, inner) in [(" IS NULL", "id"), ("::STRING", "id"), (" IN (1)", "id")] {
        let text = format!("SELECT {inner}{} FROM {ROW}", operators.repeat(20_000));
        assert!(rows(&text).is_err());
    }
}

#[test]
fn a_short_text_that_expands_beyond_the_copy_limit_is_an_error() {
    let doubled = joined(40, ", ", |i| match i {
        0 => "c0 AS (SELECT 1 AS x)".to_string(),
        i => format!("c{i} AS (SELECT * FROM c{0} UNION ALL SELECT * FROM c{0})", i - 1),
    });
    let between = wrapped(40, "(", "true", " BETWEEN false AND true)");
    let columns = wrapped(40, "SELECT *, * FROM (", &format!("SELECT id FROM {ROW}"), ")");
    let cases = wrapped(40, "CASE ", "1", " WHEN 1 THEN 1 WHEN 2 THEN 2 END");
    for text in [
        format!("WITH {doubled} SELECT count(*) FROM c39"),
        format!("SELECT {between}"),
        format!("SELECT {cases}"),
        columns,
    ] {
        let error = rows(&text).expect_err(&text[..60]);
        assert!(error.starts_with("FAILED_TO_PARSE_TOO_COMPLEX"), "{error:.300}");
    }
}

#[test]
fn data_frame_expressions_have_the_same_limits() {
    let n: i32 = 50_000;
    let sum = (0..n).fold(col("id"), |sum, i| sum.add(i));
    let either = (0..n).fold(col("id").eq(-1), |either, i| either.or(col("id").eq(i)));
    assert_eq!(sum.clone(), sum);
    assert!(sum.to_string().len() > n as usize);
    let session = Session::new();
    let row = session.sql(&format!("SELECT * FROM {ROW}")).unwrap();
    let made = row.select([sum.alias("s"), either.alias("e")]).unwrap().collect().unwrap();
    assert_eq!(made, [[Value::Long(1_249_975_005), Value::Boolean(true)]]);

    let cases = (1..n).fold(when(col("id").eq(0), 0), |cases, i| cases.when(col("id").eq(i), i));
    assert_eq!(row.select([cases.end()]).unwrap().collect().unwrap(), [[Value::Long(5)]]);

    let nested = |n: usize| (0..n).fold(col("id"), |inner, _| call("abs", [inner]));
    assert_eq!(row.select([nested(300)]).unwrap().collect().unwrap(), [[Value::Long(5)]]);
    // A very deeply nested expression is an error, not a crash.
    let deep = || nested(200_000);
    let plus = |with: Expr| row.select([with]).map(|_| ());
    for (where_, error) in [
        ("select", plus(deep())),
        ("a name", plus(deep().alias("a"))),
        ("an aggregate", plus(call("sum", [deep()]))),
        ("with_column", row.with_column("a", deep()).map(|_| ())),
        ("filter", row.filter(&deep().gt(1)).map(|_| ())),
        ("join", row.join(&row, &deep().gt(1), "inner").map(|_| ())),
        ("group_by", row.group_by([deep()]).count().map(|_| ())),
        ("agg", row.group_by([]).agg([call("max", [deep()])]).map(|_| ())),
        ("order_by", row.order_by([deep()]).map(|_| ())),
    ] {
        let error = error.expect_err(where_);
        assert_eq!(error.condition, "FAILED_TO_PARSE_TOO_COMPLEX", "{where_}");
    }
    let to_right = |n: i32| (0..n).fold(lit(1), |right, i| Expr::from(i).add(right));
    assert!(row.select([to_right(300)]).is_ok());
}
