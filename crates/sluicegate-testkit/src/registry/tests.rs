use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::{Value, json};
use sluicegate_types::Digest;

use super::*;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// One connection to a registry, which stays open as long as the registry lets it.
struct Client(BufReader<TcpStream>);

/// What came back.
#[derive(Debug)]
struct Came {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// The connection ended before the body did.
    broken: bool,
}

impl Client {
    fn of(registry: &TestRegistry) -> Self {
        let stream = TcpStream::connect(registry.host()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self(BufReader::new(stream))
    }

    fn ask(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Came {
        self.send(method, target, headers, body);
        self.receive(method).unwrap()
    }

    fn send(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let request = [head.as_bytes(), b"\r\n", body].concat();
        self.0.get_mut().write_all(&request).unwrap();
    }

    fn receive(&mut self, method: &str) -> Option<Came> {
        let status = self.line()?.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = Vec::new();
        while let Some((name, value)) = self.line().unwrap().split_once(": ") {
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let mut came = Came { status, headers, body: Vec::new(), broken: false };
        if method == "HEAD" || status == 204 || status == 100 {
            return Some(came);
        }
        if came.header("transfer-encoding").is_some() {
            loop {
                let Some(size) = self.line() else {
                    came.broken = true;
                    return Some(came);
                };
                let size = usize::from_str_radix(&size, 16).unwrap();
                let mut chunk = vec![0; size];
                self.0.read_exact(&mut chunk).unwrap();
                came.body.extend(chunk);
                self.line();
                if size == 0 {
                    return Some(came);
                }
            }
        }
        let length: u64 = came.header("content-length").unwrap().parse().unwrap();
        (&mut self.0).take(length).read_to_end(&mut came.body).unwrap();
        came.broken = (came.body.len() as u64) < length;
        Some(came)
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        (self.0.read_line(&mut line).unwrap() > 0).then(|| line.trim_end().to_owned())
    }

    fn get(&mut self, target: &str) -> Came {
        self.ask("GET", target, &[], b"")
    }

    fn put(&mut self, target: &str, media_type: &str, body: &[u8]) -> Came {
        self.ask("PUT", target, &[("Content-Type", media_type)], body)
    }
}

impl Came {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn location(&self) -> String {
        self.header("location").unwrap().to_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn code(&self) -> (u16, String) {
        (self.status, self.json()["errors"][0]["code"].as_str().unwrap().to_owned())
    }
}

/// The manifest of an artifact without content, about a subject if there is one.
fn artifact(kind: &str, subject: Option<&Digest>) -> Vec<u8> {
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind, "layers": [], "annotations": {"kind": kind},
    });
    if let Some(subject) = subject {
        manifest["subject"] = json!({"mediaType": MANIFEST, "digest": subject, "size": 1});
    }
    manifest.to_string().into_bytes()
}

#[test]
fn a_blob_and_its_manifest_go_in_and_come_out_over_one_connection() {
    let registry = TestRegistry::start(Behaviour::default());
    let mut client = Client::of(&registry);
    let blob = vec![7; 300_000];
    let digest = Digest::of(&blob);
    let begun = client.ask("POST", "/v2/a/b/blobs/uploads/", &[], b"");
    assert_eq!((begun.status, begun.location().starts_with("/v2/a/b/blobs/uploads/")), (202, true));
    let ended = client.ask("PUT", &format!("{}&digest={digest}", begun.location()), &[], &blob);
    assert_eq!((ended.status, ended.header("docker-content-digest")), (201, Some(digest.to_string().as_str())));
    assert_eq!(client.get(&ended.location()).body, blob);

    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest, "size": blob.len()}, "layers": [],
    });
    let manifest = manifest.to_string().into_bytes();
    assert_eq!(client.put("/v2/a/b/manifests/v1", MANIFEST, &manifest).status, 201);
    let elsewhere = client.put("/v2/c/manifests/v1", MANIFEST, &manifest);
    assert_eq!(elsewhere.code(), (404, "MANIFEST_BLOB_UNKNOWN".to_owned()), "blobs belong to one repository");
    let came = client.get("/v2/a/b/manifests/v1");
    assert_eq!((came.header("content-type"), &came.body), (Some(MANIFEST), &manifest));
    let head = client.ask("HEAD", &format!("/v2/a/b/manifests/{}", Digest::of(&manifest)), &[], b"");
    assert_eq!(head.header("content-length"), Some(manifest.len().to_string().as_str()));

    assert_eq!(registry.manifest("a/b", "v1"), Some((MANIFEST.to_owned(), manifest)));
    assert_eq!((registry.tags("a/b"), registry.manifests("a/b").len()), (vec!["v1".to_owned()], 1));
    assert_eq!(registry.blob("a/b", &digest.to_string()), Some(blob));
    let log = registry.log();
    assert_eq!((log.len(), log[1].method.as_str(), log[1].status, log[1].body_bytes), (7, "PUT", 201, 300_000));
}

