//! Certificate authorities of the test, what ends TLS in front of a server, and a proxy.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// An authority with a key that nobody else has, and a server's certificate of it.
#[derive(Clone)]
pub struct TestAuthority {
    /// Its own certificate.
    pub pem: String,
    server: Arc<rustls::ServerConfig>,
}

impl TestAuthority {
    /// One that vouches for a server of these names and addresses.
    pub fn of(names: &[&str]) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let own = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], secret)
            .unwrap();
        Self { pem: own.pem(), server: Arc::new(server) }
    }

    /// A connection on which the server speaks TLS.
    pub fn accept(&self, stream: TcpStream) -> impl Read + Write + use<> {
        rustls::StreamOwned::new(rustls::ServerConnection::new(self.server.clone()).unwrap(), stream)
    }
}

/// What ends TLS in front of a server that has none. It ends with the test's process.
pub struct TlsFront {
    /// Where it is.
    pub host: String,
    /// Who vouches for it.
    pub authority: TestAuthority,
    connections: Arc<AtomicUsize>,
}

impl TlsFront {
    /// One in front of `target`, an address and a port. The certificate is for 127.0.0.1 and for this name.
    pub fn start(target: &str, name: &str) -> Self {
        let (authority, connections) = (TestAuthority::of(&["127.0.0.1", name]), Arc::new(AtomicUsize::new(0)));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (accepting, count, target) = (authority.clone(), connections.clone(), target.to_owned());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (accepting, target) = (accepting.clone(), target.clone());
                count.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || pass(accepting.accept(stream.unwrap()), &target));
            }
        });
        Self { host, authority, connections }
    }

    /// How often somebody connected, whatever came of it.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// One request and its answer.
fn pass(stream: impl Read + Write, target: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut upstream = TcpStream::connect(target)?;
    upstream.write_all(&[head.as_bytes(), b"connection: close\r\n\r\n", &body].concat())?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer)?;
    reader.get_mut().write_all(&answer)?;
    reader.get_mut().flush()
}

/// A proxy that leads every CONNECT to one address, whatever it asks for. It ends with the test's process.
pub struct ConnectProxy {
    /// Where it is.
    pub host: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl ConnectProxy {
    /// One that leads to `target`, an address and a port.
    pub fn to(target: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (host, asked) = (listener.local_addr().unwrap().to_string(), Arc::new(Mutex::new(Vec::new())));
        let (log, target) = (asked.clone(), target.to_owned());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, log, target) = (stream.unwrap(), log.clone(), target.clone());
                thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    let mut head = String::new();
                    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap_or(0) > 0 {}
                    log.lock().unwrap().push(head);
                    let (mut client, mut server) = (stream, TcpStream::connect(target).unwrap());
                    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
                    let (mut back, mut answers) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                    thread::spawn(move || std::io::copy(&mut answers, &mut back));
                    let _ = std::io::copy(&mut reader, &mut server);
                });
            }
        });
        Self { host, asked }
    }

    /// The heads of all requests.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}
