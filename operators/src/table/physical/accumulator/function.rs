//! A compiled aggregate call: how a record changes an accumulator, and how the result is computed.

use super::bitmap::{Bitmap, CountMin};
use super::collected_values::Collection;
use super::fixed_words::FixedWords;
use super::frequent_items::FrequentItems;
use super::histogram::Histogram;
use super::percentile::QuantileSummary;
use super::sketched::{collected, range, sketched};
use super::update::{add_rarer, interval_overflow, too_many_counts, too_many_values};
use super::value_counts::ValueCounts;
use super::vector_mean::VectorResult;
use super::{Accumulator, Wide};
use crate::table::expr::cast::arithmetic_overflow;
use crate::table::expr::cell::{field, order};
use crate::table::expr::compile::{
    BoolFn, CellFn, Compiled, Cx, DoubleFn, EvalError, LongFn, Semantics, TestFn, compile, fold,
};
use crate::table::expr::functions::{as_grouping_key, canonicalized, is_null, order_doubles};
use crate::table::expr::user_function::UserAggregate;
use crate::table::expr::{Node, Resolved};
use crate::table::physical::accumulator::collected_values::Values;
use crate::table::physical::accumulator::hyperloglog::HyperLogLog;
use crate::table::plan::aggregate_function::{AggregateCall, AggregateFunction, fractions};
use crate::table::plan::within_group::ValueOrder;
use crate::table::row::Row;
use crate::table::types::DataType;
use crate::table::value::Value;
use bumpalo::Bump;
use std::cmp::Ordering;
use std::ops::RangeInclusive;
use std::sync::Arc;

pub(super) enum Input {
    CountAll,
    CountValue(TestFn<bool>),
    Sum(Compiled),
    Avg(Compiled),
    Extreme(Compiled, Ordering),
    CountWhere(BoolFn),
    CountRows(Vec<TestFn<bool>>),
    /// For `sum` of intervals, which must stay in the range.
    SumInterval(LongFn, RangeInclusive<i64>),
    Moments(DoubleFn),
    CoMoments(DoubleFn, DoubleFn),
    First {
        value: CellFn,
        ignores_nulls: bool,
    },
    Last {
        value: CellFn,
        ignores_nulls: bool,
    },
    /// For `min_by` and `max_by`: the value, the ordering key, the key's type and the wanted order.
    By(CellFn, CellFn, DataType, Ordering),
    /// For `min` and `max` of nested values, which are compared as cells.
    ExtremeCell(CellFn, DataType, Ordering),
    /// For `bool_and` and `bool_or`.
    Bools {
        value: BoolFn,
        quantifier: Quantifier,
    },
    Bits(LongFn, fn(i64, i64) -> i64),
    Values(CellFn, Collection),
    Distinct(CellFn, DataType, u8),
    Percentile(CellFn, usize),
    /// For `try_sum` of whole numbers and intervals, whose sum is NULL out of the range.
    TrySum(LongFn, RangeInclusive<i64>),
    /// For `avg` and `try_avg` of intervals, whose sum must stay in the range.
    AvgInterval(LongFn, RangeInclusive<i64>),
    /// For `regr_slope` and `regr_intercept`.
    Regression(DoubleFn, DoubleFn),
    Bitmap(CellFn, Bitmap),
    CountMin {
        value: CellFn,
        is_text: bool,
        shape: CountMin,
        empty: Vec<u8>,
    },
    Histogram(CellFn, usize),
    /// The types of VARIANT values.
    Shape(CellFn),
    /// For `approx_top_k`.
    Frequent {
        value: CellFn,
        /// The number of values of the result.
        k: usize,
        /// The number of values that are counted at a time.
        items_max: usize,
    },
    /// For `vector_sum` and `vector_avg`.
    Vector(CellFn, VectorResult),
    /// For `collect_union`: arrays, with the type of their elements.
    Union(CellFn, DataType),
    /// The values, with their frequencies if they have one.
    Counts(CellFn, Option<LongFn>),
    /// For `min_by` and `max_by` of several values.
    Top {
        value: CellFn,
        /// The ordering key.
        by: CellFn,
        /// The type of the ordering key.
        data_type: DataType,
        /// How a better key compares with a worse one: `Greater` for `max_by`.
        want: Ordering,
        /// The number of values that are kept.
        most: usize,
    },
    User(Vec<(CellFn, DataType)>, Arc<UserAggregate>),
}

