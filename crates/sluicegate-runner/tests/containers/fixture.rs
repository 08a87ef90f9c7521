use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, OnceLock},
    time::Duration,
};

use sluicegate_ports::{
    execute::{
        Compression, ExecuteError, Input, InputAccess, Layer, Limits, Network, OutputRequest, OutputRole, StepExecutor,
        StepOutcome, StepRequest, Stop,
    },
    store::{ContentStore, StoreError},
};
use sluicegate_runner::{
    Config, EmbeddedExecutor,
    pack::{LayerWriter, PackOptions, pack_directory},
};
use sluicegate_types::{Content, ContentKind, Digest};

/// Programs of the image; what they are linked with comes along.
const PROGRAMS: &[&str] = &[
    "sh", "bash", "cat", "chmod", "cp", "dd", "echo", "env", "getent", "head", "id", "kill", "ln", "ls", "mkdir",
    "mknod", "mount", "mv", "readlink", "rm", "sed", "setsid", "sleep", "stat", "stty", "tee", "touch", "true", "tty",
    "unshare", "yes",
];

pub(crate) const EPOCH: u64 = 1_700_000_000;

/// One executor for all tests of this binary, so that the image is unpacked once.
pub(crate) struct Fixture {
    pub(crate) executor: EmbeddedExecutor,
    pub(crate) store: Arc<FolderStore>,
    pub(crate) state: PathBuf,
    pub(crate) image: Vec<Layer>,
}

pub(crate) fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| new_fixture("containers"))
}

/// An executor with a state folder of this name.
pub(crate) fn new_fixture(name: &str) -> Fixture {
    let state = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let store = Arc::new(FolderStore(state.join("store")));
    fs::create_dir_all(&store.0).unwrap();
    let executor = EmbeddedExecutor::new(Config {
        helper_program: env!("CARGO_BIN_EXE_sluicegate-run-helper").into(),
        state_dir: state.clone(),
        layer_cache: state.join("cache"),
        shared_caches: state.join("shared"),
        store: store.clone(),
        upstream_proxy: None,
    })
    .unwrap();
    let image = vec![plain_layer(&store, &host_layer())];
    Fixture { executor, store, state, image }
}

/// A store without durability, for tests.
pub(crate) struct FolderStore(PathBuf);

impl ContentStore for FolderStore {
    fn put(&self, reader: &mut dyn Read, limit: u64) -> Result<(Digest, u64), StoreError> {
        let mut bytes = Vec::new();
        reader.take(limit.saturating_add(1)).read_to_end(&mut bytes).unwrap();
        if bytes.len() as u64 > limit {
            return Err(StoreError::TooLarge { limit });
        }
        let digest = Digest::of(&bytes);
        let mut file = tempfile::NamedTempFile::new_in(&self.0).unwrap();
        std::io::Write::write_all(&mut file, &bytes).unwrap();
        file.persist(self.0.join(digest.hex())).unwrap();
        Ok((digest, bytes.len() as u64))
    }

    fn open(&self, digest: &Digest) -> Result<File, StoreError> {
        File::open(self.0.join(digest.hex())).map_err(|_| StoreError::Missing { digest: *digest })
    }

    fn read(&self, digest: &Digest, _: u64) -> Result<Vec<u8>, StoreError> {
        fs::read(self.0.join(digest.hex())).map_err(|_| StoreError::Missing { digest: *digest })
    }

    fn path(&self, digest: &Digest) -> Result<PathBuf, StoreError> {
        Ok(self.0.join(digest.hex()))
    }
}

pub(crate) fn plain_layer(store: &FolderStore, tar: &[u8]) -> Layer {
    let blob = store.put_bytes(tar).unwrap();
    Layer { blob, compression: Compression::None, diff_id: blob }
}

/// A layer with these files.
pub(crate) fn layer_of(files: &[(&str, &str)]) -> Layer {
    let mut layer = LayerWriter::new(Vec::new(), &PackOptions::fixed(EPOCH, 1 << 20));
    for (path, text) in files {
        layer.add_bytes(Path::new(path), text.as_bytes(), 0o644).unwrap();
    }
    plain_layer(&fixture().store, &layer.finish().unwrap().0)
}

