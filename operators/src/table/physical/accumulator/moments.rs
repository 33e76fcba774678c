//! Mean and higher central moments, updated incrementally. Computing them from sums of powers would
//! lose precision.

use crate::table::plan::aggregate_function::AggregateFunction as F;

/// The moments of one column.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    n: f64,
    mean: f64,
    m2: f64,
    m3: f64,
    m4: f64,
}

impl Moments {
    /// The numbers to store in a checkpoint.
    pub fn parts(&self) -> [f64; 5] {
        [self.n, self.mean, self.m2, self.m3, self.m4]
    }

    /// Creates moments from the numbers of a checkpoint.
    pub fn of([n, mean, m2, m3, m4]: [f64; 5]) -> Self {
        Self { n, mean, m2, m3, m4 }
    }

    /// Updates the mean and the central moments with a value.
    pub fn add(&mut self, value: f64) {
        // The order of operations is that of Spark, so that the last digits of results are equal.
        self.n += 1.0;
        let delta = value - self.mean;
        let step = delta / self.n;
        let (delta2, step2) = (delta * delta, step * step);
        self.mean += step;
        self.m2 += delta * (delta - step);
        self.m3 = self.m3 - 3.0 * step * self.m2 + delta * (delta2 - step2);
        self.m4 = self.m4 - 4.0 * step * self.m3 - 6.0 * step2 * self.m2
            + delta * (delta * delta2 - step * step2);
    }

    /// Merges the moments of other values.
    pub fn merge(&mut self, other: &Self) {
        if other.n == 0.0 {
            return;
        }
        let (n1, n2) = (self.n, other.n);
        let n = n1 + n2;
        let delta = other.mean - self.mean;
        let step = delta / n;
        let m2 = self.m2 + other.m2 + delta * step * n1 * n2;
        let m3 = self.m3
            + other.m3
            + step * step * delta * n1 * n2 * (n1 - n2)
            + 3.0 * step * (n1 * other.m2 - n2 * self.m2);
        let m4 = self.m4
            + other.m4
            + step * step * step * delta * n1 * n2 * (n1 * n1 - n1 * n2 + n2 * n2)
            + 6.0 * step * step * (n1 * n1 * other.m2 + n2 * n2 * self.m2)
            + 4.0 * step * (n1 * other.m3 - n2 * self.m3);
        *self = Self { n, mean: self.mean + step * n2, m2, m3, m4 };
    }

    /// The result of an aggregate function; `None` for NULL.
    pub fn read(&self, function: F) -> Option<f64> {
        if self.n == 0.0 {
            return None;
        }
        let sample = || (self.n > 1.0).then(|| self.m2 / (self.n - 1.0));
        match function {
            F::VariancePopulation => Some(self.m2 / self.n),
            F::DeviationPopulation => Some((self.m2 / self.n).sqrt()),
            F::VarianceSample => sample(),
            F::DeviationSample => sample().map(f64::sqrt),
            F::RegressionSxx | F::RegressionSyy => Some(self.m2),
            _ if self.m2 == 0.0 => None,
            F::Skewness => Some(self.n.sqrt() * self.m3 / (self.m2 * self.m2 * self.m2).sqrt()),
            _ => Some(self.n * self.m4 / (self.m2 * self.m2) - 3.0),
        }
    }
}

/// The joint moments of two columns, for covariance and correlation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CoMoments {
    n: f64,
    x: f64,
    y: f64,
    xy: f64,
    xx: f64,
    yy: f64,
}

impl CoMoments {
    /// The numbers to store in a checkpoint.
    pub fn parts(&self) -> [f64; 6] {
        [self.n, self.x, self.y, self.xy, self.xx, self.yy]
    }

    /// Creates moments from the numbers of a checkpoint.
    pub fn of([n, x, y, xy, xx, yy]: [f64; 6]) -> Self {
        Self { n, x, y, xy, xx, yy }
    }

