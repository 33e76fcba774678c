//! Chains of binary operators, such as `a + b - c …`, or generated conditions joined with OR. As a
//! tree, a chain of 100,000 operators is 100,000 levels deep. Every recursion over the tree (to
//! resolve, evaluate, clone or drop it) needs a stack of that depth. Therefore a chain longer than
//! `LONGEST_TREE` is stored as a flat list and processed by loops. Results and evaluation order are
//! those of the tree.

use super::cell::Cell;
use super::compile::{
    Compiled, Eval, EvalError, Semantics, bool_fn, decimal_fn, double_fn, from_cells, long_fn,
};
use super::functions::{self, is_operator};
use super::resolve::{Hook, resolve_with};
use super::{Expr, Node, Resolved};
use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::expr::compile::Cx;
use crate::table::expr::type_rules::Rules;
use crate::table::plan::limits::{MAX_NESTING, too_complex};
use crate::table::types::{DataType, Physical};
use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The maximum depth of left operands in a tree. A longer chain becomes a [`Chain`].
const LONGEST_TREE: usize = 64;
/// The number of leading operations on a constant, a column or a cast that stay a tree, because
/// special rules apply to such operations.
const MAX_PLAIN: usize = 16;

/// The binary operators from which a chain is built.
const OPERATORS: [&str; 22] = [
    "+",
    "-",
    "*",
    "/",
    "%",
    "div",
    "=",
    "<>",
    "<",
    "<=",
    ">",
    ">=",
    "<=>",
    "and",
    "or",
    "&",
    "|",
    "^",
    "concat",
    "shiftleft",
    "shiftright",
    "shiftrightunsigned",
];

/// An operator and its right operand.
#[derive(Clone, Debug, PartialEq)]
struct Link {
    operator: &'static str,
    operand: Expr,
}

/// A left-associative chain of binary operators.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    first: Expr,
    links: Vec<Link>,
    place: Place,
}

/// The operator, if the expression is a call of one of [`OPERATORS`] with two operands and without
/// DISTINCT and FILTER; otherwise `None`.
fn operator_of(expr: &Expr) -> Option<&'static str> {
    let Expr::Call { name, args, distinct: false, filter: None, .. } = expr else { return None };
    let known = OPERATORS.iter().find(|known| **known == name.as_str());
    known.filter(|_| args.len() == 2).copied()
}

/// The number of operators along the left operands, counted up to [`LONGEST_TREE`].
fn left_levels(expr: &Expr) -> usize {
    let (mut expr, mut levels) = (expr, 0);
    while levels < LONGEST_TREE && operator_of(expr).is_some() {
        let Expr::Call { args, .. } = expr else { break };
        expr = &args[0];
        levels += 1;
    }
    levels
}

/// Creates a binary operation: a tree node, or a chain if `left` is already `LONGEST_TREE` deep.
pub fn binary(operator: &'static str, mut left: Expr, right: Expr, place: Place) -> Expr {
    let link = Link { operator, operand: right };
    match &mut left {
        Expr::Chain(chain) => {
            chain.links.push(link);
            left
        }
        tree if left_levels(tree) == LONGEST_TREE => {
            let mut chain = Chain::of(left, place);
            chain.links.push(link);
            Expr::Chain(Box::new(chain))
        }
        _ => Expr::Call {
            name: operator.to_string(),
            args: vec![left, link.operand],
            distinct: false,
            filter: None,
            place,
        },
    }
}

impl Chain {
    /// Converts a left-deep tree of operators to a chain.
    fn of(tree: Expr, place: Place) -> Self {
        let (mut first, mut links) = (tree, Vec::new());
        while let Some(operator) = operator_of(&first) {
            let Expr::Call { args, .. } = &mut first else {
                unreachable!("only calls have operators")
            };
            let mut args = std::mem::take(args).into_iter();
            let (Some(left), Some(operand)) = (args.next(), args.next()) else {
                unreachable!("an operator has two operands")
            };
            links.push(Link { operator, operand });
            first = left;
        }
        links.reverse();
        Self { first, links, place }
    }

