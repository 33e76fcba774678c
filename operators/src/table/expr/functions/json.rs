//! JSON in columns of text.

use super::{Call, Function, Typed, called, cells, made, take, typed_or_null};
use crate::table::datetime::pattern::Direction;
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{Compiled, from_cells, text};
use crate::table::expr::{Node, Resolved};
use crate::table::json::{NOT_ITS_TYPE, ObjectReader, write_json};
use crate::table::row::RowWriter;
use crate::table::text::{Notation, pattern};
use crate::table::types::{DataType, Schema};
use crate::table::value::Value;
use bumpalo::collections::Vec as BumpVec;
use serde_json::Value as Json;

use DataType as T;

pub(super) static FUNCTIONS: &[Function] = &[
    called(
        "from_json",
        "from_json(text, 'a INT, b STRING'[, options]): a struct, array or map; NULL for what is not of its type",
        (2, 3),
        from_json,
        compile_from_json,
    ),
    cells(
        "to_json",
        "to_json(struct, array or map): as text, NULL fields left out",
        (1, 2),
        to_text,
        |a, call, arena| {
            let data_type = call.data_type(0);
            let mut out = Vec::new();
            write_json(&a[0].value(data_type), data_type, call.semantics.zone, &mut out);
            Ok(Cell::Bytes(arena.alloc_slice_copy(&out)))
        },
    ),
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
                let found =
                    path.as_ref().and_then(|path| path.find(&serde_json::from_slice(json).ok()?));
                Ok(found.map_or(Cell::Null, |found| made(cx.arena, &found)))
            })
        },
    ),
    cells(
        "json_array_length",
        "json_array_length(text): elements of the array that it is",
        (1, 1),
        |n, a| typed_or_null(n, a, &[T::String], T::Int),
        |a, _, _| match serde_json::from_slice(a[0].bytes()) {
            Ok(Json::Array(items)) => Ok(Cell::Long(items.len() as i64)),
            _ => Ok(Cell::Null),
        },
    ),
    cells(
        "json_object_keys",
        "json_object_keys(text): the names in the object that it is",
        (1, 1),
        |n, a| typed_or_null(n, a, &[T::String], T::Array(Box::new(T::String))),
        |a, _, arena| match serde_json::from_slice(a[0].bytes()) {
            Ok(Json::Object(object)) => {
                let mut out = BumpVec::new_in(arena);
                let mut writer = RowWriter::array(&mut out, object.len());
                object.keys().enumerate().for_each(|(i, key)| writer.bytes(i, key.as_bytes()));
                Ok(Cell::Bytes(out.into_bump_slice()))
            }
            _ => Ok(Cell::Null),
        },
    ),
];

