//! Decomposes a join condition into the parts that an instance uses: equal keys, conditions on one
//! side, a range between two times, and the remaining condition.

use super::bounds::{Bound, TimeRange, bound};
use super::side::JoinSide;
use super::state::values;
use crate::table::datetime::Tz;
use crate::table::expr::functions::as_grouping_key;
use crate::table::expr::functions::record_options::for_checkpoint;
use crate::table::expr::resolve::ScopeColumn;
use crate::table::expr::{Node, Resolved};
use crate::table::plan::analyzer::OutputMode;
use crate::table::plan::join::{conjuncts, equality, null_safe_equality, reads};
use crate::table::plan::optimizer::is_deterministic_expr;
use crate::table::plan::time_window::{EventKey, tag};
use crate::table::plan::{Closest, Join, JoinKind, Plan};
use crate::table::types::DataType;
use millstream_engine::checkpoint::StateLayout;

/// Shifts the column indices of an expression over both sides, so that column `from` becomes column
/// 0.
pub(super) fn of_side(expr: &Resolved, from: usize) -> Resolved {
    fn moved(expr: Resolved, from: usize) -> Resolved {
        match expr.node {
            Node::Column(index, name) => {
                Resolved { node: Node::Column(index - from, name), ..expr }
            }
            _ => expr.map_children(&mut |child| moved(child, from)),
        }
    }
    moved(expr.clone(), from)
}

/// A pair of expressions that the condition compares for equality, each over the columns of its
/// side.
#[derive(Clone, Debug)]
pub(in super::super) struct KeyPair {
    pub sides: [Resolved; 2],
    /// Whether NULL equals NULL (`<=>`).
    pub null_safe: bool,
}

/// The time by which buffered rows are ordered and expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum JoinTime {
    /// No time: rows are in arrival order and never expire.
    None,
    /// A join key that is an event time or a window. `tagged` tells for each side whether the key
    /// has a watermark.
    Key { key: EventKey, tagged: [bool; 2] },
    /// A time column of each side. The condition bounds their difference.
    Range(TimeRange),
}

impl JoinTime {
    /// The offset of a side's state watermark from the watermark, in microseconds. Rows at or
    /// before the state watermark expire. `None` if the side's rows never expire.
    pub fn shift_us(&self, side: JoinSide) -> Option<i64> {
        match self {
            Self::None => None,
            Self::Key { .. } => Some(0),
            Self::Range(range) => range.shifts_us[side.index()],
        }
    }

    /// By how much the join lowers the watermark, in microseconds, so that rows emitted at expiry
    /// are not late.
    pub fn lag_us(&self) -> i64 {
        let shifts = JoinSide::BOTH.map(|side| self.shift_us(side).unwrap_or(0));
        shifts.into_iter().map(i64::saturating_neg).fold(0, i64::max)
    }
}

/// The decomposed condition of a join of two streams.
#[derive(Clone, Debug)]
pub(in super::super) struct JoinCondition {
    pub keys: Vec<KeyPair>,
    /// The condition that reads only the left side, and the condition that reads only the right
    /// side.
    pub own: [Option<Resolved>; 2],
    pub time: JoinTime,
    /// The remaining condition, which is evaluated for each pair of rows.
    pub rest: Option<Resolved>,
}

fn and(a: Option<Resolved>, b: Resolved) -> Option<Resolved> {
    let Some(a) = a else { return Some(b) };
    let nullable = a.nullable || b.nullable;
    let node = Node::Call("and", vec![a, b]);
    Some(Resolved { node, data_type: DataType::Boolean, nullable })
}

