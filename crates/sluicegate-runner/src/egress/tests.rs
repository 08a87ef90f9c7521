use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    sync::mpsc::{self, Receiver},
};

use sluicegate_ports::execute::Egress;
use sluicegate_types::Destination;

use super::{client_hello::hello_for, request::MAX_HEAD, *};

/// A server on the loopback; it gives away each connection that it gets.
struct Server {
    port: u16,
    clients: Mutex<Receiver<TcpStream>>,
}

impl Server {
    fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, clients) = mpsc::channel();
        thread::spawn(move || listener.incoming().flatten().try_for_each(|client| sender.send(client)));
        Self { port, clients: Mutex::new(clients) }
    }

    /// The next one.
    fn client(&self) -> TcpStream {
        self.clients.lock().unwrap().recv().unwrap()
    }

    fn had_no_client(&self) -> bool {
        self.clients.lock().unwrap().try_recv().is_err()
    }
}

struct Running {
    proxy: Proxy,
    address: SocketAddr,
}

impl Running {
    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).unwrap()
    }

    /// The whole answer to these bytes.
    fn ask(&self, request: &str) -> String {
        let mut client = self.connect();
        client.write_all(request.as_bytes()).unwrap();
        rest_of(&mut client)
    }

    /// A tunnel that was promised.
    fn tunnel(&self, target: &str) -> TcpStream {
        let mut client = self.connect();
        client.write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(read_head(&mut client), "HTTP/1.1 200 Connection established\r\n\r\n");
        client
    }

    fn contacts(self) -> Vec<(String, u16, Option<String>, u64)> {
        let line = |contact: Contact| {
            (contact.destination.host, contact.destination.port, contact.refused, contact.connections)
        };
        self.proxy.finish().unwrap().into_iter().map(line).collect()
    }
}

fn rest_of(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset after the answer is an end, too.
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8(bytes).unwrap()
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&head));
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// Names under `inner.example` lead to this machine, no other leads anywhere.
fn names() -> Lookup {
    Arc::new(|name: &str| match name.ends_with("inner.example") {
        true => Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]),
        false => Err(io::ErrorKind::NotFound.into()),
    })
}

fn list(all: &[(&str, u16)]) -> Vec<Destination> {
    all.iter().map(|(host, port)| Destination { host: (*host).to_owned(), port: *port }).collect()
}

fn start_with(
    listed: &[(&str, u16)],
    private: &[(&str, u16)],
    limits: Limits,
    lookup: Lookup,
    upstream: Option<Upstream>,
) -> Running {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let egress = Egress { destinations: list(listed), private: list(private) };
    let proxy = Proxy::start_with(listener, Policy::new("build", &egress, upstream), limits, lookup).unwrap();
    Running { proxy, address }
}

fn start(listed: &[(&str, u16)], private: &[(&str, u16)]) -> Running {
    start_with(listed, private, Limits::default(), names(), None)
}

fn get(host: &str, port: u16) -> String {
    format!("GET http://{host}:{port}/x HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";

#[test]
fn a_listed_server_is_asked_and_others_beside_it_are_not() {
    let (server, other) = (Server::new(), Server::new());
    let (port, unlisted) = (server.port, other.port);
    let running = start(&[("127.0.0.1", port), ("127.0.0.1", unlisted)], &[("127.0.0.1", port)]);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = server.client();
            let head = read_head(&mut client);
            assert_eq!(head, format!("GET /x HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"));
            client.write_all(ANSWER).unwrap();
        });
        assert_eq!(running.ask(&get("127.0.0.1", port)).as_bytes(), ANSWER);
    });
    let not_private = running.ask(&get("127.0.0.1", unlisted));
    assert!(not_private.starts_with("HTTP/1.1 403 "), "{not_private}");
    assert!(not_private.contains(&format!("egress: {{ private: [\"127.0.0.1:{unlisted}\"] }}")), "{not_private}");
    let not_listed = running.ask(&get("a.example", 80));
    assert!(not_listed.starts_with("HTTP/1.1 403 "), "{not_listed}");
    assert!(not_listed.contains("steps.build.network: { allow: [\"a.example:80\"] }"), "{not_listed}");
    assert!(other.had_no_client());
    let contacts = running.proxy.finish().unwrap();
    let shown: Vec<_> = contacts.iter().map(|c| (c.destination.port, c.refused.is_none(), c.received)).collect();
    let mut expected = vec![(port, true, ANSWER.len() as u64), (unlisted, false, 0)];
    expected.sort_unstable();
    expected.push((80, false, 0));
    assert_eq!(shown, expected);
    assert!(contacts.iter().all(|c| (c.sent > 0) == c.refused.is_none() && c.connections == 1), "{contacts:?}");
}

