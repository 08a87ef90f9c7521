package sbom_test

import data.sbom

image := "sha256:1111"

library := {
	"name": "left-pad",
	"version": "1.3.0",
	"purl": "pkg:npm/left-pad@1.3.0",
	"type": "library",
	"supplier": "Somebody",
	"licenses": ["MIT"],
	"licenseOptions": [["MIT"]],
	"path": ["app/package-lock.json"],
	"attestation": "sha256:sbom",
}

system := {
	"name": "debian",
	"version": "12.11",
	"purl": "",
	"type": "operating-system",
	"supplier": "",
	"licenses": [],
	"licenseOptions": [],
	"path": [],
	"attestation": "sha256:sbom",
}

document := {
	"attestation": "sha256:sbom",
	"format": "CycloneDX",
	"version": "1.7",
	"timestamp": "2026-11-29T19:18:50Z",
	"authors": ["trivy"],
	"components": 2,
	"related": 2,
}

statement := {
	"predicateType": "https://cyclonedx.org/bom",
	"digest": "sha256:sbom",
	"subjects": [{"name": "shop", "digest": image}],
}

config := {
	"sbom": {"ntia": true},
	"licenses": {"allowed": ["MIT", "Apache-2.0"], "unknown": "deny"},
	"banned_packages": ["pkg:npm/event-stream"],
}

with_documents(components, documents) := {
	"subject": {"name": "shop", "digest": image},
	"attestations": [statement],
	"sbom": {"components": components, "documents": documents},
}

facts(components) := with_documents(components, [document])

whole := facts([library, system])

changed(changes) := facts([object.union(library, changes), system])

without(field) := facts([json.remove(library, [field]), system])

codes := ["sbom.present", "sbom.complete", "sbom.ntia", "sbom.licenses", "sbom.banned"]

denied_by(code) := {violation | some violation in sbom.deny; violation.code == code}

passes(code, facts_, config_) if {
	code in sbom.pass with input as facts_ with data.sluicegate as config_
	count(denied_by(code)) == 0 with input as facts_ with data.sluicegate as config_
}

denials(code, facts_, config_) := found if {
	not code in sbom.pass with input as facts_ with data.sluicegate as config_
	found := denied_by(code) with input as facts_ with data.sluicegate as config_
	count(found) > 0
}

test_a_whole_sbom_passes_every_rule if {
	every code in codes {
		passes(code, whole, config)
	}
}

test_nothing_passes_by_being_empty if {
	every code in codes {
		every facts_ in [{}, {"sbom": null}, {"sbom": {}}, {"sbom": "x"}, facts([]), facts(null), facts("x"), facts({}), facts(1)] {
			denials(code, facts_, config)
		}
	}
	every code in ["sbom.complete", "sbom.ntia", "sbom.licenses", "sbom.banned"] {
		every odd in [null, "x", 1, [], {}] {
			denials(code, facts([odd]), config)
			denials(code, facts([library, odd]), config)
		}
	}
	every code in ["sbom.ntia", "sbom.licenses", "sbom.banned"] {
		denials(code, whole, {})
	}
}

test_an_sbom_of_something_else_is_none_of_the_image if {
	other := json.patch(whole, [{"op": "replace", "path": "/attestations/0/subjects/0/digest", "value": "sha256:2222"}])
	denials("sbom.present", other, {}) == {{
		"code": "sbom.present",
		"msg": "no SBOM that lists a component is about the image: build it with a builder that writes one",
		"subject": image,
	}}
	denials("sbom.present", with_documents([library], [object.union(document, {"attestation": "sha256:other"})]), {})
	every path in ["predicateType", "digest", "subjects"] {
		denials("sbom.present", object.union(whole, {"attestations": [json.remove(statement, [path])]}), {})
	}
	every path in ["attestation", "components"] {
		denials("sbom.present", with_documents([library], [json.remove(document, [path])]), {})
	}
	every number in [0, "2", null] {
		denials("sbom.present", with_documents([library], [object.union(document, {"components": number})]), {})
	}
	every odd in [[], null, "x", [null], ["x"]] {
		denials("sbom.present", with_documents([library], odd), {})
		denials("sbom.present", object.union(whole, {"attestations": odd}), {})
	}
	denials("sbom.present", json.remove(whole, ["subject"]), {})
}

