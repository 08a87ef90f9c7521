//! The command line's grammar. What the contract names and this version has not is refused by name.

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use sluicegate_pipeline::units;
use sluicegate_types::{
    EnvironmentName, ImageError, ImageRef, LogUrl, NameError, OutputName, RegistryRepository, StepName, UnixTime,
};

/// Headings of the help: what is about the pipeline and its judge, how steps are executed, the scanner, and what is seen of all that.
const PIPELINE: &str = "Pipeline and gateway";
const EXECUTION: &str = "Execution";
const SCANNER: &str = "Scanner";
const OUTPUT: &str = "Output";

/// What the whole help of the program ends with.
const MORE: &str = "\
A first project: sluicegate init, and what it says comes next.

Exit codes:
    0  done, or allowed
    1  denied by policy
    2  the command, a file or what is named in it is wrong
    3  undecided: evidence is missing, or policy could not be asked
    4  a signature, an identity or a digest is wrong
    5  unavailable: a registry, a log, a disk, an engine
    6  a step of the pipeline failed
   70  a bug of sluicegate
  130  interrupted (129 by a hangup, 143 by a wish to end)

Environment:
  SLUICEGATE_HOME     keys, store, log and evidence (default: ~/.local/state/sluicegate)
  SLUICEGATE_GATEWAY  the gateway file, without --gateway
  SLUICEGATE_TRIVY    Trivy, without --trivy
  COSIGN_PASSWORD     the passphrase of every key of the home; asked for at the terminal otherwise
  SOURCE_DATE_EPOCH   the one time of sources and layers
  NO_COLOR, CI        no colours; lines instead of a tree that is drawn over and over again";

/// What the whole help of `run` ends with.
const RUN_EXAMPLES: &str = "\
Examples:
  Everything, one step with what it needs, or only that step with what earlier runs left:
    sluicegate run
    sluicegate run test
    sluicegate run --only test

  With a parameter of the pipeline, and with every failure seen at once:
    sluicegate run --set version=1.2 --keep-going

  For a program, which gets the result and what happens until then:
    sluicegate run -o json --progress json > run.json 2> events.jsonl

  What came of it, and a whole log:
    sluicegate logs LAST
    sluicegate logs LAST test";

/// Runs a pipeline of container steps, proves what happened, and lets nothing through a gate that is not proven.
#[derive(Parser)]
#[command(name = "sluicegate", version, about, max_term_width = 110, disable_help_subcommand = true)]
#[command(after_help = "A first project: sluicegate init, and what it says comes next.", after_long_help = MORE)]
pub(crate) struct Arguments {
    /// How results are written on standard output.
    #[arg(short = 'o', long = "format", global = true, value_enum, hide_possible_values = false, default_value_t = Format::Table, help_heading = OUTPUT)]
    pub(crate) format: Format,
    /// Say only results and errors.
    #[arg(short, long, global = true, help_heading = OUTPUT)]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// One JSON document.
    Json,
    /// JUnit's XML; of promote and the policy commands.
    Junit,
    /// SARIF 2.1.0, which code hosts show; of promote and the policy commands.
    Sarif,
    /// Annotations of GitHub's workflows; of promote and the policy commands.
    Github,
    /// A table for a comment or a summary; of promote and the policy commands.
    Markdown,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Begin a project: its files here, keys and a log in the home.
    ///
    /// Writes sluicegate.yaml, gateway.yaml, trust and policies, and says what comes next. Nothing that is there is overwritten.
    Init(Init),
    /// Make base images.
    Image(Image),
    /// Run the pipeline: steps and images, everything proved.
    ///
    /// Each step is executed, or taken from an earlier run, and proved; then each image is assembled, scanned, proved and written with its
    /// evidence. Needs the keys of the home.
    #[command(after_long_help = RUN_EXAMPLES)]
    Run(Run),
    /// Say what a run would do, and execute nothing.
    ///
    /// What everything is pinned to, the key of each step, and what would be taken from earlier runs.
    Plan(Plan),
    /// Say why a step would run: what about it changed since it last ran.
    Explain(Explain),
    /// Execute one step, without any key.
    ///
    /// What it reads is taken from earlier runs, or made and thrown away. Nothing is signed, logged, kept for runs or pushed.
    Try(Try),
    /// Open a shell where a step would run.
    ///
    /// In its image, with its inputs, user, limits and network. What is changed there vanishes.
    Shell(Shell),
    /// Print the whole log of a step, or list a run's steps.
    ///
    /// Byte for byte; on a terminal what would drive it is shown harmlessly.
    Logs(Logs),
    /// Ask the gate of an environment about an image, and move it there.
    ///
    /// The image is verified and scanned, and the policies are asked. If they allow it, it is signed, copied and tagged there; if they deny
    /// it, that is signed and recorded.
    Promote(Promote),
    /// Write, test and try out policies.
    Policy(Policy),
    /// Check the evidence of an image or a file. No gate is asked.
    ///
    /// An image is followed to its statements and to each step, a file to its bundle.
    Verify(Verify),
    /// Copy an image with its evidence, unchanged.
    ///
    /// Between registries and layouts, with everything that is attached to it. Nothing is judged.
    Copy(Copy),
    /// Say which other verifiers would see an image's evidence.
    ///
    /// And which would not, and why. Nothing is verified.
    Doctor(Doctor),
    /// Say something about an image by hand, signed.
    ///
    /// With a key of role manual; it is logged, recorded and attached to the image.
    Attest(Attest),
    /// Make and show signing keys.
    Keys(Keys),
    /// Read and check what was recorded: runs, decisions, promotions.
    Evidence(Evidence),
    /// Serve and check the home's transparency log.
    Log(Log),
    /// Give others what they need to believe what this home signs.
    Trust(Trust),
    /// Delete what nothing refers to, and what was not used for long.
    Prune(Prune),
    /// Print a shell's completions, or write manual pages.
    Completion(Completion),
}

