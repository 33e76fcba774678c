//! The registry of scalar functions and operators: for each, how its arguments are resolved and
//! how it is compiled.

mod aliases;
mod array;
mod canonical_value;
mod charset;
mod compare;
mod condition;
mod csv;
mod hash;
mod json;
mod lambda;
mod levenshtein;
mod like;
mod like_search;
mod map;
mod mask;
mod math;
mod number;
mod number_format;
mod printf;
mod random;
mod regexp;
mod rounding;
mod split;
mod strict_math;
mod string;
mod string_rare;
mod substring;
mod time;
mod to_char;
mod url;
mod value_index;

pub(crate) use charset::type_name;
pub use time::of_word as time_of_word;
mod window;

use super::cell::Cell;
use super::coercion;
use super::compile::{
    Compiled, EvalError, LONG_BYTES, Semantics, bounded_record, from_cells, text_in,
};
use super::resolve::distance;
use super::{Node, Resolved, lower};
use crate::table::error::{PlanError, PlanResult};
pub use crate::table::expr::functions::aliases::documented;
use crate::table::expr::functions::aliases::{cast_of, operator_of};
pub use crate::table::expr::functions::canonical_value::{
    as_grouping_key, canonical_double, canonicalized, order as order_values,
};
use crate::table::expr::type_rules::Rules;
use crate::table::types::DataType;
use crate::table::value::Value;
use bumpalo::Bump;
pub use compare::{is_null, order_doubles};
pub use hash::xxhash64;
pub use json::tuple as json_tuple;
pub use lambda::{resolve_lambda, takes_lambda};
pub use random::with_seeds;
pub use split::Splitter;
use std::collections::HashMap;
use std::sync::OnceLock;

/// How a function is compiled: its compiled arguments, what they were, and the result type.
type Compile = fn(Vec<Compiled>, &[Resolved], &DataType) -> Compiled;
/// The same, where more than the types matters.
type CompileCall = fn(Vec<Compiled>, Call) -> Compiled;
/// A function of values of any kind.
type EvalCells = for<'a> fn(&[Cell<'a>], &Call, &'a Bump) -> Result<Cell<'a>, Box<EvalError>>;

/// A call of a function, as it is compiled.
pub struct Call {
    /// The function's name.
    pub name: &'static str,
    /// Its arguments' expressions.
    pub args: Vec<Resolved>,
    /// The result's type.
    pub to: DataType,
    /// Time zone and ANSI mode.
    pub semantics: Semantics,
}

impl Call {
    /// The type of an argument.
    fn data_type(&self, index: usize) -> &DataType {
        &self.args[index].data_type
    }

    /// The type of the elements of an argument that is an array, or of the result.
    fn element(&self, index: usize) -> &DataType {
        element_of(self.data_type(index))
    }

    /// The constant text of an argument, if it is one.
    fn text(&self, index: usize) -> Option<&str> {
        self.args.get(index).and_then(Resolved::literal_text)
    }
}

/// The type of an array's elements; of another type, that type.
fn element_of(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Array(element) => element,
        other => other,
    }
}

enum Build {
    Typed(Compile),
    Called(CompileCall),
    /// NULL if any argument is.
    Cells(EvalCells),
    /// Looks at NULLs itself.
    CellsAndNulls(EvalCells),
}
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
    build: Build,
}

const fn function(
    name: &'static str,
    help: &'static str,
    arity: (usize, usize),
    resolve: fn(&str, Vec<Resolved>) -> PlanResult<Typed>,
    compile: Compile,
) -> Function {
    Function { name, help, arity, resolve, build: Build::Typed(compile) }
}

/// A function whose compilation depends on more than types.
const fn called(
    name: &'static str,
    help: &'static str,
    arity: (usize, usize),
    resolve: fn(&str, Vec<Resolved>) -> PlanResult<Typed>,
    compile: CompileCall,
) -> Function {
    Function { name, help, arity, resolve, build: Build::Called(compile) }
}

/// A function of values, NULL if any of them is.
const fn cells(
    name: &'static str,
    help: &'static str,
    arity: (usize, usize),
    resolve: fn(&str, Vec<Resolved>) -> PlanResult<Typed>,
    eval: EvalCells,
) -> Function {
    Function { name, help, arity, resolve, build: Build::Cells(eval) }
}

