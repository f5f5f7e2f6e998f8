//! `holdfast dev`: a whole cell on one machine, from the real daemons as child processes.
//!
//! Everything lives in one folder: `etc/` (configuration, secrets), `log/`, `disks/`, `catalog/`, `metadata/`,
//! `sync/` (the clients' state) and the two synced folders. The same command on the same folder resumes.

mod certificates;
mod children;
mod configs;
mod layout;
mod ready;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};

use crate::arguments::DevOptions;
use crate::dev::children::{Children, Ended};
use crate::dev::layout::Layout;
use crate::profile::write_private;

/// Held while a `dev` runs.
const LOCK: &str = "dev.lock";

/// Runs the cell until SIGINT or SIGTERM.
pub fn run(options: DevOptions) -> anyhow::Result<()> {
    // Children are bound to the thread that starts them (PR_SET_PDEATHSIG), so everything runs on this one.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(dev(options))
}

async fn dev(options: DevOptions) -> anyhow::Result<()> {
    let shutdown = holdfast_libs_transport::serve::shutdown_on_signal()?;
    let mut made = make_folder(&options.data)?;
    let root = options.data.canonicalize()?;
    if !root.join(LOCK).exists() {
        made.push(root.join(LOCK));
    }
    let _lock = lock(&root)?;
    let planned = Layout::plan(&root, &options).and_then(|layout| configs::check(&layout, &options).map(|()| layout));
    let layout = match planned {
        Ok(layout) => layout,
        Err(error) => {
            remove_made(&made);
            return Err(error);
        }
    };
    let dev_json = root.join("dev.json");
    if dev_json.exists() {
        std::fs::remove_file(&dev_json).with_context(|| format!("cannot remove {}", dev_json.display()))?;
    }
    layout.make()?;
    configs::write_servers(&layout, &options)?;
    let mut children = Children::new(&layout, options.restart)?;
    let started = tokio::select! {
        started = start(&layout, &options, &mut children) => started,
        () = shutdown.cancelled() => Err(anyhow::anyhow!("stopped before everything was up")),
    };
    let document = match started {
        Ok(document) => document,
        Err(error) => {
            children.stop().await;
            return Err(error);
        }
    };
    let write = |children: &Children| {
        let mut document = document.clone();
        document["daemons"] = children.describe();
        write_private(&dev_json, &serde_json::to_vec_pretty(&document).context("dev.json")?)
    };
    write(&children)?;
    println!("holdfast ready");
    std::io::stdout().flush()?;
    welcome(&layout, &document);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            ended = children.next_end() => match ended {
                Ended::Restarted => write(&children)?,
                Ended::LeftDead => {}
            },
        }
    }
    eprintln!("holdfast dev: stopping");
    children.stop().await;
    std::fs::remove_file(&dev_json).with_context(|| format!("cannot remove {}", dev_json.display()))?;
    Ok(())
}

/// Starts the daemons, makes the user and its devices, starts the sync clients; answers `dev.json` without the daemons.
async fn start(layout: &Layout, options: &DevOptions, children: &mut Children) -> anyhow::Result<Value> {
    for spec in layout.server_daemons() {
        children.start(spec)?;
    }
    let accounts = ready::Accounts::prepare(layout, children).await?;
    let mut folders = Vec::new();
    if !options.no_clients {
        for (name, login) in &accounts.devices {
            configs::write_sync(layout, options, name, login)?;
            children.start(layout.sync_daemon(name))?;
            folders.push(layout.folder(name));
        }
        ready::clients(layout, &accounts, children).await?;
    }
    Ok(json!({
        "version": 1,
        "pid": std::process::id(),
        "instance": hex::encode(rand::random::<[u8; 16]>()),
        "api": layout.url("metadata")?,
        "ca_cert": layout.ca(),
        "user": layout.user(),
        "password": layout.password()?,
        "access_token": accounts.access.token,
        "frontend": layout.url("frontend")?,
        "volume_manager": layout.url("volume-manager")?,
        "admin_token": layout.admin_token()?,
        "folders": folders,
    }))
}

/// What to do now, for a person.
fn welcome(layout: &Layout, document: &Value) {
    let api = document["api"].as_str().unwrap_or_default();
    eprintln!("holdfast dev: API {api}, CA {}; more in {}", layout.ca().display(), layout.path("dev.json").display());
    if let Some(folder) = document["folders"][0].as_str() {
        eprintln!("holdfast dev: put files into {folder} and see them in {}", layout.folder("desktop").display());
    }
    eprintln!(
        "holdfast dev: `holdfast admin status --dev {}` tells the cell's health; Ctrl-C stops it",
        layout.path("").display()
    );
}

/// Makes the folder and those above it; answers which were made, the outermost first.
fn make_folder(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let missing = |path: &&Path| !path.as_os_str().is_empty() && path.symlink_metadata().is_err();
    let mut made: Vec<PathBuf> = folder.ancestors().take_while(missing).map(Path::to_owned).collect();
    made.reverse();
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    Ok(made)
}

/// Leaves things as they were before a refused start: removes what is empty of what was made.
fn remove_made(made: &[PathBuf]) {
    for path in made.iter().rev() {
        // What cannot be removed is in nobody's way.
        let _ = if path.is_dir() { std::fs::remove_dir(path) } else { std::fs::remove_file(path) };
    }
}

/// One `dev` a folder.
fn lock(root: &Path) -> anyhow::Result<Flock<std::fs::File>> {
    let path = root.join(LOCK);
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
            bail!("another `holdfast dev` runs on {}; stop it or choose another folder with --data", root.display())
        }
        Err((_, error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}
