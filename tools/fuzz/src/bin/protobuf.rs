//! Fuzzes `from_protobuf`: no panic, bounded memory, and a decoded message can be written and read
//! again. The first byte chooses the message type and the options.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millstream::session::Session;
use millstream::table::value::Value;
use std::cell::OnceCell;

const ALL: &[u8] = include_bytes!("../../../../operators/tests/protobuf/all.desc");
const OLD: &[u8] = include_bytes!("../../../../operators/tests/protobuf/old.desc");
const MESSAGES: [&str; 6] =
    ["test.Scalars", "test.Nested", "test.Known", "test.Wrapped", "test.Person", "old.Old"];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

thread_local! {
    static SESSION: OnceCell<Session> = const { OnceCell::new() };
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    let message = MESSAGES[usize::from(choice % 6)];
    let set = hex(if message.starts_with("old") { OLD } else { ALL });
    let is_on = |bit: u8| choice / 6 >> bit & 1 == 1;
    let any_as_json = is_on(2);
    let options = format!(
        "map('emit.default.values', '{}', 'upcast.unsigned.ints', '{}', \
         'convert.any.fields.to.json', '{any_as_json}', 'unwrap.primitive.wrapper.types', '{}', \
         'enums.as.ints', 'true', 'recursive.fields.max.depth', '3', 'mode', 'PERMISSIVE', \
         'schema.registry.header', '{}')",
        is_on(0),
        is_on(1),
        is_on(3),
        is_on(4),
    );
    let read = format!("from_protobuf(X'{}', '{message}', X'{set}', {options})", hex(bytes));
    SESSION.with(|session| {
        let session = session.get_or_init(Session::new);
        let frame = session.sql(&format!("SELECT {read} AS m")).expect("a message type");
        let row = frame.collect().expect("a bad message is a row of NULL");
        let is_bad = match &row[0][0] {
            Value::Struct(fields) => fields.iter().all(|field| *field == Value::Null),
            other => panic!("a message is a struct, not {other:?}"),
        };
        // A bad message would come back as a good one with empty lists, and JSON is not written.
        if is_bad || any_as_json {
            return;
        }
        let written = format!("to_protobuf({read}, '{message}', X'{set}')");
        let options = options.replace("'schema.registry.header', 'true'", "'mode', 'FAILFAST'");
        let again = format!("SELECT from_protobuf({written}, '{message}', X'{set}', {options})");
        let again = session.sql(&again).expect("a message type").collect().expect("a message");
        assert_eq!(format!("{row:?}"), format!("{again:?}"));
    });
});
