//! Plans SELECT statements with window functions, `WINDOW` and `QUALIFY`.

use super::Catalog;
use super::expr::definition;
use super::group::GroupBy;
use super::order::Order;
use super::query::distinct_of;
use super::subquery::constants;
use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::expr::Expr;
use crate::table::expr::resolve::Scope;
use crate::table::plan::Plan;
use crate::table::plan::analyzer;
use crate::table::plan::grouping::{Grouping, substitute};
use crate::table::plan::over_groups::{OverGroups, groups_named};
use crate::table::plan::window_function::{NamedWindow, WindowPlanner, has_over, with_definition};
use sqlparser::ast::{self, Select};

/// The windows of the WINDOW clause and QUALIFY.
pub(super) struct WindowClauses {
    named: Vec<NamedWindow>,
    qualify: Option<Expr>,
}

impl WindowClauses {
    pub fn new(
        select: &Select,
        convert: &dyn Fn(&ast::Expr) -> PlanResult<Expr>,
        catalog: &dyn Catalog,
        here: Place,
    ) -> PlanResult<Self> {
        let named = named_windows(select, catalog, here)?;
        let qualify = select.qualify.as_ref().map(convert).transpose()?;
        Ok(Self { named, qualify })
    }

    /// Plans the SELECT list, QUALIFY and ORDER BY over an input, whose columns the expressions
    /// read.
    pub fn plan(
        &self,
        input: Plan,
        items: &[Expr],
        order: Option<&Order>,
        distinct: bool,
    ) -> PlanResult<Plan> {
        let mut planner = WindowPlanner::new(input, &self.named);
        let qualify = self.qualify.as_ref();
        let rewritten =
            items.iter().map(|item| planner.item(item)).collect::<PlanResult<Vec<_>>>()?;
        let order =
            order.map(|order| order.map_exprs(&mut |key| planner.known(key))).transpose()?;
        if let Some(condition) = qualify {
            planner.qualify(condition)?;
        }
        let input = planner.into_plan();
        let below = if distinct { input.scope() } else { Scope::default() };
        let plan = analyzer::project(input, &rewritten)?;
        match (distinct, order) {
            (false, None) => Ok(plan),
            (false, Some(order)) => order.sort_selected(plan, &rewritten),
            (true, order) => distinct_of(plan, (&rewritten, &below), order.as_ref()),
        }
    }

    /// Replaces the aliases of the SELECT list in QUALIFY.
    pub fn without_aliases(self, items: &[Expr], scope: &Scope) -> Self {
        let qualify = self.qualify.map(|condition| substitute(&condition, items, scope));
        Self { qualify, ..self }
    }

    /// Whether an item or QUALIFY has a window function.
    pub fn are_used(&self, items: &[Expr]) -> bool {
        items.iter().chain(&self.qualify).any(has_over)
    }

    /// Fails for QUALIFY in a query without window functions.
    pub fn check_qualify(&self, items: &[Expr]) -> PlanResult<()> {
        match &self.qualify {
            Some(condition) if !self.are_used(items) => Err(PlanError::new(
                "QUALIFY_REQUIRES_WINDOW_FUNCTION",
                format!("`QUALIFY {condition}` has no window function, nor has the SELECT list"),
                "Use WHERE or HAVING",
            )
            .at(condition.place())),
            _ => Ok(()),
        }
    }

    /// The condition of QUALIFY, as it is written.
    pub fn qualify(&self) -> Option<&Expr> {
        self.qualify.as_ref()
    }

    /// Fails if a window function of the SELECT list uses an alias of an earlier item.
    pub fn check_aliases(&self, items: &[Expr], scope: &Scope) -> PlanResult<()> {
        let mut aliases = Vec::new();
        for item in items {
            if has_over(item) {
                self.check_windows(item, &aliases, scope)?;
            }
            if matches!(item, Expr::Alias(..)) {
                aliases.push(item.clone());
            }
        }
        Ok(())
    }

    fn check_windows(&self, expr: &Expr, aliases: &[Expr], scope: &Scope) -> PlanResult<()> {
        if let Expr::Over(over) = expr {
            let whole = Expr::Over(Box::new(with_definition(over, &self.named)?));
            if substitute(&whole, aliases, scope) != whole {
                return Err(PlanError::new(
                    "UNSUPPORTED_FEATURE.LATERAL_COLUMN_ALIAS_IN_WINDOW",
                    format!("`{expr}` has an alias of the same SELECT list"),
                    "Write the expression itself, or compute it in a subquery",
                )
                .at(expr.place()));
            }
        }
        let mut checked = Ok(());
        expr.each_part(&mut |part| {
            if checked.is_ok() {
                checked = self.check_windows(part, aliases, scope);
            }
        });
        checked
    }
}

