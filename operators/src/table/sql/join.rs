//! Plans the JOINs of a FROM clause.

use super::expr::convert_with;
use super::lateral::{is_lateral, lateral};
use super::pivot::{is_pivot, pivoted};
use super::query::{plain, relation};
use super::refused;
use super::rewrite::LEFT_MATCH;
use super::subquery::{Joining, constants, has_subquery, tests_subquery, written_conjuncts};
use super::{Catalog, REWRITTEN, place};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::resolve::{ScopeColumn, resolve};
use crate::table::expr::{Expr, call};
use crate::table::plan::Plan;
use crate::table::plan::analyzer::boolean;
use crate::table::plan::asof_join::{self, MatchCondition, On};
use crate::table::plan::join;
use crate::table::plan::join::JoinType;
use crate::table::plan::limits::{MAX_NESTING, too_complex};
use sqlparser::ast::{self, JoinConstraint, JoinOperator, Spanned, TableWithJoins};

/// Plans an ASOF join from its MATCH_CONDITION and its ON or USING clause.
fn asof(
    left: Plan,
    right: Plan,
    (condition, constraint): (&ast::Expr, &JoinConstraint),
    catalog: &dyn Catalog,
) -> PlanResult<Plan> {
    if !catalog.has_asof_join() {
        return Err(asof_join::not_enabled());
    }
    let (is_left, condition) = match outer_match(condition) {
        Some(condition) => (true, condition),
        None => (false, condition),
    };
    if let Some(subquery) = operands(condition).into_iter().find(|e| is_subquery(e)) {
        return Err(asof_join::invalid_expression().at(place(subquery.span().start)));
    }
    let condition = MatchCondition::of(&convert_with(condition, &constants(catalog))?)?;
    let names: Vec<_>;
    let expr;
    let on = match constraint {
        JoinConstraint::None => On::All,
        JoinConstraint::On(condition) => {
            expr = convert_with(condition, &constants(catalog))?;
            On::Condition(&expr)
        }
        JoinConstraint::Using(columns) => {
            names = columns.iter().map(plain).collect();
            On::Columns(&names)
        }
        _ => return Err(PlanError::not_yet("NATURAL ASOF JOIN")),
    };
    asof_join::asof_join(left, right, is_left, &on, &condition)
}

/// The two operands of a binary operator; empty for any other expression.
fn operands(condition: &ast::Expr) -> Vec<&ast::Expr> {
    match condition {
        ast::Expr::Nested(inner) => operands(inner),
        ast::Expr::BinaryOp { left, right, .. } => vec![left, right],
        _ => Vec::new(),
    }
}

fn is_subquery(expr: &ast::Expr) -> bool {
    matches!(expr, ast::Expr::Subquery(_))
}

/// The match condition of a `LEFT ASOF JOIN`; `None` for an inner ASOF join. The rewriting of
/// tokens has marked the condition of a left join with a call.
fn outer_match(condition: &ast::Expr) -> Option<&ast::Expr> {
    let ast::Expr::Function(call) = condition else { return None };
    let name = format!("{REWRITTEN}{LEFT_MATCH}");
    let is_it = matches!(call.name.0.as_slice(), [part] if part.as_ident().is_some_and(|i| i.value == name));
    match &call.args {
        ast::FunctionArguments::List(list) if is_it => match list.args.as_slice() {
            [ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(inner))] => Some(inner),
            _ => None,
        },
        _ => None,
    }
}

/// Plans a join with an ON condition.
fn on(
    left: Plan,
    right: Plan,
    kind: JoinType,
    written: &ast::Expr,
    catalog: &dyn Catalog,
) -> PlanResult<Plan> {
    let plain = || {
        let expr = convert_with(written, &constants(catalog))?;
        let scope = join::both(&left.scope(), &right.scope());
        boolean(resolve(&expr, &scope)?, &expr, "ON")
    };
    match plain() {
        Ok(condition) => join::join(left, right, kind, Some(condition)),
        Err(_) if has_subquery(written) => on_subqueries(left, right, kind, written, catalog),
        Err(error) => Err(error),
    }
}

/// Plans a join whose condition has subqueries other than constants. In an inner join they filter
/// the joined rows. In other joins, each of them must depend on one side alone, whose rows get its
/// value as a hidden column.
fn on_subqueries(
    left: Plan,
    right: Plan,
    kind: JoinType,
    written: &ast::Expr,
    catalog: &dyn Catalog,
) -> PlanResult<Plan> {
    let (with, without): (Vec<_>, Vec<_>) =
        written_conjuncts(written).into_iter().partition(|conjunct| has_subquery(conjunct));
    if kind != JoinType::Inner {
        // Names are those of both sides, so that an ambiguous one is an error.
        let both = join::join(left.clone(), right.clone(), JoinType::Inner, None)?;
        let both = Joining::of_join(both, left.width(), catalog);
        with.iter().try_for_each(|conjunct| both.condition_column(conjunct).map(drop))?;
    }
    let convert = |conjunct: &&ast::Expr| convert_with(conjunct, &constants(catalog));
    let mut exprs = without.iter().map(convert).collect::<PlanResult<Vec<_>>>()?;
    let (of_left, of_right) = (Joining::new(left, catalog), Joining::new(right, catalog));
    // The indices of the right side's columns follow those of the left side.
    let mut right_columns = Vec::new();
    if kind != JoinType::Inner {
        for conjunct in &with {
            if tests_subquery(conjunct) {
                let what = "a test of a subquery's result in ON of an outer join";
                return Err(PlanError::not_yet(what).at(place(conjunct.span().start)));
            }
            match of_left.condition_column(conjunct) {
                Ok(column) => exprs.push(column),
                Err(_) => {
                    let of_both = || {
                        let what = "a subquery in ON that reads both sides of an outer join";
                        PlanError::not_yet(what).at(place(conjunct.span().start))
                    };
                    right_columns.push(of_right.condition_column(conjunct).map_err(|_| of_both())?);
                }
            }
        }
    }
    let (left, right) = (of_left.into_plan(), of_right.into_plan());
    let width = left.width();
    exprs.extend(right_columns.iter().map(|column| match column {
        Expr::Position(at, name) => Expr::Position(width + at, name.clone()),
        other => other.clone(),
    }));
    let condition = exprs.into_iter().reduce(|all, one| call("and", [all, one]));
    let scope = join::both(&left.scope(), &right.scope());
    let condition = match condition {
        Some(expr) => Some(boolean(resolve(&expr, &scope)?, &expr, "ON")?),
        None => None,
    };
    let joined = join::join(left, right, kind, condition)?;
    if kind != JoinType::Inner {
        return Ok(joined);
    }
    let filtered = Joining::of_join(joined, width, catalog);
    with.iter().try_for_each(|conjunct| filtered.filter(conjunct))?;
    Ok(filtered.into_plan())
}

