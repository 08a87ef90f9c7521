//! What a run has made so far, each thing proved and described once.

use std::collections::{BTreeMap, btree_map::Entry};

use sluicegate_attestation::{
    output_sbom::output_sbom,
    predicate::PredicateType,
    statement::{Statement, Subject},
    test_result::TestResult,
};
use sluicegate_ports::{
    execute::Product,
    images::Descriptor,
    trees::{FileEntry, ITSELF, TreeError},
};
use sluicegate_types::{Content, Digest, NonEmpty, OutputName, StepName};

use crate::{
    Error, Ports,
    attest::{Attested, attest, refuse_too_large},
    pin::PinnedBase,
    run::RunRequest,
    survey::Survey,
};

/// Files of an output that its SBOM names one by one.
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

    /// Whether the SBOM of this content is made.
    pub(crate) fn describes_output(&self, content: Content) -> bool {
        self.outputs.contains_key(&content)
    }

    /// Whether SBOM and scan of this image that steps ran in are made.
    pub(crate) fn describes_image(&self, image: &Digest) -> bool {
        self.images.contains_key(image)
    }

    /// The SBOM of what a step left: the packages that the scanner knows there, if there is a scanner, and every file with its own
    /// hash. Made once for each content.
    pub(crate) fn output(
        &mut self,
        ports: &Ports<'_>,
        request: &RunRequest<'_>,
        name: &str,
        product: &Product,
        survey: Option<&mut Survey>,
    ) -> Result<&Attested, Error> {
        let vacant = match self.outputs.entry(product.content) {
            Entry::Occupied(described) => return Ok(described.into_mut()),
            Entry::Vacant(vacant) => vacant,
        };
        let content = product.content;
        let inventory = survey.map(|survey| survey.output(content)).transpose()?;
        let about = |files: &[FileEntry]| Statement {
            subjects: NonEmpty::one(Subject::product(name.to_owned(), content)),
            predicate_type: PredicateType::Sbom,
            predicate: output_sbom(name, content, inventory.as_ref(), files),
        };
        // Too much for one statement: then the output is one thing, and its own hash describes it.
        let as_a_whole = |why: &str| {
            (ports.tell)(&format!("output {name} {why}: its SBOM names it as a whole"));
            about(&[FileEntry { path: ITSELF.to_owned(), digest: content.digest, size: product.size }])
        };
        let statement = match ports.packer.files(content) {
            Ok(files) if files.is_empty() => {
                (ports.warn)(&format!("output {name} holds no file: its SBOM names no component"));
                about(&[])
            }
            Ok(files) if files.len() <= MAX_DESCRIBED => {
                let statement = about(&files);
                match refuse_too_large(&statement.to_payload()?) {
                    Ok(()) => statement,
                    Err(_) => as_a_whole("has more or longer names than one statement holds"),
                }
            }
            Ok(_) | Err(TreeError::TooMany { .. }) => as_a_whole(&format!("has more than {MAX_DESCRIBED} files")),
            Err(error) => return Err(error.into()),
        };
        let attested = one(attest(ports, request.signer, request.trust, &[statement], ports.clock.now())?)?;
        Ok(vacant.insert(attested))
    }

    /// SBOM and scan of an image that a step ran in, made once for each digest.
    pub(crate) fn image(
        &mut self,
        ports: &Ports<'_>,
        request: &RunRequest<'_>,
        image: &PinnedBase,
        survey: &mut Survey,
    ) -> Result<&Described, Error> {
        let vacant = match self.images.entry(image.digest) {
            Entry::Occupied(described) => return Ok(described.into_mut()),
            Entry::Vacant(vacant) => vacant,
        };
        let scan = survey.step_image(&image.digest)?;
        let mut attested = attest(ports, request.signer, request.trust, &[scan.sbom, scan.vulns], ports.clock.now())?;
        let vulns = one(attested.split_off(1))?;
        Ok(vacant.insert(Described { sbom: one(attested)?, vulns, report: scan.report }))
    }
}

fn one(attested: Vec<Attested>) -> Result<Attested, Error> {
    attested.into_iter().next().ok_or_else(|| Error::Bug("nothing was attested".to_owned()))
}
