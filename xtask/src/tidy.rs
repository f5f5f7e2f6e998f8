//! The workspace's rules, checked over `cargo metadata` and the sources.
//!
//! - Imports run downward only: cli > servers > engines, planners, stores > clients > libs > libs/types, and no server
//!   imports another server.
//! - Planners and `metadata/model` do no I/O.
//! - SQL stands only where it may ([`SQL`]), and so does `unsafe` ([`UNSAFE`]).
//! - Dependency versions stand only in the root `Cargo.toml`.
//! - `docs/metrics.md` names the metrics that the daemons have, and no others.
//! - No file grows past [`MAX_LINES`], no module is called `util`.
//! - No test is ignored, and none stands in sources that are not built for tests.

use std::path::{Path, PathBuf};

use anyhow::bail;
use cargo_metadata::{DependencyKind, MetadataCommand, Package};

/// Longest source file, in lines. Most stay under 400.
const MAX_LINES: usize = 800;

/// Crates that may speak SQL: the two stores, and the sync client's own state file.
const SQL: [&str; 3] = ["volume-manager/catalog", "metadata/store", "sync-client/engine"];

/// Crates that may hold `unsafe`; the fuzz tests count allocations, and an allocator is an unsafe trait.
const UNSAFE: [&str; 3] = ["node/engine", "libs/erasure", "tests/fuzz"];

/// Crates that decide and do nothing else.
const PURE: [&str; 3] = ["volume-manager/planner", "sync-client/planner", "metadata/model"];

/// What a pure crate may not depend on.
const IO_CRATES: [&str; 9] =
    ["tokio", "hyper", "axum", "rusqlite", "nix", "libc", "io-uring", "holdfast-libs-transport", "notify"];

/// What a pure crate may not name in its sources.
const IO_PATHS: [&str; 5] = ["std::fs", "std::net", "std::process", "SystemTime", "Instant::now"];

/// Names that say nothing.
const EMPTY_NAMES: [&str; 5] = ["util", "utils", "helper", "common", "misc"];

/// Checks every rule and lists all breaches.
///
/// # Errors
/// When there is a breach.
pub fn run() -> anyhow::Result<()> {
    let root = crate::suites::root();
    let metadata = MetadataCommand::new().current_dir(&root).no_deps().exec()?;
    let mut breaches = Vec::new();
    for package in metadata.workspace_packages() {
        let Some(folder) = package.manifest_path.parent() else { continue };
        let folder = folder.as_std_path();
        let name = folder.strip_prefix(&root)?.to_string_lossy().into_owned();
        check_name(package, &name, &mut breaches);
        check_imports(package, &name, &mut breaches);
        check_manifest(folder, &name, &mut breaches)?;
        for file in sources(folder)? {
            let text = std::fs::read_to_string(&file)?;
            let shown = file.strip_prefix(&root)?.to_string_lossy().into_owned();
            check_source(&name, &shown, &text, &mut breaches);
            check_tests_run(package, &shown, &text, &mut breaches);
        }
    }
    crate::metric_names::check(&root, &mut breaches)?;
    if breaches.is_empty() {
        eprintln!("==> tidy: ok");
        return Ok(());
    }
    for breach in &breaches {
        eprintln!("tidy: {breach}");
    }
    bail!("tidy found {} breaches of the workspace's rules", breaches.len())
}

/// Height of a crate: it may import only what is lower. `None` for crates that stand outside (xtask, tests).
fn level(folder: &str) -> Option<u8> {
    Some(match folder {
        "cli" => 6,
        "libs/types" | "libs/signatures" => 0,
        // Authentication and signing stand on encryption, transport on authentication.
        "libs/crypto" | "libs/telemetry" | "libs/sim" => 1,
        "libs/presign" | "libs/surroundings" | "libs/transport" | "libs/erasure" => 2,
        _ if folder.starts_with("tests/") || folder == "xtask" => return None,
        "hw-profiles" => 3,
        _ if folder.ends_with("/client") => 3,
        _ if folder.ends_with("/server") => 5,
        // The sync client's engine drives its planner.
        "sync-client/engine" => 5,
        // A store carries out what its model decides.
        "metadata/model" | "volume-manager/planner" | "sync-client/planner" => 3,
        _ => 4,
    })
}

