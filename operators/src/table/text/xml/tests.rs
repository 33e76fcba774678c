use super::*;
use crate::table::datetime::Tz;
use crate::table::row::RowWriter;
use crate::table::types::{DataType, Field, Schema};
use crate::table::value::Value;
use bumpalo::Bump;

fn options(set: &[(&str, &str)]) -> ReadOptions {
    let get = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, v)| v.to_string());
    ReadOptions::read(&mut |name| get(name), Tz::UTC).unwrap()
}

fn fields(ddl: &str) -> Vec<Field> {
    Schema::parse_ddl(ddl).unwrap().fields
}

fn read(document: &str, ddl: &str) -> (Value, Result<(), Unread>) {
    let fields = fields(ddl);
    let (arena, mut out) = (Bump::new(), Vec::new());
    let reader = RecordReader::new(options(&[]), fields.clone(), None);
    let mut writer = RowWriter::new(&mut out, fields.len());
    let result = reader.read(document, &arena, &mut writer);
    (Value::from_bytes(&out, &DataType::Struct(fields)), result)
}

fn write(value: &Value, ddl: &str) -> Result<String, Unwritable> {
    let options = WriteOptions::read(&mut |_| None, Tz::UTC).unwrap();
    let data_type = DataType::Struct(fields(ddl));
    Writer::new(options).row(value, &data_type).map(str::to_string)
}

/// The events of a document, up to its end or the first error.
fn events(document: &str) -> String {
    let arena = Bump::new();
    let (mut events, mut out) = (Events::new(document, &arena), String::new());
    loop {
        match events.take() {
            Ok(Event::Start(tag)) => {
                out += &format!("<{}", tag.name);
                tag.attributes.iter().for_each(|(name, value)| out += &format!(" {name}={value}"));
                out += ">";
            }
            Ok(Event::End(name)) => out += &format!("</{name}>"),
            Ok(Event::Text(text)) => out += &format!("[{text}]"),
            Ok(Event::Finish) => return out,
            Err(Malformed) => return out + "!",
        }
    }
}

#[test]
fn documents_have_the_events_of_a_conforming_parser() {
    for (document, expected) in [
        ("<p>a<b x='1' y = \"2\"/>c</p>", "<p>[a]<b x=1 y=2></b>[c]</p>"),
        ("<p>a&amp;<![CDATA[<b>]]>c<!-- d -->e</p>", "<p>[a&<b>c][e]</p>"),
        ("<p>&#65;&#x1F600;&lt;</p>", "<p>[A\u{1F600}<]</p>"),
        ("<p>a\r\nb\rc&#13;\n</p>", "<p>[a\nb\nc\r\n]</p>"),
        ("<p a='x\n&#10;&quot;y\t'/>", "<p a=x \n\"y ></p>"),
        ("<?xml version='1.0'?> <!DOCTYPE p [<!ENTITY e 'v'>]> <p/> ", "<p></p>"),
        ("<p></p  >", "<p></p>"),
        ("", "!"),
        ("text<p/>", "!"),
        ("<p/>text", "<p></p>!"),
        ("<p/><q/>", "<p></p>!"),
        ("<p><q></p>", "<p><q>!"),
        ("<p", "!"),
        ("<p>", "<p>!"),
        ("<p a=1/>", "!"),
        ("<p a='1' a='2'/>", "!"),
        ("<p a='<'/>", "!"),
        ("<p a='1'b='2'/>", "!"),
        ("<p>a & b</p>", "<p>!"),
        ("<p a='&e;'/>", "!"),
        ("<1/>", "!"),
        ("<p>&e;</p>", "<p>!"),
        ("<p>&#0;</p>", "<p>!"),
        ("<p>]]></p>", "<p>!"),
        ("<p>\u{1}</p>", "<p>!"),
        ("<p><!-- -- --></p>", "<p>!"),
    ] {
        assert_eq!(events(document), expected, "{document}");
    }
}

#[test]
fn a_document_that_is_nested_too_deeply_is_malformed() {
    let nested = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
    assert_eq!(read(&nested(DEPTH_MAX), "a STRING").1, Ok(()));
    assert_eq!(read(&nested(DEPTH_MAX + 1), "a STRING").1, Err(Unread));
    let inference = Inference::new(options(&[]), false);
    assert!(inference.of(&nested(DEPTH_MAX)).is_ok());
    assert_eq!(inference.of(&nested(100_000)), Err(Malformed));
}

#[test]
fn many_children_are_read_in_linear_time() {
    let document = format!("<p>{}</p>", "<a>1</a>".repeat(100_000));
    let (Value::Struct(columns), Ok(())) = read(&document, "a ARRAY<INT>") else {
        panic!("it does not fit")
    };
    let Value::Array(elements) = &columns[0] else { panic!("{:?}", columns[0]) };
    assert_eq!(elements.len(), 100_000);
}

const ROUND_TRIP: &str =
    "_a BIGINT, b STRING, c ARRAY<BIGINT>, d STRUCT<_e: BOOLEAN, _VALUE: DOUBLE>";

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_or_the_inference_panic(
        text in "(\\PC|[<>&;!\\[\\]\"'/=?a-c \r\n-]|<a>|</a>|<a b='1'>|<!--|-->|<!\\[CDATA\\[|\\]\\]>|&lt;|&#1;){0,60}",
    ) {
        for ddl in ["a STRING, _b INT, _VALUE STRING", "a ARRAY<STRUCT<a: INT, _b: STRING>>",
            "a MAP<STRING, STRING>, xs_any ARRAY<STRING>", "a STRUCT<a: ARRAY<DECIMAL(5,2)>>, b DATE"]
        {
            let _ = read(&text, ddl);
            let _ = read(&format!("<p>{text}</p>"), ddl);
        }
        let inference = Inference::new(options(&[("prefersDecimal", "true")]), true);
        let _ = inference.of(&text);
        let _ = inference.of(&format!("<p>{text}</p>"));
    }

    #[test]
    fn what_is_written_is_read_back(
        a in proptest::option::of(-1000i64..1000),
        b in proptest::option::of("[a-z<>&\"'é€\\]]([a-z<>&\"'\r\n\t é€\\]]*[a-z<>&\"'é€\\]])?"),
        c in proptest::collection::vec(0i64..1000, 0..4),
        e: bool,
        f in proptest::option::of(-1e9f64..1e9),
    ) {
        let or_null = |value: Option<Value>| value.unwrap_or(Value::Null);
        let elements: Vec<Value> = c.into_iter().map(Value::Long).collect();
        // An array without elements has no text, so it is read as NULL.
        let elements = (!elements.is_empty()).then_some(Value::Array(elements));
        let inner = vec![Value::Boolean(e), or_null(f.map(Value::Double))];
        let row = Value::Struct(vec![
            or_null(a.map(Value::Long)),
            or_null(b.map(Value::String)),
            or_null(elements),
            Value::Struct(inner),
        ]);
        let text = write(&row, ROUND_TRIP).unwrap();
        proptest::prop_assert_eq!(read(&text, ROUND_TRIP), (row, Ok(())), "{}", text);
    }
}
