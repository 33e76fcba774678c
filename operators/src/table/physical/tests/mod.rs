//! Tests of stateful operators: their state is saved and restored after every record, and their
//! inputs become idle.

mod idle_inputs;
pub(in crate::table::physical) mod restore_after_every_record;
