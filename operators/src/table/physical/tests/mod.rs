//! Tests of all operators: each is saved and restored after every record.

pub(in crate::table::physical) mod restore_after_every_record;