/// Plans a relation of FROM and the relations joined to it.
pub(super) fn relation_with_joins(
    table: &TableWithJoins,
    catalog: &dyn Catalog,
) -> PlanResult<Plan> {
    joined_to(relation(&table.relation, catalog)?, &table.joins, catalog)
}

/// The type of a join and its condition.
fn kind_of(operator: &JoinOperator) -> PlanResult<(JoinType, &JoinConstraint)> {
    Ok(match operator {
        JoinOperator::Join(c) | JoinOperator::Inner(c) | JoinOperator::CrossJoin(c) => {
            (JoinType::Inner, c)
        }
        JoinOperator::Left(c) | JoinOperator::LeftOuter(c) => (JoinType::LeftOuter, c),
        JoinOperator::Right(c) | JoinOperator::RightOuter(c) => (JoinType::RightOuter, c),
        JoinOperator::FullOuter(c) => (JoinType::FullOuter, c),
        JoinOperator::Semi(c) | JoinOperator::LeftSemi(c) => (JoinType::LeftSemi, c),
        JoinOperator::Anti(c) | JoinOperator::LeftAnti(c) => (JoinType::LeftAnti, c),
        JoinOperator::RightSemi(_)
        | JoinOperator::RightAnti(_)
        | JoinOperator::CrossApply
        | JoinOperator::OuterApply
        | JoinOperator::AsOf { .. }
        | JoinOperator::StraightJoin(_)
        | JoinOperator::ArrayJoin
        | JoinOperator::LeftArrayJoin
        | JoinOperator::InnerArrayJoin => return Err(refused::unknown_join(operator)),
    })
}

/// Joins relations to a plan, one after the other.
pub(super) fn joined_to(
    mut left: Plan,
    joins: &[ast::Join],
    catalog: &dyn Catalog,
) -> PlanResult<Plan> {
    if let Some(beyond) = joins.get(MAX_NESTING) {
        let here = place(beyond.relation.span().start);
        return Err(too_complex(format!("more than {MAX_NESTING} tables are joined"), here));
    }
    for joined in joins {
        refused::check_join(joined)?;
        if is_pivot(joined) {
            left = pivoted(left, joined, catalog)?;
            continue;
        }
        let here = place(joined.relation.span().start);
        if is_lateral(&joined.relation) {
            let (kind, constraint) =
                kind_of(&joined.join_operator).map_err(|error| error.at(here))?;
            left = lateral(left, &joined.relation, kind, constraint, catalog, here)
                .map_err(|error| error.at(here))?;
            continue;
        }
        let right = relation(&joined.relation, catalog)?;
        if let JoinOperator::AsOf { match_condition, constraint } = &joined.join_operator {
            left = asof(left, right, (match_condition, constraint), catalog)
                .map(|plan| join::placed(plan, here))
                .map_err(|error| error.at(here))?;
            continue;
        }
        let (written, constraint) =
            kind_of(&joined.join_operator).map_err(|error| error.at(here))?;
        left = match constraint {
            JoinConstraint::None => join::join(left, right, written, None),
            JoinConstraint::On(condition) => on(left, right, written, condition, catalog),
            JoinConstraint::Using(names) => {
                let names: Vec<_> = names.iter().map(plain).collect();
                join::join_using(left, right, written, &names)
            }
            JoinConstraint::Natural
                if matches!(written, JoinType::LeftSemi | JoinType::LeftAnti) =>
            {
                Err(PlanError::new(
                    "UNSUPPORTED_JOIN_TYPE",
                    "a NATURAL join is neither SEMI nor ANTI",
                    "Name the columns: LEFT SEMI JOIN t USING (k)",
                ))
            }
            JoinConstraint::Natural => {
                let (of_left, of_right) = (left.scope().columns, right.scope().columns);
                let of_both = |name: &String| {
                    let same = |c: &ScopeColumn| !c.hidden && c.name.eq_ignore_ascii_case(name);
                    of_right.iter().any(same)
                };
                let shown = of_left.into_iter().filter(|c| !c.hidden);
                let names = shown.map(|c| c.name).filter(of_both);
                let names: Vec<_> = names.collect();
                join::join_using(left, right, written, &names)
            }
            JoinConstraint::UsingAlias(..) => Err(PlanError::not_yet("`USING` … AS")),
        }
        .map(|plan| join::placed(plan, here))
        .map_err(|error| error.at(here))?;
    }
    Ok(left)
}
