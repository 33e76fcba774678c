//! Operations on deeply nested expressions.
//!
//! A program may nest expressions tens of thousands of levels deep, for example in a loop. Planning
//! rejects more than [`MAX_NESTING`] levels, as in SQL. But before planning, an expression is
//! cloned, compared, printed and dropped on the caller's stack. This module implements these
//! operations for any depth: dropping is a loop, and the others extend the stack on demand.

use super::Expr;
use crate::table::deep_recursion::on_stack;
use crate::table::error::{Place, PlanResult};
use crate::table::plan::limits::{MAX_NESTING, too_complex};
use std::fmt;

/// Rejects expressions that are nested more than [`MAX_NESTING`] levels deep. A chain of operators
/// such as `a + b + c` takes few levels, however long it is.
pub fn check<'e>(exprs: impl IntoIterator<Item = &'e Expr>) -> PlanResult<()> {
    let mut open: Vec<(&Expr, usize)> = exprs.into_iter().map(|expr| (expr, 1)).collect();
    while let Some((expr, level)) = open.pop() {
        if level > MAX_NESTING {
            let reason = format!("it is nested more than {MAX_NESTING} levels deep");
            return Err(too_complex(reason, Place::default()));
        }
        expr.each_part(&mut |part| open.push((part, level + 1)));
    }
    Ok(())
}

impl Expr {
    /// Calls `call` for each direct subexpression.
    pub(crate) fn each_part<'e>(&'e self, call: &mut dyn FnMut(&'e Expr)) {
        match self {
            Self::Call { args, filter, .. } => args.iter().chain(filter.as_deref()).for_each(call),
            Self::User(_, args, _) | Self::UserAggregate(_, args, _) => args.iter().for_each(call),
            Self::Cast { expr, .. }
            | Self::Alias(expr, _)
            | Self::Aliases(expr, _)
            | Self::Field(expr, _)
            | Self::Lambda(_, expr) => call(expr),
            Self::Case { branches, otherwise } => {
                let branches = branches.iter().flat_map(|(when, then)| [when, then]);
                branches.chain(otherwise.as_deref()).for_each(call);
            }
            Self::Chain(chain) => chain.operands().for_each(call),
            Self::WithinGroup(inner, keys) => {
                call(inner);
                keys.iter().for_each(|key| call(&key.expr));
            }
            Self::Over(over) => over.each_part(call),
            _ => {}
        }
    }

    /// Like [`Self::each_part`], with mutable subexpressions.
    fn each_part_mut(&mut self, call: &mut dyn FnMut(&mut Expr)) {
        match self {
            Self::Call { args, filter, .. } => {
                args.iter_mut().chain(filter.as_deref_mut()).for_each(call);
            }
            Self::User(_, args, _) | Self::UserAggregate(_, args, _) => {
                args.iter_mut().for_each(call);
            }
            Self::Cast { expr, .. }
            | Self::Alias(expr, _)
            | Self::Aliases(expr, _)
            | Self::Field(expr, _)
            | Self::Lambda(_, expr) => call(expr),
            Self::Case { branches, otherwise } => {
                let branches = branches.iter_mut().flat_map(|(when, then)| [when, then]);
                branches.chain(otherwise.as_deref_mut()).for_each(call);
            }
            Self::Chain(chain) => chain.operands_mut().for_each(call),
            Self::WithinGroup(inner, keys) => {
                call(inner);
                keys.iter_mut().for_each(|key| call(&mut key.expr));
            }
            Self::Over(over) => over.each_part_mut(call),
            _ => {}
        }
    }

    /// Whether the expression has subexpressions.
    fn has_parts(&self) -> bool {
        !matches!(
            self,
            Self::Column { .. }
                | Self::Position(..)
                | Self::Literal(..)
                | Self::Star(_)
                | Self::StarExcept(..)
                | Self::Scalar(..)
        )
    }

    /// Moves the direct subexpressions to a list, except those that have no subexpressions
    /// themselves.
    fn take_parts(&mut self, to: &mut Vec<Expr>) {
        self.each_part_mut(&mut |part| {
            if part.has_parts() {
                to.push(std::mem::replace(part, Self::Star(None)));
            }
        });
    }

