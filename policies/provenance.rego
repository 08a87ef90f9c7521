# METADATA
# scope: package
# title: Who built it
# description: Rules about SLSA provenance v1 of the image and of the steps that its content came from.
package provenance

provenance_type := "https://slsa.dev/provenance/v1"

code := "provenance.builder_and_signer"

# METADATA
# title: Every provenance is from an allowed builder, signed by a signer allowed for that builder
# description: >-
#   The image has at least one provenance of its own, and the builder id of each provenance in its closed set, the image's and
#   the steps', stands in data.sluicegate.allowed_builders together with the signer of that statement.
# custom:
#   short_name: builder_and_signer
#   solution: >-
#     Build with an allowed builder, or let the gate's owners add the builder id and the signer's name to
#     data.sluicegate.allowed_builders.
#   requires: ["https://slsa.dev/provenance/v1"]
#   controls:
#     soc2: [CC6.1, CC8.1]
#     pci_dss: ["6.2.1", "6.5.1"]
#     nist_ssdf: [PO.3.2, PS.2.1]
#     slsa: [build-l1, build-l2]
#   none_is_fine: [provenances]
pass contains code if {
	count(provenances_of_the_image) > 0
	every statement in provenances {
		is_allowed(statement)
	}
}

deny contains violation if {
	count(provenances_of_the_image) == 0
	violation := {
		"code": code,
		"msg": sprintf("no provenance is about the image %v: build it with a builder that writes one", [image]),
		"subject": image,
	}
}

deny contains violation if {
	some statement in provenances
	not is_allowed(statement)
	builder := builder_id(statement)
	signer := signer_name(statement)
	attestation := digest_of(statement)
	violation := {
		"code": code,
		"msg": sprintf(
			"provenance %v names the builder %q and was signed by %q: that pair is not in data.sluicegate.allowed_builders",
			[attestation, builder, signer],
		),
		"term": builder,
		"builder_id": builder,
		"signer": signer,
		"attestation": attestation,
	}
}

default attestations := []

attestations := input.attestations if is_array(input.attestations)

provenances contains statement if {
	some statement in attestations
	statement.predicateType == provenance_type
}

provenances_of_the_image contains statement if {
	some statement in provenances
	is_array(statement.subjects)
	some subject in statement.subjects
	subject.digest == input.subject.digest
}

is_allowed(statement) if {
	is_array(data.sluicegate.allowed_builders)
	some allowed in data.sluicegate.allowed_builders
	allowed.builder_id == statement.predicate.runDetails.builder.id
	allowed.signer == statement.signer.name
	allowed.builder_id != ""
	allowed.signer != ""
}

default image := "that is judged"

image := input.subject.digest if is_string(input.subject.digest)

default builder_id(_) := ""

builder_id(statement) := id if {
	id := statement.predicate.runDetails.builder.id
	is_string(id)
}

default signer_name(_) := ""

signer_name(statement) := name if {
	name := statement.signer.name
	is_string(name)
}

default digest_of(_) := "without a digest"

digest_of(statement) := digest if {
	digest := statement.digest
	is_string(digest)
}