/// Whether one true value suffices (ANY) or all values must be true (EVERY).
pub(super) enum Quantifier {
    Exists,
    ForAll,
}

impl Input {
    fn compiled(call: &AggregateCall, width: usize, semantics: Semantics) -> Self {
        use AggregateFunction as F;
        let compile = |expr: &Resolved| compile(&fold(expr.clone(), semantics), width, semantics);
        if let Some(user) = &call.user {
            let args = call.args.iter().map(|a| (compile(a).cells(), a.data_type.clone()));
            return Self::User(args.collect(), user.clone());
        }
        let from = call.args.first().map_or(DataType::Null, |arg| arg.data_type.clone());
        let second = call.args.get(1).map_or(DataType::Null, |arg| arg.data_type.clone());
        // Equal values must have equal bytes in a set and in counts of values.
        let arg = |arg: &Resolved| match call.function {
            F::CollectSet | F::CollectUnion | F::ApproxCountDistinct => {
                compile(&as_grouping_key(arg.clone()))
            }
            F::Mode => compile(&canonicalized(arg.clone())),
            _ => compile(arg),
        };
        let mut args = call.args.iter().map(arg).collect::<Vec<_>>().into_iter();
        let (first, other) = (args.next(), args.next());
        let ignores_nulls = matches!(
            call.args.get(1).map(|arg| &arg.node),
            Some(Node::Literal(Value::Boolean(true)))
        );
        match (call.function, first, other) {
            (F::Count, Some(arg), None) => Input::CountValue(is_null(arg)),
            (F::Count, Some(a), Some(b)) => {
                Input::CountRows([a, b].into_iter().chain(args).map(is_null).collect())
            }
            (F::CountIf, Some(arg), _) => Input::CountWhere(arg.bool()),
            (F::Sum, Some(arg), _) if from.is_interval() => {
                Input::SumInterval(arg.long(), range(&from))
            }
            (F::TrySum, Some(arg), _) if from.is_interval() || from.is_integral() => {
                Input::TrySum(arg.long(), range(&from))
            }
            (F::Avg | F::TryAvg, Some(arg), _) if from.is_interval() => {
                Input::AvgInterval(arg.long(), range(&from))
            }
            (F::Sum | F::TrySum, Some(arg), _) => Input::Sum(arg),
            (F::Avg | F::TryAvg, Some(arg), _) => Input::Avg(arg),
            (F::Min, Some(arg), _) if from.is_nested() => {
                Input::ExtremeCell(arg.cells(), from.clone(), Ordering::Less)
            }
            (F::Max, Some(arg), _) if from.is_nested() => {
                Input::ExtremeCell(arg.cells(), from.clone(), Ordering::Greater)
            }
            (F::Min, Some(arg), _) => Input::Extreme(arg, Ordering::Less),
            (F::Max, Some(arg), _) => Input::Extreme(arg, Ordering::Greater),
            (
                F::VarianceSample
                | F::VariancePopulation
                | F::DeviationSample
                | F::DeviationPopulation
                | F::Skewness
                | F::Kurtosis
                | F::RegressionSxx
                | F::RegressionSyy,
                Some(arg),
                _,
            ) => Input::Moments(arg.double()),
            (
                F::CovarianceSample
                | F::CovariancePopulation
                | F::Correlation
                | F::RegressionSxy
                | F::RegressionR2,
                Some(a),
                Some(b),
            ) => Input::CoMoments(a.double(), b.double()),
            (F::RegressionSlope | F::RegressionIntercept, Some(y), Some(x)) => {
                Input::Regression(x.double(), y.double())
            }
            (F::First, Some(arg), _) => Input::First { value: arg.cells(), ignores_nulls },
            (F::Last, Some(arg), _) => Input::Last { value: arg.cells(), ignores_nulls },
            (F::MaxBy | F::MinBy, Some(a), Some(b)) if call.args.len() == 3 => Input::Top {
                value: a.cells(),
                by: b.cells(),
                data_type: second,
                want: if call.function == F::MaxBy { Ordering::Greater } else { Ordering::Less },
                most: call.constant(2).map_or(1, |most| most as usize),
            },
            (F::MaxBy, Some(a), Some(b)) => {
                Input::By(a.cells(), b.cells(), second, Ordering::Greater)
            }
            (F::MinBy, Some(a), Some(b)) => Input::By(a.cells(), b.cells(), second, Ordering::Less),
            (F::BoolAnd, Some(arg), _) => {
                Input::Bools { value: arg.bool(), quantifier: Quantifier::ForAll }
            }
            (F::BoolOr, Some(arg), _) => {
                Input::Bools { value: arg.bool(), quantifier: Quantifier::Exists }
            }
            (F::BitAnd, Some(arg), _) => Input::Bits(arg.long(), |a, b| a & b),
            (F::BitOr, Some(arg), _) => Input::Bits(arg.long(), |a, b| a | b),
            (F::BitXor, Some(arg), _) => Input::Bits(arg.long(), |a, b| a ^ b),
            (F::ListAgg, _, _) if !call.order.is_empty() => {
                Input::Values(compile(&collected(call)).cells(), Collection::List)
            }
            (F::CollectList | F::ListAgg, Some(arg), _) => {
                Input::Values(arg.cells(), Collection::List)
            }
            (F::CollectUnion, Some(arg), _) => match from {
                DataType::Array(element) => Input::Union(arg.cells(), *element),
                _ => Input::CountAll,
            },
            (F::CollectSet, Some(arg), _) => Input::Values(arg.cells(), Collection::Set),
            (F::ApproxCountDistinct, Some(arg), _) => {
                let deviation = call.constant(1).unwrap_or(0.05);
                Input::Distinct(arg.cells(), from.clone(), HyperLogLog::precision(deviation))
            }
            (F::PercentileApprox, Some(arg), _) => {
                let accuracy = call.constant(2).unwrap_or(10_000.0);
                Input::Percentile(arg.cells(), accuracy as usize)
            }
            (_, Some(arg), _) => sketched(call, arg, &compile),
            _ => Input::CountAll,
        }
    }
}

