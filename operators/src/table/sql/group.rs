//! Converts GROUP BY: the keys, and the grouping sets of ROLLUP, CUBE and GROUPING SETS.

use super::expr::{Subqueries, convert_with};
use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::expr::Expr;
use crate::table::plan::analyzer::{has_aggregate, has_aggregate_itself};
use crate::table::plan::grouping::named_columns;
use crate::table::types::DataType;
use sqlparser::ast::{self, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr};

/// The maximum number of grouping sets of one GROUP BY.
const MAX_SETS: usize = 256;

/// A parsed GROUP BY clause.
pub(super) struct GroupBy {
    /// The distinct keys.
    pub keys: Vec<Expr>,
    /// The indices of the keys in each grouping set; `None` without grouping sets.
    pub sets: Option<Vec<Vec<usize>>>,
    /// Whether this is GROUP BY ALL, which groups by all expressions of the SELECT list without
    /// aggregates.
    pub all: bool,
}

impl GroupBy {
    /// Whether the query has a GROUP BY clause.
    pub fn is_written(&self) -> bool {
        self.all || !self.keys.is_empty() || self.sets.is_some()
    }

    /// The keys of GROUP BY ALL, derived from the SELECT list.
    pub fn keys_of_all(&self, items: &[Expr]) -> PlanResult<Vec<Expr>> {
        let keys: Vec<Expr> = items.iter().filter(|item| !has_aggregate(item)).cloned().collect();
        let mixed = |item: &&Expr| reads_beside_aggregates(item);
        match items.iter().find(mixed) {
            Some(item) if keys.is_empty() => Err(PlanError::new(
                "UNRESOLVED_ALL_IN_GROUP_BY",
                format!("`GROUP BY ALL` cannot determine the keys of `{item}`"),
                "Name the columns to group by",
            )
            .at(item.place())),
            _ => Ok(keys),
        }
    }

    /// Fails if GROUP BY has ordinals and the SELECT list contains `*`.
    pub fn check_star(&self, items: &[Expr]) -> PlanResult<()> {
        let is_number = |key: &Expr| matches!(key, Expr::Literal(_, DataType::Int));
        let is_star = |item: &Expr| matches!(item, Expr::Star(_) | Expr::StarExcept(..));
        if self.keys.iter().any(is_number) && items.iter().any(is_star) {
            return Err(PlanError::new(
                "STAR_GROUP_BY_POS",
                "`GROUP BY` has the number of a column, and the SELECT list a star",
                "Name the columns",
            ));
        }
        Ok(())
    }
}

/// Whether an expression contains an aggregate and also reads a column outside of the aggregate.
fn reads_beside_aggregates(expr: &Expr) -> bool {
    fn reads(expr: &Expr) -> bool {
        match expr {
            Expr::Column { .. } | Expr::Position(..) => true,
            Expr::UserAggregate(..) => false,
            Expr::Call { .. } if has_aggregate_itself(expr) => false,
            Expr::Lambda(..) => {
                let mut names = Vec::new();
                named_columns(expr, &mut names);
                !names.is_empty()
            }
            _ => {
                let mut found = false;
                expr.each_part(&mut |part| found = found || reads(part));
                found
            }
        }
    }
    has_aggregate(expr) && reads(expr)
}

/// The distinct keys found so far during the conversion of the clause.
struct Keys<'h> {
    keys: Vec<Expr>,
    constants: &'h Subqueries<'h>,
    here: Place,
}

type Sets = Vec<Vec<usize>>;

impl Keys<'_> {
    fn place(&mut self, expr: &ast::Expr) -> PlanResult<usize> {
        let key = convert_with(expr, self.constants)?;
        Ok(self.keys.iter().position(|other| same(other, &key)).unwrap_or_else(|| {
            self.keys.push(key);
            self.keys.len() - 1
        }))
    }

    fn groups(&mut self, groups: &[Vec<ast::Expr>]) -> PlanResult<Sets> {
        let mut group = |group: &Vec<ast::Expr>| group.iter().map(|e| self.place(e)).collect();
        groups.iter().map(&mut group).collect()
    }

    /// Converts the groups of ROLLUP or CUBE. Fails for an empty group.
    fn parts(&mut self, groups: &[Vec<ast::Expr>]) -> PlanResult<Sets> {
        if groups.iter().any(Vec::is_empty) {
            return Err(PlanError::new(
                "_LEGACY_ERROR_TEMP_0051",
                "`ROLLUP` and `CUBE` take no empty group of keys",
                "Write the empty set in GROUPING SETS",
            )
            .at(self.here));
        }
        self.groups(groups)
    }

    /// Converts the elements of GROUPING SETS. Each element gives one or more grouping sets.
    fn sets(&mut self, groups: &[Vec<ast::Expr>]) -> PlanResult<Sets> {
        let mut sets = Vec::new();
        for group in groups {
            match group.as_slice() {
                [ast::Expr::Function(function)] => match nested(function) {
                    Some((name, groups)) if name == "rollup" => {
                        sets.extend(rollup(self.parts(&groups)?));
                    }
                    Some((_, groups)) => sets.extend(cube(self.parts(&groups)?)),
                    None => sets.extend(self.groups(std::slice::from_ref(group))?),
                },
                _ => sets.extend(self.groups(std::slice::from_ref(group))?),
            }
        }
        Ok(sets)
    }
}

