//! Metrics of stateful operators at the end of an epoch: state rows, late records, memory.

/// Metrics of one input of a join at the end of an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JoinInput {
    /// Number of buffered rows.
    pub rows: u64,
    /// Memory of the buffered rows in bytes, without the key table.
    pub bytes: u64,
    /// Event time of the first buffered row that will expire, in microseconds since 1970.
    pub oldest_us: Option<i64>,
    /// Number of rows received in this epoch.
    pub received: u64,
    /// Number of rows that expired in this epoch.
    pub evicted: u64,
    /// Whether this input is paused because the state has reached its limit.
    pub is_held: bool,
}

/// Metrics of a join of two inputs at the end of an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JoinState {
    /// The left input and the right input.
    pub inputs: [JoinInput; 2],
    /// Pairs that matched in this epoch. For semi and anti joins: left rows with a match.
    pub matches: u64,
}

impl JoinState {
    /// Adds the metrics of another instance.
    pub(crate) fn add(&mut self, other: &Self) {
        self.matches += other.matches;
        for (all, one) in self.inputs.iter_mut().zip(&other.inputs) {
            all.rows += one.rows;
            all.bytes += one.bytes;
            all.oldest_us = all.oldest_us.into_iter().chain(one.oldest_us).min();
            all.received += one.received;
            all.evicted += one.evicted;
            all.is_held |= one.is_held;
        }
    }
}

/// Metrics of a stateful operator at the end of an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperatorState {
    /// Number of state rows. Depending on the operator these are keys, windows, buffered rows or
    /// state entries.
    pub rows: u64,
    /// Number of state rows written in this epoch. A row that is written several times counts once,
    /// unless it is deleted in between.
    pub updated: u64,
    /// Number of state rows removed in this epoch, for example because the watermark passed them.
    pub removed: u64,
    /// Number of late records in this epoch. A record that is late for several windows may be
    /// counted for each.
    pub late: u64,
    /// Approximate memory of the state, in bytes.
    pub memory_bytes: u64,
    /// Metrics of the inputs, if the operator is a join.
    pub join: Option<JoinState>,
}
