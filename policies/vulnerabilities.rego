# METADATA
# scope: package
# title: Known vulnerabilities
# description: Rules about the findings of the scans that the gate accepts.
package vulnerabilities

code := "vulnerabilities.no_fixable_critical"

severity_code := "vulnerabilities.severity"

grace_code := "vulnerabilities.grace"

age_code := "vulnerabilities.age"

triaged_code := "vulnerabilities.triaged"

# What scanners write; a finding with another word can't be judged.
severities := {"CRITICAL", "HIGH", "MEDIUM", "LOW", "UNKNOWN"}

# Severities that are not CRITICAL. UNKNOWN is the scanner's own word for a severity that nobody has given yet.
lower := {"HIGH", "MEDIUM", "LOW"}

# METADATA
# title: No critical vulnerability that has a fix
# description: >-
#   No finding is CRITICAL while a version that fixes it exists. A finding of unknown severity with a fix is treated as
#   CRITICAL, and one that can't be read, such as one with a severity that no scanner knows, is denied with or without a fix.
# custom:
#   short_name: no_fixable_critical
#   solution: Update each package that is named to the fixed version and build again.
#   requires: ["https://in-toto.io/attestation/vulns/v0.2"]
#   controls:
#     soc2: [CC7.1]
#     pci_dss: ["6.3.1", "6.3.3"]
#     nist_ssdf: [PW.4.4, RV.2.2]
pass contains code if {
	was_scanned
	count(harmless) == count(findings)
}

deny contains violation if {
	not was_scanned
	violation := {"code": code, "msg": "the facts hold no scan for vulnerabilities: scan the image"}
}

deny contains violation if {
	was_scanned
	count(harmless) != count(findings)
	some i, finding in findings
	not i in harmless
	violation := {
		"code": code,
		"msg": sprintf("%v: %v (%v); %v", [
			what_and_where(finding),
			text(finding, "id"),
			text(finding, "severity"),
			remedy(finding),
		]),
		"term": text(finding, "id"),
		"subject": text(finding, "purl"),
		"severity": text(finding, "severity"),
		"package": text(finding, "package"),
		"installed": text(finding, "installed"),
		"fixed": text(finding, "fixed"),
		"place": text(finding, "place"),
		"purl": text(finding, "purl"),
		"attestation": text(finding, "attestation"),
	}
}

# METADATA
# title: No vulnerability of a denied severity
# description: >-
#   No finding has a severity of data.sluicegate.vulnerabilities.deny, unless a signer of data.sluicegate.vex.signers says of it that the
#   image is not affected, with a justification, or that it is fixed, and none of them says something worse. A finding with a severity that no scanner
#   knows is always denied. [] denies no severity.
# custom:
#   short_name: severity
#   solution: >-
#     Update or replace each package that is named, attest with an OpenVEX statement why the image is not affected, or waive the advisory.
#   requires: ["https://in-toto.io/attestation/vulns/v0.2"]
#   controls:
#     soc2: [CC7.1, CC7.4]
#     pci_dss: ["6.3.1", "11.3.1"]
#     nist_ssdf: [PW.4.4, RV.1.1, RV.2.2]
pass contains severity_code if {
	was_scanned
	is_set(denied)
	count(tolerable) == count(findings)
}

deny contains violation if {
	not was_scanned
	violation := {"code": severity_code, "msg": "the facts hold no scan for vulnerabilities: scan the image"}
}

deny contains violation if {
	not denied_are_listed
	violation := {
		"code": severity_code,
		"msg": "data.sluicegate.vulnerabilities.deny is not a list of severities: write it, such as [CRITICAL], or [] to deny none",
		"setting": "sluicegate.vulnerabilities.deny",
	}
}

deny contains violation if {
	was_scanned
	is_set(denied)
	count(tolerable) != count(findings)
	some i, finding in findings
	not i in tolerable
	violation := object.union(about(finding), {
		"code": severity_code,
		"msg": sprintf("%v: %v (%v), which data.sluicegate.vulnerabilities.deny denies; %v", [
			what_and_where(finding),
			text(finding, "id"),
			text(finding, "severity"),
			way_out(i, finding),
		]),
	})
}

# Findings by their place in the facts: what is listed once here decides for pass and for deny.
tolerable := of(severities - denied) | (of(denied) & data.vex.settled)

# Not defined where the list is missing or has a word that is no severity: a mistyped one would deny nothing.
denied := severities_in(data.sluicegate.vulnerabilities.deny)

severities_in(list) := listed if {
	is_array(list)
	listed := {word | some word in list}
	count(listed - severities) == 0
}

