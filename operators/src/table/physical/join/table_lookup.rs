//! The lookup join: joins a stream with a table.
//!
//! The rows of the table are in memory, with a hash index on the expressions that the condition
//! compares for equality. The rest of the condition is evaluated for rows that the index finds.
//! A table that may change is [reloaded](super::table_refresh).
//!
//! *Bounded steps.* A lookup examines a bounded number of table rows in a step. While a lookup is
//! unfinished, the stage takes no more rows, and holds watermarks and the marker. A stage above may
//! expand one record to several rows; these wait in a queue, and each of their lookups is a step
//! too. The table is reloaded between lookups.

use crate::event_time::pending_watermark::PendingWatermark;
use crate::table::expr::compile::{BoolFn, Semantics, compile, fold};
use crate::table::expr::functions::as_grouping_key;
use crate::table::expr::{Node, Resolved};
use crate::table::physical::aggregate::hash_aggregate::{Key, write_keys};
use crate::table::physical::join::closest_row::{ClosestRow, ValueOf};
use crate::table::physical::join::condition::of_side;
use crate::table::physical::join::keys::is_unmatchable;
use crate::table::physical::join::probe::STEP;
use crate::table::physical::join::table_index::{IndexBy, NONE, Table, index};
use crate::table::physical::join::table_refresh::TableRefresh;
use crate::table::physical::stages::{BoxChain, Scratch, copy};
use crate::table::plan::join::{conjuncts, equality, null_safe_equality};
use crate::table::plan::live_table::LiveTable;
use crate::table::plan::{Closest, JoinKind};
use crate::table::row::{Row, RowBuf, RowWriter, Slot};
use crate::table::types::{DataType, Physical};
use millstream_engine::error::EngineError;
use millstream_engine::event::Epoch;
use millstream_engine::runtime::stage::{FlushStatus, Io, Push, Stage};
use std::collections::VecDeque;

/// The maximum number of lookup steps in a row, before the stage continues with other work.
const LOOKUP_STEPS: usize = 16;

/// The configuration of a lookup join.
pub(in crate::table::physical) struct TableJoinParts<'p> {
    pub kind: JoinKind,
    pub condition: Option<&'p Resolved>,
    pub in_operands: Option<&'p (Resolved, Resolved)>,
    /// For an ASOF join: how `in_operands` are compared, and which matching row is the closest.
    pub closest: Option<Closest>,
    /// The number of matching rows to skip, and the maximum number of rows to return after them.
    pub match_range: Option<(u64, u64)>,
    /// The types of the left and of the right columns.
    pub types: (Vec<DataType>, Vec<DataType>),
    /// Whether the left side is the probe side (the stream).
    pub is_left_probe: bool,
    /// The rows of the build side.
    pub rows: Vec<Vec<u8>>,
    /// How to reload the build side; `None` if the table never changes.
    pub live: Option<LiveTable>,
    pub continuous: bool,
    pub semantics: Semantics,
}

/// The stage of a lookup join.
pub(in crate::table::physical) struct TableJoin {
    kind: JoinKind,
    is_left_probe: bool,
    keys: Vec<Key>,
    /// For each key, whether NULL equals NULL.
    null_safe: Vec<bool>,
    table: Table,
    refresh: TableRefresh,
    /// The condition without its equalities, over the columns of both sides.
    rest: Option<BoolFn>,
    /// For `IN`: compares the operands. The result is NULL if one of them is NULL.
    equal: Option<BoolFn>,
    /// For an ASOF join: the comparison, and the value of a stream row.
    closest: Option<ClosestRow>,
    /// For `IN`: whether the index lookup alone decides the result.
    is_in_by_key: bool,
    /// The number of matching rows to skip, and the number of the last matching row to return.
    match_range: Option<(u64, u64)>,
    coming: Vec<(Slot, usize, Physical)>,
    held: Vec<(Slot, usize, Physical)>,
    width: usize,
    out_width: usize,
    key: Vec<u8>,
    out: Vec<u8>,
    scratch: Scratch,
    /// The unfinished lookup, and the stream row that it belongs to.
    unfinished: Option<Lookup>,
    row: Vec<u8>,
    /// Rows that have arrived during the unfinished lookup, and their ingest times.
    waiting: VecDeque<(RowBuf, u64)>,
    /// What is passed on after the unfinished lookup and the waiting rows.
    passing: PendingWatermark,
    marker: Option<Epoch>,
    down: BoxChain,
}