#[test]
fn a_name_that_leads_inside_is_refused_unless_it_is_listed_as_private() {
    let server = Server::new();
    let places = [("open.inner.example", server.port), ("shut.inner.example", server.port), ("nowhere.example", 80)];
    let running = start(&places, &places[..1]);
    let shut = running.ask(&format!("CONNECT shut.inner.example:{} HTTP/1.1\r\n\r\n", server.port));
    assert!(shut.starts_with("HTTP/1.1 403 ") && shut.contains("it leads to 127.0.0.1, a loopback address"), "{shut}");
    assert!(server.had_no_client());
    let nowhere = running.ask(&get("nowhere.example", 80));
    assert!(nowhere.starts_with("HTTP/1.1 502 ") && nowhere.contains("no address"), "{nowhere}");
    let mut tunnel = running.tunnel(&format!("Open.Inner.Example:{}", server.port));
    let mut client = server.client();
    // This server speaks first.
    client.write_all(b"220 ready\r\n").unwrap();
    let mut greeting = [0; 11];
    tunnel.read_exact(&mut greeting).unwrap();
    tunnel.write_all(b"EHLO").unwrap();
    tunnel.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(rest_of(&mut client), "EHLO");
    drop(client);
    assert_eq!(rest_of(&mut tunnel), "");
    let contacts = running.proxy.finish().unwrap();
    let open = contacts.iter().find(|c| c.destination.host == "open.inner.example").unwrap();
    assert_eq!((open.address, open.sent, open.received), (Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), 4, 11));
    let shut = contacts.iter().find(|c| c.destination.host == "shut.inner.example").unwrap();
    assert_eq!(shut.address, Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    assert_eq!(shut.refused.as_deref(), Some("it is a loopback address and not listed as private"));
}

#[test]
fn tls_is_let_through_for_the_host_that_was_asked_for_alone() {
    let server = Server::new();
    let host = "tls.inner.example";
    let place = [(host, server.port)];
    let running = start(&place, &place);
    let target = format!("{host}:{}", server.port);
    // However it is cut into records, and into pieces on the way.
    for (record, piece) in [(16_384, 10_000), (40, 10_000), (16_384, 1)] {
        let hello = hello_for(Some(host), record);
        let mut tunnel = running.tunnel(&target);
        for part in hello.chunks(piece) {
            tunnel.write_all(part).unwrap();
        }
        let mut client = server.client();
        let mut seen = vec![0; hello.len()];
        client.read_exact(&mut seen).unwrap();
        assert!(seen == hello);
    }
    let mut unreadable = hello_for(Some(host), 16_384);
    unreadable[6] = 0xff;
    // What a server may pass over: an alert of no weight, before a hello for the very name.
    let after_an_alert = [&[21, 3, 1, 0, 2, 1, 0], hello_for(Some(host), 16_384).as_slice()].concat();
    for hello in [hello_for(Some("evil.example"), 40), hello_for(None, 16_384), unreadable, after_an_alert] {
        let mut tunnel = running.tunnel(&target);
        tunnel.write_all(&hello).unwrap();
        assert_eq!(rest_of(&mut tunnel), "");
        assert_eq!(rest_of(&mut server.client()), "", "the server gets nothing of it");
    }
    // Half a hello is not sent on either.
    let mut tunnel = running.tunnel(&target);
    tunnel.write_all(&hello_for(Some(host), 16_384)[..30]).unwrap();
    tunnel.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(rest_of(&mut server.client()), "");
    let reasons: Vec<_> = running.contacts().into_iter().map(|(_, _, refused, count)| (refused, count)).collect();
    let refused = |text: &str, count| (Some(text.to_owned()), count);
    assert_eq!(
        reasons,
        [
            (None, 3),
            refused("TLS asked for evil.example", 1),
            refused("TLS asked for no name", 1),
            refused("TLS that cannot be read", 3),
        ]
    );
}

