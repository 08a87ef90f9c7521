package vex_test

import data.vex

image := "sha256:1111"

index := "sha256:2222"

finding := {
	"id": "CVE-2026-1",
	"aliases": ["GHSA-1"],
	"purl": "pkg:deb/debian/libc6@2.36-9%2Bdeb12u14?arch=amd64",
}

statement := {
	"vulnerability": {"name": "CVE-2026-1"},
	"status": "not_affected",
	"justification": "vulnerable_code_not_present",
	"products": [{"@id": "pkg:oci/shop@sha256%3A1111", "subcomponents": [{"@id": "pkg:deb/debian/libc6"}]}],
}

by(name, statements) := {
	"predicateType": "https://openvex.dev/ns/v0.2.0",
	"digest": "sha256:vex",
	"subjects": [{"name": "shop", "digest": image}],
	"signer": {"kind": "key", "name": name},
	"predicate": {"statements": statements},
}

facts(attestations) := {"subject": {"name": "shop", "digest": image, "index": index}, "attestations": attestations, "vulnerabilities": [finding]}

saying(changes) := facts([by("alice", [object.union(statement, changes)])])

about(products) := saying({"products": products})

listing := {"vex": {"signers": ["alice", "vexers"]}}

is_settled(facts_) if vex.settled == {0} with input as facts_ with data.sluicegate as listing

is_affected(facts_) if {
	vex.affected == {0} with input as facts_ with data.sluicegate as listing
	vex.settled == set() with input as facts_ with data.sluicegate as listing
}

says(facts_, config) := rank if {
	rank := object.get(vex.worst, 0, 0) with input as facts_ with data.sluicegate as config
}

test_a_listed_signer_settles_a_finding if {
	is_settled(saying({}))
	is_settled(saying({"status": "fixed"}))
	is_settled(saying({"vulnerability": {"name": "GHSA-1"}}))
	is_settled(saying({"vulnerability": {"name": "X-1", "aliases": ["GHSA-1"]}}))
	threshold := object.union(by("vexers", [statement]), {"signer": {"kind": "threshold", "by": ["alice", "bob"]}})
	is_settled(facts([threshold]))
	of_index := json.patch(by("alice", [statement]), [{"op": "replace", "path": "/subjects/0/digest", "value": index}])
	is_settled(facts([of_index]))
}

test_nobody_else_counts if {
	says(facts([by("bob", [statement])]), listing) == 0
	every config in [{}, {"vex": {}}, {"vex": {"signers": []}}, {"vex": {"signers": "alice"}}, {"vex": {"signers": [null, 1, ""]}}] {
		says(saying({}), config) == 0
	}
	says(facts([by("", [statement])]), {"vex": {"signers": [""]}}) == 0
}

test_what_is_about_another_image_does_not_count if {
	other := json.patch(by("alice", [statement]), [{"op": "replace", "path": "/subjects/0/digest", "value": "sha256:3333"}])
	says(facts([other]), listing) == 0
	says(json.remove(facts([other]), ["subject"]), listing) == 0
	says(about([{"@id": "pkg:oci/shop@sha256%3A3333"}]), listing) == 0
	says(about([{"@id": "pkg:oci/shop@sha256:3333", "subcomponents": [{"@id": "pkg:deb/debian/libc6"}]}]), listing) == 0
}

test_only_the_findings_own_names_count if {
	says(saying({"vulnerability": {"name": "CVE-2026-2"}}), listing) == 0
	says(saying({"vulnerability": {"name": "cve-2026-1"}}), listing) == 0
	every odd in [null, "CVE-2026-1", {}, {"name": null}, {"name": "", "aliases": [""]}, {"name": ["CVE-2026-1"]}, {"aliases": "GHSA-1"}] {
		changed := json.patch(statement, [{"op": "replace", "path": "/vulnerability", "value": odd}])
		says(facts([by("alice", [changed])]), listing) == 0
	}

	# A finding without a name is nobody's.
	nameless := object.union(saying({}), {"vulnerabilities": [json.remove(finding, ["id", "aliases"]), null, {"id": "", "aliases": [""]}]})
	vex.settled == set() with input as nameless with data.sluicegate as listing
}

