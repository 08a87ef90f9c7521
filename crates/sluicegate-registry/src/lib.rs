#![forbid(unsafe_code)]
//! Images on disk: OCI layout folders (image-spec, "image-layout"). Registries over the network are not in this version.
//!
//! A layout that this crate writes holds one image: `index.json` lists it, with the annotation that `cosign --local-image`
//! wants, and every manifest that refers to it, without a ref name (DESIGN section 5). All of it becomes visible with one
//! rename of `index.json`, so a crash leaves blobs that nothing names, never a tag without its attestations.

mod layout;
mod layout_index;
mod layout_writer;

pub use layout::LayoutFolders;
