//! The analyser builds plans from unresolved expressions by Spark's rules, and rejects plans that
//! Spark rejects.

use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::bind::is_random;
use crate::table::expr::functions::row_origin;
use crate::table::expr::resolve::{
    Scope, ScopeColumn, common_type, expand_stars, expect_type, resolve, resolve_with,
    without_stars,
};
use crate::table::expr::type_rules::Rules;
use crate::table::expr::{Expr, Node, Resolved, functions, lower};
use crate::table::physical::placement;
use crate::table::plan::aggregate_function::AggregateFunction;
use crate::table::plan::generator::{Generator, is_generator};
use crate::table::plan::grouping::mentions;
use crate::table::plan::input_file::{calls_input_file, with_input_file};
use crate::table::plan::join::qualified;
use crate::table::plan::time_window::{
    event_key, has_watermark, session_key, tag, windowed, with_column,
};
use crate::table::plan::window_function::{has_over, not_in_clause};
use crate::table::plan::within_group;
use crate::table::plan::{METADATA, Plan, SortKey};
use crate::table::types::DataType;
use crate::table::value::Value;
use std::borrow::Cow;

/// The output mode: the rows of the result table that each epoch sends to the sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputMode {
    /// Only rows that will not change any more.
    #[default]
    Append,
    /// Only rows that are new or changed.
    Update,
    /// The whole result table.
    Complete,
}

impl OutputMode {
    /// Parses Spark's name of an output mode, in any case. Any other name is an error.
    pub fn parse(word: &str) -> PlanResult<Self> {
        match word.to_ascii_lowercase().as_str() {
            "append" => Ok(Self::Append),
            "update" => Ok(Self::Update),
            "complete" => Ok(Self::Complete),
            _ => Err(PlanError::new(
                "STREAMING_OUTPUT_MODE.INVALID",
                format!("'{word}' is not an output mode"),
                "Use append, update or complete",
            )),
        }
    }

    /// Spark's name of the output mode.
    pub fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Update => "update",
            Self::Complete => "complete",
        }
    }
}

/// Builds a filter by the condition of a `WHERE`. Fails if the condition is not BOOLEAN or contains
/// an aggregate.
pub fn filter(input: Plan, written: &Expr) -> PlanResult<Plan> {
    let condition = condition(written, &input.scope())?;
    Ok(Plan::Filter(Box::new(input), condition))
}

/// Resolves the condition of a `WHERE`. Fails for an aggregate in it, an unknown column, or a type
/// other than BOOLEAN; an untyped NULL is accepted.
pub fn condition(condition: &Expr, scope: &Scope) -> PlanResult<Resolved> {
    if has_over(condition) {
        return Err(not_in_clause("WHERE", condition.place()));
    }
    if has_aggregate(condition) {
        return Err(PlanError::new(
            "INVALID_WHERE_CONDITION",
            format!("`WHERE` has an aggregate: `{condition}`"),
            "Use HAVING, or aggregate in a subquery",
        )
        .at(condition.place()));
    }
    let condition = boolean(resolve(condition, scope)?, condition, "WHERE")?;
    Ok(condition)
}

/// Fails unless an expression is BOOLEAN. An untyped NULL is accepted. `what` names the clause in
/// the error.
pub fn boolean(resolved: Resolved, expr: &Expr, what: &str) -> PlanResult<Resolved> {
    if matches!(resolved.data_type, DataType::Boolean | DataType::Null) {
        return expect_type(resolved, &DataType::Boolean, what);
    }
    let condition = match what {
        "FILTER" => "INVALID_AGGREGATE_FILTER.NOT_BOOLEAN",
        "ON" => "JOIN_CONDITION_IS_NOT_BOOLEAN_TYPE",
        _ => "DATATYPE_MISMATCH.FILTER_NOT_BOOLEAN",
    };
    Err(PlanError::new(
        condition,
        format!("`{what}` needs BOOLEAN, but `{resolved}` is {}", resolved.data_type),
        "Compare it with something",
    )
    .at(expr.place()))
}