/// The range of one input's columns among the columns of both inputs.
#[derive(Clone, Copy)]
struct InputColumns {
    from: usize,
    width: usize,
}

impl InputColumns {
    /// Creates a key that is computed from a row of this input.
    fn key(self, expr: &Resolved, semantics: Semantics) -> Key {
        let expr = fold(as_grouping_key(of_side(expr, self.from)), semantics);
        match &expr.node {
            Node::Column(index, _) => Key::column(*index, self.width, &expr.data_type),
            _ => Key::computed(compile(&expr, self.width, semantics)),
        }
    }
}

/// A join condition, split into equalities between the two inputs and the rest.
struct Equalities {
    /// The stream's operands of the equalities.
    keys: Vec<Key>,
    table_keys: Vec<Key>,
    /// For each equality, whether NULL equals NULL (`<=>`).
    null_safe: Vec<bool>,
    rest: Option<Resolved>,
}

impl Equalities {
    fn of(
        condition: Option<&Resolved>,
        probe: InputColumns,
        build: InputColumns,
        semantics: Semantics,
    ) -> Self {
        let is_left_probe = probe.from == 0;
        let left_width = if is_left_probe { probe.width } else { build.width };
        let mut split =
            Self { keys: Vec::new(), table_keys: Vec::new(), null_safe: Vec::new(), rest: None };
        for part in condition.map(conjuncts).unwrap_or_default() {
            let equal = equality(part, left_width).map(|pair| (pair, false));
            match equal.or_else(|| null_safe_equality(part, left_width).map(|pair| (pair, true))) {
                Some(((of_left, of_right), null_safe)) => {
                    let (of_probe, of_build) =
                        if is_left_probe { (of_left, of_right) } else { (of_right, of_left) };
                    split.keys.push(probe.key(of_probe, semantics));
                    split.table_keys.push(build.key(of_build, semantics));
                    split.null_safe.push(null_safe);
                }
                None => {
                    let all = crate::table::plan::join::and(split.rest.take(), part.clone());
                    split.rest = Some(all.unwrap_or_else(|_| part.clone()));
                }
            }
        }
        split
    }
}

/// The lookup of a stream row in the table.
#[derive(Clone, Copy)]
struct Lookup {
    /// The index of the next table row to examine, or [`NONE`]. In an ASOF join the index of the
    /// key's first row.
    at: u32,
    ingest_ns: u64,
    /// The number of rows that satisfy the condition, including those that a `match_range` skips. In
    /// an ASOF join the number of rows that were examined.
    seen: u64,
    matches: u64,
    /// For `IN`: whether the value is equal to that of a matching row; `None` for NULL.
    is_in: Option<bool>,
}

impl Lookup {
    fn new(at: u32, ingest_ns: u64) -> Self {
        Self { at, ingest_ns, seen: 0, matches: 0, is_in: Some(false) }
    }
}

