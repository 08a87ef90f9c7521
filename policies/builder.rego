# METADATA
# scope: package
# title: Which builder
# description: Rules about the builder that each SLSA provenance v1 names.
package builder

provenance_type := "https://slsa.dev/provenance/v1"

allowed_code := "builder.allowed"

version_code := "builder.version"

# METADATA
# title: Every provenance is from an allowed builder
# description: >-
#   The builder id of each provenance, the image's and the steps', is one of those in data.sluicegate.allowed_builders.
#   provenance.builder_and_signer asks for the signer as well; this rule is for gates that leave signers to trust.yaml.
# custom:
#   short_name: allowed
#   solution: Build with an allowed builder, or let the gate's owners add the builder id to data.sluicegate.allowed_builders.
#   requires: ["https://slsa.dev/provenance/v1"]
#   controls:
#     soc2: [CC6.1, CC8.1]
#     pci_dss: ["6.2.1", "6.5.1"]
#     nist_ssdf: [PO.3.2, PS.2.1]
#     slsa: [build-l1]
pass contains allowed_code if {
	count(provenances) > 0
	every statement in provenances {
		statement.predicate.runDetails.builder.id in allowed
	}
}

deny contains violation if {
	count(provenances) == 0
	violation := {"code": allowed_code, "msg": "the facts hold no provenance: build the image with a builder that writes one"}
}

deny contains violation if {
	some statement in provenances
	id := builder_id(statement)
	not id in allowed
	attestation := digest_of(statement)
	violation := {
		"code": allowed_code,
		"msg": sprintf("provenance %v names the builder %q, which is not in data.sluicegate.allowed_builders", [attestation, id]),
		"term": id,
		"builder_id": id,
		"attestation": attestation,
	}
}

# METADATA
# title: Every builder says its version
# description: >-
#   Each provenance names the versions of what built it under builder.version, so that a builder with a known fault can be found later.
#   data.sluicegate.builder.any_version set to true switches the rule off.
# custom:
#   short_name: version
#   solution: >-
#     Build with a builder that writes builder.version, or let the gate's owners set data.sluicegate.builder.any_version to true.
#   requires: ["https://slsa.dev/provenance/v1"]
#   controls:
#     soc2: [CC7.1, CC8.1]
#     pci_dss: ["6.3.2"]
#     nist_ssdf: [PO.3.3, PS.3.2]
#     slsa: [build-l1]
pass contains version_code if data.sluicegate.builder.any_version == true

pass contains version_code if {
	count(provenances) > 0
	every statement in provenances {
		says_versions(statement)
	}
}

deny contains violation if {
	not data.sluicegate.builder.any_version == true
	count(provenances) == 0
	violation := {"code": version_code, "msg": "the facts hold no provenance: build the image with a builder that writes one"}
}

deny contains violation if {
	not data.sluicegate.builder.any_version == true
	some statement in provenances
	not says_versions(statement)
	id := builder_id(statement)
	attestation := digest_of(statement)
	violation := {
		"code": version_code,
		"msg": sprintf(
			"provenance %v of the builder %q says no builder.version: use a builder that does, or set data.sluicegate.builder.any_version to true",
			[attestation, id],
		),
		"term": id,
		"builder_id": id,
		"attestation": attestation,
	}
}

default attestations := []

attestations := input.attestations if is_array(input.attestations)

provenances contains statement if {
	some statement in attestations
	statement.predicateType == provenance_type
}

allowed contains entry.builder_id if {
	is_array(data.sluicegate.allowed_builders)
	some entry in data.sluicegate.allowed_builders
	is_string(entry.builder_id)
	entry.builder_id != ""
}

# SLSA v1 has a mapping of names to versions here.
says_versions(statement) if {
	versions := statement.predicate.runDetails.builder.version
	is_object(versions)
	count(versions) > 0
	every version in versions {
		is_string(version)
		trim_space(version) != ""
	}
}

default builder_id(_) := ""

builder_id(statement) := id if {
	id := statement.predicate.runDetails.builder.id
	is_string(id)
}

default digest_of(_) := "without a digest"

digest_of(statement) := digest if {
	digest := statement.digest
	is_string(digest)
}
