//! fio on the same file system, as the physical limit to compare with.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::Value;

/// What fio is asked to do: O_DIRECT through io_uring.
#[derive(Debug, Clone)]
pub struct Job {
    pattern: &'static str,
    block_bytes: usize,
    depth: u64,
    count: usize,
    /// Bytes of the file the blocks lie in.
    file_bytes: Option<u64>,
    durable: bool,
    /// Whether the file is written before the clock runs.
    written_before: bool,
    /// How many of the operations of a job that reads and writes are reads.
    read_percent: u32,
}

impl Job {
    /// Sequential writes into a file that does not exist yet; `count` of them.
    pub fn writes(block_bytes: usize, depth: u64, count: usize) -> Self {
        let (pattern, file_bytes) = ("write", None);
        Self { pattern, block_bytes, depth, count, file_bytes, durable: false, written_before: false, read_percent: 0 }
    }

    /// The same, each durable when it completes (O_DSYNC), into space that is allocated and was never written.
    pub fn durable_writes(block_bytes: usize, depth: u64, count: usize) -> Self {
        Self { durable: true, ..Self::writes(block_bytes, depth, count) }
    }

    /// As [`Job::durable_writes`], into a file that was written before.
    pub fn durable_overwrites(block_bytes: usize, depth: u64, count: usize) -> Self {
        Self { written_before: true, ..Self::durable_writes(block_bytes, depth, count) }
    }

    /// Reads and durable writes at once, in sequence, on a file that was written before; `count` in all, so many of them reads.
    pub fn reads_and_writes(block_bytes: usize, depth: u64, count: usize, read_percent: u32) -> Self {
        Self { pattern: "rw", read_percent, ..Self::durable_overwrites(block_bytes, depth, count) }
    }

    /// Reads at random blocks of the first `file_bytes` of a file that is there.
    pub fn random_reads(block_bytes: usize, depth: u64, count: usize, file_bytes: u64) -> Self {
        Self { pattern: "randread", file_bytes: Some(file_bytes), ..Self::writes(block_bytes, depth, count) }
    }

    /// Whether it makes its file.
    pub fn makes_its_file(&self) -> bool {
        self.pattern == "write"
    }

    fn direction(&self) -> &'static str {
        if self.pattern == "randread" { "read" } else { "write" }
    }

    fn options(&self) -> Vec<String> {
        let bytes = (self.count * self.block_bytes) as u64;
        let mut options = vec![
            format!("--rw={}", self.pattern),
            format!("--bs={}", self.block_bytes),
            format!("--iodepth={}", self.depth),
            format!("--io_size={bytes}"),
            format!(
                "--size={}",
                self.file_bytes.map_or(bytes, |file| file / self.block_bytes as u64 * self.block_bytes as u64)
            ),
            "--norandommap".to_owned(),
            "--randrepeat=0".to_owned(),
        ];
        if self.pattern == "rw" {
            options.push(format!("--rwmixread={}", self.read_percent));
        }
        if self.durable {
            options.push("--sync=dsync".to_owned());
        }
        if self.written_before {
            options.push("--overwrite=1".to_owned());
        }
        options
    }
}

/// What fio reached.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// 10^6 bytes a second.
    pub mb_s: f64,
    /// Operations a second.
    pub iops: f64,
    /// 10^9 bytes moved.
    pub gigabytes: f64,
    /// User and system time of fio's job, seconds.
    pub cpu_s: f64,
}

/// Runs one job on `file`, which is left in place.
///
/// # Errors
/// When fio is not installed or fails.
pub fn run(file: &Path, job: &Job) -> anyhow::Result<Outcome> {
    let output = Command::new("fio")
        .args([
            "--name=bench",
            "--direct=1",
            "--ioengine=io_uring",
            "--fixedbufs",
            "--registerfiles",
            "--output-format=json",
        ])
        .arg(format!("--filename={}", file.display()))
        .args(job.options())
        .output()
        .context("cannot run fio; install it (apt-get install fio), or leave it out with --no-fio")?;
    if !output.status.success() {
        bail!("fio failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let document: Value = serde_json::from_slice(&output.stdout).context("fio printed no JSON")?;
    let figures = &document["jobs"][0];
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let io = &figures[job.direction()];
    let percent = number(&figures["usr_cpu"]) + number(&figures["sys_cpu"]);
    Ok(Outcome {
        mb_s: number(&io["bw_bytes"]) / 1e6,
        iops: number(&io["iops"]),
        gigabytes: number(&io["io_bytes"]) / 1e9,
        cpu_s: percent / 100.0 * number(&figures["job_runtime"]) / 1e3,
    })
}
