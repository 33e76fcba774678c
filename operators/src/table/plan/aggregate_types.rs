//! The argument and result types of aggregate functions.

use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::coercion::check_order;
use crate::table::expr::resolve::expect_type;
use crate::table::expr::{Expr, Node, Resolved};
use crate::table::plan::aggregate_function::{AggregateFunction, constant, fractions};
use crate::table::types::DataType;
use crate::table::value::Value;
use AggregateFunction as F;

/// The arguments of a call after implicit casts, and the type of its result.
pub(super) struct TypedArguments {
    pub args: Vec<Resolved>,
    pub data_type: DataType,
}

impl TypedArguments {
    fn new(args: Vec<Resolved>, data_type: DataType) -> Self {
        Self { args, data_type }
    }
}

/// Casts the arguments of a call to the types of its function.
pub(super) fn typed(
    function: AggregateFunction,
    args: Vec<Resolved>,
    written: &Expr,
) -> PlanResult<TypedArguments> {
    use DataType as T;
    let call = Call { function, written };
    let first_type = args[0].data_type.clone();
    let data_type = match function {
        F::User => unreachable!("resolved by its own types"),
        F::Count => T::Long,
        F::CountIf => return Ok(TypedArguments::new(call.all_of(args, &T::Boolean)?, T::Long)),
        F::BoolAnd | F::BoolOr => {
            return Ok(TypedArguments::new(call.all_of(args, &T::Boolean)?, T::Boolean));
        }
        F::Sum => return call.sum(args),
        F::Avg => return call.average(args),
        F::VarianceSample
        | F::VariancePopulation
        | F::DeviationSample
        | F::DeviationPopulation
        | F::Skewness
        | F::Kurtosis
        | F::CovarianceSample
        | F::CovariancePopulation
        | F::Correlation => return Ok(TypedArguments::new(call.doubles(args)?, T::Double)),
        F::Min | F::Max => {
            call.check_order(&args[0])?;
            first_type
        }
        F::MaxBy | F::MinBy => {
            call.check_order(&args[1])?;
            first_type
        }
        F::First | F::Last => {
            if let Some(ignore) = args.get(1)
                && !matches!(ignore.node, Node::Literal(Value::Boolean(_)))
            {
                return Err(call.wrong(ignore, "The second argument is true or false"));
            }
            first_type
        }
        F::BitAnd | F::BitOr | F::BitXor => return call.bits(args),
        F::CollectSet => {
            if !first_type.is_orderable() {
                let mut error = call.wrong(&args[0], "Collect the map's entries");
                error.condition = "DATATYPE_MISMATCH.UNSUPPORTED_INPUT_TYPE".to_string();
                return Err(error);
            }
            T::Array(Box::new(first_type))
        }
        F::CollectList => T::Array(Box::new(first_type)),
        F::ListAgg => return call.joined_text(args),
        F::ApproxCountDistinct => {
            let deviation = args.get(1).map_or(Some(0.05), constant);
            if !deviation.is_some_and(|d| (0.001..=0.4).contains(&d)) {
                return Err(call.wrong(&args[1], "The deviation is a constant from 0.001 to 0.4"));
            }
            T::Long
        }
        F::PercentileApprox => return call.percentiles(args),
    };
    Ok(TypedArguments::new(args, data_type))
}

/// The call that errors quote.
struct Call<'c> {
    function: AggregateFunction,
    written: &'c Expr,
}

