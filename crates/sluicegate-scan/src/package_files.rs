//! Which files of an image its packages brought, by the lists that package managers leave in it: dpkg's, also one for each package as
//! distroless images have them, apk's, and the records of installed Python packages (the packaging project's "Recording installed
//! projects"). rpm keeps its own in a database that is not read here.

use std::collections::{BTreeMap, BTreeSet};

use sluicegate_types::Digest;

/// Bytes of one list.
pub(crate) const LIST_BYTES: u64 = 16 * 1024 * 1024;

/// Where dpkg keeps its lists, and the scripts of packages, which are in no list.
const DPKG: &str = "var/lib/dpkg/info/";
/// How those scripts end (Debian policy, chapter 6; debconf's).
const SCRIPTS: [&str; 5] = [".preinst", ".postinst", ".prerm", ".postrm", ".config"];
/// Paths that are remembered.
const PATHS: usize = 2_000_000;
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
    is_list_of_system(path) || path.ends_with(PYTHON)
}

/// Whether it lists files of packages of the system.
pub(crate) fn is_list_of_system(path: &str) -> bool {
    let dpkg = path.strip_prefix(DPKG).is_some_and(|name| name.ends_with(".list"));
    let distroless = path.strip_prefix(DISTROLESS).is_some_and(|name| name.ends_with(".md5sums"));
    dpkg || distroless || APK.contains(&path)
}

/// Whether a path is that of a folder that merged systems have as a link into `usr`.
pub(crate) fn may_be_merged(path: &str) -> bool {
    MERGED.contains(&path)
}

/// A list with its path, the layer that it stands from, and its content.
pub(crate) type List<'a> = (&'a str, usize, &'a [u8]);

/// The files of an image's packages.
pub(crate) struct PackageFiles {
    /// By path, the lowest and the highest layer of a list that names it.
    paths: BTreeMap<String, (usize, usize)>,
    scripts: BTreeSet<String>,
    merged: BTreeSet<&'static str>,
    uppermost: usize,
    layer: usize,
    is_whole: bool,
}

impl PackageFiles {
    /// The files that these lists name in an image whose uppermost layer has this number. `link` gives the target's digest of a link at a
    /// path. `None` if they name more files than is remembered.
    pub(crate) fn of<'a>(
        lists: impl Iterator<Item = List<'a>>,
        uppermost: usize,
        link: &dyn Fn(&str) -> Option<Digest>,
    ) -> Option<Self> {
        let leads_into_usr = |name: &&str| {
            let targets = [format!("usr/{name}"), format!("/usr/{name}")].map(|target| Digest::of(target.as_bytes()));
            link(name).is_some_and(|digest| targets.contains(&digest))
        };
        let mut files = Self {
            paths: BTreeMap::new(),
            scripts: BTreeSet::new(),
            merged: MERGED.into_iter().filter(leads_into_usr).collect(),
            uppermost,
            layer: 0,
            is_whole: true,
        };
        for (path, layer, bytes) in lists {
            files.layer = layer;
            files.read(path, &String::from_utf8_lossy(bytes));
        }
        files.is_whole.then_some(files)
    }

    /// Whether a package brought the file at this path, which is from the layer of this number. A file that is newer than each list that
    /// names it took the place of the package's own. A list of the uppermost layer, which is of the pipeline's products, says nothing about
    /// the files of the base.
    pub(crate) fn own(&self, path: &str, layer: usize) -> bool {
        if let Some((package, _)) = path.strip_prefix(DPKG).and_then(|name| name.rsplit_once('.')) {
            return SCRIPTS.iter().any(|end| path.ends_with(end)) && self.scripts.contains(package);
        }
        let counts = |(lowest, highest): &(usize, usize)| {
            // Of the lists that name it, one of the base speaks for the base.
            let of_base = *lowest < self.uppermost && layer <= *lowest;
            of_base || (layer <= *highest && (*highest < self.uppermost || layer == self.uppermost))
        };
        self.paths.get(&self.merged_name(path)).is_some_and(counts)
    }

    fn read(&mut self, list: &str, text: &str) {
        if let Some(name) = list.strip_prefix(DPKG) {
            self.scripts.extend(name.strip_suffix(".list").map(str::to_owned));
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
                self.add_of_environment(site, path);
            }
        }
    }

    /// What a Python package recorded: files below the folder of packages, and programs beside it.
    fn add_of_environment(&mut self, site: &str, path: &str) {
        let Some(path) = plain(&format!("{site}/{path}")).filter(|_| !path.starts_with('/')) else { return };
        let below = |folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
        // PREFIX/lib/python3/site-packages has its programs in PREFIX/bin.
        let prefix = site.rsplitn(4, '/').nth(3).filter(|_| site.rsplit('/').nth(2) == Some("lib"));
        if site.is_empty() || below(site) || prefix.is_some_and(|prefix| below(&format!("{prefix}/bin"))) {
            self.add(&path);
        }
    }

    fn add(&mut self, path: &str) {
        let Some(path) = plain(path) else { return };
        if self.paths.len() == PATHS {
            self.is_whole = false;
            return;
        }
        let layer = self.layer;
        let known = self.paths.entry(self.merged_name(&path)).or_insert((layer, layer));
        *known = (known.0.min(layer), known.1.max(layer));
    }

    /// The path by which a file of a merged folder is known.
    fn merged_name(&self, path: &str) -> String {
        let first = path.split_once('/').map_or(path, |(first, _)| first);
        if self.merged.contains(first) { format!("usr/{path}") } else { path.to_owned() }
    }
}

