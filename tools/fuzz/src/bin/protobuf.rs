//! Fuzzes `from_protobuf`: no panic, bounded memory, and a decoded message can be written and read
//! again. The first byte chooses the message type and the options.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millstream::table::expr::compile::{Compiled, Cx, Semantics, compile};
use millstream::table::expr::functions::resolve;
use millstream::table::expr::{Node, Resolved};
use millstream::table::row::{Row, encode};
use millstream::table::types::DataType;
use millstream::table::value::Value;
use std::cell::RefCell;
use std::collections::HashMap;

const ALL: &[u8] = include_bytes!("../../../../operators/tests/protobuf/all.desc");
const OLD: &[u8] = include_bytes!("../../../../operators/tests/protobuf/old.desc");
const MESSAGES: [&str; 6] =
    ["test.Scalars", "test.Nested", "test.Known", "test.Wrapped", "test.Person", "old.Old"];

/// What a choice of message type and options is compiled to.
struct Functions {
    data_type: DataType,
    read: Compiled,
    /// Writes what `read` has read; `None` for JSON, which is not written back.
    write: Option<Compiled>,
    /// Reads what `write` has written.
    again: Compiled,
}

fn text(text: &str) -> Value {
    Value::String(text.to_string())
}

impl Functions {
    fn of(choice: u8) -> Self {
        let message = MESSAGES[usize::from(choice % 6)];
        let set = if message.starts_with("old") { OLD } else { ALL };
        let is_on = |bit: u8| choice / 6 >> bit & 1 == 1;
        let mut options = vec![
            (text("enums.as.ints"), text("true")),
            (text("recursive.fields.max.depth"), text("3")),
        ];
        let names = [
            "emit.default.values",
            "upcast.unsigned.ints",
            "convert.any.fields.to.json",
            "unwrap.primitive.wrapper.types",
        ];
        for (bit, name) in (0..).zip(names) {
            options.push((text(name), text(if is_on(bit) { "true" } else { "false" })));
        }
        let call = |name: &str, from: Resolved, options: &[(Value, Value)]| {
            let of_text = || Box::new(DataType::String);
            let args = vec![
                from,
                Resolved::literal(text(message), DataType::String),
                Resolved::literal(Value::Binary(set.to_vec()), DataType::Binary),
                Resolved::literal(
                    Value::Map(options.to_vec()),
                    DataType::Map(of_text(), of_text()),
                ),
            ];
            resolve(name, args).expect("a message type")
        };
        let column = Resolved {
            node: Node::Column(0, "value".to_string()),
            data_type: DataType::Binary,
            nullable: true,
        };
        let compiled = |expr: &Resolved| compile(expr, 1, Semantics::default());
        let again = call("from_protobuf", column.clone(), &options);
        let of_row = Resolved { data_type: again.data_type.clone(), ..column.clone() };
        let is_json = is_on(2);
        let write = (!is_json).then(|| compiled(&call("to_protobuf", of_row, &[])));
        let again_compiled = compiled(&again);
        if is_on(4) {
            options.push((text("schema.registry.header"), text("true")));
        }
        let read = call("from_protobuf", column, &options);
        let (data_type, read) = (read.data_type.clone(), compiled(&read));
        Self { data_type, read, write, again: again_compiled }
    }
}

thread_local! {
    static FUNCTIONS: RefCell<HashMap<u8, Functions>> = RefCell::default();
}

/// Evaluates a function of one value; `None` for a bad message.
fn evaluated(function: &Compiled, value: &Value, data_type: &DataType) -> Option<Value> {
    let arena = Default::default();
    let row = encode(std::slice::from_ref(value));
    let found = function.cell(Cx::new(Row(&row), &arena));
    found.ok().map(|cell| cell.value(data_type))
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    FUNCTIONS.with_borrow_mut(|all| {
        let functions = all.entry(*choice).or_insert_with(|| Functions::of(*choice));
        let of_row = &functions.data_type;
        let message = Value::Binary(bytes.to_vec());
        let Some(row) = evaluated(&functions.read, &message, of_row) else { return };
        let Some(write) = &functions.write else { return };
        let written = evaluated(write, &row, &DataType::Binary).expect("a row that was read");
        let again = evaluated(&functions.again, &written, of_row).expect("a message");
        assert_eq!(format!("{row:?}"), format!("{again:?}"));
    });
});