    /// The operands, from left to right.
    pub fn operands(&self) -> impl Iterator<Item = &Expr> {
        std::iter::once(&self.first).chain(self.links.iter().map(|link| &link.operand))
    }

    /// The operands, from left to right, mutably.
    pub(super) fn operands_mut(&mut self) -> impl Iterator<Item = &mut Expr> {
        std::iter::once(&mut self.first).chain(self.links.iter_mut().map(|link| &mut link.operand))
    }

    /// Returns a copy in which each operand is replaced by the result of `change`.
    pub fn map(&self, change: &mut dyn FnMut(&Expr) -> Expr) -> Expr {
        let first = change(&self.first);
        let link = |link: &Link| Link { operator: link.operator, operand: change(&link.operand) };
        let links = self.links.iter().map(link).collect();
        Expr::Chain(Box::new(Self { first, links, place: self.place }))
    }

    /// The position of the chain in the query text.
    pub fn place(&self) -> Place {
        let placed = || self.operands().map(Expr::place).find(|place| place.line > 0);
        if self.place.line > 0 { self.place } else { placed().unwrap_or_default() }
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for link in self.links.iter().rev() {
            match is_operator(link.operator) {
                true => write!(f, "(")?,
                false => write!(f, "{}(", link.operator)?,
            }
        }
        write!(f, "{}", self.first)?;
        for Link { operator, operand } in &self.links {
            match is_operator(operator) {
                true => write!(f, " {} {operand})", operator.to_uppercase())?,
                false => write!(f, ", {operand})")?,
            }
        }
        Ok(())
    }
}

/// Marks the left operand in the printed text of an operation. The operand's own text replaces the
/// mark.
pub(super) const MARK: char = '\u{1}';

/// Prints a resolved chain like the equivalent tree. A restart compares the text of an operator's
/// expressions with the stored text, so a chain and a tree must have the same text.
pub(super) fn show(parts: &[Resolved], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let texts: Vec<String> = parts.iter().map(ToString::to_string).collect();
    let around = |text: &'_ String| -> (usize, usize) {
        let at = text.find(MARK);
        at.map_or((0, 0), |at| (at, at + MARK.len_utf8()))
    };
    let Some((first, steps)) = texts.split_first() else { return Ok(()) };
    for step in steps.iter().rev() {
        write!(f, "{}", &step[..around(step).0])?;
    }
    write!(f, "{first}")?;
    steps.iter().try_for_each(|step| write!(f, "{}", &step[around(step).1..]))
}

/// Resolves a chain, its operands from left to right.
pub(super) fn resolve(
    chain: &Chain,
    scope: &super::resolve::Scope,
    hook: &mut Hook<'_>,
) -> PlanResult<Resolved> {
    let mut made = ChainBuilder::new(resolve_with(&chain.first, scope, hook)?);
    for Link { operator, operand } in &chain.links {
        let operand = if functions::may_leave_out(operator, 1) {
            Rules::for_some_rows(|| resolve_with(operand, scope, hook))?
        } else {
            resolve_with(operand, scope, hook)?
        };
        made.add(operator, operand)?;
    }
    made.finish()
}

/// Builds a resolved chain, operator by operator.
struct ChainBuilder {
    /// The finished parts. In a run of AND, OR or `||` they are the operands of the run, otherwise
    /// the parts of a chain.
    parts: Vec<Resolved>,
    /// The operator of the current run; `None` outside a run. The operands of a run may be
    /// associated in any order.
    run: Option<&'static str>,
    levels: usize,
}

impl ChainBuilder {
    fn new(first: Resolved) -> Self {
        Self { parts: vec![first], run: None, levels: 0 }
    }

