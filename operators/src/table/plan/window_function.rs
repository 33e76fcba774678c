//! Window functions over tables: `f(…) OVER (PARTITION BY … ORDER BY … frame)`.

use crate::table::error::{Place, PlanError, PlanResult, counted};
use crate::table::expr::compile::{Semantics, constant};
use crate::table::expr::over::{Frame, FrameBound, Over};
use crate::table::expr::resolve::{Scope, cast, resolve};
use crate::table::expr::{Expr, Node, Resolved, SortOrder, lower};
use crate::table::plan::aggregate_function::{
    AggregateCall, AggregateFunction, refuse_windows_in_filter, resolve_call,
};
use crate::table::plan::analyzer::{has_aggregate_itself, refuse_unordered};
use crate::table::plan::window_frame::frame_of;
use crate::table::plan::{Plan, SortKey, within_group};
use crate::table::types::DataType;
use crate::table::value::Value;
use WindowFunction as F;

pub use crate::table::plan::window_names::{WINDOW_FUNCTIONS, is_window_only};

/// The relation name of the hidden columns with the results of window functions.
const RELATION: &str = "#window";

/// A window function.
#[derive(Clone, Debug, PartialEq)]
pub enum WindowFunction {
    /// `row_number()`.
    RowNumber,
    /// `rank()`.
    Rank,
    /// `dense_rank()`.
    DenseRank,
    /// `percent_rank()`.
    PercentRank,
    /// `cume_dist()`.
    CumulativeDistribution,
    /// `ntile(n)`.
    Tile(i64),
    /// `lag` and `lead`: the value of the row at a distance from the current row.
    Shifted {
        /// The value.
        value: Resolved,
        /// The distance in rows: positive towards later rows, negative towards earlier ones.
        offset: i64,
        /// The result if there is no such row.
        default: Resolved,
        /// Whether rows with NULL do not count.
        ignores_nulls: bool,
    },
    /// `nth_value(x, n)`.
    Nth {
        /// The value.
        value: Resolved,
        /// The number of the row in the frame, from 1.
        n: i64,
        /// Whether rows with NULL do not count.
        ignores_nulls: bool,
    },
    /// `counter_diff(x[, start])`.
    CounterDifference {
        /// The counter.
        value: Resolved,
        /// When the counter was 0.
        start: Option<Resolved>,
    },
    /// An aggregate over the frame.
    Aggregate(AggregateCall),
}

/// A call of a window function.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowCall {
    /// The function.
    pub function: WindowFunction,
    /// The frame. The bound of a RANGE frame with a distance is the value of the ordering key there.
    pub frame: Frame<Resolved>,
    /// The result type.
    pub data_type: DataType,
    /// Whether the result can be NULL.
    pub nullable: bool,
    /// The call as the user wrote it.
    pub name: String,
}

impl WindowCall {
    /// The expressions that are evaluated for each row.
    fn exprs(&self) -> Vec<&Resolved> {
        let mut out: Vec<&Resolved> = match &self.function {
            F::Shifted { value, default, .. } => vec![value, default],
            F::Nth { value, .. } => vec![value],
            F::CounterDifference { value, start } => start.iter().chain([value]).collect(),
            F::Aggregate(call) => call.args.iter().chain(&call.filter).collect(),
            _ => Vec::new(),
        };
        let bounds = [&self.frame.start, &self.frame.end];
        out.extend(bounds.into_iter().filter_map(FrameBound::distance));
        out
    }
}

/// The calls over one partitioning and order.
#[derive(Clone, Debug, PartialEq)]
pub struct Windows {
    /// The keys of PARTITION BY.
    pub partition: Vec<Resolved>,
    /// The keys of ORDER BY.
    pub order: Vec<SortKey>,
    /// The calls. Each adds a column to the rows.
    pub calls: Vec<WindowCall>,
    /// The number of columns of earlier windows, for the names of the columns.
    pub first: usize,
}

impl Windows {
    /// The name of the column of a call.
    pub fn column_name(&self, index: usize) -> String {
        format!("w{}", self.first + index)
    }

