//! Every check of the verifier, the gate and the verbs around them, by name: the one table of what refuses.
//!
//! Tests prove each by its absence: they switch it off and demand that a named test turns red (`every_check` of the crate
//! `sluicegate-flow`). Only the feature `switches` has the switch; without it [`is_on`] is `true` when compiled and nothing can
//! change that. A build without debug assertions refuses the feature.

#[cfg(all(feature = "switches", not(debug_assertions)))]
compile_error!("the feature `switches` turns checks off: it is for tests, and never for a release build");

macro_rules! table {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// One check. Each line says what is refused, and the line of the trust model (DESIGN section 2) that asks for it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Check {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Check {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];
        }
    };
}

table! {
    // One bundle.
    /// A signature that is not the signer's over these bytes (6). The library checks it once more within [`Check::LogEntry`].
    Signature,
    /// An entry that is not proved: an unknown log, inclusion proof, checkpoint, and the body against the envelope, all of them in
    /// one call of the library, which also looks at the signature again (13, 15).
    LogEntry,
    /// A checkpoint under another name than the trusted root has for the log (13). The library finds the key by its hint alone.
    CheckpointOrigin,
    /// A tree size that the checkpoint doesn't say (13).
    TreeSize,
    /// A root hash that the checkpoint doesn't say (13).
    RootHash,
    /// A second log index that is not the first (13).
    LogIndex,
    /// An entry of another kind or version (13). The library refuses those that it does not know, within [`Check::LogEntry`].
    KindVersion,
    /// A time that nobody signed (14).
    IntegratedTime,
    /// A logged body that is not, byte for byte, the one of this signature (13).
    CanonicalizedBody,
    /// A log whose key does not count at this moment (14).
    LogWindow,
    /// A log without time that trust.yaml does not list (13).
    Untimed,
    /// An entry of a signer that is revoked for it (14).
    Revocation,
    /// A signer without a role that says this type (6).
    Role,
    /// A builder that the signer may not claim (6).
    Builder,
    /// A verifier that the signer may not claim (5).
    Verifier,
    /// A decision for an environment that the key does not decide for (5).
    DecisionEnvironment,
    /// A promotion to an environment that the key does not decide for (5).
    PromotionEnvironment,
    /// A summary or promotion with the wrong verdict for its key: a decisions key says yes, a records key keeps everything else (5).
    Verdict,
    /// A signer that does not speak for this repository (6).
    Repositories,
    /// A copy of a bundle that counts as one more statement (12).
    Copies,
    /// Two signers with one key in trust.yaml (6).
    OneKeyOneSigner,
    /// One person's keys that count as several towards a threshold (6).
    DistinctIdentities,
    /// A group with fewer voices than its threshold (6).
    Threshold,
    /// A member's voice about a repository that its own list leaves out (6).
    MemberRepositories,

    // The closed set.
    /// A result that was taken from a run whose statement is not in the set (9).
    OriginIsThere,
    /// A hit that names another hit (9).
    OriginIsFirst,
    /// A result of another builder (9).
    OriginBuilder,
    /// A result under another key (9).
    OriginKey,
    /// A result of other work (9).
    OriginWork,
    /// A result of other inputs (9).
    OriginInputs,
    /// A result that is not what the step says it left (9).
    OriginOutputs,
    /// A bundle that is attached to an image and about something else (1).
    AboutTheImage,
    /// Content of another kind with the same digest: a file is no directory (1).
    ContentKind,
    /// Something that the provenance names and that is not there (3).
    NamedIsThere,
    /// Something that the provenance names and that is not to be believed (3).
    NamedIsBelieved,
    /// Evidence of the set by a key without the role steps (6).
    StepsRole,
    /// A step of another run (3).
    SameRun,
    /// A step that failed (3).
    StepExitCode,
    /// A second provenance of one step (3).
    OneProvenance,
    /// A product or an input that the provenance does not resolve to content (3).
    ProductIsNamed,
    /// A product whose attestation is not the one of its step in the set (3).
    ProductIsAttested,
    /// A product that is not among the subjects of the attestation that is named for it (1, 3).
    ProductIsSubject,
    /// A step that is needed and not in the set (3).
    Needs,
    /// A description in the set, or a trace, of something that is not in it (3).
    Describes,
    /// A scan whose raw report is not named (4).
    ScanReport,
    /// A test result that is not of this step's run in the set (3).
    TestRun,
    /// A test result with another exit code than its step has (3).
    TestExitCode,
    /// A test result over a report that its step did not write (3).
    TestReport,
    /// A test result about something that its step did not read (3).
    TestSubjects,
    /// A test result that says something else than its raw report (3).
    TestRecomputed,
    /// A test of something that is no material of the image, counted as the image's (DESIGN section 5).
    TestMaterial,
    /// A step that reported its tests, and no test result of it (2, 3).
    TestResultIsThere,
    /// A step's image without SBOM or scan, where the run scanned (2, 3).
    StepImageIsDescribed,
    /// An output without SBOM, where the run scanned (2, 3).
    OutputIsDescribed,

    // Facts.
    /// The gate's own scan by a key without the role records (4).
    GateScanRole,
    /// The gate's own scan of something else (4).
    GateScanSubject,
    /// The gate's own scan with another report than it names (4).
    GateScanReport,
    /// An earlier scan by another scanner, or with another database (4).
    KnownScanScanner,
    /// An earlier scan of something else (1, 4).
    KnownScanSubject,
    /// An earlier scan by a key in another role than it is asked for (4).
    KnownScanRole,
    /// A scan whose signed summary says something else than its raw report (4).
    SummaryAgrees,
    /// Findings of a brought scan with another database than the gate's (4).
    AcceptedDatabase,
    /// Findings of a brought scan whose database is too old by now (4).
    AcceptedDatabaseAge,
    /// A machine's statement outside the set, taken for one by hand (6).
    ByHandRole,
    /// An SBOM or a test result by hand, taken for a machine's (2, 6).
    ByHandType,

    // The gate.
    /// Evidence of a required kind that is missing (2).
    RequiredKind,
    /// An SBOM of the image that names nothing (2).
    EmptySbom,
    /// A gate without a scan of its own (4).
    GateScan,
    /// A database that is too old (2, 4).
    DatabaseAge,
    /// A database from the future (4).
    DatabaseFuture,
    /// A scan that read nothing (4).
    NothingRead,
    /// A gap in what was read (4).
    CoverageGap,
    /// An executable in no package, under a gate that is strict about them (4).
    StrictExecutables,
    /// A policy that could not be asked (2).
    PolicyError,
    /// A gate without rules (2).
    NoRule,
    /// What a rule denies (2).
    Deny,
    /// What a rule both passes and denies (2).
    Contradiction,
    /// A rule without an answer (2).
    Silent,
    /// A rule that demands a fact which is not there (DESIGN section 5).
    RequiredField,
    /// Denials beyond those that are listed, which nobody can waive (17).
    UnlistedDenials,
    /// A waiver for another rule (17).
    WaiverCode,
    /// A waiver for something else that is denied (17).
    WaiverTerm,
    /// A waiver for another package (17).
    WaiverPackage,
    /// A waiver for another image or repository (17).
    WaiverScope,
    /// A waiver for another environment (17).
    WaiverEnvironment,
    /// A waiver that is over (17).
    WaiverExpiry,
    /// A gap that is accepted for another content (4).
    CoverageDigest,
    /// A gap of another kind than is accepted (4).
    CoverageKind,
    /// A gap whose acceptance is over (4).
    CoverageExpiry,
    /// A decision that outlives what it rests on (5).
    AcceptedUntil,

    // Reading and promoting.
    /// A decision about an image that is found in another repository (5).
    AdmitRepository,
    /// Bytes that are not those of their digest (1).
    FetchDigest,
    /// Bytes of another size than described (1).
    FetchSize,
    /// A manifest that is listed for an image and whose own subject is another one (12).
    ReferrerSubject,
    /// A platform of an index without a whole set (3).
    EveryPlatform,
    /// An index without a permit of each of its images, or with one of another (3).
    PermitOfEach,
    /// Permits of images of one index for different places, moments or gateways.
    PermitsAlike,
    /// What an index says is for no machine and is more than in-toto documents (12).
    OnlyDocuments,
    /// A promotion from an environment's own place to itself (10).
    OwnPlace,
    /// A tag that moves back without `--rollback` (10).
    Backwards,
    /// An index with an image that moves back without `--rollback` (10).
    PlatformBackwards,
    /// A rollback to what the environment holds, or never held (10).
    NothingToRollBack,
    /// A permit that is used too late, or before it was given (10).
    PermitAge,
    /// A dry run that does something.
    DryRun,
    /// A permit for another moment than now (7).
    EffectiveTime,
    /// A tag that moves from something that the permit did not see (10).
    TagMoved,
    /// Something that writes to an environment's place and is no promotion to it (10).
    EnvironmentMark,
    /// A tag that does not read back as it was written (10).
    ReadBackTag,
    /// A blob that does not read back from the target (10).
    ReadBackBlobs,

    // Admission.
    /// A denial, or a word without the role decisions, taken for leave (5).
    AdmitVerdict,
    /// A decision for another environment (5).
    AdmitEnvironment,
    /// A decision for another image or repository (5).
    AdmitResource,
    /// A decision by another gate (5).
    AdmitVerifier,
    /// A decision under another gateway (5).
    AdmitGateway,
    /// A decision that expired (5).
    AdmitExpired,
    /// A decision from the future (5).
    AdmitFuture,
    /// A decision whose judge was chosen by who is judged (7).
    AdmitAuthority,
    /// A decision over evidence that is not whole any more (3, 5).
    AdmitCovers,
    /// The record of a gated promotion where there is no gate (5).
    AdmitBasis,
    /// A record of a promotion to elsewhere (5).
    AdmitDestination,
    /// A record of another image's promotion (5).
    AdmitImage,
    /// A record of an ungated promotion without a whole set (3).
    AdmitSet,

    // A file, and what a person says.
    /// A bundle about another file (1).
    FileSubject,
    /// An image's or a directory's digest taken for a file's (1).
    FileKind,
    /// A file's bundle by a signer who says this only together with others (6).
    FileAlone,
    /// A type by hand that only machines say (6).
    ByHandForbidden,
    /// A machine's key for what a person says, or one that does not speak for this place (6).
    ByHandKey,
    /// Something attached by hand in an environment's place (10).
    ByHandPlace,

    // The records.
    /// A newest record that is not its leaf, before another is recorded behind it (16).
    NewestRecord,
    /// A record that is not its leaf (16).
    RecordIsLeaf,
    /// Records that are missing behind the ledger (16).
    RecordsMissing,
    /// What records name in the content store, gone or with other bytes (16).
    EvidenceContent,
    /// A ledger that does not fit the decisions on what an environment holds (16).
    OccupantLedger,
    /// A ledger that is shorter than a signed statement says (16).
    CutBack,
    /// A ledger with another root than a signed statement says (16).
    Rewritten,
}

/// Whether this check is made. Always, unless a test took it away.
#[cfg(not(feature = "switches"))]
#[inline]
pub const fn is_on(_: Check) -> bool {
    true
}

/// Whether this check is made. Always, unless a test took it away on this thread.
#[cfg(feature = "switches")]
pub fn is_on(check: Check) -> bool {
    OFF.with_borrow(|off| !off.contains(&check))
}

/// What `act` gives without these checks, on this thread. They are back when it ends, however it ends.
#[cfg(feature = "switches")]
pub fn without<T>(checks: &[Check], act: impl FnOnce() -> T) -> T {
    struct Back(std::collections::BTreeSet<Check>);
    impl Drop for Back {
        fn drop(&mut self) {
            OFF.set(std::mem::take(&mut self.0));
        }
    }
    let _back = Back(OFF.with_borrow(Clone::clone));
    OFF.with_borrow_mut(|off| off.extend(checks));
    act()
}

#[cfg(feature = "switches")]
std::thread_local! {
    static OFF: std::cell::RefCell<std::collections::BTreeSet<Check>> = const { std::cell::RefCell::new(std::collections::BTreeSet::new()) };
}
