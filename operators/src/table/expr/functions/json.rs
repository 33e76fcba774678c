//! The SQL functions on JSON text.

use super::registry::{
    Call, Function, Typed, called, cells, constant_text, made, take, text_or_null, typed_or_null,
};
use crate::table::datetime::pattern::Direction;
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{
    Compiled, EvalError, Semantics, failed, fold, from_cells, text, text_in,
};
use crate::table::expr::{Node, Resolved, type_rules};
use crate::table::row::RowWriter;
use crate::table::text::json::{
    Features, Found, Inference, Inferred, InvalidJson, JsonReadOptions, Path, RecordReader,
    SWITCHES, Source, Style, array_length, check_map_keys, last_field, object_keys, write_json_as,
};
use crate::table::text::notation::{Notation, PATTERN_OPTIONS};
use crate::table::types::{DataType, Schema, quoted_if_needed};
use crate::table::value::Value;
use bumpalo::collections::Vec as BumpVec;

use DataType as T;

pub(super) static FUNCTIONS: &[Function] = &[
    called(
        "from_json",
        "from_json(text, 'a INT, b STRING'[, options]): a struct, array or map; NULL \
         for what is not of its type",
        (2, 3),
        from_json,
        compile_from_json,
    )
    .usage("2.2.0", r#"from_json('{"a":1}', 'a INT')"#, "{1}"),
    cells(
        "schema_of_json",
        "schema_of_json('{\"a\":1}'[, options]): the schema of a constant text, as \
         from_json takes it",
        (1, 2),
        |name, args| constant_schema(name, &args).map(|_| Typed::new(args, T::String, false)),
        |_, call, arena| {
            // This cannot fail: the same inference succeeded when the call was resolved.
            let schema = constant_schema("schema_of_json", &call.args);
            let mut out = String::new();
            if let Ok(schema) = schema {
                write_schema(&schema, &mut out);
            }
            Ok(made(arena, &out))
        },
    )
    .usage("2.4.0", r#"schema_of_json('{"a":1}')"#, "STRUCT<a: BIGINT>"),
    cells(
        "to_json",
        "to_json(struct, array or map): as text, NULL fields left out",
        (1, 2),
        to_text,
        |a, call, arena| {
            let data_type = call.data_type(0);
            let options = options_of(call.args.get(1)).unwrap_or_default();
            let mut notation = notation_of(&options, Direction::Write).unwrap_or_default();
            if !has(&options, "timeZone") {
                notation.zone = call.semantics.zone;
            }
            let style = style_of(&options);
            let mut out = Vec::new();
            write_json_as(&a[0].value(data_type), data_type, &notation, style, &mut out);
            style.finish(&mut out, 0);
            Ok(Cell::Bytes(arena.alloc_slice_copy(&out)))
        },
    )
    .usage("2.2.0", "to_json(named_struct('a', 1, 'b', NULL))", r#"{"a":1}"#),
    called(
        "get_json_object",
        "get_json_object(text, '$.a.b[0]'): what is there, as text",
        (2, 2),
        |n, a| typed_or_null(n, a, &[T::String, T::String], T::String),
        |args, call| {
            let fixed = call.text(1).map(Path::parse);
            let [json, path] = take(args);
            let (json, path) = (json.bytes(), path.bytes());
            from_cells(T::String.physical(), move |cx| {
                let (Some(json), Some(path)) = (json(cx)?, path(cx)?) else {
                    return Ok(Cell::Null);
                };
                let made_path;
                let path = match &fixed {
                    Some(fixed) => fixed,
                    None => {
                        made_path = Path::parse(text(path));
                        &made_path
                    }
                };
                let json = text_in(json, cx.arena);
                let found = path.as_ref().and_then(|path| path.find(json));
                Ok(found.map_or(Cell::Null, |found| made(cx.arena, &found)))
            })
        },
    )
    .usage("1.5.0", r#"get_json_object('{"a":{"b":[7]}}', '$.a.b[0]')"#, "7"),
    cells(
        "json_field",
        "json_tuple(text, name)",
        (2, 2),
        |_, _| {
            Err(PlanError::new("UNRESOLVED_ROUTINE", "`json_field` is internal", "Use json_tuple"))
        },
        |a, _, arena| {
            Ok(last_field(a[0].text(), a[1].text()).map_or(Cell::Null, |found| made(arena, &found)))
        },
    ),
    cells(
        "json_array_length",
        "json_array_length(text): elements of the array that it is",
        (1, 1),
        |n, a| typed_or_null(n, only_text(n, a)?, &[T::String], T::Int),
        |a, _, _| {
            Ok(array_length(a[0].text()).map_or(Cell::Null, |length| Cell::Long(length as i64)))
        },
    )
    .usage("3.1.0", "json_array_length('[1,2,3]')", "3"),
    cells(
        "json_object_keys",
        "json_object_keys(text): the names in the object that it is",
        (1, 1),
        |n, a| typed_or_null(n, only_text(n, a)?, &[T::String], T::Array(Box::new(T::String))),
        |a, _, arena| match object_keys(a[0].text()) {
            Some(names) => {
                let mut out = BumpVec::new_in(arena);
                let mut writer = RowWriter::array(&mut out, names.len());
                names.iter().enumerate().for_each(|(i, key)| writer.bytes(i, key.as_bytes()));
                Ok(Cell::Bytes(out.into_bump_slice()))
            }
            None => Ok(Cell::Null),
        },
    )
    .usage("3.1.0", r#"json_object_keys('{"a":1,"b":2}')"#, "[a, b]"),
];

/// Makes the first argument a STRING: these functions have no implicit cast.
fn only_text(name: &str, mut args: Vec<Resolved>) -> PlanResult<Vec<Resolved>> {
    args[0] = text_or_null(name, args[0].clone())?;
    Ok(args)
}

/// Parses a schema, either a list of columns (`a INT, b STRING`) or a type (`ARRAY<INT>`).
pub(super) fn schema_of(written: &str) -> PlanResult<DataType> {
    if written.trim().is_empty() {
        return Err(PlanError::new("PARSE_EMPTY_STATEMENT", "the schema is empty", "'a INT'"));
    }
    if let Ok(schema) = Schema::parse_ddl(&format!("t {written}")) {
        let mut fields = schema.fields;
        if let [field] = fields.as_mut_slice()
            && field.data_type.is_nested()
        {
            return Ok(field.data_type.clone());
        }
    }
    Schema::parse_ddl(written).map(|schema| T::Struct(schema.fields))
}

/// Infers the schema of a constant JSON text.
fn constant_schema(name: &str, args: &[Resolved]) -> PlanResult<DataType> {
    let sample = fold(args[0].clone(), Semantics::default());
    let Some(json) = sample.literal_text() else {
        let null = sample.node == Node::Literal(Value::Null) || sample.data_type == T::Null;
        return Err(PlanError::new(
            if null {
                "DATATYPE_MISMATCH.UNEXPECTED_NULL"
            } else {
                "DATATYPE_MISMATCH.NON_FOLDABLE_INPUT"
            },
            format!("`{name}` needs a constant text, but has `{}`", args[0]),
            "schema_of_json('{\"a\": 1}')",
        ));
    };
    let options = options_of(args.get(1))?;
    let known = times().chain(IGNORED).chain(INFERRED).chain(["mode"]);
    let known: Vec<&str> = known.chain(SWITCHES.iter().map(|(name, _)| *name)).collect();
    only_known(name, &options, &known)?;
    let is_on = |name: &str| flag(&options, name, false);
    let inference = Inference {
        reading: JsonReadOptions {
            notation: notation_of(&options, Direction::Read)?,
            features: Rules::of(&options, "")?.features,
            ..JsonReadOptions::default()
        },
        all_text: is_on("primitivesAsString"),
        decimals: is_on("prefersDecimal"),
        times: is_on("inferTimestamp"),
        times_without_zone: crate::table::expr::type_rules::Rules::current()
            .timestamps_without_zone,
        without_nulls: is_on("dropFieldIfAllNull"),
    };
    match inference.of(json.as_bytes()) {
        Ok(Inferred::Object(fields)) => Ok(T::Struct(inference.fields(fields))),
        Ok(found) => Ok(inference.finish(found).unwrap_or(T::String)),
        Err(InvalidJson) => Err(PlanError::new(
            "MALFORMED_RECORD_IN_PARSING.WITHOUT_SUGGESTION",
            format!("`{name}`: '{json}' is not JSON"),
            "Use a text that is valid JSON",
        )),
    }
}

/// Writes a type as `schema_of_json` shows it. Names that are not plain identifiers are in
/// backquotes.
pub(super) fn write_schema(data_type: &DataType, out: &mut String) {
    match data_type {
        T::Array(element) => {
            out.push_str("ARRAY<");
            write_schema(element, out);
        }
        T::Struct(fields) => {
            out.push_str("STRUCT<");
            for (i, field) in fields.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                out.push_str(&quoted_if_needed(&field.name));
                out.push_str(": ");
                write_schema(&field.data_type, out);
                if !field.nullable {
                    out.push_str(" NOT NULL");
                }
            }
        }
        T::Map(key, value) => {
            out.push_str("MAP<");
            write_schema(key, out);
            out.push_str(", ");
            write_schema(value, out);
        }
        plain => return out.push_str(&plain.to_string()),
    }
    out.push('>');
}

fn from_json(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let schema = constant_text(name, &args[1]).ok().flatten();
    let mut to = match (&args[1].node, schema.as_deref()) {
        (_, Some(written)) => schema_of(written)?,
        (Node::Call("schema_of_json", sample), None) => constant_schema("schema_of_json", sample)?,
        _ => {
            return Err(PlanError::new(
                "INVALID_SCHEMA.NON_STRING_LITERAL",
                format!("the schema of `{name}` must be a constant, but is `{}`", args[1]),
                "from_json(value, 'a INT, b STRING')",
            ));
        }
    };
    if let T::Struct(fields) = &mut to {
        fields.iter_mut().for_each(|field| field.nullable = true);
    }
    let options = options_of(args.get(2))?;
    let known = times().chain(IGNORED).chain([
        "mode",
        "columnNameOfCorruptRecord",
        "enableDateTimeParsingFallback",
    ]);
    let known: Vec<&str> = known.chain(SWITCHES.iter().map(|(name, _)| *name)).collect();
    only_known(name, &options, &known)?;
    check_map_keys(&to)?;
    let corrupt_column = type_rules::Rules::current().corrupt_column;
    let rules = Rules::of(&options, corrupt_column)?;
    if let T::Struct(fields) = &to
        && let Some(field) = fields.iter().find(|field| field.name == rules.corrupt)
        && field.data_type != T::String
    {
        return Err(PlanError::new(
            "INVALID_CORRUPT_RECORD_TYPE",
            format!(
                "`{}` holds bad records and must be STRING, but is {}",
                field.name, field.data_type
            ),
            "Make it STRING, or name another field with columnNameOfCorruptRecord",
        ));
    }
    notation_of(&options, Direction::Read)?;
    Ok(Typed::new(only_text(name, args)?, to, true))
}

/// The options of dates and times.
fn times() -> impl Iterator<Item = &'static str> {
    PATTERN_OPTIONS.into_iter().chain(["timeZone"])
}

/// Options that have no effect when the schema is given and each text is one record.
const IGNORED: [&str; 8] = [
    "encoding",
    "useUnsafeRow",
    "primitivesAsString",
    "prefersDecimal",
    "dropFieldIfAllNull",
    "multiLine",
    "lineSep",
    "samplingRatio",
];

/// The options of schema inference.
const INFERRED: [&str; 4] =
    ["primitivesAsString", "prefersDecimal", "dropFieldIfAllNull", "inferTimestamp"];

/// Rejects options that are not in `known`.
fn only_known(name: &str, options: &[(String, String)], known: &[&str]) -> PlanResult<()> {
    let unknown =
        options.iter().find(|(key, _)| !known.iter().any(|name| name.eq_ignore_ascii_case(key)));
    match unknown {
        Some((key, _)) => Err(PlanError::not_yet(format_args!("the option '{key}' of `{name}`"))),
        None => Ok(()),
    }
}

fn has(options: &[(String, String)], name: &str) -> bool {
    options.iter().any(|(key, _)| key.eq_ignore_ascii_case(name))
}

/// Rejects an argument for options that is not a constant map from STRING to STRING.
fn check_options(arg: &Resolved) -> PlanResult<()> {
    let condition = match (&arg.node, &arg.data_type) {
        (Node::Call("map", _) | Node::Literal(_), T::Map(key, value)) => match (&**key, &**value) {
            (T::String, T::String) => return Ok(()),
            _ => "INVALID_OPTIONS.NON_STRING_TYPE",
        },
        _ => "INVALID_OPTIONS.NON_MAP_FUNCTION",
    };
    Err(PlanError::new(
        condition,
        format!("options must be a map of constant texts, but are `{arg}`"),
        "map('timestampFormat', 'dd/MM/yyyy')",
    ))
}

/// The entries of a constant map argument. Any other argument is an error.
pub(super) fn options_of(arg: Option<&Resolved>) -> PlanResult<Vec<(String, String)>> {
    let Some(arg) = arg else { return Ok(Vec::new()) };
    check_options(arg)?;
    let text = |value: Value| match value {
        Value::String(text) => Some(text),
        _ => None,
    };
    // An option whose value is NULL is not set.
    let entry = |(key, value)| text(key).zip(text(value));
    match fold(arg.clone(), Semantics::default()).node {
        Node::Literal(Value::Map(entries)) => Ok(entries.into_iter().filter_map(entry).collect()),
        _ => Err(PlanError::new(
            "INVALID_OPTIONS.NON_MAP_FUNCTION",
            format!("options must be a map of constants, but are `{arg}`"),
            "map('timestampFormat', 'dd/MM/yyyy')",
        )),
    }
}

fn notation_of(options: &[(String, String)], direction: Direction) -> PlanResult<Notation> {
    let get = |name: &str| {
        let found = options.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    };
    let zone = Notation::default().zone;
    Notation::with_options(&mut |name| get(name).map(str::to_string), direction, zone)
}

/// Rejects the mode DROPMALFORMED, in which a malformed text would have no result.
pub(super) fn check_mode(name: &str, mode: Option<&str>) -> PlanResult<()> {
    match mode {
        Some(mode) if mode.eq_ignore_ascii_case("DROPMALFORMED") => Err(PlanError::new(
            "PARSE_MODE_UNSUPPORTED",
            format!("`{name}` has no mode {mode}"),
            "PERMISSIVE or FAILFAST",
        )),
        _ => Ok(()),
    }
}

/// The options of a call, without the date and timestamp patterns.
#[derive(Clone, Debug)]
struct Rules {
    features: Features,
    /// Whether a bad record is an error (mode FAILFAST).
    fail: bool,
    /// Whether dates and timestamps that do not match their pattern are parsed by the rules of
    /// CAST; `None` if the option is not given.
    fallback: Option<bool>,
    corrupt: String,
}

impl Rules {
    fn of(options: &[(String, String)], corrupt_column: &str) -> PlanResult<Self> {
        let mut rules = Self {
            features: Features::RECORDS,
            fail: false,
            fallback: None,
            corrupt: corrupt_column.to_string(),
        };
        for (key, value) in options {
            let switch = SWITCHES.iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
            if let Some((_, feature)) = switch {
                *feature(&mut rules.features) = value.eq_ignore_ascii_case("true");
            } else if key.eq_ignore_ascii_case("enableDateTimeParsingFallback") {
                rules.fallback = Some(value.eq_ignore_ascii_case("true"));
            } else if key.eq_ignore_ascii_case("columnNameOfCorruptRecord") {
                rules.corrupt.clone_from(value);
            } else if key.eq_ignore_ascii_case("mode") {
                rules.fail = value.eq_ignore_ascii_case("FAILFAST");
                check_mode("from_json", Some(value))?;
            }
        }
        Ok(rules)
    }
}

fn compile_from_json(args: Vec<Compiled>, call: Call) -> Compiled {
    let options = options_of(call.args.get(2)).unwrap_or_default();
    let mut notation = notation_of(&options, Direction::Read).unwrap_or_default();
    if !has(&options, "timeZone") {
        notation.zone = call.semantics.zone;
    }
    let rules = Rules::of(&options, call.semantics.corrupt_column).unwrap_or(Rules {
        features: Features::RECORDS,
        fail: false,
        fallback: None,
        corrupt: String::new(),
    });
    let fields = match &call.to {
        T::Struct(fields) => fields.clone(),
        _ => Vec::new(),
    };
    let corrupt = fields.iter().position(|f| f.name == rules.corrupt && f.data_type == T::String);
    let (features, fallback) = (rules.features, rules.fallback);
    let reading = JsonReadOptions { notation, features, source: Source::Chars, fallback };
    let mut reader = RecordReader::new(&call.to, reading);
    if let Some(corrupt) = corrupt {
        let wanted: Vec<bool> = (0..fields.len()).map(|index| index != corrupt).collect();
        reader.only(&wanted);
    }
    let is_struct = matches!(call.to, T::Struct(_));
    let Some(json) = args.into_iter().next() else { unreachable!("counted") };
    let json = json.bytes();
    from_cells(call.to.physical(), move |cx| {
        let Some(bytes) = json(cx)? else { return Ok(Cell::Null) };
        let written = text_in(bytes, cx.arena);
        if !is_struct {
            let Some(record) = reader.value(written) else { return Ok(Cell::Null) };
            if record.bad && rules.fail {
                return malformed(written);
            }
            if record.value == Value::Null {
                return Ok(Cell::Null);
            }
            let mut out = Vec::new();
            record.value.write(&mut out);
            return Ok(Cell::Bytes(cx.arena.alloc_slice_copy(&out)));
        }
        let width = reader.width();
        let mut out = BumpVec::with_capacity_in(written.len() + 16 * width, cx.arena);
        let mut writer = RowWriter::new(&mut out, width);
        let bad = match reader.read(written.as_bytes(), true, &mut writer) {
            Found::Nothing => return Ok(Cell::Null),
            Found::Row(fault) => fault.is_some(),
            // Only the file reader splits an array into rows. In a function, an array is a bad
            // record.
            Found::Array => true,
        };
        if bad && rules.fail {
            return malformed(written);
        }
        if let (true, Some(at)) = (bad, corrupt) {
            writer.bytes(at, written.as_bytes());
        }
        Ok(Cell::Bytes(out.into_bump_slice()))
    })
}

fn malformed<'a>(written: &str) -> Result<Cell<'a>, Box<EvalError>> {
    failed(
        "MALFORMED_RECORD_IN_PARSING.WITHOUT_SUGGESTION",
        format!("'{written}' does not match the schema"),
        "Use the mode PERMISSIVE to get NULL instead",
    )
}

fn flag(options: &[(String, String)], name: &str, default: bool) -> bool {
    let found = options.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map_or(default, |(_, value)| value.eq_ignore_ascii_case("true"))
}

fn style_of(options: &[(String, String)]) -> Style {
    Style {
        nulls: !flag(options, "ignoreNullFields", true),
        sorted: flag(options, "sortKeys", false),
        ascii: flag(options, "writeNonAsciiCharacterAsCodePoint", false),
        pretty: flag(options, "pretty", false),
    }
}

fn to_text(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let options = options_of(args.get(1))?;
    let known = times()
        .chain(["ignoreNullFields", "sortKeys", "writeNonAsciiCharacterAsCodePoint", "pretty"])
        .chain(["compression", "encoding", "lineSep", "mode"]);
    only_known(name, &options, &known.collect::<Vec<_>>())?;
    notation_of(&options, Direction::Write)?;
    if !args[0].data_type.is_nested() && !matches!(args[0].data_type, T::Null | T::Variant) {
        return Err(PlanError::new(
            "DATATYPE_MISMATCH.INVALID_JSON_SCHEMA",
            format!(
                "`{name}` needs a struct, an array or a map, but `{}` is {}",
                args[0], args[0].data_type
            ),
            "to_json(struct(a, b))",
        ));
    }
    let nullable = args[0].nullable;
    Ok(Typed::new(args, T::String, nullable))
}

/// Splits `json_tuple(text, 'a', 'b')` into one expression per field, for the generator
/// `json_tuple`.
pub fn tuple(args: Vec<Resolved>) -> PlanResult<Vec<Resolved>> {
    let mut args = args.into_iter();
    let Some(json) = args.next() else { return Ok(Vec::new()) };
    let one = |arg: Resolved| match arg.data_type {
        T::String => Ok(arg),
        _ => Err(PlanError::new(
            "DATATYPE_MISMATCH.NON_STRING_TYPE",
            format!("`json_tuple` takes only texts, but `{arg}` is {}", arg.data_type),
            "Cast it",
        )),
    };
    let json = one(json)?;
    args.map(|name| {
        let node = Node::Call("json_field", vec![json.clone(), one(name)?]);
        Ok(Resolved { node, data_type: T::String, nullable: true })
    })
    .collect()
}
