//! What of an image can be executed and came with no package: nobody looks for advisories about it (trust model 4).

use std::collections::{BTreeMap, BTreeSet};

use sluicegate_attestation::trivy_report::Summary;
use sluicegate_ports::scan::{Executable, Executables};
use sluicegate_types::Digest;

use crate::{
    coverage::{is_of_standing_file, is_packages},
    image_files::Files,
    package_files::PackageFiles,
};

/// How many are listed.
const LISTED: usize = 500;

/// What the scanner calls a program that says itself what it was made of; the report's list is named by its path.
const PROGRAMS: [&str; 2] = ["gobinary", "rustbinary"];

/// What can be executed and is in no package; `None` where nobody can say, as a package manager keeps its lists in a way that is not read,
/// or they are too many.
pub(crate) fn unexplained(report: &Summary, seen: &Files, of_packages: Option<&PackageFiles>) -> Option<Executables> {
    let of_packages = of_packages?;
    let programs = report.results.iter().filter(|list| is_packages(list) && PROGRAMS.contains(&list.kind.as_str()));
    let programs = programs.filter(|list| {
        list.packages.iter().any(|package| {
            package.analyzed_by == list.kind && is_of_standing_file(package, &list.place, report, &seen.layers)
        })
    });
    let recognised: BTreeSet<&str> = programs.map(|list| list.place.as_str()).collect();
    let mut by_content: BTreeMap<(bool, Digest), Executable> = BTreeMap::new();
    for file in &seen.executables {
        let layer = seen.layers.get(&file.path).copied().unwrap_or_default();
        if of_packages.own(&file.path, layer) || recognised.contains(file.path.as_str()) {
            continue;
        }
        let (place, digest, product) = (file.path.clone(), file.digest, layer == seen.uppermost);
        let known = by_content.entry((product, digest));
        known.and_modify(|known| known.more += 1).or_insert(Executable { place, digest, more: 0, product });
    }
    let mut listed: Vec<Executable> = by_content.into_values().collect();
    listed.sort_by(|a, b| (a.product, &a.place).cmp(&(b.product, &b.place)));
    let beyond = |product| listed.iter().skip(LISTED).filter(|executable| executable.product == product).count() as u64;
    let (beyond, beyond_products) = (beyond(false), beyond(true));
    listed.truncate(LISTED);
    Some(Executables { listed, beyond, beyond_products })
}

#[cfg(test)]
mod tests {
    use sluicegate_attestation::trivy_report::{ListedPackage, PackageList};

    use super::*;
    use crate::{
        coverage::{is_telling, package_files},
        image_files::Image,
        package_files::is_list,
        test_image::{TestEntry, TestImage, executable, file, hard_link, link},
    };

    const ELF: &[u8] = b"\x7fELF rest";

    /// What is unexplained in an image of these layers in which the scanner recognised a program at `recognised`, in the layer of this number.
    fn of(layers: &[Vec<TestEntry>], recognised: &str, layer: usize) -> Option<Executables> {
        let image = TestImage::new(layers);
        let files = Image::open(image.path(), &image.digest).unwrap().files(&is_telling).unwrap();
        let diff_ids: Vec<String> = image.diff_ids.iter().map(Digest::to_string).collect();
        // As the scanner writes it: the list has the path, its packages have none.
        let package = ListedPackage {
            name: "example.com/tool".into(),
            version: "1".into(),
            purl: None,
            licenses: Vec::new(),
            file: None,
            analyzed_by: "gobinary".into(),
            layer: Some(diff_ids[layer].clone()),
        };
        let list = PackageList {
            class: "lang-pkgs".into(),
            kind: "gobinary".into(),
            place: recognised.into(),
            packages: vec![package],
            lock_file: false,
        };
        let report = Summary {
            version: "0".into(),
            artifact_type: String::new(),
            image_id: String::new(),
            diff_ids,
            system: None,
            results: vec![list],
        };
        unexplained(&report, &files, package_files(&files, is_list).as_ref())
    }

    /// Places in the base, with how many more have the same content, then those in the products.
    fn places(found: &Executables) -> [Vec<String>; 2] {
        [false, true].map(|product| {
            let of_kind = found.listed.iter().filter(|executable| executable.product == product);
            of_kind.map(|executable| format!("{} {}", executable.place, executable.more)).collect()
        })
    }