#[test]
fn what_is_not_what_it_says_is_refused() {
    let registry = TestRegistry::start(Behaviour::default());
    let mut client = Client::of(&registry);
    let (wrong, code) = (Digest::of(b"other"), |status, code: &str| (status, code.to_owned()));
    let monolithic = format!("/v2/a/blobs/uploads/?digest={wrong}");
    assert_eq!(client.ask("POST", &monolithic, &[], b"this").code(), code(400, "DIGEST_INVALID"));
    let manifest = artifact("x", None);
    assert_eq!(
        client.put(&format!("/v2/a/manifests/{wrong}"), MANIFEST, &manifest).code(),
        code(400, "DIGEST_INVALID")
    );
    assert_eq!(client.put("/v2/a/manifests/v1", INDEX, &manifest).code(), code(400, "MANIFEST_INVALID"));
    assert_eq!(client.put("/v2/a/manifests/v1", MANIFEST, b"{").code(), code(400, "MANIFEST_INVALID"));
    assert_eq!(client.put("/v2/a/manifests/.v1", MANIFEST, &manifest).code(), code(400, "TAG_INVALID"));
    assert_eq!(client.put("/v2/A/manifests/v1", MANIFEST, &manifest).code(), code(400, "NAME_INVALID"));
    assert_eq!(client.get("/v2/a/blobs/sha256:..").code(), code(400, "DIGEST_INVALID"));
    assert_eq!(client.get(&format!("/v2/a/blobs/{wrong}")).code(), code(404, "BLOB_UNKNOWN"));
    assert_eq!(client.get("/v2/a/manifests/v1").code(), code(404, "MANIFEST_UNKNOWN"));
    assert_eq!(client.get("/v2/a/tags/list").code(), code(404, "NAME_UNKNOWN"));
    assert!(registry.manifests("a").is_empty());
}

#[test]
fn the_address_of_an_upload_must_come_back_as_it_was_given() {
    let registry = TestRegistry::start(Behaviour { cap: Some(4), ..Behaviour::default() });
    let mut client = Client::of(&registry);
    let first = client.ask("POST", "/v2/a/blobs/uploads/", &[], b"").location();
    let (path, _) = first.split_once('?').unwrap();
    assert_eq!(client.ask("PATCH", path, &[], b"0123").status, 400, "without the state");
    assert_eq!(client.ask("PATCH", &first, &[], b"01234").status, 416, "over the cap");
    let second = client.ask("PATCH", &first, &[("Content-Range", "0-3")], b"0123");
    assert_eq!((second.status, second.header("range")), (202, Some("0-3")));
    assert_eq!(client.ask("PATCH", &first, &[], b"4567").status, 400, "an old state");
    let status = client.get(&first);
    assert_eq!((status.status, status.header("range")), (204, Some("0-3")), "an old state may ask where it is");
    let again = client.ask("PATCH", &status.location(), &[("Content-Range", "0-3")], b"0123");
    assert_eq!(again.status, 416, "out of order");
    let digest = Digest::of(b"01234567");
    let ended = client.ask("PUT", &format!("{}&digest={digest}", again.location()), &[], b"4567");
    assert_eq!((ended.status, registry.blob("a", &digest.to_string())), (201, Some(b"01234567".to_vec())));

    let given_up = client.ask("POST", "/v2/a/blobs/uploads/", &[], b"").location();
    assert_eq!((client.ask("DELETE", &given_up, &[], b"").status, registry.open_uploads()), (204, 0));
    let whole = format!("/v2/a/blobs/uploads/?digest={digest}");
    assert_eq!(client.ask("POST", &whole, &[], b"01234567").code(), (416, "SIZE_INVALID".to_owned()));

    registry.behave(Behaviour { chunk_min: Some(4), ..Behaviour::default() });
    let begun = client.ask("POST", "/v2/a/blobs/uploads/", &[], b"");
    assert_eq!(begun.header("oci-chunk-min-length"), Some("4"));
    let large = client.ask("PATCH", &begun.location(), &[], b"0123");
    let small = client.ask("PATCH", &large.location(), &[], b"45");
    assert_eq!((large.status, small.status), (202, 202), "this could be the last one");
    assert_eq!(client.ask("PATCH", &small.location(), &[], b"6789").code(), (400, "SIZE_INVALID".to_owned()));

    registry.behave(Behaviour { absolute: true, ..Behaviour::default() });
    let begun = client.ask("POST", "/v2/a/blobs/uploads/", &[], b"");
    assert!(begun.location().starts_with(&format!("http://{}/v2/a/", registry.host())), "{begun:?}");
    assert_eq!(client.ask("POST", &format!("/v2/b/blobs/uploads/?mount={digest}&from=a"), &[], b"").status, 201);
    registry.behave(Behaviour { mount401: true, ..Behaviour::default() });
    assert_eq!(client.ask("POST", &format!("/v2/c/blobs/uploads/?mount={digest}&from=a"), &[], b"").status, 401);
}

