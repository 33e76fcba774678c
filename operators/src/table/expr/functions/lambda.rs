//! Higher-order functions: functions that take a lambda, such as `transform(xs, x -> x + 1)`.
//!
//! The body is an ordinary expression. The values of its variables are passed next to the row
//! ([`Cx::variables`]).

use super::array::bounded_array;
use super::map;
use super::registry::{Call, Function, called, element_of, unexpected};
use super::value_index::ValueIndex;
use crate::table::error::{PlanError, PlanResult, counted};
use crate::table::expr::bind::BIND;
use crate::table::expr::cell::{Cell, elements};
use crate::table::expr::coercion::operands::has_same_shape;
use crate::table::expr::coercion::widest_without_text;
use crate::table::expr::compile::{Compiled, Cx, EvalError, bounded_record, failed, from_cells};
use crate::table::expr::resolve::{Hook, Scope, resolve_with};
use crate::table::expr::{Expr, Node, Resolved, lower};
use crate::table::row::RowWriter;
use crate::table::types::{DataType, Field};
use bumpalo::collections::Vec as BumpVec;
use std::cmp::Ordering;

use DataType as T;

const fn higher(
    name: &'static str,
    help: &'static str,
    arity: (usize, usize),
    compile: super::registry::CompileCall,
) -> Function {
    called(
        name,
        help,
        arity,
        |n, args| {
            let wanted = args.iter().any(|arg| matches!(arg.node, Node::Lambda(..)));
            debug_assert!(!wanted, "lambdas are resolved by `resolve_lambda`");
            Err(PlanError::new(
                "INVALID_LAMBDA_FUNCTION_CALL.NUM_ARGS_MISMATCH",
                format!("`{n}` needs a lambda"),
                "transform(xs, x -> x + 1)",
            ))
        },
        compile,
    )
}

pub(super) static FUNCTIONS: &[Function] = &[
    higher(
        "transform",
        "transform(array, x -> …) or (array, (x, index) -> …): the results for each element",
        (2, 2),
        transform,
    )
    .usage("2.4.0", "transform(array(1, 2), x -> x * 10)", "[10, 20]"),
    higher(
        "filter",
        "filter(array, x -> condition): the elements for which it is true",
        (2, 2),
        filter,
    )
    .usage("2.4.0", "filter(array(1, 2, 3), x -> x > 1)", "[2, 3]"),
    higher(
        "exists",
        "exists(array, x -> condition): whether it is true for any",
        (2, 2),
        |a, c| quantified(a, c, Quantifier::Exists),
    )
    .usage("2.4.0", "exists(array(1, 2, 3), x -> x > 2)", "true"),
    higher(
        "forall",
        "forall(array, x -> condition): whether it is true for all",
        (2, 2),
        |a, c| quantified(a, c, Quantifier::ForAll),
    )
    .usage("3.0.0", "forall(array(1, 2, 3), x -> x > 0)", "true"),
    higher(
        "aggregate",
        "aggregate(array, start, (sum, x) -> …[, sum -> …]): folds the elements to one value",
        (3, 4),
        aggregate,
    )
    .usage("2.4.0", "aggregate(array(1, 2, 3), 0, (sum, x) -> sum + x)", "6"),
    higher(
        "zip_with",
        "zip_with(a, b, (x, y) -> …): the results for each pair of elements",
        (3, 3),
        zip_with,
    )
    .usage("2.4.0", "zip_with(array(1, 2), array(10, 20), (x, y) -> x + y)", "[11, 22]"),
    higher(
        "map_filter",
        "map_filter(map, (key, value) -> condition): the entries for which it is true",
        (2, 2),
        map_filter,
    )
    .usage("3.0.0", "map_filter(map('a', 1, 'b', 2), (key, value) -> value > 1)", "{b -> 2}"),
    higher(
        "transform_keys",
        "transform_keys(map, (key, value) -> …): the map with other keys",
        (2, 2),
        |a, c| transform_map(a, c, MapPart::Keys),
    )
    .usage("3.0.0", "transform_keys(map('a', 1), (key, value) -> upper(key))", "{A -> 1}"),
    higher(
        "transform_values",
        "transform_values(map, (key, value) -> …): the map with other values",
        (2, 2),
        |a, c| transform_map(a, c, MapPart::Values),
    )
    .usage("3.0.0", "transform_values(map('a', 1), (key, value) -> value + 1)", "{a -> 2}"),
    higher(
        "map_zip_with",
        "map_zip_with(a, b, (key, x, y) -> …): the map of each key of either to the \
         result for its values",
        (3, 3),
        map_zip_with,
    )
    .usage("3.0.0", "map_zip_with(map('a', 1), map('a', 2), (key, x, y) -> x + y)", "{a -> 3}"),
    higher("array_sort_by", "array_sort(array, (a, b) -> -1, 0 or 1)", (2, 2), sort_by),
    higher(BIND, "", (2, 2), bind),
];

