//! SLSA provenance v1 as we emit it: for each step, and for the image assembled from products.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use sluicegate_types::{Content, ContentKind, Digest, RunId, StepName, UnixTime};

use crate::{
    Error, form,
    identifiers::{ATTESTATION_ANNOTATION, BUNDLE, IMAGE_BUILD_TYPE, IMAGE_MANIFEST, STEP_BUILD_TYPE},
    statement::sha256_of,
};

/// What the dependency is called that names the statement of the run that did the work.
pub const CACHE_ORIGIN: &str = "cache-origin";

/// Resolved dependencies of one provenance.
pub const MAX_DEPENDENCIES: usize = 10_000;

/// The predicate of `https://slsa.dev/provenance/v1`.
#[derive(Clone, Debug)]
pub struct Provenance {
    /// What was built, with everything that was asked for from outside.
    pub build: Build,
    /// What it was built from, by digest.
    pub dependencies: Vec<Dependency>,
    /// What it was built with and nobody vouches for; it stands among the resolved dependencies, without a digest.
    pub caches: Vec<UnverifiedCache>,
    /// Who built.
    pub builder_id: String,
    /// Versions of the builder's parts.
    pub builder_version: BTreeMap<String, String>,
    /// Which run.
    pub run: RunId,
    /// When it began.
    pub started_on: UnixTime,
    /// When it was over.
    pub finished_on: UnixTime,
    /// What else came of it: the log.
    pub byproducts: Vec<Dependency>,
    /// What the builder knows beside what it was asked for; an image has none of it.
    pub internal: Internals,
}

/// What the builder knows about an executed step (`internalParameters`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Internals {
    /// The digest of everything that can change the step's result; what was made under one key is taken for another run only under the
    /// same one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_key: Option<Digest>,
    /// Outputs that are files with an execute bit.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub executables: BTreeSet<String>,
    /// How often the step was tried, the last time included; left out for once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// What it asked for through the recording proxy, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contacts: Vec<Contacted>,
}

/// A server that a step asked for, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Contacted {
    /// `HOST:PORT`.
    pub destination: String,
    /// Where that led to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Why it was refused; left out where it was let through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Connections.
    pub connections: u64,
    /// Bytes to the server.
    pub sent: u64,
    /// Bytes from the server.
    pub received: u64,
}

/// What was built.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "nearly all of them are steps, and there are few at a time")]
pub enum Build {
    /// A step was executed.
    Step(StepParameters),
    /// An image was assembled.
    Image(ImageParameters),
}

/// What a step was asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StepParameters {
    /// The pipeline's name.
    pub pipeline: StepName,
    /// The step's name.
    pub step: StepName,
    /// What was executed.
    pub run: Vec<String>,
    /// The step's whole environment.
    pub env: BTreeMap<String, String>,
    /// Its working folder.
    pub workdir: String,
    /// Mount point to `SOURCE` or `STEP.OUTPUT`.
    pub inputs: BTreeMap<String, String>,
    /// Name to path.
    pub outputs: BTreeMap<String, String>,
    /// Kind to path of what it reports; a reported test run has a statement of its own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reports: BTreeMap<String, String>,
    /// Steps that had to pass before it, beside those whose outputs it reads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<StepName>,
    /// Seconds, bytes, counts.
    pub limits: BTreeMap<String, u64>,
    /// `none`, `host` or `allow`.
    pub network: String,
    /// What the proxy let through: `HOST:PORT`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// Name to path of folders that it shared with other runs; see [`UnverifiedCache`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub caches: BTreeMap<String, String>,
    /// Names of variables whose values are nowhere written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Files that stand for all inputs in the cache key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reuse_key: Vec<String>,
    /// Exit codes beside 0 with which the step passes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accept_exit: Vec<i32>,
    /// `linux/amd64`.
    pub platform: String,
    /// The code it ended with.
    pub exit_code: i32,
}

impl StepParameters {
    /// Whether the step passed with the code that it ended with.
    pub fn passed(&self) -> bool {
        self.exit_code == 0 || self.accept_exit.contains(&self.exit_code)
    }

    /// The work itself: without what it is called elsewhere, what had to be done before it, and how long it might have taken. Two steps
    /// with the same did the same, if they read the same.
    pub fn work(&self) -> Self {
        let mut work = self.clone();
        work.pipeline = self.step.clone();
        work.inputs.values_mut().for_each(String::clear);
        work.needs.clear();
        work.limits.remove("timeoutSeconds");
        work
    }
}

