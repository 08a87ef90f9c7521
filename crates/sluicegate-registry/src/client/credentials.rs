//! Who somebody is to a registry: Docker's `config.json` and credential helpers, for one host at a time.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::{ErrorKind, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use sluicegate_ports::images::FaultKind;
use sluicegate_types::Secret;

use super::fault::{Result, fault, shown};
use crate::{layout::O_NONBLOCK, settings::RegistrySettings};

/// What is said to a registry, or to its token service, and to nobody else.
#[derive(Clone, Debug)]
pub(crate) enum Identity {
    /// Nobody in particular.
    Anonymous,
    /// A name and a password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: Secret,
    },
    /// What a token service gives tokens for, in place of a password.
    Token(Secret),
}

/// What was found for a host.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Who.
    pub(crate) identity: Identity,
    /// Why there may be more that could not be had: said again if the registry wants somebody.
    pub(crate) unheard: Option<String>,
}

/// How Docker calls its own registry in its files and to its helpers.
const DOCKER_KEY: &str = "https://index.docker.io/v1/";
/// Bytes of a configuration file and of a helper's answer.
const MAX_BYTES: u64 = 1024 * 1024;
/// How long a helper may take.
const HELPER_TIME: Duration = Duration::from_secs(20);

/// Looks for `host` in the settings' files: its own helper, then its entry, then the store of all. A file that can't be read as one is
/// an error; a helper that can't be asked is not, as the image may be public.
pub(crate) fn find(settings: &RegistrySettings, host: &str) -> Result<Found> {
    let mut unheard = None;
    for path in &settings.credentials {
        let Some(config) = read(path)? else { continue };
        let entry = config.auths.iter().filter(|(key, _)| is_key_of(key, host)).find_map(|(_, entry)| entry.as_ref());
        let own = config.cred_helpers.iter().find(|(key, _)| is_key_of(key, host)).map(|(_, helper)| helper);
        if let Some(helper) = own {
            match ask(settings, helper, host, path) {
                Ok(Some(identity)) => return Ok(Found { identity, unheard }),
                Ok(None) => {}
                Err(words) => unheard = Some(words),
            }
        }
        if let Some(identity) = entry.map(|entry| entry.identity(path, host)).transpose()?.flatten() {
            return Ok(Found { identity, unheard });
        }
        if let Some(helper) = config.creds_store.as_ref().filter(|helper| !helper.is_empty() && own.is_none()) {
            match ask(settings, helper, host, path) {
                Ok(Some(identity)) => return Ok(Found { identity, unheard }),
                Ok(None) => {}
                Err(words) => unheard = Some(words),
            }
        }
    }
    if let Some(words) = &unheard {
        (settings.warn)(&format!("{words}; {host} is asked without a name"));
    }
    Ok(Found { identity: Identity::Anonymous, unheard })
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Option<Entry>>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl Entry {
    fn identity(&self, path: &Path, host: &str) -> Result<Option<Identity>> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Some(Identity::Token(Secret::new(token.into_bytes()))));
        }
        if let Some(auth) = given(&self.auth) {
            let wrong = || {
                let words =
                    format!("{}: the entry of {host} has an auth that is not base64 of NAME:PASSWORD", path.display());
                fault(FaultKind::Configuration, words)
            };
            let bytes = STANDARD.decode(auth.trim()).map_err(|_| wrong())?;
            let text = String::from_utf8(bytes).map_err(|_| wrong())?;
            let (user, password) = text.split_once(':').ok_or_else(wrong)?;
            let password = Secret::new(password.trim_end_matches('\0').as_bytes().to_vec());
            return Ok(Some(Identity::Password { user: user.to_owned(), password }));
        }
        Ok(given(&self.username)
            .zip(given(&self.password))
            .map(|(user, password)| Identity::Password { user, password: Secret::new(password.into_bytes()) }))
    }
}

