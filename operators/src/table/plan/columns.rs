//! The output columns of each kind of plan node.

use super::{Join, JoinKind, Plan};
use crate::table::arbitrary_state::node::StateOperator;
use crate::table::expr::Resolved;
use crate::table::expr::resolve::ScopeColumn;
use crate::table::plan::generator::Generator;
use crate::table::plan::time_window::{Tag, tag};
use crate::table::types::{DataType, Field};

/// A column without a relation name that is not an event time.
pub(super) fn unqualified(name: &str, data_type: &DataType, nullable: bool) -> ScopeColumn {
    ScopeColumn {
        qualifier: None,
        name: name.to_string(),
        data_type: data_type.clone(),
        nullable,
        tag: Tag::default(),
        hidden: false,
    }
}

pub(super) fn column_of(field: &Field) -> ScopeColumn {
    unqualified(&field.name, &field.data_type, field.nullable)
}

/// The columns of a projection. A column that passes on an event time keeps its role.
pub(super) fn computed_columns(input: &Plan, exprs: &[(Resolved, String)]) -> Vec<ScopeColumn> {
    let scope = input.scope();
    let one = |(e, name): &(Resolved, String)| ScopeColumn {
        tag: tag(e, &scope),
        ..unqualified(name, &e.data_type, e.nullable)
    };
    exprs.iter().map(one).collect()
}

/// The columns of the input, followed by those of a generator. If the generator's array has the
/// role of an event time, so have the generator's columns.
pub(super) fn generated_columns(input: &Plan, generator: &Generator) -> Vec<ScopeColumn> {
    let scope = input.scope();
    let tag = tag(&generator.array, &scope);
    let mut columns = scope.columns;
    let generated = generator.columns();
    columns.extend(generated.iter().map(|field| ScopeColumn { tag, ..column_of(field) }));
    columns
}

/// The columns of the rows that an operator with arbitrary state emits.
pub(super) fn emitted_columns(input: &Plan, operator: &StateOperator) -> Vec<ScopeColumn> {
    let fields = operator.output.schema.fields.iter();
    let mut columns: Vec<_> =
        fields.map(|f| unqualified(&f.name, &f.data_type, f.nullable)).collect();
    if let Ok(Some(at)) = operator.event_time() {
        let of_input = input.scope().columns;
        columns[at].tag.delay_ms = of_input.iter().find_map(|column| column.tag.delay_ms);
    }
    columns
}

/// The columns of a union. The names and types are those of its first input. A column that is an
/// event time in any input is one here, with the longest delay.
pub(super) fn union_columns(inputs: &[Plan]) -> Vec<ScopeColumn> {
    let mut columns = inputs.first().map_or(Vec::new(), |input| input.scope().columns);
    for other in inputs.iter().skip(1) {
        for (column, more) in columns.iter_mut().zip(other.scope().columns) {
            column.nullable |= more.nullable;
            column.tag.delay_ms = column.tag.delay_ms.max(more.tag.delay_ms);
        }
    }
    for column in &mut columns {
        (column.qualifier, column.hidden) = (None, false);
    }
    columns
}

/// The columns of a join: those of both sides. A semi or anti join has only the left columns, and
/// EXISTS and IN have the left columns and a flag.
pub(super) fn join_columns(join: &Join) -> Vec<ScopeColumn> {
    let (mut columns, mut right) = (join.left.scope().columns, join.right.scope().columns);
    match join.kind {
        JoinKind::LeftSemi | JoinKind::LeftAnti => return columns,
        JoinKind::Exists => right = vec![unqualified("exists", &DataType::Boolean, false)],
        JoinKind::In => right = vec![unqualified("in", &DataType::Boolean, true)],
        JoinKind::LeftOuter | JoinKind::ScalarSubquery => {
            right.iter_mut().for_each(|c| c.nullable = true);
        }
        JoinKind::RightOuter => columns.iter_mut().for_each(|c| c.nullable = true),
        JoinKind::FullOuter => {
            columns.iter_mut().chain(&mut right).for_each(|c| c.nullable = true);
        }
        JoinKind::Inner => {}
    }
    columns.extend(right);
    columns
}
