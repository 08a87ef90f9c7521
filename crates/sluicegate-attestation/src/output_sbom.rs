//! The SBOM of what a step left: the packages that are known in it, and its files by their own hashes (CycloneDX 1.6).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use sluicegate_types::{Content, Digest};

use crate::{cyclonedx::serial_number, trivy_report::PackageList};

/// The path of [`FileEntry`] for content that is itself a file.
pub const ITSELF: &str = ".";

/// A regular file of stored content.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileEntry {
    /// Relative to the content's root; [`ITSELF`] if the content is the file.
    pub path: String,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Whether its mode in a directory says that it may be executed; content that is itself a file has no mode.
    pub executable: bool,
}

/// The packages that a scanner recognised, and which scanner that was. Without packages it says that one looked and found none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// The scanner's name: `trivy`.
    pub scanner: String,
    /// The version it says.
    pub version: String,
    /// The digest of its executable.
    pub digest: Digest,
    /// What it recognised, sorted, each once.
    pub packages: BTreeSet<KnownPackage>,
    /// How many more it recognised that are not listed.
    pub left_out: u64,
}

impl Inventory {
    /// The same with each place as `place` says it, without those that `place` does not know.
    #[must_use]
    pub fn placed(self, place: impl Fn(&str) -> Option<String>) -> Self {
        let placed = |package: KnownPackage| KnownPackage {
            places: package.places.iter().filter_map(|found| place(found)).collect(),
            ..package
        };
        Self { packages: self.packages.into_iter().map(placed).collect(), ..self }
    }

    /// The same with no package listed.
    #[must_use]
    pub fn unlisted(&self) -> Self {
        Self {
            scanner: self.scanner.clone(),
            version: self.version.clone(),
            digest: self.digest,
            packages: BTreeSet::new(),
            left_out: self.left_out.saturating_add(self.packages.len() as u64),
        }
    }
}

/// A package that a scanner recognised at one or several places.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KnownPackage {
    /// Its name, never empty.
    pub name: String,
    /// Its version; empty where the scanner gives none.
    pub version: String,
    /// Its package URL, if the scanner gives one.
    pub purl: Option<String>,
    /// Names of licences.
    pub licenses: BTreeSet<String>,
    /// The files that show it, as far as the scanner says; none for a package of the operating system's list.
    pub places: BTreeSet<String>,
}

/// The document about `content`, which people call `name`: a component of type `library` for each package of `inventory` with the
/// places where it was recognised, then one of type `file` for each of `files`, with its path as name and its SHA-256, both sorted.
/// A file stands there whether a package claims it or not, for a claim is no proof. Without `inventory` nobody looked for packages, and
/// `metadata.tools` is missing. It holds no time and nothing random; the same arguments give the same document, in whatever order the
/// files come, and other documents have other serial numbers. A document without packages and files has no component.
pub fn output_sbom(name: &str, content: Content, inventory: Option<&Inventory>, files: &[FileEntry]) -> Value {
    let mut files: Vec<&FileEntry> = files.iter().collect();
    files.sort();
    let packages = inventory.iter().flat_map(|inventory| &inventory.packages).map(package);
    let files = files.into_iter().map(|file| {
        let name = if file.path == ITSELF { name } else { &file.path };
        json!({"type": "file", "name": name, "hashes": [hash(&file.digest)]})
    });
    let mut document = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {
            "bom-ref": "output",
            "type": "file",
            "name": name,
            "version": content.digest,
            "mime-type": content.kind.media_type(),
            "hashes": [hash(&content.digest)],
        }},
        "components": packages.chain(files).collect::<Vec<_>>(),
    });
    if let Some(Inventory { scanner, version, digest, left_out, .. }) = inventory {
        let tool = json!({"type": "application", "name": scanner, "version": version, "hashes": [hash(digest)]});
        document["metadata"]["tools"] = json!({"components": [tool]});
        if *left_out > 0 {
            document["metadata"]["properties"] = json!([{"name": LEFT_OUT, "value": left_out.to_string()}]);
        }
    }
    document["serialNumber"] = json!(serial_number(&Digest::of(document.to_string().as_bytes())));
    document
}

/// The property of a document that says how many packages were recognised and are not listed.
const LEFT_OUT: &str = "sluicegate:packagesLeftOut";
/// Bytes of a package's name, version (CycloneDX 1.6: 1024 characters) and URL.
const MAX_TEXT: usize = 1024;
/// Bytes of a licence's name; longer ones are texts.
const MAX_LICENSE: usize = 256;