fn read(path: &Path) -> Result<Option<Config>> {
    let wrong = |why: String| fault(FaultKind::Configuration, format!("{} can't be read: {why}", path.display()));
    // A link is followed, as people keep such files elsewhere; a pipe is not waited for.
    let file = match OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(wrong(error.to_string())),
    };
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Err(wrong("it is no regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| wrong(error.to_string()))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(wrong("it is larger than 1 MiB".to_owned()));
    }
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(wrong("it is no JSON object".to_owned()));
    }
    // Where a parser stands says nothing of a password that stands there.
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        wrong(format!("it is not the JSON of Docker's config.json, line {} column {}", error.line(), error.column()))
    })
}

/// Whether a key of a file is this host: bare, or as an address with the path of an API version.
fn is_key_of(key: &str, host: &str) -> bool {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let (name, path) = bare.split_once('/').unwrap_or((bare, ""));
    if !matches!(path.trim_end_matches('/'), "" | "v1" | "v2") {
        return false;
    }
    name == host || (host == "docker.io" && matches!(name, "index.docker.io" | "registry-1.docker.io"))
}

/// Asks a helper. `None`: it knows nobody for this host, in the words that Docker's own helpers have for it.
fn ask(
    settings: &RegistrySettings,
    helper: &str,
    host: &str,
    file: &Path,
) -> std::result::Result<Option<Identity>, String> {
    let name = format!("docker-credential-{}", shown(helper));
    let told = |why: &str| format!("{name}, which {} names for {host}, {why}", file.display());
    if helper.is_empty() || !helper.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return Err(told("is no name of a helper"));
    }
    let program = settings.programs.iter().filter(|folder| folder.is_absolute()).map(|folder| folder.join(&name));
    let Some(program) = program.into_iter().find(|path: &PathBuf| path.is_file()) else {
        return Err(told("is not on the PATH"));
    };
    let key = if host == "docker.io" { DOCKER_KEY } else { host };
    let (good, answer) = run(&program, key, HELPER_TIME.min(settings.patience)).map_err(|why| told(&why))?;
    if !good {
        let said = String::from_utf8_lossy(&answer);
        if said.trim().eq_ignore_ascii_case("credentials not found in native keychain") {
            return Err(told("has nothing for it"));
        }
        return Err(told(&format!("failed: {}", shown(said.trim()))));
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let answer: Answer = serde_json::from_slice(&answer).map_err(|_| told("answered what is no JSON of a helper"))?;
    let secret = Secret::new(answer.secret.into_bytes());
    Ok(match answer.username.as_str() {
        "<token>" => Some(Identity::Token(secret)),
        "" => None,
        user => Some(Identity::Password { user: user.to_owned(), password: secret }),
    })
}

/// Whether it ended well, and what it wrote. One that takes too long is killed and not waited for.
fn run(program: &Path, key: &str, time: Duration) -> std::result::Result<(bool, Vec<u8>), String> {
    let child = Command::new(program)
        .arg("get")
        // The keys of the home are no business of a helper.
        .env_remove("COSIGN_PASSWORD")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = child.map_err(|error| format!("can't be started: {error}"))?;
    let (mut input, output) = (child.stdin.take(), child.stdout.take());
    let (send, receive) = mpsc::channel();
    let key = key.to_owned();
    std::thread::spawn(move || {
        // A helper that does not read, or ends early, has answered all the same.
        let _ = input.take().map(|mut input| input.write_all(key.as_bytes()));
        let mut bytes = Vec::new();
        let read = output.map(|output| output.take(MAX_BYTES).read_to_end(&mut bytes));
        let _ = send.send(read.and_then(std::result::Result::ok).map(|_| bytes));
    });
    let answer = receive.recv_timeout(time);
    if answer.is_err() {
        let _ = child.kill();
    }
    // It has closed its output or was killed; one that goes on without output is not waited for either.
    let ended = match &answer {
        Ok(_) => wait(&mut child),
        Err(_) => child.wait().ok(),
    };
    match (answer, ended) {
        (Err(_), _) => Err(format!("did not answer within {} s and was killed", time.as_secs_f32())),
        (Ok(Some(bytes)), Some(status)) => Ok((status.success(), bytes)),
        _ => Err("broke off".to_owned()),
    }
}

