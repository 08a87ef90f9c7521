use std::path::PathBuf;

use sluicegate_policy::rego::PolicyError;
use sluicegate_ports::{
    evidence::EvidenceError,
    execute::ExecuteError,
    images::{FaultKind, ImagePlaceError},
    ledger::LedgerError,
    scan::ScanError,
    sign::SignError,
    store::StoreError,
    trees::TreeError,
};
use sluicegate_types::Digest;
use sluicegate_verify::closed_set::Incomplete;

/// What is to be mended about a step that ended badly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepFault {
    /// What it did or what it read.
    Work,
    /// The program that it names, or its image.
    Program,
    /// It needs more than one of its limits gives.
    Limit,
    /// An output that it did not leave.
    Output,
    /// The report of its tests.
    Report,
    /// A secret in its report.
    Leak,
    /// Nothing: it was stopped from outside.
    Stopped,
}

/// Why a verb did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Stopped from outside before everything was done.
    #[error("the run was stopped")]
    Stopped,
    /// A file of the project or the gateway.
    #[error(transparent)]
    File(#[from] sluicegate_pipeline::Error),
    /// trust.yaml or its keys.
    #[error("{file}: {reason}")]
    Trust {
        /// The file.
        file: PathBuf,
        /// Why it is refused.
        reason: String,
    },
    /// A policy or a data file of the gateway that its author can be told of before anything is asked.
    #[error(transparent)]
    Policies(#[from] PolicyError),
    /// Something asked for is contradictory or not in this version.
    #[error("{0}")]
    Usage(String),
    /// Something changed or took too long in between; nothing is wrong with what was asked.
    #[error("{0}")]
    Again(String),
    /// Something that can't be.
    #[error("{0}: this is a bug of ours")]
    Bug(String),
    /// A step ended badly.
    #[error("step {step} {how}")]
    StepFailed {
        /// The step.
        step: String,
        /// How it ended.
        how: String,
        /// What is to be mended.
        fault: StepFault,
    },
    /// An image that can't be used as a base or for a step.
    #[error("{image}: {reason}")]
    Image {
        /// The image.
        image: String,
        /// Why not.
        reason: String,
    },
    /// Content that is not what its name says.
    #[error("{what} {digest}: {reason}")]
    Content {
        /// What it is.
        what: &'static str,
        /// Its name.
        digest: Digest,
        /// In what way it is wrong.
        reason: String,
    },
    /// Our own bundle does not verify with the configured trust, so it was not kept.
    #[error("what was just signed by {signer} does not verify with the configured trust")]
    OwnBundle {
        /// The signer.
        signer: String,
        /// Why not.
        #[source]
        source: Box<sluicegate_verify::Error>,
    },
    /// A file that should hold one bundle and does not.
    #[error("{file}: {reason}")]
    BundleFile {
        /// The file.
        file: PathBuf,
        /// What it holds instead.
        reason: String,
    },
    /// A bundle that was named and is not to be believed.
    #[error("the bundle {bundle} is not to be believed")]
    Bundle {
        /// A word for programs.
        reason: &'static str,
        /// The bundle.
        bundle: Digest,
        /// Why not.
        #[source]
        source: Box<sluicegate_verify::Error>,
    },
    /// A bundle that is to be believed and is about something else.
    #[error("the bundle is about something else: the file is {file}, the bundle is about {about}")]
    OtherContent {
        /// The file.
        file: Digest,
        /// What the bundle is about.
        about: String,
    },
    /// A bundle that verifies and that nobody says on their own.
    #[error("the bundle {bundle} does not count: {reason}")]
    NobodysWord {
        /// The bundle.
        bundle: Digest,
        /// Why not.
        reason: String,
    },
    /// The evidence is not what a signed decision says it was.
    #[error(
        "{0}; nothing was recorded: restore evidence.db and ledger together from one backup, evidence fsck --against says more"
    )]
    CutBack(String),
    /// Something that says what is still needed is not as it was written.
    #[error("it can't be told what is still needed, so nothing was deleted: {0}")]
    Needed(String),
    /// A record that anyone could have written.
    #[error("evidence record {sequence} proves no decision: {reason}")]
    NobodysRecord {
        /// The record.
        sequence: u64,
        /// Why not.
        reason: String,
    },
    /// The evidence is not whole.
    #[error("{image}: the evidence is not whole")]
    Incomplete {
        /// The image.
        image: Digest,
        /// The first reason.
        #[source]
        source: Box<Incomplete>,
    },
    /// Forming a document.
    #[error(transparent)]
    Attestation(#[from] sluicegate_attestation::Error),
    /// Images.
    #[error(transparent)]
    Place(#[from] ImagePlaceError),
    /// Steps.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    /// Keys and log.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// Scanner.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The scanner, asked what a step left.
    #[error("cannot look for packages in the output {output}")]
    Inventory {
        /// The step and its output.
        output: String,
        /// Why not.
        #[source]
        source: ScanError,
    },
    /// Content store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Trees.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// Evidence.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// The evidence's ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// JSON of our own making.
    #[error("cannot write {what} as JSON")]
    Json {
        /// What.
        what: &'static str,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// The file system.
    #[error("cannot {action} {path}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// What kind of failure it is: one exit code each (DESIGN section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Usage or configuration: 2.
    Usage,
    /// Evidence missing or policy could not be asked: 3.
    Undecided,
    /// Signature, identity or digest wrong: 4.
    Wrong,
    /// Engine, registry, log or disk unavailable: 5.
    Unavailable,
    /// A step of the pipeline failed: 6.
    Step,
    /// Our bug: 70.
    Bug,
    /// Stopped from outside: 130.
    Stopped,
}

impl Error {
    /// What it says, and every cause below it, one text each.
    pub fn causes(&self) -> Vec<String> {
        let mut words = vec![self.to_string()];
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            words.push(cause.to_string());
            source = cause.source();
        }
        words
    }

    /// A word for programs that says more than the kind, where there is one.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Bundle { reason, .. } => Some(reason),
            Self::OtherContent { .. } => Some("other_content"),
            Self::BundleFile { .. } => Some("not_one_bundle"),
            Self::Place(ImagePlaceError::Registry { fault, .. }) => Some(fault.kind.code()),
            _ => None,
        }
    }

    /// Which kind it is.
    pub fn failure(&self) -> Failure {
        match self {
            Self::File(_)
            | Self::Policies(_)
            | Self::Trust { .. }
            | Self::Usage(_)
            | Self::Image { .. }
            | Self::BundleFile { .. } => Failure::Usage,
            Self::NobodysRecord { .. } => Failure::Undecided,
            Self::StepFailed { fault: StepFault::Stopped, .. } | Self::Stopped => Failure::Stopped,
            Self::StepFailed { .. } => Failure::Step,
            Self::Again(_) => Failure::Unavailable,
            Self::Bug(_) => Failure::Bug,
            Self::CutBack(_)
            | Self::Needed(_)
            | Self::NobodysWord { .. }
            | Self::Content { .. }
            | Self::Bundle { .. }
            | Self::OtherContent { .. } => Failure::Wrong,
            Self::OwnBundle { .. } => Failure::Usage,
            Self::Incomplete { source, .. } => incomplete(source),
            Self::Attestation(_) | Self::Json { .. } => Failure::Bug,
            Self::Place(error) => match error {
                ImagePlaceError::NotALayout { .. }
                | ImagePlaceError::NoImage { .. }
                | ImagePlaceError::OfEnvironment { .. } => Failure::Usage,
                ImagePlaceError::MissingBlob { .. } => Failure::Undecided,
                ImagePlaceError::Corrupt { .. } => Failure::Wrong,
                ImagePlaceError::Store(error) => store(error),
                ImagePlaceError::Registry { fault, .. } => match fault.kind {
                    FaultKind::DigestMismatch => Failure::Wrong,
                    FaultKind::Configuration => Failure::Usage,
                    _ => Failure::Unavailable,
                },
                ImagePlaceError::Moved { .. } | ImagePlaceError::Io { .. } => Failure::Unavailable,
            },
            Self::Execute(error) => match error {
                ExecuteError::NotHere { .. } | ExecuteError::Engine { .. } => Failure::Unavailable,
                ExecuteError::Refused { .. } => Failure::Usage,
                ExecuteError::Content { .. } => Failure::Wrong,
                ExecuteError::Output { .. } => Failure::Step,
                ExecuteError::Stopped { .. } => Failure::Stopped,
                ExecuteError::Store(error) => store(error),
            },
            Self::Sign(error) => match error {
                SignError::NoKey { .. }
                | SignError::Locked { .. }
                | SignError::KeyFile { .. }
                | SignError::KeyExists { .. }
                | SignError::Settings { .. }
                | SignError::Stranger { .. } => Failure::Usage,
                SignError::Unproved { .. } => Failure::Wrong,
                SignError::Log { .. } | SignError::Remote { .. } | SignError::Waiting { .. } | SignError::Io { .. } => {
                    Failure::Unavailable
                }
            },
            Self::Scan(error) | Self::Inventory { source: error, .. } => match error {
                ScanError::Scanner { .. } | ScanError::Database { .. } => Failure::Undecided,
                ScanError::Stopped => Failure::Stopped,
                _ => Failure::Unavailable,
            },
            Self::Store(error) => store(error),
            Self::Tree(error) => match error {
                TreeError::Entry { .. }
                | TreeError::TooMany { .. }
                | TreeError::Address { .. }
                | TreeError::Reference { .. } => Failure::Usage,
                TreeError::Layer { .. } => Failure::Wrong,
                TreeError::Stopped => Failure::Stopped,
                TreeError::Store(error) => store(error),
                TreeError::Git { .. } | TreeError::Fetch { .. } | TreeError::Io { .. } => Failure::Unavailable,
            },
            Self::Evidence(error) => match error {
                EvidenceError::NoRecord { .. } => Failure::Usage,
                EvidenceError::Damaged { .. } | EvidenceError::Corrupt { .. } => Failure::Wrong,
                EvidenceError::Io { .. } => Failure::Unavailable,
            },
            Self::Ledger(error) => match error {
                LedgerError::Damaged { .. } => Failure::Wrong,
                LedgerError::Moved { .. } | LedgerError::Short { .. } | LedgerError::Io { .. } => Failure::Unavailable,
            },
            Self::Io { .. } => Failure::Unavailable,
        }
    }
}

/// A removed or exchanged bundle leaves the question open; one that is named and false answers it.
pub(crate) fn incomplete(reason: &Incomplete) -> Failure {
    match reason {
        Incomplete::Broken { .. } => Failure::Wrong,
        Incomplete::NoProvenance { .. } | Incomplete::Missing { .. } | Incomplete::Unlinked { .. } => {
            Failure::Undecided
        }
    }
}

fn store(error: &StoreError) -> Failure {
    match error {
        StoreError::Corrupt { .. } => Failure::Wrong,
        StoreError::Missing { .. } => Failure::Undecided,
        StoreError::TooLarge { .. } => Failure::Usage,
        StoreError::Io { .. } => Failure::Unavailable,
    }
}
