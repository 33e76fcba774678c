//! Fuzzes the readers of checkpoints and capture logs: no bytes make them panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millstream_engine::capture::blocks;
use millstream_engine::checkpoint::{log_entry, state_file};
use millstream_engine::checkpoint::{read_commit, read_metadata, read_offsets};
use millstream_engine::env::simulated_storage::SimStorage;
use millstream_engine::env::storage::Storage;
use std::path::Path;

fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    let mut end = 0;
    blocks(bytes, |_, payload| end += payload.len());
    assert!(end <= bytes.len());
    let _ = state_file::entries(bytes, |_, _| Ok(()));
    let _ = log_entry::parse(bytes);
    // The input is tested either unchanged or with a correct CRC.
    let text = String::from_utf8_lossy(bytes);
    let whole = log_entry::format(text.lines());
    let bytes = if choice % 2 == 0 { bytes } else { whole.as_bytes() };
    let storage = SimStorage::new(0);
    let folder = Path::new("/c");
    storage.create_folder(folder).expect("a folder");
    let path = folder.join("metadata");
    storage.write(&path, bytes).expect("a file");
    let _ = read_metadata(&storage, folder);
    let _ = read_offsets(&storage, &path);
    let _ = read_commit(&storage, &path);
});
