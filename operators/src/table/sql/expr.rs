//! Expressions of `sqlparser` into ours.

use super::dialect::UNSIGNED_SHIFT;
use super::{place, refused};
use crate::table::datetime::{Tz, interval, names_zone, parse_date, parse_timestamp, special};
use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::expr::chain::binary;
use crate::table::expr::resolve::COLUMN_OR_FUNCTION;
use crate::table::expr::{Expr, call};
use crate::table::plan::limits::{count_copies, nested};
use crate::table::text::number;
use crate::table::types::{DataType, Schema};
use crate::table::value::Value;
use sqlparser::ast::{
    self, AccessExpr, BinaryOperator, CastKind, CeilFloorKind, DuplicateTreatment, FunctionArg,
    FunctionArgExpr, FunctionArguments, Ident, InTarget, Spanned, Subscript, TrimWhereField,
    UnaryOperator,
};

/// Where an expression begins, without a walk over all of it.
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
    // Some nodes have no place; the first part that has one stands for them.
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

/// Refuses a condition without parentheses where Spark's grammar wants a value: `a IS NULL = b`.
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
    let reason = format!("the condition `{expr}` stands where a value is expected");
    Err(PlanError::new("PARSE_SYNTAX_ERROR", reason, "Put it in parentheses").at(at(expr)))
}

/// The arguments of a call, where there is nothing else to it.
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

/// Puts an expression in the place of a part that holds a subquery, or that calls a function of
/// the program's own.
pub type Subqueries<'h> = dyn Fn(&ast::Expr) -> PlanResult<Option<Expr>> + 'h;

/// Converts an expression, its subqueries by `hook`.
pub fn convert_with(expr: &ast::Expr, hook: &Subqueries<'_>) -> PlanResult<Expr> {
    let here = at(expr);
    nested(here, || match expr {
        ast::Expr::BinaryOp { .. } => operators(expr, here, hook),
        _ => convert_one(expr, here, hook),
    })
}

/// Converts operators, each of which has those before it on its left, in a loop: there may be a
/// hundred thousand.
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

