//! Queries over constants, each with Spark's result: operator precedence, grouping, joins,
//! ordering, and error conditions.
#![cfg(feature = "sql")]

use millstream::session::Session;
use millstream::table::datetime::Tz;
use millstream::table::value::Value;

/// The rows of a query, with `|` between cells and `;` between rows, or its error condition.
fn answer(sql: &str) -> String {
    answer_in(&Session::new(), sql)
}

fn answer_in(session: &Session, sql: &str) -> String {
    let frame = match session.sql(sql) {
        Ok(frame) => frame,
        Err(error) => return error.condition,
    };
    let fields = frame.schema().fields;
    match frame.collect() {
        Ok(rows) => {
            let line = |row: Vec<Value>| {
                let cells = row.iter().zip(&fields);
                let cells = cells.map(|(cell, field)| cell.show(&field.data_type, Tz::UTC));
                cells.collect::<Vec<_>>().join("|")
            };
            rows.into_iter().map(line).collect::<Vec<_>>().join(";")
        }
        Err(error) => {
            let text = error.to_string();
            text.split([':', ' ']).next().unwrap_or_default().to_string()
        }
    }
}

#[track_caller]
fn check(cases: &[(&str, &str)]) {
    for (sql, expected) in cases {
        assert_eq!(answer(sql), *expected, "{sql}");
    }
}

/// Checks the values of expressions.
#[track_caller]
fn check_values(cases: &[(&str, &str)]) {
    for (expr, expected) in cases {
        assert_eq!(answer(&format!("SELECT {expr}")), *expected, "{expr}");
    }
}

#[test]
fn operators_bind_as_close_as_in_spark() {
    check_values(&[
        ("1 & 2 >> 1", "1"),
        ("5 & 3 << 1 | 1", "5"),
        ("3 ^ 1 << 1", "1"),
        ("8 >> 1 + 1", "2"),
        ("-8 >>> 1 + 1", "1073741822"),
        ("8 >> 1 >>> 1 << 2", "8"),
        ("1 || 2 * 3", "16"),
        ("1 - 2 || 3", "-13"),
        ("-1::STRING", "-1"),
        ("-1.5::STRING || 'a'", "-1.5a"),
        ("- 5 % 3", "-2"),
        ("1 < 2 BETWEEN true AND true", "true"),
        ("5 BETWEEN 1 AND 3 | 4", "true"),
        ("1 = 2 IS NULL", "false"),
        ("NOT 1 = 2 IS NULL", "true"),
        ("1 = 1 AND true IS NOT DISTINCT FROM false OR true", "true"),
        ("true IS NOT UNKNOWN", "true"),
        ("!!true", "true"),
        ("1 !< 2", "false"),
        ("1 !> 2", "true"),
    ]);
}

/// A condition is not an operand without parentheses.
#[test]
fn conditions_without_parentheses_are_not_operands() {
    for expr in [
        "1 IN (1, 2) = true",
        "1 IS NULL = false",
        "1 IS NULL IS NULL",
        "'a' LIKE 'b' LIKE 'c'",
        "1 BETWEEN 0 AND 2 BETWEEN false AND true",
        "true = NOT false",
        "1 + NOT true",
        "- NOT true",
        "1 IS NOT NULL :: STRING",
        "1 IN (2) :: STRING",
        "true IS FALSE :: INT",
        "EXISTS (SELECT 1) :: STRING",
        "CASE WHEN 1 IS NULL :: BOOLEAN THEN 2 END",
    ] {
        assert_eq!(answer(&format!("SELECT {expr}")), "PARSE_SYNTAX_ERROR", "{expr}");
    }
    check_values(&[("(1 IS NULL) = false", "true"), ("(NOT true) = false", "true")]);
}

