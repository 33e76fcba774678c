//! Compilation of resolved calls.

use super::registered;
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{
    Compiled, LONG_BYTES, Semantics, bounded_record, from_cells, text_in,
};
use crate::table::expr::functions::properties::keeps_bytes;
use crate::table::expr::functions::registry::{Build, Call, EvalCells};
use crate::table::expr::{Node, Resolved};
use crate::table::types::DataType;

/// An argument with at least this number of nodes is not copied into [`Call`].
const MAX_SHOWN: usize = 64;

/// Prepares an argument for [`Call`]. A large argument is replaced by a placeholder of its type,
/// unless it is a lambda. Without this, nested calls would need memory quadratic in the depth.
fn shown(arg: &Resolved) -> Resolved {
    fn fits(arg: &Resolved, left: &mut usize) -> bool {
        *left = left.saturating_sub(1);
        *left > 0 && arg.children().into_iter().all(|child| fits(child, left))
    }
    if matches!(arg.node, Node::Lambda(..)) || fits(arg, &mut MAX_SHOWN.clone()) {
        return arg.clone();
    }
    let node = Node::Column(usize::MAX, "…".to_string());
    Resolved { node, data_type: arg.data_type.clone(), nullable: arg.nullable }
}

/// Compiles a resolved call to a closure. `exprs` are the expressions of the arguments, and `args`
/// their compiled form.
pub fn compile(
    name: &'static str,
    args: Vec<Compiled>,
    exprs: &[Resolved],
    to: &DataType,
    semantics: Semantics,
) -> Compiled {
    let Some(function) = registered(name) else {
        unreachable!("resolved functions are registered")
    };
    let args_of = || exprs.iter().map(shown).collect();
    let call = || Call { name, args: args_of(), to: to.clone(), semantics };
    match function.build {
        Build::Typed(compile) => compile(args, exprs, to),
        Build::Called(compile) => compile(args, call()),
        Build::Cells(eval) => compile_cells(args, call(), eval, NullArguments::MakeNull),
        Build::CellsAndNulls(eval) => compile_cells(args, call(), eval, NullArguments::Evaluated),
    }
}

/// How a function treats NULL arguments.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NullArguments {
    /// A NULL argument makes the result NULL.
    MakeNull,
    /// The function itself handles NULL arguments.
    Evaluated,
}

fn compile_cells(
    args: Vec<Compiled>,
    call: Call,
    eval: EvalCells,
    nulls: NullArguments,
) -> Compiled {
    let is_text = |expr: &Resolved| expr.data_type == DataType::String && !keeps_bytes(call.name);
    let texts: smallvec::SmallVec<[bool; 4]> = call.args.iter().map(is_text).collect();
    // `ending`: a NULL in one of this many leading arguments ends the evaluation. `any`: all
    // arguments are evaluated, and a NULL in any of them makes the result NULL.
    let (ending, any) = match call.name {
        "encode" | "decode" | "map_concat" => (0, true),
        "array_append" | "array_prepend" | "format_string" => (1, false),
        "array_insert" => (2, false),
        _ if nulls == NullArguments::MakeNull => (usize::MAX, false),
        _ => (0, false),
    };
    from_cells(call.to.physical(), move |cx| {
        let mut cells: smallvec::SmallVec<[Cell<'_>; 4]> = smallvec::SmallVec::new();
        for (i, (arg, is_text)) in args.iter().zip(&texts).enumerate() {
            let mut cell = arg.cell(cx)?;
            if i < ending && cell.is_null() {
                return Ok(Cell::Null);
            }
            if let (true, Cell::Bytes(bytes)) = (is_text, cell) {
                cell = Cell::Bytes(text_in(bytes, cx.arena).as_bytes());
            }
            if cell.bytes().len() > LONG_BYTES {
                bounded_record(cx.arena)?;
            }
            cells.push(cell);
        }
        if any && cells.iter().any(|cell| cell.is_null()) {
            return Ok(Cell::Null);
        }
        eval(&cells, &call, cx.arena)
    })
}
