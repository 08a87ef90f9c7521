use super::*;

fn request(root: &Path) -> HostImageRequest {
    HostImageRequest { root: root.to_owned(), binaries: vec![], packages: vec![], closure: false, allow_unowned: false }
}

fn binaries(root: &Path, names: &[&str]) -> Result<HostImage, HostImageError> {
    collect(&HostImageRequest { binaries: names.iter().map(|name| (*name).to_owned()).collect(), ..request(root) })
}

fn paths(image: &HostImage) -> Vec<&str> {
    image.entries.iter().map(|entry| entry.path.to_str().unwrap()).collect()
}

fn names(image: &HostImage) -> Vec<&str> {
    image.packages.iter().map(|package| package.name.as_str()).collect()
}

fn status(image: &HostImage) -> String {
    let entry = image.entries.iter().find(|entry| entry.path == Path::new("var/lib/dpkg/status")).unwrap();
    let HostEntryKind::Made { bytes, .. } = &entry.kind else { panic!("{entry:?}") };
    String::from_utf8(bytes.clone()).unwrap()
}

#[test]
fn a_program_comes_with_its_loader_its_libraries_and_its_packages() {
    let host = host();
    let image = binaries(host.path(), &["sh"]).unwrap();
    let paths = paths(&image);
    for path in [
        "bin",
        "lib64",
        "usr/bin/sh",
        "usr/bin/dash",
        "usr/lib64/ld-linux-x86-64.so.2",
        "usr/lib/x86_64-linux-gnu/ld-2.36.so",
        "usr/lib/x86_64-linux-gnu/libc.so.6",
        "etc/os-release",
        "etc/debian_version",
        "etc/passwd",
        "tmp",
    ] {
        assert!(paths.contains(&path), "{path} in {paths:?}");
    }
    assert!(!paths.contains(&"usr/bin/mawk"));
    assert_eq!(names(&image), ["base-files", "dash", "libc6"]);
    assert_eq!(status(&image).matches("Package: ").count(), 3);
    assert!(status(&image).ends_with("\n\n"));
    let link = image.entries.iter().find(|entry| entry.path == Path::new("bin")).unwrap();
    assert_eq!(link.kind, HostEntryKind::Symlink { target: "usr/bin".into() });
}

#[test]
fn parents_stand_before_what_is_in_them() {
    let host = host();
    let image = binaries(host.path(), &["sh"]).unwrap();
    let mut seen = BTreeSet::from([PathBuf::new()]);
    for entry in &image.entries {
        assert!(seen.contains(entry.path.parent().unwrap()), "{}", entry.path.display());
        if matches!(entry.kind, HostEntryKind::Directory { .. }) {
            seen.insert(entry.path.clone());
        }
    }
}

#[test]
fn a_script_comes_with_its_interpreter_through_its_alternatives() {
    let host = host();
    let image = binaries(host.path(), &["tool"]).unwrap();
    for path in ["usr/bin/tool", "usr/bin/awk", "etc/alternatives/awk", "usr/bin/mawk"] {
        assert!(paths(&image).contains(&path), "{path}");
    }
    assert_eq!(names(&image), ["base-files", "libc6", "mawk", "tools"]);
}

#[test]
fn a_package_comes_whole_without_its_documentation_and_with_its_dependencies_on_demand() {
    let host = host();
    let mut asked =
        HostImageRequest { packages: vec!["python3-minimal".into()], closure: true, ..request(host.path()) };
    let image = collect(&asked).unwrap();
    for path in
        ["usr/bin/python3", "usr/bin/python3.11", "usr/lib/python3.11/os.py", "usr/share/doc/python3.11/copyright"]
    {
        assert!(paths(&image).contains(&path), "{path}");
    }
    assert!(!paths(&image).iter().any(|path| path.contains("__pycache__") || path.contains("README")));
    assert_eq!(names(&image), ["base-files", "libc6", "python3-minimal", "python3.11"]);
    asked.packages = vec!["lonely".into()];
    let refused = collect(&asked).unwrap_err();
    assert!(matches!(refused, HostImageError::Depends { missing, .. } if missing == "libnothing"));
}

#[test]
fn what_no_package_owns_is_refused_by_name_unless_allowed() {
    let host = host();
    let mut asked = HostImageRequest { binaries: vec!["/opt/own".into()], ..request(host.path()) };
    assert!(matches!(collect(&asked), Err(HostImageError::Unowned { path }) if path == Path::new("/opt/own")));
    asked.allow_unowned = true;
    let image = collect(&asked).unwrap();
    assert_eq!(image.unowned, [Path::new("opt/own")]);
    assert!(binaries(host.path(), &["sh"]).unwrap().unowned.is_empty());
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    let host = host();
    assert!(matches!(binaries(host.path(), &["vi"]), Err(HostImageError::NoProgram { name }) if name == "vi"));
    assert!(matches!(binaries(host.path(), &["/usr/bin/vi"]), Err(HostImageError::Missing { .. })));
    assert!(matches!(binaries(host.path(), &["/usr/bin/circle"]), Err(HostImageError::Links { .. })));
    assert!(matches!(
        binaries(host.path(), &["broken"]),
        Err(HostImageError::NoLibrary { library, .. }) if library == "libmissing.so.1"
    ));
    let gone = HostImageRequest { packages: vec!["gone".into()], ..request(host.path()) };
    assert!(matches!(collect(&gone), Err(HostImageError::NoPackage { .. })));
    assert!(matches!(collect(&request(host.path())), Err(HostImageError::Nothing)));
    let empty = tempfile::tempdir().unwrap();
    assert!(binaries(empty.path(), &["sh"]).unwrap_err().to_string().contains("not in this version"));
}

#[test]
fn a_programs_packages_are_found_through_its_links() {
    let host = host();
    let found: Vec<_> = owners(host.path(), "python3").unwrap().into_iter().map(|package| package.name).collect();
    assert_eq!(found, ["python3-minimal", "python3.11"]);
}

fn host() -> tempfile::TempDir {
    test_tree::host()
}
