//! Implicit conversions: the type of an expression, or its error condition, in ANSI mode and in
//! legacy mode. All expected values are Apache Spark's.
#![cfg(feature = "sql")]

use millstream::session::Session;

/// An expression, and its type or error condition in ANSI mode and without it. `=` stands for the
/// result in ANSI mode.
type Line = (&'static str, &'static str, &'static str);

fn check(lines: &[Line]) {
    let mut wrong = Vec::new();
    for (ansi, column) in [("true", 1), ("false", 2)] {
        let session = Session::new();
        session.set("spark.sql.ansi.enabled", ansi).unwrap();
        for (sql, with, without) in lines {
            let expected = if column == 1 || *without == "=" { with } else { without };
            let answer = match session.sql(&format!("SELECT {sql}")) {
                Ok(frame) => frame.schema().fields[0].data_type.to_string(),
                Err(error) => error.condition.replace("DATATYPE_MISMATCH.", ""),
            };
            if answer != *expected {
                wrong.push(format!("{sql} (ansi {ansi}): {answer}, but Spark: {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const DIFF: &str = "BINARY_OP_DIFF_TYPES";
const WRONG: &str = "BINARY_OP_WRONG_TYPE";
const INPUT: &str = "UNEXPECTED_INPUT_TYPE";
const DATA: &str = "DATA_DIFF_TYPES";

#[test]
fn operands_are_coerced_to_one_type_or_refused() {
    check(&[
        ("1Y + 2S", "SMALLINT", "="),
        ("1 + 1.5F", "DOUBLE", "FLOAT"),
        ("'1' + 2Y", "BIGINT", "DOUBLE"),
        ("'1' + 2.5BD", "DOUBLE", "="),
        ("'1' + '2'", WRONG, "DOUBLE"),
        ("NULL + '2'", WRONG, "DOUBLE"),
        ("NULL + 2Y", "TINYINT", "="),
        ("NULL + NULL", "DOUBLE", "="),
        ("true + 1", DIFF, "="),
        ("true + true", WRONG, "="),
        ("NULL + true", DIFF, "="),
        ("X'01' * 2", DIFF, "="),
        ("array(1) - array(2)", WRONG, "="),
        ("2 / 1", "DOUBLE", "="),
        ("1.5F DIV 2", DIFF, "="),
        ("1 & 2L", "BIGINT", "="),
        ("1 & 1.5D", DIFF, "="),
        ("1 | true", DIFF, "="),
        ("NULL ^ NULL", "INT", "="),
        ("1.5D & 1.5D", WRONG, "="),
        ("'1' & 1", "BIGINT", DIFF),
        ("true AND 1", DIFF, "="),
        ("1 AND 2", WRONG, "="),
        ("'true' AND true", "BOOLEAN", DIFF),
        ("- 'x'", "DOUBLE", "="),
        ("- true", INPUT, "="),
        ("+ true", INPUT, "="),
        ("~ 1.5D", INPUT, "="),
        ("NOT 1", INPUT, "="),
        ("abs(DATE'2024-01-01')", INPUT, "="),
    ]);
}

#[test]
fn operands_that_are_times_have_rules_of_their_own() {
    check(&[
        ("DATE'2024-01-01' + 1", "DATE", "="),
        ("DATE'2024-01-01' + 1L", INPUT, "="),
        ("1.5D + DATE'2024-01-01'", INPUT, "="),
        ("DATE'2024-01-01' + '1'", INPUT, "="),
        ("DATE'2024-01-01' - '2024-01-01'", "INTERVAL DAY", INPUT),
        ("'2024-01-01' - DATE'2024-01-01'", "INTERVAL DAY", "="),
        ("DATE'2024-01-01' + NULL", "TIMESTAMP", "="),
        ("DATE'2024-01-01' - NULL", "INTERVAL DAY", "="),
        ("NULL - TIMESTAMP'2024-01-01'", "INTERVAL DAY TO SECOND", "="),
        ("TIMESTAMP'2024-01-01' + '1'", WRONG, DIFF),
        ("TIMESTAMP'2024-01-01' + TIMESTAMP'2024-01-01'", WRONG, "="),
        ("TIMESTAMP'2024-01-01' - 1", INPUT, "="),
        ("TIMESTAMP'2024-01-01' + 1", DIFF, "="),
        ("INTERVAL '1' DAY + 1", INPUT, "="),
        ("1 + INTERVAL '1' MONTH", DIFF, "="),
        ("INTERVAL '1' DAY + INTERVAL '1' MONTH", INPUT, "="),
        ("'2024-01-01' + INTERVAL '1' DAY", "STRING", "="),
        ("'2024-01-01' + INTERVAL '1' MONTH", DIFF, "="),
        ("INTERVAL '1' DAY * true", INPUT, "="),
        ("INTERVAL '1' DAY + NULL", "INTERVAL DAY", "="),
        ("INTERVAL '1' DAY = INTERVAL '1' MONTH", DIFF, "="),
    ]);
}

#[test]
fn comparisons_are_of_one_type_with_an_order() {
    check(&[
        ("1 = 'x'", "BOOLEAN", "="),
        ("1 = true", DIFF, "BOOLEAN"),
        ("1 < true", DIFF, "="),
        ("DATE'2024-01-01' < TIMESTAMP'2024-01-01'", "BOOLEAN", "="),
        ("DATE'2024-01-01' < 1", DIFF, "="),
        ("array(1) = array(2L)", "BOOLEAN", "="),
        ("array(1) = array('1')", DIFF, "="),
        ("map(1, 2) = map(1, 2)", "INVALID_ORDERING_TYPE", "="),
        ("nullif(map(1, 2), NULL)", "INVALID_ORDERING_TYPE", "="),
        ("map(1, 2) IN (map(1, 2))", "INVALID_ORDERING_TYPE", "="),
        ("greatest(map(1, 2), map(1, 2))", "INVALID_ORDERING_TYPE", "="),
        ("1 <=> X'01'", DIFF, "="),
        ("'a' = X'61'", "BOOLEAN", "="),
        ("CASE 1 WHEN true THEN 2 END", DIFF, "INT"),
        ("1 BETWEEN DATE'2024-01-01' AND 2", DIFF, "="),
    ]);
}

#[test]
fn branches_and_elements_are_of_one_type() {
    check(&[
        ("coalesce(1, 1.5F)", "DOUBLE", "FLOAT"),
        ("coalesce(1, 'x')", "BIGINT", "STRING"),
        ("coalesce(1.5BD, 'x')", "DOUBLE", "STRING"),
        ("coalesce(true, 'x')", "BOOLEAN", DATA),
        ("coalesce(DATE'2024-01-01', 'x')", "DATE", "STRING"),
        ("coalesce(INTERVAL '1' DAY, 'x')", DATA, "STRING"),
        ("coalesce(1, true)", DATA, "="),
        ("coalesce(DATE'2024-01-01', TIMESTAMP'2024-01-01')", "TIMESTAMP", "="),
        ("if(true, 1, DATE'2024-01-01')", DATA, "="),
        ("if('true', 1, 2)", INPUT, "="),
        ("CASE WHEN true THEN 1 ELSE X'01' END", DATA, "="),
        ("CASE WHEN 1 THEN 1 END", INPUT, "="),
        ("1 IN (2, true)", DATA, "="),
        ("1 IN (2, 'x')", "BOOLEAN", "="),
        ("greatest(1, 'x')", DATA, "="),
        ("greatest(1, 2.5BD)", "DECIMAL(11,1)", "="),
        ("array(1, 'x')", "ARRAY<BIGINT>", "ARRAY<STRING>"),
        ("array(1, true)", DATA, "="),
        ("array(array(1), array('x'))", "ARRAY<ARRAY<BIGINT>>", "ARRAY<ARRAY<STRING>>"),
        ("map(1, 2, true, 3)", "CREATE_MAP_KEY_DIFF_TYPES", "="),
        ("map(1, 2, 2, true)", "CREATE_MAP_VALUE_DIFF_TYPES", "="),
        ("map(map(1, 2), 3)", "INVALID_MAP_KEY_TYPE", "="),
        ("array(named_struct('a', 1), named_struct('b', 1))", DATA, "="),
    ]);
}

#[test]
fn arguments_are_coerced_to_the_types_of_a_function_or_refused() {
    check(&[
        ("upper(1)", "STRING", "="),
        ("upper(array(1))", INPUT, "="),
        ("left('ab', 1L)", "STRING", "="),
        ("left('ab', true)", INPUT, "="),
        ("soundex(1)", INPUT, "="),
        ("get_json_object(1, '$')", INPUT, "="),
        ("unix_date('2024-01-01')", INPUT, "="),
        ("timestamp_millis(1.5)", INPUT, "="),
        ("date_add(DATE'2024-01-01', 1L)", INPUT, "="),
        ("bit_count(1.5)", INPUT, "="),
        ("round(1, CAST(1 AS TINYINT))", "INT", "="),
        ("round(true)", INPUT, "="),
        ("array_contains(array(1), 'x')", "ARRAY_FUNCTION_DIFF_TYPES", "="),
        ("array_contains(array(1), NULL)", "NULL_TYPE", "="),
        ("array_remove(1, 1)", "ARRAY_FUNCTION_DIFF_TYPES", "="),
        ("array_union(array(1), array('x'))", "BINARY_ARRAY_DIFF_TYPES", "="),
        ("arrays_overlap(array(1), 1)", "BINARY_ARRAY_DIFF_TYPES", "="),
        ("array_append(array(1), 1.5F)", "ARRAY<FLOAT>", "="),
        ("array_repeat(1, 2L)", INPUT, "="),
        ("array_join(array(1), 1)", INPUT, "="),
        ("element_at(array(1), 1L)", INPUT, "="),
        ("element_at(map('a', 1), 1)", "MAP_FUNCTION_DIFF_TYPES", "="),
        ("map_contains_key(map('a', 1), NULL)", "NULL_TYPE", "="),
        ("map_concat(map('a', 1), 1)", "MAP_CONCAT_DIFF_TYPES", "="),
        ("map_keys(NULL)", "ARRAY<VOID>", "="),
        ("sequence(true, false)", "SEQUENCE_WRONG_INPUT_TYPES", "="),
        ("sequence(1.5, 2)", "SEQUENCE_WRONG_INPUT_TYPES", "="),
        ("hash(map(1, 2))", "HASH_MAP_TYPE", "="),
        ("to_json(1)", "INVALID_JSON_SCHEMA", "="),
        ("sum('1')", "DOUBLE", "="),
        ("sum(true)", INPUT, "="),
        ("avg(DATE'2024-01-01')", INPUT, "="),
        ("max(map(1, 2))", "INVALID_ORDERING_TYPE", "="),
        ("collect_set(map(1, 2))", "UNSUPPORTED_INPUT_TYPE", "="),
    ]);
}

#[test]
fn casts_are_allowed_by_mode() {
    check(&[
        ("CAST(true AS TIMESTAMP)", "CAST_WITH_CONF_SUGGESTION", "TIMESTAMP"),
        ("CAST(TIMESTAMP'2024-01-01' AS BOOLEAN)", "CAST_WITH_CONF_SUGGESTION", "BOOLEAN"),
        ("CAST(DATE'2024-01-01' AS BOOLEAN)", "CAST_WITH_CONF_SUGGESTION", "BOOLEAN"),
        ("CAST(DATE'2024-01-01' AS INT)", "CAST_WITH_FUNC_SUGGESTION", "INT"),
        ("CAST(1 AS DATE)", "CAST_WITH_FUNC_SUGGESTION", "CAST_WITHOUT_SUGGESTION"),
        ("CAST(1 AS BINARY)", "CAST_WITH_CONF_SUGGESTION", "BINARY"),
        ("TRY_CAST(1 AS BINARY)", "CAST_WITHOUT_SUGGESTION", "="),
        ("TRY_CAST(true AS TIMESTAMP)", "CAST_WITHOUT_SUGGESTION", "="),
        ("CAST('1' AS VOID)", "CAST_WITHOUT_SUGGESTION", "="),
        ("CAST(array(1) AS INT)", "CAST_WITHOUT_SUGGESTION", "="),
    ]);
}

#[test]
fn an_expression_is_accepted_in_place_of_a_lambda() {
    check(&[
        ("transform(array(1, 2), 'x')", "ARRAY<STRING>", "="),
        ("filter(array(1), 1)", INPUT, "="),
        ("filter(array(1), x -> 'true')", INPUT, "="),
        ("exists(array(1), array(true))", INPUT, "="),
        ("map_filter(map(1, 2), 3)", INPUT, "="),
        ("aggregate(array(1), map(), map('a', 1))", INPUT, "="),
        ("reduce(array(1), 0, 5)", "INT", "="),
        ("array_sort(array(1), (a, b) -> 'x')", "UNEXPECTED_RETURN_TYPE", "="),
        ("transform(1, x -> x)", INPUT, "="),
    ]);
}

#[test]
fn casts_that_only_the_older_rules_allow_have_values() {
    let session = Session::new();
    session.set("spark.sql.ansi.enabled", "false").unwrap();
    for (sql, text) in [
        ("hex(CAST(258 AS BINARY))", Some("00000102")),
        ("hex(CAST(-2Y AS BINARY))", Some("FE")),
        ("hex(CAST(1S AS BINARY))", Some("0001")),
        ("CAST(CAST(true AS TIMESTAMP) AS STRING)", Some("1970-01-01 00:00:00.000001")),
        ("CAST(CAST(TIMESTAMP'1970-01-01' AS BOOLEAN) AS STRING)", Some("false")),
        ("CAST(CAST(DATE'2024-01-01' AS INT) AS STRING)", None),
        ("CAST(transform(array(1, 2), 7) AS STRING)", Some("[7, 7]")),
        ("CAST(filter(array(1, 2), true) AS STRING)", Some("[1, 2]")),
        ("CAST(reduce(array(1, 2), 0, 5) AS STRING)", Some("5")),
    ] {
        let value = session.sql(&format!("SELECT {sql}")).unwrap().collect().unwrap();
        let value = match &value[0][0] {
            millstream::table::value::Value::String(text) => Some(text.clone()),
            _ => None,
        };
        assert_eq!(value.as_deref(), text, "{sql}");
    }
}

#[test]
fn wrong_argument_counts_ranges_and_non_constants_are_refused_as_in_spark() {
    check(&[
        ("map_concat(map(1, 1), map('a', 3))", DATA, "MAP<STRING, INT>"),
        ("coalesce(map('a', 1), map(1, 2))", DATA, "MAP<STRING, INT>"),
        ("named_struct('a', 1) = named_struct('b', 1)", "BOOLEAN", "="),
        ("named_struct('a', 1) = named_struct('a', 'x')", DIFF, "="),
        ("ceil(2.5, 1L)", "NON_FOLDABLE_ARGUMENT", "="),
        ("round(1.5, rand())", "NON_FOLDABLE_INPUT", "="),
        ("to_json(named_struct('a', 1), 1)", "INVALID_OPTIONS.NON_MAP_FUNCTION", "="),
        ("to_json(named_struct('a', 1), map('a', 1))", "INVALID_OPTIONS.NON_STRING_TYPE", "="),
        ("from_json('{}', 'a INT', map('a', 1))", "INVALID_OPTIONS.NON_STRING_TYPE", "="),
        ("extract(DAY FROM INTERVAL '1' MONTH)", "INVALID_EXTRACT_FIELD", "="),
        ("extract(YEAR FROM INTERVAL '1' MONTH)", "INVALID_EXTRACT_FIELD", "="),
        ("count()", "WRONG_NUM_ARGS.WITH_SUGGESTION", "="),
        ("sum(1, 2)", "WRONG_NUM_ARGS.WITHOUT_SUGGESTION", "="),
        ("nvl(1)", "WRONG_NUM_ARGS.WITHOUT_SUGGESTION", "="),
        ("sum(1) FILTER (WHERE max(1) > 1)", "INVALID_AGGREGATE_FILTER.CONTAINS_AGGREGATE", "="),
        ("count(1) FILTER (WHERE rand() > 1)", "INVALID_AGGREGATE_FILTER.NON_DETERMINISTIC", "="),
        ("count(1) FILTER (WHERE 1)", "INVALID_AGGREGATE_FILTER.NOT_BOOLEAN", "="),
        ("1 IN ()", "INVALID_SQL_SYNTAX.EMPTY_IN_PREDICATE", "="),
        ("percentile_approx('1', 0.5)", "DOUBLE", "="),
        ("percentile_approx(1, 0.5, 1000000)", "INT", "="),
        ("percentile_approx(1, 0.5, 0)", "VALUE_OUT_OF_RANGE", "="),
        ("percentile_approx(1, NULL)", "UNEXPECTED_NULL", "="),
        ("percentile_approx(1, 2.0)", "VALUE_OUT_OF_RANGE", "="),
        ("percentile_approx(1, rand())", "NON_FOLDABLE_INPUT", "="),
        ("listagg(1, rand())", "NON_FOLDABLE_INPUT", "="),
        ("rand(1.5)", INPUT, "="),
        ("stack(0, 1)", "VALUE_OUT_OF_RANGE", "="),
        ("stack('a', 1)", INPUT, "="),
        ("stack(2, 1, 'a', 2.5, 'b')", "STACK_COLUMN_DIFF_TYPES", "="),
        ("stack(2, 1, 2L)", "STACK_COLUMN_DIFF_TYPES", "="),
        ("stack(2, NULL, 2L)", "BIGINT", "="),
        ("stack(3, NULL, 1, NULL)", "INT", "="),
        ("stack(2, NULL, NULL)", "VOID", "="),
        ("named_struct(1, 2)", "CREATE_NAMED_STRUCT_WITHOUT_FOLDABLE_STRING", "="),
        ("array_distinct(array(map(1, 1)))", "INVALID_ORDERING_TYPE", "="),
        ("array_size(map('a', 1))", INPUT, "="),
        ("transform_keys(map(1, 2), (k, v) -> map('a', 1))", "INVALID_MAP_KEY_TYPE", "="),
        ("aggregate(array(1), 0L, (a, x) -> 0)", INPUT, "="),
        ("aggregate(array(1), 0L, (a, x) -> a + x)", "BIGINT", "="),
        ("unix_timestamp('a', 1)", INPUT, "="),
    ]);
}
