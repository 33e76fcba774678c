//! Aggregate functions: their names, and the resolution of calls.

use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::expr::resolve::{Scope, resolve, without_stars};
use crate::table::expr::user_function::{UserAggregate, aggregate_args};
use crate::table::expr::{Expr, Node, Resolved};
use crate::table::function_docs::Usage;
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
    /// The help text, in one line: the signature and the description.
    pub help: &'static str,
    /// An example, and the version that introduced the name.
    pub usage: Usage,
}

impl AggregateEntry {
    const fn usage(self, since: &'static str, example: &'static str, result: &'static str) -> Self {
        Self { usage: Usage { since, example, result }, ..self }
    }
}

const fn entry(
    name: &'static str,
    function: AggregateFunction,
    help: &'static str,
) -> AggregateEntry {
    AggregateEntry { name, function, help, usage: Usage::NONE }
}

/// The functions by name, with a line of help.
pub const NAMES: &[AggregateEntry] = &[
    entry(
        "count",
        F::Count,
        "count(*) or count(x, …): the number of rows, or of those without a NULL",
    )
    .usage("1.0.0", "count(x), count(*) FROM VALUES (1), (NULL) AS t(x)", "1, 2"),
    entry("count_if", F::CountIf, "count_if(condition): rows for which it is true").usage(
        "3.0.0",
        "count_if(x > 1) FROM VALUES (1), (2), (3) AS t(x)",
        "2",
    ),
    entry("sum", F::Sum, "sum(x): the sum of the values that are not NULL").usage(
        "1.0.0",
        "sum(x) FROM VALUES (1), (2), (NULL) AS t(x)",
        "3",
    ),
    entry("min", F::Min, "min(x): the smallest value").usage(
        "1.0.0",
        "min(x) FROM VALUES (2), (1) AS t(x)",
        "1",
    ),
    entry("max", F::Max, "max(x): the largest value").usage(
        "1.0.0",
        "max(x) FROM VALUES (2), (1) AS t(x)",
        "2",
    ),
    entry("avg", F::Avg, "avg(x) or mean(x): the mean of the values that are not NULL").usage(
        "1.0.0",
        "avg(x) FROM VALUES (1), (2) AS t(x)",
        "1.5",
    ),
    entry("mean", F::Avg, "mean(x): the same as `avg`").usage(
        "1.0.0",
        "mean(x) FROM VALUES (1), (2) AS t(x)",
        "1.5",
    ),
    entry("stddev", F::DeviationSample, "stddev(x): the standard deviation of a sample").usage(
        "1.6.0",
        "stddev(x) FROM VALUES (1), (2), (3) AS t(x)",
        "1.0",
    ),
    entry("std", F::DeviationSample, "std(x): the same as `stddev`").usage(
        "1.6.0",
        "std(x) FROM VALUES (1), (2), (3) AS t(x)",
        "1.0",
    ),
    entry("stddev_samp", F::DeviationSample, "stddev_samp(x): the standard deviation of a sample")
        .usage("1.6.0", "stddev_samp(x) FROM VALUES (1), (2), (3) AS t(x)", "1.0"),
    entry(
        "stddev_pop",
        F::DeviationPopulation,
        "stddev_pop(x): the standard deviation of a whole population",
    )
    .usage("1.6.0", "stddev_pop(x) FROM VALUES (1), (3) AS t(x)", "1.0"),
    entry("variance", F::VarianceSample, "variance(x): the variance of a sample").usage(
        "1.6.0",
        "variance(x) FROM VALUES (1), (2), (3) AS t(x)",
        "1.0",
    ),
    entry("var_samp", F::VarianceSample, "var_samp(x): the variance of a sample").usage(
        "1.6.0",
        "var_samp(x) FROM VALUES (1), (2), (3) AS t(x)",
        "1.0",
    ),
    entry("var_pop", F::VariancePopulation, "var_pop(x): the variance of a whole population")
        .usage("1.6.0", "var_pop(x) FROM VALUES (1), (3) AS t(x)", "1.0"),
    entry("skewness", F::Skewness, "skewness(x): how asymmetric the values are").usage(
        "1.6.0",
        "skewness(x) FROM VALUES (1), (2), (3) AS t(x)",
        "0.0",
    ),
    entry("kurtosis", F::Kurtosis, "kurtosis(x): how heavy the tails are, less 3").usage(
        "1.6.0",
        "kurtosis(x) FROM VALUES (1), (3) AS t(x)",
        "-2.0",
    ),
    entry("corr", F::Correlation, "corr(x, y): Pearson's coefficient").usage(
        "1.6.0",
        "corr(x, y) FROM VALUES (1, 2), (2, 4) AS t(x, y)",
        "1.0",
    ),
    entry("covar_samp", F::CovarianceSample, "covar_samp(x, y): the covariance of a sample").usage(
        "2.0.0",
        "covar_samp(x, y) FROM VALUES (1, 2), (3, 6) AS t(x, y)",
        "4.0",
    ),
    entry(
        "covar_pop",
        F::CovariancePopulation,
        "covar_pop(x, y): the covariance of a whole population",
    )
    .usage("2.0.0", "covar_pop(x, y) FROM VALUES (1, 2), (3, 6) AS t(x, y)", "2.0"),
    entry("first", F::First, "first(x[, ignoreNulls]): the first value in order of arrival").usage(
        "2.0.0",
        "first(x) FROM VALUES (5), (7) AS t(x)",
        "5",
    ),
    entry("first_value", F::First, "first_value(x[, ignoreNulls]): the same as `first`").usage(
        "2.0.0",
        "first_value(x) FROM VALUES (5), (7) AS t(x)",
        "5",
    ),
    entry(
        "any_value",
        F::First,
        "any_value(x[, ignoreNulls]): the first value in order of arrival",
    )
    .usage("3.4.0", "any_value(x) FROM VALUES (5), (5) AS t(x)", "5"),
    entry("last", F::Last, "last(x[, ignoreNulls]): the last value in order of arrival").usage(
        "2.0.0",
        "last(x) FROM VALUES (5), (7) AS t(x)",
        "7",
    ),
    entry("last_value", F::Last, "last_value(x[, ignoreNulls]): the same as `last`").usage(
        "2.0.0",
        "last_value(x) FROM VALUES (5), (7) AS t(x)",
        "7",
    ),
    entry("max_by", F::MaxBy, "max_by(x, y): the x of the largest y").usage(
        "3.0.0",
        "max_by(x, y) FROM VALUES ('a', 1), ('b', 2) AS t(x, y)",
        "b",
    ),
    entry("min_by", F::MinBy, "min_by(x, y): the x of the smallest y").usage(
        "3.0.0",
        "min_by(x, y) FROM VALUES ('a', 1), ('b', 2) AS t(x, y)",
        "a",
    ),
    entry("bool_and", F::BoolAnd, "bool_and(x) or every(x): whether all are true").usage(
        "3.0.0",
        "bool_and(x) FROM VALUES (true), (false) AS t(x)",
        "false",
    ),
    entry("every", F::BoolAnd, "every(x): the same as `bool_and`").usage(
        "3.0.0",
        "every(x) FROM VALUES (true), (false) AS t(x)",
        "false",
    ),
    entry("bool_or", F::BoolOr, "bool_or(x), some(x) or any(x): whether one is true").usage(
        "3.0.0",
        "bool_or(x) FROM VALUES (true), (false) AS t(x)",
        "true",
    ),
    entry("some", F::BoolOr, "some(x): the same as `bool_or`").usage(
        "3.0.0",
        "some(x) FROM VALUES (true), (false) AS t(x)",
        "true",
    ),
    entry("any", F::BoolOr, "any(x): the same as `bool_or`").usage(
        "3.0.0",
        "any(x) FROM VALUES (true), (false) AS t(x)",
        "true",
    ),
    entry("bit_and", F::BitAnd, "bit_and(x): the bits that are set in all values").usage(
        "3.0.0",
        "bit_and(x) FROM VALUES (3), (6) AS t(x)",
        "2",
    ),
    entry("bit_or", F::BitOr, "bit_or(x): the bits that are set in any value").usage(
        "3.0.0",
        "bit_or(x) FROM VALUES (3), (6) AS t(x)",
        "7",
    ),
    entry("bit_xor", F::BitXor, "bit_xor(x): the bits that are set in an odd number of values")
        .usage("3.0.0", "bit_xor(x) FROM VALUES (3), (6) AS t(x)", "5"),
    entry(
        "collect_list",
        F::CollectList,
        "collect_list(x) or array_agg(x): an array of the values that are not NULL",
    )
    .usage("2.0.0", "collect_list(x) FROM VALUES (1), (1), (NULL) AS t(x)", "[1, 1]"),
    entry("array_agg", F::CollectList, "array_agg(x): the same as `collect_list`").usage(
        "3.3.0",
        "array_agg(x) FROM VALUES (1), (1), (NULL) AS t(x)",
        "[1, 1]",
    ),
    entry(
        "collect_set",
        F::CollectSet,
        "collect_set(x): an array of the different values that are not NULL",
    )
    .usage("2.0.0", "collect_set(x) FROM VALUES (1), (1), (NULL) AS t(x)", "[1]"),
    entry(
        "listagg",
        F::ListAgg,
        "listagg(x[, separator]): the values as one text, in order of arrival",
    )
    .usage("4.0.0", "listagg(x, '-') FROM VALUES ('a'), ('b') AS t(x)", "a-b"),
    entry("string_agg", F::ListAgg, "string_agg(x[, separator]): the same as `listagg`").usage(
        "4.0.0",
        "string_agg(x, '-') FROM VALUES ('a'), ('b') AS t(x)",
        "a-b",
    ),
    entry(
        "approx_count_distinct",
        F::ApproxCountDistinct,
        "approx_count_distinct(x[, deviation]): about how many different values there are",
    )
    .usage("1.6.0", "approx_count_distinct(x) FROM VALUES (1), (1), (2) AS t(x)", "2"),
    entry(
        "percentile_approx",
        F::PercentileApprox,
        "percentile_approx(x, fraction[, accuracy]): about the value at that fraction of the order",
    )
    .usage("2.1.0", "percentile_approx(x, 0.5) FROM VALUES (1), (2), (9) AS t(x)", "2"),
    entry(
        "approx_percentile",
        F::PercentileApprox,
        "approx_percentile(x, fraction[, accuracy]): the same as `percentile_approx`",
    )
    .usage("2.1.0", "approx_percentile(x, 0.5) FROM VALUES (1), (2), (9) AS t(x)", "2"),
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
