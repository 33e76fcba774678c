//! Checks of clauses that are evaluated above windows or above a HAVING: ORDER BY and QUALIFY. They
//! can only use the groups and the SELECT list.

use super::{Grouping, named_columns, same};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::Expr;
use crate::table::expr::resolve::resolve;
use crate::table::plan::analyzer::has_aggregate_itself;
use crate::table::plan::window_function::has_over;
use crate::table::plan::within_group;

impl Grouping {
    /// Checks an ORDER BY key that is applied above other operators than the aggregation: windows,
    /// or the filter of a HAVING that reads columns that are not in the SELECT list. As in Spark,
    /// such a key may only use columns of the SELECT list, and grouping keys that are columns, and
    /// neither aggregates nor window functions.
    pub fn check_key_above(&self, key: &Expr, select: &[Expr]) -> PlanResult<()> {
        self.check_names(key, select, false, "ORDER BY")?;
        if !has_aggregate_call(key) && !has_over(key) {
            return Ok(());
        }
        Err(PlanError::new(
            "UNSUPPORTED_EXPR_FOR_OPERATOR",
            format!(
                "`{key}` in ORDER BY has an aggregate or a window function, which is not \
                available after windows or HAVING"
            ),
            "Select it under a name, and order by that",
        )
        .at(key.place()))
    }

    /// Checks the condition of QUALIFY, which is evaluated on the groups and the SELECT list. As in
    /// Spark, it may use grouping keys and columns of the SELECT list, and no aggregates.
    pub fn check_qualify(&self, condition: &Expr, select: &[Expr]) -> PlanResult<()> {
        self.check_names(condition, select, true, "QUALIFY")?;
        check_qualify_aggregates(condition)
    }

    /// Fails if an expression has a column that is neither in the SELECT list nor a grouping key.
    /// If `whole_keys`, the columns of a part that equals a grouping key are not checked.
    fn check_names(
        &self,
        expr: &Expr,
        select: &[Expr],
        whole_keys: bool,
        clause: &str,
    ) -> PlanResult<()> {
        let is_whole_key = |expr: &Expr| {
            resolve(expr, &self.scope)
                .is_ok_and(|expr| self.keys.iter().any(|(key, _)| same(key, &expr)))
        };
        // The name may be that of a field of a key.
        let is_key = |expr: &Expr| match expr {
            Expr::Column { parts, place } => (1..=parts.len()).any(|end| {
                is_whole_key(&Expr::Column { parts: parts[..end].to_vec(), place: *place })
            }),
            other => is_whole_key(other),
        };
        let is_output = |expr: &Expr| match expr {
            Expr::Column { parts, .. } => {
                select.iter().any(|item| item.output_name().eq_ignore_ascii_case(&parts[0]))
            }
            _ => false,
        };
        let mut names = Vec::new();
        match whole_keys {
            true => named_outside(expr, &is_key, &mut names),
            false => named_columns(expr, &mut names),
        }
        let Some(name) = names.into_iter().find(|name| !is_output(name) && !is_key(name)) else {
            return Ok(());
        };
        Err(PlanError::new(
            "UNRESOLVED_COLUMN.WITH_SUGGESTION",
            format!("`{name}` in {clause} is neither selected nor a key of GROUP BY"),
            "Select it under a name, and use that",
        )
        .at(expr.place()))
    }
}

/// Like [`named_columns`], without the columns of the largest parts that pass the test.
fn named_outside<'e>(expr: &'e Expr, test: &dyn Fn(&Expr) -> bool, out: &mut Vec<&'e Expr>) {
    match expr {
        Expr::Literal(..) => {}
        Expr::Column { .. } | Expr::Position(..) | Expr::Lambda(..) => named_columns(expr, out),
        _ if test(expr) => {}
        _ => expr.each_part(&mut |part| named_outside(part, test, out)),
    }
}

/// Whether an expression contains an aggregate function; `grouping` and `grouping_id` are none.
fn has_aggregate_call(expr: &Expr) -> bool {
    let mut found = has_aggregate_itself(expr) || matches!(expr, Expr::UserAggregate(..));
    if let Expr::Over(over) = expr {
        // The call itself is computed over a window.
        within_group::parts(&over.call).0.each_part(&mut |part| found |= has_aggregate_call(part));
        over.partition.iter().for_each(|key| found |= has_aggregate_call(key));
        over.order.iter().for_each(|key| found |= has_aggregate_call(&key.expr));
        return found;
    }
    expr.each_part(&mut |part| found = found || has_aggregate_call(part));
    found
}

/// Fails if a condition of QUALIFY has an aggregate. It has an error of its own inside of a window
/// function.
pub(in crate::table) fn check_qualify_aggregates(condition: &Expr) -> PlanResult<()> {
    fn outside_windows(expr: &Expr) -> bool {
        if has_aggregate_itself(expr) || matches!(expr, Expr::UserAggregate(..)) {
            return true;
        }
        let mut found = false;
        if !matches!(expr, Expr::Over(_)) {
            expr.each_part(&mut |part| found = found || outside_windows(part));
        }
        found
    }
    let (kind, reason) = match outside_windows(condition) {
        true => ("QUALIFY_AGGREGATE_NOT_ALLOWED", "has an aggregate function"),
        false if has_aggregate_call(condition) => {
            ("MISSING_GROUP_BY", "has a window function of an aggregate function")
        }
        false => return Ok(()),
    };
    Err(PlanError::new(
        kind,
        format!("`QUALIFY {condition}` {reason}"),
        "Select the aggregate under a name, and use that",
    )
    .at(condition.place()))
}
