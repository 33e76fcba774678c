//! Whether a result depends on the order of input rows. It does with functions such as `first`, and
//! with operators that select the first rows, for example.

use crate::table::plan::Plan;
use crate::table::plan::aggregate_function::AggregateCall;

/// The order on which the result of a query depends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum OrderDependence {
    /// No order: the result is the same for any number of partitions.
    #[default]
    None,
    /// The order of a source's rows. A source with several partitions does not preserve it.
    Sources,
    /// The order in which rows of several inputs or instances are merged. It is undefined.
    Operators,
}

impl OrderDependence {
    /// Determines the order dependence of a plan's result.
    pub fn of(plan: &Plan) -> Self {
        let below = plan.inputs().into_iter().map(Self::of).max();
        let here = match plan {
            Plan::Aggregate(_, _, calls) => {
                let in_any_order =
                    |call: &AggregateCall| call.user.is_none() && call.function.is_commutative();
                !calls.iter().all(in_any_order)
            }
            // If rows differ in other columns, the result depends on which row of a key comes
            // first.
            Plan::Deduplicate { input, keys, .. } => keys.len() < input.width(),
            Plan::Limit(..) | Plan::ArbitraryState { .. } => true,
            _ => false,
        };
        let here = match here {
            false => Self::None,
            true if plan.inputs().into_iter().any(mixes) => Self::Operators,
            true => Self::Sources,
        };
        below.unwrap_or_default().max(here)
    }
}

/// Whether a plan has an aggregation, a union or a join of streams, which merge rows of several
/// instances or inputs.
fn mixes(plan: &Plan) -> bool {
    let here = match plan {
        Plan::Aggregate(..) | Plan::Union(..) => true,
        Plan::Join(join) => join.is_of_streams(),
        _ => false,
    };
    here || plan.inputs().into_iter().any(mixes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Session;

    #[test]
    fn a_join_of_streams_merges_rows_in_no_order() {
        let session = Session::new();
        for name in ["a", "b"] {
            session.memory_stream(name, "k BIGINT, v BIGINT").unwrap();
        }
        session.sql("SELECT 1L AS k").unwrap().create_temp_view("table");
        for (from, expected) in [
            ("a", OrderDependence::Sources),
            ("a JOIN `table` AS b ON a.k = b.k", OrderDependence::Sources),
            ("a JOIN b ON a.k = b.k", OrderDependence::Operators),
        ] {
            let frame = session.sql(&format!("SELECT first(a.v) FROM {from}")).unwrap();
            assert_eq!(frame.order_dependence(), expected, "{from}");
        }
    }
}
