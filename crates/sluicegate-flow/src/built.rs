//! What a run has made so far, each thing proved and described once.

use std::collections::{BTreeMap, btree_map::Entry};

use sluicegate_attestation::{
    file_sbom::file_sbom,
    predicate::PredicateType,
    statement::{Statement, Subject},
    test_result::TestResult,
};
use sluicegate_ports::{
    execute::Product,
    images::Descriptor,
    scan::Scanner,
    trees::{FileEntry, ITSELF, TreeError},
};
use sluicegate_types::{Content, Digest, NonEmpty, OutputName, StepName};

use crate::{
    Error, Ports,
    attest::{Attested, attest},
    pin::PinnedBase,
    run::RunRequest,
    scan,
};

/// Files of an output that its SBOM names one by one: with long paths as many still fit into one bundle.
const MAX_DESCRIBED: usize = 20_000;

/// A step that ran, with what proves it.
pub(crate) struct Done {
    pub(crate) attested: Attested,
    pub(crate) products: BTreeMap<OutputName, Product>,
    pub(crate) log: Digest,
    pub(crate) tested: Option<Tested>,
}

/// A step's report of its tests, attested.
pub(crate) struct Tested {
    pub(crate) attested: Attested,
    /// The raw report.
    pub(crate) report: Descriptor,
    pub(crate) result: TestResult,
}

/// An image that steps ran in, described.
pub(crate) struct Described {
    pub(crate) sbom: Attested,
    pub(crate) vulns: Attested,
    /// The raw report of the scan.
    pub(crate) report: Descriptor,
}

/// Everything that a run made.
#[derive(Default)]
pub(crate) struct Built {
    steps: BTreeMap<StepName, Done>,
    images: BTreeMap<Digest, Described>,
    outputs: BTreeMap<Content, Attested>,
}

impl Built {
    pub(crate) fn add(&mut self, step: StepName, done: Done) {
        self.steps.insert(step, done);
    }

    pub(crate) fn step(&self, step: &StepName) -> Result<&Done, Error> {
        self.steps.get(step).ok_or_else(|| Error::Bug(format!("the step {step} did not run")))
    }

    /// An output of a step with the bundle that attests it.
    pub(crate) fn product(&self, step: &StepName, output: &OutputName) -> Result<(&Product, Digest), Error> {
        let done = self.step(step)?;
        let product = done.products.get(output);
        let product = product.ok_or_else(|| Error::Bug(format!("the step {step} left no output {output}")))?;
        Ok((product, done.attested.statement.bundle()))
    }

    /// The SBOM of what a step left: every file with its own hash, as no package is known there. Made once for each content.
    pub(crate) fn output(
        &mut self,
        ports: &Ports<'_>,
        request: &RunRequest<'_>,
        name: &str,
        product: &Product,
    ) -> Result<&Attested, Error> {
        let vacant = match self.outputs.entry(product.content) {
            Entry::Occupied(described) => return Ok(described.into_mut()),
            Entry::Vacant(vacant) => vacant,
        };
        let content = product.content;
        let files = match ports.packer.files(content) {
            Ok(files) if files.len() <= MAX_DESCRIBED => files,
            // Too many for one statement: then the output is one thing, and its own hash describes it.
            Ok(_) | Err(TreeError::TooMany { .. }) => {
                (ports.tell)(&format!(
                    "output {name} has more than {MAX_DESCRIBED} files: its SBOM names it as a whole"
                ));
                vec![FileEntry { path: ITSELF.to_owned(), digest: content.digest, size: product.size }]
            }
            Err(error) => return Err(error.into()),
        };
        let statement = Statement {
            subjects: NonEmpty::one(Subject::product(name.to_owned(), content)),
            predicate_type: PredicateType::Sbom,
            predicate: file_sbom(name, content, &files),
        };
        let attested = one(attest(ports, request.signer, request.trust, &[statement], ports.clock.now())?)?;
        Ok(vacant.insert(attested))
    }

    /// SBOM and scan of an image that a step ran in, made once for each digest.
    pub(crate) fn image(
        &mut self,
        ports: &Ports<'_>,
        request: &RunRequest<'_>,
        scanner: &dyn Scanner,
        image: &PinnedBase,
    ) -> Result<&Described, Error> {
        let vacant = match self.images.entry(image.digest) {
            Entry::Occupied(described) => return Ok(described.into_mut()),
            Entry::Vacant(vacant) => vacant,
        };
        (ports.tell)(&format!("image {} of the steps is scanned", image.name));
        let scan = scan::scan(ports, scanner, &image.descriptor(), &image.blobs(), "step-image", request.scratch)?;
        let mut attested = attest(ports, request.signer, request.trust, &[scan.sbom, scan.vulns], ports.clock.now())?;
        let vulns = one(attested.split_off(1))?;
        Ok(vacant.insert(Described { sbom: one(attested)?, vulns, report: scan.report }))
    }
}

fn one(attested: Vec<Attested>) -> Result<Attested, Error> {
    attested.into_iter().next().ok_or_else(|| Error::Bug("nothing was attested".to_owned()))
}
