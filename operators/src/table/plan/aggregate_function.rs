//! Aggregate functions: their names, and how a call is resolved.

use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::expr::coercion::check_order;
use crate::table::expr::resolve::{Scope, expect_type, resolve, without_stars};
use crate::table::expr::user_function::{UserAggregate, aggregate_args};
use crate::table::expr::{Expr, Node, Resolved};
use crate::table::plan::analyzer::{boolean, has_aggregate};
use crate::table::types::DataType;
use crate::table::value::Value;
use std::sync::Arc;

/// An aggregate function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AggregateFunction {
    /// `count(*)` and `count(x, …)`: rows, or those where no argument is NULL.
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
    /// `max_by(x, y)`: x where y is largest.
    MaxBy,
    /// `min_by(x, y)`: x where y is smallest.
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
    /// One of the program's own.
    User,
}

use AggregateFunction as F;

/// The functions by name, with a line of help.
pub const NAMES: &[(&str, F, &str)] = &[
    ("count", F::Count, "count(*) or count(x, …): rows, or those without a NULL"),
    ("count_if", F::CountIf, "count_if(condition): rows for which it is true"),
    ("sum", F::Sum, "sum(x)"),
    ("min", F::Min, "min(x)"),
    ("max", F::Max, "max(x)"),
    ("avg", F::Avg, "avg(x) or mean(x)"),
    ("mean", F::Avg, "avg(x)"),
    ("stddev", F::DeviationSample, "stddev(x): of a sample"),
    ("std", F::DeviationSample, "stddev(x)"),
    ("stddev_samp", F::DeviationSample, "stddev_samp(x): of a sample"),
    ("stddev_pop", F::DeviationPopulation, "stddev_pop(x): of all there is"),
    ("variance", F::VarianceSample, "variance(x): of a sample"),
    ("var_samp", F::VarianceSample, "var_samp(x): of a sample"),
    ("var_pop", F::VariancePopulation, "var_pop(x): of all there is"),
    ("skewness", F::Skewness, "skewness(x)"),
    ("kurtosis", F::Kurtosis, "kurtosis(x)"),
    ("corr", F::Correlation, "corr(x, y): Pearson's coefficient"),
    ("covar_samp", F::CovarianceSample, "covar_samp(x, y): of a sample"),
    ("covar_pop", F::CovariancePopulation, "covar_pop(x, y): of all there is"),
    ("first", F::First, "first(x[, ignoreNulls]): in order of arrival"),
    ("first_value", F::First, "first(x[, ignoreNulls])"),
    ("any_value", F::First, "any_value(x[, ignoreNulls]): the first"),
    ("last", F::Last, "last(x[, ignoreNulls]): in order of arrival"),
    ("last_value", F::Last, "last(x[, ignoreNulls])"),
    ("max_by", F::MaxBy, "max_by(x, y): x where y is largest"),
    ("min_by", F::MinBy, "min_by(x, y): x where y is smallest"),
    ("bool_and", F::BoolAnd, "bool_and(x) or every(x): whether all are true"),
    ("every", F::BoolAnd, "bool_and(x)"),
    ("bool_or", F::BoolOr, "bool_or(x), some(x) or any(x): whether one is true"),
    ("some", F::BoolOr, "bool_or(x)"),
    ("any", F::BoolOr, "bool_or(x)"),
    ("bit_and", F::BitAnd, "bit_and(x): of the bits of all"),
    ("bit_or", F::BitOr, "bit_or(x): of the bits of all"),
    ("bit_xor", F::BitXor, "bit_xor(x): of the bits of all"),
    ("collect_list", F::CollectList, "collect_list(x) or array_agg(x): all that are not NULL"),
    ("array_agg", F::CollectList, "collect_list(x)"),
    ("collect_set", F::CollectSet, "collect_set(x): each value that is not NULL once"),
    ("listagg", F::ListAgg, "listagg(x[, separator]) or string_agg: joined in order of arrival"),
    ("string_agg", F::ListAgg, "listagg(x[, separator])"),
    (
        "approx_count_distinct",
        F::ApproxCountDistinct,
        "approx_count_distinct(x[, deviation]): different values, about",
    ),
    (
        "percentile_approx",
        F::PercentileApprox,
        "percentile_approx(x, fraction[, accuracy]): a value of x, about",
    ),
    ("approx_percentile", F::PercentileApprox, "percentile_approx(x, fraction[, accuracy])"),
];

/// Aggregates of Spark that are not implemented; listed so that the error can say so.
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
    /// The function of a name.
    pub fn of(name: &str) -> Option<Self> {
        let found = NAMES.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name));
        found.map(|(_, function, _)| *function)
    }

    /// Whether the result does not depend on the order of values, and partial results can be
    /// merged.
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

    /// Whether its result can be NULL.
    pub fn is_nullable(self) -> bool {
        !matches!(
            self,
            F::Count | F::CountIf | F::ApproxCountDistinct | F::CollectList | F::CollectSet
        )
    }
}

