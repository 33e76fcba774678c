//! Reads JSON into rows and writes rows as JSON, for files and SQL functions.

mod inference;
mod path;
mod record;
mod token;
mod variant;
mod write;

pub use crate::table::text::json::inference::{FIELDS_MAX, Inference, Inferred, InferredRecords};
pub(in crate::table::text) use inference::decimal_of;
pub use path::{Path, array_length, last_field, object_keys};
pub use record::{
    Elements, Fault, Found, JsonReadOptions, NOT_AN_OBJECT, NOT_ITS_TYPE, NOT_JSON, Record,
    RecordReader, check_map_keys,
};
pub use token::{Features, InvalidJson, Name, SWITCHES, Source, Token, Tokens};
pub use variant::{VariantError, parse_variant, read_variant, write_variant};
pub(crate) use write::write_text;
pub use write::{Style, write_field, write_json, write_json_as, write_string};
