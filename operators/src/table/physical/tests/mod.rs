//! TODO: one paragraph.

#[cfg(test)]
pub(in crate::table::physical) mod restore_after_every_record;