impl TableJoin {
    pub fn new(parts: TableJoinParts<'_>, down: BoxChain) -> Result<Self, EngineError> {
        let TableJoinParts {
            kind, condition, in_operands, match_range, types: (left, right), ..
        } = parts;
        let TableJoinParts { closest, is_left_probe, rows, live, continuous, semantics, .. } =
            parts;
        let (l, r) = (left.len(), right.len());
        let width = l + r;
        let (of_left, of_right) =
            (InputColumns { from: 0, width: l }, InputColumns { from: l, width: r });
        let (probe, build) = if is_left_probe { (of_left, of_right) } else { (of_right, of_left) };
        let Equalities { mut keys, mut table_keys, mut null_safe, rest } =
            Equalities::of(condition, probe, build, semantics);
        let condition = |expr: &Resolved| compile(&fold(expr.clone(), semantics), width, semantics);
        let copies = |types: &[DataType], to: usize| {
            let copied =
                |(i, t): (usize, &DataType)| (Slot::new(i, types.len()), to + i, t.physical());
            types.iter().enumerate().map(copied).collect::<Vec<_>>()
        };
        let (left, right) = (copies(&left, 0), copies(&right, l));
        let (coming, held) = if is_left_probe { (left, right) } else { (right, left) };
        let asof = closest.zip(in_operands);
        let in_operands = in_operands.filter(|_| asof.is_none());
        let mut equal = in_operands.map(|(a, b)| {
            let node = Node::Call("=", vec![a.clone(), b.clone()]);
            condition(&Resolved { node, data_type: DataType::Boolean, nullable: true }).bool()
        });
        // If `IN` is the only condition, its operands become keys of the index.
        let by_key = rest.is_none() && table_keys.is_empty() && match_range.is_none();
        if let (Some((a, b)), true) = (in_operands, by_key) {
            keys.push(of_left.key(a, semantics));
            table_keys.push(of_right.key(b, semantics));
            null_safe.push(false);
            equal = None;
        }
        // In an ASOF join the stream is always the left side.
        let value_of = asof.map(|(_, (_, b))| ValueOf::new(&of_side(b, l), r, semantics));
        let closest = asof.map(|(closest, (a, _))| {
            ClosestRow::new(closest, ValueOf::new(&of_side(a, 0), l, semantics))
        });
        let mut by = IndexBy { keys: table_keys, null_safe: null_safe.clone(), value_of };
        let table = index(rows, &mut by)?;
        Ok(Self {
            closest,
            is_in_by_key: by_key && in_operands.is_some(),
            match_range: match_range
                .map(|(skipped, taken)| (skipped, skipped.saturating_add(taken))),
            kind,
            is_left_probe,
            keys,
            null_safe,
            table,
            refresh: TableRefresh::new(live, by, continuous),
            rest: rest.as_ref().map(|rest| condition(rest).bool()),
            equal,
            coming,
            held,
            width,
            out_width: match kind {
                JoinKind::LeftSemi | JoinKind::LeftAnti => l,
                JoinKind::Exists | JoinKind::In => l + 1,
                _ => width,
            },
            key: Vec::new(),
            out: Vec::new(),
            scratch: Scratch::default(),
            unfinished: None,
            row: Vec::new(),
            waiting: VecDeque::new(),
            passing: PendingWatermark::default(),
            marker: None,
            down,
        })
    }

    /// Writes the columns of a stream row and of the table row `at` into `out`. With [`NONE`], the
    /// table's columns are NULL.
    fn pair(&mut self, row: Row<'_>, at: u32) {
        self.out.clear();
        let mut writer = RowWriter::new(&mut self.out, self.width);
        for (slot, to, kind) in &self.coming {
            copy(&mut writer, *to, row, *slot, *kind);
        }
        if at != NONE {
            let held = Row(&self.table.rows[at as usize]);
            for (slot, to, kind) in &self.held {
                copy(&mut writer, *to, held, *slot, *kind);
            }
        }
    }