/// A function of values that looks at NULLs itself.
const fn nullable_cells(
    name: &'static str,
    help: &'static str,
    arity: (usize, usize),
    resolve: fn(&str, Vec<Resolved>) -> PlanResult<Typed>,
    eval: EvalCells,
) -> Function {
    Function { name, help, arity, resolve, build: Build::CellsAndNulls(eval) }
}

const MANY: usize = usize::MAX;

fn tables() -> [&'static [Function]; 25] {
    [
        math::FUNCTIONS,
        number::FUNCTIONS,
        rounding::FUNCTIONS,
        compare::FUNCTIONS,
        condition::FUNCTIONS,
        string::FUNCTIONS,
        like::FUNCTIONS,
        split::FUNCTIONS,
        string_rare::FUNCTIONS,
        substring::FUNCTIONS,
        charset::FUNCTIONS,
        regexp::FUNCTIONS,
        time::FUNCTIONS,
        array::FUNCTIONS,
        map::FUNCTIONS,
        lambda::FUNCTIONS,
        json::FUNCTIONS,
        csv::FUNCTIONS,
        hash::FUNCTIONS,
        window::FUNCTIONS,
        canonical_value::FUNCTIONS,
        random::FUNCTIONS,
        mask::FUNCTIONS,
        to_char::FUNCTIONS,
        url::FUNCTIONS,
    ]
}

/// A registered function by its canonical name.
fn registered(name: &str) -> Option<&'static Function> {
    static BY_NAME: OnceLock<HashMap<&'static str, &'static Function>> = OnceLock::new();
    // Of two functions with one name the first one counts.
    let by_name = || all().map(|f| (f.name, f)).collect::<Vec<_>>().into_iter().rev().collect();
    BY_NAME.get_or_init(by_name).get(name).copied()
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
            | "&"
            | "|"
            | "^"
    )
}

pub use math::wrapping;

/// Functions that Spark has and this version has not: refused as such, not as unknown.
const LATER: [&str; 4] = ["from_xml", "map_zip_with", "parse_json", "schema_of_json"];

fn find(name: &str) -> PlanResult<&'static Function> {
    static ALIASES: OnceLock<HashMap<&'static str, &'static str>> = OnceLock::new();
    let aliases = ALIASES.get_or_init(|| aliases::ALIASES.iter().rev().copied().collect());
    let lower = lower(name);
    let canonical = aliases.get(&*lower).copied().unwrap_or(&lower);
    registered(canonical).ok_or_else(|| {
        if LATER.contains(&canonical) {
            return PlanError::not_yet(format_args!("the function `{canonical}`"));
        }
        let is_name = |name: &&str| name.chars().all(|c| c.is_alphanumeric() || c == '_');
        let aggregates =
            crate::table::plan::aggregate_function::NAMES.iter().map(|(name, ..)| *name);
        let mut near: Vec<_> = all()
            .map(|f| f.name)
            .chain(aggregates)
            .filter(is_name)
            .map(|known| (distance(&lower, known), known))
            .filter(|(off, _)| *off <= 2 || off * 3 <= lower.len())
            .collect();
        near.sort_unstable();
        let near: Vec<_> = near.iter().take(3).map(|(_, name)| format!("`{name}`")).collect();
        let near = match near.as_slice() {
            [] => String::new(),
            near => format!("Did you mean {}? ", near.join(" or ")),
        };
        PlanError::new(
            "UNRESOLVED_ROUTINE",
            format!("there is no function `{name}`"),
            format!("{near}`millstream functions` lists all"),
        )
    })
}

/// Refuses a name that no function has.
pub fn check_name(name: &str) -> PlanResult<()> {
    let lower = lower(name);
    let known = cast_of(&lower).is_some()
        || crate::table::plan::aggregate_function::AggregateFunction::of(&lower).is_some()
        || lower.strip_prefix("try_").is_some_and(|inner| operator_of(inner).is_some())
        || matches!(&*lower, "extract" | "date_part" | "datepart" | "grouping" | "grouping_id");
    if known { Ok(()) } else { find(&lower).map(drop) }
}

