package components_test

import data.components

component(purl) := {"name": "x", "version": "1", "purl": purl, "path": []}

facts(purls) := {"sbom": {"components": [component(purl) | some purl in purls]}}

absent(purl, facts_) if components.is_absent(purl) with input as facts_

found(purl, facts_) := number if {
	number := count(components.carriers(purl)) with input as facts_
}

test_a_purl_without_a_version_names_every_version if {
	every purl in [
		"pkg:npm/left-pad",
		"pkg:npm/left-pad@1.3.0",
		"pkg:npm/left-pad?x=y",
		"pkg:npm/left-pad#sub",
		"PKG:NPM/Left-Pad@2",
	] {
		not absent("pkg:npm/left-pad", facts(["pkg:npm/a", purl]))
		found("pkg:npm/left-pad", facts(["pkg:npm/a", purl])) == 1
	}
	every purl in ["pkg:npm/left-pad2@1", "pkg:npm/x/left-pad@1", "pkg:pypi/left-pad@1", "pkg:npm/left-pa", "", "pkg:npm/left-pad-x"] {
		absent("pkg:npm/left-pad", facts([purl]))
		found("pkg:npm/left-pad", facts([purl])) == 0
	}
}

test_one_with_a_version_names_that_one if {
	not absent("pkg:npm/x@1.0", facts(["pkg:npm/x@1.0"]))
	not absent("pkg:deb/debian/x@1.0", facts(["pkg:deb/debian/x@1.0?arch=amd64"]))
	absent("pkg:npm/x@1.0", facts(["pkg:npm/x@1.0.1"]))
	absent("pkg:npm/x@1.0", facts(["pkg:npm/x"]))
}

test_encoding_makes_no_difference if {
	every purl in ["pkg:npm/%40scope/x@1", "pkg:npm/@scope/x@1", "pkg:npm/%40Scope/x"] {
		not absent("pkg:npm/%40scope/x", facts([purl]))
		not absent("pkg:npm/@scope/x", facts([purl]))
	}
	not absent("pkg:deb/debian/x@12.4+deb12u11", facts(["pkg:deb/debian/x@12.4%2Bdeb12u11?arch=amd64"]))
}

test_nothing_is_absent_where_a_purl_cannot_be_read if {
	every odd in [{"name": "x"}, {"purl": null}, {"purl": 1}, null, "x"] {
		not absent("pkg:npm/x", {"sbom": {"components": [component("pkg:npm/y"), odd]}})
	}
	absent("pkg:npm/x", {"sbom": {"components": [component("")]}})
}

test_what_is_no_purl_is_known if {
	every good in ["pkg:npm/x", "pkg:npm/%40scope/x@1.0", "pkg:deb/debian/libc6", "pkg:golang/github.com/a/b"] {
		components.is_purl(good)
	}
	every bad in ["", "x", "npm/x", "pkg:npm", "pkg:npm/", "pkg:npm/x?arch=amd64", "pkg:npm/x#y", "pkg:npm/x@", "pkg:npm/x y", "pkg:npm/*?", 1, null] {
		not components.is_purl(bad)
	}
}

test_a_place_names_what_it_is_nested_in if {
	components.place({"name": "x", "version": "1", "path": ["a", "b"]}) == "a > b > x 1"
	components.place({"name": "x", "path": "a"}) == "x"
	components.place({"version": "1", "path": [1, "a"]}) == "a > without a name 1"
	components.place({}) == "without a name"
}

test_lists_in_another_form_are_empty if {
	every odd in [{}, {"sbom": null}, {"sbom": "x"}, {"sbom": {"components": "x", "documents": 1}}, {"sbom": {"components": {}, "documents": null}}] {
		components.list == [] with input as odd
		components.documents == [] with input as odd
	}
}
