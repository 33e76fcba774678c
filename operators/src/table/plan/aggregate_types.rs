//! The argument and result types of aggregate functions.

use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::coercion::check_order;
use crate::table::expr::compile::{Semantics, evaluate};
use crate::table::expr::resolve::expect_type;
use crate::table::expr::{Expr, Node, Resolved};
use crate::table::plan::aggregate_function::{AggregateFunction, constant, fractions};
use crate::table::plan::analyzer::refuse_unordered;
use crate::table::types::{DataType, Field};
use crate::table::value::Value;
use AggregateFunction as F;

/// The largest count-min sketch, in bytes.
const SKETCH_BYTES_MAX: f64 = (1u64 << 26) as f64;

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
    (written, ordering_keys): (&Expr, usize),
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
        F::Sum | F::TrySum => return call.sum(args),
        F::Avg | F::TryAvg => return call.average(args),
        F::VarianceSample
        | F::VariancePopulation
        | F::DeviationSample
        | F::DeviationPopulation
        | F::Skewness
        | F::Kurtosis
        | F::CovarianceSample
        | F::CovariancePopulation
        | F::Correlation
        | F::RegressionIntercept
        | F::RegressionR2
        | F::RegressionSlope
        | F::RegressionSxx
        | F::RegressionSxy
        | F::RegressionSyy => return Ok(TypedArguments::new(call.doubles(args)?, T::Double)),
        F::Min | F::Max => {
            call.check_order(&args[0])?;
            first_type
        }
        F::MaxBy | F::MinBy => {
            call.check_order(&args[1])?;
            match args.len() {
                2 => first_type,
                _ => return call.best_rows(args),
            }
        }
        F::RegressionAverageX | F::RegressionAverageY | F::RegressionCount => {
            let args = args.into_iter().map(|arg| call.numeric(arg)).collect::<PlanResult<_>>()?;
            return Ok(TypedArguments::new(args, T::Double));
        }
        F::BitmapConstruct => {
            return Ok(TypedArguments::new(call.all_of(args, &T::Long)?, T::Binary));
        }
        F::BitmapOr | F::BitmapAnd if first_type != T::Binary => {
            return Err(call.wrong(&args[0], "Use bitmap_construct_agg(x) to make a bitmap"));
        }
        F::BitmapOr | F::BitmapAnd => T::Binary,
        F::CountMinSketch => return call.count_min(args),
        F::HistogramNumeric => return call.histogram(args),
        F::SchemaOfVariant if !matches!(first_type, T::Variant | T::Null) => {
            return Err(call.wrong(&args[0], "parse_json(text) makes a VARIANT"));
        }
        F::SchemaOfVariant => {
            return Ok(TypedArguments::new(call.all_of(args, &T::Variant)?, T::String));
        }
        F::Percentile | F::PercentileDiscrete => return call.exact_percentile(args),
        F::Mode => return call.mode(args),
        F::First | F::Last => {
            if let Some(ignore) = args.get(1)
                && !matches!(ignore.node, Node::Literal(Value::Boolean(_)))
            {
                return Err(call.wrong(ignore, "The second argument is true or false"));
            }
            first_type
        }
        F::BitAnd | F::BitOr | F::BitXor => return call.bits(args),
        F::ApproxTopK => return call.top_items(args),
        F::VectorSum | F::VectorAverage => {
            if first_type != T::Array(Box::new(T::Float)) {
                return Err(call.wrong(&args[0], "A vector is an ARRAY<FLOAT>"));
            }
            first_type
        }
        F::CollectUnion => {
            let T::Array(element) = &first_type else {
                return Err(
                    call.wrong(&args[0], "Use collect_set(x) for values that are no arrays")
                );
            };
            if !element.is_hashable() && **element != T::Variant {
                let mut error = call.wrong(&args[0], "Collect the maps' entries");
                error.condition = "DATATYPE_MISMATCH.UNSUPPORTED_INPUT_TYPE".to_string();
                return Err(error);
            }
            first_type
        }
        F::CollectSet => {
            // Equal values of VARIANT have equal bytes.
            if !first_type.is_hashable() && first_type != T::Variant {
                let mut error = call.wrong(&args[0], "Collect the map's entries");
                error.condition = "DATATYPE_MISMATCH.UNSUPPORTED_INPUT_TYPE".to_string();
                return Err(error);
            }
            T::Array(Box::new(first_type))
        }
        F::CollectList => T::Array(Box::new(first_type)),
        F::ListAgg => return call.joined_text(args, ordering_keys),
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
            T::Timestamp if matches!(self.function, F::Sum | F::Avg | F::TrySum | F::TryAvg) => {
                Ok(arg.coerce(&T::Double))
            }
            ref t if t.is_numeric() => Ok(arg),
            ref t if t.is_interval() && matches!(self.function, F::Avg | F::TryAvg) => Ok(arg),
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
            T::DayTimeInterval(..) => TypedArguments::new(vec![arg], T::DayTimeInterval(0, 3)),
            T::YearMonthInterval(..) => TypedArguments::new(vec![arg], T::YearMonthInterval(0, 1)),
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

    /// Checks `listagg`. Its last arguments are the keys of WITHIN GROUP, of any type.
    fn joined_text(
        &self,
        mut args: Vec<Resolved>,
        ordering_keys: usize,
    ) -> PlanResult<TypedArguments> {
        let keys = args.split_off(args.len() - ordering_keys);
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
        let mut args = self.all_of(args, &of)?;
        args.extend(keys);
        Ok(TypedArguments::new(args, of))
    }

    fn out_of_range(&self, arg: &Resolved, fix: &str) -> PlanError {
        let reason = format!("`{arg}` of `{}` is not in range", self.written);
        PlanError::new("DATATYPE_MISMATCH.VALUE_OUT_OF_RANGE", reason, fix)
    }

    /// The value of a constant argument, cast to a type. Fails if it is not a constant, or NULL.
    fn evaluated(&self, arg: &Resolved, to: &DataType) -> PlanResult<Value> {
        check_constant(arg, self.written)?;
        Ok(evaluate(&arg.clone().coerce(to), Semantics::default())?)
    }

    /// Checks the number of values of `max_by` and `min_by`.
    fn best_rows(&self, mut args: Vec<Resolved>) -> PlanResult<TypedArguments> {
        let fix = "The number of values is a constant from 1 to 100000";
        if args[2].is_null_constant() {
            return Err(self.out_of_range(&args[2], fix));
        }
        let most = match self.evaluated(&args[2], &DataType::Int)? {
            Value::Long(most) if (1..=100_000).contains(&most) => most,
            _ => return Err(self.out_of_range(&args[2], fix)),
        };
        args[2] = Resolved::literal(Value::Long(most), DataType::Int);
        let data_type = DataType::Array(Box::new(args[0].data_type.clone()));
        Ok(TypedArguments::new(args, data_type))
    }

    /// Checks the values of `approx_top_k` and their numbers.
    fn top_items(&self, args: Vec<Resolved>) -> PlanResult<TypedArguments> {
        use DataType as T;
        let wrong = |condition: &str, reason: String, fix: &str| {
            Err(PlanError::new(condition, format!("`{}`: {reason}", self.written), fix))
        };
        let of = args[0].data_type.clone();
        let is_counted = of.is_numeric()
            || of.is_datetime()
            || matches!(of, T::Boolean | T::String | T::Time(_));
        if !is_counted {
            return wrong(
                "DATATYPE_MISMATCH.TYPE_CHECK_FAILURE_WITH_HINT",
                format!("values of type {of} are not counted"),
                "Use a number, a text, a BOOLEAN, a date, a timestamp or a TIME",
            );
        }
        let mut numbers = [5, 10_000];
        for (at, arg) in args[1..].iter().enumerate() {
            if !arg.is_foldable() {
                let reason = format!("`{arg}` is no constant");
                let condition = "DATATYPE_MISMATCH.TYPE_CHECK_FAILURE_WITH_HINT";
                return wrong(condition, reason, "Write a constant INT");
            }
            if arg.is_null_constant() {
                return wrong("APPROX_TOP_K_NULL_ARG", format!("`{arg}` is NULL"), "Use a number");
            }
            numbers[at] = match self.evaluated(arg, &T::Int)? {
                Value::Long(number) if number > 0 => number,
                _ => {
                    let reason = format!("`{arg}` is not positive");
                    return wrong("APPROX_TOP_K_NON_POSITIVE_ARG", reason, "Use 1 or more");
                }
            };
        }
        let [k, items_max] = numbers;
        if items_max > 1_000_000 {
            let reason = format!("{items_max} values are too many to be counted");
            let condition = "APPROX_TOP_K_MAX_ITEMS_TRACKED_EXCEEDS_LIMIT";
            return wrong(condition, reason, "Use at most 1000000");
        }
        if items_max < k {
            let reason = format!("only {items_max} values are counted, but {k} are asked for");
            let condition = "APPROX_TOP_K_MAX_ITEMS_TRACKED_LESS_THAN_K";
            return wrong(condition, reason, "Give a larger number as the third argument");
        }
        let number = |number| Resolved::literal(Value::Long(number), T::Int);
        let value = args.into_iter().next().into_iter();
        let args = value.chain([number(k), number(items_max)]).collect();
        let fields = vec![Field::new("item", of, true), Field::new("count", T::Long, true)];
        Ok(TypedArguments::new(args, T::Array(Box::new(T::Struct(fields)))))
    }

    /// Checks the values and the shape of `count_min_sketch`.
    fn count_min(&self, mut args: Vec<Resolved>) -> PlanResult<TypedArguments> {
        use DataType as T;
        let of = &args[0].data_type;
        if !of.is_integral() && !matches!(of, T::String | T::Binary) {
            return Err(self.wrong(&args[0], "Use a whole number, a string or a binary value"));
        }
        for at in [1, 2] {
            check_constant(&args[at], self.written)?;
            if args[at].data_type != T::Double {
                return Err(self.wrong(&args[at], "Write a DOUBLE: 0.5d"));
            }
            let fix = "eps is above 0, and the confidence between 0 and 1";
            let most = if at == 1 { f64::MAX } else { 1.0 };
            match self.evaluated(&args[at], &T::Double)? {
                Value::Double(v) if v > 0.0 && v < most => {
                    args[at] = Resolved::literal(Value::Double(v), T::Double);
                }
                _ => return Err(self.out_of_range(&args[at], fix)),
            }
        }
        check_constant(&args[3], self.written)?;
        if !args[3].data_type.is_integral() {
            return Err(self.wrong(&args[3], "The seed is a whole number"));
        }
        let seed = self.evaluated(&args[3], &T::Long)?;
        args[3] = Resolved::literal(seed, T::Long);
        let [eps, confidence] = [1, 2].map(|at| constant(&args[at]).unwrap_or(0.5));
        let depth = (-(1.0 - confidence).ln() / 2f64.ln()).ceil();
        if (2.0 / eps).ceil() * depth * 8.0 > SKETCH_BYTES_MAX {
            return Err(self.out_of_range(&args[1], "Use a larger eps: the sketch takes too much"));
        }
        Ok(TypedArguments::new(args, T::Binary))
    }

    /// Checks the values and the number of bins of `histogram_numeric`.
    fn histogram(&self, mut args: Vec<Resolved>) -> PlanResult<TypedArguments> {
        use DataType as T;
        if matches!(args[0].data_type, T::String | T::Null) {
            args[0] = args[0].clone().coerce(&T::Double);
        }
        let of = args[0].data_type.clone();
        if !of.is_numeric() && !of.is_datetime() && !of.is_interval() {
            return Err(self.wrong(&args[0], "Use a number, a date, a timestamp or an interval"));
        }
        let bins = match self.evaluated(&args[1], &T::Int)? {
            Value::Long(bins) if bins >= 2 => bins,
            _ => return Err(self.out_of_range(&args[1], "There are at least 2 bins")),
        };
        args[1] = Resolved::literal(Value::Long(bins), T::Int);
        let fields = vec![Field::new("x", of, true), Field::new("y", T::Double, true)];
        Ok(TypedArguments::new(args, T::Array(Box::new(T::Struct(fields)))))
    }

    /// Checks the arguments of `mode`.
    fn mode(&self, args: Vec<Resolved>) -> PlanResult<TypedArguments> {
        let data_type = args[0].data_type.clone();
        if let Some(deterministic) = args.get(1) {
            let wrong = |condition: &str, reason: &str| {
                let reason = format!("the second argument of `{}` {reason}", self.written);
                PlanError::new(condition, reason, "Write true or false")
            };
            if deterministic.is_null_constant() {
                return Err(wrong("DATATYPE_MISMATCH.UNEXPECTED_NULL", "is NULL"));
            }
            if deterministic.data_type != DataType::Boolean {
                return Err(wrong("UNEXPECTED_INPUT_TYPE", "is not BOOLEAN"));
            }
            if !deterministic.is_foldable() {
                return Err(wrong("NON_FOLDABLE_ARGUMENT", "is not a constant"));
            }
            let is_true = self.evaluated(deterministic, &DataType::Boolean)?;
            let args = if is_true == Value::Boolean(true) { args } else { args[..1].to_vec() };
            if args.len() == 2 {
                refuse_unordered(&args[0])?;
            }
            return Ok(TypedArguments::new(args, data_type));
        }
        Ok(TypedArguments::new(args, data_type))
    }

    /// Checks the values, the percentages and the frequency of an exact percentile. Numbers are
    /// doubles; the result is one, or an array if the percentages are.
    fn exact_percentile(&self, mut args: Vec<Resolved>) -> PlanResult<TypedArguments> {
        use DataType as T;
        let of_values = match &args[0].data_type {
            T::DayTimeInterval(..) => T::DayTimeInterval(0, 3),
            T::YearMonthInterval(..) => T::YearMonthInterval(0, 1),
            T::String | T::Null => T::Double,
            t if t.is_numeric() => T::Double,
            other => {
                let mut error = self.wrong(&args[0], "Use a number or an interval");
                // Spark casts a date to a TIME as if it could, and then refuses the cast.
                if *other == T::Date {
                    error.condition = "DATATYPE_MISMATCH.CAST_WITHOUT_SUGGESTION".to_string();
                }
                return Err(error);
            }
        };
        args[0] = args[0].clone().coerce(&of_values);
        let has_several = matches!(args[1].data_type, T::Array(_));
        let of_fractions = if has_several { T::Array(Box::new(T::Double)) } else { T::Double };
        let fractions_of = self.evaluated(&args[1], &of_fractions)?;
        let literal = Resolved::literal(fractions_of, of_fractions);
        if fractions(&literal).is_none() {
            let fix = "Fractions are constants from 0 to 1, or an array of them";
            return Err(self.out_of_range(&args[1], fix));
        }
        args[1] = literal;
        if let Some(frequency) = args.get(2) {
            if !frequency.data_type.is_integral() && frequency.data_type != T::Null {
                return Err(self.wrong(frequency, "The frequency is a whole number"));
            }
            args[2] = frequency.clone().coerce(&T::Long);
        }
        let data_type = if has_several { T::Array(Box::new(of_values)) } else { of_values };
        Ok(TypedArguments::new(args, data_type))
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
        if fractions(&args[1]).is_none() {
            let fix = "Fractions are constants from 0 to 1, or an array of them";
            return Err(match args[1].data_type {
                ref t if t.is_numeric() => self.out_of_range(&args[1], fix),
                _ => self.wrong(&args[1], fix),
            });
        }
        if args.len() == 3 && !constant(&args[2]).is_some_and(|a| (1.0..=1e6).contains(&a)) {
            let fix = "The accuracy is a constant from 1 to 1000000";
            return Err(match args[2].data_type.is_integral() {
                true => self.out_of_range(&args[2], fix),
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