/// Adds the file metadata column to the input if one of the expressions names it and the input is a
/// file source, possibly below aliases and filters; and also if one of them calls a function of a
/// row's file.
pub(in crate::table) fn with_metadata_for(input: Plan, exprs: &[Expr]) -> PlanResult<Plan> {
    fn wants(expr: &Expr) -> bool {
        match expr {
            Expr::Column { parts, .. } => parts.iter().any(|p| p.eq_ignore_ascii_case(METADATA)),
            Expr::Star(Some(name)) => name.eq_ignore_ascii_case(METADATA),
            _ => {
                let mut found = false;
                expr.each_part(&mut |part| found = found || wants(part));
                found
            }
        }
    }
    if exprs.iter().any(calls_input_file) {
        return Ok(with_input_file(&input)?.unwrap_or(input));
    }
    if !exprs.iter().any(wants) {
        return Ok(input);
    }
    Ok(input.with_metadata().unwrap_or(input))
}

/// Builds a `SELECT` without aggregates. Its expressions may be generators.
pub fn project(input: Plan, exprs: &[Expr]) -> PlanResult<Plan> {
    // `*` is expanded first, so that it does not include columns that are added below.
    let mut exprs = Cow::Borrowed(exprs);
    if exprs.iter().any(|e| matches!(e, Expr::Star(None))) {
        let scope = input.scope();
        let one = |expr: &Expr| match expr {
            Expr::Star(None) => expand_stars(&scope, std::slice::from_ref(expr)),
            other => Ok(vec![other.clone()]),
        };
        exprs = Cow::Owned(exprs.iter().map(one).collect::<PlanResult<Vec<_>>>()?.concat());
    }
    let input = with_metadata_for(input, &exprs)?;
    let (input, mut exprs) = with_random_aliases(input, exprs)?;
    let (input, window) = windowed(input, exprs.iter())?;
    if let Some(window) = &window {
        exprs = Cow::Owned(exprs.iter().map(|expr| window.rewrite(expr)).collect());
    }
    let exprs = without_stars(&input.scope(), &exprs)?;
    let is_made = |expr: &Expr| is_generator(unaliased(expr));
    let width = input.width();
    let mut input = input;
    // With several generators, the result is the cross product of their rows.
    let mut ends = Vec::new();
    for generator in exprs.iter().filter(|expr| is_made(expr)) {
        let aliases = match generator {
            Expr::Alias(_, name) => vec![name.clone()],
            Expr::Aliases(_, names) => names.clone(),
            _ => Vec::new(),
        };
        input = generate(input, unaliased(generator), false, &aliases)?;
        ends.push(input.width());
    }
    let scope = input.scope();
    let (mut from, mut ends) = (width, ends.into_iter());
    let mut before = scope.clone();
    before.columns.truncate(width);
    let mut columns: Vec<(Resolved, String)> = Vec::new();
    for (at, expr) in exprs.iter().enumerate() {
        if is_made(expr) {
            let end = ends.next().unwrap_or(from);
            for (i, column) in scope.columns.iter().enumerate().take(end).skip(from) {
                let node = Node::Column(i, column.name.clone());
                let (data_type, nullable) = (column.data_type.clone(), column.nullable);
                columns.push((Resolved { node, data_type, nullable }, column.name.clone()));
            }
            from = end;
            continue;
        }
        columns.push((with_lateral_aliases(expr, &before, &exprs[..at], 0)?, expr.output_name()));
    }
    Ok(Plan::Project(Box::new(input), columns))
}

/// Computes random values that later items of a SELECT list refer to by an alias, as hidden columns
/// of the input. So all these items have the same value.
fn with_random_aliases<'e>(
    mut input: Plan,
    mut exprs: Cow<'e, [Expr]>,
) -> PlanResult<(Plan, Cow<'e, [Expr]>)> {
    for at in 0..exprs.len() {
        let Expr::Alias(inner, name) = &exprs[at] else { continue };
        let is_name = |part: &String| part.eq_ignore_ascii_case(name);
        let is_read = || exprs[at + 1..].iter().any(|later| mentions(later, &is_name));
        if !is_random(inner) || is_generator(inner) || has_aggregate(inner) || !is_read() {
            continue;
        }
        let (scope, name) = (input.scope(), name.clone());
        let value = with_lateral_aliases(inner, &scope, &exprs[..at], 0)?;
        input = with_column(input, &scope, value, &name, None);
        let mut with_value = input.scope();
        let index = with_value.columns.len() - 1;
        with_value.columns[index].hidden = true;
        input = qualified(input, &with_value);
        let column = Expr::Position(index, vec![name.clone()]);
        exprs.to_mut()[at] = Expr::Alias(Box::new(column), name);
    }
    Ok((input, exprs))
}

