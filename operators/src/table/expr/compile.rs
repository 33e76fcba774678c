//! Compiles resolved expressions to typed closures. Types are dispatched at compile time. Only
//! casts of nested values and functions on cells dispatch them for each record.

use super::cast::OnError;
use super::cell::Cell;
use super::{Node, Resolved, cast, functions};
use crate::table::datetime::Tz;
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::type_rules::Naming;
use crate::table::row::{Array, Row, RowWriter, Slot, decimal_of};
use crate::table::text::utf8;
use crate::table::types::{DataType, Physical};
use crate::table::value::{BinaryStyle, Value};
use bumpalo::Bump;
use millstream_engine::error::EngineError;

/// An error in the evaluation of an expression for a record, such as overflow, division by zero or
/// an invalid cast. It ends the query, unless a `try_` function or legacy mode turns it into NULL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalError {
    /// Spark's error condition.
    pub condition: &'static str,
    /// The cause of the error.
    pub reason: String,
    /// How the user can fix it.
    pub fix: &'static str,
    /// Whether the enclosing `try_` function lets the error pass: an operand of its operation
    /// raised it, or a timestamp parsed from a text overflowed.
    pub is_from_operand: bool,
    /// Whether this is an error without ANSI mode too, whatever the condition.
    pub is_of_both_modes: bool,
}

impl EvalError {
    /// Whether this is an error only in ANSI mode. Without ANSI mode the result is NULL instead.
    pub fn is_of_ansi(&self) -> bool {
        // Any condition not listed here fails in both modes, so that a new error never silently
        // becomes NULL.
        const OF_ANSI: [&str; 14] = [
            "ARITHMETIC_OVERFLOW",
            "BINARY_ARITHMETIC_OVERFLOW",
            "CANNOT_PARSE_TIMESTAMP",
            "CAST_INVALID_INPUT",
            "CAST_OVERFLOW",
            "DATETIME_FIELD_OUT_OF_BOUNDS",
            "DIVIDE_BY_ZERO",
            "ILLEGAL_DAY_OF_WEEK",
            "INVALID_ARRAY_INDEX",
            "INVALID_FRACTION_OF_SECOND",
            "INVALID_URL",
            "NUMERIC_OUT_OF_SUPPORTED_RANGE",
            "NUMERIC_VALUE_OUT_OF_RANGE.WITH_SUGGESTION",
            "REMAINDER_BY_ZERO",
        ];
        let is_listed = OF_ANSI.iter().any(|condition| self.condition.starts_with(condition));
        is_listed && !self.is_of_both_modes
    }
}

impl From<Box<EvalError>> for EngineError {
    fn from(error: Box<EvalError>) -> Self {
        Self::operator(error.condition, error.reason, error.fix)
    }
}

impl From<Box<EvalError>> for PlanError {
    fn from(error: Box<EvalError>) -> Self {
        Self::new(error.condition, error.reason, error.fix)
    }
}

/// The result of evaluating an expression for a record; `None` is NULL.
pub type Eval<T> = Result<Option<T>, Box<EvalError>>;

/// The maximum length of an error's reason, in bytes, without the note that says how long a cut
/// reason was. The reason quotes values, which may be long.
const REASON_BYTES_MAX: usize = 1 << 10;

/// Builds an error. A reason that is too long is cut.
#[cold]
pub fn failed<T>(
    condition: &'static str,
    reason: impl Into<String>,
    fix: &'static str,
) -> Result<T, Box<EvalError>> {
    let mut reason = reason.into();
    if reason.len() > REASON_BYTES_MAX {
        let end = (0..=REASON_BYTES_MAX).rev().find(|at| reason.is_char_boundary(*at));
        let length = reason.len();
        reason.truncate(end.unwrap_or(0));
        reason.push_str(&format!("… ({length} bytes)"));
    }
    Err(Box::new(EvalError {
        condition,
        reason,
        fix,
        is_from_operand: false,
        is_of_both_modes: false,
    }))
}