/// Whether two keys are equal. For column names, the position in the text is ignored.
fn same(a: &Expr, b: &Expr) -> bool {
    match (a, b) {
        (Expr::Column { parts: a, .. }, Expr::Column { parts: b, .. }) => a == b,
        (a, b) => a == b,
    }
}

/// Recognises ROLLUP and CUBE inside GROUPING SETS; the parser treats them as function calls.
fn nested(function: &ast::Function) -> Option<(String, Vec<Vec<ast::Expr>>)> {
    let name = function.name.to_string().to_ascii_lowercase();
    let FunctionArguments::List(list) = &function.args else { return None };
    if !matches!(name.as_str(), "rollup" | "cube") {
        return None;
    }
    let group = |arg: &FunctionArg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Tuple(keys))) => Some(keys.clone()),
        FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Nested(key))) => {
            Some(vec![(**key).clone()])
        }
        FunctionArg::Unnamed(FunctionArgExpr::Expr(key)) => Some(vec![key.clone()]),
        _ => None,
    };
    Some((name, list.args.iter().map(group).collect::<Option<_>>()?))
}

fn rollup(groups: Sets) -> Sets {
    if groups.len() > MAX_SETS {
        // The caller refuses this many sets.
        return vec![Vec::new(); groups.len() + 1];
    }
    (0..=groups.len()).rev().map(|n| groups[..n].concat()).collect()
}

fn cube(groups: Sets) -> Sets {
    let chosen = |bits: usize| {
        let there = |i: &usize| bits >> (groups.len() - 1 - i) & 1 == 0;
        (0..groups.len()).filter(there).flat_map(|i| groups[i].clone()).collect()
    };
    (0..1usize << groups.len().min(12)).map(chosen).collect()
}

/// Converts the GROUP BY clause.
pub(super) fn group_by(
    clause: &GroupByExpr,
    constants: &Subqueries<'_>,
    here: Place,
) -> PlanResult<GroupBy> {
    let GroupByExpr::Expressions(written, modifiers) = clause else {
        return Ok(GroupBy { keys: Vec::new(), sets: None, all: true });
    };
    let mut keys = Keys { keys: Vec::new(), constants, here };
    // Each part of the clause has grouping sets. The sets of the clause are their cross product.
    let mut sets: Sets = vec![Vec::new()];
    let mut any = false;
    for expr in written {
        let part = match expr {
            ast::Expr::Rollup(groups) => rollup(keys.parts(groups)?),
            ast::Expr::Cube(groups) => cube(keys.parts(groups)?),
            ast::Expr::GroupingSets(groups) => keys.sets(groups)?,
            ast::Expr::Tuple(values) if values.is_empty() => {
                let reason = "`GROUP BY ()` is not Spark's grammar";
                let fix = "Write GROUP BY GROUPING SETS (())";
                return Err(PlanError::new("PARSE_SYNTAX_ERROR", reason, fix).at(here));
            }
            key => {
                let at = keys.place(key)?;
                sets.iter_mut().for_each(|set| set.push(at));
                continue;
            }
        };
        any = true;
        check_size(sets.len().saturating_mul(part.len()), keys.keys.len(), here)?;
        let with = |set: &Vec<usize>| {
            part.iter().map(|more| [&set[..], more].concat()).collect::<Vec<_>>()
        };
        sets = sets.iter().flat_map(with).collect();
    }
    for modifier in modifiers {
        let groups = (0..keys.keys.len()).map(|key| vec![key]).collect();
        sets = match modifier {
            ast::GroupByWithModifier::Rollup => rollup(groups),
            ast::GroupByWithModifier::Cube => cube(groups),
            // In Hive's syntax, the keys before GROUPING SETS determine only the order of the keys.
            ast::GroupByWithModifier::GroupingSets(ast::Expr::GroupingSets(groups)) => {
                keys.sets(groups)?
            }
            other => {
                return Err(PlanError::not_yet(format_args!("`GROUP BY` … {other}")).at(here));
            }
        };
        any = true;
    }
    check_size(sets.len(), keys.keys.len(), here)?;
    Ok(GroupBy { keys: keys.keys, sets: any.then_some(sets), all: false })
}

fn check_size(sets: usize, keys: usize, here: Place) -> PlanResult<()> {
    if sets <= MAX_SETS && keys <= 62 {
        return Ok(());
    }
    Err(PlanError::new(
        "GROUPING_SIZE_LIMIT_EXCEEDED",
        format!("`GROUP BY` has {sets} sets of {keys} keys"),
        format!("Use at most {MAX_SETS} sets: each row belongs to a group of each set"),
    )
    .at(here))
}
