//! Aggregate functions: their names, and the resolution of calls.

use crate::table::error::{Place, PlanError, PlanResult, counted};
use crate::table::expr::resolve::{Scope, resolve, without_stars};
use crate::table::expr::user_function::{UserAggregate, aggregate_args};
use crate::table::expr::{Expr, Node, Resolved, functions, lower};
use crate::table::plan::analyzer::{boolean, has_aggregate};
use crate::table::types::DataType;
use crate::table::value::Value;
use std::sync::Arc;

/// The aggregate functions, built-in and user-defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AggregateFunction {
    /// `count(*)` and `count(x, …)`: the number of rows, or of rows without a NULL argument.
    Count,
    /// `count_if(condition)`.
    CountIf,
    /// `sum(x)`.
    Sum,
    /// `min(x)`.
    Min,
    /// `max(x)`.
    Max,
    /// `avg(x)`.
    Avg,
    /// `var_samp(x)`.
    VarianceSample,
    /// `var_pop(x)`.
    VariancePopulation,
    /// `stddev_samp(x)`.
    DeviationSample,
    /// `stddev_pop(x)`.
    DeviationPopulation,
    /// `skewness(x)`.
    Skewness,
    /// `kurtosis(x)`.
    Kurtosis,
    /// `covar_samp(x, y)`.
    CovarianceSample,
    /// `covar_pop(x, y)`.
    CovariancePopulation,
    /// `corr(x, y)`.
    Correlation,
    /// `first(x[, ignoreNulls])`.
    First,
    /// `last(x[, ignoreNulls])`.
    Last,
    /// `max_by(x, y)`: the x of the largest y.
    MaxBy,
    /// `min_by(x, y)`: the x of the smallest y.
    MinBy,
    /// `bool_and(x)`.
    BoolAnd,
    /// `bool_or(x)`.
    BoolOr,
    /// `bit_and(x)`.
    BitAnd,
    /// `bit_or(x)`.
    BitOr,
    /// `bit_xor(x)`.
    BitXor,
    /// `collect_list(x)`.
    CollectList,
    /// `collect_set(x)`.
    CollectSet,
    /// `collect_union(array)`.
    CollectUnion,
    /// `approx_top_k(x[, k[, items]])`.
    ApproxTopK,
    /// `vector_sum(vector)`.
    VectorSum,
    /// `vector_avg(vector)`.
    VectorAverage,
    /// `listagg(x[, separator])`.
    ListAgg,
    /// `approx_count_distinct(x[, relative deviation])`.
    ApproxCountDistinct,
    /// `percentile_approx(x, fraction or array of them[, accuracy])`.
    PercentileApprox,
    /// `try_sum(x)`: a sum that is NULL after an overflow.
    TrySum,
    /// `try_avg(x)`: an average that is NULL after an overflow.
    TryAvg,
    /// `regr_avgx(y, x)`.
    RegressionAverageX,
    /// `regr_avgy(y, x)`.
    RegressionAverageY,
    /// `regr_count(y, x)`.
    RegressionCount,
    /// `regr_intercept(y, x)`.
    RegressionIntercept,
    /// `regr_r2(y, x)`.
    RegressionR2,
    /// `regr_slope(y, x)`.
    RegressionSlope,
    /// `regr_sxx(y, x)`.
    RegressionSxx,
    /// `regr_sxy(y, x)`.
    RegressionSxy,
    /// `regr_syy(y, x)`.
    RegressionSyy,
    /// `bitmap_construct_agg(position)`.
    BitmapConstruct,
    /// `bitmap_or_agg(bitmap)`.
    BitmapOr,
    /// `bitmap_and_agg(bitmap)`.
    BitmapAnd,
    /// `count_min_sketch(x, eps, confidence, seed)`.
    CountMinSketch,
    /// `histogram_numeric(x, bins)`.
    HistogramNumeric,
    /// `schema_of_variant_agg(variant)`.
    SchemaOfVariant,
    /// `percentile(x, fraction or array of them[, frequency])`, `median(x)`, and
    /// `percentile_cont(fraction) WITHIN GROUP (ORDER BY x)`.
    Percentile,
    /// `percentile_disc(fraction) WITHIN GROUP (ORDER BY x)`.
    PercentileDiscrete,
    /// `mode(x[, deterministic])`, `mode() WITHIN GROUP (ORDER BY x)`.
    Mode,
    /// A user-defined aggregate function.
    User,
}

pub use crate::table::plan::aggregate_names::{AggregateEntry, NAMES};
use crate::table::plan::aggregate_types::{TypedArguments, typed};
use crate::table::plan::optimizer::has_random_value;
use crate::table::plan::window_function::has_over;
use crate::table::plan::within_group::{self, Ordered, ValueOrder, ordered_arguments};
use AggregateFunction as F;