/// A call of an aggregate function.
#[derive(Clone, Debug, PartialEq)]
pub struct AggregateCall {
    /// Which.
    pub function: AggregateFunction,
    /// The user-defined function, if it is one.
    pub user: Option<Arc<UserAggregate>>,
    /// Whether each distinct value counts once. Only for bounded tables.
    pub distinct: bool,
    /// The arguments; none for `count(*)`.
    pub args: Vec<Resolved>,
    /// Only records for which this is true are counted.
    pub filter: Option<Resolved>,
    /// The result's type.
    pub data_type: DataType,
    /// The output column.
    pub name: String,
    /// Where it was written.
    pub place: Place,
}

impl AggregateCall {
    /// The value of a constant numeric argument.
    pub fn constant(&self, index: usize) -> Option<f64> {
        constant(self.args.get(index)?)
    }
}

fn constant(arg: &Resolved) -> Option<f64> {
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

/// The fractions of a call of `percentile_approx`.
pub fn fractions(arg: &Resolved) -> Option<Vec<f64>> {
    let found = match &arg.node {
        Node::Call("array", args) => args.iter().map(constant).collect::<Option<Vec<_>>>()?,
        _ => vec![constant(arg)?],
    };
    found.iter().all(|fraction| (0.0..=1.0).contains(fraction)).then_some(found)
}

/// Resolves a call. `written` is the whole of it, for its name and its place.
pub fn resolve_call(
    function: AggregateFunction,
    written: &Expr,
    scope: &Scope,
) -> PlanResult<AggregateCall> {
    let Expr::Call { args, distinct, filter, .. } = written else {
        unreachable!("the caller has seen a call")
    };
    // Duplicates do not change the result there.
    let set_like = matches!(
        function,
        F::Min | F::Max | F::CollectSet | F::BoolAnd | F::BoolOr | F::ApproxCountDistinct
    );
    let distinct = *distinct && !set_like;
    if let Some(nested) = args.iter().find(|arg| has_aggregate(arg)) {
        return Err(PlanError::new(
            "NESTED_AGGREGATE_FUNCTION",
            format!("the aggregate `{nested}` stands inside another"),
            "Put the inner one in a subquery",
        ));
    }
    let filter = match filter.as_deref() {
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
            format!("the condition `{condition}` of FILTER gives another answer each time"),
            "Compute it in a subquery",
        ));
    }
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
            NAMES.iter().find(|(_, f, _)| *f == function).map_or("", |(_, _, help)| help),
        ));
    }
    let (args, data_type) = typed(function, resolved, written)?;
    let name = written.to_string();
    let place = written.place();
    Ok(AggregateCall { function, user: None, distinct, args, filter, data_type, name, place })
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

