//! Tests of CSV records, values, schemas and written text. The expected results are those of Spark.

use crate::table::datetime::Tz;
use crate::table::row::{Row, RowWriter, decode};
use crate::table::text::csv::*;
use crate::table::types::Schema;
use proptest::prelude::*;

fn options(given: &[(&str, &str)]) -> ReadOptions {
    let mut get = |name: &'static str| {
        let found = given.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_string())
    };
    ReadOptions::read(&mut get, Tz::UTC).unwrap()
}

/// The records of a text. Their fields are joined by `|`, the records by `/`.
fn records(given: &[(&str, &str)], text: &str) -> String {
    let options = options(given);
    let mut parser = Parser::new(options.dialect.clone());
    if options.dialect.line_end.is_none() {
        parser.set_line_end(LineEnd::detect(text.as_bytes(), true, 1 << 20).unwrap());
    }
    let (mut out, mut at) = (Vec::new(), 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        let Some((parsed, length)) = parser.parse(rest, true) else { unreachable!("it is whole") };
        at += length;
        match parsed {
            Parsed::Record => {
                let shown = parser.fields().iter().map(|field| match field {
                    FieldText::Null => "NULL".to_string(),
                    FieldText::Empty => "EMPTY".to_string(),
                    FieldText::Skipped => "SKIPPED".to_string(),
                    FieldText::Input(range) => {
                        String::from_utf8_lossy(&rest[range.clone()]).into_owned()
                    }
                    FieldText::Copied(range) => {
                        String::from_utf8_lossy(&parser.copied()[range.clone()]).into_owned()
                    }
                });
                out.push(shown.collect::<Vec<_>>().join("|"));
            }
            Parsed::Malformed(_) => {
                out.push("MALFORMED".to_string());
                break;
            }
            Parsed::Nothing | Parsed::End => {}
        }
    }
    out.join("/")
}