    /// The relation name of the columns.
    pub const RELATION: &'static str = RELATION;

    /// The expressions that are evaluated for each row.
    pub fn exprs(&self) -> Vec<&Resolved> {
        let mut out: Vec<&Resolved> = self.partition.iter().collect();
        out.extend(self.order.iter().map(|key| &key.expr));
        out.extend(self.calls.iter().flat_map(WindowCall::exprs));
        out
    }

    /// Replaces each expression by the result of `change`.
    pub fn map_exprs<E>(
        self,
        change: &mut dyn FnMut(Resolved) -> Result<Resolved, E>,
    ) -> Result<Self, E> {
        let partition =
            self.partition.into_iter().map(&mut *change).collect::<Result<Vec<_>, E>>()?;
        let mut order = Vec::new();
        for key in self.order {
            order.push(SortKey { expr: change(key.expr)?, ..key });
        }
        let mut calls = Vec::new();
        for call in self.calls {
            let function = match call.function {
                F::Shifted { value, offset, default, ignores_nulls } => F::Shifted {
                    value: change(value)?,
                    offset,
                    default: change(default)?,
                    ignores_nulls,
                },
                F::Nth { value, n, ignores_nulls } => {
                    F::Nth { value: change(value)?, n, ignores_nulls }
                }
                F::CounterDifference { value, start } => F::CounterDifference {
                    value: change(value)?,
                    start: start.map(&mut *change).transpose()?,
                },
                F::Aggregate(mut call) => {
                    let args = std::mem::take(&mut call.args).into_iter();
                    call.args = args.map(&mut *change).collect::<Result<_, E>>()?;
                    call.filter = call.filter.map(&mut *change).transpose()?;
                    F::Aggregate(call)
                }
                other => other,
            };
            let Frame { unit, start, end } = call.frame;
            let frame = Frame { unit, start: start.map(change)?, end: end.map(change)? };
            calls.push(WindowCall { function, frame, ..call });
        }
        Ok(Self { partition, order, calls, first: self.first })
    }
}

/// Whether an expression contains a window function.
pub fn has_over(expr: &Expr) -> bool {
    if let Expr::Over(_) = expr {
        return true;
    }
    let mut found = false;
    expr.each_part(&mut |part| found = found || has_over(part));
    found
}

/// The error of a window function in a clause that cannot have one.
pub fn not_in_clause(clause: &str, place: Place) -> PlanError {
    PlanError::new(
        "WINDOW_FUNCTION_NOT_ALLOWED_IN_CLAUSE",
        format!("`{clause}` has a window function"),
        "Use QUALIFY, or compute it in a subquery",
    )
    .at(place)
}

/// The name of the called function.
fn called(over: &Over) -> String {
    match within_group::parts(&over.call).0 {
        Expr::Call { name, .. } => name.clone(),
        other => other.to_string(),
    }
}

/// A window of the WINDOW clause: its name and definition.
pub type NamedWindow = (String, Over);

/// Fills in the window of the WINDOW clause to which `OVER name` refers.
pub fn with_definition(over: &Over, named: &[NamedWindow]) -> PlanResult<Over> {
    let Some(name) = &over.base else { return Ok(over.clone()) };
    let Some((_, definition)) = named.iter().find(|(other, _)| other == name) else {
        return Err(PlanError::new(
            "MISSING_WINDOW_SPECIFICATION",
            format!("there is no window `{name}`"),
            format!("Define it: WINDOW {name} AS (PARTITION BY … ORDER BY …)"),
        )
        .at(over.place));
    };
    let mut filled = over.clone();
    filled.base = None;
    filled.partition.clone_from(&definition.partition);
    filled.order.clone_from(&definition.order);
    filled.frame.clone_from(&definition.frame);
    Ok(filled)
}

/// Plans window functions: adds their results as hidden columns to a plan, and replaces their calls
/// in expressions by references to these columns.
pub struct WindowPlanner<'n> {
    plan: Option<Plan>,
    named: &'n [NamedWindow],
    /// The calls, as they are written, of the columns `w0`, `w1`, ….
    seen: Vec<String>,
}