    fn add(&mut self, operator: &'static str, operand: Resolved) -> PlanResult<()> {
        let free = matches!(operator, "and" | "or") || self.joins_text(operator, &operand);
        if free {
            if self.run != Some(operator) {
                self.close()?;
                self.run = Some(operator);
            }
            self.parts.push(operand);
            return Ok(());
        }
        if self.run.is_some() {
            self.close()?;
        }
        let Some(last) = self.parts.last() else { unreachable!("the first operand is there") };
        let (data_type, nullable) = (last.data_type.clone(), last.nullable);
        // Literal operands have special rules, and a chain's register cannot store bytes.
        let is_plain = matches!(last.node, Node::Literal(_) | Node::Column(..) | Node::Cast(..));
        if self.parts.len() == 1 && is_plain && self.levels < MAX_PLAIN
            || data_type.physical() == Physical::Bytes
        {
            self.close()?;
            let Some(left) = self.parts.pop() else { unreachable!("closed parts are one") };
            self.deeper()?;
            self.parts.push(functions::resolve(operator, vec![left, operand])?);
            return Ok(());
        }
        let left = Resolved { node: Node::Carried, data_type, nullable };
        self.parts.push(functions::resolve(operator, vec![left, operand])?);
        Ok(())
    }

    /// Whether `||` can be associated freely here, because every association has the same result
    /// type.
    fn joins_text(&self, operator: &str, operand: &Resolved) -> bool {
        let Some(before) = self.parts.last() else { return false };
        let text = |part: &Resolved| part.data_type == DataType::String;
        let runs = self.run == Some("concat");
        let is_text = if runs { self.parts.iter().take(1).all(text) } else { text(before) };
        operator == "concat"
            && (is_text && !operand.data_type.is_nested()
                || self.parts.iter().take(1).all(|part| part.data_type == operand.data_type)
                    && before.data_type == operand.data_type)
    }

    fn deeper(&mut self) -> PlanResult<()> {
        self.levels += 1;
        if self.levels > MAX_NESTING {
            return Err(too_deep_error());
        }
        Ok(())
    }

    /// Ends the current run or chain: combines its parts to a single expression.
    fn close(&mut self) -> PlanResult<()> {
        let mut parts = std::mem::take(&mut self.parts);
        let one = match self.run.take() {
            _ if parts.len() == 1 => parts.pop(),
            Some("concat") => Some(run(parts.len(), functions::resolve("concat", parts)?)),
            Some(operator) => Some(run(parts.len(), balanced(operator, parts)?)),
            None => parts.last().map(|last| (last.data_type.clone(), last.nullable)).map(
                |(data_type, nullable)| Resolved { node: Node::Chain(parts), data_type, nullable },
            ),
        };
        self.parts.extend(one);
        self.deeper()
    }

    fn finish(mut self) -> PlanResult<Resolved> {
        self.close()?;
        self.parts.pop().ok_or_else(too_deep_error)
    }
}

fn too_deep_error() -> PlanError {
    let reason = format!("the expression has more than {MAX_NESTING} levels of operators");
    too_complex(reason, Place::default())
}

/// Builds a balanced tree of ANDs or ORs. The operands are evaluated in the same order, and with
/// the same short-circuiting, as in a left-deep tree.
pub fn balanced(operator: &str, operands: Vec<Resolved>) -> PlanResult<Resolved> {
    let mut level = operands;
    while level.len() > 1 {
        let mut above = Vec::with_capacity(level.len() / 2 + 1);
        let mut operands = level.into_iter();
        while let Some(left) = operands.next() {
            above.push(match operands.next() {
                Some(right) => functions::resolve(operator, vec![left, right])?,
                None => left,
            });
        }
        level = above;
    }
    level.pop().ok_or_else(too_deep_error)
}

/// Marks an expression as a run of `operands` operands of one operator.
fn run(operands: usize, expr: Resolved) -> Resolved {
    let (data_type, nullable) = (expr.data_type.clone(), expr.nullable);
    Resolved { node: Node::Run(operands, Box::new(expr)), data_type, nullable }
}

