//! Which of Spark's rules of types an expression is resolved by: those of ANSI mode, or the older
//! ones.
//!
//! Analysis is a recursion on the caller's thread, from the written query to its plan. The rules
//! in force are a property of that whole recursion, so they are kept by thread and set at its
//! entry ([`Rules::apply`]); no function in between hands them through.

use super::compile::Semantics;
use std::cell::Cell;

/// The rules of types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// `spark.sql.ansi.enabled`.
    pub ansi: bool,
    /// `spark.sql.decimalOperations.allowPrecisionLoss`: a decimal result that needs more than 38
    /// digits gives up digits behind the point before those in front of it.
    pub precision_loss: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self::of(Semantics::default())
    }
}

thread_local! {
    static IN_FORCE: Cell<Rules> = const { Cell::new(Rules { ansi: true, precision_loss: true }) };
}

/// Restores the rules that were in force before.
struct Restore(Rules);

impl Drop for Restore {
    fn drop(&mut self) {
        IN_FORCE.set(self.0);
    }
}

impl Rules {
    /// The rules of a session.
    pub fn of(semantics: Semantics) -> Self {
        Self { ansi: semantics.ansi, precision_loss: semantics.precision_loss }
    }

    /// The rules in force.
    pub fn current() -> Self {
        IN_FORCE.get()
    }

    /// Runs an analysis by these rules.
    pub fn apply<T>(self, analysis: impl FnOnce() -> T) -> T {
        let _restore = Restore(IN_FORCE.replace(self));
        analysis()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_in_force_until_the_analysis_ends() {
        let old = Rules { ansi: false, ..Rules::default() };
        let inner = old.apply(|| {
            Rules::default().apply(|| assert!(Rules::current().ansi));
            Rules::current()
        });
        assert_eq!(inner, old);
        assert_eq!(Rules::current(), Rules::default());
    }
}