/// A compiled aggregate call, which updates, merges and reads the accumulators of groups.
pub(in crate::table::physical) struct Function {
    pub(super) input: Input,
    pub(super) filter: Option<BoolFn>,
    /// For DISTINCT: the expressions whose values identify duplicates.
    once: Option<Vec<CellFn>>,
    /// For DISTINCT: the function over a row of those values, which merges accumulators.
    pub(super) of_values: Option<Box<Function>>,
    pub(super) ansi: bool,
    pub(super) from: DataType,
    pub(super) to: DataType,
    pub(super) function: AggregateFunction,
    pub(super) separator: Vec<u8>,
    pub(super) fractions: Vec<f64>,
    /// Whether the percentages of a percentile are an array, so that the result is an array too.
    pub(super) several: bool,
    /// The order of WITHIN GROUP.
    pub(super) order: Vec<ValueOrder>,
    /// The type of the values of a list or set.
    pub(super) collected: DataType,
    /// Whether `percentile_disc` rounds the rank down: `spark.sql.legacy.percentileDiscCalculation`.
    pub(super) rounds_ranks_down: bool,
    /// How the accumulator is stored in words; `None` if it may own heap memory.
    pub(super) plain: Option<FixedWords>,
    /// Whether the function is `count(*)` without a filter.
    pub(super) counts_all: bool,
}

impl Function {
    pub fn new(call: &AggregateCall, width: usize, semantics: Semantics) -> Self {
        let function = Self::compiled(call, width, semantics);
        let counts_all = !function.computes() && function.once.is_none();
        Self { plain: FixedWords::of(&function.start()), counts_all, ..function }
    }

