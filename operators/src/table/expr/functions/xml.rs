//! The SQL functions on XML text.

use super::json::{check_mode, options_of, schema_of, write_schema};
use super::registry::{
    Call, Function, Typed, called, constant_text, nullable_cells, text_or_null, unexpected,
};
use crate::table::datetime::Tz;
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::Resolved;
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{Compiled, failed, from_cells, text_in};
use crate::table::expr::type_rules::Rules;
use crate::table::row::RowWriter;
use crate::table::text::xml::{
    Inference, Malformed, ReadOptions, RecordReader, Unwritable, WriteOptions, Writer,
};
use crate::table::types::{DataType, Field, Schema};
use crate::table::value::Value;
use bumpalo::collections::Vec as BumpVec;
use std::cell::RefCell;

use DataType as T;

const MALFORMED: &str = "MALFORMED_RECORD_IN_PARSING.WITHOUT_SUGGESTION";

pub(super) static FUNCTIONS: &[Function] = &[
    called(
        "from_xml",
        "from_xml(text, 'a INT, b STRING'[, options]): a struct; NULL for what is not of its type",
        (2, 3),
        from_xml,
        compile_from_xml,
    )
    .usage("4.0.0", "from_xml('<p><a>1</a><b>x</b></p>', 'a INT, b STRING')", "{1, x}"),
    nullable_cells(
        "schema_of_xml",
        "schema_of_xml(constant text[, options]): its columns as a schema",
        (1, 2),
        resolve_schema_of,
        |_, call, arena| {
            let written = call.args.first().and_then(Resolved::literal_text).unwrap_or_default();
            let options = options_of(call.args.get(1)).unwrap_or_default();
            let mut text = String::new();
            if let Ok(schema) = inferred(written, &options) {
                write_schema(&schema, &mut text);
            }
            Ok(Cell::Bytes(arena.alloc_slice_copy(text.as_bytes())))
        },
    )
    .usage("4.0.0", "schema_of_xml('<p><a>1</a></p>')", "STRUCT<a: BIGINT>"),
    called(
        "to_xml",
        "to_xml(struct[, options]): as an element, NULL fields left out",
        (1, 2),
        to_xml,
        compile_to_xml,
    )
    .usage("4.0.0", "to_xml(named_struct('_a', 1))", r#"<ROW a="1"/>"#),
];

type Options = Vec<(String, String)>;

fn get(options: &Options, name: &str) -> Option<String> {
    let found = options.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.clone())
}

fn read_options(options: &Options, zone: Tz) -> PlanResult<ReadOptions> {
    ReadOptions::read(&mut |name| get(options, name), zone)
}

fn is_fail_fast(options: &Options) -> bool {
    get(options, "mode").is_some_and(|mode| mode.eq_ignore_ascii_case("FAILFAST"))
}

fn corrupt_column(options: &Options, default: &str) -> String {
    get(options, "columnNameOfCorruptRecord").unwrap_or_else(|| default.to_string())
}

fn from_xml(name: &str, mut args: Vec<Resolved>) -> PlanResult<Typed> {
    const FIX: &str = "from_xml(value, 'a INT, b STRING')";
    // The argument may also be a call of schema_of_xml.
    let Ok(Some(written)) = constant_text(name, &args[1]) else {
        return Err(PlanError::new(
            "INVALID_SCHEMA.NON_STRING_LITERAL",
            format!("the schema of `{name}` must be a constant, but is `{}`", args[1]),
            FIX,
        ));
    };
    let T::Struct(mut fields) = type_of(&written)? else {
        return Err(PlanError::new(
            "DATATYPE_MISMATCH.INVALID_XML_SCHEMA",
            format!("the schema of `{name}` must be a struct, but is {written}"),
            FIX,
        ));
    };
    fields.iter_mut().for_each(|field| {
        field.nullable = true;
        super::bad_record::all_nullable(&mut field.data_type);
    });
    fields.iter().try_for_each(|field| check_type(name, &field.data_type))?;
    let options = options_of(args.get(2))?;
    read_options(&options, Tz::UTC)?;
    check_mode(name, get(&options, "mode").as_deref())?;
    let corrupt = corrupt_column(&options, Rules::current().corrupt_column);
    if fields.iter().any(|f| f.name == corrupt && f.data_type != T::String) {
        return Err(PlanError::new(
            "INVALID_CORRUPT_RECORD_TYPE",
            format!("`{corrupt}` holds bad records and must be STRING"),
            "Make it STRING, or name another field with columnNameOfCorruptRecord",
        ));
    }
    args[0] = text_or_null(name, args[0].clone())?;
    Ok(Typed::new(args, T::Struct(fields), true))
}

