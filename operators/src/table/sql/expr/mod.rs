//! Converts expressions of `sqlparser` to unresolved expressions.

mod function_call;
mod keyword_call;
mod like;
mod literal;
mod named_arguments;

pub(super) use function_call::definition;
pub use literal::interval_literal;

use function_call::{function_call, name_alone};
use keyword_call::{all_of, between, case, cast, extract, in_list, trim};
use like::like;
use literal::{literal, number, typed_string};

use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::expr::chain::binary;
use crate::table::expr::{Expr, call};
use crate::table::plan::limits::nested;
use crate::table::sql::dialect::UNSIGNED_SHIFT;
use crate::table::sql::{place, syntax};
use crate::table::types::{DataType, Schema};
use sqlparser::ast::{
    self, AccessExpr, BinaryOperator, CastKind, CeilFloorKind, FunctionArg, FunctionArgExpr,
    FunctionArguments, Ident, InTarget, Spanned, Subscript, UnaryOperator,
};

/// The position for errors of an expression: its start or, for forms such as CAST and operators
/// before an operand, that of the first operand.
pub(super) fn at(expr: &ast::Expr) -> Place {
    let mut first = expr;
    let begin = loop {
        first = match first {
            ast::Expr::Nested(inner)
            | ast::Expr::IsNull(inner)
            | ast::Expr::IsNotNull(inner)
            | ast::Expr::IsTrue(inner)
            | ast::Expr::IsFalse(inner)
            | ast::Expr::IsNotTrue(inner)
            | ast::Expr::IsNotFalse(inner)
            | ast::Expr::IsUnknown(inner)
            | ast::Expr::IsNotUnknown(inner) => inner,
            ast::Expr::BinaryOp { left: inner, .. }
            | ast::Expr::UnaryOp { expr: inner, .. }
            | ast::Expr::Between { expr: inner, .. }
            | ast::Expr::In { expr: inner, .. }
            | ast::Expr::Cast { expr: inner, .. }
            | ast::Expr::CompoundFieldAccess { root: inner, .. } => inner,
            ast::Expr::Function(function) => {
                let name = function.name.0.first().and_then(|part| part.as_ident());
                break name.map_or_else(|| function.span().start, |name| name.span.start);
            }
            ast::Expr::Case { case_token, .. } => break case_token.0.span.start,
            ast::Expr::Subquery(query) => return super::query::start(query),
            ast::Expr::Exists { subquery, .. } => return super::query::start(subquery),
            ast::Expr::Tuple(values) if !values.is_empty() => &values[0],
            other => break other.span().start,
        };
    };
    // If a node has no position, the first subexpression with a position determines it.
    place(if begin.line > 0 { begin } else { expr.span().start })
}

fn called(name: &str, args: Vec<Expr>, place: Place) -> Expr {
    Expr::Call { name: name.to_string(), args, distinct: false, filter: None, place }
}

fn column(idents: &[Ident]) -> Expr {
    let place = idents.first().map_or(Place::default(), |ident| place(ident.span.start));
    Expr::Column { parts: idents.iter().map(|ident| ident.value.clone()).collect(), place }
}

fn not(negated: bool, expr: Expr) -> Expr {
    if negated { call("not", [expr]) } else { expr }
}

fn data_type(written: &ast::DataType) -> PlanResult<DataType> {
    Ok(Schema::parse_ddl(&format!("t {written}"))?.fields.remove(0).data_type)
}

/// Converts an expression without subqueries.
pub fn convert(expr: &ast::Expr) -> PlanResult<Expr> {
    convert_with(expr, &|_| Ok(None))
}

/// Rejects a condition without parentheses as an operand where Spark's grammar requires a value, as
/// in `a IS NULL = b`.
fn operand(expr: &ast::Expr) -> PlanResult<()> {
    let is_condition = match expr {
        ast::Expr::UnaryOp { op, .. } => {
            matches!(op, UnaryOperator::Not | UnaryOperator::BangNot)
        }
        ast::Expr::BinaryOp { op, .. } => matches!(op, BinaryOperator::And | BinaryOperator::Or),
        ast::Expr::In { .. }
        | ast::Expr::Between { .. }
        | ast::Expr::Like { .. }
        | ast::Expr::ILike { .. }
        | ast::Expr::RLike { .. }
        | ast::Expr::Exists { .. }
        | ast::Expr::IsNull(_)
        | ast::Expr::IsNotNull(_)
        | ast::Expr::IsTrue(_)
        | ast::Expr::IsFalse(_)
        | ast::Expr::IsNotTrue(_)
        | ast::Expr::IsNotFalse(_)
        | ast::Expr::IsUnknown(_)
        | ast::Expr::IsNotUnknown(_)
        | ast::Expr::IsDistinctFrom(..)
        | ast::Expr::IsNotDistinctFrom(..) => true,
        _ => false,
    };
    if !is_condition {
        return Ok(());
    }
    let reason = format!("the condition `{expr}` is used where a value is expected");
    Err(PlanError::new("PARSE_SYNTAX_ERROR", reason, "Put it in parentheses").at(at(expr)))
}

