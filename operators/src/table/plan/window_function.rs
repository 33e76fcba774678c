//! Window functions over tables: `f(…) OVER (PARTITION BY … ORDER BY … frame)`.

use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::expr::compile::{Semantics, evaluate};
use crate::table::expr::over::{Frame, FrameBound, FrameUnit, Over};
use crate::table::expr::resolve::{Scope, cast, resolve};
use crate::table::expr::{Expr, Node, Resolved, SortOrder, functions, lower};
use crate::table::plan::aggregate_function::{AggregateCall, AggregateFunction, resolve_call};
use crate::table::plan::analyzer::{has_aggregate_itself, refuse_unordered};
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
    /// `lag` and `lead`: the value some rows after the current one, or before it if negative.
    Shifted {
        /// The value.
        value: Resolved,
        /// The distance of the row.
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
            let mut over = self.with_definition(over)?;
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

    /// Replaces an expression of ORDER BY that has calls of the SELECT list.
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

    /// Fills in the window of the WINDOW clause to which `OVER name` refers.
    fn with_definition(&self, over: &Over) -> PlanResult<Over> {
        let Some(name) = &over.base else { return Ok(over.clone()) };
        let found = self.named.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        let Some((_, definition)) = found else {
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
        partition.iter().try_for_each(refuse_unordered)?;
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
    let Expr::Call { name, args, distinct, .. } = call else {
        return Err(unsupported(&over.call));
    };
    let name = lower(name);
    if *distinct {
        return Err(PlanError::new(
            "DISTINCT_WINDOW_FUNCTION_UNSUPPORTED",
            format!("`{}` has DISTINCT, which a window function cannot have", over.call),
            "Select the distinct rows in a subquery",
        ));
    }
    let is_ranking = is_window_only(&name) && name != "nth_value";
    let (function, data_type, nullable) = if is_window_only(&name) {
        if order.is_empty() {
            return Err(PlanError::new(
                "WINDOW_FUNCTION_FRAME_NOT_ORDERED",
                format!("`{name}` needs an order of its rows"),
                format!("Write {name}(…) OVER (ORDER BY …)"),
            ));
        }
        own_function(&name, args, over, scope)?
    } else if has_aggregate_itself(call) && AggregateFunction::of(&name).is_some() {
        let Some(function) = AggregateFunction::of(&name) else {
            return Err(unsupported(&over.call));
        };
        if matches!(&*name, "median" | "percentile_cont" | "percentile_disc")
            && !(order.is_empty() && over.frame.is_none())
        {
            return Err(PlanError::new(
                "INVALID_WINDOW_SPEC_FOR_AGGREGATION_FUNC",
                format!("the window of `{name}` has an order or a frame"),
                "Write PARTITION BY only",
            ));
        }
        let call = resolve_call(function, &over.call, scope)?;
        let (data_type, nullable) = (call.data_type.clone(), call.function.is_nullable());
        (F::Aggregate(call), data_type, nullable)
    } else {
        return Err(unsupported(&over.call));
    };
    let frame = match &over.frame {
        Some(frame) if is_ranking && !is_own_frame(&name, frame) => {
            let shifts = matches!(&*name, "lag" | "lead");
            let condition =
                if shifts { "_LEGACY_ERROR_TEMP_1035" } else { "_LEGACY_ERROR_TEMP_1036" };
            return Err(PlanError::new(
                condition,
                format!("`{name}` has a frame of its own and cannot have another"),
                "Leave ROWS or RANGE out",
            ));
        }
        Some(frame) => resolved_frame(frame, order, scope)?,
        None => Frame {
            unit: FrameUnit::Range,
            start: FrameBound::UnboundedPreceding,
            end: match order.is_empty() {
                true => FrameBound::UnboundedFollowing,
                false => FrameBound::CurrentRow,
            },
        },
    };
    Ok(WindowCall { function, frame, data_type, nullable, name: over.to_string() })
}

/// Whether a frame is the one that a ranking function has anyway.
fn is_own_frame(name: &str, frame: &Frame) -> bool {
    let unit = if name == "cume_dist" { FrameUnit::Range } else { FrameUnit::Rows };
    !matches!(name, "lag" | "lead")
        && frame.unit == unit
        && frame.start == FrameBound::UnboundedPreceding
        && frame.end == FrameBound::CurrentRow
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
        _ => (0, 0),
    };
    if args.len() < least || args.len() > most {
        return Err(PlanError::new(
            "WRONG_NUM_ARGS.WITHOUT_SUGGESTION",
            format!("`{}` has {} arguments, but needs {least}", over.call, args.len()),
            "See `millstream functions`",
        ));
    }
    if over.ignores_nulls && !matches!(name, "lag" | "lead" | "nth_value") {
        return Err(PlanError::new(
            "INVALID_SQL_SYNTAX.FUNCTION_WITH_UNSUPPORTED_SYNTAX",
            format!("`{name}` does not take IGNORE NULLS"),
            "Leave it out",
        ));
    }
    let args = args.iter().map(|arg| resolve(arg, scope)).collect::<PlanResult<Vec<_>>>()?;
    let ignores_nulls = over.ignores_nulls;
    let constant = |at: usize, missing: i64| match args.get(at) {
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
            let tiles = constant(0, 1)?;
            if tiles < 1 {
                return Err(out_of_range(&over.call, "There is at least one tile"));
            }
            (F::Tile(tiles), DataType::Int, false)
        }
        "nth_value" => {
            let n = constant(1, 1)?;
            if n < 1 {
                return Err(out_of_range(&over.call, "The first row has the number 1"));
            }
            let value = args[0].clone();
            let data_type = value.data_type.clone();
            (F::Nth { value, n, ignores_nulls }, data_type, true)
        }
        _ => {
            let offset = constant(1, 1)?;
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

fn out_of_range(call: &Expr, fix: &str) -> PlanError {
    let reason = format!("an argument of `{call}` is out of range");
    PlanError::new("DATATYPE_MISMATCH.VALUE_OUT_OF_RANGE", reason, fix)
}

/// The value of an argument that must be a constant INT.
fn whole_constant(arg: &Resolved, call: &Expr) -> PlanResult<i64> {
    let wrong = |condition: &str, reason: &str| {
        let reason = format!("`{arg}` in `{call}` {reason}");
        PlanError::new(format!("DATATYPE_MISMATCH.{condition}"), reason, "Write a constant INT")
    };
    if !arg.is_foldable() {
        return Err(wrong("NON_FOLDABLE_INPUT", "is no constant"));
    }
    if !matches!(arg.data_type, DataType::Int | DataType::Short | DataType::Byte) {
        return Err(wrong("UNEXPECTED_INPUT_TYPE", "is no INT"));
    }
    match evaluate(arg, Semantics::default()) {
        Ok(Value::Long(value)) => Ok(value),
        Ok(_) => Err(wrong("UNEXPECTED_NULL", "is NULL")),
        Err(error) => Err(PlanError::new(error.condition, error.reason, error.fix)),
    }
}

/// Resolves a frame. The distances of ROWS become constants. In a RANGE frame they become the
/// values of the ordering key at the bounds.
fn resolved_frame(frame: &Frame, order: &[SortKey], scope: &Scope) -> PlanResult<Frame<Resolved>> {
    let wrong = |condition: &str, reason: &str, fix: &str| {
        let condition = format!("DATATYPE_MISMATCH.{condition}");
        PlanError::new(condition, format!("the frame `{frame}` {reason}"), fix)
    };
    use FrameBound as B;
    let is_late = matches!(frame.start, B::UnboundedFollowing);
    let is_early = matches!(frame.end, B::UnboundedPreceding);
    if is_late || is_early {
        return Err(wrong(
            "SPECIFIED_WINDOW_FRAME_INVALID_BOUND",
            "ends before it starts",
            "Write the earlier bound first",
        ));
    }
    let has_distance = frame.start.distance().or(frame.end.distance()).is_some();
    if frame.unit == FrameUnit::Range && has_distance {
        if order.is_empty() {
            let fix = "Add ORDER BY to the window";
            return Err(wrong("RANGE_FRAME_WITHOUT_ORDER", "needs an order", fix));
        }
        if order.len() > 1 {
            let fix = "Order by one key, or use ROWS";
            return Err(wrong("RANGE_FRAME_MULTI_ORDER", "needs one ordering key", fix));
        }
    }
    let bound = |bound: &FrameBound| {
        let is_preceding = matches!(bound, B::Preceding(_));
        bound.clone().map(&mut |distance: Expr| {
            let distance = resolve(&distance, scope)?;
            if !distance.is_foldable() {
                let fix = "Write a constant";
                return Err(wrong(
                    "SPECIFIED_WINDOW_FRAME_WITHOUT_FOLDABLE",
                    "has a bound that is no constant",
                    fix,
                ));
            }
            match frame.unit {
                FrameUnit::Rows if distance.data_type != DataType::Int => Err(wrong(
                    "SPECIFIED_WINDOW_FRAME_UNACCEPTED_TYPE",
                    "counts rows by something else than an INT",
                    "Write a whole number",
                )),
                FrameUnit::Rows => {
                    let rows = whole_constant(&distance, &Expr::Star(None))?;
                    let rows = if is_preceding { -rows } else { rows };
                    Ok(Resolved::literal(Value::Long(rows), DataType::Long))
                }
                FrameUnit::Range => key_at(distance, is_preceding, &order[0]).ok_or_else(|| {
                    wrong(
                        "SPECIFIED_WINDOW_FRAME_UNACCEPTED_TYPE",
                        "has a distance that the ordering key does not take",
                        "Use a distance of the type of the key",
                    )
                }),
            }
        })
    };
    let resolved = Frame { unit: frame.unit, start: bound(&frame.start)?, end: bound(&frame.end)? };
    if frame.unit == FrameUnit::Rows
        && let (Some(start), Some(end)) = (resolved.start.distance(), resolved.end.distance())
        && let (Node::Literal(Value::Long(start)), Node::Literal(Value::Long(end))) =
            (&start.node, &end.node)
        && start > end
    {
        return Err(wrong(
            "SPECIFIED_WINDOW_FRAME_WRONG_COMPARISON",
            "ends before it starts",
            "Write the earlier bound first",
        ));
    }
    Ok(resolved)
}

/// The value of the ordering key at a distance from that of the current row; `None` if the types do
/// not fit.
fn key_at(distance: Resolved, is_preceding: bool, key: &SortKey) -> Option<Resolved> {
    use DataType as T;
    let fits = match (&key.expr.data_type, &distance.data_type) {
        (T::Date, t) if t.is_integral() => true,
        (T::Date | T::Timestamp | T::TimestampNtz, t) => t.is_interval(),
        (T::DayTimeInterval(..), T::DayTimeInterval(..)) => true,
        (T::YearMonthInterval(..), T::YearMonthInterval(..)) => true,
        (a, b) => a.is_numeric() && b.is_numeric(),
    };
    if !fits {
        return None;
    }
    let back = is_preceding != key.descending;
    let distance = match (&key.expr.data_type, distance.data_type.is_integral()) {
        (T::Date, true) => distance.coerce(&T::Int),
        (key, _) if key.is_numeric() => distance.coerce(key),
        _ => distance,
    };
    let operator = match (&key.expr.data_type, distance.data_type.is_integral(), back) {
        (T::Date, true, true) => "date_sub",
        (T::Date, true, false) => "date_add",
        (_, _, true) => "-",
        (_, _, false) => "+",
    };
    let of_key = key.expr.data_type.clone();
    let sum = functions::resolve(operator, vec![key.expr.clone(), distance]).ok()?;
    Some(sum.coerce(&of_key))
}
