//! The description of a registered function: how its arguments are resolved, and how it is
//! compiled. Each file of functions has a table built with this module, and `mod.rs` lists the
//! tables.

use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::fold;
use crate::table::expr::compile::{Compiled, EvalError, Semantics};
use crate::table::expr::resolve::expect_type;
use crate::table::expr::{Node, Resolved};
use crate::table::function_docs::{Usage, usage};
use crate::table::types::DataType;
use crate::table::value::Value;
use bumpalo::Bump;

/// Compiles a function from its compiled arguments, their expressions and the result type.
pub(super) type Compile = fn(Vec<Compiled>, &[Resolved], &DataType) -> Compiled;

/// Compiles a function that also needs the session's settings or its own name.
pub(super) type CompileCall = fn(Vec<Compiled>, Call) -> Compiled;

/// Evaluates a function on cells of any type.
pub(super) type EvalCells =
    for<'a> fn(&[Cell<'a>], &Call, &'a Bump) -> Result<Cell<'a>, Box<EvalError>>;

/// A function call at compile time.
pub struct Call {
    /// The function's name.
    pub name: &'static str,
    /// The resolved expressions of its arguments. Large ones are replaced by a placeholder.
    pub args: Vec<Resolved>,
    /// The result type.
    pub to: DataType,
    /// The session settings, such as the time zone and ANSI mode.
    pub semantics: Semantics,
}

impl Call {
    /// The type of an argument.
    pub(super) fn data_type(&self, index: usize) -> &DataType {
        &self.args[index].data_type
    }

    /// The element type of an array argument; the type itself if the argument is not an array.
    pub(super) fn element(&self, index: usize) -> &DataType {
        element_of(self.data_type(index))
    }

    /// The text of an argument that is a string literal; `None` otherwise.
    pub(super) fn text(&self, index: usize) -> Option<&str> {
        self.args.get(index).and_then(Resolved::literal_text)
    }
}

/// The element type of an array; any other type itself.
pub(super) fn element_of(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Array(element) => element,
        other => other,
    }
}

pub(super) enum Build {
    Typed(Compile),
    Called(CompileCall),
    /// Evaluated on cells; NULL if any argument is NULL.
    Cells(EvalCells),
    /// Evaluated on cells; handles NULL arguments itself.
    CellsAndNulls(EvalCells),
}

/// The result of resolving a call's arguments.
pub(super) struct Typed {
    /// The arguments, converted to the types that the function takes.
    pub args: Vec<Resolved>,
    /// The result's type.
    pub data_type: DataType,
    pub is_nullable: bool,
}

impl Typed {
    pub fn new(args: Vec<Resolved>, data_type: DataType, is_nullable: bool) -> Self {
        Self { args, data_type, is_nullable }
    }
}

/// A scalar function or operator: how a call is resolved and compiled.
pub struct Function {
    /// The function's name, in lower case.
    pub name: &'static str,
    /// The help text, in one line: the signature and the description.
    pub help: &'static str,
    /// An example, and the version that introduced the function.
    pub usage: Usage,
    /// The minimum and maximum number of arguments.
    pub(super) arity: (usize, usize),
    pub(super) resolve: fn(&str, Vec<Resolved>) -> PlanResult<Typed>,
    pub(super) build: Build,
    /// For a random function, the index of its optional argument that is the seed. Equal calls of a
    /// random function may have different results. A nondeterministic function without a seed has
    /// an index that no argument has.
    pub(super) seed: Option<usize>,
}

impl Function {
    /// Declares a function whose result does not depend on its arguments alone, and which has no
    /// seed.
    pub(super) const fn nondeterministic(self) -> Self {
        self.with_seed_at(usize::MAX)
    }

    /// Declares a random function, whose optional argument at `index` is the seed.
    pub(super) const fn with_seed_at(self, index: usize) -> Self {
        Self { seed: Some(index), ..self }
    }

    /// Adds the version of Spark that introduced the function, an example and its result.
    pub(super) const fn usage(
        self,
        since: &'static str,
        example: &'static str,
        result: &'static str,
    ) -> Self {
        Self { usage: usage(since, example, result), ..self }
    }
}

const fn declared(
    name: &'static str,
    help: &'static str,
    arity: (usize, usize),
    resolve: fn(&str, Vec<Resolved>) -> PlanResult<Typed>,
    build: Build,
) -> Function {
    Function { name, help, usage: Usage::NONE, arity, resolve, build, seed: None }
}

/// Declares a function that is compiled for the types of its arguments.
pub(super) const fn function(
    name: &'static str,
    help: &'static str,
    arity: (usize, usize),
    resolve: fn(&str, Vec<Resolved>) -> PlanResult<Typed>,
    compile: Compile,
) -> Function {
    declared(name, help, arity, resolve, Build::Typed(compile))
}