/// The size in bytes above which a value triggers a check of the record's memory limit. Such values
/// are rare, so the checks cost little.
pub const LONG_BYTES: usize = 1 << 16;

/// The maximum size in bytes of all values computed for a record.
const RECORD_BYTES_MAX: usize = 1 << 30;

/// Fails if the values computed for the current record exceed their memory limit.
#[inline]
pub fn bounded_record(arena: &Bump) -> Result<(), Box<EvalError>> {
    // The allocated size includes a chunk that is reused from the previous record.
    if arena.allocated_bytes() - arena.chunk_capacity() <= RECORD_BYTES_MAX {
        return Ok(());
    }
    too_large()
}

#[cold]
fn too_large() -> Result<(), Box<EvalError>> {
    failed(
        "COLLECTION_SIZE_LIMIT_EXCEEDED",
        "the values computed for one record take more than 1 GiB",
        "Use shorter arrays and texts: nested lambdas are called for each pair of elements",
    )
}

/// The context of an evaluation: the row, and an arena whose memory is freed after the record.
#[derive(Clone, Copy)]
pub struct Cx<'a> {
    /// The input row.
    pub row: Row<'a>,
    /// Memory for computed values of variable length.
    pub arena: &'a Bump,
    /// The values of the lambda variables in scope, outermost first.
    pub variables: &'a [Cell<'a>],
    /// The values of common subexpressions: `None` until the value is computed for this record.
    pub(super) shared: &'a [std::cell::Cell<Option<Cell<'a>>>],
}

impl<'a> Cx<'a> {
    /// A context without lambda variables and common subexpressions.
    #[inline]
    pub fn new(row: Row<'a>, arena: &'a Bump) -> Self {
        Self { row, arena, variables: &[], shared: &[] }
    }

    /// The context of a lambda's body with these variables.
    #[inline]
    pub fn with_variables(self, variables: &'a [Cell<'a>]) -> Self {
        Self { variables, ..self }
    }

    /// A context with slots for the values of `parts` common subexpressions.
    #[inline]
    pub fn sharing(row: Row<'a>, arena: &'a Bump, parts: usize) -> Self {
        let empty = |_| std::cell::Cell::new(None);
        let shared = if parts == 0 { &[] } else { &*arena.alloc_slice_fill_with(parts, empty) };
        Self { row, arena, variables: &[], shared }
    }
}

/// The session settings that affect the meaning of an expression.
#[derive(Clone, Copy, Debug)]
pub struct Semantics {
    /// The session time zone.
    pub zone: Tz,
    /// ANSI mode: overflow, division by zero and invalid casts are errors. Without ANSI mode, most
    /// of them give NULL, and integers wrap around.
    pub ansi: bool,
    /// Whether a decimal type that needs more than 38 digits reduces its scale.
    pub precision_loss: bool,
    /// Whether the type name TIMESTAMP means TIMESTAMP_NTZ.
    pub timestamps_without_zone: bool,
    /// How names and ordinals of columns are interpreted.
    pub naming: Naming,
    /// `spark.sql.mapKeyDedupPolicy` is LAST_WIN: if a map is built with a duplicate key, the last
    /// entry wins. If false, a duplicate key is an error.
    pub last_key_wins: bool,
    /// `spark.sql.legacy.negativeIndexInArrayInsert`: `array_insert` at -1 inserts before the last
    /// element instead of after it.
    pub legacy_array_insert: bool,
    /// `spark.sql.legacy.percentileDiscCalculation`: `percentile_disc` rounds the rank down.
    pub legacy_percentile_disc: bool,
    /// `spark.sql.legacy.nullInEmptyListBehavior`: whether `NULL IN (empty subquery)` is NULL
    /// instead of false. If unset, the result is NULL only without ANSI mode.
    pub null_in_empty_list: Option<bool>,
    /// `spark.sql.chunkBase64String.enabled`: `base64` splits its result into lines of 76
    /// characters.
    pub base64_lines: bool,
    /// `spark.sql.columnNameOfCorruptRecord`: the column for malformed records, unless an option of
    /// the source names another.
    pub corrupt_column: &'static str,
    /// `spark.sql.binaryOutputStyle`: the style of BINARY values that are shown and in `to_csv`.
    pub binary_style: BinaryStyle,
}

