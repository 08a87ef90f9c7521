use std::{
    collections::BTreeSet,
    fs,
    io::{ErrorKind, Write},
    path::{Component, Path, PathBuf},
    process::ExitCode,
};

use serde_json::json;
use sluicegate_attestation::identifiers::LOCAL_BUILDER;
use sluicegate_flow::{Error, evidence::begin, image_tree};
use sluicegate_pipeline::{
    gateway::Gateway,
    pipeline::{Artifact, Pipeline, Source},
};
use sluicegate_ports::{Clock, evidence::RecordKind, images::ImagePlaces};
use sluicegate_scan::database::{self, Kind};
use sluicegate_sigstore::{KeyFolder, signing_config_json, trusted_root_json};
use sluicegate_types::{Digest, ImageRef, Platform, Secret, Selector};

use super::complete::{NO_SCANNER, allowed_bases, one_line, replace, with_bases, with_scanner};
use crate::{
    arguments::Init,
    gateway_folder,
    home::Home,
    passphrase,
    wire::{self, LEDGER_KEY, LOG_KEY, SystemClock},
    words::{Problem, Words, printable, shell_word},
};

const KEYS: [&str; 3] = ["builder", "recorder", "production"];

/// What the policies compare with.
const DATA_FILE: &str = "policies/data.yaml";
/// How a gateway file gets a scanner.
pub(crate) const ADD_SCANNER: &str = "sluicegate init --trivy PATH --db DIR";
/// What `--db` names.
pub(crate) const DATABASE: &str =
    "a folder with trivy.db and metadata.json: trivy image --download-db-only --cache-dir CACHE makes CACHE/db";

/// `init`: makes what is missing in the home, then writes the project's files. Nothing that exists is overwritten.
pub(crate) fn init(words: &Words, arguments: &Init) -> Result<ExitCode, Problem> {
    let folder = &arguments.folder;
    for file in ["gateway.yaml", "trust/trust.yaml"] {
        if folder.join(file).exists() {
            return complete(words, arguments, &folder.join(file));
        }
    }
    if arguments.verifier_id.chars().any(|c| c.is_control() || c == '"' || c == '\\') {
        return Err(Problem::usage("--verifier-id is no URI", "write a URI that names this gate"));
    }
    let home = Home::make()?;
    let scanner = scanner(&home, arguments)?;
    let bases = bases(arguments)?;
    if let Some((_, trivy)) = &scanner {
        remember_trivy(&home, trivy)?;
    }
    let scanner = scanner.map(|(part, _)| part);
    make_home(words, &home)?;
    let root = wire::trusted_root(&home);
    let root = gateway_folder::read(&root).map_err(|error| Problem::io("read", &root, &error))?;
    let config = home.part("trust").join("signing_config.json");
    let config = gateway_folder::read(&config).map_err(|error| Problem::io("read", &config, &error))?;
    let origin = origin(&root)?;
    let mut written = Vec::new();
    let mut put = |name: &str, bytes: &[u8]| -> Result<(), Problem> {
        let path = folder.join(name);
        if write_new(&path, bytes)? {
            written.push(name.to_owned());
        } else if name.starts_with("trust/") && gateway_folder::read(&path).ok().as_deref() != Some(bytes) {
            // Keys of one home beside the trust of another would refuse everything that is signed.
            return Err(Problem::usage(
                format!("{} is there already and not of this home", path.display()),
                "move it away, or name the home that it belongs to with SLUICEGATE_HOME",
            ));
        }
        Ok(())
    };
    put("trust/trusted_root.json", &root)?;
    put("trust/signing_config.json", &config)?;
    for key in KEYS {
        let path = home.part("keys").join(format!("{key}.pub"));
        let bytes = gateway_folder::read(&path).map_err(|error| Problem::io("read", &path, &error))?;
        put(&format!("trust/{key}.pub"), &bytes)?;
    }
    put("trust/trust.yaml", trust_file(&arguments.verifier_id, &origin).as_bytes())?;
    for policy in sluicegate_policy::shipped::SHIPPED {
        put(&format!("policies/{}", policy.name), policy.text.as_bytes())?;
    }
    put(DATA_FILE, data_file(&bases).as_bytes())?;
    put("sluicegate.yaml", PIPELINE.as_bytes())?;
    put("gateway.yaml", gateway_file(&arguments.verifier_id, scanner.as_deref()).as_bytes())?;
    let next = next_steps(folder, scanner.is_some());
    if words.json() {
        words.document(
            &json!({"schemaVersion": 1, "home": home.folder(), "log": origin, "written": written, "next": next}),
        );
    } else {
        words.line(format!("{}  {} files in {}", words.good("READY"), written.len(), folder.display()));
        words.line(format!(
            "  keys, log and evidence are in {}: keep it, and keep it out of the project",
            home.folder().display()
        ));
        print_next(words, folder, &next);
    }
    Ok(ExitCode::SUCCESS)
}

