#![deny(unsafe_code)]
#![deny(unsafe_op_in_unsafe_fn)]
//! Runs one step, or one tool, in a container of its own, and makes and unpacks the layers that go in and come out.
//!
//! The container is libcontainer's, made by a helper: this program once more, with one thread and nothing to lose
//! ([`container_process::enter_if_asked`]). Only the modules `container_process`, `init` and `fanotify` contain unsafe code, where
//! the system has no safe form.

#[cfg(not(target_os = "linux"))]
compile_error!("steps run on Linux only");

mod account;
mod bounded_command;
mod cache;
mod cgroup;
mod collect;
mod confined_repository;
pub mod container_process;
mod conversation;
mod descriptors;
mod disposable_folder;
mod egress;
mod executor;
mod fanotify;
mod git_address;
mod git_objects;
mod held_lock;
pub mod host_image;
mod in_root;
mod init;
mod job;
mod layered_file;
mod machine;
mod masking;
mod metered;
mod mounts;
mod observe;
pub mod pack;
mod plain_file;
mod plan;
mod private_key;
mod run_folder;
mod seal;
mod seccomp_profile;
mod shared_cache;
mod source_commit;
mod source_fetcher;
mod source_lister;
mod source_permit;
mod source_repository;
mod spawn;
mod supervise;
mod system_files;
mod tool;
mod tree_packer;
pub mod unpack;

pub use disposable_folder::DisposableFolder;
pub use egress::UpstreamProxy;
pub use executor::{Config, EmbeddedExecutor};
pub use machine::machine;
pub use masking::check_secret;
pub use private_key::begins_as_private_key;
pub use source_fetcher::{FetchLimits, FetchSettings, GitSourceFetcher};
pub use source_lister::GitSourceLister;
pub use source_permit::PermittedFetcher;
pub use tree_packer::StoreTreePacker;