impl Default for Semantics {
    fn default() -> Self {
        Self {
            zone: Tz::UTC,
            ansi: true,
            precision_loss: true,
            timestamps_without_zone: false,
            naming: Naming::PLAIN,
            last_key_wins: false,
            legacy_array_insert: false,
            legacy_percentile_disc: false,
            null_in_empty_list: None,
            base64_lines: false,
            corrupt_column: "_corrupt_record",
            binary_style: BinaryStyle::default(),
        }
    }
}

/// A closure whose result is never NULL, for tests such as IS NULL.
pub type TestFn<T> = Box<dyn Fn(Cx<'_>) -> Result<T, Box<EvalError>> + Send>;

/// A BOOLEAN expression.
pub type BoolFn = Box<dyn Fn(Cx<'_>) -> Eval<bool> + Send>;
/// An expression of a type that is represented as `i64`: an integer, date, timestamp or interval.
pub type LongFn = Box<dyn Fn(Cx<'_>) -> Eval<i64> + Send>;
/// A FLOAT or DOUBLE expression.
pub type DoubleFn = Box<dyn Fn(Cx<'_>) -> Eval<f64> + Send>;
/// A DECIMAL expression. Its values are unscaled.
pub type DecimalFn = Box<dyn Fn(Cx<'_>) -> Eval<i128> + Send>;
/// An expression of a type that is represented as bytes: STRING, BINARY or a nested type.
pub type BytesFn = Box<dyn for<'a> Fn(Cx<'a>) -> Eval<&'a [u8]> + Send>;

/// A compiled expression.
pub enum Compiled {
    /// An expression whose values are represented as `bool`.
    Bool(BoolFn),
    /// An expression whose values are represented as `i64`.
    Long(LongFn),
    /// An expression whose values are represented as `f64`.
    Double(DoubleFn),
    /// An expression whose values are represented as `i128`.
    Decimal(DecimalFn),
    /// An expression whose values are represented as bytes.
    Bytes(BytesFn),
}

macro_rules! wrap {
    ($($name:ident $variant:ident $ty:ty;)*) => {$(
        /// Boxes a closure as a compiled expression of this type.
        pub fn $name(f: impl Fn(Cx<'_>) -> Eval<$ty> + Send + 'static) -> Compiled {
            Compiled::$variant(Box::new(f))
        }
    )*};
}

wrap! { bool_fn Bool bool; long_fn Long i64; double_fn Double f64; decimal_fn Decimal i128; }

/// Boxes a closure as a compiled expression of a type that is represented as bytes.
pub fn bytes_fn(f: impl for<'a> Fn(Cx<'a>) -> Eval<&'a [u8]> + Send + 'static) -> Compiled {
    Compiled::Bytes(Box::new(f))
}

macro_rules! unwrap {
    ($($name:ident $variant:ident $ty:ty;)*) => {
        impl Compiled {
            $(/// Returns the closure. Resolution ensures that it is of this kind.
            pub fn $name(self) -> $ty {
                match self {
                    Self::$variant(f) => f,
                    _ => unreachable!("resolution gave an argument of another kind"),
                }
            })*
        }
    };
}

unwrap! { bool Bool BoolFn; long Long LongFn; double Double DoubleFn; decimal Decimal DecimalFn; bytes Bytes BytesFn; }

/// The bytes of a STRING as text. If they are not valid UTF-8, the whole text becomes a single
/// U+FFFD; [`text_in`] replaces only the invalid bytes. A cast from BINARY and a column of a
/// Parquet file can have such bytes.
#[inline]
pub fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or("\u{FFFD}")
}

/// The bytes of a STRING as text. Invalid UTF-8 is decoded into the arena with replacement
/// characters.
#[inline]
pub fn text_in<'a>(bytes: &'a [u8], arena: &'a Bump) -> &'a str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => arena.alloc_str(&utf8::decode(bytes)),
    }
}

/// Compiles an expression over rows of `width` columns.
pub fn compile(expr: &Resolved, width: usize, semantics: Semantics) -> Compiled {
    let below = |expr: &Resolved| compile(expr, width, semantics);
    match &expr.node {
        Node::Column(index, _) => column(Slot::new(*index, width), &expr.data_type),
        Node::Variable(index, _) => {
            let index = *index;
            from_cells(expr.data_type.physical(), move |cx| Ok(cx.variables[index]))
        }
        Node::Chain(parts) => super::chain::compile(parts, width, semantics),
        Node::Run(_, inner) => below(inner),
        Node::Carried => super::chain::carried(expr.data_type.physical()),
        // The higher-order function evaluates the body, with the lambda's variables in
        // `cx.variables`.
        Node::Lambda(_, body) => below(body),
        Node::Literal(value) => literal(value, &expr.data_type),
        Node::Shared(slot, inner) => {
            let (slot, inner) = (*slot, below(inner).cells());
            from_cells(expr.data_type.physical(), move |cx| {
                if let Some(cell) = cx.shared[slot].get() {
                    return Ok(cell);
                }
                let cell = inner(cx)?;
                cx.shared[slot].set(Some(cell));
                Ok(cell)
            })
        }
        Node::BatchTime(times) => {
            let times = times.clone();
            long_fn(move |_| Ok(Some(times.started_us())))
        }
        Node::User(function, args) => crate::table::expr::user_function::compile(
            function.clone(),
            args.iter().map(below).collect(),
        ),
        Node::Scalar(_) => unreachable!("a constant was put here before the query is run"),
        Node::Cast(inner, lenient) => {
            let from = &inner.data_type;
            let on_error = match (lenient, semantics.ansi) {
                (true, _) => OnError::Null,
                (false, true) => OnError::Fail,
                (false, false) => OnError::Wrap,
            };
            cast::compile(below(inner), from, &expr.data_type, on_error, semantics.zone)
        }
        Node::Case(branches, otherwise) => {
            let whens = branches.iter().map(|(when, _)| below(when).bool()).collect();
            let thens = branches.iter().map(|(_, then)| below(then));
            let otherwise = otherwise.iter().map(|o| below(o));
            case(whens, thens.chain(otherwise).collect(), expr.data_type.physical())
        }
        Node::Call(name, args) => {
            if let Some(compiled) = compare_with_constant(name, args, width) {
                return compiled;
            }
            if let ("try" | functions::TRY_RESULT, [tried]) = (*name, args.as_slice()) {
                return compile_tried(tried, *name == functions::TRY_RESULT, width, semantics);
            }
            let compiled = args.iter().map(below).collect();
            if !semantics.ansi && expr.data_type.is_integral() {
                match functions::wrapping(name, compiled, &expr.data_type) {
                    Ok(call) => return call,
                    Err(compiled) => {
                        let call =
                            functions::compile(name, compiled, args, &expr.data_type, semantics);
                        return without_ansi(call);
                    }
                }
            }
            let call = functions::compile(name, compiled, args, &expr.data_type, semantics);
            if semantics.ansi { call } else { without_ansi(call) }
        }
    }
}

/// Compiles the operand of a `try_` function in ANSI mode, so that a failure is detected. If it fails
/// of operands, only an error of the operation itself gives NULL.
fn compile_tried(
    tried: &Resolved,
    fails_of_operands: bool,
    width: usize,
    semantics: Semantics,
) -> Compiled {
    let ansi = Semantics { ansi: true, ..semantics };
    match &tried.node {
        Node::Call(name, args) if fails_of_operands => {
            let args_compiled = args.iter().map(|arg| passed(compile(arg, width, semantics)));
            let args_compiled = args_compiled.collect();
            errors_to_null(functions::compile(name, args_compiled, args, &tried.data_type, ansi))
        }
        _ => errors_to_null(compile(tried, width, ansi)),
    }
}

/// Compiles the comparison of a column with a constant, the most common condition, to a single
/// closure instead of three nested ones. `None` for other calls, for a constant on the left, and
/// for types other than STRING and those that are represented as `i64`.
fn compare_with_constant(name: &str, args: &[Resolved], width: usize) -> Option<Compiled> {
    let [Resolved { node: Node::Column(index, _), data_type, .. }, constant] = args else {
        return None;
    };
    let Node::Literal(value) = &constant.node else { return None };
    let slot = Slot::new(*index, width);
    macro_rules! test {
        ($read:ident, |$a:ident| $test:expr) => {
            bool_fn(move |cx| {
                if cx.row.is_null(slot) {
                    return Ok(None);
                }
                let $a = cx.row.$read(slot);
                Ok(Some($test))
            })
        };
    }
    Some(match (value, data_type.physical()) {
        (Value::Long(v), Physical::Long) => {
            let v = *v;
            match name {
                "=" => test!(long, |a| a == v),
                "<>" => test!(long, |a| a != v),
                "<" => test!(long, |a| a < v),
                "<=" => test!(long, |a| a <= v),
                ">" => test!(long, |a| a > v),
                ">=" => test!(long, |a| a >= v),
                _ => return None,
            }
        }
        (Value::String(v), Physical::Bytes) if *data_type == DataType::String => {
            let v: Box<[u8]> = v.as_bytes().into();
            match name {
                "=" => test!(bytes, |a| *a == *v),
                "<>" => test!(bytes, |a| *a != *v),
                "<" => test!(bytes, |a| *a < *v),
                "<=" => test!(bytes, |a| *a <= *v),
                ">" => test!(bytes, |a| *a > *v),
                ">=" => test!(bytes, |a| *a >= *v),
                _ => return None,
            }
        }
        _ => return None,
    })
}

macro_rules! each_kind {
    ($compiled:expr, |$value:ident| $change:expr) => {{
        macro_rules! wrap {
            ($make:ident, $f:ident) => {
                $make(move |cx| {
                    let $value = $f(cx);
                    $change
                })
            };
        }
        match $compiled {
            Compiled::Bool(f) => wrap!(bool_fn, f),
            Compiled::Long(f) => wrap!(long_fn, f),
            Compiled::Double(f) => wrap!(double_fn, f),
            Compiled::Decimal(f) => wrap!(decimal_fn, f),
            Compiled::Bytes(f) => wrap!(bytes_fn, f),
        }
    }};
}

/// Turns errors into NULL, except those marked by [`EvalError::is_from_operand`].
pub fn errors_to_null(inner: Compiled) -> Compiled {
    each_kind!(inner, |value| match value {
        Err(mut error) if error.is_from_operand => {
            error.is_from_operand = false;
            Err(error)
        }
        value => Ok(value.unwrap_or(None)),
    })
}

/// Marks errors so that the enclosing `try_` function does not turn them into NULL.
fn passed(inner: Compiled) -> Compiled {
    each_kind!(inner, |value| value.map_err(|mut error| {
        error.is_from_operand = true;
        error
    }))
}

/// Turns errors that exist only in ANSI mode into NULL.
fn without_ansi(inner: Compiled) -> Compiled {
    each_kind!(inner, |value| match value {
        Err(error) if !error.is_of_ansi() => Err(error),
        value => Ok(value.unwrap_or(None)),
    })
}

/// An expression of any type, evaluated to a cell.
pub type CellFn = Box<dyn for<'a> Fn(Cx<'a>) -> Result<Cell<'a>, Box<EvalError>> + Send>;

