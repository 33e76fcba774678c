//! The runtime: jobs, workers that step tasklets, stages through which records are pushed, and
//! exchanges between them. A simulated scheduler steps the same tasklets.

pub mod exchange;
pub mod job;
pub mod simulation;
pub mod stage;
pub mod state_log;
pub mod tasklet;
pub mod worker;