/// `init` where a project is: what is missing in the home, and in the project what the flags name and it lacks.
fn complete(words: &Words, arguments: &Init, existing: &Path) -> Result<ExitCode, Problem> {
    let folder = &arguments.folder;
    let refused = || {
        Problem::usage(
            format!("{} exists and is not overwritten", existing.display()),
            "move it away first, or name another folder: sluicegate init DIR. Where it stands, --trivy PATH --db DIR adds a scanner \
             to a gateway.yaml without one, and --allow-base REF a base image to policies/data.yaml",
        )
    };
    let (gateway, data) = (folder.join("gateway.yaml"), folder.join(DATA_FILE));
    let mut changed = Vec::new();
    let mut found = None;
    if arguments.trivy.is_some() || arguments.db.is_some() || arguments.java_db.is_some() {
        if !gateway.exists() {
            return Err(refused());
        }
        let home = Home::open()?;
        if let Some((part, trivy)) = scanner(&home, arguments)? {
            changed.push(("gateway.yaml", &gateway, with_scanner(&gateway, &part)?));
            found = Some((home, trivy));
        }
    }
    let bases = bases(arguments)?;
    if let Some(text) =
        (!bases.is_empty()).then(|| with_bases(&data, &bases, &places_of(&bases))).transpose()?.flatten()
    {
        changed.push((DATA_FILE, &data, text));
    }
    let ledger = complete_home(words)?;
    if ledger.is_none() && changed.is_empty() && bases.is_empty() {
        return Err(refused());
    }
    if let Some((home, trivy)) = found {
        remember_trivy(&home, &trivy)?;
    }
    for (_, path, text) in &changed {
        replace(path, text)?;
    }
    let changed: Vec<&str> = changed.into_iter().map(|(name, ..)| name).collect();
    let next = next_steps(folder, has_scanner(&gateway));
    if words.json() {
        words.document(&json!({
            "schemaVersion": 1, "home": Home::place()?, "ledger": ledger, "changed": changed, "written": [], "next": next,
        }));
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(origin) = ledger {
        words.line(format!("{}  the home has the ledger {origin} now", words.good("READY")));
    }
    for name in &changed {
        words.line(format!("{}  {name} has what was named", words.good("ADDED")));
    }
    if changed.is_empty() {
        words.line(format!("  {} exists, so the project was left as it is", existing.display()));
    } else {
        words.line("  nothing else was changed; what was decided before was decided by the gateway as it was");
    }
    print_next(words, folder, &next);
    Ok(ExitCode::SUCCESS)
}

fn has_scanner(gateway: &Path) -> bool {
    let text = gateway_folder::read(gateway).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let gateway = text.and_then(|text| Gateway::parse(&gateway.display().to_string(), &text).ok());
    gateway.is_some_and(|gateway| gateway.scanner.is_some())
}

/// What is left to do until the pipeline of this folder can run and its image be promoted, in order; each a line for a shell.
fn next_steps(folder: &Path, scanner: bool) -> Vec<String> {
    let text = |name: &str| {
        let bytes = gateway_folder::read(&folder.join(name)).unwrap_or_default();
        String::from_utf8(bytes).unwrap_or_default()
    };
    let mut steps = Vec::new();
    let mut sources = "--all".to_owned();
    // A pipeline file that can't be read is what `run` is about.
    if let Ok(pipeline) = Pipeline::parse("sluicegate.yaml", &text("sluicegate.yaml")) {
        for source in
            pipeline.sources.values().filter_map(Source::folder).filter(|source| !folder.join(source).exists())
        {
            steps.push(format!("# put what is to be built in {}", source.display()));
        }
        let paths: Vec<String> = pipeline
            .sources
            .values()
            .filter_map(Source::folder)
            .map(|source| shell_word(&source.display().to_string()))
            .collect();
        sources = paths.join(" ");
        let in_layout = |layout: &Path| folder.join(layout).join("index.json").exists();
        let is_missing = |image: &ImageRef| image.place.folder().is_some_and(|layout| !in_layout(layout));
        let mut made = BTreeSet::new();
        let mut make = |image: &ImageRef, packages: &str, what: &str| {
            let image = (is_missing(image) && made.insert(image.to_string())).then_some(image)?;
            Some(format!(
                "sluicegate image from-host {packages} --closure --output {image}   # or any OCI layout: {what}"
            ))
        };
        for step in &pipeline.steps {
            steps.extend(make(&step.image, "--package dash --package coreutils", "what steps run in"));
        }
        let bases = pipeline.artifacts.iter().filter_map(|artifact| Some((artifact, artifact.base.as_ref()?)));
        for (_, base) in bases.clone() {
            steps.extend(make(base, "--package dash", "what the artifact stands on"));
        }
        // A data file that can't be read is what `promote` is about.
        let allowed = allowed_bases(Path::new(DATA_FILE), &text(DATA_FILE)).unwrap_or_default();
        let is_denied =
            |(artifact, base): &(&Artifact, &ImageRef)| !is_allowed(folder, base, artifact.platforms.iter(), &allowed);
        let bases: BTreeSet<String> = bases.filter(is_denied).map(|(_, base)| base.to_string()).collect();
        for base in bases {
            steps.push(format!("sluicegate init --allow-base {base}   # the gate denies an image on another base"));
        }
    }
    if !std::path::absolute(folder).is_ok_and(|whole| whole.ancestors().any(|above| above.join(".git").exists())) {
        steps.push(format!(
            "git init && git add {sources} && git commit   # the gate denies sources that are in no commit"
        ));
    }
    if !scanner {
        steps.push(format!("{ADD_SCANNER}   # DIR is {DATABASE}"));
    }
    steps.push("sluicegate run".to_owned());
    steps
}

/// Whether a base image, as it is now, is one that the policies' data allows, for each of these platforms.
fn is_allowed<'p>(
    folder: &Path,
    base: &ImageRef,
    mut platforms: impl Iterator<Item = &'p Platform>,
    allowed: &BTreeSet<Digest>,
) -> bool {
    let base = base.relative_to(folder);
    // What a registry has now is asked when it is used; init asks nobody.
    if base.place.folder().is_none() {
        return matches!(&base.selector, Selector::Digest(digest) if allowed.contains(digest));
    }
    let Ok(source) = wire::places().source(&base.place) else { return false };
    let Ok(root) = source.resolve(&base.selector) else { return false };
    platforms.all(|platform| {
        let image = image_tree::for_platform(source.as_ref(), &root, platform);
        image.is_ok_and(|(image, _)| allowed.contains(&image.digest))
    })
}

