//! The registries of the field cases, read from the folder that is shared beside the repository.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;
use sluicegate_ports::images::{Descriptor, FaultKind, ImagePlaceError, ImagePlaces, Manifest};
use sluicegate_testkit::{Behaviour, Fault};
use sluicegate_types::{Digest, Place, Selector};

use crate::support::{World, assert_fault, read, repository};

/// The unpacked cases, or `None` with a visible line, or a failure where peers are demanded.
fn cases(test: &str) -> Option<tempfile::TempDir> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let shared = std::env::var_os("SLUICEGATE_SHARED").filter(|v| !v.is_empty()).map_or_else(beside, PathBuf::from);
    let archive = shared.join("field/trust.tar.gz");
    if !archive.is_file() {
        let demanded = std::env::var_os("SLUICEGATE_REQUIRE_PEERS").is_some();
        assert!(!demanded, "{test}: there is no {}, and peers are demanded", archive.display());
        skip(test, &archive);
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let unpacked = Command::new("tar").arg("xzf").arg(&archive).arg("-C").arg(folder.path()).status().unwrap();
    assert!(unpacked.success());
    Some(folder)
}

#[expect(clippy::print_stderr, reason = "a skipped case is to be seen")]
fn skip(test: &str, archive: &Path) {
    eprintln!("skipped: {test}: there is no {}", archive.display());
}

struct Case {
    world: World,
    image: Digest,
}

impl Case {
    fn of(folder: &Path, name: &str) -> Self {
        let folder = folder.join("trust/registry").join(name);
        let case: Value = serde_json::from_slice(&std::fs::read(folder.join("case.json")).unwrap()).unwrap();
        let image = case["digest"].as_str().unwrap().parse().unwrap();
        Self { world: World::new(Behaviour::with_faults(Fault::routes(&folder))), image }
    }

    fn referrers(&self) -> Result<Vec<Descriptor>, ImagePlaceError> {
        let place = Place::Registry(repository(&self.world.registry.host(), "shop"));
        let source = self.world.places.source(&place)?;
        source.resolve(&Selector::Digest(self.image))?;
        source.referrers(&self.image)
    }

    /// The manifests about the image among what is listed, read and hashed; and those about another.
    fn read(&self) -> (BTreeSet<Digest>, usize) {
        let place = Place::Registry(repository(&self.world.registry.host(), "shop"));
        let source = self.world.places.source(&place).unwrap();
        let (mut own, mut foreign) = (BTreeSet::new(), 0);
        for referrer in self.referrers().unwrap() {
            let Ok(bytes) = read(source.as_ref(), &referrer) else { continue };
            let manifest: Manifest = serde_json::from_slice(&bytes).unwrap();
            if manifest.subject.as_ref().is_some_and(|subject| subject.digest == self.image) {
                manifest.layers.iter().for_each(|layer| drop(read(source.as_ref(), layer).unwrap()));
                own.insert(referrer.digest);
            } else {
                foreign += 1;
            }
        }
        (own, foreign)
    }
}

#[test]
fn tr_03_the_api_and_the_tag_are_united() {
    let Some(folder) = cases("tr_03") else { return };
    for name in ["TR-03-api-empty-tag-full", "TR-03-split"] {
        let case = Case::of(folder.path(), name);
        assert_eq!(case.referrers().unwrap().len(), 4, "{name}");
        assert_eq!(case.read(), (case.referrers().unwrap().iter().map(|one| one.digest).collect(), 0), "{name}");
    }
}

#[test]
fn tr_13_pages_of_referrers() {
    let Some(folder) = cases("tr_13") else { return };
    for name in ["TR-13-pages", "TR-13-pages-relative-query"] {
        assert_eq!(Case::of(folder.path(), name).referrers().unwrap().len(), 7, "{name}");
    }
    for (name, kind) in
        [("TR-13-pages-loop", FaultKind::Redirects), ("TR-13-pages-other-host", FaultKind::AddressRefused)]
    {
        let begun = Instant::now();
        let case = Case::of(folder.path(), name);
        assert_fault(case.referrers(), kind, &["page"]);
        assert!(begun.elapsed() < Duration::from_secs(5) && case.world.registry.log().len() < 10, "{name}");
    }
}

#[test]
fn tr_20_descriptors_that_say_nothing_or_lie() {
    let Some(folder) = cases("tr_20") else { return };
    for (name, foreign) in
        [("TR-20-no-type", 0), ("TR-20-config-type", 0), ("TR-20-wrong-annotation", 0), ("TR-20-foreign-subject", 1)]
    {
        let (own, others) = Case::of(folder.path(), name).read();
        assert_eq!((own.len(), others), (4, foreign), "{name}");
    }
}
