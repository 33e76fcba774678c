//! A memo of planned queries and FROM clauses.
//!
//! A subquery is first planned alone. If this fails at a column of the outer query, it is planned
//! again, as a join with the outer query. Without a memo, each level of nested subqueries would
//! double the work of the levels inside it. So while a query is planned that may be planned again,
//! the results of the queries and FROM clauses inside it are kept until the end of the statement.
//!
//! An entry is found by its position in the text and a hash of its tree: the place of a query in
//! the text determines the names that it can refer to. This does not hold for a text that the
//! planner generates, so that [`without`] turns the memo off. A query whose position is unknown is
//! never kept.

use super::Catalog;
use super::query;
use crate::table::error::{Place, PlanResult};
use crate::table::plan::Plan;
use crate::table::plan::limits::count_copies;
use sqlparser::ast::{Query, Select};
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The maximum number of entries. Later results are not kept.
const MAX_ENTRIES: usize = 1 << 12;
/// The maximum size of a plan in the memo, in operators and expressions.
const MAX_SIZE: usize = 1 << 12;

/// What a result is of, its position, and the hash of its tree.
type Key = (Kind, Place, u64);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Query,
    From,
}

#[derive(Default)]
struct Memo {
    entries: HashMap<Key, PlanResult<Plan>>,
    /// The number of queries being planned that may be planned again.
    repeatable: usize,
}

thread_local! {
    /// The memo of the statement that is being planned; `None` outside of statements and in
    /// generated texts.
    static MEMO: RefCell<Option<Memo>> = const { RefCell::new(None) };
}

/// Puts a memo back when it is dropped.
struct Restore(Option<Memo>);

impl Drop for Restore {
    fn drop(&mut self) {
        MEMO.replace(self.0.take());
    }
}

/// Plans a statement with a memo of its own.
pub(super) fn of_statement<T>(planning: impl FnOnce() -> T) -> T {
    let _before = Restore(MEMO.replace(Some(Memo::default())));
    planning()
}

/// Plans a generated text without a memo.
pub(super) fn without<T>(planning: impl FnOnce() -> T) -> T {
    let _before = Restore(MEMO.replace(None));
    planning()
}

/// Leaves a query that may be planned again.
struct Leave;

impl Drop for Leave {
    fn drop(&mut self) {
        MEMO.with_borrow_mut(|memo| {
            if let Some(memo) = memo {
                memo.repeatable = memo.repeatable.saturating_sub(1);
            }
        });
    }
}

/// Plans a query that may be planned again: the FROM clauses inside it are kept.
pub(super) fn repeatable<T>(planning: impl FnOnce() -> T) -> T {
    MEMO.with_borrow_mut(|memo| {
        if let Some(memo) = memo {
            memo.repeatable += 1;
        }
    });
    let _leave = Leave;
    planning()
}

/// Plans a subquery by itself, or returns the result of the first time.
pub(super) fn plan(written: &Query, catalog: &dyn Catalog) -> PlanResult<Plan> {
    repeatable(|| {
        recalled(Kind::Query, query::start(written), written, || query::plan(written, catalog))
    })
}

/// Plans a FROM clause with its lateral views, or returns the result of the first time.
pub(super) fn from_clause(
    select: &Select,
    here: Place,
    planning: impl FnOnce() -> PlanResult<Plan>,
) -> PlanResult<Plan> {
    recalled(Kind::From, here, &(&select.from, &select.lateral_views), planning)
}

fn recalled(
    kind: Kind,
    here: Place,
    tree: &impl Hash,
    planning: impl FnOnce() -> PlanResult<Plan>,
) -> PlanResult<Plan> {
    let is_used = MEMO.with_borrow(|memo| {
        memo.as_ref().is_some_and(|memo| memo.repeatable > 0 || !memo.entries.is_empty())
    });
    if !is_used || here == Place::default() {
        return planning();
    }
    let mut hasher = DefaultHasher::new();
    tree.hash(&mut hasher);
    let key = (kind, here, hasher.finish());
    let known = MEMO.with_borrow(|memo| memo.as_ref()?.entries.get(&key).cloned());
    if let Some(known) = known {
        if let Ok(plan) = &known {
            count_copies(plan.size()).map_err(|error| error.at(here))?;
        }
        return known;
    }
    let made = planning();
    MEMO.with_borrow_mut(|memo| {
        let Some(memo) = memo else { return };
        let is_small = made.as_ref().map_or(true, |plan| plan.size() <= MAX_SIZE);
        if memo.repeatable > 0 && memo.entries.len() < MAX_ENTRIES && is_small {
            memo.entries.insert(key, made.clone());
        }
    });
    made
}