fn convert_one(expr: &ast::Expr, here: Place, hook: &Subqueries<'_>) -> PlanResult<Expr> {
    let convert = |expr: &ast::Expr| convert_with(expr, hook);
    let unary = |name: &str, arg: &ast::Expr| Ok(called(name, vec![convert(arg)?], here));
    let test = |arg: &ast::Expr| operand(arg).and_then(|()| convert(arg));
    match expr {
        ast::Expr::Identifier(ident) => Ok(column(std::slice::from_ref(ident))),
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
            Err(super::syntax("`GLOBAL` is no part of IN in Spark SQL", here))
        }
        ast::Expr::In { expr, target: InTarget::List(list), negated, global: false } => {
            operand(expr)?;
            let needle = convert(expr)?;
            let list = list.iter().map(convert).collect::<PlanResult<Vec<_>>>()?;
            Ok(not(*negated, called("in", std::iter::once(needle).chain(list).collect(), here)))
        }
        ast::Expr::Between { expr, negated, low, high } => {
            [expr, low, high].into_iter().try_for_each(|part| operand(part))?;
            let (value, low, high) = (convert(expr)?, convert(low)?, convert(high)?);
            count_copies(value.size())?;
            Ok(not(
                *negated,
                call("and", [call(">=", [value.clone(), low]), call("<=", [value, high])]),
            ))
        }
        ast::Expr::Like { negated, any: false, expr, pattern, escape_char } => {
            like("like", *negated, expr, pattern, escape_char.as_deref(), here, hook)
        }
        ast::Expr::ILike { negated, any: false, expr, pattern, escape_char } => {
            like("ilike", *negated, expr, pattern, escape_char.as_deref(), here, hook)
        }
        ast::Expr::Cast { format: Some(format), .. } => {
            let mut error = super::syntax(format!("CAST has no `FORMAT {format}`"), here);
            error.fix = "Use date_format(time, pattern) or to_timestamp(text, pattern)".to_string();
            Err(error)
        }
        ast::Expr::Cast { kind, expr, data_type: to, format: None } => {
            if *kind == CastKind::DoubleColon {
                operand(expr)?;
            }
            let lenient = matches!(kind, CastKind::TryCast | CastKind::SafeCast);
            let to = data_type(to).map_err(|error| error.at(here))?;
            Ok(Expr::Cast { expr: Box::new(convert(expr)?), to, lenient })
        }
        ast::Expr::Case { operand, conditions, else_result, case_token: _, end_token: _ } => {
            let operand = operand.as_ref().map(|operand| convert(operand)).transpose()?;
            let branches = conditions.iter().map(|branch| {
                let when = convert(&branch.condition)?;
                let when = match &operand {
                    Some(operand) => {
                        count_copies(operand.size())?;
                        call("=", [operand.clone(), when])
                    }
                    None => when,
                };
                Ok((when, convert(&branch.result)?))
            });
            let branches = branches.collect::<PlanResult<Vec<_>>>()?;
            let otherwise = else_result.as_ref().map(|e| convert(e).map(Box::new)).transpose()?;
            Ok(Expr::Case { branches, otherwise })
        }
        ast::Expr::Function(function) => match hook(expr)? {
            Some(own) => Ok(own),
            None => function_call(function, here, hook),
        },
        ast::Expr::CompoundFieldAccess { root, access_chain } => {
            access(root, access_chain, here, hook)
        }
        ast::Expr::Trim { expr, trim_where, trim_what, trim_characters: None } => {
            let name = match trim_where {
                Some(TrimWhereField::Leading) => "ltrim",
                Some(TrimWhereField::Trailing) => "rtrim",
                _ => "trim",
            };
            // The characters come before the text, as in `trim(characters, text)`.
            let what = trim_what.as_ref().map(|what| convert(what)).transpose()?;
            let args = what.into_iter().chain([convert(expr)?]).collect();
            Ok(called(name, args, here))
        }
        ast::Expr::Substring {
            expr,
            substring_from,
            substring_for,
            special: _,   // Commas in the place of FROM and FOR.
            shorthand: _, // The name `substr`.
        } => {
            let mut args = vec![convert(expr)?];
            for part in [substring_from, substring_for].into_iter().flatten() {
                args.push(convert(part)?);
            }
            Ok(called("substring", args, here))
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
        ast::Expr::Extract { syntax: ast::ExtractSyntax::Comma, .. } => {
            let mut error = super::syntax("EXTRACT has a comma for FROM", here);
            error.fix = "Write extract(YEAR FROM time) or date_part('YEAR', time)".to_string();
            Err(error)
        }
        ast::Expr::Extract { field, expr, syntax: ast::ExtractSyntax::From } => {
            let field = field.to_string().replace('\'', "");
            Ok(called("extract", vec![field.as_str().into(), convert(expr)?], here))
        }
        ast::Expr::Floor { expr, field: CeilFloorKind::Scale(scale) } => {
            Ok(called("floor", vec![convert(expr)?, literal(&scale.value, here)?], here))
        }
        ast::Expr::Ceil { expr, field: CeilFloorKind::Scale(scale) } => {
            Ok(called("ceil", vec![convert(expr)?, literal(&scale.value, here)?], here))
        }
        ast::Expr::Position { expr, r#in } => {
            Ok(called("locate", vec![convert(expr)?, convert(r#in)?], here))
        }
        ast::Expr::Overlay { expr, overlay_what, overlay_from, overlay_for } => {
            let mut args = vec![convert(expr)?, convert(overlay_what)?, convert(overlay_from)?];
            args.extend(overlay_for.as_ref().map(|length| convert(length)).transpose()?);
            Ok(called("overlay", args, here))
        }
        ast::Expr::Tuple(values) => {
            let values = values.iter().map(convert).collect::<PlanResult<Vec<_>>>()?;
            Ok(called("struct", values, here))
        }
        ast::Expr::Struct { values, fields } if fields.is_empty() => structure(values, here, hook),
        // The name is read where the struct is made.
        ast::Expr::Named { expr, name: _ } => convert(expr),
        ast::Expr::Lambda(lambda) => {
            let params: Vec<_> = match &lambda.params {
                ast::OneOrManyWithParens::One(one) => vec![one],
                ast::OneOrManyWithParens::Many(many) => many.iter().collect(),
            };
            let names = params.iter().map(|param| param.name.value.clone()).collect();
            Ok(Expr::Lambda(names, Box::new(convert(&lambda.body)?)))
        }
        ast::Expr::Subquery(_) | ast::Expr::Exists { .. } | ast::Expr::In { .. } => {
            hook(expr)?.ok_or_else(|| PlanError::not_yet("a subquery here").at(here))
        }
        other => Err(PlanError::not_yet(format_args!("the expression `{other}`")).at(here)),
    }
}

/// `struct(a, b AS c)`: named where it is said, else by the column or its place.
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

/// `s LIKE pattern`, or with ANY, SOME or ALL of a list of patterns, which [`super::rewrite`]
/// has made a call.
fn like(
    name: &str,
    negated: bool,
    expr: &ast::Expr,
    pattern: &ast::Expr,
    escape: Option<&ast::Expr>,
    here: Place,
    hook: &Subqueries<'_>,
) -> PlanResult<Expr> {
    let convert = |expr: &ast::Expr| convert_with(expr, hook);
    [expr, pattern].into_iter().try_for_each(operand)?;
    let value = convert(expr)?;
    let one = |args: Vec<Expr>| not(negated, called(name, args, here));
    if let Some((all, patterns)) = quantified(pattern) {
        count_copies(value.size().saturating_mul(patterns.len()))?;
        let tests =
            patterns.into_iter().map(|pattern| Ok(one(vec![value.clone(), convert(pattern)?])));
        let tests = tests.collect::<PlanResult<Vec<_>>>()?;
        let operator = if all { "and" } else { "or" };
        let joined = tests.into_iter().reduce(|a, b| binary(operator, a, b, Place::default()));
        return joined.ok_or_else(|| {
            PlanError::new(
                "INVALID_SQL_SYNTAX.EMPTY_QUANTIFIED_PATTERN",
                "LIKE with ANY, SOME or ALL needs a pattern",
                "Write: LIKE ANY ('a%', 'b%')",
            )
            .at(here)
        });
    }
    let mut args = vec![value, convert(pattern)?];
    if let Some(escape) = escape {
        let escape = convert(escape)?;
        match &escape {
            Expr::Literal(Value::String(text), _) if text.encode_utf16().count() == 1 => {}
            Expr::Literal(Value::String(text), _) => {
                let reason = format!("the escape '{text}' is not one character");
                return Err(PlanError::new("INVALID_ESC", reason, "").at(here));
            }
            _ => return Err(super::syntax("ESCAPE needs a string literal", here)),
        }
        args.push(escape);
    }
    Ok(one(args))
}

/// The patterns of a quantified LIKE, and whether all of them are to match.
fn quantified(pattern: &ast::Expr) -> Option<(bool, Vec<&ast::Expr>)> {
    let ast::Expr::Function(function) = pattern else { return None };
    let name = function.name.to_string();
    let all = name.strip_prefix(super::REWRITTEN)? == "like_all";
    let ast::FunctionArguments::List(list) = &function.args else { return None };
    let patterns = list.args.iter().map(|arg| match arg {
        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    });
    Some((all, patterns.collect::<Option<_>>()?))
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
            // A sign before a number is part of it, and `::` binds closer than a sign.
            ast::Expr::Cast { kind: CastKind::DoubleColon, expr, data_type: to, .. }
                if begins_with_number(expr) =>
            {
                let to = data_type(to).map_err(|error| error.at(here))?;
                let expr = Box::new(unary_op(op, expr, here, hook)?);
                Ok(Expr::Cast { expr, to, lenient: false })
            }
            // The smallest BIGINT has no positive counterpart, so the sign belongs to the number.
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

/// The opposite of a condition on subqueries of IN, as a condition on subqueries of NOT IN, for
/// which other rules hold than for NOT of the first: `NOT (a OR b IN (…))` is `NOT a AND b NOT IN (…)`.
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

/// Whether it is a number, perhaps cast by `::`.
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

fn literal(value: &ast::Value, here: Place) -> PlanResult<Expr> {
    match value {
        ast::Value::Number(digits, true) => number(&format!("{digits}L"), here),
        ast::Value::Number(digits, false) => number(digits, here),
        ast::Value::SingleQuotedString(text)
        | ast::Value::DoubleQuotedString(text)
        | ast::Value::SingleQuotedRawStringLiteral(text)
        | ast::Value::DoubleQuotedRawStringLiteral(text) => Ok(text.as_str().into()),
        ast::Value::Boolean(value) => Ok((*value).into()),
        ast::Value::Null => Ok(Expr::Literal(Value::Null, DataType::Null)),
        ast::Value::HexStringLiteral(digits) => {
            let padded = if digits.len() % 2 == 1 { format!("0{digits}") } else { digits.clone() };
            let byte = |at: usize| u8::from_str_radix(padded.get(at..at + 2)?, 16).ok();
            match (0..padded.len()).step_by(2).map(byte).collect::<Option<Vec<u8>>>() {
                Some(bytes) => Ok(Expr::Literal(Value::Binary(bytes), DataType::Binary)),
                None => Err(PlanError::new(
                    "INVALID_TYPED_LITERAL",
                    format!("X'{digits}' has other than hexadecimal digits"),
                    "",
                )
                .at(here)),
            }
        }
        other => Err(PlanError::not_yet(format_args!("the literal {other}")).at(here)),
    }
}

/// The letters behind a number that say its type.
const SUFFIXES: [(&str, DataType); 6] = [
    ("bd", DataType::Decimal(0, 0)),
    ("l", DataType::Long),
    ("s", DataType::Short),
    ("y", DataType::Byte),
    ("d", DataType::Double),
    ("f", DataType::Float),
];

/// A number as Spark types it: INT, BIGINT, DECIMAL, with an exponent DOUBLE, or by its suffix.
fn number(written: &str, here: Place) -> PlanResult<Expr> {
    let lower = written.to_ascii_lowercase();
    let wrong = || {
        PlanError::new(
            "INVALID_NUMERIC_LITERAL_RANGE",
            format!("'{written}' is not a number that fits"),
            "",
        )
        .at(here)
    };
    let suffix = SUFFIXES.iter().find_map(|(suffix, to)| {
        let digits = lower.strip_suffix(suffix)?;
        digits.ends_with(|c: char| c.is_ascii_digit() || c == '.').then_some((digits, to))
    });
    let (digits, to) = match suffix {
        Some((digits, to)) => (digits, to.clone()),
        None if lower.contains('e') => (lower.as_str(), DataType::Double),
        None => match lower.parse::<i64>() {
            Ok(value) => {
                return Ok(i32::try_from(value).map_or_else(|_| value.into(), Into::into));
            }
            Err(_) => (lower.as_str(), DataType::Decimal(0, 0)),
        },
    };
    let value = match &to {
        DataType::Decimal(..) => {
            let (value, to) = number::literal(digits).ok_or_else(wrong)?.map_err(|condition| {
                let reason = format!("'{written}' has more digits than the 38 of a decimal");
                PlanError::new(condition, reason, "Write it as a DOUBLE: with E0").at(here)
            })?;
            return Ok(Expr::Literal(Value::Decimal(value), to));
        }
        DataType::Float | DataType::Double => {
            // Beyond the largest float is what is rounded to it, too.
            let exact = number::double(digits, &DataType::Double).unwrap_or(f64::INFINITY);
            let most = if to == DataType::Float { f64::from(f32::MAX) } else { f64::MAX };
            let value = number::double(digits, &to).map(Value::Double);
            value.filter(|_| exact.abs() <= most)
        }
        to => number::integer(digits, to, number::Fraction::Refused).map(Value::Long),
    };
    Ok(Expr::Literal(value.ok_or_else(wrong)?, to))
}

fn typed_string(typed: &ast::TypedString, here: Place) -> PlanResult<Expr> {
    if typed.uses_odbc_syntax {
        let mut error = super::syntax("Spark SQL has no literals in braces", here);
        error.fix = "Write DATE '2024-01-31' or TIMESTAMP '2024-01-31 12:00:00'".to_string();
        return Err(error);
    }
    let to = data_type(&typed.data_type)?;
    let text = match &typed.value.value {
        ast::Value::SingleQuotedString(text) | ast::Value::DoubleQuotedString(text) => text,
        other => return Err(PlanError::not_yet(format_args!("the literal {other}")).at(here)),
    };
    // Where TIMESTAMP is the type without a zone, a text with one is of the type that has one.
    let with_zone = matches!(typed.data_type, ast::DataType::Timestamp(..)) && names_zone(text);
    datetime_literal(text, if with_zone { DataType::Timestamp } else { to }, here)
}

/// A literal of a date or a time.
fn datetime_literal(text: &str, to: DataType, here: Place) -> PlanResult<Expr> {
    if to.is_datetime() && special(text).is_some() {
        return Ok(Expr::from(text).cast(to));
    }
    let value = match to {
        DataType::Date => parse_date(text),
        // What zone it is in is not known here.
        DataType::Timestamp if parse_timestamp(text, Some(Tz::UTC)).is_some() => {
            return Ok(Expr::from(text).cast(to));
        }
        DataType::Timestamp => None,
        DataType::TimestampNtz => parse_timestamp(text, None),
        _ => return Err(PlanError::not_yet(format_args!("a literal of type {to}")).at(here)),
    };
    match value {
        Some(value) => Ok(Expr::Literal(Value::Long(value), to)),
        None => Err(PlanError::new(
            "INVALID_TYPED_LITERAL",
            format!("'{text}' is not a {to}"),
            "Write DATE '2024-01-31' or TIMESTAMP '2024-01-31 12:00:00'",
        )
        .at(here)),
    }
}

/// The condition of a window function over a stream.
pub(super) const OVER: &str = "NON_TIME_WINDOW_NOT_SUPPORTED_IN_STREAMING";

fn function_call(function: &ast::Function, here: Place, hook: &Subqueries<'_>) -> PlanResult<Expr> {
    let convert = |expr: &ast::Expr| convert_with(expr, hook);
    let name = function.name.to_string().replace('`', "").to_ascii_lowercase();
    if function.over.is_some() {
        return Err(PlanError::new(
            OVER,
            format!("`{name} OVER (…)` needs rows that have not come yet, or keeps all that came"),
            "Aggregate with GROUP BY",
        )
        .at(here));
    }
    if let Some(rest) = name.strip_prefix(super::REWRITTEN) {
        return rewritten(rest, function, here);
    }
    let list = match &function.args {
        FunctionArguments::List(list) => list,
        FunctionArguments::None => return Ok(without_parentheses(function, name, here)),
        FunctionArguments::Subquery(_) => {
            return Err(PlanError::not_yet("a subquery as an argument").at(here));
        }
    };
    let ignores = refused::check_call(function, &name, here)?;
    if !list.clauses.is_empty() {
        return Err(PlanError::not_yet(format_args!("these clauses of `{name}`")).at(here));
    }
    let args = list.args.iter().map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => convert(expr),
        FunctionArg::Unnamed(FunctionArgExpr::Wildcard) => Ok(Expr::Star(None)),
        other => Err(PlanError::not_yet(format_args!("the argument `{other}`")).at(here)),
    });
    let mut args = args.collect::<PlanResult<Vec<_>>>()?;
    if ignores {
        args.push(true.into());
    }
    // `timestampadd(MINUTE, …)`: the unit is a word, not a column.
    let by_unit = matches!(name.as_str(), "timestampadd" | "timestampdiff")
        || args.len() == 3
            && matches!(name.as_str(), "date_add" | "dateadd" | "date_diff" | "datediff");
    let mut name = name;
    if by_unit && matches!(args.first(), Some(Expr::Literal(Value::String(_), _))) {
        return Err(PlanError::new(
            "INVALID_PARAMETER_VALUE.DATETIME_UNIT",
            format!("the unit of `{name}` is a word without quotes"),
            "timestampdiff(HOUR, start, end)",
        )
        .at(here));
    }
    if by_unit && let Some(Expr::Column { parts, .. }) = args.first() {
        args[0] = parts.join(".").as_str().into();
        name = if name.contains("diff") { "timestampdiff" } else { "timestampadd" }.to_string();
    }
    if name == "struct"
        && list.args.iter().any(|arg| {
            matches!(arg, FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Named { .. })))
        })
    {
        let values: Vec<ast::Expr> = list
            .args
            .iter()
            .filter_map(|arg| match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => Some(value.clone()),
                _ => None,
            })
            .collect();
        return structure(&values, here, hook);
    }
    Ok(Expr::Call {
        name,
        args,
        distinct: matches!(list.duplicate_treatment, Some(DuplicateTreatment::Distinct)),
        filter: function.filter.as_ref().map(|f| convert(f).map(Box::new)).transpose()?,
        place: here,
    })
}

