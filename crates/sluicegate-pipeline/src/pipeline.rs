//! `sluicegate.yaml`, version 1, to an ordered plan.

mod artifacts;
mod container_path;
mod forms;
mod order;
mod params;
mod sources;
mod steps;
mod tags;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use sluicegate_types::{Destination, ImageRef, NameError, NonEmpty, OutputName, Place, Platform, StepName};

pub use self::tags::{TagFault, TagTemplate};
use self::wire::WirePipeline;
use crate::{Error, In, Spot, yaml};
use sluicegate_types::nearest::suggestion;

/// A pipeline that can be run: its steps in an order in which every input exists before it is read.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// Its name.
    pub name: StepName,
    /// What may be set from outside, by name.
    pub params: BTreeMap<OutputName, Param>,
    /// Source trees by name.
    pub sources: BTreeMap<OutputName, Source>,
    /// Steps, each after those it reads from or needs.
    pub steps: Vec<Step>,
    /// What is assembled from products; without any the steps run, and their statements are all that comes of it.
    pub artifacts: Vec<Artifact>,
    written: Written,
}

/// The file that a pipeline was read from, for what is found out to be wrong with it later.
#[derive(Clone, Debug)]
struct Written {
    file: String,
    text: String,
}

/// A value that is set from outside; steps see it as the variable `PARAM_NAME` and nowhere else.
#[derive(Clone, Debug)]
pub struct Param {
    /// What a value is.
    pub kind: ParamKind,
    /// What a value has to match as a whole; `None` takes any.
    pub pattern: Option<String>,
    /// The value where none is set; without one it must be set.
    pub default: Option<String>,
    /// What it is for.
    pub description: Option<String>,
}

/// What a parameter's value is. Steps get it as the text that was written, whatever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamKind {
    /// Any text.
    String,
    /// A whole number of 64 bits.
    Integer,
    /// `true` or `false`.
    Boolean,
}

/// A source tree.
#[derive(Clone, Debug)]
pub struct Source {
    /// Where its files come from.
    pub place: SourcePlace,
    /// Files outside of it that belong to it too, relative to its folder; each stands under its own name at its top.
    pub include: Vec<PathBuf>,
}

impl Source {
    /// The folder beside the pipeline file that it is, if it is one.
    pub fn folder(&self) -> Option<&Path> {
        match &self.place {
            SourcePlace::Folder(path) => Some(path),
            SourcePlace::Git { .. } => None,
        }
    }
}

/// Where a source's files come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourcePlace {
    /// A folder, relative to the pipeline file, inside that file's folder.
    Folder(PathBuf),
    /// A commit that the executor fetches itself.
    Git {
        /// The repository.
        url: String,
        /// A branch, a tag or a commit.
        reference: String,
    },
}

/// What a step may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// Nothing but itself.
    #[default]
    None,
    /// These, through the recording proxy.
    Allow(NonEmpty<Destination>),
    /// Everything that the machine reaches.
    Host,
}

/// Where a secret's value comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretSource {
    /// A variable of the environment that `run` is called in.
    Env(String),
    /// A file, relative to the pipeline file; it is in no source.
    File(PathBuf),
}

/// When an earlier result of the same work is taken in place of doing it again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reuse {
    /// If everything that can change the result is the same, and the step had no network, no secret and no shared cache.
    #[default]
    Auto,
    /// Never.
    Never,
    /// If these files, relative to the working folder and found in the inputs, are the same, whatever else the inputs hold; with a
    /// network, secrets and shared caches too.
    Key(NonEmpty<PathBuf>),
}