/// The path without `.`, `..` and empty parts; `None` for one that leads out of the image.
fn plain(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(lists: &[(&str, &str)], links: &[(&str, &str)]) -> PackageFiles {
        let layered: Vec<_> = lists.iter().map(|(path, text)| (*path, 0, *text)).collect();
        of_layers(&layered, links, 1)
    }

    fn of_layers(lists: &[(&str, usize, &str)], links: &[(&str, &str)], uppermost: usize) -> PackageFiles {
        let link =
            |path: &str| links.iter().find(|(at, _)| *at == path).map(|(_, target)| Digest::of(target.as_bytes()));
        lists.iter().for_each(|(path, ..)| assert!(is_list(path), "{path}"));
        let lists = lists.iter().map(|(path, layer, text)| (*path, *layer, text.as_bytes()));
        PackageFiles::of(lists, uppermost, &link).unwrap()
    }

    #[test]
    fn tm04_a_list_says_nothing_of_newer_files_nor_that_of_a_product_of_the_base() {
        let list = "var/lib/dpkg/info/a.list";
        // Whether a file of each of three layers is the package's, by a list of the layer `of`.
        let owned = |of: usize| {
            let files = of_layers(&[(list, of, "/usr/bin/a\n")], &[], 2);
            [0, 1, 2].map(|layer| files.own("usr/bin/a", layer))
        };
        assert_eq!(owned(0), [true, false, false]);
        assert_eq!(owned(1), [true, true, false]);
        assert_eq!(owned(2), [false, false, true]);
        let both = of_layers(
            &[(list, 0, "/usr/bin/a\n"), ("usr/lib/python3/site-packages/x.dist-info/RECORD", 2, "../../../bin/a,,\n")],
            &[],
            2,
        );
        assert_eq!([0, 1, 2].map(|layer| both.own("usr/bin/a", layer)), [true, false, true]);
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
                    "../../../bin/h11,sha256=a,1\n\"h11/a,b.so\",,\nh11/c.so,,\n/opt/h11,,\n../../../../opt/x,,\n../../../../../../x,,\n",
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
            "var/lib/dpkg/info/coreutils.postinst",
        ] {
            assert!(list.own(owned, 0), "{owned}");
        }
        for other in [
            "usr/bin/l",
            "ls",
            "sbin/zdump",
            "usr/bin",
            "usr/local/bin/ls",
            "h11/c.so",
            "opt/h11",
            "opt/x",
            "x",
            "var/lib/dpkg/info/evil",
            "var/lib/dpkg/info/evil.postinst",
        ] {
            assert_eq!(list.own(other, 0), other == "usr/bin", "{other}");
        }
    }

    #[test]
    fn without_the_link_the_old_name_is_another_file() {
        let lists = [("var/lib/dpkg/info/x.list", "/bin/ls\n")];
        assert!(!files(&lists, &[]).own("usr/bin/ls", 0) && files(&lists, &[]).own("bin/ls", 0));
        assert!(files(&lists, &[("bin", "usr/bin")]).own("usr/bin/ls", 0));
        assert!(!is_list("var/lib/dpkg/info/x.md5sums") && !is_list("srv/RECORD"));
    }
}
