//! The type rules by which expressions are resolved: Spark's rules of ANSI mode, or the older ones.
//!
//! Analysis is a recursion on the caller's thread. The rules apply to the whole recursion, so they
//! are stored per thread and set at its entry ([`Rules::apply`]) instead of being passed through
//! every function.

use crate::table::expr::compile::Semantics;
use std::cell::Cell;

/// What names and numbers of columns may mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Naming {
    /// `spark.sql.groupByAliases`: GROUP BY takes aliases of the SELECT list.
    pub group_by_aliases: bool,
    /// `spark.sql.groupByOrdinal`: a number in GROUP BY is the place of a column.
    pub group_by_ordinal: bool,
    /// `spark.sql.orderByOrdinal`: a number in ORDER BY is the place of a column.
    pub order_by_ordinal: bool,
    /// `spark.sql.legacy.setopsPrecedence.enabled`: set operations are made from left to right.
    pub sets_from_left: bool,
}

impl Naming {
    /// What holds unless a setting says otherwise.
    pub const PLAIN: Self = Self {
        group_by_aliases: true,
        group_by_ordinal: true,
        order_by_ordinal: true,
        sets_from_left: false,
    };

    /// The field of a setting, by its name in lower case.
    pub fn setting(&mut self, key: &str) -> Option<&mut bool> {
        Some(match key {
            "spark.sql.groupbyaliases" => &mut self.group_by_aliases,
            "spark.sql.groupbyordinal" => &mut self.group_by_ordinal,
            "spark.sql.orderbyordinal" => &mut self.order_by_ordinal,
            "spark.sql.legacy.setopsprecedence.enabled" => &mut self.sets_from_left,
            _ => return None,
        })
    }
}

/// The rules of types, and of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// `spark.sql.ansi.enabled`.
    pub ansi: bool,
    /// `spark.sql.decimalOperations.allowPrecisionLoss`: a decimal result that needs more than 38
    /// digits gives up digits behind the point before those in front of it.
    pub precision_loss: bool,
    /// `spark.sql.timestampType` is TIMESTAMP_NTZ: the type TIMESTAMP has no zone.
    pub timestamps_without_zone: bool,
    /// Whether a constant NULL is in an empty subquery is NULL, not false.
    pub null_in_empty_list: bool,
    /// What names and numbers of columns mean.
    pub naming: Naming,
    /// Whether the expression is evaluated only for some rows, like THEN. Then an invalid literal
    /// pattern is an error only for the rows that need it.
    pub is_conditional: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self::of(Semantics::default())
    }
}

thread_local! {
    static IN_FORCE: Cell<Rules> = const { Cell::new(Rules {
        ansi: true,
        precision_loss: true,
        timestamps_without_zone: false,
        null_in_empty_list: false,
        naming: Naming::PLAIN,
        is_conditional: false,
    }) };
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
        let Semantics { ansi, precision_loss, timestamps_without_zone, naming, .. } = semantics;
        let null_in_empty_list = semantics.null_in_empty_list.unwrap_or(!ansi);
        Self {
            ansi,
            precision_loss,
            timestamps_without_zone,
            null_in_empty_list,
            naming,
            is_conditional: false,
        }
    }

    /// The rules in force.
    pub fn current() -> Self {
        IN_FORCE.get()
    }

    /// Runs an analysis of what is computed only for some rows.
    pub fn for_some_rows<T>(analysis: impl FnOnce() -> T) -> T {
        Self { is_conditional: true, ..Self::current() }.apply(analysis)
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