    fn compiled(call: &AggregateCall, width: usize, semantics: Semantics) -> Self {
        use AggregateFunction as F;
        let compile = |expr: &Resolved| compile(&fold(expr.clone(), semantics), width, semantics);
        let filter = call.filter.as_ref().map(|f| compile(f).bool());
        let one = |arg: &Resolved| compile(&as_grouping_key(arg.clone())).cells();
        let once = call.distinct.then(|| call.args.iter().map(one).collect());
        let of_values = call
            .distinct
            .then(|| Box::new(Self::compiled(&of_values(call), call.args.len(), semantics)));
        let separator = match call.args.get(1).map(|arg| &arg.node) {
            Some(Node::Literal(Value::String(text))) => text.as_bytes(),
            Some(Node::Literal(Value::Binary(bytes))) => bytes,
            _ => &[],
        };
        let built_in = call.user.is_none();
        Self {
            input: Input::compiled(call, width, semantics),
            filter,
            once,
            of_values,
            // The `try_` functions give NULL for an overflow in both modes.
            ansi: semantics.ansi && !matches!(call.function, F::TrySum | F::TryAvg),
            collected: match call.order.is_empty() || call.function != F::ListAgg {
                true => call.args.first().map_or(DataType::Null, |arg| arg.data_type.clone()),
                false => collected(call).data_type,
            },
            order: call.order.clone(),
            from: call.args.first().map_or(DataType::Null, |arg| arg.data_type.clone()),
            to: call.data_type.clone(),
            function: call.function,
            separator: if built_in { separator.to_vec() } else { Vec::new() },
            fractions: call
                .args
                .get(1)
                .filter(|_| built_in)
                .and_then(fractions)
                .unwrap_or_default(),
            several: built_in
                && matches!(call.args.get(1).map(|a| &a.data_type), Some(DataType::Array(_))),
            rounds_ranks_down: semantics.legacy_percentile_disc,
            plain: None,
            counts_all: false,
        }
    }

    /// Whether the function evaluates an expression for each record.
    pub fn computes(&self) -> bool {
        self.filter.is_some() || !matches!(self.input, Input::CountAll)
    }

    /// The initial accumulator of a group.
    pub fn start(&self) -> Accumulator {
        let own = self.start_own();
        match &self.once {
            Some(_) => Accumulator::Once(Box::new((Values::of_rows(), own))),
            None => own,
        }
    }

    fn start_own(&self) -> Accumulator {
        match &self.input {
            Input::User(_, function) => {
                Accumulator::User(function.start().into(), function.clone())
            }
            Input::CountAll | Input::CountValue(_) | Input::CountWhere(_) | Input::CountRows(_) => {
                Accumulator::Count(0)
            }
            Input::SumInterval(..) => Accumulator::SumLong(None),
            Input::TrySum(..) => Accumulator::SumDecimal(None),
            Input::AvgInterval(..) => Accumulator::AvgDecimal(Wide(0), 0),
            Input::Shape(_) => Accumulator::Shape(Box::default()),
            Input::Frequent { items_max, .. } => {
                Accumulator::Frequent(Box::new(FrequentItems::new(self.from.clone(), *items_max)))
            }
            Input::Vector(..) => Accumulator::Vector(Box::default()),
            Input::Union(_, element) => {
                Accumulator::Values(Box::new(Values::new(Collection::Set, element.clone())))
            }
            Input::Bitmap(..) | Input::CountMin { .. } => Accumulator::Bytes(None),
            Input::Histogram(_, most) => Accumulator::Histogram(Box::new(Histogram::new(*most))),
            Input::Counts(..) => Accumulator::Counts(Box::new(ValueCounts::new(&self.from))),
            Input::Top { .. } => Accumulator::Top(Box::default()),
            Input::Moments(_) => Accumulator::Moments(Box::default()),
            Input::CoMoments(..) | Input::Regression(..) => Accumulator::CoMoments(Box::default()),
            Input::First { .. } | Input::Last { .. } | Input::By(..) | Input::ExtremeCell(..) => {
                Accumulator::Held(None)
            }
            Input::Bools { .. } => Accumulator::Bool(None),
            Input::Bits(..) => Accumulator::Long(None),
            Input::Values(_, collection) => {
                Accumulator::Values(Box::new(Values::new(*collection, self.collected.clone())))
            }
            Input::Distinct(_, _, precision) => {
                Accumulator::Distinct(Box::new(HyperLogLog::new(*precision)))
            }
            Input::Percentile(_, accuracy) => {
                Accumulator::Percentile(Box::new(QuantileSummary::new(*accuracy)))
            }
            Input::Sum(Compiled::Long(_)) => Accumulator::SumLong(None),
            Input::Sum(Compiled::Decimal(_)) => Accumulator::SumDecimal(None),
            Input::Sum(_) => Accumulator::SumDouble(None),
            Input::Avg(Compiled::Decimal(_)) => Accumulator::AvgDecimal(Wide(0), 0),
            Input::Avg(_) => Accumulator::AvgDouble(0.0, 0),
            Input::Extreme(arg, _) => match arg {
                Compiled::Bool(_) => Accumulator::Bool(None),
                Compiled::Long(_) => Accumulator::Long(None),
                Compiled::Double(_) => Accumulator::Double(None),
                Compiled::Decimal(_) => Accumulator::Decimal(None),
                Compiled::Bytes(_) => Accumulator::Bytes(None),
            },
        }
    }