/// `x[…]` and its like where x is a map or a struct.
fn indexed(name: &str, args: &[Resolved]) -> Option<PlanResult<Resolved>> {
    let [of, key] = args else { return None };
    let name = lower(name);
    let by_key = matches!(&*name, "getitem" | "element_at" | "try_element_at");
    match (&of.data_type, key.literal_text()) {
        // In brackets a key is brought to the type of the map's, elsewhere both to a common one.
        (DataType::Map(of_key, _), _) if name == "getitem" => Some(
            coercion::expect_type(key.clone(), of_key, "a key")
                .and_then(|key| resolve("map_element", vec![of.clone(), key])),
        ),
        (DataType::Null, _) if by_key && name != "getitem" && key.data_type != DataType::Null => {
            Some(Err(unexpected(&name, "an array or a map", of)))
        }
        (DataType::Map(..), _) if by_key => Some(resolve("map_element", args.to_vec())),
        (DataType::Struct(_), Some(field)) if name == "getitem" => {
            Some(field_of(of.clone(), field))
        }
        _ => None,
    }
}

/// Resolves a call of any name.
pub fn resolve(name: &str, args: Vec<Resolved>) -> PlanResult<Resolved> {
    // `bigint(x)` is a cast, as in Spark.
    if let ([_], Some(to)) = (args.as_slice(), cast_of(name)) {
        let Some(arg) = args.into_iter().next() else { unreachable!("it was counted") };
        return super::resolve::cast(arg, &to, false);
    }
    let lower = lower(name);
    if let Some(inner) = lower.strip_prefix("try_").and_then(operator_of) {
        let (data_type, node) = {
            let inner = match resolve(inner, args) {
                // What has no such format has no value either.
                Err(error) if inner == "to_binary" && error.condition.ends_with("ARG_VALUE") => {
                    return Ok(Resolved::literal(Value::Null, DataType::Binary));
                }
                inner => inner?,
            };
            (inner.data_type.clone(), Node::Call("try", vec![inner]))
        };
        return Ok(Resolved { node, data_type, nullable: true });
    }
    if let Some(resolved) = time::arithmetic(name, &args) {
        return resolved;
    }
    if let Some(resolved) = indexed(name, &args) {
        return resolved;
    }
    if let ("date_part" | "datepart" | "extract", [field, source]) = (&*lower, args.as_slice())
        && let Some(field) = field.literal_text()
    {
        return time::extract(field, source.clone());
    }
    // The batch's time, as seen in the session's zone.
    let of_now = match (&*lower, args.is_empty()) {
        ("current_date" | "curdate", true) => Some(DataType::Date),
        ("localtimestamp", true) => Some(DataType::TimestampNtz),
        _ => None,
    };
    if let Some(to) = of_now {
        return super::resolve::cast(resolve("current_timestamp", args)?, &to, false);
    }
    if name.eq_ignore_ascii_case("decode") && args.len() > 2 {
        return condition::decode(args);
    }
    if matches!(&*lower, "to_char" | "to_varchar")
        && let Some(resolved) = to_char::of_other_types(&args)
    {
        return resolved;
    }
    if Rules::current().timestamps_without_zone {
        match &*lower {
            "to_timestamp" => return time::to_timestamp_without_zone(args),
            // A zone has no effect.
            "make_timestamp" if (6..=7).contains(&args.len()) => {
                return resolve("make_timestamp_ntz", args.into_iter().take(6).collect());
            }
            _ => {}
        }
    }
    let function = find(name)?;
    let (least, most) = match &*lower {
        "nvl" | "ifnull" => (2, 2),
        _ => function.arity,
    };
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
    let args = coercion::operands::bring(function.name, args)?;
    let args = coercion::signatures::bring(function.name, args)?;
    let (args, data_type, nullable) = (function.resolve)(function.name, args)?;
    Ok(Resolved { node: Node::Call(function.name, args), data_type, nullable })
}

/// Parts of an argument that its function may look at when it is compiled.
const MAX_SHOWN: usize = 64;