grace_days := data.sluicegate.vulnerabilities.grace_days

max_age_days := data.sluicegate.vulnerabilities.max_age_days

default grace := {}

grace := grace_days if is_object(grace_days)

default max_age := {}

max_age := max_age_days if is_object(max_age_days)

way_out(i, finding) := "its severity is written in a way that this rule does not know: correct the scan's facts" if {
	not has_severity(finding)
} else := "people say that it is affected: update or replace the package" if {
	i in data.vex.affected
} else := sprintf("update to %v", [finding.fixed]) if {
	i in fixable
} else := "no version fixes it: replace the package, or say with VEX why the image is not affected"

# METADATA
# title: Fixes are taken in time
# description: >-
#   A finding that a newer version fixes passes only until data.sluicegate.vulnerabilities.grace_days for its severity have gone by since the fix
#   appeared: the moment that data.sluicegate.vulnerabilities.fix_appeared gives for its id or an alias, the earliest if there are several, else the one
#   when the advisory was published. Where neither is known there is no grace at all. "any" in place of a number of days waits for ever. VEX
#   makes no difference here: what has a fix is updated.
# custom:
#   short_name: grace
#   solution: >-
#     Update each package that is named to the fixed version and build again. Where the fix came later than the advisory, let the
#     gate's owners write when under data.sluicegate.vulnerabilities.fix_appeared.
#   requires: ["https://in-toto.io/attestation/vulns/v0.2"]
#   controls:
#     soc2: [CC7.1, CC7.4]
#     pci_dss: ["6.3.3", "11.3.1"]
#     nist_ssdf: [RV.2.1, RV.2.2]
pass contains grace_code if {
	was_scanned
	is_object(grace_days)
	fix_dates_are_readable
	count(updated) == count(findings)
}

deny contains violation if {
	not was_scanned
	violation := {"code": grace_code, "msg": "the facts hold no scan for vulnerabilities: scan the image"}
}

deny contains violation if {
	not has_grace_days
	violation := {
		"code": grace_code,
		"msg": "data.sluicegate.vulnerabilities.grace_days is not a mapping of severities to days: write a number or any for each",
		"setting": "sluicegate.vulnerabilities.grace_days",
	}
}

deny contains violation if {
	not fix_dates_are_readable
	violation := {
		"code": grace_code,
		"msg": "data.sluicegate.vulnerabilities.fix_appeared is not a mapping of advisories to times: write ID: 2026-01-31T00:00:00Z",
		"setting": "sluicegate.vulnerabilities.fix_appeared",
	}
}

deny contains violation if {
	was_scanned
	count(updated) != count(findings)
	some i, finding in findings
	not i in updated
	violation := object.union(about(finding), {
		"code": grace_code,
		"msg": sprintf("%v: %v (%v)%v; %v", [
			what_and_where(finding),
			text(finding, "id"),
			text(finding, "severity"),
			fixed_in(finding),
			why_no_grace(i, finding),
		]),
	})
}

updated := within_grace | (unfixed & of(severities))

within_grace := (patient | recent) | recently_fixed

patient := of(any_time(grace)) & fixable

recent := {i |
	some i in (fixable - listed)
	finding := findings[i]
	time.parse_rfc3339_ns(finding.published) > grace_began[finding.severity]
}

recently_fixed := {i |
	some i in listed
	finding := findings[i]
	fix_appeared(finding) > grace_began[finding.severity]
}

# From when on a fix has to have appeared to be within grace: one of this very second is not.
grace_began := beginnings(grace)

beginnings(periods) := {severity: begin |
	is_object(periods)
	some severity, days in periods
	severity in severities
	is_number(days)
	days >= 0
	begin := now - (days * 86400000000000)
}

# Whoever writes any waits for ever.
any_time(periods) := {severity |
	is_object(periods)
	some severity, days in periods
	severity in severities
	days == "any"
}

# Which findings have a fix and which have none: an empty text is how scanners write that there is none; null and a missing field, which is
# not even itself, say the same. One with a fix that can't be read is in neither.
fixable := {i |
	some i, finding in findings
	finding.fixed > ""
	trim_space(finding.fixed) != ""
}

unfixed := {i | some i, finding in findings; not finding.fixed == finding.fixed} | ({i |
	some i, finding in findings
	finding.fixed in {null, ""}
} | {i |
	some i, finding in findings
	finding.fixed > ""
	trim_space(finding.fixed) == ""
})