/// The maximum depth of SELECT aliases that refer to each other.
const MAX_LATERAL: usize = 16;

/// Resolves an expression of a SELECT list. A name that is not a column may refer to an alias
/// earlier in the list, the last one of this name; aliases may refer to aliases [`MAX_LATERAL`]
/// levels deep.
fn with_lateral_aliases(
    expr: &Expr,
    scope: &Scope,
    before: &[Expr],
    depth: usize,
) -> PlanResult<Resolved> {
    let mut hook = |part: &Expr| -> PlanResult<Option<Resolved>> {
        let Expr::Column { parts, .. } = part else { return Ok(None) };
        if resolve(part, scope).is_ok() || depth == MAX_LATERAL {
            return Ok(None);
        }
        let named =
            |e: &&Expr| matches!(e, Expr::Alias(_, name) if name.eq_ignore_ascii_case(&parts[0]));
        let Some(at) = before.iter().rposition(|e| named(&e)) else { return Ok(None) };
        let of = with_lateral_aliases(unaliased(&before[at]), scope, before, depth + 1)?;
        let found = parts[1..].iter().try_fold(of, |of, field| functions::field_of(of, field))?;
        Ok(Some(found))
    };
    resolve_with(expr, scope, &mut hook)
}

/// Builds a generator, whose columns follow those of its input. If `outer`, and for a function such
/// as `explode_outer`, an array or map that is empty or NULL gives a row with NULLs. Fails for wrong arguments or a wrong number of `aliases`.
pub fn generate(input: Plan, call: &Expr, outer: bool, aliases: &[String]) -> PlanResult<Plan> {
    let generator = Generator::new(call, &input.scope(), outer, aliases)?;
    Ok(Plan::Generate(Box::new(input), generator))
}

/// Builds a `SELECT DISTINCT`, as an aggregation with keys and no functions.
pub fn distinct(input: Plan) -> Plan {
    let columns = input.scope().columns.into_iter().enumerate();
    let keys = columns.map(|(i, c)| {
        let node = Node::Column(i, c.name.clone());
        (Resolved { node, data_type: c.data_type, nullable: c.nullable }, c.name)
    });
    Plan::Aggregate(Box::new(input), keys.collect(), Vec::new())
}

pub(in crate::table) fn unaliased(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(inner, _) | Expr::Aliases(inner, _) => unaliased(inner),
        other => other,
    }
}

/// Whether an expression contains an aggregate function, `grouping` or `grouping_id`.
pub fn has_aggregate(expr: &Expr) -> bool {
    match expr {
        Expr::Call { name, args, .. } => {
            let with_lambda = args.iter().any(|arg| matches!(arg, Expr::Lambda(..)));
            let of_sets = matches!(&*lower(name), "grouping" | "grouping_id");
            of_sets
                || AggregateFunction::of(name).is_some() && !with_lambda
                || args.iter().any(has_aggregate)
        }
        Expr::Cast { expr, .. } | Expr::Alias(expr, _) => has_aggregate(expr),
        Expr::Aliases(expr, _) | Expr::Field(expr, _) | Expr::Lambda(_, expr) => {
            has_aggregate(expr)
        }
        Expr::Case { branches, otherwise } => {
            branches.iter().any(|(a, b)| has_aggregate(a) || has_aggregate(b))
                || otherwise.as_deref().is_some_and(has_aggregate)
        }
        Expr::User(_, args, _) => args.iter().any(has_aggregate),
        Expr::UserAggregate(..) => true,
        Expr::WithinGroup(call, _) => has_aggregate(call),
        // The call itself is computed over a window, but its parts may be aggregates of groups.
        Expr::Over(over) => {
            let mut found = false;
            let (call, keys) = within_group::parts(&over.call);
            call.each_part(&mut |part| found |= has_aggregate(part));
            found |= keys.iter().any(|key| has_aggregate(&key.expr));
            found
                || over.partition.iter().any(has_aggregate)
                || over.order.iter().any(|key| has_aggregate(&key.expr))
        }
        Expr::Chain(chain) => chain.operands().any(has_aggregate),
        Expr::Column { .. }
        | Expr::Position(..)
        | Expr::Literal(..)
        | Expr::Star(_)
        | Expr::StarExcept(..)
        | Expr::Scalar(..) => false,
    }
}

