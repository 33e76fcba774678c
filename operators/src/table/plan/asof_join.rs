//! Analysis of `ASOF JOIN … MATCH_CONDITION (a op b)`. It joins each left row with the matching
//! right row whose value is closest.

use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::resolve::resolve;
use crate::table::expr::{Expr, Node, Resolved};
use crate::table::plan::join::{self, JoinType, compared, reads};
use crate::table::plan::optimizer::is_deterministic_expr;
use crate::table::plan::{Closest, Plan};

/// The setting that enables ASOF joins; they are off by default.
pub const SETTING: &str = "spark.sql.join.asofJoin.enabled";

/// The join condition, which applies in addition to the match condition.
pub enum On<'o> {
    /// No condition: all pairs match.
    All,
    /// The condition of an ON clause.
    Condition(&'o Expr),
    /// Equality of columns that both sides have (USING).
    Columns(&'o [String]),
}

/// A match condition as the user wrote it.
pub struct MatchCondition {
    /// The operands of the comparison.
    pub operands: [Expr; 2],
    /// Which right row is the closest, on the assumption that the first operand belongs to the left
    /// side.
    pub closest: Closest,
}

impl MatchCondition {
    /// Parses a comparison. Fails for an operator other than `>=`, `>`, `<=` and `<`.
    pub fn of(expr: &Expr) -> PlanResult<Self> {
        let Expr::Call { name, args, .. } = expr else { return Err(invalid_operator()) };
        let closest = match name.as_str() {
            ">=" => Closest::AtOrBefore,
            ">" => Closest::Before,
            "<=" => Closest::AtOrAfter,
            "<" => Closest::After,
            _ => return Err(invalid_operator()),
        };
        match args.as_slice() {
            [first, second] => Ok(Self { operands: [first.clone(), second.clone()], closest }),
            _ => Err(invalid_operator()),
        }
    }
}

fn wrong(kind: &str, reason: &str, fix: &str) -> PlanError {
    PlanError::new(format!("ASOF_JOIN_MATCH_CONDITION_{kind}"), reason, fix)
}

/// The error of a match condition whose operator is not `>=`, `>`, `<=` or `<`.
pub fn invalid_operator() -> PlanError {
    let reason =
        "the match condition of an ASOF join compares two values by `>=`, `>`, `<=` or `<`";
    let fix = "Write MATCH_CONDITION (l.time >= r.time), and other conditions after ON";
    wrong("INVALID_OPERATOR", reason, fix)
}

/// The error of an operand that is not a deterministic value of a single row.
pub fn invalid_expression() -> PlanError {
    let reason = "an operand of the match condition is not a deterministic expression over a \
    row: it has an aggregate or a subquery, or is nondeterministic";
    wrong("INVALID_EXPRESSION", reason, "Compare columns, or expressions of columns")
}

/// The error that ASOF joins are not enabled.
pub fn not_enabled() -> PlanError {
    let reason = "ASOF JOIN is not enabled";
    PlanError::new("UNSUPPORTED_FEATURE.ASOF_JOIN", reason, format!("SET {SETTING} = true"))
}

/// Whether an expression is a deterministic value of a single row, without aggregates and
/// subqueries.
fn is_row_value(expr: &Expr, resolved: &Resolved) -> bool {
    fn reads_table(expr: &Resolved) -> bool {
        matches!(expr.node, Node::Scalar(_)) || expr.children().into_iter().any(reads_table)
    }
    !crate::table::plan::analyzer::has_aggregate(expr)
        && !reads_table(resolved)
        && is_deterministic_expr(resolved)
}

/// Resolves the compared values over the columns of both sides, the left value first. Also returns
/// which right row is the closest.
fn operands(
    condition: &MatchCondition,
    left: &Plan,
    right: &Plan,
) -> PlanResult<(Closest, (Resolved, Resolved))> {
    let scope = join::both(&left.scope(), &right.scope());
    let [a, b] = &condition.operands;
    if [a, b].into_iter().any(crate::table::plan::analyzer::has_aggregate) {
        return Err(invalid_expression());
    }
    let (first, second) = (resolve(a, &scope)?, resolve(b, &scope)?);
    if !is_row_value(a, &first) || !is_row_value(b, &second) {
        return Err(invalid_expression());
    }
    let width = left.width();
    let is_flipped = match (reads(&first, width), reads(&second, width)) {
        ((_, false), (false, _)) => false,
        ((false, _), (_, false)) => true,
        _ => {
            let reason = "the match condition of an ASOF join compares a value of the left side with \
                          one of the right side";
            let fix = "Write MATCH_CONDITION (l.time >= r.time), and other conditions after ON";
            return Err(wrong("TABLE_REFERENCE", reason, fix));
        }
    };
    let (of_left, of_right, closest) = match is_flipped {
        true => (second, first, condition.closest.flipped()),
        false => (first, second, condition.closest),
    };
    let types = (of_left.data_type.clone(), of_right.data_type.clone());
    let invalid_type = || {
        let reason = format!("values of {} and {} cannot be ordered", types.0, types.1);
        wrong("INVALID_TYPE", &reason, "Cast one of them to the type of the other")
    };
    let (of_left, of_right) = compared(of_left, of_right).map_err(|_| invalid_type())?;
    if !of_left.data_type.is_orderable() {
        return Err(invalid_type());
    }
    Ok((closest, (of_left, of_right)))
}

/// Builds an ASOF join. If `is_left`, left rows without a match are emitted with NULLs, otherwise
/// they are dropped. Fails if the match condition does not compare both sides, or if the other
/// condition is nondeterministic or not BOOLEAN.
pub fn asof_join(
    left: Plan,
    right: Plan,
    is_left: bool,
    on: &On<'_>,
    condition: &MatchCondition,
) -> PlanResult<Plan> {
    let (closest, compared) = operands(condition, &left, &right)?;
    let written = if is_left { JoinType::LeftOuter } else { JoinType::Inner };
    let plan = match on {
        On::All => join::join(left, right, written, None)?,
        On::Condition(expr) => {
            let scope = join::both(&left.scope(), &right.scope());
            let resolved = resolve(expr, &scope)?;
            let condition = crate::table::plan::analyzer::boolean(resolved, expr, "ON")?;
            join::join(left, right, written, Some(condition))?
        }
        On::Columns(names) => join::join_using(left, right, written, names)?,
    };
    Ok(with_match(plan, closest, compared))
}

/// Converts the outermost join of a plan to an ASOF join.
fn with_match(mut plan: Plan, closest: Closest, compared: (Resolved, Resolved)) -> Plan {
    match &mut plan {
        Plan::Join(join) => (join.closest, join.in_operands) = (Some(closest), Some(compared)),
        Plan::Qualified(input, _) | Plan::Project(input, _) => {
            let inner = std::mem::replace(&mut **input, Plan::Union(Vec::new()));
            **input = with_match(inner, closest, compared);
        }
        _ => {}
    }
    plan
}

/// Rejects ASOF joins of a table on the left with a stream on the right.
pub fn check(joined: &crate::table::plan::Join) -> PlanResult<()> {
    if joined.closest.is_some() && joined.right.is_streaming() && !joined.left.is_streaming() {
        return Err(PlanError::new(
            "STREAM_STATIC_JOIN_UNSUPPORTED",
            "an ASOF join with a table on the left and a stream on the right is not supported: a \
            closer row may always arrive",
            format!("Put the stream on the left{}", join::or_as_stream(&joined.left)),
        )
        .at(joined.place));
    }
    Ok(())
}
