//! dpkg's own records of a Debian-like system: which packages are installed, what they depend on, which files are theirs
//! (`deb-control(5)`, `dpkg-query(1)`; the files in `var/lib/dpkg`).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::HostImageError;

/// Bytes of the status file, and of one package's file list.
const RECORD: u64 = 64 * 1024 * 1024;
/// Installed packages.
const PACKAGES: usize = 100_000;
/// Folders at the top that merged systems replace by links into `usr`, while old records still name them.
const MERGED: &[&str] = &["bin", "sbin", "lib", "lib32", "lib64", "libx32", "libo32"];

/// The records of one system.
pub(super) struct Dpkg {
    info: PathBuf,
    /// Every installed package in the order of the status file.
    pub(super) packages: Vec<Package>,
    by_name: HashMap<String, usize>,
    provided: HashMap<String, usize>,
    merged: Vec<&'static str>,
}

/// An installed package.
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) architecture: String,
    /// Its paragraph of the status file, as it stands there.
    pub(super) paragraph: String,
    /// What it needs: of each list of alternatives, one.
    depends: Vec<Vec<String>>,
}

impl Dpkg {
    /// Reads the records below `root`; `NotDebian` where there are none.
    pub(super) fn open(root: &Path) -> Result<Self, HostImageError> {
        let folder = root.join("var/lib/dpkg");
        let status = folder.join("status");
        if !status.is_file() {
            return Err(HostImageError::NotDebian { root: root.to_owned() });
        }
        let text = text(&status).map_err(|error| HostImageError::read(&status, &error))?;
        let mut packages = Vec::new();
        let mut provides = Vec::new();
        for paragraph in text.split("\n\n").map(|paragraph| paragraph.trim_matches('\n')) {
            if let Some((package, provided)) = package(paragraph) {
                if packages.len() == PACKAGES {
                    return Err(HostImageError::read(&status, &io::Error::other("more than 100000 packages")));
                }
                packages.push(package);
                provides.push(provided);
            }
        }
        let native = packages
            .iter()
            .find(|package: &&Package| package.name == "dpkg")
            .map(|package| package.architecture.clone());
        let mut by_name = HashMap::new();
        let mut provided = HashMap::new();
        for (index, package) in packages.iter().enumerate() {
            let native =
                native.as_ref().is_none_or(|native| *native == package.architecture || package.architecture == "all");
            if native || !by_name.contains_key(&package.name) {
                by_name.insert(package.name.clone(), index);
            }
            for name in &provides[index] {
                provided.entry(name.clone()).or_insert(index);
            }
        }
        let linked = |name: &&str| root.join(name).symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
        let merged = MERGED.iter().copied().filter(linked).collect();
        Ok(Self { info: folder.join("info"), packages, by_name, provided, merged })
    }

    /// The package of this name.
    pub(super) fn named(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// These packages and everything that they depend on, of alternatives the first that is installed.
    pub(super) fn closure(&self, start: &BTreeSet<usize>) -> Result<BTreeSet<usize>, HostImageError> {
        let mut closed = BTreeSet::new();
        let mut open: Vec<_> = start.iter().copied().collect();
        while let Some(index) = open.pop() {
            if !closed.insert(index) {
                continue;
            }
            let package = &self.packages[index];
            for alternatives in &package.depends {
                let met =
                    alternatives.iter().find_map(|name| self.named(name).or_else(|| self.provided.get(name).copied()));
                open.push(met.ok_or_else(|| HostImageError::Depends {
                    package: package.name.clone(),
                    missing: alternatives.join(" or "),
                })?);
            }
        }
        Ok(closed)
    }

    /// The files and folders of a package, relative to the root, as they stand on a merged system.
    pub(super) fn files(&self, index: usize) -> Result<Vec<PathBuf>, HostImageError> {
        let Some(list) = self.record(index, "list") else { return Ok(Vec::new()) };
        let text = text(&list).map_err(|error| HostImageError::read(&list, &error))?;
        Ok(text.lines().filter_map(|line| self.place_of(line)).collect())
    }

    /// The packages that own each of these files; a file that no package owns is missing in the answer.
    pub(super) fn owners<'a>(
        &self,
        files: impl Iterator<Item = &'a Path>,
    ) -> Result<BTreeMap<PathBuf, BTreeSet<usize>>, HostImageError> {
        let wanted: BTreeSet<&Path> = files.collect();
        let mut owners: BTreeMap<PathBuf, BTreeSet<usize>> = BTreeMap::new();
        for index in 0..self.packages.len() {
            for file in self.files(index)? {
                if wanted.contains(file.as_path()) {
                    owners.entry(file).or_default().insert(index);
                }
            }
        }
        Ok(owners)
    }

