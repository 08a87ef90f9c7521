//! A small Debian-like host in a temporary folder, and ELF files that only say what they need.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

/// A 64-bit little-endian x86-64 file that needs these libraries.
pub(super) fn elf(needed: &[&str], interpreter: Option<&str>, runpath: Option<&str>) -> Vec<u8> {
    let mut strings = vec![0];
    let mut offset = |text: &str| {
        let at = strings.len() as u64;
        strings.extend(text.as_bytes());
        strings.push(0);
        at
    };
    let mut tags: Vec<(u64, u64)> = runpath.map(|path| (29, offset(path))).into_iter().collect();
    tags.extend(needed.iter().map(|name| (1, offset(name))));
    let interpreter = interpreter.map(|path| format!("{path}\0")).unwrap_or_default();
    let segments = if interpreter.is_empty() { 2 } else { 3 };
    let interpreter_at = 64 + 56 * segments;
    let dynamic_at = interpreter_at + interpreter.len() as u64;
    let dynamic_size = 16 * (tags.len() as u64 + 2);
    let strings_at = dynamic_at + dynamic_size;
    tags.push((5, 0x1000 + strings_at));
    tags.push((0, 0));
    let total = strings_at + strings.len() as u64;

    let mut out = b"\x7fELF\x02\x01\x01".to_vec();
    out.resize(16, 0);
    out.extend([3, 0, 62, 0]);
    out.resize(32, 0);
    out.extend(64_u64.to_le_bytes());
    out.resize(54, 0);
    out.extend([56, 0, segments as u8, 0]);
    out.resize(64, 0);
    let mut segment = |kind: u32, at: u64, size: u64| {
        out.extend(kind.to_le_bytes());
        out.extend(0_u32.to_le_bytes());
        for word in [at, 0x1000 + at, 0, size, size, 1] {
            out.extend(word.to_le_bytes());
        }
    };
    segment(1, 0, total);
    segment(2, dynamic_at, dynamic_size);
    if !interpreter.is_empty() {
        segment(3, interpreter_at, interpreter.len() as u64);
    }
    out.extend(interpreter.as_bytes());
    for (tag, value) in tags {
        out.extend(tag.to_le_bytes());
        out.extend(value.to_le_bytes());
    }
    out.extend(strings);
    out
}

/// A host with merged `/usr`, a shell, a library, Python in two packages, and a program that no package owns.
pub(super) fn host() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let put = |path: &str, bytes: &[u8]| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let loader = "/lib64/ld-linux-x86-64.so.2";
    put("usr/lib/x86_64-linux-gnu/ld-2.36.so", &elf(&[], None, None));
    put("usr/lib/x86_64-linux-gnu/libc.so.6", &elf(&[], None, None));
    put("usr/bin/dash", &elf(&["libc.so.6"], Some(loader), None));
    put("usr/bin/mawk", &elf(&["libc.so.6"], Some(loader), None));
    put("usr/bin/tool", b"#!/usr/bin/env awk\n");
    put("usr/bin/broken", &elf(&["libmissing.so.1"], Some(loader), None));
    put("opt/own", &elf(&["libc.so.6"], Some(loader), None));
    put("usr/bin/python3.11", &elf(&["libc.so.6"], Some(loader), None));
    put("usr/lib/python3.11/os.py", b"import sys\n");
    put("usr/lib/python3.11/__pycache__/os.cpython-311.pyc", b"made later");
    put("usr/share/doc/python3.11/README", b"text");
    put("usr/share/doc/python3.11/copyright", b"License: PSF\n");
    put("etc/debian_version", b"12.11\n");
    put("usr/lib/os-release", b"ID=debian\n");
    fs::create_dir_all(root.join("usr/lib64")).unwrap();
    fs::create_dir_all(root.join("etc/alternatives")).unwrap();
    for (path, target) in [
        ("bin", "usr/bin"),
        ("lib", "usr/lib"),
        ("lib64", "usr/lib64"),
        ("usr/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/ld-2.36.so"),
        ("usr/bin/sh", "dash"),
        ("usr/bin/awk", "/etc/alternatives/awk"),
        ("etc/alternatives/awk", "/usr/bin/mawk"),
        ("usr/bin/python3", "python3.11"),
        ("usr/bin/circle", "circle"),
        ("etc/os-release", "../usr/lib/os-release"),
    ] {
        symlink(target, root.join(path)).unwrap();
    }
    let mut status = String::new();
    for (name, depends, files) in [
        ("base-files", "", "/etc/os-release\n/usr/lib/os-release\n/etc/debian_version\n/etc/deleted.conf"),
        ("dash", "libc6 (>= 2.36)", "/bin/dash\n/bin/sh"),
        ("libc6", "", "/lib/x86_64-linux-gnu/libc.so.6\n/lib/x86_64-linux-gnu/ld-2.36.so\n/lib64/ld-linux-x86-64.so.2"),
        ("mawk", "libc6", "/usr/bin/mawk"),
        ("tools", "mawk | gawk", "/bin\n/lib\n/usr/bin/tool\n/usr/bin/broken"),
        ("python3-minimal", "python3.11 (= 1), libnothing | libc6", "/usr/bin/python3"),
        (
            "python3.11",
            "libc6",
            "/usr/bin/python3.11\n/usr/lib/python3.11/os.py\n/usr/share/doc/python3.11/README\n/usr/share/doc/python3.11/copyright",
        ),
        ("lonely", "libnothing", "/usr/lib/lonely"),
    ] {
        record(root, &mut status, name, depends, files);
    }
    status.push_str("Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n\n");
    put("var/lib/dpkg/status", status.as_bytes());
    folder
}

fn record(root: &Path, status: &mut String, name: &str, depends: &str, files: &str) {
    *status += &format!("Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1-1\n");
    if !depends.is_empty() {
        *status += &format!("Depends: {depends}\n");
    }
    status.push('\n');
    let info = root.join("var/lib/dpkg/info");
    fs::create_dir_all(&info).unwrap();
    fs::write(info.join(format!("{name}.list")), format!("/.\n/usr\n{files}\n")).unwrap();
}