/// One step.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its name.
    pub name: StepName,
    /// The image it runs in.
    pub image: ImageRef,
    /// What is executed: a text is given to `sh -c`, a list is executed as it is. Nothing is interpolated.
    pub argv: Vec<String>,
    /// An absolute path.
    pub workdir: PathBuf,
    /// Absolute mount point to what stands there.
    pub inputs: BTreeMap<PathBuf, InputSource>,
    /// Output name to absolute path.
    pub outputs: BTreeMap<OutputName, PathBuf>,
    /// Absolute path of the JUnit XML report that it writes about its inputs.
    pub junit: Option<PathBuf>,
    /// Variables beside PATH, HOME and SOURCE_DATE_EPOCH.
    pub env: BTreeMap<String, String>,
    /// Steps that must pass before it, beside those whose outputs it reads.
    pub needs: Vec<StepName>,
    /// Wall time.
    pub timeout: Duration,
    /// Bytes.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Thousandths of a processor.
    pub cpu_millis: Option<u32>,
    /// Name to absolute path: folders that runs of this step share, whose content nobody vouches for.
    pub caches: BTreeMap<OutputName, PathBuf>,
    /// What it may reach.
    pub network: Network,
    /// Variables whose values are never written down.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Whether an earlier result may be taken.
    pub reuse: Reuse,
    /// How often it is tried again after it failed.
    pub retry: u32,
    /// Exit codes beside 0 with which it passes, recorded as they are.
    pub accept_exit: BTreeSet<i32>,
}

/// What an input is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InputSource {
    /// A source tree.
    Source(OutputName),
    /// An output of an earlier step.
    Output(StepName, OutputName),
}

impl InputSource {
    /// The step that made it.
    pub fn step(&self) -> Option<&StepName> {
        match self {
            Self::Source(_) => None,
            Self::Output(step, _) => Some(step),
        }
    }
}

impl std::fmt::Display for InputSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Source(name) => write!(f, "{name}"),
            Self::Output(step, output) => write!(f, "{step}.{output}"),
        }
    }
}

/// An image to assemble.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// Its name.
    pub name: OutputName,
    /// What it stands on; `None` is `scratch`.
    pub base: Option<ImageRef>,
    /// Absolute path in the image to the product that goes there.
    pub files: BTreeMap<PathBuf, (StepName, OutputName)>,
    /// How it starts.
    pub config: ImageConfig,
    /// Steps that must pass beside those that made its products.
    pub needs: Vec<StepName>,
    /// The OCI layout folder or repository that it is written to.
    pub repository: Place,
    /// Build tags; never moved from one digest to another.
    pub tags: Vec<TagTemplate>,
    /// The machines that it is for; several make an index of an image for each.
    pub platforms: NonEmpty<Platform>,
}

/// How an image starts; what is left out comes from the base.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ImageConfig {
    /// What is executed.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "yaml::given")]
    pub entrypoint: Option<Vec<String>>,
    /// Arguments that a user may replace.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "yaml::given")]
    pub cmd: Option<Vec<String>>,
    /// Variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The working folder.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "yaml::given")]
    pub workdir: Option<String>,
    /// The user.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "yaml::given")]
    pub user: Option<String>,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Steps in one file.
const MAX_STEPS: usize = 1000;

impl Pipeline {
    /// What an artifact came from: the steps that made its products and those it needs, with all that these read from or need, in
    /// the order in which they run.
    pub fn closure(&self, artifact: &Artifact) -> Vec<&Step> {
        self.with_what_they_need(artifact.files.values().map(|(step, _)| step).chain(&artifact.needs))
    }

    /// What is wrong with what the file says, found out beside it: at the first of these places that stand in it, each written as the keys
    /// that lead there, `sources.app.path`.
    pub fn refuse(&self, places: &[&str], reason: impl ToString) -> Error {
        let Written { file, text } = &self.written;
        let stands = places.iter().find(|place| Spot::is_there(text, place)).or(places.first());
        In { file, text }.meaning(stands.copied().unwrap_or_default(), reason)
    }

    /// The step that somebody asked for by this name.
    pub fn step(&self, name: &StepName) -> Result<&Step, Error> {
        let unknown = || {
            let hint = suggestion(name.as_str(), self.steps.iter().map(|step| step.name.as_str()));
            Error::NoStep { name: name.to_string(), hint }
        };
        self.steps.iter().find(|step| step.name == *name).ok_or_else(unknown)
    }