    /// Adds a record to an accumulator.
    #[inline(always)]
    pub fn add(&self, acc: &mut Accumulator, cx: Cx<'_>) -> Result<(), Box<EvalError>> {
        // `count(*)` is the most common function, and does not read the record.
        if let (true, Accumulator::Count(n)) = (self.counts_all, &mut *acc) {
            *n += 1;
            return Ok(());
        }
        self.add_any(acc, cx)
    }

    fn add_any(&self, acc: &mut Accumulator, cx: Cx<'_>) -> Result<(), Box<EvalError>> {
        if let Some(filter) = &self.filter
            && filter(cx)? != Some(true)
        {
            return Ok(());
        }
        if let (Some(values), Accumulator::Once(once)) = (&self.once, &mut *acc) {
            let cells = values.iter().map(|value| value(cx)).collect::<Result<Vec<_>, _>>()?;
            let (seen, own) = &mut **once;
            return if seen.add_row_of(&cells) { self.add_own(own, cx) } else { Ok(()) };
        }
        self.add_own(acc, cx)
    }

    #[inline]
    fn add_own(&self, acc: &mut Accumulator, cx: Cx<'_>) -> Result<(), Box<EvalError>> {
        use Accumulator as A;
        match (&self.input, acc) {
            (Input::CountAll, A::Count(n)) => *n += 1,
            (Input::CountValue(is_null), A::Count(n)) => *n += i64::from(!is_null(cx)?),
            (Input::Sum(Compiled::Long(f)), A::SumLong(sum)) => {
                if let Some(v) = f(cx)? {
                    let sum_so_far = sum.unwrap_or(0);
                    match sum_so_far.checked_add(v) {
                        Some(total) => *sum = Some(total),
                        None if !self.ansi => *sum = Some(sum_so_far.wrapping_add(v)),
                        None => return arithmetic_overflow("the sum"),
                    }
                }
            }
            (Input::Sum(Compiled::Double(f)), A::SumDouble(sum)) => {
                if let Some(v) = f(cx)? {
                    *sum = Some(sum.unwrap_or(0.0) + v);
                }
            }
            (Input::Sum(Compiled::Decimal(f)), A::SumDecimal(sum)) => {
                if let Some(v) = f(cx)? {
                    *sum = Some(Wide(self.decimal_sum(sum.map_or(0, |sum| sum.0), v)?));
                }
            }
            (Input::Avg(Compiled::Double(f)), A::AvgDouble(sum, n)) => {
                if let Some(v) = f(cx)? {
                    *sum += v;
                    *n += 1;
                }
            }
            (Input::Avg(Compiled::Decimal(f)), A::AvgDecimal(sum, n)) => {
                if let Some(v) = f(cx)? {
                    *sum = Wide(self.decimal_sum(sum.0, v)?);
                    *n += 1;
                }
            }
            (Input::Extreme(f, want), acc) => extreme(f, *want, acc, cx)?,
            (input, acc) => add_rarer(self, input, acc, cx)?,
        }
        Ok(())
    }

