//! The cost of expressions is limited: a value that would be too large is an error, and functions
//! of long arrays, maps and texts end in reasonable time.
#![cfg(feature = "sql")]

use millstream::session::Session;

/// The value of an expression as JSON, or the condition of its error.
fn answer(expression: &str) -> String {
    let session = Session::new();
    let frame = match session.sql(&format!("SELECT to_json(struct({expression} AS v)) AS v")) {
        Ok(frame) => frame,
        Err(error) => return error.condition.to_string(),
    };
    match frame.collect() {
        Ok(rows) => match &rows[0][0] {
            millstream::table::value::Value::String(text) => text.clone(),
            other => format!("{other:?}"),
        },
        Err(error) => error.condition().to_string(),
    }
}

#[test]
fn values_that_would_be_too_large_are_errors() {
    for expression in [
        "size(sequence(1, 9223372036854775807))",
        "length(repeat('a', 2000000000))",
        "length(space(2147483647))",
        "length(lpad('a', 2147483647, 'b'))",
        "size(array_repeat(1, 2147483647))",
        "size(array_repeat(repeat('a', 100000), 100000))",
        "size(array_repeat(array_repeat(1, 1000), 1000000))",
        "size(flatten(array_repeat(repeat_of, 20000)))",
        "size(transform(sequence(1, 30000), x -> repeat('a', 100000)))",
        "length(replace(repeat('a', 100000), 'a', repeat('b', 100000)))",
        "length(regexp_replace(repeat('a', 10000), 'a', repeat('b', 100000)))",
        "length(array_join(sequence(1, 10000), repeat('a', 100000)))",
        "length(concat_ws(repeat('a', 100000), array_repeat('a', 10000)))",
        "levenshtein(repeat('a', 1000000), repeat('b', 1000000))",
        "size(filter(sequence(1, 30000), x -> length(repeat(CAST(x AS STRING), 20000)) = 0))",
    ] {
        let expression = expression.replace("repeat_of", "sequence(1, 10000)");
        assert_eq!(answer(&expression), "COLLECTION_SIZE_LIMIT_EXCEEDED", "{expression}");
    }
}

#[test]
fn a_time_is_in_a_bounded_number_of_windows() {
    let session = Session::new();
    for (lengths, fits) in [
        ("'9999999 days', '1 microsecond'", false),
        ("'1 day', '1 millisecond'", false),
        ("'1 day', '10 seconds'", true),
    ] {
        let sql = format!("SELECT window(timestamp'2024-01-01', {lengths}) AS w");
        match session.sql(&sql) {
            Ok(_) => assert!(fits, "{lengths}"),
            Err(error) => {
                assert!(!fits && error.condition == "COLLECTION_SIZE_LIMIT_EXCEEDED", "{error}")
            }
        }
    }
}

/// With time quadratic in the number of elements, most of these would take very long.
#[test]
fn functions_of_many_elements_take_time_for_each_and_not_for_each_pair() {
    let many = "sequence(1, 100000)";
    let of_arrays = "transform(sequence(1, 20000), x -> array(x % 10000))";
    for (expression, wanted) in [
        (format!("size(array_distinct({many}))"), "100000"),
        (format!("size(array_distinct({of_arrays}))"), "10000"),
        (format!("size(array_union({many}, sequence(2, 100001)))"), "100001"),
        (format!("size(array_intersect({many}, sequence(2, 100001)))"), "99999"),
        (format!("size(array_except({many}, sequence(2, 100001)))"), "1"),
        (format!("arrays_overlap({many}, sequence(100001, 200000))"), "false"),
        (format!("size(map_from_arrays({many}, {many}))"), "100000"),
        (format!("map_from_arrays({many}, {many})[77777]"), "77777"),
        (format!("size(arrays_zip({many}, {many}))"), "100000"),
        (format!("array_sort({many}, (a, b) -> b - a)[0]"), "100000"),
        (
            "array_sort(transform(sequence(1, 3000), x -> x * 7919 % 3001), (a, b) -> a - b)[17]"
                .to_string(),
            "18",
        ),
        ("size(str_to_map(array_join(sequence(1, 50000), ',')))".to_string(), "50000"),
        ("length(translate(repeat('a', 20000), repeat('bc', 10000), ''))".to_string(), "20000"),
        ("length(trim(BOTH repeat('b', 30000) FROM repeat('a', 30000)))".to_string(), "30000"),
        ("levenshtein(repeat('a', 20000), repeat('b', 20000))".to_string(), "20000"),
        ("levenshtein(repeat('a', 1000000), repeat('a', 1000000), 3)".to_string(), "0"),
        ("size(array_distinct(array(0.0D, -0.0D, double('NaN'), double('NaN'))))".to_string(), "2"),
    ] {
        assert_eq!(answer(&expression), format!("{{\"v\":{wanted}}}"), "{expression}");
    }
}

/// An error about a long value quotes only its beginning.
#[test]
fn an_error_quotes_the_beginning_of_a_long_value() {
    let session = Session::new();
    let frame = session.sql("SELECT CAST(repeat('x', 1000000) AS INT) AS v").unwrap();
    let message = frame.collect().unwrap_err().to_string();
    assert!(message.len() < 2000 && message.contains("bytes)"), "{} bytes", message.len());
}
