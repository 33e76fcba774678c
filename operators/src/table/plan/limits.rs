//! Limits of planning. SQL text and expressions are untrusted input, so planning must always
//! terminate, with a plan or an error.
//!
//! Planning is a recursion over nested queries and expressions. It runs on a separate stack
//! ([`on_large_stack`]) that is large enough for [`MAX_NESTING`] levels. Long chains of operators
//! and of UNION ALL branches are processed in loops and are not limited. A short text can cause
//! many copies, for example by a view that reads another view twice. Therefore copies are counted
//! ([`count_copies`]), and so are the SELECTs that are planned ([`count_select`]).

use crate::table::error::{Place, PlanError, PlanResult};
use std::cell::Cell;

/// The maximum nesting depth of parentheses, functions, CASE, subqueries and types.
pub const MAX_NESTING: usize = 1200;
/// The maximum number of operators and expressions that a statement may copy by repeated use of
/// views, `*` and operands. A column of `*` counts twice.
const MAX_COPIES: usize = 2_000_000;
/// The maximum number of SELECTs that a statement may plan. A SELECT that is planned again counts
/// again, as one of a subquery that is planned alone and then with the outer query.
const MAX_SELECTS: usize = 500_000;
/// The size of the planning stack, in bytes. Only pages that are used take memory.
const STACK: usize = if cfg!(debug_assertions) { 1 << 30 } else { 512 << 20 };

thread_local! {
    static LEVELS: Cell<usize> = const { Cell::new(0) };
    static COPIES: Cell<usize> = const { Cell::new(0) };
    static SELECTS: Cell<usize> = const { Cell::new(0) };
}

/// Restores the previous value of a counter when it is dropped.
struct Restore(&'static std::thread::LocalKey<Cell<usize>>, usize);

impl Drop for Restore {
    fn drop(&mut self) {
        self.0.set(self.1);
    }
}

/// Runs a part of planning on a large stack. All copies that the part makes count towards one
/// limit.
pub fn on_large_stack<T>(planning: impl FnOnce() -> T) -> T {
    if stacker::remaining_stack().is_some_and(|left| left > STACK / 2) {
        return planning();
    }
    counted_anew(|| stacker::grow(STACK, planning))
}

/// Plans one statement, with new counts of levels and copies. The caller should already be on a
/// large stack, because mapping a stack costs more than planning a short statement.
pub fn statement<T>(planning: impl FnOnce() -> T) -> T {
    counted_anew(|| on_large_stack(planning))
}

fn counted_anew<T>(planning: impl FnOnce() -> T) -> T {
    let _levels = Restore(&LEVELS, LEVELS.replace(0));
    let _copies = Restore(&COPIES, COPIES.replace(0));
    let _selects = Restore(&SELECTS, SELECTS.replace(0));
    planning()
}

/// The error of a statement that is nested too deeply or that causes too many copies.
pub fn too_complex(reason: impl Into<String>, at: Place) -> PlanError {
    PlanError::new(
        "FAILED_TO_PARSE_TOO_COMPLEX",
        reason,
        "Split the statement: move parts of it into views or columns",
    )
    .at(at)
}

/// Runs one level of a recursion. Fails if the nesting is too deep: one level of a text takes at
/// most three of a recursion.
pub fn nested<T>(at: Place, level: impl FnOnce() -> PlanResult<T>) -> PlanResult<T> {
    let levels = LEVELS.get() + 1;
    if levels > MAX_NESTING * 3 {
        return Err(too_complex(format!("it is nested more than {MAX_NESTING} levels deep"), at));
    }
    let _levels = Restore(&LEVELS, LEVELS.replace(levels));
    level()
}

/// Adds to the number of copies. Fails if the total exceeds the limit.
pub fn count_copies(copies: usize) -> PlanResult<()> {
    let all = COPIES.get().saturating_add(copies);
    if all > MAX_COPIES {
        let reason = format!(
            "it expands to more than {MAX_COPIES} operators and expressions, because it repeats \
            views, `*` or operands"
        );
        return Err(too_complex(reason, Place::default()));
    }
    COPIES.set(all);
    Ok(())
}

/// Counts a SELECT that is planned. Fails if the statement has planned too many.
pub fn count_select(at: Place) -> PlanResult<()> {
    let all = SELECTS.get() + 1;
    SELECTS.set(all);
    #[cfg(test)]
    tests::MOST_SELECTS.set(tests::MOST_SELECTS.get().max(all));
    if all > MAX_SELECTS {
        return Err(too_complex(format!("more than {MAX_SELECTS} SELECTs are planned"), at));
    }
    Ok(())
}

#[cfg(test)]
pub(in crate::table) mod tests {
    use super::*;

    thread_local! {
        /// The largest number of SELECTs that a statement of this thread has planned.
        pub(in crate::table) static MOST_SELECTS: Cell<usize> = const { Cell::new(0) };
    }

    #[test]
    fn planned_selects_are_bounded_for_each_statement() {
        for _ in 0..2 {
            statement(|| {
                assert!((0..MAX_SELECTS).all(|_| count_select(Place::default()).is_ok()));
                let error = count_select(Place::default()).unwrap_err();
                assert_eq!(error.condition, "FAILED_TO_PARSE_TOO_COMPLEX");
            });
        }
    }

    fn sum(level: usize) -> PlanResult<usize> {
        nested(Place::default(), || if level == 0 { Ok(0) } else { Ok(1 + sum(level - 1)?) })
    }

    #[test]
    fn levels_are_bounded_and_counted_anew() {
        for _ in 0..2 {
            assert_eq!(on_large_stack(|| sum(MAX_NESTING)), Ok(MAX_NESTING));
            let error = on_large_stack(|| sum(MAX_NESTING * 4)).unwrap_err();
            assert_eq!(error.condition, "FAILED_TO_PARSE_TOO_COMPLEX");
        }
    }

    #[test]
    fn copies_are_bounded_for_each_statement() {
        for _ in 0..2 {
            on_large_stack(|| {
                assert_eq!(count_copies(MAX_COPIES), Ok(()));
                assert!(count_copies(1).is_err());
            });
        }
    }

    #[test]
    fn each_statement_on_one_stack_has_bounds_of_its_own() {
        on_large_stack(|| {
            for _ in 0..2 {
                assert_eq!(statement(|| count_copies(MAX_COPIES)), Ok(()));
            }
            assert_eq!(
                count_copies(MAX_COPIES),
                Ok(()),
                "what a statement spends is not the text's"
            );
        });
    }
}
