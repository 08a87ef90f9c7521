//! What stands where in a pipeline file, in words and with an example: said to whoever wrote something of another shape there.

use crate::yaml::Forms;

/// `*` is any key, `[]` any entry of a list.
pub(super) const FORMS: Forms = &[
    ("", "a mapping: version: 1, name: NAME, steps: { ... }"),
    ("version", "the version of this format: 1"),
    ("name", "the pipeline's name: shop"),
    ("params", "a mapping of parameters by name: { version: { default: v1 } }"),
    ("params.*", "a mapping of type, pattern, default and description, each of which may be left out: { default: v1 }"),
    ("params.*.*", "a text; quote it if it looks like something else"),
    ("sources", "a mapping of sources by name: { src: { path: . } }"),
    ("sources.*", "a folder or a commit: { path: . } or { git: https://HOST/PATH, ref: main }"),
    ("sources.*.path", "the path of a folder: src"),
    ("sources.*.include", "a list of files beside the folder: [../LICENSE]"),
    ("sources.*.include.[]", "the path of a file: ../LICENSE"),
    ("sources.*.git", "the URL of a repository: https://HOST/PATH"),
    ("sources.*.ref", "a branch, a tag or a commit: main"),
    ("defaults", "a mapping of what holds for each step: { image: oci:images/build }"),
    ("defaults.image", IMAGE),
    ("defaults.limits", LIMITS),
    ("defaults.limits.cpus", CPUS),
    ("defaults.limits.pids", PIDS),
    ("defaults.limits.*", LIMIT),
    ("defaults.network.allow", ALLOW),
    ("defaults.network.allow.[]", SERVER),
    ("defaults.env", VARIABLES),
    ("defaults.env.*", VARIABLE),
    ("defaults.retry", RETRY),
    ("steps", "a mapping of steps by name: { build: { run: make } }"),
    ("steps.*", "a mapping with at least run: { run: make }"),
    ("steps.*.run", "a text for sh -c or a list of texts: run: make, or run: [make, all]"),
    ("steps.*.run.[]", "a text; quote it if it looks like something else"),
    ("steps.*.image", IMAGE),
    ("steps.*.inputs", "a mapping of paths in the container to a source or to STEP.OUTPUT: { /src: src }"),
    ("steps.*.inputs.*", "the name of a source, or STEP.OUTPUT: src"),
    ("steps.*.workdir", "an absolute path in the container: /src"),
    ("steps.*.outputs", "a mapping of names to absolute paths in the container: { site: /out/site }"),
    ("steps.*.outputs.*", "an absolute path in the container: /out/site"),
    ("steps.*.env", VARIABLES),
    ("steps.*.env.*", VARIABLE),
    ("steps.*.limits", LIMITS),
    ("steps.*.limits.cpus", CPUS),
    ("steps.*.limits.pids", PIDS),
    ("steps.*.limits.*", LIMIT),
    ("steps.*.needs", "a list of steps: [build]"),
    ("steps.*.needs.[]", "the name of a step: build"),
    ("steps.*.network.allow", ALLOW),
    ("steps.*.network.allow.[]", SERVER),
    ("steps.*.secrets", "a mapping of variables to where their values come from: { TOKEN: { env: CI_TOKEN } }"),
    ("steps.*.secrets.*", "where the value comes from: { env: VARIABLE } or { file: PATH }"),
    ("steps.*.secrets.*.*", "a text: { env: VARIABLE } or { file: PATH }"),
    ("steps.*.reports", "a mapping: { junit: /out/junit.xml }"),
    ("steps.*.reuse.key", "a list of files of the working folder: [go.sum]"),
    ("steps.*.reuse.key.[]", "the path of a file in the working folder: go.sum"),
    ("steps.*.retry", RETRY),
    ("steps.*.accept_exit", "a list of exit codes from 1 to 123: [1]"),
    ("steps.*.accept_exit.[]", "an exit code from 1 to 123: 1"),
    ("steps.*.caches", "a mapping of names to absolute paths in the container: { modules: /root/go }"),
    ("steps.*.caches.*", "an absolute path in the container: /root/go"),
    (
        "artifacts",
        "a mapping of images by name: { shop: { base: scratch, files: { /app: build.app }, repository: oci:out/shop } }",
    ),
    (
        "artifacts.*",
        "a mapping with base, files and repository: { base: scratch, files: { /app: build.app }, repository: oci:out/shop }",
    ),
    ("artifacts.*.base", "an image or scratch: oci:images/base"),
    ("artifacts.*.files", "a mapping of absolute paths in the image to STEP.OUTPUT: { /app: build.app }"),
    ("artifacts.*.files.*", "STEP.OUTPUT: build.app"),
    ("artifacts.*.config", "a mapping: { entrypoint: [/app], user: \"65532\" }"),
    ("artifacts.*.config.entrypoint", "a list of texts: [/app]"),
    ("artifacts.*.config.cmd", "a list of texts: [--port, \"80\"]"),
    ("artifacts.*.config.env", VARIABLES),
    ("artifacts.*.config.labels", "a mapping of labels to texts: { org.opencontainers.image.title: shop }"),
    ("artifacts.*.config.*", "a text; quote it if it looks like something else"),
    ("artifacts.*.config.*.[]", "a text; quote it if it looks like something else"),
    ("artifacts.*.config.*.*", "a text; quote it if it looks like something else"),
    ("artifacts.*.needs", "a list of steps: [test]"),
    ("artifacts.*.needs.[]", "the name of a step: test"),
    ("artifacts.*.repository", "where it is written to: oci:out/shop"),
    ("artifacts.*.tags", "a list of build tags: [v1]"),
    ("artifacts.*.tags.[]", "a build tag: v1"),
    ("artifacts.*.platforms", "a list of platforms: [linux/amd64]"),
    ("artifacts.*.platforms.[]", "a platform: linux/amd64"),
];

const IMAGE: &str = "an image: oci:images/build, or docker.io/library/debian:12";
const LIMITS: &str = "a mapping of timeout, memory, cpus and pids: { timeout: 10m, memory: 1GiB }";
const LIMIT: &str = "a text: { timeout: 10m, memory: 1GiB }";
const CPUS: &str = "a number from 0.001 to 4096: 1.5";
const PIDS: &str = "a whole number from 1 on: 256";
const ALLOW: &str = "a list of servers: [proxy.example:443]";
const SERVER: &str = "a server and its port: proxy.example:443";
const VARIABLES: &str = "a mapping of variables to texts: { CC: clang }";
const VARIABLE: &str = "a text; quote it if it looks like something else";
const RETRY: &str = "a whole number from 0 to 10: 2";
