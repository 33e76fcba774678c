//! The names of the aggregate functions, with their descriptions.

use crate::table::function_docs::Usage;
use crate::table::plan::aggregate_function::AggregateFunction;
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
    entry(
        "max_by",
        F::MaxBy,
        "max_by(x, y[, n]): the x of the largest y, or an array of the x of the n largest",
    )
    .usage("3.0.0", "max_by(x, y) FROM VALUES ('a', 1), ('b', 2) AS t(x, y)", "b"),
    entry(
        "min_by",
        F::MinBy,
        "min_by(x, y[, n]): the x of the smallest y, or an array of the x of the n smallest",
    )
    .usage("3.0.0", "min_by(x, y) FROM VALUES ('a', 1), ('b', 2) AS t(x, y)", "a"),
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
        "collect_union",
        F::CollectUnion,
        "collect_union(array): an array of the different elements that are not NULL",
    )
    .usage("4.3.0", "collect_union(x) FROM VALUES (array(1, 2)), (array(2)) AS t(x)", "[1, 2]"),
    entry(
        "approx_top_k",
        F::ApproxTopK,
        "approx_top_k(x[, k[, items]]): about the k (5) most frequent values with their counts, \
         counting at most so many (10000) at a time",
    )
    .usage("4.1.0", "approx_top_k(x, 1) FROM VALUES (7), (7), (8) AS t(x)", "[{7, 2}]"),
    entry("vector_sum", F::VectorSum, "vector_sum(vector): the sum, element by element").usage(
        "4.2.0",
        "vector_sum(x) FROM VALUES (array(1.0F, 2.0F)), (array(3.0F, 4.0F)) AS t(x)",
        "[4.0, 6.0]",
    ),
    entry("vector_avg", F::VectorAverage, "vector_avg(vector): the mean, element by element")
        .usage(
            "4.2.0",
            "vector_avg(x) FROM VALUES (array(1.0F, 2.0F)), (array(3.0F, 4.0F)) AS t(x)",
            "[2.0, 3.0]",
        ),
    entry(
        "listagg",
        F::ListAgg,
        "listagg(x[, separator])[ WITHIN GROUP (ORDER BY …)]: the values as one text, \
         in order of arrival or in the given order",
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
    entry("try_sum", F::TrySum, "try_sum(x): the sum of the values, or NULL if it overflows")
        .usage("3.3.0", "try_sum(x) FROM VALUES (9223372036854775807L), (1L) AS t(x)", "NULL"),
    entry("try_avg", F::TryAvg, "try_avg(x): the mean of the values, or NULL if it overflows")
        .usage("3.3.0", "try_avg(x) FROM VALUES (1), (2) AS t(x)", "1.5"),
    entry(
        "regr_avgx",
        F::RegressionAverageX,
        "regr_avgx(y, x): the mean of x over the pairs without a NULL",
    )
    .usage("3.3.0", "regr_avgx(y, x) FROM VALUES (1, 2), (2, 4) AS t(y, x)", "3.0"),
    entry(
        "regr_avgy",
        F::RegressionAverageY,
        "regr_avgy(y, x): the mean of y over the pairs without a NULL",
    )
    .usage("3.3.0", "regr_avgy(y, x) FROM VALUES (1, 2), (2, 4) AS t(y, x)", "1.5"),
    entry("regr_count", F::RegressionCount, "regr_count(y, x): the number of pairs without a NULL")
        .usage("3.3.0", "regr_count(y, x) FROM VALUES (1, 2), (2, NULL) AS t(y, x)", "1"),
    entry(
        "regr_intercept",
        F::RegressionIntercept,
        "regr_intercept(y, x): where the line of least squares crosses the y axis",
    )
    .usage("3.4.0", "regr_intercept(y, x) FROM VALUES (3, 1), (5, 2) AS t(y, x)", "1.0"),
    entry("regr_r2", F::RegressionR2, "regr_r2(y, x): the coefficient of determination").usage(
        "3.3.0",
        "regr_r2(y, x) FROM VALUES (3, 1), (5, 2) AS t(y, x)",
        "1.0",
    ),
    entry(
        "regr_slope",
        F::RegressionSlope,
        "regr_slope(y, x): the slope of the line of least squares",
    )
    .usage("3.4.0", "regr_slope(y, x) FROM VALUES (3, 1), (5, 2) AS t(y, x)", "2.0"),
    entry("regr_sxx", F::RegressionSxx, "regr_sxx(y, x): the sum of the squared deviations of x")
        .usage("3.4.0", "regr_sxx(y, x) FROM VALUES (3, 1), (5, 2) AS t(y, x)", "0.5"),
    entry(
        "regr_sxy",
        F::RegressionSxy,
        "regr_sxy(y, x): the sum of the products of the deviations of x and y",
    )
    .usage("3.4.0", "regr_sxy(y, x) FROM VALUES (3, 1), (5, 2) AS t(y, x)", "1.0"),
    entry("regr_syy", F::RegressionSyy, "regr_syy(y, x): the sum of the squared deviations of y")
        .usage("3.4.0", "regr_syy(y, x) FROM VALUES (3, 1), (5, 2) AS t(y, x)", "2.0"),
    entry(
        "bitmap_construct_agg",
        F::BitmapConstruct,
        "bitmap_construct_agg(position): a bitmap of 4096 bytes with the bits at these \
         positions",
    )
    .usage(
        "3.5.0",
        "substring(hex(bitmap_construct_agg(x)), 1, 4) FROM VALUES (1), (2) AS t(x)",
        "0600",
    ),
    entry(
        "bitmap_or_agg",
        F::BitmapOr,
        "bitmap_or_agg(bitmap): the bits that are set in any bitmap",
    )
    .usage(
        "3.5.0",
        "substring(hex(bitmap_or_agg(x)), 1, 4) FROM VALUES (X'10'), (X'20') AS t(x)",
        "3000",
    ),
    entry(
        "bitmap_and_agg",
        F::BitmapAnd,
        "bitmap_and_agg(bitmap): the bits that are set in all bitmaps",
    )
    .usage(
        "4.1.0",
        "substring(hex(bitmap_and_agg(x)), 1, 4) FROM VALUES (X'F0'), (X'30') AS t(x)",
        "3000",
    ),
    entry(
        "count_min_sketch",
        F::CountMinSketch,
        "count_min_sketch(x, eps, confidence, seed): Spark's count-min sketch of the \
         values, serialized",
    )
    .usage(
        "2.2.0",
        "length(count_min_sketch(x, 0.5d, 0.5d, 1)) FROM VALUES (1), (2) AS t(x)",
        "60",
    ),
    entry(
        "schema_of_variant_agg",
        F::SchemaOfVariant,
        "schema_of_variant_agg(variant): the common type of the values",
    )
    .usage(
        "4.0.0",
        "schema_of_variant_agg(parse_json(x)) FROM VALUES ('1'), ('2.5') AS t(x)",
        "DECIMAL(21,1)",
    ),
    entry(
        "histogram_numeric",
        F::HistogramNumeric,
        "histogram_numeric(x, bins): the centres and the heights of a histogram of that \
         many bins",
    )
    .usage(
        "3.3.0",
        "histogram_numeric(x, 2) FROM VALUES (0), (1), (10) AS t(x)",
        "[{0, 2.0}, {10, 1.0}]",
    ),
    entry(
        "percentile",
        F::Percentile,
        "percentile(x, fraction[, frequency]): the exact value at that fraction of the \
         order, interpolated",
    )
    .usage("2.1.0", "percentile(x, 0.3) FROM VALUES (0), (10) AS t(x)", "3.0"),
    entry("median", F::Percentile, "median(x): the exact median").usage(
        "3.4.0",
        "median(x) FROM VALUES (1), (2), (9) AS t(x)",
        "2.0",
    ),
    entry(
        "percentile_cont",
        F::Percentile,
        "percentile_cont(fraction) WITHIN GROUP (ORDER BY x): the value at that \
         fraction of the order, interpolated",
    )
    .usage(
        "4.0.0",
        "percentile_cont(0.25) WITHIN GROUP (ORDER BY x) FROM VALUES (0), (10) AS t(x)",
        "2.5",
    ),
    entry(
        "percentile_disc",
        F::PercentileDiscrete,
        "percentile_disc(fraction) WITHIN GROUP (ORDER BY x): the first value at or \
         after that fraction of the order",
    )
    .usage(
        "4.0.0",
        "percentile_disc(0.25) WITHIN GROUP (ORDER BY x) FROM VALUES (0), (10) AS t(x)",
        "0.0",
    ),
    entry(
        "mode",
        F::Mode,
        "mode(x[, deterministic]) or mode() WITHIN GROUP (ORDER BY x): the most \
         frequent value",
    )
    .usage("3.4.0", "mode(x) FROM VALUES (0), (10), (10) AS t(x)", "10"),
];