impl<'n> WindowPlanner<'n> {
    /// Creates a planner over an input.
    pub fn new(input: Plan, named: &'n [NamedWindow]) -> Self {
        Self { plan: Some(input), named, seen: Vec::new() }
    }

    /// The input with the added columns.
    pub fn into_plan(self) -> Plan {
        self.plan.unwrap_or_else(|| Plan::Values(Default::default(), Vec::new()))
    }

    /// Replaces the calls in an expression of a SELECT list. The item keeps its name.
    pub fn item(&mut self, item: &Expr) -> PlanResult<Expr> {
        if !has_over(item) {
            return Ok(item.clone());
        }
        let rewritten = self.expr(item)?;
        Ok(match rewritten {
            Expr::Alias(..) | Expr::Aliases(..) => rewritten,
            _ => rewritten.alias(&item.output_name()),
        })
    }

    /// Replaces the calls in an expression.
    pub fn expr(&mut self, expr: &Expr) -> PlanResult<Expr> {
        if !has_over(expr) {
            return Ok(expr.clone());
        }
        if let Expr::Over(over) = expr {
            let mut over = with_definition(over, self.named)?;
            if let Expr::Call { filter, .. } = within_group::parts(&over.call).0 {
                refuse_windows_in_filter(filter.as_deref())?;
            }
            let mut failure = None;
            let mut inner = |planner: &mut Self, part: &Expr| match planner.expr(part) {
                Ok(part) => part,
                Err(error) => {
                    failure.get_or_insert(error);
                    part.clone()
                }
            };
            over.call = over.call.map_children(&mut |part| inner(self, part));
            over.partition.iter_mut().for_each(|key| *key = inner(self, key));
            over.order.iter_mut().for_each(|key| key.expr = inner(self, &key.expr));
            if let Some(error) = failure {
                return Err(error);
            }
            return self.column(&over).map_err(|error| error.at(over.place));
        }
        let mut failure = None;
        let rewritten = expr.map_children(&mut |part| match self.expr(part) {
            Ok(part) => part,
            Err(error) => {
                failure.get_or_insert(error);
                part.clone()
            }
        });
        failure.map_or(Ok(rewritten), Err)
    }

    /// Replaces an expression of ORDER BY in which aliases of the SELECT list have been replaced by
    /// their calls.
    pub fn known(&mut self, expr: &Expr) -> PlanResult<Expr> {
        let before = self.seen.len();
        let rewritten = self.expr(expr)?;
        if self.seen.len() > before {
            return Err(PlanError::new(
                "UNSUPPORTED_EXPR_FOR_OPERATOR",
                format!("`{expr}` in ORDER BY has a window function that is not selected"),
                "Select it under a name, and order by that",
            ));
        }
        Ok(rewritten)
    }

    /// Adds the filter of QUALIFY.
    pub fn qualify(&mut self, condition: &Expr) -> PlanResult<()> {
        let rewritten = self.expr(condition)?;
        let plan = self.plan.take();
        self.plan =
            plan.map(|plan| crate::table::plan::analyzer::filter(plan, &rewritten)).transpose()?;
        Ok(())
    }

    /// The column of a call, which is added unless an equal call has one.
    fn column(&mut self, over: &Over) -> PlanResult<Expr> {
        let text = format!("{over} {}", over.ignores_nulls);
        let at = match self.seen.iter().position(|other| *other == text) {
            Some(at) => at,
            None => {
                self.add(over)?;
                self.seen.push(text);
                self.seen.len() - 1
            }
        };
        let parts = vec![RELATION.to_string(), format!("w{at}")];
        Ok(Expr::Column { parts, place: over.place })
    }