/// A name that the parser takes for a function without parentheses: of a column, else of one of
/// the functions that Spark knows so.
fn without_parentheses(function: &ast::Function, name: String, here: Place) -> Expr {
    let idents = function.name.0.iter().filter_map(|part| part.as_ident().cloned());
    let column = column(&idents.collect::<Vec<_>>());
    match name.as_str() {
        "current_date" | "current_time" | "current_timestamp" => {
            called(COLUMN_OR_FUNCTION, vec![column, called(&name, Vec::new(), here)], here)
        }
        _ => column,
    }
}

/// A literal that the parser does not know and [`super`] has put into a call.
fn rewritten(what: &str, function: &ast::Function, here: Place) -> PlanResult<Expr> {
    let written = match &function.args {
        FunctionArguments::List(list) => list.args.first().map(ToString::to_string),
        _ => None,
    };
    let written = written.unwrap_or_default();
    let quoted = written.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
    let text = quoted.unwrap_or(&written).replace("''", "'");
    match what {
        "timestamp_ltz" => datetime_literal(&text, DataType::Timestamp, here),
        "interval" => interval_literal(&text).map_err(|error| error.at(here)),
        _ => Err(PlanError::not_yet(format_args!("`{what}`")).at(here)),
    }
}

/// `1 DAY 2 HOURS`, `'1-2' YEAR TO MONTH`, `'10 minutes'`.
pub fn interval_literal(text: &str) -> PlanResult<Expr> {
    let wrong = |condition: &str| {
        PlanError::new(
            condition,
            format!("`INTERVAL` {text} is not a length of time"),
            "Write INTERVAL 10 MINUTES, INTERVAL '1 02:03:04' DAY TO SECOND or INTERVAL 1 YEAR",
        )
    };
    // A range of units says how the text in quotes is read.
    if let Some(rest) = text.strip_prefix('\'')
        && let Some((quoted, units)) = rest.split_once('\'')
        && units.trim().to_ascii_uppercase().contains(" TO ")
    {
        let to = Schema::parse_ddl(&format!("t INTERVAL {units}"))
            .map_err(|_| wrong("INVALID_INTERVAL_FORMAT.UNSUPPORTED_FROM_TO_EXPRESSION"))?;
        let to = to.fields.into_iter().next().map_or(DataType::Null, |field| field.data_type);
        let value = interval::parse(quoted, &to).ok_or_else(|| {
            wrong(match (interval::has_shape(quoted, &to), &to) {
                (true, _) => "INVALID_INTERVAL_FORMAT.INTERVAL_PARSING",
                (false, DataType::YearMonthInterval(..)) => {
                    "INVALID_INTERVAL_FORMAT.UNMATCHED_FORMAT_STRING"
                }
                _ => "INVALID_INTERVAL_FORMAT.UNMATCHED_FORMAT_STRING_WITH_NOTICE",
            })
        })?;
        return Ok(Expr::Literal(Value::Long(value), to));
    }
    let mut parts = text.split('\'');
    let units: String = parts.clone().step_by(2).collect();
    let all_quoted = text.starts_with('\'') && units.trim().is_empty();
    let malformed = if all_quoted { "INVALID_TYPED_LITERAL" } else { "INVALID_INTERVAL_FORMAT" };
    // Before a unit that is not quoted there is one number in quotes.
    let numbers = parts.by_ref().skip(1).step_by(2);
    let single = |part: &str| part.replace("- ", "-").split_whitespace().count() == 1;
    if !all_quoted && !numbers.into_iter().all(single) {
        return Err(wrong(malformed));
    }
    let cleaned = text.replace('\'', " ").replace("- ", "-");
    let words: Vec<&str> = cleaned.split_whitespace().collect();
    if words.is_empty() || words.len() % 2 == 1 {
        return Err(wrong(malformed));
    }
    let overflow = "INTERVAL_ARITHMETIC_OVERFLOW.WITHOUT_SUGGESTION";
    let (mut total, mut kind, mut first, mut last) = (0i64, None, u8::MAX, 0);
    for pair in words.chunks(2) {
        let (value, months, place) =
            interval::of_unit(pair[0], pair[1]).ok_or_else(|| wrong(malformed))?;
        if kind.is_some_and(|kind| kind != months) {
            return Err(PlanError::not_yet("an interval of months and days together"));
        }
        kind = Some(months);
        (first, last) = (first.min(place), last.max(place));
        total = total.checked_add(value).ok_or_else(|| wrong(overflow))?;
    }
    let data_type = if kind == Some(true) {
        DataType::YearMonthInterval(first, last)
    } else {
        DataType::DayTimeInterval(first, last)
    };
    if kind == Some(true) && i32::try_from(total).is_err() {
        return Err(wrong(overflow));
    }
    Ok(Expr::Literal(Value::Long(total), data_type))
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
