//! Aggregate functions: their names, and the resolution of calls.

use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::expr::resolve::{Scope, resolve, without_stars};
use crate::table::expr::user_function::{UserAggregate, aggregate_args};
use crate::table::expr::{Expr, Node, Resolved};
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
    /// `listagg(x[, separator])`.
    ListAgg,
    /// `approx_count_distinct(x[, relative deviation])`.
    ApproxCountDistinct,
    /// `percentile_approx(x, fraction or array of them[, accuracy])`.
    PercentileApprox,
    /// A user-defined aggregate function.
    User,
}

use crate::table::plan::aggregate_types::{TypedArguments, typed};
use AggregateFunction as F;

/// A name by which SQL calls an aggregate function.
pub struct AggregateEntry {
    /// The name in lower case.
    pub name: &'static str,
    /// The function; a function may have several names.
    pub function: AggregateFunction,
    /// The help text, in one line.
    pub help: &'static str,
}

const fn entry(
    name: &'static str,
    function: AggregateFunction,
    help: &'static str,
) -> AggregateEntry {
    AggregateEntry { name, function, help }
}

/// The functions by name, with a line of help.
pub const NAMES: &[AggregateEntry] = &[
    entry("count", F::Count, "count(*) or count(x, …): rows, or those without a NULL"),
    entry("count_if", F::CountIf, "count_if(condition): rows for which it is true"),
    entry("sum", F::Sum, "sum(x)"),
    entry("min", F::Min, "min(x)"),
    entry("max", F::Max, "max(x)"),
    entry("avg", F::Avg, "avg(x) or mean(x)"),
    entry("mean", F::Avg, "avg(x)"),
    entry("stddev", F::DeviationSample, "stddev(x): of a sample"),
    entry("std", F::DeviationSample, "stddev(x)"),
    entry("stddev_samp", F::DeviationSample, "stddev_samp(x): of a sample"),
    entry("stddev_pop", F::DeviationPopulation, "stddev_pop(x): of all there is"),
    entry("variance", F::VarianceSample, "variance(x): of a sample"),
    entry("var_samp", F::VarianceSample, "var_samp(x): of a sample"),
    entry("var_pop", F::VariancePopulation, "var_pop(x): of all there is"),
    entry("skewness", F::Skewness, "skewness(x)"),
    entry("kurtosis", F::Kurtosis, "kurtosis(x)"),
    entry("corr", F::Correlation, "corr(x, y): Pearson's coefficient"),
    entry("covar_samp", F::CovarianceSample, "covar_samp(x, y): of a sample"),
    entry("covar_pop", F::CovariancePopulation, "covar_pop(x, y): of all there is"),
    entry("first", F::First, "first(x[, ignoreNulls]): in order of arrival"),
    entry("first_value", F::First, "first(x[, ignoreNulls])"),
    entry("any_value", F::First, "any_value(x[, ignoreNulls]): the first"),
    entry("last", F::Last, "last(x[, ignoreNulls]): in order of arrival"),
    entry("last_value", F::Last, "last(x[, ignoreNulls])"),
    entry("max_by", F::MaxBy, "max_by(x, y): x where y is largest"),
    entry("min_by", F::MinBy, "min_by(x, y): x where y is smallest"),
    entry("bool_and", F::BoolAnd, "bool_and(x) or every(x): whether all are true"),
    entry("every", F::BoolAnd, "bool_and(x)"),
    entry("bool_or", F::BoolOr, "bool_or(x), some(x) or any(x): whether one is true"),
    entry("some", F::BoolOr, "bool_or(x)"),
    entry("any", F::BoolOr, "bool_or(x)"),
    entry("bit_and", F::BitAnd, "bit_and(x): of the bits of all"),
    entry("bit_or", F::BitOr, "bit_or(x): of the bits of all"),
    entry("bit_xor", F::BitXor, "bit_xor(x): of the bits of all"),
    entry("collect_list", F::CollectList, "collect_list(x) or array_agg(x): all that are not NULL"),
    entry("array_agg", F::CollectList, "collect_list(x)"),
    entry("collect_set", F::CollectSet, "collect_set(x): each value that is not NULL once"),
    entry(
        "listagg",
        F::ListAgg,
        "listagg(x[, separator]) or string_agg: joined in order of arrival",
    ),
    entry("string_agg", F::ListAgg, "listagg(x[, separator])"),
    entry(
        "approx_count_distinct",
        F::ApproxCountDistinct,
        "approx_count_distinct(x[, deviation]): different values, about",
    ),
    entry(
        "percentile_approx",
        F::PercentileApprox,
        "percentile_approx(x, fraction[, accuracy]): a value of x, about",
    ),
    entry("approx_percentile", F::PercentileApprox, "percentile_approx(x, fraction[, accuracy])"),
];

