//! The functions of a build without the feature `protobuf`: they fail with its name.

use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::Resolved;
use crate::table::expr::compile::Compiled;
use crate::table::expr::functions::registry::{Call, Typed};

fn refused(name: &str) -> PlanResult<Typed> {
    Err(PlanError::new(
        "PROTOBUF_NOT_LOADED_SQL_FUNCTIONS_UNUSABLE",
        format!("`{name}`: this program was built without Protobuf"),
        "Build it with the cargo feature `protobuf`",
    ))
}

pub fn from_protobuf(name: &str, _: Vec<Resolved>) -> PlanResult<Typed> {
    refused(name)
}

pub fn to_protobuf(name: &str, _: Vec<Resolved>) -> PlanResult<Typed> {
    refused(name)
}

pub fn compile_from_protobuf(_: Vec<Compiled>, _: Call) -> Compiled {
    unreachable!("resolution has failed")
}

pub fn compile_to_protobuf(_: Vec<Compiled>, _: Call) -> Compiled {
    unreachable!("resolution has failed")
}