/// An argument as its function sees it: of what is large, and no lambda, the type alone. A function
/// that kept all of what it is nested around would cost the square of the depth.
fn shown(arg: &Resolved) -> Resolved {
    fn fits(arg: &Resolved, left: &mut usize) -> bool {
        *left = left.saturating_sub(1);
        *left > 0 && arg.children().into_iter().all(|child| fits(child, left))
    }
    if matches!(arg.node, Node::Lambda(..)) || fits(arg, &mut MAX_SHOWN.clone()) {
        return arg.clone();
    }
    let node = Node::Column(usize::MAX, "…".to_string());
    Resolved { node, data_type: arg.data_type.clone(), nullable: arg.nullable }
}

/// Compiles a resolved call.
pub fn compile(
    name: &'static str,
    args: Vec<Compiled>,
    exprs: &[Resolved],
    to: &DataType,
    semantics: Semantics,
) -> Compiled {
    let Some(function) = registered(name) else {
        unreachable!("resolved functions are registered")
    };
    let args_of = || exprs.iter().map(shown).collect();
    let call = || Call { name, args: args_of(), to: to.clone(), semantics };
    match function.build {
        Build::Typed(compile) => compile(args, exprs, to),
        Build::Called(compile) => compile(args, call()),
        Build::Cells(eval) => compile_cells(args, call(), eval, true),
        Build::CellsAndNulls(eval) => compile_cells(args, call(), eval, false),
    }
}

