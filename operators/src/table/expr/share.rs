//! Parts that several expressions of a stage have in common are computed once a record: the first
//! that needs one computes it, the others find it. So nothing is computed that would not be
//! otherwise, and no error comes that would not.

use super::functions::is_deterministic;
use super::{Node, Resolved};

/// Parts that are looked at for repetitions, at most.
const MOST_PARTS: usize = 2048;
/// What a part must cost for keeping its value to pay, in operators.
const LEAST_COST: usize = 4;

/// What an expression costs, in operators; a named function counts for four.
fn cost(expr: &Resolved) -> usize {
    let own = match &expr.node {
        Node::Call(name, _) if super::functions::is_operator(name) => 1,
        Node::Call(..) | Node::User(..) => 4,
        Node::Cast(..) | Node::Case(..) => 2,
        _ => 0,
    };
    own + expr.children().into_iter().map(cost).sum::<usize>()
}

/// Whether its value is the same wherever it stands in the expressions of a record.
fn is_movable(expr: &Resolved) -> bool {
    let own = match &expr.node {
        Node::Variable(..) | Node::Shared(..) => false,
        Node::Call(name, _) => is_deterministic(name),
        _ => true,
    };
    own && expr.children().into_iter().all(is_movable)
}

fn is_candidate(expr: &Resolved) -> bool {
    matches!(expr.node, Node::Call(..) | Node::User(..) | Node::Cast(..) | Node::Case(..))
        && cost(expr) >= LEAST_COST
        && is_movable(expr)
}

/// Parts with how often they stand there; `sure` leaves out those that may not be computed.
fn count<'e>(expr: &'e Resolved, sure: bool, found: &mut Vec<(&'e Resolved, usize)>) {
    if is_candidate(expr) {
        if let Some((_, times)) = found.iter_mut().find(|(other, _)| *other == expr) {
            // What is in it is computed with it.
            *times += 1;
            return;
        }
        if found.len() < MOST_PARTS {
            found.push((expr, 1));
        }
    }
    let children = expr.children();
    let always = match &expr.node {
        _ if !sure => children.len(),
        Node::Lambda(..) => 0,
        Node::Case(..) => 1,
        Node::Call("and" | "or" | "coalesce" | "if" | "nvl2" | "nullif", _) => 1,
        Node::Call("try", _) => 0,
        _ => children.len(),
    };
    children.into_iter().take(always).for_each(|child| count(child, sure, found));
}

/// The parts that stand more than once in some expressions, all of which are computed for every
/// record; what is computed only sometimes is not among them.
pub fn repeated(exprs: &[&Resolved]) -> Vec<Resolved> {
    let mut found = Vec::new();
    exprs.iter().for_each(|expr| count(expr, true, &mut found));
    found.into_iter().filter(|(_, times)| *times > 1).map(|(expr, _)| expr.clone()).collect()
}

/// The expressions with their common parts marked, and how many of them there are.
pub fn share(exprs: Vec<Resolved>) -> (Vec<Resolved>, usize) {
    let mut found = Vec::new();
    exprs.iter().for_each(|expr| count(expr, false, &mut found));
    let common: Vec<Resolved> =
        found.into_iter().filter(|(_, times)| *times > 1).map(|(expr, _)| expr.clone()).collect();
    if common.is_empty() {
        return (exprs, 0);
    }
    let marked = exprs.into_iter().map(|expr| marked(expr, &common)).collect();
    (marked, common.len())
}

fn marked(expr: Resolved, common: &[Resolved]) -> Resolved {
    let slot = common.iter().position(|other| *other == expr);
    let (data_type, nullable) = (expr.data_type.clone(), expr.nullable);
    let inner = expr.map_children(&mut |child| marked(child, common));
    match slot {
        Some(slot) => Resolved { node: Node::Shared(slot, Box::new(inner)), data_type, nullable },
        None => inner,
    }
}