/// A type that is written as a schema (`a INT, b STRING`) or by its name (`ARRAY<INT>`).
fn schema_of(written: &str) -> PlanResult<DataType> {
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

fn from_json(name: &str, mut args: Vec<Resolved>) -> PlanResult<Typed> {
    let Some(written) = args[1].literal_text() else {
        return Err(PlanError::new(
            "INVALID_SCHEMA.NON_STRING_LITERAL",
            format!("the schema of `{name}` must be a constant, but is `{}`", args[1]),
            "from_json(value, 'a INT, b STRING')",
        ));
    };
    let mut to = schema_of(written)?;
    if let T::Struct(fields) = &mut to {
        fields.iter_mut().for_each(|field| field.nullable = true);
    }
    let options = options_of(args.get(2))?;
    let known = ["mode", "timestampFormat", "dateFormat", "timestampNTZFormat"];
    if let Some((key, _)) =
        options.iter().find(|(key, _)| !known.iter().any(|k| k.eq_ignore_ascii_case(key)))
    {
        return Err(PlanError::not_yet(format_args!("the option '{key}' of `{name}`")));
    }
    if options.iter().any(|(key, value)| {
        key.eq_ignore_ascii_case("mode") && !value.eq_ignore_ascii_case("PERMISSIVE")
    }) {
        return Err(PlanError::not_yet(format_args!("`{name}` in another mode than PERMISSIVE")));
    }
    notation_of(&options)?;
    args[0] = super::expect(name, vec![args[0].clone()], &[T::String])?.remove(0);
    Ok((args, to, true))
}

/// The constant map of an argument.
fn options_of(arg: Option<&Resolved>) -> PlanResult<Vec<(String, String)>> {
    let Some(arg) = arg else { return Ok(Vec::new()) };
    let texts: Option<Vec<&str>> = match &arg.node {
        Node::Call("map", args) => args.iter().map(Resolved::literal_text).collect(),
        Node::Literal(Value::Map(entries)) => {
            let texts = entries.iter().flat_map(|(key, value)| [key, value]);
            let text = |value: &'_ Value| match value {
                Value::String(text) => Some(text.clone()),
                _ => None,
            };
            return Ok(texts
                .map(text)
                .collect::<Option<Vec<_>>>()
                .unwrap_or_default()
                .chunks(2)
                .map(|pair| (pair[0].clone(), pair[1].clone()))
                .collect());
        }
        _ => None,
    };
    match texts {
        Some(texts) => {
            Ok(texts.chunks(2).map(|pair| (pair[0].to_string(), pair[1].to_string())).collect())
        }
        None => Err(PlanError::new(
            "INVALID_OPTIONS.NON_MAP_FUNCTION",
            format!("options must be a map of constants, but are `{arg}`"),
            "map('timestampFormat', 'dd/MM/yyyy')",
        )),
    }
}

fn notation_of(options: &[(String, String)]) -> PlanResult<Notation> {
    let get = |name: &str| {
        let found = options.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    };
    Ok(Notation {
        date: pattern("dateFormat", get("dateFormat"), Direction::Read)?,
        timestamp: pattern("timestampFormat", get("timestampFormat"), Direction::Read)?,
        timestamp_ntz: pattern("timestampNTZFormat", get("timestampNTZFormat"), Direction::Read)?,
        ..Notation::default()
    })
}

fn compile_from_json(args: Vec<Compiled>, call: Call) -> Compiled {
    let mut notation =
        options_of(call.args.get(2)).and_then(|options| notation_of(&options)).unwrap_or_default();
    notation.zone = call.semantics.zone;
    let fields = match &call.to {
        T::Struct(fields) => fields.clone(),
        _ => Vec::new(),
    };
    let reader = ObjectReader::new(fields, notation);
    let Some(json) = args.into_iter().next() else { unreachable!("counted") };
    let (json, to) = (json.bytes(), call.to.clone());
    let is_struct = matches!(to, T::Struct(_));
    from_cells(to.physical(), move |cx| {
        let Some(bytes) = json(cx)? else { return Ok(Cell::Null) };
        let written = text(bytes);
        if written.trim().is_empty() {
            return Ok(Cell::Null);
        }
        if is_struct && written.trim_start().starts_with('{') {
            let width = reader.fields().len();
            let mut out = BumpVec::with_capacity_in(written.len() + 16 * width, cx.arena);
            let read = reader.read(written, &mut RowWriter::new(&mut out, width));
            if read.is_err_and(|reason| reason != NOT_ITS_TYPE) {
                // Nothing counts of what is no JSON in the end.
                out.clear();
                RowWriter::new(&mut out, width);
            }
            return Ok(Cell::Bytes(out.into_bump_slice()));
        }
        let parsed: Option<Json> = serde_json::from_str(written).ok();
        let mut fault = None;
        let value = match (parsed, is_struct) {
            // The first object of an array of them.
            (Some(Json::Array(items)), true) if matches!(items.as_slice(), [Json::Object(_)]) => {
                reader.value(&items[0], &to, &mut fault)
            }
            (_, true) => Value::Struct(vec![Value::Null; reader.fields().len()]),
            (Some(json), false) => reader.value(&json, &to, &mut fault),
            (None, false) => Value::Null,
        };
        if value == Value::Null {
            return Ok(Cell::Null);
        }
        let mut out = Vec::new();
        value.write(&mut out);
        Ok(Cell::Bytes(cx.arena.alloc_slice_copy(&out)))
    })
}

