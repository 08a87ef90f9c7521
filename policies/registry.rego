# METADATA
# scope: package
# title: Where images came from
# description: Rules about the places that the provenances name images by.
package registry

provenance_type := "https://slsa.dev/provenance/v1"

code := "registry.allowed"

# Names of resolved dependencies that are images.
image_names := {"image", "base", "image:index", "base:index"}

# METADATA
# title: Every image came from an allowed place
# description: >-
#   Each provenance of the image names its base, and each base image and each step's image that a provenance names by a reference, not only
#   by digest, came from a registry of data.sluicegate.registries: a host, a host with a path and /* behind it, or oci: for layout folders.
#   An image from scratch has no base; base_image.allowed decides about it.
# custom:
#   short_name: allowed
#   solution: >-
#     Take the image from an allowed registry, or let the gate's owners add the place to data.sluicegate.registries.
#   requires: ["https://slsa.dev/provenance/v1"]
#   controls:
#     soc2: [CC6.8, CC9.2]
#     pci_dss: ["6.3.2", "12.8.1"]
#     nist_ssdf: [PW.4.1, PO.1.3]
#   none_is_fine: [references]
pass contains code if {
	count(provenances_of_the_image) > 0
	every statement in provenances_of_the_image {
		names_its_base(statement)
	}
	is_set(places)
	every reference in references {
		is_allowed(reference.text)
	}
}

deny contains violation if {
	count(provenances_of_the_image) == 0
	violation := {"code": code, "msg": "no provenance is about the image, so its base is not known: build it with a builder that writes one"}
}

deny contains violation if {
	not places_are_listed
	violation := {
		"code": code,
		"msg": "data.sluicegate.registries is not a list of hosts, HOST/PATH/* or oci:: write where images may come from",
		"setting": "sluicegate.registries",
	}
}

deny contains violation if {
	some statement in provenances_of_the_image
	not names_its_base(statement)
	attestation := digest_of(statement)
	violation := {
		"code": code,
		"msg": sprintf("provenance %v does not say what the base is called: build with a builder that records it", [attestation]),
		"attestation": attestation,
	}
}

deny contains violation if {
	some reference in references
	not is_allowed(reference.text)
	violation := {
		"code": code,
		"msg": sprintf("%v came from %v, which no entry of data.sluicegate.registries covers", [reference.what, reference.text]),
		"term": sprintf("%v", [reference.text]),
		"attestation": reference.attestation,
	}
}

# Not defined where the list is missing or holds something that is no place.
places := listed if {
	is_array(data.sluicegate.registries)
	listed := {place | some place in data.sluicegate.registries}
	count({place | some place in listed; is_place(place)}) == count(listed)
}

places_are_listed if is_set(places)

is_place("oci:") := true

is_place(place) if regex.match(`^[A-Za-z0-9.-]+(:[0-9]+)?(/[^\s*]+/\*|/\*)?$`, place)

is_allowed(reference) if {
	startswith(reference, "oci:")
	"oci:" in places
}

is_allowed(reference) if {
	not startswith(reference, "oci:")
	contains(reference, "/")
	split(reference, "/")[0] in places
}

is_allowed(reference) if {
	some place in places
	endswith(place, "/*")
	startswith(reference, trim_suffix(place, "*"))
}

names_its_base(statement) if {
	base := statement.predicate.buildDefinition.externalParameters.base
	is_string(base)
	base != ""
}

references contains {"what": "the base image", "text": base, "attestation": digest_of(statement)} if {
	some statement in provenances
	base := statement.predicate.buildDefinition.externalParameters.base
	base != "scratch"
}

references contains {"what": sprintf("the image of the step %v", [step_of(statement)]), "text": image, "attestation": digest_of(statement)} if {
	some statement in provenances
	image := statement.predicate.buildDefinition.externalParameters.image
}

# Only what an image is called: its digest alone names no place.
references contains {"what": sprintf("the dependency %v", [dependency.name]), "text": dependency.uri, "attestation": digest_of(statement)} if {
	some statement in provenances
	dependencies := statement.predicate.buildDefinition.resolvedDependencies
	is_array(dependencies)
	some dependency in dependencies
	dependency.name in image_names
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

default step_of(_) := "without a name"

step_of(statement) := step if {
	step := statement.predicate.buildDefinition.externalParameters.step
	is_string(step)
}

default digest_of(_) := "without a digest"

digest_of(statement) := digest if {
	digest := statement.digest
	is_string(digest)
}
