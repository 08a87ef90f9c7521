use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::mpsc::{self, Receiver},
    thread,
};

use sluicegate_ports::{
    execute::{Contact, Egress, Ended, InputAccess::*, Network, StepRequest},
    store::ContentStore,
};
use sluicegate_types::Destination;

use crate::fixture::*;

/// A server on this machine's loopback that answers every request with the same.
struct Server {
    port: u16,
    heads: Receiver<String>,
}

impl Server {
    fn new(answer: &'static str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, heads) = mpsc::channel();
        thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let _ = sender.send(read_head(&mut client));
                let _ = client.write_all(answer.as_bytes());
            }
        });
        Self { port, heads }
    }
}

fn read_head(client: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).is_ok_and(|count| count == 1) {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

fn bash(script: &str) -> StepRequest {
    program(&["bash", "-c", script])
}

fn at(host: &str, port: u16) -> Destination {
    Destination { host: host.to_owned(), port }
}

fn allow(mut request: StepRequest, listed: &[Destination], private: &[Destination]) -> StepRequest {
    request.network = Network::Allow(Egress { destinations: listed.to_vec(), private: private.to_vec() });
    request
}

/// Asks the proxy of the step and prints what it answers.
fn ask(request: &str) -> String {
    format!("exec 3<>/dev/tcp/127.0.0.1/3128; printf '{request}' >&3; cat <&3; exec 3>&-;")
}

fn of<'c>(contacts: &'c [Contact], destination: &Destination) -> &'c Contact {
    contacts.iter().find(|contact| contact.destination == *destination).unwrap()
}

#[test]
fn without_a_network_both_loopbacks_are_there_and_localhost_is_known() {
    let log = log_of(&bash(
        "getent ahosts localhost; getent hosts localhost; getent hosts test; cat /proc/net/if_inet6; \
         (: </dev/tcp/127.0.0.1/9) 2>&1; (: </dev/tcp/::1/9) 2>&1; (: </dev/tcp/localhost/9) 2>&1; \
         (: </dev/tcp/192.0.2.1/9) 2>&1; true",
    ));
    for expected in ["127.0.0.1       STREAM localhost", "::1             localhost", "127.0.0.1       localhost test"]
    {
        assert!(log.contains(expected), "{log}");
    }
    assert!(log.contains("00000000000000000000000000000001 "), "{log}");
    assert_eq!(log.matches("connect: Connection refused").count(), 3, "{log}");
    assert!(log.contains("Network is unreachable"), "{log}");
}

#[test]
fn files_of_the_container_are_in_no_output() {
    let none = sh("ls /etc; test -s /etc/hosts");
    let mut whole = sh("mkdir -p /etc && cat /etc/hosts >/dev/null && : > /etc/mine");
    whole.outputs = vec![output("etc", "/etc"), output("root", "/")];
    for network in [
        Network::None,
        Network::Host,
        Network::Allow(Egress { destinations: vec![at("a.example", 443)], ..Egress::default() }),
    ] {
        let mut only_read = sh("cat /etc/hosts >/dev/null");
        only_read.outputs = vec![output("etc", "/etc")];
        only_read.network = network.clone();
        let (outcome, _) = run(&only_read);
        assert_eq!(outcome.missing.len(), 1, "the image has no /etc, and neither has the output");
        whole.network = network;
        let (outcome, log) = run(&whole);
        assert_eq!(outcome.ended, Ended::Exit(0), "{log}");
        assert_eq!(listing(&outcome.outputs[0].content.digest), ["mine"]);
        let root = listing(&outcome.outputs[1].content.digest);
        let etc: Vec<&String> = root.iter().filter(|path| path.starts_with("etc")).collect();
        assert_eq!(etc, ["etc/", "etc/mine"]);
    }
    assert!(log_of(&none).contains("hosts"));
}