test_no_component_is_denied if {
	denials("sbom.present", facts([]), {}) == {{
		"code": "sbom.present",
		"msg": "the SBOMs list no component: nobody knows what the image consists of",
		"subject": image,
	}}
}

test_a_component_that_cannot_be_told_apart_is_denied if {
	denials("sbom.complete", changed({"version": ""}), {}) == {{
		"code": "sbom.complete",
		"msg": "app/package-lock.json > left-pad has no version: let the tool that wrote the SBOM say it",
		"term": "version",
		"subject": "pkg:npm/left-pad@1.3.0",
		"package": "left-pad",
		"attestation": "sha256:sbom",
	}}
	every field in ["name", "version", "purl"] {
		denials("sbom.complete", without(field), {})
		every odd in ["", null, 1, [], ["x"], {}, {"x": "y"}] {
			denials("sbom.complete", facts([json.patch(library, [{"op": "replace", "path": sprintf("/%v", [field]), "value": odd}])]), {})
		}
	}
	passes("sbom.complete", without("attestation"), {})
	every type in ["", "container", "framework"] {
		denials("sbom.complete", changed({"type": type, "version": ""}), {})
	}
	denials("sbom.complete", facts([json.remove(library, ["type", "purl"])]), {})
}

test_what_is_no_package_needs_a_name_only if {
	every type in ["operating-system", "application", "file"] {
		bare := {"name": "x", "version": "", "purl": "", "type": type}
		passes("sbom.complete", facts([bare, library]), {})
		passes("sbom.complete", facts([object.union(library, {"type": type})]), {})
		denials("sbom.complete", facts([object.union(bare, {"name": ""}), library]), {})
		denials("sbom.complete", facts([object.union(bare, {"name": ["x"]}), library]), {})
		passes("sbom.ntia", with_documents([object.union(library, {"type": type, "supplier": ""}), bare], [document]), config)
	}
}

test_ntia_is_switched_by_a_word if {
	passes("sbom.ntia", facts([]), {"sbom": {"ntia": false}})
	passes("sbom.ntia", without("supplier"), {"sbom": {"ntia": false}})
	every odd in [{}, {"sbom": {}}, {"sbom": null}, {"sbom": {"ntia": null}}, {"sbom": {"ntia": "false"}}, {"sbom": {"ntia": 0}}] {
		denials("sbom.ntia", whole, odd) == {{
			"code": "sbom.ntia",
			"msg": "data.sluicegate.sbom.ntia is neither true nor false: write whether the gate demands the NTIA's minimum elements",
			"setting": "sluicegate.sbom.ntia",
		}}
	}
}

test_ntia_demands_each_element_of_a_component if {
	denials("sbom.ntia", changed({"supplier": ""}), config) == {{
		"code": "sbom.ntia",
		"msg": "app/package-lock.json > left-pad 1.3.0 has no supplier, which the NTIA's minimum elements demand",
		"term": "supplier",
		"subject": "pkg:npm/left-pad@1.3.0",
		"package": "left-pad",
		"attestation": "sha256:sbom",
	}}
	every field in ["name", "version", "purl", "supplier"] {
		denials("sbom.ntia", without(field), config)
		every odd in ["", null, 1, [], ["x"], {}] {
			denials("sbom.ntia", facts([json.patch(library, [{"op": "replace", "path": sprintf("/%v", [field]), "value": odd}])]), config)
		}
	}
}