#[test]
fn a_request_that_comes_in_pieces_is_one_and_what_follows_it_is_another_ones() {
    let server = Server::new();
    let place = [("127.0.0.1", server.port)];
    let running = start(&place, &place);
    let mut client = running.connect();
    let text = format!(
        "POST http://127.0.0.1:{0}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n\
         GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        server.port
    );
    for byte in text.as_bytes().chunks(1) {
        client.write_all(byte).unwrap();
    }
    let mut asked = server.client();
    assert!(read_head(&mut asked).contains("Transfer-Encoding: chunked"));
    let mut body = [0; 12];
    asked.read_exact(&mut body).unwrap();
    assert_eq!(&body, b"2\r\nab\r\n0\r\n\r\n");
    asked.write_all(b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nConnection: close\r\n\r\n").unwrap();
    asked.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(rest_of(&mut client).starts_with("HTTP/1.1 302 "), "a redirect is the client's to follow");
    assert_eq!(rest_of(&mut asked), "", "nothing of what follows goes to this server");
    assert!(running.ask(&get("169.254.169.254", 80)).starts_with("HTTP/1.1 403 "));
}

#[test]
fn heads_without_end_and_heads_without_sense_are_answered_and_lead_nowhere() {
    let server = Server::new();
    let place = [("127.0.0.1", server.port)];
    let running = start(&place, &place);
    let with_header = |bytes: usize| {
        let request = get("127.0.0.1", server.port);
        request.replace("Host:", &format!("X: {}\r\nHost:", "a".repeat(bytes)))
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = server.client();
            read_head(&mut client);
            client.write_all(ANSWER).unwrap();
        });
        assert_eq!(running.ask(&with_header(MAX_HEAD - 1000)).as_bytes(), ANSWER);
    });
    assert!(running.ask(&with_header(MAX_HEAD)).starts_with("HTTP/1.1 431 "));
    assert!(running.ask(&"A: b\r\n".repeat(20_000)).starts_with("HTTP/1.1 431 "));
    for nonsense in ["GET / HTTP/1.1\r\n\r\n", "\r\n\r\n", "CONNECT 2130706433:80 HTTP/1.1\r\n\r\n"] {
        assert!(running.ask(nonsense).starts_with("HTTP/1.1 400 "), "{nonsense}");
    }
    assert!(server.had_no_client());
    assert_eq!(running.contacts().len(), 1);
}

#[test]
fn clients_that_never_finish_are_cut_off_and_hold_up_nobody() {
    let server = Server::new();
    let place = [("127.0.0.1", server.port)];
    let impatient = Limits { head: Duration::ZERO, ..Limits::default() };
    let running = start_with(&place, &place, impatient, names(), None);
    assert!(running.ask(&get("127.0.0.1", server.port)).starts_with("HTTP/1.1 408 "));
    assert!(server.had_no_client());

    let running = start(&place, &place);
    let slow: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut client = running.connect();
            client.write_all(b"GET http://127").unwrap();
            client
        })
        .collect();
    let mut tunnel = running.tunnel(&format!("127.0.0.1:{}", server.port));
    let contacts = running.contacts();
    assert_eq!(contacts.len(), 1);
    assert_eq!(rest_of(&mut tunnel), "", "the step's end is every connection's");
    for mut client in slow {
        assert_eq!(rest_of(&mut client), "");
    }
}

#[test]
fn a_full_house_lets_the_next_one_in_when_one_leaves() {
    let server = Server::new();
    let place = [("127.0.0.1", server.port)];
    let running = start_with(&place, &place, Limits { connections: 1, ..Limits::default() }, names(), None);
    let first = running.tunnel(&format!("127.0.0.1:{}", server.port));
    let mut second = running.connect();
    second.write_all(b"nonsense\r\n\r\n").unwrap();
    drop((first, server.client()));
    assert!(rest_of(&mut second).starts_with("HTTP/1.1 400 "));
}