fn host_layer() -> Vec<u8> {
    let mut files = BTreeMap::new();
    for name in PROGRAMS {
        let found = ["/bin", "/usr/bin"].iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists());
        let program = found.unwrap_or_else(|| panic!("this machine has no {name}"));
        let linked = Command::new("ldd").arg(&program).output().unwrap();
        for word in String::from_utf8(linked.stdout).unwrap().split_whitespace().filter(|word| word.starts_with('/')) {
            files.insert(PathBuf::from(word.trim_start_matches('/')), fs::canonicalize(word).unwrap());
        }
        files.insert(Path::new("bin").join(name), fs::canonicalize(program).unwrap());
    }
    let mut folders: BTreeSet<_> = files.keys().flat_map(|file| file.ancestors().skip(1)).map(Path::to_owned).collect();
    folders.insert("image".into());
    folders.remove(Path::new(""));
    let mut layer = LayerWriter::new(Vec::new(), &PackOptions::fixed(EPOCH, 1 << 30));
    let mut entries: Vec<(&PathBuf, Option<&PathBuf>)> =
        files.iter().map(|(path, source)| (path, Some(source))).collect();
    entries.extend(folders.iter().map(|folder| (folder, None)));
    entries.sort();
    for (path, source) in entries {
        match source {
            Some(source) => layer.add_file(path, source, 0o755).unwrap(),
            None => layer.add_directory(path, 0o755).unwrap(),
        }
    }
    layer.finish().unwrap().0
}

pub(crate) fn limits() -> Limits {
    Limits {
        timeout: Duration::from_secs(120),
        memory: None,
        pids: None,
        cpu_millis: None,
        log_bytes: 1 << 20,
        output_bytes: 1 << 24,
    }
}

pub(crate) fn program(argv: &[&str]) -> StepRequest {
    StepRequest {
        step: "test".parse().unwrap(),
        layers: fixture().image.clone(),
        argv: argv.iter().map(|argument| (*argument).to_owned()).collect(),
        env: vec![("PATH".into(), "/bin".into())],
        workdir: "/".into(),
        user: String::new(),
        inputs: vec![],
        caches: vec![],
        outputs: vec![],
        limits: limits(),
        epoch: EPOCH,
        network: Network::None,
        masked: vec![],
        observe: false,
        stop: Stop::default(),
    }
}

pub(crate) fn sh(script: &str) -> StepRequest {
    program(&["sh", "-c", script])
}

pub(crate) fn run(request: &StepRequest) -> (StepOutcome, String) {
    let mut seen = Vec::new();
    let outcome = fixture().executor.run_step(request, &mut |bytes| seen.extend_from_slice(bytes)).unwrap();
    assert_eq!(fixture().store.read(&outcome.log, u64::MAX).unwrap(), seen, "the stored log is what was seen");
    (outcome, String::from_utf8_lossy(&seen).into_owned())
}

pub(crate) fn refused(request: &StepRequest) -> ExecuteError {
    fixture().executor.run_step(request, &mut |_| {}).unwrap_err()
}

/// What is wrong with what a step left.
pub(crate) fn unkept(request: &StepRequest) -> String {
    run(request).0.fault.unwrap()
}

/// The log of a script that has to end with 0.
pub(crate) fn log_of(request: &StepRequest) -> String {
    let (outcome, log) = run(request);
    assert_eq!(outcome.ended, sluicegate_ports::execute::Ended::Exit(0), "{log}");
    log
}

pub(crate) fn file(at: &str, bytes: &[u8], access: InputAccess) -> Input {
    let digest = fixture().store.put_bytes(bytes).unwrap();
    let content = Content { kind: ContentKind::File, digest };
    Input { mount_point: at.into(), content, executable: false, access }
}

/// A folder input with the files of `files`.
pub(crate) fn folder(at: &str, files: &[(&str, &str)], access: InputAccess) -> Input {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let mut tar = Vec::new();
    pack_directory(dir.path(), &mut tar, &PackOptions::fixed(EPOCH, 1 << 30)).unwrap();
    let digest = fixture().store.put_bytes(&tar).unwrap();
    let content = Content { kind: ContentKind::Directory, digest };
    Input { mount_point: at.into(), content, executable: false, access }
}

pub(crate) fn output(name: &str, path: &str) -> OutputRequest {
    OutputRequest { name: name.parse().unwrap(), path: path.into(), role: OutputRole::Product }
}

/// The paths of an archive in the store.
pub(crate) fn listing(digest: &Digest) -> Vec<String> {
    let bytes = fixture().store.read(digest, u64::MAX).unwrap();
    let mut archive = tar::Archive::new(&bytes[..]);
    archive.entries().unwrap().map(|entry| String::from_utf8_lossy(&entry.unwrap().path_bytes()).into_owned()).collect()
}

/// Processes of this machine whose command line contains `marker`.
pub(crate) fn processes_with(marker: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&command).contains(marker) {
            found.push(pid);
        }
    }
    found
}