test_a_justification_is_one_of_the_five if {
	says(facts([by("alice", [json.remove(statement, ["justification"])])]), listing) == 0
	every odd in ["", "because", null, ["vulnerable_code_not_present"]] {
		says(saying({"justification": odd, "impact_statement": "none"}), listing) == 0
	}
}

test_the_worst_word_wins if {
	every status in ["affected", "Not_affected", "", "false_positive"] {
		is_affected(saying({"status": status}))
		is_affected(facts([by("vexers", [statement]), by("alice", [object.union(statement, {"status": status})])]))
	}
	is_affected(facts([by("alice", [json.remove(statement, ["status"])])]))
	says(facts([by("alice", [object.union(statement, {"status": "under_investigation"}), statement])]), listing) == 2
	is_affected(facts([by("alice", [object.union(statement, {"status": x}) | some x in ["under_investigation", "affected"]])]))
	is_settled(facts([by("alice", [statement]), by("bob", [object.union(statement, {"status": "affected"})])]))
}

test_packages_are_met_by_purl if {
	every purl in [
		"pkg:deb/debian/libc6",
		"pkg:deb/debian/libc6@2.36-9%2Bdeb12u14",
		"pkg:deb/debian/libc6@2.36-9+deb12u14",
		"pkg:deb/debian/libc6@2.36-9%2bdeb12u14?arch=amd64",
	] {
		is_settled(about([{"@id": "pkg:oci/shop", "subcomponents": [{"@id": purl}]}]))
		is_settled(about([{"@id": purl}]))
		is_settled(about([{"@id": purl, "subcomponents": []}]))
		is_settled(about([{"@id": "https://example.com/shop", "subcomponents": [{"@id": purl}]}]))
	}
	every purl in ["pkg:deb/debian/libc", "pkg:deb/debian/libc6@2.36-9", "pkg:deb/debian/libc6@2.36-9%2Bdeb12u14?arch=arm64", "pkg:deb/ubuntu/libc6"] {
		says(about([{"@id": "pkg:oci/shop", "subcomponents": [{"@id": purl}]}]), listing) == 0
		says(about([{"@id": purl}]), listing) == 0
	}
	unknown := object.union(saying({}), {"vulnerabilities": [json.remove(finding, ["purl"])]})
	says(unknown, listing) == 0
}

test_a_statement_about_the_whole_image_meets_every_package if {
	is_settled(about([]))
	is_settled(facts([by("alice", [json.remove(statement, ["products"])])]))
	every id in ["pkg:oci/shop", "pkg:oci/shop@sha256%3A1111", "pkg:docker/shop@sha256:1111?x=y", "pkg:oci/shop@sha256:2222"] {
		is_settled(about([{"@id": id}]))
	}
	unknown := object.union(about([]), {"vulnerabilities": [json.remove(finding, ["purl"])]})
	says(unknown, listing) == 1
}

test_what_nobody_can_tell_accuses_and_never_excuses if {
	every products in [
		[{"@id": "https://example.com/shop"}],
		[{}],
		[null],
		["pkg:oci/shop"],
		[{"@id": "pkg:oci/shop", "subcomponents": "x"}],
		[{"@id": "pkg:oci/shop", "subcomponents": [1]}],
		"x",
		1,
		{},
	] {
		changed := json.patch(statement, [{"op": "replace", "path": "/products", "value": products}])
		says(facts([by("alice", [changed])]), listing) == 0
		is_affected(facts([by("alice", [object.union(changed, {"status": "affected"}), statement])]))
	}
}

test_a_missing_or_ill_typed_part_says_nothing if {
	every path in ["predicateType", "signer", "signer/name", "subjects", "predicate", "predicate/statements"] {
		says(facts([json.remove(by("alice", [statement]), [path])]), listing) == 0
	}
	every odd in [null, "x", 1, {}, [null], ["x"], [[]], [{}]] {
		changed := json.patch(by("alice", []), [{"op": "replace", "path": "/predicate/statements", "value": odd}])
		says(facts([changed]), listing) == 0
		says(facts(odd), listing) == 0
		says(object.union(saying({}), {"vulnerabilities": odd}), listing) == 0
	}
	says({}, listing) == 0
}
