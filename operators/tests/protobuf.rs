//! `from_protobuf` and `to_protobuf`: messages that Google's library has written, damaged messages,
//! and message types that do not match. `tools/protobuf/cases.py` makes the files.

#![cfg(feature = "sql")]

use millstream::session::{QueryError, Session};
use millstream::table::value::Value;

fn rows(session: &Session, sql: &str) -> Result<Vec<Vec<Value>>, QueryError> {
    session.sql(sql)?.collect()
}

fn error(session: &Session, sql: &str) -> String {
    match rows(session, sql) {
        Ok(rows) => panic!("{sql}: {rows:?}"),
        Err(error) => error.to_string(),
    }
}

#[cfg(not(feature = "protobuf"))]
#[test]
fn without_the_feature_the_error_names_it() {
    let error = error(&Session::new(), "SELECT from_protobuf(X'00', 'M', 'm.desc')");
    assert!(error.contains("feature `protobuf`"), "{error}");
}

#[cfg(feature = "protobuf")]
mod with_protobuf {
    use super::{error, rows};
    use base64::Engine;
    use millstream::session::Session;
    use millstream::table::types::DataType;
    use millstream::table::value::Value;
    use serde_json::{Value as Json, json};

    fn descriptors(message: &str) -> String {
        let file = if message.starts_with("old") { "old" } else { "all" };
        format!("{}/tests/protobuf/{file}.desc", env!("CARGO_MANIFEST_DIR"))
    }

    /// A call, with options as JSON.
    fn call(hex: &str, message: &str, options: &Json) -> String {
        let options = options.as_object().unwrap();
        let pairs: Vec<_> = options.iter().map(|(k, v)| format!("'{k}', '{}'", text(v))).collect();
        let options = match pairs.is_empty() {
            true => String::new(),
            false => format!(", map({})", pairs.join(", ")),
        };
        format!("from_protobuf(X'{hex}', '{message}', '{}'{options})", descriptors(message))
    }

    fn text(json: &Json) -> &str {
        json.as_str().unwrap()
    }

