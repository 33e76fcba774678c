//! Sockets: lines in and lines out.

pub mod line_ends;
pub mod sink;
pub mod source;