/// Fails if a key of ORDER BY, SORT BY, CLUSTER BY or DISTRIBUTE BY has a window function.
pub(super) fn refuse_in_order(order: &Order) -> PlanResult<()> {
    match order.exprs().iter().find(|key| has_over(&key.expr)) {
        None => Ok(()),
        Some(key) => Err(PlanError::new(
            "UNSUPPORTED_EXPR_FOR_OPERATOR",
            format!(
                "`{}` has a window function, which cannot be a key of ORDER BY, SORT BY, CLUSTER BY \
                 or DISTRIBUTE BY",
                key.expr
            ),
            "Select it under a name, and order by that",
        )
        .at(key.expr.place())),
    }
}

/// The windows of the WINDOW clause. As in Spark, names differ in case, and a window may be another
/// name for one that is defined in the clause.
fn named_windows(
    select: &Select,
    catalog: &dyn Catalog,
    here: Place,
) -> PlanResult<Vec<NamedWindow>> {
    let constant = constants(catalog);
    let wrong = |condition: &str, reason: String, fix: &str| {
        PlanError::new(condition, reason, fix).at(here)
    };
    let mut named: Vec<NamedWindow> = Vec::new();
    let mut references = Vec::new();
    for (at, ast::NamedWindowDefinition(name, window)) in select.named_window.iter().enumerate() {
        let before = &select.named_window[..at];
        if before.iter().any(|ast::NamedWindowDefinition(other, _)| other.value == name.value) {
            let reason = format!("the window `{}` is defined twice", name.value);
            return Err(wrong(
                "INVALID_SQL_SYNTAX.REPETITIVE_WINDOW_DEFINITION",
                reason,
                "Give it another name",
            ));
        }
        match window {
            ast::NamedWindowExpr::WindowSpec(spec) => {
                named.push((name.value.clone(), definition(Some(spec), here, &constant)?));
            }
            ast::NamedWindowExpr::NamedWindow(other) => references.push((name, other)),
        }
    }
    let defined = named.len();
    for (name, other) in &references {
        let found = named[..defined].iter().find(|(known, _)| *known == other.value);
        let Some((_, over)) = found else {
            let is_reference = references.iter().any(|(name, _)| name.value == other.value);
            return Err(match is_reference {
                true => wrong(
                    "INVALID_SQL_SYNTAX.INVALID_WINDOW_REFERENCE",
                    format!("the window `{}` is only another name of a window", other.value),
                    "Refer to a window with a definition",
                ),
                false => wrong(
                    "INVALID_SQL_SYNTAX.UNRESOLVED_WINDOW_REFERENCE",
                    format!("there is no window `{}`", other.value),
                    "Define it in the WINDOW clause",
                ),
            });
        };
        named.push((name.value.clone(), over.clone()));
    }
    Ok(named)
}

/// Plans window functions over the groups of a GROUP BY.
pub(super) fn over_groups(
    windows: &WindowClauses,
    input: Plan,
    items: &[Expr],
    (group_by, having): (GroupBy, Option<&Expr>),
    order: Option<&Order>,
    distinct: bool,
) -> PlanResult<Plan> {
    let scope = input.scope();
    let grouping = Grouping::with_sets(input, &group_by.keys, group_by.sets, items)?;
    if let Some(condition) = windows.qualify() {
        grouping.check_qualify(condition, items)?;
        windows.check_qualify(items)?;
    }
    let mut groups = OverGroups::default();
    let mut lifted: Vec<Expr> = Vec::new();
    for item in items {
        let outer = groups.lift(item);
        lifted.push(match (item, outer) {
            (_, named @ Expr::Alias(..)) => named,
            (item, other) => other.alias(&item.output_name()),
        });
    }
    let having = having.map(|condition| substitute(condition, items, &scope));
    if let Some(condition) = having.as_ref().filter(|condition| has_over(condition)) {
        return Err(PlanError::new(
            "UNRESOLVED_COLUMN.WITH_SUGGESTION",
            "HAVING has the alias of a window function, which is computed later",
            "Use QUALIFY",
        )
        .at(condition.place()));
    }
    let qualify = windows.qualify.as_ref().map(|condition| {
        let condition = substitute(condition, items, &scope);
        groups.lift(&condition)
    });
    // A key that is an alias or an ordinal refers to the output.
    let is_output = |key: &Expr| match key {
        Expr::Literal(..) => true,
        Expr::Column { parts, .. } => {
            parts.len() == 1
                && items.iter().any(|item| item.output_name().eq_ignore_ascii_case(&parts[0]))
        }
        _ => false,
    };
    let order = order.map(|order| {
        order.map_exprs(&mut |key| {
            if is_output(key) {
                return Ok(key.clone());
            }
            grouping.check_key_above(key, items)?;
            Ok(groups.lift(&substitute(key, items, &scope)))
        })
    });
    let order = order.transpose()?;
    let plan = groups_named(grouping.finish(&groups.columns, having.as_ref())?);
    let windows = WindowClauses { named: windows.named.clone(), qualify };
    windows.plan(plan, &lifted, order.as_ref(), distinct)
}
