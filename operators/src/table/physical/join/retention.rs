//! How long each side of a join of two streams keeps its rows, as text for `explain`.

use super::condition::{JoinCondition, JoinTime};
use super::side::JoinSide;
use crate::table::datetime::{DAY_US, SECOND_US, Tz};
use crate::table::expr::resolve::Scope;
use crate::table::plan::optimizer::optimize;
use crate::table::plan::{Closest, Join, JoinKind, Plan};
use std::fmt::Write;

/// Both sides of a join, for texts about it.
struct Sides<'j> {
    join: &'j Join,
    condition: JoinCondition,
    scopes: [Scope; 2],
}

/// The name of a side in a query; `left` or `right` if it has none.
fn relation(scope: &Scope, side: JoinSide) -> String {
    let name = scope.columns.iter().find_map(|column| column.relation());
    name.unwrap_or(side.name()).to_string()
}

/// A duration in words, such as `1 hour 0.001 seconds`.
fn duration(us: i64) -> String {
    let mut text = String::new();
    let mut rest = us;
    for (unit_us, unit) in [(DAY_US, "day"), (3600 * SECOND_US, "hour"), (60 * SECOND_US, "minute")]
    {
        let count = rest / unit_us;
        rest %= unit_us;
        if count > 0 {
            let plural = if count == 1 { "" } else { "s" };
            let _ = write!(text, "{count} {unit}{plural} ");
        }
    }
    if rest > 0 || text.is_empty() {
        let plural = if rest == SECOND_US { "" } else { "s" };
        let _ = write!(text, "{} second{plural}", rest as f64 / SECOND_US as f64);
    }
    text.trim_end().to_string()
}

impl<'j> Sides<'j> {
    /// The sides of an optimised join. `written` is the join before optimisation, which forgets the
    /// names of relations.
    fn of(join: &'j Join, written: Option<&Join>, zone: Tz) -> Self {
        let condition = JoinCondition::of(join, zone);
        let optimized = [join.left.scope(), join.right.scope()];
        let written = written.map(|written| [written.left.scope(), written.right.scope()]);
        let has_columns = |written: &[Scope; 2]| {
            written.iter().zip(&optimized).all(|(a, b)| a.columns.len() == b.columns.len())
        };
        Self { join, condition, scopes: written.filter(has_columns).unwrap_or(optimized) }
    }

    /// The time of a side by which its rows expire.
    fn time(&self, side: JoinSide) -> Option<String> {
        let scope = &self.scopes[side.index()];
        match self.condition.time {
            JoinTime::None => None,
            JoinTime::Key { key, .. } => {
                let expr = &self.condition.keys.get(key.index)?.sides[side.index()];
                let end = if key.window { "the end of " } else { "" };
                Some(format!("{end}{}", scope.written(expr)))
            }
            JoinTime::Range(range) => {
                Some(scope.columns.get(range.columns[side.index()])?.qualified_name())
            }
        }
    }

    /// The join in a query's words: its kind, sides and equalities, and the times by which rows
    /// expire.
    fn name(&self) -> String {
        let names = JoinSide::BOTH.map(|side| relation(&self.scopes[side.index()], side));
        let asof = if self.join.closest.is_some() { " ASOF" } else { "" };
        let kind = self.join.kind.name();
        let mut name = format!("{kind}{asof} join of streams {} and {}", names[0], names[1]);
        let keys = self.condition.keys.iter().map(|key| {
            let [left, right] =
                JoinSide::BOTH.map(|s| self.scopes[s.index()].written(&key.sides[s.index()]));
            format!("{left} {} {right}", if key.null_safe { "<=>" } else { "=" })
        });
        let keys = keys.collect::<Vec<_>>().join(" and ");
        if !keys.is_empty() {
            let _ = write!(name, " on {keys}");
        }
        if let (JoinTime::Range(_), [Some(left), Some(right)]) =
            (self.condition.time, JoinSide::BOTH.map(|side| self.time(side)))
        {
            let _ = write!(name, ", by the times {left} and {right}");
        }
        name
    }

