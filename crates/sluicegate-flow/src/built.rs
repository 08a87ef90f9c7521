//! What a run has made so far, each thing proved and described once.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ffi::{OsStr, OsString},
};

use serde_json::{Value, json};
use sluicegate_attestation::{
    predicate::PredicateType,
    statement::{Statement, Subject},
    test_result::TestResult,
};
use sluicegate_pipeline::pipeline::Step;
use sluicegate_ports::{execute::Product, images::Descriptor};
use sluicegate_types::{Content, ContentKind, Digest, NonEmpty, OutputName, StepName};

use crate::{
    Error, Ports,
    attest::{Attested, attest, refuse_too_large},
    describe,
    pin::PinnedBase,
    run::RunRequest,
    scan::{KnownOutput, OutputScan},
    survey::{InOutput, Survey, scanning},
};

/// A step that ran, with what proves it.
pub(crate) struct Done {
    pub(crate) attested: Attested,
    pub(crate) products: BTreeMap<OutputName, Product>,
    pub(crate) tested: Option<Tested>,
    /// The statement of the run that did the work, if its result was taken.
    pub(crate) origin: Option<Origin>,
    /// What it was seen to open and execute.
    pub(crate) trace: Option<Attested>,
}

/// The bundle of another run's statement.
pub(crate) struct Origin {
    pub(crate) bundle: Digest,
    pub(crate) size: u64,
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

/// An output of a step, described.
pub(crate) struct DescribedOutput {
    pub(crate) sbom: Attested,
    /// Its scan with the raw report, where there was a scanner that could.
    pub(crate) scan: Option<(Attested, Descriptor)>,
}

/// What an output is to a scanner: its content, and of a file also its name and whether it can be executed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OutputIdentity {
    content: Content,
    file: Option<(OsString, bool)>,
}

impl OutputIdentity {
    pub(crate) fn of(step: &Step, product: &Product) -> Result<Self, Error> {
        let path = step.outputs.get(&product.name).and_then(|path| path.file_name());
        let name = path.ok_or_else(|| Error::Bug(format!("the output {}.{} has no path", step.name, product.name)))?;
        let file = match product.content.kind {
            ContentKind::File => Some((name.to_owned(), product.executable)),
            ContentKind::Directory => None,
        };
        Ok(Self { content: product.content, file })
    }

    /// All that its SBOM depends on, beside the scanner.
    pub(crate) fn key(&self, name: &str) -> Value {
        let file = self.file.as_ref();
        // Names that are no text are told apart, too.
        let file = file.map(|(name, executable)| json!({"name": name.as_encoded_bytes(), "executable": executable}));
        json!({"name": name, "kind": self.content.kind.media_type(), "digest": self.content.digest, "file": file})
    }

    /// The name of a file; empty for a directory.
    pub(crate) fn file_name(&self) -> &OsStr {
        self.file.as_ref().map_or(OsStr::new(""), |(name, _)| name)
    }
}

/// Everything that a run made.
#[derive(Default)]
pub(crate) struct Built {
    steps: BTreeMap<StepName, Done>,
    images: BTreeMap<Digest, Described>,
    outputs: BTreeMap<OutputIdentity, DescribedOutput>,
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

    /// Whether the SBOM of such an output is made.
    pub(crate) fn describes_output(&self, output: &OutputIdentity) -> bool {
        self.outputs.contains_key(output)
    }

    /// Whether SBOM and scan of this image that steps ran in are made.
    pub(crate) fn describes_image(&self, image: &Digest) -> bool {
        self.images.contains_key(image)
    }

    /// The SBOM of what a step left: the packages that the scanner knows there, if there is a scanner, and every file with its own
    /// hash; and what is wrong with those packages. Made once for outputs that are alike.
    pub(crate) fn output(
        &mut self,
        ports: &Ports<'_>,
        request: &RunRequest<'_>,
        name: &str,
        step: &Step,
        product: &Product,
        survey: Option<&mut Survey>,
    ) -> Result<&DescribedOutput, Error> {
        let output = OutputIdentity::of(step, product)?;
        let vacant = match self.outputs.entry(output) {
            Entry::Occupied(described) => return Ok(described.into_mut()),
            Entry::Vacant(vacant) => vacant,
        };
        let survey_asked = survey.is_some();
        let found = survey.map(|survey| survey.output(vacant.key())).transpose()?;
        let said = |predicate_type, predicate| Statement {
            subjects: NonEmpty::one(Subject::product(name.to_owned(), product.content)),
            predicate_type,
            predicate,
        };
        let (sbom, is_whole, vulns) = match found {
            Some(InOutput::Known(KnownOutput { sbom, vulns, report })) => {
                (said(PredicateType::Sbom, sbom), true, Some((vulns, report)))
            }
            Some(InOutput::Scanned(OutputScan { inventory, vulns })) => {
                let (sbom, is_whole) = describe::output(ports, name, product, Some(inventory))?;
                (sbom, is_whole, vulns)
            }
            None => {
                let (sbom, is_whole) = describe::output(ports, name, product, None)?;
                (sbom, is_whole, None)
            }
        };
        let vulns = vulns.map(|(vulns, report)| (said(PredicateType::Vulns, vulns), report));
        let vulns = match vulns {
            Some((statement, _)) if refuse_too_large(&statement.to_payload()?).is_err() => {
                (ports.warn)(&format!("output {name} has more findings than one statement holds: it has no scan"));
                None
            }
            vulns => vulns,
        };
        let is_whole = is_whole && (survey_asked == vulns.is_some());
        let (vulns, report) = vulns.unzip();
        let statements: Vec<Statement> = std::iter::once(sbom).chain(vulns).collect();
        let mut attested = attest(ports, request.signer, request.trust, &statements, ports.clock.now())?;
        // What is not whole is warned about in every run.
        if let Some(scanner) = request.scanner.filter(|_| is_whole) {
            scanning(ports, request, scanner).keep_output(&vacant.key().key(name), attested.iter());
        }
        let scan = attested.split_off(1).into_iter().next().zip(report);
        Ok(vacant.insert(DescribedOutput { sbom: one(attested)?, scan }))
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
        if let Some(scanner) = request.scanner {
            scanning(ports, request, scanner).keep(&image.digest, &attested);
        }
        let vulns = one(attested.split_off(1))?;
        Ok(vacant.insert(Described { sbom: one(attested)?, vulns, report: scan.report }))
    }
}

fn one(attested: Vec<Attested>) -> Result<Attested, Error> {
    attested.into_iter().next().ok_or_else(|| Error::Bug("nothing was attested".to_owned()))
}
