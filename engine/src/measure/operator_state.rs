//! Metrics of stateful operators at the end of an epoch: state rows, late records, memory.

/// Metrics of one input of a join at the end of an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JoinInput {
    /// Number of buffered rows.
    pub rows: u64,
    /// Memory of the buffered rows in bytes, without the key table.
    pub bytes: u64,
    /// Event time of the first buffered row that will expire, in microseconds since 1970. A semi or
    /// anti join may report an earlier time, that of a row which a match has removed.
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
    /// The input that the other one waits for. `None` if neither waits.
    pub waiting_for: Option<WaitedInput>,
}

/// The input of a join that the other one waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitedInput {
    /// The index of the input: 0 for left, 1 for right.
    pub input: usize,
    /// The time since which the input has had no rows, in microseconds since 1970: the start of
    /// the last epoch in which it had some, or of the run.
    pub since_us: i64,
}

/// The times at which the inputs of a join last received rows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct JoinWait {
    /// For each input, the start of the last epoch in which a row arrived, in microseconds since
    /// 1970. `None` before the input's first row.
    last_rows_us: [Option<i64>; 2],
    /// The start of the first epoch of this run, in microseconds since 1970.
    begun_us: Option<i64>,
}

impl JoinWait {
    /// Records which inputs received rows in an epoch that has ended, and sets the input that the
    /// other one waits for. The first call sets the time since which the query has run.
    pub(crate) fn note(&mut self, state: &mut OperatorState, started_us: i64) {
        self.begun_us.get_or_insert(started_us);
        let Some(join) = &mut state.join else { return };
        for (last_us, input) in self.last_rows_us.iter_mut().zip(&join.inputs) {
            if input.received > 0 {
                *last_us = Some(started_us);
            }
        }
        join.waiting_for = self.waited_for(join);
    }

    /// The input that has had no rows for longer than the other one. `None` if neither has, or if
    /// the other one has no buffered rows.
    fn waited_for(&self, join: &JoinState) -> Option<WaitedInput> {
        let since = |input: usize| self.last_rows_us[input].or(self.begun_us).unwrap_or(i64::MIN);
        let silent = match since(0).cmp(&since(1)) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Greater => 1,
            std::cmp::Ordering::Equal if self.last_rows_us == [None, Some(since(1))] => 0,
            std::cmp::Ordering::Equal if self.last_rows_us == [Some(since(0)), None] => 1,
            std::cmp::Ordering::Equal => return None,
        };
        let waits = join.inputs[1 - silent].rows > 0;
        waits.then(|| WaitedInput { input: silent, since_us: since(silent) })
    }
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
