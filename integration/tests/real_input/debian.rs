//! What this machine's own apt offers, as images to run steps in and as source packages. Nothing here names a server: which there are,
//! whose keys count and which proxy leads there is apt's own configuration.

use std::{
    env, fs,
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use integration::{lacking, peer};
use serde_json::json;
use sluicegate_types::Digest;

/// The one time in images that are made here.
const EPOCH: &str = "1700000000";

/// What all images leave out, as those of the field do.
const LEFT_OUT: [&str; 4] = ["/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/man/*"];

/// Keys of Debian's archives, where a machine keeps them beside those that apt trusts for everything.
const ARCHIVE_KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An image: what it holds beside the essential packages, and who its programs run as.
pub(super) struct Image {
    pub(super) name: &'static str,
    pub(super) packages: &'static [&'static str],
    /// Patterns of files that nobody here needs and that are most of what packages bring.
    pub(super) without: &'static [&'static str],
    /// Made for it; else it is root.
    pub(super) user: Option<&'static str>,
}

/// Debian as this machine has it.
pub(super) struct Debian {
    mmdebstrap: PathBuf,
    dpkg_source: PathBuf,
    release: String,
    /// `URI SUITE COMPONENT`, of the release and its updates.
    sources: Vec<String>,
    cache: PathBuf,
}

impl Debian {
    /// `None` with a visible line where this is no Debian or lacks a program, or a failure where peers are demanded.
    pub(super) fn of_this_machine(test: &str) -> Option<Self> {
        let mmdebstrap = peer("SLUICEGATE_MMDEBSTRAP", test)?;
        let dpkg_source = peer("SLUICEGATE_DPKG_SOURCE", test)?;
        let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let value = |key: &str| system.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let (Some("debian"), Some(release)) = (value("ID"), value("VERSION_CODENAME")) else {
            lacking(test, "this machine is no Debian of a known release");
            return None;
        };
        let listed = Command::new("apt-get")
            .args(["indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"])
            .output();
        let listed = listed.map(|listed| String::from_utf8(listed.stdout).unwrap()).unwrap_or_default();
        let suites = ["", "-updates", "-security"].map(|kind| format!("{release}{kind}"));
        let mut sources: Vec<String> = listed
            .lines()
            .filter(|line| line.split(' ').nth(1).is_some_and(|suite| suites.iter().any(|known| known == suite)))
            .map(str::to_owned)
            .collect();
        sources.sort();
        sources.dedup();
        if sources.is_empty() {
            lacking(test, "apt knows no server for this release");
            return None;
        }
        Some(Self { mmdebstrap, dpkg_source, release: release.to_owned(), sources, cache: cache() })
    }

    /// The folder of an image's layout, made if it is not in the cache.
    pub(super) fn image(&self, image: &Image) -> PathBuf {
        let Image { packages, without, user, .. } = image;
        let key = format!("{}\n{packages:?} {without:?} {user:?} {EPOCH} {LEFT_OUT:?}", self.sources.join("\n"));
        self.cached(&format!("images/{}", image.name), &key, |folder| self.make(image, folder))
    }

    /// A source package as its maintainers patch it.
    pub(super) fn unpack_source(&self, package: &str, to: &Path) {
        let downloaded = self.cached(&format!("sources/{package}"), &self.sources.join("\n"), |folder| {
            let lists = tempfile::tempdir().unwrap();
            fs::write(folder.join("sources.list"), self.list("deb-src")).unwrap();
            for command in [&["update", "--quiet"][..], &["source", "--quiet", "--download-only", package]] {
                let mut apt = Command::new("apt-get");
                apt.arg("-o").arg(format!("Dir::Etc::sourcelist={}", folder.join("sources.list").display()));
                apt.arg("-o").arg(format!("Dir::State::lists={}", lists.path().display()));
                apt.args(["-o", "Dir::Etc::sourceparts=-", "-o", "APT::Sandbox::User=root"]);
                done(apt.args(command).current_dir(folder));
            }
        });
        let files = fs::read_dir(downloaded).unwrap().map(|file| file.unwrap().path());
        let description = files.into_iter().find(|file| file.extension().is_some_and(|end| end == "dsc")).unwrap();
        // apt checked it against the signed index.
        done(Command::new(&self.dpkg_source).args(["--no-check", "-q", "-x"]).arg(description).arg(to));
    }

