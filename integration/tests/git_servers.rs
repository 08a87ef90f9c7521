//! Git sources that a server gives: which one may be asked, who vouches for it, what is on record of it, and where it must not lead.

use std::{fs, io::ErrorKind, net::TcpListener};

use integration::{Project, can_run_steps, git_server, repository::commit};
use serde_json::json;
use sluicegate_testkit::{ConnectProxy, TlsFront};

const RUN: [&str; 2] = ["run", "--no-scan"];

/// A project with a repository, and its commit.
fn mirrored() -> (Project, String) {
    let project = Project::prepared();
    fs::create_dir(project.path("mirror")).unwrap();
    fs::write(project.path("mirror/file"), "as committed").unwrap();
    let commit = commit(&project.path("mirror"), &["file"]);
    (project, commit)
}

/// A pipeline that shows the file of the repository at this address.
fn show(project: &Project, url: &str, reference: &str) {
    let text = format!(
        "version: 1\nname: far\nsources: {{ far: {{ git: \"{url}\", ref: \"{reference}\" }} }}\n\
         defaults: {{ image: oci:images/base }}\nsteps:\n  show:\n    run: [cat, /src/file]\n    inputs: {{ /src: far }}\n"
    );
    fs::write(project.path("sluicegate.yaml"), text).unwrap();
}

fn list(project: &Project, hosts: &[&str]) {
    let gateway = fs::read_to_string(project.path("gateway.yaml")).unwrap();
    fs::write(project.path("gateway.yaml"), format!("{gateway}egress: {{ private: {} }}\n", json!(hosts))).unwrap();
}

/// That the step saw what was committed, and that its provenance names the commit and the address.
#[track_caller]
fn is_proved(project: &Project, url: &str, commit: &str) {
    assert_eq!(project.log("show"), "as committed");
    let dependencies = project.provenance("show")["buildDefinition"]["resolvedDependencies"].clone();
    let source = dependencies.as_array().unwrap().iter().find(|one| one["name"] == "source:far").unwrap();
    assert_eq!(source["annotations"]["sluicegate.dev/commit"], json!(commit));
    assert_eq!(source["annotations"]["sluicegate.dev/repository"], json!(url));
}

#[test]
fn a_server_behind_tls_is_asked_if_it_is_listed_and_believed_if_somebody_vouches_for_it() {
    if !can_run_steps("a_server_behind_tls_is_asked_if_it_is_listed_and_believed_if_somebody_vouches_for_it") {
        return;
    }
    let (mut project, commit) = mirrored();
    let front = TlsFront::start(&git_server::serve(&project.path("mirror"), None), "git.test");
    let near = format!("https://{}/mirror", front.host);
    show(&project, &near, "main");
    project.sluicegate(&RUN).assert(2, "egress.private");
    assert_eq!(front.connections(), 0, "it was asked");
    list(&project, &[&front.host]);
    let ended = project.sluicegate(&RUN);
    assert!(ended.code == 5 && ended.stderr.contains("certificate"), "{ended:?}");
    assert!(front.connections() > 0);
    fs::write(project.path("ca.pem"), &front.authority.pem).unwrap();
    let authority = project.path("ca.pem").display().to_string();
    project.set("SSL_CERT_FILE", &authority);
    project.must(&RUN);
    is_proved(&project, &near, &commit);
    // The name is known to nobody but the proxy.
    let (asked, proxy) = (front.connections(), ConnectProxy::to(&front.host));
    project.set("HTTPS_PROXY", &format!("http://{}", proxy.host));
    show(&project, "https://git.test/mirror", "main");
    project.must(&[&RUN[..], &["--no-cache"]].concat());
    is_proved(&project, "https://git.test/mirror", &commit);
    assert!(front.connections() > asked && proxy.asked().iter().all(|head| head.starts_with("CONNECT git.test:443 ")));
    show(&project, "https://other.test/mirror", "main");
    let ended = project.sluicegate(&RUN);
    assert!(ended.code == 5 && ended.stderr.contains("certificate"), "of another name: {ended:?}");
}

#[test]
fn a_server_of_this_machine_is_asked_over_http_and_leads_nowhere_else() {
    if !can_run_steps("a_server_of_this_machine_is_asked_over_http_and_leads_nowhere_else") {
        return;
    }
    let (project, first) = mirrored();
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let there = elsewhere.local_addr().unwrap().to_string();
    let [plain, leading] =
        [None, Some(format!("http://{there}/mirror"))].map(|to| git_server::serve(&project.path("mirror"), to));
    list(&project, &[&plain, &leading, &there]);
    let url = format!("http://{plain}/mirror");
    for reference in ["main", &first] {
        show(&project, &url, reference);
        project.must(&[&RUN[..], &["--no-cache"]].concat());
        is_proved(&project, &url, &first);
    }
    let leading = format!("http://{leading}/mirror");
    show(&project, &leading, "main");
    let ended = project.sluicegate(&RUN);
    ended.assert(5, "leads to another address");
    assert!(ended.stderr.contains(&leading) && !ended.stderr.contains("warning"), "{ended:?}");
    assert_eq!(elsewhere.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "somebody came");
}
