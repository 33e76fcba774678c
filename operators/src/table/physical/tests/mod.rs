//! Tests of operators: the state of stateful ones is saved and restored after every record, their
//! inputs become idle, and lookup joins work in bounded steps.

mod idle_inputs;
mod lookup_steps;
pub(in crate::table::physical) mod restore_after_every_record;