impl AggregateFunction {
    /// The function with a name, in any case; `None` if there is no such function.
    pub fn of(name: &str) -> Option<Self> {
        let found = NAMES.iter().find(|entry| entry.name.eq_ignore_ascii_case(name));
        found.map(|entry| entry.function)
    }

    /// Whether the result does not depend on the order of values, apart from the rounding of
    /// floating-point numbers. The partial results of such a function can be merged.
    pub fn is_commutative(self) -> bool {
        matches!(
            self,
            F::Count
                | F::CountIf
                | F::Sum
                | F::Min
                | F::Max
                | F::Avg
                | F::VarianceSample
                | F::VariancePopulation
                | F::DeviationSample
                | F::DeviationPopulation
                | F::Skewness
                | F::Kurtosis
                | F::CovarianceSample
                | F::CovariancePopulation
                | F::Correlation
                | F::BoolAnd
                | F::BoolOr
                | F::BitAnd
                | F::BitOr
                | F::BitXor
                | F::ApproxCountDistinct
                | F::TrySum
                | F::TryAvg
                | F::RegressionAverageX
                | F::RegressionAverageY
                | F::RegressionCount
                | F::RegressionIntercept
                | F::RegressionR2
                | F::RegressionSlope
                | F::RegressionSxx
                | F::RegressionSxy
                | F::RegressionSyy
                | F::BitmapConstruct
                | F::BitmapOr
                | F::BitmapAnd
                | F::CountMinSketch
                | F::SchemaOfVariant
                | F::Percentile
                | F::PercentileDiscrete
        )
    }

    /// Whether the result can be NULL, for example without any input row.
    pub fn is_nullable(self) -> bool {
        !matches!(
            self,
            F::Count
                | F::CountIf
                | F::ApproxCountDistinct
                | F::CollectList
                | F::CollectSet
                | F::CollectUnion
                | F::ApproxTopK
                | F::RegressionCount
                | F::BitmapConstruct
                | F::BitmapOr
                | F::BitmapAnd
                | F::CountMinSketch
                | F::SchemaOfVariant
        )
    }
}

/// A resolved call of an aggregate function, which becomes an output column.
#[derive(Clone, Debug, PartialEq)]
pub struct AggregateCall {
    /// The called function.
    pub function: AggregateFunction,
    /// The user-defined function, if `function` is [`AggregateFunction::User`].
    pub user: Option<Arc<UserAggregate>>,
    /// Whether each distinct value counts once. This is only supported for bounded tables.
    pub distinct: bool,
    /// The arguments; none for `count(*)`.
    pub args: Vec<Resolved>,
    /// The condition of FILTER; records for which it is not true are ignored.
    pub filter: Option<Resolved>,
    /// The order of WITHIN GROUP, one entry for each key. The keys of `listagg` are its last
    /// arguments; the key of any other function is its first argument.
    pub order: Vec<ValueOrder>,
    /// The result type.
    pub data_type: DataType,
    /// The name of the output column.
    pub name: String,
    /// The position of the call.
    pub place: Place,
}

impl AggregateCall {
    /// The value of a constant numeric argument; `None` if the argument is not such a constant.
    pub fn constant(&self, index: usize) -> Option<f64> {
        constant(self.args.get(index)?)
    }
}

pub(super) fn constant(arg: &Resolved) -> Option<f64> {
    match (&arg.node, &arg.data_type) {
        (Node::Literal(Value::Long(v)), _) => Some(*v as f64),
        (Node::Literal(Value::Double(v)), _) => Some(*v),
        (Node::Literal(Value::Decimal(v)), DataType::Decimal(_, scale)) => {
            Some(*v as f64 / 10f64.powi(i32::from(*scale)))
        }
        (Node::Cast(inner, _), _) => constant(inner),
        _ => None,
    }
}

/// The fractions of a percentile; `None` if one is not a constant from 0 to 1.
pub fn fractions(arg: &Resolved) -> Option<Vec<f64>> {
    let found = match &arg.node {
        Node::Literal(Value::Array(values)) => {
            let double = |value: &Value| match value {
                Value::Double(fraction) => Some(*fraction),
                _ => None,
            };
            values.iter().map(double).collect::<Option<Vec<_>>>()?
        }
        Node::Call("array", args) => args.iter().map(constant).collect::<Option<Vec<_>>>()?,
        _ => vec![constant(arg)?],
    };
    found.iter().all(|fraction| (0.0..=1.0).contains(fraction)).then_some(found)
}