/// The packages of a scanner's lists, each once, with every place and licence of those that have the same name, version and URL; and
/// how many are left out, because a text of theirs is longer than 1024 bytes or holds control characters. One without a name is none.
pub fn known_packages(lists: Vec<PackageList>) -> (BTreeSet<KnownPackage>, u64) {
    let mut known: BTreeMap<_, (BTreeSet<String>, BTreeSet<String>)> = BTreeMap::new();
    let mut left_out = BTreeSet::new();
    for list in lists {
        // The list of an operating system is named by the system, not by a file.
        let shared = (list.class != "os-pkgs").then_some(list.place);
        for package in list.packages.into_iter().filter(|package| !package.name.is_empty()) {
            let texts = [Some(&package.name), Some(&package.version), package.purl.as_ref()];
            if !texts.into_iter().flatten().all(|text| is_plain(text, MAX_TEXT)) {
                left_out.insert((package.name, package.version, package.purl));
                continue;
            }
            let (licenses, places) = known.entry((package.name, package.version, package.purl)).or_default();
            licenses.extend(package.licenses.into_iter().filter(|license| is_plain(license, MAX_LICENSE)));
            places.extend(package.file.or_else(|| shared.clone()));
        }
    }
    let whole = |((name, version, purl), (licenses, places))| KnownPackage { name, version, purl, licenses, places };
    (known.into_iter().map(whole).collect(), left_out.len() as u64)
}

fn is_plain(text: &str, most: usize) -> bool {
    text.len() <= most && !text.chars().any(char::is_control)
}

fn package(package: &KnownPackage) -> Value {
    let mut component = json!({"type": "library", "name": package.name});
    if !package.version.is_empty() {
        component["version"] = json!(package.version);
    }
    if let Some(purl) = &package.purl {
        component["purl"] = json!(purl);
    }
    if !package.licenses.is_empty() {
        let licenses = package.licenses.iter().map(|license| json!({"license": {"name": license}}));
        component["licenses"] = licenses.collect();
    }
    if !package.places.is_empty() {
        let places: Vec<Value> = package.places.iter().map(|place| json!({"location": place})).collect();
        component["evidence"] = json!({"occurrences": places});
    }
    component
}

fn hash(digest: &Digest) -> Value {
    json!({"alg": "SHA-256", "content": digest.hex()})
}

#[cfg(test)]
mod tests {
    use sluicegate_types::ContentKind;

    use super::*;
    use crate::{cyclonedx::components, trivy_report::ListedPackage};

    fn entry(path: &str, bytes: &[u8]) -> FileEntry {
        FileEntry { path: path.to_owned(), digest: Digest::of(bytes), size: bytes.len() as u64, executable: false }
    }

    #[test]
    fn each_file_is_a_component_with_its_own_hash_in_any_order_of_arguments() {
        let content = Content { kind: ContentKind::Directory, digest: Digest::of(b"tar") };
        let (a, b) = (entry("bin/shop", b"elf"), entry("share/shop.txt", b"text"));
        let document = output_sbom("build.shop", content, None, &[b.clone(), a.clone()]);
        assert_eq!(document, output_sbom("build.shop", content, None, &[a, b]));
        assert_eq!(
            document["components"][0],
            json!({"type": "file", "name": "bin/shop", "hashes": [{"alg": "SHA-256", "content": Digest::of(b"elf").hex()}]})
        );
        let listed = components(document.to_string().as_bytes()).unwrap();
        assert_eq!(listed.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["bin/shop", "share/shop.txt"]);
        assert_eq!(document["metadata"]["component"]["version"], content.digest.to_string());
        assert!(document["metadata"].get("timestamp").is_none());
        let other = Content { digest: Digest::of(b"other"), ..content };
        assert_ne!(output_sbom("build.shop", other, None, &[])["serialNumber"], document["serialNumber"]);
    }

    #[test]
    fn a_file_is_called_as_the_output_is_and_an_empty_folder_has_no_component() {
        let content = Content { kind: ContentKind::File, digest: Digest::of(b"elf") };
        let document = output_sbom("build.shop", content, None, &[entry(ITSELF, b"elf")]);
        assert_eq!(document["components"][0]["name"], "build.shop");
        assert_eq!(document["metadata"]["component"]["mime-type"], "application/octet-stream");
        let empty = output_sbom("build.shop", Content { kind: ContentKind::Directory, ..content }, None, &[]);
        assert_eq!(components(empty.to_string().as_bytes()).unwrap(), vec![]);
    }