fn print_next(words: &Words, folder: &Path, next: &[String]) {
    match next {
        [one] => words.line(format!("  next: {}", printable(one))),
        several => {
            let here = folder == Path::new(".");
            let place = if here { String::new() } else { format!(", in {}", printable(&folder.display().to_string())) };
            words.line(format!("  next{place}:"));
            several.iter().for_each(|step| words.line(format!("    {}", printable(step))));
        }
    }
}

/// Keys, log and trusted root of the home, where they are missing.
fn make_home(words: &Words, home: &Home) -> Result<(), Problem> {
    let keys = wire::keys(home);
    let missing = |name: &str| keys.has(name).map(|has| !has).map_err(Error::from);
    refuse_second_history(home)?;
    let mut all = true;
    for key in KEYS.iter().chain([&LOG_KEY, &LEDGER_KEY]) {
        all &= !missing(key)?;
    }
    let root = wire::trusted_root(home);
    // Before anything else of the home: once there is a trusted root, an evidence store that is missing is a loss.
    drop(wire::evidence(home)?);
    if all && root.exists() {
        return Ok(());
    }
    let passphrase = passphrase::ask(true)?;
    for key in KEYS {
        if missing(key)? {
            keys.generate(key, &passphrase).map_err(Error::from)?;
            words.tell(&format!("made the key {key}"));
        }
    }
    if missing(LOG_KEY)? {
        keys.generate_log_key(LOG_KEY, &passphrase).map_err(Error::from)?;
    }
    if missing(LEDGER_KEY)? {
        make_ledger(words, home, &keys, &passphrase)?;
    }
    if !root.exists() {
        let log = wire::create_log(home, &keys, &passphrase).map_err(Error::from)?;
        let now = SystemClock.now();
        write_new(&home.part("trust").join("signing_config.json"), &signing_config_json(None, now))?;
        write_new(&root, &trusted_root_json(log.public(), now))?;
        words.tell(&format!("made the log {}", log.public().origin));
    }
    Ok(())
}

