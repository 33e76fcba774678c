//! Statements over tables with the results of Apache Spark: the meaning of names, literals and
//! conditions.
#![cfg(feature = "sql")]

use millstream::session::{Overrides, Session, Trigger};
use millstream::table::datetime::Tz;
use millstream::table::value::Value;

/// The rows of a query as text, or its error condition.
fn shown(session: &Session, query: &str) -> String {
    let frame = match session.sql(query) {
        Ok(frame) => frame,
        Err(error) => return error.condition.to_string(),
    };
    let types: Vec<_> = frame.schema().fields.iter().map(|f| f.data_type.clone()).collect();
    let rows = match frame.collect() {
        Ok(rows) => rows,
        Err(error) => return error.condition().to_string(),
    };
    let text = |row: &Vec<Value>| {
        let cells = row.iter().zip(&types);
        let cells = cells.map(|(value, to)| value.display(to, Tz::UTC).unwrap_or("NULL".into()));
        cells.collect::<Vec<_>>().join(" ")
    };
    rows.iter().map(text).collect::<Vec<_>>().join(", ")
}

fn check(session: &Session, cases: &[(&str, &str)]) {
    for (query, expected) in cases {
        assert_eq!(shown(session, query), *expected, "{query}");
    }
}

#[test]
fn in_is_never_null_as_a_value() {
    let four = "FROM VALUES (1), (5), (8), (NULL) AS r(a)";
    for (condition, expected) in [
        ("a IN (SELECT * FROM VALUES (5) AS t(c))", "false, true, false, false"),
        ("a IN (SELECT * FROM VALUES (5), (NULL) AS t(c))", "false, true, false, false"),
        ("a NOT IN (SELECT * FROM VALUES (5) AS t(c))", "true, false, true, false"),
        ("a NOT IN (SELECT * FROM VALUES (5), (NULL) AS t(c))", "false, false, false, false"),
        ("NOT (a IN (SELECT * FROM VALUES (5), (NULL) AS t(c)))", "false, false, false, false"),
        ("a NOT IN (SELECT c FROM VALUES (5) AS t(c) WHERE c > 9)", "true, true, true, true"),
        (
            "NOT (a > 5 OR a IN (SELECT * FROM VALUES (5), (NULL) AS t(c)))",
            "false, false, false, false",
        ),
        (
            "(a, 1) IN (SELECT * FROM VALUES (5, 1), (NULL, 1) AS t(c, d))",
            "false, true, false, false",
        ),
        (
            "(a, 1) NOT IN (SELECT * FROM VALUES (5, 1), (NULL, 2) AS t(c, d))",
            "true, false, true, false",
        ),
    ] {
        let session = Session::new();
        let query = format!("SELECT {condition} AS v {four}");
        assert_eq!(shown(&session, &query), expected, "{condition}");
    }
}

#[test]
fn a_condition_keeps_the_rows_for_which_it_is_true() {
    let four = "SELECT a FROM VALUES (1), (5), (8), (NULL) AS r(a) WHERE";
    for (condition, expected) in [
        ("NOT (a NOT IN (SELECT * FROM VALUES (5), (NULL) AS t(c)))", "5"),
        ("NOT (a > 5 OR a IN (SELECT * FROM VALUES (5), (8) AS t(c)))", "1"),
        ("NOT (a > 5 OR a NOT IN (SELECT * FROM VALUES (5), (NULL) AS t(c)))", "5"),
        ("NOT (a > 5 AND a NOT IN (SELECT * FROM VALUES (5), (NULL) AS t(c)))", "1, 5"),
        ("(a, 1) NOT IN (SELECT * FROM VALUES (5, 1), (NULL, 2) AS t(c, d)) OR a = 5", "1, 5, 8"),
    ] {
        let session = Session::new();
        assert_eq!(shown(&session, &format!("{four} {condition}")), expected, "{condition}");
    }
}

#[test]
fn a_word_without_parentheses_is_a_column_first() {
    check(
        &Session::new(),
        &[
            ("SELECT current_date FROM VALUES (1) AS t(current_date)", "1"),
            ("SELECT t.current_date + 1 FROM VALUES (1) AS t(current_date)", "2"),
            ("SELECT current_timestamp + 1 FROM VALUES (1) AS t(current_timestamp)", "2"),
            ("SELECT current_time FROM VALUES (1) AS t(current_time)", "1"),
            ("SELECT localtimestamp FROM VALUES (1) AS t(localtimestamp)", "1"),
            ("SELECT localtimestamp", "UNRESOLVED_COLUMN.WITHOUT_SUGGESTION"),
            (
                "SELECT current_date, count(*) FROM VALUES (1), (1) AS t(current_date) \
                 GROUP BY current_date",
                "1 2",
            ),
            ("SELECT current_date() > DATE'2024-01-01' FROM VALUES (1) AS t(current_date)", "true"),
            ("SELECT current_date = current_date() FROM VALUES (1) AS t(a)", "true"),
            ("SELECT a FROM VALUES (2), (1) AS t(a) ORDER BY current_date, a", "1, 2"),
            ("SELECT count(*) FROM VALUES (1), (2) AS t(a) GROUP BY current_date", "2"),
        ],
    );
    let name = |query: &str| Session::new().sql(query).unwrap().schema().fields[0].name.clone();
    assert_eq!(name("SELECT current_date"), "current_date()");
    assert_eq!(name("SELECT current_date FROM VALUES (1) AS t(current_date)"), "current_date");
}