    /// Whether a value is the one that the JSON describes.
    fn is_same(value: &Value, data_type: &DataType, json: &Json) -> bool {
        match (value, data_type) {
            (Value::Null, _) => json.is_null(),
            (Value::Boolean(v), _) => json.as_bool() == Some(*v),
            (Value::Long(v), DataType::Timestamp | DataType::DayTimeInterval(..)) => {
                json["micros"].as_i64() == Some(*v)
                    && json["is_time"] == json!(*data_type == DataType::Timestamp)
            }
            (Value::Long(v), _) => json.as_i64() == Some(*v),
            (Value::Double(v), _) => json.as_f64().map(f64::to_bits) == Some(v.to_bits()),
            (Value::Decimal(v), _) => json.as_u64().map(i128::from) == Some(*v),
            (Value::String(v), _) => match (json.as_str(), v.starts_with('{')) {
                // The JSON of an Any: the order of the fields is open.
                (Some(wanted), true) => {
                    serde_json::from_str::<Json>(v).ok() == serde_json::from_str(wanted).ok()
                }
                (wanted, _) => wanted == Some(v),
            },
            (Value::Binary(v), _) => {
                json.as_str() == Some(&base64::engine::general_purpose::STANDARD.encode(v))
            }
            (Value::Array(values), DataType::Array(element)) => {
                let wanted = json.as_array().unwrap();
                let mut pairs = values.iter().zip(wanted);
                values.len() == wanted.len() && pairs.all(|(v, json)| is_same(v, element, json))
            }
            (Value::Map(entries), DataType::Map(_, of)) => {
                let wanted = json.as_object().unwrap();
                let is_wanted = |(key, value): &(Value, Value)| {
                    let key = match key {
                        Value::String(key) => key.clone(),
                        Value::Long(key) => key.to_string(),
                        Value::Boolean(key) => key.to_string(),
                        other => panic!("{other:?}"),
                    };
                    wanted.get(&key).is_some_and(|json| is_same(value, of, json))
                };
                entries.len() == wanted.len() && entries.iter().all(is_wanted)
            }
            (Value::Struct(values), DataType::Struct(fields)) => {
                let wanted = json.as_object().unwrap();
                let mut pairs = values.iter().zip(fields);
                fields.len() == wanted.len()
                    && pairs.all(|(v, field)| {
                        wanted
                            .get(&field.name)
                            .is_some_and(|json| is_same(v, &field.data_type, json))
                    })
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn messages_of_googles_library_are_the_rows_of_sparks_rules() {
        let session = Session::new();
        let (mut wrong, mut checked) = (Vec::new(), 0);
        for line in include_str!("protobuf/cases.jsonl").lines() {
            let case: Json = serde_json::from_str(line).unwrap();
            let (message, options) = (text(&case["message"]), &case["options"]);
            let sql = call(text(&case["hex"]), message, options);
            let frame = session.sql(&format!("SELECT {sql} AS m")).unwrap();
            let found = frame.collect().unwrap().remove(0).remove(0);
            let data_type = frame.schema().fields[0].data_type.clone();
            if !is_same(&found, &data_type, &case["row"]) {
                wrong.push(format!("{sql}\n    {found:?}\n    {}", case["row"]));
            }
            checked += 1;
            let is_one_way = options.get("convert.any.fields.to.json").is_some()
                || options.get("retain.empty.message.types").is_some();
            if is_one_way {
                continue;
            }
            let path = descriptors(message);
            let sql = format!(
                "SELECT from_protobuf(p, '{message}', '{path}', o), hex(p) FROM (
                 SELECT to_protobuf(m, '{message}', '{path}') AS p FROM (SELECT {sql} AS m))"
            );
            // The options of both calls are the same.
            let again = call("", message, options);
            let options = again.split_once(", map(").map(|(_, rest)| format!("map({rest}"));
            let sql = match options {
                Some(options) => sql.replace(", o)", &format!(", {options}")),
                None => sql.replace(", o)", ")"),
            };
            let row = rows(&session, &sql).unwrap().remove(0);
            if row[0] != found {
                wrong.push(format!("{sql}\n    {:?}\n    {found:?}", row[0]));
            }
            // Those that are written in the order of the numbers are the same bytes.
            let is_ordered = matches!(message, "test.Scalars" | "old.Old")
                && !sql.contains("emit.default.values")
                && found_defaults_are_absent(text(&case["hex"]), message);
            if is_ordered && row[1] != Value::String(text(&case["hex"]).to_uppercase()) {
                wrong.push(format!("{sql}\n    {:?}\n    {}", row[1], case["hex"]));
            }
        }
        assert!(checked > 60);
        assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    }

    /// Defaults of proto2 are values in the row, and so they are written.
    fn found_defaults_are_absent(hex: &str, message: &str) -> bool {
        message != "old.Old" || hex.len() > 8
    }

    #[test]
    fn types_are_those_of_spark() {
        let shown = |message: &str, options: Json| {
            let frame = Session::new().sql(&format!("SELECT {} AS m", call("", message, &options)));
            frame.unwrap().schema().fields[0].data_type.to_string()
        };
        let scalars = shown("test.Scalars", json!({"upcast.unsigned.ints": "true"}));
        for part in ["uint32: BIGINT", "uint64: DECIMAL(20,0)", "fixed32: INT", "color: STRING"] {
            assert!(scalars.contains(part), "{part}: {scalars}");
        }
        let nested = shown("test.Nested", json!({"enums.as.ints": "true"}));
        for part in [
            "STRUCT<second: STRUCT<x: INT, y: INT>, first: STRUCT",
            "named: MAP<STRING, STRUCT<x: INT, y: INT>>",
            "colors: MAP<BOOLEAN, INT>",
        ] {
            assert!(nested.contains(part), "{part}: {nested}");
        }
        let person = shown("test.Person", json!({"recursive.fields.max.depth": "2"}));
        assert_eq!(
            person,
            "STRUCT<name: STRING, friend: STRUCT<name: STRING>, children: ARRAY<STRUCT<name: STRING>>>"
        );
        let of_old =
            Session::new().sql(&format!("SELECT {} AS m", call("", "old.Old", &json!({}))));
        let of_old = of_old.unwrap().schema().fields[0].data_type.clone();
        let DataType::Struct(fields) = of_old else { panic!("{of_old}") };
        let nullable: Vec<_> = fields.iter().filter(|field| !field.nullable).collect();
        assert_eq!((nullable.len(), nullable[0].name.as_str()), (1, "id"));
    }

    #[test]
    fn parts_of_a_message_in_any_order_are_merged() {
        let cases = [
            // A later value replaces an earlier one; a later zero means that there is none.
            ("test.Scalars", "10051006", "int32", "6"),
            ("test.Scalars", "10051000", "int32", "NULL"),
            // Parts of one message are merged.
            ("test.Nested", "0A020801120208070A021002", "first", "{1, 2}"),
            // The last one of a oneof counts, also if it is another one.
            ("test.Nested", "3807420161", "number", "NULL"),
            ("test.Nested", "3807420161", "word", "a"),
            ("test.Nested", "4A0208014A021002", "place", "{1, 2}"),
            ("test.Nested", "4A020801380138024A021002", "place", "{NULL, 2}"),
            // Numbers of a list may be packed or not, in the same message.
            ("test.Nested", "520201025003", "packed", "[1, 2, 3]"),
            ("test.Nested", "5A0201025803", "unpacked", "[1, 2, 3]"),
            // The last entry of a key counts; a missing key or value is the default.
            ("test.Nested", "2A0508011201612A050801120162", "texts", "{1 -> b}"),
            ("test.Nested", "2A020801", "texts", "{1 -> }"),
            ("test.Nested", "2A00", "texts", "{0 -> }"),
            ("test.Nested", "2200", "named", "{ -> {NULL, NULL}}"),
            // Fields that are not known are skipped, groups too.
            ("test.Scalars", "F20703616263FB07F307F407FC071005", "int32", "5"),
            // An enum of proto3 keeps numbers that it does not know.
            ("test.Scalars", "800163", "color", "UNKNOWN_ENUM_VALUE_Color_99"),
        ];
        let session = Session::new();
        for (message, hex, field, wanted) in cases {
            let sql = format!("SELECT CAST({}.{field} AS STRING)", call(hex, message, &json!({})));
            let found = match rows(&session, &sql).unwrap().remove(0).remove(0) {
                Value::String(text) => text,
                Value::Null => "NULL".to_string(),
                other => panic!("{other:?}"),
            };
            assert_eq!(found.replace("null", "NULL"), wanted, "{hex} {field}");
        }
    }

    #[test]
    fn bad_messages_follow_the_mode_and_give_their_reason() {
        let bad = [
            ("test.Scalars", "10", "the data ends within an integer"),
            ("test.Scalars", "10FFFFFFFFFFFFFFFFFFFF01", "an integer has more than 10 bytes"),
            ("test.Scalars", "72FF", "the data ends within an integer"),
            ("test.Scalars", "7205", "the data ends within a value"),
            ("test.Scalars", "65", "the data ends within a value"),
            ("test.Scalars", "00", "a field has the number 0"),
            ("test.Scalars", "17", "a field has an unknown wire type"),
            ("test.Scalars", "1205", "the data ends within a value"),
            ("test.Scalars", "120161", "a field has another type than in the schema"),
            ("test.Scalars", "0C", "a group ends that did not begin"),
            ("test.Scalars", "7202C328", "a text is not UTF-8"),
            ("test.Nested", "0A0208", "the data ends within a value"),
            ("test.Nested", "5203010280", "the data ends within an integer"),
            ("test.Nested", "720101", "the data ends within a value"),
            ("test.Known", "0A0A08FFFFFFFFFFFFFFFF7F", "a time is out of range"),
            ("old.Old", "", "a field is missing that the schema requires"),
            ("old.Old", "08012063", "a field has another type than in the schema"),
            ("old.Old", "0801585F", "a number that its enum lacks"),
            // The same list, packed.
            ("old.Old", "08015A03015F02", "a number that its enum lacks"),
            ("old.Old", "08014B", "the data ends within a group"),
            ("old.Old", "08014B54", "the end of a group has another number"),
        ];
        let session = Session::new();
        for (message, hex, wanted) in bad {
            let sql = format!("SELECT {}", call(hex, message, &json!({})));
            let error = error(&session, &sql);
            let is_named = error.contains("MALFORMED_PROTOBUF_MESSAGE");
            assert!(is_named && error.contains(wanted), "{hex}: {error}");
            let options = json!({"mode": "PERMISSIVE", "columnNameOfError": "_error"});
            let sql = format!("SELECT {}", call(hex, message, &options));
            let Value::Struct(fields) = rows(&session, &sql).unwrap().remove(0).remove(0) else {
                panic!("no struct")
            };
            let (reason, others) = fields.split_last().unwrap();
            assert!(others.iter().all(|field| *field == Value::Null), "{hex}: {others:?}");
            let Value::String(reason) = reason else { panic!("{hex}: no reason") };
            assert!(reason.contains(wanted), "{hex}: {reason}");
        }
    }

    #[test]
    fn the_header_of_a_registry_is_skipped_and_its_message_type_checked() {
        let read = |hex: &str, message: &str| {
            let options = json!({"schema.registry.header": "true", "mode": "PERMISSIVE", "columnNameOfError": "e"});
            let sql = format!("SELECT {}.e, {0}.id", call(hex, message, &options));
            rows(&Session::new(), &sql).unwrap().remove(0)
        };
        let header = json!({"schema.registry.header": "true"});
        let sql = format!("SELECT {}.x", call("0000000007000805", "test.Point", &header));
        assert_eq!(rows(&Session::new(), &sql).unwrap(), [[Value::Long(5)]]);
        let sql = format!("SELECT {}", call("0000000007000805", "test.Scalars", &header));
        assert!(error(&Session::new(), &sql).contains("another message type"));
        let at = |inner: u8| format!("0000000007{:02X}{:02X}{:02X}0805", 4, 2 * OUTER, 2 * inner);
        assert_eq!(read(&at(0), "test.Outer.Inner"), [Value::Null, Value::Long(5)]);
        assert_eq!(read(&at(1), "test.Outer.Other"), [Value::Null, Value::Long(5)]);
        for hex in [at(1).as_str(), "00000000070805", "0000000007", "00000000", "0100000007040000"]
        {
            let found = read(hex, "test.Outer.Inner");
            assert!(matches!(found[0], Value::String(_)), "{hex}: {found:?}");
        }
    }

    /// The position of `test.Outer` among the message types of its file.
    const OUTER: u8 = 9;

    /// A device has no end, and opening a pipe waits for its writer.
    #[cfg(unix)]
    #[test]
    fn descriptors_are_read_from_regular_files_only() {
        let pipe = std::env::temp_dir().join(format!("millstream-pipe-{}", std::process::id()));
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        for path in ["/dev/zero", pipe.to_str().unwrap(), "/tmp"] {
            let sql = format!("SELECT from_protobuf(X'00', 'test.Scalars', '{path}')");
            let error = error(&Session::new(), &sql);
            let is_named = error.contains("PROTOBUF_DESCRIPTOR_FILE_NOT_FOUND");
            assert!(is_named && error.contains("not a regular file"), "{error}");
        }
        std::fs::remove_file(pipe).unwrap();
    }

    #[test]
    fn message_types_and_options_are_checked() {
        let path = descriptors("test");
        let cases = [
            ("'test.Scalars', '/no/such/file'".to_string(), "PROTOBUF_DESCRIPTOR_FILE_NOT_FOUND"),
            (format!("'test.Nothing', '{path}'"), "PROTOBUF_MESSAGE_NOT_FOUND"),
            (format!("'test.Person', '{path}'"), "RECURSIVE_PROTOBUF_SCHEMA"),
            (
                format!("'test.Person', '{path}', map('recursive.fields.max.depth', '11')"),
                "RECURSIVE_PROTOBUF_SCHEMA",
            ),
            (
                format!("'test.Point', '{path}', map('recursive.fields.max.depth', 'x')"),
                "INVALID_OPTION_VALUE",
            ),
            (format!("'test.Point', '{path}', map('enums.as.ints', 'x')"), "INVALID_OPTION_VALUE"),
            (format!("'test.Point', '{path}', map('enum.as.ints', 'true')"), "NOT_YET_SUPPORTED"),
            (
                format!("'test.Point', '{path}', map('mode', 'DROPMALFORMED')"),
                "PARSE_MODE_UNSUPPORTED",
            ),
            (
                format!(
                    "'test.Point', '{path}', map('mode', 'PERMISSIVE', 'columnNameOfError', 'x')"
                ),
                "INVALID_OPTION_VALUE",
            ),
            (
                format!("'test.Point', '{path}', map('columnNameOfError', 'e')"),
                "INVALID_OPTION_VALUE",
            ),
            ("'test.Point', X'FF'".to_string(), "CANNOT_PARSE_PROTOBUF_DESCRIPTOR"),
            ("'test.Point', map('mode', 'FAILFAST')".to_string(), "NOT_YET_SUPPORTED"),
            ("NULL, X''".to_string(), "TYPE_CHECK_FAILURE_WITH_HINT"),
            ("'test.Point', 1".to_string(), "TYPE_CHECK_FAILURE_WITH_HINT"),
        ];
        for (args, condition) in cases {
            let error = error(&Session::new(), &format!("SELECT from_protobuf(X'', {args})"));
            assert!(error.contains(condition), "{args}: {error}");
        }
        for option in ["schema.registry.header", "columnNameOfError"] {
            let sql = format!(
                "SELECT to_protobuf(named_struct('x', 1), 'Point', '{path}', map('{option}', 'true'))"
            );
            let error = error(&Session::new(), &sql);
            assert!(error.contains("NOT_YET_SUPPORTED") && error.contains(option), "{error}");
        }
        let short = format!("SELECT from_protobuf(X'', 'Point', '{path}')");
        assert_eq!(
            rows(&Session::new(), &short).unwrap(),
            [[Value::Struct(vec![Value::Null, Value::Null])]]
        );
        let plan = Session::new().sql(&short).unwrap().explain();
        assert!(plan.len() < 1000, "the plan shows no descriptors: {plan}");
    }

    #[test]
    fn values_that_do_not_fit_are_refused() {
        let path = descriptors("test");
        let old = descriptors("old");
        let cases = [
            ("1", "test.Point", &path, "NON_STRUCT_TYPE"),
            ("named_struct('z', 1)", "test.Point", &path, "NO_SQL_TYPE_IN_PROTOBUF_SCHEMA"),
            (
                "named_struct('x', 'a')",
                "test.Point",
                &path,
                "CANNOT_CONVERT_SQL_TYPE_TO_PROTOBUF_FIELD_TYPE",
            ),
            (
                "named_struct('x', 1L)",
                "test.Point",
                &path,
                "CANNOT_CONVERT_SQL_TYPE_TO_PROTOBUF_FIELD_TYPE",
            ),
            (
                "named_struct('points', named_struct('x', 1))",
                "test.Nested",
                &path,
                "CANNOT_CONVERT_SQL_TYPE",
            ),
            ("named_struct('name', 'x')", "old.Old", &old, "PROTOBUF_FIELD_MISSING_IN_SQL_SCHEMA"),
            (
                "named_struct('color', 'PINK')",
                "test.Scalars",
                &path,
                "CANNOT_CONVERT_SQL_VALUE_TO_PROTOBUF_ENUM_TYPE",
            ),
            (
                "named_struct('packed', array(1, NULL))",
                "test.Nested",
                &path,
                "PROTOBUF_INCOMPATIBLE_WRITE",
            ),
            (
                "named_struct('uint64', -1BD)",
                "test.Scalars",
                &path,
                "CANNOT_CONVERT_SQL_TYPE_TO_PROTOBUF_FIELD_TYPE",
            ),
            (
                "named_struct('uint64', CAST(-1 AS DECIMAL(20,0)))",
                "test.Scalars",
                &path,
                "PROTOBUF_INCOMPATIBLE_WRITE",
            ),
        ];
        for (value, message, path, condition) in cases {
            let sql = format!("SELECT to_protobuf({value}, '{message}', '{path}')");
            let error = error(&Session::new(), &sql);
            assert!(error.contains(condition), "{value}: {error}");
        }
        let written = |value: &str, message: &str| {
            let sql = format!(
                "SELECT hex(to_protobuf({value}, '{message}', '{}'))",
                descriptors(message)
            );
            match rows(&Session::new(), &sql).unwrap().remove(0).remove(0) {
                Value::String(hex) => hex,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(written("named_struct('Y', 2, 'X', 1)", "test.Point"), "10020801");
        assert_eq!(written("named_struct('id', CAST(NULL AS INT))", "old.Old"), "0800");
        assert_eq!(written("named_struct('id', NULL)", "old.Old"), "0800");
        assert_eq!(written("named_struct('x', 0, 'y', NULL)", "test.Point"), "");
        let long =
            written(&format!("named_struct('string', '{}')", "a".repeat(300)), "test.Scalars");
        assert!(long.starts_with("72AC026161") && long.len() == 2 * 303, "{}", &long[..20]);
        assert_eq!(
            written("named_struct('at', TIMESTAMP'1969-12-31 23:59:59.5Z')", "test.Known"),
            "0A1108FFFFFFFFFFFFFFFFFF011080CAB5EE01",
        );
    }
}