/// Makes the ledger of a home that was made before there were any; `None` if there is nothing to make.
fn complete_home(words: &Words) -> Result<Option<String>, Problem> {
    if !Home::place()?.join("keys").is_dir() {
        return Ok(None);
    }
    let home = Home::make()?;
    let keys = wire::keys(&home);
    if !wire::trusted_root(&home).exists() || keys.has(LEDGER_KEY).map_err(Error::from)? {
        return Ok(None);
    }
    refuse_second_history(&home)?;
    drop(wire::evidence(&home)?);
    make_ledger(words, &home, &keys, &passphrase::ask(false)?).map(Some)
}

/// Refuses, before anything is made, a home in which a log or a ledger would begin again: a key whose log is gone would vouch for two
/// histories under one name, and a new ledger for records that an old one had would vouch for whatever they were made into. Only a home
/// with nothing at all of a ledger is one from before there were any.
fn refuse_second_history(home: &Home) -> Result<(), Problem> {
    let keys = wire::keys(home);
    for (what, key) in [("log", LOG_KEY), ("ledger", LEDGER_KEY)] {
        let folder = home.part(what);
        let [private, public] = ["key", "pub"].map(|half| home.part("keys").join(format!("{key}.{half}")));
        let has_key = keys.has(key).map_err(Error::from)?;
        let lost = match (has_key, wire::has_tiles(home, what)) {
            (true, true) => None,
            (false, true) => {
                Some(format!("{} holds a {what} and its key {} is gone", folder.display(), private.display()))
            }
            (true, false) => {
                Some(format!("{} is there and the {what} in {} is gone", private.display(), folder.display()))
            }
            (false, false) => wire::has_public_key(home, key)
                .then(|| format!("{} is left of a {what} that is gone", public.display())),
        };
        if let Some(lost) = lost {
            return Err(Problem::lost(
                lost,
                format!(
                    "restore keys, {what} and evidence.db from one backup: a second history would begin. Only if init was \
                     interrupted and nothing was ever signed or recorded here: remove {}, {} and {}, then ask again",
                    private.display(),
                    public.display(),
                    folder.display()
                ),
            ));
        }
    }
    let root = wire::trusted_root(home);
    if wire::has_tiles(home, "log") && !root.exists() {
        return Err(Problem::lost(
            format!("{} is gone, and the home has a log", root.display()),
            "restore it: the trust folder of each project of this home has a copy",
        ));
    }
    let database = home.part("evidence.db");
    if !wire::has_ledger(home) && fs::metadata(&database).is_ok_and(|metadata| metadata.len() > 0) {
        let evidence = wire::open_evidence(home).map_err(Error::from)?;
        let records = wire::records(&evidence).list(u32::MAX).map_err(Error::from)?;
        if let Some(record) = records.iter().find(|record| record.kind == RecordKind::Ledger) {
            return Err(Problem::lost(
                format!("evidence record {} is about this home's ledger, which is gone with its key", record.sequence),
                "restore keys, ledger and evidence.db from one backup: a second history would begin",
            ));
        }
    }
    Ok(())
}

