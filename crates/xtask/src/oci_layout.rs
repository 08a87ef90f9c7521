//! Reads as much of an OCI layout folder as the demo needs: the digest of its image, and which blob holds the image's last layer.

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Outcome};
use crate::json::Json;

/// The annotation by which a layout says which of its entries is the image; the others are about it.
const KIND: &str = "kind";
const IMAGE_KIND: &str = "dev.cosignproject.cosign/image";

/// The digest of the one image of the layout in `folder`, `sha256:` and 64 digits.
pub fn image_digest(folder: &Path) -> Outcome<String> {
    let index = read(&folder.join("index.json"))?;
    let entries = index.get("manifests").list();
    let images: Vec<&Json> = entries
        .iter()
        .filter(|entry| entries.len() == 1 || entry.get("annotations").get(KIND).as_text() == Some(IMAGE_KIND))
        .collect();
    match images[..] {
        [image] => digest(image, folder),
        _ => Err(Failure::new(format!("the layout {} has {} images and not one", folder.display(), images.len()))),
    }
}

/// The file of the last layer of the image `digest`: what the pipeline put on top of the base.
pub fn last_layer(folder: &Path, image: &str) -> Outcome<PathBuf> {
    let manifest = read(&blob(folder, image))?;
    match manifest.get("layers").list().last() {
        Some(layer) => Ok(blob(folder, &digest(layer, folder)?)),
        None => Err(Failure::new(format!("the image {image} in {} has no layers", folder.display()))),
    }
}

/// Where a blob of this digest stands.
fn blob(folder: &Path, digest: &str) -> PathBuf {
    folder.join("blobs").join(digest.replace(':', "/"))
}

fn digest(descriptor: &Json, folder: &Path) -> Outcome<String> {
    let digest = descriptor.get("digest").as_text().unwrap_or_default();
    let digits = digest.strip_prefix("sha256:").unwrap_or_default();
    if digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        Ok(digest.to_owned())
    } else {
        Err(Failure::new(format!("an entry of the layout {} has no SHA-256 digest", folder.display())))
    }
}

fn read(path: &Path) -> Outcome<Json> {
    let text = fs::read_to_string(path).map_err(Failure::while_doing(format!("read {}", path.display())))?;
    Json::parse(&text).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(index: &str) -> PathBuf {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("xtask-layout-{}-{number}", std::process::id()));
        fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
        fs::write(folder.join("index.json"), index).unwrap();
        folder
    }

    #[test]
    fn the_image_is_the_only_entry_or_the_marked_one() {
        let (a, b) = (format!("sha256:{}", "a".repeat(64)), format!("sha256:{}", "b".repeat(64)));
        let marked = format!(r#"{{"digest":"{b}","annotations":{{"kind":"{IMAGE_KIND}"}}}}"#);
        let other = format!(r#"{{"digest":"{a}"}}"#);
        let digest_in = |entries: &str| image_digest(&layout(&format!(r#"{{"manifests":[{entries}]}}"#)));
        assert_eq!(digest_in(&other).unwrap(), a);
        assert_eq!(digest_in(&format!("{other},{marked}")).unwrap(), b);
        assert!(digest_in(&format!("{other},{other}")).is_err());
        assert!(digest_in(&format!("{marked},{marked}")).is_err());
        assert!(digest_in("").is_err());
        assert!(digest_in(r#"{"digest":"sha256:../../etc/passwd"}"#).is_err());
    }

    #[test]
    fn the_last_layer_is_found_through_the_manifest() {
        let folder = layout("{}");
        let (image, layer) = (format!("sha256:{}", "a".repeat(64)), "b".repeat(64));
        let manifest =
            format!(r#"{{"layers":[{{"digest":"sha256:{}"}},{{"digest":"sha256:{layer}"}}]}}"#, "c".repeat(64));
        fs::write(folder.join("blobs/sha256").join("a".repeat(64)), manifest).unwrap();
        assert_eq!(last_layer(&folder, &image).unwrap(), folder.join("blobs/sha256").join(layer));
        assert!(last_layer(&folder, &format!("sha256:{}", "d".repeat(64))).is_err());
        fs::remove_dir_all(folder).unwrap();
    }
}
