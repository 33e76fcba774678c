//! JSON into rows and rows into JSON, for files and for the functions of SQL.

mod path;
mod read;
mod record;
mod token;
mod write;

pub use path::{Path, array_length, last_field, object_keys};
pub use read::ObjectReader;
pub use record::RecordReader;
pub use token::Features;
pub use write::{write_json, write_json_as, write_string};