/// The ledger's key if it is missing, and the ledger, with the records that are there already.
fn make_ledger(words: &Words, home: &Home, keys: &KeyFolder, passphrase: &Secret) -> Result<String, Problem> {
    if !keys.has(LEDGER_KEY).map_err(Error::from)? {
        // One passphrase opens every key of a home; another one here would be found out at the next run.
        keys.open_log_key(LOG_KEY, passphrase).map_err(Error::from)?;
        keys.generate_log_key(LEDGER_KEY, passphrase).map_err(Error::from)?;
    }
    let ledger = wire::create_ledger(home, keys, passphrase)?;
    let origin = ledger.public().origin.clone();
    words.tell(&format!("made the ledger {origin}"));
    let evidence = wire::evidence(home)?;
    if let Some((from, to)) = begin(wire::records(&evidence), &ledger, SystemClock.now()).map_err(Problem::from)? {
        words.tell(&format!(
            "took the records {from} to {to} along, which are older than the ledger: nothing vouches for them"
        ));
    }
    Ok(origin)
}

/// The `scanner:` part of gateway.yaml, with the digests of what is there now, and where its Trivy is.
fn scanner(home: &Home, arguments: &Init) -> Result<Option<(String, PathBuf)>, Problem> {
    let Some(db) = &arguments.db else {
        let alone = [("--trivy", &arguments.trivy), ("--java-db", &arguments.java_db)];
        return match alone.iter().find(|(_, given)| given.is_some()) {
            Some((flag, _)) => Err(Problem::usage(
                format!("{flag} without --db"),
                format!("name the database too with --db DIR: {DATABASE}"),
            )),
            None => Ok(None),
        };
    };
    let trivy = wire::trivy(home, arguments.trivy.as_deref())?;
    let opened = fs::File::open(&trivy);
    let (tool, _) = opened
        .and_then(|mut file| Digest::of_reader(&mut file))
        .map_err(|error| Problem::named("read Trivy at", &trivy, &error).or("name another one with --trivy"))?;
    let db = pinned(Kind::Vulnerabilities, db, &format!("name the database with --db DIR: {DATABASE}"))?;
    let mut part = format!("scanner:\n  trivy:\n    digests: [{tool}]\n    db: {db}\n");
    if let Some(java) = &arguments.java_db {
        let mend = "name it with --java-db DIR: a folder with trivy-java.db and metadata.json";
        part.push_str(&format!("    java_db: {}\n", pinned(Kind::Java, java, mend)?));
    }
    Ok(Some((part, trivy)))
}

/// How the gateway file names the database in this folder, with the digest that it has now.
fn pinned(kind: Kind, folder: &Path, mend: &str) -> Result<String, Problem> {
    let digest =
        database::digest_of(kind, folder).map_err(|error| Problem::usage(error.to_string(), mend.to_owned()))?;
    let folder = without_detours(&std::path::absolute(folder).map_err(|error| Problem::io("find", folder, &error))?);
    Ok(format!("{{ from: {}, digest: {digest}, max_age: 24h }}", quoted(&folder.display().to_string())))
}

/// The same absolute path without `..`, unless a link on the way makes that another place.
fn without_detours(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    match (fs::canonicalize(path), fs::canonicalize(&plain)) {
        (Ok(meant), Ok(found)) if meant == found => plain,
        _ => path.to_owned(),
    }
}

/// So that `run` and `promote` find the Trivy that was named here.
fn remember_trivy(home: &Home, trivy: &Path) -> Result<(), Problem> {
    let link = wire::remembered_trivy(home);
    let target = fs::canonicalize(trivy).map_err(|error| Problem::io("find", trivy, &error))?;
    match fs::remove_file(&link) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(Problem::io("replace", &link, &error)),
        _ => {}
    }
    std::os::unix::fs::symlink(target, &link).map_err(|error| Problem::io("write", &link, &error))
}

fn bases(arguments: &Init) -> Result<Vec<(String, Digest)>, Problem> {
    let mut out = Vec::new();
    for reference in &arguments.allow_base {
        let source = wire::places().source(&reference.place).map_err(Error::from)?;
        let root = source.resolve(&reference.selector).map_err(Error::from)?;
        // What an image stands on is the one for its platform, never the index.
        for (name, image) in image_tree::named_images(source.as_ref(), &root)? {
            let of = name.map(|name| format!(" {name}")).unwrap_or_default();
            out.push((format!("{reference}{of}"), image));
        }
    }
    Ok(out)
}

