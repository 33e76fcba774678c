//! Binds a value to a variable, so that an expression that uses the value several times, such as
//! `rand() BETWEEN 0.4 AND 0.6`, evaluates it once per row. Copies of a random value would differ.

use super::{Expr, call, functions, is_steady, lower};
use crate::table::error::Place;

/// The name of the function whose first argument is the value, and whose second is a lambda that
/// uses it. The space in it keeps queries from calling it.
pub const BIND: &str = "bound value";
/// The name of the variable. An inner binding hides the variable of an outer one, which only the
/// outer expression itself uses.
const VARIABLE: &str = "the bound value";

/// Whether two evaluations of an expression for one row may differ.
pub(crate) fn is_random(expr: &Expr) -> bool {
    let mut found = match expr {
        Expr::Call { name, .. } => !is_steady(functions::canonical(&lower(name))),
        _ => false,
    };
    expr.each_part(&mut |part| found = found || is_random(part));
    found
}

/// Builds an expression that uses a value several times.
pub(crate) fn used_repeatedly(value: Expr, build: impl FnOnce(Expr) -> Expr) -> Expr {
    if !is_random(&value) {
        return build(value);
    }
    let variable = Expr::Column { parts: vec![VARIABLE.to_string()], place: Place::default() };
    let body = Expr::Lambda(vec![VARIABLE.to_string()], Box::new(build(variable)));
    call(BIND, [value, body])
}

/// The expression as the user wrote it: the body of a binding, with the value in place of the
/// variable.
pub(super) fn unbound(value: &Expr, body: &Expr) -> Expr {
    match body {
        Expr::Column { parts, .. } if parts[0] == VARIABLE => value.clone(),
        Expr::Lambda(names, _) if names[0] == VARIABLE => body.clone(),
        _ => body.map_children(&mut |part| unbound(value, part)),
    }
}