test_ntia_demands_each_element_of_a_document if {
	denials("sbom.ntia", with_documents([library], [json.remove(document, ["timestamp"])]), config) == {{
		"code": "sbom.ntia",
		"msg": "the SBOM sha256:sbom does not say when it was made: use a tool that writes it",
		"term": "timestamp",
		"attestation": "sha256:sbom",
	}}
	every field, term in {"authors": "author", "timestamp": "timestamp", "related": "relationship", "components": "relationship"} {
		some violation in denials("sbom.ntia", with_documents([library], [json.remove(document, [field])]), config)
		violation.term == term
		every odd in [null, "", "x", [], {}, 0] {
			denials(
				"sbom.ntia", with_documents([library], [json.patch(document, [{
					"op": "replace",
					"path": sprintf("/%v", [field]),
					"value": odd,
				}])]),
				config,
			)
		}
	}
	every author in ["", " ", 1, null] {
		denials("sbom.ntia", with_documents([library], [object.union(document, {"authors": [author]})]), config)
	}
	denials("sbom.ntia", with_documents([library], [document, json.remove(document, ["attestation", "authors"])]), config)
	denials("sbom.ntia", with_documents([library], []), config)
}

test_an_alternative_of_allowed_licences_passes if {
	every options in [[["MIT"]], [["GPL-2.0-only"], ["MIT"]], [["MIT", "Apache-2.0"]]] {
		passes("sbom.licenses", changed({"licenseOptions": options}), config)
	}
}

test_a_licence_that_is_not_allowed_is_denied_by_its_id if {
	denials("sbom.licenses", changed({"licenseOptions": [["GPL-2.0-only", "MIT"]]}), config) == {{
		"code": "sbom.licenses",
		"msg": "app/package-lock.json > left-pad 1.3.0 is under GPL-2.0-only, which is not in data.sluicegate.licenses.allowed",
		"term": "GPL-2.0-only",
		"subject": "pkg:npm/left-pad@1.3.0",
		"package": "left-pad",
		"attestation": "sha256:sbom",
	}}

	# Each licence of the alternative that comes nearest, and none of the others.
	found := denials("sbom.licenses", changed({"licenseOptions": [["A", "B"], ["C", "D", "E"]]}), config)
	{violation.term | some violation in found} == {"A", "B"}
	{v.term | some v in denials("sbom.licenses", changed({"licenseOptions": [["A", "B"], ["C", "MIT"]]}), config)} == {"C"}
}

test_components_without_a_licence_are_as_unknown_says if {
	bare := changed({"licenseOptions": []})
	denials("sbom.licenses", bare, config) == {{
		"code": "sbom.licenses",
		"msg": concat("", [
			"app/package-lock.json > left-pad 1.3.0 says nothing about its licence, ",
			"and data.sluicegate.licenses.unknown is not allow",
		]),
		"term": "unknown",
		"subject": "pkg:npm/left-pad@1.3.0",
		"package": "left-pad",
		"attestation": "sha256:sbom",
	}}
	passes("sbom.licenses", bare, {"licenses": {"allowed": ["MIT"], "unknown": "allow"}})
	denials("sbom.licenses", bare, {"licenses": {"allowed": ["*"], "unknown": "deny"}})

	# What is no package has to have an allowed one only if it has one.
	passes("sbom.licenses", facts([system]), config)
	denials("sbom.licenses", facts([object.union(system, {"licenseOptions": [["GPL-2.0-only"]]})]), config)
}

