//! Compares the names of metrics in the sources with those in `docs/metrics.md`, in both directions.
//!
//! A daemon shows a family only once something is in it, so the names are taken from where they are registered: the first string of
//! a call that registers one, or a line of the frontend's `counters!`. The prefix stands there, too.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context as _;

/// Lists every name.
const DOCUMENT: &str = "docs/metrics.md";

/// Where each daemon registers its metrics.
const SOURCES: [&str; 4] = [
    "frontend/server/src/counters.rs",
    "metadata/server/src/metrics.rs",
    "node/server/src/metrics.rs",
    "volume-manager/server/src/metrics.rs",
];

/// What stands before the name of a metric.
const CALLS: [&str; 4] = ["register(", "counter(", "gauge(", "encode_descriptor("];

/// Names that stand in one and not in the other, as breaches.
///
/// # Errors
/// When a file cannot be read.
pub fn check(root: &Path, breaches: &mut Vec<String>) -> anyhow::Result<()> {
    let read = |file: &str| std::fs::read_to_string(root.join(file)).with_context(|| file.to_owned());
    let mut registered = BTreeSet::new();
    for file in SOURCES {
        let names = registered_in(&read(file)?);
        if names.is_empty() {
            breaches.push(format!("{file}: registers no metric that this check finds"));
        }
        registered.extend(names);
    }
    breaches.extend(compare(&registered, &documented(&read(DOCUMENT)?)));
    Ok(())
}

fn compare(registered: &BTreeSet<String>, documented: &BTreeSet<String>) -> Vec<String> {
    let missing = registered.difference(documented);
    let missing = missing.map(|name| format!("{DOCUMENT}: lacks `{name}`, which a daemon has"));
    let stale = documented.difference(registered);
    missing.chain(stale.map(|name| format!("{DOCUMENT}: has `{name}`, which no daemon has"))).collect()
}

/// Names in the first column of the tables.
fn documented(text: &str) -> BTreeSet<String> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split('`').next()).map(str::to_owned).collect()
}

/// Names with their prefix that the code of a file registers; its tests do not count.
fn registered_in(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let Some(prefix) = code.split("with_prefix(").nth(1).and_then(first_string) else { return BTreeSet::new() };
    let calls = CALLS.iter().flat_map(|call| code.split(call).skip(1)).filter_map(first_string);
    let list = code.split_once("counters! {").map_or("", |(_, list)| list.split('}').next().unwrap_or_default());
    let listed = list.lines().filter_map(|line| line.split_once(": \"")).map(|(name, _)| name.trim());
    calls.chain(listed).map(|name| format!("{prefix}_{name}")).collect()
}

/// The string that comes first, with nothing but white space before it.
fn first_string(code: &str) -> Option<&str> {
    code.trim_start().strip_prefix('"')?.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::{compare, documented, registered_in};

    const SOURCE: &str = r#"
        let mut registry = Registry::with_prefix("holdfast_node");
        registry.register(
            "disk_errors",
            "Errors",
            errors);
        registry.register(name, help, family);
        counter("disk_reads", "Reads", |disk| disk.reads);
        gauge("disks_open", "Disks in use", 3);
        encoder.encode_descriptor("disk_seconds", help, None, MetricType::Histogram)?;
        #[cfg(test)]
        counter("only_in_a_test", "", 0);
    "#;

    #[test]
    fn a_name_that_only_one_side_has_is_told() {
        let mut document = String::from("| name | meaning |\n|---|---|\n");
        for name in ["disk_errors", "disk_reads", "disks_open", "disk_seconds"] {
            document.push_str(&format!("| `holdfast_node_{name}` | meaning with `code` |\n"));
        }
        let registered = registered_in(SOURCE);
        assert_eq!(compare(&registered, &documented(&document)), Vec::<String>::new());
        let renamed = documented(&document.replace("disks_open", "disks_opened"));
        let told = compare(&registered, &renamed).join("\n");
        assert!(told.contains("lacks `holdfast_node_disks_open`"), "{told}");
        assert!(told.contains("has `holdfast_node_disks_opened`, which no daemon has"), "{told}");
    }

    #[test]
    fn the_lines_of_the_frontends_list_are_names() {
        let source = r#"
            counters! {
                puts: "Blocks put",
                gets: "Blocks answered",
            }
            let mut registry = Registry::with_prefix("holdfast_frontend");
        "#;
        let names: Vec<String> = registered_in(source).into_iter().collect();
        assert_eq!(names, ["holdfast_frontend_gets", "holdfast_frontend_puts"]);
    }
}
