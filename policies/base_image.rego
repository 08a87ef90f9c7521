# METADATA
# scope: package
# title: What it stands on
# description: Rules about the base image that the image's provenance names.
package base_image

provenance_type := "https://slsa.dev/provenance/v1"

code := "base_image.allowed"

# METADATA
# title: The base image is an allowed one
# description: >-
#   Each provenance of the image names its base among its resolvedDependencies, and the digest of each base stands in
#   data.sluicegate.allowed_base_images. An image from scratch has no base and is allowed where data.sluicegate.allow_scratch is
#   true.
# custom:
#   short_name: allowed
#   solution: >-
#     Build on an allowed base image, or let the gate's owners add its digest to data.sluicegate.allowed_base_images.
#   requires: ["https://slsa.dev/provenance/v1"]
#   controls:
#     soc2: [CC6.8, CC8.1]
#     pci_dss: ["2.2.1", "6.3.2"]
#     nist_ssdf: [PW.4.1, PW.4.4]
pass contains code if {
	count(provenances) > 0
	every provenance in provenances {
		stands_on_something_allowed(provenance)
	}
}

deny contains violation if {
	count(provenances) == 0
	violation := {"code": code, "msg": "no provenance is about the image, so its base is not known: build it with a builder that writes one"}
}

deny contains violation if {
	some provenance in provenances
	some base in bases(provenance)
	not is_allowed(base)
	violation := {
		"code": code,
		"msg": sprintf("the base image %v has the digest %v, which is not in data.sluicegate.allowed_base_images", [name_of_base(provenance), digest_of(base)]),
		"term": digest_of(base),
		"base": name_of_base(provenance),
		"attestation": attestation_of(provenance),
	}
}

deny contains violation if {
	some provenance in provenances
	count(bases(provenance)) == 0
	not is_from_scratch(provenance)
	violation := {
		"code": code,
		"msg": sprintf("provenance %v names no base image: build with a builder that records it", [attestation_of(provenance)]),
		"attestation": attestation_of(provenance),
	}
}

deny contains violation if {
	some provenance in provenances
	count(bases(provenance)) == 0
	is_from_scratch(provenance)
	not data.sluicegate.allow_scratch == true
	violation := {
		"code": code,
		"msg": "the image is built from scratch, and data.sluicegate.allow_scratch is not true",
		"term": "scratch",
		"attestation": attestation_of(provenance),
	}
}

deny contains violation if {
	some provenance in provenances
	count(bases(provenance)) > 0
	is_from_scratch(provenance)
	violation := {
		"code": code,
		"msg": sprintf("provenance %v says scratch and names a base image", [attestation_of(provenance)]),
		"attestation": attestation_of(provenance),
	}
}

stands_on_something_allowed(provenance) if {
	count(bases(provenance)) > 0
	not is_from_scratch(provenance)
	every base in bases(provenance) {
		is_allowed(base)
	}
}

stands_on_something_allowed(provenance) if {
	count(bases(provenance)) == 0
	is_from_scratch(provenance)
	data.sluicegate.allow_scratch == true
}

default attestations := []

attestations := input.attestations if is_array(input.attestations)

provenances contains statement if {
	some statement in attestations
	statement.predicateType == provenance_type
	is_array(statement.subjects)
	some subject in statement.subjects
	subject.digest == input.subject.digest
}

bases(provenance) := {dependency |
	dependencies := provenance.predicate.buildDefinition.resolvedDependencies
	is_array(dependencies)
	some dependency in dependencies
	dependency.name == "base"
}

is_from_scratch(provenance) if provenance.predicate.buildDefinition.externalParameters.base == "scratch"

is_allowed(base) if {
	regex.match(`^[0-9a-f]{64}$`, base.digest.sha256)
	is_array(data.sluicegate.allowed_base_images)
	digest_of(base) in data.sluicegate.allowed_base_images
}

default digest_of(_) := "missing"

digest_of(base) := concat(":", ["sha256", base.digest.sha256])

default name_of_base(_) := "without a name"

name_of_base(provenance) := name if {
	name := provenance.predicate.buildDefinition.externalParameters.base
	is_string(name)
}

default attestation_of(_) := "without a digest"

attestation_of(provenance) := provenance.digest if is_string(provenance.digest)