test_licences_that_cannot_be_read_are_denied_unless_any_will_do if {
	every odd in [null, "MIT", 1, true] {
		facts_ := facts([json.patch(library, [{"op": "replace", "path": "/licenseOptions", "value": odd}])])
		some violation in denials("sbom.licenses", facts_, {"licenses": {"allowed": ["MIT"], "unknown": "allow"}})
		violation.term == "unreadable"
	}
	some violation in denials("sbom.licenses", without("licenseOptions"), {"licenses": {"allowed": ["*"], "unknown": "allow"}})
	violation.term == "unreadable"
	every options in [[[]], [null], ["MIT"], [{}], [[1]], [["MIT", null]], {"a": ["MIT"]}, {}] {
		denials("sbom.licenses", facts([json.patch(library, [{"op": "replace", "path": "/licenseOptions", "value": options}])]), {"licenses": {
			"allowed": ["MIT"],
			"unknown": "allow",
		}})
	}
	any_licence := {"licenses": {"allowed": ["*"], "unknown": "deny"}}
	passes("sbom.licenses", facts([json.patch(library, [{"op": "replace", "path": "/licenseOptions", "value": null}])]), any_licence)
	passes("sbom.licenses", changed({"licenseOptions": [["LicenseRef-x"]]}), any_licence)
	denials("sbom.licenses", changed({"licenseOptions": [[]]}), any_licence)
}

test_missing_settings_of_licences_name_the_key_to_write if {
	every odd in [{"unknown": "allow"}, {"allowed": "MIT", "unknown": "allow"}, {"allowed": [1], "unknown": "allow"}, {"allowed": [""], "unknown": "allow"}] {
		denials("sbom.licenses", whole, {"licenses": odd}) == {{
			"code": "sbom.licenses",
			"msg": "data.sluicegate.licenses.allowed is not a list of SPDX ids: write it, [\"*\"] if every licence is accepted",
			"setting": "sluicegate.licenses.allowed",
		}}
	}
	every odd in [{"allowed": ["MIT"]}, {"allowed": ["MIT"], "unknown": true}, {"allowed": ["MIT"], "unknown": "Allow"}] {
		denials("sbom.licenses", facts([library]), {"licenses": odd}) == {{
			"code": "sbom.licenses",
			"msg": "data.sluicegate.licenses.unknown is neither allow nor deny: write what holds for a component without a licence",
			"setting": "sluicegate.licenses.unknown",
		}}
	}
}

test_a_banned_package_is_denied_with_the_path_to_it if {
	every ban in ["pkg:npm/left-pad", "pkg:npm/left-pad@1.3.0", "pkg:npm/Left-Pad"] {
		denials("sbom.banned", whole, {"banned_packages": ["pkg:npm/x", ban]}) == {{
			"code": "sbom.banned",
			"msg": sprintf("app/package-lock.json > left-pad 1.3.0 is banned (%v in data.sluicegate.banned_packages): replace it", [ban]),
			"term": ban,
			"subject": "pkg:npm/left-pad@1.3.0",
			"package": "left-pad",
			"attestation": "sha256:sbom",
		}}
	}
	passes("sbom.banned", whole, {"banned_packages": []})
	passes("sbom.banned", whole, {"banned_packages": ["pkg:npm/left-pad@1.2.0", "pkg:npm/left", "pkg:pypi/left-pad"]})
}

test_missing_bans_and_unreadable_purls_are_denied if {
	every odd in [{}, {"banned_packages": null}, {"banned_packages": "x"}, {"banned_packages": ["x"]}, {"banned_packages": [1]}] {
		denials("sbom.banned", whole, odd) == {{
			"code": "sbom.banned",
			"msg": "data.sluicegate.banned_packages is not a list of purls without qualifiers: write it, [] if none is banned",
			"setting": "sluicegate.banned_packages",
		}}
	}
	every odd in [null, 1, ["pkg:npm/x"]] {
		some violation in denials("sbom.banned", facts([json.patch(library, [{"op": "replace", "path": "/purl", "value": odd}])]), {"banned_packages": []})
		contains(violation.msg, "has a purl that can't be read")
	}
	denials("sbom.banned", without("purl"), config)
	denials("sbom.banned", facts([json.remove(library, ["name", "version", "path", "attestation"])]), {"banned_packages": ["pkg:npm/left-pad"]})
}
