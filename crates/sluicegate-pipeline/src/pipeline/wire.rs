//! The pipeline file as it is written. What stands above a key here is what the published schema says about it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::ImageConfig;
use crate::yaml::{Given, Longer, Ordered, TextOr, given};

/// The pipeline file: what is built of which sources in which steps, and which images are made of it. Relative paths are relative to the
/// file. Beyond this schema the parser refuses, with file, line and column: a file larger than 1 MiB, an alias, a merge key, a tag, a
/// second document, YAML other than 1.2, a key given twice, unquoted yes, no, on, off, y and n, a lone carriage return, U+0085, U+2028
/// and U+2029; names that nothing defines, steps that wait for each other, paths that overlap or lead out.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, schemars(title = "sluicegate.yaml, version 1"))]
pub(super) struct WirePipeline {
    /// The version of this format.
    #[cfg_attr(test, schemars(extend("const" = 1)))]
    pub(super) version: u32,
    /// The pipeline's name.
    #[cfg_attr(test, schemars(extend("pattern" = "^[a-z0-9][a-z0-9_-]{0,63}$")))]
    pub(super) name: String,
    /// What may be set from outside, by name: `run --set NAME=VALUE`. Steps see each as the variable `PARAM_NAME`, in upper case with _
    /// for -, and nowhere else.
    #[serde(default)]
    #[cfg_attr(test, schemars(extend("propertyNames" = {"pattern": "^[a-z0-9][a-z0-9_-]{0,63}$"}, "maxProperties" = 256)))]
    pub(super) params: Ordered<WireParam>,
    /// Reserved: refused with "not in this version".
    #[serde(default)]
    pub(super) caches: Given,
    /// Reserved: refused with "not in this version".
    #[serde(default)]
    pub(super) matrix: Given,
    /// Reserved: refused with "not in this version".
    #[serde(default)]
    pub(super) services: Given,
    /// Source trees by name.
    #[serde(default)]
    #[cfg_attr(test, schemars(extend("propertyNames" = {"pattern": "^[a-z0-9][a-z0-9_-]{0,63}$"})))]
    pub(super) sources: Ordered<WireSource>,
    /// What holds for each step that says nothing else.
    #[serde(default)]
    pub(super) defaults: WireDefaults,
    /// The steps by name, in any order.
    #[cfg_attr(test, schemars(extend("propertyNames" = {"pattern": "^[a-z0-9][a-z0-9_-]{0,63}$"}, "minProperties" = 1, "maxProperties" = 1000)))]
    pub(super) steps: Ordered<WireStep>,
    /// The images that are assembled of what steps leave.
    #[cfg_attr(test, schemars(extend("propertyNames" = {"pattern": "^[a-z0-9][a-z0-9_-]{0,63}$"})))]
    #[serde(default)]
    pub(super) artifacts: Ordered<WireArtifact>,
}

/// A value that is set from outside.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct WireParam {
    /// string (if left out), integer (of 64 bits, without leading zeros) or boolean (true or false).
    #[serde(rename = "type", default, deserialize_with = "given")]
    #[cfg_attr(test, schemars(extend("enum" = ["string", "integer", "boolean"])))]
    pub(super) kind: Option<String>,
    /// A regular expression (the syntax of the Rust crate regex) that a value matches as a whole.
    #[serde(default, deserialize_with = "given")]
    #[cfg_attr(test, schemars(extend("maxLength" = 1024)))]
    pub(super) pattern: Option<String>,
    /// The value where none is set; it is taken as it is written, so that 1.20 is 1.20. Without it a value has to be set.
    #[serde(default, deserialize_with = "given")]
    #[cfg_attr(test, schemars(extend("type" = ["string", "number", "boolean"])))]
    pub(super) default: Option<String>,
    /// What it is for.
    #[serde(default, deserialize_with = "given")]
    #[cfg_attr(test, schemars(extend("maxLength" = 1024)))]
    pub(super) description: Option<String>,
}

