//! What runs: jobs, the workers that step tasklets, the stages that records are pushed through, and the
//! exchanges between them. The simulated scheduler steps the same tasklets.

pub mod exchange;
pub mod job;
pub mod simulation;
pub mod stage;
pub mod state_log;
pub mod tasklet;
pub mod worker;