    /// Merges `later` into `acc`. Both are accumulators of this function. If the function depends
    /// on the order of records, `later` must have seen later records. Accumulators of user-defined
    /// functions cannot be merged; the analyser rejects queries that would need it.
    pub fn merge(&self, acc: &mut Accumulator, later: &Accumulator) -> Result<(), Box<EvalError>> {
        use Accumulator as A;
        match (acc, later) {
            (A::Count(a), A::Count(b)) => *a += b,
            (A::SumLong(a), A::SumLong(Some(b))) => match a.unwrap_or(0).checked_add(*b) {
                Some(sum) if self.is_in_range(sum) => *a = Some(sum),
                _ if self.is_of_intervals() => return interval_overflow(),
                Some(sum) => *a = Some(sum),
                None if self.wraps() => *a = Some(a.unwrap_or(0).wrapping_add(*b)),
                None => return arithmetic_overflow("the sum"),
            },
            (A::SumDouble(a), A::SumDouble(Some(b))) => *a = Some(a.unwrap_or(0.0) + b),
            (A::SumDecimal(a), A::SumDecimal(Some(b))) if self.tries_longs() => {
                *a = Some(self.try_sum(*a, *b));
            }
            (A::SumDecimal(a), A::SumDecimal(Some(b))) => {
                *a = Some(Wide(self.decimal_sum(a.map_or(0, |a| a.0), b.0)?));
            }
            (A::AvgDouble(sum, n), A::AvgDouble(other, m)) => (*sum, *n) = (*sum + other, *n + m),
            (A::AvgDecimal(sum, n), A::AvgDecimal(other, m)) if self.is_of_intervals() => {
                (*sum, *n) = (self.interval_sum(*sum, *other)?, *n + m);
            }
            (A::AvgDecimal(sum, n), A::AvgDecimal(other, m)) => {
                (*sum, *n) = (Wide(self.decimal_sum(sum.0, other.0)?), *n + m);
            }
            (A::Moments(a), A::Moments(b)) => a.merge(b),
            (A::CoMoments(a), A::CoMoments(b)) => a.merge(b),
            (A::Values(a), A::Values(b)) => {
                a.merge(b);
                if !a.is_within_limit() {
                    return too_many_values(a.collection());
                }
            }
            (A::Distinct(a), A::Distinct(b)) => a.merge(b),
            (A::Percentile(a), A::Percentile(b)) => a.merge(b),
            (A::Histogram(a), A::Histogram(b)) => a.merge(b),
            (A::Counts(a), A::Counts(b)) => {
                let is_merged = a.merge(b) && a.is_within_limit();
                if !is_merged {
                    return too_many_counts();
                }
            }
            (A::Top(a), A::Top(b)) => {
                if let Input::Top { data_type, want, most, .. } = &self.input {
                    b.rows().for_each(|row| a.add(row, *most, data_type, *want));
                }
            }
            (A::Bool(a), A::Bool(Some(b))) => match (&self.input, &mut *a) {
                (Input::Bools { quantifier: Quantifier::ForAll, .. }, Some(a)) => *a &= b,
                (Input::Bools { quantifier: Quantifier::Exists, .. }, Some(a)) => *a |= b,
                (Input::Extreme(_, want), _) => keep(a, *b, *want, Ord::cmp),
                _ => *a = Some(*b),
            },
            (A::Long(a), A::Long(Some(b))) => match &self.input {
                Input::Bits(_, op) => *a = Some(a.map_or(*b, |a| op(a, *b))),
                Input::Extreme(_, want) => keep(a, *b, *want, Ord::cmp),
                _ => {}
            },
            (A::Double(a), A::Double(Some(b))) => {
                if let Input::Extreme(_, want) = &self.input {
                    keep(a, *b, *want, |a, b| order_doubles(*a, *b));
                }
            }
            (A::Decimal(a), A::Decimal(Some(b))) => {
                if let Input::Extreme(_, want) = &self.input {
                    keep(a, *b, *want, |a, b| { a.0 }.cmp(&{ b.0 }));
                }
            }
            (A::Bytes(a), A::Bytes(Some(b))) => match (&self.input, a) {
                (Input::Extreme(_, want), a) => keep(a, b.clone(), *want, Ord::cmp),
                (Input::Bitmap(_, bitmap), Some(a)) => bitmap.combine(a, b),
                (Input::CountMin { shape, .. }, Some(a)) => shape.merge(a, b),
                (_, a) => *a = Some(b.clone()),
            },
            (A::Shape(a), A::Shape(b)) => a.merge(b)?,
            (A::Frequent(a), A::Frequent(b)) => match a.merge(b) {
                true => {}
                false => return too_many_counts(),
            },
            (A::Vector(a), A::Vector(b)) => {
                if let Input::Vector(_, result) = &self.input {
                    a.merge(b, *result)?;
                }
            }
            (A::Held(a), A::Held(Some(b))) => self.merge_held(a, b),
            (A::Once(a), A::Once(b)) => self.merge_distinct(a, &b.0)?,
            // The later accumulator has no value.
            _ => {}
        }
        Ok(())
    }