impl Compiled {
    /// Converts the typed closure to a closure that returns a cell.
    pub fn cells(self) -> CellFn {
        macro_rules! as_cell {
            ($f:ident, $variant:ident) => {
                Box::new(move |cx| Ok($f(cx)?.map_or(Cell::Null, Cell::$variant)))
            };
        }
        match self {
            Self::Bool(f) => as_cell!(f, Bool),
            Self::Long(f) => as_cell!(f, Long),
            Self::Double(f) => as_cell!(f, Double),
            Self::Decimal(f) => as_cell!(f, Decimal),
            Self::Bytes(f) => as_cell!(f, Bytes),
        }
    }

    /// Evaluates the expression to a cell.
    #[inline]
    pub fn cell<'a>(&self, cx: Cx<'a>) -> Result<Cell<'a>, Box<EvalError>> {
        Ok(match self {
            Self::Bool(f) => f(cx)?.map_or(Cell::Null, Cell::Bool),
            Self::Long(f) => f(cx)?.map_or(Cell::Null, Cell::Long),
            Self::Double(f) => f(cx)?.map_or(Cell::Null, Cell::Double),
            Self::Decimal(f) => f(cx)?.map_or(Cell::Null, Cell::Decimal),
            Self::Bytes(f) => f(cx)?.map_or(Cell::Null, Cell::Bytes),
        })
    }
}

