#![forbid(unsafe_code)]
//! Images where they are kept: OCI layout folders (image-spec, "image-layout") and registries (distribution-spec 1.1).
//!
//! A layout that this crate writes holds one image: `index.json` lists it, with the annotation that `cosign --local-image`
//! wants, and every manifest that refers to it, without a ref name (DESIGN section 5). All of it becomes visible with one
//! rename of `index.json`, so a crash leaves blobs that nothing names, never a tag without its attestations. A registry gets the same
//! in the same order: blobs, image, what is attached to it, and its tags last.

mod at_a_time;
mod client;
mod layout;
mod layout_index;
mod layout_referrers;
mod layout_writer;
mod places;
mod registry_source;
mod registry_target;
mod settings;

pub use places::Places;
pub use settings::RegistrySettings;
