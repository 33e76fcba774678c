//! The registry of scalar functions and operators: how the arguments of each are resolved, and how
//! it is compiled.

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

/// Compiles a function from its compiled arguments, their expressions and the result type.
type Compile = fn(Vec<Compiled>, &[Resolved], &DataType) -> Compiled;
/// Compiles a function that also needs the session's settings or its own name.
type CompileCall = fn(Vec<Compiled>, Call) -> Compiled;
/// Evaluates a function on cells of any type.
type EvalCells = for<'a> fn(&[Cell<'a>], &Call, &'a Bump) -> Result<Cell<'a>, Box<EvalError>>;

/// A function call at compile time.
pub struct Call {
    /// The function's name.
    pub name: &'static str,
    /// The resolved expressions of its arguments.
    pub args: Vec<Resolved>,
    /// The result type.
    pub to: DataType,
    /// The session's time zone and ANSI mode.
    pub semantics: Semantics,
}

impl Call {
    /// The type of an argument.
    fn data_type(&self, index: usize) -> &DataType {
        &self.args[index].data_type
    }

    /// The element type of an array argument; the type itself if the argument is not an array.
    fn element(&self, index: usize) -> &DataType {
        element_of(self.data_type(index))
    }

    /// The text of an argument that is a string literal; `None` otherwise.
    fn text(&self, index: usize) -> Option<&str> {
        self.args.get(index).and_then(Resolved::literal_text)
    }
}

/// The element type of an array; any other type itself.
fn element_of(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Array(element) => element,
        other => other,
    }
}

enum Build {
    Typed(Compile),
    Called(CompileCall),
    /// Evaluated on cells; NULL if any argument is NULL.
    Cells(EvalCells),
    /// Evaluated on cells; handles NULL arguments itself.
    CellsAndNulls(EvalCells),
}
/// The result of resolution: coerced arguments, result type, nullability.
type Typed = (Vec<Resolved>, DataType, bool);

/// A registered function.
pub struct Function {
    /// Its lower-case name.
    pub name: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// The minimum and maximum number of arguments.
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

/// A function whose compilation needs the whole [`Call`].
const fn called(
    name: &'static str,
    help: &'static str,
    arity: (usize, usize),
    resolve: fn(&str, Vec<Resolved>) -> PlanResult<Typed>,
    compile: CompileCall,
) -> Function {
    Function { name, help, arity, resolve, build: Build::Called(compile) }
}

/// A function that is evaluated on cells and is NULL if any argument is NULL.
const fn cells(
    name: &'static str,
    help: &'static str,
    arity: (usize, usize),
    resolve: fn(&str, Vec<Resolved>) -> PlanResult<Typed>,
    eval: EvalCells,
) -> Function {
    Function { name, help, arity, resolve, build: Build::Cells(eval) }
}

/// A function that is evaluated on cells and handles NULL arguments itself.
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

/// Looks up a function by its canonical name.
fn registered(name: &str) -> Option<&'static Function> {
    static BY_NAME: OnceLock<HashMap<&'static str, &'static Function>> = OnceLock::new();
    // If two functions have the same name, the first one is used.
    let by_name = || all().map(|f| (f.name, f)).collect::<Vec<_>>().into_iter().rev().collect();
    BY_NAME.get_or_init(by_name).get(name).copied()
}

/// Every registered function.
pub fn all() -> impl Iterator<Item = &'static Function> {
    tables().into_iter().flatten()
}

/// Whether a name is an infix operator.
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

/// Functions of Spark that are not supported yet. The error says so, instead of that they are
/// unknown.
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

/// Fails with Spark's condition if no function has this name.
pub fn check_name(name: &str) -> PlanResult<()> {
    let lower = lower(name);
    let known = cast_of(&lower).is_some()
        || crate::table::plan::aggregate_function::AggregateFunction::of(&lower).is_some()
        || lower.strip_prefix("try_").is_some_and(|inner| operator_of(inner).is_some())
        || matches!(&*lower, "extract" | "date_part" | "datepart" | "grouping" | "grouping_id");
    if known { Ok(()) } else { find(&lower).map(drop) }
}

