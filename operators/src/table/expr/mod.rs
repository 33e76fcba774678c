//! Expressions: unresolved ([`Expr`]), resolved against a schema ([`Resolved`]), and compiled to
//! typed closures ([`compile::Compiled`]). The registry of functions ([`functions`]) defines how
//! each function is resolved and compiled; operators such as `+` are functions too.

pub mod bind;
pub mod cast;
pub mod cell;
pub mod chain;
pub mod coercion;
pub mod common_subexpression;
pub mod compile;
pub mod decimal;
pub mod deep;
pub mod functions;
pub mod null_propagation;
pub mod over;
pub mod resolve;
pub mod type_rules;
pub mod user_function;

use super::datetime::Tz;
use super::error::Place;
use super::plan::Plan;
use super::schema_registry::SECRETS;
use super::types::DataType;
use super::value::Value;
use crate::table::deep_recursion::on_stack;
use crate::table::expr::user_function::{UserAggregate, UserFunction};
use millstream_engine::epoch::event_time::BatchTimes;
use smallvec::{SmallVec, smallvec};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// An unresolved expression, as the user wrote it.
pub enum Expr {
    /// A column name, possibly with a qualifier and struct fields: `t.c.field`.
    Column {
        /// The parts of the name.
        parts: Vec<String>,
        /// The position in the query text.
        place: Place,
    },
    /// A column by its index in the scope, with its name. A `*` is expanded to such columns.
    Position(usize, Vec<String>),
    /// A constant.
    Literal(Value, DataType),
    /// A function or operator.
    Call {
        /// The name of the function; its case does not matter.
        name: String,
        /// Arguments.
        args: Vec<Expr>,
        /// Whether the call is `f(DISTINCT …)`.
        distinct: bool,
        /// The condition of `f(…) FILTER (WHERE …)`.
        filter: Option<Box<Expr>>,
        /// The position in the query text.
        place: Place,
    },
    /// `CAST`, or `TRY_CAST`, which gives NULL if the cast fails.
    Cast {
        /// The expression to cast.
        expr: Box<Expr>,
        /// The target type.
        to: DataType,
        /// Whether a failed cast gives NULL (`TRY_CAST`).
        lenient: bool,
    },
    /// `CASE WHEN … THEN … ELSE … END`.
    Case {
        /// The conditions and the values of their branches.
        branches: Vec<(Expr, Expr)>,
        /// The value of `ELSE`, if there is one.
        otherwise: Option<Box<Expr>>,
    },
    /// A long chain of binary operators, evaluated from left to right.
    Chain(Box<chain::Chain>),
    /// A lambda, `x -> …` or `(x, y) -> …`, as an argument of a function such as `transform`.
    Lambda(Vec<String>, Box<Expr>),
    /// A field of an expression's result: `f(x).field`.
    Field(Box<Expr>, String),
    /// `… AS name`.
    Alias(Box<Expr>, String),
    /// `… AS (name, name)`, for the columns of a generator.
    Aliases(Box<Expr>, Vec<String>),
    /// `*` or `t.*`.
    Star(Option<String>),
    /// `* EXCEPT (a, b)`.
    StarExcept(Option<String>, Vec<String>, Place),
    /// A scalar subquery over tables: `(SELECT …)`.
    Scalar(Arc<Plan>, Place),
    /// A call of a user-defined function.
    User(Arc<UserFunction>, Vec<Expr>, Place),
    /// A call of a user-defined aggregate function.
    UserAggregate(Arc<UserAggregate>, Vec<Expr>, Place),
    /// An aggregate with an order of its values: `f(…) WITHIN GROUP (ORDER BY …)`.
    WithinGroup(Box<Expr>, Vec<SortOrder>),
    /// A window function: `f(…) OVER (…)`.
    Over(Box<over::Over>),
}

/// A resolved expression: columns are indices, and types are known and coerced.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// The operation.
    pub node: Node,
    /// The result type.
    pub data_type: DataType,
    /// Whether the result can be NULL.
    pub nullable: bool,
}