    /// These steps with all that they read from or need, in the order in which they run.
    pub fn with_what_they_need<'a>(&self, names: impl IntoIterator<Item = &'a StepName>) -> Vec<&Step> {
        let mut wanted: BTreeSet<&StepName> = names.into_iter().collect();
        // Steps stand in an order in which each comes after what it depends on.
        for step in self.steps.iter().rev() {
            if wanted.contains(&step.name) {
                wanted.extend(step.needs.iter().chain(step.inputs.values().filter_map(InputSource::step)));
            }
        }
        self.steps.iter().filter(|step| wanted.contains(&step.name)).collect()
    }

    /// Reads a pipeline file; `file` is how errors call it.
    pub fn parse(file: &str, text: &str) -> Result<Self, Error> {
        let wire: WirePipeline = yaml::read_as(file, text, forms::FORMS)?;
        let at = In { file, text };
        at.version(wire.version)?;
        for (key, value) in [("caches", wire.caches), ("matrix", wire.matrix), ("services", wire.services)] {
            at.absent("", key, value)?;
        }
        let name = wire.name.parse().map_err(|e: NameError| at.meaning("name", e.of("pipeline name")))?;
        let params = params::params(&at, wire.params)?;
        let sources = sources::sources(&at, wire.sources)?;
        if wire.steps.0.is_empty() {
            return Err(at.no_steps());
        }
        if wire.steps.0.len() > MAX_STEPS {
            return Err(at.meaning("steps", format!("more than {MAX_STEPS}")));
        }
        let steps = steps::steps(&at, wire.steps, &wire.defaults, &sources, &params)?;
        let steps = order::in_order(&at, steps)?;
        let artifacts = artifacts::artifacts(&at, wire.artifacts, &steps)?;
        let written = Written { file: file.to_owned(), text: text.to_owned() };
        Ok(Self { name, params, sources, steps, artifacts, written })
    }
}

#[cfg(test)]
mod schema {
    /// The schema of the file that people write.
    pub(crate) fn of_pipeline() -> schemars::Schema {
        schemars::schema_for!(super::WirePipeline)
    }
}
#[cfg(test)]
pub(crate) use schema::of_pipeline;

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
version: 1
name: shop
sources: { app: { path: . } }
defaults: { image: oci:images/build, limits: { timeout: 10m } }
steps:
  package:
    run: [cp, -r, /in, /out/app]
    inputs: { /in: build.site }
    outputs: { app: /out/app }
  build:
    run: make
    inputs: { /src: app }
    workdir: /src
    outputs: { site: /out/site }
  test:
    needs: [build]
    run: make test
artifacts:
  shop:
    base: oci:images/base
    files: { /opt/shop: package.app }
    needs: [test]
    repository: oci:out/shop
