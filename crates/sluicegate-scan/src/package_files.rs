//! Which files of an image its packages brought, by the lists that package managers leave in it: dpkg's, also one for each package as
//! distroless images have them, apk's, and the records of installed Python packages (the packaging project's "Recording installed
//! projects"). rpm keeps its own in a database that is not read here.

use std::collections::BTreeSet;

use sluicegate_types::Digest;

/// Bytes of one list.
pub(crate) const LIST_BYTES: u64 = 16 * 1024 * 1024;

/// Where dpkg keeps its lists, and the scripts of packages, which are in no list.
const DPKG: &str = "var/lib/dpkg/info/";
/// Where distroless images keep them.
const DISTROLESS: &str = "var/lib/dpkg/status.d/";
/// Where apk keeps its one list.
const APK: [&str; 2] = ["lib/apk/db/installed", "usr/lib/apk/db/installed"];
/// How the record of an installed Python package ends.
const PYTHON: &str = ".dist-info/RECORD";
/// Folders that are links into `usr` on merged systems, whose lists may still say the old name.
const MERGED: [&str; 6] = ["bin", "lib", "lib32", "lib64", "libx32", "sbin"];

/// Whether a file lists files of packages.
pub(crate) fn is_list(path: &str) -> bool {
    let dpkg = path.strip_prefix(DPKG).is_some_and(|name| name.ends_with(".list"));
    let distroless = path.strip_prefix(DISTROLESS).is_some_and(|name| name.ends_with(".md5sums"));
    dpkg || distroless || APK.contains(&path) || path.ends_with(PYTHON)
}

/// Whether a path is that of a folder that merged systems have as a link into `usr`.
pub(crate) fn may_be_merged(path: &str) -> bool {
    MERGED.contains(&path)
}

/// The files of an image's packages.
pub(crate) struct PackageFiles {
    paths: BTreeSet<String>,
    merged: BTreeSet<&'static str>,
}

impl PackageFiles {
    /// The files that these lists name, each given with its path. `is_link` gives the target's digest of a link at a path.
    pub(crate) fn of<'a>(
        lists: impl Iterator<Item = (&'a str, &'a [u8])>,
        link: &dyn Fn(&str) -> Option<Digest>,
    ) -> Self {
        let leads_into_usr = |name: &&str| {
            let targets = [format!("usr/{name}"), format!("/usr/{name}")].map(|target| Digest::of(target.as_bytes()));
            link(name).is_some_and(|digest| targets.contains(&digest))
        };
        let merged = MERGED.into_iter().filter(leads_into_usr).collect();
        let mut files = Self { paths: BTreeSet::new(), merged };
        for (path, bytes) in lists {
            files.read(path, &String::from_utf8_lossy(bytes));
        }
        files
    }

    /// Whether a package brought the file at this path.
    pub(crate) fn own(&self, path: &str) -> bool {
        path.starts_with(DPKG) || self.paths.contains(&self.merged_name(path))
    }

    fn read(&mut self, list: &str, text: &str) {
        if list.starts_with(DPKG) {
            text.lines().for_each(|line| self.add(line));
        } else if list.starts_with(DISTROLESS) {
            text.lines().filter_map(|line| line.split_once("  ")).for_each(|(_, path)| self.add(path));
        } else if APK.contains(&list) {
            let mut folder = "";
            for line in text.lines() {
                match line.split_once(':') {
                    Some(("F", path)) => folder = path,
                    Some(("R", name)) => self.add(&format!("{folder}/{name}")),
                    Some(("P", _)) => folder = "",
                    _ => {}
                }
            }
        } else if let Some((site, _)) = list.strip_suffix(PYTHON).map(|at| at.rsplit_once('/').unwrap_or(("", at))) {
            for line in text.lines() {
                let path = match line.strip_prefix('"') {
                    Some(quoted) => quoted.split('"').next().unwrap_or_default(),
                    None => line.split(',').next().unwrap_or_default(),
                };
                // One that leads elsewhere on purpose begins with a slash.
                let whole = if path.starts_with('/') { path.to_owned() } else { format!("{site}/{path}") };
                self.add(&whole);
            }
        }
    }

    fn add(&mut self, path: &str) {
        let mut parts: Vec<&str> = Vec::new();
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        let path = self.merged_name(&parts.join("/"));
        self.paths.insert(path);
    }

    /// The path by which a file of a merged folder is known.
    fn merged_name(&self, path: &str) -> String {
        let first = path.split_once('/').map_or(path, |(first, _)| first);
        if self.merged.contains(first) { format!("usr/{path}") } else { path.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(lists: &[(&str, &str)], links: &[(&str, &str)]) -> PackageFiles {
        let link =
            |path: &str| links.iter().find(|(at, _)| *at == path).map(|(_, target)| Digest::of(target.as_bytes()));
        lists.iter().for_each(|(path, _)| assert!(is_list(path), "{path}"));
        PackageFiles::of(lists.iter().map(|(path, text)| (*path, text.as_bytes())), &link)
    }

    #[test]
    fn each_manager_lists_its_files_in_its_own_way() {
        let list = files(
            &[
                ("var/lib/dpkg/info/coreutils.list", "/.\n/bin\n/bin/ls\n/usr/bin/env\n"),
                ("var/lib/dpkg/info/libc6:amd64.list", "/lib/x86_64-linux-gnu/libc.so.6\n"),
                ("var/lib/dpkg/status.d/tzdata.md5sums", "0123  ./usr/sbin/zdump\n"),
                ("lib/apk/db/installed", "C:Q1\nP:busybox\nF:bin\nM:0:0:1777\nR:busybox\na:0:0:755\nP:x\nR:top\n"),
                (
                    "usr/lib/python3/site-packages/h11-0.dist-info/RECORD",
                    "../../../bin/h11,sha256=a,1\n\"h11/a,b.so\",,\nh11/c.so,,\n/opt/h11,,\n",
                ),
            ],
            &[("bin", "usr/bin"), ("lib", "/usr/lib"), ("sbin", "elsewhere")],
        );
        for owned in [
            "usr/bin/ls",
            "usr/bin/env",
            "usr/lib/x86_64-linux-gnu/libc.so.6",
            "usr/sbin/zdump",
            "usr/bin/busybox",
            "top",
            "usr/bin/h11",
            "usr/lib/python3/site-packages/h11/a,b.so",
            "usr/lib/python3/site-packages/h11/c.so",
            "opt/h11",
            "var/lib/dpkg/info/coreutils.postinst",
        ] {
            assert!(list.own(owned), "{owned}");
        }
        for other in ["usr/bin/l", "ls", "sbin/zdump", "usr/bin", "usr/local/bin/ls", "h11/c.so"] {
            assert_eq!(list.own(other), other == "usr/bin", "{other}");
        }
    }

    #[test]
    fn without_the_link_the_old_name_is_another_file() {
        let lists = [("var/lib/dpkg/info/x.list", "/bin/ls\n")];
        assert!(!files(&lists, &[]).own("usr/bin/ls") && files(&lists, &[]).own("bin/ls"));
        assert!(files(&lists, &[("bin", "usr/bin")]).own("usr/bin/ls"));
        assert!(!is_list("var/lib/dpkg/info/x.md5sums") && !is_list("srv/RECORD"));
    }
}
