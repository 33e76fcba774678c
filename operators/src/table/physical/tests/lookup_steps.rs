//! The lookup join works in bounded steps: a stream row with very many matches in the table.

use crate::table::expr::compile::Semantics;
use crate::table::expr::{Node, Resolved};
use crate::table::physical::join::{TableJoin, TableJoinParts};
use crate::table::plan::JoinKind;
use crate::table::row::{Row, decode, encode};
use crate::table::types::DataType;
use crate::table::value::Value;
use millstream_engine::error::EngineError;
use millstream_engine::event::Epoch;
use millstream_engine::runtime::stage::{FlushStatus, Push, Stage};
use std::sync::{Arc, Mutex};

/// The number of table rows of key 1.
const MANY: i64 = 10_000;
/// The number of table rows that a step examines.
const STEP: usize = 64;
/// The maximum number of steps between two flushes.
const STEPS: usize = 16;

/// What reaches the end of the chain.
#[derive(Clone, Debug, PartialEq)]
enum Output {
    Row(Vec<Value>),
    Watermark(i64),
    Marker(Epoch),
}

/// A sink that takes at most `room` rows.
#[derive(Clone)]
struct Narrow {
    out: Arc<Mutex<Vec<Output>>>,
    room: Arc<Mutex<usize>>,
    width: usize,
}

impl Stage for Narrow {
    fn is_ready(&mut self) -> bool {
        *self.room.lock().unwrap() > 0
    }
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        self.out.lock().unwrap().push(Output::Watermark(micros));
        Ok(())
    }
    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        self.out.lock().unwrap().push(Output::Marker(epoch));
        Ok(())
    }
    fn end(&mut self) -> Result<(), EngineError> {
        Ok(())
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        Ok(FlushStatus::Flushed)
    }
    fn next_timer_ns(&self) -> Option<u64> {
        None
    }
}

impl<'a> Push<Row<'a>> for Narrow {
    fn push(&mut self, row: Row<'a>, _ingest_ns: u64) -> Result<(), EngineError> {
        let row = decode(row, vec![DataType::Long; self.width].iter());
        self.out.lock().unwrap().push(Output::Row(row));
        let mut room = self.room.lock().unwrap();
        *room = room.saturating_sub(1);
        Ok(())
    }
}

fn call(name: &'static str, args: Vec<Resolved>, data_type: DataType) -> Resolved {
    Resolved { node: Node::Call(name, args), data_type, nullable: true }
}

fn column(index: usize) -> Resolved {
    let node = Node::Column(index, format!("c{index}"));
    Resolved { node, data_type: DataType::Long, nullable: true }
}

/// The join of a stream `(k, v)` with a table `(k, v)` by `k`, and its output. `rest` is a further
/// condition.
fn join(kind: JoinKind, rest: Option<Resolved>) -> (TableJoin, Narrow) {
    let equal = call("=", vec![column(0), column(2)], DataType::Boolean);
    let condition = match rest {
        Some(rest) => call("and", vec![equal, rest], DataType::Boolean),
        None => equal,
    };
    let rows = (0..MANY).map(|v| encode(&[Value::Long(1), Value::Long(v)]));
    let others = (2..5).map(|k| encode(&[Value::Long(k), Value::Long(0)]));
    let parts = TableJoinParts {
        kind,
        condition: Some(&condition),
        in_operands: None,
        closest: None,
        match_range: None,
        types: (vec![DataType::Long; 2], vec![DataType::Long; 2]),
        is_left_probe: true,
        rows: rows.chain(others).collect(),
        live: None,
        continuous: true,
        semantics: Semantics::default(),
    };
    let width = if kind == JoinKind::LeftAnti { 2 } else { 4 };
    let room = Arc::new(Mutex::new(usize::MAX));
    let sink = Narrow { out: Arc::default(), room, width };
    (TableJoin::new(parts, Box::new(sink.clone())).unwrap(), sink)
}

fn push(join: &mut TableJoin, k: i64, v: i64) {
    join.push(Row(&encode(&[Value::Long(k), Value::Long(v)])), 0).unwrap();
}

#[test]
fn a_row_with_very_many_matches_in_a_table_is_joined_in_steps() {
    let (mut join, sink) = join(JoinKind::Inner, None);
    let length = || sink.out.lock().unwrap().len();
    push(&mut join, 1, 7);
    assert_eq!(length(), STEP);
    assert!(!join.is_ready(), "the next row waits");
    // A stage above that expands a record does not ask.
    push(&mut join, 2, 8);
    push(&mut join, 1, 9);
    join.watermark(5).unwrap();
    join.watermark(6).unwrap();
    join.marker(3).unwrap();
    *sink.room.lock().unwrap() = 0;
    assert_ne!(join.flush().unwrap(), FlushStatus::Flushed);
    assert_eq!(length(), STEP, "a full sink gets nothing");
    *sink.room.lock().unwrap() = usize::MAX;
    let mut before = length();
    while join.flush().unwrap() > FlushStatus::Flushed {
        assert!(length() - before <= STEP * (STEPS + 1), "{before} to {}", length());
        before = length();
    }
    let mut expected: Vec<_> = (0..MANY).map(|v| [1, 7, 1, v]).collect();
    expected.push([2, 8, 2, 0]);
    expected.extend((0..MANY).map(|v| [1, 9, 1, v]));
    let row = |row: [i64; 4]| Output::Row(row.map(Value::Long).to_vec());
    let mut expected: Vec<_> = expected.into_iter().map(row).collect();
    expected.extend([Output::Watermark(6), Output::Marker(3)]);
    assert_eq!(*sink.out.lock().unwrap(), expected);
    assert!(join.is_ready());
    push(&mut join, 3, 1);
    assert_eq!(length(), expected.len() + 1);
}

/// A row whose many candidates fail the rest of the condition is looked up in steps too.
#[test]
fn a_row_without_a_match_is_known_after_all_steps() {
    for (kind, expected) in [
        (JoinKind::LeftOuter, vec![Value::Long(1), Value::Long(7), Value::Null, Value::Null]),
        (JoinKind::LeftAnti, vec![Value::Long(1), Value::Long(7)]),
    ] {
        let less = call("<", vec![column(3), column(1)], DataType::Boolean);
        let zero = Resolved::literal(Value::Long(0), DataType::Long);
        let negative = call("<", vec![column(3), zero], DataType::Boolean);
        let rest = call("and", vec![less, negative], DataType::Boolean);
        let (mut join, sink) = join(kind, Some(rest));
        push(&mut join, 1, 7);
        assert!(!join.is_ready(), "{kind:?}");
        let mut flushes = 0;
        while join.flush().unwrap() > FlushStatus::Flushed {
            flushes += 1;
            assert!(sink.out.lock().unwrap().is_empty());
        }
        assert!(flushes >= MANY as usize / STEP / STEPS - 1, "{flushes}");
        assert_eq!(*sink.out.lock().unwrap(), [Output::Row(expected)]);
    }
}