impl JoinCondition {
    /// Decomposes the condition of a join. The session's time zone decides only how long rows are
    /// kept: whether days may have more or less than 24 hours.
    pub fn of(join: &Join, zone: Tz) -> Self {
        let (left, right) = (join.left.scope(), join.right.scope());
        let width = left.columns.len();
        let (mut keys, mut own, mut rest) = (Vec::new(), [None, None], None);
        let mut bounds: Vec<(Bound, &Resolved)> = Vec::new();
        for part in join.condition.as_ref().map(conjuncts).unwrap_or_default() {
            let equal = equality(part, width).map(|pair| (pair, false));
            let equal = equal.or_else(|| null_safe_equality(part, width).map(|pair| (pair, true)));
            if let Some(((a, b), null_safe)) = equal.filter(|_| is_deterministic_expr(part)) {
                let sides = [as_grouping_key(a.clone()), as_grouping_key(of_side(b, width))];
                keys.push(KeyPair { sides, null_safe });
                continue;
            }
            match (bound(part, width, zone), reads(part, width)) {
                (Some(bound), _) => bounds.push((bound, part)),
                (None, (true, false)) if is_deterministic_expr(part) => {
                    own[0] = and(own[0].take(), part.clone());
                }
                (None, (false, true)) if is_deterministic_expr(part) => {
                    own[1] = and(own[1].take(), of_side(part, width));
                }
                _ => rest = and(rest, part.clone()),
            }
        }
        if join.closest.is_some() {
            let bounds = bounds.into_iter();
            let rest = bounds.fold(rest, |rest, (_, part)| and(rest, part.clone()));
            return Self { keys, own, time: asof_time(join), rest };
        }
        let tagged = |key: &KeyPair| {
            let tagged = [tag(&key.sides[0], &left), tag(&key.sides[1], &right)];
            tagged.map(|tag| tag.delay_ms.is_some() && !key.null_safe)
        };
        // A key with watermarks on both sides is chosen, or else one with a watermark on one side.
        let event_key = keys.iter().position(|key| tagged(key) == [true; 2]);
        let event_key =
            event_key.or_else(|| keys.iter().position(|key| tagged(key).contains(&true)));
        let mut time = JoinTime::None;
        let mut range_of = None;
        if let Some(index) = event_key {
            let window = matches!(keys[index].sides[0].data_type, DataType::Struct(_));
            time = JoinTime::Key { key: EventKey { index, window }, tagged: tagged(&keys[index]) };
        } else if !bounds.is_empty() {
            let of_columns = |[l, r]: [usize; 2]| {
                let tagged = |column: Option<&ScopeColumn>| {
                    column.is_some_and(|column| column.tag.delay_ms.is_some())
                };
                [tagged(left.columns.get(l)), tagged(right.columns.get(r))]
            };
            // The pair of columns with the most watermarks is chosen; among equals the first pair.
            let score = |bound: &Bound| of_columns(bound.columns).map(usize::from).iter().sum();
            let best = bounds.iter().rev().max_by_key(|(bound, _)| -> usize { score(bound) });
            if let Some((best, _)) = best {
                let columns = best.columns;
                let of_pair = bounds.iter().map(|(bound, _)| *bound);
                let of_pair: Vec<_> = of_pair.filter(|b| b.columns == columns).collect();
                time = JoinTime::Range(TimeRange::new(columns, &of_pair, of_columns(columns)));
                range_of = Some(columns);
            }
        }
        for (bound, part) in bounds {
            if range_of != Some(bound.columns) || bound.is_wide {
                rest = and(rest, part.clone());
            }
        }
        Self { keys, own, time, rest }
    }

    /// The column of a side that is the key by which rows expire. `None` if there is no such key,
    /// or if it is computed.
    pub fn time_key(&self, side: JoinSide) -> Option<usize> {
        let JoinTime::Key { key, .. } = self.time else { return None };
        match self.keys.get(key.index)?.sides[side.index()].node {
            Node::Column(index, _) => Some(index),
            _ => None,
        }
    }
}

