//! What people and programs write: configurations, hardware profiles, ids, the output of smartctl.

use std::path::Path;
use std::time::Duration;

use holdfast_hw_profiles::runner::{Output, RunError, Runner};
use holdfast_hw_profiles::{load, pattern, size, smart};
use holdfast_libs_transport::config;
use holdfast_libs_types::{BlockHash, CellId, VolumeId};
use serde::de::DeserializeOwned;

use super::of_text;
use crate::driver::{Outcome, Target};

pub fn targets() -> Vec<Target> {
    vec![
        of_toml("node-config", NODE, configured::<holdfast_node_server::Config>),
        of_toml("volume-manager-config", MANAGER, configured::<holdfast_volume_manager_server::Config>),
        of_toml("frontend-config", FRONTEND, configured::<holdfast_frontend_server::Config>),
        of_toml("metadata-config", METADATA, configured::<holdfast_metadata_server::Config>),
        Target { base_bytes: 4 << 20, factor: TOML_FACTOR, ..of_text("hw-profile", profiles(), profile) },
        of_text("ids", vec!["0123456789abcdef".repeat(2), "0123456789abcdef".repeat(4)], ids),
        of_text("smartctl", smart_samples(), smartctl),
    ]
}

/// A key of two bytes becomes an entry of a table, with its place in the text, and once more in the error.
const TOML_FACTOR: u64 = 1024;

fn of_toml(name: &'static str, own: &str, run: fn(&str) -> Outcome) -> Target {
    Target { factor: TOML_FACTOR, ..of_text(name, vec![configuration(own)], run) }
}

const NODE: &str =
    "node = 'node-1'\nzone = 'z'\nslot_bytes = 1073741824\ncreate_size_bytes = 1\nvolume_manager = 'https://a:1'\n";
const MANAGER: &str = "data_dir = '/d'\n[timing]\nheartbeat_ms = 1\n[copies]\nmax_parallel = 2\n[catalog]\nkind = 'mysql'\ntable = 'mysql://a@b/c'\nindex = ['mysql://a@b/d']\n";
const FRONTEND: &str = "signing_keys = '7:aa'\nmaster_key = 'b'\ncatalog_dir = '/d'\nvolume_manager = 'https://a:1'\nhedge_ms = 9\n[cache]\nbytes = 5\n[writer]\nopen_volumes = 2\n[limits]\nput_bytes = 1\n";
const METADATA: &str = "signing_keys = '7:aa'\ndata_dir = '/d'\nfrontend = 'https://a:1'\nquota_bytes = 5\n";

fn configuration(own: &str) -> String {
    let id = "ce".repeat(16);
    let disks = if own == NODE { "[[disks]]\npath = '/dev/x'\n" } else { "" };
    format!(
        "listen = '127.0.0.1:1'\naddress = 'https://a:1'\ncell = '{id}'\ncell_secret = 's'\n{own}[tls]\ncertificate = 'c'\nkey = 'k'\nca = 'a'\n{disks}"
    )
    .replacen("address = 'https://a:1'\n", if own == MANAGER { "" } else { "address = 'https://a:1'\n" }, 1)
}

/// Without secrets in files: a text that was mutated must not name files to read.
fn configured<T: DeserializeOwned>(text: &str) -> Outcome {
    let found: Result<T, _> = config::parse(text, Path::new("fuzz.toml"), &[], std::iter::empty());
    found.map(drop).map_err(|error| error.to_string())
}

fn profiles() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../hw-profiles/chassis");
    let mut found: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .filter(|text| text.len() < 16 << 10)
        .collect();
    found.extend(
        ["3.84TB", "18446744073709551615", "9999999999999999TB", "/dev/disk/by-path/pci-{0..11}"].map(str::to_owned),
    );
    found.sort_by_key(String::len);
    found
}

fn profile(text: &str) -> Outcome {
    let _ = (size::parse(text), pattern::expand(text), pattern::natural(text));
    load::parse(text, "fuzz.toml").map(drop).map_err(|error| error.to_string())
}

fn ids(text: &str) -> Outcome {
    let cell: Result<CellId, _> = text.parse();
    let volume: Result<VolumeId, _> = text.parse();
    let hash: Result<BlockHash, _> = text.parse();
    if let Ok(cell) = &cell {
        assert!(cell.to_string().eq_ignore_ascii_case(text));
    }
    assert_eq!(cell.is_ok(), volume.is_ok());
    cell.map(drop).or(hash.map(drop)).map_err(|error| error.to_string())
}

fn smart_samples() -> Vec<String> {
    vec![
        r#"{"smartctl":{"version":[7,3],"exit_status":0},"smart_status":{"passed":true},"ata_smart_attributes":{"table":[{"id":5,"raw":{"value":3}},{"id":197,"raw":{"value":1}}]},"temperature":{"current":35}}"#.to_owned(),
        r#"{"scsi_error_counter_log":{"read":{"total_uncorrected_errors":0},"write":{"total_uncorrected_errors":18446744073709551615}}}"#.to_owned(),
        r#"{"nvme_smart_health_information_log":{"media_errors":1,"percentage_used":3,"critical_warning":0},"scsi_error_counter_log":{"read":{"total_uncorrected_errors":18446744073709551615},"write":{"total_uncorrected_errors":1}},"ata_device_statistics":{"pages":[{"table":[{"name":"Percentage Used Endurance Indicator","value":4}]}]}}"#.to_owned(),
    ]
}

/// A smartctl that answers the input.
struct Says<'a>(&'a str);

impl Runner for Says<'_> {
    fn run(&self, _: &str, _: &[&str], _: Duration) -> Result<Output, RunError> {
        Ok(Output { code: Some(0), stdout: self.0.to_owned(), stderr: String::new() })
    }
}

fn smartctl(text: &str) -> Outcome {
    // The error shows what smartctl said.
    smart::ask(&Says(text), "/dev/sdb").map(drop).map_err(|_| "no health".to_owned())
}
