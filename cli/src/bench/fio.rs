//! fio on the same file system, as the physical limit to compare with.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::Value;

/// What fio reached in one round.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// 1 MiB sequential O_DIRECT writes, MB/s (10^6 bytes).
    pub write_1m_mb_s: f64,
    /// 64 KiB O_DIRECT O_DSYNC writes at depth 8, operations a second.
    pub dsync_64k_op_s: f64,
}

/// Runs both jobs on a scratch file in `folder`.
///
/// # Errors
/// When fio is not installed or fails.
pub fn measure(folder: &Path) -> anyhow::Result<Figures> {
    let file = folder.join("bench-fio.tmp");
    let sequential = job(&file, &["--rw=write", "--bs=1m", "--iodepth=1", "--size=1g"])?;
    let durable =
        job(&file, &["--rw=write", "--bs=64k", "--iodepth=8", "--sync=dsync", "--size=128m", "--overwrite=1"])?;
    std::fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    Ok(Figures {
        write_1m_mb_s: sequential["bw_bytes"].as_f64().unwrap_or(0.0) / 1e6,
        dsync_64k_op_s: durable["iops"].as_f64().unwrap_or(0.0),
    })
}

fn job(file: &Path, options: &[&str]) -> anyhow::Result<Value> {
    let output = Command::new("fio")
        .args(["--name=bench", "--direct=1", "--ioengine=io_uring", "--output-format=json"])
        .arg(format!("--filename={}", file.display()))
        .args(options)
        .output()
        .context("cannot run fio; install it (apt-get install fio), or leave it out with --no-fio")?;
    if !output.status.success() {
        bail!("fio failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let document: Value = serde_json::from_slice(&output.stdout).context("fio printed no JSON")?;
    Ok(document["jobs"][0]["write"].clone())
}
