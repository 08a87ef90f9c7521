//! Our own URIs and media types, all in one place.

/// `buildType` of a step's provenance; `externalParameters` are described in `attestations/provenance/README.md`.
pub const STEP_BUILD_TYPE: &str = "https://sluicegate.dev/step/v1";
/// `buildType` of an assembled image's provenance.
pub const IMAGE_BUILD_TYPE: &str = "https://sluicegate.dev/image/v1";
/// `builder.id` of a run on a person's own machine: SLSA Build L1 and no more (trust model 18).
pub const LOCAL_BUILDER: &str = "https://sluicegate.dev/builder/local@v1";
/// The authority of a decision whose gateway was chosen by whoever asked for it (trust model 7). No other is known in this version.
pub const AUTHORITY_SELF: &str = "self";
/// Artifact type of the evidence manifest (trust model 3).
pub const EVIDENCE_ARTIFACT: &str = "application/vnd.sluicegate.evidence.v1+json";
/// Artifact type of the gate's own scan, kept with the image that it was made for.
pub const GATE_SCAN_ARTIFACT: &str = "application/vnd.sluicegate.gate-scan.v1+json";
/// Artifact type of a denial, which must never look like a bundle of a decisions key (trust model 5).
pub const DENIAL_ARTIFACT: &str = "application/vnd.sluicegate.denial.v1+json";
/// Media type of a raw Trivy report.
pub const TRIVY_REPORT: &str = "application/vnd.aquasec.trivy.report.v2+json";
/// Media type of a raw JUnit XML report.
pub const JUNIT_REPORT: &str = "application/vnd.sluicegate.junit.v1+xml";
/// Media type and artifact type of a Sigstore bundle.
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// Media type of an OCI image manifest.
pub const IMAGE_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI image index.
pub const IMAGE_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of Docker's image manifest, version 2 schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Media type of Docker's manifest list, its image index.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Media type of an OCI image configuration.
pub const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of the empty configuration `{}`.
pub const EMPTY_CONFIG: &str = "application/vnd.oci.empty.v1+json";
/// Media type of an uncompressed layer.
pub const LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
/// Media type of a gzip layer.
pub const LAYER_TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Media type of a Zstandard layer.
pub const LAYER_TAR_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// Media type of Docker's layers, gzip.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// Media type of Docker's layers, uncompressed.
pub const DOCKER_LAYER_TAR: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// Media type of layers compressed by Zstandard in images of Docker's types, which no specification names and which are found.
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
/// Annotation of an in-toto resource descriptor: the digest of the bundle that attests this content.
pub const ATTESTATION_ANNOTATION: &str = "sluicegate.dev/attestation";
