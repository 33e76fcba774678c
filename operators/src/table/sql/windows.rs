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
use crate::table::plan::window_function::{NamedWindow, WindowPlanner, has_over};
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
        let constant = constants(catalog);
        let mut named: Vec<NamedWindow> = Vec::new();
        for ast::NamedWindowDefinition(name, window) in &select.named_window {
            let over = match window {
                ast::NamedWindowExpr::WindowSpec(spec) => definition(Some(spec), here, &constant)?,
                ast::NamedWindowExpr::NamedWindow(other) => {
                    let same = |(known, _): &&NamedWindow| known.eq_ignore_ascii_case(&other.value);
                    let found = named.iter().find(same);
                    let Some((_, over)) = found else {
                        return Err(PlanError::new(
                            "MISSING_WINDOW_SPECIFICATION",
                            format!("there is no window `{}`", other.value),
                            "Define it before its use",
                        )
                        .at(here));
                    };
                    over.clone()
                }
            };
            named.push((name.value.clone(), over));
        }
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

    /// Whether an item or QUALIFY has a window function. Fails for QUALIFY without one.
    pub fn are_used(&self, items: &[Expr]) -> PlanResult<bool> {
        let used = items.iter().chain(&self.qualify).any(has_over);
        match &self.qualify {
            Some(condition) if !used => Err(PlanError::new(
                "QUALIFY_REQUIRES_WINDOW_FUNCTION",
                format!("`QUALIFY {condition}` has no window function, nor has the SELECT list"),
                "Use WHERE or HAVING",
            )
            .at(condition.place())),
            _ => Ok(used),
        }
    }
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
            Ok(if is_output(key) {
                key.clone()
            } else {
                groups.lift(&substitute(key, items, &scope))
            })
        })
    });
    let order = order.transpose()?;
    let grouping = Grouping::with_sets(input, &group_by.keys, group_by.sets, items)?;
    let plan = groups_named(grouping.finish(&groups.columns, having.as_ref())?);
    let windows = WindowClauses { named: windows.named.clone(), qualify };
    windows.plan(plan, &lifted, order.as_ref(), distinct)
}