/// Wraps a closure that returns cells as an expression of a physical type. A cell of another
/// physical type gives NULL.
pub fn from_cells(
    physical: Physical,
    f: impl for<'a> Fn(Cx<'a>) -> Result<Cell<'a>, Box<EvalError>> + Send + 'static,
) -> Compiled {
    macro_rules! only {
        ($make:ident, $variant:ident) => {
            $make(move |cx| {
                Ok(match f(cx)? {
                    Cell::$variant(v) => Some(v),
                    _ => None,
                })
            })
        };
    }
    match physical {
        Physical::Bool => only!(bool_fn, Bool),
        Physical::Long => only!(long_fn, Long),
        Physical::Double => only!(double_fn, Double),
        Physical::Decimal => only!(decimal_fn, Decimal),
        Physical::Bytes => only!(bytes_fn, Bytes),
    }
}

/// The maximum size of a folded constant, in bytes. A larger result is not folded.
const FOLDED_BYTES_MAX: usize = 16 << 20;

/// Constant folding: evaluates deterministic calls and casts of constants. One that fails is left
/// unchanged, so that it fails only when a record needs it.
pub fn fold(expr: Resolved, semantics: Semantics) -> Resolved {
    let expr = match &expr.node {
        // The operand of `try` is not folded alone, because `try` must handle its error.
        Node::Call("try" | functions::TRY_RESULT, _) => {
            expr.map_children(&mut |tried| tried.map_children(&mut |child| fold(child, semantics)))
        }
        _ => expr.map_children(&mut |child| fold(child, semantics)),
    };
    if let Node::Chain(parts) = expr.node {
        return super::chain::collapsed(parts, &mut |part| fold(part, semantics));
    }
    let constant = match &expr.node {
        Node::Call("try" | functions::TRY_RESULT, tried) => {
            let constant = |arg: &&Resolved| matches!(arg.node, Node::Literal(_));
            tried.iter().all(|tried| match &tried.node {
                Node::Call(name, args) => {
                    functions::is_deterministic(name) && args.iter().all(|arg| constant(&arg))
                }
                Node::Cast(inner, _) => constant(&&**inner),
                _ => constant(&tried),
            })
        }
        Node::Call(name, args) => {
            functions::is_deterministic(name)
                && args.iter().all(|arg| matches!(arg.node, Node::Literal(_)))
        }
        Node::Cast(inner, _) => matches!(inner.node, Node::Literal(_)),
        _ => false,
    };
    if !constant {
        return expr;
    }
    let arena = Bump::new();
    let compiled = compile(&expr, 0, semantics);
    match compiled.cell(Cx::new(Row(&[]), &arena)) {
        // A limit per constant, because the plan keeps all folded constants in memory.
        Ok(cell) if cell.bytes().len() > FOLDED_BYTES_MAX => expr,
        Ok(cell) => {
            let value = cell.value(&expr.data_type);
            if loses_bytes(cell, &value, &expr.data_type) {
                return expr;
            }
            Resolved { node: Node::Literal(value), ..expr }
        }
        Err(_) => expr,
    }
}