/// Resolves a call. `written` is the whole call as the user wrote it.
pub fn resolve_call(
    function: AggregateFunction,
    written: &Expr,
    scope: &Scope,
) -> PlanResult<AggregateCall> {
    let (call, keys) = within_group::parts(written);
    let Expr::Call { name: called, args, distinct, filter, .. } = call else {
        unreachable!("the caller has seen a call")
    };
    let called = lower(called);
    if let Some(nested) = keys.iter().map(|key| &key.expr).find(|key| has_aggregate(key)) {
        return Err(nested_aggregate(nested));
    }
    // For these functions duplicates do not change the result.
    let set_like = matches!(
        function,
        F::Min
            | F::Max
            | F::CollectSet
            | F::CollectUnion
            | F::BoolAnd
            | F::BoolOr
            | F::ApproxCountDistinct
    );
    let distinct = *distinct && !set_like;
    refuse_windows(args.iter().chain(keys.iter().map(|key| &key.expr)), filter.as_deref())?;
    let filter = check_modifiers(args, filter.as_deref(), scope)?;
    if matches!(args.as_slice(), [Expr::Star(None)]) && function == F::Count {
        let name = "count(1)".to_string();
        let data_type = DataType::Long;
        let args = Vec::new();
        let place = written.place();
        return Ok(AggregateCall {
            function,
            user: None,
            distinct,
            args,
            filter,
            order: Vec::new(),
            data_type,
            name,
            place,
        });
    }
    let args = without_stars(scope, args)?;
    let resolved = args.iter().map(|arg| resolve(arg, scope)).collect::<PlanResult<Vec<_>>>()?;
    let is_distinct = distinct;
    let of = (function, &*called, is_distinct);
    let Ordered { args: resolved, order } = ordered_arguments(of, resolved, keys, scope)?;
    let (least, most) = match function {
        F::Count => (1, usize::MAX),
        F::CovarianceSample
        | F::CovariancePopulation
        | F::Correlation
        | F::RegressionAverageX
        | F::RegressionAverageY
        | F::RegressionCount
        | F::RegressionIntercept
        | F::RegressionR2
        | F::RegressionSlope
        | F::RegressionSxx
        | F::RegressionSxy
        | F::RegressionSyy
        | F::HistogramNumeric => (2, 2),
        F::MaxBy | F::MinBy => (2, 3),
        F::CountMinSketch => (4, 4),
        F::Percentile if called == "median" => (1, 1),
        F::Percentile if called == "percentile" => (2, 3),
        // One argument and the key.
        F::Percentile | F::PercentileDiscrete => (2, 2),
        F::ApproxTopK => (1, 3),
        F::Mode => (1, 2),
        F::ListAgg if !order.is_empty() => (2 + order.len(), 2 + order.len()),
        F::First | F::Last | F::ListAgg | F::ApproxCountDistinct => (1, 2),
        F::PercentileApprox => (2, 3),
        _ => (1, 1),
    };
    if resolved.len() < least || resolved.len() > most {
        let kind = if function == F::Count { "WITH_SUGGESTION" } else { "WITHOUT_SUGGESTION" };
        return Err(PlanError::new(
            format!("WRONG_NUM_ARGS.{kind}"),
            format!("`{written}` has {}, but needs {least}", counted(resolved.len(), "argument")),
            NAMES.iter().find(|entry| entry.function == function).map_or("", |entry| entry.help),
        ));
    }
    let resolved = if called == "median" { with_half(resolved) } else { resolved };
    let (function, resolved) = over_pairs(function, resolved, written)?;
    let TypedArguments { args, data_type } = typed(function, resolved, (written, order.len()))?;
    let (args, order) = mode_order(function, args, order);
    let name = written.to_string();
    let place = written.place();
    Ok(AggregateCall {
        function,
        user: None,
        distinct,
        args,
        filter,
        order,
        data_type,
        name,
        place,
    })
}

fn nested_aggregate(nested: &Expr) -> PlanError {
    PlanError::new(
        "NESTED_AGGREGATE_FUNCTION",
        format!("the aggregate `{nested}` stands inside another"),
        "Put the inner one in a subquery",
    )
}

/// Adds the fraction of the median to its argument.
fn with_half(mut args: Vec<Resolved>) -> Vec<Resolved> {
    args.push(Resolved::literal(Value::Double(0.5), DataType::Double));
    args
}

/// The order of `mode(x, true)`, whose second argument is dropped: the smallest of equally frequent
/// values. Any other call is returned unchanged.
fn mode_order(
    function: AggregateFunction,
    mut args: Vec<Resolved>,
    mut order: Vec<ValueOrder>,
) -> (Vec<Resolved>, Vec<ValueOrder>) {
    if function == F::Mode && args.len() == 2 {
        args.pop();
        order.push(ValueOrder { descending: false, nulls_first: true });
    }
    (args, order)
}

