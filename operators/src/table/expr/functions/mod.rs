//! The registry of scalar functions and operators: for each, how its arguments are resolved and
//! how it is compiled.

mod array;
mod compare;
mod condition;
mod math;
mod string;

use super::compile::Compiled;
use super::resolve::distance;
use super::{Node, Resolved};
use crate::table::error::{PlanError, PlanResult};
use crate::table::types::DataType;
use crate::table::value::Value;
pub use compare::{is_null, order_doubles};

/// How a function is compiled: its compiled arguments, what they were, and the result type.
type Compile = fn(Vec<Compiled>, &[Resolved], &DataType) -> Compiled;
/// What resolution gives: arguments brought to the right types, result type, nullability.
type Typed = (Vec<Resolved>, DataType, bool);

/// A registered function.
pub struct Function {
    /// Its lower-case name.
    pub name: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// Fewest and most arguments.
    arity: (usize, usize),
    resolve: fn(&str, Vec<Resolved>) -> PlanResult<Typed>,
    compile: Compile,
}

const fn function(
    name: &'static str,
    help: &'static str,
    arity: (usize, usize),
    resolve: fn(&str, Vec<Resolved>) -> PlanResult<Typed>,
    compile: Compile,
) -> Function {
    Function { name, help, arity, resolve, compile }
}

const MANY: usize = usize::MAX;

fn tables() -> [&'static [Function]; 5] {
    [math::FUNCTIONS, compare::FUNCTIONS, condition::FUNCTIONS, string::FUNCTIONS, array::FUNCTIONS]
}

/// Every registered function.
pub fn all() -> impl Iterator<Item = &'static Function> {
    tables().into_iter().flatten()
}

/// Whether a name is written between its two operands.
pub fn is_operator(name: &str) -> bool {
    matches!(
        name,
        "+" | "-"
            | "*"
            | "/"
            | "%"
            | "div"
            | "="
            | "<>"
            | "<"
            | "<="
            | ">"
            | ">="
            | "<=>"
            | "and"
            | "or"
    )
}

/// Functions that Spark has and this version has not: refused as such, not as unknown.
const LATER: [&str; 92] = [
    "acos",
    "add_months",
    "array_contains",
    "array_distinct",
    "array_except",
    "array_intersect",
    "array_join",
    "array_max",
    "array_min",
    "array_position",
    "array_remove",
    "array_repeat",
    "array_sort",
    "array_union",
    "arrays_overlap",
    "arrays_zip",
    "ascii",
    "asin",
    "atan",
    "base64",
    "bin",
    "cbrt",
    "char",
    "chr",
    "conv",
    "cos",
    "crc32",
    "current_date",
    "current_timestamp",
    "date_add",
    "date_diff",
    "date_format",
    "date_sub",
    "date_trunc",
    "datediff",
    "day",
    "dayofmonth",
    "dayofweek",
    "dayofyear",
    "decode",
    "encode",
    "exp",
    "filter",
    "flatten",
    "format_number",
    "format_string",
    "from_json",
    "from_unixtime",
    "get_json_object",
    "hash",
    "hex",
    "hour",
    "inline",
    "instr",
    "json_tuple",
    "last_day",
    "levenshtein",
    "ln",
    "locate",
    "log",
    "log10",
    "make_timestamp",
    "map_keys",
    "map_values",
    "md5",
    "minute",
    "month",
    "named_struct",
    "now",
    "posexplode",
    "pow",
    "power",
    "quarter",
    "rand",
    "regexp_extract",
    "regexp_replace",
    "repeat",
    "rlike",
    "second",
    "sequence",
    "sha2",
    "shiftleft",
    "sin",
    "slice",
    "sort_array",
    "struct",
    "substring_index",
    "to_date",
    "to_json",
    "to_timestamp",
    "translate",
    "uuid",
];
const LATER_TIME: [&str; 14] = [
    "timestamp_micros",
    "timestamp_millis",
    "timestamp_seconds",
    "transform",
    "try_to_timestamp",
    "unbase64",
    "unhex",
    "unix_micros",
    "unix_millis",
    "unix_timestamp",
    "weekday",
    "weekofyear",
    "xxhash64",
    "year",
];

