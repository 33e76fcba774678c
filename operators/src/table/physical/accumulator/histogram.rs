//! The histogram of `histogram_numeric`: the streaming algorithm of Ben-Haim and Tom-Tov ("A
//! streaming parallel decision tree algorithm", 2010). A value that equals the centre of a bin is
//! counted there; any other value gets a bin of its own. If there are too many bins, the two with
//! the nearest centres are merged, and the new centre is the mean of their values.

use crate::table::physical::accumulator::encoding::take;
use crate::table::physical::accumulator::java_random::JavaRandom;

/// The seed with which Spark decides between pairs of bins that are equally near.
const SEED: i64 = 31183;

/// A bin: the mean of its values, and their number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bin {
    /// The mean of the values.
    pub centre: f64,
    /// The number of values.
    pub height: f64,
}

/// A histogram with a bounded number of bins.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    most: usize,
    bins: Vec<Bin>,
    random: JavaRandom,
}

impl Histogram {
    /// Creates an empty histogram of at most `most` bins, which must be at least 2.
    pub fn new(most: usize) -> Self {
        Self { most, bins: Vec::new(), random: JavaRandom::new(SEED) }
    }

    /// The bins in ascending order.
    pub fn bins(&self) -> &[Bin] {
        &self.bins
    }

    /// The heap memory in bytes.
    pub fn heap_bytes(&self) -> usize {
        self.bins.capacity() * size_of::<Bin>()
    }

    /// Adds a value.
    pub fn add(&mut self, value: f64) {
        // As in Spark, NaN compares as neither larger nor smaller than any bin, so the search stops
        // at the first bin that it examines.
        let (mut at, mut low, mut high) = (0, 0, self.bins.len());
        while low < high {
            at = usize::midpoint(low, high);
            let centre = self.bins[at].centre;
            if centre > value {
                high = at;
            } else if centre < value {
                at += 1;
                low = at;
            } else {
                break;
            }
        }
        match self.bins.get_mut(at).filter(|bin| bin.centre == value) {
            Some(bin) => bin.height += 1.0,
            None => {
                self.bins.insert(at, Bin { centre: value, height: 1.0 });
                self.trim();
            }
        }
    }

    /// Merges another histogram.
    pub fn merge(&mut self, other: &Self) {
        if self.bins.is_empty() {
            self.bins.clone_from(&other.bins);
            return;
        }
        self.bins.extend_from_slice(&other.bins);
        self.bins.sort_by(|a, b| a.centre.total_cmp(&b.centre));
        self.trim();
    }

    fn trim(&mut self) {
        while self.bins.len() > self.most {
            let at = self.nearest();
            let (a, b) = (self.bins[at], self.bins[at + 1]);
            let height = a.height + b.height;
            // The order of operations is that of Spark, so that the last digits are equal.
            let centre = a.centre * (a.height / height) + b.centre / height * b.height;
            self.bins[at] = Bin { centre, height };
            self.bins.remove(at + 1);
        }
    }

    /// The index of the first bin of the nearest pair.
    fn nearest(&mut self) -> usize {
        let (mut at, mut ties) = (0, 1u32);
        let mut least = self.bins[1].centre - self.bins[0].centre;
        for i in 1..self.bins.len() - 1 {
            let distance = self.bins[i + 1].centre - self.bins[i].centre;
            if distance < least {
                (least, at, ties) = (distance, i, 1);
            } else if distance == least {
                ties += 1;
                if self.random.double() <= 1.0 / f64::from(ties) {
                    at = i;
                }
            }
        }
        at
    }

    /// Appends the histogram in the encoding of checkpoints.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.most as u64).to_le_bytes());
        out.extend_from_slice(&self.random.state().to_le_bytes());
        out.extend_from_slice(&(self.bins.len() as u32).to_le_bytes());
        for bin in &self.bins {
            out.extend_from_slice(&bin.centre.to_le_bytes());
            out.extend_from_slice(&bin.height.to_le_bytes());
        }
    }

    /// Decodes a histogram; `None` if the bytes are damaged.
    pub fn decode(&mut self, bytes: &mut &[u8]) -> Option<()> {
        let most = usize::try_from(u64::from_le_bytes(take(bytes)?)).ok()?;
        let random = JavaRandom::of_state(u64::from_le_bytes(take(bytes)?));
        let bins = u32::from_le_bytes(take(bytes)?);
        *self = Self { most: most.max(2), bins: Vec::new(), random };
        for _ in 0..bins {
            let centre = f64::from_le_bytes(take(bytes)?);
            let height = f64::from_le_bytes(take(bytes)?);
            self.bins.push(Bin { centre, height });
        }
        Some(())
    }
}
