# METADATA
# scope: package
# title: What steps reached
# description: Rules about what the steps of an image could reach beside the inputs that their provenances name.
package hermetic

provenance_type := "https://slsa.dev/provenance/v1"

step_build_type := "https://sluicegate.dev/step/v1"

network := "hermetic.network"

caches := "hermetic.caches"

# METADATA
# title: No step had the machine's own network
# description: >-
#   Each step ran without a network, or with a list of servers through the proxy that writes down what was asked for. One with the
#   machine's own network, of which nothing is written down, is denied. A step whose provenance says nothing about its network, or
#   something unknown, leaves the rule without an answer.
# custom:
#   short_name: network
#   solution: >-
#     Leave network: host out of the step, or list the servers that it needs (network: { allow: [HOST:PORT] }), and build again.
#   requires: ["https://slsa.dev/provenance/v1"]
#   controls:
#     soc2: [CC6.6, CC8.1]
#     pci_dss: ["6.2.1", "6.3.2"]
#     nist_ssdf: [PO.5.1, PW.6.2]
#     slsa: [build-l3]
pass contains network if {
	count(steps) > 0
	every step in steps {
		network_of(step) in {"none", "allow"}
	}
}

deny contains violation if {
	count(steps) == 0
	violation := {"code": network, "msg": "no provenance is of a step: nobody knows what the steps could reach"}
}

deny contains violation if {
	some step in steps
	network_of(step) == "host"
	name := name_of(step)
	violation := {
		"code": network,
		"msg": sprintf("the step %v ran with the machine's own network (network: host): nobody knows what it fetched", [name]),
		"term": "host",
		"step": name,
		"attestation": digest_of(step),
	}
}

# METADATA
# title: No step shared a cache with other runs
# description: >-
#   No step had a folder that other runs write to. What was in such a folder nobody knows, and whoever wrote there may have changed what
#   was built. It is denied unless data.sluicegate.hermetic.accept_shared_caches is true. A step whose provenance does not say what it was
#   asked for, or does not list what it depends on, leaves the rule without an answer.
# custom:
#   short_name: caches
#   solution: >-
#     Leave caches out of the step and build again, or let the gate's owners set data.sluicegate.hermetic.accept_shared_caches.
#   requires: ["https://slsa.dev/provenance/v1"]
#   controls:
#     soc2: [CC8.1]
#     pci_dss: ["6.2.1"]
#     nist_ssdf: [PO.5.1, PW.6.2]
#     slsa: [build-l3]
#   none_is_fine: [dependencies(step)]
pass contains caches if {
	count(steps) > 0
	every step in steps {
		says_what_it_read(step)
		is_accepted(step)
	}
}

deny contains violation if {
	count(steps) == 0
	violation := {"code": caches, "msg": "no provenance is of a step: nobody knows what the steps shared"}
}

deny contains violation if {
	some step in steps
	some cache in caches_of(step)
	not accepts_shared_caches
	name := name_of(step)
	violation := {
		"code": caches,
		"msg": sprintf("the step %v shared the cache %v with other runs: nobody vouches for what was in it", [name, cache]),
		"term": cache,
		"step": name,
		"attestation": digest_of(step),
	}
}

is_accepted(step) if count(caches_of(step)) == 0

is_accepted(_) if accepts_shared_caches

accepts_shared_caches if data.sluicegate.hermetic.accept_shared_caches == true

# What it was asked for and what it says that it read are both believed: either is enough.
caches_of(step) := asked_for(step) | listed(step)

asked_for(step) := {name | some name, _ in requested(step)}

listed(step) := {name |
	some dependency in dependencies(step)
	startswith(dependency.name, "cache:")
	name := trim_prefix(dependency.name, "cache:")
}

says_what_it_read(step) if {
	is_object(step.predicate.buildDefinition.externalParameters)
	is_array(step.predicate.buildDefinition.resolvedDependencies)
	every dependency in dependencies(step) {
		is_string(dependency.name)
	}
	is_object(object.get(parameters(step), "caches", {}))
}

default attestations := []

attestations := input.attestations if is_array(input.attestations)

steps contains statement if {
	some statement in attestations
	statement.predicateType == provenance_type
	statement.predicate.buildDefinition.buildType == step_build_type
}

default parameters(_) := {}

parameters(step) := found if {
	found := step.predicate.buildDefinition.externalParameters
	is_object(found)
}

default requested(_) := {}

requested(step) := found if {
	found := parameters(step).caches
	is_object(found)
}

default dependencies(_) := []

dependencies(step) := found if {
	found := step.predicate.buildDefinition.resolvedDependencies
	is_array(found)
}

default network_of(_) := ""

network_of(step) := said if {
	said := parameters(step).network
	is_string(said)
}

default name_of(_) := "without a name"

name_of(step) := name if {
	name := parameters(step).step
	is_string(name)
}

default digest_of(_) := "without a digest"

digest_of(step) := digest if {
	digest := step.digest
	is_string(digest)
}
