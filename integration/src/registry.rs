//! Real registries, each a process of its own on a free port of the loopback with a folder of its own, and the real clients that look at
//! what is in them.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{Ended, Project, own_folder, peer, skip};

/// How long a registry has to answer for the first time, on a busy machine.
const START: Duration = Duration::from_secs(30);
/// How long it is left alone before it is asked again.
const AGAIN: Duration = Duration::from_millis(10);
/// Ports that are tried: one that was free a moment ago may be somebody else's by now.
pub(crate) const PORTS: u32 = 5;

/// A program that is a registry, and how it is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Distribution 3: no referrers API.
    Distribution,
    /// The same behind TLS, with a certificate of an authority that nobody knows but who is told.
    DistributionTls,
    /// Debian's distribution 2.8: no referrers API.
    Docker,
    /// go-containerregistry's, in memory: a referrers API that says the wrong artifact type and sends no `OCI-Subject`.
    Refreg,
}

impl Kind {
    fn variable(self) -> &'static str {
        match self {
            Self::Distribution | Self::DistributionTls => "SLUICEGATE_REGISTRY",
            Self::Docker => "SLUICEGATE_DOCKER_REGISTRY",
            Self::Refreg => "SLUICEGATE_REFREG",
        }
    }
}

/// A registry that is gone, with all that it holds, when this is dropped.
pub struct RealRegistry {
    child: Child,
    folder: TempDir,
    host: String,
    kind: Kind,
    program: PathBuf,
}

