//! Which partitions each tasklet of a source reads.

use crate::connect::kafka::offsets::ByPartition;
use millstream_engine::checkpoint::key_group::hash_bytes;
use millstream_engine::checkpoint::offset::Offset;

/// Which partitions of a source a tasklet reads. Partitions that appear later are assigned in the
/// same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    pub(super) part: usize,
    pub(super) parts: usize,
}

impl Assignment {
    /// Whether the tasklet reads a partition. Consecutive partitions of a topic go to consecutive
    /// tasklets; the topic decides which is the first.
    pub(super) fn is_own(self, topic: &str, partition: i32) -> bool {
        let first = hash_bytes(topic.as_bytes()) as usize % self.parts;
        (first + partition as usize) % self.parts == self.part
    }

    /// The partitions that the tasklet reads.
    pub(super) fn own(self, mut all: ByPartition) -> ByPartition {
        if self.parts > 1 {
            for (topic, partitions) in &mut all.0 {
                partitions.retain(|partition, _| self.is_own(topic, *partition));
            }
            all.0.retain(|_, partitions| !partitions.is_empty());
        }
        all
    }
}

/// Merges the offsets of a source's tasklets.
pub(crate) fn merge_offsets(of_tasklets: &[Offset]) -> Offset {
    let mut all = ByPartition::default();
    for offsets in of_tasklets.iter().filter_map(|offset| ByPartition::parse(&offset.0)) {
        all.extend(&offsets);
    }
    Offset(all.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_is_assigned_to_one_tasklet_and_a_topic_evenly() {
        for parts in 1..5 {
            for topic in ["a", "orders", "x-1"] {
                let mut own = vec![0; parts];
                for partition in 0..(parts as i32 * 3) {
                    let readers: Vec<usize> = (0..parts)
                        .filter(|part| Assignment { part: *part, parts }.is_own(topic, partition))
                        .collect();
                    assert_eq!(readers.len(), 1, "{topic}-{partition} of {parts}");
                    own[readers[0]] += 1;
                }
                assert_eq!(own, vec![3; parts]);
            }
        }
    }

    #[test]
    fn offsets_of_tasklets_are_merged_to_those_of_one() {
        let whole = Offset(r#"{"a":{"0":5,"1":6,"2":7},"b":{"0":1}}"#.to_string());
        let all = ByPartition::parse(&whole.0).unwrap();
        for parts in 1..4 {
            let own: Vec<_> = (0..parts)
                .map(|part| Offset(Assignment { part, parts }.own(all.clone()).to_string()))
                .collect();
            assert_eq!(merge_offsets(&own), whole);
        }
    }
}
