package base_image_test

import data.base_image

code := "base_image.allowed"

image := "sha256:1111111111111111111111111111111111111111111111111111111111111111"

hex := "3333333333333333333333333333333333333333333333333333333333333333"

other_hex := "4444444444444444444444444444444444444444444444444444444444444444"

allowed := {"allowed_base_images": [concat(":", ["sha256", hex])]}

base(digest) := {"name": "base", "digest": {"sha256": digest}}

product := {"name": "build.shop", "digest": {"sha256": other_hex}}

statement(named, dependencies) := {
	"predicateType": "https://slsa.dev/provenance/v1",
	"digest": "sha256:aaaa",
	"subjects": [{"name": "shop", "digest": image}],
	"predicate": {"buildDefinition": {
		"externalParameters": {"base": named},
		"resolvedDependencies": dependencies,
	}},
}

facts(statements) := {"subject": {"name": "shop", "digest": image}, "attestations": statements}

passes(facts_, config) if {
	code in base_image.pass with input as facts_ with data.sluicegate as config
	count(base_image.deny) == 0 with input as facts_ with data.sluicegate as config
}

denials(facts_, config) := found if {
	not code in base_image.pass with input as facts_ with data.sluicegate as config
	found := base_image.deny with input as facts_ with data.sluicegate as config
	count(found) > 0
}

test_an_allowed_base_passes if passes(facts([statement("debian:12", [base(hex), product])]), allowed)

test_steps_are_not_asked_for_a_base if {
	step := object.union(statement("", [product]), {"subjects": [{"name": "x", "digest": "sha256:2222"}]})
	passes(facts([statement("debian:12", [base(hex)]), step]), allowed)
}

test_another_base_is_denied_by_name_and_digest if {
	found := denials(facts([statement("debian:11", [base(other_hex)])]), allowed)
	some violation in found
	violation.code == code
	violation.term == concat(":", ["sha256", other_hex])
	violation.base == "debian:11"
	violation.attestation == "sha256:aaaa"
	contains(violation.msg, "debian:11")
}

test_every_base_must_be_allowed if {
	found := denials(facts([statement("debian:12", [base(hex), base(other_hex)])]), allowed)
	count(found) == 1
}

test_every_provenance_of_the_image_must_name_an_allowed_base if {
	good := statement("debian:12", [base(hex)])
	bad := object.union(statement("debian:11", [base(other_hex)]), {"digest": "sha256:bbbb"})
	denials(facts([good, bad]), allowed)
}

test_scratch_passes_only_where_it_is_allowed if {
	scratch := statement("scratch", [product])
	passes(facts([scratch]), {"allow_scratch": true})
	passes(facts([scratch]), object.union(allowed, {"allow_scratch": true}))
	denials(facts([scratch]), {"allow_scratch": false})
	denials(facts([scratch]), {"allow_scratch": "true"})
	denials(facts([scratch]), allowed)
	denials(facts([scratch]), {})
}

test_scratch_with_a_base_is_denied if {
	config := object.union(allowed, {"allow_scratch": true})
	denials(facts([statement("scratch", [base(hex)])]), config)
}

test_nothing_passes_by_being_empty if {
	denials({}, allowed)
	denials(facts([]), allowed)
	denials(facts([statement("debian:12", [])]), allowed)
	denials(facts([statement("debian:12", [product])]), allowed)
	denials(facts([statement("debian:12", [product])]), {"allow_scratch": true})
	denials(facts([statement("debian:12", [base(hex)])]), {"allowed_base_images": []})
	denials(facts([statement("debian:12", [base(hex)])]), {})
}

test_a_digest_that_is_none_is_denied if {
	config := {"allowed_base_images": ["missing", "sha256:", "sha256:xyz"]}
	denials(facts([statement("debian:12", [base("")])]), config)
	denials(facts([statement("debian:12", [base("xyz")])]), config)
	denials(facts([statement("debian:12", [{"name": "base", "digest": {}}])]), config)
	denials(facts([statement("debian:12", [{"name": "base"}])]), config)
}

test_a_missing_part_of_the_provenance_is_denied if {
	whole := statement("debian:12", [base(hex)])
	denials(facts([json.remove(whole, ["predicate/buildDefinition/resolvedDependencies"])]), allowed)
	denials(facts([json.remove(whole, ["predicate/buildDefinition"])]), allowed)
	denials(facts([json.remove(whole, ["predicate"])]), allowed)
	denials(facts([json.remove(whole, ["subjects"])]), allowed)
}
