//! The lookup join: joins a stream with a table.
//!
//! The rows of the table are in memory, with a hash index on the expressions that the condition
//! compares for equality. The rest of the condition is evaluated for rows that the index finds.
//! A table that may change is [reloaded](super::table_refresh).

use crate::table::expr::compile::{BoolFn, Semantics, compile, fold};
use crate::table::expr::functions::as_grouping_key;
use crate::table::expr::{Node, Resolved};
use crate::table::physical::aggregate::hash_aggregate::{Key, write_keys};
use crate::table::physical::join::closest_row::{ClosestRow, SortedRows, ValueOf};
use crate::table::physical::join::condition::of_side;
use crate::table::physical::join::keys::is_unmatchable;
use crate::table::physical::join::table_refresh::TableRefresh;
use crate::table::physical::stages::{BoxChain, Scratch, copy};
use crate::table::plan::join::{conjuncts, equality, null_safe_equality};
use crate::table::plan::live_table::LiveTable;
use crate::table::plan::{Closest, JoinKind};
use crate::table::row::{Row, RowWriter, Slot};
use crate::table::types::{DataType, Physical};
use hashbrown::HashTable;
use millstream_engine::checkpoint::key_group::hash_bytes;
use millstream_engine::error::EngineError;
use millstream_engine::event::Epoch;
use millstream_engine::runtime::stage::{FlushStatus, Io, Push, Stage};
use millstream_engine::runtime::worker::check_running;

/// Marks the end of a linked list of rows.
pub(super) const NONE: u32 = u32::MAX;

/// The number of pairs between two checks whether the worker is to halt.
const PAIRS_PER_CHECK: u32 = 1 << 16;

/// Counts the pairs of rows that a join forms. A worker looks only between steps whether it is to
/// halt, and a row may have any number of pairs.
#[derive(Default)]
pub(super) struct PairCount(u32);

impl PairCount {
    /// Counts a pair. From time to time, fails if the worker is to halt.
    #[inline]
    pub fn add(&mut self) -> Result<(), EngineError> {
        self.0 += 1;
        if self.0 == PAIRS_PER_CHECK {
            self.0 = 0;
            check_running()?;
        }
        Ok(())
    }
}

/// The rows of the table and an index from keys to rows.
pub(super) struct Table {
    rows: Vec<Vec<u8>>,
    /// For each key, its hash and the index of its first row.
    index: HashTable<(u64, u32)>,
    keys: Vec<Vec<u8>>,
    /// For each row, the index of the next row with the same key, or [`NONE`].
    next: Vec<u32>,
    /// Whether any row is missing in the index, because it has a NULL key.
    has_null_keys: bool,
    /// For an ASOF join: the rows sorted by key and value.
    sorted: SortedRows,
}

/// The expressions by which a table is indexed.
pub(super) struct IndexBy {
    pub keys: Vec<Key>,
    /// For each key, whether NULL equals NULL.
    pub null_safe: Vec<bool>,
    /// For an ASOF join: computes the value by which the rows of a key are sorted. `None` for other
    /// joins, whose rows are not sorted.
    pub value_of: Option<ValueOf>,
}

impl Table {
    fn first(&self, key: &[u8]) -> u32 {
        let same = |&(_, at): &(u64, u32)| self.keys[at as usize] == key;
        self.index.find(hash_bytes(key), same).map_or(NONE, |&(_, at)| at)
    }
}

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
    pairs: PairCount,
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

/// The result of looking up a stream row in the table.
struct Matches {
    count: u64,
    /// For `IN`: whether the value is equal to that of a matching row; `None` for NULL.
    is_in: Option<bool>,
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
            pairs: PairCount::default(),
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

    /// Emits a stream row with the closest table row of its key that satisfies the rest of the
    /// condition. Without one, a LEFT join emits it with NULLs. `first` is the index of the key's
    /// first row.
    fn push_closest(
        &mut self,
        row: Row<'_>,
        first: u32,
        ingest_ns: u64,
    ) -> Result<(), EngineError> {
        let Some(by) = &mut self.closest else { return Ok(()) };
        let (closest, value) = (by.closest, by.value(self.scratch.cx(row))?);
        let mut nth = 0;
        loop {
            let found = self.table.sorted.closest(first, &value, closest).nth(nth);
            let Some(at) = found else { break };
            nth += 1;
            self.pairs.add()?;
            self.pair(row, at);
            let holds = match &self.rest {
                Some(rest) => rest(self.scratch.cx(Row(&self.out)))? == Some(true),
                None => true,
            };
            if holds {
                return self.down.push(Row(&self.out), ingest_ns);
            }
        }
        if self.kind == JoinKind::LeftOuter {
            self.pair(row, NONE);
            return self.down.push(Row(&self.out), ingest_ns);
        }
        Ok(())
    }