    /// Adds the values that only the later accumulator of a DISTINCT has seen.
    fn merge_distinct(
        &self,
        (seen, own): &mut (Values, Accumulator),
        later: &Values,
    ) -> Result<(), Box<EvalError>> {
        let Some(function) = &self.of_values else { return Ok(()) };
        let mut arena = Bump::new();
        for row in later.rows() {
            if seen.add_row(row) {
                function.add_own(own, Cx::new(Row(row), &arena))?;
                arena.reset();
            }
        }
        Ok(())
    }

    /// Whether a sum of whole numbers that overflows wraps. A sum of intervals fails in both modes.
    fn wraps(&self) -> bool {
        !self.ansi && !matches!(self.input, Input::SumInterval(..))
    }

    fn merge_held(&self, held: &mut Option<Vec<u8>>, later: &[u8]) {
        let Some(mine) = held else {
            *held = Some(later.to_vec());
            return;
        };
        let replaces = match &self.input {
            Input::First { ignores_nulls, .. } => {
                *ignores_nulls && field(mine, 0, 1, &self.from).is_null()
            }
            Input::Last { ignores_nulls, .. } => {
                !(*ignores_nulls && field(later, 0, 1, &self.from).is_null())
            }
            Input::By(_, _, data_type, want) => {
                let (a, b) = (field(later, 1, 2, data_type), field(mine, 1, 2, data_type));
                order(a, b, data_type) != want.reverse()
            }
            Input::ExtremeCell(_, data_type, want) => {
                let (a, b) = (field(later, 0, 1, data_type), field(mine, 0, 1, data_type));
                order(a, b, data_type) == *want
            }
            _ => false,
        };
        if replaces {
            *held = Some(later.to_vec());
        }
    }

    /// Whether the accumulator is a list, set, sketch or quantile summary, which hash aggregation
    /// writes to checkpoints in parts.
    pub fn grows(&self) -> bool {
        let grows = |acc: &Accumulator| {
            use Accumulator as A;
            matches!(acc, A::Values(_) | A::Distinct(_) | A::Percentile(_) | A::Counts(_))
        };
        grows(&self.start())
    }

    /// Whether a window may keep an accumulator for each row of a frame and merge them. A frequency
    /// sketch and a type of VARIANT are too large, and a merged sketch has other ties.
    pub fn merges_in_frames(&self) -> bool {
        !self.grows() && !matches!(self.start(), Accumulator::Frequent(_) | Accumulator::Shape(_))
    }

    /// Adds to a sum of decimals. The sum may temporarily exceed 38 digits. A sum beyond 128 bits
    /// is an error in ANSI mode; otherwise it becomes [`OVERFLOWED`].
    #[inline]
    fn decimal_sum(&self, sum: i128, more: i128) -> Result<i128, Box<EvalError>> {
        match sum.checked_add(more) {
            Some(total) if sum != OVERFLOWED && more != OVERFLOWED => Ok(total),
            _ if self.ansi => arithmetic_overflow("the sum of decimals"),
            _ => Ok(OVERFLOWED),
        }
    }