# Those of which the gate's owners say when the fix appeared.
listed := {i | some i in fixable; fix_dates[findings[i].id]} | {i |
	some i in fixable
	is_array(findings[i].aliases)
	some name in findings[i].aliases
	fix_dates[name]
}

fix_appeared(finding) := min([moment(fix_dates[name]) |
	some name in data.vex.names_of(finding)
	fix_dates[name]
])

default fix_dates := {}

fix_dates := data.sluicegate.vulnerabilities.fix_appeared if is_object(data.sluicegate.vulnerabilities.fix_appeared)

fix_dates_are_readable if {
	object_or_nothing
	count([time_ | some time_ in fix_dates; is_number(moment(time_))]) == count(fix_dates)
}

object_or_nothing if not "fix_appeared" in object.keys(settings)

default settings := {}

settings := data.sluicegate.vulnerabilities if is_object(data.sluicegate.vulnerabilities)

object_or_nothing if is_object(data.sluicegate.vulnerabilities.fix_appeared)

why_no_grace(i, finding) := "its severity or its fix is written in a way that this rule does not know: correct the scan's facts" if {
	not is_readable(finding)
} else := sprintf("data.sluicegate.vulnerabilities.grace_days has no number of days for %v: write one, or any", [finding.severity]) if {
	not has_grace(finding)
} else := sprintf("data.sluicegate.vulnerabilities.grace_days gives %v no day: update", [finding.severity]) if {
	grace_days[finding.severity] == 0
} else := sprintf("the %v days since the fix appeared are over: update", [grace_days[finding.severity]]) if {
	is_number(since(i, finding))
} else := "nobody can say since when: update, or write it under data.sluicegate.vulnerabilities.fix_appeared"

fixed_in(finding) := sprintf(" is fixed in %v", [finding.fixed]) if {
	is_string(finding.fixed)
	finding.fixed != ""
} else := ""

since(i, finding) := fix_appeared(finding) if {
	i in listed
} else := moment(finding.published)

is_readable(finding) if {
	finding.severity in severities
	is_string(finding.fixed)
}

is_period(days) if {
	is_number(days)
	days >= 0
}

# METADATA
# title: No vulnerability without a fix is too old
# description: >-
#   A finding that no version fixes passes only until data.sluicegate.vulnerabilities.max_age_days for its severity have gone by since the advisory was
#   published, or where a signer of data.sluicegate.vex.signers says that the image is not affected, with a justification, or that it is
#   fixed, and none of them says something worse. Where nobody says when it was published it is too old. "any" in place of a number of
#   days waits for ever.
# custom:
#   short_name: age
#   solution: >-
#     Replace the package, or attest with an OpenVEX statement why the image is not affected.
#   requires: ["https://in-toto.io/attestation/vulns/v0.2"]
#   controls:
#     soc2: [CC7.1, CC7.4]
#     pci_dss: ["6.3.1", "11.3.1"]
#     nist_ssdf: [RV.2.1, RV.2.2]
pass contains age_code if {
	was_scanned
	is_object(max_age_days)
	count(young) == count(findings)
}

deny contains violation if {
	not was_scanned
	violation := {"code": age_code, "msg": "the facts hold no scan for vulnerabilities: scan the image"}
}

deny contains violation if {
	not has_max_age_days
	violation := {
		"code": age_code,
		"msg": "data.sluicegate.vulnerabilities.max_age_days is not a mapping of severities to days: write a number or any for each",
		"setting": "sluicegate.vulnerabilities.max_age_days",
	}
}

deny contains violation if {
	was_scanned
	count(young) != count(findings)
	some i, finding in findings
	not i in young
	violation := object.union(about(finding), {
		"code": age_code,
		"msg": sprintf("%v: %v (%v) has no fix; %v", [
			what_and_where(finding),
			text(finding, "id"),
			text(finding, "severity"),
			why_too_old(i, finding),
		]),
	})
}

# One with a fix is the business of the rules above.
young := (of(severities) & (fixable | (unfixed & data.vex.settled))) | ((of(any_time(max_age)) & unfixed) | {i |
	some i in unfixed
	finding := findings[i]
	time.parse_rfc3339_ns(finding.published) > age_began[finding.severity]
})

age_began := beginnings(max_age)

why_too_old(i, finding) := "its severity or its fix is written in a way that this rule does not know: correct the scan's facts" if {
	not is_judged_by_age(i, finding)
} else := sprintf("data.sluicegate.vulnerabilities.max_age_days has no number of days for %v: write one, or any", [finding.severity]) if {
	not has_max_age(finding)
} else := sprintf("it is public since %v, %v days or more: replace the package", [
	finding.published,
	max_age_days[finding.severity],
]) if {
	is_number(moment(finding.published))
} else := "nobody can say since when it is public: replace the package, or say with VEX why the image is not affected"

