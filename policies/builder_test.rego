package builder_test

import data.builder

id := "https://sluicegate.dev/builder/local@v1"

config := {"allowed_builders": [{"builder_id": id, "signer": "builder"}]}

any_version := object.union(config, {"builder": {"any_version": true}})

statement := {
	"predicateType": "https://slsa.dev/provenance/v1",
	"digest": "sha256:aaaa",
	"predicate": {"runDetails": {"builder": {"id": id, "version": {"sluicegate": "0.1.0"}}}},
}

named(changes) := object.union(statement, {"predicate": {"runDetails": {"builder": changes}}})

facts(statements) := {"attestations": statements}

denied_by(code) := {violation | some violation in builder.deny; violation.code == code}

passes(code, facts_, config_) if {
	code in builder.pass with input as facts_ with data.sluicegate as config_
	count(denied_by(code)) == 0 with input as facts_ with data.sluicegate as config_
}

denials(code, facts_, config_) := found if {
	not code in builder.pass with input as facts_ with data.sluicegate as config_
	found := denied_by(code) with input as facts_ with data.sluicegate as config_
	count(found) > 0
}

test_an_allowed_builder_passes_whoever_signed if {
	other := object.union(statement, {"digest": "sha256:bbbb", "signer": {"name": "somebody"}})
	passes("builder.allowed", facts([statement, other]), config)
}

test_another_builder_is_denied_by_name if {
	bad := object.union(named({"id": "https://evil.example"}), {"digest": "sha256:bbbb"})
	denials("builder.allowed", facts([statement, bad]), config) == {{
		"code": "builder.allowed",
		"msg": "provenance sha256:bbbb names the builder \"https://evil.example\", which is not in data.sluicegate.allowed_builders",
		"term": "https://evil.example",
		"builder_id": "https://evil.example",
		"attestation": "sha256:bbbb",
	}}
}

test_a_version_passes_and_its_absence_is_denied if {
	passes("builder.version", facts([statement]), config)
	denials("builder.version", facts([json.remove(statement, ["predicate/runDetails/builder/version"])]), config) == {{
		"code": "builder.version",
		"msg": concat("", [
			"provenance sha256:aaaa of the builder \"https://sluicegate.dev/builder/local@v1\" says no builder.version: use a builder that does, ",
			"or set data.sluicegate.builder.any_version to true",
		]),
		"term": id,
		"builder_id": id,
		"attestation": "sha256:aaaa",
	}}
}

test_a_version_that_says_nothing_is_denied if {
	every version in [{}, [], null, "0.1.0", 1, {"sluicegate": ""}, {"sluicegate": " "}, {"sluicegate": 1}, {"sluicegate": "1", "x": null}] {
		denials(
			"builder.version", facts([object.union(json.remove(statement, ["predicate"]), {"predicate": {"runDetails": {"builder": {
				"id": id,
				"version": version,
			}}}})]),
			config,
		)
	}
}

test_only_true_switches_the_version_off if {
	bare := json.remove(statement, ["predicate/runDetails/builder/version"])
	passes("builder.version", facts([bare]), any_version)
	every word in ["true", 1, false, null] {
		denials("builder.version", facts([bare]), {"builder": {"any_version": word}})
	}
	denials("builder.version", facts([bare]), {"builder": "any_version"})
}

test_a_missing_field_is_denied if {
	every path in ["predicate", "predicate/runDetails", "predicate/runDetails/builder", "predicate/runDetails/builder/id", "predicateType"] {
		denials("builder.allowed", facts([json.remove(statement, [path])]), config)
	}
	every path in ["predicate", "predicate/runDetails", "predicate/runDetails/builder", "predicate/runDetails/builder/version", "predicateType"] {
		denials("builder.version", facts([json.remove(statement, [path])]), config)
	}
	denials("builder.allowed", facts([json.remove(named({"id": "x"}), ["digest"])]), config)
	denials("builder.version", facts([json.remove(named({"version": {"a": 1}}), ["digest", "predicate/runDetails/builder/id"])]), config)
	passes("builder.allowed", facts([json.remove(statement, ["digest"])]), config)
}

test_nothing_passes_by_being_empty if {
	every facts_ in [{}, facts([]), facts(null), facts("x"), facts({}), facts([null, "x", 1]), facts([{}])] {
		denials("builder.allowed", facts_, config)
		denials("builder.version", facts_, config)
	}
	every odd in [{}, {"allowed_builders": []}, {"allowed_builders": null}, {"allowed_builders": "x"}, {"allowed_builders": [id, {}, null]}, null] {
		denials("builder.allowed", facts([statement]), odd)
	}
	denials("builder.allowed", facts([named({"id": ""})]), {"allowed_builders": [{"builder_id": ""}]})
}
