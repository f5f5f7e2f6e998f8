//! A loop device: a raw block device for a test that runs as root.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Detached when it is dropped.
pub struct LoopDevice(PathBuf);

impl LoopDevice {
    /// Over a new file of so many bytes. None, and says why, where there are no loop devices.
    pub fn attach(backing: &Path, bytes: u64) -> Option<Self> {
        std::fs::File::create(backing).unwrap().set_len(bytes).unwrap();
        let output = Command::new("losetup").args(["--find", "--show"]).arg(backing).output();
        match output {
            Ok(output) if output.status.success() => {
                let name = String::from_utf8(output.stdout).unwrap();
                Some(Self(PathBuf::from(name.trim())))
            }
            Ok(output) if nix::unistd::geteuid().is_root() => {
                panic!("losetup: {}", String::from_utf8_lossy(&output.stderr))
            }
            _ => {
                println!("left out: loop devices need root and losetup");
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}
