//! Explains why the rows of a side of a join of two streams never expire: which watermark or which
//! bound of their times is missing.

use super::bounds::bound;
use super::side::JoinSide;
use crate::table::datetime::Tz;
use crate::table::expr::resolve::{Scope, ScopeColumn};
use crate::table::expr::{Node, Resolved};
use crate::table::plan::Join;
use crate::table::plan::join::{conjuncts, equality, null_safe_equality, reads};
use crate::table::types::DataType;

/// What is missing, and how to add it.
pub(super) struct MissingBound {
    pub reason: String,
    pub fix: String,
}

fn is_time(column: &ScopeColumn) -> bool {
    matches!(column.data_type, DataType::Timestamp | DataType::TimestampNtz)
}

fn has_watermark(column: &ScopeColumn) -> bool {
    column.tag.delay_ms.is_some()
}

/// Whether an expression or a part of it has a type.
fn has_type(expr: &Resolved, is_it: &dyn Fn(&DataType) -> bool) -> bool {
    is_it(&expr.data_type) || expr.children().into_iter().any(|child| has_type(child, is_it))
}

/// Looks for the bound that would let the rows of a side expire.
struct Search<'j> {
    side: JoinSide,
    scopes: [Scope; 2],
    /// The operands of the conjunction in ON.
    on: Vec<&'j Resolved>,
    /// Those of the WHERE clause that filters the result of the join.
    filters: Vec<&'j Resolved>,
}

/// Explains why the rows of `side` never expire. `filters` are the conditions of WHERE over the
/// columns of both sides.
pub(super) fn missing_bound(join: &Join, side: JoinSide, filters: &[Resolved]) -> MissingBound {
    let search = Search {
        side,
        scopes: [join.left.scope(), join.right.scope()],
        on: join.condition.as_ref().map(conjuncts).unwrap_or_default(),
        filters: filters.iter().flat_map(conjuncts).collect(),
    };
    search.explain()
}