/// The operation of a [`Resolved`] expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// A column of the input: its index and its name.
    Column(usize, String),
    /// A constant.
    Literal(Value),
    /// A call of a function, by the function's registered name, with its arguments.
    Call(&'static str, Vec<Resolved>),
    /// A cast to the expression's type, and whether a failed cast gives NULL.
    Cast(Box<Resolved>, bool),
    /// A CASE: conditions with their values, and the value if no condition is true.
    Case(Vec<(Resolved, Resolved)>, Option<Box<Resolved>>),
    /// A long chain of binary operators: the first operand, then operations. In an operation,
    /// [`Node::Carried`] is the result of the previous part.
    Chain(Vec<Resolved>),
    /// In a [`Node::Chain`], the result of the previous part.
    Carried,
    /// A run of operands of one associative operator: their number, and a balanced tree of them,
    /// which is evaluated. They are printed left-associatively, as the user wrote them.
    Run(usize, Box<Resolved>),
    /// A lambda variable, by its position among the variables in scope.
    Variable(usize, String),
    /// A lambda: the number of its variables, and its body.
    Lambda(usize, Box<Resolved>),
    /// A scalar subquery over tables. When the query starts, its result replaces it as a constant.
    Scalar(Arc<Plan>),
    /// The wall-clock time at which the batch started, in microseconds since 1970.
    BatchTime(BatchTimes),
    /// A call of a user-defined function.
    User(Arc<UserFunction>, Vec<Resolved>),
    /// A common subexpression with its slot number, evaluated at most once per record.
    Shared(usize, Box<Resolved>),
}

/// An unresolved sort key: an expression with its direction and the position of NULLs.
#[derive(Clone, Debug, PartialEq)]
pub struct SortOrder {
    /// The expression to sort by.
    pub expr: Expr,
    /// Whether the largest value comes first.
    pub descending: bool,
    /// Whether NULLs come first. `None` means that NULLs count as the smallest values.
    pub nulls_first: Option<bool>,
}

impl SortOrder {
    /// Sorts NULLs before all other values, in either direction.
    pub fn nulls_first(self) -> Self {
        Self { nulls_first: Some(true), ..self }
    }

    /// Sorts NULLs after all other values, in either direction.
    pub fn nulls_last(self) -> Self {
        Self { nulls_first: Some(false), ..self }
    }
}

impl From<Expr> for SortOrder {
    fn from(expr: Expr) -> Self {
        expr.asc()
    }
}

/// Starts a `CASE WHEN condition THEN value …`; continue with [`When::when`] and end with
/// [`When::otherwise`] or [`When::end`].
pub fn when(condition: Expr, value: impl Into<Expr>) -> When {
    When(vec![(condition, value.into())])
}

/// A CASE under construction.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "it is no expression before `otherwise` or `end`"]
pub struct When(Vec<(Expr, Expr)>);

impl When {
    /// Adds a branch: a condition, and the result if this is the first true condition.
    pub fn when(mut self, condition: Expr, value: impl Into<Expr>) -> Self {
        self.0.push((condition, value.into()));
        self
    }

    /// Ends the CASE. `value` is its result if no condition is true.
    pub fn otherwise(self, value: impl Into<Expr>) -> Expr {
        Expr::Case { branches: self.0, otherwise: Some(Box::new(value.into())) }
    }

    /// Ends the CASE. Its result is NULL if no condition is true.
    pub fn end(self) -> Expr {
        Expr::Case { branches: self.0, otherwise: None }
    }
}

/// A column by its name. Dots separate a relation's name, the column's and its fields'.
pub fn col(name: &str) -> Expr {
    let parts = name.split('.').map(str::to_string).collect();
    Expr::Column { parts, place: Place::default() }
}

/// Creates a constant from a Rust value.
pub fn lit(value: impl Into<Expr>) -> Expr {
    value.into()
}

impl From<i32> for Expr {
    fn from(value: i32) -> Self {
        Self::Literal(Value::Long(i64::from(value)), DataType::Int)
    }
}

impl From<i64> for Expr {
    fn from(value: i64) -> Self {
        Self::Literal(Value::Long(value), DataType::Long)
    }
}