/// The arguments of a call; `None` if the call has other clauses, such as FILTER, or an argument
/// that is not a plain expression, such as `*`.
pub fn plain_args(
    function: &ast::Function,
    hook: &Subqueries<'_>,
) -> PlanResult<Option<Vec<Expr>>> {
    let FunctionArguments::List(list) = &function.args else { return Ok(None) };
    let plain = list.clauses.is_empty()
        && list.duplicate_treatment.is_none()
        && !function.uses_odbc_syntax
        && matches!(function.parameters, FunctionArguments::None)
        && function.within_group.is_empty()
        && function.null_treatment.is_none()
        && function.filter.is_none()
        && function.over.is_none();
    if !plain {
        return Ok(None);
    }
    let mut args = Vec::new();
    for arg in &list.args {
        match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => {
                args.push(convert_with(expr, hook)?)
            }
            _ => return Ok(None),
        }
    }
    Ok(Some(args))
}

/// A hook of [`convert_with`] for function calls and subqueries (scalar, IN, EXISTS). It returns
/// `None` for an expression that it does not convert: such a call is converted by default, such a
/// subquery is an error.
pub type Subqueries<'h> = dyn Fn(&ast::Expr) -> PlanResult<Option<Expr>> + 'h;

/// Converts an expression. Subqueries and calls are first passed to `hook`.
pub fn convert_with(expr: &ast::Expr, hook: &Subqueries<'_>) -> PlanResult<Expr> {
    let here = at(expr);
    nested(here, || match expr {
        ast::Expr::BinaryOp { .. } => operators(expr, here, hook),
        _ => convert_one(expr, here, hook),
    })
}

/// Converts a left-associative chain of operators. The conversion is a loop, because a chain may
/// have a hundred thousand operators.
fn operators(expr: &ast::Expr, here: Place, hook: &Subqueries<'_>) -> PlanResult<Expr> {
    let (mut first, mut links) = (expr, Vec::new());
    while let ast::Expr::BinaryOp { left, op, right } = first {
        if !matches!(op, BinaryOperator::And | BinaryOperator::Or) {
            operand(left)?;
            operand(right)?;
        }
        let name = operator(op)
            .ok_or_else(|| PlanError::not_yet(format_args!("the operator {op}")).at(here))?;
        links.push((name, right));
        first = left;
    }
    let mut made = convert_with(first, hook)?;
    for (name, right) in links.into_iter().rev() {
        made = binary(name, made, convert_with(right, hook)?, here);
    }
    Ok(made)
}