    fn add(&mut self, over: &Over) -> PlanResult<()> {
        let Some(plan) = self.plan.take() else { return Ok(()) };
        if plan.is_streaming() {
            return Err(PlanError::new(
                "NON_TIME_WINDOW_NOT_SUPPORTED_IN_STREAMING",
                format!(
                    "`{} OVER (…)` needs rows that have not arrived, or all earlier rows",
                    called(over)
                ),
                "Aggregate with GROUP BY",
            ));
        }
        let scope = plan.scope();
        let partition = over
            .partition
            .iter()
            .map(|key| resolve(key, &scope))
            .collect::<PlanResult<Vec<_>>>()?;
        partition.iter().try_for_each(check_partition_key)?;
        let order = over.order.iter().map(|key| sort_key(key, &scope));
        let order = order.collect::<PlanResult<Vec<_>>>()?;
        let call = resolved_call(over, &order, &scope)?;
        // The calls over the same window share one operator.
        if let Plan::Window(input, windows) = &plan
            && windows.partition == partition
            && windows.order == order
            && !reads_results(&call, input.width())
        {
            let Plan::Window(input, mut windows) = plan else { return Ok(()) };
            windows.calls.push(call);
            self.plan = Some(Plan::Window(input, windows));
            return Ok(());
        }
        let windows = Windows { partition, order, calls: vec![call], first: self.seen.len() };
        self.plan = Some(Plan::Window(Box::new(plan), Box::new(windows)));
        Ok(())
    }
}

/// Whether a call reads columns from an index on: the results of other window functions.
fn reads_results(call: &WindowCall, first: usize) -> bool {
    fn reads(expr: &Resolved, first: usize) -> bool {
        matches!(expr.node, Node::Column(index, _) if index >= first)
            || expr.children().into_iter().any(|child| reads(child, first))
    }
    call.exprs().into_iter().any(|expr| reads(expr, first))
}

fn sort_key(key: &SortOrder, scope: &Scope) -> PlanResult<SortKey> {
    let expr = resolve(&key.expr, scope)?;
    refuse_unordered(&expr)?;
    let nulls_first = key.nulls_first.unwrap_or(!key.descending);
    Ok(SortKey { expr, descending: key.descending, nulls_first })
}

/// Resolves a call and its frame.
fn resolved_call(over: &Over, order: &[SortKey], scope: &Scope) -> PlanResult<WindowCall> {
    let (call, _) = within_group::parts(&over.call);
    let Expr::Call { name, args, distinct, filter, .. } = call else {
        return Err(unsupported(&over.call));
    };
    let name = lower(name);
    if is_window_only(&name) {
        check_modifiers(&name, *distinct, filter.is_some(), over.ignores_nulls)?;
    } else if *distinct {
        return Err(PlanError::new(
            "DISTINCT_WINDOW_FUNCTION_UNSUPPORTED",
            format!("`{}` has DISTINCT, which a window function cannot have", over.call),
            "Select the distinct rows in a subquery",
        ));
    }
    let (function, data_type, nullable) = if is_window_only(&name) {
        if order.is_empty() {
            return Err(PlanError::new(
                "WINDOW_FUNCTION_FRAME_NOT_ORDERED",
                format!("`{name}` needs an order of its rows"),
                format!("Write {name}(…) OVER (ORDER BY …)"),
            ));
        }
        own_function(&name, args, over, scope)?
    } else if let Some(function) =
        AggregateFunction::of(&name).filter(|_| has_aggregate_itself(call))
    {
        check_whole_partition(&name, over)?;
        let call = resolve_call(function, &over.call, scope)?;
        let (data_type, nullable) = (call.data_type.clone(), call.function.is_nullable());
        (F::Aggregate(call), data_type, nullable)
    } else {
        return Err(unsupported(&over.call));
    };
    let frame = frame_of(&name, over, order, scope)?;
    Ok(WindowCall { function, frame, data_type, nullable, name: over.to_string() })
}

/// Fails for DISTINCT, FILTER or IGNORE NULLS of a function that exists only as a window function
/// and does not take it.
fn check_modifiers(name: &str, distinct: bool, filter: bool, ignores: bool) -> PlanResult<()> {
    let takes_ignore = matches!(name, "lag" | "lead" | "nth_value");
    let word = match (distinct, filter, ignores && !takes_ignore) {
        (true, ..) => "DISTINCT",
        (_, true, _) => "FILTER",
        (.., true) => "IGNORE NULLS",
        _ => return Ok(()),
    };
    Err(PlanError::new(
        "INVALID_SQL_SYNTAX.FUNCTION_WITH_UNSUPPORTED_SYNTAX",
        format!("`{name}` does not take {word}"),
        "Leave it out",
    ))
}

