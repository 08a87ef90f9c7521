//! How much memory large blobs and hostile answers take, of client and registry together. The only test of its process.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is not as it should be")]

mod support;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    path::PathBuf,
};

use sluicegate_attestation::identifiers::{IMAGE_CONFIG, IMAGE_INDEX, IMAGE_MANIFEST, LAYER_TAR};
use sluicegate_ports::{
    images::{Descriptor, FaultKind, Manifest, Publication},
    store::{ContentStore, StoreError},
};
use sluicegate_testkit::{Answer, Behaviour, Fault, Payload, When};
use sluicegate_types::{Digest, Hasher};
use support::{World, assert_fault, selector};

/// More than the baseline that anything here may take.
const MOST: u64 = 64 << 20;

/// Files by their digests.
struct Files(BTreeMap<Digest, PathBuf>);

impl ContentStore for Files {
    fn put(&self, _: &mut dyn Read, limit: u64) -> Result<(Digest, u64), StoreError> {
        Err(StoreError::TooLarge { limit })
    }

    fn open(&self, digest: &Digest) -> Result<File, StoreError> {
        let path = self.path(digest)?;
        File::open(&path).map_err(|source| StoreError::Io { action: "open", path, source })
    }

    fn read(&self, digest: &Digest, _: u64) -> Result<Vec<u8>, StoreError> {
        let path = self.path(digest)?;
        fs::read(&path).map_err(|source| StoreError::Io { action: "read", path, source })
    }

    fn path(&self, digest: &Digest) -> Result<PathBuf, StoreError> {
        self.0.get(digest).cloned().ok_or(StoreError::Missing { digest: *digest })
    }
}

/// A number of `/proc/self/status`, in bytes.
fn status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// What `work` takes at its peak beyond what was there before it.
fn peak(work: impl FnOnce()) -> u64 {
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS");
    work();
    status("VmHWM").saturating_sub(before)
}

fn hashed(mut reader: impl Read) -> Digest {
    let (mut hasher, mut buffer) = (Hasher::new(), vec![0; 256 * 1024]);
    loop {
        match reader.read(&mut buffer).unwrap() {
            0 => return hasher.finish(),
            n => hasher.update(&buffer[..n]),
        }
    }
}

#[test]
fn large_blobs_and_endless_answers_take_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    let size: u64 = std::env::var("SLUICEGATE_MEMORY_TEST_MIB").map_or(192, |text| text.parse().unwrap());
    let mut files = Files(BTreeMap::new());
    let mut keep = |name: &str, write: &dyn Fn(&File)| {
        let path = folder.path().join(name);
        write(&File::create(&path).unwrap());
        let digest = hashed(File::open(&path).unwrap());
        let size = fs::metadata(&path).unwrap().len();
        files.0.insert(digest, path);
        (digest, size)
    };
    // One in parts, one at once, both of holes.
    let layers = [("large", size << 20), ("whole", 60 << 20)]
        .map(|(name, size)| keep(name, &|file| file.set_len(size).unwrap()));
    let config = keep("config", &|mut file| std::io::Write::write_all(&mut file, b"{}").unwrap());
    let layers = layers.map(|(digest, size)| Descriptor::new(LAYER_TAR, digest, size));
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(IMAGE_MANIFEST.to_owned()),
        artifact_type: None,
        config: Descriptor::new(IMAGE_CONFIG, config.0, config.1),
        layers: layers.to_vec(),
        subject: None,
        annotations: BTreeMap::new(),
    };
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let (image, length) = keep("manifest", &|mut file| std::io::Write::write_all(&mut file, &manifest).unwrap());
    let world = World::of("");
    let publication = Publication {
        image: Descriptor::new(IMAGE_MANIFEST, image, length),
        tags: vec!["v1".parse().unwrap()],
        children: Vec::new(),
        referrers: Vec::new(),
        blobs: layers.iter().map(|layer| layer.digest).chain([config.0]).collect(),
        evidence: Vec::new(),
        beside: Vec::new(),
        source: None,
        expected: None,
        environment: None,
    };
    let pushed = peak(|| world.target().publish(&publication, &files).unwrap());
    let pulled = peak(|| {
        for layer in &layers {
            assert_eq!(hashed(world.source().open(layer).unwrap()), layer.digest);
        }
    });
    eprintln!("{size} MiB pushed: {} KiB, pulled: {} KiB", pushed >> 10, pulled >> 10);
    assert!(pushed <= MOST && pulled <= MOST);

    let bomb = |middle: &str, unit: &str| {
        let head = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json""#;
        let room = (4 << 20) - head.len() - middle.len() - 16;
        let units = unit.repeat(room / unit.len());
        format!("{head}{}", middle.replace("UNITS", units.trim_end_matches(','))).into_bytes()
    };
    let entry = format!(r#"{{"mediaType":"a","digest":"{image}","size":1"#);
    let index = |bytes: Vec<u8>| Answer::status(200).content(IMAGE_INDEX, &bytes);
    let pages = index(bomb(&format!(r#","manifests":[{entry},"artifactType":"UNITS"}}]}}"#), "xxxxxxxxxxxxxxxx"))
        .header("Link", "<?page={number}>; rel=next");
    let endless = |path: &str| Fault::large_manifest(path, IMAGE_MANIFEST, u64::MAX);
    for (name, fault, is_refused) in [
        ("an endless manifest", endless("/manifests/v1"), true),
        ("an endless list", endless("/referrers/"), true),
        ("many numbers", When::get("/referrers/").answer(index(bomb(r#","manifests":[UNITS]}"#, "0,"))), true),
        ("many names", When::get("/referrers/").answer(index(bomb(r#",UNITS,"manifests":[]}"#, r#""a":0,"#))), true),
        (
            "many annotations",
            When::get("/referrers/")
                .answer(index(bomb(&format!(r#","manifests":[{entry},"annotations":{{UNITS}}}}]}}"#), r#""a":"","#))),
            false,
        ),
        ("deep lists", When::get("/referrers/").answer(index(bomb(r#","manifests":[UNITS"#, "["))), true),
        ("large pages", When::get("/referrers/").answer(pages), true),
        (
            "an endless error",
            When::get("/referrers/").answer(Answer::status(400).body(Payload::Spaces(u64::MAX))),
            true,
        ),
        (
            "an endless page for nothing",
            When::get("/referrers/").answer(Answer::status(404).body(Payload::Spaces(u64::MAX))),
            false,
        ),
    ] {
        world.registry.behave(Behaviour::with_faults([fault]));
        let took = peak(|| {
            let refused = match name {
                "an endless manifest" => world.source().resolve(&selector()).map(|_| ()),
                _ => world.source().referrers(&image).map(|_| ()),
            };
            assert_eq!(refused.is_err(), is_refused, "{name}: {refused:?}");
        });
        eprintln!("{name}: {} KiB", took >> 10);
        assert!(took <= MOST, "{name}: {took}");
    }
    world.registry.behave(Behaviour::with_faults([endless("/manifests/v1")]));
    assert_fault(world.source().resolve(&selector()), FaultKind::TooLarge, &[]);
}