is_judged_by_age(i, finding) if {
	finding.severity in severities
	i in unfixed
}

# METADATA
# title: Somebody looked at every serious vulnerability
# description: >-
#   Each finding with a severity of data.sluicegate.vulnerabilities.triage has an OpenVEX statement by a signer of data.sluicegate.vex.signers that
#   says more than under_investigation, and none that says only that, or a fix that is within grace. A finding with a severity that no scanner knows
#   is always denied. [] asks for none.
# custom:
#   short_name: triaged
#   solution: Look at the advisory and attest with an OpenVEX statement what it means for the image, or update the package.
#   requires: ["https://in-toto.io/attestation/vulns/v0.2"]
#   controls:
#     soc2: [CC7.1, CC7.3, CC7.4]
#     pci_dss: ["6.3.1", "11.3.1"]
#     nist_ssdf: [RV.1.2, RV.2.1]
pass contains triaged_code if {
	was_scanned
	is_set(to_be_triaged)
	count(triaged) == count(findings)
}

deny contains violation if {
	not was_scanned
	violation := {"code": triaged_code, "msg": "the facts hold no scan for vulnerabilities: scan the image"}
}

deny contains violation if {
	not triage_is_listed
	violation := {
		"code": triaged_code,
		"msg": "data.sluicegate.vulnerabilities.triage is not a list of severities: write it, such as [CRITICAL], or [] to ask for none",
		"setting": "sluicegate.vulnerabilities.triage",
	}
}

deny contains violation if {
	was_scanned
	is_set(to_be_triaged)
	count(triaged) != count(findings)
	some i, finding in findings
	not i in triaged
	violation := object.union(about(finding), {
		"code": triaged_code,
		"msg": sprintf("%v: nobody has said what %v (%v) means for the image: attest an OpenVEX statement about it, or update", [
			what_and_where(finding),
			text(finding, "id"),
			text(finding, "severity"),
		]),
	})
}

to_be_triaged := severities_in(data.sluicegate.vulnerabilities.triage)

triaged := of(severities - to_be_triaged) | (of(to_be_triaged) & ((data.vex.settled | data.vex.affected) | within_grace))

# The findings of these severities, by their place in the facts.
of(words) := union({by_severity[word] | some word in words})

by_severity := {severity: found |
	some severity in severities
	found := {i | some i, finding in findings; finding.severity == severity}
}

denied_are_listed if is_set(denied)

triage_is_listed if is_set(to_be_triaged)

has_grace_days if is_object(grace_days)

has_max_age_days if is_object(max_age_days)

has_severity(finding) if finding.severity in severities

has_grace(finding) if is_period(grace_days[finding.severity])

has_max_age(finding) if is_period(max_age_days[finding.severity])

default findings := []

findings := input.vulnerabilities if is_array(input.vulnerabilities)

now := moment(input.now)

# The engines differ in what else than RFC 3339 they read, such as a blank for the T.
moment(time_) := time.parse_rfc3339_ns(time_) if {
	regex.match(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$`, time_)
}

# What every violation says of its finding.
about(finding) := {
	"term": text(finding, "id"),
	"subject": text(finding, "purl"),
	"severity": text(finding, "severity"),
	"package": text(finding, "package"),
	"installed": text(finding, "installed"),
	"fixed": text(finding, "fixed"),
	"place": text(finding, "place"),
	"purl": text(finding, "purl"),
	"attestation": text(finding, "attestation"),
}

was_scanned if {
	is_array(input.vulnerabilities)
	is_string(input.scan.tool)
	input.scan.tool != ""
}

harmless := of(lower) | (of({"CRITICAL", "UNKNOWN"}) & unfixed)

remedy(finding) := sprintf("update to %v", [finding.fixed]) if {
	finding.severity in {"CRITICAL", "UNKNOWN"}
	is_string(finding.fixed)
} else := "its severity or its fix is written in a way that this rule does not know: correct the scan's facts"

what_and_where(finding) := sprintf("%v %v in %v", [text(finding, "package"), text(finding, "installed"), place]) if {
	place := text(finding, "place")
	place != ""
} else := sprintf("%v %v", [text(finding, "package"), text(finding, "installed")])

# A finding's field as text, whatever it is: a violation must never be lost because one field is missing.
default text(_, _) := ""

text(finding, field) := finding[field] if is_string(finding[field])

text(finding, field) := sprintf("%v", [finding[field]]) if not is_string(finding[field])