/// Parses a schema. A single word is a type, such as `INT`, and no list of columns.
fn type_of(written: &str) -> PlanResult<DataType> {
    schema_of(written).or_else(|error| {
        let column = Schema::parse_ddl(&format!("t {written}"));
        let only = column.ok().filter(|schema| schema.fields.len() == 1);
        only.and_then(|schema| schema.fields.into_iter().next()).map(|f| f.data_type).ok_or(error)
    })
}

/// Refuses a MAP whose keys are not STRING, and VARIANT.
fn check_type(name: &str, data_type: &DataType) -> PlanResult<()> {
    match data_type {
        T::Map(key, _) if **key != T::String => Err(PlanError::new(
            "DATATYPE_MISMATCH.INVALID_XML_MAP_KEY_TYPE",
            format!("the keys of a map that `{name}` reads must be STRING, but are {key}"),
            "MAP<STRING, INT>",
        )),
        T::Map(_, of) | T::Array(of) => check_type(name, of),
        T::Struct(fields) => fields.iter().try_for_each(|field| check_type(name, &field.data_type)),
        T::Variant => Err(PlanError::not_yet(format_args!("VARIANT in the schema of `{name}`"))),
        _ => Ok(()),
    }
}

fn compile_from_xml(args: Vec<Compiled>, call: Call) -> Compiled {
    let options = options_of(call.args.get(2)).unwrap_or_default();
    let T::Struct(fields) = &call.to else { unreachable!("resolved so") };
    let corrupt = corrupt_column(&options, call.semantics.corrupt_column);
    let corrupt = fields.iter().position(|f| f.name == corrupt && f.data_type == T::String);
    let fails = is_fail_fast(&options);
    let width = fields.len();
    let Ok(mut read) = read_options(&options, call.semantics.zone) else {
        unreachable!("resolution has read the options")
    };
    read.set_binary(call.semantics.binary_style);
    let reader = RecordReader::new(read, fields.clone(), corrupt);
    let Some(xml) = args.into_iter().next() else { unreachable!("counted") };
    let xml = xml.bytes();
    from_cells(call.to.physical(), move |cx| {
        let Some(record) = xml(cx)? else { return Ok(Cell::Null) };
        let record = text_in(record, cx.arena);
        let mut out = BumpVec::with_capacity_in(record.len() + 16 * width, cx.arena);
        let mut writer = RowWriter::new(&mut out, width);
        if reader.read(record, cx.arena, &mut writer).is_err() {
            if fails {
                return failed(
                    MALFORMED,
                    format!("'{record}' is not XML or does not match the schema"),
                    "Use the mode PERMISSIVE to get NULL instead",
                );
            }
            if let Some(at) = corrupt {
                writer.bytes(at, record.as_bytes());
            }
        }
        Ok(Cell::Bytes(out.into_bump_slice()))
    })
}

