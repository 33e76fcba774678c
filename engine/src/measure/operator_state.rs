//! Metrics of stateful operators at the end of an epoch: state rows, late records, memory.

/// Metrics of one input of a join at the end of an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JoinInput {
    /// Number of buffered rows.
    pub rows: u64,
    /// Approximate memory of the buffered rows in bytes, with their entries in indexes and their share
    /// of the keys.
    pub bytes: u64,
    /// Event time of the first buffered row that will expire, in microseconds since 1970. A semi or
    /// anti join may report an earlier time for a few epochs after matches have removed thousands of
    /// rows at once.
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

/// When each input of a join last received rows, which tells how long the join has waited for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct JoinWait {
    /// For each input, the start of the last epoch in which a row arrived, in microseconds since
    /// 1970. `None` before the input's first row.
    last_rows_us: [Option<i64>; 2],
    /// The start of the first epoch of this run, in microseconds since 1970.
    begun_us: Option<i64>,
}

/// What holds back the watermark of a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WatermarkHolder {
    /// The watermarks of the inputs are not known.
    Unknown,
    /// The input with this index has the lower watermark.
    Input(usize),
    /// The watermarks of both inputs are the same.
    Both,
    /// No input: one has no event time or is idle, or the higher watermark counts.
    None,
}

impl JoinWait {
    /// Records which inputs received rows in an epoch that has ended, and sets the input that the
    /// other one waits for. The first call sets the time since which the query has run.
    pub(crate) fn note(
        &mut self,
        state: &mut OperatorState,
        started_us: i64,
        holder: WatermarkHolder,
    ) {
        self.begun_us.get_or_insert(started_us);
        let Some(join) = &mut state.join else { return };
        for (last_us, input) in self.last_rows_us.iter_mut().zip(&join.inputs) {
            if input.received > 0 {
                *last_us = Some(started_us);
            }
        }
        join.waiting_for = self.waited_for(join, holder);
    }

    fn since_us(&self, input: usize) -> i64 {
        self.last_rows_us[input].or(self.begun_us).unwrap_or(i64::MIN)
    }

    /// The input that a paused input waits for; otherwise the one that holds the watermark back and
    /// had no rows in this epoch, if the other one has buffered rows.
    fn waited_for(&self, join: &JoinState, holder: WatermarkHolder) -> Option<WaitedInput> {
        let waited = |input: usize| WaitedInput { input, since_us: self.since_us(input) };
        if let Some(paused) = join.inputs.iter().position(|input| input.is_held) {
            return Some(waited(1 - paused));
        }
        let silent = match holder {
            WatermarkHolder::Input(input) => input,
            WatermarkHolder::Both => self.unheard(join)?,
            WatermarkHolder::Unknown => self.longer_silent(join)?,
            WatermarkHolder::None => return None,
        };
        let waits = join.inputs[silent].received == 0 && join.inputs[1 - silent].rows > 0;
        waits.then(|| waited(silent))
    }

    /// The input that has had no rows for longer than the other one.
    fn longer_silent(&self, join: &JoinState) -> Option<usize> {
        match self.since_us(0).cmp(&self.since_us(1)) {
            std::cmp::Ordering::Less => Some(0),
            std::cmp::Ordering::Greater => Some(1),
            std::cmp::Ordering::Equal => self.unheard(join),
        }
    }

    /// The input without rows in this run, if the other one had some. If neither had any, the input
    /// without rows in the state of an earlier run.
    fn unheard(&self, join: &JoinState) -> Option<usize> {
        match self.last_rows_us.map(|us| us.is_some()) {
            [false, true] => Some(0),
            [true, false] => Some(1),
            [true, true] => None,
            [false, false] => join.inputs.iter().position(|input| input.rows == 0),
        }
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