/// Whether a call is that of a higher-order function. `array_sort` is one only with a comparator.
pub fn takes_lambda(name: &str, args: &[Expr]) -> bool {
    let lower = lower(name);
    let sorts = lower == "array_sort" && args.len() > 1;
    sorts || lower == "reduce" || FUNCTIONS.iter().any(|function| function.name == lower)
}

/// Resolves a call of a higher-order function; see [`takes_lambda`].
pub fn resolve_lambda(
    name: &str,
    args: &[Expr],
    scope: &Scope,
    hook: &mut Hook<'_>,
) -> PlanResult<Resolved> {
    let lower = lower(name);
    let lower = match &*lower {
        "reduce" => "aggregate",
        "some" => "exists",
        "array_sort" => "array_sort_by",
        other => other,
    };
    let Some(function) = FUNCTIONS.iter().find(|f| f.name == lower) else {
        return Err(PlanError::new(
            "INVALID_LAMBDA_FUNCTION_CALL.NON_HIGHER_ORDER_FUNCTION",
            format!("`{name}` takes no lambda"),
            "Lambdas are arguments of transform, filter, exists, forall, aggregate, zip_with, \
             map_filter, map_zip_with, transform_keys, transform_values and array_sort",
        ));
    };
    if args.len() < function.arity.0 || args.len() > function.arity.1 {
        return Err(PlanError::new(
            "WRONG_NUM_ARGS.WITHOUT_SUGGESTION",
            format!("`{name}` has {}", counted(args.len(), "argument")),
            function.help,
        ));
    }
    let first = resolve_with(&args[0], scope, hook)?;
    let is_map = matches!(first.data_type, T::Map(..));
    let mut call = LambdaCall { name, function, args, scope, hook };
    if lower == BIND {
        return call.bind(first);
    }
    let wants_map =
        matches!(lower, "map_filter" | "map_zip_with" | "transform_keys" | "transform_values");
    if wants_map != is_map || !is_map && !matches!(first.data_type, T::Array(_)) {
        return Err(unexpected(name, if wants_map { "a map" } else { "an array" }, &first));
    }
    match lower {
        "aggregate" => call.aggregate(first),
        "map_zip_with" => call.map_zip_with(first),
        "zip_with" => call.zip_with(first),
        "array_sort_by" => call.sort_by(first),
        "map_filter" | "transform_keys" | "transform_values" => call.over_map(first),
        _ => call.over_elements(first),
    }
}

/// Resolves a call that takes lambdas.
struct LambdaCall<'c, 'h> {
    /// The name as written, for errors.
    name: &'c str,
    function: &'static Function,
    args: &'c [Expr],
    scope: &'c Scope,
    hook: &'c mut Hook<'h>,
}

impl LambdaCall<'_, '_> {
    fn plain(&mut self, index: usize) -> PlanResult<Resolved> {
        resolve_with(&self.args[index], self.scope, self.hook)
    }

    fn resolved(&self, args: Vec<Resolved>, data_type: DataType) -> PlanResult<Resolved> {
        Ok(Resolved { node: Node::Call(self.function.name, args), data_type, nullable: true })
    }