fn origin(root: &[u8]) -> Result<String, Problem> {
    let trust = sluicegate_verify::TrustRoot::parse(root).map_err(|error| {
        Problem::usage(error.to_string(), "the home's trust folder is damaged: restore it from a backup")
    })?;
    trust
        .origins()
        .next()
        .map(str::to_owned)
        .ok_or_else(|| Problem::usage("the trusted root names no log", "restore the home"))
}

/// Writes a new file; `false` if there is one already.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<bool, Problem> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| Problem::io("create", parent, &error))?;
    }
    let file = fs::OpenOptions::new().write(true).create_new(true).open(path);
    let mut file = match file {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(Problem::io("create", path, &error)),
    };
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|error| Problem::io("write", path, &error))?;
    Ok(true)
}

fn quoted(text: &str) -> String {
    json!(text).to_string()
}

fn trust_file(verifier: &str, origin: &str) -> String {
    format!(
        r#"# Who may say what. Every key has one role: cosign takes anything that a key signed for that key's signature.
version: 1
signers:
  builder: {{ key: builder.pub, roles: [steps], builder_ids: ["{LOCAL_BUILDER}"], repositories: ["*"] }}
  recorder: {{ key: recorder.pub, roles: [records], verifier_ids: ["{verifier}"] }}
  production: {{ key: production.pub, roles: [decisions], environments: [production], verifier_ids: ["{verifier}"] }}
revoked: []
formats: {{ bundles: [v0.3], statements: [v1], legacy_tags: false, promise_only: false, unlogged: false, untimed: ["{origin}"] }}
levels: {{ builder: SLSA_BUILD_LEVEL_1 }}
authority_self: false
"#
    )
}

fn data_file(bases: &[(String, Digest)]) -> String {
    let mut out = format!(
        "# What the policies compare with; policies/README.md explains it. What is missing here allows nothing.\nsluicegate:\n  \
         allowed_builders:\n    - builder_id: {LOCAL_BUILDER}\n      signer: builder\n"
    );
    if bases.is_empty() {
        out.push_str(
            "  allowed_base_images: []   # digests of base images; sluicegate init --allow-base REF fills this in\n",
        );
    } else {
        out.push_str("  allowed_base_images:\n");
        for (name, digest) in bases {
            out.push_str(&format!("    - {digest}   # {}\n", one_line(name)));
        }
    }
    out.push_str("  allow_scratch: false\n  registries:                       # where images may come from: HOST, HOST/PATH/* or oci: for layout folders\n");
    // Where the pipeline writes by default.
    let places = places_of(bases).into_iter().chain(std::iter::once("oci:".to_owned()));
    for place in places.collect::<BTreeSet<_>>() {
        out.push_str(&format!("    - \"{place}\"\n"));
    }
    out.push_str(DATA);
    out
}

/// What a new project's data says beside builders and images. Each rule that it may not want has a word that says so.
const DATA: &str = r#"  builder:
    any_version: false              # whether a provenance may leave out the versions of its builder
  source:                           # a commit counts as resolved only if the builder fetched it itself: git and ref of a source
    repositories: []
    refs: [refs/heads/main]
    accept_unverified_commits: true
    accept_uncommitted_changes: false
    accept_sources_without_commit: false
  hermetic:
    accept_shared_caches: false
  steps:
    required: []                    # names of steps without which nothing passes
  tests:
    minimum: 1                      # how many tests have to be executed; raise it as the project grows
  sbom:
    ntia: false                     # whether the NTIA's minimum elements are demanded; most tools leave out suppliers
  licenses:
    allowed: ["*"]                  # SPDX ids; "*" is any
    unknown: allow                  # a component that says nothing about its licence: allow or deny
  banned_packages: []               # purls, with or without a version
  vulnerabilities:
    deny: []                        # severities that never pass without VEX, such as CRITICAL
    triage: []                      # severities about which somebody has to say something
    grace_days: { CRITICAL: any, HIGH: 30, MEDIUM: 90, LOW: any, UNKNOWN: any }     # how long a fix may wait; no_fixable_critical gives none
    max_age_days: { CRITICAL: any, HIGH: any, MEDIUM: any, LOW: any, UNKNOWN: any }  # how long a finding without a fix may stay
  vex:
    signers: []                     # signers of trust.yaml whose OpenVEX statements count
  end_of_life: {}                   # "debian 12": 2028-06-30, beside what the scanner knows
  end_of_life_packages: {}          # purl without a version: date
