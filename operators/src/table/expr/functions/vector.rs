//! Functions on vectors, which are arrays of FLOAT: products, distances and norms.
//!
//! As in Spark, sums are of DOUBLEs and results are FLOATs. A vector with a NULL
//! has no product, distance or norm; the result is NULL.

use super::registry::{Function, Typed, cells, unexpected};
use crate::table::error::PlanResult;
use crate::table::expr::Resolved;
use crate::table::expr::cell::{Cell, elements};
use crate::table::expr::compile::{EvalError, failed};
use crate::table::row::RowWriter;
use crate::table::types::DataType;
use crate::table::value::Value;
use bumpalo::Bump;
use bumpalo::collections::Vec as BumpVec;

use DataType as T;

pub(super) static FUNCTIONS: &[Function] = &[
    cells(
        "vector_inner_product",
        "vector_inner_product(a, b): the sum of the products of their elements",
        (2, 2),
        two_vectors,
        |a, call, arena| of_pair(call.name, a, arena, |a, b| Some(dot(a, b) as f32)),
    )
    .usage("4.2.0", "vector_inner_product(array(1.0F, 2.0F), array(3.0F, 4.0F))", "11.0"),
    cells(
        "vector_cosine_similarity",
        "vector_cosine_similarity(a, b): the cosine of their angle; NULL if either is zero",
        (2, 2),
        two_vectors,
        |a, call, arena| of_pair(call.name, a, arena, cosine),
    )
    .usage("4.2.0", "vector_cosine_similarity(array(3.0F, 4.0F), array(4.0F, 3.0F))", "0.96"),
    cells(
        "vector_l2_distance",
        "vector_l2_distance(a, b): the Euclidean distance between them",
        (2, 2),
        two_vectors,
        |a, call, arena| {
            of_pair(call.name, a, arena, |a, b| {
                let differences = a.iter().zip(b).map(|(x, y)| f64::from(*x) - f64::from(*y));
                Some(sum(differences.map(|difference| difference * difference)).sqrt() as f32)
            })
        },
    )
    .usage("4.2.0", "vector_l2_distance(array(1.0F, 2.0F), array(4.0F, 6.0F))", "5.0"),
    cells(
        "vector_norm",
        "vector_norm(a[, degree]): its length; the degree is 2.0F (default), 1.0F or float('inf')",
        (1, 2),
        |n, a| with_degree(n, a, T::Float),
        |a, call, arena| {
            let degree = degree_of(call.name, a[1])?;
            let norm = floats(a[0], arena).map(|vector| norm(vector, degree) as f32);
            Ok(norm.map_or(Cell::Null, float))
        },
    )
    .usage("4.2.0", "vector_norm(array(3.0F, 4.0F))", "5.0"),
    cells(
        "vector_normalize",
        "vector_normalize(a[, degree]): divided by its norm; NULL for a vector of zeros",
        (1, 2),
        |n, a| with_degree(n, a, T::Array(Box::new(T::Float))),
        |a, call, arena| {
            let degree = degree_of(call.name, a[1])?;
            Ok(floats(a[0], arena).map_or(Cell::Null, |vector| normalized(vector, degree, arena)))
        },
    )
    .usage("4.2.0", "vector_normalize(array(3.0F, 4.0F))", "[0.6, 0.8]"),
];

/// The norm of a vector.
#[derive(Clone, Copy)]
enum Degree {
    /// The sum of the absolute values.
    One,
    /// The root of the sum of the squares.
    Two,
    /// The largest absolute value.
    Infinity,
}

fn is_vector(data_type: &DataType) -> bool {
    matches!(data_type, T::Array(element) if **element == T::Float)
}

/// Resolves a function of two vectors. As in Spark, no other type is cast to a vector.
fn two_vectors(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    match args.iter().find(|arg| !is_vector(&arg.data_type)) {
        Some(arg) => Err(unexpected(name, "ARRAY<FLOAT>", arg)),
        None => Ok(Typed::new(args, T::Float, true)),
    }
}