impl From<f64> for Expr {
    fn from(value: f64) -> Self {
        Self::Literal(Value::Double(value), DataType::Double)
    }
}

impl From<bool> for Expr {
    fn from(value: bool) -> Self {
        Self::Literal(Value::Boolean(value), DataType::Boolean)
    }
}

impl From<&str> for Expr {
    fn from(value: &str) -> Self {
        Self::Literal(Value::String(value.to_string()), DataType::String)
    }
}

/// Creates a call of a function by its name. The name is looked up when the query is planned.
pub fn call(name: &str, args: impl IntoIterator<Item = Expr>) -> Expr {
    Expr::Call {
        name: name.to_string(),
        args: args.into_iter().collect(),
        distinct: false,
        filter: None,
        place: Place::default(),
    }
}

macro_rules! operators {
    ($($(#[$doc:meta])* $method:ident $name:literal;)*) => {
        #[expect(clippy::should_implement_trait, reason = "Spark's names; `<` cannot be overloaded")]
        impl Expr {
            $($(#[$doc])*
            pub fn $method(self, other: impl Into<Expr>) -> Expr {
                chain::binary($name, self, other.into(), Place::default())
            })*
        }
    };
}

operators! {
    /// `self = other`: NULL if an operand is NULL.
    eq "=";
    /// `self <> other`: NULL if an operand is NULL.
    ne "<>";
    /// `self < other`: NULL if an operand is NULL.
    lt "<";
    /// `self <= other`: NULL if an operand is NULL.
    le "<=";
    /// `self > other`: NULL if an operand is NULL.
    gt ">";
    /// `self >= other`: NULL if an operand is NULL.
    ge ">=";
    /// The conjunction in three-valued logic.
    and "and";
    /// The disjunction in three-valued logic.
    or "or";
    /// The sum `self + other`. In ANSI mode an overflow is an error.
    add "+";
    /// The difference `self - other`. In ANSI mode an overflow is an error.
    sub "-";
    /// The product `self * other`. In ANSI mode an overflow is an error.
    mul "*";
    /// The quotient `self / other`. In ANSI mode a division by zero is an error.
    div "/";
    /// The remainder `self % other`. In ANSI mode a division by zero is an error.
    rem "%";
}

impl Expr {
    /// Gives the result a name: `expr AS name`.
    pub fn alias(self, name: &str) -> Expr {
        Expr::Alias(Box::new(self), name.to_string())
    }

    /// Whether the value is NULL.
    pub fn is_null(self) -> Expr {
        call("isnull", [self])
    }

    /// Whether the value is not NULL.
    pub fn is_not_null(self) -> Expr {
        call("isnotnull", [self])
    }

    /// Negates a condition in three-valued logic.
    #[expect(clippy::should_implement_trait, reason = "Spark's name, beside `and` and `or`")]
    pub fn not(self) -> Expr {
        call("not", [self])
    }

    /// Whether the value is in a list.
    pub fn is_in<E: Into<Expr>>(self, values: impl IntoIterator<Item = E>) -> Expr {
        call("in", std::iter::once(self).chain(values.into_iter().map(Into::into)))
    }

    /// Whether the value is between two bounds, inclusive.
    pub fn between(self, low: impl Into<Expr>, high: impl Into<Expr>) -> Expr {
        let (low, high) = (low.into(), high.into());
        bind::used_repeatedly(self, |value| value.clone().ge(low).and(value.le(high)))
    }

    /// An element of an array by its index from 0, or a value of a map by its key.
    pub fn get_item(self, key: impl Into<Expr>) -> Expr {
        call("getitem", [self, key.into()])
    }

    /// A field of a struct.
    pub fn get_field(self, name: &str) -> Expr {
        Expr::Field(Box::new(self), name.to_string())
    }

    /// Restricts an aggregate function to the rows for which `condition` is true. A query that has
    /// this for any other expression, or for a user-defined function, is rejected.
    pub fn filter(self, condition: Expr) -> Expr {
        self.with_clause(|_, filter| *filter = Some(Box::new(condition)))
    }

    /// Makes an aggregate function process each distinct value once. A query that has this for any
    /// other expression, or for a user-defined function, is rejected, and so is a streaming query,
    /// unless duplicates do not change the result.
    pub fn distinct(self) -> Expr {
        self.with_clause(|distinct, _| *distinct = true)
    }

    /// Changes DISTINCT and FILTER of a call, which may have an alias or a cast.
    fn with_clause(self, change: impl FnOnce(&mut bool, &mut Option<Box<Expr>>)) -> Expr {
        let mut expr = self;
        let mut inner = &mut expr;
        while let Expr::Alias(of, _) | Expr::Cast { expr: of, .. } = inner {
            inner = of;
        }
        if !matches!(inner, Expr::Call { .. }) {
            // A clause is resolved only with a call. This one is rejected.
            let other = std::mem::replace(inner, Expr::Star(None));
            let name = match &other {
                Expr::UserAggregate(function, ..) => function.name().to_string(),
                other => other.to_string(),
            };
            *inner = call(&name, [other]);
        }
        if let Expr::Call { distinct, filter, .. } = inner {
            change(distinct, filter);
        }
        expr
    }

    /// Sorts in ascending order, NULLs first.
    pub fn asc(self) -> SortOrder {
        SortOrder { expr: self, descending: false, nulls_first: None }
    }

    /// Sorts in descending order, NULLs last.
    pub fn desc(self) -> SortOrder {
        SortOrder { expr: self, descending: true, nulls_first: None }
    }

    /// Casts to a type. In ANSI mode a value that cannot be cast is an error.
    pub fn cast(self, to: DataType) -> Expr {
        Expr::Cast { expr: Box::new(self), to, lenient: false }
    }

    /// The position in the query text; 0 if unknown.
    pub fn place(&self) -> Place {
        match self {
            Self::Column { place, .. } => *place,
            Self::Call { args, place, .. } => {
                let first = || args.iter().map(Expr::place).find(|place| place.line > 0);
                if place.line > 0 { *place } else { first().unwrap_or_default() }
            }
            Self::Cast { expr, .. } | Self::Alias(expr, _) => expr.place(),
            Self::Aliases(expr, _) | Self::Field(expr, _) => expr.place(),
            Self::Chain(chain) => chain.place(),
            Self::StarExcept(_, _, place) | Self::Scalar(_, place) => *place,
            Self::User(_, _, place) | Self::UserAggregate(_, _, place) => *place,
            Self::WithinGroup(call, _) => call.place(),
            Self::Over(over) => over.place,
            _ => Place::default(),
        }
    }

    /// The number of nodes of the expression, and the sizes of the plans of its scalar subqueries.
    pub fn size(&self) -> usize {
        let all = |exprs: &[Expr]| exprs.iter().map(Expr::size).sum::<usize>();
        1 + match self {
            Self::Call { args, filter, .. } => {
                all(args) + filter.as_ref().map_or(0, |filter| filter.size())
            }
            Self::User(_, args, _) | Self::UserAggregate(_, args, _) => all(args),
            Self::Chain(chain) => chain.operands().map(Expr::size).sum(),
            Self::Cast { expr, .. } | Self::Alias(expr, _) | Self::Aliases(expr, _) => expr.size(),
            Self::Lambda(_, expr) | Self::Field(expr, _) => expr.size(),
            Self::Case { branches, otherwise } => {
                let branches = branches.iter().map(|(when, then)| when.size() + then.size());
                branches.sum::<usize>() + otherwise.as_ref().map_or(0, |expr| expr.size())
            }
            Self::Scalar(plan, _) => plan.size(),
            Self::WithinGroup(..) | Self::Over(_) => {
                let mut sum = 0;
                self.each_part(&mut |part| sum += part.size());
                sum
            }
            _ => 0,
        }
    }

    /// Returns a copy in which each direct part of the expression is replaced by the result of
    /// `change`. An expression without parts, and a scalar subquery, are copied unchanged.
    pub(crate) fn map_children(&self, change: &mut dyn FnMut(&Self) -> Self) -> Self {
        let all = |args: &[Self], change: &mut dyn FnMut(&Self) -> Self| -> Vec<Self> {
            args.iter().map(change).collect()
        };
        match self {
            Self::Call { name, args, distinct, filter, place } => Self::Call {
                name: name.clone(),
                args: all(args, change),
                distinct: *distinct,
                filter: filter.as_deref().map(|filter| Box::new(change(filter))),
                place: *place,
            },
            Self::Cast { expr, to, lenient } => {
                Self::Cast { expr: Box::new(change(expr)), to: to.clone(), lenient: *lenient }
            }
            Self::Case { branches, otherwise } => Self::Case {
                branches: branches
                    .iter()
                    .map(|(when, then)| (change(when), change(then)))
                    .collect(),
                otherwise: otherwise.as_deref().map(|otherwise| Box::new(change(otherwise))),
            },
            Self::Chain(chain) => chain.map(change),
            Self::Lambda(names, body) => Self::Lambda(names.clone(), Box::new(change(body))),
            Self::Field(inner, name) => Self::Field(Box::new(change(inner)), name.clone()),
            Self::Alias(inner, name) => Self::Alias(Box::new(change(inner)), name.clone()),
            Self::Aliases(inner, names) => Self::Aliases(Box::new(change(inner)), names.clone()),
            Self::User(function, args, place) => {
                Self::User(function.clone(), all(args, change), *place)
            }
            Self::UserAggregate(function, args, place) => {
                Self::UserAggregate(function.clone(), all(args, change), *place)
            }
            Self::WithinGroup(call, keys) => {
                let call = Box::new(change(call));
                let key = |key: &SortOrder| SortOrder { expr: change(&key.expr), ..*key };
                Self::WithinGroup(call, keys.iter().map(key).collect())
            }
            Self::Over(over) => Self::Over(Box::new(over.map(change))),
            Self::Column { .. }
            | Self::Position(..)
            | Self::Literal(..)
            | Self::Star(_)
            | Self::StarExcept(..)
            | Self::Scalar(..) => self.clone(),
        }
    }

    /// The name of the expression's column in a SELECT list: its alias, or the name that Spark
    /// gives to an expression without one.
    pub fn output_name(&self) -> String {
        match self {
            Self::Alias(_, name) => name.clone(),
            Self::Column { parts, .. } | Self::Position(_, parts) => {
                parts.last().cloned().unwrap_or_default()
            }
            Self::Field(_, name) => name.clone(),
            // A cast of a plain column keeps the column's name.
            Self::Cast { expr, .. } if matches!(**expr, Self::Column { .. }) => expr.output_name(),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        on_stack(|| self.show(f))
    }
}

impl Expr {
    /// The string of a STRING literal; `None` for any other expression.
    fn literal_text(&self) -> Option<&str> {
        match self {
            Self::Literal(Value::String(text), _) => Some(text),
            _ => None,
        }
    }

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Column { parts, .. } | Self::Position(_, parts) => {
                write!(f, "{}", parts.join("."))
            }
            Self::Literal(Value::String(text), DataType::String) => write!(f, "{text}"),
            Self::Literal(value, data_type) => {
                let redacted = without_secrets(value);
                let text = redacted.as_ref().unwrap_or(value).display(data_type, Tz::UTC);
                write!(f, "{}", text.unwrap_or_else(|| "NULL".to_string()))
            }
            Self::Call { name, args, distinct, filter, .. } => {
                match (&**name, args.as_slice()) {
                    (bind::BIND, [value, Self::Lambda(_, body)]) => {
                        write!(f, "{}", bind::unbound(value, body))
                    }
                    (resolve::COLUMN_OR_FUNCTION, [_, function]) => write!(f, "{function}"),
                    ("count", [Self::Star(None)]) => write!(f, "count(1)"),
                    ("not", [a]) => write!(f, "(NOT {a})"),
                    ("isnull", [a]) => write!(f, "({a} IS NULL)"),
                    ("isnotnull", [a]) => write!(f, "({a} IS NOT NULL)"),
                    ("negative", [a]) => write!(f, "(- {a})"),
                    ("positive", [a]) => write!(f, "(+ {a})"),
                    ("getitem", [a, b]) => write!(f, "{a}[{b}]"),
                    ("map", args) => show_map(f, args, Self::literal_text, REDACTED),
                    (_, [a, b]) if functions::is_operator(name) => {
                        write!(f, "({a} {} {b})", name.to_uppercase())
                    }
                    (_, args) => {
                        write!(f, "{name}({}", if *distinct { "DISTINCT " } else { "" })?;
                        list(f, args)?;
                        write!(f, ")")
                    }
                }?;
                match filter {
                    Some(filter) => write!(f, " FILTER (WHERE {filter})"),
                    None => Ok(()),
                }
            }
            Self::Cast { expr, to, lenient } => {
                write!(f, "{}({expr} AS {to})", if *lenient { "TRY_CAST" } else { "CAST" })
            }
            Self::Case { branches, otherwise } => {
                write!(f, "CASE")?;
                for (when, then) in branches {
                    write!(f, " WHEN {when} THEN {then}")?;
                }
                if let Some(otherwise) = otherwise {
                    write!(f, " ELSE {otherwise}")?;
                }
                write!(f, " END")
            }
            Self::Chain(chain) => write!(f, "{chain}"),
            Self::Lambda(names, body) => {
                let names: Vec<_> =
                    names.iter().map(|name| format!("namedlambdavariable({name})")).collect();
                write!(f, "lambdafunction({body}, {})", names.join(", "))
            }
            Self::Field(expr, name) => write!(f, "{expr}.{name}"),
            Self::Alias(expr, name) => write!(f, "{expr} AS {name}"),
            Self::Aliases(expr, names) => write!(f, "{expr} AS ({})", names.join(", ")),
            Self::StarExcept(_, names, _) => write!(f, "* EXCEPT ({})", names.join(", ")),
            Self::Scalar(..) => write!(f, "scalarsubquery()"),
            Self::User(function, args, _) => called(f, function.name(), args),
            Self::UserAggregate(function, args, _) => called(f, function.name(), args),
            Self::WithinGroup(call, keys) => {
                write!(f, "{call} WITHIN GROUP (ORDER BY ")?;
                list(f, keys)?;
                write!(f, ")")
            }
            Self::Over(over) => write!(f, "{over}"),
            Self::Star(None) => write!(f, "*"),
            Self::Star(Some(table)) => write!(f, "{table}.*"),
        }
    }
}

fn called<T: fmt::Display>(f: &mut fmt::Formatter<'_>, name: &str, args: &[T]) -> fmt::Result {
    write!(f, "{name}(")?;
    list(f, args)?;
    write!(f, ")")
}

fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T]) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        write!(f, "{}{item}", if i > 0 { ", " } else { "" })?;
    }
    Ok(())
}

