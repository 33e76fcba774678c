//! Offsets per partition, and their JSON form in options and checkpoints. The form is Spark's:
//! `{"orders":{"0":23,"1":5}}`.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The offset in an option that means the earliest offset of the partition.
pub const EARLIEST: i64 = -2;
/// The offset in an option that means the end of the partition.
pub const LATEST: i64 = -1;

/// A number per topic and partition: an offset, or a time in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ByPartition(pub BTreeMap<String, BTreeMap<i32, i64>>);

impl ByPartition {
    /// Parses `{"topic":{"partition":number}}`. Returns `None` for any other form.
    pub fn parse(text: &str) -> Option<Self> {
        let Ok(Value::Object(topics)) = serde_json::from_str(text) else { return None };
        let mut all = BTreeMap::new();
        for (topic, partitions) in topics {
            let Value::Object(partitions) = partitions else { return None };
            let numbers = partitions.into_iter().map(|(partition, number)| {
                let partition =
                    partition.parse::<i32>().ok().filter(|partition| *partition >= 0)?;
                Some((partition, number.as_i64()?))
            });
            all.insert(topic, numbers.collect::<Option<BTreeMap<_, _>>>()?);
        }
        Some(Self(all))
    }

    /// The offset or time of a partition; `None` if there is none.
    pub fn get(&self, topic: &str, partition: i32) -> Option<i64> {
        self.0.get(topic)?.get(&partition).copied()
    }

    /// Sets the offset or time of a partition.
    pub fn set(&mut self, topic: &str, partition: i32, number: i64) {
        match self.0.get_mut(topic) {
            Some(partitions) => drop(partitions.insert(partition, number)),
            None => drop(self.0.insert(topic.to_string(), BTreeMap::from([(partition, number)]))),
        }
    }

    /// Sets the offsets or times of the partitions of `other`.
    pub fn extend(&mut self, other: &Self) {
        for (topic, partition, number) in other.iter() {
            self.set(topic, partition, number);
        }
    }

    /// Iterates over all partitions and their numbers, ordered by topic and partition.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i32, i64)> {
        self.0.iter().flat_map(|(topic, partitions)| {
            partitions.iter().map(move |(partition, number)| (topic.as_str(), *partition, *number))
        })
    }

    /// Whether both have the same set of partitions.
    pub fn has_partitions_of(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().zip(&other.0).all(|((topic, own), (other_topic, others))| {
                topic == other_topic && own.keys().eq(others.keys())
            })
    }
}

impl std::fmt::Display for ByPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let numbers = |partitions: &BTreeMap<i32, i64>| {
            let each = partitions
                .iter()
                .map(|(partition, number)| (partition.to_string(), Value::from(*number)));
            Value::Object(each.collect::<Map<_, _>>())
        };
        let topics = self.0.iter().map(|(topic, partitions)| (topic.clone(), numbers(partitions)));
        write!(f, "{}", Value::Object(topics.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_have_the_json_of_spark_with_partitions_in_numeric_order() {
        let text = r#"{"a":{"0":5,"2":1,"10":7},"b":{"0":0}}"#;
        let offsets = ByPartition::parse(text).unwrap();
        assert_eq!(offsets.to_string(), text);
        assert_eq!((offsets.get("a", 10), offsets.get("a", 1)), (Some(7), None));
        assert_eq!(offsets.iter().count(), 4);
    }

    #[test]
    fn another_form_is_refused() {
        for text in [
            "first",
            "{\"t\":{\"0\":",
            "{\"t\": 0}",
            r#"{"t":{"x":1}}"#,
            r#"{"t":{"0":"1"}}"#,
            "[]",
        ] {
            assert_eq!(ByPartition::parse(text), None, "{text}");
        }
    }
}
