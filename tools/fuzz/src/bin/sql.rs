//! Fuzzes queries and job files: they are rejected or planned, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millstream::session::{Overrides, Session};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let session = Session::new();
    let ddl = "a INT, b STRING, t TIMESTAMP, xs ARRAY<INT>, s STRUCT<x: INT, y: STRING>";
    session.memory_stream("t", ddl).expect("a stream");
    if let Ok(frame) = session.sql(text) {
        let _ = frame.write_stream().format("noop").output_mode("update").explain();
    }
    let _ = session.job(text, &Overrides::default());
});
