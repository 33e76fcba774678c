//! Plans the JOINs of a FROM clause.

use super::expr::convert_with;
use super::query::{plain, relation};
use super::rewrite::LEFT_MATCH;
use super::subquery::constants;
use super::{Catalog, REWRITTEN, place};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::resolve::{ScopeColumn, resolve};
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

/// Plans a relation of FROM and the relations joined to it.
pub(super) fn relation_with_joins(
    table: &TableWithJoins,
    catalog: &dyn Catalog,
) -> PlanResult<Plan> {
    let mut left = relation(&table.relation, catalog)?;
    if let Some(beyond) = table.joins.get(MAX_NESTING) {
        let here = place(beyond.relation.span().start);
        return Err(too_complex(format!("more than {MAX_NESTING} tables are joined"), here));
    }
    for joined in &table.joins {
        super::refused::check_join(joined)?;
        let here = place(joined.relation.span().start);
        let right = relation(&joined.relation, catalog)?;
        if let JoinOperator::AsOf { match_condition, constraint } = &joined.join_operator {
            left = asof(left, right, (match_condition, constraint), catalog)
                .map(|plan| join::placed(plan, here))
                .map_err(|error| error.at(here))?;
            continue;
        }
        let (written, constraint) = match &joined.join_operator {
            JoinOperator::Join(c) | JoinOperator::Inner(c) | JoinOperator::CrossJoin(c) => {
                (JoinType::Inner, c)
            }
            JoinOperator::Left(c) | JoinOperator::LeftOuter(c) => (JoinType::LeftOuter, c),
            JoinOperator::Right(c) | JoinOperator::RightOuter(c) => (JoinType::RightOuter, c),
            JoinOperator::FullOuter(c) => (JoinType::FullOuter, c),
            JoinOperator::Semi(c) | JoinOperator::LeftSemi(c) => (JoinType::LeftSemi, c),
            JoinOperator::Anti(c) | JoinOperator::LeftAnti(c) => (JoinType::LeftAnti, c),
            other => return Err(PlanError::not_yet(format_args!("{other:?}")).at(here)),
        };
        left = match constraint {
            JoinConstraint::None => join::join(left, right, written, None),
            JoinConstraint::On(condition) => {
                let expr = convert_with(condition, &constants(catalog))?;
                let scope = join::both(&left.scope(), &right.scope());
                let condition = boolean(resolve(&expr, &scope)?, &expr, "ON")?;
                join::join(left, right, written, Some(condition))
            }
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