    fn boolean(&self, lambda: Resolved) -> PlanResult<Resolved> {
        with_body(lambda, |body| match body.data_type {
            T::Boolean | T::Null => Ok(body.coerce(&T::Boolean)),
            _ => Err(unexpected(self.name, "a lambda that gives BOOLEAN", &body)),
        })
    }

    /// Resolves `transform`, `filter`, `exists` and `forall`. A lambda of the first two may take
    /// the index too. The body of the last three must be BOOLEAN.
    fn over_elements(&mut self, array: Resolved) -> PlanResult<Resolved> {
        let element = element_of(&array.data_type).clone();
        match self.function.name {
            "transform" => {
                let body = self.lambda(1, &[element, T::Int], 1)?;
                let to = T::Array(Box::new(body.data_type.clone()));
                self.resolved(vec![array, body], to)
            }
            "filter" => {
                let to = array.data_type.clone();
                let body = self.lambda(1, &[element, T::Int], 1)?;
                self.resolved(vec![array, self.boolean(body)?], to)
            }
            _ => {
                let body = self.lambda(1, &[element], 1)?;
                self.resolved(vec![array, self.boolean(body)?], T::Boolean)
            }
        }
    }

    fn bind(&mut self, value: Resolved) -> PlanResult<Resolved> {
        let body = self.lambda(1, std::slice::from_ref(&value.data_type), 1)?;
        let to = body.data_type.clone();
        self.resolved(vec![value, body], to)
    }

    fn aggregate(&mut self, array: Resolved) -> PlanResult<Resolved> {
        let element = element_of(&array.data_type).clone();
        let start = self.plain(1)?;
        let accumulated = start.data_type.clone();
        let merge = self.lambda(2, &[accumulated.clone(), element], 2)?;
        let merge = with_body(merge, |body| match has_same_shape(&body.data_type, &accumulated) {
            true => Ok(body),
            false if body.data_type == T::Null => Ok(body.coerce(&accumulated)),
            false => Err(unexpected(self.name, "a sum of the type that it starts with", &body)),
        })?;
        let mut all = vec![array, start, merge];
        let mut to = accumulated.clone();
        if self.args.len() > 3 {
            let finish = self.lambda(3, &[accumulated], 1)?;
            to = finish.data_type.clone();
            all.push(finish);
        }
        self.resolved(all, to)
    }

    fn zip_with(&mut self, first: Resolved) -> PlanResult<Resolved> {
        let second = self.plain(1)?;
        let T::Array(other) = second.data_type.clone() else {
            return Err(unexpected(self.name, "an array", &second));
        };
        let body = self.lambda(2, &[element_of(&first.data_type).clone(), *other], 2)?;
        let to = T::Array(Box::new(body.data_type.clone()));
        self.resolved(vec![first, second, body], to)
    }

    /// Resolves `map_zip_with`. The keys of the maps are cast to one type.
    fn map_zip_with(&mut self, first: Resolved) -> PlanResult<Resolved> {
        let second = self.plain(1)?;
        if !matches!(second.data_type, T::Map(..)) {
            return Err(unexpected(self.name, "a map", &second));
        }
        let (a, b) = (map::types(&first.data_type), map::types(&second.data_type));
        let (x, y) = (a.1.clone(), b.1.clone());
        let Some(key) = widest_without_text(a.0, b.0) else {
            return Err(PlanError::new(
                "DATATYPE_MISMATCH.MAP_ZIP_WITH_DIFF_TYPES",
                format!("the maps of `{}` have keys of {} and of {}", self.name, a.0, b.0),
                "Cast the keys to one type",
            ));
        };
        let of_key = |value: &DataType| T::Map(Box::new(key.clone()), Box::new(value.clone()));
        let (first, second) = (first.coerce(&of_key(&x)), second.coerce(&of_key(&y)));
        let body = self.lambda(2, &[key.clone(), x, y], 3)?;
        let to = of_key(&body.data_type);
        self.resolved(vec![first, second, body], to)
    }