/// What an image was assembled from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageParameters {
    /// The pipeline's name.
    pub pipeline: StepName,
    /// The artifact's name.
    pub artifact: String,
    /// What the pipeline file calls the base, or `scratch`.
    pub base: String,
    /// Path in the image to `STEP.OUTPUT`.
    pub files: BTreeMap<String, String>,
    /// Steps without a product in the image that had to pass.
    pub needs: Vec<StepName>,
    /// What the pipeline file says under `config`.
    pub config: Value,
    /// The one of the pipeline file's `platforms` that this image is for; left out where it is what steps run on and no other is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
}

/// A folder that a step shared with other runs: a resource descriptor without a digest, as nobody knows what was in it when.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnverifiedCache {
    /// Its name in the pipeline.
    pub name: String,
    /// Whose it is: folders of one scope are one folder, of different ones different folders.
    pub scope: Digest,
    /// What was checked out where the pipeline file stands: `branch NAME`, `commit HEX` or `nothing`; part of the scope.
    pub checkout: String,
}

/// What the name of an [`UnverifiedCache`] begins with among the dependencies.
const CACHE_NAME: &str = "cache:";
/// What its URI begins with; the scope follows.
const CACHE_URI: &str = "urn:sluicegate:cache:";
const UNVERIFIED: &str = "sluicegate.dev/unverified";
const CHECKOUT: &str = "sluicegate.dev/checkout";

impl UnverifiedCache {
    fn to_json(&self) -> Value {
        json!({
            "name": format!("{CACHE_NAME}{}", self.name),
            "uri": format!("{CACHE_URI}{}", self.scope),
            "annotations": {UNVERIFIED: "true", CHECKOUT: self.checkout},
        })
    }

    /// A cache that claims a digest, or does not say that it is unverified, is none.
    fn parse(descriptor: &Value) -> Result<Self, Error> {
        let wire: WireCache = typed("a shared cache among resolvedDependencies", descriptor)?;
        let invalid = |reason: String| Error::Invalid { what: "a shared cache among resolvedDependencies", reason };
        let name = wire.name.strip_prefix(CACHE_NAME).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| invalid(format!("{:?} is no name of a cache", wire.name)))?;
        let scope = wire.uri.strip_prefix(CACHE_URI).and_then(|scope| scope.parse().ok());
        let scope = scope.ok_or_else(|| invalid(format!("the uri of {name} is not {CACHE_URI}sha256:HEX")))?;
        if wire.annotations.get(UNVERIFIED).map(String::as_str) != Some("true") {
            return Err(invalid(format!("{name} is not said to be unverified")));
        }
        let checkout = wire.annotations.get(CHECKOUT).cloned();
        let checkout = checkout.ok_or_else(|| invalid(format!("{name} does not say what was checked out")))?;
        Ok(Self { name: name.to_owned(), scope, checkout })
    }
}

/// A resource descriptor with a sha256 (in-toto v1, "ResourceDescriptor").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// What it is to this build: `base`, `image`, `source:NAME`, `STEP.OUTPUT`, `attestation:…`, `report:…`.
    pub name: String,
    /// The content address.
    pub digest: Digest,
    /// What kind of content.
    pub media_type: String,
    /// More about it; see [`ATTESTATION_ANNOTATION`].
    pub annotations: BTreeMap<String, String>,
}

impl Dependency {
    /// An image by its manifest.
    pub fn image(name: &str, digest: Digest) -> Self {
        Self { name: name.to_owned(), digest, media_type: IMAGE_MANIFEST.to_owned(), annotations: BTreeMap::new() }
    }

    /// Content, attested by the bundle `attestation` if it is a product of a step.
    pub fn content(name: String, content: Content, attestation: Option<Digest>) -> Self {
        Self {
            name,
            digest: content.digest,
            media_type: content.kind.media_type().to_owned(),
            annotations: attestation.into_iter().map(|d| (ATTESTATION_ANNOTATION.to_owned(), d.to_string())).collect(),
        }
    }

    /// An attestation, which stands on its own.
    pub fn attestation(name: String, bundle: Digest) -> Self {
        Self { name, digest: bundle, media_type: BUNDLE.to_owned(), annotations: BTreeMap::new() }
    }

    /// Anything else.
    pub fn other(name: &str, digest: Digest, media_type: &str) -> Self {
        Self { name: name.to_owned(), digest, media_type: media_type.to_owned(), annotations: BTreeMap::new() }
    }