/// A source tree: a folder, or a commit that is fetched.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(extend("oneOf" = [{"required": ["path"]}, {"required": ["git", "ref"]}])))]
#[serde(deny_unknown_fields)]
pub(super) struct WireSource {
    /// A folder beside or below the pipeline file. In a git work tree its tracked files and the untracked ones that git does not
    /// ignore, elsewhere every file that .sluicegateignore does not name.
    #[serde(default, deserialize_with = "given")]
    #[cfg_attr(test, schemars(extend("pattern" = "^[^/]")))]
    pub(super) path: Option<String>,
    /// Files that lie outside of the folder and inside the pipeline file's, relative to the source's folder. Each stands under its own
    /// file name at the top of the source.
    #[serde(default, deserialize_with = "given")]
    #[cfg_attr(test, schemars(extend("maxItems" = 256)))]
    pub(super) include: Option<Vec<String>>,
    /// The repository that the commit is fetched from: https://, file:// with an absolute path, or http:// on this machine; without
    /// user and password.
    #[serde(default, deserialize_with = "given")]
    #[cfg_attr(test, schemars(extend("pattern" = "^(https?|file)://")))]
    pub(super) git: Option<String>,
    /// A branch, a tag or a commit of it.
    #[serde(rename = "ref", default, deserialize_with = "given")]
    #[cfg_attr(test, schemars(extend("type" = ["string", "number"])))]
    pub(super) reference: Option<String>,
}

/// What holds for each step that says nothing else.
#[derive(Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct WireDefaults {
    /// The image that steps run in.
    #[serde(default, deserialize_with = "given")]
    pub(super) image: Option<String>,
    /// Limits, each by itself: a step that names one keeps the others.
    #[serde(default, deserialize_with = "given")]
    pub(super) limits: Option<WireLimits>,
    /// What steps may reach. A step's own takes the place of all of it.
    #[serde(default, deserialize_with = "given")]
    pub(super) network: Option<TextOr<WireAllow>>,
    /// Variables of every step; a step's own of the same name, or a secret of it, takes their place.
    #[serde(default)]
    #[cfg_attr(test, schemars(extend("additionalProperties" = {"type": ["string", "number", "boolean"]})))]
    pub(super) env: BTreeMap<String, String>,
    /// How often a step is tried again after it failed.
    #[serde(default, deserialize_with = "given")]
    #[cfg_attr(test, schemars(range(max = 10)))]
    pub(super) retry: Option<u32>,
    /// auto or never. Which files make up a key is said in the step that has them.
    #[serde(default, deserialize_with = "given")]
    #[cfg_attr(test, schemars(extend("enum" = ["auto", "never"])))]
    pub(super) reuse: Option<TextOr<WireKey>>,
}

/// What a step may use up.
#[derive(Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct WireLimits {
    /// Wall time, such as 90s, 10m or 2h; 10m if nothing is said.
    #[serde(default, deserialize_with = "given")]
    #[cfg_attr(test, schemars(extend("pattern" = "^[0-9]+[smhd]$")))]
    pub(super) timeout: Option<String>,
    /// Bytes, such as 512MiB or 1GiB.
    #[serde(default, deserialize_with = "given")]
    #[cfg_attr(test, schemars(extend("type" = ["string", "integer"], "pattern" = "^[0-9]+([KMG]iB)?$")))]
    pub(super) memory: Option<String>,
    /// Processors, 0.001 to 4096.
    #[serde(default, deserialize_with = "given")]
    #[cfg_attr(test, schemars(range(min = 0.001, max = 4096)))]
    pub(super) cpus: Option<f64>,
    /// Processes and threads.
    #[serde(default, deserialize_with = "given")]
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub(super) pids: Option<u64>,
}

