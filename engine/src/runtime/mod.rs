//! TODO: one paragraph.

pub mod exchange;
pub mod job;
pub mod simulation;
pub mod stage;
pub mod state_log;
pub mod tasklet;
pub mod worker;