    /// The content this is, if it is a file or a directory.
    pub fn as_content(&self) -> Option<Content> {
        ContentKind::from_media_type(&self.media_type).map(|kind| Content { kind, digest: self.digest })
    }

    /// Whether this is an attestation.
    pub fn is_attestation(&self) -> bool {
        self.media_type == BUNDLE
    }

    /// The bundle that attests this content.
    pub fn attested_by(&self) -> Result<Option<Digest>, Error> {
        self.annotations
            .get(ATTESTATION_ANNOTATION)
            .map(|text| {
                text.parse().map_err(|e| Error::Invalid { what: ATTESTATION_ANNOTATION, reason: format!("{e}") })
            })
            .transpose()
    }
}

impl Provenance {
    /// The predicate as JSON.
    pub fn to_predicate(&self) -> Result<Value, Error> {
        let (build_type, parameters) = match &self.build {
            Build::Step(parameters) => (STEP_BUILD_TYPE, serde_json::to_value(parameters)),
            Build::Image(parameters) => (IMAGE_BUILD_TYPE, serde_json::to_value(parameters)),
        };
        Ok(json!({
            "buildDefinition": {
                "buildType": build_type,
                "externalParameters": parameters.map_err(form("externalParameters"))?,
                "internalParameters": serde_json::to_value(&self.internal).map_err(form("internalParameters"))?,
                "resolvedDependencies": self.dependencies.iter().map(Dependency::to_json)
                    .chain(self.caches.iter().map(UnverifiedCache::to_json)).collect::<Vec<_>>(),
            },
            "runDetails": {
                "builder": {"id": self.builder_id, "version": self.builder_version},
                "metadata": {"invocationId": self.run, "startedOn": self.started_on, "finishedOn": self.finished_on},
                "byproducts": self.byproducts.iter().map(Dependency::to_json).collect::<Vec<_>>(),
            },
        }))
    }

    /// The images that the build ran in, by manifest digest.
    pub fn step_images(&self) -> impl Iterator<Item = Digest> {
        self.dependencies.iter().filter(|d| d.name == "image" && d.media_type == IMAGE_MANIFEST).map(|d| d.digest)
    }

    /// Of a step: mount point to the content that stood there; `None` if not every input is named, or it is no step.
    pub fn inputs(&self) -> Option<BTreeMap<String, Content>> {
        let Build::Step(parameters) = &self.build else { return None };
        let content = |(at, input): (&String, &String)| {
            let named = if input.contains('.') { input.clone() } else { format!("source:{input}") };
            let found = self.dependencies.iter().find(|d| d.name == named && d.as_content().is_some())?;
            Some((at.clone(), found.as_content()?))
        };
        parameters.inputs.iter().map(content).collect()
    }

    /// The statement of the run that did the work, if this one only took its result.
    pub fn cache_origin(&self) -> Option<Digest> {
        self.dependencies.iter().find(|d| d.name == CACHE_ORIGIN && d.is_attestation()).map(|d| d.digest)
    }

    /// Reads a predicate of ours. Another `buildType` is refused by name; every dependency needs a sha256.
    pub fn parse(predicate: &Value) -> Result<Self, Error> {
        let wire: WireProvenance = typed("the provenance", predicate)?;
        let definition = wire.build_definition;
        let build = match definition.build_type.as_str() {
            STEP_BUILD_TYPE => Build::Step(typed("externalParameters", &definition.external_parameters)?),
            IMAGE_BUILD_TYPE => {
                let image: ImageParameters = typed("externalParameters", &definition.external_parameters)?;
                if image.files.is_empty() {
                    let reason = "an image of no product is not made by a pipeline".to_owned();
                    return Err(Error::Invalid { what: "externalParameters.files", reason });
                }
                Build::Image(image)
            }
            other => return Err(crate::unsupported("buildType", other)),
        };
        let (caches, dependencies): (Vec<_>, Vec<_>) = definition.resolved_dependencies.into_iter().partition(is_cache);
        if caches.len() > MAX_DEPENDENCIES {
            return Err(Error::TooMany { what: "resource descriptors", limit: MAX_DEPENDENCIES });
        }
        let caches = caches.iter().map(UnverifiedCache::parse).collect::<Result<Vec<_>, _>>()?;
        check_caches(&build, &caches)?;
        Ok(Self {
            build,
            dependencies: descriptors(dependencies)?,
            caches,
            builder_id: wire.run_details.builder.id,
            builder_version: wire.run_details.builder.version,
            run: wire.run_details.metadata.invocation_id,
            started_on: wire.run_details.metadata.started_on,
            finished_on: wire.run_details.metadata.finished_on,
            byproducts: descriptors(wire.run_details.byproducts)?,
            internal: typed("internalParameters", &definition.internal_parameters)?,
        })
    }
}

