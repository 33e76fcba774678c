//! Files: the source reads each file of a folder once, the sink commits the files of an epoch
//! through a log in the folder. Both are exactly once.

mod charset;
mod decode;
mod frame;
mod glob;
mod infer;
mod input;
mod json;
mod limits;
mod listing;
mod log;
mod of_file;
mod partition;
mod sink;
mod source;
mod uri;
mod written;

pub use charset::{Charset, Coding};
pub use decode::{Decoder, Mode};
pub use frame::Framing;
pub use infer::infer;
pub use input::{Found, Input};
pub use of_file::Origin;
pub use sink::{FileSink, FileSinkConfig, FileSinkLog, committed_files};
pub use source::{FileSource, FileSourceConfig};
pub(crate) use uri::local_path;
pub use written::line_options;
