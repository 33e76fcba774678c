//! User-defined functions, scalar and aggregate.
//!
//! ```
//! use millstream::session::Session;
//! use millstream::table::expr::user_function::{UserAggregate, UserFunction};
//! use millstream::table::types::DataType;
//! use millstream::table::value::Value;
//!
//! let session = Session::new();
//! // Arguments are borrowed from the row. New values are allocated in the record's arena.
//! session.register_function(UserFunction::new(
//!     "shout",
//!     [DataType::String],
//!     DataType::String,
//!     |args, arena| match args[0] {
//!         null if null.is_null() => Ok(null),
//!         text => Ok(arena.text(&text.text().to_uppercase())),
//!     },
//! ));
//! session.register_aggregate(UserAggregate::new(
//!     "product",
//!     [DataType::Long],
//!     DataType::Long,
//!     [(DataType::Long, Value::Long(1))],
//!     |state, args| {
//!         if let (Value::Long(product), Value::Long(v)) = (&mut state[0], &args[0]) {
//!             *product *= v;
//!         }
//!         Ok(())
//!     },
//!     |state| Ok(state[0].clone()),
//! ));
//! let rows = session
//!     .sql("SELECT shout(k) AS k, product(n) AS p FROM VALUES ('a', 3L), ('a', 4L) AS t(k, n) GROUP BY 1")?
//!     .collect()?;
//! assert_eq!(rows, [vec![Value::String("A".into()), Value::Long(12)]]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::table::error::{Place, PlanError, PlanResult, counted};
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{Compiled, Eval, failed, from_cells};
use crate::table::expr::resolve::expect_type;
use crate::table::expr::{Expr, Node, Resolved};
use crate::table::types::DataType;
use crate::table::value::Value;
use bumpalo::Bump;
use std::fmt;
use std::sync::Arc;

/// The memory for the texts and bytes that a function returns. It is freed after the record.
#[derive(Clone, Copy)]
pub struct Arena<'a>(&'a Bump);

impl<'a> Arena<'a> {
    /// Copies a text into the arena and returns it as a value.
    pub fn text(self, text: &str) -> Cell<'a> {
        Cell::Bytes(self.0.alloc_str(text).as_bytes())
    }

    /// Copies bytes into the arena and returns them as a value.
    pub fn bytes(self, bytes: &[u8]) -> Cell<'a> {
        Cell::Bytes(self.0.alloc_slice_copy(bytes))
    }
}

type EvalUser = dyn for<'a> Fn(&[Cell<'a>], Arena<'a>) -> Result<Cell<'a>, String> + Send + Sync;

/// A user-defined scalar function, for SQL and the DataFrame API.
pub struct UserFunction {
    name: String,
    args: Vec<DataType>,
    to: DataType,
    eval: Box<EvalUser>,
}

impl UserFunction {
    /// Creates a function with arguments of these types. `eval` is also called for NULL arguments.
    /// It must be deterministic: equal calls within a record may be evaluated once, and a call more
    /// than once. An error ends the query.
    pub fn new(
        name: &str,
        args: impl IntoIterator<Item = DataType>,
        to: DataType,
        eval: impl for<'a> Fn(&[Cell<'a>], Arena<'a>) -> Result<Cell<'a>, String>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        let args = args.into_iter().collect();
        Self { name: name.to_string(), args, to, eval: Box::new(eval) }
    }

    /// The name of the function in SQL.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Creates a call, for the DataFrame API.
    pub fn call(self: &Arc<Self>, args: impl IntoIterator<Item = Expr>) -> Expr {
        Expr::User(self.clone(), args.into_iter().collect(), Place::default())
    }
}

impl fmt::Debug for UserFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({:?}) -> {}", self.name, self.args, self.to)
    }
}

