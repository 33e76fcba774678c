//! Tests of stateful operators, whose state is saved and restored after every record.

pub(in crate::table::physical) mod restore_after_every_record;