#[test]
fn a_name_that_nobody_answers_for_is_given_up() {
    let (_never, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let lookup: Lookup = Arc::new(move |_| {
        let _ = held.lock().unwrap().recv();
        Ok(Vec::new())
    });
    let limits = Limits { lookup: Duration::ZERO, ..Limits::default() };
    let running = start_with(&[("a.example", 80)], &[], limits, lookup, None);
    assert!(running.ask(&get("a.example", 80)).starts_with("HTTP/1.1 502 "));
    assert_eq!(running.contacts(), [("a.example".to_owned(), 80, Some("its name leads to no address".to_owned()), 1)]);
}

#[test]
fn more_servers_than_can_be_written_down_fail_the_step() {
    let ask = |count: usize| {
        let running = start_with(&[], &[], Limits { contacts: 2, ..Limits::default() }, names(), None);
        let answers: Vec<String> =
            (0..count).map(|number| running.ask(&get(&format!("a{number}.example"), 80))).collect();
        (answers[count - 1].clone(), running.proxy.finish())
    };
    let (last, contacts) = ask(2);
    assert!(last.starts_with("HTTP/1.1 403 ") && contacts.unwrap().len() == 2, "{last}");
    let (last, contacts) = ask(3);
    assert!(last.starts_with("HTTP/1.1 503 "), "{last}");
    assert!(contacts.unwrap_err().contains("more than 2 servers"));
}

#[test]
fn the_machines_own_proxy_is_asked_for_names_and_never_for_inner_places() {
    let upstream = Server::new();
    let places = [("a.example", 443), ("a.example", 80), ("localhost", 80), ("10.0.0.1", 80)];
    let url = format!("http://me:word@127.0.0.1:{}", upstream.port);
    let start_behind = || {
        let proxy = Upstream::parse(&url, None).unwrap();
        start_with(&places, &[], Limits::default(), names(), Some(proxy))
    };
    let running = start_behind();
    let asked = |answer: &'static [u8], running: &Running, request: &str| {
        let (heads, said) = thread::scope(|scope| {
            let seen = scope.spawn(|| {
                let mut client = upstream.client();
                let head = read_head(&mut client);
                client.write_all(answer).unwrap();
                head
            });
            let said = running.ask(request);
            (seen.join().unwrap(), said)
        });
        (heads, said)
    };
    let connect = "CONNECT a.example:443 HTTP/1.1\r\n\r\n";
    let (head, said) = asked(b"HTTP/1.1 200 OK\r\n\r\nfirst words", &running, connect);
    let authorization = "Proxy-Authorization: Basic bWU6d29yZA==\r\n";
    assert_eq!(head, format!("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n{authorization}\r\n"));
    assert!(said.ends_with("established\r\n\r\nfirst words"), "{said}");
    let (_, said) = asked(b"HTTP/1.1 407 No\r\n\r\n", &running, connect);
    assert!(said.starts_with("HTTP/1.1 502 ") && said.contains("answers 407") && !said.contains("word"), "{said}");
    let (head, said) = asked(ANSWER, &running, &get("a.example", 80));
    assert!(head.starts_with("GET http://a.example:80/x HTTP/1.1\r\nProxy-Authorization: Basic "), "{head}");
    assert_eq!(said.as_bytes(), ANSWER);
    for host in ["localhost", "10.0.0.1"] {
        assert!(running.ask(&get(host, 80)).starts_with("HTTP/1.1 403 "), "{host}");
    }
    // It would repeat the password.
    let said = running.ask(&get("a.example", 80).replace("GET", "TRACE"));
    assert!(said.starts_with("HTTP/1.1 400 ") && said.contains("TRACE is not followed"), "{said}");
    assert!(upstream.had_no_client());
    let contacts = running.proxy.finish().unwrap();
    let names: Vec<_> = contacts.iter().filter(|c| c.destination.host == "a.example").collect();
    assert!(names.iter().all(|c| c.address.is_none() && c.refused.is_none()) && names.len() == 2, "{names:?}");
}