/// Converts a function name to lower case, without allocating if it is in lower case already.
pub fn lower(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Cow::Owned(name.to_ascii_lowercase());
    }
    Cow::Borrowed(name)
}

/// Whether a function returns the same value for equal arguments in all rows of a batch.
fn is_steady(name: &str) -> bool {
    name == "current_timestamp" || functions::is_deterministic(name)
}

impl Resolved {
    /// The direct subexpressions.
    pub fn children(&self) -> SmallVec<[&Resolved; 4]> {
        match &self.node {
            Node::Column(..)
            | Node::Variable(..)
            | Node::Literal(_)
            | Node::Scalar(_)
            | Node::Carried
            | Node::BatchTime(_) => SmallVec::new(),
            Node::Call(_, args) | Node::User(_, args) | Node::Chain(args) => args.iter().collect(),
            Node::Cast(inner, _)
            | Node::Lambda(_, inner)
            | Node::Shared(_, inner)
            | Node::Run(_, inner) => smallvec![&**inner],
            Node::Case(branches, otherwise) => {
                let branches = branches.iter().flat_map(|(when, then)| [when, then]);
                branches.chain(otherwise.as_deref()).collect()
            }
        }
    }

    /// Replaces each direct subexpression by the result of `change`.
    pub fn map_children(self, change: &mut dyn FnMut(Resolved) -> Resolved) -> Resolved {
        let Self { node, data_type, nullable } = self;
        let node = match node {
            Node::Call(name, args) => Node::Call(name, args.into_iter().map(change).collect()),
            Node::Chain(parts) => Node::Chain(parts.into_iter().map(change).collect()),
            Node::User(function, args) => {
                Node::User(function, args.into_iter().map(change).collect())
            }
            Node::Cast(inner, lenient) => Node::Cast(Box::new(change(*inner)), lenient),
            Node::Lambda(count, body) => Node::Lambda(count, Box::new(change(*body))),
            Node::Shared(slot, inner) => Node::Shared(slot, Box::new(change(*inner))),
            Node::Run(operands, inner) => Node::Run(operands, Box::new(change(*inner))),
            Node::Case(branches, otherwise) => {
                let mut changed = Vec::with_capacity(branches.len());
                for (when, then) in branches {
                    changed.push((change(when), change(then)));
                }
                Node::Case(changed, otherwise.map(|o| Box::new(change(*o))))
            }
            leaf => leaf,
        };
        Self { node, data_type, nullable }
    }

