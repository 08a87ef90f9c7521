package provenance_test

import data.provenance

code := "provenance.builder_and_signer"

image := "sha256:1111111111111111111111111111111111111111111111111111111111111111"

product := "sha256:2222222222222222222222222222222222222222222222222222222222222222"

builder := "https://sluicegate.dev/builder/local@v1"

allowed := {"allowed_builders": [{"builder_id": builder, "signer": "builder"}]}

statement(subject, by, signer) := {
	"predicateType": "https://slsa.dev/provenance/v1",
	"digest": "sha256:aaaa",
	"subjects": [{"name": "x", "digest": subject}],
	"predicate": {"runDetails": {"builder": {"id": by}}},
	"signer": {"kind": "key", "keyId": "sha256:bbbb", "name": signer},
}

facts(statements) := {"subject": {"name": "shop", "digest": image}, "attestations": statements}

passes(facts_, config) if {
	code in provenance.pass with input as facts_ with data.sluicegate as config
	count(provenance.deny) == 0 with input as facts_ with data.sluicegate as config
}

denials(facts_, config) := found if {
	not code in provenance.pass with input as facts_ with data.sluicegate as config
	found := provenance.deny with input as facts_ with data.sluicegate as config
	count(found) > 0
}

test_allowed_builder_and_signer_pass if {
	passes(facts([statement(image, builder, "builder"), statement(product, builder, "builder")]), allowed)
}

test_statements_of_other_types_are_not_judged if {
	sbom := object.union(statement(image, "", "recorder"), {"predicateType": "https://cyclonedx.org/bom"})
	passes(facts([statement(image, builder, "builder"), sbom]), allowed)
}

test_another_builder_is_denied_by_name if {
	found := denials(facts([statement(image, "https://evil.example", "builder")]), allowed)
	some violation in found
	violation.code == code
	violation.term == "https://evil.example"
	violation.signer == "builder"
	violation.attestation == "sha256:aaaa"
	contains(violation.msg, "https://evil.example")
}

test_another_signer_is_denied_by_name if {
	found := denials(facts([statement(image, builder, "recorder")]), allowed)
	some violation in found
	contains(violation.msg, "\"recorder\"")
}

test_one_bad_step_is_enough if {
	statements := [statement(image, builder, "builder"), statement(product, builder, "recorder")]
	count(denials(facts(statements), allowed)) == 1
}

test_a_builder_and_a_signer_of_different_entries_are_no_pair if {
	config := {"allowed_builders": [
		{"builder_id": builder, "signer": "ci"},
		{"builder_id": "https://ci.example", "signer": "builder"},
	]}
	denials(facts([statement(image, builder, "builder")]), config)
}

test_provenance_of_the_image_itself_is_needed if {
	found := denials(facts([statement(product, builder, "builder")]), allowed)
	some violation in found
	violation.subject == image
}

test_nothing_passes_by_being_empty if {
	denials(facts([]), allowed)
	denials({"subject": {"digest": image}}, allowed)
	denials({}, allowed)
	denials(facts([statement(image, builder, "builder")]), {"allowed_builders": []})
	denials(facts([statement(image, builder, "builder")]), {})
	denials(facts([statement(image, "", "")]), {"allowed_builders": [{"builder_id": "", "signer": ""}]})
}

test_a_missing_field_is_denied if {
	whole := statement(image, builder, "builder")
	denials(facts([json.remove(whole, ["predicate/runDetails/builder/id"])]), allowed)
	denials(facts([json.remove(whole, ["signer/name"])]), allowed)
	denials(facts([json.remove(whole, ["signer"])]), allowed)
	denials(facts([json.remove(whole, ["predicate"])]), allowed)
	denials(facts([json.remove(whole, ["subjects"])]), allowed)
	denials(facts([json.remove(object.union(whole, {"signer": {"name": "recorder"}}), ["digest"])]), allowed)
	passes(facts([json.remove(whole, ["digest"])]), allowed)
}