    /// Runs one step of a lookup in an ASOF join: emits the stream row with the closest table row of
    /// its key that satisfies the rest of the condition. Returns whether the lookup is finished.
    fn step_closest(&mut self, row: Row<'_>, lookup: &mut Lookup) -> Result<bool, EngineError> {
        let Some(by) = &mut self.closest else { return Ok(true) };
        self.scratch.reset();
        let (closest, value) = (by.closest, by.value(self.scratch.cx(row))?);
        for _ in 0..STEP {
            let nth = lookup.seen as usize;
            let found = self.table.sorted.closest(lookup.at, &value, closest).nth(nth);
            let Some(at) = found else { return Ok(true) };
            lookup.seen += 1;
            self.pair(row, at);
            if let Some(rest) = &self.rest {
                self.scratch.reset();
                if rest(self.scratch.cx(Row(&self.out)))? != Some(true) {
                    continue;
                }
            }
            lookup.matches = 1;
            self.down.push(Row(&self.out), lookup.ingest_ns)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Runs one step of a lookup. Emits the pairs, except for LEFT SEMI, LEFT ANTI, EXISTS and IN,
    /// which end the lookup as soon as the result is known. Returns whether the lookup is finished.
    #[inline]
    fn step(&mut self, row: Row<'_>, lookup: &mut Lookup) -> Result<bool, EngineError> {
        if self.closest.is_some() {
            return self.step_closest(row, lookup);
        }
        for _ in 0..STEP {
            if lookup.at == NONE {
                return Ok(true);
            }
            let at = lookup.at;
            lookup.at = self.table.next[at as usize];
            // The pair is written only if a condition reads it or it is emitted.
            let asks = self.rest.is_some() || self.equal.is_some();
            let leaves = matches!(
                self.kind,
                JoinKind::Inner
                    | JoinKind::LeftOuter
                    | JoinKind::RightOuter
                    | JoinKind::ScalarSubquery
            );
            if asks || leaves {
                self.pair(row, at);
            }
            if let Some(rest) = &self.rest {
                self.scratch.reset();
                if rest(self.scratch.cx(Row(&self.out)))? != Some(true) {
                    continue;
                }
            }
            lookup.seen += 1;
            match self.match_range {
                Some((_, end)) if lookup.seen > end => return Ok(true),
                Some((skipped, _)) if lookup.seen <= skipped => continue,
                _ => {}
            }
            if self.matched(lookup)? {
                return Ok(true);
            }
        }
        Ok(lookup.at == NONE)
    }

    /// Processes a match, whose pair is in `out`. Returns whether the result of the row is known.
    #[inline]
    fn matched(&mut self, lookup: &mut Lookup) -> Result<bool, EngineError> {
        lookup.matches += 1;
        match self.kind {
            // FULL does not occur here: between two streams it is another operator, and between two
            // tables it is planned as a LEFT OUTER and a LEFT ANTI join.
            JoinKind::Inner | JoinKind::LeftOuter | JoinKind::RightOuter | JoinKind::FullOuter => {
                self.down.push(Row(&self.out), lookup.ingest_ns)?
            }
            JoinKind::ScalarSubquery if lookup.matches > 1 => return Err(too_many()),
            JoinKind::ScalarSubquery => self.down.push(Row(&self.out), lookup.ingest_ns)?,
            JoinKind::LeftSemi | JoinKind::LeftAnti | JoinKind::Exists => return Ok(true),
            JoinKind::In => {
                let equal = match &self.equal {
                    Some(equal) => {
                        self.scratch.reset();
                        equal(self.scratch.cx(Row(&self.out)))?
                    }
                    None => Some(true),
                };
                match equal {
                    Some(true) => {
                        lookup.is_in = Some(true);
                        return Ok(true);
                    }
                    None => lookup.is_in = None,
                    Some(false) => {}
                }
            }
        }
        Ok(false)
    }

    /// Emits the result that depends on all matches of a row: the row of LEFT SEMI or LEFT ANTI,
    /// the row with a flag for `EXISTS` and `IN`, or an unmatched row with NULLs.
    #[inline]
    fn push_outcome(&mut self, row: Row<'_>, lookup: &Lookup) -> Result<(), EngineError> {
        let Lookup { matches, is_in, ingest_ns, .. } = *lookup;
        match (self.kind, matches) {
            (JoinKind::LeftSemi, 1..) | (JoinKind::LeftAnti, 0) => self.down.push(row, ingest_ns),
            (JoinKind::Exists, _) => {
                self.flagged(row, Some(matches > 0));
                self.down.push(Row(&self.out), ingest_ns)
            }
            (JoinKind::In, _) => {
                self.flagged(row, is_in);
                self.down.push(Row(&self.out), ingest_ns)
            }
            (JoinKind::LeftOuter | JoinKind::ScalarSubquery, 0) if self.is_left_probe => {
                self.pair(row, NONE);
                self.down.push(Row(&self.out), ingest_ns)
            }
            (JoinKind::RightOuter, 0) if !self.is_left_probe => {
                self.pair(row, NONE);
                self.down.push(Row(&self.out), ingest_ns)
            }
            _ => Ok(()),
        }
    }

    /// Writes the stream row and a flag column into `out`. A flag of `None` is NULL.
    fn flagged(&mut self, row: Row<'_>, flag: Option<bool>) {
        self.out.clear();
        let mut writer = RowWriter::new(&mut self.out, self.out_width);
        for (slot, to, kind) in &self.coming {
            copy(&mut writer, *to, row, *slot, *kind);
        }
        if let Some(flag) = flag {
            writer.bool(self.out_width - 1, flag);
        }
    }
}

impl Stage for TableJoin {
    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        self.refresh.attach(io)?;
        self.down.attach(io)
    }
    #[inline]
    fn is_ready(&mut self) -> bool {
        !self.is_busy() && self.marker.is_none() && self.down.is_ready()
    }
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        self.passing.arrive(micros);
        self.pass_on()
    }
    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        self.marker = Some(epoch);
        self.pass_on()
    }
    fn end(&mut self) -> Result<(), EngineError> {
        self.down.end()
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        if !self.is_busy() {
            return self.down.flush();
        }
        self.continue_lookups()?;
        let below = self.down.flush()?;
        Ok(if self.is_busy() { FlushStatus::Pending.and(below) } else { below })
    }
    fn next_timer_ns(&self) -> Option<u64> {
        self.down.next_timer_ns()
    }
}