    fn cloned(&self) -> Self {
        match self {
            Self::Column { parts, place } => Self::Column { parts: parts.clone(), place: *place },
            Self::Position(index, parts) => Self::Position(*index, parts.clone()),
            Self::Literal(value, data_type) => Self::Literal(value.clone(), data_type.clone()),
            Self::Call { name, args, distinct, filter, place } => Self::Call {
                name: name.clone(),
                args: args.clone(),
                distinct: *distinct,
                filter: filter.clone(),
                place: *place,
            },
            Self::Cast { expr, to, lenient } => {
                Self::Cast { expr: expr.clone(), to: to.clone(), lenient: *lenient }
            }
            Self::Case { branches, otherwise } => {
                Self::Case { branches: branches.clone(), otherwise: otherwise.clone() }
            }
            Self::Chain(chain) => Self::Chain(chain.clone()),
            Self::Lambda(names, body) => Self::Lambda(names.clone(), body.clone()),
            Self::Field(of, name) => Self::Field(of.clone(), name.clone()),
            Self::Alias(of, name) => Self::Alias(of.clone(), name.clone()),
            Self::Aliases(of, names) => Self::Aliases(of.clone(), names.clone()),
            Self::Star(table) => Self::Star(table.clone()),
            Self::StarExcept(table, names, place) => {
                Self::StarExcept(table.clone(), names.clone(), *place)
            }
            Self::Scalar(plan, place) => Self::Scalar(plan.clone(), *place),
            Self::User(function, args, place) => Self::User(function.clone(), args.clone(), *place),
            Self::UserAggregate(function, args, place) => {
                Self::UserAggregate(function.clone(), args.clone(), *place)
            }
            Self::WithinGroup(call, keys) => Self::WithinGroup(call.clone(), keys.clone()),
            Self::Over(over) => Self::Over(over.clone()),
        }
    }

    fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Column { parts: a, place: p }, Self::Column { parts: b, place: q }) => {
                (a, p) == (b, q)
            }
            (Self::Position(i, a), Self::Position(j, b)) => (i, a) == (j, b),
            (Self::Literal(a, s), Self::Literal(b, t)) => (a, s) == (b, t),
            (
                Self::Call { name: m, args: a, distinct: d, filter: f, place: p },
                Self::Call { name: n, args: b, distinct: e, filter: g, place: q },
            ) => (m, d, p) == (n, e, q) && (a, f) == (b, g),
            (
                Self::Cast { expr: a, to: s, lenient: l },
                Self::Cast { expr: b, to: t, lenient: m },
            ) => (s, l) == (t, m) && a == b,
            (
                Self::Case { branches: a, otherwise: c },
                Self::Case { branches: b, otherwise: d },
            ) => (a, c) == (b, d),
            (Self::Chain(a), Self::Chain(b)) => a == b,
            (Self::Lambda(m, a), Self::Lambda(n, b)) => m == n && a == b,
            (Self::Field(a, m), Self::Field(b, n)) => m == n && a == b,
            (Self::Alias(a, m), Self::Alias(b, n)) => m == n && a == b,
            (Self::Aliases(a, m), Self::Aliases(b, n)) => m == n && a == b,
            (Self::Star(a), Self::Star(b)) => a == b,
            (Self::StarExcept(a, m, p), Self::StarExcept(b, n, q)) => (a, m, p) == (b, n, q),
            (Self::Scalar(a, p), Self::Scalar(b, q)) => p == q && a == b,
            (Self::User(f, a, p), Self::User(g, b, q)) => (f, p) == (g, q) && a == b,
            (Self::UserAggregate(f, a, p), Self::UserAggregate(g, b, q)) => {
                (f, p) == (g, q) && a == b
            }
            (Self::WithinGroup(a, m), Self::WithinGroup(b, n)) => m == n && a == b,
            (Self::Over(a), Self::Over(b)) => a == b,
            _ => false,
        }
    }

    fn debug(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Column { parts, place } => {
                f.debug_struct("Column").field("parts", parts).field("place", place).finish()
            }
            Self::Position(index, parts) => {
                f.debug_tuple("Position").field(index).field(parts).finish()
            }
            Self::Literal(value, data_type) => {
                f.debug_tuple("Literal").field(value).field(data_type).finish()
            }
            Self::Call { name, args, distinct, filter, place } => f
                .debug_struct("Call")
                .field("name", name)
                .field("args", args)
                .field("distinct", distinct)
                .field("filter", filter)
                .field("place", place)
                .finish(),
            Self::Cast { expr, to, lenient } => f
                .debug_struct("Cast")
                .field("expr", expr)
                .field("to", to)
                .field("lenient", lenient)
                .finish(),
            Self::Case { branches, otherwise } => f
                .debug_struct("Case")
                .field("branches", branches)
                .field("otherwise", otherwise)
                .finish(),
            Self::Chain(chain) => f.debug_tuple("Chain").field(chain).finish(),
            Self::Lambda(names, body) => f.debug_tuple("Lambda").field(names).field(body).finish(),
            Self::Field(of, name) => f.debug_tuple("Field").field(of).field(name).finish(),
            Self::Alias(of, name) => f.debug_tuple("Alias").field(of).field(name).finish(),
            Self::Aliases(of, names) => f.debug_tuple("Aliases").field(of).field(names).finish(),
            Self::Star(table) => f.debug_tuple("Star").field(table).finish(),
            Self::StarExcept(table, names, place) => {
                f.debug_tuple("StarExcept").field(table).field(names).field(place).finish()
            }
            Self::Scalar(plan, place) => f.debug_tuple("Scalar").field(plan).field(place).finish(),
            Self::User(function, args, place) => {
                f.debug_tuple("User").field(function).field(args).field(place).finish()
            }
            Self::UserAggregate(function, args, place) => {
                f.debug_tuple("UserAggregate").field(function).field(args).field(place).finish()
            }
            Self::WithinGroup(call, keys) => {
                f.debug_tuple("WithinGroup").field(call).field(keys).finish()
            }
            Self::Over(over) => f.debug_tuple("Over").field(over).finish(),
        }
    }
}