    /// The package's record of this kind (`list`, `md5sums`), if it has one.
    pub(super) fn record(&self, index: usize, kind: &str) -> Option<PathBuf> {
        let package = &self.packages[index];
        let names = [format!("{}:{}.{kind}", package.name, package.architecture), format!("{}.{kind}", package.name)];
        names.into_iter().map(|name| self.info.join(name)).find(|path| path.is_file())
    }

    fn place_of(&self, line: &str) -> Option<PathBuf> {
        let path = line.strip_prefix('/').filter(|path| !path.is_empty() && *path != ".")?;
        let top = path.split('/').next().unwrap_or_default();
        if self.merged.contains(&top) && top != path { Some(Path::new("usr").join(path)) } else { Some(path.into()) }
    }
}

/// A paragraph of the status file as a package and the names it provides; `None` for one that is not installed.
fn package(paragraph: &str) -> Option<(Package, Vec<String>)> {
    let field = |name: &str| {
        let mut lines = paragraph.lines().skip_while(|line| line.split_once(':').is_none_or(|(key, _)| key != name));
        let first = lines.next()?.split_once(':')?.1.trim().to_owned();
        let more: Vec<_> = lines.take_while(|line| line.starts_with(' ')).map(str::trim).collect();
        Some([vec![first.as_str()], more].concat().join(" "))
    };
    if !field("Status")?.ends_with(" installed") {
        return None;
    }
    let alternatives = |text: String| -> Vec<Vec<String>> {
        text.split(',')
            .map(|names| names.split('|').filter_map(bare_name).collect::<Vec<_>>())
            .filter(|n| !n.is_empty())
            .collect()
    };
    let depends = ["Pre-Depends", "Depends"].iter().filter_map(|name| field(name)).flat_map(alternatives).collect();
    let provides = field("Provides").map(alternatives).unwrap_or_default().concat();
    let package = Package {
        name: field("Package")?,
        version: field("Version")?,
        architecture: field("Architecture")?,
        paragraph: paragraph.to_owned(),
        depends,
    };
    Some((package, provides))
}

/// `libc6:any (>= 2.36) [amd64]` as `libc6`.
fn bare_name(text: &str) -> Option<String> {
    let name = text.trim().split([' ', '(', '[', ':']).next()?;
    (!name.is_empty()).then(|| name.to_owned())
}

fn text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(RECORD + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > RECORD {
        return Err(io::Error::other("larger than 64 MiB"));
    }
    // Old maintainers' names are not always UTF-8; the names of packages are.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paragraph_is_read_with_folded_fields() {
        let text = "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:2-3\nDepends: libc6 (>= 2.36), b | c:any,\n d\nProvides: e (= 1), f\nDescription: x\n Depends: no";
        let (package, provides) = package(text).unwrap();
        assert_eq!(package.depends, [vec!["libc6".to_owned()], vec!["b".into(), "c".into()], vec!["d".into()]]);
        assert_eq!(provides, ["e", "f"]);
        assert_eq!(package.version, "1:2-3");
        assert!(super::package(&text.replace("ok installed", "ok config-files")).is_none());
    }
}
