//! Runs one role in this process until SIGTERM or SIGINT.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use holdfast_libs_transport::serve::shutdown_on_signal;
use tokio_util::sync::CancellationToken;

/// Environment variable in which `holdfast dev` tells its children its process id.
pub const SUPERVISOR: &str = "HOLDFAST_SUPERVISOR";

/// How long a daemon that has ended waits for calls that still sit in the kernel: a disk or a program may hang there.
const LEFTOVERS: Duration = Duration::from_secs(5);

/// Asks the kernel to kill this process when the supervisor that started it dies, whatever kills it.
///
/// # Errors
/// When the supervisor is gone already.
pub fn die_with_supervisor() -> anyhow::Result<()> {
    let Ok(expected) = std::env::var(SUPERVISOR) else { return Ok(()) };
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).context("prctl(PR_SET_PDEATHSIG)")?;
    if nix::unistd::getppid().to_string() != expected {
        bail!("the process that started this daemon is gone");
    }
    Ok(())
}

/// Builds the runtime, installs signal handlers and runs `daemon`.
fn run<E, F>(daemon: impl FnOnce(CancellationToken) -> F) -> anyhow::Result<()>
where
    E: std::error::Error + Send + Sync + 'static,
    F: Future<Output = Result<(), E>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let shutdown = shutdown_on_signal()?;
        daemon(shutdown).await?;
        Ok(())
    });
    runtime.shutdown_timeout(LEFTOVERS);
    result
}

/// A storage node.
pub fn node(config: &Path) -> anyhow::Result<()> {
    let config = holdfast_node_server::Config::load(config)?;
    run(|shutdown| holdfast_node_server::run(config, shutdown))
}

/// The volume manager.
pub fn volume_manager(config: &Path) -> anyhow::Result<()> {
    let config = holdfast_volume_manager_server::Config::load(config)?;
    run(|shutdown| holdfast_volume_manager_server::run(config, shutdown))
}

/// A frontend.
pub fn frontend(config: &Path) -> anyhow::Result<()> {
    let config = holdfast_frontend_server::Config::load(config)?;
    run(|shutdown| holdfast_frontend_server::run(config, shutdown))
}

/// The metadata tier.
pub fn metadata(config: &Path) -> anyhow::Result<()> {
    let config = holdfast_metadata_server::Config::load(config)?;
    run(|shutdown| holdfast_metadata_server::run(config, shutdown))
}

/// A sync client.
pub fn sync(config: &Path) -> anyhow::Result<()> {
    let config = holdfast_sync_client_engine::Config::load(config)?;
    run(|shutdown| holdfast_sync_client_engine::run(config, shutdown))
}