    /// Resolves `array_sort` with a comparator.
    fn sort_by(&mut self, array: Resolved) -> PlanResult<Resolved> {
        let (to, element) = (array.data_type.clone(), element_of(&array.data_type).clone());
        let body = self.lambda(1, &[element.clone(), element], 2)?;
        let body = with_body(body, |body| match body.data_type {
            T::Int => Ok(body),
            ref other => Err(PlanError::new(
                "DATATYPE_MISMATCH.UNEXPECTED_RETURN_TYPE",
                format!("the lambda of `array_sort` gives {other}, and must give INT"),
                "-1, 0 or 1: (a, b) -> CASE WHEN a < b THEN -1 WHEN a > b THEN 1 ELSE 0 END",
            )),
        })?;
        self.resolved(vec![array, body], to)
    }

    /// Resolves `map_filter`, `transform_keys` and `transform_values`. Fails if a condition is not
    /// BOOLEAN, or if a new key has a type that keys cannot have.
    fn over_map(&mut self, map: Resolved) -> PlanResult<Resolved> {
        let (key, value) = map::types(&map.data_type);
        let (key, value) = (key.clone(), value.clone());
        let body = self.lambda(1, &[key.clone(), value.clone()], 2)?;
        let (body, key, value) = match self.function.name {
            "map_filter" => (self.boolean(body)?, key, value),
            "transform_keys" => {
                map::check_key(&body.data_type)?;
                let key = body.data_type.clone();
                (body, key, value)
            }
            _ => {
                let value = body.data_type.clone();
                (body, key, value)
            }
        };
        self.resolved(vec![map, body], T::Map(Box::new(key), Box::new(value)))
    }

    /// Resolves a lambda with variables of the given types. The lambda must name at least `least`
    /// and at most all of the variables; any other number is an error.
    fn lambda(
        &mut self,
        index: usize,
        variables: &[DataType],
        least: usize,
    ) -> PlanResult<Resolved> {
        let Expr::Lambda(names, body) = &self.args[index] else {
            // An expression is accepted as a lambda that ignores its variables.
            let body = self.plain(index)?;
            let (data_type, nullable) = (body.data_type.clone(), body.nullable);
            return Ok(Resolved { node: Node::Lambda(least, Box::new(body)), data_type, nullable });
        };
        if names.len() < least || names.len() > variables.len() {
            return Err(PlanError::new(
                "INVALID_LAMBDA_FUNCTION_CALL.NUM_ARGS_MISMATCH",
                format!(
                    "the lambda of `{}` has {}, not {least}",
                    self.name,
                    counted(names.len(), "argument")
                ),
                "",
            ));
        }
        let twice = (1..names.len())
            .find(|&at| names[..at].iter().any(|name| name.eq_ignore_ascii_case(&names[at])));
        if let Some(at) = twice {
            return Err(PlanError::new(
                "INVALID_LAMBDA_FUNCTION_CALL.DUPLICATE_ARG_NAMES",
                format!("the lambda of `{}` has two arguments `{}`", self.name, names[at]),
                "Name each argument differently",
            ));
        }
        let mut inner = self.scope.clone();
        for (name, data_type) in names.iter().zip(variables) {
            inner.variables.push(Field::new(name.clone(), data_type.clone(), true));
        }
        let body = resolve_with(body, &inner, self.hook)?;
        let (data_type, nullable) = (body.data_type.clone(), body.nullable);
        Ok(Resolved { node: Node::Lambda(names.len(), Box::new(body)), data_type, nullable })
    }
}

/// Replaces the body of a lambda by the result of `change`, whose type the lambda then has. Any
/// other expression is returned unchanged.
fn with_body(
    lambda: Resolved,
    change: impl Fn(Resolved) -> PlanResult<Resolved>,
) -> PlanResult<Resolved> {
    let Node::Lambda(count, body) = lambda.node else { return Ok(lambda) };
    let body = change(*body)?;
    let (data_type, nullable) = (body.data_type.clone(), body.nullable);
    Ok(Resolved { node: Node::Lambda(count, Box::new(body)), data_type, nullable })
}

/// The length of the runs that insertion sort handles, as in Java.
const RUN: usize = 32;

/// `exists` or `forall`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quantifier {
    Exists,
    ForAll,
}

/// The part of a map that a lambda replaces.
#[derive(Clone, Copy)]
enum MapPart {
    Keys,
    Values,
}

