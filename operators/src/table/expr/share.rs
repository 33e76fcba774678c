//! Parts that several expressions of a stage have in common are computed once a record: the first
//! that needs one computes it, the others find it. So nothing is computed that would not be
//! otherwise, and no error comes that would not.

use super::functions::is_deterministic;
use super::{Node, Resolved};
use crate::table::value::Value;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

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
        Node::Variable(..) | Node::Shared(..) | Node::Carried => false,
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

/// A number that equal expressions have in common, and others hardly ever.
pub fn fingerprint(expr: &Resolved) -> u64 {
    fn write(expr: &Resolved, hasher: &mut DefaultHasher) {
        std::mem::discriminant(&expr.node).hash(hasher);
        match &expr.node {
            Node::Column(index, _) | Node::Variable(index, _) => index.hash(hasher),
            Node::Literal(Value::Long(value)) => value.hash(hasher),
            Node::Literal(Value::String(text)) => text.hash(hasher),
            Node::Call(name, _) => name.hash(hasher),
            _ => {}
        }
        expr.children().into_iter().for_each(|child| write(child, hasher));
    }
    let mut hasher = DefaultHasher::new();
    write(expr, &mut hasher);
    hasher.finish()
}

/// The subexpressions found so far, with the number of times each occurs.
#[derive(Default)]
struct Found<'e> {
    parts: Vec<(&'e Resolved, usize)>,
    by_fingerprint: HashMap<u64, Vec<usize>>,
}

impl<'e> Found<'e> {
    /// Counts a part; whether it has been there before.
    fn add(&mut self, expr: &'e Resolved) -> bool {
        let same = self.by_fingerprint.entry(fingerprint(expr)).or_default();
        if let Some(at) = same.iter().find(|at| self.parts[**at].0 == expr) {
            self.parts[*at].1 += 1;
            return true;
        }
        if self.parts.len() < MOST_PARTS {
            same.push(self.parts.len());
            self.parts.push((expr, 1));
        }
        false
    }

    fn repeated(self) -> Vec<Resolved> {
        let repeated = self.parts.into_iter().filter(|(_, times)| *times > 1);
        repeated.map(|(expr, _)| expr.clone()).collect()
    }
}

/// Counts the parts of an expression; `sure` leaves out those that may not be computed.
fn count<'e>(expr: &'e Resolved, sure: bool, found: &mut Found<'e>) {
    // What is in one that was there before is computed with it.
    if is_candidate(expr) && found.add(expr) {
        return;
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
    let mut found = Found::default();
    exprs.iter().for_each(|expr| count(expr, true, &mut found));
    found.repeated()
}

/// The expressions with their common parts marked, and how many of them there are.
pub fn share(exprs: Vec<Resolved>) -> (Vec<Resolved>, usize) {
    let mut found = Found::default();
    exprs.iter().for_each(|expr| count(expr, false, &mut found));
    let common = found.repeated();
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