/// Declares a function whose compilation needs the whole [`Call`].
pub(super) const fn called(
    name: &'static str,
    help: &'static str,
    arity: (usize, usize),
    resolve: fn(&str, Vec<Resolved>) -> PlanResult<Typed>,
    compile: CompileCall,
) -> Function {
    declared(name, help, arity, resolve, Build::Called(compile))
}

/// Declares a function that is evaluated on cells and is NULL if any argument is NULL.
pub(super) const fn cells(
    name: &'static str,
    help: &'static str,
    arity: (usize, usize),
    resolve: fn(&str, Vec<Resolved>) -> PlanResult<Typed>,
    eval: EvalCells,
) -> Function {
    declared(name, help, arity, resolve, Build::Cells(eval))
}

/// Declares a function that is evaluated on cells and handles NULL arguments itself.
pub(super) const fn nullable_cells(
    name: &'static str,
    help: &'static str,
    arity: (usize, usize),
    resolve: fn(&str, Vec<Resolved>) -> PlanResult<Typed>,
    eval: EvalCells,
) -> Function {
    declared(name, help, arity, resolve, Build::CellsAndNulls(eval))
}

pub(super) const MANY: usize = usize::MAX;

pub(super) fn any_nullable(args: &[Resolved]) -> bool {
    args.iter().any(|arg| arg.nullable)
}

/// Casts arguments to the given types, or fails. The last type applies to all further arguments.
pub(super) fn expect(
    name: &str,
    args: Vec<Resolved>,
    types: &[DataType],
) -> PlanResult<Vec<Resolved>> {
    args.into_iter()
        .zip(types.iter().chain(std::iter::repeat(types.last().unwrap_or(&DataType::String))))
        .map(|(arg, to)| expect_type(arg, to, &format!("`{name}`")))
        .collect()
}

/// Resolves a function with arguments of the given types; the last type applies to all further
/// arguments. The result is nullable only if an argument is.
pub(super) fn typed(
    name: &str,
    args: Vec<Resolved>,
    types: &[DataType],
    to: DataType,
) -> PlanResult<Typed> {
    let nullable = any_nullable(&args);
    Ok(Typed::new(expect(name, args, types)?, to, nullable))
}

/// Like [`typed`], but the result is always nullable.
pub(super) fn typed_or_null(
    name: &str,
    args: Vec<Resolved>,
    types: &[DataType],
    to: DataType,
) -> PlanResult<Typed> {
    Ok(Typed::new(expect(name, args, types)?, to, true))
}

/// The error of an argument whose type the function does not accept.
pub(super) fn unexpected(name: &str, wanted: &str, arg: &Resolved) -> PlanError {
    PlanError::new(
        "DATATYPE_MISMATCH.UNEXPECTED_INPUT_TYPE",
        format!("`{name}` needs {wanted}, but `{arg}` is {}", arg.data_type),
        "",
    )
}

/// An argument of a function without implicit casts as a STRING. Only an untyped NULL is cast.
pub(super) fn text_or_null(name: &str, arg: Resolved) -> PlanResult<Resolved> {
    match arg.data_type {
        DataType::String | DataType::Null => Ok(arg.coerce(&DataType::String)),
        _ => Err(unexpected(name, "a STRING", &arg)),
    }
}

/// The text of a constant STRING argument; `None` for NULL. Constant expressions are folded. An
/// argument that is not constant is an error.
pub(super) fn constant_text(name: &str, arg: &Resolved) -> PlanResult<Option<String>> {
    if arg.data_type != DataType::String && arg.data_type != DataType::Null {
        return Err(unexpected(name, "a constant STRING", arg));
    }
    match fold(arg.clone(), Semantics::default()).node {
        Node::Literal(Value::String(text)) => Ok(Some(text)),
        Node::Literal(_) => Ok(None),
        _ => Err(PlanError::new(
            "DATATYPE_MISMATCH.NON_FOLDABLE_INPUT",
            format!("`{name}` needs a constant text, but has `{arg}`"),
            "",
        )),
    }
}

/// Copies a text into the arena and returns it as a cell.
pub(super) fn made<'a>(arena: &'a Bump, text: &str) -> Cell<'a> {
    Cell::Bytes(arena.alloc_str(text).as_bytes())
}

/// The arguments of a call, whose number resolution has checked.
pub(super) fn take<T, const N: usize>(args: Vec<T>) -> [T; N] {
    match <[T; N]>::try_from(args) {
        Ok(args) => args,
        Err(_) => unreachable!("resolution counted the arguments"),
    }
}
