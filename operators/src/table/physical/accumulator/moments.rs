//! Means and higher moments, kept up to date by each value without the loss of digits that sums of
//! powers have.

use crate::table::aggregates::AggregateFunction as F;

/// Of one column.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    n: f64,
    mean: f64,
    m2: f64,
    m3: f64,
    m4: f64,
}

impl Moments {
    /// What stands in a checkpoint.
    pub fn parts(&self) -> [f64; 5] {
        [self.n, self.mean, self.m2, self.m3, self.m4]
    }

    /// The inverse of [`parts`](Self::parts).
    pub fn of([n, mean, m2, m3, m4]: [f64; 5]) -> Self {
        Self { n, mean, m2, m3, m4 }
    }

    /// Takes a value in.
    pub fn add(&mut self, value: f64) {
        // The order of these operations is Spark's, so that the last digits are too.
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

    /// The function's value; `None` for NULL.
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
            _ if self.m2 == 0.0 => None,
            F::Skewness => Some(self.n.sqrt() * self.m3 / (self.m2 * self.m2 * self.m2).sqrt()),
            _ => Some(self.n * self.m4 / (self.m2 * self.m2) - 3.0),
        }
    }
}

/// Of two columns together.
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
    /// What stands in a checkpoint.
    pub fn parts(&self) -> [f64; 6] {
        [self.n, self.x, self.y, self.xy, self.xx, self.yy]
    }

    /// The inverse of [`parts`](Self::parts).
    pub fn of([n, x, y, xy, xx, yy]: [f64; 6]) -> Self {
        Self { n, x, y, xy, xx, yy }
    }

    /// Takes a pair in.
    pub fn add(&mut self, x: f64, y: f64) {
        self.n += 1.0;
        let (dx, dy) = (x - self.x, y - self.y);
        self.x += dx / self.n;
        self.y += dy / self.n;
        self.xy += dx * (y - self.y);
        self.xx += dx * (x - self.x);
        self.yy += dy * (y - self.y);
    }

    /// The function's value; `None` for NULL.
    pub fn read(&self, function: F) -> Option<f64> {
        match function {
            _ if self.n == 0.0 => None,
            F::CovariancePopulation => Some(self.xy / self.n),
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
        /// As the definitions give it.
        #[test]
        fn as_defined(values in proptest::collection::vec(-100.0f64..100.0, 2..40)) {
            let mut moments = Moments::default();
            values.iter().for_each(|v| moments.add(*v));
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            let central = |power: i32| values.iter().map(|v| (v - mean).powi(power)).sum::<f64>();
            let close = |a: f64, b: f64| (a - b).abs() <= 1e-6 * (1.0 + a.abs().max(b.abs()));
            prop_assert!(close(moments.read(F::VarianceSample).unwrap(), central(2) / (n - 1.0)));
            if central(2) > 1e-3 {
                let skewness = n.sqrt() * central(3) / central(2).powf(1.5);
                prop_assert!(close(moments.read(F::Skewness).unwrap(), skewness));
                let kurtosis = n * central(4) / central(2).powi(2) - 3.0;
                prop_assert!(close(moments.read(F::Kurtosis).unwrap(), kurtosis));
            }
        }
    }
}