impl PartialEq for UserFunction {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

type Update = dyn Fn(&mut [Value], &[Value]) -> Result<(), String> + Send + Sync;
type Finish = dyn Fn(&[Value]) -> Result<Value, String> + Send + Sync;

/// A user-defined aggregate function, for SQL and the DataFrame API.
pub struct UserAggregate {
    name: String,
    args: Vec<DataType>,
    to: DataType,
    state: Vec<(DataType, Value)>,
    update: Box<Update>,
    finish: Box<Finish>,
}

impl UserAggregate {
    /// Creates an aggregate with arguments of these types. `state` lists the types and initial
    /// values of a group's state, which is checkpointed. `update` adds a record to the state, and
    /// `finish` computes the result from the state. An error ends the query.
    pub fn new(
        name: &str,
        args: impl IntoIterator<Item = DataType>,
        to: DataType,
        state: impl IntoIterator<Item = (DataType, Value)>,
        update: impl Fn(&mut [Value], &[Value]) -> Result<(), String> + Send + Sync + 'static,
        finish: impl Fn(&[Value]) -> Result<Value, String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.to_string(),
            args: args.into_iter().collect(),
            to,
            state: state.into_iter().collect(),
            update: Box::new(update),
            finish: Box::new(finish),
        }
    }

    /// The name of the aggregate in SQL.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The result type.
    pub fn data_type(&self) -> &DataType {
        &self.to
    }

    /// Creates a call, for the DataFrame API.
    pub fn call(self: &Arc<Self>, args: impl IntoIterator<Item = Expr>) -> Expr {
        Expr::UserAggregate(self.clone(), args.into_iter().collect(), Place::default())
    }

    /// The types of the state's values, in order.
    pub(crate) fn state_types(&self) -> impl ExactSizeIterator<Item = &DataType> {
        self.state.iter().map(|(data_type, _)| data_type)
    }

    /// The initial state of a group.
    pub(crate) fn start(&self) -> Vec<Value> {
        self.state.iter().map(|(_, value)| value.clone()).collect()
    }

    pub(crate) fn update(&self, state: &mut [Value], args: &[Value]) -> Eval<()> {
        match (self.update)(state, args) {
            Ok(()) => Ok(Some(())),
            Err(reason) => user_failed(&self.name, &reason),
        }
    }

    pub(crate) fn finish(&self, state: &[Value]) -> Eval<Value> {
        match (self.finish)(state) {
            Ok(value) => Ok(Some(value)),
            Err(reason) => user_failed(&self.name, &reason),
        }
    }
}

impl fmt::Debug for UserAggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({:?}) -> {}, state {:?}", self.name, self.args, self.to, self.state)
    }
}

impl PartialEq for UserAggregate {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

#[cold]
fn user_failed<T>(name: &str, reason: &str) -> Eval<T> {
    failed("FAILED_EXECUTE_UDF", format!("`{name}`: {reason}"), "")
}

fn checked(name: &str, types: &[DataType], args: Vec<Resolved>) -> PlanResult<Vec<Resolved>> {
    if args.len() != types.len() {
        return Err(PlanError::new(
            "WRONG_NUM_ARGS.WITHOUT_SUGGESTION",
            format!("`{name}` takes {}, but has {}", counted(types.len(), "argument"), args.len()),
            "",
        ));
    }
    let what = format!("`{name}`");
    args.into_iter().zip(types).map(|(arg, to)| expect_type(arg, to, &what)).collect()
}

/// Resolves a call. The arguments are cast to the types of the function.
pub fn resolve(function: &Arc<UserFunction>, args: Vec<Resolved>) -> PlanResult<Resolved> {
    let args = checked(&function.name, &function.args, args)?;
    let node = Node::User(function.clone(), args);
    Ok(Resolved { node, data_type: function.to.clone(), nullable: true })
}

/// Checks the arguments of an aggregate and casts them to its types.
pub fn aggregate_args(function: &UserAggregate, args: Vec<Resolved>) -> PlanResult<Vec<Resolved>> {
    checked(&function.name, &function.args, args)
}

/// Compiles a call. If the function returns a value of another physical type than it declares, the
/// result is NULL.
pub fn compile(function: Arc<UserFunction>, args: Vec<Compiled>) -> Compiled {
    from_cells(function.to.physical(), move |cx| {
        let mut cells: smallvec::SmallVec<[Cell<'_>; 4]> = smallvec::SmallVec::new();
        for arg in &args {
            cells.push(arg.cell(cx)?);
        }
        match (function.eval)(&cells, Arena(cx.arena)) {
            Ok(cell) => Ok(cell),
            Err(reason) => user_failed(&function.name, &reason).map(|_: Option<()>| Cell::Null),
        }
    })
}