fn find(name: &str) -> PlanResult<&'static Function> {
    let lower = name.to_ascii_lowercase();
    let canonical = match lower.as_str() {
        "ucase" => "upper",
        "lcase" => "lower",
        "char_length" | "character_length" | "len" => "length",
        "substr" => "substring",
        "||" => "concat",
        "mod" => "%",
        "==" => "=",
        "!=" => "<>",
        "cardinality" => "size",
        "ceiling" => "ceil",
        "signum" => "sign",
        "ifnull" | "nvl" => "coalesce",
        other => other,
    };
    all().find(|f| f.name == canonical).ok_or_else(|| {
        if LATER.contains(&canonical) || LATER_TIME.contains(&canonical) {
            return PlanError::not_yet(format_args!("the function `{canonical}`"));
        }
        let mut near: Vec<_> = all()
            .filter(|f| f.name.chars().all(char::is_alphanumeric))
            .map(|f| (distance(&lower, f.name), f.name))
            .collect();
        near.sort_unstable();
        let near: Vec<_> = near.iter().take(3).map(|(_, name)| format!("`{name}`")).collect();
        PlanError::new(
            "UNRESOLVED_ROUTINE",
            format!("there is no function `{name}`"),
            format!("Near names: {}. `millstream functions` lists all", near.join(", ")),
        )
    })
}

/// Resolves a call of any name.
pub fn resolve(name: &str, args: Vec<Resolved>) -> PlanResult<Resolved> {
    let function = find(name)?;
    let (least, most) = function.arity;
    if args.len() < least || args.len() > most {
        let wanted = match (least, most) {
            (a, b) if a == b => a.to_string(),
            (a, MANY) => format!("at least {a}"),
            (a, b) => format!("{a} to {b}"),
        };
        return Err(PlanError::new(
            "WRONG_NUM_ARGS.WITHOUT_SUGGESTION",
            format!("`{}` takes {wanted} arguments, but has {}", function.name, args.len()),
            function.help,
        ));
    }
    let (args, data_type, nullable) = (function.resolve)(function.name, args)?;
    Ok(Resolved { node: Node::Call(function.name, args), data_type, nullable })
}

/// Compiles a resolved call.
pub fn compile(name: &str, args: Vec<Compiled>, exprs: &[Resolved], to: &DataType) -> Compiled {
    match all().find(|f| f.name == name) {
        Some(function) => (function.compile)(args, exprs, to),
        None => unreachable!("resolved functions are registered"),
    }
}

/// A field of a struct, or of every struct of an array.
pub fn field_of(of: Resolved, field: &str) -> PlanResult<Resolved> {
    let DataType::Struct(fields) = &of.data_type else {
        return Err(PlanError::new(
            "INVALID_EXTRACT_BASE_FIELD_TYPE",
            format!("`{of}` is {}, which has no fields", of.data_type),
            "",
        ));
    };
    let Some(index) = fields.iter().position(|f| f.name.eq_ignore_ascii_case(field)) else {
        let names: Vec<_> = fields.iter().map(|f| format!("`{}`", f.name)).collect();
        return Err(PlanError::new(
            "FIELD_NOT_FOUND",
            format!("`{of}` has no field `{field}`"),
            format!("Its fields: {}", names.join(", ")),
        ));
    };
    let (data_type, nullable) =
        (fields[index].data_type.clone(), of.nullable || fields[index].nullable);
    let index = Resolved::literal(Value::Long(index as i64), DataType::Int);
    Ok(Resolved { node: Node::Call("getfield", vec![of, index]), data_type, nullable })
}

fn any_nullable(args: &[Resolved]) -> bool {
    args.iter().any(|arg| arg.nullable)
}

/// Resolution for functions whose arguments all have the given types.
fn expect(name: &str, args: Vec<Resolved>, types: &[DataType]) -> PlanResult<Vec<Resolved>> {
    args.into_iter()
        .zip(types.iter().chain(std::iter::repeat(types.last().unwrap_or(&DataType::String))))
        .map(|(arg, to)| super::resolve::expect_type(arg, to, &format!("`{name}`")))
        .collect()
}

fn take<const N: usize>(args: Vec<Compiled>) -> [Compiled; N] {
    match <[Compiled; N]>::try_from(args) {
        Ok(args) => args,
        Err(_) => unreachable!("resolution counted the arguments"),
    }
}