/// Evaluates an expression that reads no column, once.
pub fn evaluate(expr: &Resolved, semantics: Semantics) -> Result<Value, Box<EvalError>> {
    let arena = Bump::new();
    let cell = compile(expr, 0, semantics).cell(Cx::new(Row(&[]), &arena))?;
    Ok(cell.value(&expr.data_type))
}

/// The value of a constant, as of an argument that must be one; `None` for an expression that is not
/// foldable, such as a subquery or a random value. Fails if the evaluation fails.
pub fn constant(expr: &Resolved, semantics: Semantics) -> PlanResult<Option<Value>> {
    if !expr.is_foldable() {
        return Ok(None);
    }
    Ok(Some(evaluate(expr, semantics)?))
}

/// Whether a value does not survive the conversion to a literal, because its text is not valid
/// UTF-8.
fn loses_bytes(cell: Cell<'_>, value: &Value, data_type: &DataType) -> bool {
    match (value, cell) {
        (Value::String(text), Cell::Bytes(bytes)) => text.as_bytes() != bytes,
        (_, Cell::Bytes(bytes)) if data_type.is_nested() => {
            let mut written = Vec::new();
            value.write(&mut written);
            written != bytes
        }
        _ => false,
    }
}

fn column(slot: Slot, data_type: &DataType) -> Compiled {
    macro_rules! read {
        ($make:ident, |$row:ident| $read:expr) => {
            $make(move |cx| {
                let $row = cx.row;
                Ok(if $row.is_null(slot) { None } else { Some($read) })
            })
        };
    }
    match data_type.physical() {
        Physical::Bool => read!(bool_fn, |row| row.long(slot) != 0),
        Physical::Long => read!(long_fn, |row| row.long(slot)),
        Physical::Double => read!(double_fn, |row| row.double(slot)),
        Physical::Decimal => read!(decimal_fn, |row| row.decimal(slot)),
        Physical::Bytes => read!(bytes_fn, |row| row.bytes(slot)),
    }
}

