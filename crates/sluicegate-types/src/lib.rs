#![forbid(unsafe_code)]
//! The vocabulary every other crate speaks: content addresses, names, times and secrets, parsed once and valid ever after.
//!
//! Nothing here opens a file, reads a clock or knows an engine.

pub mod checks;
mod destination;
mod digest;
mod image;
mod log_url;
mod name;
pub mod nearest;
mod non_empty;
mod package_url;
mod place;
mod platform;
mod repository_pattern;
mod secret;
mod styling;
mod time;
mod utf8;
mod waiver;

pub use destination::Destination;
pub use digest::{Content, ContentKind, Digest, DigestError, Hasher};
pub use image::{ImageError, ImageRef, PinnedImage, Repository, Selector};
pub use log_url::{LogUrl, LogUrlError};
pub use name::{EnvironmentName, NameError, OutputName, RunId, StepName, TagName};
pub use non_empty::{Empty, NonEmpty};
pub use package_url::{PackageUrl, PackageUrlError};
pub use place::{Place, RegistryRepository, is_loopback};
pub use platform::{Platform, PlatformError};
pub use repository_pattern::{RepositoryPattern, RepositoryPatternError};
pub use secret::Secret;
pub use styling::Styling;
pub use time::{TimeError, UnixTime};
pub use utf8::{NotUtf8, borrowed_utf8, utf8};
pub use waiver::{Acceptance, CoverageException, GAP_KINDS, LONGEST_ACCEPTANCE, Waiver, WaiverScope};
