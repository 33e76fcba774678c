//! Files: the source reads each file of a folder once, the sink commits the files of an epoch
//! through a log in the folder. With a checkpoint both are exactly once.

mod charset;
mod file_columns;
mod file_log;
mod folder_visits;
mod framing;
mod glob;
mod listing;
mod partition_values;
mod read_limits;
mod schema_inference;
mod sink;
mod source;
mod uri;

pub use crate::connect::file::file_columns::SchemaOrigin;
pub use crate::connect::file::framing::Framing;
pub use crate::connect::file::schema_inference::infer;
pub use crate::connect::file::sink::file_writer::line_options;
pub use crate::connect::file::source::decoder::{Decoder, Mode};
pub use crate::connect::file::source::record_reader::{FoundRecord, Input};
pub use charset::{Charset, Coding};
pub(crate) use sink::is_of_files;
pub use sink::{FileSink, FileSinkConfig, FileSinkLog, committed_files};
pub use source::{FileSource, FileSourceConfig};
pub(crate) use uri::local_path;