/// Resolves `x[…]` and `element_at` if `x` is a map or a struct; `None` for other arguments.
fn indexed(name: &str, args: &[Resolved]) -> Option<PlanResult<Resolved>> {
    let [of, key] = args else { return None };
    let name = lower(name);
    let by_key = matches!(&*name, "getitem" | "element_at" | "try_element_at");
    match (&of.data_type, key.literal_text()) {
        // In brackets the key is coerced to the map's key type; elsewhere both are coerced to a
        // common type.
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

/// Resolves a call of any function or operator, coercing its arguments.
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
                // For `try_to_binary`, an unknown format gives NULL.
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
    // The batch's timestamp, in the session time zone.
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
            // A time zone argument has no effect on a timestamp without a zone.
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

/// The maximum number of nodes of an argument that are kept for the function's compilation.
const MAX_SHOWN: usize = 64;

/// Prepares an argument for [`Call`]: of a large one only the type is kept, unless it is a lambda.
/// Otherwise nested calls would need memory quadratic in the depth.
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
    // `ending` is the number of leading arguments for which a NULL stops the evaluation. `any`
    // means that all are evaluated, and a NULL in any of them makes the result NULL.
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

/// Whether the operation under a `try_` function is plain arithmetic on numbers. Then only errors
/// of the operation itself give NULL, not errors of its operands.
pub fn tries_itself(name: &str, args: &[Resolved]) -> bool {
    matches!(name, "+" | "-" | "*" | "/" | "%")
        && args.iter().all(|arg| match &arg.node {
            Node::Cast(inner, _) => inner.data_type.is_numeric(),
            _ => arg.data_type.is_numeric() && !arg.is_null_literal(),
        })
}

/// Whether a function works on the raw bytes of a text. For all others, invalid UTF-8 is replaced
/// before the call.
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

/// Whether a function returns NULL if any of its arguments is NULL.
pub fn is_null_of_null(name: &str) -> bool {
    // For these Spark still evaluates the other arguments, unless all of them are constants.
    const CONSTANTS_ALONE: [&str; 5] =
        ["regexp_extract_all", "regexp_count", "regexp_substr", "regexp_instr", "str_to_map"];
    crate::table::expr::null_propagation::is_strict(name)
        || CONSTANTS_ALONE.contains(&name)
        || name != "sequence" && all().any(|f| f.name == name && matches!(f.build, Build::Cells(_)))
}

/// Whether a function evaluates this argument only for some rows, as `if` and `coalesce` do.
pub fn may_leave_out(name: &str, index: usize) -> bool {
    match &*lower(name) {
        "and" | "coalesce" | "decode" | "elt" | "if" | "ifnull" | "nvl" | "nvl2" | "or" => {
            index > 0
        }
        // With an invalid unit the result is NULL, without evaluating the other argument.
        "date_trunc" => index == 1,
        "trunc" => index == 0,
        _ => false,
    }
}

/// Whether a function is deterministic: equal arguments always give equal results.
pub fn is_deterministic(name: &str) -> bool {
    !matches!(
        name,
        "rand" | "randn" | "uuid" | "shuffle" | "monotonically_increasing_id" | "current_timestamp"
    )
}

/// Resolves `x.field` on a struct, on an array of structs, or as a key of a map.
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

/// Coerces arguments to the given types. The last type applies to all further arguments.
fn expect(name: &str, args: Vec<Resolved>, types: &[DataType]) -> PlanResult<Vec<Resolved>> {
    args.into_iter()
        .zip(types.iter().chain(std::iter::repeat(types.last().unwrap_or(&DataType::String))))
        .map(|(arg, to)| super::resolve::expect_type(arg, to, &format!("`{name}`")))
        .collect()
}

/// Resolves a function with arguments of the given types (the last type applies to all further
/// arguments). Its result is NULL only if an argument is NULL.
fn typed(name: &str, args: Vec<Resolved>, types: &[DataType], to: DataType) -> PlanResult<Typed> {
    let nullable = any_nullable(&args);
    Ok((expect(name, args, types)?, to, nullable))
}

/// Like [`typed`], for a result that may be NULL for any arguments.
fn typed_or_null(
    name: &str,
    args: Vec<Resolved>,
    types: &[DataType],
    to: DataType,
) -> PlanResult<Typed> {
    Ok((expect(name, args, types)?, to, true))
}

/// The error for an argument whose type the function does not accept.
fn unexpected(name: &str, wanted: &str, arg: &Resolved) -> PlanError {
    PlanError::new(
        "DATATYPE_MISMATCH.UNEXPECTED_INPUT_TYPE",
        format!("`{name}` needs {wanted}, but `{arg}` is {}", arg.data_type),
        "",
    )
}

/// The text of a constant STRING argument, `None` for NULL. Constant expressions are folded; a
/// column is an error.
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

/// Allocates a text in the arena and returns it as a cell.
fn made<'a>(arena: &'a Bump, text: &str) -> Cell<'a> {
    Cell::Bytes(arena.alloc_str(text).as_bytes())
}

fn take<const N: usize>(args: Vec<Compiled>) -> [Compiled; N] {
    match <[Compiled; N]>::try_from(args) {
        Ok(args) => args,
        Err(_) => unreachable!("resolution counted the arguments"),
    }
}
