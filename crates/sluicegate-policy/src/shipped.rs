//! The policies that come with the program; `init` writes them beside a new gateway.

/// A file of the folder `policies`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyFile {
    /// Its name in the folder.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
}

macro_rules! policy_files {
    ($($name:literal)*) => {
        &[$(PolicyFile { name: $name, text: include_str!(concat!("../../../policies/", $name)) }),*]
    };
}

/// Every policy with the tests beside it, and the page that explains them.
pub const SHIPPED: &[PolicyFile] = policy_files![
    "README.md"
    "base_image.rego"
    "base_image_test.rego"
    "builder.rego"
    "builder_test.rego"
    "components.rego"
    "components_test.rego"
    "end_of_life.rego"
    "end_of_life_test.rego"
    "hermetic.rego"
    "hermetic_test.rego"
    "provenance.rego"
    "provenance_test.rego"
    "registry.rego"
    "registry_test.rego"
    "sbom.rego"
    "sbom_test.rego"
    "source.rego"
    "source_test.rego"
    "steps.rego"
    "steps_test.rego"
    "tests.rego"
    "tests_test.rego"
    "vex.rego"
    "vex_test.rego"
    "vulnerabilities.rego"
    "vulnerabilities_test.rego"
];
