//! Functions that tell where a row comes from: its file, its partition, and its position in it.
//!
//! A file source writes the file of a row into the column `_metadata`, from which
//! [`input_file`] reads. The functions themselves are called where a row comes from no file.

use super::registry::{Function, Typed, called, made, nullable_cells};
use crate::table::error::PlanResult;
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::long_fn;
use crate::table::expr::resolve::{Scope, ScopeColumn};
use crate::table::expr::{Node, Resolved};
use crate::table::plan::metadata_field;
use crate::table::types::DataType as T;
use crate::table::value::Value;
use std::cell::Cell as Mutable;

const ROW_ID: &str = "monotonically_increasing_id";
const PARTITION_ID: &str = "spark_partition_id";

/// The functions of the file of a row, and the fields of `_metadata` that have their values.
const OF_FILE: [(&str, &str); 3] = [
    ("input_file_name", "file_path"),
    ("input_file_block_start", "file_block_start"),
    ("input_file_block_length", "file_block_length"),
];

pub(super) static FUNCTIONS: &[Function] = &[
    called(
        ROW_ID,
        "monotonically_increasing_id(): a number that is larger for each next row of a partition",
        (0, 0),
        |_, args| Ok(Typed::new(args, T::Long, false)),
        |_, _| {
            // Streams, whose sources may have several partitions, refuse the function.
            let next = Mutable::new(0i64);
            long_fn(move |_| Ok(Some(next.replace(next.get().wrapping_add(1)))))
        },
    )
    .nondeterministic()
    .usage("1.4.0", "monotonically_increasing_id()", "0"),
    called(
        PARTITION_ID,
        "spark_partition_id(): the number of the partition that a row is computed in",
        (0, 0),
        |_, args| Ok(Typed::new(args, T::Int, false)),
        |_, call| {
            let partition = match call.args.first().map(|arg| &arg.node) {
                Some(Node::Literal(Value::Long(partition))) => *partition,
                _ => 0,
            };
            long_fn(move |_| Ok(Some(partition)))
        },
    )
    .nondeterministic()
    .usage("1.4.0", "spark_partition_id()", "0"),
    nullable_cells(
        "input_file_name",
        "input_file_name(): the path of the file that a row comes from, or an empty text",
        (0, 0),
        |_, args| Ok(Typed::new(args, T::String, false)),
        |_, _, arena| Ok(made(arena, "")),
    )
    .nondeterministic()
    .usage("1.5.0", "length(input_file_name())", "0"),
    nullable_cells(
        "input_file_block_start",
        "input_file_block_start(): the first byte of the part of a file that a row comes from, or -1",
        (0, 0),
        |_, args| Ok(Typed::new(args, T::Long, false)),
        |_, _, _| Ok(Cell::Long(-1)),
    )
    .nondeterministic()
    .usage("2.2.0", "input_file_block_start()", "-1"),
    nullable_cells(
        "input_file_block_length",
        "input_file_block_length(): the length of the part of a file that a row comes from, or -1",
        (0, 0),
        |_, args| Ok(Typed::new(args, T::Long, false)),
        |_, _, _| Ok(Cell::Long(-1)),
    )
    .nondeterministic()
    .usage("2.2.0", "input_file_block_length()", "-1"),
];

/// The field of the file metadata column that a function of a row's file has; `None` for any other
/// function.
pub fn field_of_file(name: &str) -> Option<&'static str> {
    OF_FILE
        .iter()
        .find(|(function, _)| name.eq_ignore_ascii_case(function))
        .map(|(_, field)| *field)
}

/// Resolves a call without arguments that tells about the file of a row, if the rows have one.
/// `None` for any other call.
pub fn input_file(name: &str, scope: &Scope) -> Option<PlanResult<Resolved>> {
    let field = field_of_file(name)?;
    let metadata = metadata_field();
    let is_it = |column: &ScopeColumn| {
        column.name == metadata.name && column.data_type == metadata.data_type
    };
    let index = scope.columns.iter().rposition(is_it)?;
    Some(super::field_of(scope.column_at(index), field))
}

/// Whether an expression numbers rows.
pub fn numbers_rows(expr: &Resolved) -> bool {
    matches!(expr.node, Node::Call(ROW_ID, _)) || expr.children().into_iter().any(numbers_rows)
}

/// Replaces the number of the partition by a constant.
pub fn in_partition(expr: Resolved, partition: usize) -> Resolved {
    let expr = expr.map_children(&mut |child| in_partition(child, partition));
    match expr.node {
        Node::Call(PARTITION_ID, _) => {
            let number = Resolved::literal(Value::Long(partition as i64), T::Int);
            Resolved { node: Node::Call(PARTITION_ID, vec![number]), ..expr }
        }
        node => Resolved { node, ..expr },
    }
}