impl Command {
    /// Whether its result is a report about rules, which is also written for other programs than ours.
    pub(crate) fn reports_rules(&self) -> bool {
        match self {
            Self::Promote(_) => true,
            Self::Policy(policy) => !matches!(policy.command, PolicyCommand::Explain { .. }),
            _ => false,
        }
    }

    /// Whether standard error is to have JSON events and nothing else.
    pub(crate) fn events_wanted(&self) -> bool {
        let form = match self {
            Self::Run(run) => run.progress.form,
            Self::Try(try_step) => try_step.progress.form,
            _ => return false,
        };
        form == ProgressForm::Json
    }
}

#[derive(Args)]
pub(crate) struct Init {
    /// The project's folder.
    #[arg(default_value = ".")]
    pub(crate) folder: PathBuf,
    /// The Trivy that the gateway will allow (default: SLUICEGATE_TRIVY, the one that init was given, PATH).
    #[arg(long, value_name = "PATH")]
    pub(crate) trivy: Option<PathBuf>,
    /// The vulnerability database that the gateway will pin: a folder with trivy.db and metadata.json.
    #[arg(long, value_name = "DIR")]
    pub(crate) db: Option<PathBuf>,
    /// The database of Java archives that it will pin, for images that have such: a folder with trivy-java.db and metadata.json.
    #[arg(long, value_name = "DIR")]
    pub(crate) java_db: Option<PathBuf>,
    /// A base image that the gate will allow, by its present digest; may be given several times.
    #[arg(long, value_name = "REF", value_parser = image)]
    pub(crate) allow_base: Vec<ImageRef>,
    /// The gate's name in its verification summaries.
    #[arg(long, value_name = "URI", default_value = "https://sluicegate.dev/gate/local")]
    pub(crate) verifier_id: String,
}

#[derive(Args)]
pub(crate) struct Image {
    #[command(subcommand)]
    pub(crate) command: ImageCommand,
}

#[derive(Subcommand)]
pub(crate) enum ImageCommand {
    /// Make a base image from programs and packages of this Debian machine.
    ///
    /// With exactly the package entries that own them, so that a scanner knows what is in it.
    FromHost(FromHost),
}

#[derive(Args)]
pub(crate) struct FromHost {
    /// Where to write it: oci:DIR or oci:DIR:TAG.
    #[arg(long, value_name = "REF", value_parser = image)]
    pub(crate) output: ImageRef,
    /// A program with the libraries it needs; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub(crate) binary: Vec<String>,
    /// A whole package without documentation; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub(crate) package: Vec<String>,
    /// Also every package that these depend on.
    #[arg(long)]
    pub(crate) closure: bool,
    /// Also files that belong to no package, which no scanner will know.
    #[arg(long)]
    pub(crate) allow_unowned: bool,
}