    /// How long the rows of a side are kept.
    fn retention(&self, side: JoinSide) -> String {
        let Join { closest, kind, .. } = self.join;
        match (closest, side) {
            (Some(Closest::AtOrAfter | Closest::After), JoinSide::Left) => {
                return "until the watermark reaches the first right row that matches".to_string();
            }
            (Some(Closest::AtOrBefore | Closest::Before), JoinSide::Right) => {
                return "until the watermark reaches a later row of the same key".to_string();
            }
            _ => {}
        }
        let time = self.time(side);
        let (Some(shift_us), Some(time)) = (self.condition.time.shift_us(side), time) else {
            return "for ever: no bound of the times in ON lets them expire".to_string();
        };
        let at = match shift_us {
            0 => time,
            1.. => format!("{time} - {}", duration(shift_us)),
            _ => format!("{time} + {}", duration(shift_us.saturating_neg())),
        };
        let matched = matches!(kind, JoinKind::LeftSemi | JoinKind::LeftAnti);
        let matched = if matched && side == JoinSide::Left { ", or until a match" } else { "" };
        format!("until the watermark reaches {at}{matched}")
    }
}

/// The joins of streams in a plan, from the top.
fn joins(plan: &Plan) -> Vec<&Join> {
    let mut found = Vec::new();
    fn collect<'p>(plan: &'p Plan, found: &mut Vec<&'p Join>) {
        if let Plan::Join(join) = plan
            && join.is_of_streams()
        {
            found.push(join);
        }
        plan.inputs().into_iter().for_each(|input| collect(input, found));
    }
    collect(plan, &mut found);
    found
}

/// Calls `of` for each join of streams in a plan, from the top.
fn each_join<R>(plan: &Plan, zone: Tz, of: impl Fn(&Sides<'_>) -> R) -> Vec<R> {
    let (optimized, written) = (optimize(plan), joins(plan));
    let optimized = joins(&optimized);
    let is_same = written.len() == optimized.len();
    let pairs = optimized.into_iter().enumerate();
    let sides = pairs.map(|(at, join)| {
        let written = written.get(at).filter(|_| is_same).copied();
        of(&Sides::of(join, written, zone))
    });
    sides.collect()
}

/// The names of the joins of streams in progress reports and `inspect`, from the top of the plan.
pub(in super::super) fn join_names(plan: &Plan) -> Vec<String> {
    each_join(plan, Tz::UTC, |sides: &Sides<'_>| sides.name())
}

/// Describes how long each side of each join of streams keeps its rows; empty without such joins.
pub fn show_retention(plan: &Plan, zone: Tz) -> String {
    let one = |sides: &Sides<'_>| {
        let of_side = |side: JoinSide| {
            format!("   {} rows are kept {}\n", side.name(), sides.retention(side))
        };
        format!("{}\n{}", sides.name(), JoinSide::BOTH.map(of_side).concat())
    };
    each_join(plan, zone, one).concat()
}

/// A notice for each inner join of streams that keeps the rows of a side for ever.
pub fn unbounded_joins(plan: &Plan, zone: Tz) -> Vec<String> {
    let notice = |sides: &Sides<'_>| {
        let forever = JoinSide::BOTH.into_iter().filter(|side| {
            sides.join.closest.is_none() && sides.condition.time.shift_us(*side).is_none()
        });
        let forever: Vec<_> = forever.map(JoinSide::name).collect();
        (!forever.is_empty()).then(|| {
            format!(
                "the {} keeps its {} rows for ever: declare watermarks, and add a range between the \
                 times of both sides to ON",
                sides.name(),
                forever.join(" and ")
            )
        })
    };
    each_join(plan, zone, notice).into_iter().flatten().collect()
}