impl TableJoin {
    /// Whether a lookup is unfinished or has not begun. Only then do watermarks or a marker wait.
    #[inline]
    fn is_busy(&self) -> bool {
        self.unfinished.is_some() || !self.waiting.is_empty()
    }

    /// Runs up to [`LOOKUP_STEPS`] steps of the unfinished lookup and of those of waiting rows,
    /// while the chain is ready.
    fn continue_lookups(&mut self) -> Result<(), EngineError> {
        for _ in 0..LOOKUP_STEPS {
            if !self.is_busy() || !self.down.is_ready() {
                break;
            }
            match self.unfinished.take() {
                Some(lookup) => self.continue_lookup(lookup)?,
                None => {
                    if let Some((row, ingest_ns)) = self.waiting.pop_front() {
                        self.look_up(Row(&row), ingest_ns)?;
                    }
                }
            }
        }
        self.pass_on()
    }

    /// Runs a step of the unfinished lookup.
    fn continue_lookup(&mut self, mut lookup: Lookup) -> Result<(), EngineError> {
        let row = std::mem::take(&mut self.row);
        match self.step(Row(&row), &mut lookup)? {
            true => self.push_outcome(Row(&row), &lookup)?,
            false => self.unfinished = Some(lookup),
        }
        self.row = row;
        Ok(())
    }

    /// Passes on watermarks and the marker, unless a lookup is unfinished or has not begun.
    fn pass_on(&mut self) -> Result<(), EngineError> {
        if self.is_busy() {
            return Ok(());
        }
        self.passing.pass(true, 0, &mut self.down)?;
        match self.marker.take() {
            Some(epoch) => {
                self.refresh.end_epoch(&mut self.table)?;
                self.down.marker(epoch)
            }
            None => Ok(()),
        }
    }

    /// Looks up a row. A lookup that is not finished after one step becomes the unfinished one.
    #[inline]
    fn look_up(&mut self, row: Row<'_>, ingest_ns: u64) -> Result<(), EngineError> {
        if self.refresh.is_due() {
            self.refresh.update(&mut self.table)?;
        }
        self.scratch.reset();
        self.key.clear();
        write_keys(&self.keys, &self.scratch, row, &mut self.key)?;
        let is_null = is_unmatchable(&self.key, &self.null_safe);
        let at = if is_null { NONE } else { self.table.first(&self.key) };
        if self.is_in_by_key {
            let is_in = match (at, self.table.rows.is_empty()) {
                (_, true) => Some(false),
                (NONE, _) if is_null || self.table.has_null_keys => None,
                (NONE, _) => Some(false),
                _ => Some(true),
            };
            self.flagged(row, is_in);
            return self.down.push(Row(&self.out), ingest_ns);
        }
        let mut lookup = Lookup::new(at, ingest_ns);
        if self.step(row, &mut lookup)? {
            return self.push_outcome(row, &lookup);
        }
        self.row.clear();
        self.row.extend_from_slice(row.0);
        self.unfinished = Some(lookup);
        Ok(())
    }
}

impl<'a> Push<Row<'a>> for TableJoin {
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        if self.is_busy() {
            self.waiting.push_back((RowBuf::from_slice(row.0), ingest_ns));
            return Ok(());
        }
        self.look_up(row, ingest_ns)
    }
}

