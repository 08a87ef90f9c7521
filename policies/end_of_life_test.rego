package end_of_life_test

import data.end_of_life

system_code := "end_of_life.system"

packages_code := "end_of_life.packages"

openssl := {
	"name": "openssl",
	"version": "1.1.1",
	"purl": "pkg:deb/debian/openssl@1.1.1?arch=amd64",
	"path": ["debian"],
	"attestation": "sha256:sbom",
}

wheel := {"name": "wheel", "version": "1", "purl": "pkg:pypi/wheel@1", "path": [], "attestation": "sha256:sbom"}

debian := {"family": "debian", "release": "12.11", "ended": false}

at(now, system, components) := {
	"now": now,
	"scan": {"tool": "trivy", "coverage": {"read": [], "unread": [], "system": system}},
	"sbom": {"components": components, "documents": []},
}

noon := "2026-06-30T12:00:00Z"

whole := at(noon, debian, [openssl, wheel])

none := {"end_of_life_packages": {}}

denied_by(code) := {violation | some violation in end_of_life.deny; violation.code == code}

passes(code, facts_, config_) if {
	code in end_of_life.pass with input as facts_ with data.sluicegate as config_
	count(denied_by(code)) == 0 with input as facts_ with data.sluicegate as config_
}

denials(code, facts_, config_) := found if {
	not code in end_of_life.pass with input as facts_ with data.sluicegate as config_
	found := denied_by(code) with input as facts_ with data.sluicegate as config_
	count(found) > 0
}

test_a_maintained_system_passes if {
	passes(system_code, whole, {})
	passes(system_code, whole, {"end_of_life": {"debian 12": "2028-06-30", "debian 11": "2024-08-14", "alpine 12": "2020-01-01"}})
}

test_an_ended_system_is_denied if {
	denials(system_code, at(noon, object.union(debian, {"ended": true}), [wheel]), {}) == {{
		"code": system_code,
		"msg": "the scan does not say that debian 12.11 is still maintained: build on a newer release",
		"term": "debian 12.11",
	}}
	every odd in ["false", null, 0] {
		denials(system_code, at(noon, object.union(debian, {"ended": odd}), [wheel]), {})
	}
}

test_a_date_counts_from_its_very_second if {
	config := {"end_of_life": {"debian 12": noon}}
	passes(system_code, at("2026-06-30T11:59:59Z", debian, [wheel]), config)
	denials(system_code, whole, config) == {{
		"code": system_code,
		"msg": concat("", [
			"debian 12.11 is not maintained since 2026-06-30T12:00:00Z (debian 12 in data.sluicegate.end_of_life): ",
			"build on a newer release",
		]),
		"term": "debian 12",
	}}
	passes(system_code, at("2026-06-29T23:59:59Z", debian, [wheel]), {"end_of_life": {"debian 12": "2026-06-30"}})
	denials(system_code, at("2026-06-30T00:00:00Z", debian, [wheel]), {"end_of_life": {"debian 12": "2026-06-30"}})
}

test_a_date_may_be_about_more_parts_of_a_release if {
	alpine := {"family": "alpine", "release": "3.19.1", "ended": false}
	every key in ["alpine 3", "alpine 3.19", "alpine 3.19.1"] {
		denials(system_code, at(noon, alpine, [wheel]), {"end_of_life": {key: "2025-11-01"}})
	}
	passes(system_code, at(noon, alpine, [wheel]), {"end_of_life": {"alpine 3.1": "2025-11-01", "alpine 3.18": "2025-11-01"}})
}

test_dates_that_cannot_be_read_are_denied if {
	every odd in ["soon", "", null, 1, "2026-02-30", ["2028-06-30"]] {
		denials(system_code, whole, {"end_of_life": {"debian 12": odd}})
	}
	every odd in [null, "x", 1, ["debian 12"]] {
		denials(system_code, whole, {"end_of_life": odd}) == {{
			"code": system_code,
			"msg": "data.sluicegate.end_of_life is not a mapping of systems to dates: write \"FAMILY MAJOR\": a date, such as 2028-06-30",
			"setting": "sluicegate.end_of_life",
		}}
	}
	every odd in [null, "", "x", 1] {
		denials(system_code, at(odd, debian, [wheel]), {"end_of_life": {"debian 12": "2028-06-30"}})
	}
	denials(system_code, json.remove(whole, ["now"]), {"end_of_life": {"debian 12": "2028-06-30"}})
}

