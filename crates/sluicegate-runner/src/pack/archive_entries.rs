use std::io::{self, Read};

use tar::{Archive, Entry};

use super::{MAX_ENTRIES, PackError, retarget::broken};
use crate::metered::Metered;

/// Shows every entry of an archive that this module wrote, of which there are at most [`MAX_ENTRIES`], with its headers counted. The
/// reader is read to its end.
pub(super) fn each_entry<R: Read>(
    reader: R,
    mut visit: impl FnMut(&mut Entry<'_, Metered<R>>) -> Result<(), PackError>,
) -> Result<(), PackError> {
    let (metered, meter) = Metered::new(reader);
    let mut archive = Archive::new(metered);
    let mut entries = archive.entries().map_err(|error| broken(&error))?;
    let mut seen = 0;
    loop {
        meter.begin_headers();
        let entry = entries.next();
        meter.begin_content();
        let Some(entry) = entry else { break };
        let mut entry = entry.map_err(|error| broken(&error))?;
        seen += 1;
        if seen > MAX_ENTRIES {
            return Err(PackError::TooMany { limit: MAX_ENTRIES });
        }
        visit(&mut entry)?;
    }
    // The padding after the end marker belongs to the content's digest, which the reader may be checking.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(|error| broken(&error))?;
    Ok(())
}
