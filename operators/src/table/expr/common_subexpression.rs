//! Common subexpression elimination: a subexpression that occurs more than once in the expressions
//! of a stage is evaluated at most once per record, if it is deterministic and costs at least
//! `MIN_COST` operators. At most `MAX_PARTS` subexpressions of a stage are compared. The value is
//! computed where it is first needed and reused at the other occurrences. So the elimination adds
//! neither evaluations nor errors.

use crate::table::expr::functions::{TRY_RESULT, is_deterministic};
use crate::table::expr::{Node, Resolved};
use crate::table::value::Value;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Maximum number of subexpressions that are checked for repetitions.
const MAX_PARTS: usize = 2048;
/// The minimum cost of a subexpression, in operators, for which storing the value pays.
const MIN_COST: usize = 4;

/// Properties of an expression. The properties of all its subexpressions are stored in pre-order.
#[derive(Clone, Copy)]
struct Facts {
    /// A hash of the expression: equal expressions have equal fingerprints.
    fingerprint: u64,
    /// The cost of an evaluation, in units of one operator.
    cost: usize,
    /// Whether the value is the same at every occurrence within a record. Only such expressions can
    /// be shared.
    movable: bool,
    /// The number of nodes of the expression.
    size: usize,
}

impl Facts {
    /// Computes the properties of an expression and appends them and those of its subexpressions. A
    /// single pass computes them all: one pass per subexpression would take time quadratic in the
    /// depth.
    fn note(expr: &Resolved, all: &mut Vec<Self>) -> Self {
        let at = all.len();
        // A named function costs as much as four operators.
        let cost = match &expr.node {
            Node::Call(name, _) if crate::table::expr::functions::is_operator(name) => 1,
            Node::Call(..) | Node::User(..) => 4,
            Node::Cast(..) | Node::Case(..) => 2,
            _ => 0,
        };
        let movable = match &expr.node {
            Node::Variable(..) | Node::Shared(..) | Node::Carried => false,
            Node::Call(name, _) => is_deterministic(name),
            _ => true,
        };
        let mut own = Self { fingerprint: 0, cost, movable, size: 1 };
        all.push(own);
        let mut hasher = DefaultHasher::new();
        write_own(expr, &mut hasher);
        for child in expr.children() {
            let part = Self::note(child, all);
            part.fingerprint.hash(&mut hasher);
            own.cost += part.cost;
            own.movable &= part.movable;
            own.size += part.size;
        }
        own.fingerprint = hasher.finish();
        all[at] = own;
        own
    }

    fn of(expr: &Resolved) -> Vec<Self> {
        let mut all = Vec::new();
        Self::note(expr, &mut all);
        all
    }

    fn is_candidate(&self, expr: &Resolved) -> bool {
        matches!(expr.node, Node::Call(..) | Node::User(..) | Node::Cast(..) | Node::Case(..))
            && self.cost >= MIN_COST
            && self.movable
    }
}

fn write_own(expr: &Resolved, hasher: &mut DefaultHasher) {
    std::mem::discriminant(&expr.node).hash(hasher);
    match &expr.node {
        Node::Column(index, _) | Node::Variable(index, _) => index.hash(hasher),
        Node::Literal(Value::Long(value)) => value.hash(hasher),
        Node::Literal(Value::String(text)) => text.hash(hasher),
        Node::Call(name, _) => name.hash(hasher),
        _ => {}
    }
}

/// A hash of an expression. Equal expressions have equal fingerprints.
pub fn fingerprint(expr: &Resolved) -> u64 {
    fn write(expr: &Resolved, hasher: &mut DefaultHasher) {
        write_own(expr, hasher);
        expr.children().into_iter().for_each(|child| write(child, hasher));
    }
    let mut hasher = DefaultHasher::new();
    write(expr, &mut hasher);
    hasher.finish()
}

/// The subexpressions found so far, with their number of occurrences.
#[derive(Default)]
struct Found<'e> {
    parts: Vec<(&'e Resolved, usize)>,
    by_fingerprint: HashMap<u64, Vec<usize>>,
}

impl<'e> Found<'e> {
    /// Counts a subexpression. Returns whether the subexpression occurred before.
    fn add(&mut self, expr: &'e Resolved, fingerprint: u64) -> bool {
        if let Some(equal) = self.by_fingerprint.get(&fingerprint)
            && let Some(at) = equal.iter().find(|at| self.parts[**at].0 == expr)
        {
            self.parts[*at].1 += 1;
            return true;
        }
        if self.parts.len() < MAX_PARTS {
            self.by_fingerprint.entry(fingerprint).or_default().push(self.parts.len());
            self.parts.push((expr, 1));
        }
        false
    }