#[test]
fn fields_of_a_record() {
    for (given, text, expected) in [
        (vec![], "a,b,c", "a|b|c"),
        (vec![], "a,,", "a|NULL|NULL"),
        (vec![], r#""a,b",c"#, "a,b|c"),
        (vec![], r#""",x,"""#, "EMPTY|x|EMPTY"),
        // A backslash is preserved unless it escapes the quote or another backslash.
        (vec![], r#""a\"b","c\\d","e\f",g\h"#, r#"a"b|c\d|e\f|g\h"#),
        (vec![], r#""C:\temp\",x"#, r#"C:\temp",x"#),
        (vec![("escape", "\"")], r#""a""b","","c"""#, r#"a"b|EMPTY|c""#),
        // Records with an unescaped quote.
        (vec![], r#""a"b,c"d,e"#, r#""a"b|c"d|e"#),
        (vec![("unescapedQuoteHandling", "STOP_AT_CLOSING_QUOTE")], r#""a"b,c",d"#, r#"a"b,c|d"#),
        (vec![("unescapedQuoteHandling", "BACK_TO_DELIMITER")], r#""a,b"c,d"#, r#"a|bc,d"#),
        (vec![("unescapedQuoteHandling", "SKIP_VALUE")], r#""a"b,c"#, "SKIPPED|c"),
        (vec![("unescapedQuoteHandling", "RAISE_ERROR")], r#""a"b,c"#, "MALFORMED"),
        (vec![], r#""a,b"#, r#"a,b"#),
        // Records with white space around and inside quotes.
        (vec![], r#" a , "b" ,"c" ,d "#, r#" a | "b" |c|d "#),
        (vec![("ignoreLeadingWhiteSpace", "true")], r#" a , "b" , c"#, "a |b|c"),
        (vec![("ignoreTrailingWhiteSpace", "true")], r#"a , "b" ," c ""#, r#"a| "b"| c "#),
        // Records with quotes disabled, and with other separators and limits.
        (vec![("quote", "")], r#""a","b"#, r#""a"|"b"#),
        (vec![("sep", "||")], r#"a||"b||c"||d|e"#, "a|b||c|d|e"),
        (vec![("sep", r"\t")], "a\tb", "a|b"),
        (vec![("sep", "é")], "aébéc", "a|b|c"),
        (vec![("maxColumns", "2")], "a,b,c", "MALFORMED"),
        (vec![("maxCharsPerColumn", "2")], "ab,abc", "MALFORMED"),
        (vec![("charToEscapeQuoteEscaping", "^")], r#""a^\\"b",c"#, r#"a\"b|c"#),
    ] {
        assert_eq!(records(&given, text), expected, "{text} {given:?}");
    }
}

#[test]
fn records_of_several_lines() {
    for (given, text, expected) in [
        (vec![], "a,\"b\nc\"\n\nd,e\n", "a|b\nc/d|e"),
        (vec![], "a,\"b\r\nc\"\r\nd,e\r\n", "a|b\nc/d|e"),
        (vec![], "a,\"b\rc\"\rd,e\r", "a|b\nc/d|e"),
        (vec![("lineSep", ";")], "a,\"b\nc\";d\n;", "a|b\nc/d\n"),
        (vec![("comment", "#")], "#x\na\n#y", "a"),
        (vec![("ignoreLeadingWhiteSpace", "true")], "a\n  \nb\n", "a/b"),
        (vec![], "a\n  \nb\n", "a/  /b"),
    ] {
        let mut given = given;
        given.push(("multiLine", "true"));
        assert_eq!(records(&given, text), expected, "{text:?} {given:?}");
    }
}

/// The row that a record is read to, and whether the record is bad.
fn row(given: &[(&str, &str)], ddl: &str, record: &str) -> (String, bool) {
    let fields = Schema::parse_ddl(ddl).unwrap().fields;
    let column = |(index, field): (usize, &crate::table::types::Field)| Column {
        index,
        data_type: field.data_type.clone(),
        wanted: true,
    };
    let columns = fields.iter().enumerate().map(column).collect();
    let mut reader = RecordReader::new(&options(given), columns);
    let mut out = Vec::new();
    let outcome = reader.read(record.as_bytes(), &mut RowWriter::new(&mut out, fields.len()));
    let values = decode(Row(&out), fields.iter().map(|field| &field.data_type));
    let shown = values.iter().zip(&fields).map(|(value, f)| value.show(&f.data_type, Tz::UTC));
    (shown.collect::<Vec<_>>().join("|"), outcome.is_err())
}

#[test]
fn values_of_fields() {
    let good = |ddl: &str, record: &str, expected: &str| {
        assert_eq!(row(&[], ddl, record), (expected.to_string(), false), "{ddl}: {record}");
    };
    let bad = |ddl: &str, record: &str, expected: &str| {
        assert_eq!(row(&[], ddl, record), (expected.to_string(), true), "{ddl}: {record}");
    };
    good("a INT, b INT, c BIGINT", "+2,-3,٣", "2|-3|3");
    bad("a INT, b INT", " 1,2 ", "NULL|NULL");
    bad("a TINYINT", "128", "NULL");
    good("a DOUBLE, b DOUBLE, c DOUBLE", " 1.5 ,1d,0x1p3", "1.5|1.0|8.0");
    good("a DOUBLE, b FLOAT, c FLOAT", "NaN,Inf,-Infinity", "NaN|Infinity|-Infinity");
    bad("a DOUBLE, b DOUBLE", "inf,1e", "NULL|NULL");
    good("a BOOLEAN, b BOOLEAN", "true,FALSE", "true|false");
    bad("a BOOLEAN, b BOOLEAN", " true,1", "NULL|NULL");
    good("a DECIMAL(10,2), b DECIMAL(10,2)", "\"1,234.5\",1e3", "1234.50|1000.00");
    good("a DECIMAL(10,2), b DECIMAL(10,2)", "\",1\",5.555", "1.00|5.56");
    bad("a DECIMAL(10,2), b DECIMAL(10,2)", " 5,123456789.1", "NULL|NULL");
    good("a DATE, b DATE", "2024-1-5, 2024-01-05T10:00", "2024-01-05|2024-01-05");
    bad("a DATE, b DATE", "20240105,2024-13-01", "NULL|NULL");
    good("a TIMESTAMP_NTZ", "2024-01-05 10:00", "2024-01-05 10:00:00");
    bad("a TIMESTAMP_NTZ, b TIMESTAMP_NTZ", "2024-01-05T10:00:00Z,10:00", "NULL|NULL");
    good("a STRING, b STRING, c STRING", ",\"\",x", "NULL|NULL|x");
    bad("a INT, b INT", "1,2,3", "1|2");
    bad("a INT, b INT", "1", "1|NULL");
}

#[test]
fn values_under_options() {
    for (given, ddl, record, expected, bad) in [
        (vec![("nullValue", "-")], "a STRING, b STRING", "-,", "NULL|NULL", false),
        (vec![("emptyValue", "E")], "a STRING, b STRING", "\"\",", "E|NULL", false),
        (
            vec![("dateFormat", "dd/MM/yyyy")],
            "a DATE, b DATE",
            "05/01/2024,2024-01-05",
            "2024-01-05|NULL",
            true,
        ),
        (
            vec![("dateFormat", "dd/MM/yyyy"), ("enableDateTimeParsingFallback", "true")],
            "a DATE, b DATE",
            "05/01/2024,2024-01-05",
            "2024-01-05|2024-01-05",
            false,
        ),
        (vec![("enableDateTimeParsingFallback", "false")], "a DATE", "2024-1-5", "NULL", true),
        (
            vec![("nanValue", "none"), ("positiveInf", "max")],
            "a DOUBLE, b DOUBLE",
            "none,max",
            "NaN|Infinity",
            false,
        ),
        (
            vec![("timeZone", "Asia/Tokyo")],
            "a TIMESTAMP",
            "2024-01-05 09:00",
            "2024-01-05 00:00:00",
            false,
        ),
    ] {
        assert_eq!(row(&given, ddl, record), (expected.to_string(), bad), "{record} {given:?}");
    }
}

#[test]
fn bad_options_are_refused() {
    for (given, condition) in [
        ([("sep", "")], "INVALID_DELIMITER_VALUE"),
        ([("sep", "\\")], "INVALID_DELIMITER_VALUE"),
        ([("quote", "ab")], "OPTION_VALUE_EXCEEDS_ONE_CHARACTER"),
        ([("lineSep", "abc")], "INVALID_OPTION_VALUE"),
        ([("unescapedQuoteHandling", "MAYBE")], "INVALID_OPTION_VALUE"),
        ([("maxColumns", "many")], "INVALID_OPTION_VALUE"),
        ([("samplingRatio", "0")], "INVALID_OPTION_VALUE"),
        ([("locale", "de-DE")], "UNSUPPORTED_FEATURE"),
    ] {
        let mut get = |name: &'static str| {
            given.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string())
        };
        let error = ReadOptions::read(&mut get, Tz::UTC).unwrap_err();
        assert_eq!(error.condition, condition, "{given:?}");
    }
}

/// The types inferred from records without a header.
fn types(given: &[(&str, &str)], records: &[&str]) -> String {
    let options = options(given);
    let date = given.iter().find(|(key, _)| *key == "dateFormat").map(|(_, value)| *value);
    let mut inference = Inference::new(&options, date);
    for record in records {
        if !inference.has_columns() {
            inference.begin(record.as_bytes(), false).unwrap();
        }
        inference.see(record.as_bytes()).unwrap();
    }
    let fields = inference.finish().fields;
    fields.iter().map(|f| f.data_type.to_string()).collect::<Vec<_>>().join(" ")
}

#[test]
fn types_are_inferred() {
    assert_eq!(types(&[], &["1,abc,2.5,TRUE,,+1"]), "INT STRING DOUBLE BOOLEAN STRING INT");
    assert_eq!(
        types(&[], &["12345678901,99999999999999999999,1e3"]),
        "BIGINT DECIMAL(20,0) DOUBLE"
    );
    assert_eq!(
        types(&[], &["2024-01-05,2024-1-5,10:00, 1,5.,."]),
        "DATE TIMESTAMP TIMESTAMP DOUBLE DECIMAL(1,0) STRING"
    );
    assert_eq!(types(&[], &["1,1,1,true", "99999999999,1.5,x,1"]), "BIGINT DOUBLE STRING STRING");
    assert_eq!(
        types(&[], &["99999999999999999999,1", "1.5,99999999999999999999"]),
        "DOUBLE DECIMAL(20,0)"
    );
    assert_eq!(types(&[], &["2024-01-05", "2024-01-05 10:00:00"]), "TIMESTAMP");
    let own = [("timestampFormat", "dd/MM/yyyy")];
    assert_eq!(types(&own, &["05/01/2024,2024-01-05,2024-01-05 10:00"]), "TIMESTAMP DATE STRING");
    assert_eq!(types(&[("preferDate", "false")], &["2024-01-05"]), "TIMESTAMP");
    assert_eq!(types(&[("nullValue", "NA")], &["NA,1", "2,NA", "1,1,1"]), "INT INT");
}

/// The text of a record with these fields; `None` is NULL.
fn written(given: &[(&str, &str)], fields: &[Option<&str>]) -> String {
    let mut get = |name: &'static str| {
        given.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string())
    };
    let options = WriteOptions::read(&mut get).unwrap();
    let mut out = Vec::new();
    for (i, field) in fields.iter().enumerate() {
        if i > 0 {
            options.separate(&mut out);
        }
        match field {
            Some(text) => options.field(text.as_bytes(), i == 0, &mut out),
            None => options.null(i == 0, &mut out),
        }
    }
    String::from_utf8(out).unwrap()
}

#[test]
fn fields_are_written() {
    let five = [Some("\\"), Some("\\\""), Some("\""), Some("a\"b"), Some("a\\b,")];
    let empties = [None, Some(""), Some("x")];
    for (given, fields, expected) in [
        (vec![], &five[..], r#"\,"\\\"","\"","a\"b","a\\b,""#),
        (vec![("escape", "\"")], &five[..4], r#"\,"\""","""","a""b""#),
        (vec![("charToEscapeQuoteEscaping", "#")], &five[..], r##"\,"#\\"","\"","a\"b","a#\b,""##),
        (vec![("escapeQuotes", "false")], &five[..], r#"\,\","\"",a"b,"a\\b,""#),
        (vec![], &[Some("#x"), Some("#x")][..], r##""#x",#x"##),
        (vec![("sep", "||")], &[Some("x||y"), Some("|")][..], r#""x||y"|||"#),
        (vec![], &empties[..], r#","",x"#),
        (vec![("quoteAll", "true")], &empties[..], r#""","","x""#),
        (
            vec![("quoteAll", "true"), ("nullValue", "N"), ("emptyValue", "E")],
            &empties[..],
            r#""N","E","x""#,
        ),
        (vec![("nullValue", "\"N\""), ("emptyValue", "x,y")], &empties[..2], r#""N","x,y""#),
        (vec![], &[Some(" x "), Some("  "), Some("a\n")][..], r#"x,"",a"#),
        (
            vec![("ignoreTrailingWhiteSpace", "false")],
            &[Some(" x "), Some("a,b ")][..],
            r#"x ,"a,b ""#,
        ),
        (vec![("lineSep", ";")], &[Some("x\ry"), Some("é;")][..], "\"x\ry\",\"é;\""),
    ] {
        assert_eq!(written(&given, fields), expected, "{given:?}");
    }
}

fn any_dialect() -> impl Strategy<Value = Dialect> {
    use UnescapedQuote::*;
    let own = |text: &str| text.chars().map(u32::from).collect::<Vec<_>>();
    let separators = vec![own(","), own("||"), own(", "), own("é"), own("aa")];
    let handlings =
        vec![StopAtDelimiter, StopAtClosingQuote, BackToDelimiter, SkipValue, RaiseError];
    let ends = ["a\n", "a\r\n", "a\rb"].map(|head| LineEnd::detect(head.as_bytes(), true, 9));
    (
        proptest::sample::select(separators),
        proptest::sample::select(vec!['"', '\'', '\0']),
        proptest::sample::select(vec!['\\', '"', '^']),
        proptest::sample::select(handlings),
        proptest::sample::select(ends.to_vec()),
        proptest::collection::vec(any::<bool>(), 4),
    )
        .prop_map(|(separator, quote, escape, unescaped_quote, line_end, flags)| Dialect {
            separator,
            quote: u32::from(quote),
            escape: u32::from(escape),
            escape_of_escape: if flags[0] { u32::from(escape) } else { 0 },
            trim_start: flags[1],
            trim_end: flags[2],
            comment: flags[3].then_some(u32::from('#')),
            unescaped_quote,
            line_end,
            ..Dialect::default()
        })
}

proptest! {
    /// A record is the same for any length of the window, and its own bytes suffice to read it.
    #[test]
    fn a_record_is_the_same_in_any_window(
        bytes in proptest::collection::vec(
            proptest::sample::select(b"ab,\"\"\\\n\r |#^\0\xC3\xA9\xFF".to_vec()), 0..40),
        dialect in any_dialect(),
    ) {
        let mut parser = Parser::new(dialect);
        let Some((parsed, length)) = parser.parse(&bytes, true) else { unreachable!() };
        let (fields, copied) = (parser.fields().to_vec(), parser.copied().to_vec());
        prop_assert!(length <= bytes.len());
        if matches!(parsed, Parsed::Malformed(_)) {
            return Ok(());
        }
        for end in 0..bytes.len() {
            if let Some(early) = parser.parse(&bytes[..end], false) {
                prop_assert_eq!(early, (parsed, length));
                prop_assert_eq!((parser.fields(), parser.copied()), (&fields[..], &copied[..]));
            }
        }
        if parsed == Parsed::Record {
            prop_assert_eq!(parser.parse(&bytes[..length], true), Some((parsed, length)));
            prop_assert_eq!((parser.fields(), parser.copied()), (&fields[..], &copied[..]));
        }
    }

    /// The splitter of quote-free records gives the same fields as the exact parser.
    #[test]
    fn a_plain_record_has_the_fields_of_the_exact_parser(
        bytes in proptest::collection::vec(
            proptest::sample::select(b"abcdef,,,,\"\r\n #\0\xC3\xA9".to_vec()), 0..40),
        dialect in any_dialect(),
        limits in (0..9usize, 0..9usize),
        wanted in proptest::collection::vec(any::<bool>(), 0..6),
    ) {
        let mut dialect = dialect;
        if limits.0 > 6 {
            (dialect.columns_max, dialect.chars_max) = (limits.0, Some(limits.1));
        }
        let mut splits = Parser::new(dialect.clone());
        let mut exact = Parser::new(dialect);
        splits.set_wanted(wanted.clone());
        exact.set_wanted(wanted.clone());
        exact.plain = None;
        let expected = exact.parse(&bytes, true).unwrap();
        prop_assert_eq!(splits.parse(&bytes, true), Some(expected));
        prop_assert_eq!((splits.fields(), splits.copied()), (exact.fields(), exact.copied()));
        if expected.1 < bytes.len() {
            return Ok(());
        }
        prop_assert_eq!(splits.parse_record(&bytes), expected.0);
        prop_assert_eq!(splits.copied(), exact.copied());
        // Fields after the last needed column may be missing.
        let needed = match wanted.iter().rposition(|wanted| *wanted) {
            Some(last) if exact.selects() => last + 1,
            _ => usize::MAX,
        };
        let upto = |fields: &[FieldText]| fields[..fields.len().min(needed)].to_vec();
        prop_assert_eq!(upto(splits.fields()), upto(exact.fields()));
    }

    /// Fields that were written are read back unchanged.
    #[test]
    fn written_fields_are_read(fields in proptest::collection::vec("[a-c\"\\\\,é|\n][a\"\\\\, é]{0,6}[a\"\\\\]", 1..4)) {
        let texts: Vec<Option<&str>> = fields.iter().map(|field| Some(field.trim())).collect();
        let line = written(&[], &texts);
        let mut reader = Parser::new(Dialect::default());
        prop_assert_eq!(reader.parse(line.as_bytes(), true), Some((Parsed::Record, line.len())));
    }
}