/// Fails if a function that needs all rows of a partition has a window with an order or a smaller
/// frame: `median`, `percentile_cont`, `percentile_disc`, and `listagg` with WITHIN GROUP.
fn check_whole_partition(name: &str, over: &Over) -> PlanResult<()> {
    let is_ordered = !within_group::parts(&over.call).1.is_empty();
    let needs_all = match name {
        "median" | "percentile_cont" | "percentile_disc" => true,
        "listagg" | "string_agg" => is_ordered,
        _ => false,
    };
    let has_all = over.order.is_empty() && over.frame.as_ref().is_none_or(Frame::is_whole);
    if !needs_all || has_all {
        return Ok(());
    }
    Err(PlanError::new(
        "INVALID_WINDOW_SPEC_FOR_AGGREGATION_FUNC",
        format!("the window of `{name}` has an order or a frame"),
        "Write PARTITION BY only",
    ))
}

fn unsupported(call: &Expr) -> PlanError {
    PlanError::new(
        "UNSUPPORTED_EXPR_FOR_WINDOW",
        format!("`{call}` is neither a window function nor an aggregate"),
        "Leave OVER out, or use an aggregate",
    )
}

/// Resolves a function that exists only as a window function, with its type.
fn own_function(
    name: &str,
    args: &[Expr],
    over: &Over,
    scope: &Scope,
) -> PlanResult<(WindowFunction, DataType, bool)> {
    let (least, most) = match name {
        "ntile" => (0, 1),
        "lag" | "lead" => (1, 3),
        "nth_value" => (2, 2),
        "counter_diff" => (1, 2),
        // As in Spark, these functions take any arguments and ignore them.
        "rank" | "dense_rank" | "percent_rank" => (0, usize::MAX),
        _ => (0, 0),
    };
    if args.len() < least || args.len() > most {
        return Err(PlanError::new(
            "WRONG_NUM_ARGS.WITHOUT_SUGGESTION",
            format!("`{}` has {}, but needs {least}", over.call, counted(args.len(), "argument")),
            "See `millstream functions`",
        ));
    }
    let args = args.iter().map(|arg| resolve(arg, scope)).collect::<PlanResult<Vec<_>>>()?;
    let ignores_nulls = over.ignores_nulls;
    let whole = |at: usize, missing: i64| match args.get(at) {
        None => Ok(missing),
        Some(arg) => whole_constant(arg, &over.call),
    };
    Ok(match name {
        "row_number" => (F::RowNumber, DataType::Int, false),
        "rank" => (F::Rank, DataType::Int, false),
        "dense_rank" => (F::DenseRank, DataType::Int, false),
        "percent_rank" => (F::PercentRank, DataType::Double, false),
        "cume_dist" => (F::CumulativeDistribution, DataType::Double, false),
        "ntile" => {
            let tiles = whole(0, 1)?;
            if tiles < 1 {
                return Err(out_of_range(&over.call, "There is at least one tile"));
            }
            (F::Tile(tiles), DataType::Int, false)
        }
        "counter_diff" => counter_difference(args, &over.call)?,
        "nth_value" => {
            // NULL counts as 0.
            let n = coerced_constant(&args[1], &over.call)?.unwrap_or(0);
            if n < 1 {
                return Err(out_of_range(&over.call, "The first row has the number 1"));
            }
            let value = args[0].clone();
            let data_type = value.data_type.clone();
            (F::Nth { value, n, ignores_nulls }, data_type, true)
        }
        _ => {
            let offset = whole(1, 1)?;
            let offset = if name == "lag" { offset.saturating_neg() } else { offset };
            let data_type = args[0].data_type.clone();
            let default = match args.get(2) {
                None => Resolved::literal(Value::Null, data_type.clone()),
                Some(default) if default.is_null_literal() => default.clone().coerce(&data_type),
                Some(default) => default.clone(),
            };
            let value = args[0].clone();
            let default = cast(default, &data_type, false)?;
            (F::Shifted { value, offset, default, ignores_nulls }, data_type, true)
        }
    })
}

