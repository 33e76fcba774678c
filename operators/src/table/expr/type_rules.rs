//! The rules by which expressions are resolved: Spark's ANSI rules or its legacy rules.
//!
//! Resolution is a recursion on the caller's thread. The rules apply to the whole recursion. So
//! they are thread-local and set at the start of the recursion ([`Rules::apply`]), instead of being
//! passed to every function.

use crate::table::expr::compile::Semantics;
use std::cell::Cell;

/// How names and ordinals of columns are interpreted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Naming {
    /// `spark.sql.groupByAliases`: GROUP BY may refer to aliases of the SELECT list.
    pub group_by_aliases: bool,
    /// `spark.sql.groupByOrdinal`: a number in GROUP BY is the ordinal of a SELECT list column.
    pub group_by_ordinal: bool,
    /// `spark.sql.orderByOrdinal`: a number in ORDER BY is the ordinal of a SELECT list column.
    pub order_by_ordinal: bool,
    /// `spark.sql.legacy.setopsPrecedence.enabled`: set operations are evaluated from left to
    /// right, and INTERSECT has no precedence.
    pub sets_from_left: bool,
    /// `spark.sql.legacy.parser.havingWithoutGroupByAsWhere`: HAVING without GROUP BY filters rows.
    pub having_as_where: bool,
    /// `spark.sql.function.concatBinaryAsString`: `concat` of BINARY values gives a STRING.
    pub concat_as_text: bool,
    /// `spark.sql.function.eltOutputAsString`: `elt` of BINARY values gives a STRING.
    pub elt_as_text: bool,
}

impl Naming {
    /// Spark's default values of these settings.
    pub const PLAIN: Self = Self {
        group_by_aliases: true,
        group_by_ordinal: true,
        order_by_ordinal: true,
        sets_from_left: false,
        having_as_where: false,
        concat_as_text: false,
        elt_as_text: false,
    };

    /// The field of a setting, given the setting's key in lower case; `None` for other settings.
    pub fn setting(&mut self, key: &str) -> Option<&mut bool> {
        Some(match key {
            "spark.sql.groupbyaliases" => &mut self.group_by_aliases,
            "spark.sql.groupbyordinal" => &mut self.group_by_ordinal,
            "spark.sql.orderbyordinal" => &mut self.order_by_ordinal,
            "spark.sql.legacy.setopsprecedence.enabled" => &mut self.sets_from_left,
            "spark.sql.legacy.parser.havingwithoutgroupbyaswhere" => &mut self.having_as_where,
            "spark.sql.function.concatbinaryasstring" => &mut self.concat_as_text,
            "spark.sql.function.eltoutputasstring" => &mut self.elt_as_text,
            _ => return None,
        })
    }
}

/// The session settings that affect how expressions are resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// `spark.sql.ansi.enabled`.
    pub ansi: bool,
    /// `spark.sql.decimalOperations.allowPrecisionLoss`: a decimal type that needs more than 38
    /// digits reduces its scale.
    pub precision_loss: bool,
    /// `spark.sql.timestampType` is TIMESTAMP_NTZ: the type name TIMESTAMP means TIMESTAMP_NTZ.
    pub timestamps_without_zone: bool,
    /// Whether `NULL IN (empty subquery)` is NULL instead of false.
    pub null_in_empty_list: bool,
    /// How names and ordinals of columns are interpreted.
    pub naming: Naming,
    /// `spark.sql.columnNameOfCorruptRecord`.
    pub corrupt_column: &'static str,
    /// Whether the expression is evaluated only for some rows, such as a THEN branch. In such an
    /// expression, an invalid literal regular expression is an error only when a row evaluates it.
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
        corrupt_column: "_corrupt_record",
        is_conditional: false,
    }) };
}

/// On drop, restores the previous rules.
struct Restore(Rules);

impl Drop for Restore {
    fn drop(&mut self) {
        IN_FORCE.set(self.0);
    }
}

impl Rules {
    /// The rules that follow from a session's settings.
    pub fn of(semantics: Semantics) -> Self {
        let Semantics { ansi, precision_loss, timestamps_without_zone, naming, .. } = semantics;
        let null_in_empty_list = semantics.null_in_empty_list.unwrap_or(!ansi);
        Self {
            ansi,
            precision_loss,
            timestamps_without_zone,
            null_in_empty_list,
            naming,
            corrupt_column: semantics.corrupt_column,
            is_conditional: false,
        }
    }

    /// The rules that apply to the current thread.
    pub fn current() -> Self {
        IN_FORCE.get()
    }

    /// Runs `analysis` for an expression that is evaluated only for some rows.
    pub fn for_some_rows<T>(analysis: impl FnOnce() -> T) -> T {
        Self { is_conditional: true, ..Self::current() }.apply(analysis)
    }

    /// Runs `analysis` under these rules.
    pub fn apply<T>(self, analysis: impl FnOnce() -> T) -> T {
        let _restore = Restore(IN_FORCE.replace(self));
        analysis()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_apply_until_the_analysis_ends() {
        let old = Rules { ansi: false, ..Rules::default() };
        let inner = old.apply(|| {
            Rules::default().apply(|| assert!(Rules::current().ansi));
            Rules::current()
        });
        assert_eq!(inner, old);
        assert_eq!(Rules::current(), Rules::default());
    }
}