fn wait(child: &mut std::process::Child) -> Option<std::process::ExitStatus> {
    for _ in 0..200 {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            Err(_) => break,
        }
    }
    let _ = child.kill();
    child.wait().ok()
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::PermissionsExt,
        sync::{Arc, Mutex},
    };

    use super::*;

    struct World {
        folder: tempfile::TempDir,
        told: Arc<Mutex<Vec<String>>>,
        settings: RegistrySettings,
    }

    fn world(config: &str) -> World {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        fs::write(&path, config).unwrap();
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let sink = told.clone();
        let settings = RegistrySettings {
            credentials: vec![folder.path().join("not-there.json"), path],
            programs: vec![folder.path().to_owned()],
            warn: Arc::new(move |words| sink.lock().unwrap().push(words.to_owned())),
            ..RegistrySettings::default()
        };
        World { folder, told, settings }
    }

    impl World {
        fn helper(&self, name: &str, script: &str) {
            let path = self.folder.path().join(format!("docker-credential-{name}"));
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }

        fn find(&self, host: &str) -> String {
            match find(&self.settings, host).unwrap().identity {
                Identity::Anonymous => "anonymous".to_owned(),
                Identity::Password { user, password } => {
                    format!("{user}:{}", String::from_utf8_lossy(password.expose()))
                }
                Identity::Token(token) => format!("token {}", String::from_utf8_lossy(token.expose())),
            }
        }
    }

    #[test]
    fn an_entry_counts_for_its_own_host_alone() {
        let auth = STANDARD.encode("me:word:with:colons");
        let world = world(&format!(
            r#"{{"auths": {{"registry.example": {{"auth": "{auth}"}}, "https://x.example/v1/": {{"username":"a","password":"b"}},
                "https://index.docker.io/v1/": {{"identitytoken": "T", "auth": "{auth}"}}, "y.example/team": {{"auth": "{auth}"}},
                "empty.example": {{}}, "null.example": null}}, "unknown": 1}}"#
        ));
        for (host, identity) in [
            ("registry.example", "me:word:with:colons"),
            ("x.example", "a:b"),
            ("docker.io", "token T"),
            ("registry.example:5000", "anonymous"),
            ("sub.registry.example", "anonymous"),
            ("y.example", "anonymous"),
            ("empty.example", "anonymous"),
            ("null.example", "anonymous"),
        ] {
            assert_eq!(world.find(host), identity, "{host}");
        }
        assert!(world.told.lock().unwrap().is_empty());
    }

    #[test]
    fn a_helper_is_asked_for_the_host_by_its_name() {
        let world = world(r#"{"credHelpers": {"registry.example": "mine"}, "credsStore": "all"}"#);
        world.helper("mine", r#"read host; echo "{\"ServerURL\":\"x\",\"Username\":\"for $host\",\"Secret\":\"s\"}""#);
        world.helper("all", r#"echo '{"Username":"<token>","Secret":"identity"}'"#);
        assert_eq!(world.find("registry.example"), "for registry.example:s");
        assert_eq!(world.find("other.example"), "token identity");
    }

    #[test]
    fn ex_29_a_helper_that_cannot_be_asked_is_told_of_and_stops_nothing() {
        for (name, script) in [
            ("not-installed", None),
            ("fails", Some("echo not found; exit 1")),
            ("standard", Some("echo credentials not found in native keychain; exit 1")),
            ("garbage", Some("echo '<html>'")),
            ("silent", Some("exit 0")),
        ] {
            let world = world(&format!(r#"{{"credsStore": "{name}"}}"#));
            if let Some(script) = script {
                world.helper(name, script);
            }
            assert_eq!(world.find("registry.example"), "anonymous", "{name}");
            let told = world.told.lock().unwrap().join("\n");
            assert!(told.contains(&format!("docker-credential-{name}")) && told.contains("config.json"), "{told}");
        }
        // A folder that is not absolute is another one wherever the program is begun.
        let mut relative = world(r#"{"credsStore": "mine"}"#);
        relative.helper("mine", r#"echo '{"Username":"me","Secret":"s"}'"#);
        assert_eq!(relative.find("registry.example"), "me:s");
        let up = std::env::current_dir().unwrap().components().skip(1).map(|_| "..").collect::<PathBuf>();
        relative.settings.programs = vec![up.join(relative.folder.path().strip_prefix("/").unwrap())];
        assert!(relative.settings.programs[0].join("docker-credential-mine").is_file());
        assert_eq!(relative.find("registry.example"), "anonymous");
        let path = world(r#"{"credsStore": "../../bin/sh"}"#);
        assert_eq!(path.find("registry.example"), "anonymous");
        assert!(path.told.lock().unwrap()[0].contains("no name of a helper"));
    }

    #[test]
    fn ex_29_a_file_that_is_no_configuration_is_said_by_name() {
        for broken in ["{", "[]", r#"{"auths": {"registry.example": {"auth": "%%%"}}}"#, r#"{"auths": 1}"#] {
            let world = world(broken);
            let error = find(&world.settings, "registry.example").unwrap_err();
            assert!(error.kind == FaultKind::Configuration && error.reason.contains("config.json"), "{error}");
        }
        let error = find(&world(r#"{"auths": {"a.example": {"auth": 12345}}}"#).settings, "a.example").unwrap_err();
        assert!(!error.reason.contains("12345"), "{error}");
        let sized = |length: u64| {
            let world = world(&format!("{{}}{}", " ".repeat(length as usize - 2)));
            find(&world.settings, "registry.example").map(|_| ())
        };
        assert_eq!(sized(MAX_BYTES), Ok(()));
        assert!(sized(MAX_BYTES + 1).unwrap_err().reason.contains("larger than 1 MiB"));
        let mut world = world("{}");
        let pipe = world.folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        for odd in [world.folder.path().to_owned(), "/dev/zero".into(), pipe] {
            world.settings.credentials = vec![odd];
            let error = find(&world.settings, "registry.example").unwrap_err();
            assert!(error.reason.contains("no regular file"), "{error}");
        }
    }

    #[test]
    fn what_a_helper_writes_has_an_end() {
        for (more, identity) in [(1_000, "me:s"), (2 * MAX_BYTES, "anonymous")] {
            let world = world(r#"{"credsStore": "long"}"#);
            world.helper(
                "long",
                &format!(r#"echo '{{"Username":"me","Secret":"s"}}'; head -c {more} /dev/zero | tr '\0' ' '"#),
            );
            assert_eq!(world.find("registry.example"), identity, "{more}");
        }
    }

    /// It runs once more in a process of its own, as this one's variables are not for a test to change.
    #[test]
    fn a_helper_does_not_get_the_passphrase_of_the_keys() {
        if std::env::var_os("COSIGN_PASSWORD").is_none() {
            let mut again = Command::new(std::env::current_exe().unwrap());
            again.args(["--exact", "client::credentials::tests::a_helper_does_not_get_the_passphrase_of_the_keys"]);
            let ended = again.env("COSIGN_PASSWORD", "passphrase").env("OTHER", "other").output().unwrap();
            let words = String::from_utf8_lossy(&ended.stdout);
            assert!(ended.status.success() && words.contains("1 passed"), "{words}");
            return;
        }
        let world = world(r#"{"credsStore": "tells"}"#);
        world.helper("tells", r#"echo "{\"Username\":\"me\",\"Secret\":\"$OTHER$COSIGN_PASSWORD\"}""#);
        assert_eq!(world.find("registry.example"), "me:other");
    }
}