impl Call<'_> {
    fn wrong(&self, arg: &Resolved, fix: &str) -> PlanError {
        PlanError::new(
            "DATATYPE_MISMATCH.UNEXPECTED_INPUT_TYPE",
            format!("`{}` cannot take {}", self.written, arg.data_type),
            fix,
        )
    }

    fn numeric(&self, arg: Resolved) -> PlanResult<Resolved> {
        use DataType as T;
        match arg.data_type {
            T::String | T::Null => Ok(arg.coerce(&T::Double)),
            T::Timestamp if matches!(self.function, F::Sum | F::Avg) => Ok(arg.coerce(&T::Double)),
            ref t if t.is_numeric() => Ok(arg),
            _ => Err(self.wrong(&arg, "Cast it to a number")),
        }
    }

    fn doubles(&self, args: Vec<Resolved>) -> PlanResult<Vec<Resolved>> {
        let double = |arg| Ok(self.numeric(arg)?.coerce(&DataType::Double));
        args.into_iter().map(double).collect()
    }

    fn all_of(&self, args: Vec<Resolved>, to: &DataType) -> PlanResult<Vec<Resolved>> {
        let what = format!("`{}`", self.written);
        args.into_iter().map(|arg| expect_type(arg, to, &what)).collect()
    }

    fn check_order(&self, arg: &Resolved) -> PlanResult<()> {
        check_order(&format!("`{}`", self.written), arg)
    }

    fn sum(&self, mut args: Vec<Resolved>) -> PlanResult<TypedArguments> {
        use DataType as T;
        let arg = match args[0].data_type {
            ref t if t.is_interval() => args.remove(0),
            _ => self.numeric(args.remove(0))?,
        };
        let data_type = match &arg.data_type {
            t if t.is_integral() => T::Long,
            T::Decimal(p, s) => T::Decimal((p + 10).min(38), *s),
            t if t.is_interval() => t.clone(),
            _ => T::Double,
        };
        Ok(TypedArguments::new(vec![arg], data_type))
    }

    fn average(&self, mut args: Vec<Resolved>) -> PlanResult<TypedArguments> {
        use DataType as T;
        let arg = self.numeric(args.remove(0))?;
        Ok(match arg.data_type {
            T::Decimal(p, s) => {
                TypedArguments::new(vec![arg], T::Decimal((p + 4).min(38), (s + 4).min(38)))
            }
            _ => TypedArguments::new(vec![arg.coerce(&T::Double)], T::Double),
        })
    }

    fn bits(&self, mut args: Vec<Resolved>) -> PlanResult<TypedArguments> {
        use DataType as T;
        let data_type = args[0].data_type.clone();
        if data_type == T::Null {
            return Ok(TypedArguments::new(vec![args.remove(0).coerce(&T::Int)], T::Int));
        }
        if !data_type.is_integral() {
            return Err(self.wrong(&args[0], "Cast it to a whole number"));
        }
        Ok(TypedArguments::new(args, data_type))
    }

    fn joined_text(&self, args: Vec<Resolved>) -> PlanResult<TypedArguments> {
        if let Some(separator) = args.get(1).filter(|separator| !separator.is_foldable()) {
            check_constant(separator, self.written)?;
        }
        let is_binary = |arg: &Resolved| arg.data_type == DataType::Binary;
        let of = if is_binary(&args[0]) { DataType::Binary } else { DataType::String };
        if let Some(separator) = args.get(1).filter(|separator| !separator.is_null_literal()) {
            if is_binary(separator) != is_binary(&args[0]) {
                let mut error = self.wrong(separator, "Both must be STRING, or both BINARY");
                error.condition = "DATATYPE_MISMATCH.DATA_DIFF_TYPES".to_string();
                return Err(error);
            }
            if !matches!(separator.node, Node::Literal(Value::String(_) | Value::Binary(_))) {
                return Err(self.wrong(separator, "The separator is a constant"));
            }
        }
        Ok(TypedArguments::new(self.all_of(args, &of)?, of))
    }

    /// Checks the values, the percentages and the accuracy of `percentile_approx`. The values must
    /// be numbers, times or intervals; strings are read as doubles. The other arguments must be
    /// constants in range. The result is an array if the percentages are one.
    fn percentiles(&self, mut args: Vec<Resolved>) -> PlanResult<TypedArguments> {
        use DataType as T;
        let of_values = match &args[0].data_type {
            T::String | T::Null => T::Double,
            other => other.clone(),
        };
        if !of_values.is_numeric() && !of_values.is_datetime() && !of_values.is_interval() {
            return Err(self.wrong(&args[0], "Use a number, a date or a timestamp"));
        }
        args[0] = args[0].clone().coerce(&of_values);
        for arg in args.iter().skip(1) {
            check_constant(arg, self.written)?;
        }
        let out_of_range = |arg: &Resolved, fix: &str| {
            let reason = format!("`{arg}` of `{}` is not in range", self.written);
            PlanError::new("DATATYPE_MISMATCH.VALUE_OUT_OF_RANGE", reason, fix)
        };
        if fractions(&args[1]).is_none() {
            let fix = "Fractions are constants from 0 to 1, or an array of them";
            return Err(match args[1].data_type {
                ref t if t.is_numeric() => out_of_range(&args[1], fix),
                _ => self.wrong(&args[1], fix),
            });
        }
        if args.len() == 3 && !constant(&args[2]).is_some_and(|a| (1.0..=1e6).contains(&a)) {
            let fix = "The accuracy is a constant from 1 to 1000000";
            return Err(match args[2].data_type.is_integral() {
                true => out_of_range(&args[2], fix),
                false => self.wrong(&args[2], fix),
            });
        }
        let has_several = matches!(args[1].data_type, T::Array(_));
        let data_type = if has_several { T::Array(Box::new(of_values)) } else { of_values };
        Ok(TypedArguments::new(args, data_type))
    }
}

/// Fails unless an argument is a constant other than NULL.
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
