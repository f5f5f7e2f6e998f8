//! The configuration files of a dev cell, written anew at every start.

use std::path::Path;

use anyhow::Context;
use holdfast_libs_transport::config::set;
use holdfast_metadata_client::LoginAnswer;
use toml::{Table, Value};

use crate::arguments::DevOptions;
use crate::dev::layout::{Layout, SLOT_BYTES};
use crate::outcome::usage;
use crate::profile::write_private;

/// Most plaintext the frontend keeps in memory.
const CACHE_BYTES: i64 = 128 << 20;

/// The only volume manager of a cell takes its own lease again at once, so the lease may outlast any stall of the machine.
const LEADER_TTL_MS: i64 = 60_000;

/// How long a disk or node may be away before it is down, and before its volumes are repaired; and a whole zone.
const DOWN_MS: i64 = 5000;
const LOST_MS: i64 = 10_000;
const ZONE_LOST_MS: i64 = 60_000;

/// What `--set` may name, besides single nodes.
const ROLES: [&str; 7] = ["node", "volume-manager", "frontend", "metadata", "sync", "sync-laptop", "sync-desktop"];

fn text(value: impl AsRef<Path>) -> Value {
    Value::String(value.as_ref().to_string_lossy().into_owned())
}

fn table<const N: usize>(entries: [(&str, Value); N]) -> Table {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// What every daemon that listens needs.
fn listener(layout: &Layout, name: &str) -> anyhow::Result<Table> {
    let tls = table([
        ("certificate", text(layout.etc("server.pem"))),
        ("key", text(layout.etc("server-key.pem"))),
        ("ca", text(layout.ca())),
    ]);
    Ok(table([
        ("listen", Value::String(layout.listen(name)?.to_string())),
        ("cell", Value::String(layout.cell().to_string())),
        ("cell_secret_file", text(layout.etc("cell-secret"))),
        ("tls", Value::Table(tls)),
    ]))
}

/// Whether every `--set` is understood; writes nothing.
///
/// # Errors
/// Usage.
pub fn check(layout: &Layout, options: &DevOptions) -> anyhow::Result<()> {
    servers(layout)?
        .into_iter()
        .try_for_each(|(role, name, config)| text_of(layout, options, role, &name, config).map(drop))
}

/// Writes the configuration of every server.
///
/// # Errors
/// When a file cannot be written, or a `--set` is not understood.
pub fn write_servers(layout: &Layout, options: &DevOptions) -> anyhow::Result<()> {
    servers(layout)?.into_iter().try_for_each(|(role, name, config)| write(layout, options, role, &name, config))
}

/// Role, name and configuration of each server.
fn servers(layout: &Layout) -> anyhow::Result<Vec<(&'static str, String, Table)>> {
    let mut servers = Vec::new();
    let volume_manager = Value::String(layout.url("volume-manager")?);
    for (name, zone, disks) in layout.nodes() {
        let mut config = listener(layout, &name)?;
        config.extend(table([
            ("node", Value::String(name.clone())),
            ("zone", Value::String(zone)),
            ("address", Value::String(layout.url(&name)?)),
            ("volume_manager", volume_manager.clone()),
            ("slot_bytes", Value::Integer(SLOT_BYTES as i64)),
            ("create_size_bytes", Value::Integer(layout.disk_size() as i64)),
        ]));
        let disks = disks.iter().map(|path| Value::Table(table([("path", text(path))])));
        config.insert("disks".to_owned(), Value::Array(disks.collect()));
        servers.push(("node", name, config));
    }

    let mut config = listener(layout, "volume-manager")?;
    let timing = table([
        ("down_ms", Value::Integer(DOWN_MS)),
        ("lost_ms", Value::Integer(LOST_MS)),
        ("zone_lost_ms", Value::Integer(ZONE_LOST_MS)),
        ("leader_ttl_ms", Value::Integer(LEADER_TTL_MS)),
    ]);
    config.extend(table([("data_dir", text(layout.path("catalog"))), ("timing", Value::Table(timing))]));
    servers.push(("volume-manager", "volume-manager".to_owned(), config));

    let mut config = listener(layout, "frontend")?;
    config.extend(table([
        ("address", Value::String(layout.url("frontend")?)),
        ("signing_keys_file", text(layout.etc("signing-keys"))),
        ("master_key_file", text(layout.etc("master-key"))),
        ("catalog_dir", text(layout.path("catalog"))),
        ("volume_manager", volume_manager),
        ("cache", Value::Table(table([("bytes", Value::Integer(CACHE_BYTES))]))),
    ]));
    servers.push(("frontend", "frontend".to_owned(), config));

    let mut config = listener(layout, "metadata")?;
    config.extend(table([
        ("address", Value::String(layout.url("metadata")?)),
        ("signing_keys_file", text(layout.etc("signing-keys"))),
        ("data_dir", text(layout.path("metadata"))),
        ("frontend", Value::String(layout.url("frontend")?)),
    ]));
    servers.push(("metadata", "metadata".to_owned(), config));
    Ok(servers)
}

/// Writes the configuration of one sync client.
///
/// # Errors
/// When a file cannot be written, or a `--set` is not understood.
pub fn write_sync(layout: &Layout, options: &DevOptions, client: &str, login: &LoginAnswer) -> anyhow::Result<()> {
    let folder = layout.folder(client);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let token = layout.etc(&format!("sync-{client}-token"));
    write_private(&token, login.token.as_bytes())?;
    let config = table([
        ("name", Value::String(client.to_owned())),
        ("server", Value::String(layout.url("metadata")?)),
        ("ca", text(layout.ca())),
        ("token_file", text(token)),
        ("folder", text(folder)),
        ("state_dir", text(layout.path(&format!("sync/{client}")))),
    ]);
    write(layout, options, "sync", &format!("sync-{client}"), config)
}

fn write(layout: &Layout, options: &DevOptions, role: &str, name: &str, config: Table) -> anyhow::Result<()> {
    let text = text_of(layout, options, role, name, config)?;
    write_private(&layout.etc(&format!("{name}.toml")), text.as_bytes())
}

/// A configuration with every `--set` that is meant for it.
fn text_of(layout: &Layout, options: &DevOptions, role: &str, name: &str, mut config: Table) -> anyhow::Result<String> {
    for setting in &options.set {
        let parsed = setting.split_once('=').and_then(|(key, value)| Some((key.split_once('.')?, value)));
        let Some(((to, key), value)) = parsed else {
            return Err(usage(format!("--set {setting}: write ROLE.KEY=VALUE, for example frontend.cache.bytes=0")));
        };
        if !ROLES.contains(&to) && !layout.nodes().iter().any(|(node, _, _)| node == to) {
            return Err(usage(format!("--set {setting}: no role `{to}`; there are {}", ROLES.join(", "))));
        }
        if to == role || to == name {
            set(&mut config, key, ".", value).map_err(|error| usage(format!("--set {setting}: {error}")))?;
        }
    }
    toml::to_string(&config).with_context(|| format!("configuration of {name}"))
}