    #[test]
    fn tm04_what_no_package_brought_is_listed_by_content() {
        let base = vec![
            file("var/lib/dpkg/info/tool.list", b"/bin/tool\n/usr/lib/libtool.so\n"),
            file("var/lib/dpkg/info/tool.postinst", b"#!/bin/sh\n"),
            link("bin", "usr/bin"),
            executable("usr/bin/tool", ELF),
            file("usr/lib/libtool.so", b"\x7fELF a library"),
            executable("usr/local/bin/other", b"\x7fELF other"),
            hard_link("usr/local/bin/another", "usr/local/bin/other"),
            file("usr/local/lib/libother.so", b"\x7fELF library"),
            executable("usr/local/bin/script", b"#!/bin/sh\n"),
            file("usr/local/share/example.sh", b"#!/bin/sh\n2"),
            executable("usr/local/share/data", b"1"),
            executable("usr/local/bin/go", b"\x7fELF go"),
            executable("usr/local/bin/gone", b"\x7fELF gone"),
        ];
        let upper = vec![file("usr/local/bin/.wh.gone", b""), executable("srv/server", b"\x7fELF server")];
        let found = of(&[base, upper], "usr/local/bin/go", 0).unwrap();
        let expected = ["usr/local/bin/another 1", "usr/local/bin/script 0", "usr/local/lib/libother.so 0"];
        assert_eq!(places(&found), [expected.map(str::to_owned).to_vec(), vec!["srv/server 0".to_owned()]]);
        assert_eq!(found.listed[0].digest, Digest::of(b"\x7fELF other"));
        assert_eq!(found.beyond, 0);
    }

    #[test]
    fn a_list_that_is_gone_or_another_one_explains_nothing() {
        let base = || vec![file("var/lib/dpkg/info/a.list", b"/usr/bin/a\n"), executable("usr/bin/a", ELF)];
        let listed = |upper: Vec<TestEntry>| places(&of(&[base(), upper], "", 0).unwrap());
        assert_eq!(listed(vec![file("x", b"")])[0], [] as [&str; 0]);
        assert_eq!(listed(vec![file("var/lib/dpkg/info/.wh.a.list", b"")])[0], ["usr/bin/a 0"]);
        assert_eq!(listed(vec![file("var/lib/dpkg/info/a.list", b"/usr/bin/b\n")])[0], ["usr/bin/a 0"]);
        // In the place of the base's own file stands one of the product.
        assert_eq!(listed(vec![executable("usr/bin/b", b"#!b")]), [vec![], vec!["usr/bin/b 0".to_owned()]]);
    }

    #[test]
    fn tm04_a_program_that_was_replaced_is_not_the_one_that_was_recognised() {
        let tool = |content: &[u8]| vec![executable("usr/bin/tool", content)];
        let listed = |layers: &[Vec<TestEntry>], layer| {
            places(&of(layers, "usr/bin/tool", layer).unwrap())[0].len()
                + places(&of(layers, "usr/bin/tool", layer).unwrap())[1].len()
        };
        assert_eq!(listed(&[tool(b"\x7fELF go")], 0), 0);
        assert_eq!(listed(&[tool(b"\x7fELF go"), tool(b"\x7fELF other")], 0), 1);
        assert_eq!(listed(&[tool(b"\x7fELF other"), tool(b"\x7fELF go")], 1), 0);
    }

    #[test]
    fn tm04_names_and_permissions_hide_nothing() {
        let hostile = |second: TestEntry| {
            let mut first = executable("x", b"\x7fELF 1");
            first.set_raw_path(b"bin/e\xff");
            let mut second = second;
            second.set_raw_path(b"bin/e\xfe");
            of(&[vec![first], vec![second]], "", 0).unwrap().listed.len()
        };
        assert_eq!(hostile(executable("x", b"\x7fELF 2")), 2);
        assert_eq!(hostile(file("x", b"text")), 1);
        let script = vec![file("s0", b"#!/bin/sh\n"), {
            let mut link = hard_link("s1", "s0");
            link.set_mode(0o755);
            link
        }];
        assert_eq!(places(&of(&[script, vec![]], "", 0).unwrap())[0], ["s1 0"]);
    }

    #[test]
    fn of_a_manager_whose_lists_are_not_read_nothing_is_said() {
        let base = |path: &str| vec![file(path, b"x"), executable("usr/bin/a", ELF)];
        assert_eq!(of(&[base("var/lib/rpm/rpmdb.sqlite")], "", 0), None);
        assert_eq!(of(&[base("var/lib/opkg/status")], "", 0), None);
        assert_eq!(of(&[base("var/lib/dpkg/status")], "", 0).unwrap().listed.len(), 1);
    }

    #[test]
    fn beyond_the_limit_they_are_counted() {
        let many = |prefix: &str, n: usize| -> Vec<TestEntry> {
            (0..n).map(|nth| executable(&format!("{prefix}/{nth}"), format!("#!{prefix}{nth}").as_bytes())).collect()
        };
        let found = of(&[many("base", LISTED + 7), many("product", 3)], "", 0).unwrap();
        assert_eq!((found.listed.len(), found.beyond, found.beyond_products), (LISTED, 7, 3));
        let found = of(&[many("base", 2), many("product", LISTED)], "", 0).unwrap();
        assert_eq!((found.listed.len(), found.beyond, found.beyond_products), (LISTED, 0, 2));
        assert!(!found.listed[1].product && found.listed[2].product);
    }
}
