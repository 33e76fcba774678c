//! The SQL functions on CSV text.

use super::json::{check_mode, options_of, schema_of};
use super::registry::{
    Call, Function, Typed, called, constant_text, nullable_cells, text_or_null, unexpected,
};
use crate::table::datetime::Tz;
use crate::table::datetime::pattern::Direction;
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{Compiled, Semantics, failed, fold, from_cells};
use crate::table::expr::type_rules::Rules;
use crate::table::expr::{Node, Resolved};
use crate::table::row::RowWriter;
use crate::table::text::csv::{Column, Fault, Inference, ReadOptions, RecordReader, WriteOptions};
use crate::table::text::notation::Notation;
use crate::table::types::DataType;
use crate::table::value::Value;
use bumpalo::collections::Vec as BumpVec;
use std::cell::RefCell;
use std::fmt::Write;

use DataType as T;

/// The line separator of the parser: a Unicode noncharacter, which ordinary text does not contain.
/// So the whole text is one record.
const NO_LINE_END: &str = "\u{FFFF}";

pub(super) static FUNCTIONS: &[Function] = &[
    called(
        "from_csv",
        "from_csv(text, 'a INT, b STRING'[, options]): a struct; NULL for what is not of its type",
        (2, 3),
        from_csv,
        compile_from_csv,
    )
    .usage("3.0.0", "from_csv('1,x', 'a INT, b STRING')", "{1, x}"),
    nullable_cells(
        "schema_of_csv",
        "schema_of_csv(constant text[, options]): its columns as a schema",
        (1, 2),
        resolve_schema_of,
        |_, call, arena| {
            let written = call.args.first().and_then(Resolved::literal_text).unwrap_or_default();
            let text = inferred(written, &options_of(call.args.get(1)).unwrap_or_default());
            Ok(Cell::Bytes(arena.alloc_slice_copy(text.unwrap_or_default().as_bytes())))
        },
    )
    .usage("3.0.0", "schema_of_csv('1,x')", "STRUCT<_c0: INT, _c1: STRING>"),
    called(
        "to_csv",
        "to_csv(struct[, options]): as a record of CSV",
        (1, 2),
        to_csv,
        compile_to_csv,
    )
    .usage("3.0.0", "to_csv(named_struct('a', 1, 'b', 'x, y'))", r#"1,"x, y""#),
];

type Options = Vec<(String, String)>;

fn get(options: &Options, name: &str) -> Option<String> {
    let found = options.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.clone())
}

fn read_options(options: &Options, zone: Tz) -> PlanResult<ReadOptions> {
    let mut given = |name: &'static str| match name {
        "lineSep" => Some(NO_LINE_END.to_string()),
        "multiLine" => None,
        name => get(options, name),
    };
    ReadOptions::read(&mut given, zone)
}

fn from_csv(name: &str, mut args: Vec<Resolved>) -> PlanResult<Typed> {
    let Some(written) = schema_text(&args[1])? else {
        return Err(PlanError::new(
            "INVALID_SCHEMA.NON_STRING_LITERAL",
            format!("the schema of `{name}` must be a constant, but is `{}`", args[1]),
            "from_csv(value, 'a INT, b STRING')",
        ));
    };
    let T::Struct(mut fields) = schema_of(&written)? else {
        return Err(PlanError::new(
            "INVALID_SCHEMA.NON_STRUCT_TYPE",
            format!("the schema of `{name}` must be a struct, but is {written}"),
            "from_csv(value, 'a INT, b STRING')",
        ));
    };
    fields.iter_mut().for_each(|field| field.nullable = true);
    if let Some(field) = fields.iter().find(|field| field.data_type.has_parts()) {
        return Err(PlanError::new(
            "UNSUPPORTED_DATATYPE",
            format!("CSV cannot hold `{}`, which is {}", field.name, field.data_type),
            "Use from_json",
        ));
    }
    let options = options_of(args.get(2))?;
    read_options(&options, Tz::UTC)?;
    check_mode(name, get(&options, "mode").as_deref())?;
    let corrupt = get(&options, "columnNameOfCorruptRecord");
    let corrupt = corrupt.as_deref().unwrap_or(Rules::current().corrupt_column);
    if fields.iter().any(|f| f.name == corrupt && f.data_type != T::String) {
        return Err(PlanError::new(
            "INVALID_CORRUPT_RECORD_TYPE",
            format!("`{corrupt}` holds bad records and must be STRING"),
            "",
        ));
    }
    args[0] = text_or_null(name, args[0].clone())?;
    Ok(Typed::new(args, T::Struct(fields), true))
}