/// The number of variables of a lambda argument.
fn arity(call: &Call, index: usize) -> usize {
    match call.args[index].node {
        Node::Lambda(count, _) => count,
        _ => 0,
    }
}

/// Evaluates a lambda's body with additional variables.
fn with<'a>(body: &Compiled, cx: Cx<'a>, more: &[Cell<'a>]) -> Result<Cell<'a>, Box<EvalError>> {
    // Each evaluation allocates its variables, so the memory limit also bounds the number of
    // evaluations.
    bounded_record(cx.arena)?;
    let known = cx.variables.len();
    let variables = cx.arena.alloc_slice_fill_with(known + more.len(), |i| {
        if i < known { cx.variables[i] } else { more[i - known] }
    });
    body.cell(Cx { variables, ..cx })
}

fn parts<const N: usize>(args: Vec<Compiled>) -> [Compiled; N] {
    super::registry::take(args)
}

fn array_of<'a>(cells: &[Cell<'_>], cx: Cx<'a>) -> Result<Cell<'a>, Box<EvalError>> {
    bounded_array(cells.len(), cells.iter().map(|cell| cell.bytes().len()).sum())?;
    let mut out = BumpVec::new_in(cx.arena);
    let mut writer = RowWriter::array(&mut out, cells.len());
    cells.iter().enumerate().for_each(|(i, cell)| cell.put(&mut writer, i));
    Ok(Cell::Bytes(out.into_bump_slice()))
}

fn bind(args: Vec<Compiled>, call: Call) -> Compiled {
    let [value, body] = parts(args);
    from_cells(call.to.physical(), move |cx| with(&body, cx, &[value.cell(cx)?]))
}

fn transform(args: Vec<Compiled>, call: Call) -> Compiled {
    let (element, indexed) = (call.element(0).clone(), arity(&call, 1) == 2);
    let [array, body] = parts(args);
    from_cells(call.to.physical(), move |cx| {
        let array = array.cell(cx)?;
        if array.is_null() {
            return Ok(Cell::Null);
        }
        let mut out = BumpVec::new_in(cx.arena);
        for (i, cell) in elements(array.array(), &element).enumerate() {
            let variables = [cell, Cell::Long(i as i64)];
            out.push(with(&body, cx, &variables[..1 + usize::from(indexed)])?);
        }
        array_of(&out, cx)
    })
}

fn filter(args: Vec<Compiled>, call: Call) -> Compiled {
    let (element, indexed) = (call.element(0).clone(), arity(&call, 1) == 2);
    let [array, body] = parts(args);
    from_cells(call.to.physical(), move |cx| {
        let array = array.cell(cx)?;
        if array.is_null() {
            return Ok(Cell::Null);
        }
        let mut out = BumpVec::new_in(cx.arena);
        for (i, cell) in elements(array.array(), &element).enumerate() {
            let variables = [cell, Cell::Long(i as i64)];
            if with(&body, cx, &variables[..1 + usize::from(indexed)])?.bool() {
                out.push(cell);
            }
        }
        array_of(&out, cx)
    })
}

/// Compiles `exists` and `forall` in three-valued logic. If no element decides the result, it is
/// NULL if the condition is NULL for an element.
fn quantified(args: Vec<Compiled>, call: Call, quantifier: Quantifier) -> Compiled {
    // The value of the condition that decides the result as soon as one element has it.
    let wanted = quantifier == Quantifier::Exists;
    let element = call.element(0).clone();
    let [array, body] = parts(args);
    from_cells(call.to.physical(), move |cx| {
        let array = array.cell(cx)?;
        if array.is_null() {
            return Ok(Cell::Null);
        }
        let mut null = false;
        for cell in elements(array.array(), &element) {
            match with(&body, cx, &[cell])? {
                Cell::Bool(found) if found == wanted => return Ok(Cell::Bool(wanted)),
                Cell::Bool(_) => {}
                _ => null = true,
            }
        }
        Ok(if null { Cell::Null } else { Cell::Bool(!wanted) })
    })
}