    /// Adds to a sum of `try_sum`, which is [`OVERFLOWED`] from its first overflow on.
    pub(super) fn try_sum(&self, sum: Option<Wide>, more: Wide) -> Wide {
        let Input::TrySum(_, range) = &self.input else { return more };
        let (sum, more) = (sum.map_or(0, |sum| sum.0), more.0);
        let total = i64::try_from(sum.saturating_add(more)).ok();
        match total.filter(|total| range.contains(total)) {
            Some(total) if sum != OVERFLOWED && more != OVERFLOWED => Wide(i128::from(total)),
            _ => Wide(OVERFLOWED),
        }
    }

    /// Adds to the sum of an average of intervals. An overflow is an error, or marks the sum for
    /// `try_avg`.
    pub(super) fn interval_sum(&self, sum: Wide, more: Wide) -> Result<Wide, Box<EvalError>> {
        let Input::AvgInterval(_, range) = &self.input else { return Ok(more) };
        let (sum, more) = (sum.0, more.0);
        let total = i64::try_from(sum.saturating_add(more)).ok();
        match total.filter(|total| range.contains(total)) {
            Some(total) if sum != OVERFLOWED && more != OVERFLOWED => Ok(Wide(i128::from(total))),
            _ if self.function == AggregateFunction::TryAvg => Ok(Wide(OVERFLOWED)),
            _ => interval_overflow(),
        }
    }

    fn tries_longs(&self) -> bool {
        matches!(self.input, Input::TrySum(..))
    }

    fn is_of_intervals(&self) -> bool {
        matches!(self.input, Input::SumInterval(..) | Input::AvgInterval(..))
    }

    fn is_in_range(&self, sum: i64) -> bool {
        !matches!(&self.input, Input::SumInterval(_, range) if !range.contains(&sum))
    }
}

/// A DISTINCT call over a row of its arguments' values, each of which it adds.
fn of_values(call: &AggregateCall) -> AggregateCall {
    let column = |(i, arg): (usize, &Resolved)| match &arg.node {
        Node::Literal(_) => arg.clone(),
        _ => {
            let node = Node::Column(i, String::new());
            let (data_type, nullable) = (arg.data_type.clone(), arg.nullable);
            Resolved { node, data_type, nullable }
        }
    };
    let args = call.args.iter().enumerate().map(column).collect();
    AggregateCall { args, filter: None, distinct: false, ..call.clone() }
}

/// The mark of a sum of decimals that has exceeded 128 bits.
pub(super) const OVERFLOWED: i128 = i128::MAX;

#[inline]
fn keep<T>(best: &mut Option<T>, value: T, want: Ordering, order: impl Fn(&T, &T) -> Ordering) {
    if best.as_ref().is_none_or(|best| order(&value, best) == want) {
        *best = Some(value);
    }
}

fn extreme(
    f: &Compiled,
    want: Ordering,
    acc: &mut Accumulator,
    cx: Cx<'_>,
) -> Result<(), Box<EvalError>> {
    use Accumulator as A;
    match (f, acc) {
        (Compiled::Bool(f), A::Bool(best)) => {
            if let Some(v) = f(cx)? {
                keep(best, v, want, Ord::cmp);
            }
        }
        (Compiled::Long(f), A::Long(best)) => {
            if let Some(v) = f(cx)? {
                keep(best, v, want, Ord::cmp);
            }
        }
        (Compiled::Double(f), A::Double(best)) => {
            if let Some(v) = f(cx)? {
                keep(best, v, want, |a, b| order_doubles(*a, *b));
            }
        }
        (Compiled::Decimal(f), A::Decimal(best)) => {
            if let Some(v) = f(cx)? {
                keep(best, Wide(v), want, |a, b| { a.0 }.cmp(&{ b.0 }));
            }
        }
        (Compiled::Bytes(f), A::Bytes(best)) => {
            if let Some(v) = f(cx)?
                && best.as_deref().is_none_or(|best| v.cmp(best) == want)
            {
                // The buffer of the previous value is reused for the next one.
                let buffer = best.get_or_insert_default();
                buffer.clear();
                buffer.extend_from_slice(v);
            }
        }
        _ => unreachable!("`start` made the accumulator"),
    }
    Ok(())
}
