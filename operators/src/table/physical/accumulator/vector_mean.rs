//! Sums and means of vectors, for `vector_sum` and `vector_avg`.

use super::encoding::take;
use crate::table::expr::compile::{EvalError, failed};

/// The sum or the mean of vectors of one length, element by element. Both are FLOATs, as in Spark.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VectorMean {
    count: u64,
    elements: Vec<f32>,
}

/// What is kept of the vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VectorResult {
    Sum,
    Mean,
}

impl VectorMean {
    /// Adds a vector of `length` elements. A vector of another length is an error.
    pub fn add(
        &mut self,
        vector: impl Iterator<Item = f32>,
        length: usize,
        result: VectorResult,
    ) -> Result<(), Box<EvalError>> {
        self.check_length(length)?;
        self.count += 1;
        let count = self.count as f32;
        for (held, x) in self.elements.iter_mut().zip(vector) {
            *held += match result {
                VectorResult::Sum => x,
                // A running mean, which does not overflow if the sum does.
                VectorResult::Mean => (x - *held) / count,
            };
        }
        Ok(())
    }

    fn check_length(&mut self, length: usize) -> Result<(), Box<EvalError>> {
        if self.count == 0 {
            self.elements.resize(length, 0.0);
        }
        if self.elements.len() == length {
            return Ok(());
        }
        failed(
            "VECTOR_DIMENSION_MISMATCH",
            format!("the vectors of a group have {} and {length} elements", self.elements.len()),
            "Vectors must have the same number of elements",
        )
    }

    /// Adds the vectors of another accumulator.
    pub fn merge(&mut self, other: &Self, result: VectorResult) -> Result<(), Box<EvalError>> {
        if other.count == 0 {
            return Ok(());
        }
        self.check_length(other.elements.len())?;
        self.count += other.count;
        let share = other.count as f32 / self.count as f32;
        for (held, x) in self.elements.iter_mut().zip(&other.elements) {
            *held += match result {
                VectorResult::Sum => *x,
                VectorResult::Mean => (x - *held) * share,
            };
        }
        Ok(())
    }

    /// The result; `None` without vectors.
    pub fn elements(&self) -> Option<&[f32]> {
        (self.count > 0).then_some(self.elements.as_slice())
    }

    /// The heap memory in bytes.
    pub fn heap_bytes(&self) -> usize {
        self.elements.capacity() * size_of::<f32>()
    }

    /// Appends the encoding in checkpoints.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&(self.elements.len() as u32).to_le_bytes());
        self.elements.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes()));
    }

    /// Decodes from the front of `bytes`; `None` if they are damaged.
    pub fn decode(&mut self, bytes: &mut &[u8]) -> Option<()> {
        self.count = u64::from_le_bytes(take(bytes)?);
        let length = u32::from_le_bytes(take(bytes)?);
        self.elements.clear();
        for _ in 0..length {
            self.elements.push(f32::from_le_bytes(take(bytes)?));
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merged_mean_is_that_of_all_vectors_and_survives_a_checkpoint() {
        let vectors = [[1.0, 2.0], [3.0, 4.0], [5.0, 9.0], [7.0, 1.0]];
        for (result, wanted) in
            [(VectorResult::Sum, [16.0, 16.0]), (VectorResult::Mean, [4.0, 4.0])]
        {
            for cut in 0..=vectors.len() {
                let mut parts = [VectorMean::default(), VectorMean::default()];
                for (at, vector) in vectors.iter().enumerate() {
                    let part = &mut parts[usize::from(at >= cut)];
                    part.add(vector.iter().copied(), 2, result).unwrap();
                }
                let [mut whole, other] = parts;
                whole.merge(&other, result).unwrap();
                assert_eq!(whole.elements(), Some(&wanted[..]), "{result:?}, cut at {cut}");
                let (mut bytes, mut restored) = (Vec::new(), VectorMean::default());
                whole.encode(&mut bytes);
                restored.decode(&mut bytes.as_slice()).unwrap();
                assert_eq!(restored, whole);
                assert!(restored.decode(&mut &bytes[..bytes.len() - 1]).is_none());
                assert!(whole.add([1.0].into_iter(), 1, result).is_err());
            }
        }
        assert_eq!(VectorMean::default().elements(), None);
    }
}