/// The program and its arguments, executed as they are.
#[derive(Deserialize)]
#[serde(transparent)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(extend("minItems" = 1, "maxItems" = 4096, "items" = {"type": ["string", "number", "boolean"]})))]
pub(super) struct WireArgv(pub(super) Vec<String>);

impl Longer for WireArgv {
    const EXPECTED: &'static str = "a text for sh -c, or a list of texts; quote it if it looks like something else";
    const IS_LIST: bool = true;
}

/// The servers that may be reached, through a proxy that records them.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct WireAllow {
    /// HOST:PORT, ADDRESS:PORT or `[ADDRESS]:PORT`, each.
    #[cfg_attr(test, schemars(length(min = 1)))]
    pub(super) allow: Vec<String>,
}

impl Longer for WireAllow {
    const EXPECTED: &'static str = "none, host or { allow: [HOST:PORT] }";
}

/// The files that decide whether an earlier result is taken.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct WireKey {
    /// Files relative to the working folder, without . and .. parts.
    #[cfg_attr(test, schemars(length(min = 1)))]
    pub(super) key: Vec<String>,
}

impl Longer for WireKey {
    const EXPECTED: &'static str = "auto, never or { key: [FILE] }";
}

/// Where a secret's value comes from: one of the two.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(extend("oneOf" = [{"required": ["env"]}, {"required": ["file"]}])))]
#[serde(deny_unknown_fields)]
pub(super) struct WireSecret {
    /// A variable of the environment that run is called in.
    #[serde(default, deserialize_with = "given")]
    pub(super) env: Option<String>,
    /// A file, which is in no source.
    #[serde(default, deserialize_with = "given")]
    pub(super) file: Option<String>,
}

/// One step: a command in a container.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct WireStep {
    /// What is executed: a text is given to sh -c, a list is executed as it is. Nothing is ever interpolated. A text, and each entry of
    /// a list, is at most 131071 bytes, which is what the kernel takes.
    pub(super) run: TextOr<WireArgv>,
    /// The image it runs in: `HOST/REPOSITORY[:TAG|@DIGEST]` or `oci:DIR[:TAG|@DIGEST]`.
    #[serde(default, deserialize_with = "given")]
    pub(super) image: Option<String>,
    /// What stands where: an absolute path to a source or to STEP.OUTPUT. Copy-on-write: what is written there vanishes, unless the
    /// path is an output. One may stand inside another.
    #[serde(default)]
    #[cfg_attr(test, schemars(extend("propertyNames" = {"pattern": "^/."})))]
    pub(super) inputs: Ordered<String>,
    /// The working folder; / if left out.
    #[serde(default, deserialize_with = "given")]
    #[cfg_attr(test, schemars(extend("pattern" = "^/")))]
    pub(super) workdir: Option<String>,
    /// What is kept, by name: absolute paths, none inside another.
    #[serde(default)]
    #[cfg_attr(test, schemars(extend("propertyNames" = {"pattern": "^[a-z0-9][a-z0-9_-]{0,63}$"}, "additionalProperties" = {"type": "string", "pattern": "^/."})))]
    pub(super) outputs: Ordered<String>,
    /// Variables. A value is taken as it is written, so that 1.20 is 1.20.
    #[serde(default)]
    #[cfg_attr(test, schemars(extend("propertyNames" = {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}, "additionalProperties" = {"type": ["string", "number", "boolean"]})))]
    pub(super) env: BTreeMap<String, String>,
    /// What it may use up.
    #[serde(default, deserialize_with = "given")]
    pub(super) limits: Option<WireLimits>,
    /// Steps that have to pass first, beside those whose outputs are its inputs.
    #[serde(default)]
    pub(super) needs: Vec<String>,
    /// What it may reach: none (if nothing is said), host, or a list of servers.
    #[serde(default, deserialize_with = "given")]
    pub(super) network: Option<TextOr<WireAllow>>,
    /// Variables whose values are never written down.
    #[serde(default)]
    #[cfg_attr(test, schemars(extend("propertyNames" = {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"})))]
    pub(super) secrets: Ordered<WireSecret>,
    /// Reports about its inputs. junit is the absolute path of a JUnit XML file, apart from the outputs.
    #[serde(default)]
    #[cfg_attr(test, schemars(extend("properties" = {"junit": {"type": "string", "pattern": "^/."}}, "additionalProperties" = false)))]
    pub(super) reports: Ordered<TextOr<WireOtherReport>>,
    /// When an earlier result is taken in place of doing the work again: auto (if nothing is said: if everything that can change the
    /// result is the same, never with a network, a secret or a cache), never, or if the files of a key are the same.
    #[serde(default, deserialize_with = "given")]
    pub(super) reuse: Option<TextOr<WireKey>>,
    /// How often it is tried again after it failed.
    #[serde(default, deserialize_with = "given")]
    #[cfg_attr(test, schemars(range(max = 10)))]
    pub(super) retry: Option<u32>,
    /// Exit codes beside 0 with which it passes, recorded as they are.
    #[serde(default)]
    #[cfg_attr(test, schemars(inner(range(min = 1, max = 123))))]
    pub(super) accept_exit: Vec<i32>,
    /// Folders that this step finds again in the next run, by name: absolute paths, none inside another, apart from the outputs. They are
    /// shared by runs of this step of this project on one branch and by nothing else, and recorded as unverified.
    #[serde(default)]
    #[cfg_attr(test, schemars(extend("propertyNames" = {"pattern": "^[a-z0-9][a-z0-9_-]{0,63}$"}, "additionalProperties" = {"type": "string", "pattern": "^/."}, "maxProperties" = 16)))]
    pub(super) caches: Ordered<String>,
    /// Reserved: refused with "not in this version".
    #[serde(default)]
    pub(super) matrix: Given,
    /// Reserved: refused with "not in this version".
    #[serde(default)]
    pub(super) services: Given,
    /// Reserved: refused with "not in this version".
    #[serde(default)]
    pub(super) when: Given,
}