fn literal(value: &Value, data_type: &DataType) -> Compiled {
    match (value, data_type.physical()) {
        (Value::Null, Physical::Bool) => bool_fn(|_| Ok(None)),
        (Value::Null, Physical::Long) => long_fn(|_| Ok(None)),
        (Value::Null, Physical::Double) => double_fn(|_| Ok(None)),
        (Value::Null, Physical::Decimal) => decimal_fn(|_| Ok(None)),
        (Value::Null, Physical::Bytes) => bytes_fn(|_| Ok(None)),
        (Value::Boolean(v), _) => {
            let v = *v;
            bool_fn(move |_| Ok(Some(v)))
        }
        (Value::Long(v), _) => {
            let v = *v;
            long_fn(move |_| Ok(Some(v)))
        }
        (Value::Double(v), _) => {
            let v = *v;
            double_fn(move |_| Ok(Some(v)))
        }
        (Value::Decimal(v), _) => {
            let v = *v;
            decimal_fn(move |_| Ok(Some(v)))
        }
        (value, _) => {
            let bytes = match value {
                Value::String(text) => text.clone().into_bytes(),
                Value::Binary(bytes) => bytes.clone(),
                nested => {
                    let mut bytes = Vec::new();
                    nested.write(&mut bytes);
                    bytes
                }
            };
            bytes_fn(move |cx| Ok(Some(cx.arena.alloc_slice_copy(&bytes))))
        }
    }
}

fn case(whens: Vec<BoolFn>, thens: Vec<Compiled>, physical: Physical) -> Compiled {
    macro_rules! pick {
        ($make:ident, $unwrap:ident) => {{
            let thens: Vec<_> = thens.into_iter().map(Compiled::$unwrap).collect();
            $make(move |cx| {
                for (when, then) in whens.iter().zip(&thens) {
                    if when(cx)? == Some(true) {
                        return then(cx);
                    }
                }
                thens[whens.len()](cx)
            })
        }};
    }
    match physical {
        Physical::Bool => pick!(bool_fn, bool),
        Physical::Long => pick!(long_fn, long),
        Physical::Double => pick!(double_fn, double),
        Physical::Decimal => pick!(decimal_fn, decimal),
        Physical::Bytes => pick!(bytes_fn, bytes),
    }
}