#[test]
fn a_setting_of_string_literals_applies_to_later_statements() {
    let said = |session: &Session, sql: &str| {
        let rows = session.sql(sql).unwrap().collect().unwrap();
        rows[0][0].show(&millstream::table::types::DataType::String, Tz::UTC)
    };
    let session = Session::new();
    session.set("spark.sql.legacy.consecutiveStringLiterals.enabled", "TRUE").unwrap();
    assert_eq!(said(&session, "SELECT 'mill''stream'"), "millstream");
    session.set("spark.sql.parser.escapedStringLiterals", "true").unwrap();
    assert_eq!(said(&session, r"SELECT 'a\d''b'"), r"a\d''b".replace(r"\\", r"\"));
    session.set("spark.sql.parser.escapedStringLiterals", "false").unwrap();
    let script = "SET spark.sql.legacy.consecutiveStringLiterals.enabled = false; SELECT 'a''b'";
    session.script(script, &mut |_| Ok(())).unwrap();
    assert_eq!(said(&session, "SELECT 'mill''stream'"), "mill'stream");
    for key in ["parser.escapedStringLiterals", "legacy.consecutiveStringLiterals.enabled"] {
        let error = session.set(&format!("spark.sql.{key}"), "yes").unwrap_err();
        assert_eq!(error.condition, "INVALID_CONF_VALUE");
    }
}

/// Each grouping set has its groups, also a set that occurs twice or has no key.
#[test]
fn grouping_sets_keep_their_duplicates() {
    let of = |clause: &str| {
        answer(&format!(
            "SELECT k, j, count(*) AS c, grouping_id() AS g FROM VALUES (1, 2), (2, 3) AS t(k, j) \
             GROUP BY {clause} ORDER BY 4, 1, 2"
        ))
    };
    let of_both = "1|2|1|0;2|3|1|0";
    let of_k = "1|NULL|1|1;2|NULL|1|1";
    assert_eq!(of("ROLLUP(k, j)"), format!("{of_both};{of_k};NULL|NULL|2|3"));
    let twice = "1|2|1|0;1|2|1|0;2|3|1|0;2|3|1|0";
    assert_eq!(of("GROUPING SETS ((k, j), (j, k))"), twice);
    assert_eq!(of("k, GROUPING SETS (j, (), j)"), format!("{twice};{of_k}"));
    assert_eq!(of("k, j GROUPING SETS ((k, j), (k))"), format!("{of_both};{of_k}"));
    assert_eq!(of("GROUPING SETS (ROLLUP(k, j), (k, j))"), format!("{twice};{of_k};NULL|NULL|2|3"));
    check(&[
        ("SELECT count(*) FROM VALUES (1) AS t(k) WHERE k > 5 GROUP BY GROUPING SETS (())", "0"),
        ("SELECT count(*) FROM VALUES (1) AS t(k) WHERE k > 5 GROUP BY ROLLUP(k)", ""),
        ("SELECT count(*) FROM VALUES (1), (2) AS t(k) GROUP BY GROUPING SETS ((), ())", "2;2"),
        ("SELECT k FROM VALUES (1) AS t(k) GROUP BY GROUPING SETS (())", "MISSING_GROUP_BY"),
        ("SELECT k FROM VALUES (1) AS t(k) GROUP BY GROUPING SETS ((), ())", "MISSING_AGGREGATION"),
        (
            "SELECT 7, count(*) AS c FROM VALUES (1) AS t(k) GROUP BY CUBE(1) ORDER BY 1",
            "NULL|1;7|1",
        ),
        (
            "SELECT grouping(j) FROM VALUES (1, 2) AS t(k, j) GROUP BY CUBE(k)",
            "GROUPING_COLUMN_MISMATCH",
        ),
        (
            "SELECT grouping_id(j, k) FROM VALUES (1, 2) AS t(k, j) GROUP BY CUBE(k, j)",
            "GROUPING_ID_COLUMN_MISMATCH",
        ),
        ("SELECT * FROM VALUES (1) AS t(k) GROUP BY k, 1", "STAR_GROUP_BY_POS"),
        ("SELECT k, sum(k) FROM VALUES (1) AS t(k) GROUP BY 2", "GROUP_BY_POS_AGGREGATE"),
        ("SELECT k, max(j) AS m FROM VALUES (1, 2), (1, 3) AS t(k, j) GROUP BY ALL", "1|3"),
        (
            "SELECT k + max(j) FROM VALUES (1, 2) AS t(k, j) GROUP BY ALL",
            "UNRESOLVED_ALL_IN_GROUP_BY",
        ),
        (
            "SELECT 0 + 0 + 0 + 0 + 0 + 0 + 0 + 0 + 0 + 0 + 0 + 0 + 0 + 0 + 0 + 0 + 0 + 0 + k + max(j) \
             FROM VALUES (1, 2) AS t(k, j) GROUP BY ALL",
            "UNRESOLVED_ALL_IN_GROUP_BY",
        ),
        (
            "SELECT transform(array(max(j)), x -> x + k) FROM VALUES (1, 2) AS t(k, j) GROUP BY ALL",
            "UNRESOLVED_ALL_IN_GROUP_BY",
        ),
        (
            "SELECT transform(array(max(j)), x -> x + 1) FROM VALUES (1, 2) AS t(k, j) GROUP BY ALL",
            "[3]",
        ),
    ]);
}

/// The hidden columns of a USING join can be read with their relation's name.
#[test]
fn using_joins_keep_both_sides() {
    let of = |select: &str, join: &str| {
        answer(&format!(
            "WITH a AS (SELECT * FROM VALUES (1, 'x'), (2, 'y') AS t(k, v)), \
             b AS (SELECT * FROM VALUES (2, 'p'), (3, 'q') AS t(k, w)) \
             SELECT {select} FROM a {join} b USING (k) ORDER BY 1"
        ))
    };
    assert_eq!(of("*", "JOIN"), "2|y|p");
    assert_eq!(of("a.*, b.*", "JOIN"), "2|y|2|p");
    assert_eq!(of("*, a.k, b.k", "LEFT JOIN"), "1|x|NULL|1|NULL;2|y|p|2|2");
    assert_eq!(of("*, a.k, b.k", "RIGHT JOIN"), "2|y|p|2|2;3|NULL|q|NULL|3");
    assert_eq!(of("k, a.*, b.*", "FULL JOIN"), "1|1|x|NULL|NULL;2|2|y|2|p;3|NULL|NULL|3|q");
    assert_eq!(of("*", "LEFT SEMI JOIN"), "2|y");
    assert_eq!(of("b.k", "LEFT SEMI JOIN"), "UNRESOLVED_COLUMN.WITH_SUGGESTION");
    check(&[
        (
            "SELECT a.*, b.*, c.*, k FROM VALUES (1) AS a(k) NATURAL FULL JOIN VALUES (2) AS b(k) \
             NATURAL FULL JOIN VALUES (2), (3) AS c(k) ORDER BY k",
            "1|NULL|NULL|1;NULL|2|2|2;NULL|NULL|3|3",
        ),
        (
            "SELECT * FROM VALUES (1) AS a(k) JOIN VALUES (1) AS b(j) USING (k)",
            "UNRESOLVED_USING_COLUMN_FOR_JOIN",
        ),
        ("SELECT * FROM (SELECT 1 AS a, 2 AS a)", "1|2"),
    ]);
}

/// ORDER BY can use the columns of the result, and columns of the input that are not selected.
#[test]
fn order_by_can_use_columns_that_are_not_selected() {
    check(&[
        ("SELECT a FROM VALUES (1, 'y'), (2, 'x') AS t(a, b) ORDER BY b", "2;1"),
        ("SELECT a, -a AS b FROM VALUES (1, 'y'), (2, 'x') AS t(a, b) ORDER BY b", "2|-2;1|-1"),
        (
            "SELECT a FROM VALUES (1, 'y'), (2, 'x') AS t(a, b) ORDER BY t.b, 2",
            "ORDER_BY_POS_OUT_OF_RANGE",
        ),
        ("SELECT * FROM VALUES (1, 'y'), (2, 'x') AS t(a, b) ORDER BY 2", "2|x;1|y"),
        ("SELECT a, a FROM VALUES (2), (1) AS t(a) ORDER BY a", "1|1;2|2"),
        ("SELECT a FROM VALUES (2, 1), (1, 5) AS t(a, b) GROUP BY a ORDER BY max(b) DESC", "1;2"),
        ("SELECT count(*) AS c FROM VALUES (2), (2), (1) AS t(a) GROUP BY a ORDER BY a", "1;2"),
        (
            "SELECT count(*) FROM VALUES (2, 1) AS t(a, b) GROUP BY a ORDER BY b",
            "UNRESOLVED_COLUMN.WITH_SUGGESTION",
        ),
        ("SELECT * FROM VALUES (2, 1), (1, 9), (1, 5) AS t(a, b) ORDER BY ALL", "1|5;1|9;2|1"),
        ("SELECT a FROM VALUES (1), (2), (3) AS t(a) ORDER BY a DESC LIMIT 1 OFFSET 1", "2"),
        ("SELECT a FROM VALUES (1) AS t(a) LIMIT -1", "INVALID_LIMIT_LIKE_EXPRESSION.IS_NEGATIVE"),
        ("SELECT a FROM VALUES (1) AS t(a) LIMIT a", "INVALID_LIMIT_LIKE_EXPRESSION.IS_UNFOLDABLE"),
        ("SELECT a FROM VALUES (1) AS t(a) LIMIT 'a'", "INVALID_LIMIT_LIKE_EXPRESSION.DATA_TYPE"),
    ]);
}

/// Seeds give the same random numbers as in Spark.
#[test]
fn seeds_give_the_numbers_of_spark() {
    let rows = "FROM VALUES (1), (2), (3) AS t(a)";
    let of = |expr: &str| answer(&format!("SELECT {expr} {rows}"));
    assert_eq!(of("rand(0)"), "0.7604953758285915;0.5234194256885571;0.0953472826424725");
    assert_eq!(of("rand(NULL)"), of("rand(0)"));
    assert_eq!(answer("SELECT rand('1')"), "DATATYPE_MISMATCH.UNEXPECTED_INPUT_TYPE");
    assert_eq!(of("rand(a)"), "SEED_EXPRESSION_IS_UNFOLDABLE");
    // The outer filter does not change the random value of each row.
    assert_eq!(
        answer("SELECT r FROM (SELECT a, rand(0) AS r FROM VALUES (1), (2) AS t(a)) WHERE a > 1"),
        "0.5234194256885571"
    );
}

/// A WITH clause has the same rows each time it is read.
#[test]
fn a_with_clause_is_computed_once() {
    check(&[
        (
            "WITH q AS (SELECT rand() AS r FROM VALUES (1), (2), (3) AS t(a)) \
             SELECT count(*) FROM (SELECT * FROM q UNION SELECT * FROM q)",
            "3",
        ),
        (
            "WITH q AS (SELECT a, uuid() AS r FROM VALUES (1), (2), (3) AS t(a)) \
             SELECT count(*) FROM (SELECT * FROM q WHERE a > 1) AS x JOIN q AS y ON x.r = y.r",
            "2",
        ),
        ("WITH q AS (SELECT 1), Q AS (SELECT 2) SELECT * FROM q", "DUPLICATED_CTE_NAMES"),
    ]);
}

/// -0.0 and 0.0, all NaNs, and maps with the same entries are one key at any depth.
#[test]
fn equal_values_are_one_key() {
    let counted = |values: &str| {
        answer(&format!("SELECT a, count(*) FROM VALUES {values} AS t(a) GROUP BY a ORDER BY 2"))
    };
    assert_eq!(counted("(array(-0.0D)), (array(0.0D))"), "[0.0]|2");
    assert_eq!(counted("(named_struct('x', -0.0D)), (named_struct('x', 0.0D))"), "{0.0}|2");
    assert_eq!(counted("(array(float('-0.0'))), (array(float('0.0')))"), "[0.0]|2");
    assert_eq!(counted("(map('x', -0.0D)), (map('x', 0.0D))"), "{x -> 0.0}|2");
    check(&[
        (
            "SELECT m, count(*) FROM VALUES (map(3, 4, 1, 2)), (map(1, 2, 3, 4)) AS t(m) GROUP BY m",
            "{1 -> 2, 3 -> 4}|2",
        ),
        (
            "SELECT count(*) FROM VALUES (array(map(3, 4, 1, 2))), (array(map(1, 2, 3, 4))) AS t(m) \
             GROUP BY m",
            "2",
        ),
        ("SELECT count(DISTINCT m) FROM VALUES (map(3, 4, 1, 2)), (map(1, 2, 3, 4)) AS t(m)", "1"),
        ("SELECT DISTINCT a FROM VALUES (array(-0.0D)), (array(0.0D)) AS t(a)", "[0.0]"),
        ("SELECT a FROM VALUES (array(-0.0D)) AS t(a) UNION SELECT array(0.0D)", "[0.0]"),
        ("SELECT a FROM VALUES (array(-0.0D)) AS t(a) INTERSECT SELECT array(0.0D)", "[0.0]"),
        ("SELECT a FROM VALUES (array(-0.0D)) AS t(a) EXCEPT SELECT array(0.0D)", ""),
        ("SELECT count(DISTINCT a) FROM VALUES (array(-0.0D)), (array(0.0D)) AS t(a)", "1"),
        ("SELECT collect_set(a) FROM VALUES (array(-0.0D)), (array(0.0D)) AS t(a)", "[[0.0]]"),
        (
            "SELECT * FROM VALUES (array(-0.0D)) AS t(a) JOIN VALUES (array(0.0D)) AS u(a) USING (a)",
            "[-0.0]",
        ),
        (
            "SELECT DISTINCT m FROM VALUES (map(3, 4)) AS t(m)",
            "UNSUPPORTED_FEATURE.SET_OPERATION_ON_MAP_TYPE",
        ),
        (
            "SELECT array(map(1, 2)) EXCEPT SELECT array(map(1, 2))",
            "UNSUPPORTED_FEATURE.SET_OPERATION_ON_MAP_TYPE",
        ),
        ("SELECT map(1, 2) = map(1, 2)", "DATATYPE_MISMATCH.INVALID_ORDERING_TYPE"),
        ("SELECT map(1, 2) IN (map(1, 2))", "DATATYPE_MISMATCH.INVALID_ORDERING_TYPE"),
        (
            "SELECT m FROM VALUES (map(1, 2)) AS t(m) ORDER BY m",
            "DATATYPE_MISMATCH.INVALID_ORDERING_TYPE",
        ),
    ]);
}

/// LIMIT and OFFSET of a subquery apply to all its rows, or to those that match one outer row.
#[test]
fn subqueries_have_limits() {
    let of = |condition: &str| {
        answer(&format!("SELECT k FROM VALUES (1), (2) AS t(k) WHERE {condition} ORDER BY k"))
    };
    let rows = "FROM VALUES (1), (1), (2) AS u(j)";
    assert_eq!(of(&format!("k IN (SELECT j {rows} ORDER BY j DESC LIMIT 1)")), "2");
    assert_eq!(of(&format!("k NOT IN (SELECT j {rows} LIMIT 2)")), "2");
    assert_eq!(of(&format!("k IN (SELECT j {rows} ORDER BY j LIMIT 1 OFFSET 2)")), "2");
    assert_eq!(of(&format!("EXISTS (SELECT 1 {rows} WHERE j = k LIMIT 1 OFFSET 1)")), "1");
    assert_eq!(of(&format!("NOT EXISTS (SELECT 1 {rows} WHERE j = k LIMIT 1 OFFSET 1)")), "2");
    assert_eq!(of(&format!("EXISTS (SELECT 1 {rows} WHERE j = k LIMIT 0)")), "");
    assert_eq!(of(&format!("k IN (SELECT j {rows} WHERE j >= k ORDER BY j DESC LIMIT 1)")), "2");
    assert_eq!(
        of(&format!("k NOT IN (SELECT j {rows} WHERE j >= k ORDER BY j DESC LIMIT 1)")),
        "1"
    );
    check(&[
        (
            "SELECT k, (SELECT w FROM VALUES (1, 1), (1, 2), (2, 3) AS u(j, w) WHERE j = k \
             ORDER BY w DESC LIMIT 1) FROM VALUES (1), (2), (3) AS t(k)",
            "1|2;2|3;3|NULL",
        ),
        (
            "SELECT k, (SELECT count(w) FROM VALUES (1, 1) AS u(j, w) WHERE j = k LIMIT 1 OFFSET 1) \
             FROM VALUES (1), (2) AS t(k)",
            "1|NULL;2|NULL",
        ),
    ]);
}

#[test]
fn set_operations_bind_as_in_spark() {
    check(&[
        ("SELECT 1 UNION SELECT 2 INTERSECT SELECT 2 ORDER BY 1", "1;2"),
        ("(SELECT 1 UNION SELECT 2) INTERSECT SELECT 2", "2"),
        ("SELECT 1 MINUS SELECT 2 UNION ALL SELECT 3 INTERSECT SELECT 3 ORDER BY 1", "1;3"),
    ]);
    let session = Session::new();
    session.set("spark.sql.legacy.setopsPrecedence.enabled", "true").unwrap();
    let frame = session.sql("SELECT 1 UNION SELECT 2 INTERSECT SELECT 2").unwrap();
    assert_eq!(frame.collect().unwrap(), [vec![Value::Long(2)]]);
}

/// Names in GROUP BY, HAVING and ORDER BY mean what they mean in Spark.
#[test]
fn names_mean_what_they_do_in_spark() {
    let random = "AGGREGATE_FUNCTION_WITH_NONDETERMINISTIC_EXPRESSION";
    check(&[
        ("SELECT upper(a) FROM VALUES ('x') AS t(a) GROUP BY `upper(a)`", "X"),
        ("SELECT a, count(*) FROM VALUES (1) AS t(a) GROUP BY a ORDER BY `count(1)`", "1|1"),
        ("SELECT a + b, count(*) FROM VALUES (1, 2), (2, 1) AS t(a, b) GROUP BY b + a", "3|2"),
        ("SELECT a > b, count(*) FROM VALUES (1, 2) AS t(a, b) GROUP BY b < a", "false|1"),
        (
            "SELECT -a AS a, count(*) FROM VALUES (1), (3) AS t(a) GROUP BY a ORDER BY a + 1",
            "-3|1;-1|1",
        ),
        (
            "SELECT 1 AS a, 2 AS a FROM VALUES (1) AS t(c) GROUP BY a HAVING a > 0",
            "AMBIGUOUS_REFERENCE",
        ),
        (
            "SELECT a AS x, a AS x FROM VALUES (1) AS t(a) ORDER BY x",
            "UNRESOLVED_COLUMN.WITH_SUGGESTION",
        ),
        (
            "SELECT DISTINCT a + 1 FROM VALUES (1) AS t(a) ORDER BY a + 1",
            "UNRESOLVED_COLUMN.WITH_SUGGESTION",
        ),
        (
            "SELECT DISTINCT a FROM VALUES (1) AS t(a) ORDER BY nosuch.a",
            "UNRESOLVED_COLUMN.WITH_SUGGESTION",
        ),
        (
            "SELECT DISTINCT a FROM VALUES (1, named_struct('a', 2)) AS t(a, s) ORDER BY s.a",
            "UNRESOLVED_COLUMN.WITH_SUGGESTION",
        ),
        (
            "SELECT DISTINCT t.a, u.b FROM VALUES (1) AS t(a) JOIN VALUES (2) AS u(b) ORDER BY u.a",
            "UNRESOLVED_COLUMN.WITH_SUGGESTION",
        ),
        (
            "SELECT DISTINCT a AS b FROM VALUES (1), (2) AS t(a) ORDER BY t.b",
            "UNRESOLVED_COLUMN.WITH_SUGGESTION",
        ),
        ("SELECT DISTINCT a FROM VALUES (2), (1), (2) AS t(a) ORDER BY T.A", "1;2"),
        ("SELECT DISTINCT t.a FROM VALUES (2), (1) AS t(a) GROUP BY t.a ORDER BY t.a DESC", "2;1"),
        (
            "SELECT DISTINCT t.a, u.a FROM VALUES (1), (2) AS t(a) CROSS JOIN VALUES (3), (4) AS u(a) \
             ORDER BY u.a DESC, t.a",
            "1|4;2|4;1|3;2|3",
        ),
        ("SELECT count(max(a)) FROM VALUES (1) AS t(a)", "NESTED_AGGREGATE_FUNCTION"),
        ("SELECT max(a) AS m FROM VALUES (1) AS t(a) GROUP BY m", "GROUP_BY_AGGREGATE"),
        (
            "SELECT sum(a) FILTER (WHERE max(a) > 1) FROM VALUES (1) AS t(a)",
            "INVALID_AGGREGATE_FILTER.CONTAINS_AGGREGATE",
        ),
        (
            "SELECT sum(a) FILTER (WHERE rand() > 1) FROM VALUES (1) AS t(a)",
            "INVALID_AGGREGATE_FILTER.NON_DETERMINISTIC",
        ),
        ("SELECT mode() WITHIN GROUP (ORDER BY rand(1)) FROM VALUES (1) AS t(a)", random),
        ("SELECT a FROM VALUES (1) AS t(a) GROUP BY a ORDER BY sum(rand(1))", random),
        ("SELECT * FROM VALUES (1) AS t(a) PIVOT (sum(rand(1)) FOR a IN (1))", random),
        (
            "SELECT sum(array(rand(1))) FROM VALUES (1) AS t(a)",
            "DATATYPE_MISMATCH.UNEXPECTED_INPUT_TYPE",
        ),
        ("SELECT * EXCEPT a FROM VALUES (1, 2) AS t(a, b)", "PARSE_SYNTAX_ERROR"),
        ("SELECT * EXCEPT (a, A) FROM VALUES (1, 2) AS t(a, b)", "EXCEPT_OVERLAPPING_COLUMNS"),
        ("WITH v AS (VALUES (1), (2)) SELECT * FROM v TABLESAMPLE (1 ROWS)", "1"),
        (
            "SELECT (1, 2) = (a, b), struct(1, 2) IN (struct(a, b)) FROM VALUES (1, 2) AS t(a, b)",
            "true|true",
        ),
    ]);
}

#[test]
fn functions_of_arrays_and_maps_reject_intervals_with_different_units() {
    let differ = |kind: &str| format!("DATATYPE_MISMATCH.{kind}_DIFF_TYPES");
    for call in ["contains", "position", "remove", "append", "prepend"] {
        let sql = format!("SELECT array_{call}(array(INTERVAL '2' DAY), INTERVAL '3' HOUR)");
        assert_eq!(answer(&sql), differ("ARRAY_FUNCTION"), "{call}");
    }
    for call in ["array_union", "array_except", "array_intersect", "arrays_overlap"] {
        let sql = format!("SELECT {call}(array(INTERVAL '2' YEAR), array(INTERVAL '3' MONTH))");
        assert_eq!(answer(&sql), differ("BINARY_ARRAY"), "{call}");
    }
    for call in ["map_contains_key", "element_at"] {
        let sql = format!("SELECT {call}(map(INTERVAL '2' DAY, 1), INTERVAL '3' HOUR)");
        assert_eq!(answer(&sql), differ("MAP_FUNCTION"), "{call}");
    }
    check_values(&[
        ("array_contains(array(INTERVAL '2' DAY), INTERVAL '2' DAY)", "true"),
        ("INTERVAL '1' DAY IN (INTERVAL '24' HOUR)", "true"),
        ("size(array(INTERVAL '2' DAY, INTERVAL '3' HOUR))", "2"),
    ]);
}

#[test]
fn concat_of_an_array_and_another_type_is_refused() {
    check_values(&[
        ("concat(array(2), NULL)", "DATATYPE_MISMATCH.DATA_DIFF_TYPES"),
        ("concat(NULL, array('a'))", "DATATYPE_MISMATCH.DATA_DIFF_TYPES"),
        ("concat(array(2), 'a')", "DATATYPE_MISMATCH.DATA_DIFF_TYPES"),
        ("concat(array(2), map(2, 3))", "DATATYPE_MISMATCH.UNEXPECTED_INPUT_TYPE"),
        ("concat(array(2), array(3L))", "[2, 3]"),
        ("element_at(NULL, 2)", "DATATYPE_MISMATCH.UNEXPECTED_INPUT_TYPE"),
    ]);
}

/// `array_sort` with an inconsistent comparator gives the order that Java's sort gives.
#[test]
fn arrays_are_sorted_by_any_comparison() {
    check_values(&[
        ("array_sort(array(6, 4, 5), (a, b) -> 1)", "[6, 4, 5]"),
        ("array_sort(array(6, 4, 5), -1)", "[5, 4, 6]"),
        ("array_sort(array(6, 4, 5), 0)", "[6, 4, 5]"),
        ("array_sort(array(2, 3, 9, 1, 4), (a, b) -> b - a)", "[9, 4, 3, 2, 1]"),
        ("array_sort(array(9, 8, 8, 3, 5), (a, b) -> a - b)", "[3, 5, 8, 8, 9]"),
        ("array_sort(array(7), (a, b) -> 1)", "[7]"),
    ]);
}

#[test]
fn dates_are_read_from_the_text_of_other_values() {
    check_values(&[
        ("to_date(20240229, 'yyyyMMdd')", "2024-02-29"),
        ("to_date(2024)", "2024-01-01"),
        ("to_date(X'32303234', 'yyyy')", "2024-01-01"),
        ("to_date(true)", "CAST_INVALID_INPUT"),
        ("to_date(2024D, 'yyyy')", "CANNOT_PARSE_TIMESTAMP"),
        ("to_date(array(1))", "DATATYPE_MISMATCH.UNEXPECTED_INPUT_TYPE"),
        ("yearofweek(DATE '2024-12-30')", "UNRESOLVED_ROUTINE"),
        ("extract(yearofweek FROM DATE '2024-12-30')", "2025"),
        ("typeof(floor(NULL, 2))", "decimal(23,2)"),
        ("typeof(ceil('2.5', 0))", "decimal(21,0)"),
        ("typeof(floor(2.5D, 2))", "decimal(18,2)"),
        ("explode()", "REQUIRED_PARAMETER_NOT_FOUND"),
        ("inline_outer()", "REQUIRED_PARAMETER_NOT_FOUND"),
        ("stack()", "WRONG_NUM_ARGS.WITHOUT_SUGGESTION"),
        ("1 LIMIT NULL", "INVALID_LIMIT_LIKE_EXPRESSION.DATA_TYPE"),
        ("1 LIMIT CAST(NULL AS INT)", "INVALID_LIMIT_LIKE_EXPRESSION.IS_NULL"),
        ("1 LIMIT rand()", "INVALID_LIMIT_LIKE_EXPRESSION.IS_UNFOLDABLE"),
    ]);
}

/// Some HAVING clauses limit ORDER BY to the selected columns.
#[test]
fn order_by_after_having_resolves_columns_as_in_spark() {
    let unresolved = "UNRESOLVED_COLUMN.WITH_SUGGESTION";
    let unsupported = "UNSUPPORTED_EXPR_FOR_OPERATOR";
    for (select, keys, having, order, expected) in [
        ("sum(w)", "k + 1", "k + 1 > 0", "k + 1", unresolved),
        ("sum(w)", "k + 1", "1 + k > 0", "1 + k", unresolved),
        ("sum(w)", "k + 1", "sum(w) > 0", "1 + k", "7"),
        ("k + 1", "k + 1", "1 + k > 0", "1 + k", "4"),
        ("k + 1", "k + 1", "max(w) > 0", "k + 1", unresolved),
        ("sum(w)", "k, w", "w > 0", "k + w", "7"),
        ("sum(w)", "k", "max(w) > 0", "sum(w)", unresolved),
        ("sum(w) + 1", "k", "sum(w) > 0", "min(w)", unresolved),
        ("sum(w)", "k", "sum(w) > 0", "min(w)", "7"),
        ("k", "k, w", "w > 0", "max(k)", unsupported),
        ("k", "k", "count(*) > 0", "count(*)", unsupported),
        ("k AS x, max(w) AS m", "k", "min(w) > 0", "k + m", "3|7"),
        ("'k', 'k'", "ALL", "true", "k", unresolved),
        ("k + 1, k + 1", "k", "true", "`(k + 1)`", unresolved),
        ("t.k, k", "k", "true", "k", "3|3"),
    ] {
        let sql = format!(
            "SELECT {select} FROM VALUES (3, 7) AS t(k, w) GROUP BY {keys} HAVING {having} \
             ORDER BY {order}"
        );
        assert_eq!(answer(&sql), expected, "{sql}");
    }
}

#[test]
fn sides_of_a_set_operation_have_common_types() {
    let typed = |left: &str, op: &str, right: &str| {
        answer(&format!("SELECT typeof(c), c FROM (SELECT {left} AS c {op} SELECT {right} AS d)"))
    };
    for (left, right, expected) in [
        ("3", "7.5", "decimal(11,1)|3.0"),
        ("3", "7L", "bigint|3"),
        ("3", "'7'", "bigint|3"),
        ("'3'", "7", "bigint|3"),
        ("'3'", "'7'", "string|3"),
        ("3Y", "7.5F", "double|3.0"),
        ("9223372036854775807", "7.5F", "double|9.223372036854776E18"),
        ("DATE '2020-01-01'", "TIMESTAMP '2021-01-01 00:00:00'", "timestamp|2020-01-01 00:00:00"),
        ("array(3)", "array(7.5)", "array<decimal(11,1)>|[3.0]"),
        ("named_struct('x', 3)", "named_struct('x', 7D)", "struct<x:double>|{3.0}"),
        (
            "INTERVAL '3' YEAR",
            "INTERVAL '7' MONTH",
            "interval year to month|INTERVAL '3-0' YEAR TO MONTH",
        ),
        ("3", "true", "INCOMPATIBLE_COLUMN_TYPE"),
        ("DATE '2020-01-01'", "7", "INCOMPATIBLE_COLUMN_TYPE"),
    ] {
        for op in ["EXCEPT", "EXCEPT DISTINCT", "MINUS"] {
            assert_eq!(typed(left, op, right), expected, "{left} {op} {right}");
        }
    }
    let maps = "UNSUPPORTED_FEATURE.SET_OPERATION_ON_MAP_TYPE";
    check(&[
        ("SELECT a FROM VALUES (3), (4) AS t(a) EXCEPT SELECT b FROM VALUES (3.0) AS u(b)", "4.0"),
        ("SELECT a FROM VALUES (3), (4) AS t(a) INTERSECT SELECT 3.0", "3.0"),
        ("SELECT a FROM VALUES (3), (NULL) AS t(a) INTERSECT SELECT NULL", "NULL"),
        ("SELECT NULL EXCEPT SELECT 7L", "NULL"),
        ("SELECT 3 EXCEPT SELECT 7.5 INTERSECT SELECT 8", "3.0"),
        ("SELECT a FROM (SELECT 3 AS a EXCEPT SELECT 7.5 AS b)", "3.0"),
        ("SELECT 3 EXCEPT SELECT 'x'", "CAST_INVALID_INPUT"),
        ("SELECT 3 INTERSECT SELECT 3, 4", "NUM_COLUMNS_MISMATCH"),
        ("SELECT map(3, 3) EXCEPT SELECT 3", "INCOMPATIBLE_COLUMN_TYPE"),
        ("SELECT 3 INTERSECT SELECT map(3, 3), 4", "NUM_COLUMNS_MISMATCH"),
        ("SELECT NULL EXCEPT SELECT map(3, 3)", maps),
        ("SELECT map(3, 3) INTERSECT SELECT map(3, 3)", maps),
        ("SELECT NULL UNION SELECT map(3, 3)", maps),
        ("SELECT a FROM VALUES (3) AS t(a) EXCEPT SELECT 7.5 ORDER BY a", "3.0"),
        (
            "SELECT a FROM VALUES (3) AS t(a) EXCEPT SELECT 7.5 ORDER BY t.a",
            "UNRESOLVED_COLUMN.WITH_SUGGESTION",
        ),
    ]);
}

#[test]
fn without_ansi_mode_a_set_operation_prefers_strings_over_numbers() {
    let session = Session::new();
    session.set("spark.sql.ansi.enabled", "false").unwrap();
    let sql = "SELECT typeof(c), c FROM (SELECT 3 AS c EXCEPT SELECT 'x')";
    let text = |value: &str| Value::String(value.into());
    let rows = session.sql(sql).unwrap().collect().unwrap();
    assert_eq!(rows, [[text("string"), text("3")]]);
}

#[test]
fn array_set_functions_normalise_negative_zero() {
    check_values(&[
        ("array_distinct(array(-0D, 0D, 7D))", "[0.0, 7.0]"),
        ("array_distinct(array(-0.0F, NULL))", "[0.0, NULL]"),
        ("array_distinct(array(array(-0D), array(0D)))", "[[0.0]]"),
        ("array_distinct(array(named_struct('x', array(-0.0F))))", "[{[0.0]}]"),
        ("array_union(array(7D), array(-0D))", "[7.0, 0.0]"),
        ("array_union(array(struct(-0D)), array(struct(0D)))", "[{0.0}]"),
        ("array_intersect(array(-0D), array(0D))", "[0.0]"),
        ("array_intersect(array(array(-0D)), array(array(0D)))", "[[0.0]]"),
        ("array_except(array(-0D), array(7D))", "[0.0]"),
        ("array_except(array(array(-0D)), array(array(7D)))", "[[0.0]]"),
        ("array_except(array(-0D), array(0D))", "[]"),
    ]);
}

#[test]
fn array_functions_keep_the_first_of_equal_elements() {
    check_values(&[
        ("array_max(array(-0D, 0D))", "-0.0"),
        ("array_max(array(0D, -0D))", "0.0"),
        ("array_min(array(-0D, 0D))", "-0.0"),
        ("array_min(array(0D, -0D))", "0.0"),
        ("array_max(array(NULL, -0.0F, 0.0F, -7.0F))", "-0.0"),
        ("array_max(array(array(0D), array(-0D)))", "[0.0]"),
        ("array_max(array(struct(-0D), struct(0D)))", "{-0.0}"),
        ("array_max(array(2D, double('NaN'), 7D))", "NaN"),
        ("sort_array(array(0D, NULL, -0D, 7D), false)", "[7.0, 0.0, -0.0, NULL]"),
        ("sort_array(array(array(0D), NULL, array(-0D)), false)", "[[0.0], [-0.0], NULL]"),
        ("sort_array(array(0D, NULL, -0D, 7D))", "[NULL, 0.0, -0.0, 7.0]"),
    ]);
}

#[test]
fn a_constant_null_in_an_empty_subquery_is_null_without_ansi_mode() {
    let cases = [
        ("SELECT NULL IN (SELECT 1 WHERE false)", "false", "NULL"),
        ("SELECT CAST(NULL AS INT) NOT IN (SELECT 1 WHERE false)", "true", "NULL"),
        ("SELECT 1 + NULL IN (SELECT 1 WHERE false)", "false", "NULL"),
        ("SELECT 1 WHERE NULL NOT IN (SELECT 1 WHERE false)", "1", ""),
        (
            "SELECT a IN (SELECT 1 WHERE false) FROM VALUES (CAST(NULL AS INT)) t(a)",
            "false",
            "false",
        ),
        ("SELECT (NULL, 1) IN (SELECT 1, 2 WHERE false)", "false", "false"),
    ];
    let settings = [("ansi.enabled", "true", false), ("ansi.enabled", "false", true)];
    let legacy = [("false", false), ("true", true)]
        .map(|(value, is_null)| ("legacy.nullInEmptyListBehavior", value, is_null));
    for (key, value, is_null) in settings.into_iter().chain(legacy) {
        let session = Session::new();
        session.set(&format!("spark.sql.{key}"), value).unwrap();
        for (sql, otherwise, null) in cases {
            let expected = if is_null { null } else { otherwise };
            assert_eq!(answer_in(&session, sql), expected, "{key} {value}: {sql}");
        }
    }
}

#[test]
fn the_format_of_to_binary_is_a_constant() {
    check(&[
        ("SELECT to_binary('abc', concat('he', 'x'))", "[0A BC]"),
        (
            "SELECT to_binary('abc', f) FROM VALUES ('hex') t(f)",
            "DATATYPE_MISMATCH.NON_FOLDABLE_INPUT",
        ),
        (
            "SELECT try_to_binary('abc', f) FROM VALUES ('hex') t(f)",
            "DATATYPE_MISMATCH.NON_FOLDABLE_INPUT",
        ),
    ]);
}

#[test]
fn nested_types_close_with_any_number_of_brackets() {
    check_values(&[
        ("CAST(NULL AS ARRAY<ARRAY<ARRAY<INT>>>) IS NULL", "true"),
        ("CAST(NULL AS ARRAY<ARRAY<ARRAY<ARRAY<INT>>>>) IS NULL", "true"),
        ("CAST(array(struct(map('a', 1))) AS ARRAY<STRUCT<m: MAP<STRING,INT>>>)", "[{{a -> 1}}]"),
        ("array(-16 >>> 30)[0] + 16 >>> 2", "4"),
        ("CAST(array(2) AS ARRAY<INT>)[0] >>> 1", "1"),
    ]);
    // A type that has ended does not count as a level of nesting.
    for data_type in ["ARRAY<DECIMAL(10,2)>", "ARRAY<DEC>", "ARRAY<CHAR(3)>", "ARRAY<ARRAY<INT>>"] {
        let casts = format!("CAST(NULL AS {data_type}) IS NULL AND ").repeat(1300);
        assert_eq!(answer(&format!("SELECT {casts} true")), "true", "{data_type}");
    }
}

#[test]
fn order_by_prefers_output_columns() {
    let t = "FROM VALUES (1, 9), (2, 8) AS t(a, b)";
    for (select, key, expected) in [
        ("a AS b, b AS a", "a", "2|8;1|9"),
        ("a AS b, b AS a", "t.a", "1|9;2|8"),
        ("a AS b, b AS a", "a + 0", "2|8;1|9"),
        ("-a AS a", "-a", "-1;-2"),
        ("-a AS a", "-t.a", "-2;-1"),
        ("a + 1", "a + 1", "2;3"),
        ("a + b AS c, -b AS b", "-b", "10|-8;10|-9"),
        ("rand() AS r, a", "rand() * 0, a DESC", ""),
    ] {
        let found = answer(&format!("SELECT {select} {t} ORDER BY {key}"));
        match expected {
            "" => assert_eq!(found.split(';').count(), 2, "{key}"),
            expected => assert_eq!(found, expected, "SELECT {select} ORDER BY {key}"),
        }
    }
    let distinct = "SELECT DISTINCT x, a FROM VALUES (named_struct('a', 1), 5), \
                    (named_struct('a', 2), 4) AS t(x, a) ORDER BY x.a";
    assert_eq!(answer(distinct), "{1}|5;{2}|4");
}

#[test]
fn a_lambda_parameter_may_have_the_name_of_a_window() {
    check(&[
        (
            "SELECT transform(array(1, 2), window -> window + 1), count(*) \
             FROM VALUES (TIMESTAMP'2020-01-01') AS t(x) GROUP BY window(x, '1 day')",
            "[2, 3]|1",
        ),
        (
            "SELECT transform(array(1), x -> day(window.start)), count(*) \
             FROM VALUES (TIMESTAMP'2020-01-05') AS t(x) GROUP BY window(x, '1 day')",
            "[5]|1",
        ),
    ]);
}

#[test]
fn group_by_finds_aliases_inside_expressions() {
    let t = "FROM VALUES (1), (1), (2) AS t(x)";
    check(&[
        (&format!("SELECT x * 2 AS y, count(*) {t} GROUP BY y, y + 1 ORDER BY y"), "2|2;4|1"),
        (&format!("SELECT x + 1 AS y, count(*) {t} GROUP BY y + 1"), "MISSING_AGGREGATION"),
        (&format!("SELECT count(*) AS n, x AS y {t} GROUP BY x, abs(y) ORDER BY y"), "2|1;1|2"),
        (
            &format!(
                "SELECT x + 1 AS y, x + 2 AS y {t} GROUP BY x HAVING sum(x) FILTER (WHERE y > 1) > 0"
            ),
            "AMBIGUOUS_REFERENCE",
        ),
        (
            &format!(
                "SELECT x + 1 AS y, x + 2 AS y {t} GROUP BY x HAVING exists(array(1), e -> e < y)"
            ),
            "AMBIGUOUS_REFERENCE",
        ),
        (
            &format!(
                "SELECT x + 1 AS y, x + 2 AS y {t} GROUP BY x HAVING exists(array(1), y -> y < 2) ORDER BY x"
            ),
            "2|3;3|4",
        ),
        (
            &format!("SELECT struct(x) AS y, struct(x) AS y {t} GROUP BY x HAVING y.x > 1"),
            "AMBIGUOUS_REFERENCE",
        ),
        (
            &format!(
                "SELECT x, CASE WHEN grouping(x) = 1 THEN 'all' ELSE 'one' END {t} GROUP BY ROLLUP (x) ORDER BY x"
            ),
            "NULL|all;1|one;2|one",
        ),
        (
            &format!("SELECT x, CASE WHEN true THEN grouping(x + 1) END {t} GROUP BY ROLLUP (x)"),
            "GROUPING_COLUMN_MISMATCH",
        ),
    ]);
}

#[test]
fn times_and_intervals_at_their_limits() {
    let smallest = "INTERVAL '-106751991 04:00:54.775808' DAY TO SECOND";
    let overflow = "INTERVAL_ARITHMETIC_OVERFLOW.WITHOUT_SUGGESTION";
    check_values(&[
        (&format!("TIMESTAMP'2020-01-01' - {smallest}"), overflow),
        (&format!("DATE'2020-01-01' - {smallest}"), overflow),
        ("DATE'2020-01-01' - INTERVAL '-178956970-8' YEAR TO MONTH", overflow),
        ("timestamp_seconds(double('infinity')), timestamp_seconds(float('-inf'))", "NULL|NULL"),
        ("timestamp_seconds(double('nan'))", "NULL"),
        ("INTERVAL '--5 days'", "INVALID_TYPED_LITERAL"),
        ("INTERVAL '1.-5 seconds'", "INVALID_TYPED_LITERAL"),
        ("INTERVAL '++5' DAY", "INVALID_INTERVAL_FORMAT"),
        ("INTERVAL -'-5' DAY = INTERVAL 5 DAYS", "true"),
        ("INTERVAL -'5' DAY = INTERVAL -5 DAYS", "true"),
        ("INTERVAL '- 5' DAY = INTERVAL -5 DAYS", "true"),
        ("INTERVAL -'1-2' YEAR TO MONTH = INTERVAL '-1-2' YEAR TO MONTH", "true"),
        ("INTERVAL '.5 seconds' = INTERVAL '500 milliseconds'", "true"),
    ]);
    let windows = |time: &str, slide: &str| {
        answer(&format!(
            "SELECT count(*) FROM (SELECT window(timestamp_micros({time}), '1 day', '{slide}', '-1 hour'))"
        ))
    };
    for time in ["9223372036854775807", "-9223372036854775808 + 0", "-9223372036854775807"] {
        assert_eq!(windows(time, "1 day"), "1", "{time}");
        assert!(windows(time, "12 hours").parse::<u8>().is_ok(), "{time}");
    }
}

#[test]
fn a_column_of_an_aggregate_is_named_with_its_filter() {
    let names = |select: &str| {
        let frame = Session::new().sql(&format!("SELECT {select} FROM VALUES (1, 2) AS t(a, b)"));
        frame.unwrap().schema().fields.iter().map(|f| f.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        names("max(a) FILTER (WHERE b > 1), count(*) FILTER (WHERE a IS NULL), count(DISTINCT a)"),
        [
            "max(a) FILTER (WHERE (b > 1))",
            "count(1) FILTER (WHERE (a IS NULL))",
            "count(DISTINCT a)"
        ]
    );
}

#[test]
fn names_in_schemas_may_have_backquotes() {
    check_values(&[
        ("schema_of_json('{\"a`b\": 1}')", "STRUCT<`a``b`: BIGINT>"),
        ("from_json('{\"a`b\": 1}', schema_of_json('{\"a`b\": 1}'))", "{1}"),
        ("from_json('{\"a`b\": 1}', '`a``b` INT')", "{1}"),
        ("CAST(struct(1) AS STRUCT<`a``b`: INT>).`a``b`", "1"),
        ("from_json('{\"a\": 1}', 'a INT COMMENT \"it''s one\", b INT')", "{1, NULL}"),
    ]);
    let name = "CAST(struct(1) AS STRUCT<`a b`: INT>)";
    let error = Session::new().sql(&format!("SELECT {name} + 1")).map(|_| ()).unwrap_err();
    assert!(error.reason.contains("STRUCT<`a b`: INT>"), "{}", error.reason);
}

#[test]
fn a_zero_byte_does_not_end_a_name_or_text_in_json() {
    check_values(&[
        (
            "from_json(concat('{\"a\": \"x', chr(0), '\", \"a', chr(0), 'b\": \"y\"}'), 'a STRING', \
             map('allowUnquotedControlChars', 'true')).a = concat('x', chr(0))",
            "true",
        ),
        (
            "json_object_keys(concat('{\"a', chr(0), 'b\": 1}'))[0] = concat('a', chr(0), 'b')",
            "true",
        ),
    ]);
}

#[test]
fn an_encoded_surrogate_is_one_replacement_character() {
    check_values(&[
        ("hex(encode(from_csv(CAST(X'EDA080' AS STRING), 'a STRING').a, 'utf-8'))", "EFBFBD"),
        (
            "hex(encode(from_json(CAST(X'7B2261223A22EDA080227D' AS STRING), 'a STRING').a, 'utf-8'))",
            "EFBFBD",
        ),
    ]);
}

/// The answers with ANSI mode, and without it.
#[test]
fn the_correlation_with_a_constant_divides_by_zero() {
    let session = Session::new();
    session.set("spark.sql.ansi.enabled", "false").unwrap();
    for (rows, ansi, other) in [
        ("(1, 2), (1, 3)", "DIVIDE_BY_ZERO", "NULL"),
        ("(1, 2), (3, 2)", "DIVIDE_BY_ZERO", "NULL"),
        ("(1, 2)", "NULL", "NULL"),
        ("(1, 2), (2, 4)", "1.0", "1.0"),
    ] {
        let sql = format!("SELECT corr(a, b) FROM VALUES {rows} AS t(a, b)");
        assert_eq!((&*answer(&sql), &*answer_in(&session, &sql)), (ansi, other), "{rows}");
        let sql = format!("SELECT covar_pop(a, b) FROM VALUES {rows} AS t(a, b)");
        assert_eq!(answer(&sql), answer_in(&session, &sql), "{rows}");
    }
}

/// A sum of intervals that overflows is an error in both modes, also if two partial sums are merged,
/// here those of two sessions.
#[test]
fn merged_sums_of_intervals_do_not_wrap() {
    let session = Session::new();
    session.set("spark.sql.ansi.enabled", "false").unwrap();
    let sql = "SELECT sum(d) FROM VALUES \
        (TIMESTAMP '1970-01-01 00:00:00', INTERVAL '106751990' DAY), \
        (TIMESTAMP '1970-01-01 00:00:15', INTERVAL '106751990' DAY), \
        (TIMESTAMP '1970-01-01 00:00:08', INTERVAL '0' DAY) AS t(ts, d) \
        GROUP BY session_window(ts, '10 seconds')";
    assert_eq!(answer(sql), "INTERVAL_ARITHMETIC_OVERFLOW.WITH_SUGGESTION");
    assert_eq!(answer_in(&session, sql), "INTERVAL_ARITHMETIC_OVERFLOW.WITH_SUGGESTION");
}

/// In Spark 3 `percentile_disc` rounded the rank of its value down.
#[test]
fn percentile_disc_has_the_rank_of_spark_3_on_request() {
    let session = Session::new();
    let found = |order: &str| {
        let of = |p: f64| format!("percentile_disc({p}) WITHIN GROUP (ORDER BY v {order})");
        let calls: Vec<String> = [0.0, 0.1, 0.25, 0.5, 0.99, 1.0].map(of).into();
        let values = "VALUES (0), (1), (2), (3), (4), (5) AS t(v)";
        answer_in(&session, &format!("SELECT concat_ws(' ', {}) FROM {values}", calls.join(", ")))
    };
    assert_eq!(found(""), "0.0 0.0 1.0 2.0 5.0 5.0");
    assert_eq!(found("DESC"), "5.0 5.0 4.0 3.0 0.0 0.0");
    session.set("spark.sql.legacy.percentileDiscCalculation", "true").unwrap();
    assert_eq!(found(""), "0.0 0.0 1.0 2.0 4.0 5.0");
    assert_eq!(found("DESC"), "5.0 5.0 4.0 3.0 1.0 0.0");
}

/// A length that overflows to zero is known only when the setting is.
#[test]
fn a_bucket_of_time_has_a_length_in_both_modes() {
    let session = Session::new();
    session.set("spark.sql.ansi.enabled", "false").unwrap();
    for length in [
        "make_dt_interval(2147483647 + 2147483647 + 2)",
        "make_ym_interval(2147483647 + 2147483647 + 2)",
        "make_ym_interval(2147483647 + 2147483647 + 1)",
    ] {
        let query = format!("SELECT time_bucket({length}, TIMESTAMP'2024-01-01 00:00:00')");
        let error = session.sql(&query).err().map(|error| error.condition.to_string());
        assert_eq!(error.as_deref(), Some("DATATYPE_MISMATCH.VALUE_OUT_OF_RANGE"), "{length}");
    }
}