/// A report in another form than a path.
pub(super) struct WireOtherReport;

impl<'de> Deserialize<'de> for WireOtherReport {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

#[cfg(test)]
impl schemars::JsonSchema for WireOtherReport {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "WireOtherReport".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "not": {} })
    }
}

impl Longer for WireOtherReport {
    const EXPECTED: &'static str = "the path of the report";
}

/// An image to assemble.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct WireArtifact {
    /// What it stands on: `HOST/REPOSITORY[:TAG|@DIGEST]`, `oci:DIR[:TAG|@DIGEST]` or scratch.
    pub(super) base: String,
    /// Absolute paths in the image to the STEP.OUTPUT that stands there; none inside another.
    #[cfg_attr(test, schemars(extend("minProperties" = 1, "propertyNames" = {"pattern": "^/."}, "additionalProperties" = {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*\\.[a-z0-9][a-z0-9_-]*$"})))]
    pub(super) files: Ordered<String>,
    /// How it starts; what is left out comes from the base.
    #[serde(default)]
    pub(super) config: ImageConfig,
    /// Steps that have to pass beside those that made its files.
    #[serde(default)]
    pub(super) needs: Vec<String>,
    /// Where it is written to: oci:DIR below the pipeline file's folder, or HOST/REPOSITORY; of one artifact alone, and no environment's.
    pub(super) repository: String,
    /// Build tags, never moved from one digest to another. {commit} stands for the one commit that its sources are of, with -dirty
    /// behind it where they have uncommitted changes.
    #[serde(default)]
    pub(super) tags: Vec<String>,
    /// The machines that it is for, `linux/ARCHITECTURE[/VARIANT]`; `[linux/amd64]` if left out.
    #[serde(default, deserialize_with = "given")]
    #[cfg_attr(test, schemars(extend("minItems" = 1, "maxItems" = 16)))]
    pub(super) platforms: Option<Vec<String>>,
}