/// Collects the operands of a run: the arguments of one call, or the leaves of a tree that
/// [`balanced`] has built.
fn operands<'e>(count: usize, tree: &'e Resolved, out: &mut Vec<&'e Resolved>) {
    match &tree.node {
        Node::Call("concat", args) if args.len() == count => out.extend(args),
        Node::Call("and" | "or", args) if count > 1 && args.len() == 2 => {
            // The left subtree is complete, so its number of leaves is a power of two.
            let left = count.next_power_of_two() / 2;
            operands(left, &args[0], out);
            operands(count - left, &args[1], out);
        }
        _ => out.push(tree),
    }
}

/// Prints a run like the left-deep tree that the user wrote. A restart compares the text of an
/// operator's expressions with the stored text, so a run and a tree must have the same text.
pub(super) fn show_run(count: usize, tree: &Resolved, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut all = Vec::with_capacity(count);
    operands(count, tree, &mut all);
    let (Node::Call(name, _), Some((first, others))) = (&tree.node, all.split_first()) else {
        return write!(f, "{tree}");
    };
    for _ in others {
        match is_operator(name) {
            true => write!(f, "(")?,
            false => write!(f, "{name}(")?,
        }
    }
    write!(f, "{first}")?;
    others.iter().try_for_each(|operand| match is_operator(name) {
        true => write!(f, " {} {operand})", name.to_uppercase()),
        false => write!(f, ", {operand})"),
    })
}

/// Replaces the reference to the previous part's value, [`Node::Carried`], by `value`.
fn with_carried(expr: Resolved, value: &Resolved) -> Resolved {
    match expr.node {
        Node::Carried => value.clone(),
        // Only the first part of an inner chain can refer to the outer chain's value.
        Node::Chain(parts) => {
            let mut first = true;
            let change = |part| {
                if std::mem::take(&mut first) { with_carried(part, value) } else { part }
            };
            Resolved { node: Node::Chain(parts.into_iter().map(change).collect()), ..expr }
        }
        _ => expr.map_children(&mut |child| with_carried(child, value)),
    }
}

/// Simplifies a chain after its parts were changed: a constant is substituted into the next
/// operation, and everything before a constant is dropped.
pub(super) fn collapsed(
    parts: Vec<Resolved>,
    change: &mut dyn FnMut(Resolved) -> Resolved,
) -> Resolved {
    let is_literal = |part: &Resolved| matches!(part.node, Node::Literal(_));
    let mut kept: Vec<Resolved> = Vec::with_capacity(parts.len());
    for part in parts {
        let part = match kept.as_slice() {
            [constant] if is_literal(constant) => change(with_carried(part, constant)),
            _ => part,
        };
        if is_literal(&part) || kept.len() == 1 && is_literal(&kept[0]) {
            kept.clear();
        }
        kept.push(part);
    }
    match kept.last() {
        Some(last) if kept.len() > 1 => {
            let (data_type, nullable) = (last.data_type.clone(), last.nullable);
            Resolved { node: Node::Chain(kept), data_type, nullable }
        }
        _ => kept.pop().unwrap_or_else(|| unreachable!("a chain has parts")),
    }
}

/// Stores the value that a compiled chain passes from one part to the next. Only the thread that
/// evaluates the chain accesses the register. The fields are atomic only to make the chain's
/// closures `Send`.
#[derive(Default)]
struct Register {
    is_null: AtomicBool,
    low: AtomicU64,
    high: AtomicU64,
}

impl Register {
    // ORDERING: relaxed, because a single thread reads and writes the register.
    fn set(&self, value: Option<(u64, u64)>) {
        self.is_null.store(value.is_none(), Ordering::Relaxed);
        if let Some((low, high)) = value {
            self.low.store(low, Ordering::Relaxed);
            self.high.store(high, Ordering::Relaxed);
        }
    }