"#;

    fn error(from: &str, to: &str) -> String {
        assert!(GOOD.contains(from), "{from:?}");
        Pipeline::parse("p.yaml", &GOOD.replacen(from, to, 1)).unwrap_err().to_string()
    }

    #[test]
    fn steps_come_after_what_they_read() {
        let pipeline = Pipeline::parse("p.yaml", GOOD).unwrap();
        let names: Vec<&str> = pipeline.steps.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["build", "package", "test"]);
        assert_eq!(pipeline.steps[0].argv, ["sh", "-c", "make"]);
        assert_eq!(pipeline.steps[1].argv, ["cp", "-r", "/in", "/out/app"]);
    }

    #[test]
    fn a_step_is_found_by_its_name_or_what_may_be_meant_is_said() {
        let pipeline = Pipeline::parse("p.yaml", GOOD).unwrap();
        let found = |name: &str| {
            let found = pipeline.step(&name.parse().unwrap());
            found.map(|step| step.name.to_string()).map_err(|error| error.to_string())
        };
        assert_eq!(found("test"), Ok("test".to_owned()));
        assert_eq!(found("tets"), Err("no step is called tets; did you mean test?".to_owned()));
        assert_eq!(found("deploy"), Err("no step is called deploy; there is build, package, test".to_owned()));
        let steps: String = (0..1000).map(|nth| format!("  s{nth}: {{ run: x, image: oci:x }}\n")).collect();
        let many = Pipeline::parse("p.yaml", &format!("version: 1\nname: p\nsteps:\n{steps}")).unwrap();
        let found = many.step(&"deploy".parse().unwrap()).unwrap_err().to_string();
        assert!(found.ends_with("s9 and 990 more"), "{found}");
    }

    #[test]
    fn what_is_found_out_later_is_said_with_the_line_that_says_it() {
        let text = GOOD.replace("  test:\n", "  test:\n    image: oci:images/other\n");
        let pipeline = Pipeline::parse("p.yaml", &text).unwrap();
        let found = |places: &[&str]| pipeline.refuse(places, "it is gone").to_string();
        assert!(found(&["sources.app.path"]).starts_with("p.yaml: line 4, column 25: sources.app.path: it is gone\n"));
        let own = found(&["steps.test.image", "defaults.image"]);
        assert!(own.contains("line 17, ") && own.contains(": steps.test.image: it is gone"), "{own}");
        let shared = found(&["steps.build.image", "defaults.image"]);
        assert!(shared.contains("line 5, ") && shared.contains(": defaults.image: it is gone"), "{shared}");
    }

    #[test]
    fn what_is_not_built_yet_is_refused_by_name() {
        for (from, to) in [
            ("run: make test", "run: make test\n    reports: { sarif: /out/j.json }"),
            ("run: make test", "run: make test\n    reports: { sarif: { path: /out/j.json } }"),
            ("run: make test", "run: make test\n    matrix: { a: [1] }"),
            ("version: 1", "version: 2"),
            ("run: make test", "run: make test\n    when: x"),
            ("name: shop", "name: shop\ncaches: {}"),
        ] {
            assert!(error(from, to).contains("not in this version"), "{to}: {}", error(from, to));
        }
        assert!(
            Pipeline::parse(
                "p.yaml",
                &GOOD.replace("run: make test", "run: make test\n    network: none\n    reuse: never")
            )
            .is_ok()
        );
    }

    #[test]
    fn an_artifact_is_for_the_platforms_that_it_names_each_once() {
        let with = |platforms: &str| {
            let text = GOOD.replace("repository: oci:out/shop", &format!("repository: oci:out/shop\n    {platforms}"));
            let platforms = Pipeline::parse("p.yaml", &text).map(|p| p.artifacts[0].platforms.clone());
            platforms.map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>()).map_err(|e| e.to_string())
        };
        assert_eq!(with(""), Ok(vec!["linux/amd64".to_owned()]));
        let two = vec!["linux/arm64/v8".to_owned(), "linux/amd64".to_owned()];
        assert_eq!(with("platforms: [linux/arm64/v8, linux/amd64]"), Ok(two));
        for (platforms, says) in [
            ("platforms: []", "at least one"),
            ("platforms: [linux/arm64, linux/arm64]", "linux/arm64 is named twice"),
            ("platforms: [linux/arm64, linux/arm64/v8]", "linux/arm64/v8 is named twice"),
            ("platforms: [windows/amd64]", "other systems are not in this version"),
            ("platforms: [linux/x86_64]", "no architecture that is known"),
            ("platforms: [amd64]", "write linux/ARCHITECTURE"),
            ("platforms: linux/amd64", "artifacts.shop.platforms is a list of platforms: [linux/amd64]"),
        ] {
            let found = with(platforms).unwrap_err();
            assert!(found.contains(says), "{platforms}: {found}");
        }
    }

    #[test]
    fn a_report_is_about_an_input_and_stands_apart_from_outputs() {
        let with = |lines: &str| {
            let text = GOOD.replace("run: make test", &format!("run: make test\n    {lines}"));
            Pipeline::parse("p.yaml", &text).map(|p| p.steps[2].junit.clone()).map_err(|e| e.to_string())
        };
        let report = Some(PathBuf::from("/out/junit.xml"));
        assert_eq!(with("inputs: { /src: app }\n    reports: { junit: /out/junit.xml }"), Ok(report.clone()));
        assert_eq!(with("inputs: { /s: build.site }\n    reports: { junit: /out/junit.xml }"), Ok(report.clone()));
        let apart = "inputs: { /src: app }\n    reports: { junit: /out/junit.xml }\n    outputs: { page: /out/junit }";
        assert_eq!(with(apart), Ok(report));
        assert_eq!(with("reports: {}"), Ok(None));
        for (lines, says) in [
            ("reports: { junit: /out/junit.xml }", "this step has no input"),
            ("inputs: { /src: app }\n    reports: { junit: out/junit.xml }", "not an absolute path"),
            ("inputs: { /src: app }\n    reports: { junit: /out/../junit.xml }", "not an absolute path"),
            ("inputs: { /src: app }\n    reports: { junit: /tmp/junit.xml }", "not kept after the step"),
            ("inputs: { /src: app }\n    reports: { junit: / }", "not kept after the step"),
            ("inputs: { /src: app }\n    reports: { junit: [/out/j.xml] }", "expected the path of the report"),
            ("inputs: { /src: app }\n    reports: { junit: /out/a, junit: /out/b }", "duplicate"),
            ("inputs: { /src: app }\n    reports: { junit: /o/j }\n    outputs: { junit: /out/a }", "called junit too"),
            ("inputs: { /src: app }\n    reports: { junit: /out/j }\n    outputs: { page: /out/j }", "overlap"),
            ("inputs: { /src: app }\n    reports: { junit: /out/j }\n    outputs: { page: /out }", "overlap"),
            ("inputs: { /src: app }\n    reports: { junit: /out }\n    outputs: { page: /out/a }", "overlap"),
        ] {
            let found = with(lines).unwrap_err();
            assert!(found.contains(says), "{lines}: {found}");
        }
    }

    #[test]
    fn what_dangles_or_contradicts_is_refused_with_its_place() {
        for (from, to, says) in [
            (
                "build.site",
                "build.nothing",
                "steps.package.inputs./in: the step build has no output nothing; there is site",
            ),
            ("build.site", "test.site", "the step test has no output site; there is none"),
            (
                "package.app",
                "package.ap",
                "artifacts.shop.files./opt/shop: the step package has no output ap; did you mean app?",
            ),
            ("image: oci:images/build", "image: images/build", "defaults.image: \"images/build\": oci: is missing"),
            ("run: make\n", "run: make\n    image: images/x\n", "steps.build.image: \"images/x\": oci: is missing"),
            ("build.site", "nobody.site", "no step is called nobody"),
            ("needs: [build]", "needs: [test]", "these wait for each other: test -> test"),
            ("/src: app", "/src: other", "no source is called other"),
            (
                "/src: app",
                "src: app",
                "\"src\" is not an absolute path: it must begin with / and have no . or .. parts",
            ),
            ("/out/site", "\"/out/\\0\"", "without a zero byte"),
            ("/src: app", "/proc/x: app", "belongs to the container"),
            ("/out/site", "/out/../site", "not an absolute path"),
            ("{ path: . }", "{ path: ../x }", "beside or below"),
            ("oci:out/shop", "oci:../out/shop", "below the pipeline file's"),
            ("oci:out/shop", "oci:/out/shop", "below the pipeline file's"),
            ("run: make\n", "run: []\n", "nothing to execute"),
            ("timeout: 10m", "timeout: 10", "defaults.limits.timeout: "),
            ("timeout: 10m", "timeout: 10", "not a duration"),
            ("timeout: 10m", "pids: 0", "defaults.limits.pids: at least 1"),
            ("run: make\n", "run: make\n    limits: { timeout: 10 }\n", "steps.build.limits.timeout: "),
            ("run: make\n", "run: make\n    limits: { cpus: 0 }\n", "steps.build.limits.cpus: between"),
            ("package.app", "package", "artifacts.shop.files./opt/shop: package is a step: write package.app"),
            ("name: shop", "name: Shop", "name: pipeline name \"Shop\": lower-case"),
            ("  build:", "  Build:", "steps.Build: step name \"Build\": lower-case"),
            ("  shop:\n", "  Shop:\n", "artifacts.Shop: artifact name \"Shop\": lower-case"),
            ("{ app: {", "{ App: {", "sources.App: source name \"App\": lower-case"),
            (
                "workdir: /src",
                "workdir: /src\n    wrokdir: /src",
                "line 15, column 5: unknown key \"wrokdir\"; did you mean workdir?",
            ),
        ] {
            assert!(error(from, to).contains(says), "{to}: {}", error(from, to));
        }
    }

    #[test]
    fn a_file_has_at_most_so_many_steps_and_an_artifact_so_many_platforms() {
        let with = |count: usize| {
            let steps: String = (0..count).map(|nth| format!("  s{nth}: {{ run: x, image: oci:x }}\n")).collect();
            Pipeline::parse("p.yaml", &format!("version: 1\nname: p\nsteps:\n{steps}")).map_err(|e| e.to_string())
        };
        assert_eq!(with(1000).unwrap().steps.len(), 1000);
        assert!(with(1001).unwrap_err().contains("steps: more than 1000"));
        let refused = |count: usize| {
            let platforms = vec!["linux/amd64"; count].join(", ");
            let to = format!("repository: oci:out/shop\n    platforms: [{platforms}]");
            error("repository: oci:out/shop", &to)
        };
        assert!(refused(16).contains("linux/amd64 is named twice"));
        assert!(refused(17).contains("artifacts.shop.platforms: more than 16"));
    }

    #[test]
    fn a_script_is_as_long_as_the_kernel_takes_it() {
        let with = |bytes: usize| {
            let script = format!("run: |-\n      {}\n", "x".repeat(bytes));
            Pipeline::parse("p.yaml", &GOOD.replacen("run: make\n", &script, 1)).map_err(|e| e.to_string())
        };
        assert_eq!(with(131_071).unwrap().steps[0].argv[2].len(), 131_071);
        let found = with(131_072).unwrap_err();
        assert!(
            found.contains("steps.build.run: a text of 131072 bytes") && found.contains("MAX_ARG_STRLEN"),
            "{found}"
        );
        assert!(found.len() < 600, "{}", found.len());
    }

    #[test]
    fn a_script_has_no_carriage_returns_whatever_ends_its_lines() {
        let text = GOOD.replacen("run: make\n", "run: |\n      echo first\n      echo last\n", 1).replace('\n', "\r\n");
        for text in [text.clone(), format!("\u{feff}{}", text.trim_start())] {
            assert_eq!(Pipeline::parse("p.yaml", &text).unwrap().steps[0].argv[2], "echo first\necho last\n");
        }
    }

    #[test]
    fn inputs_stand_in_the_order_in_which_they_are_mounted_and_defaults_give_way() {
        let text = GOOD
            .replace(
                "inputs: { /src: app }",
                "inputs: { /src/vendor/dep: app, /src-x: app, /src: app }\n    env: { A: own }",
            )
            .replace("limits: { timeout: 10m }", "env: { A: shared, B: shared }, network: host, retry: 2, reuse: never")
            .replace(
                "run: make test",
                "run: make test\n    network: none\n    retry: 0\n    reuse: auto\n    secrets: { A: { env: X } }",
            );
        let pipeline = Pipeline::parse("p.yaml", &text).unwrap();
        let (build, test) = (&pipeline.steps[0], &pipeline.steps[2]);
        let mounts: Vec<_> = build.inputs.keys().map(|mount| mount.display().to_string()).collect();
        assert_eq!(mounts, ["/src", "/src/vendor/dep", "/src-x"]);
        assert_eq!((build.env["A"].as_str(), build.env["B"].as_str()), ("own", "shared"));
        assert_eq!((&build.network, build.retry, &build.reuse), (&Network::Host, 2, &Reuse::Never));
        assert_eq!((&test.network, test.retry, &test.reuse), (&Network::None, 0, &Reuse::Auto));
        assert_eq!(test.env.keys().collect::<Vec<_>>(), ["B"], "a secret takes the place of a default");
    }
}