#[test]
fn a_single_struct_is_expanded_to_a_row_of_values() {
    check(
        &Session::new(),
        &[
            ("SELECT * FROM VALUES (struct(1, 2))", "1 2"),
            ("SELECT * FROM VALUES (struct(1 AS a, 2)), ((3, 4))", "1 2, 3 4"),
            ("SELECT * FROM VALUES (((1, 2)))", "1 2"),
            ("SELECT * FROM VALUES (struct(1, 2), 3)", "{1, 2} 3"),
            ("SELECT * FROM VALUES (named_struct('a', 1, 'b', 2))", "{1, 2}"),
            ("SELECT * FROM VALUES (NULL + 1 / 0)", "NULL"),
            (
                "SELECT * FROM VALUES (1 / 0 + NULL)",
                "INVALID_INLINE_TABLE.FAILED_SQL_EXPRESSION_EVALUATION",
            ),
            (
                "SELECT * FROM VALUES (rand())",
                "INVALID_INLINE_TABLE.CANNOT_EVALUATE_EXPRESSION_IN_INLINE_TABLE",
            ),
            ("SELECT * FROM VALUES (array(struct(1))), (array())", "[{1}], []"),
        ],
    );
}

#[test]
fn fields_of_struct_are_named_with_or_without_as() {
    check(
        &Session::new(),
        &[
            ("SELECT to_json(struct(1 x, 2 AS y, 3))", r#"{"x":1,"y":2,"col3":3}"#),
            (
                "SELECT to_json(struct(upper('a') b, array(1)[0] c, true d, 'q' `e f`))",
                r#"{"b":"A","c":1,"d":true,"e f":"q"}"#,
            ),
            (
                "SELECT to_json(struct(a, t.a b, a IS NULL, CASE a WHEN 1 THEN 2 END, 1Y)) \
                 FROM VALUES (1) AS t(a)",
                r#"{"a":1,"b":1,"col3":false,"col4":2,"col5":1}"#,
            ),
            (
                "SELECT struct(INTERVAL 1 DAY, INTERVAL 1 DAY d, X'61' x, 1Y y, NOT true n, \
                 DATE '2024-01-01', TIMESTAMP_LTZ'2024-01-01 00:00:00' t)",
                "{INTERVAL '1' DAY, INTERVAL '1' DAY, a, 1, false, 2024-01-01, \
                 2024-01-01 00:00:00}",
            ),
            ("SELECT upper('a' x)", "PARSE_SYNTAX_ERROR"),
        ],
    );
}

#[test]
fn the_type_timestamp_follows_a_setting() {
    let session = Session::new();
    session.set("spark.sql.session.timeZone", "America/New_York").unwrap();
    session.set("spark.sql.timestampType", "TIMESTAMP_NTZ").unwrap();
    for (expression, expected) in [
        ("TIMESTAMP'2024-01-01 00:00:00'", "timestamp_ntz"),
        ("TIMESTAMP'2024-01-01 00:00:00+01:00'", "timestamp"),
        ("TIMESTAMP_LTZ'2024-01-01 00:00:00'", "timestamp"),
        ("TIMESTAMP_NTZ'2024-01-01 00:00:00+01:00'", "timestamp_ntz"),
        ("CAST('2024-01-01' AS TIMESTAMP)", "timestamp_ntz"),
        ("'2024-01-01'::timestamp", "timestamp_ntz"),
        ("CAST('2024-01-01' AS TIMESTAMP_LTZ)", "timestamp"),
        ("timestamp('2024-01-01')", "timestamp"),
        ("to_timestamp('2024-01-01')", "timestamp_ntz"),
        ("to_timestamp('2024', 'yyyy')", "timestamp_ntz"),
        ("try_to_timestamp('2024-01-01')", "timestamp_ntz"),
        ("to_timestamp_ltz('2024-01-01')", "timestamp"),
        ("make_timestamp(2024, 1, 1, 0, 0, 0)", "timestamp_ntz"),
        ("make_timestamp_ltz(2024, 1, 1, 0, 0, 0)", "timestamp"),
        ("current_timestamp()", "timestamp"),
        ("timestamp_seconds(1)", "timestamp"),
        ("from_json('{}', 'a TIMESTAMP')", "struct<a:timestamp_ntz>"),
    ] {
        assert_eq!(
            shown(&session, &format!("SELECT typeof({expression})")),
            expected,
            "{expression}"
        );
    }
    check(
        &session,
        &[
            ("SELECT make_timestamp(2024, 1, 1, 0, 0, 0, '+05:00')", "2024-01-01 00:00:00"),
            ("SELECT to_timestamp('2024-03-10 02:30:00+05:00')", "2024-03-10 02:30:00"),
            ("SELECT to_timestamp(1)", "CAST_INVALID_INPUT"),
            ("SELECT to_timestamp(DATE'2024-01-01')", "2024-01-01 00:00:00"),
        ],
    );
    let stream = session.memory_stream("events", "at TIMESTAMP, zoned TIMESTAMP_LTZ").unwrap();
    drop(stream);
    let tree = session.sql("SELECT * FROM events").unwrap().schema().tree();
    assert!(tree.contains("at: timestamp_ntz") && tree.contains("zoned: timestamp "), "{tree}");
    assert!(session.set("spark.sql.timestampType", "DATE").is_err());
}

#[test]
fn a_time_beyond_64_bits_is_an_error_in_every_mode() {
    for ansi in ["true", "false"] {
        let session = Session::new();
        session.set("spark.sql.ansi.enabled", ansi).unwrap();
        for expression in [
            "to_timestamp('294248', 'y')",
            "to_timestamp_ntz('999999-01-01', 'y-MM-dd')",
            "to_date('294248', 'y')",
            "try_to_timestamp('294248', 'y')",
            "unix_timestamp('294248', 'y')",
        ] {
            let found = shown(&session, &format!("SELECT {expression}"));
            assert_eq!(found, "DATETIME_OVERFLOW", "{expression}");
        }
        check(&session, &[("SELECT year(to_timestamp('294247', 'y'))", "294247")]);
    }
}

#[test]
fn an_empty_collection_is_of_any_type() {
    check(
        &Session::new(),
        &[
            ("SELECT array(struct(1)) = array()", "false"),
            ("SELECT coalesce(array(), array(map('a', 1)))", "[]"),
            ("SELECT coalesce(array(), array(array('a')))", "[]"),
            ("SELECT coalesce(map(), map('a', struct(1)))", "{}"),
            ("SELECT coalesce(array(NULL), array(X'61'))", "[null]"),
        ],
    );
}

#[test]
fn sessions_of_a_table_need_no_key() {
    let session = Session::new();
    session.set("millstream.parallelism", "2").unwrap();
    let query = "SELECT session_window(t, '1 minute').end, count(*) FROM VALUES \
                 (TIMESTAMP'2024-01-01 00:00:00'), (TIMESTAMP'2024-01-01 00:00:30') AS a(t) \
                 GROUP BY session_window(t, '1 minute')";
    check(&session, &[(query, "2024-01-01 00:01:30 2")]);
}

#[test]
fn a_query_of_a_job_has_the_settings_before_it() {
    let session = Session::new();
    let streams = ["one", "other"].map(|name| session.memory_stream(name, "n BIGINT").unwrap());
    let job = "
        SET spark.sql.session.timeZone = 'Asia/Tokyo';
        CREATE STREAMING TABLE tokyo USING memory AS
            SELECT hour(timestamp_seconds(n)) AS h FROM one;
        SET spark.sql.session.timeZone = 'UTC';
        CREATE STREAMING TABLE utc USING memory AS
            SELECT hour(timestamp_seconds(n)) AS h FROM other;
    ";
    let trigger = Some(Trigger::AsSoonAsPossible);
    let run = |settings: Vec<(String, String)>| {
        let overrides = Overrides { trigger, settings, ..Overrides::default() };
        let queries = session.job(job, &overrides).unwrap();
        let started: Vec<_> = queries.into_iter().map(|query| query.start().unwrap()).collect();
        streams.iter().for_each(|stream| stream.add([vec![Value::Long(0)]]));
        for query in started {
            query.process_all_available().unwrap();
            query.stop().unwrap();
        }
        ["tokyo", "utc"].map(|name| session.table(name).unwrap().rows().pop().unwrap())
    };
    assert_eq!(run(Vec::new()), [[Value::Long(9)], [Value::Long(0)]]);
    // Settings of the command line are applied last.
    let over = ("spark.sql.session.timeZone".to_string(), "+02:00".to_string());
    assert_eq!(run(vec![over]), [[Value::Long(2)], [Value::Long(2)]]);
}

#[test]
fn arguments_behind_a_null_are_not_evaluated() {
    let session = Session::new();
    let fails = "CAST_INVALID_INPUT";
    for (expression, expected) in [
        ("array_insert(CAST(NULL AS ARRAY<INT>), 1, CAST(s AS INT))", "NULL"),
        ("array_insert(array(1), CAST(NULL AS INT), CAST(s AS INT))", "NULL"),
        ("array_append(CAST(NULL AS ARRAY<INT>), CAST(s AS INT))", "NULL"),
        ("array_prepend(CAST(NULL AS ARRAY<INT>), CAST(s AS INT))", "NULL"),
        ("array_append(array(1), CAST(s AS INT))", fails),
        ("locate('a', CAST(CAST(s AS INT) AS STRING), CAST(NULL AS INT))", "0"),
        ("locate(CAST(NULL AS STRING), CAST(CAST(s AS INT) AS STRING))", "NULL"),
        ("elt(CAST(NULL AS INT), CAST(CAST(s AS INT) AS STRING))", "NULL"),
        ("elt(2, CAST(CAST(s AS INT) AS STRING), 'b')", "b"),
        ("elt(1, CAST(CAST(s AS INT) AS STRING), 'b')", fails),
        ("format_string(CAST(NULL AS STRING), CAST(s AS INT))", "NULL"),
        ("format_number(CAST(NULL AS INT), CAST(s AS INT))", "NULL"),
        ("typeof(CAST(s AS INT))", "int"),
        // These functions evaluate all arguments before they check for NULL.
        ("map_concat(CAST(NULL AS MAP<INT, INT>), map(CAST(s AS INT), 1))", fails),
        ("decode(CAST(NULL AS BINARY), CAST(CAST(s AS INT) AS STRING))", fails),
        ("encode(CAST(NULL AS STRING), CAST(CAST(s AS INT) AS STRING))", fails),
        ("get_json_object(CAST(NULL AS STRING), CAST(CAST(s AS INT) AS STRING))", fails),
        ("regexp_replace('a', 'a', 'b', CAST(s AS INT))", "DATATYPE_MISMATCH.NON_FOLDABLE_INPUT"),
    ] {
        let query = format!("SELECT {expression} FROM VALUES ('a') AS t(s)");
        assert_eq!(shown(&session, &query), expected, "{expression}");
    }
}

#[test]
fn a_wrong_pattern_is_an_error_only_in_rows_that_use_it() {
    let session = Session::new();
    for (expression, of_true) in [
        ("if(a, date_format(DATE'2024-01-01', '{'), '-')", "INCONSISTENT_BEHAVIOR_CROSS_VERSION"),
        ("CASE WHEN a THEN to_date('2024', 'ee') END", "INCONSISTENT_BEHAVIOR_CROSS_VERSION"),
        ("a AND to_date('2024', 'ee') IS NULL", "INCONSISTENT_BEHAVIOR_CROSS_VERSION"),
        ("if(a, regexp_replace('a', '(', 'b'), '-')", "INVALID_PARAMETER_VALUE.PATTERN"),
        ("if(a, split('x', '('), array())", "INVALID_PARAMETER_VALUE.PATTERN"),
        ("trunc(to_date('2024', 'ee'), if(a, 'year', 'x'))", "INCONSISTENT_BEHAVIOR_CROSS_VERSION"),
        ("a AND 'x' RLIKE '('", "INVALID_PARAMETER_VALUE.PATTERN"),
    ] {
        let of = |a: bool| format!("SELECT {expression} FROM VALUES ({a}) AS t(a)");
        let needed = shown(&session, &of(true));
        assert!(needed.starts_with(of_true), "{expression}: {needed}");
        assert!(session.sql(&of(false)).unwrap().collect().is_ok(), "{expression}");
    }
    // A regular expression that is wrong for every row is reported before the first row. As in
    // Spark, a pattern of dates is reported at the first row that has a date.
    let always = |expression: &str| {
        session.sql(&format!("SELECT {expression} FROM VALUES (CAST(NULL AS STRING)) AS t(s)"))
    };
    assert!(always("regexp_replace(s, '(', 'b')").is_err());
    assert!(always("to_date(s, 'ee')").unwrap().collect().is_ok());
}

/// A STRING that a cast from BINARY made can have bytes that are not UTF-8. Only these bytes are
/// replaced.
#[test]
fn invalid_bytes_leave_the_rest_of_a_text_as_it_is() {
    let text = "CAST(X'61FF2C62' AS STRING)";
    let cases = [
        (format!("SELECT {text} LIKE 'a%' AND {text} ILIKE 'A_,b'"), "true"),
        (format!("SELECT {text} RLIKE '^a.,b$'"), "true"),
        (format!("SELECT split({text}, ',')"), "[a\u{FFFD}, b]"),
        (format!("SELECT explode(split({text}, ','))"), "a\u{FFFD}, b"),
        (format!("SELECT regexp_replace({text}, 'b', 'c')"), "a\u{FFFD},c"),
        (format!("SELECT str_to_map({text}, ',', ':')"), "{a\u{FFFD} -> null, b -> null}"),
    ];
    let cases: Vec<_> = cases.iter().map(|(sql, shown)| (sql.as_str(), *shown)).collect();
    check(&Session::new(), &cases);
}

/// A name that two columns of a subquery have is not taken for a column of the outer query.
#[test]
fn an_ambiguous_name_in_a_subquery_is_refused() {
    let session = Session::new();
    for condition in ["o.k = k", "k = o.k"] {
        let query = format!(
            "SELECT * FROM VALUES (1) AS o(k) WHERE EXISTS (SELECT 1 FROM VALUES (1) AS a(k) JOIN \
             VALUES (2) AS b(k) ON true WHERE {condition})"
        );
        let error = session.sql(&query).err().unwrap();
        assert_eq!(error.condition, "AMBIGUOUS_REFERENCE", "{condition}: {error}");
    }
}

#[test]
fn a_window_can_be_computed_from_another() {
    let from = "FROM VALUES (TIMESTAMP'2024-01-01 01:30:00') AS a(t)";
    for (window, expected) in [
        ("window(window(t, '1 hour').start, '2 hours').start", "2024-01-01 00:00:00"),
        ("window(window(t, '1 hour'), '2 hours').end", "2024-01-01 02:00:00"),
        (
            "window(window(t, '1 hour', '30 minutes').start, '2 hours').start",
            "2024-01-01 00:00:00, 2024-01-01 00:00:00",
        ),
        (
            "window(window_time(window(t, '1 hour')), '10 minutes', '5 minutes', '1 minute').start",
            "2024-01-01 01:56:00, 2024-01-01 01:51:00",
        ),
        (
            "window(window_time(window(window_time(window(t, '1 hour')), '2 hours')), '3 hours').start",
            "2024-01-01 00:00:00",
        ),
    ] {
        assert_eq!(
            shown(&Session::new(), &format!("SELECT {window} {from}")),
            expected,
            "{window}"
        );
    }
    let grouped = format!(
        "SELECT window.start, count(*), max(t) {from} \
         GROUP BY window(window_time(window(t, '1 hour')), '2 hours')"
    );
    let expected = "2024-01-01 00:00:00 1 2024-01-01 01:30:00";
    assert_eq!(shown(&Session::new(), &grouped), expected);
}

#[test]
fn line_breaks_of_base64_follow_a_setting() {
    let session = Session::new();
    let query = "SELECT length(base64(CAST(repeat('a', 58) AS BINARY)))";
    check(&session, &[(query, "80")]);
    session.set("spark.sql.chunkBase64String.enabled", "true").unwrap();
    check(&session, &[(query, "82")]);
}

/// The tables that a script shows, or its error condition.
fn script(text: &str) -> String {
    let mut shown = Vec::new();
    let outcome = Session::new().script(text, &mut |frame| {
        shown.push(frame.show(100, false)?);
        Ok(())
    });
    match outcome {
        Ok(()) => shown.concat(),
        Err(error) => error.condition().to_string(),
    }
}

const SHOP: &str = "CREATE TEMPORARY VIEW shop AS SELECT 1 AS id, 'x' AS Name, \
    CAST(2.5 AS DECIMAL(4,2)) AS price, named_struct('x', 1, 'y', array('q')) AS place;\n";

#[test]
fn a_view_is_described_by_its_columns() {
    let all = "\
+--------+-----------------------------+-------+
|col_name|data_type                    |comment|
+--------+-----------------------------+-------+
|id      |int                          |NULL   |
|Name    |string                       |NULL   |
|price   |decimal(4,2)                 |NULL   |
|place   |struct<x:int,y:array<string>>|NULL   |
+--------+-----------------------------+-------+
";
    for form in [
        "DESCRIBE shop",
        "desc `shop`",
        "DESCRIBE TABLE shop",
        "DESC TABLE EXTENDED shop",
        "DESCRIBE FORMATTED shop",
        "DESCRIBE QUERY SELECT * FROM shop",
        "DESCRIBE SELECT * FROM shop",
        "DESC WITH a AS (SELECT * FROM shop) SELECT * FROM a",
    ] {
        assert_eq!(script(&format!("{SHOP}{form};")), all, "{form}");
    }
    let column = "\
+---------+------------+
|info_name|info_value  |
+---------+------------+
|col_name |price       |
|data_type|decimal(4,2)|
|comment  |NULL        |
+---------+------------+
";
    assert_eq!(script(&format!("{SHOP}DESCRIBE shop PRICE")), column);
    assert!(script(&format!("{SHOP}DESC EXTENDED shop id")).contains("|distinct_count|NULL"));
    // A view may have a keyword of the statement as its name.
    let named = "CREATE TEMPORARY VIEW extended AS SELECT 1 AS a; DESCRIBE extended";
    assert!(script(named).contains("|a       |int      |NULL   |"), "{}", script(named));
}

#[test]
fn columns_and_views_are_shown() {
    let columns = "\
+--------+
|col_name|
+--------+
|id      |
|Name    |
|price   |
|place   |
+--------+
";
    assert_eq!(script(&format!("{SHOP}SHOW COLUMNS IN shop")), columns);
    assert_eq!(script(&format!("{SHOP}SHOW COLUMNS FROM SHOP")), columns);
    let views = "\
+---------+--------+-----------+
|namespace|viewName|isTemporary|
+---------+--------+-----------+
|         |shop    |true       |
+---------+--------+-----------+
";
    assert_eq!(script(&format!("{SHOP}SHOW VIEWS;")), views);
    assert!(script(&format!("{SHOP}SHOW TABLES;")).contains("|tableName|"));
}

#[test]
fn unsupported_describe_statements_are_refused() {
    for (statement, condition) in [
        ("DESCRIBE nowhere", "TABLE_OR_VIEW_NOT_FOUND"),
        ("DESCRIBE shop nothing", "COLUMN_NOT_FOUND"),
        ("DESCRIBE shop place.x", "UNSUPPORTED_FEATURE.DESCRIBE_NESTED_COLUMN"),
        ("DESCRIBE", "PARSE_SYNTAX_ERROR"),
        ("DESCRIBE shop id more", "PARSE_SYNTAX_ERROR"),
        ("SHOW COLUMNS shop", "PARSE_SYNTAX_ERROR"),
        ("SHOW COLUMNS IN nowhere", "TABLE_OR_VIEW_NOT_FOUND"),
        ("SHOW COLUMNS IN shop WHERE id", "PARSE_SYNTAX_ERROR"),
        ("SHOW ANYTHING", "PARSE_SYNTAX_ERROR"),
    ] {
        assert_eq!(script(&format!("{SHOP}{statement}")), condition, "{statement}");
    }
    // A job cannot show a result.
    let job = format!("{SHOP}DESCRIBE shop");
    let error = Session::new().job(&job, &Overrides::default()).map(|_| ()).unwrap_err();
    assert_eq!(error.condition, "QUERY_WITHOUT_SINK");
}

#[test]
fn a_query_may_begin_with_from() {
    check(
        &Session::new(),
        &[
            ("FROM VALUES (1), (2) AS t(a) SELECT a + 1 AS b", "2, 3"),
            ("FROM VALUES (1), (2) AS t(a) SELECT a WHERE a > 1", "2"),
            ("FROM VALUES (1, 'x'), (2, 'y') AS t(a, b)", "1 x, 2 y"),
            ("FROM VALUES (1, 5), (1, 6) AS t(a, b) SELECT a, sum(b) GROUP BY a", "1 11"),
            ("SELECT * FROM (FROM VALUES (1), (2) AS t(a) SELECT a * 3)", "3, 6"),
            ("WITH w AS (FROM VALUES (7) AS t(a)) FROM w SELECT a", "7"),
            ("FROM VALUES (1) AS t(a) WHERE a > 1", "PARSE_SYNTAX_ERROR"),
        ],
    );
}

#[test]
fn a_subquery_is_sampled_as_a_table_is() {
    check(
        &Session::new(),
        &[
            ("SELECT a FROM (SELECT * FROM VALUES (1), (2) AS t(a)) TABLESAMPLE (1 ROWS)", "1"),
            (
                "SELECT a FROM (SELECT * FROM VALUES (1) AS t(a)) TABLESAMPLE (5 PERCENT)",
                "NOT_YET_SUPPORTED",
            ),
        ],
    );
}

#[test]
fn ignore_nulls_is_accepted_only_by_functions_that_support_it() {
    let of = |call: &str| format!("SELECT {call} FROM VALUES (NULL), (2), (3) AS t(a)");
    for (call, expected) in [
        ("first_value(a) IGNORE NULLS", "2"),
        ("any_value(a) IGNORE NULLS", "2"),
        ("first(a) RESPECT NULLS", "NULL"),
        ("max(a) RESPECT NULLS", "3"),
        ("collect_list(a) IGNORE NULLS", "[2, 3]"),
        ("count(a) IGNORE NULLS", "INVALID_SQL_SYNTAX.FUNCTION_WITH_UNSUPPORTED_SYNTAX"),
        ("concat(a) IGNORE NULLS", "INVALID_SQL_SYNTAX.FUNCTION_WITH_UNSUPPORTED_SYNTAX"),
    ] {
        assert_eq!(shown(&Session::new(), &of(call)), expected, "{call}");
    }
}

#[test]
fn a_view_names_the_columns_of_its_query() {
    let defined = |statements: &str| {
        let session = Session::new();
        let made = session.script(statements, &mut |_| Ok(()));
        made.map(|()| session).map_err(|error| error.condition().to_string())
    };
    let session =
        defined("CREATE TEMP VIEW v (b COMMENT 'second', a) COMMENT 'two' AS SELECT 1, 2");
    check(&session.unwrap(), &[("SELECT a, b FROM v", "2 1"), ("SELECT * FROM v", "1 2")]);
    for (statements, condition) in [
        (
            "CREATE TEMP VIEW v (a) AS SELECT 1, 2",
            "CREATE_VIEW_COLUMN_ARITY_MISMATCH.TOO_MANY_DATA_COLUMNS",
        ),
        (
            "CREATE TEMP VIEW v (a, b, c) AS SELECT 1, 2",
            "CREATE_VIEW_COLUMN_ARITY_MISMATCH.NOT_ENOUGH_DATA_COLUMNS",
        ),
        ("CREATE TEMP VIEW v (a, A) AS SELECT 1, 2", "COLUMN_ALREADY_EXISTS"),
        ("CREATE TEMP VIEW v (a INT) AS SELECT 1", "PARSE_SYNTAX_ERROR"),
        ("CREATE TEMP VIEW v () AS SELECT 1", "PARSE_SYNTAX_ERROR"),
        (
            "CREATE TEMP VIEW v AS SELECT 1; CREATE TEMP VIEW V AS SELECT 2",
            "TEMP_TABLE_OR_VIEW_ALREADY_EXISTS",
        ),
    ] {
        assert_eq!(defined(statements).err().as_deref(), Some(condition), "{statements}");
    }
    let replaced = "CREATE TEMP VIEW v AS SELECT 1; CREATE OR REPLACE TEMP VIEW V AS SELECT 2";
    check(&defined(replaced).unwrap(), &[("SELECT * FROM v", "2")]);
}

#[test]
fn an_error_of_a_row_names_the_expression() {
    let of = |query: &str| {
        let error = Session::new().sql(query).unwrap().collect().unwrap_err();
        format!("{} {error}", error.condition())
    };
    let rows = "FROM VALUES (1, 0, '7'), (2, 0, 'x') AS t(a, b, s)";
    for (query, parts) in [
        (format!("SELECT a, a / b AS q {rows}"), ["DIVIDE_BY_ZERO", " / "]),
        (
            format!("SELECT a {rows} WHERE CAST(s AS INT) = 7"),
            ["CAST_INVALID_INPUT", " AS INT) = 7)`"],
        ),
        (format!("SELECT a + 2147483647 AS n {rows}"), ["ARITHMETIC_OVERFLOW", " + 2147483647)`"]),
        (format!("SELECT array(a)[b + 5] AS n {rows}"), ["INVALID_ARRAY_INDEX", "in `"]),
    ] {
        let error = of(&query);
        assert!(parts.iter().all(|part| error.contains(part)), "{query}: {error}");
    }
    let long = format!("SELECT {}1 / b AS q {rows}", "a + ".repeat(100));
    assert!(of(&long).contains('…'));
}

#[test]
fn having_and_order_by_find_aliases_inside_any_expression() {
    let groups = "FROM VALUES (1), (1), (2) AS t(k) GROUP BY k";
    let session = Session::new();
    for (select, clause, expected) in [
        ("k AS a, count(*) AS c", "HAVING CAST(c AS STRING) = '2'", "1 2"),
        ("k AS a, count(*) AS c", "HAVING CASE WHEN c > 1 THEN true ELSE a > 1 END", "1 2, 2 1"),
        ("k AS a, struct(count(*) AS x) AS c", "HAVING c.x > 1", "1 {2}"),
        ("k AS a, count(*) AS c", "HAVING size(filter(array(1, 2), x -> x < c)) = 1", "1 2"),
        // A parameter of a lambda hides an alias.
        ("k AS a, count(*) AS c", "HAVING size(filter(array(0, 5), c -> c > 4)) = 1", "1 2, 2 1"),
        ("k AS a, count(*) AS c", "ORDER BY CASE WHEN c > 1 THEN 1 ELSE 0 END, max(k)", "2 1, 1 2"),
        // A parameter does not take the place of a column in an alias's expression.
        (
            "k AS a, count(*) AS c",
            "HAVING size(filter(array(5), k -> k > a)) = 1",
            "UNRESOLVED_COLUMN.WITH_SUGGESTION",
        ),
        (
            "k AS a, count(*) AS c, max(k) AS c",
            "HAVING CAST(c AS STRING) = '2'",
            "AMBIGUOUS_REFERENCE",
        ),
    ] {
        let query = format!("SELECT {select} {groups} {clause}");
        assert_eq!(shown(&session, &query), expected, "{query}");
    }
}

#[test]
fn words_of_statements_may_be_names_of_views() {
    let named = "CREATE TEMPORARY VIEW query AS SELECT 1 AS a; ";
    for statement in ["DESCRIBE query", "DESC TABLE query", "DESCRIBE QUERY TABLE query"] {
        let shown = script(&format!("{named}{statement}"));
        assert!(shown.contains("|a       |int      |NULL   |"), "{statement}: {shown}");
    }
    let column = script(&format!("{named}DESCRIBE query a"));
    assert!(column.contains("|data_type|int"), "{column}");
    assert!(script(&format!("{named}TABLE query")).contains("|1  |"));
}

#[test]
fn columns_of_a_source_may_have_comments() {
    let create = format!(
        "CREATE TEMPORARY VIEW v (a INT COMMENT 'it''s \"a\"', `b``c` STRUCT<x: INT COMMENT 'y'> \
         NOT NULL COMMENT \"b\") USING json OPTIONS (path '{}/src'); DESCRIBE v",
        env!("CARGO_MANIFEST_DIR")
    );
    let shown = script(&create);
    assert!(shown.contains("|a       |int          |NULL   |"), "{shown}");
    assert!(shown.contains("|b`c     |struct<x:int>|NULL   |"), "{shown}");
}

#[test]
fn a_streaming_table_cannot_be_replaced() {
    let job = "CREATE OR REPLACE STREAMING TABLE t USING console AS SELECT 1";
    let error = Session::new().job(job, &Overrides::default()).map(|_| ()).unwrap_err();
    assert_eq!(error.condition, "PARSE_SYNTAX_ERROR");
    assert!(error.reason.contains("TEMPORARY VIEW"), "{}", error.reason);
}

#[test]
fn settings_of_the_command_line_apply_while_a_job_is_parsed() {
    let read = |value: &str, written: &str, key: &str, select: &str| {
        let session = Session::new();
        session.memory_stream("one", "n BIGINT").unwrap();
        let set = match written {
            "" => String::new(),
            written => format!("SET {key} = {written};"),
        };
        let job =
            format!("{set} CREATE STREAMING TABLE t USING memory AS SELECT {select} AS x FROM one");
        let settings = match value {
            "" => Vec::new(),
            value => vec![(key.to_string(), value.to_string())],
        };
        let overrides = Overrides {
            trigger: Some(Trigger::AsSoonAsPossible),
            settings,
            ..Overrides::default()
        };
        let query = session.job(&job, &overrides).unwrap().remove(0).start().unwrap();
        query.stop().unwrap();
        let name = session.table("t").unwrap().schema().fields[0].clone();
        name.data_type.to_string()
    };
    let key = "spark.sql.timestampType";
    let select = "CAST('2024-01-01' AS TIMESTAMP)";
    assert_eq!(read("", "", key, select), "TIMESTAMP");
    assert_eq!(read("TIMESTAMP_NTZ", "", key, select), "TIMESTAMP_NTZ");
    assert_eq!(read("TIMESTAMP_NTZ", "TIMESTAMP_LTZ", key, select), "TIMESTAMP_NTZ");
    let key = "spark.sql.parser.escapedStringLiterals";
    let select = r"from_json('{}', '`a\d` INT')";
    assert_eq!(read("", "", key, select), "STRUCT<ad: INT>");
    assert_eq!(read("true", "", key, select), r"STRUCT<`a\d`: INT>");
    assert_eq!(read("true", "false", key, select), r"STRUCT<`a\d`: INT>");
}

#[test]
fn a_quoted_setting_of_string_literals_applies_to_later_literals() {
    for value in ["true", "'true'", "\"TRUE\""] {
        let shown = script(&format!(
            "SELECT 'first'; SET spark.sql.parser.escapedStringLiterals = {value}; SELECT length('\\d') AS n"
        ));
        assert!(shown.contains("|2  |"), "{value}: {shown}");
    }
}
