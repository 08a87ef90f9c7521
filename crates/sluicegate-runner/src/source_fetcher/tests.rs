use std::{
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    os::unix::fs::{PermissionsExt, symlink},
    thread,
};

use super::*;

/// A mirror on this machine, and a cache.
struct World {
    mirror: tempfile::TempDir,
    cache: tempfile::TempDir,
    limits: FetchLimits,
    stop: Stop,
}

impl World {
    /// With one commit of a file, a program, a link and a folder.
    fn new() -> Self {
        let mirror = tempfile::tempdir().unwrap();
        let at = |name: &str| mirror.path().join(name);
        fs::write(at("file"), "one\n").unwrap();
        fs::write(at("run"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(at("run"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("/etc/passwd", at("link")).unwrap();
        fs::create_dir_all(at("deep/er")).unwrap();
        fs::write(at("deep/er/file"), "one\n").unwrap();
        let world =
            Self { mirror, cache: tempfile::tempdir().unwrap(), limits: FetchLimits::default(), stop: Stop::default() };
        world.git(&["init", "--quiet", "--initial-branch=main"]);
        world.commit();
        world
    }

    fn git(&self, args: &[&str]) -> String {
        git(self.mirror.path(), args)
    }

    fn commit(&self) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", "x"]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.mirror.path().join(name), text).unwrap();
    }

    fn url(&self) -> String {
        format!("file://{}", self.mirror.path().display())
    }

    fn fetch(&self, reference: &str) -> Result<FetchedSource, TreeError> {
        self.fetch_from(&self.url(), reference)
    }

    fn fetch_from(&self, url: &str, reference: &str) -> Result<FetchedSource, TreeError> {
        let settings = FetchSettings {
            only: None,
            cache: self.cache.path().join("git"),
            proxy: None,
            no_proxy: None,
            certificates: None,
            limits: self.limits,
        };
        GitSourceFetcher::new(settings).fetch(url, reference, &self.stop)
    }

    #[track_caller]
    fn refused(&self, reference: &str, says: &str) {
        let error = self.fetch(reference).unwrap_err();
        assert!(matches!(error, TreeError::Reference { .. } | TreeError::Address { .. }), "{error:?}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

fn git(folder: &Path, args: &[&str]) -> String {
    let identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"];
    let done = Command::new("git").args(identity).args(args).current_dir(folder).output().unwrap();
    assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// What was fetched, in lines.
fn lines(source: &FetchedSource) -> Vec<String> {
    let mut lines: Vec<String> = source
        .entries
        .iter()
        .map(|entry| {
            let what = match &entry.kind {
                EntryKind::GitBlob { source, executable, .. } => {
                    format!("{executable} {:?}", fs::read_to_string(source).unwrap())
                }
                EntryKind::Symlink(target) => format!("-> {}", target.display()),
                other => panic!("{other:?}"),
            };
            format!("{} {what}", entry.path.display())
        })
        .collect();
    lines.sort();
    lines
}

const FIRST: [&str; 4] =
    [r#"deep/er/file false "one\n""#, r#"file false "one\n""#, "link -> /etc/passwd", r##"run true "#!/bin/sh\n""##];

#[test]
fn a_branch_a_tag_and_a_commit_are_what_they_name_now() {
    let world = World::new();
    let first = world.git(&["rev-parse", "HEAD"]);
    world.git(&["tag", "--annotate", "--message", "v1", "v1"]);
    world.git(&["tag", "--annotate", "--message", "v1", "of-a-tag", "v1"]);
    world.git(&["branch", "some/where"]);
    let date: u64 = world.git(&["log", "-1", "--format=%ct"]).parse().unwrap();
    for (reference, full) in [
        ("main", "refs/heads/main"),
        ("some/where", "refs/heads/some/where"),
        ("refs/heads/main", "refs/heads/main"),
        ("v1", "refs/tags/v1"),
        ("of-a-tag", "refs/tags/of-a-tag"),
        ("HEAD", "HEAD"),
        (first.as_str(), first.as_str()),
    ] {
        let source = world.fetch(reference).unwrap();
        assert_eq!((source.commit.as_str(), source.reference.as_str()), (first.as_str(), full), "{reference}");
        assert_eq!((lines(&source), source.commit_time), (FIRST.map(str::to_owned).to_vec(), date), "{reference}");
    }
    let plain = world.fetch_from(&world.mirror.path().display().to_string(), "main").unwrap();
    assert_eq!(plain.commit, first);
    // What lies in the mirror's folder and is in no commit is not published.
    world.write("file", "two\n");
    assert_eq!(lines(&world.fetch("main").unwrap()), FIRST);
    let second = world.commit();
    let moved = world.fetch("main").unwrap();
    assert_eq!((moved.commit.as_str(), lines(&moved)[1].as_str()), (second.as_str(), r#"file false "two\n""#));
    assert_eq!(world.fetch("v1").unwrap().commit, first);
    // Not its history: a commit behind it is asked for by its name.
    let fresh = World { cache: tempfile::tempdir().unwrap(), ..world };
    fresh.fetch("main").unwrap();
    assert_eq!(lines(&fresh.fetch(&first).unwrap()), FIRST);
}

#[test]
fn a_commit_that_was_fetched_is_there_without_asking_and_a_name_never_is() {
    let world = World::new();
    let first = world.git(&["rev-parse", "HEAD"]);
    world.fetch("main").unwrap();
    fs::rename(world.mirror.path().join(".git"), world.mirror.path().join("gone")).unwrap();
    assert_eq!(lines(&world.fetch(&first).unwrap()), FIRST);
    let error = world.fetch("main").unwrap_err();
    assert!(matches!(error, TreeError::Fetch { .. }), "{error:?}");
    assert!(error.to_string().contains(&world.url()), "{error}");
}

#[test]
fn a_repository_beside_the_one_that_was_named_is_not_taken_for_it() {
    let world = World::new();
    let bare = |name: &str| {
        let folder = world.cache.path().join(name);
        git(world.mirror.path(), &["clone", "--quiet", "--bare", ".", &folder.display().to_string()]);
        folder
    };
    let named = bare("named");
    bare("named.git");
    let url = format!("file://{}", named.display());
    assert_eq!(lines(&world.fetch_from(&url, "main").unwrap()), FIRST);
    fs::write(named.join("HEAD"), "none of git's\n").unwrap();
    let error = world.fetch_from(&url, "main").unwrap_err();
    assert!(matches!(error, TreeError::Fetch { .. }), "{error:?}");
}

#[test]
fn a_name_that_is_none_or_two_is_refused() {
    let world = World::new();
    world.git(&["tag", "both"]);
    world.fetch("both").unwrap();
    world.write("file", "two\n");
    let second = world.commit();
    world.git(&["branch", "both"]);
    world.refused("both", "there are refs/heads/both and refs/tags/both");
    assert_eq!(world.fetch("refs/heads/both").unwrap().commit, second);
    assert_ne!(world.fetch("refs/tags/both").unwrap().commit, second);
    world.refused("nothing", "there is no refs/heads/nothing and no refs/tags/nothing");
    world.refused("nothing", "; branches are both, main");
    for nth in 0..10 {
        world.git(&["branch", &format!("b{nth}")]);
    }
    world.refused("nothing", ", b9 and 2 more");
    world.refused(&second[..10], "all its 40 digits");
    world.refused("--upload-pack=touch /tmp/x", "names no branch");
    let error = world.fetch_from("ext::sh -c touch% /tmp/x", "main").unwrap_err().to_string();
    assert!(error.contains("https://HOST/PATH"), "{error}");
    let error = world.fetch_from("https://me:word@git.example/a", "main").unwrap_err().to_string();
    assert!(error.contains("password") && !error.contains("word@"), "{error}");
    let unknown = world.fetch(&"1".repeat(40)).unwrap_err();
    assert!(matches!(unknown, TreeError::Fetch { .. }), "{unknown:?}");
    // A folder has a name like a commit's and is none.
    let tree = world.git(&["rev-parse", "HEAD^{tree}"]);
    assert!(world.fetch(&tree).is_err());
}

#[test]
fn nothing_but_the_commits_bytes_decides_what_a_file_holds_and_no_program_of_it_is_started() {
    let world = World::new();
    let mark = world.cache.path().join("started");
    let touch = format!("touch {}; cat", mark.display());
    world.write(".gitattributes", "* filter=own text eol=crlf ident export-subst\nfile export-ignore\n");
    world.write("expand", "$Id$ $Format:%H$\n");
    for key in ["filter.own.smudge", "filter.own.process", "core.fsmonitor", "uploadpack.packObjectsHook"] {
        world.git(&["config", key, &touch]);
    }
    let hooks = world.mirror.path().join(".git/hooks");
    for hook in ["post-checkout", "reference-transaction", "post-merge", "pre-auto-gc"] {
        fs::write(hooks.join(hook), format!("#!/bin/sh\n{touch}\n")).unwrap();
        fs::set_permissions(hooks.join(hook), fs::Permissions::from_mode(0o755)).unwrap();
    }
    world.git(&[
        "-c",
        "filter.own.process=",
        "-c",
        "filter.own.smudge=",
        "-c",
        "core.hooksPath=/dev/null",
        "add",
        "--all",
    ]);
    world.git(&["-c", "core.hooksPath=/dev/null", "commit", "--quiet", "--message", "x"]);
    fs::remove_file(&mark).unwrap_or_default();
    let source = lines(&world.fetch("main").unwrap());
    assert!(source.contains(&r#"file false "one\n""#.to_owned()), "{source:?}");
    assert!(source.contains(&r#"expand false "$Id$ $Format:%H$\n""#.to_owned()), "{source:?}");
    assert!(!mark.exists());
}

#[test]
fn what_is_never_a_source_is_refused_where_a_commit_holds_it() {
    let world = World::new();
    assert!(world.fetch("main").is_ok());
    world.write("file", "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n");
    world.commit();
    world.refused("main", "file: a private key");
    world.write("file", "one\n");
    world.commit();
    assert_eq!(lines(&world.fetch("main").unwrap()), FIRST);
    let other = World::new();
    let commit = other.git(&["rev-parse", "HEAD"]);
    world.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},sub")]);
    world.git(&["commit", "--quiet", "--message", "submodule"]);
    world.refused("main", &format!("sub: a submodule at the commit {commit}"));
    let empty = world.git(&["hash-object", "-t", "tree", "-w", "/dev/null"]);
    let commit = world.git(&["commit-tree", "-m", "nothing", &empty]);
    world.git(&["update-ref", "refs/heads/main", &commit]);
    world.refused("main", "holds no file");
}

#[test]
fn objects_that_are_not_as_git_writes_them_are_refused_on_arrival() {
    let world = World::new();
    let tree = world.git(&["rev-parse", "HEAD^{tree}"]);
    let publish = |branch: &str, text: String| {
        world.write("text", &text);
        let made = world.git(&["hash-object", "-t", "commit", "-w", "--literally", "text"]);
        world.git(&["update-ref", &format!("refs/heads/{branch}"), &made]);
    };
    let who = "t <t@example.org> 1767312000 +0000";
    publish("right", format!("tree {tree}\nauthor {who}\ncommitter {who}\n\nx\n"));
    publish("wrong", format!("tree {tree}\nauthor {who}\ncommitter t <t@example.org 1 +0000\n\nx\n"));
    assert_eq!(lines(&world.fetch("right").unwrap()), FIRST);
    let error = world.fetch("wrong").unwrap_err();
    assert!(matches!(error, TreeError::Fetch { .. }), "{error:?}");
    // A name that would lead into git's own folder.
    let blob = world.git(&["rev-parse", "HEAD:file"]);
    for (branch, name) in [("plain", "git"), ("odd", ".GIT"), ("up", "..")] {
        let mut bytes = format!("100644 {name}\0").into_bytes();
        let digits: Vec<u8> = blob.bytes().collect();
        bytes.extend(digits.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()));
        fs::write(world.mirror.path().join("tree"), bytes).unwrap();
        let tree = world.git(&["hash-object", "-t", "tree", "-w", "--literally", "tree"]);
        let commit = world.git(&["commit-tree", "-m", "x", &tree]);
        world.git(&["update-ref", &format!("refs/heads/{branch}"), &commit]);
        assert_eq!(world.fetch(branch).is_ok(), branch == "plain", "{name}");
    }
}

#[test]
fn what_is_kept_heals_itself() {
    let world = World::new();
    let first = world.git(&["rev-parse", "HEAD"]);
    let source = world.fetch("main").unwrap();
    let damage = |path: &Path| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(path, "other").unwrap();
    };
    for entry in &source.entries {
        if let EntryKind::GitBlob { source, .. } = &entry.kind {
            damage(source);
        }
    }
    assert_eq!(lines(&world.fetch(&first).unwrap()), FIRST);
    let kept = fs::read_dir(world.cache.path().join("git")).unwrap().next().unwrap().unwrap().path();
    for reference in ["main", &first] {
        for pack in fs::read_dir(kept.join("repository/objects/pack")).unwrap() {
            damage(&pack.unwrap().path());
        }
        fs::remove_dir_all(kept.join("files")).unwrap();
        assert_eq!(lines(&world.fetch(reference).unwrap()), FIRST);
    }
}

#[test]
fn a_source_is_fetched_at_its_limits_and_not_beyond() {
    let mut world = World::new();
    // Four files and links, two folders; eighteen bytes of files.
    let shape = |files, bytes| FetchLimits { files, bytes, ..FetchLimits::default() };
    world.limits = shape(6, 18);
    assert_eq!(lines(&world.fetch("main").unwrap()), FIRST);
    world.limits = shape(5, 18);
    world.refused("main", "more than 5 files and folders");
    world.limits = shape(6, 17);
    world.refused("main", "more than 17 bytes");
    // The same where nothing is kept.
    world.cache = tempfile::tempdir().unwrap();
    world.refused("main", "more than 17 bytes");
    // A folder that holds itself, over and over, is small as it is packed.
    let mut tree = world.git(&["rev-parse", "HEAD^{tree}"]);
    for _ in 0..12 {
        let entries: String = (0..10).map(|nth| format!("040000 tree {tree}\td{nth}\n")).collect();
        world.write("entries", &entries);
        let script = format!("git mktree < {}", world.mirror.path().join("entries").display());
        let made = Command::new("sh").args(["-c", &script]).current_dir(world.mirror.path()).output().unwrap();
        tree = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    }
    let commit = world.git(&["commit-tree", "-m", "bomb", &tree]);
    world.git(&["update-ref", "refs/heads/bomb", &commit]);
    world.limits = shape(1000, 1_000_000);
    world.refused("bomb", "more than 1000 files and folders");
    // Noise is as large packed as it is.
    let mut noise = vec![0; 400_000];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    fs::write(world.mirror.path().join("noise"), noise).unwrap();
    world.commit();
    world.limits = FetchLimits { transfer: 1_000_000, ..FetchLimits::default() };
    assert_eq!(world.fetch("main").unwrap().entries.len(), 6);
    world.cache = tempfile::tempdir().unwrap();
    world.limits.transfer = 200_000;
    world.refused("main", "more than 200000 bytes as it is packed");
    world.limits = FetchLimits { time: Duration::ZERO, ..FetchLimits::default() };
    let error = world.fetch("main").unwrap_err();
    assert!(matches!(error, TreeError::Fetch { .. }) && error.to_string().contains("longer than"), "{error}");
}

#[test]
fn names_and_paths_are_taken_at_their_limits_and_not_beyond() {
    let mut world = World::new();
    let blob = world.git(&["rev-parse", "HEAD:file"]);
    // A file with the last of these names in folders with those before.
    let publish = |branch: &str, names: &[String]| {
        let mut object = format!("100644 blob {blob}");
        for name in names.iter().rev() {
            world.write("entries", &format!("{object}\t{name}\n"));
            let entries = fs::File::open(world.mirror.path().join("entries")).unwrap();
            let made = Command::new("git").arg("mktree").current_dir(world.mirror.path()).stdin(entries).output();
            object = format!("040000 tree {}", String::from_utf8(made.unwrap().stdout).unwrap().trim());
        }
        let commit = world.git(&["commit-tree", "-m", "x", object.trim_start_matches("040000 tree ")]);
        world.git(&["update-ref", &format!("refs/heads/{branch}"), &commit]);
    };
    let names = |count, length| vec!["n".repeat(length); count];
    publish("name-255", &names(1, 255));
    publish("name-256", &names(1, 256));
    publish("folder-256", &["d".repeat(256), "file".to_owned()]);
    publish("path-4095", &names(16, 255));
    publish("path-4096", &names(17, 240));
    for (branch, length) in [("name-255", 255), ("path-4095", 4095)] {
        let source = world.fetch(branch).unwrap();
        assert_eq!(source.entries[0].path.as_os_str().len(), length, "{branch}");
    }
    world.refused("name-256", "its name has 256 bytes and its path 256");
    world.refused("folder-256", "its name has 256 bytes");
    world.refused("path-4096", "its name has 240 bytes and its path 4096");
    // deep, deep/er, deep/er/file, file, run, link and what it leads to.
    world.limits.paths = 4 + 7 + 12 + 4 + 3 + 4 + 11;
    assert_eq!(lines(&world.fetch("main").unwrap()), FIRST);
    world.limits.paths -= 1;
    world.refused("main", "have more than 44 bytes");
}

#[test]
fn a_proxy_and_certificates_are_those_that_were_given_and_for_servers_alone() {
    let given = FetchSettings {
        only: None,
        cache: PathBuf::from("/nowhere"),
        proxy: Some("http://proxy.example:3128".to_owned()),
        no_proxy: Some("inner.example".to_owned()),
        certificates: Some(PathBuf::from("/authorities.pem")),
        limits: FetchLimits::default(),
    };
    let without = FetchSettings { proxy: None, no_proxy: None, certificates: None, ..given.clone() };
    let told = |settings: &FetchSettings, url: &str| {
        let address = GitAddress::parse(url).unwrap();
        let kept = Kept {
            settings,
            address: &address,
            location: url.to_owned(),
            url,
            folder: PathBuf::from("/nowhere/kept"),
            stop: &Stop::default(),
        };
        let command = kept.git();
        assert!(command.get_args().any(|argument| argument == "http.followRedirects=false"), "{url}");
        let names = ["https_proxy", "no_proxy", "GIT_SSL_CAINFO"];
        let value = |name: &str| command.get_envs().find(|(known, _)| *known == name).and_then(|(_, value)| value);
        names.map(|name| value(name).map(|value| value.to_string_lossy().into_owned()))
    };
    let all = [Some("http://proxy.example:3128"), None, Some("/authorities.pem")].map(|value| value.map(str::to_owned));
    assert_eq!(told(&given, "https://git.example/a"), all);
    for (settings, url) in
        [(&given, "http://127.0.0.1/a"), (&given, "file:///srv/a"), (&without, "https://git.example/a")]
    {
        assert_eq!(told(settings, url), [None, None, None], "{url}");
    }
}

#[test]
fn two_that_fetch_the_same_do_not_disturb_each_other() {
    let world = World::new();
    thread::scope(|scope| {
        let asked = [(); 4].map(|()| scope.spawn(|| lines(&world.fetch("main").unwrap())));
        asked.into_iter().for_each(|asked| assert_eq!(asked.join().unwrap(), FIRST));
    });
}

#[test]
fn a_fetch_from_somebody_who_never_answers_is_stopped_with_all_of_its_programs() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/mirror", listener.local_addr().unwrap());
    thread::scope(|scope| {
        let fetched = scope.spawn(|| world.fetch_from(&url, "main"));
        let (mut asked, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(asked.try_clone().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("GET /mirror/info/refs"), "{line}");
        world.stop.raise();
        assert!(matches!(fetched.join().unwrap(), Err(TreeError::Stopped)));
        // The program that asked is gone, and with it the connection: it ends, or ends with a reset.
        asked.read_to_end(&mut Vec::new()).unwrap_or_default();
    });
    // Nothing was broken by it.
    let world = World { stop: Stop::default(), ..world };
    assert_eq!(lines(&world.fetch("main").unwrap()), FIRST);
}

#[test]
fn a_git_that_would_pass_over_the_address_it_is_given_fetches_nothing() {
    for said in ["git version 2.37.0\n", "git version 2.39.5", "git version 2.50.1 (Apple Git-155)", "git version 3.0"]
    {
        assert_eq!(keeps_to_its_address(said), Ok(()), "{said}");
    }
    for said in ["git version 2.36.9", "git version 1.99.0", "git version 2", "git version x.40", "2.40.0", ""] {
        assert!(keeps_to_its_address(said).unwrap_err().contains("git 2.37 and later"), "{said}");
    }
}

#[test]
fn an_index_that_names_packs_elsewhere_leads_nowhere() {
    let (world, others) = (World::new(), World::new());
    others.write("file", "not yours\n");
    let commit = others.commit();
    others.git(&["repack", "-a", "-d", "--quiet"]);
    others.git(&["multi-pack-index", "write"]);
    let packs = others.mirror.path().join(".git/objects/pack");
    let found = fs::read_dir(&packs).unwrap().map(|entry| entry.unwrap().path());
    let packed = found.filter(|path| path.extension().is_some_and(|end| end == "pack" || end == "idx"));
    let packed: Vec<PathBuf> = packed.collect();
    assert_eq!(packed.len(), 2, "{packed:?}");
    for path in &packed {
        fs::copy(path, packs.join("p").with_extension(path.extension().unwrap())).unwrap();
    }
    // Its only name, in as many bytes, as seen from the folder where it is put.
    let own = packed.iter().find(|path| path.extension().unwrap() == "idx").unwrap().file_name().unwrap();
    let mut elsewhere =
        format!("../../../../{}/.git/objects/pack/", others.mirror.path().file_name().unwrap().display());
    while elsewhere.len() + "p.idx".len() < own.len() {
        elsewhere.push('/');
    }
    elsewhere.push_str("p.idx");
    let mut index = fs::read(packs.join("multi-pack-index")).unwrap();
    let at = index.windows(own.len()).position(|window| window == own.as_bytes()).unwrap();
    index[at..at + own.len()].copy_from_slice(elsewhere.as_bytes());
    let of_world = world.mirror.path().join(".git/objects/pack");
    fs::create_dir_all(&of_world).unwrap();
    fs::write(of_world.join("multi-pack-index"), index).unwrap();
    fs::write(world.mirror.path().join(".git/refs/heads/borrowed"), format!("{commit}\n")).unwrap();
    // So it is read by whoever is not told otherwise.
    assert_eq!(world.git(&["cat-file", "-t", &commit]), "commit");
    let error = world.fetch("borrowed").unwrap_err();
    assert!(matches!(error, TreeError::Reference { .. } | TreeError::Fetch { .. }), "{error:?}");
    assert_eq!(lines(&world.fetch("main").unwrap()), FIRST);
    // With a pack of its own it needs nothing from elsewhere.
    for path in &packed {
        fs::copy(path, of_world.join(path.file_name().unwrap())).unwrap();
    }
    assert!(lines(&world.fetch("borrowed").unwrap()).contains(&r#"file false "not yours\n""#.to_owned()));
}