#[derive(Args)]
pub(crate) struct Run {
    /// The pipeline file.
    #[arg(short, long, default_value = "sluicegate.yaml", help_heading = PIPELINE)]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) gateway: GatewayFlag,
    /// Do not scan. Gates that require an SBOM or a scan stay undecided about the image.
    #[arg(long, help_heading = SCANNER)]
    pub(crate) no_scan: bool,
    /// The Trivy to run (default: SLUICEGATE_TRIVY, then the one that init was given, then the one in PATH).
    #[arg(long, value_name = "FILE", help_heading = SCANNER)]
    pub(crate) trivy: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) values: PipelineValues,
    /// Execute only the steps that are named; what they read is taken from earlier runs.
    #[arg(long, requires = "steps", help_heading = EXECUTION)]
    pub(crate) only: bool,
    /// After a failure go on with what does not depend on it.
    #[arg(long, short = 'k', help_heading = EXECUTION)]
    pub(crate) keep_going: bool,
    /// Execute every step, and keep nothing for later runs.
    #[arg(long, help_heading = EXECUTION)]
    pub(crate) no_cache: bool,
    /// Steps at a time (default: as many as there are processors).
    #[arg(long, short = 'j', value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = EXECUTION)]
    pub(crate) jobs: Option<u16>,
    /// Write outputs and reports of all steps, failed ones too, to this folder, which must not exist or be empty: DIR/STEP/NAME.
    #[arg(long, value_name = "DIR", help_heading = OUTPUT)]
    pub(crate) export: Option<PathBuf>,
    /// Observe which files steps open and which programs they execute, and attest it.
    #[arg(long, help_heading = EXECUTION)]
    pub(crate) observe: bool,
    /// Then promote the image as promote does, with the same exit codes. In such a run nothing is taken from earlier runs that came
    /// over a network or by secrets. Of several artifacts, say which: ARTIFACT=ENV; may be given several times.
    #[arg(long = "to", value_name = "[ARTIFACT=]ENV", value_parser = release_to, help_heading = EXECUTION)]
    pub(crate) to: Vec<ReleaseTo>,
    #[command(flatten)]
    pub(crate) progress: ProgressFlag,
    #[command(flatten)]
    pub(crate) later: RunLater,
    /// Run these steps, with what they need, and make no image (default: all, and every artifact).
    #[arg(value_name = "STEP")]
    pub(crate) steps: Vec<StepName>,
}

#[derive(Args)]
pub(crate) struct ProgressFlag {
    /// How to show what happens, on standard error.
    #[arg(long = "progress", value_name = "HOW", value_enum, default_value_t = ProgressForm::Auto, help_heading = OUTPUT)]
    pub(crate) form: ProgressForm,
}

/// How what happens is shown.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressForm {
    /// A tree on a terminal, lines elsewhere, in CI and with TERM=dumb.
    Auto,
    /// The steps, drawn over and over again; what failed with its last lines.
    Tree,
    /// A line for all that happens and all that steps print.
    Plain,
    /// One JSON object a line.
    Json,
    /// Nothing but warnings, and the last lines of what failed.
    Quiet,
}

/// What is put into a pipeline from outside.
#[derive(Args)]
pub(crate) struct PipelineValues {
    /// Set a parameter that the pipeline file declares; steps see it as the variable PARAM_NAME. May be given several times.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = assignment, help_heading = PIPELINE)]
    pub(crate) set: Vec<(String, String)>,
}

/// Where what a run makes is promoted to.
#[derive(Clone, Debug)]
pub(crate) struct ReleaseTo {
    /// The artifact; `None` is the only one.
    pub(crate) artifact: Option<OutputName>,
    /// The environment.
    pub(crate) environment: EnvironmentName,
}

#[derive(Args)]
pub(crate) struct PipelineFile {
    /// The pipeline file.
    #[arg(short, long, default_value = "sluicegate.yaml", help_heading = PIPELINE)]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) gateway: GatewayFlag,
    #[command(flatten)]
    pub(crate) values: PipelineValues,
    /// Look at no earlier results, neither this home's nor those of the store that machines share.
    #[arg(long, help_heading = PIPELINE)]
    pub(crate) no_cache: bool,
}

#[derive(Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    pub(crate) pipeline: PipelineFile,
    /// Also say what about each step changed since it last ran or was taken, in this home.
    #[arg(long, value_name = "LAST", value_enum, num_args = 0..=1, default_missing_value = "LAST", hide_possible_values = true)]
    pub(crate) diff: Option<Since>,
    /// Print the graph of steps in the language of Graphviz.
    #[arg(long)]
    pub(crate) dot: bool,
    /// Only these steps, with what they need (default: all).
    #[arg(value_name = "STEP")]
    pub(crate) steps: Vec<StepName>,
}