impl RealRegistry {
    /// An empty registry that answers; `None` with a visible line where its program is not installed, or a failure where peers are
    /// demanded.
    pub fn start(kind: Kind, test: &str) -> Option<Self> {
        let program = peer(kind.variable(), test)?;
        let folder = own_folder();
        if kind == Kind::DistributionTls && !make_certificates(folder.path(), test) {
            return None;
        }
        for _ in 0..PORTS {
            let address = free_address();
            let mut child = start(kind, &program, folder.path(), address);
            if answers(&mut child, address) {
                return Some(Self { child, folder, host: address.to_string(), kind, program });
            }
            end(&mut child);
        }
        let said = fs::read_to_string(folder.path().join("said")).unwrap_or_default();
        panic!("{kind:?} does not answer:\n{said}");
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// A repository here.
    pub fn repository(&self, path: &str) -> String {
        format!("{}/{path}", self.host)
    }

    /// The certificate of the authority that vouches for it, if there is TLS.
    pub fn authority(&self) -> Option<PathBuf> {
        (self.kind == Kind::DistributionTls).then(|| self.folder.path().join("ca.crt"))
    }

    /// Lets a project trust it.
    pub fn introduce(&self, project: &mut Project) {
        let Some(authority) = self.authority() else { return };
        // As for Docker and Podman: a folder of the host's name.
        let folder = self.folder.path().join("certs").join(&self.host);
        fs::create_dir_all(&folder).unwrap();
        fs::copy(authority, folder.join("ca.crt")).unwrap();
        project.set("SLUICEGATE_CERTS_D", self.folder.path().join("certs").to_str().unwrap());
    }

    /// Ends it; its address answers nobody any more.
    pub fn stop(&mut self) {
        end(&mut self.child);
    }

    /// Begins it again where it was, with what it holds.
    pub fn begin_again(&mut self) {
        let address = self.host.parse().unwrap();
        self.child = start(self.kind, &self.program, self.folder.path(), address);
        assert!(answers(&mut self.child, address), "{:?} does not come back to {address}", self.kind);
    }

    /// Bytes of uploads that are on their way to this repository: of distribution 2 and 3, which keep them in files.
    pub fn arriving(&self, path: &str) -> u64 {
        let uploads = self.folder.path().join("data/docker/registry/v2/repositories").join(path).join("_uploads");
        let sizes = fs::read_dir(uploads).into_iter().flatten().flatten();
        sizes.filter_map(|upload| fs::metadata(upload.path().join("data")).ok()).map(|data| data.len()).sum()
    }

    /// A client of others in the folder of a project. It knows the authority, if there is one, and reaches nothing beyond this machine.
    pub fn client(&self, program: &Path, project: &Project, arguments: &[&str]) -> Ended {
        let mut command = Command::new(program);
        project.environment(&mut command);
        command.args(arguments).env("HOME", project.path("."));
        // What goes elsewhere goes to a port where nobody is.
        command.envs([("HTTP_PROXY", NOBODY), ("HTTPS_PROXY", NOBODY), ("NO_PROXY", "127.0.0.1")]);
        if let Some(authority) = self.authority() {
            command.env("SSL_CERT_FILE", authority);
        }
        let mut ended = Ended::of(arguments, command.output().unwrap());
        ended.arguments = format!("({}) {}", program.display(), ended.arguments);
        ended
    }
}

const NOBODY: &str = "http://127.0.0.1:9";

impl Drop for RealRegistry {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

pub(crate) fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// An address that is free now, and where nobody answers until somebody else takes it.
pub fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

fn start(kind: Kind, program: &Path, folder: &Path, address: SocketAddr) -> Child {
    let said = fs::OpenOptions::new().create(true).append(true).open(folder.join("said")).unwrap();
    let mut command = Command::new(program);
    match kind {
        Kind::Refreg => command.arg(address.to_string()),
        Kind::Distribution | Kind::DistributionTls | Kind::Docker => {
            let file = folder.join("config.yml");
            fs::write(&file, configuration(kind, folder, address)).unwrap();
            command.arg("serve").arg(file)
        }
    };
    command
        .current_dir(folder)
        .env_clear()
        .env("OTEL_TRACES_EXPORTER", "none")
        .stdin(Stdio::null())
        .stdout(said.try_clone().unwrap())
        .stderr(said)
        .spawn()
        .unwrap()
}

fn configuration(kind: Kind, folder: &Path, address: SocketAddr) -> String {
    let folder = folder.display();
    let tls = match kind {
        Kind::DistributionTls => format!("  tls: {{ certificate: {folder}/own.crt, key: {folder}/own.key }}\n"),
        _ => String::new(),
    };
    format!(
        "version: 0.1\nlog: {{ level: error, accesslog: {{ disabled: true }} }}\nstorage:\n  filesystem: {{ rootdirectory: {folder}/data }}\n  \
         delete: {{ enabled: true }}\n  maintenance: {{ uploadpurging: {{ enabled: false }} }}\nhttp:\n  addr: {address}\n  secret: of a test\n{tls}"
    )
}

/// Whether the server answers in time. Anything in HTTP is an answer: where there is TLS, it is that this is none.
pub(crate) fn answers(child: &mut Child, address: SocketAddr) -> bool {
    let started = Instant::now();
    while started.elapsed() < START {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if asked(address).is_ok_and(|answer| answer.starts_with(b"HTTP/1.")) {
            return true;
        }
        std::thread::sleep(AGAIN);
    }
    false
}

fn asked(address: SocketAddr) -> io::Result<[u8; 7]> {
    let mut connection = TcpStream::connect_timeout(&address, START)?;
    connection.set_read_timeout(Some(START))?;
    write!(connection, "GET /v2/ HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = [0; 7];
    connection.read_exact(&mut answer)?;
    Ok(answer)
}

const CERTIFICATES: &str = r#"
[req]
distinguished_name = name
prompt = no
[name]
CN = an authority of a test
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[server]
basicConstraints = critical, CA:FALSE
subjectAltName = IP:127.0.0.1
extendedKeyUsage = serverAuth
"#;

/// An authority, `ca.crt`, and the server's key and certificate, `own.key` and `own.crt`; `false` with a visible line where there is no
/// openssl, or a failure where peers are demanded.
fn make_certificates(folder: &Path, test: &str) -> bool {
    fs::write(folder.join("openssl.cnf"), CERTIFICATES).unwrap();
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let of_authority = ["-x509", "-extensions", "authority", "-days", "2", "-keyout", "ca.key", "-out", "ca.crt"];
    let of_server = ["-new", "-keyout", "own.key", "-out", "own.csr"];
    let steps = [
        [&["req", "-config", "openssl.cnf"][..], &key, &of_authority].concat(),
        [&["req", "-config", "openssl.cnf", "-subj", "/CN=a server of a test"][..], &key, &of_server].concat(),
        "x509 -req -in own.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile openssl.cnf -extensions server -out own.crt"
            .split(' ')
            .collect(),
    ];
    for step in steps {
        let made = match Command::new("openssl").args(&step).current_dir(folder).output() {
            Ok(made) => made,
            Err(error) => {
                assert!(
                    std::env::var_os("SLUICEGATE_REQUIRE_PEERS").is_none(),
                    "{test}: openssl can't be started ({error}), and peers are demanded"
                );
                skip(test, "there is no openssl");
                return false;
            }
        };
        assert!(made.status.success(), "openssl {step:?}: {made:?}");
    }
    true
}