    fn repeated(self) -> Vec<Resolved> {
        let repeated = self.parts.into_iter().filter(|(_, times)| *times > 1);
        repeated.map(|(expr, _)| expr.clone()).collect()
    }
}

/// Counts the subexpressions of an expression. `facts` starts with the expression's own properties.
/// If `sure`, conditional subexpressions, such as the branches of a CASE, are not counted.
fn count<'e>(expr: &'e Resolved, facts: &[Facts], sure: bool, found: &mut Found<'e>) {
    let own = &facts[0];
    // A repeated expression is evaluated once, so its own subexpressions are not counted again.
    if own.cost < MIN_COST || own.is_candidate(expr) && found.add(expr, own.fingerprint) {
        return;
    }
    let children = expr.children();
    let always = match &expr.node {
        _ if !sure => children.len(),
        Node::Lambda(..) => 0,
        Node::Case(..) => 1,
        Node::Call("and" | "or" | "coalesce" | "if" | "nvl2" | "nullif", _) => 1,
        Node::Call("try" | TRY_RESULT, _) => 0,
        _ => children.len(),
    };
    let mut at = 1;
    for child in children.into_iter().take(always) {
        count(child, &facts[at..], sure, found);
        at += facts[at].size;
    }
}

/// Finds subexpressions that occur more than once among expressions that are evaluated for every
/// record. Conditional subexpressions, such as the branches of a CASE, are left out.
pub fn repeated(exprs: &[&Resolved]) -> Common {
    let mut found = Found::default();
    exprs.iter().for_each(|expr| count(expr, &Facts::of(expr), true, &mut found));
    Common::new(found.repeated())
}

/// Marks the common subexpressions as shared. Returns the expressions and the number of distinct
/// common subexpressions.
pub fn eliminate_common_subexpressions(exprs: Vec<Resolved>) -> (Vec<Resolved>, usize) {
    let mut found = Found::default();
    exprs.iter().for_each(|expr| count(expr, &Facts::of(expr), false, &mut found));
    let common = Common::new(found.repeated());
    if common.parts.is_empty() {
        return (exprs, 0);
    }
    let mark = |slot, part: Resolved| {
        let (data_type, nullable) = (part.data_type.clone(), part.nullable);
        Resolved { node: Node::Shared(slot, Box::new(part)), data_type, nullable }
    };
    let marked = exprs.into_iter().map(|expr| common.replaced(expr, &mark));
    (marked.collect(), common.parts.len())
}

/// The subexpressions that occur more than once in a list of expressions.
pub struct Common {
    /// The distinct subexpressions.
    pub parts: Vec<Resolved>,
    by_fingerprint: HashMap<u64, Vec<usize>>,
}

impl Common {
    fn new(parts: Vec<Resolved>) -> Self {
        let mut by_fingerprint: HashMap<u64, Vec<usize>> = HashMap::new();
        for (at, part) in parts.iter().enumerate() {
            by_fingerprint.entry(Facts::of(part)[0].fingerprint).or_default().push(at);
        }
        Self { parts, by_fingerprint }
    }

    /// Returns `expr` with each common subexpression replaced by the result of `put`. The first
    /// argument of `put` is the index of the subexpression in `parts`.
    pub fn replaced(&self, expr: Resolved, put: &dyn Fn(usize, Resolved) -> Resolved) -> Resolved {
        let facts = Facts::of(&expr);
        self.replaced_in(expr, &facts, put)
    }

    fn replaced_in(
        &self,
        expr: Resolved,
        facts: &[Facts],
        put: &dyn Fn(usize, Resolved) -> Resolved,
    ) -> Resolved {
        let equal = self.by_fingerprint.get(&facts[0].fingerprint);
        let slot = equal.and_then(|at| at.iter().find(|at| self.parts[**at] == expr));
        let mut at = 1;
        let inner = expr.map_children(&mut |child| {
            let of_child = &facts[at..];
            at += of_child[0].size;
            self.replaced_in(child, of_child, put)
        });
        match slot {
            Some(slot) => put(*slot, inner),
            None => inner,
        }
    }
}