test_an_image_without_a_system_passes_only_without_its_packages if {
	passes(system_code, at(noon, null, [wheel]), {})
	denials(system_code, at(noon, null, [wheel, openssl]), {}) == {{
		"code": system_code,
		"msg": concat("", [
			"the scan found no operating system, and the SBOM lists packages of one (pkg:deb): ",
			"nobody knows how long it is maintained",
		]),
		"term": "deb",
	}}
	every purl in ["pkg:rpm/x@1", "pkg:apk/alpine/x@1", "PKG:DEB/x"] {
		denials(system_code, at(noon, null, [object.union(wheel, {"purl": purl})]), {})
	}
	denials(system_code, at(noon, null, []), {})
	denials(system_code, at(noon, null, [json.remove(wheel, ["purl"])]), {})
	denials(system_code, at(noon, null, [wheel]), {"end_of_life": "x"})
}

test_a_missing_field_is_denied if {
	every path in [
		"scan",
		"scan/coverage",
		"scan/coverage/system",
		"scan/coverage/system/family",
		"scan/coverage/system/release",
		"scan/coverage/system/ended",
	] {
		denials(system_code, json.remove(whole, [path]), {})
	}
	every odd in ["debian", 1, [], {}, {"family": "", "release": "", "ended": false}, {"family": 1, "release": 1, "ended": false}] {
		denials(system_code, at(noon, odd, [wheel]), {})
	}
	every path in ["now", "sbom", "sbom/components"] {
		denials(packages_code, json.remove(whole, [path]), none)
	}
	denials(packages_code, at(noon, debian, [json.remove(openssl, ["purl"])]), none)
	every odd in [null, "", "x", 1] {
		denials(packages_code, at(odd, debian, [wheel]), none)
	}
}

test_a_package_that_nobody_maintains_is_denied_from_the_very_second if {
	config := {"end_of_life_packages": {"pkg:deb/debian/openssl": noon, "pkg:npm/x": "2020-01-01"}}
	passes(packages_code, at("2026-06-30T11:59:59Z", debian, [openssl, wheel]), config)
	denials(packages_code, whole, config) == {{
		"code": packages_code,
		"msg": concat("", [
			"debian > openssl 1.1.1 is not maintained since 2026-06-30T12:00:00Z ",
			"(pkg:deb/debian/openssl in data.sluicegate.end_of_life_packages): replace it",
		]),
		"term": "pkg:deb/debian/openssl",
		"subject": "pkg:deb/debian/openssl@1.1.1?arch=amd64",
		"package": "openssl",
		"attestation": "sha256:sbom",
	}}
	passes(packages_code, at(noon, debian, [wheel]), config)
	passes(packages_code, whole, none)
	denials(packages_code, at(noon, debian, [json.remove(openssl, ["name", "version", "path", "attestation"])]), config)
}

test_a_missing_mapping_names_the_key_to_write if {
	every odd in [
		{},
		{"end_of_life_packages": null},
		{"end_of_life_packages": []},
		{"end_of_life_packages": {"x": "2020-01-01"}},
		{"end_of_life_packages": {"pkg:npm/x": "soon"}},
		{"end_of_life_packages": {"pkg:npm/x": null}},
	] {
		denials(packages_code, whole, odd) == {{
			"code": packages_code,
			"msg": concat("", [
				"data.sluicegate.end_of_life_packages is not a mapping of purls without a version to dates: ",
				"write it, {} if it names none",
			]),
			"setting": "sluicegate.end_of_life_packages",
		}}
	}
}

test_nothing_passes_by_being_empty if {
	every facts_ in [{}, {"scan": null, "sbom": null}, {"scan": {}, "sbom": {}}, {"scan": {"coverage": null}}, {"scan": "x", "sbom": "x"}] {
		denials(system_code, facts_, {})
		denials(packages_code, facts_, none)
	}
	denials(packages_code, at(noon, debian, []), none)
}