/// Whether a call itself is an aggregate function of SQL. Its arguments are not checked. False for
/// user-defined aggregates, and for a call with a lambda, such as `aggregate`.
pub(in crate::table) fn has_aggregate_itself(expr: &Expr) -> bool {
    match expr {
        Expr::Call { name, args, .. } => {
            let with_lambda = args.iter().any(|arg| matches!(arg, Expr::Lambda(..)));
            AggregateFunction::of(name).is_some() && !with_lambda
        }
        Expr::WithinGroup(call, _) => has_aggregate_itself(call),
        _ => false,
    }
}

/// Builds a `UNION ALL`: columns correspond by position and are cast to common types.
pub fn union(left: Plan, right: Plan) -> PlanResult<Plan> {
    let mut union = Unioned::new(left);
    union.add(right)?;
    Ok(union.finish())
}

/// Builds a `UNION ALL` branch by branch. The common types are updated for each branch, so the cost
/// is linear in the number of branches.
pub struct Unioned {
    inputs: Vec<Plan>,
    columns: Vec<ScopeColumn>,
}

impl Unioned {
    /// Creates a union with its first branch.
    pub fn new(first: Plan) -> Self {
        let columns = first.scope().columns;
        let inputs = match first {
            Plan::Union(inputs) => inputs,
            other => vec![other],
        };
        Self { inputs, columns }
    }

    /// Adds a branch and updates the common types. Fails if the branch has a different number of
    /// columns, or if two columns have no common type.
    pub fn add(&mut self, branch: Plan) -> PlanResult<()> {
        let of_branch = branch.scope().columns;
        let types = common_types("UNION", &self.columns, &of_branch)?;
        if !have_types(&self.columns, &types) {
            let before = widen(Self::of(std::mem::take(&mut self.inputs)), &self.columns, &types);
            self.columns = before.scope().columns;
            self.inputs.push(before);
        }
        for (column, more) in self.columns.iter_mut().zip(&of_branch) {
            column.nullable |= more.nullable;
            // The watermark of a union has the longest delay of its branches.
            column.tag.delay_ms = column.tag.delay_ms.max(more.tag.delay_ms);
            (column.qualifier, column.hidden) = (None, false);
        }
        self.inputs.push(widen(branch, &of_branch, &types));
        Ok(())
    }

    fn of(mut inputs: Vec<Plan>) -> Plan {
        match inputs.pop() {
            Some(only) if inputs.is_empty() => only,
            last => {
                inputs.extend(last);
                Plan::Union(inputs)
            }
        }
    }

    /// The union of all branches.
    pub fn finish(self) -> Plan {
        Self::of(self.inputs)
    }
}

/// Casts the columns of both sides of a set operation to common types, by position.
pub fn widened(operation: &str, left: Plan, right: Plan) -> PlanResult<(Plan, Plan)> {
    let (a, b) = (left.scope().columns, right.scope().columns);
    let types = common_types(operation, &a, &b)?;
    Ok((widen(left, &a, &types), widen(right, &b, &types)))
}

fn have_types(columns: &[ScopeColumn], types: &[DataType]) -> bool {
    columns.iter().zip(types).all(|(column, data_type)| column.data_type == *data_type)
}

/// Casts the columns of a plan to the given types.
fn widen(plan: Plan, columns: &[ScopeColumn], types: &[DataType]) -> Plan {
    if have_types(columns, types) {
        return plan;
    }
    let exprs = columns.iter().enumerate().zip(types).map(|((i, c), to)| {
        let node = Node::Column(i, c.name.clone());
        let column = Resolved { node, data_type: c.data_type.clone(), nullable: c.nullable };
        (column.coerce(to), c.name.clone())
    });
    Plan::Project(Box::new(plan), exprs.collect())
}

