//! Window functions over the groups of a GROUP BY.

use crate::table::error::Place;
use crate::table::expr::{Expr, SortOrder};
use crate::table::plan::Plan;
use crate::table::plan::analyzer::has_aggregate_itself;
use crate::table::plan::join::qualified;
use crate::table::plan::window_function::has_over;

/// Splits the SELECT list and other expressions over groups into columns of the groups and
/// expressions over these columns, so that window functions are computed over the groups.
#[derive(Default)]
pub struct OverGroups {
    /// The columns of the groups, with the names `g0`, `g1`, ….
    pub columns: Vec<Expr>,
    texts: Vec<String>,
}

impl OverGroups {
    /// The relation name of the columns.
    pub const RELATION: &'static str = "#groups";

    /// Rewrites an expression over the columns, which are added if they do not exist.
    pub fn lift(&mut self, expr: &Expr) -> Expr {
        match expr {
            Expr::Literal(..) => expr.clone(),
            Expr::Alias(inner, name) => Expr::Alias(Box::new(self.lift(inner)), name.clone()),
            Expr::Over(over) => {
                let mut over = over.clone();
                over.call = self.lift_parts(&over.call);
                over.partition.iter_mut().for_each(|key| *key = self.lift(key));
                over.order.iter_mut().for_each(|key| key.expr = self.lift(&key.expr));
                Expr::Over(over)
            }
            _ if has_over(expr) && !has_aggregate_itself(expr) => {
                expr.map_children(&mut |part| self.lift(part))
            }
            _ => self.column(expr),
        }
    }

    /// Rewrites the arguments of a call, and those of the call inside WITHIN GROUP.
    fn lift_parts(&mut self, call: &Expr) -> Expr {
        match call {
            Expr::WithinGroup(inner, keys) => {
                let inner = Box::new(self.lift_parts(inner));
                let key = |key: &SortOrder| SortOrder { expr: self.lift(&key.expr), ..key.clone() };
                Expr::WithinGroup(inner, keys.iter().map(key).collect())
            }
            Expr::Call { args, .. } if matches!(args.as_slice(), [Expr::Star(None)]) => {
                call.clone()
            }
            _ => call.map_children(&mut |part| self.lift(part)),
        }
    }

    fn column(&mut self, expr: &Expr) -> Expr {
        let text = expr.to_string();
        let at = match self.texts.iter().position(|other| *other == text) {
            Some(at) => at,
            None => {
                self.columns.push(expr.clone().alias(&format!("g{}", self.columns.len())));
                self.texts.push(text);
                self.columns.len() - 1
            }
        };
        let parts = vec![Self::RELATION.to_string(), format!("g{at}")];
        Expr::Column { parts, place: Place::default() }
    }
}

/// Qualifies the columns of the groups, and names the hidden ones.
pub fn groups_named(plan: Plan) -> Plan {
    let mut scope = plan.scope();
    for column in &mut scope.columns {
        column.qualifier = Some(OverGroups::RELATION.to_string());
    }
    qualified(plan, &scope)
}
