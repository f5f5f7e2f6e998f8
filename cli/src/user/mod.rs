//! The user's commands: login, status, ls, put, get.

mod api;
mod transfer;

use std::path::PathBuf;

use anyhow::Context;
use holdfast_libs_transport::{HttpClient, tls};
use holdfast_metadata_client::{Login, MetadataClient};
use serde_json::{Value, json};

use crate::arguments::{GetOptions, LoginOptions, LsOptions, PutOptions, StatusOptions};
use crate::outcome::usage;
use crate::profile::{self, Profile};
use crate::show;
use crate::user::api::Api;

fn block_on<T>(task: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            result = task => result,
            // What was begun is dropped in order, temporary files with it.
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        }
    })
}

/// Links this machine and saves the profile.
pub fn login(options: &LoginOptions) -> anyhow::Result<()> {
    if !options.server.starts_with("https://") {
        return Err(usage(format!("`{}` is no address of a server; write https://HOST:PORT", options.server)));
    }
    let password = match &options.password_file {
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?,
        None => {
            let mut text = String::new();
            eprint!("password: ");
            std::io::stdin().read_line(&mut text)?;
            text
        }
    };
    let ca = options.ca.canonicalize().with_context(|| format!("cannot find {}", options.ca.display()))?;
    let http = HttpClient::new(&tls::client_config(&ca)?, None);
    let metadata = MetadataClient::new(http, options.server.trim_end_matches('/'));
    let device_name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    let login = Login { user: options.user.clone(), password: password.trim_end().to_owned(), device_name };
    let answer = block_on(async { Ok(metadata.login(&login).await?) })?;
    let server = options.server.trim_end_matches('/').to_owned();
    let path = Profile { server, ca, token: answer.token }.save()?;
    show::line(&format!("linked as {}; profile in {}", options.user, path.display()))?;
    Ok(())
}

/// Asks every sync client for its state.
pub fn status(options: &StatusOptions) -> anyhow::Result<()> {
    let mut clients = Vec::new();
    for (folder, state_dir) in state_folders(options)? {
        let answer = block_on(async {
            let line = holdfast_sync_client_engine::query(&state_dir, "status").await?;
            Ok(serde_json::from_str::<Value>(&line)?)
        });
        clients.push(answer.unwrap_or_else(|error| {
            json!({
                "folder": folder, "state": "stopped", "reason": crate::outcome::told(&error), "pending": 0, "conflicts": 0,
                "not_synced": 0, "block_bytes_sent": 0, "block_bytes_received": 0,
            })
        }));
    }
    if options.target.json {
        show::line(&serde_json::to_string_pretty(&json!({ "clients": clients }))?)?;
        return Ok(());
    }
    let heading = ["FOLDER", "STATE", "PENDING", "CONFLICTS", "NOT SYNCED", "SENT", "RECEIVED"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    let number = |client: &Value, key: &str| client[key].as_u64().unwrap_or(0);
    for client in &clients {
        let state = client["state"].as_str().unwrap_or("?");
        let state = match client["reason"].as_str() {
            Some(reason) if !reason.is_empty() => format!("{state} ({reason})"),
            _ => state.to_owned(),
        };
        rows.push(vec![
            show::name(client["folder"].as_str().unwrap_or("?")),
            state,
            number(client, "pending").to_string(),
            number(client, "conflicts").to_string(),
            number(client, "not_synced").to_string(),
            show::bytes(number(client, "block_bytes_sent")),
            show::bytes(number(client, "block_bytes_received")),
        ]);
    }
    show::text(&show::table(&rows))?;
    for client in &clients {
        for entry in client["not_synced_entries"].as_array().into_iter().flatten() {
            let (path, reason) = (entry["path"].as_str().unwrap_or("?"), entry["reason"].as_str().unwrap_or("?"));
            show::line(&format!("not synced: {}: {reason}", show::name(path)))?;
        }
    }
    Ok(())
}

/// Folder and state folder of every client that is asked for.
fn state_folders(options: &StatusOptions) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut configs = options.config.clone();
    if let Some(folder) = &options.target.dev {
        let dev = profile::dev_json(folder)?;
        for daemon in dev["daemons"].as_array().into_iter().flatten().filter(|daemon| daemon["role"] == "sync") {
            configs.extend(daemon["argv"][3].as_str().map(PathBuf::from));
        }
    }
    if configs.is_empty() && options.target.dev.is_none() {
        return Err(usage("name a sync client with --config FILE, or a dev cell with --dev DIR"));
    }
    let mut folders = Vec::new();
    for path in configs {
        let config = holdfast_sync_client_engine::Config::load(&path)?;
        folders.push((config.folder.display().to_string(), config.state_dir));
    }
    Ok(folders)
}

/// `/` and the empty path are the root, which the API writes as the empty text.
fn api_path(path: &str) -> anyhow::Result<String> {
    let trimmed = path.trim_end_matches('/');
    if !path.is_empty() && !path.starts_with('/') {
        return Err(usage(format!("`{path}` must begin with /")));
    }
    if trimmed.split('/').any(|part| part == ".." || part == ".") {
        return Err(usage(format!("`{path}` must not hold `.` or `..`")));
    }
    Ok(trimmed.to_owned())
}

/// Lists a folder.
pub fn ls(options: &LsOptions) -> anyhow::Result<()> {
    let path = api_path(&options.path)?;
    let api = Api::new(&Profile::find(&options.target)?)?;
    let entries = block_on(api.list_folder(&path, options.recursive))?;
    if options.target.json {
        show::line(&serde_json::to_string_pretty(&json!({ "entries": entries }))?)?;
        return Ok(());
    }
    let mut rows = Vec::new();
    for entry in &entries {
        let shown = if options.recursive { &entry["path_display"] } else { &entry["name"] };
        let shown = show::name(shown.as_str().unwrap_or("?"));
        if entry[".tag"] == "folder" {
            rows.push(vec![String::new(), String::new(), format!("{shown}/")]);
        } else {
            let link = entry["symlink_info"]["target"].as_str().map(|target| format!(" -> {}", show::name(target)));
            rows.push(vec![
                show::bytes(entry["size"].as_u64().unwrap_or(0)),
                entry["client_modified"].as_str().unwrap_or("").to_owned(),
                format!("{shown}{}", link.unwrap_or_default()),
            ]);
        }
    }
    show::text(&show::table(&rows))?;
    Ok(())
}

/// Uploads a file.
pub fn put(options: &PutOptions) -> anyhow::Result<()> {
    let path = api_path(&options.path)?;
    if path.is_empty() {
        return Err(usage(format!("name the file, not just the folder: {}/NAME", options.path.trim_end_matches('/'))));
    }
    let api = Api::new(&Profile::find(&options.target)?)?;
    let done = block_on(transfer::put(&api, &options.file, &path))?;
    report(&done, options.target.json)
}

/// Downloads a file.
pub fn get(options: &GetOptions) -> anyhow::Result<()> {
    let path = api_path(&options.path)?;
    let api = Api::new(&Profile::find(&options.target)?)?;
    let done = block_on(transfer::get(&api, &path, &options.file))?;
    report(&done, options.target.json)
}

fn report(metadata: &Value, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        show::line(&serde_json::to_string_pretty(metadata)?)?;
    } else {
        let size = show::bytes(metadata["size"].as_u64().unwrap_or(0));
        show::line(&format!("{}  {size}", show::name(metadata["path_display"].as_str().unwrap_or("?"))))?;
    }
    Ok(())
}