/// What a plan is compared with.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Since {
    /// The last time that each step ran or was taken, in this home.
    #[value(name = "LAST", alias = "last")]
    Last,
}

#[derive(Args)]
pub(crate) struct Explain {
    #[command(flatten)]
    pub(crate) pipeline: PipelineFile,
    /// Its name in the pipeline file.
    pub(crate) step: StepName,
}

#[derive(Args)]
pub(crate) struct Try {
    #[command(flatten)]
    pub(crate) pipeline: PipelineFile,
    #[command(flatten)]
    pub(crate) progress: ProgressFlag,
    /// Its name in the pipeline file.
    pub(crate) step: StepName,
}

#[derive(Args)]
pub(crate) struct Shell {
    #[command(flatten)]
    pub(crate) pipeline: PipelineFile,
    /// First execute the step, and open the shell only if it fails: in the state before the step, not after it.
    #[arg(long)]
    pub(crate) on_failure: bool,
    /// Its name in the pipeline file.
    pub(crate) step: StepName,
    /// What to execute in place of /bin/sh.
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

#[derive(Args)]
pub(crate) struct Prune {
    /// Keep results of steps, unpacked layers and the like that were used within this time, such as 720h or 30d.
    #[arg(long, value_name = "TIME", default_value = "720h", value_parser = units::duration)]
    pub(crate) keep_duration: Duration,
    /// Of these keep at most so many bytes, such as 10GiB, the latest used first (default: no limit).
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    pub(crate) keep_storage: Option<u64>,
    /// Keep none of these: the next run executes every step and unpacks every layer. With --shared: nothing stays there but
    /// what is on its way, and a machine that has a result puts it there again only when it executes the step.
    #[arg(long, short = 'a', conflicts_with_all = ["keep_duration", "keep_storage"])]
    pub(crate) all: bool,
    /// Also delete what steps read and left (sources, outputs, images that they ran in) and no kept result needs, though records name it.
    /// Evidence stays whole, and so does every image that was made; what is gone can only be fetched or made again.
    #[arg(long)]
    pub(crate) materials: bool,
    /// Delete nothing of the home: delete from the store that machines share (cache: of the gateway file) what was put there longer ago than
    /// the time of --keep-duration, and contents a day later.
    #[arg(long, conflicts_with_all = ["keep_storage", "materials"])]
    pub(crate) shared: bool,
    /// The gateway file that names the store (default: SLUICEGATE_GATEWAY, then gateway.yaml in the current folder).
    #[arg(long, value_name = "FILE", requires = "shared")]
    pub(crate) gateway: Option<PathBuf>,
    /// Say what would be deleted, and delete nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Args)]
pub(crate) struct Logs {
    /// The run, as sluicegate run prints it, or LAST: the newest one that has steps.
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
    /// The step; without one the run's steps are listed.
    #[arg(value_name = "STEP")]
    pub(crate) step: Option<StepName>,
    /// Print the raw report of its tests instead.
    #[arg(long, requires = "step")]
    pub(crate) report: bool,
}

/// Flags of the contract that are refused by name.
#[derive(Args)]
pub(crate) struct RunLater {
    #[arg(long = "engine", hide = true)]
    pub(crate) engine: Option<String>,
}

#[derive(Args)]
pub(crate) struct GatewayFlag {
    /// The gateway file (default: SLUICEGATE_GATEWAY, then gateway.yaml beside the pipeline file or, where there is none, in the current
    /// folder).
    #[arg(long, value_name = "FILE", help_heading = PIPELINE)]
    pub(crate) gateway: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Promote {
    /// The image: oci:DIR or HOST/REPOSITORY, with :TAG or @sha256:HEX.
    #[arg(value_parser = image)]
    pub(crate) image: ImageRef,
    /// The environment, as the gateway file names it.
    #[arg(long, value_name = "ENV")]
    pub(crate) to: EnvironmentName,
    #[command(flatten)]
    pub(crate) gateway: GatewayFlag,
    /// The Trivy to run (default: SLUICEGATE_TRIVY, then the one that init was given, then the one in PATH).
    #[arg(long, value_name = "FILE", help_heading = SCANNER)]
    pub(crate) trivy: Option<PathBuf>,
    /// Verify, scan, judge and record, and promote nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Judge as of this moment (RFC 3339): what a waiver's end, a database's age or a new rule will do. Nothing is promoted by it.
    #[arg(long, value_name = "TIME")]
    pub(crate) effective_time: Option<UnixTime>,
    /// Go back to an image that the environment held before; without this a tag never moves backwards.
    #[arg(long)]
    pub(crate) rollback: bool,
    /// Also write what older tools look for beside the image: cosign 2's tags sha256-HEX.sig and .att. For an environment with a gate,
    /// in a registry.
    #[arg(long, value_enum, value_name = "TOOL")]
    pub(crate) compat: Option<Compat>,
}

/// Tools whose older forms are written, too.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compat {
    /// cosign before 3, and all that read its tags.
    Cosign2,
}

#[derive(Args)]
pub(crate) struct Policy {
    #[command(subcommand)]
    pub(crate) command: PolicyCommand,
}

#[derive(Subcommand)]
pub(crate) enum PolicyCommand {
    /// Look policies and data through, without asking them anything.
    ///
    /// What a gate would refuse is an error: no Rego, no METADATA, unknown or refused functions, recursion, answers that are no sets, data
    /// that two readers understand differently. What it would take and its author probably does not mean is a warning. Exit code 1 if there
    /// is an error.
    Check(PolicyFiles),
    /// Run the tests beside policies, as opa test does.
    ///
    /// Every rule test_… of a file *_test.rego must be true. Exit code 1 if one is not, or too few lines were reached.
    Test {
        #[command(flatten)]
        files: PolicyFiles,
        /// Only tests whose name, PACKAGE.test_NAME, has this regular expression in it.
        #[arg(long = "run", short = 'r', value_name = "REGEX")]
        filter: Option<String>,
        /// Say which lines of the policies were reached.
        #[arg(long, short = 'c')]
        coverage: bool,
        /// Fail if less of the lines was reached than this, in percent.
        #[arg(long, value_name = "PERCENT", requires = "coverage", value_parser = clap::value_parser!(u8).range(..=100))]
        threshold: Option<u8>,
    },
    /// Ask policies about facts, and promote nothing.
    ///
    /// Facts are those of a recorded decision, or a file. The exit code is the verdict's: 0, 1 or 3. Of a file nothing is verified.
    Eval {
        #[command(flatten)]
        files: PolicyFiles,
        /// The facts, as JSON in the form that gates use; - is standard input.
        #[arg(long, short, value_name = "FILE", required_unless_present = "record", conflicts_with = "record")]
        input: Option<PathBuf>,
        /// The number of a recorded decision: its facts, with its own policies and data unless others are named.
        #[arg(long, value_name = "NUMBER")]
        record: Option<u64>,
        /// Print the facts of the recorded decision, and ask nothing.
        #[arg(long, requires = "record", conflicts_with_all = ["paths", "data", "waivers"])]
        facts: bool,
        /// A file of waivers, with --input.
        #[arg(long, value_name = "FILE", conflicts_with = "record")]
        waivers: Option<PathBuf>,
        /// The moment to judge at (RFC 3339; default: the facts' own, else now).
        #[arg(long, value_name = "TIME")]
        effective_time: Option<UnixTime>,
    },
    /// Say what a rule demands, why, and what to do when it denies.
    Explain {
        /// The rule's code, as a denial names it.
        code: String,
        #[command(flatten)]
        files: PolicyFiles,
    },
    /// Say which recorded decisions other policies would change.
    ///
    /// Each decision is made again from what was kept with it, by OLD and by NEW. Exit code 1 if one comes out otherwise.
    Diff {
        /// A folder of policies, or a Rego file.
        old: PathBuf,
        /// Another one.
        new: PathBuf,
        /// Which decisions: all, or the numbers of records: N, or N..M with both.
        #[arg(long, value_name = "RECORDS", value_parser = records)]
        over: Records,
        /// Data for both, in place of each decision's own; may be given several times.
        #[arg(long, short, value_name = "FILE")]
        data: Vec<PathBuf>,
    },
}

/// Records of the evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Records {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

#[derive(Args)]
pub(crate) struct PolicyFiles {
    /// Folders of policies, or Rego files (default: those of the gateway's gates).
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// A data file; may be given several times.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) data: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) gateway: GatewayFlag,
}

#[derive(Args)]
pub(crate) struct Verify {
    /// Images: oci:DIR or HOST/REPOSITORY, with :TAG or @sha256:HEX. With --bundle one file, or its digest as sha256:HEX.
    #[arg(required = true, value_name = "REF|FILE")]
    pub(crate) subjects: Vec<String>,
    /// The Sigstore bundle of a file: whether it is to be believed and is about this very content.
    #[arg(long, value_name = "FILE")]
    pub(crate) bundle: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) gateway: GatewayFlag,
    /// Also demand that the image may be in this environment: an unexpired decision of its gate, as the gateway file stands now, or
    /// a promotion record where it has no gate. No policy is asked.
    #[arg(long = "for", value_name = "ENV", conflicts_with = "bundle")]
    pub(crate) environment: Option<EnvironmentName>,
    /// With --for: whom to believe, by another trust.yaml than the gateway's own; key files are relative to it.
    #[arg(long, value_name = "FILE", requires = "environment")]
    pub(crate) trust: Option<PathBuf>,
    /// Trust this key (PEM), for steps only, instead of a gateway's trust.yaml.
    #[arg(long, value_name = "FILE", requires = "trust_root", conflicts_with_all = ["gateway", "environment"])]
    pub(crate) key: Option<PathBuf>,
    /// Trust this key (PEM), for decisions only: what it signed is listed as verified. Whether a decision still counts is what --for
    /// asks, of a gateway.
    #[arg(long, value_name = "FILE", requires = "trust_root", conflicts_with_all = ["gateway", "environment"])]
    pub(crate) decision_key: Option<PathBuf>,
    /// The logs to trust (trusted_root.json), with --key, --decision-key or --trust.
    #[arg(long, value_name = "FILE")]
    pub(crate) trust_root: Option<PathBuf>,
    /// Open no socket. A layout needs none; an image of a registry is refused.
    #[arg(long)]
    pub(crate) offline: bool,
    /// The repository that attestations of a registry's image are in (default: what the gateway says, else the image's own).
    #[arg(long, value_name = "REPOSITORY")]
    pub(crate) evidence: Option<RegistryRepository>,
    #[command(flatten)]
    pub(crate) later: VerifyLater,
}

/// Flags of the contract that are refused by name.
#[derive(Args)]
pub(crate) struct VerifyLater {
    #[arg(long = "policy", hide = true)]
    pub(crate) policy: Option<PathBuf>,
    #[arg(long = "certificate-identity", hide = true)]
    pub(crate) certificate_identity: Option<String>,
    #[arg(long = "certificate-oidc-issuer", hide = true)]
    pub(crate) certificate_oidc_issuer: Option<String>,
}

#[derive(Args)]
pub(crate) struct Attest {
    /// The image, or an index of images: oci:DIR or HOST/REPOSITORY, with :TAG or @sha256:HEX. What is said about an index counts for
    /// each image that it names, where the index is promoted.
    #[arg(value_parser = image)]
    pub(crate) image: ImageRef,
    /// The predicate type: sbom (CycloneDX), spdx, test-result, vex or any URI. What only machines say is
    /// refused.
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) kind: String,
    /// The predicate: a file with one JSON object. CycloneDX may be XML of 1.3 to 1.5, which is signed as JSON 1.5.
    #[arg(long, value_name = "FILE")]
    pub(crate) predicate: PathBuf,
    /// The key of the home that signs (default: the gateway's signing.manual).
    #[arg(long, value_name = "NAME")]
    pub(crate) signer: Option<String>,
    #[command(flatten)]
    pub(crate) gateway: GatewayFlag,
}