#[test]
fn an_images_own_etc_comes_out_as_it_was() {
    let image_with = |entries: &[(&str, Option<&str>)]| {
        let mut layer = tar::Builder::new(Vec::new());
        let mut add = |path: &str, kind, text: &str, link: Option<&str>| {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(kind);
            header.set_mode(if kind == tar::EntryType::Directory { 0o755 } else { 0o644 });
            header.set_mtime(1000);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(text.len() as u64);
            if let Some(link) = link {
                header.set_link_name(link).unwrap();
            }
            layer.append_data(&mut header, path, text.as_bytes()).unwrap();
        };
        add("etc", tar::EntryType::Directory, "", None);
        for (path, link) in entries {
            match link {
                Some(link) => add(path, tar::EntryType::Symlink, "", Some(link)),
                None => add(path, tar::EntryType::Regular, "the image's own\n", None),
            }
        }
        plain_layer(&fixture().store, &layer.into_inner().unwrap())
    };
    let own = [("etc/hosts", None), ("etc/resolv.conf", Some("../run/nowhere/stub.conf"))];
    for entries in [&own[..], &[("etc/passwd", None)], &[("etc/hosts", Some("/nowhere"))]] {
        let mut request = sh("cat /etc/hosts /etc/resolv.conf 2>&1; echo 127.0.0.1 more >> /etc/hosts");
        request.layers.push(image_with(entries));
        request.outputs = vec![output("etc", "/etc"), output("root", "/")];
        let (before, log) = run(&request);
        assert!(log.contains("localhost"), "{log}");
        request.network = Network::Host;
        let (with_host, log) = run(&request);
        if let Ok(resolver) = std::fs::read_to_string("/etc/resolv.conf") {
            assert!(log.contains(&resolver), "{log}");
        }
        assert_eq!(before.outputs, with_host.outputs);
        let mut untouched = sh("true");
        untouched.layers.clone_from(&request.layers);
        untouched.outputs.clone_from(&request.outputs);
        assert_eq!(before.outputs[0], run(&untouched).0.outputs[0]);
        let bytes = fixture().store.read(&before.outputs[0].content.digest, u64::MAX).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let seen: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let link = entry.link_name().unwrap().map(|link| link.display().to_string());
                (format!("etc/{}", entry.path().unwrap().display()), link)
            })
            .collect();
        let expected: Vec<_> =
            entries.iter().map(|(path, link)| ((*path).to_owned(), link.map(str::to_owned))).collect();
        assert_eq!(seen, expected);
        let root = fixture().store.read(&before.outputs[1].content.digest, u64::MAX).unwrap();
        let mut archive = tar::Archive::new(&root[..]);
        let etc = archive.entries().unwrap().map(Result::unwrap).find(|entry| *entry.path_bytes() == *b"etc/").unwrap();
        assert_eq!(etc.header().mtime().unwrap(), 1000, "the folder is as old as the image says");
    }
}

#[test]
fn what_the_step_says_about_hosts_itself_stands() {
    let mut request = sh("cat /etc/hosts");
    request.inputs = vec![file("/etc/hosts", b"10.0.0.1 mine\n", CopyOnWrite)];
    assert_eq!(log_of(&request), "10.0.0.1 mine\n");
    request.inputs = vec![folder("/etc", &[("hosts", "10.0.0.2 mine\n")], ReadOnly)];
    assert_eq!(log_of(&request), "10.0.0.2 mine\n");
    let mut request = sh("echo 10.0.0.3 made > /etc/hosts");
    request.outputs = vec![output("hosts", "/etc/hosts")];
    let (outcome, _) = run(&request);
    let made = fixture().store.read(&outcome.outputs[0].content.digest, u64::MAX).unwrap();
    assert_eq!(made, b"10.0.0.3 made\n");
}

#[test]
fn inputs_inside_inputs_are_there_whatever_their_order() {
    let mut request = sh("cat /src/vendor/dep/a; cat /src/own; cat /src/vendor/kept");
    let outer =
        folder("/src", &[("own", "own\n"), ("vendor/kept", "kept\n"), ("vendor/dep/hidden", "no")], CopyOnWrite);
    let inner = folder("/src/vendor/dep", &[("a", "dep\n")], ReadOnly);
    request.outputs = vec![output("all", "/src")];
    let mut seen = Vec::new();
    for inputs in [vec![outer.clone(), inner.clone()], vec![inner, outer]] {
        request.inputs = inputs;
        let (outcome, log) = run(&request);
        assert_eq!((outcome.ended, log.as_str()), (Ended::Exit(0), "dep\nown\nkept\n"));
        seen.push(outcome.outputs[0].content.digest);
    }
    assert_eq!(listing(&seen[0]), ["own", "vendor/", "vendor/dep/", "vendor/dep/a", "vendor/kept"]);
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn the_hosts_network_is_the_hosts() {
    let server = Server::new("HTTP/1.0 200 OK\r\n\r\nhello from the host\n");
    let script =
        format!("exec 3<>/dev/tcp/localhost/{}; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3", server.port);
    let mut request = bash(&script);
    request.user = "1000:1000".into();
    request.network = Network::Host;
    let (outcome, log) = run(&request);
    assert!(log.contains("hello from the host"), "{log}");
    assert_eq!(outcome.contacts, []);
    for closed in
        [Network::None, Network::Allow(Egress { destinations: vec![at("a.example", 443)], ..Egress::default() })]
    {
        request.network = closed;
        let (outcome, log) = run(&request);
        assert!(outcome.ended != Ended::Exit(0) && log.contains("refused"), "{log}");
    }
}

#[test]
fn abstract_sockets_of_the_host_are_the_host_networks_alone() {
    use std::os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    };
    let name = format!("sluicegate-test-{}", std::process::id());
    let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let mut request = sh("cat /proc/net/unix");
    let egress = Egress { destinations: vec![at("a.example", 443)], ..Egress::default() };
    for (network, seen) in [(Network::Host, true), (Network::None, false), (Network::Allow(egress), false)] {
        request.network = network;
        assert_eq!(log_of(&request).contains(&name), seen);
    }
}