/// The schema text in a constant argument. The argument may also be a call of `schema_of_csv`.
fn schema_text(arg: &Resolved) -> PlanResult<Option<String>> {
    match &arg.node {
        Node::Call("schema_of_csv", args) => {
            let Some(written) = args.first().and_then(Resolved::literal_text) else {
                return Ok(None);
            };
            inferred(written, &options_of(args.get(1))?).map(Some)
        }
        _ => Ok(constant_text("from_csv", arg).ok().flatten()),
    }
}

fn compile_from_csv(args: Vec<Compiled>, call: Call) -> Compiled {
    let options = options_of(call.args.get(2)).unwrap_or_default();
    let T::Struct(fields) = &call.to else { unreachable!("resolved so") };
    let corrupt_name = get(&options, "columnNameOfCorruptRecord");
    let corrupt_name = corrupt_name.as_deref().unwrap_or(call.semantics.corrupt_column);
    let corrupt = fields.iter().position(|f| f.name == corrupt_name && f.data_type == T::String);
    let fails = get(&options, "mode").is_some_and(|mode| mode.eq_ignore_ascii_case("FAILFAST"));
    let columns = fields.iter().enumerate().filter(|(i, _)| Some(*i) != corrupt);
    let columns = columns
        .map(|(index, f)| Column { index, data_type: f.data_type.clone(), wanted: true })
        .collect();
    let width = fields.len();
    let Ok(read) = read_options(&options, call.semantics.zone) else {
        unreachable!("resolution has read the options")
    };
    let records = RefCell::new(RecordReader::new(&read, columns));
    let Some(csv) = args.into_iter().next() else { unreachable!("counted") };
    let csv = csv.bytes();
    from_cells(call.to.physical(), move |cx| {
        let Some(record) = csv(cx)? else { return Ok(Cell::Null) };
        let mut out = BumpVec::with_capacity_in(record.len() + 16 * width, cx.arena);
        let mut writer = RowWriter::new(&mut out, width);
        match records.borrow_mut().read(record, &mut writer) {
            Ok(()) => {}
            Err(Fault::Broken(reason)) => {
                return failed("MALFORMED_CSV_RECORD", reason.to_string(), "Fix the text");
            }
            Err(Fault::Misfit(reason)) if fails => {
                return failed(
                    "MALFORMED_RECORD_IN_PARSING.WITHOUT_SUGGESTION",
                    format!("'{}': {reason}", String::from_utf8_lossy(record)),
                    "Use the mode PERMISSIVE to get NULL instead",
                );
            }
            Err(Fault::Misfit(_)) => {
                // An empty text is not stored in the corrupt record column.
                if let Some(at) = corrupt.filter(|_| !record.is_empty()) {
                    writer.bytes(at, record);
                }
            }
        }
        Ok(Cell::Bytes(out.into_bump_slice()))
    })
}

fn resolve_schema_of(name: &str, mut args: Vec<Resolved>) -> PlanResult<Typed> {
    args[0] = fold(args[0].clone(), Semantics::default());
    let wrong = |condition, what: &str| {
        PlanError::new(condition, format!("`{name}` needs {what}"), "schema_of_csv('1,abc')")
    };
    let Some(written) = args[0].literal_text() else {
        return Err(match args[0].data_type {
            T::Null => wrong("DATATYPE_MISMATCH.UNEXPECTED_NULL", "a text, not NULL"),
            T::String => wrong("DATATYPE_MISMATCH.NON_FOLDABLE_INPUT", "a constant text"),
            _ => unexpected(name, "a STRING", &args[0]),
        });
    };
    inferred(written, &options_of(args.get(1))?)?;
    Ok(Typed::new(args, T::String, false))
}

