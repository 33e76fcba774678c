//! The registry of a build without the feature `schema-registry`.

use super::{Failure, Registered, RegistryOptions};
use crate::table::error::{PlanError, PlanResult};
use std::sync::Arc;

/// No value: [`Registry::shared`] always fails.
#[derive(Debug)]
pub enum Registry {}

impl Registry {
    /// Fails with the name of the missing feature.
    pub fn shared(name: &str, _: &RegistryOptions) -> PlanResult<Arc<Self>> {
        Err(PlanError::new(
            "UNSUPPORTED_OPTION",
            format!("`{name}`: this program was built without a client of schema registries"),
            "Build it with the cargo feature `schema-registry`",
        ))
    }

    /// Never called.
    pub fn by_id(&self, _: u32) -> Result<Arc<Registered>, Failure> {
        match *self {}
    }

    /// Never called.
    pub fn latest(&self, _: &str) -> Result<Arc<Registered>, Failure> {
        match *self {}
    }
}
