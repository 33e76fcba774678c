//! JSON into rows and rows into JSON, for files and for the functions of SQL.

mod read;
mod write;

pub use read::{NOT_ITS_TYPE, ObjectReader};
pub use write::{write_json, write_json_as, write_string};