    /// Creates a constant.
    pub fn literal(value: Value, data_type: DataType) -> Self {
        let nullable = value == Value::Null;
        Self { node: Node::Literal(value), data_type, nullable }
    }

    /// Whether the expression is the constant NULL.
    pub fn is_null_literal(&self) -> bool {
        matches!(self.node, Node::Literal(Value::Null))
    }

    /// Whether the expression is the constant NULL, possibly cast to a type.
    pub fn is_null_constant(&self) -> bool {
        match &self.node {
            Node::Cast(inner, _) => inner.is_null_constant(),
            _ => self.is_null_literal(),
        }
    }

    /// Whether the expression reads neither a column nor a lambda variable.
    pub fn is_constant(&self) -> bool {
        !matches!(self.node, Node::Column(..) | Node::Variable(..))
            && self.children().into_iter().all(Self::is_constant)
    }

    /// Whether the expression has the same value for equal rows of a batch.
    pub fn is_steady(&self) -> bool {
        let same = !matches!(&self.node, Node::Call(name, _) if !is_steady(name));
        same && self.children().into_iter().all(Self::is_steady)
    }

    /// Whether the expression reads the current time, which is the same for all rows of a batch.
    pub(crate) fn reads_clock(&self) -> bool {
        matches!(self.node, Node::Call("current_timestamp", _))
            || self.children().into_iter().any(Self::reads_clock)
    }

