# METADATA
# scope: package
# title: What people said about findings
# description: >-
#   Declares no rule. Reads OpenVEX statements: those about this image, by signers of data.sluicegate.vex.signers and by nobody else.
package vex

openvex := "https://openvex.dev/ns/v0.2.0"

# The five that OpenVEX knows. A text of one's own in impact_statement is no justification.
justifications := {
	"component_not_present",
	"vulnerable_code_not_present",
	"vulnerable_code_not_in_execute_path",
	"vulnerable_code_cannot_be_controlled_by_adversary",
	"inline_mitigations_already_exist",
}

# What the listed signers say of a finding, by its place in the facts: the worst of it, whoever said it and when. A finding is missing here
# where they say nothing, or only that the image is not affected and not why.
worst := {i: max(found) |
	some i in hits
	found := said(findings[i])
	count(found) > 0
}

# Not affected, with a justification, or fixed.
settled := {i | some i, rank in worst; rank == ranks.settled}

affected := {i | some i, rank in worst; rank == ranks.affected}

ranks := {"settled": 1, "under_investigation": 2, "affected": 3}

default findings := []

findings := input.vulnerabilities if is_array(input.vulnerabilities)

# Most findings have no statement: these are found by two look-ups each, and only the others are compared.
hits := {i |
	count(about) > 0
	some i, finding in findings
	about[finding.id]
} | {i |
	count(about) > 0
	some i, finding in findings
	is_array(finding.aliases)
	some name in finding.aliases
	about[name]
}

said(finding) := {entry.rank |
	purl := purl_of(finding)
	some name in names_of(finding)
	some entry in about[name]
	concerns(entry, purl)
}

# A finding without a purl is met only by what is said of the whole image.
purl_of(finding) := normal(finding.purl) if {
	is_string(finding.purl)
} else := ""

# An alias of another finding is no name of this one.
names_of(finding) := {name | name := finding.id; is_name(name)} | {name |
	is_array(finding.aliases)
	some name in finding.aliases
	is_name(name)
}

is_name(name) if {
	is_string(name)
	name != ""
}

# By what an advisory is called. Who says it and about which image is decided here, once for all findings.
about[name] contains entry if {
	some statement in statements
	vulnerability := statement.vulnerability
	some name in names_in(vulnerability)
	entry := object.union(scope(statement), {"rank": rank_of(statement)})
}

names_in(vulnerability) := {name | name := vulnerability.name; is_name(name)} | {name |
	is_array(vulnerability.aliases)
	some name in vulnerability.aliases
	is_name(name)
}

statements contains statement if {
	some attestation in attestations
	attestation.predicateType == openvex
	attestation.signer.name in signers
	is_about_the_image(attestation)
	is_array(attestation.predicate.statements)
	some statement in attestation.predicate.statements
}

default attestations := []

attestations := input.attestations if is_array(input.attestations)

signers contains name if {
	is_array(data.sluicegate.vex.signers)
	some name in data.sluicegate.vex.signers
	is_name(name)
}

is_about_the_image(attestation) if {
	is_array(attestation.subjects)
	some subject in attestation.subjects
	subject.digest in images
}

images contains input.subject.digest if is_name(input.subject.digest)

images contains input.subject.index if is_name(input.subject.index)

# A word that is not OpenVEX's is taken for the worst one. What is not affected without a justification has no rank: it says nothing.
rank_of(statement) := ranks.settled if {
	statement.status == "not_affected"
	statement.justification in justifications
} else := ranks.settled if {
	statement.status == "fixed"
} else := ranks.under_investigation if {
	statement.status == "under_investigation"
} else := ranks.affected if {
	not statement.status == "not_affected"
}

# Which packages a statement is about: all of the image's ("everything"), those with these purls, or, where it names something that is
# neither this image nor a package, something that nobody can tell ("unclear").
scope(statement) := {"everything": names_the_image(statement), "purls": purls(statement), "unclear": is_unclear(statement)}

names_the_image(statement) if {
	not "products" in object.keys(statement)
} else if {
	statement.products == []
} else if {
	is_array(statement.products)
	some product in statement.products
	product["@id"] in this_image
	has_no_subcomponents(product)
} else := false

purls(statement) := {purl |
	is_array(statement.products)
	some product in statement.products
	not is_of_another_image(product)
	is_array(product.subcomponents)
	some subcomponent in product.subcomponents
	purl := normal(subcomponent["@id"])
} | {purl |
	is_array(statement.products)
	some product in statement.products
	product["@id"] in packages
	has_no_subcomponents(product)
	purl := normal(product["@id"])
}

is_unclear(statement) if {
	"products" in object.keys(statement)
	not is_array(statement.products)
} else if {
	is_array(statement.products)
	some product in statement.products
	not is_understood(product)
} else := false

is_understood(product) if is_of_another_image(product)

is_understood(product) if {
	is_array(product.subcomponents)
	count(product.subcomponents) > 0
	count([1 | some subcomponent in product.subcomponents; startswith(subcomponent["@id"], "pkg:")]) == count(product.subcomponents)
}

is_understood(product) if {
	product["@id"] in (this_image | packages)
	has_no_subcomponents(product)
}

is_of_another_image(product) if product["@id"] in other_images

has_no_subcomponents(product) if not "subcomponents" in object.keys(product)

has_no_subcomponents(product) if product.subcomponents == []

# What products are called, each name once: hundreds of statements name the same image.
ids := {id |
	some statement in statements
	is_array(statement.products)
	some product in statement.products
	id := product["@id"]
	is_string(id)
}

image_ids := {id | some id in ids; startswith(id, "pkg:oci/")} | {id | some id in ids; startswith(id, "pkg:docker/")}

packages := {id | some id in ids; startswith(id, "pkg:")} - image_ids

# An image without a digest is this one: the attestation's subject says which.
this_image := {id | some id in image_ids; not contains(normal(id), "@sha256:")} | {id |
	some id in image_ids
	some image in images
	contains(normal(id), concat("", ["@", image]))
}

other_images := image_ids - this_image

concerns(entry, _) if entry.everything

# What nobody can tell excuses nothing, and accuses.
concerns(entry, _) if {
	entry.unclear
	entry.rank > ranks.settled
}

concerns(entry, found) if found in entry.purls

concerns(entry, found) if {
	some purl in entry.purls
	some ending in ["@", "?", "#"]
	startswith(found, concat("", [purl, ending]))
}

normal(purl) := strings.replace_n({"%40": "@", "%2B": "+", "%2b": "+", "%3A": ":", "%3a": ":", "%7E": "~", "%7e": "~"}, purl) if is_string(purl)