/// The times that an ASOF join of two streams compares. `JoinTime::None` if one of the times is not
/// a column with a watermark.
fn asof_time(join: &Join) -> JoinTime {
    let (left, right) = (join.left.scope(), join.right.scope());
    let width = left.columns.len();
    // The range of the right time minus the left time. A left row that waits for a right row after it
    // does not expire by the watermark alone.
    let (least_us, most_us, of_left) = match join.closest {
        Some(Closest::AtOrBefore) => (i64::MIN, 0, Some(0)),
        Some(Closest::Before) => (i64::MIN, -1, Some(0)),
        Some(Closest::AtOrAfter) => (0, i64::MAX, None),
        Some(Closest::After) => (1, i64::MAX, None),
        None => return JoinTime::None,
    };
    let Some((Node::Column(l, _), Node::Column(r, _))) =
        join.in_operands.as_ref().map(|(l, r)| (&l.node, &r.node))
    else {
        return JoinTime::None;
    };
    let timed = |column: Option<&ScopeColumn>| {
        column.is_some_and(|c| {
            c.tag.delay_ms.is_some()
                && matches!(c.data_type, DataType::Timestamp | DataType::TimestampNtz)
        })
    };
    let Some(of_right) = r.checked_sub(width) else { return JoinTime::None };
    if !timed(left.columns.get(*l)) || !timed(right.columns.get(of_right)) {
        return JoinTime::None;
    }
    let (columns, shifts_us) = ([*l, of_right], [of_left, Some(0)]);
    JoinTime::Range(TimeRange { columns, least_us, most_us, shifts_us })
}

/// The difference between the query's watermark and the lower watermark of a plan's rows, in
/// microseconds. Joins of streams cause such a lag. `zone` is the session's time zone.
pub(in super::super) fn watermark_lag_us(plan: &Plan, zone: Tz) -> i64 {
    let inputs = plan.inputs().into_iter().map(|input| watermark_lag_us(input, zone));
    let below = inputs.max().unwrap_or(0);
    match plan {
        Plan::Join(join) if join.is_of_streams() => {
            below.saturating_add(JoinCondition::of(join, zone).time.lag_us())
        }
        _ => below,
    }
}

/// Describes the state of a join of two streams and the layout of its checkpoint entries.
pub(in super::super) fn describe_join(join: &Join, mode: OutputMode) -> (String, StateLayout) {
    let condition = JoinCondition::of(join, Tz::UTC);
    let mut keys = Vec::new();
    let mut texts = Vec::new();
    for (i, KeyPair { sides: [left, right], null_safe }) in condition.keys.iter().enumerate() {
        keys.push(format!("k{i} {}", left.data_type));
        let op = if *null_safe { "<=>" } else { "=" };
        let [left_text, right_text] = [left, right].map(for_checkpoint);
        texts.push(format!("{left_text} {op} {right_text} {}", left.data_type));
    }
    let types = |plan: &Plan| {
        let fields = plan.schema().fields.into_iter();
        fields.map(|field| field.data_type.to_string()).collect::<Vec<_>>().join(", ")
    };
    let time = match condition.time {
        JoinTime::None => String::new(),
        JoinTime::Key { key, .. } => format!(", by event time k{}", key.index),
        JoinTime::Range(TimeRange { columns: [l, r], .. }) => format!(", by times {l} and {r}"),
    };
    let what = format!(
        "{}{} join of streams ({}) and ({}) on {}{time}",
        join.kind.name(),
        join.closest.map_or("", |_| " ASOF"),
        types(&join.left),
        types(&join.right),
        texts.join(" and "),
    );
    let schemas = [join.left.schema(), join.right.schema()];
    let releases_by_watermark = match join.closest {
        Some(_) => mode == OutputMode::Append,
        None => !matches!(join.kind, JoinKind::Inner | JoinKind::LeftSemi),
    };
    let layout = StateLayout {
        keys: keys.join(", "),
        values: values([&schemas[0], &schemas[1]]),
        releases_by_watermark,
        ..StateLayout::default()
    };
    (what, layout)
}

/// Whether an operator with this layout is a join of two streams.
pub(in super::super) fn is_of_join(layout: &StateLayout) -> bool {
    layout.values.first().is_some_and(|kind| kind == ROW)
}

/// The kind of a join's entries in a checkpoint layout.
pub(in super::super) const ROW: &str = "row of a join";