impl Dependency {
    fn to_json(&self) -> Value {
        let mut out = json!({"name": self.name, "digest": {"sha256": self.digest.hex()}, "mediaType": self.media_type});
        if !self.annotations.is_empty() {
            out["annotations"] = json!(self.annotations);
        }
        out
    }
}

/// The builder that a provenance names, whatever its `buildType`: `runDetails.builder.id`, and nothing else of it is read.
pub fn builder_id(predicate: &Value) -> Result<String, Error> {
    predicate.pointer("/runDetails/builder/id").and_then(Value::as_str).filter(|id| !id.is_empty()).map_or_else(
        || Err(Error::Invalid { what: "runDetails.builder.id", reason: "the provenance names no builder".to_owned() }),
        |id| Ok(id.to_owned()),
    )
}

fn typed<T: DeserializeOwned>(what: &'static str, value: &Value) -> Result<T, Error> {
    T::deserialize(value).map_err(form(what))
}

fn is_cache(descriptor: &Value) -> bool {
    descriptor["name"].as_str().is_some_and(|name| name.starts_with(CACHE_NAME))
}

/// Each cache that a step asked for is listed among what it read, once, and no other: what was left out there would look like a step
/// that read nothing of it.
fn check_caches(build: &Build, listed: &[UnverifiedCache]) -> Result<(), Error> {
    let asked: Vec<&str> = match build {
        Build::Step(step) => step.caches.keys().map(String::as_str).collect(),
        Build::Image(_) => Vec::new(),
    };
    let mut listed: Vec<&str> = listed.iter().map(|cache| cache.name.as_str()).collect();
    listed.sort_unstable();
    if asked == listed {
        return Ok(());
    }
    let of = |names: &[&str]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let reason = format!("the caches {} were asked for, and {} are listed", of(&asked), of(&listed));
    Err(Error::Invalid { what: "resolvedDependencies", reason })
}