    /// Whether the expression is constant and deterministic (Spark: foldable). One with a scalar
    /// subquery or a user-defined function is not.
    pub fn is_foldable(&self) -> bool {
        let same = match &self.node {
            Node::Column(..) | Node::Variable(..) | Node::Scalar(_) | Node::User(..) => false,
            Node::Call(name, _) => is_steady(name),
            _ => true,
        };
        same && self.children().into_iter().all(Self::is_foldable)
    }

    /// The string of a STRING literal; `None` for any other expression.
    pub fn literal_text(&self) -> Option<&str> {
        match &self.node {
            Node::Literal(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// Adds an implicit cast to a type, unless the expression already has the type. An untyped NULL
    /// becomes a NULL of the type. Whether the cast is allowed is not checked.
    pub fn coerce(self, to: &DataType) -> Self {
        if self.data_type == *to {
            return self;
        }
        if self.is_null_literal() {
            return Self::literal(Value::Null, to.clone());
        }
        let nullable = self.nullable;
        Self { node: Node::Cast(Box::new(self), false), data_type: to.clone(), nullable }
    }
}

/// Shown instead of a password. Spark shows the same.
const REDACTED: &str = "*********(redacted)";

/// Whether the value of an option is a password or contains one.
fn is_secret(option: &str) -> bool {
    SECRETS.iter().any(|secret| secret.eq_ignore_ascii_case(option))
}

/// A copy of a map of options without its passwords; `None` for a value that contains no password.
fn without_secrets(value: &Value) -> Option<Value> {
    let Value::Map(entries) = value else { return None };
    let secret = |(key, _): &(Value, Value)| matches!(key, Value::String(key) if is_secret(key));
    entries.iter().any(secret).then(|| {
        let entries = entries.iter().map(|entry| match secret(entry) {
            true => (entry.0.clone(), Value::String(REDACTED.to_string())),
            false => entry.clone(),
        });
        Value::Map(entries.collect())
    })
}

/// Shows a call of the function `map`, without passwords. `text_of` is the string of a literal, and
/// `redacted` stands for a password.
fn show_map<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    args: &[T],
    text_of: impl Fn(&T) -> Option<&str>,
    redacted: impl fmt::Display,
) -> fmt::Result {
    write!(f, "map(")?;
    for (index, arg) in args.iter().enumerate() {
        if index > 0 {
            write!(f, ", ")?;
        }
        let is_value_of_secret = index % 2 == 1 && text_of(&args[index - 1]).is_some_and(is_secret);
        match is_value_of_secret {
            true => write!(f, "{redacted}")?,
            false => write!(f, "{arg}")?,
        }
    }
    write!(f, ")")
}

/// Shows a call whose third argument is a descriptor set, without the bytes of the set.
fn show_with_descriptors(f: &mut fmt::Formatter<'_>, name: &str, args: &[Resolved]) -> fmt::Result {
    write!(f, "{name}(")?;
    for (index, arg) in args.iter().enumerate() {
        let separator = if index > 0 { ", " } else { "" };
        match &arg.node {
            Node::Literal(Value::Binary(bytes)) if index == 2 => {
                write!(f, "{separator}{} bytes of descriptors", bytes.len())?;
            }
            _ => write!(f, "{separator}{arg}")?,
        }
    }
    write!(f, ")")
}

impl fmt::Display for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.node {
            Node::Column(_, name) | Node::Variable(_, name) => write!(f, "{name}"),
            Node::Lambda(_, body) => write!(f, "-> {body}"),
            Node::Chain(parts) => chain::show(parts, f),
            Node::Carried => write!(f, "{}", chain::MARK),
            Node::Run(operands, inner) => chain::show_run(*operands, inner, f),
            Node::Scalar(_) => write!(f, "scalarsubquery()"),
            Node::Shared(_, inner) => write!(f, "{inner}"),
            Node::BatchTime(_) => write!(f, "current_timestamp()"),
            Node::User(function, args) => called(f, function.name(), args),
            Node::Literal(value) => {
                let redacted = without_secrets(value);
                let text = redacted.as_ref().unwrap_or(value).display(&self.data_type, Tz::UTC);
                match (text, &self.data_type) {
                    (None, _) => write!(f, "NULL"),
                    (Some(text), DataType::String) => write!(f, "'{text}'"),
                    (Some(text), _) => write!(f, "{text}"),
                }
            }
            Node::Call("map", args) => {
                show_map(f, args, Self::literal_text, format_args!("'{REDACTED}'"))
            }
            Node::Call(name @ ("from_protobuf" | "to_protobuf"), args) => {
                show_with_descriptors(f, name, args)
            }
            Node::Call(name, args) => match args.as_slice() {
                [a, b] if functions::is_operator(name) => {
                    write!(f, "({a} {} {b})", name.to_uppercase())
                }
                args => {
                    write!(f, "{name}(")?;
                    list(f, args)?;
                    write!(f, ")")
                }
            },
            Node::Cast(expr, lenient) => {
                let word = if *lenient { "try_cast" } else { "cast" };
                write!(f, "{word}({expr} AS {})", self.data_type)
            }
            Node::Case(branches, otherwise) => {
                write!(f, "CASE")?;
                for (when, then) in branches {
                    write!(f, " WHEN {when} THEN {then}")?;
                }
                if let Some(otherwise) = otherwise {
                    write!(f, " ELSE {otherwise}")?;
                }
                write!(f, " END")
            }
        }
    }
}