/// Resolves a function of a vector and the degree of its norm.
fn with_degree(name: &str, mut args: Vec<Resolved>, to: DataType) -> PlanResult<Typed> {
    if args.len() == 1 {
        args.push(Resolved::literal(Value::Double(2.0), T::Float));
    }
    if !is_vector(&args[0].data_type) {
        return Err(unexpected(name, "ARRAY<FLOAT>", &args[0]));
    }
    if args[1].data_type != T::Float {
        return Err(unexpected(name, "a degree of type FLOAT", &args[1]));
    }
    Ok(Typed::new(args, to, true))
}

fn degree_of(name: &str, cell: Cell<'_>) -> Result<Degree, Box<EvalError>> {
    match cell.double() {
        1.0 => Ok(Degree::One),
        2.0 => Ok(Degree::Two),
        f64::INFINITY => Ok(Degree::Infinity),
        other => failed(
            "INVALID_VECTOR_NORM_DEGREE",
            format!("`{name}` has no norm of degree {other}"),
            "Use 1.0F, 2.0F or float('inf')",
        ),
    }
}

fn float<'a>(value: f32) -> Cell<'a> {
    Cell::Double(f64::from(value))
}

/// The elements of a vector; `None` if one is NULL.
fn floats<'a>(vector: Cell<'a>, arena: &'a Bump) -> Option<&'a [f32]> {
    let cells = elements(vector.array(), &T::Float);
    let mut floats = BumpVec::with_capacity_in(cells.len(), arena);
    for cell in cells {
        let Cell::Double(value) = cell else { return None };
        floats.push(value as f32);
    }
    Some(floats.into_bump_slice())
}

fn of_pair<'a>(
    name: &str,
    args: &[Cell<'a>],
    arena: &'a Bump,
    eval: impl Fn(&[f32], &[f32]) -> Option<f32>,
) -> Result<Cell<'a>, Box<EvalError>> {
    let (a, b) = (args[0], args[1]);
    if a.array().len != b.array().len {
        return failed(
            "VECTOR_DIMENSION_MISMATCH",
            format!(
                "the vectors of `{name}` have {} and {} elements",
                a.array().len,
                b.array().len
            ),
            "Vectors must have the same number of elements",
        );
    }
    let (Some(a), Some(b)) = (floats(a, arena), floats(b, arena)) else { return Ok(Cell::Null) };
    Ok(eval(a, b).map_or(Cell::Null, float))
}

fn sum(terms: impl Iterator<Item = f64>) -> f64 {
    terms.fold(0.0, |sum, term| sum + term)
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    sum(a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)))
}

fn cosine(a: &[f32], b: &[f32]) -> Option<f32> {
    let length = (dot(a, a) * dot(b, b)).sqrt();
    (length != 0.0).then(|| (dot(a, b) / length) as f32)
}

fn norm(vector: &[f32], degree: Degree) -> f64 {
    let sizes = vector.iter().map(|x| f64::from(x.abs()));
    match degree {
        Degree::One => sum(sizes),
        Degree::Two => dot(vector, vector).sqrt(),
        Degree::Infinity => {
            sizes.fold(0.0, |max, x| if max.is_nan() || x <= max { max } else { x })
        }
    }
}

fn normalized<'a>(vector: &[f32], degree: Degree, arena: &'a Bump) -> Cell<'a> {
    let norm = norm(vector, degree);
    if norm == 0.0 && !vector.is_empty() {
        return Cell::Null;
    }
    let mut out = BumpVec::new_in(arena);
    let mut writer = RowWriter::array(&mut out, vector.len());
    vector
        .iter()
        .enumerate()
        .for_each(|(i, x)| float((f64::from(*x) / norm) as f32).put(&mut writer, i));
    Cell::Bytes(out.into_bump_slice())
}