fn common_types(
    operation: &str,
    a: &[ScopeColumn],
    b: &[ScopeColumn],
) -> PlanResult<Vec<DataType>> {
    if a.len() != b.len() {
        return Err(PlanError::new(
            "NUM_COLUMNS_MISMATCH",
            format!(
                "`{operation}` needs equally many columns, but has {} and {}",
                a.len(),
                b.len()
            ),
            "",
        ));
    }
    let mut types = Vec::new();
    for (x, y) in a.iter().zip(b) {
        let common = common_type(&x.data_type, &y.data_type).ok_or_else(|| {
            PlanError::new(
                "INCOMPATIBLE_COLUMN_TYPE",
                format!(
                    "`{}` is {} on one side and {} on the other",
                    x.name, x.data_type, y.data_type
                ),
                "Cast one of them",
            )
        })?;
        types.push(common);
    }
    Ok(types)
}

/// Fails if a column contains a map or a VARIANT, because they cannot be compared.
pub fn refuse_incomparable(plan: &Plan) -> PlanResult<()> {
    let columns = plan.scope().columns;
    match columns.iter().find(|column| !column.data_type.is_hashable()) {
        None => Ok(()),
        Some(column) => {
            let (condition, fix) = match column.data_type.has_variant() {
                true => (
                    "UNSUPPORTED_FEATURE.SET_OPERATION_ON_VARIANT_TYPE",
                    "Cast it to STRING, or use parts that variant_get casts",
                ),
                false => (
                    "UNSUPPORTED_FEATURE.SET_OPERATION_ON_MAP_TYPE",
                    "Use its sorted map_entries, or group by it",
                ),
            };
            let reason = format!(
                "rows must be compared, but `{}` is {}, whose values cannot be compared",
                column.name, column.data_type
            );
            Err(PlanError::new(condition, reason, fix))
        }
    }
}

/// Fails if a sort key cannot be ordered.
pub fn refuse_unordered(key: &Resolved) -> PlanResult<()> {
    if key.data_type.is_orderable() {
        return Ok(());
    }
    Err(PlanError::new(
        "DATATYPE_MISMATCH.INVALID_ORDERING_TYPE",
        format!("`{key}` is {}, which has no order", key.data_type),
        "Order by something else",
    ))
}

/// The index of the output column to which an ordinal in ORDER BY refers; `None` if the key is not
/// an ordinal, or if the settings disable ordinals. Fails if the ordinal is out of range.
pub fn order_position(expr: &Expr, width: usize) -> Option<PlanResult<usize>> {
    let Expr::Literal(Value::Long(position), DataType::Int) = expr else { return None };
    if !Rules::current().naming.order_by_ordinal {
        return None;
    }
    let at = usize::try_from(position - 1).ok().filter(|at| *at < width);
    Some(at.ok_or_else(|| {
        PlanError::new(
            "ORDER_BY_POS_OUT_OF_RANGE",
            format!("`ORDER BY` {position}, but there are {width} columns"),
            "Count from 1",
        )
    }))
}

/// Builds an `ORDER BY` over the output columns. A constant INT is the number of a column, unless
/// the settings disable that. Fails if it is out of range, or if a key cannot be ordered.
/// `nulls_first` is Spark's default if `None`.
pub fn sort(input: Plan, keys: &[(Expr, bool, Option<bool>)]) -> PlanResult<Plan> {
    let scope = input.scope();
    let keys = keys.iter().map(|(expr, descending, nulls_first)| {
        let expr = match order_position(expr, scope.columns.len()) {
            Some(at) => {
                let at = at?;
                let column = &scope.columns[at];
                Resolved {
                    node: Node::Column(at, column.name.clone()),
                    data_type: column.data_type.clone(),
                    nullable: column.nullable,
                }
            }
            None => resolve(expr, &scope)?,
        };
        refuse_unordered(&expr)?;
        // The default of Spark: NULLs first in ascending order, last in descending order.
        let nulls_first = nulls_first.unwrap_or(!descending);
        Ok(SortKey { expr, descending: *descending, nulls_first })
    });
    let keys = keys.collect::<PlanResult<_>>()?;
    Ok(Plan::Sort(Box::new(input), keys))
}