    #[test]
    fn packages_stand_before_the_files_that_show_them_and_take_none_away() {
        let content = Content { kind: ContentKind::Directory, digest: Digest::of(b"tar") };
        let files = [entry("h11.dist-info/METADATA", b"Name: h11"), entry("h11/evil.py", b"evil")];
        let set = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<BTreeSet<_>>();
        let h11 = KnownPackage {
            name: "h11".to_owned(),
            version: "0.16.0".to_owned(),
            purl: Some("pkg:pypi/h11@0.16.0".to_owned()),
            licenses: set(&["MIT"]),
            places: set(&["h11.dist-info/METADATA"]),
        };
        let bare = KnownPackage {
            name: "a".to_owned(),
            version: String::new(),
            purl: None,
            licenses: set(&[]),
            places: set(&[]),
        };
        let mut inventory = Inventory {
            scanner: "trivy".to_owned(),
            version: "0.76.0".to_owned(),
            digest: Digest::of(b"trivy"),
            packages: [h11, bare].into(),
            left_out: 0,
        };
        let document = output_sbom("build.site", content, Some(&inventory), &files);
        assert_eq!(document["components"][0], json!({"type": "library", "name": "a"}));
        assert_eq!(
            document["components"][1],
            json!({
                "type": "library", "name": "h11", "version": "0.16.0", "purl": "pkg:pypi/h11@0.16.0",
                "licenses": [{"license": {"name": "MIT"}}],
                "evidence": {"occurrences": [{"location": "h11.dist-info/METADATA"}]},
            })
        );
        let without = output_sbom("build.site", content, None, &files);
        let files_of = |document: &Value, from: usize| document["components"].as_array().unwrap()[from..].to_vec();
        assert_eq!(files_of(&document, 2), files_of(&without, 0));
        let listed = components(document.to_string().as_bytes()).unwrap();
        assert!(listed.iter().any(|c| c.purl == "pkg:pypi/h11@0.16.0" && c.licenses == ["MIT"]), "{listed:?}");

        // Another word about the same content is another document.
        assert_ne!(document["serialNumber"], without["serialNumber"]);
        assert!(document["metadata"].get("properties").is_none());
        let unlisted = output_sbom("build.site", content, Some(&inventory.unlisted()), &files);
        assert_eq!(unlisted["components"], without["components"]);
        assert_eq!(unlisted["metadata"]["properties"], json!([{"name": "sluicegate:packagesLeftOut", "value": "2"}]));

        // One that looked and found nothing is told from nobody having looked.
        inventory.packages.clear();
        let none = output_sbom("build.site", content, Some(&inventory), &files);
        assert_eq!(none["components"], without["components"]);
        assert_eq!(none["metadata"]["tools"]["components"][0]["version"], "0.76.0");
        assert!(without["metadata"].get("tools").is_none());
    }

    #[test]
    fn a_package_that_several_lists_name_is_known_once_with_all_its_places() {
        let listed = |name: &str, licenses: &[&str], file: Option<&str>| ListedPackage {
            name: name.to_owned(),
            version: "1".to_owned(),
            purl: None,
            licenses: licenses.iter().map(|text| (*text).to_owned()).collect(),
            file: file.map(str::to_owned),
            analyzed_by: String::new(),
            layer: None,
        };
        let list = |class: &str, place: &str, packages: Vec<ListedPackage>| PackageList {
            class: class.to_owned(),
            kind: String::new(),
            place: place.to_owned(),
            packages,
            lock_file: false,
        };
        let long = "1".repeat(1025);
        let odd = ["a\nb", long.as_str(), "a\nb"].map(|name| listed(name, &[], None));
        let (known, left_out) = known_packages(vec![
            list("lang-pkgs", "Node.js", odd.into()),
            list("lang-pkgs", "edge", vec![listed(&long[1..], &["MIT", &long[..257], "a\tb"], None)]),
            list("lang-pkgs", "bin/shop", vec![listed("a", &["MIT"], None), listed("", &[], None)]),
            list("lang-pkgs", "Python", vec![listed("a", &["BSD", "MIT"], Some("a.dist-info/METADATA"))]),
            list("os-pkgs", "debian 12", vec![listed("zlib1g", &[], None)]),
        ]);
        let known: Vec<_> = known.iter().map(|k| (k.name.as_str(), k.licenses.len(), k.places.len())).collect();
        assert_eq!((known, left_out), (vec![(&long[1..], 1, 1), ("a", 2, 2), ("zlib1g", 0, 0)], 2));
    }
}