    /// Counts the table rows that match a stream row. Emits the pairs, except for LEFT SEMI, LEFT
    /// ANTI, EXISTS and IN, which end the search as soon as the result is known. `at` is the index
    /// of the first row with its key.
    #[inline]
    fn push_matches(
        &mut self,
        row: Row<'_>,
        mut at: u32,
        ingest_ns: u64,
    ) -> Result<Matches, EngineError> {
        let mut matches = Matches { count: 0, is_in: Some(false) };
        let mut seen = 0u64;
        while at != NONE {
            let next = self.table.next[at as usize];
            self.pairs.add()?;
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
            let holds = match &self.rest {
                Some(rest) => rest(self.scratch.cx(Row(&self.out)))? == Some(true),
                None => true,
            };
            seen += u64::from(holds);
            let counts = match self.match_range {
                Some((_, end)) if seen > end => break,
                Some((skipped, _)) => seen > skipped,
                None => true,
            };
            if holds && counts {
                matches.count += 1;
                match self.kind {
                    // FULL does not occur here: between two streams it is another operator, and
                    // between two tables it is planned as a LEFT OUTER and a LEFT ANTI join.
                    JoinKind::Inner
                    | JoinKind::LeftOuter
                    | JoinKind::RightOuter
                    | JoinKind::FullOuter => {
                        self.down.push(Row(&self.out), ingest_ns)?;
                    }
                    JoinKind::ScalarSubquery if matches.count > 1 => return Err(too_many()),
                    JoinKind::ScalarSubquery => self.down.push(Row(&self.out), ingest_ns)?,
                    JoinKind::LeftSemi | JoinKind::LeftAnti | JoinKind::Exists => break,
                    JoinKind::In => {
                        let equal = match &self.equal {
                            Some(equal) => equal(self.scratch.cx(Row(&self.out)))?,
                            None => Some(true),
                        };
                        match equal {
                            Some(true) => {
                                matches.is_in = Some(true);
                                break;
                            }
                            None => matches.is_in = None,
                            Some(false) => {}
                        }
                    }
                }
            }
            at = next;
        }
        Ok(matches)
    }

    /// Emits the result that depends on all matches of a row: the row of LEFT SEMI or LEFT ANTI,
    /// the row with a flag for `EXISTS` and `IN`, or an unmatched row with NULLs.
    #[inline]
    fn push_outcome(
        &mut self,
        row: Row<'_>,
        matches: &Matches,
        ingest_ns: u64,
    ) -> Result<(), EngineError> {
        match (self.kind, matches.count) {
            (JoinKind::LeftSemi, 1..) | (JoinKind::LeftAnti, 0) => self.down.push(row, ingest_ns),
            (JoinKind::Exists, _) => {
                self.flagged(row, Some(matches.count > 0));
                self.down.push(Row(&self.out), ingest_ns)
            }
            (JoinKind::In, _) => {
                self.flagged(row, matches.is_in);
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

/// Indexes rows by their keys. A row that never matches, because it has a NULL key, is not in the
/// index.
pub(super) fn index(rows: Vec<Vec<u8>>, by: &mut IndexBy) -> Result<Table, EngineError> {
    let keys = &by.keys;
    let (mut index, mut of_rows) = (HashTable::<(u64, u32)>::new(), Vec::new());
    let mut next = vec![NONE; rows.len()];
    // For each key, the last row so far, stored at the index of the key's first row.
    let mut last: Vec<u32> = vec![NONE; rows.len()];
    let (mut scratch, mut has_null_keys) = (Scratch::default(), false);
    for (at, row) in rows.iter().enumerate() {
        let mut key = Vec::new();
        scratch.reset();
        write_keys(keys, &scratch, Row(row), &mut key)?;
        of_rows.push(key);
        if is_unmatchable(&of_rows[at], &by.null_safe) {
            has_null_keys = true;
            continue;
        }
        let (hash, at) = (hash_bytes(&of_rows[at]), at as u32);
        let same = |&(_, other): &(u64, u32)| of_rows[other as usize] == of_rows[at as usize];
        match index.find(hash, same) {
            Some(&(_, first)) => {
                let before = std::mem::replace(&mut last[first as usize], at);
                next[before as usize] = at;
            }
            None => {
                index.insert_unique(hash, (hash, at), |&(hash, _)| hash);
                last[at as usize] = at;
            }
        }
    }
    let sorted = match &mut by.value_of {
        Some(value_of) => {
            let mut firsts: Vec<u32> = index.iter().map(|&(_, first)| first).collect();
            firsts.sort_unstable();
            SortedRows::new(&rows, (firsts.into_iter(), &next), value_of)?
        }
        None => SortedRows::default(),
    };
    Ok(Table { rows, index, keys: of_rows, next, has_null_keys, sorted })
}

impl Stage for TableJoin {
    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        self.refresh.attach(io)?;
        self.down.attach(io)
    }
    #[inline]
    fn is_ready(&mut self) -> bool {
        self.down.is_ready()
    }
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        self.down.watermark(micros)
    }
    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        self.refresh.end_epoch(&mut self.table)?;
        self.down.marker(epoch)
    }
    fn end(&mut self) -> Result<(), EngineError> {
        self.down.end()
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        self.down.flush()
    }
    fn next_timer_ns(&self) -> Option<u64> {
        self.down.next_timer_ns()
    }
}

impl<'a> Push<Row<'a>> for TableJoin {
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        if self.refresh.is_due() {
            self.refresh.update(&mut self.table)?;
        }
        self.scratch.reset();
        self.key.clear();
        write_keys(&self.keys, &self.scratch, row, &mut self.key)?;
        let is_null = is_unmatchable(&self.key, &self.null_safe);
        let at = if is_null { NONE } else { self.table.first(&self.key) };
        if self.closest.is_some() {
            return self.push_closest(row, at, ingest_ns);
        }
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
        let matches = self.push_matches(row, at, ingest_ns)?;
        self.push_outcome(row, &matches, ingest_ns)
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