#[cold]
pub(crate) fn too_many() -> EngineError {
    EngineError::operator(
        "SCALAR_SUBQUERY_TOO_MANY_ROWS",
        "a scalar subquery returned more than one row",
        "Aggregate in it, or add LIMIT 1",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::row::encode;
    use crate::table::value::Value;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Counts rows, and is ready while there are fewer than `room`.
    #[derive(Clone, Default)]
    struct Counts {
        rows: Arc<AtomicU64>,
        room: Arc<AtomicU64>,
        watermarks: Arc<AtomicU64>,
    }

    impl Counts {
        fn rows(&self) -> u64 {
            self.rows.load(Ordering::Relaxed)
        }
    }

    impl Stage for Counts {
        fn is_ready(&mut self) -> bool {
            self.rows() < self.room.load(Ordering::Relaxed)
        }
        fn watermark(&mut self, _micros: i64) -> Result<(), EngineError> {
            self.watermarks.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
        fn marker(&mut self, _epoch: Epoch) -> Result<(), EngineError> {
            Ok(())
        }
        fn end(&mut self) -> Result<(), EngineError> {
            Ok(())
        }
        fn flush(&mut self) -> Result<FlushStatus, EngineError> {
            Ok(FlushStatus::Flushed)
        }
        fn next_timer_ns(&self) -> Option<u64> {
            None
        }
    }

    impl<'a> Push<Row<'a>> for Counts {
        fn push(&mut self, _row: Row<'a>, _ingest_ns: u64) -> Result<(), EngineError> {
            self.rows.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }

    fn column(index: usize) -> Resolved {
        let node = Node::Column(index, format!("c{index}"));
        Resolved { node, data_type: DataType::Long, nullable: true }
    }

    fn compared(name: &'static str, a: usize, b: usize) -> Resolved {
        let node = Node::Call(name, vec![column(a), column(b)]);
        Resolved { node, data_type: DataType::Boolean, nullable: true }
    }

    /// A LEFT join of rows with two numbers each, and the counters of its output.
    fn join(
        condition: &Resolved,
        asof: Option<(Closest, &(Resolved, Resolved))>,
        table: impl Iterator<Item = [i64; 2]>,
    ) -> (TableJoin, Counts) {
        let types = vec![DataType::Long; 2];
        let parts = TableJoinParts {
            kind: JoinKind::LeftOuter,
            condition: Some(condition),
            in_operands: asof.map(|(_, operands)| operands),
            closest: asof.map(|(closest, _)| closest),
            match_range: None,
            types: (types.clone(), types),
            is_left_probe: true,
            rows: table.map(row).collect(),
            live: None,
            continuous: true,
            semantics: Semantics::default(),
        };
        let counts = Counts::default();
        counts.room.store(u64::MAX, Ordering::Relaxed);
        (TableJoin::new(parts, Box::new(counts.clone())).unwrap(), counts)
    }

    fn row(values: [i64; 2]) -> Vec<u8> {
        encode(&values.map(Value::Long))
    }

    #[test]
    fn rows_that_wait_for_a_lookup_are_looked_up_in_steps_while_the_chain_is_ready() {
        // Key 1 has many rows, key 2 has one.
        let table = (0..100).map(|v| [1, v]).chain([[2, 0]]);
        let (mut join, counts) = join(&compared("=", 0, 2), None, table);
        join.push(Row(&row([1, 0])), 0).unwrap();
        for v in 0..1000 {
            join.push(Row(&row([2, v])), 0).unwrap();
        }
        join.watermark(1).unwrap();
        assert_eq!(counts.rows(), STEP as u64);
        counts.room.store(110, Ordering::Relaxed);
        join.flush().unwrap();
        assert_eq!(counts.rows(), 110, "the chain is asked before each lookup");
        counts.room.store(u64::MAX, Ordering::Relaxed);
        while join.is_busy() {
            let before = counts.rows();
            assert_eq!(counts.watermarks.load(Ordering::Relaxed), 0, "the watermark waits");
            join.flush().unwrap();
            assert!(counts.rows() - before <= LOOKUP_STEPS as u64, "a bounded number of lookups");
        }
        assert_eq!((counts.rows(), counts.watermarks.load(Ordering::Relaxed)), (1100, 1));
    }

    #[test]
    fn an_asof_join_tries_the_rows_of_a_key_in_steps() {
        const MANY: i64 = 10_000;
        // Of the rows before the stream row, the rest of the condition is true for the first only,
        // or for none.
        let operands = (column(1), column(3));
        let rest = compared(">", 0, 3);
        for (first, matches) in [(0, true), (5, false)] {
            let table = (first..first + MANY).map(|v| [0, v]);
            let asof = Some((Closest::AtOrBefore, &operands));
            let (mut join, counts) = join(&rest, asof, table);
            join.push(Row(&row([1, 2 * MANY])), 0).unwrap();
            let mut flushes = 0;
            while join.is_busy() {
                assert_eq!(counts.rows(), 0);
                join.flush().unwrap();
                flushes += 1;
            }
            assert_eq!(flushes, MANY as usize / (STEP * LOOKUP_STEPS) + 1, "{matches}");
            assert_eq!(counts.rows(), 1, "the match, or the row with NULLs: {matches}");
        }
    }
}