/// Evaluates an expression into a field of a row, which must be NULL before; a NULL is not written.
/// Fails if the evaluation does, or if a long value would make the row larger than
/// `RECORD_BYTES_MAX`.
#[inline]
pub fn write_field<B: crate::table::row::Bytes>(
    compiled: &Compiled,
    cx: Cx<'_>,
    writer: &mut RowWriter<'_, B>,
    index: usize,
) -> Result<(), Box<EvalError>> {
    match compiled {
        Compiled::Bool(f) => {
            if let Some(v) = f(cx)? {
                writer.bool(index, v);
            }
        }
        Compiled::Long(f) => {
            if let Some(v) = f(cx)? {
                writer.long(index, v);
            }
        }
        Compiled::Double(f) => {
            if let Some(v) = f(cx)? {
                writer.double(index, v);
            }
        }
        Compiled::Decimal(f) => {
            if let Some(v) = f(cx)? {
                writer.decimal(index, v);
            }
        }
        Compiled::Bytes(f) => {
            if let Some(v) = f(cx)? {
                let length = writer.row().0.len().saturating_add(v.len());
                if v.len() > LONG_BYTES && length > RECORD_BYTES_MAX {
                    return too_large();
                }
                writer.bytes(index, v);
            }
        }
    }
    Ok(())
}

/// Compiles the access to an array element to a closure of the element's type.
pub fn element(
    array: impl for<'a> Fn(Cx<'a>) -> Result<Option<(Array<'a>, usize)>, Box<EvalError>>
    + Send
    + 'static,
    element: &DataType,
) -> Compiled {
    macro_rules! read {
        ($make:ident, |$row:ident, $slot:ident| $read:expr) => {
            $make(move |cx| {
                let Some((array, index)) = array(cx)? else { return Ok(None) };
                let ($row, $slot) = (array.row, array.slot(index));
                Ok(if $row.is_null($slot) { None } else { Some($read) })
            })
        };
    }
    match element.physical() {
        Physical::Bool => read!(bool_fn, |row, slot| row.long(slot) != 0),
        Physical::Long => read!(long_fn, |row, slot| row.long(slot)),
        Physical::Double => read!(double_fn, |row, slot| row.double(slot)),
        Physical::Decimal => read!(decimal_fn, |row, slot| decimal_of(row.bytes(slot))),
        Physical::Bytes => read!(bytes_fn, |row, slot| row.bytes(slot)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::alloc::Layout;

    const TOO_LARGE: &str = "COLLECTION_SIZE_LIMIT_EXCEEDED";

    /// The test allocates the memory without writing to it, so the pages are never backed by RAM.
    #[test]
    fn the_values_of_a_record_are_bounded_together() {
        let mut arena = Bump::new();
        assert!(bounded_record(&arena).is_ok());
        arena.alloc_layout(Layout::from_size_align(RECORD_BYTES_MAX + 1, 1).unwrap());
        assert_eq!(bounded_record(&arena).unwrap_err().condition, TOO_LARGE);
        arena.reset();
        assert!(bounded_record(&arena).is_ok(), "a chunk that is kept is free");
        let mut row = vec![0; RECORD_BYTES_MAX];
        let mut writer = RowWriter::resume(&mut row, 1);
        static LONG: [u8; LONG_BYTES + 1] = [b'a'; LONG_BYTES + 1];
        let long = bytes_fn(|_| Ok(Some(&LONG[..])));
        let error = write_field(&long, Cx::new(Row(&[]), &arena), &mut writer, 0).unwrap_err();
        assert_eq!(error.condition, TOO_LARGE);
    }
}