impl Search<'_> {
    fn width(&self) -> usize {
        self.scopes[0].columns.len()
    }

    /// The name by which a query refers to a side.
    fn relation(&self, side: JoinSide) -> String {
        let named = self.scopes[side.index()].columns.iter();
        let named = named.filter_map(ScopeColumn::relation).next();
        match (named, side) {
            (Some(name), _) => name.to_string(),
            (None, JoinSide::Left) => "l".to_string(),
            (None, JoinSide::Right) => "r".to_string(),
        }
    }

    /// The name of a time column of a side, if possible of one with a watermark.
    fn time(&self, side: JoinSide) -> String {
        let columns = &self.scopes[side.index()].columns;
        let timed = columns.iter().find(|column| is_time(column) && has_watermark(column));
        match timed.or_else(|| columns.iter().find(|column| is_time(column))) {
            Some(column) => column.qualified_name(),
            None => format!("{}.time", self.relation(side)),
        }
    }

    /// A range that lets the rows of the side expire.
    fn example(&self) -> String {
        let (left, right) = (self.time(JoinSide::Left), self.time(JoinSide::Right));
        match self.side {
            JoinSide::Left => format!("{right} <= {left} + INTERVAL 1 HOUR"),
            JoinSide::Right => format!("{right} >= {left}"),
        }
    }

    /// Whether a bound of the times of both sides limits how long the side's rows have matches.
    fn bounds_side(&self, part: &Resolved) -> bool {
        let found = bound(part, self.width(), Tz::UTC);
        found.is_some_and(|bound| bound.upper == (self.side == JoinSide::Left))
    }

    /// A condition with the columns named as in the query.
    fn text(&self, part: &Resolved) -> String {
        let [left, right] = &self.scopes;
        let columns: Vec<_> = left.columns.iter().chain(&right.columns).cloned().collect();
        Scope::new(columns).written(part)
    }

    fn explain(&self) -> MissingBound {
        let ranged = self.on.iter().find(|part| self.bounds_side(part)).copied();
        let mut found = self.without_watermark(ranged).unwrap_or_else(|| match ranged {
            Some(range) => self.range_without_watermark(range),
            None => self.without_range(),
        });
        let width = self.width();
        let is_equality = |part: &&Resolved| {
            equality(part, width).or_else(|| null_safe_equality(part, width)).is_some()
        };
        if !self.on.iter().any(is_equality) {
            found.fix += ". ON also needs an equality between both sides, such as l.key = r.key";
        }
        found
    }

    /// The other side has no watermark at all.
    fn without_watermark(&self, ranged: Option<&Resolved>) -> Option<MissingBound> {
        let side = |side: JoinSide| (side.name(), self.relation(side));
        let (other, relation) = side(self.side.other());
        let timed = |side: JoinSide| self.scopes[side.index()].columns.iter().any(has_watermark);
        if timed(self.side.other()) {
            return None;
        }
        let time = self.time(self.side.other());
        let column = time.rsplit('.').next().unwrap_or(&time);
        let declared = format!("WATERMARK {column} DELAY OF INTERVAL 10 SECONDS AS {relation}");
        let (reason, declare) = match timed(self.side) {
            true => (
                format!("the {other} side (`{relation}`) has no watermark"),
                format!("Declare one: {declared}"),
            ),
            false => (
                "neither side has a watermark".to_string(),
                format!("Declare watermarks on both sides, such as {declared}"),
            ),
        };
        let range = match ranged {
            Some(_) => String::new(),
            None => format!(", and add a range to ON, such as {}", self.example()),
        };
        Some(MissingBound { reason, fix: format!("{declare}{range}") })
    }

    /// ON has the range, but over a column of the other side that has no watermark.
    fn range_without_watermark(&self, range: &Resolved) -> MissingBound {
        let other = self.side.other();
        let found = bound(range, self.width(), Tz::UTC);
        let columns = &self.scopes[other.index()].columns;
        let used = found.and_then(|bound| columns.get(bound.columns[other.index()]));
        let used = used.map_or_else(|| self.time(other), ScopeColumn::qualified_name);
        let timed = columns.iter().find(|column| has_watermark(column));
        let timed = timed.map_or_else(|| self.time(other), ScopeColumn::qualified_name);
        MissingBound {
            reason: format!("the range in ON compares `{used}`, which has no watermark"),
            fix: format!("Compare `{timed}`, which has one, or declare the watermark on `{used}`"),
        }
    }

    /// ON has no range that bounds the side's rows.
    fn without_range(&self) -> MissingBound {
        let example = self.example();
        if let Some(range) = self.filters.iter().find(|part| self.bounds_side(part)) {
            let range = self.text(range);
            return MissingBound {
                reason: format!(
                    "the range `{range}` stands in WHERE, which only filters the result of the join"
                ),
                fix: format!("Move it to ON: … AND {range}"),
            };
        }
        let width = self.width();
        if let Some(range) = self.on.iter().find(|part| bound(part, width, Tz::UTC).is_some()) {
            let (which, side) = match self.side {
                JoinSide::Left => ("upper", "lower"),
                JoinSide::Right => ("lower", "upper"),
            };
            let range = self.text(range);
            return MissingBound {
                reason: format!(
                    "the range in ON has no {which} bound of the right time, only the {side} one \
                     `{range}`"
                ),
                fix: format!("Add the {which} bound to ON: … AND {example}"),
            };
        }
        let of_times = |part: &&&Resolved| {
            reads(part, width) == (true, true)
                && !matches!(part.node, Node::Call("=" | "<=>", _))
                && has_type(part, &|of| matches!(of, DataType::Timestamp | DataType::TimestampNtz))
        };
        if let Some(part) = self.on.iter().find(of_times) {
            let text = self.text(part);
            let of_months = has_type(part, &|of| matches!(of, DataType::YearMonthInterval(..)));
            return match of_months {
                true => MissingBound {
                    reason: format!(
                        "`{text}` is no range: an interval of months or years has no fixed length"
                    ),
                    fix: "Give the interval in days, such as INTERVAL 31 DAYS".to_string(),
                },
                false => MissingBound {
                    reason: format!("`{text}` is not recognised as a range of two times"),
                    fix: format!(
                        "Compare the time of one side with that of the other side plus or minus a \
                         constant interval: {example}"
                    ),
                },
            };
        }
        MissingBound {
            reason: "ON has no range between the times of both sides".to_string(),
            fix: format!("Add one to ON, such as {example}"),
        }
    }
}