/// Aggregate functions of Spark that are not implemented. A call is reported as not supported, not
/// as an unknown function.
pub const LATER: [&str; 10] = [
    "count_min_sketch",
    "histogram_numeric",
    "hll_sketch_agg",
    "median",
    "mode",
    "percentile",
    "percentile_cont",
    "percentile_disc",
    "regr_slope",
    "try_avg",
];

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
        )
    }

    /// Whether the result can be NULL, for example without any input row.
    pub fn is_nullable(self) -> bool {
        !matches!(
            self,
            F::Count | F::CountIf | F::ApproxCountDistinct | F::CollectList | F::CollectSet
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

/// The fractions of `percentile_approx`; `None` if one is not a constant from 0 to 1.
pub fn fractions(arg: &Resolved) -> Option<Vec<f64>> {
    let found = match &arg.node {
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
    let Expr::Call { args, distinct, filter, .. } = written else {
        unreachable!("the caller has seen a call")
    };
    // For these functions duplicates do not change the result.
    let set_like = matches!(
        function,
        F::Min | F::Max | F::CollectSet | F::BoolAnd | F::BoolOr | F::ApproxCountDistinct
    );
    let distinct = *distinct && !set_like;
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
            data_type,
            name,
            place,
        });
    }
    let args = without_stars(scope, args)?;
    let resolved = args.iter().map(|arg| resolve(arg, scope)).collect::<PlanResult<Vec<_>>>()?;
    let (least, most) = match function {
        F::Count => (1, usize::MAX),
        F::CovarianceSample | F::CovariancePopulation | F::Correlation | F::MaxBy | F::MinBy => {
            (2, 2)
        }
        F::First | F::Last | F::ListAgg | F::ApproxCountDistinct => (1, 2),
        F::PercentileApprox => (2, 3),
        _ => (1, 1),
    };
    if resolved.len() < least || resolved.len() > most {
        let kind = if function == F::Count { "WITH_SUGGESTION" } else { "WITHOUT_SUGGESTION" };
        return Err(PlanError::new(
            format!("WRONG_NUM_ARGS.{kind}"),
            format!("`{written}` has {} arguments, but needs {least}", resolved.len()),
            NAMES.iter().find(|entry| entry.function == function).map_or("", |entry| entry.help),
        ));
    }
    let TypedArguments { args, data_type } = typed(function, resolved, written)?;
    let name = written.to_string();
    let place = written.place();
    Ok(AggregateCall { function, user: None, distinct, args, filter, data_type, name, place })
}

/// Resolves the condition of FILTER; `None` if there is none. Fails if an argument or the condition
/// contains an aggregate, or if the condition is not BOOLEAN or is nondeterministic.
fn check_modifiers(
    args: &[Expr],
    filter: Option<&Expr>,
    scope: &Scope,
) -> PlanResult<Option<Resolved>> {
    if let Some(nested) = args.iter().find(|arg| has_aggregate(arg)) {
        return Err(PlanError::new(
            "NESTED_AGGREGATE_FUNCTION",
            format!("the aggregate `{nested}` stands inside another"),
            "Put the inner one in a subquery",
        ));
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
        && !crate::table::plan::optimizer::is_deterministic_expr(condition)
    {
        return Err(PlanError::new(
            "INVALID_AGGREGATE_FILTER.NON_DETERMINISTIC",
            format!("the condition `{condition}` of FILTER is nondeterministic"),
            "Compute it in a subquery",
        ));
    }
    Ok(filter)
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
        data_type: function.data_type().clone(),
        name: written.to_string(),
        place: written.place(),
    })
}