// Converts an expression that starts at `here`.
fn convert_one(expr: &ast::Expr, here: Place, hook: &Subqueries<'_>) -> PlanResult<Expr> {
    let convert = |expr: &ast::Expr| convert_with(expr, hook);
    let unary = |name: &str, arg: &ast::Expr| Ok(called(name, vec![convert(arg)?], here));
    let test = |arg: &ast::Expr| operand(arg).and_then(|()| convert(arg));
    match expr {
        ast::Expr::Identifier(ident) => Ok(name_alone(ident, here)),
        ast::Expr::CompoundIdentifier(idents) => Ok(column(idents)),
        ast::Expr::Nested(inner) => convert(inner),
        ast::Expr::Value(value) => literal(&value.value, here),
        ast::Expr::TypedString(typed) => typed_string(typed, here),
        ast::Expr::IsNull(arg) => Ok(called("isnull", vec![test(arg)?], here)),
        ast::Expr::IsNotNull(arg) => Ok(called("isnotnull", vec![test(arg)?], here)),
        ast::Expr::IsUnknown(arg) => Ok(called("isnull", vec![test(arg)?], here)),
        ast::Expr::IsNotUnknown(arg) => Ok(called("isnotnull", vec![test(arg)?], here)),
        ast::Expr::IsTrue(arg) => Ok(call("<=>", [test(arg)?, true.into()])),
        ast::Expr::IsFalse(arg) => Ok(call("<=>", [test(arg)?, false.into()])),
        ast::Expr::IsNotTrue(arg) => Ok(not(true, call("<=>", [test(arg)?, true.into()]))),
        ast::Expr::IsNotFalse(arg) => Ok(not(true, call("<=>", [test(arg)?, false.into()]))),
        ast::Expr::IsDistinctFrom(a, b) => Ok(not(true, call("<=>", [test(a)?, test(b)?]))),
        ast::Expr::IsNotDistinctFrom(a, b) => Ok(call("<=>", [test(a)?, test(b)?])),
        ast::Expr::UnaryOp { op, expr } => unary_op(*op, expr, here, hook),
        ast::Expr::In { global: true, .. } => {
            Err(syntax("`GLOBAL` is not part of IN in Spark SQL", here))
        }
        ast::Expr::In { expr, target: InTarget::List(list), negated, global: false } => {
            in_list(expr, list, *negated, here, hook)
        }
        ast::Expr::Between { expr, negated, low, high } => between(expr, low, high, *negated, hook),
        ast::Expr::Like { negated, any: false, expr, pattern, escape_char } => {
            like("like", *negated, expr, pattern, escape_char.as_deref(), here, hook)
        }
        ast::Expr::ILike { negated, any: false, expr, pattern, escape_char } => {
            like("ilike", *negated, expr, pattern, escape_char.as_deref(), here, hook)
        }
        ast::Expr::Cast { format: Some(format), .. } => {
            let mut error = syntax(format!("CAST has no `FORMAT {format}`"), here);
            error.fix = "Use date_format(time, pattern) or to_timestamp(text, pattern)".to_string();
            Err(error)
        }
        ast::Expr::Cast { kind, expr, data_type: to, format: None } => {
            cast(kind, expr, to, here, hook)
        }
        ast::Expr::Case { operand, conditions, else_result, case_token: _, end_token: _ } => {
            case(operand.as_deref(), conditions, else_result.as_deref(), hook)
        }
        ast::Expr::Function(function) => match hook(expr)? {
            Some(own) => Ok(own),
            None => function_call(function, here, hook),
        },
        ast::Expr::CompoundFieldAccess { root, access_chain } => {
            access(root, access_chain, here, hook)
        }
        ast::Expr::Trim { expr, trim_where, trim_what, trim_characters: None } => {
            trim(expr, trim_where.as_ref(), trim_what.as_deref(), here, hook)
        }
        ast::Expr::Substring {
            expr,
            substring_from,
            substring_for,
            special: _,   // Commas in the place of FROM and FOR.
            shorthand: _, // The name `substr`.
        } => {
            let parts = [Some(&**expr), substring_from.as_deref(), substring_for.as_deref()];
            all_of("substring", parts, here, hook)
        }
        ast::Expr::Floor {
            expr,
            field: CeilFloorKind::DateTimeField(ast::DateTimeField::NoDateTime),
        } => unary("floor", expr),
        ast::Expr::Ceil {
            expr,
            field: CeilFloorKind::DateTimeField(ast::DateTimeField::NoDateTime),
        } => unary("ceil", expr),
        ast::Expr::RLike { negated, expr, pattern, regexp: _ } => {
            let args = vec![test(expr)?, test(pattern)?];
            Ok(not(*negated, called("regexp_like", args, here)))
        }
        ast::Expr::Extract { field, expr, syntax: written } => {
            extract(field, expr, written, here, hook)
        }
        ast::Expr::Floor { expr, field: CeilFloorKind::Scale(scale) } => {
            Ok(called("floor", vec![convert(expr)?, literal(&scale.value, here)?], here))
        }
        ast::Expr::Ceil { expr, field: CeilFloorKind::Scale(scale) } => {
            Ok(called("ceil", vec![convert(expr)?, literal(&scale.value, here)?], here))
        }
        ast::Expr::Position { expr, r#in } => {
            all_of("locate", [Some(&**expr), Some(&**r#in)], here, hook)
        }
        ast::Expr::Overlay { expr, overlay_what, overlay_from, overlay_for } => {
            let parts = [
                Some(&**expr),
                Some(&**overlay_what),
                Some(&**overlay_from),
                overlay_for.as_deref(),
            ];
            all_of("overlay", parts, here, hook)
        }
        ast::Expr::Tuple(values) => {
            let values = values.iter().map(convert).collect::<PlanResult<Vec<_>>>()?;
            Ok(called("struct", values, here))
        }
        ast::Expr::Struct { values, fields } if fields.is_empty() => structure(values, here, hook),
        // The name is dropped here: `structure` handles the names of a struct's fields.
        ast::Expr::Named { expr, name: _ } => convert(expr),
        ast::Expr::Lambda(lambda) => {
            let params: Vec<_> = match &lambda.params {
                ast::OneOrManyWithParens::One(one) => vec![one],
                ast::OneOrManyWithParens::Many(many) => many.iter().collect(),
            };
            let names = params.iter().map(|param| param.name.value.clone()).collect();
            Ok(Expr::Lambda(names, Box::new(convert(&lambda.body)?)))
        }
        ast::Expr::Collate { expr, collation } => {
            let name = collation.to_string().replace('`', "");
            Ok(called("collate", vec![convert(expr)?, name.as_str().into()], here))
        }
        ast::Expr::Subquery(_) | ast::Expr::Exists { .. } | ast::Expr::In { .. } => {
            hook(expr)?.ok_or_else(|| PlanError::not_yet("a subquery here").at(here))
        }
        other => Err(PlanError::not_yet(format_args!("the expression `{other}`")).at(here)),
    }
}

/// Converts `struct(a, b AS c)`. A field without an alias is named like its column, or by its
/// position.
fn structure(values: &[ast::Expr], here: Place, hook: &Subqueries<'_>) -> PlanResult<Expr> {
    let convert = |expr: &ast::Expr| convert_with(expr, hook);
    if !values.iter().any(|value| matches!(value, ast::Expr::Named { .. })) {
        let values = values.iter().map(convert).collect::<PlanResult<Vec<_>>>()?;
        return Ok(called("struct", values, here));
    }
    let mut args = Vec::new();
    for (i, value) in values.iter().enumerate() {
        let converted = convert(value)?;
        let name = match (value, &converted) {
            (ast::Expr::Named { name, .. }, _) => name.value.clone(),
            (_, Expr::Column { parts, .. }) => parts.last().cloned().unwrap_or_default(),
            _ => format!("col{}", i + 1),
        };
        args.extend([Expr::from(name.as_str()), converted]);
    }
    Ok(called("named_struct", args, here))
}

fn unary_op(
    op: UnaryOperator,
    arg: &ast::Expr,
    here: Place,
    hook: &Subqueries<'_>,
) -> PlanResult<Expr> {
    let convert = |expr: &ast::Expr| convert_with(expr, hook);
    match op {
        UnaryOperator::Not | UnaryOperator::BangNot => {
            if let Some(negated) = negated(arg) {
                return convert(&negated);
            }
            Ok(called("not", vec![convert(arg)?], here))
        }
        UnaryOperator::Plus => {
            operand(arg).and_then(|()| Ok(called("positive", vec![convert(arg)?], here)))
        }
        UnaryOperator::Minus => match arg {
            // A minus sign directly before a number belongs to the number, also before a cast with
            // `::`.
            ast::Expr::Cast { kind: CastKind::DoubleColon, expr, data_type: to, .. }
                if begins_with_number(expr) =>
            {
                let to = data_type(to).map_err(|error| error.at(here))?;
                let expr = Box::new(unary_op(op, expr, here, hook)?);
                Ok(Expr::Cast { expr, to, lenient: false })
            }
            // The sign is parsed with the number, because the smallest BIGINT has no positive
            // counterpart.
            ast::Expr::Value(value) => match &value.value {
                ast::Value::Number(digits, long) => {
                    number(&format!("-{digits}{}", if *long { "L" } else { "" }), here)
                }
                _ => Ok(called("negative", vec![convert(arg)?], here)),
            },
            _ => operand(arg).and_then(|()| Ok(called("negative", vec![convert(arg)?], here))),
        },
        UnaryOperator::BitwiseNot => {
            operand(arg).and_then(|()| Ok(called("~", vec![convert(arg)?], here)))
        }
        other => Err(PlanError::not_yet(format_args!("the operator {other}")).at(here)),
    }
}

/// Negates a condition that contains IN subqueries, by pushing the negation down to them: `NOT (a
/// OR b IN (…))` becomes `NOT a AND b NOT IN (…)`. This is necessary because NOT IN is planned
/// differently from a negated IN. `None` if NOT, AND, OR and parentheses lead to no such subquery.
fn negated(condition: &ast::Expr) -> Option<ast::Expr> {
    let not = |expr: &ast::Expr| ast::Expr::UnaryOp {
        op: UnaryOperator::Not,
        expr: Box::new(ast::Expr::Nested(Box::new(expr.clone()))),
    };
    match condition {
        ast::Expr::Nested(inner) => negated(inner),
        ast::Expr::In { target: InTarget::Subquery(_), .. } => {
            let mut flipped = condition.clone();
            if let ast::Expr::In { negated, .. } = &mut flipped {
                *negated = !*negated;
            }
            Some(flipped)
        }
        ast::Expr::UnaryOp { op: UnaryOperator::Not | UnaryOperator::BangNot, expr }
            if negated(expr).is_some() =>
        {
            Some((**expr).clone())
        }
        ast::Expr::BinaryOp { left, op, right } => {
            let op = match op {
                BinaryOperator::And => BinaryOperator::Or,
                BinaryOperator::Or => BinaryOperator::And,
                _ => return None,
            };
            let (of_left, of_right) = match (negated(left), negated(right)) {
                (None, None) => return None,
                (of_left, of_right) => (of_left, of_right),
            };
            let left = Box::new(of_left.unwrap_or_else(|| not(left)));
            let right = Box::new(of_right.unwrap_or_else(|| not(right)));
            Some(ast::Expr::Nested(Box::new(ast::Expr::BinaryOp { left, op, right })))
        }
        _ => None,
    }
}

/// Whether an expression is a number, possibly followed by casts with `::`.
fn begins_with_number(expr: &ast::Expr) -> bool {
    match expr {
        ast::Expr::Value(value) => matches!(value.value, ast::Value::Number(..)),
        ast::Expr::Cast { kind: CastKind::DoubleColon, expr, .. } => begins_with_number(expr),
        _ => false,
    }
}

fn operator(op: &BinaryOperator) -> Option<&'static str> {
    Some(match op {
        BinaryOperator::Plus => "+",
        BinaryOperator::Minus => "-",
        BinaryOperator::Multiply => "*",
        BinaryOperator::Divide => "/",
        BinaryOperator::Modulo => "%",
        BinaryOperator::MyIntegerDivide => "div",
        BinaryOperator::StringConcat => "concat",
        BinaryOperator::Gt => ">",
        BinaryOperator::Lt => "<",
        BinaryOperator::GtEq => ">=",
        BinaryOperator::LtEq => "<=",
        BinaryOperator::Spaceship => "<=>",
        BinaryOperator::Eq => "=",
        BinaryOperator::NotEq => "<>",
        BinaryOperator::And => "and",
        BinaryOperator::Or => "or",
        BinaryOperator::BitwiseAnd => "&",
        BinaryOperator::BitwiseOr => "|",
        BinaryOperator::BitwiseXor => "^",
        BinaryOperator::PGBitwiseShiftLeft => "shiftleft",
        BinaryOperator::PGBitwiseShiftRight => "shiftright",
        BinaryOperator::Custom(name) if name == UNSIGNED_SHIFT => "shiftrightunsigned",
        _ => return None,
    })
}

fn access(
    root: &ast::Expr,
    chain: &[AccessExpr],
    here: Place,
    hook: &Subqueries<'_>,
) -> PlanResult<Expr> {
    let convert = |expr: &ast::Expr| convert_with(expr, hook);
    let mut expr = convert(root)?;
    for step in chain {
        expr = match step {
            AccessExpr::Subscript(Subscript::Index { index }) => {
                called("getitem", vec![expr, convert(index)?], here)
            }
            AccessExpr::Dot(ast::Expr::Identifier(field)) => match &mut expr {
                Expr::Column { parts, .. } => {
                    parts.push(field.value.clone());
                    expr
                }
                _ => Expr::Field(Box::new(expr), field.value.clone()),
            },
            step => {
                return Err(PlanError::not_yet(format_args!("the access `{step}`")).at(here));
            }
        };
    }
    Ok(expr)
}