#[cfg(test)]
mod tests {
    use crate::session::Session;
    use crate::table::plan::limits::tests::MOST_SELECTS;

    const LEVELS: usize = 15;

    /// Two equal subqueries may refer to different queries of WITH.
    #[test]
    fn equal_queries_at_other_positions_are_planned_anew() {
        for table in ["TABLE c", "TABLE c UNION ALL TABLE c", "(TABLE c)"] {
            let sql = format!(
                "WITH c AS (SELECT 1 AS k WHERE false) SELECT x FROM VALUES (1) AS t(x) \
                 WHERE NOT EXISTS ({table}) AND EXISTS (WITH c AS (SELECT 1 AS k) \
                 SELECT 1 FROM VALUES (1) AS u(y) WHERE EXISTS ({table}))"
            );
            let rows = Session::new().sql(&sql).map(|frame| frame.collect().unwrap().len());
            assert_eq!(rows, Ok(1), "{sql}");
        }
    }

    /// The query that `level` makes of each query inside it, [`LEVELS`] levels deep. `level` gets
    /// the depth and the inner query.
    fn nested(innermost: &str, level: impl Fn(usize, &str) -> String) -> String {
        (0..LEVELS).fold(innermost.to_string(), |inner, at| level(at, &inner))
    }

    #[test]
    fn nested_queries_are_planned_a_bounded_number_of_times() {
        let t = "VALUES (1, 2) AS t(k, v)";
        let shapes = [
            nested(&format!("SELECT 1 FROM {t}"), |at, inner| {
                format!(
                    "SELECT 1 FROM VALUES (1) AS t{at}(k{at}) WHERE EXISTS ({inner}) AND k{at} <= k{}",
                    at + 1
                )
            }),
            nested(&format!("SELECT k FROM {t}"), |at, inner| {
                format!(
                    "SELECT k{at} FROM VALUES (1) AS t{at}(k{at}) WHERE k{at} IN ({inner}) \
                     AND k{at} = k{} LIMIT 1",
                    at + 1
                )
            }),
            nested(&format!("SELECT max(k) FROM {t}"), |at, inner| {
                format!(
                    "SELECT max(k{at}) FROM VALUES (1) AS t{at}(k{at}) WHERE k{at} = ({inner}) \
                     AND k{at} = k{}",
                    at + 1
                )
            }),
            nested(&format!("SELECT k AS x FROM {t}"), |at, inner| {
                format!(
                    "SELECT t{at}.k{at} AS x FROM VALUES (1) AS t{at}(k{at}), LATERAL ({inner}) AS l{at} \
                     WHERE l{at}.x = k{}",
                    at + 1
                )
            }),
            nested(&format!("SELECT k FROM {t}"), |_, inner| {
                format!("SELECT k FROM ({inner}) DISTRIBUTE BY k")
            }),
            nested(&format!("SELECT k FROM {t}"), |_, inner| {
                format!("SELECT k FROM ({inner}) ORDER BY all")
            }),
            nested(&format!("SELECT k FROM {t}"), |at, inner| {
                format!(
                    "SELECT 1 AS k FROM VALUES (1) AS t{at}(k{at}) LEFT JOIN VALUES (1) AS u{at}(j{at}) \
                     ON k{at} = j{at} AND EXISTS ({inner}) WHERE k{at} <= k{}",
                    at + 1
                )
            }),
            nested(&format!("SELECT k FROM {t}"), |at, inner| {
                format!(
                    "SELECT 1 AS k FROM (SELECT * FROM VALUES (1) AS t{at}(k{at}) WHERE EXISTS ({inner})) \
                     WHERE k{at} <= k{}",
                    at + 1
                )
            }),
        ];
        for inner in shapes {
            let sql = format!("SELECT 1 FROM VALUES (1) AS t(k{LEVELS}) WHERE EXISTS ({inner})");
            MOST_SELECTS.set(0);
            let planned = Session::new().sql(&sql).map(|frame| frame.collect().unwrap().len());
            assert_eq!(planned, Ok(1), "{sql}");
            let selects = MOST_SELECTS.get();
            assert!(selects <= 2 * LEVELS * LEVELS, "{selects} SELECTs of {sql}");
        }
    }
}