/// Casts the arguments to the types of the function. Returns them with the result type.
fn typed(
    function: AggregateFunction,
    mut args: Vec<Resolved>,
    written: &Expr,
) -> PlanResult<(Vec<Resolved>, DataType)> {
    use DataType as T;
    let wrong = |arg: &Resolved, fix: &str| {
        PlanError::new(
            "DATATYPE_MISMATCH.UNEXPECTED_INPUT_TYPE",
            format!("`{written}` cannot take {}", arg.data_type),
            fix,
        )
    };
    let numeric = |arg: Resolved| match arg.data_type {
        T::String | T::Null => Ok(arg.coerce(&T::Double)),
        T::Timestamp if matches!(function, F::Sum | F::Avg) => Ok(arg.coerce(&T::Double)),
        ref t if t.is_numeric() => Ok(arg),
        _ => Err(wrong(&arg, "Cast it to a number")),
    };
    let doubles = |args: Vec<Resolved>| {
        args.into_iter().map(|arg| Ok(numeric(arg)?.coerce(&T::Double))).collect::<PlanResult<_>>()
    };
    let of_type = |args: Vec<Resolved>, to: &DataType| {
        let what = format!("`{written}`");
        args.into_iter().map(|arg| expect_type(arg, to, &what)).collect::<PlanResult<Vec<_>>>()
    };
    let orderable = |arg: &Resolved| check_order(&format!("`{written}`"), arg);
    let first_type = args[0].data_type.clone();
    Ok(match function {
        F::User => unreachable!("resolved by its own types"),
        F::Count => (args, T::Long),
        F::CountIf => (of_type(args, &T::Boolean)?, T::Long),
        F::Min | F::Max => {
            orderable(&args[0])?;
            (args, first_type)
        }
        F::Sum => {
            let arg = match first_type {
                ref t if t.is_interval() => args.remove(0),
                _ => numeric(args.remove(0))?,
            };
            let data_type = match &arg.data_type {
                t if t.is_integral() => T::Long,
                T::Decimal(p, s) => T::Decimal((p + 10).min(38), *s),
                t if t.is_interval() => t.clone(),
                _ => T::Double,
            };
            (vec![arg], data_type)
        }
        F::Avg => {
            let arg = numeric(args.remove(0))?;
            match arg.data_type {
                T::Decimal(p, s) => (vec![arg], T::Decimal((p + 4).min(38), (s + 4).min(38))),
                _ => (vec![arg.coerce(&T::Double)], T::Double),
            }
        }
        F::VarianceSample
        | F::VariancePopulation
        | F::DeviationSample
        | F::DeviationPopulation
        | F::Skewness
        | F::Kurtosis
        | F::CovarianceSample
        | F::CovariancePopulation
        | F::Correlation => (doubles(args)?, T::Double),
        F::First | F::Last => {
            if let Some(ignore) = args.get(1)
                && !matches!(ignore.node, Node::Literal(Value::Boolean(_)))
            {
                return Err(wrong(ignore, "The second argument is true or false"));
            }
            (args, first_type)
        }
        F::MaxBy | F::MinBy => {
            orderable(&args[1])?;
            (args, first_type)
        }
        F::BoolAnd | F::BoolOr => (of_type(args, &T::Boolean)?, T::Boolean),
        F::BitAnd | F::BitOr | F::BitXor => {
            if first_type == T::Null {
                return Ok((vec![args.remove(0).coerce(&T::Int)], T::Int));
            }
            if !first_type.is_integral() {
                return Err(wrong(&args[0], "Cast it to a whole number"));
            }
            (args, first_type)
        }
        F::CollectSet => {
            if !first_type.is_orderable() {
                let mut error = wrong(&args[0], "Collect the map's entries");
                error.condition = "DATATYPE_MISMATCH.UNSUPPORTED_INPUT_TYPE".to_string();
                return Err(error);
            }
            (args, T::Array(Box::new(first_type)))
        }
        F::CollectList => (args, T::Array(Box::new(first_type))),
        F::ListAgg => {
            if let Some(separator) = args.get(1).filter(|separator| !separator.is_foldable()) {
                check_constant(separator, written)?;
            }
            if args.get(1).is_some_and(|separator| separator.literal_text().is_none()) {
                return Err(wrong(&args[1], "The separator is a constant text"));
            }
            (of_type(args, &T::String)?, T::String)
        }
        F::ApproxCountDistinct => {
            let deviation = args.get(1).map_or(Some(0.05), constant);
            if !deviation.is_some_and(|d| (0.001..=0.4).contains(&d)) {
                return Err(wrong(&args[1], "The deviation is a constant from 0.001 to 0.4"));
            }
            (args, T::Long)
        }
        F::PercentileApprox => {
            let first_type = match first_type {
                T::String | T::Null => T::Double,
                other => other,
            };
            if !first_type.is_numeric() && !first_type.is_datetime() && !first_type.is_interval() {
                return Err(wrong(&args[0], "Take a number, a date or a timestamp"));
            }
            args[0] = args[0].clone().coerce(&first_type);
            for arg in args.iter().skip(1) {
                check_constant(arg, written)?;
            }
            let out_of_range = |arg: &Resolved, fix: &str| {
                let reason = format!("`{arg}` of `{written}` is not in range");
                PlanError::new("DATATYPE_MISMATCH.VALUE_OUT_OF_RANGE", reason, fix)
            };
            if fractions(&args[1]).is_none() {
                let fix = "Fractions are constants from 0 to 1, or an array of them";
                return Err(match args[1].data_type {
                    ref t if t.is_numeric() => out_of_range(&args[1], fix),
                    _ => wrong(&args[1], fix),
                });
            }
            if args.len() == 3 && !constant(&args[2]).is_some_and(|a| (1.0..1e6).contains(&a)) {
                let fix = "The accuracy is a constant from 1 to 1000000";
                return Err(match args[2].data_type.is_integral() {
                    true => out_of_range(&args[2], fix),
                    false => wrong(&args[2], fix),
                });
            }
            let several = matches!(args[1].data_type, T::Array(_));
            let data_type = if several { T::Array(Box::new(first_type)) } else { first_type };
            (args, data_type)
        }
    })
}

/// Returns an error unless an argument is a constant other than NULL.
fn check_constant(arg: &Resolved, written: &Expr) -> PlanResult<()> {
    let (condition, what) = match () {
        () if !arg.is_foldable() => ("NON_FOLDABLE_INPUT", "not a constant"),
        () if arg.is_null_literal() => ("UNEXPECTED_NULL", "NULL"),
        () => return Ok(()),
    };
    Err(PlanError::new(
        format!("DATATYPE_MISMATCH.{condition}"),
        format!("`{arg}` of `{written}` is {what}"),
        "Write a constant",
    ))
}