    fn list(&self, kind: &str) -> String {
        let keys =
            if Path::new(ARCHIVE_KEYS).is_file() { format!(" [signed-by={ARCHIVE_KEYS}]") } else { String::new() };
        self.sources.iter().map(|source| format!("{kind}{keys} {source}\n")).collect()
    }

    /// A folder of the cache that is there as a whole or not at all.
    fn cached(&self, name: &str, key: &str, make: impl FnOnce(&Path)) -> PathBuf {
        // Two tests that want the same one make it once.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock();
        let place = self.cache.join(format!("{name}-{}", &Digest::of(key.as_bytes()).hex()[..16]));
        if !place.is_dir() {
            let parent = place.parent().unwrap();
            fs::create_dir_all(parent).unwrap();
            let fresh = tempfile::tempdir_in(parent).unwrap();
            make(fresh.path());
            // Another process may have been faster; its own is as good.
            if let Err(error) = fs::rename(fresh.path(), &place) {
                assert!(place.is_dir(), "{}: {error}", place.display());
            }
        }
        place
    }

    fn make(&self, image: &Image, folder: &Path) {
        let work = tempfile::tempdir().unwrap();
        let (list, options, tar) = (work.path().join("list"), work.path().join("options"), folder.join("tar"));
        fs::write(&list, self.list("deb")).unwrap();
        fs::write(&options, apt_options()).unwrap();
        let mut command = Command::new(&self.mmdebstrap);
        command.args(["--mode=root", "--format=tar", "--variant=essential"]);
        let left_out = LEFT_OUT.iter().chain(image.without);
        command.args(left_out.map(|pattern| format!("--dpkgopt=path-exclude={pattern}")));
        command.arg(format!("--aptopt={}", options.display()));
        if !image.packages.is_empty() {
            command.arg(format!("--include={}", image.packages.join(",")));
        }
        if let Some(user) = image.user {
            command.arg(format!("--customize-hook=chroot \"$1\" useradd --create-home --uid 1000 {user}"));
        }
        // Where this machine gets packages from is nobody's business who gets the image.
        command.arg("--customize-hook=rm -rf \"$1\"/etc/apt/apt.conf.d/99mmdebstrap \"$1\"/etc/apt/sources.list.d/*");
        done(command.arg(&self.release).arg(&tar).arg(&list).env("SOURCE_DATE_EPOCH", EPOCH));
        write_layout(&tar, image.user, folder);
    }
}

/// How this machine's apt reaches its servers.
fn apt_options() -> String {
    let dumped = done(Command::new("apt-config").args(["dump", "--no-empty", "--format", "%f \"%v\";%n"]));
    let counts = |line: &&str| {
        ["Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries"]
            .iter()
            .any(|key| line.starts_with(key))
    };
    dumped.lines().filter(counts).map(|line| format!("{line}\n")).collect()
}

/// A layout of one image of one layer, the tar as it is.
fn write_layout(tar: &Path, user: Option<&str>, folder: &Path) {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let (layer, size) = Digest::of_reader(&mut File::open(tar).unwrap()).unwrap();
    fs::rename(tar, blobs.join(layer.hex())).unwrap();
    let put = |content: serde_json::Value, kind: &str| {
        let bytes = content.to_string();
        let digest = Digest::of(bytes.as_bytes());
        fs::write(blobs.join(digest.hex()), &bytes).unwrap();
        json!({"mediaType": format!("application/vnd.oci.image.{kind}.v1+json"), "digest": digest.to_string(), "size": bytes.len()})
    };
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let machine = match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = put(
        json!({
            "architecture": machine, "os": "linux", "config": {"Env": [path], "User": user.unwrap_or_default()},
            "rootfs": {"type": "layers", "diff_ids": [layer.to_string()]},
        }),
        "config",
    );
    let layer =
        json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer.to_string(), "size": size});
    let manifest = put(
        json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": [layer],
        }),
        "manifest",
    );
    fs::write(folder.join("index.json"), json!({"schemaVersion": 2, "manifests": [manifest]}).to_string()).unwrap();
    fs::write(folder.join("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}).to_string()).unwrap();
}

/// Where this user's caches are.
fn cache() -> PathBuf {
    xtask::workspace::cache().unwrap_or_else(|failure| panic!("{failure}")).join("debian")
}

/// What a command printed that has to end well.
#[track_caller]
pub(super) fn done(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}\n{said}\n{errors}");
    said.into_owned()
}