#[derive(Args)]
pub(crate) struct Copy {
    /// The image: oci:DIR or HOST/REPOSITORY, with :TAG or @sha256:HEX.
    #[arg(value_parser = image)]
    pub(crate) image: ImageRef,
    /// Where to: oci:DIR or HOST/REPOSITORY, with :TAG if the copy is to have one. No tag moves from one image to another, and no
    /// environment's place is written to.
    #[arg(value_parser = destination)]
    pub(crate) destination: ImageRef,
    /// The repository that attestations of a registry's image are read from (default: what the gateway says, else the image's own).
    #[arg(long, value_name = "REPOSITORY")]
    pub(crate) evidence: Option<RegistryRepository>,
    #[command(flatten)]
    pub(crate) gateway: GatewayFlag,
}

#[derive(Args)]
pub(crate) struct Doctor {
    /// The image: oci:DIR or HOST/REPOSITORY, with :TAG or @sha256:HEX.
    #[arg(value_parser = image)]
    pub(crate) image: Option<ImageRef>,
    /// The repository that attestations of a registry's image are in (default: what the gateway says, else the image's own).
    #[arg(long, value_name = "REPOSITORY")]
    pub(crate) evidence: Option<RegistryRepository>,
    #[command(flatten)]
    pub(crate) gateway: GatewayFlag,
}