fn counter_difference(
    args: Vec<Resolved>,
    call: &Expr,
) -> PlanResult<(WindowFunction, DataType, bool)> {
    let is_wrong = |arg: &Resolved, at: usize| match (&arg.data_type, at) {
        (DataType::Null, _) => false,
        (data_type, 0) => !data_type.is_numeric(),
        (data_type, _) => !matches!(data_type, DataType::Timestamp | DataType::TimestampNtz),
    };
    if let Some((at, arg)) = args.iter().enumerate().find(|(at, arg)| is_wrong(arg, *at)) {
        let wanted = if at == 0 { "a number" } else { "a timestamp" };
        return Err(PlanError::new(
            "DATATYPE_MISMATCH.UNEXPECTED_INPUT_TYPE",
            format!("`{arg}` in `{call}` is {}, but must be {wanted}", arg.data_type),
            "Cast it",
        ));
    }
    let mut args = args.into_iter();
    let Some(value) = args.next() else { unreachable!("they were counted") };
    let data_type = value.data_type.clone();
    Ok((F::CounterDifference { value, start: args.next() }, data_type, true))
}

fn out_of_range(call: &Expr, fix: &str) -> PlanError {
    let reason = format!("an argument of `{call}` is out of range");
    PlanError::new("DATATYPE_MISMATCH.VALUE_OUT_OF_RANGE", reason, fix)
}

fn wrong_argument(condition: &str, arg: &Resolved, call: &Expr, reason: &str) -> PlanError {
    let reason = format!("`{arg}` in `{call}` {reason}");
    PlanError::new(condition, reason, "Write a constant INT")
}

/// The value of an argument that must be a constant INT.
fn whole_constant(arg: &Resolved, call: &Expr) -> PlanResult<i64> {
    if !arg.is_foldable() {
        return Err(wrong_argument(
            "DATATYPE_MISMATCH.NON_FOLDABLE_INPUT",
            arg,
            call,
            "is no constant",
        ));
    }
    if !matches!(arg.data_type, DataType::Int | DataType::Short | DataType::Byte) {
        return Err(wrong_argument(
            "DATATYPE_MISMATCH.UNEXPECTED_INPUT_TYPE",
            arg,
            call,
            "is no INT",
        ));
    }
    let value = coerced_constant(arg, call)?;
    value.ok_or_else(|| wrong_argument("DATATYPE_MISMATCH.UNEXPECTED_NULL", arg, call, "is NULL"))
}

/// The value of a constant argument that is cast to INT; `None` for NULL. Fails for an argument
/// that is not constant, and for one that is neither a number nor a text.
fn coerced_constant(arg: &Resolved, call: &Expr) -> PlanResult<Option<i64>> {
    let fits = matches!(arg.data_type, DataType::String | DataType::Null);
    if !fits && !arg.data_type.is_numeric() {
        return Err(wrong_argument(
            "DATATYPE_MISMATCH.UNEXPECTED_INPUT_TYPE",
            arg,
            call,
            "is no INT",
        ));
    }
    let value = constant(&cast(arg.clone(), &DataType::Int, false)?, Semantics::default())?;
    match value {
        Some(Value::Long(value)) => Ok(Some(value)),
        Some(_) => Ok(None),
        None => {
            Err(wrong_argument("DATATYPE_MISMATCH.NON_FOLDABLE_INPUT", arg, call, "is no constant"))
        }
    }
}

/// Fails if rows cannot be partitioned by a key, because its values have no order.
fn check_partition_key(key: &Resolved) -> PlanResult<()> {
    if key.data_type.is_orderable() {
        return Ok(());
    }
    Err(PlanError::new(
        "EXPRESSION_TYPE_IS_NOT_ORDERABLE",
        format!("`{key}` is {}, by which rows cannot be partitioned", key.data_type),
        "Partition by its text: CAST(x AS STRING)",
    ))
}
