//! Asks the scanner all that one image needs, several questions at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZero,
    thread,
};

use sluicegate_pipeline::pipeline::Artifact;
use sluicegate_ports::scan::Scanner;
use sluicegate_types::Digest;
use sluicegate_verify::Role;

use crate::{
    Error, Ports,
    assemble::{self, Assembled},
    built::{Built, OutputIdentity},
    in_parallel::in_parallel,
    known_scans::KnownScans,
    pin::PinnedImages,
    run::RunRequest,
    scan::{ImageScan, KnownOutput, OutputScan, Scanning},
};

/// Questions at a time, where there are as many processors: each may take the scanner's whole memory, and a copy of what it is about.
const AT_ONCE: usize = 2;

/// What the scanner said. Each answer is taken once.
#[derive(Default)]
pub(crate) struct Survey {
    artifact: Option<ImageScan>,
    step_images: BTreeMap<Digest, ImageScan>,
    outputs: BTreeMap<OutputIdentity, InOutput>,
}

/// What is known of what a step left.
pub(crate) enum InOutput {
    /// What an earlier run attested of it.
    Known(KnownOutput),
    /// What the scanner says.
    Scanned(OutputScan),
}

impl Survey {
    /// Asks about `assembled`, the image of `artifact`, and of its closure about the images of the steps and what they left, as far as
    /// `built` has not described them.
    pub(crate) fn ask(
        ports: &Ports<'_>,
        request: &RunRequest<'_>,
        scanner: &dyn Scanner,
        (artifact, assembled): (&Artifact, &Assembled),
        images: &PinnedImages,
        built: &Built,
    ) -> Result<Self, Error> {
        let scanning = scanning(ports, request, scanner);
        let mut survey = Self::default();
        let mut questions = Vec::new();
        let (mut outputs, mut step_images) = (BTreeSet::new(), BTreeSet::new());
        for step in request.pinning.pipeline.closure(artifact) {
            for product in built.step(&step.name)?.products.values() {
                let output = OutputIdentity::of(step, product)?;
                if built.describes_output(&output) || !outputs.insert(output.clone()) {
                    continue;
                }
                let name = format!("{}.{}", step.name, product.name);
                if let Some(known) = scanning.known_output(&output.key(&name), product.content)? {
                    survey.outputs.insert(output, InOutput::Known(known));
                    continue;
                }
                (ports.tell)(&format!("output {name} is scanned"));
                let image = assemble::of_output(ports, product, output.file_name())?;
                questions.push(Question { about: About::Output(output), name, image });
            }
            let image = images.of_step(step)?;
            if !built.describes_image(&image.digest) && step_images.insert(image.digest) {
                (ports.tell)(&format!("image {} of the steps is scanned", image.name));
                let image = Assembled { image: image.descriptor(), blobs: image.blobs() };
                questions.push(Question { about: About::StepImage, name: "step-image".to_owned(), image });
            }
        }
        (ports.tell)(&format!("image {} is scanned", artifact.name));
        let name = artifact.name.to_string();
        questions.push(Question { about: About::Artifact, name, image: assembled.clone() });
        let workers = thread::available_parallelism().map_or(1, NonZero::get).min(AT_ONCE);
        for answer in in_parallel(workers, &questions, |question| question.answer(&scanning))? {
            match answer {
                Answer::Artifact(scan) => survey.artifact = Some(scan),
                Answer::StepImage(digest, scan) => drop(survey.step_images.insert(digest, scan)),
                Answer::Output(output, found) => drop(survey.outputs.insert(output, InOutput::Scanned(found))),
            }
        }
        Ok(survey)
    }

    /// The scan of the artifact's image.
    pub(crate) fn artifact(&mut self) -> Result<ImageScan, Error> {
        self.artifact.take().ok_or_else(|| unasked("the image"))
    }

    /// The scan of an image that steps ran in.
    pub(crate) fn step_image(&mut self, digest: &Digest) -> Result<ImageScan, Error> {
        self.step_images.remove(digest).ok_or_else(|| unasked("an image of the steps"))
    }

    /// What is known of what a step left.
    pub(crate) fn output(&mut self, output: &OutputIdentity) -> Result<InOutput, Error> {
        self.outputs.remove(output).ok_or_else(|| unasked("an output"))
    }
}

/// The scanner of a run, with what this home scanned before.
pub(crate) fn scanning<'a>(ports: &Ports<'a>, request: &RunRequest<'a>, scanner: &'a dyn Scanner) -> Scanning<'a> {
    let known = request.scans.map(|index| KnownScans {
        index,
        store: ports.store,
        trust: request.trust,
        role: Role::Steps,
        at: ports.clock.now(),
    });
    Scanning::new(ports, scanner, request.scratch).knowing(known)
}

fn unasked(what: &str) -> Error {
    Error::Bug(format!("the scanner was not asked about {what}"))
}

struct Question {
    about: About,
    name: String,
    image: Assembled,
}

enum About {
    Artifact,
    StepImage,
    Output(OutputIdentity),
}

enum Answer {
    Artifact(ImageScan),
    StepImage(Digest, ImageScan),
    Output(OutputIdentity, OutputScan),
}

impl Question {
    fn answer(&self, scanning: &Scanning<'_>) -> Result<Answer, Error> {
        let Assembled { image, blobs } = &self.image;
        Ok(match &self.about {
            About::Artifact => Answer::Artifact(scanning.image(image, blobs, &self.name)?),
            About::StepImage => Answer::StepImage(image.digest, scanning.image(image, blobs, &self.name)?),
            About::Output(output) => Answer::Output(output.clone(), scanning.output(image, blobs, &self.name)?),
        })
    }
}