fn folder_of(dependency: &str) -> Option<&'static str> {
    const FOLDERS: [&str; 25] = [
        "cli",
        "frontend/client",
        "frontend/server",
        "hw-profiles",
        "libs/crypto",
        "libs/erasure",
        "libs/presign",
        "libs/signatures",
        "libs/sim",
        "libs/surroundings",
        "libs/telemetry",
        "libs/transport",
        "libs/types",
        "metadata/client",
        "metadata/model",
        "metadata/server",
        "metadata/store",
        "node/client",
        "node/engine",
        "node/server",
        "sync-client/engine",
        "sync-client/planner",
        "volume-manager/catalog",
        "volume-manager/client",
        "volume-manager/planner",
    ];
    if dependency == "holdfast-volume-manager-server" {
        return Some("volume-manager/server");
    }
    FOLDERS.into_iter().find(|folder| dependency == format!("holdfast-{}", folder.replace('/', "-")))
}

fn check_name(package: &Package, folder: &str, breaches: &mut Vec<String>) {
    let expected = if folder == "xtask" { folder.to_owned() } else { format!("holdfast-{}", folder.replace('/', "-")) };
    if *package.name != expected {
        breaches.push(format!("{folder}: the package is called {}, not {expected}", package.name));
    }
}

fn check_imports(package: &Package, folder: &str, breaches: &mut Vec<String>) {
    for dependency in &package.dependencies {
        if dependency.kind != DependencyKind::Normal {
            continue;
        }
        let name = dependency.name.as_str();
        if matches!(name, "rusqlite" | "mysql_async") && !SQL.contains(&folder) {
            breaches.push(format!("{folder}: SQL ({name}) may stand only in {}", SQL.join(", ")));
        }
        if PURE.contains(&folder) && IO_CRATES.contains(&name) {
            breaches.push(format!("{folder}: a planner or model does no I/O, but depends on {name}"));
        }
        let (Some(own), Some(other)) = (level(folder), folder_of(name)) else { continue };
        let planner_reads_messages = folder == "sync-client/planner" && other == "metadata/client";
        if level(other).is_some_and(|level| level >= own) && !planner_reads_messages {
            breaches.push(format!("{folder} imports {other}: imports run downward only"));
        }
    }
}

fn check_manifest(folder: &Path, name: &str, breaches: &mut Vec<String>) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(folder.join("Cargo.toml"))?;
    let mut in_dependencies = false;
    for line in text.lines() {
        if line.starts_with('[') {
            in_dependencies = line.contains("dependencies");
        } else if in_dependencies && line.contains('=') && !line.contains("workspace") {
            breaches.push(format!("{name}/Cargo.toml: `{line}`: versions stand only in the root Cargo.toml"));
        }
    }
    if !text.contains("[lints]\nworkspace = true") {
        breaches.push(format!("{name}/Cargo.toml: lacks `[lints] workspace = true`"));
    }
    Ok(())
}

fn sources(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![folder.join("src"), folder.join("tests"), folder.join("examples")];
    while let Some(folder) = open.pop() {
        if !folder.is_dir() {
            continue;
        }
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn check_source(folder: &str, file: &str, text: &str, breaches: &mut Vec<String>) {
    if folder == "xtask" {
        // This file names what it forbids.
        return;
    }
    let lines = text.lines().count();
    if lines > MAX_LINES {
        breaches.push(format!("{file}: {lines} lines; look for the second story in it (at most {MAX_LINES})"));
    }
    let stem = Path::new(file).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    if EMPTY_NAMES.contains(&stem.as_str()) {
        breaches.push(format!("{file}: a name that says nothing"));
    }
    for (index, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let at = format!("{file}:{}", index + 1);
        if code.contains("unsafe ") && !UNSAFE.contains(&folder) {
            breaches.push(format!("{at}: `unsafe` may stand only in {}", UNSAFE.join(", ")));
        }
        if code.contains("#[ignore") {
            breaches.push(format!("{at}: no test is ignored"));
        }
        if PURE.contains(&folder) && file.contains("/src/") {
            for path in IO_PATHS.iter().filter(|path| code.contains(**path)) {
                breaches.push(format!("{at}: a planner or model does no I/O, but names {path}"));
            }
        }
    }
}

/// A library or program with `test = false` has no tests in its sources: nothing would run them.
fn check_tests_run(package: &Package, file: &str, text: &str, breaches: &mut Vec<String>) {
    let is_tested = package.targets.iter().all(|target| target.test || !(target.is_lib() || target.is_bin()));
    if !is_tested && file.contains("/src/") && ["#[test]", "#[tokio::test"].iter().any(|mark| text.contains(mark)) {
        breaches.push(format!("{file}: a test that nothing runs; its Cargo.toml says `test = false`"));
    }
}