#[test]
fn a_token_is_good_for_its_repository_and_so_many_requests() {
    let credentials = Some(("user".to_owned(), "word".to_owned()));
    let refusal = TokenRefusal { status: 403, challenge: false };
    let auth = Behaviour { auth: Auth::Bearer, credentials, token_uses: Some(2), ..Behaviour::default() };
    let registry = TestRegistry::start(Behaviour { token_refusal: refusal, ..auth });
    let mut client = Client::of(&registry);
    let asked = client.ask("POST", "/v2/a/blobs/uploads/", &[], b"");
    let host = registry.host();
    let challenge = format!(r#"Bearer realm="http://{host}/token",service="{host}",scope="repository:a:pull,push""#);
    assert_eq!((asked.status, asked.header("www-authenticate")), (401, Some(challenge.as_str())));

    let service = format!("/token?service={host}&scope=repository:a:pull,push");
    assert_eq!(client.get(&service).status, 401, "nobody without a name");
    // user:wrong and user:word
    assert_eq!(client.ask("GET", &service, &[("Authorization", "Basic dXNlcjp3cm9uZw==")], b"").status, 401);
    let given = client.ask("GET", &service, &[("Authorization", "Basic dXNlcjp3b3Jk")], b"").json();
    assert_eq!((&given["token"], given.as_object().unwrap().len()), (&given["access_token"], 2), "no lifetime");
    let bearer = format!("Bearer {}", given["token"].as_str().unwrap());
    let mut with_token = |target: &str| client.ask("POST", target, &[("Authorization", &bearer)], b"");
    assert_eq!(with_token("/v2/a/blobs/uploads/").status, 202);
    let elsewhere = with_token("/v2/b/blobs/uploads/");
    assert!(elsewhere.header("www-authenticate").unwrap().contains("insufficient_scope"), "{elsewhere:?}");
    let dead = with_token("/v2/a/blobs/uploads/");
    assert_eq!((dead.status, dead.header("www-authenticate")), (403, None));
    assert_eq!(registry.log().last().unwrap().authorization.as_deref(), Some(bearer.as_str()));
}

#[test]
fn other_ways_to_say_who_one_is() {
    let credentials = Some(("user".to_owned(), "word".to_owned()));
    let basic = Behaviour { auth: Auth::Basic, credentials, ..Behaviour::default() };
    let registry = TestRegistry::start(basic.clone());
    let mut client = Client::of(&registry);
    assert_eq!(client.get("/v2/").header("www-authenticate"), Some(r#"Basic realm="registry""#));
    assert_eq!(client.ask("GET", "/v2/", &[("Authorization", "Basic dXNlcjp3b3Jk")], b"").status, 200);

    let identity_token = Some("identity".to_owned());
    registry.behave(Behaviour { auth: Auth::Bearer, identity_token, access_only: true, anonymous_pull: true, ..basic });
    let form = "grant_type=refresh_token&service=x&client_id=y&scope=repository%3Aa%3Apush&refresh_token=";
    assert_eq!(client.ask("POST", "/token", &[], format!("{form}other").as_bytes()).status, 401);
    let given = client.ask("POST", "/token", &[], format!("{form}identity").as_bytes()).json();
    assert_eq!(given.as_object().unwrap().keys().collect::<Vec<_>>(), ["access_token"]);
    let bearer = format!("Bearer {}", given["access_token"].as_str().unwrap());
    assert_eq!(client.ask("POST", "/v2/a/blobs/uploads/", &[("Authorization", &bearer)], b"").status, 202);
    let anonymous = client.get("/token?scope=repository:a:pull,push").json();
    let bearer = format!("Bearer {}", anonymous["access_token"].as_str().unwrap());
    assert_eq!(client.ask("GET", "/v2/a/manifests/x", &[("Authorization", &bearer)], b"").status, 404);
    assert_eq!(client.ask("POST", "/v2/a/blobs/uploads/", &[("Authorization", &bearer)], b"").status, 401);
}

#[test]
fn referrers_come_in_pages_or_not_at_all() {
    let registry =
        TestRegistry::start(Behaviour { referrers_per_page: Some(2), links: Links::Query, ..Behaviour::default() });
    let mut client = Client::of(&registry);
    let subject = Digest::of(b"subject, not there yet");
    for kind in ["one", "two", "three"] {
        let put = client.put(&format!("/v2/a/manifests/{kind}"), MANIFEST, &artifact(kind, Some(&subject)));
        assert_eq!(put.header("oci-subject"), Some(subject.to_string().as_str()));
    }
    let path = format!("/v2/a/referrers/{subject}");
    let page = client.get(&path);
    assert_eq!((page.header("content-type"), page.header("link")), (Some(INDEX), Some("<?start=2>; rel=\"next\"")));
    let rest = client.get(&format!("{path}?start=2"));
    assert_eq!(rest.header("link"), None);
    let entries = [page.json(), rest.json()].map(|index| index["manifests"].as_array().unwrap().clone()).concat();
    assert_eq!(entries.len(), 3);
    let two = client.get(&format!("{path}?artifactType=two"));
    assert_eq!(two.header("oci-filters-applied"), Some("artifactType"));
    let found = two.json()["manifests"].clone();
    assert_eq!((&found[0]["artifactType"], &found[0]["annotations"]), (&json!("two"), &json!({"kind": "two"})));
    assert_eq!(found.as_array().unwrap().len(), 1);

    registry.behave(Behaviour::without_referrers());
    assert_eq!(client.get(&path).status, 404);
    let put = client.put("/v2/a/manifests/four", MANIFEST, &artifact("four", Some(&subject)));
    assert_eq!((put.status, put.header("oci-subject")), (201, None));
}

#[test]
fn tags_come_in_order_and_in_pages() {
    let registry = TestRegistry::start(Behaviour { immutable: true, ..Behaviour::default() });
    let mut client = Client::of(&registry);
    for tag in ["c", "a", "b"] {
        assert_eq!(client.put(&format!("/v2/r/manifests/{tag}"), MANIFEST, &artifact(tag, None)).status, 201);
    }
    let page = client.get("/v2/r/tags/list?n=2");
    assert_eq!(page.header("link"), Some("</v2/r/tags/list?n=2&last=b>; rel=\"next\""));
    assert_eq!(page.json(), json!({"name": "r", "tags": ["a", "b"]}));
    assert_eq!(client.get("/v2/r/tags/list?n=2&last=b").json()["tags"], json!(["c"]));
    let again = client.put("/v2/r/manifests/a", MANIFEST, &artifact("other", None));
    assert_eq!(again.code(), (400, "TAG_INVALID".to_owned()));
    assert_eq!(client.ask("DELETE", "/v2/r/manifests/a", &[], b"").status, 202);
    assert_eq!((registry.tags("r"), registry.manifests("r").len()), (vec!["b".to_owned(), "c".to_owned()], 3));
}

#[test]
fn blobs_behind_another_address_and_in_parts() {
    let registry = TestRegistry::start(Behaviour { signedget: true, nodigest: true, ..Behaviour::default() });
    let mut client = Client::of(&registry);
    let path = format!("/v2/a/blobs/{}", registry.put_blob("a", b"0123456789"));
    let sent = client.ask("HEAD", &path, &[], b"");
    assert_eq!((sent.status, sent.header("docker-content-digest")), (307, None));
    let location = sent.location();
    let address = location.strip_prefix(&format!("http://{}", registry.host())).unwrap();
    assert!(address.starts_with("/signed/a/"));
    assert_eq!(client.get(address).body, b"0123456789");
    assert_eq!(client.ask("HEAD", address, &[], b"").status, 403);
    assert_eq!(client.get(address.split('?').next().unwrap()).status, 403);

    registry.behave(Behaviour { head405: true, ..Behaviour::default() });
    assert_eq!(client.ask("HEAD", &path, &[], b"").status, 405);
    let mut part = |range: &str| {
        let came = client.ask("GET", &path, &[("Range", range)], b"");
        let range = came.header("content-range").unwrap_or_default().to_owned();
        (came.status, range, if came.status == 416 { Vec::new() } else { came.body })
    };
    assert_eq!(part("bytes=2-3"), (206, "bytes 2-3/10".to_owned(), b"23".to_vec()));
    assert_eq!(part("bytes=7-"), (206, "bytes 7-9/10".to_owned(), b"789".to_vec()));
    assert_eq!(part("bytes=-1"), (206, "bytes 9-9/10".to_owned(), b"9".to_vec()));
    assert_eq!(part("bytes=10-"), (416, "bytes */10".to_owned(), Vec::new()));
    assert_eq!(part("bytes=0-1,3-4"), (200, String::new(), b"0123456789".to_vec()));
}

#[test]
fn bodies_in_chunks_and_bodies_that_wait_for_leave() {
    let registry = TestRegistry::start(Behaviour::default());
    let mut client = Client::of(&registry);
    let address = client.ask("POST", "/v2/a/blobs/uploads/", &[], b"").location();
    let head = format!("PATCH {address} HTTP/1.1\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.0.get_mut().write_all(head.as_bytes()).unwrap();
    assert_eq!(client.receive("PATCH").unwrap().status, 100);
    client.0.get_mut().write_all(b"3\r\n012\r\n4;x=y\r\n3456\r\n0\r\nTrailer: x\r\n\r\n").unwrap();
    let came = client.receive("PATCH").unwrap();
    assert_eq!((came.status, came.header("range")), (202, Some("0-6")));

    let second = TestRegistry::start(Behaviour { auth: Auth::Bearer, ..Behaviour::default() });
    let mut client = Client::of(&second);
    client.send("PATCH", &address, &[("Expect", "100-continue")], b"");
    assert_eq!(client.receive("PATCH").unwrap().status, 401, "an empty body is not waited for");
    client.0.get_mut().write_all(head.as_bytes()).unwrap();
    let refused = client.receive("PATCH").unwrap();
    assert_eq!((refused.status, refused.header("connection")), (401, Some("close")), "nobody reads the body");
}

#[test]
fn scripted_answers() {
    let moving: [&[u8]; 2] = [b"{\"one\":1}", b"{\"two\":2}"];
    let mut faults = Fault::tag_moves("/manifests/moving$", MANIFEST, &moving);
    faults.extend([
        Fault::unavailable("/manifests/busy", 2),
        Fault::too_many_requests(When::get("/manifests/many"), "Sun, 06 Nov 1994 08:49:37 GMT"),
        Fault::upload_at("http://other.test"),
        Fault::redirect_without_end("/manifests/loop"),
        Fault::next_page("?page={number}"),
        Fault::large_manifest("/manifests/large", MANIFEST, 4 * 1024 * 1024 + 1),
        Fault::media_type_refused("docker.distribution.manifest.v2", 415),
        Fault::other_digest("/manifests/lies", "sha256:0"),
    ]);
    let registry = TestRegistry::start(Behaviour::with_faults(faults));
    registry.put_manifest("a", "lies", MANIFEST, b"{}");
    let mut client = Client::of(&registry);
    let statuses = [0; 3].map(|_| client.get("/v2/a/manifests/busy").status);
    assert_eq!(statuses, [503, 503, 404]);
    let digests = [0; 3].map(|_| {
        let came = client.get("/v2/a/manifests/moving");
        assert_eq!(came.header("docker-content-digest"), Some(Digest::of(&came.body).to_string().as_str()));
        came.body
    });
    assert_eq!(digests, [moving[0], moving[1], moving[1]]);
    let many = client.get("/v2/a/manifests/many");
    assert_eq!((many.status, many.header("retry-after")), (429, Some("Sun, 06 Nov 1994 08:49:37 GMT")));
    let begun = client.ask("POST", "/v2/a/blobs/uploads/", &[], b"");
    assert!(begun.location().starts_with("http://other.test/v2/a/blobs/uploads/"), "{begun:?}");
    assert_eq!(client.get("/v2/a/manifests/loop?hop=1").location(), "/v2/a/manifests/loop?hop=1");
    assert_eq!(client.get("/v2/a/manifests/loop?hop=1").location(), "/v2/a/manifests/loop?hop=2");
    let page = client.get(&format!("/v2/a/referrers/{}", Digest::of(b"")));
    assert_eq!((page.status, page.header("link")), (200, Some("<?page=1>; rel=\"next\"")));
    assert_eq!(client.get("/v2/a/manifests/large").body.len(), 4 * 1024 * 1024 + 1);
    let docker = client.put("/v2/a/manifests/x", "application/vnd.docker.distribution.manifest.v2+json", b"{}");
    assert_eq!(docker.code(), (415, "MANIFEST_INVALID".to_owned()));
    assert_eq!(client.get("/v2/a/manifests/lies").header("docker-content-digest"), Some("sha256:0"));
}

#[test]
fn bodies_that_are_not_as_long_as_they_should_be() {
    let blobs = ["cut", "more", "less", "lies"].map(|text| (text, Digest::of(text.as_bytes())));
    let [cut, more, less, lies] = blobs.map(|(_, digest)| format!("/v2/a/blobs/{digest}"));
    let registry = TestRegistry::start(Behaviour::with_faults([
        Fault::cut(When::get(&cut).first(1), 2),
        Fault::longer(&more, 3),
        Fault::claimed_length(&less, 2),
        Fault::claimed_length(&lies, 1000),
    ]));
    for (text, _) in blobs {
        registry.put_blob("a", text.as_bytes());
    }
    let get = |path: &str| {
        let came = Client::of(&registry).get(path);
        (came.header("content-length").unwrap().to_owned(), came.body, came.broken)
    };
    assert_eq!(get(&cut), ("3".to_owned(), b"cu".to_vec(), true));
    assert_eq!(get(&cut), ("3".to_owned(), b"cut".to_vec(), false), "only once");
    assert_eq!(get(&more), ("7".to_owned(), b"more\0\0\0".to_vec(), false));
    assert_eq!(get(&less), ("2".to_owned(), b"le".to_vec(), false));
    assert_eq!(get(&lies), ("1000".to_owned(), b"lies".to_vec(), true));
}

#[test]
fn answers_that_do_not_say_what_was_done() {
    let registry = TestRegistry::start(Behaviour::with_faults([
        Fault::lost_update(2),
        Fault::manifest_not_kept("/manifests/gone"),
        When::put("/manifests/unsaid").then(Then::Close { done: true }),
        When::put("/manifests/nothing").then(Then::Close { done: false }),
    ]));
    let mut client = Client::of(&registry);
    let (first, second) = (artifact("first", None), artifact("second", None));
    let tag = "sha256-00";
    for manifest in [&first, &second] {
        assert_eq!(client.put(&format!("/v2/a/manifests/{tag}"), MANIFEST, manifest).status, 201);
    }
    assert_eq!(registry.manifest("a", tag).unwrap().1, first);
    assert!(registry.manifest("a", &Digest::of(&second).to_string()).is_some(), "only the tag went back");
    assert_eq!(client.put("/v2/a/manifests/gone", MANIFEST, &artifact("gone", None)).status, 201);
    assert_eq!(registry.manifests("a").len(), 2);
    for tag in ["unsaid", "nothing"] {
        let mut client = Client::of(&registry);
        client.send("PUT", &format!("/v2/a/manifests/{tag}"), &[("Content-Type", MANIFEST)], &artifact(tag, None));
        assert!(client.receive("PUT").is_none(), "{tag}");
    }
    assert_eq!(registry.tags("a"), [tag, "unsaid"]);
    assert_eq!(registry.log().last().unwrap().status, 0);
}

#[test]
fn faults_come_before_the_door_only_if_they_say_so() {
    let auth = Behaviour { auth: Auth::Bearer, ..Behaviour::default() };
    let faults =
        vec![Fault::refused(When::get("/manifests/x").first(1), 500, "UNKNOWN"), Fault::unavailable("/blobs/", 1)];
    let registry = TestRegistry::start(Behaviour { faults, ..auth.clone() });
    let mut client = Client::of(&registry);
    let blob = format!("/v2/a/blobs/{}", Digest::of(b""));
    assert_eq!((client.get(&blob).status, client.get(&blob).status), (503, 401));
    assert_eq!(client.get("/v2/a/manifests/x").status, 401);
    let token = client.get("/token?scope=repository:a:pull").json()["token"].as_str().unwrap().to_owned();
    let bearer = format!("Bearer {token}");
    let mut get = || client.ask("GET", "/v2/a/manifests/x", &[("Authorization", &bearer)], b"").status;
    assert_eq!((get(), get()), (500, 404));

    registry.behave(Behaviour { faults: vec![Fault::realm_at("http://other.test/token")], ..auth.clone() });
    let mut client = Client::of(&registry);
    let sent = client.get("/v2/a/manifests/x").header("www-authenticate").unwrap().to_owned();
    assert!(sent.starts_with(r#"Bearer realm="http://other.test/token","#), "{sent}");
    registry.behave(Behaviour { faults: vec![Fault::always_unauthorized()], ..auth });
    let loops = client.ask("GET", "/v2/a/manifests/x", &[("Authorization", &bearer)], b"");
    let challenge = loops.header("www-authenticate").unwrap();
    assert!(challenge.ends_with(r#"scope="repository:a:pull""#), "{challenge}");
}

#[test]
fn answers_from_a_folder_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let routes = json!({
        "GET /v2/": {"status": 200, "headers": {}, "text": "{}"},
        "GET /v2/a/referrers/x": {"status": 200, "headers": {"Link": "<?n=3&last=x>; rel=next"}, "text": "first"},
        "GET /v2/a/referrers/x?n=3&last=x": {"status": 200, "headers": {"Content-Type": "a/b"}, "file": "page"},
        "HEAD /v2/a/referrers/x": {"status": 403, "headers": {}, "text": ""},
    });
    std::fs::write(folder.path().join("routes.json"), routes.to_string()).unwrap();
    std::fs::write(folder.path().join("page"), "second").unwrap();
    let registry = TestRegistry::start(Behaviour::with_faults(Fault::routes(folder.path())));
    registry.put_manifest("a", "v1", MANIFEST, b"{}");
    let mut client = Client::of(&registry);
    let first = client.get("/v2/a/referrers/x");
    assert_eq!((first.header("link"), first.body.as_slice()), (Some("<?n=3&last=x>; rel=next"), &b"first"[..]));
    let second = client.get("/v2/a/referrers/x?n=3&last=x");
    assert_eq!((second.header("content-type"), second.body.as_slice()), (Some("a/b"), &b"second"[..]));
    assert_eq!(client.ask("HEAD", "/v2/a/referrers/x", &[], b"").status, 403);
    assert_eq!(client.ask("HEAD", "/v2/", &[], b"").header("content-length"), Some("2"));
    assert_eq!(client.get("/v2/a/manifests/v1").status, 404);
}

#[test]
fn a_connection_that_somebody_else_accepted() {
    struct Both(std::io::Cursor<Vec<u8>>, Vec<u8>);
    impl Read for Both {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(buffer)
        }
    }
    impl Write for Both {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.1.write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let registry = TestRegistry::start(Behaviour { auth: Auth::Bearer, ..Behaviour::default() });
    let asked = b"GET /v2/ HTTP/1.1\r\n\r\nGET /v2/ HTTP/1.1\r\nConnection: close\r\n\r\nGET /never HTTP/1.1\r\n\r\n";
    let mut both = Both(std::io::Cursor::new(asked.to_vec()), Vec::new());
    registry.serve(&mut both, "https://tls.test").unwrap();
    let answered = String::from_utf8(both.1).unwrap();
    assert_eq!(answered.matches(r#"Bearer realm="https://tls.test/token",service="tls.test""#).count(), 2);
    assert_eq!(registry.log().len(), 2);
    let mut garbage = Both(std::io::Cursor::new(b"what?\r\n\r\n".to_vec()), Vec::new());
    registry.serve(&mut garbage, "https://tls.test").unwrap();
    assert!(garbage.1.starts_with(b"HTTP/1.1 400 "));
}

#[test]
fn a_registry_that_is_dropped_lets_go_of_those_it_held() {
    let registry = TestRegistry::start(Behaviour::with_faults([
        Fault::no_answer("/v2/held"),
        Fault::large_manifest("/manifests/endless", MANIFEST, u64::MAX),
    ]));
    let (mut held, mut endless) = (Client::of(&registry), Client::of(&registry));
    held.send("GET", "/v2/held/tags/list", &[], b"");
    endless.send("GET", "/v2/a/manifests/endless", &[], b"");
    while registry.log().len() < 2 {
        std::thread::yield_now();
    }
    let host = registry.host();
    drop(registry);
    assert!(held.receive("GET").is_none());
    assert!(std::io::copy(&mut endless.0, &mut std::io::sink()).is_ok(), "it has an end now");
    assert!(TcpStream::connect(host).is_err());
}

#[test]
fn many_at_the_same_time_lose_nothing() {
    let registry = TestRegistry::start("auth,uses=3".parse().unwrap());
    std::thread::scope(|scope| {
        for number in 0..16 {
            let registry = &registry;
            scope.spawn(move || {
                let mut client = Client::of(registry);
                let token =
                    client.get("/token?scope=repository:a:pull,push").json()["token"].as_str().unwrap().to_owned();
                let auth = [("Authorization", format!("Bearer {token}"))];
                let auth = auth.each_ref().map(|(name, value)| (*name, value.as_str()));
                let bytes = format!("{number}").repeat(10_000).into_bytes();
                let begun = client.ask("POST", "/v2/a/blobs/uploads/", &auth, b"");
                let end = format!("{}&digest={}", begun.location(), Digest::of(&bytes));
                assert_eq!(client.ask("PUT", &end, &auth, &bytes).status, 201);
                let put = client.ask("PUT", &format!("/v2/a/manifests/{number}"), &auth, &artifact("x", None));
                assert_eq!(
                    (put.status, client.ask("GET", "/v2/", &auth, b"").status),
                    (201, 401),
                    "the token is used up"
                );
                assert_eq!(registry.blob("a", &Digest::of(&bytes).to_string()), Some(bytes));
            });
        }
    });
    assert_eq!((registry.tags("a").len(), registry.manifests("a").len(), registry.log().len()), (16, 1, 16 * 5));
}

#[test]
fn words_of_the_field_cases() {
    let behaviour: Behaviour = "auth,access-only,uses=4,refuse=403,cap=10,no-referrers".parse().unwrap();
    let refusal = TokenRefusal { status: 403, challenge: false };
    assert_eq!((behaviour.auth, behaviour.access_only, behaviour.token_uses), (Auth::Bearer, true, Some(4)));
    assert_eq!((behaviour.token_refusal, behaviour.cap, behaviour.referrers), (refusal, Some(10), false));
    assert!("nonsense".parse::<Behaviour>().is_err());
    assert_eq!("".parse(), Ok(Behaviour::default()));
}

#[test]
fn dates_and_large_indices() {
    let at = |seconds| http_date(UNIX_EPOCH + Duration::from_secs(seconds));
    assert_eq!(at(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!(at(951_827_696), "Tue, 29 Feb 2000 12:34:56 GMT");
    let index: Value = serde_json::from_slice(&large_index(100_000)).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 100_000);
}