fn aggregate(args: Vec<Compiled>, call: Call) -> Compiled {
    let element = call.element(0).clone();
    let mut args = args.into_iter();
    let (Some(array), Some(start), Some(merge)) = (args.next(), args.next(), args.next()) else {
        unreachable!("counted")
    };
    let finish = args.next();
    from_cells(call.to.physical(), move |cx| {
        let array = array.cell(cx)?;
        if array.is_null() {
            return Ok(Cell::Null);
        }
        let mut sum = start.cell(cx)?;
        for cell in elements(array.array(), &element) {
            sum = with(&merge, cx, &[sum, cell])?;
        }
        match &finish {
            Some(finish) => with(finish, cx, &[sum]),
            None => Ok(sum),
        }
    })
}

fn zip_with(args: Vec<Compiled>, call: Call) -> Compiled {
    let (x, y) = (call.element(0).clone(), call.element(1).clone());
    let [a, b, body] = parts(args);
    from_cells(call.to.physical(), move |cx| {
        let a = a.cell(cx)?;
        if a.is_null() {
            return Ok(Cell::Null);
        }
        let b = b.cell(cx)?;
        if b.is_null() {
            return Ok(Cell::Null);
        }
        let (mut a, mut b) = (elements(a.array(), &x), elements(b.array(), &y));
        let mut out = BumpVec::new_in(cx.arena);
        // The shorter array is padded with NULLs.
        for _ in 0..a.len().max(b.len()) {
            let pair = [a.next().unwrap_or(Cell::Null), b.next().unwrap_or(Cell::Null)];
            out.push(with(&body, cx, &pair)?);
        }
        array_of(&out, cx)
    })
}

fn map_filter(args: Vec<Compiled>, call: Call) -> Compiled {
    let (key_type, value_type) = map::types(call.data_type(0));
    let (key_type, value_type) = (key_type.clone(), value_type.clone());
    let semantics = call.semantics;
    let [of, body] = parts(args);
    from_cells(call.to.physical(), move |cx| {
        let Some(found) = of.cell(cx)?.map() else { return Ok(Cell::Null) };
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        let pairs = elements(found.keys, &key_type).zip(elements(found.values, &value_type));
        for (key, value) in pairs {
            if with(&body, cx, &[key, value])?.bool() {
                keys.push(key);
                values.push(value);
            }
        }
        map::build(&keys, &values, &key_type, (map::Keys::AsGiven, &semantics), cx.arena)
    })
}

fn transform_map(args: Vec<Compiled>, call: Call, part: MapPart) -> Compiled {
    let (key_type, value_type) = map::types(call.data_type(0));
    let (key_type, value_type) = (key_type.clone(), value_type.clone());
    let to_key = map::types(&call.to).0.clone();
    let semantics = call.semantics;
    let [of, body] = parts(args);
    from_cells(call.to.physical(), move |cx| {
        let Some(found) = of.cell(cx)?.map() else { return Ok(Cell::Null) };
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        let pairs = elements(found.keys, &key_type).zip(elements(found.values, &value_type));
        for (key, value) in pairs {
            let changed = with(&body, cx, &[key, value])?;
            let (key, value) = match part {
                MapPart::Keys => (changed, value),
                MapPart::Values => (key, changed),
            };
            keys.push(key);
            values.push(value);
        }
        map::build(&keys, &values, &to_key, (map::Keys::AsGiven, &semantics), cx.arena)
    })
}

