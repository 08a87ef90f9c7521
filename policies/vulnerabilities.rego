# METADATA
# scope: package
# title: Known vulnerabilities
# description: Rules about the findings of the scans that the gate accepts.
package vulnerabilities

code := "vulnerabilities.no_fixable_critical"

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
pass contains code if {
	was_scanned
	every finding in input.vulnerabilities {
		is_harmless(finding)
	}
}

deny contains violation if {
	not was_scanned
	violation := {"code": code, "msg": "the facts hold no scan for vulnerabilities: scan the image"}
}

deny contains violation if {
	was_scanned
	some finding in input.vulnerabilities
	not is_harmless(finding)
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

was_scanned if {
	is_array(input.vulnerabilities)
	is_string(input.scan.tool)
	input.scan.tool != ""
}

is_harmless(finding) if finding.severity in lower

is_harmless(finding) if {
	finding.severity in {"CRITICAL", "UNKNOWN"}
	has_no_fix(finding)
}

# An empty text is how scanners write that there is no fix; null and a missing field say the same.
has_no_fix(finding) if not "fixed" in object.keys(finding)

has_no_fix(finding) if finding.fixed == null

has_no_fix(finding) if {
	is_string(finding.fixed)
	trim_space(finding.fixed) == ""
}

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