    /// Adds a pair of values.
    pub fn add(&mut self, x: f64, y: f64) {
        self.n += 1.0;
        let (dx, dy) = (x - self.x, y - self.y);
        self.x += dx / self.n;
        self.y += dy / self.n;
        self.xy += dx * (y - self.y);
        self.xx += dx * (x - self.x);
        self.yy += dy * (y - self.y);
    }

    /// Adds a pair of values for a regression. The variance of `x` is updated in another order of
    /// operations, which is that of Spark.
    pub fn add_regression(&mut self, x: f64, y: f64) {
        let (delta, step) = (x - self.x, (x - self.x) / (self.n + 1.0));
        let xx = self.xx + delta * (delta - step);
        self.add(x, y);
        self.xx = xx;
    }

    /// Merges the moments of other pairs.
    pub fn merge(&mut self, other: &Self) {
        if other.n == 0.0 {
            return;
        }
        let n = self.n + other.n;
        let (dx, dy) = (other.x - self.x, other.y - self.y);
        let both = self.n * other.n / n;
        self.xy += other.xy + dx * dy * both;
        self.xx += other.xx + dx * dx * both;
        self.yy += other.yy + dy * dy * both;
        self.x += dx * other.n / n;
        self.y += dy * other.n / n;
        self.n = n;
    }

    /// Whether the result is a division by zero: the correlation with a constant column. It is an
    /// error in ANSI mode, and NULL otherwise.
    pub fn divides_by_zero(&self, function: F) -> bool {
        function == F::Correlation && self.n > 1.0 && self.xx * self.yy == 0.0
    }

    /// The result of an aggregate function; `None` for NULL.
    pub fn read(&self, function: F) -> Option<f64> {
        match function {
            _ if self.n == 0.0 || self.divides_by_zero(function) => None,
            F::CovariancePopulation => Some(self.xy / self.n),
            F::RegressionSxy => Some(self.xy),
            F::RegressionSlope | F::RegressionIntercept if self.xx == 0.0 => None,
            F::RegressionSlope => Some(self.xy / self.xx),
            F::RegressionIntercept => Some(self.y - self.xy / self.xx * self.x),
            // The first argument of regr_r2 is the dependent variable.
            F::RegressionR2 if self.yy == 0.0 => None,
            F::RegressionR2 if self.xx == 0.0 => Some(1.0),
            F::RegressionR2 => {
                let correlation = self.xy / (self.xx * self.yy).sqrt();
                Some(correlation * correlation)
            }
            _ if self.n == 1.0 => None,
            F::CovarianceSample => Some(self.xy / (self.n - 1.0)),
            _ => Some(self.xy / (self.xx * self.yy).sqrt()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn merged_moments_equal_the_moments_by_definition(values in proptest::collection::vec(-100.0f64..100.0, 2..40)) {
            let mut moments = Moments::default();
            let (mut first, mut rest) = (Moments::default(), Moments::default());
            values.iter().for_each(|v| moments.add(*v));
            values[..1].iter().for_each(|v| first.add(*v));
            values[1..].iter().for_each(|v| rest.add(*v));
            first.merge(&rest);
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            let central = |power: i32| values.iter().map(|v| (v - mean).powi(power)).sum::<f64>();
            let close = |a: f64, b: f64| (a - b).abs() <= 1e-6 * (1.0 + a.abs().max(b.abs()));
            prop_assert!(close(moments.read(F::VarianceSample).unwrap(), central(2) / (n - 1.0)));
            let parts = moments.parts().into_iter().zip(first.parts());
            parts.for_each(|(a, b)| assert!((a - b).abs() <= 1e-6 * (1.0 + a.abs()), "{a} {b}"));
            if central(2) > 1e-3 {
                let skewness = n.sqrt() * central(3) / central(2).powf(1.5);
                prop_assert!(close(moments.read(F::Skewness).unwrap(), skewness));
                let kurtosis = n * central(4) / central(2).powi(2) - 3.0;
                prop_assert!(close(moments.read(F::Kurtosis).unwrap(), kurtosis));
            }
        }
    }
}
