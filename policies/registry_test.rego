package registry_test

import data.registry

code := "registry.allowed"

image := "sha256:1111"

allowed := {"registries": ["registry.example", "docker.io/library/*", "local:5000", "oci:"]}

about(base) := {
	"predicateType": "https://slsa.dev/provenance/v1",
	"digest": "sha256:aaaa",
	"subjects": [{"name": "shop", "digest": image}],
	"predicate": {"buildDefinition": {"externalParameters": {"base": base}, "resolvedDependencies": []}},
}

step(more, dependencies) := {
	"predicateType": "https://slsa.dev/provenance/v1",
	"digest": "sha256:bbbb",
	"subjects": [{"name": "x", "digest": "sha256:2222"}],
	"predicate": {"buildDefinition": {"externalParameters": object.union({"step": "build"}, more), "resolvedDependencies": dependencies}},
}

facts(statements) := {"subject": {"name": "shop", "digest": image}, "attestations": statements}

passes(facts_, config) if {
	code in registry.pass with input as facts_ with data.sluicegate as config
	count(registry.deny) == 0 with input as facts_ with data.sluicegate as config
}

denials(facts_, config) := found if {
	not code in registry.pass with input as facts_ with data.sluicegate as config
	found := registry.deny with input as facts_ with data.sluicegate as config
	count(found) > 0
}

test_allowed_places_pass if {
	every base in [
		"registry.example/a",
		"registry.example/a/b:1@sha256:00",
		"docker.io/library/debian:12",
		"local:5000/base",
		"oci:images/base",
		"oci:/srv/x:tag",
		"scratch",
	] {
		passes(facts([about(base), step({}, [])]), allowed)
	}
	passes(facts([about("scratch")]), {"registries": []})
}

test_another_place_is_denied_by_name if {
	denials(facts([about("docker.io/evil/debian:12")]), allowed) == {{
		"code": code,
		"msg": "the base image came from docker.io/evil/debian:12, which no entry of data.sluicegate.registries covers",
		"term": "docker.io/evil/debian:12",
		"attestation": "sha256:aaaa",
	}}
	every base in [
		"registry.example.evil/a",
		"registry.example:443/a",
		"evil/registry.example/a",
		"registry.example",
		"docker.io/library",
		"docker.io/libraryx/a",
		"local/base",
		"base",
		"OCI:images/base",
	] {
		denials(facts([about(base)]), allowed)
	}
	denials(facts([about("oci:images/base")]), {"registries": ["registry.example"]})
	denials(facts([about("oci:docker.io/library/x")]), {"registries": ["docker.io/library/*"]})
}

test_images_of_steps_are_judged_where_they_are_named if {
	denials(facts([about("oci:base"), step({"image": "evil.example/x"}, [])]), allowed) == {{
		"code": code,
		"msg": "the image of the step build came from evil.example/x, which no entry of data.sluicegate.registries covers",
		"term": "evil.example/x",
		"attestation": "sha256:bbbb",
	}}
	some violation in denials(facts([about("oci:base"), step({}, [{"name": "image", "uri": "evil.example/x"}])]), allowed)
	violation.msg == "the dependency image came from evil.example/x, which no entry of data.sluicegate.registries covers"
	passes(facts([about("oci:base"), step({}, [{"name": "image", "uri": "registry.example/x"}, {"name": "cache:x", "uri": "urn:x"}])]), allowed)
	denials(facts([about("oci:base"), step({"image": 1}, [])]), allowed)
	denials(facts([about("oci:base"), step({}, [{"name": "image", "uri": null}])]), allowed)
	some unnamed in denials(
		facts([about("oci:base"), json.remove(step({"image": "x/y"}, []), [
			"digest",
			"predicate/buildDefinition/externalParameters/step",
		])]),
		allowed,
	)
	unnamed.attestation == "without a digest"
}

test_a_missing_or_ill_typed_list_names_the_key_to_write if {
	every odd in [{}, {"registries": null}, {"registries": "oci:"}, {"registries": ["*"]}, {"registries": ["oci:x"]}, {"registries": [1]}] {
		some violation in denials(facts([about("scratch")]), odd)
		violation == {
			"code": code,
			"msg": "data.sluicegate.registries is not a list of hosts, HOST/PATH/* or oci:: write where images may come from",
			"setting": "sluicegate.registries",
		}
	}
}

test_a_missing_field_is_denied if {
	whole := about("oci:base")
	every path in [
		"predicateType",
		"subjects",
		"predicate",
		"predicate/buildDefinition",
		"predicate/buildDefinition/externalParameters",
		"predicate/buildDefinition/externalParameters/base",
	] {
		denials(facts([json.remove(whole, [path])]), allowed)
	}
	denials({"attestations": [whole]}, allowed)
	denials(facts([about("")]), allowed)
	denials(facts([about(null)]), allowed)
	denials(facts([about(["oci:base"])]), allowed)
	passes(facts([json.remove(whole, ["digest", "predicate/buildDefinition/resolvedDependencies"])]), allowed)
}

test_nothing_passes_by_being_empty if {
	every facts_ in [{}, facts([]), facts(null), facts("x"), facts([null, 1, "x", {}]), facts([step({}, [])])] {
		denials(facts_, allowed)
	}
}