    // ORDERING: relaxed, because a single thread reads and writes the register.
    fn get(&self) -> Option<(u64, u64)> {
        let value = || (self.low.load(Ordering::Relaxed), self.high.load(Ordering::Relaxed));
        (!self.is_null.load(Ordering::Relaxed)).then(value)
    }

    /// Evaluates a part and stores its value in the register.
    fn keep(&self, part: &Compiled, cx: Cx<'_>) -> Result<(), Box<EvalError>> {
        self.set(match part {
            Compiled::Bool(f) => f(cx)?.map(|value| (u64::from(value), 0)),
            Compiled::Long(f) => f(cx)?.map(|value| (value as u64, 0)),
            Compiled::Double(f) => f(cx)?.map(|value| (value.to_bits(), 0)),
            Compiled::Decimal(f) => {
                f(cx)?.map(|value| (value as u64, ((value as u128) >> 64) as u64))
            }
            Compiled::Bytes(_) => unreachable!("a chain of bytes is not made"),
        });
        Ok(())
    }
}

thread_local! {
    /// The registers of the chains that are being compiled, outermost first. Compilation is a
    /// recursion on one thread; see [`Rules`].
    static COMPILING: RefCell<Vec<Arc<Register>>> = const { RefCell::new(Vec::new()) };
}

/// Compiles a read of the previous part's value.
pub(super) fn carried(physical: Physical) -> Compiled {
    let register = COMPILING.with_borrow(|open| open.last().cloned());
    let Some(register) = register else { unreachable!("it is a part of a chain") };
    match physical {
        Physical::Bool => bool_fn(move |_| Ok(register.get().map(|(low, _)| low != 0))),
        Physical::Long => long_fn(move |_| Ok(register.get().map(|(low, _)| low as i64))),
        Physical::Double => {
            double_fn(move |_| Ok(register.get().map(|(low, _)| f64::from_bits(low))))
        }
        Physical::Decimal => decimal_fn(move |_| {
            let joined = |(low, high)| (u128::from(high) << 64 | u128::from(low)) as i128;
            Ok(register.get().map(joined))
        }),
        Physical::Bytes => unreachable!("a chain of bytes is not made"),
    }
}

/// Compiles a chain. Its parts are evaluated one after the other.
pub(super) fn compile(parts: &[Resolved], width: usize, semantics: Semantics) -> Compiled {
    let register = Arc::new(Register::default());
    let mut compiled = Vec::with_capacity(parts.len());
    // The first part has no previous value, so it is compiled outside this chain's register.
    let mut parts = parts.iter();
    compiled.extend(parts.next().map(|part| super::compile::compile(part, width, semantics)));
    COMPILING.with_borrow_mut(|open| open.push(register.clone()));
    compiled.extend(parts.map(|part| super::compile::compile(part, width, semantics)));
    COMPILING.with_borrow_mut(Vec::pop);
    let Some(last) = compiled.pop() else { unreachable!("a chain has parts") };
    let before = move |cx: Cx<'_>| -> Result<(), Box<EvalError>> {
        compiled.iter().try_for_each(|part| register.keep(part, cx))
    };
    macro_rules! ending {
        ($make:ident, $last:ident) => {
            $make(move |cx| -> Eval<_> {
                before(cx)?;
                $last(cx)
            })
        };
    }
    match last {
        Compiled::Bool(last) => ending!(bool_fn, last),
        Compiled::Long(last) => ending!(long_fn, last),
        Compiled::Double(last) => ending!(double_fn, last),
        Compiled::Decimal(last) => ending!(decimal_fn, last),
        Compiled::Bytes(last) => from_cells(Physical::Bytes, move |cx| {
            before(cx)?;
            Ok(last(cx)?.map_or(Cell::Null, Cell::Bytes))
        }),
    }
}