fn resolve_schema_of(name: &str, mut args: Vec<Resolved>) -> PlanResult<Typed> {
    let Some(written) = constant_text(name, &args[0])? else {
        return Err(PlanError::new(
            "DATATYPE_MISMATCH.UNEXPECTED_NULL",
            format!("`{name}` needs a text that is not NULL, but has `{}`", args[0]),
            "schema_of_xml('<p><a>1</a></p>')",
        ));
    };
    inferred(&written, &options_of(args.get(1))?)?;
    args[0] = Resolved::literal(Value::String(written), T::String);
    Ok(Typed::new(args, T::String, false))
}

/// The inferred schema of a text.
fn inferred(written: &str, options: &Options) -> PlanResult<DataType> {
    let read = read_options(options, Tz::UTC)?;
    check_mode("schema_of_xml", get(options, "mode").as_deref())?;
    let inference = Inference::new(read, Rules::current().timestamps_without_zone);
    match inference.of(written) {
        Ok(fields) => Ok(T::Struct(fields)),
        Err(Malformed) if is_fail_fast(options) => Err(PlanError::new(
            MALFORMED,
            format!("`schema_of_xml`: '{written}' is not XML"),
            "Use a text that is well-formed XML",
        )),
        Err(Malformed) => {
            let corrupt = corrupt_column(options, "_corrupt_record");
            Ok(T::Struct(vec![Field::new(corrupt, T::String, true)]))
        }
    }
}

fn write_options(options: &Options, zone: Tz) -> PlanResult<WriteOptions> {
    WriteOptions::read(&mut |name| get(options, name), zone)
}

fn to_xml(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let options = options_of(args.get(1))?;
    write_options(&options, Tz::UTC)?;
    match &args[0].data_type {
        T::Null => {}
        T::Struct(_) if args[0].data_type.has_variant() => {
            return Err(PlanError::not_yet(format_args!("VARIANT in `{name}`")));
        }
        T::Struct(fields) => fields.iter().try_for_each(|field| check_written(name, field))?,
        _ => return Err(unexpected(name, "a STRUCT", &args[0])),
    }
    Ok(Typed::new(args, T::String, true))
}

/// Refuses intervals, which XML has no text for.
fn check_written(name: &str, field: &Field) -> PlanResult<()> {
    let mut data_type = &field.data_type;
    while let T::Array(of) | T::Map(_, of) = data_type {
        data_type = of;
    }
    match data_type {
        T::Struct(fields) => fields.iter().try_for_each(|field| check_written(name, field)),
        interval if interval.is_interval() || *interval == T::CalendarInterval => {
            Err(PlanError::new(
                "UNSUPPORTED_DATATYPE",
                format!("`{name}` cannot write `{}`, which is {interval}", field.name),
                "Cast it to STRING",
            ))
        }
        _ => Ok(()),
    }
}

fn compile_to_xml(args: Vec<Compiled>, call: Call) -> Compiled {
    let options = options_of(call.args.get(1)).unwrap_or_default();
    let Ok(mut write) = write_options(&options, call.semantics.zone) else {
        unreachable!("resolution has read the options")
    };
    write.set_binary(call.semantics.binary_style);
    let writer = RefCell::new(Writer::new(write));
    let data_type = call.args[0].data_type.clone();
    let Some(of) = args.into_iter().next() else { unreachable!("counted") };
    let of = of.cells();
    from_cells(T::String.physical(), move |cx| {
        let Cell::Bytes(bytes) = of(cx)? else { return Ok(Cell::Null) };
        let mut writer = writer.borrow_mut();
        match writer.row(&Value::from_bytes(bytes, &data_type), &data_type) {
            Ok(text) => Ok(Cell::Bytes(cx.arena.alloc_slice_copy(text.as_bytes()))),
            Err(Unwritable::Name(name)) => {
                failed("XML_NAME_INVALID", format!("'{name}' is no name of XML"), "Rename it")
            }
            Err(Unwritable::Char(c)) => failed(
                "XML_CHARACTER_INVALID",
                format!("XML has no character U+{:04X}", u32::from(c)),
                "Remove it with translate or regexp_replace",
            ),
        }
    })
}