fn descriptors(wire: Vec<Value>) -> Result<Vec<Dependency>, Error> {
    if wire.len() > MAX_DEPENDENCIES {
        return Err(Error::TooMany { what: "resource descriptors", limit: MAX_DEPENDENCIES });
    }
    wire.iter()
        .map(|wire| {
            let wire: WireDescriptor = typed("a resource descriptor", wire)?;
            Ok(Dependency {
                digest: sha256_of(&wire.digest)?,
                name: wire.name,
                media_type: wire.media_type,
                annotations: wire.annotations,
            })
        })
        .collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireProvenance {
    build_definition: WireDefinition,
    run_details: WireRunDetails,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireDefinition {
    build_type: String,
    external_parameters: Value,
    #[serde(default = "nothing")]
    internal_parameters: Value,
    resolved_dependencies: Vec<Value>,
}

fn nothing() -> Value {
    json!({})
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireRunDetails {
    builder: WireBuilder,
    metadata: WireMetadata,
    #[serde(default)]
    byproducts: Vec<Value>,
}

#[derive(Deserialize)]
struct WireBuilder {
    id: String,
    #[serde(default)]
    version: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMetadata {
    invocation_id: RunId,
    started_on: UnixTime,
    finished_on: UnixTime,
}

/// Nothing else, above all no digest.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireCache {
    name: String,
    uri: String,
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireDescriptor {
    name: String,
    digest: BTreeMap<String, String>,
    media_type: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step() -> Provenance {
        let content = Content { kind: ContentKind::Directory, digest: Digest::of(b"in") };
        Provenance {
            build: Build::Step(StepParameters {
                pipeline: "shop".parse().unwrap(),
                step: "build".parse().unwrap(),
                run: vec!["true".to_owned()],
                env: BTreeMap::new(),
                workdir: "/".to_owned(),
                inputs: BTreeMap::new(),
                outputs: BTreeMap::new(),
                reports: BTreeMap::new(),
                needs: Vec::new(),
                limits: BTreeMap::new(),
                network: "none".to_owned(),
                allow: Vec::new(),
                caches: BTreeMap::new(),
                secrets: Vec::new(),
                reuse_key: Vec::new(),
                accept_exit: Vec::new(),
                platform: "linux/amd64".to_owned(),
                exit_code: 0,
            }),
            dependencies: vec![
                Dependency::image("image", Digest::of(b"image")),
                Dependency::content("fetch.mod".to_owned(), content, Some(Digest::of(b"bundle"))),
                Dependency::attestation("attestation:fetch".to_owned(), Digest::of(b"bundle")),
            ],
            caches: Vec::new(),
            builder_id: crate::identifiers::LOCAL_BUILDER.to_owned(),
            builder_version: BTreeMap::new(),
            run: "r1".parse().unwrap(),
            started_on: UnixTime::from_seconds(1).unwrap(),
            finished_on: UnixTime::from_seconds(2).unwrap(),
            byproducts: vec![],
            internal: Internals { cache_key: Some(Digest::of(b"key")), ..Internals::default() },
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let written = step();
        let read = Provenance::parse(&written.to_predicate().unwrap()).unwrap();
        assert_eq!(read.build, written.build);
        assert_eq!(read.dependencies, written.dependencies);
        assert_eq!(read.internal, written.internal);
        assert_eq!(read.dependencies[1].attested_by().unwrap(), Some(Digest::of(b"bundle")));
        assert!(read.dependencies[2].is_attestation());
    }

    #[test]
    fn a_shared_cache_is_listed_without_a_digest_and_never_left_out() {
        let mut written = step();
        let cache = UnverifiedCache {
            name: "deps".to_owned(),
            scope: Digest::of(b"scope"),
            checkout: "branch main".to_owned(),
        };
        let Build::Step(parameters) = &mut written.build else { panic!() };
        parameters.caches.insert("deps".to_owned(), "/cache".to_owned());
        written.caches = vec![cache];
        let predicate = written.to_predicate().unwrap();
        let read = Provenance::parse(&predicate).unwrap();
        assert_eq!((&read.caches, &read.dependencies), (&written.caches, &written.dependencies));
        type Fault = fn(&mut Value);
        let faults: [(&str, Fault); 7] = [
            ("the caches deps were asked for, and none are listed", |p| {
                p["buildDefinition"]["resolvedDependencies"].as_array_mut().unwrap().pop();
            }),
            ("the caches none were asked for, and deps are listed", |p| {
                p["buildDefinition"]["externalParameters"]["caches"] = json!({});
            }),
            ("and deps, deps are listed", |p| {
                let all = p["buildDefinition"]["resolvedDependencies"].as_array_mut().unwrap();
                all.push(all.last().unwrap().clone());
            }),
            ("digest", |p| {
                let digest = json!({"sha256": Digest::of(b"x").hex()});
                p["buildDefinition"]["resolvedDependencies"][3]["digest"] = digest;
            }),
            ("not said to be unverified", |p| {
                p["buildDefinition"]["resolvedDependencies"][3]["annotations"][UNVERIFIED] = json!("false");
            }),
            ("what was checked out", |p| {
                p["buildDefinition"]["resolvedDependencies"][3]["annotations"] = json!({UNVERIFIED: "true"});
            }),
            ("urn:sluicegate:cache:", |p| {
                p["buildDefinition"]["resolvedDependencies"][3]["uri"] = json!("https://example.com/cache");
            }),
        ];
        for (says, fault) in faults {
            let mut predicate = predicate.clone();
            fault(&mut predicate);
            let error = Provenance::parse(&predicate).unwrap_err();
            let text = format!("{error}: {:?}", std::error::Error::source(&error).map(ToString::to_string));
            assert!(text.contains(says), "{says}: {text}");
        }
    }

    #[test]
    fn a_foreign_build_type_is_refused_by_name() {
        let mut predicate = step().to_predicate().unwrap();
        assert!(Provenance::parse(&predicate).is_ok());
        predicate["buildDefinition"]["buildType"] = json!("https://example.com/other@v1");
        assert!(matches!(Provenance::parse(&predicate), Err(Error::Unsupported { .. })));
    }

    #[test]
    fn the_builder_is_read_of_any_build_type_and_must_be_there() {
        let mut predicate = step().to_predicate().unwrap();
        predicate["buildDefinition"] = json!({"buildType": "https://example.com/other@v1"});
        assert_eq!(builder_id(&predicate).unwrap(), crate::identifiers::LOCAL_BUILDER);
        for wrong in [json!(null), json!(""), json!(1), json!(["https://sluicegate.dev/builder/local@v1"])] {
            predicate["runDetails"]["builder"]["id"] = wrong;
            let error = builder_id(&predicate).unwrap_err().to_string();
            assert!(error.contains("runDetails.builder.id"), "{error}");
        }
        assert!(builder_id(&json!([])).is_err());
    }
}