#[test]
fn a_list_of_servers_is_all_that_a_step_reaches() {
    let server = Server::new("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello\n");
    let other = Server::new("HTTP/1.1 200 OK\r\n\r\nnever\n");
    let (open, shut) = (at("127.0.0.1", server.port), at("127.0.0.1", other.port));
    let (by_name, unlisted) = (at("localhost", other.port), at("evil.example", 443));
    let script = [
        ask(&format!("GET http://127.0.0.1:{}/file HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n", open.port)),
        ask(&format!("GET http://127.0.0.1:{}/ HTTP/1.1\\r\\n\\r\\n", shut.port)),
        ask(&format!("CONNECT localhost:{} HTTP/1.1\\r\\n\\r\\n", by_name.port)),
        ask("CONNECT evil.example:443 HTTP/1.1\\r\\n\\r\\n"),
        format!(
            "(: </dev/tcp/127.0.0.1/{}) 2>&1; (: </dev/tcp/8.8.8.8/53) 2>&1; id -u; cat /proc/self/status",
            open.port
        ),
    ]
    .concat();
    let listed = [open.clone(), shut.clone(), by_name.clone()];
    let mut request = allow(bash(&script), &listed, &[open.clone(), unlisted.clone()]);
    request.user = "1000:1000".into();
    let (outcome, log) = run(&request);
    assert_eq!(outcome.ended, Ended::Exit(0), "{log}");
    assert_eq!(log.matches("hello").count(), 1, "{log}");
    assert_eq!(log.matches("HTTP/1.1 403 Forbidden").count(), 3, "{log}");
    assert!(log.contains("steps.test.network: { allow: [\"evil.example:443\"] }"), "{log}");
    assert!(log.contains(&format!("egress: {{ private: [\"localhost:{}\"] }}", by_name.port)), "{log}");
    assert!(log.contains("Connection refused") && log.contains("Network is unreachable"), "{log}");
    assert!(log.contains("\n1000\n") && log.contains("CapEff:\t0000000000000000"), "{log}");
    assert!(server.heads.recv().unwrap().starts_with("GET /file HTTP/1.1\r\n"));
    assert!(other.heads.try_recv().is_err());
    assert_eq!(outcome.contacts.len(), 4);
    let contact = of(&outcome.contacts, &open);
    assert_eq!((contact.refused.as_deref(), contact.connections, contact.address), (None, 1, "127.0.0.1".parse().ok()));
    assert!(contact.sent > 0 && contact.received > 0, "{contact:?}");
    for destination in [&shut, &by_name, &unlisted] {
        let contact = of(&outcome.contacts, destination);
        assert!(contact.refused.is_some() && contact.sent == 0, "{contact:?}");
    }
}

#[test]
fn a_list_of_servers_puts_the_proxys_variables_behind_the_steps_own() {
    let listed = [at("a.example", 443)];
    let mut request = allow(program(&["/bin/env"]), &listed, &[]);
    request.env = vec![("B".into(), "2".into()), ("https_proxy".into(), "mine".into())];
    let added = request.network.variables_beside(&request.env);
    let shown =
        |env: &[(String, String)]| env.iter().map(|(name, value)| format!("{name}={value}\n")).collect::<String>();
    let log = log_of(&request);
    assert_eq!(log, shown(&request.env) + &shown(&added));
    assert!(log.contains("HTTP_PROXY=http://127.0.0.1:3128\n") && !log.contains("https_proxy=http"), "{log}");
    // A caller that writes them down first changes nothing.
    request.env.extend(added);
    assert_eq!(log_of(&request), log);
}

#[test]
fn a_step_that_ends_leaves_no_connection_and_one_that_never_asked_has_no_contact() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let place = [at("127.0.0.1", listener.local_addr().unwrap().port())];
    let script = format!(
        "exec 3<>/dev/tcp/127.0.0.1/3128; printf 'CONNECT 127.0.0.1:{} HTTP/1.1\\r\\n\\r\\n' >&3; read line <&3; echo $line",
        place[0].port
    );
    let (outcome, log) = run(&allow(bash(&script), &place, &place));
    assert!(log.contains("200 Connection established"), "{log}");
    assert_eq!(outcome.contacts.len(), 1);
    let mut left = Vec::new();
    listener.accept().unwrap().0.read_to_end(&mut left).unwrap();
    assert_eq!(left, b"");
    let (outcome, _) = run(&allow(sh("true"), &place, &[]));
    assert_eq!(outcome.contacts, []);
}

#[test]
fn a_list_without_a_server_is_refused_and_one_with_a_server_is_not() {
    let error = refused(&allow(sh("true"), &[], &[])).to_string();
    assert!(error.contains("a list of servers with none in it"), "{error}");
    log_of(&allow(sh("true"), &[at("a.example", 443)], &[]));
}