impl Drop for Expr {
    fn drop(&mut self) {
        if !self.has_parts() {
            return;
        }
        let mut open = Vec::new();
        self.take_parts(&mut open);
        while let Some(mut expr) = open.pop() {
            expr.take_parts(&mut open);
        }
    }
}

impl Clone for Expr {
    fn clone(&self) -> Self {
        on_stack(|| self.cloned())
    }
}

impl PartialEq for Expr {
    fn eq(&self, other: &Self) -> bool {
        on_stack(|| self.equals(other))
    }
}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        on_stack(|| self.debug(f))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::expr::{call, col, lit, when};
    use crate::table::types::DataType;

    /// Wraps an expression in one more level of nesting.
    type Nest = fn(Expr) -> Expr;

    const WAYS: [(&str, Nest); 9] = [
        ("a call", |of| call("abs", [of])),
        ("a cast", |of| of.cast(DataType::Long)),
        ("a name", |of| of.alias("a")),
        ("NOT", Expr::not),
        ("an operator to the right", |of| lit(1).add(of)),
        ("a branch", |of| when(col("a"), of).end()),
        ("an ELSE", |of| when(col("a"), 1).otherwise(of)),
        ("a field", |of| of.get_field("f")),
        ("a filter", |of| call("sum", [lit(1)]).filter(of)),
    ];

    fn nested(nest: Nest, levels: usize) -> Expr {
        (0..levels).fold(col("a"), |of, _| nest(of))
    }

    #[test]
    fn no_depth_overflows_a_small_stack() {
        let all = || {
            for (way, nest) in WAYS {
                let deep = nested(nest, 20_000);
                let copy = deep.clone();
                assert!(copy == deep, "{way}");
                assert!(!deep.to_string().is_empty() && !format!("{deep:?}").is_empty(), "{way}");
                assert!(check([&deep]).is_err(), "{way}");
                drop((deep, copy));
            }
        };
        std::thread::Builder::new().stack_size(512 << 10).spawn(all).unwrap().join().unwrap();
    }

    #[test]
    fn an_expression_deeper_than_the_limit_of_sql_is_refused() {
        for (way, nest) in WAYS {
            assert_eq!(check([&nested(nest, MAX_NESTING - 1)]), Ok(()), "{way}");
            let error = check([&nested(nest, MAX_NESTING)]).unwrap_err();
            assert_eq!(error.condition, "FAILED_TO_PARSE_TOO_COMPLEX", "{way}");
        }
        let run = (0..100_000).fold(col("a"), |sum, i| sum.add(i));
        assert_eq!(check([&run]), Ok(()), "a run of operators is one level");
    }

    #[test]
    fn an_expression_equals_its_copy_only() {
        let exprs: Vec<Expr> = WAYS.iter().map(|(_, nest)| nested(*nest, 2)).collect();
        for (i, a) in exprs.iter().enumerate() {
            for (j, b) in exprs.iter().enumerate() {
                assert_eq!(a.clone() == *b, i == j, "{a} and {b}");
            }
        }
        assert_ne!(col("a").add(1), col("a").add(2));
    }
}
