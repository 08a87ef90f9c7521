//! Absolute paths inside of a container or an image.

use std::path::{Component, Path, PathBuf};

use crate::{Error, In};

/// Paths that are the container's own: nothing that stands there is an input or kept.
pub(super) const RESERVED: [&str; 4] = ["/proc", "/sys", "/dev", "/tmp"];

/// Bytes of a path.
const MAX_PATH: usize = 1024;

/// A path that begins with / and goes nowhere but down.
pub(super) fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    let plain = path.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    // A dot between two slashes is no component for the library, and nobody who writes it means nothing by it.
    let has_dot = text.split('/').any(|part| part == ".");
    if !path.is_absolute() || !plain || has_dot {
        return Err(format!("{text:?} is not an absolute path: it must begin with / and have no . or .. parts"));
    }
    if text.contains('\0') || text.len() > MAX_PATH {
        return Err(format!("a path is at most {MAX_PATH} bytes without a zero byte"));
    }
    Ok(path.components().collect())
}

/// A path that is kept after its step.
pub(super) fn kept(at: &In<'_>, place: &str, text: &str) -> Result<PathBuf, Error> {
    let path = absolute(text).map_err(|e| at.escapes(place, e))?;
    if is_reserved(&path) {
        return Err(at.meaning(place, "this path is not kept after the step; choose another one, such as /out"));
    }
    Ok(path)
}

/// Whether a path is the container's own.
pub(super) fn is_reserved(path: &Path) -> bool {
    RESERVED.iter().any(|reserved| path.starts_with(reserved)) || path == Path::new("/")
}