/// Rewrites the regression functions that are another aggregate of the pairs without a NULL.
fn over_pairs(
    function: AggregateFunction,
    args: Vec<Resolved>,
    written: &Expr,
) -> PlanResult<(AggregateFunction, Vec<Resolved>)> {
    let (of, value) = match function {
        F::RegressionCount => (F::Count, None),
        F::RegressionAverageX => (F::Avg, Some(1)),
        F::RegressionAverageY => (F::Avg, Some(0)),
        F::RegressionSxx => (function, Some(1)),
        F::RegressionSyy => (function, Some(0)),
        _ => return Ok((function, args)),
    };
    let args = typed(F::RegressionCount, args, (written, 0))?.args;
    let Some(value) = value else { return Ok((of, args)) };
    let is_pair = |arg: &Resolved| functions::resolve("isnotnull", vec![arg.clone()]);
    let both = args.iter().map(is_pair).collect::<PlanResult<Vec<_>>>()?;
    let condition = functions::resolve("and", both)?;
    let value = args.into_iter().nth(value);
    let branches: Vec<_> = value.into_iter().map(|value| (condition.clone(), value)).collect();
    let data_type = branches.first().map_or(DataType::Null, |(_, v)| v.data_type.clone());
    let otherwise = Resolved::literal(Value::Null, data_type.clone());
    let node = Node::Case(branches, Some(Box::new(otherwise)));
    Ok((of, vec![Resolved { node, data_type, nullable: true }]))
}

/// Fails if an argument or key of an aggregate, or the condition of its FILTER, has a window
/// function.
fn refuse_windows<'e>(
    mut parts: impl Iterator<Item = &'e Expr>,
    filter: Option<&Expr>,
) -> PlanResult<()> {
    if let Some(nested) = parts.find(|part| has_over(part)) {
        return Err(PlanError::new(
            "_LEGACY_ERROR_TEMP_1031",
            format!("the window function `{nested}` stands inside an aggregate"),
            "Compute it in a subquery",
        ));
    }
    refuse_windows_in_filter(filter)
}

/// Fails if the condition of FILTER has a window function.
pub(super) fn refuse_windows_in_filter(filter: Option<&Expr>) -> PlanResult<()> {
    match filter.filter(|condition| has_over(condition)) {
        None => Ok(()),
        Some(condition) => Err(PlanError::new(
            "INVALID_AGGREGATE_FILTER.CONTAINS_WINDOW_FUNCTION",
            format!("the condition `{condition}` of FILTER has a window function"),
            "Compute it in a subquery",
        )),
    }
}

/// Resolves the condition of FILTER; `None` if there is none. Fails if an argument or the condition
/// contains an aggregate, or if the condition is not BOOLEAN or is nondeterministic.
fn check_modifiers(
    args: &[Expr],
    filter: Option<&Expr>,
    scope: &Scope,
) -> PlanResult<Option<Resolved>> {
    if let Some(nested) = args.iter().find(|arg| has_aggregate(arg)) {
        return Err(nested_aggregate(nested));
    }
    let filter = match filter {
        Some(condition) if has_aggregate(condition) => {
            return Err(PlanError::new(
                "INVALID_AGGREGATE_FILTER.CONTAINS_AGGREGATE",
                format!("the condition `{condition}` of FILTER has an aggregate"),
                "Aggregate in a subquery",
            ));
        }
        Some(condition) => Some(boolean(resolve(condition, scope)?, condition, "FILTER")?),
        None => None,
    };
    if let Some(condition) = &filter
        && has_random_value(condition)
    {
        return Err(PlanError::new(
            "INVALID_AGGREGATE_FILTER.NON_DETERMINISTIC",
            format!("the condition `{condition}` of FILTER is nondeterministic"),
            "Compute it in a subquery",
        ));
    }
    Ok(filter)
}

/// Fails if an argument or key of an aggregate is random. A window function may have such arguments.
pub(super) fn refuse_random(call: AggregateCall) -> PlanResult<AggregateCall> {
    match call.args.iter().find(|arg| has_random_value(arg)) {
        None => Ok(call),
        Some(arg) => Err(PlanError::new(
            "AGGREGATE_FUNCTION_WITH_NONDETERMINISTIC_EXPRESSION",
            format!("the argument `{arg}` of the aggregate `{}` is random", call.name),
            "Compute it in a subquery",
        )
        .at(call.place)),
    }
}

/// Resolves a call of a user-defined aggregate.
pub fn resolve_user_call(
    function: &Arc<UserAggregate>,
    args: &[Expr],
    written: &Expr,
    scope: &Scope,
) -> PlanResult<AggregateCall> {
    let args = args.iter().map(|arg| resolve(arg, scope)).collect::<PlanResult<Vec<_>>>()?;
    let args = aggregate_args(function, args).map_err(|error| error.at(written.place()))?;
    Ok(AggregateCall {
        function: F::User,
        user: Some(function.clone()),
        distinct: false,
        args,
        filter: None,
        order: Vec::new(),
        data_type: function.data_type().clone(),
        name: written.to_string(),
        place: written.place(),
    })
}