/// Fails if an operator is not supported on a stream in this output mode.
pub fn check_output_mode(plan: &Plan, mode: OutputMode) -> PlanResult<()> {
    let unsupported = |operation: &str, fix: &str| {
        Err(PlanError::new(
            "STREAMING_OUTPUT_MODE.UNSUPPORTED_OPERATION",
            format!("output mode {} is not supported for {operation}", mode.name()),
            fix,
        ))
    };
    check_distinct(plan)?;
    crate::table::arbitrary_state::node::check(plan, mode)?;
    check_order(plan, mode)?;
    check_row_numbers(plan)?;
    placement::check_mode(plan, mode)?;
    if mode == OutputMode::Complete && !plan.has_aggregate() {
        return unsupported(
            "queries without streaming aggregations: the whole table would have to be kept",
            "Use append or update, or GROUP BY something",
        );
    }
    if mode == OutputMode::Append
        && !all_aggregates(plan, &|input, keys| event_key(input, keys).is_some())
    {
        let fix = if placement::needs_append(plan) {
            placement::IN_TWO_QUERIES
        } else if joins_streams(plan) {
            "Group by an event time with a watermark or a window of it, or use update to see changes"
        } else {
            "Group by an event time with a watermark or a window of it, use update to see changes, \
             or complete to see the table. SELECT DISTINCT groups by all its columns"
        };
        return unsupported(
            "streaming aggregations without a watermark: a count is never final",
            fix,
        );
    }
    let no_session = |input: &Plan, keys: &[_]| session_key(input, keys).is_none();
    if mode == OutputMode::Update && !all_aggregates(plan, &no_session) {
        return unsupported(
            "session window streaming aggregations: a growing session would retract earlier \
            results",
            "Use append with a watermark to see closed sessions, or complete",
        );
    }
    check_deduplication(plan)?;
    check_event_times(plan)?;
    if mode != OutputMode::Append && aggregates_over_aggregates(plan) {
        return Err(PlanError::new(
            "STREAMING_STATEFUL_CHAIN_UNSUPPORTED",
            format!(
                "an aggregation over a running aggregation would emit wrong results in output \
                mode {}",
                mode.name()
            ),
            "Aggregate once",
        ));
    }
    Ok(())
}

/// Whether a plan has a join of two streams.
pub(in crate::table) fn joins_streams(plan: &Plan) -> bool {
    matches!(plan, Plan::Join(join) if join.is_of_streams())
        || plan.inputs().into_iter().any(joins_streams)
}

/// A condition on the input and the keys of an aggregation.
type Holds<'h> = dyn Fn(&Plan, &[(Resolved, String)]) -> bool + 'h;

/// Whether a condition is true for every aggregation of a plan; true if it has none.
fn all_aggregates(plan: &Plan, holds: &Holds<'_>) -> bool {
    let own = match plan {
        Plan::Aggregate(input, keys, _) => holds(input, keys),
        _ => true,
    };
    own && plan.inputs().into_iter().all(|input| all_aggregates(input, holds))
}

fn check_deduplication(plan: &Plan) -> PlanResult<()> {
    if let Plan::Deduplicate { input, within: true, .. } = plan
        && !input.scope().columns.iter().any(|column| column.tag.delay_ms.is_some())
    {
        return Err(PlanError::new(
            "STREAMING_DEDUPLICATION_WITHOUT_WATERMARK",
            "drop_duplicates_within_watermark is not supported without a watermark: its keys \
            would never expire",
            "Declare one first: with_watermark(\"time\", \"10 minutes\")",
        ));
    }
    plan.inputs().into_iter().try_for_each(check_deduplication)
}