/// The inferred schema of a text as DDL, such as `STRUCT<_c0: INT>`.
fn inferred(written: &str, options: &Options) -> PlanResult<String> {
    let read = read_options(options, Tz::UTC)?;
    let date_format = get(options, "dateFormat");
    let mut inference = Inference::new(&read, date_format.as_deref())
        .with_times_without_zone(Rules::current().timestamps_without_zone);
    let malformed = |_| {
        let reason = format!("'{written}' has more fields than maxColumns allows");
        PlanError::new("MALFORMED_CSV_RECORD", reason, "")
    };
    inference.begin(written.as_bytes(), false).map_err(malformed)?;
    if !inference.has_columns() {
        return Err(PlanError::new(
            "MALFORMED_CSV_RECORD",
            format!("'{written}' is not a CSV record"),
            "schema_of_csv('1,abc')",
        ));
    }
    inference.see(written.as_bytes()).map_err(malformed)?;
    let mut text = "STRUCT<".to_string();
    for (i, field) in inference.finish().fields.iter().enumerate() {
        // Writing to a string does not fail.
        let _ =
            write!(text, "{}{}: {}", if i > 0 { ", " } else { "" }, field.name, field.data_type);
    }
    text.push('>');
    Ok(text)
}

fn write_options(options: &Options) -> PlanResult<WriteOptions> {
    WriteOptions::read(&mut |name| get(options, name))
}

fn write_notation(options: &Options, zone: Tz) -> PlanResult<Notation> {
    Notation::with_options(&mut |name| get(options, name), Direction::Write, zone)
}

fn to_csv(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let options = options_of(args.get(1))?;
    write_options(&options)?;
    write_notation(&options, Tz::UTC)?;
    let is_written = matches!(args[0].data_type, T::Struct(_)) && !args[0].data_type.has_variant();
    if !is_written {
        return Err(PlanError::new(
            "DATATYPE_MISMATCH.UNSUPPORTED_INPUT_TYPE",
            format!(
                "`{name}` needs a struct without VARIANT, but `{}` is {}",
                args[0], args[0].data_type
            ),
            "to_csv(struct(a, b))",
        ));
    }
    Ok(Typed::new(args, T::String, true))
}

fn compile_to_csv(args: Vec<Compiled>, call: Call) -> Compiled {
    let options = options_of(call.args.get(1)).unwrap_or_default();
    let csv = write_options(&options).unwrap_or_default();
    let notation = write_notation(&options, call.semantics.zone).unwrap_or_default();
    let notation = Notation { binary: call.semantics.binary_style, ..notation };
    let data_type = call.args[0].data_type.clone();
    let T::Struct(fields) = data_type.clone() else { unreachable!("resolved so") };
    let Some(of) = args.into_iter().next() else { unreachable!("counted") };
    let of = of.bytes();
    from_cells(T::String.physical(), move |cx| {
        let Some(bytes) = of(cx)? else { return Ok(Cell::Null) };
        let Value::Struct(values) = Value::from_bytes(bytes, &data_type) else {
            return Ok(Cell::Null);
        };
        let (mut out, mut scratch) = (Vec::new(), String::new());
        for (i, (value, field)) in values.iter().zip(&fields).enumerate() {
            if i > 0 {
                csv.separate(&mut out);
            }
            if *value == Value::Null {
                csv.null(i == 0, &mut out);
                continue;
            }
            scratch.clear();
            // Writing to a string does not fail.
            let _ = notation.write_csv(value, &field.data_type, &mut scratch);
            csv.field(scratch.as_bytes(), i == 0, &mut out);
        }
        // As in Spark, a record without a character is NULL.
        match out.is_empty() {
            true => Ok(Cell::Null),
            false => Ok(Cell::Bytes(cx.arena.alloc_slice_copy(&out))),
        }
    })
}