#[derive(Args)]
pub(crate) struct Keys {
    #[command(subcommand)]
    pub(crate) command: KeysCommand,
}

#[derive(Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a P-256 key in the home and print where its public half is.
    Generate {
        /// Its name, which no key of the home has.
        name: String,
    },
    /// Print a public key (PEM).
    Show {
        /// Its name.
        name: String,
    },
}

#[derive(Args)]
pub(crate) struct Evidence {
    #[command(subcommand)]
    pub(crate) command: EvidenceCommand,
}

#[derive(Subcommand)]
pub(crate) enum EvidenceCommand {
    /// List the newest records.
    List {
        /// How many.
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Show one record, whole.
    Show {
        /// Its number, as evidence list prints it.
        number: u64,
    },
    /// Check every record, the ledger and what they keep.
    ///
    /// With --against also that nothing was cut off since a decision was signed. Changes nothing and needs no passphrase.
    Fsck {
        /// Images whose decisions say how far the ledger was: oci:DIR or HOST/REPOSITORY, with :TAG or @sha256:HEX.
        #[arg(long, value_name = "REF", num_args = 1.., value_parser = image)]
        against: Vec<ImageRef>,
        #[command(flatten)]
        gateway: GatewayFlag,
    },
    /// Make a recorded decision again, and compare the bytes.
    ///
    /// From what was kept with it. Promotes nothing.
    Replay {
        /// The number of the decision's record.
        number: u64,
    },
}

#[derive(Args)]
pub(crate) struct Log {
    #[command(subcommand)]
    pub(crate) command: LogCommand,
}

#[derive(Subcommand)]
pub(crate) enum LogCommand {
    /// Serve the log in the API of Rekor v2.
    ///
    /// Until SIGINT or SIGTERM. cosign signs into it, anyone reads its checkpoint and tiles.
    Serve {
        /// Where to listen; port 0 is one of the system's choice.
        #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:3003")]
        listen: SocketAddr,
        /// Also listen where other machines connect, although there is no TLS: whoever is on the way can read and change what is said,
        /// and whoever can connect can append.
        #[arg(long)]
        plain_http_beyond_loopback: bool,
    },
    /// Print the newest signed checkpoint.
    Checkpoint,
    /// Read the whole log again and compare it with its checkpoint.
    ///
    /// Every file of it. Needs no passphrase.
    Verify {
        /// A log elsewhere, by where its checkpoint and tiles are served: https://, or http:// on this machine alone.
        #[arg(long, value_name = "URL")]
        url: Option<LogUrl>,
        /// The logs to trust (trusted_root.json), with --url; the home's own if it is left out.
        #[arg(long, value_name = "FILE", requires = "url")]
        trust_root: Option<PathBuf>,
    },
}

#[derive(Args)]
pub(crate) struct Completion {
    /// For which shell; the script goes to standard output.
    #[arg(required_unless_present = "man", conflicts_with = "man")]
    pub(crate) shell: Option<clap_complete::Shell>,
    /// Write a manual page for each command into this folder instead.
    #[arg(long, value_name = "DIR")]
    pub(crate) man: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Trust {
    #[command(subcommand)]
    pub(crate) command: TrustCommand,
}

#[derive(Subcommand)]
pub(crate) enum TrustCommand {
    /// Write what others need to a folder.
    ///
    /// trusted_root.json, signing_config.json and each public key of the home (NAME.pub, PEM). Files that are there and differ are not
    /// overwritten.
    Export {
        /// The folder; made if missing.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// Where the log is served; signing_config.json then lets cosign sign into it. Without it cosign would sign unlogged.
        #[arg(long, value_name = "URL")]
        log_url: Option<String>,
    },
}

/// `ENV` or `ARTIFACT=ENV`.
fn release_to(text: &str) -> Result<ReleaseTo, String> {
    let (artifact, environment) = match text.split_once('=') {
        Some((artifact, environment)) => (Some(artifact), environment),
        None => (None, text),
    };
    let artifact = artifact.map(|name| name.parse().map_err(|error: NameError| error.of("artifact").to_string()));
    let environment = environment.parse().map_err(|error: NameError| error.of("environment").to_string())?;
    Ok(ReleaseTo { artifact: artifact.transpose()?, environment })
}

/// `all`, `N` or `N..M`.
fn records(text: &str) -> Result<Records, String> {
    let number = |text: &str| text.parse().map_err(|_| format!("{text:?}: write all, a number, or FIRST..LAST"));
    Ok(match text.split_once("..") {
        _ if text == "all" => Records { first: 1, last: u64::MAX },
        Some((first, last)) => Records { first: number(first)?, last: number(last)? },
        None => Records { first: number(text)?, last: number(text)? },
    })
}

/// `NAME=VALUE`; the value may hold further equals signs.
fn assignment(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?}: write NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// The image that a word names. Who names a folder of this machine means no registry.
fn image(text: &str) -> Result<ImageRef, String> {
    let parsed = text.parse();
    match meant(text, &parsed) {
        Some(meant) => {
            Err(format!("it is a folder, and a layout is written with oci: before it; did you mean {meant}?"))
        }
        None => parsed.map_err(|error: ImageError| error.to_string()),
    }
}

/// A place to write to, which need not be there.
fn destination(text: &str) -> Result<ImageRef, String> {
    text.parse().map_err(|error: ImageError| error.to_string())
}

/// The layout folder that was meant by a word without `oci:`, if there is one: a folder of this very name, or, where the word names no
/// repository of a registry either, one before its tag or digest.
pub(crate) fn meant(text: &str, parsed: &Result<ImageRef, ImageError>) -> Option<ImageRef> {
    if text.starts_with("oci:") || (parsed.is_ok() && !Path::new(text).is_dir()) {
        return None;
    }
    let is_there = |image: &ImageRef| image.place.folder().is_some_and(Path::is_dir);
    format!("oci:{text}").parse().ok().filter(is_there)
}

/// Commands of the contract that are not built yet.
const RESERVED: [&str; 1] = ["serve"];

const RESERVED_BELOW: [(&str, &str, &str); 5] = [
    ("evidence", "report", "evidence report"),
    ("evidence", "export", "evidence export"),
    ("evidence", "verify", "evidence verify"),
    ("trust", "show", "trust show"),
    ("trust", "update", "trust update"),
];

/// The command that is asked for, if it is one that is not built yet.
pub(crate) fn reserved_command(arguments: impl Iterator<Item = OsString>) -> Option<&'static str> {
    let mut arguments = arguments.skip(1);
    let word = loop {
        let argument = arguments.next()?;
        match argument.to_str() {
            Some("-o" | "--format") => drop(arguments.next()),
            Some(flag) if flag.starts_with('-') => {}
            _ => break argument,
        }
    };
    if RESERVED_BELOW.iter().any(|(above, ..)| word == *above) {
        let next = arguments.next()?;
        let below = |(above, reserved, _): &(&str, &str, &str)| word == *above && next == *reserved;
        return RESERVED_BELOW.into_iter().find(below).map(|(.., whole)| whole);
    }
    RESERVED.into_iter().find(|reserved| word == *reserved)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_has_a_summary_of_one_line_and_every_argument_its_words() {
        fn look(command: &clap::Command, path: &str) {
            let summary = command.get_about().map(ToString::to_string).unwrap_or_default();
            let most = if command.has_subcommands() && path == "sluicegate" { 120 } else { 72 };
            assert!(!summary.is_empty() && summary.len() <= most && !summary.contains('\n'), "{path}: {summary:?}");
            assert!(!summary.ends_with('.') && summary.starts_with(char::is_uppercase), "{path}: {summary:?}");
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                assert!(argument.get_help().is_some_and(|help| !help.to_string().is_empty()), "{path} {argument}");
            }
            for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
                look(below, &format!("{path} {}", below.get_name()));
            }
        }
        let mut command = Arguments::command();
        command.build();
        command.clone().debug_assert();
        look(&command, "sluicegate");
    }

    #[test]
    fn examples_of_the_help_are_commands_that_are_understood() {
        let lines = RUN_EXAMPLES.lines().filter_map(|line| line.strip_prefix("    "));
        let commands: Vec<&str> = lines.collect();
        assert!(commands.len() > 5);
        for line in commands {
            let words = line.split(" > ").next().unwrap().split(' ');
            assert!(Arguments::try_parse_from(words).is_ok(), "{line}");
        }
    }
}