/// Fails if the keys of an aggregation or the input of a deduplication have several event times, or
/// if a watermark below them is declared twice.
fn check_event_times(plan: &Plan) -> PlanResult<()> {
    let mut times: Vec<String> = match plan {
        Plan::Aggregate(input, keys, _) => {
            let scope = input.scope();
            let timed = keys.iter().filter(|(key, _)| tag(key, &scope).delay_ms.is_some());
            timed.map(|(_, name)| name.clone()).collect()
        }
        Plan::Deduplicate { input, .. } => {
            let columns = input.scope().columns;
            columns.into_iter().filter(|c| c.tag.delay_ms.is_some()).map(|c| c.name).collect()
        }
        other => return other.inputs().into_iter().try_for_each(check_event_times),
    };
    times.sort_unstable();
    times.dedup_by(|a, b| a.eq_ignore_ascii_case(b));
    if times.len() > 1 {
        return Err(PlanError::new(
            "MULTIPLE_EVENT_TIME_COLUMNS",
            format!(
                "an aggregation or deduplication has several event times ({}), and could use any \
                of them",
                times.join(", ")
            ),
            "Keep one of them: a window or a time, not both. CAST(time AS STRING) is an ordinary \
            value",
        ));
    }
    if plan.inputs().into_iter().any(redefines_watermark) {
        return Err(PlanError::new(
            "WATERMARK_REDEFINED",
            "Redefining watermark is disallowed: below this aggregation or deduplication a \
             watermark is declared over a table that already has one",
            "Declare it once, with the longest delay that is needed",
        ));
    }
    plan.inputs().into_iter().try_for_each(check_event_times)
}

/// Whether a plan declares a watermark although its input already has one.
fn redefines_watermark(plan: &Plan) -> bool {
    match plan {
        Plan::Watermark { input, .. } => has_watermark(input),
        other => other.inputs().into_iter().any(redefines_watermark),
    }
}

fn check_distinct(plan: &Plan) -> PlanResult<()> {
    if let Plan::Aggregate(_, _, calls) = plan
        && let Some(call) = calls.iter().find(|call| call.distinct)
    {
        return Err(PlanError::new(
            "STREAMING_DISTINCT_AGGREGATION_UNSUPPORTED",
            "distinct aggregates need every value of a stream to be kept for ever",
            "Use approx_count_distinct() for a count, or collect_set()",
        )
        .at(call.place));
    }
    plan.inputs().into_iter().try_for_each(check_distinct)
}

/// Fails for an expression that numbers the rows of a stream.
fn check_row_numbers(plan: &Plan) -> PlanResult<()> {
    let numbers = |plan: &Plan| plan.exprs().any(row_origin::numbers_rows);
    if plan.is_streaming() && numbers(plan) {
        return Err(PlanError::new(
            "_LEGACY_ERROR_TEMP_3102",
            "Expression(s): monotonically_increasing_id() is not supported with streaming \
             DataFrames/Datasets",
            "Number the rows in the source, or in a batch query",
        ));
    }
    plan.inputs().into_iter().try_for_each(check_row_numbers)
}

fn aggregates_over_aggregates(plan: &Plan) -> bool {
    match plan {
        Plan::Aggregate(input, ..) => input.has_aggregate(),
        other => other.inputs().into_iter().any(aggregates_over_aggregates),
    }
}

/// Fails for a sort, unless it sorts an aggregation in complete mode, for a limit in update mode,
/// and for OFFSET on a stream.
fn check_order(plan: &Plan, mode: OutputMode) -> PlanResult<()> {
    let whole_table = mode == OutputMode::Complete && plan.has_aggregate();
    match plan {
        Plan::Sort(..) if !whole_table => Err(PlanError::new(
            "STREAMING_SORT_UNSUPPORTED",
            "an unbounded table cannot be sorted",
            "Sort an aggregation in output mode complete",
        )),
        Plan::Limit(..) if mode == OutputMode::Update => Err(PlanError::new(
            "STREAMING_LIMIT_UNSUPPORTED",
            "the first rows of changing rows have no meaning in output mode update",
            "Use output mode complete, with ORDER BY",
        )),
        Plan::Offset(..) if plan.is_streaming() => Err(PlanError::new(
            "STREAMING_OFFSET_UNSUPPORTED",
            "OFFSET has no meaning on a stream",
            "Use LIMIT alone",
        )),
        other => other.inputs().into_iter().try_for_each(|input| check_order(input, mode)),
    }
}