fn compile_cells(args: Vec<Compiled>, call: Call, eval: EvalCells, strict: bool) -> Compiled {
    let is_text = |expr: &Resolved| expr.data_type == DataType::String && !keeps_bytes(call.name);
    let texts: smallvec::SmallVec<[bool; 4]> = call.args.iter().map(is_text).collect();
    // A NULL among the first arguments ends the evaluation, or one of any after all of it.
    let (ending, any) = match call.name {
        "encode" | "decode" | "map_concat" => (0, true),
        "array_append" | "array_prepend" | "format_string" => (1, false),
        "array_insert" => (2, false),
        _ if strict => (usize::MAX, false),
        _ => (0, false),
    };
    from_cells(call.to.physical(), move |cx| {
        let mut cells: smallvec::SmallVec<[Cell<'_>; 4]> = smallvec::SmallVec::new();
        for (i, (arg, is_text)) in args.iter().zip(&texts).enumerate() {
            let mut cell = arg.cell(cx)?;
            if i < ending && cell.is_null() {
                return Ok(Cell::Null);
            }
            if let (true, Cell::Bytes(bytes)) = (is_text, cell) {
                cell = Cell::Bytes(text_in(bytes, cx.arena).as_bytes());
            }
            if cell.bytes().len() > LONG_BYTES {
                bounded_record(cx.arena)?;
            }
            cells.push(cell);
        }
        if any && cells.iter().any(|cell| cell.is_null()) {
            return Ok(Cell::Null);
        }
        eval(&cells, &call, cx.arena)
    })
}

/// Whether what a `try_` function tries is an operation on numbers, of which it takes the
/// operation's errors alone.
pub fn tries_itself(name: &str, args: &[Resolved]) -> bool {
    matches!(name, "+" | "-" | "*" | "/" | "%")
        && args.iter().all(|arg| match &arg.node {
            Node::Cast(inner, _) => inner.data_type.is_numeric(),
            _ => arg.data_type.is_numeric() && !arg.is_null_literal(),
        })
}

/// Whether a function works on the bytes of a text, whatever they are. Others get broken ones
/// decoded.
fn keeps_bytes(name: &str) -> bool {
    matches!(
        name,
        "hex"
            | "hash"
            | "xxhash64"
            | "repeat"
            | "elt"
            | "left"
            | "right"
            | "overlay"
            | "locate"
            | "instr"
            | "bit_length"
            | "substring_index"
            | "map"
            | "array_contains"
            | "array_position"
            | "array_remove"
            | "array_append"
            | "array_prepend"
            | "array_repeat"
            | "map_contains_key"
            | "map_element"
            | "is_valid_utf8"
            | "validate_utf8"
            | "make_valid_utf8"
    )
}

/// Whether a function is NULL if any of its arguments is, whatever the others are.
pub fn is_null_of_null(name: &str) -> bool {
    // Of these Spark evaluates the other arguments too, unless all are constants.
    const CONSTANTS_ALONE: [&str; 5] =
        ["regexp_extract_all", "regexp_count", "regexp_substr", "regexp_instr", "str_to_map"];
    crate::table::expr::null_propagation::is_strict(name)
        || CONSTANTS_ALONE.contains(&name)
        || name != "sequence" && all().any(|f| f.name == name && matches!(f.build, Build::Cells(_)))
}

/// Whether a function evaluates an argument only for some rows, as `if` and `coalesce` do.
pub fn may_leave_out(name: &str, index: usize) -> bool {
    match &*lower(name) {
        "and" | "coalesce" | "decode" | "elt" | "if" | "ifnull" | "nvl" | "nvl2" | "or" => {
            index > 0
        }
        // There is no result without a known unit.
        "date_trunc" => index == 1,
        "trunc" => index == 0,
        _ => false,
    }
}

/// Whether equal arguments always give an equal result.
pub fn is_deterministic(name: &str) -> bool {
    !matches!(
        name,
        "rand" | "randn" | "uuid" | "shuffle" | "monotonically_increasing_id" | "current_timestamp"
    )
}

/// A field of a struct, of every struct of an array, or the value of a map's key.
pub fn field_of(of: Resolved, field: &str) -> PlanResult<Resolved> {
    if let DataType::Map(..) = &of.data_type {
        let key = Resolved::literal(Value::String(field.to_string()), DataType::String);
        return resolve("getitem", vec![of, key]);
    }
    let (fields, in_array) = match &of.data_type {
        DataType::Struct(fields) => (fields, false),
        DataType::Array(element) => match &**element {
            DataType::Struct(fields) => (fields, true),
            _ => return Err(no_fields(&of)),
        },
        _ => return Err(no_fields(&of)),
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
    let (name, data_type) = if in_array {
        ("getfields", DataType::Array(Box::new(data_type)))
    } else {
        ("getfield", data_type)
    };
    Ok(Resolved { node: Node::Call(name, vec![of, index]), data_type, nullable })
}

fn no_fields(of: &Resolved) -> PlanError {
    PlanError::new(
        "INVALID_EXTRACT_BASE_FIELD_TYPE",
        format!("`{of}` is {}, which has no fields", of.data_type),
        "",
    )
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

/// Resolution for functions with arguments of the given types (the last one's for all beyond) and
/// a result that is NULL if one of them is.
fn typed(name: &str, args: Vec<Resolved>, types: &[DataType], to: DataType) -> PlanResult<Typed> {
    let nullable = any_nullable(&args);
    Ok((expect(name, args, types)?, to, nullable))
}

/// The same with a result that may always be NULL.
fn typed_or_null(
    name: &str,
    args: Vec<Resolved>,
    types: &[DataType],
    to: DataType,
) -> PlanResult<Typed> {
    Ok((expect(name, args, types)?, to, true))
}

/// The error of an argument of a type that a function cannot take.
fn unexpected(name: &str, wanted: &str, arg: &Resolved) -> PlanError {
    PlanError::new(
        "DATATYPE_MISMATCH.UNEXPECTED_INPUT_TYPE",
        format!("`{name}` needs {wanted}, but `{arg}` is {}", arg.data_type),
        "",
    )
}

/// The text of a constant argument: of a literal, or of an expression that reads no column.
fn constant_text(name: &str, arg: &Resolved) -> PlanResult<Option<String>> {
    if arg.data_type != DataType::String && arg.data_type != DataType::Null {
        return Err(unexpected(name, "a constant STRING", arg));
    }
    match super::compile::fold(arg.clone(), Semantics::default()).node {
        Node::Literal(Value::String(text)) => Ok(Some(text)),
        Node::Literal(_) => Ok(None),
        _ => Err(PlanError::new(
            "DATATYPE_MISMATCH.NON_FOLDABLE_INPUT",
            format!("`{name}` needs a constant text, but has `{arg}`"),
            "",
        )),
    }
}

/// Text that was made, as a value.
fn made<'a>(arena: &'a Bump, text: &str) -> Cell<'a> {
    Cell::Bytes(arena.alloc_str(text).as_bytes())
}

fn take<const N: usize>(args: Vec<Compiled>) -> [Compiled; N] {
    match <[Compiled; N]>::try_from(args) {
        Ok(args) => args,
        Err(_) => unreachable!("resolution counted the arguments"),
    }
}
