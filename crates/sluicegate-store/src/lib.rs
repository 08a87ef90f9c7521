#![forbid(unsafe_code)]
//! The content store on a file system: `blobs/sha256/HEX`, one file per content (OCI image-layout, "blobs").

mod file_store;
mod pruned;
mod scan_index;
mod scratch_store;
mod step_cache;

pub use file_store::FileStore;
pub use pruned::FilesByDigest;
pub use scan_index::FileScanIndex;
pub use scratch_store::ScratchStore;
pub use step_cache::FileStepCache;