"#;

/// Where these base images come from: of a registry everything beside the image.
fn places_of(bases: &[(String, Digest)]) -> BTreeSet<String> {
    let place = |name: &String| {
        if name.starts_with("oci:") {
            return Some("oci:".to_owned());
        }
        let (path, _) = name.rsplit_once('/')?;
        Some(one_line(&if path.contains('/') { format!("{path}/*") } else { path.to_owned() }))
    };
    bases.iter().filter_map(|(name, _)| place(name)).collect()
}

fn gateway_file(verifier: &str, scanner: Option<&str>) -> String {
    let scanner = scanner.unwrap_or(NO_SCANNER);
    format!(
        r#"# What judges an artifact. It belongs to whoever answers for production; beside the pipeline its decisions say "authority: self".
version: 1
environments:
  staging:    {{ repository: oci:env/staging, tag: current, gate: none }}      # nothing is asked, and every record says so
  production: {{ repository: oci:env/production, tag: current, gate: release }}
gates:
  release: {{ policies: [policies], data: [policies/data.yaml], require: [provenance, sbom, vulns, test-result], valid_for: 30d }}
trust: trust/trust.yaml
signing: {{ steps: key:builder, records: key:recorder, decisions: {{ production: key:production }} }}
verifier_id: "{verifier}"
trust_root: trust/trusted_root.json
log: embedded
evidence: same
{scanner}"#
    )
}

const PIPELINE: &str = r#"# A pipeline: steps run in containers without a network, each proved; then an image of their products.
version: 1
name: app
sources: { src: { path: src } }
defaults: { image: oci:images/build, limits: { timeout: 10m } }   # sluicegate image from-host --help makes one from this machine
steps:
  build:
    run: mkdir -p /out/app && cp -r /src/. /out/app
    inputs: { /src: src }
    outputs: { app: /out/app }
  test:
    # Whatever writes JUnit XML: pytest --junitxml, gotestsum --junitfile, surefire. What it says becomes a signed test result.
    run: >-
      mkdir -p /out && test -n "$(ls -A /app)" &&
      printf '<testsuite name="app" tests="1"><testcase classname="app" name="is not empty"/></testsuite>' > /out/junit.xml
    inputs: { /app: build.app }
    reports: { junit: /out/junit.xml }
artifacts:
  app:
    base: oci:images/base          # or scratch
    files: { /opt/app: build.app }
    needs: [test]
    repository: oci:out/app
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_beside_a_base_image_may_be_used_and_no_more_of_a_shared_registry() {
        let digest: Digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
        let of = |name: &str| places_of(&[(name.to_owned(), digest)]).into_iter().collect::<Vec<_>>();
        assert_eq!(of("oci:images/base"), ["oci:"]);
        assert_eq!(of("docker.io/library/debian:12"), ["docker.io/library/*"]);
        assert_eq!(of("localhost:5000/debian@sha256:00"), ["localhost:5000"]);
    }

    #[test]
    fn a_path_is_written_without_detours_where_it_stays_the_same_place() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for name in ["project", "db", "far/away"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        std::os::unix::fs::symlink("far/away", root.join("link")).unwrap();
        assert_eq!(without_detours(&root.join("project/../db")), root.join("db"));
        assert_eq!(
            without_detours(&root.join("project/../../..")),
            root.join("project/../../..").canonicalize().unwrap()
        );
        assert_eq!(without_detours(&root.join("db")), root.join("db"));
        // Behind a link, .. is not the folder that the link stands in.
        assert_eq!(without_detours(&root.join("link/../away")), root.join("link/../away"));
        assert_eq!(without_detours(&root.join("link/../db")), root.join("link/../db"));
    }
}
