//! Schema inference: its cost is bounded by the length of the files and by the maximum size of a
//! schema.

#![cfg(feature = "sql")]

mod folder;

use folder::Folder;
use millstream::session::Session;

/// The columns of a file by its schema, or the error.
fn columns(text: &str, format: &str, options: &[(&str, &str)]) -> Result<Vec<String>, String> {
    let name = format!("inference-{}-{:?}", text.len(), std::thread::current().id());
    let folder = Folder::new(&name.replace(['(', ')'], ""));
    let path = folder.write("file", text.as_bytes());
    let session = Session::new();
    let mut reader = session.read().format(format).option("path", path.display());
    for (key, value) in options {
        reader = reader.option(key, value);
    }
    let frame = reader.load().map_err(|error| error.to_string())?;
    Ok(frame.columns())
}

fn names(n: usize) -> String {
    (0..n).map(|i| format!("c{i}")).collect::<Vec<_>>().join(",")
}

#[test]
fn csv_has_at_most_max_columns() {
    let header = ("header", "true");
    for (text, options, malformed) in [
        ("a,b,c\n1,2,3\n".to_string(), vec![header, ("maxColumns", "2")], true),
        ("a,b,c\n1,2,3\n".to_string(), vec![("maxColumns", "2")], true),
        ("a,b,c\n1,2,3\n".to_string(), vec![header, ("maxColumns", "3")], false),
        ("a,b\n1,2,3\n4,5\n".to_string(), vec![header, ("maxColumns", "2")], false),
        (
            "a,b\n1,2,3\n4,5\n".to_string(),
            vec![header, ("maxColumns", "2"), ("inferSchema", "true")],
            true,
        ),
        ("aaaaaa,b\n1,2\n".to_string(), vec![header, ("maxCharsPerColumn", "5")], true),
        (names(20_480) + "\n", vec![header], false),
        (names(20_481) + "\n", vec![header], true),
        (names(1_000_000) + "\n", vec![header], true),
    ] {
        let found = columns(&text, "csv", &options);
        match malformed {
            false => assert!(found.is_ok(), "{found:?}"),
            true => {
                let error = found.unwrap_err();
                assert!(error.starts_with("MALFORMED_CSV_RECORD"), "{error}");
                assert!(error.contains("byte "), "{error}");
            }
        }
    }
}

/// Column names are compared with a hash table; pairwise, it would take 5 billion comparisons.
#[test]
fn a_hundred_thousand_columns_of_csv() {
    let text = names(100_000) + ",C0\n";
    let found = columns(&text, "csv", &[("header", "true"), ("maxColumns", "200000")]).unwrap();
    assert_eq!((found.len(), found[0].as_str()), (100_001, "c00"));
    assert_eq!(found[100_000], "C0100000");
}

#[test]
fn json_has_at_most_two_hundred_thousand_fields() {
    let lines = |n: usize| (0..n).map(|i| format!("{{\"k{i}\":1}}\n")).collect::<String>();
    let fields = |n: usize| (0..n).map(|i| format!("\"k{i}\":1")).collect::<Vec<_>>().join(",");
    assert_eq!(columns(&lines(20_000), "json", &[]).map(|found| found.len()), Ok(20_000));
    for text in [
        lines(200_001),
        format!("{{{}}}", fields(200_001)),
        format!("{{\"a\":[{{\"b\":{{{}}}}}]}}", fields(200_001)),
    ] {
        let error = columns(&text, "json", &[]).unwrap_err();
        assert!(error.starts_with("TOO_MANY_FIELDS_IN_SCHEMA_INFERENCE"), "{error}");
    }
}