fn to_text(name: &str, mut args: Vec<Resolved>) -> PlanResult<Typed> {
    if args.len() > 1 {
        return Err(PlanError::not_yet(format_args!("options of `{name}`")));
    }
    if !args[0].data_type.is_nested() && args[0].data_type != T::Null {
        return Err(PlanError::new(
            "DATATYPE_MISMATCH.INVALID_JSON_SCHEMA",
            format!("`{name}` writes structs, arrays and maps, not {}", args[0].data_type),
            "Put it into a struct: struct(x)",
        ));
    }
    let nullable = args[0].nullable;
    args.truncate(1);
    Ok((args, T::String, nullable))
}

/// A step of a JSON path.
enum Step {
    Name(String),
    Index(usize),
    All,
}

/// A path such as `$.a['b c'][0][*].d`.
struct Path(Vec<Step>);

impl Path {
    fn parse(written: &str) -> Option<Self> {
        let mut rest = written.trim().strip_prefix('$')?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                let (name, after) = after.split_at(end);
                match name {
                    "" => return None,
                    "*" => steps.push(Step::All),
                    name => steps.push(Step::Name(name.to_string())),
                }
                rest = after;
            } else {
                let after = rest.strip_prefix('[')?;
                if let Some(quoted) = after.strip_prefix('\'') {
                    let end = quoted.find('\'')?;
                    steps.push(Step::Name(quoted[..end].to_string()));
                    rest = quoted[end + 1..].strip_prefix(']')?;
                } else {
                    let end = after.find(']')?;
                    steps.push(match &after[..end] {
                        "*" => Step::All,
                        digits => Step::Index(digits.trim().parse().ok()?),
                    });
                    rest = &after[end + 1..];
                }
            }
        }
        Some(Self(steps))
    }

    fn find(&self, json: &Json) -> Option<String> {
        let mut found = Vec::new();
        let mut several = false;
        walk(json, &self.0, &mut found, &mut several);
        let shown = |json: &Json| match json {
            Json::String(text) => text.clone(),
            other => other.to_string(),
        };
        match found.as_slice() {
            [] => None,
            [one] if !several => match one {
                Json::Null => None,
                one => Some(shown(one)),
            },
            [one] => Some(one.to_string()),
            many => {
                Some(Json::Array(many.iter().map(|json| (*json).clone()).collect()).to_string())
            }
        }
    }
}

fn walk<'j>(json: &'j Json, steps: &[Step], found: &mut Vec<&'j Json>, several: &mut bool) {
    let Some((step, rest)) = steps.split_first() else {
        found.push(json);
        return;
    };
    match (step, json) {
        (Step::Name(name), Json::Object(object)) => {
            if let Some(below) = object.get(name) {
                walk(below, rest, found, several);
            }
        }
        // A name of an array is the name in each of its objects.
        (Step::Name(_), Json::Array(items)) => {
            items.iter().for_each(|item| walk(item, steps, found, several));
        }
        (Step::Index(index), Json::Array(items)) => {
            if let Some(below) = items.get(*index) {
                walk(below, rest, found, several);
            }
        }
        (Step::All, Json::Array(items)) => {
            *several = true;
            items.iter().for_each(|item| walk(item, rest, found, several));
        }
        _ => {}
    }
}

/// `json_tuple(text, 'a', 'b')` as a struct of texts, for the generator of that name.
pub fn tuple(args: Vec<Resolved>) -> PlanResult<Vec<Resolved>> {
    let mut args = args.into_iter();
    let Some(json) = args.next() else { return Ok(Vec::new()) };
    args.map(|name| {
        let path = match name.literal_text() {
            Some(name) => Resolved::literal(Value::String(format!("$['{name}']")), T::String),
            None => return Err(PlanError::not_yet("json_tuple with names that are no constants")),
        };
        super::resolve("get_json_object", vec![json.clone(), path])
    })
    .collect()
}