/// Compiles `map_zip_with`: the keys of the first map in order, then those that only the second has.
fn map_zip_with(args: Vec<Compiled>, call: Call) -> Compiled {
    let types = |index: usize| {
        let (key, value) = map::types(call.data_type(index));
        (key.clone(), value.clone())
    };
    let ((key_type, x_type), (_, y_type)) = (types(0), types(1));
    let semantics = call.semantics;
    let [a, b, body] = parts(args);
    from_cells(call.to.physical(), move |cx| {
        let Some(a) = a.cell(cx)?.map() else { return Ok(Cell::Null) };
        let Some(b) = b.cell(cx)?.map() else { return Ok(Cell::Null) };
        let mut index = ValueIndex::new(&key_type);
        let mut pairs = Vec::new();
        for (key, x) in elements(a.keys, &key_type).zip(elements(a.values, &x_type)) {
            // A map has no key twice, but one that was read from a file may.
            if index.insert(key).is_ok() {
                pairs.push((key, x, None));
            }
        }
        for (key, y) in elements(b.keys, &key_type).zip(elements(b.values, &y_type)) {
            match index.insert(key) {
                Ok(()) => pairs.push((key, Cell::Null, Some(y))),
                // The first value of a key counts.
                Err(at) => {
                    pairs[at].2.get_or_insert(y);
                }
            }
        }
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for (key, x, y) in pairs {
            values.push(with(&body, cx, &[key, x, y.unwrap_or(Cell::Null)])?);
            keys.push(key);
        }
        map::build(&keys, &values, &key_type, (map::Keys::AsGiven, &semantics), cx.arena)
    })
}

fn sort_by(args: Vec<Compiled>, call: Call) -> Compiled {
    let element = call.element(0).clone();
    let [array, body] = parts(args);
    from_cells(call.to.physical(), move |cx| {
        let array = array.cell(cx)?;
        if array.is_null() {
            return Ok(Cell::Null);
        }
        let mut cells: Vec<Cell<'_>> = elements(array.array(), &element).collect();
        let mut fault = None;
        // `sort_by` may panic if the comparator is inconsistent, so a merge sort is used.
        stable_sort(&mut cells, |a, b| match with(&body, cx, &[a, b]) {
            Ok(Cell::Long(n)) => n.cmp(&0),
            Ok(_) => {
                let null =
                    || failed("COMPARATOR_RETURNS_NULL", "a comparison gave NULL", "Use coalesce");
                fault.get_or_insert_with(|| match null() {
                    Err(error) => error,
                    Ok(()) => unreachable!("it fails"),
                });
                Ordering::Equal
            }
            Err(error) => {
                fault.get_or_insert(error);
                Ordering::Equal
            }
        });
        match fault {
            Some(error) => Err(error),
            None => array_of(&cells, cx),
        }
    })
}

/// A merge sort of insertion-sorted runs. It is stable, and terminates with any comparator.
fn stable_sort<'a>(
    cells: &mut Vec<Cell<'a>>,
    mut compare: impl FnMut(Cell<'a>, Cell<'a>) -> Ordering,
) {
    cells.chunks_mut(RUN).for_each(|run| insertion_sort(run, &mut compare));
    let mut width = RUN;
    let mut merged = Vec::with_capacity(cells.len());
    while width < cells.len() {
        merged.clear();
        for pair in cells.chunks(2 * width) {
            let (mut left, mut right) = pair.split_at(width.min(pair.len()));
            while let ([a, ..], [b, ..]) = (left, right) {
                if compare(*b, *a) == Ordering::Less {
                    merged.push(*b);
                    right = &right[1..];
                } else {
                    merged.push(*a);
                    left = &left[1..];
                }
            }
            merged.extend_from_slice(left);
            merged.extend_from_slice(right);
        }
        std::mem::swap(cells, &mut merged);
        width *= 2;
    }
}

/// A binary insertion sort that starts after the initial run. A descending initial run is reversed
/// first. The sort is stable and terminates with any comparator. With an inconsistent comparator
/// the result is that of Java's sort for short arrays.
fn insertion_sort<'a>(
    cells: &mut [Cell<'a>],
    mut compare: impl FnMut(Cell<'a>, Cell<'a>) -> Ordering,
) {
    if cells.len() < 2 {
        return;
    }
    let mut falls = |i: usize| compare(cells[i], cells[i - 1]) == Ordering::Less;
    let falling = falls(1);
    let run = (2..cells.len()).find(|i| falls(*i) != falling).unwrap_or(cells.len());
    if falling {
        cells[..run].reverse();
    }
    for i in run..cells.len() {
        let cell = cells[i];
        let at = cells[..i].partition_point(|other| compare(cell, *other) != Ordering::Less);
        cells[at..=i].rotate_right(1);
    }
}
