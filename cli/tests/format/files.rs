//! Files as disks: no root is needed.

use std::path::Path;

use holdfast_node_engine::{Disk, OpenOptions};
use serde_json::Value;

use crate::support::{
    CELL, OTHER_CELL, done, folder, format, format_for, hash, put, refused, run, said, sparse, stdout,
};

const MIB: u64 = 1 << 20;

#[test]
fn a_file_is_made_and_is_a_disk_of_its_cell() {
    let folder = folder();
    let path = folder.path().join("disk");
    let output = format(&path, &["--size", "32MiB", "--json"]);
    done(&output);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["formatted"], true);
    assert_eq!((&document["cell"], &document["size_bytes"]), (&CELL.into(), &(32 * MIB).into()));
    assert_eq!(document["device"]["kind"], "file");
    let disk = Disk::open(&path, OpenOptions::new(CELL.parse().unwrap())).unwrap();
    assert_eq!(disk.id().to_string(), document["disk"].as_str().unwrap());
    assert_eq!(u64::from(disk.status().slots), document["slots"].as_u64().unwrap());
}

#[test]
fn the_configuration_of_the_node_names_the_cell_and_the_slot_size() {
    let folder = folder();
    let config = folder.path().join("node.toml");
    let text = format!(
        "node = 'node-1'\nzone = 'z'\ncell = '{CELL}'\nlisten = '127.0.0.1:0'\naddress = 'https://127.0.0.1:1'\ncell_secret = '{}'\n\
         volume_manager = 'https://127.0.0.1:1'\nslot_bytes = 524288\ndisks = []\n\
         [tls]\ncertificate = 'c'\nkey = 'k'\nca = 'a'\n",
        "5".repeat(64)
    );
    std::fs::write(&config, &text).unwrap();
    let path = folder.path().join("disk");
    let config_text = config.to_str().unwrap();
    let output = run(&path, &["--config", config_text, "--size", "32MiB"]);
    done(&output);
    assert!(stdout(&output).contains("slots of 512.0 KiB"), "{}", stdout(&output));
    assert!(stdout(&output).contains(&format!("[[disks]]\npath = \"{}\"", path.display())), "{}", stdout(&output));

    std::fs::write(&config, text.replace("slot_bytes", "slot_bites")).unwrap();
    said(&run(&path, &["--config", config_text]), 1, &["node.toml", "did you mean `slot_bytes`"]);
    said(&run(&path, &["--config", config_text, "--cell", CELL]), 2, &["cannot be used with"]);
    said(&run(&path, &[]), 2, &["--config FILE", "--cell ID"]);
    said(&run(&path, &["--cell", "c0ffee"]), 2, &["32 hex digits"]);
}

#[test]
fn sizes_and_names_that_make_no_sense_are_refused_and_leave_nothing_behind() {
    let folder = folder();
    let path = folder.path().join("disk");
    said(&format(&path, &[]), 2, &["does not exist", "--size SIZE"]);
    said(&format(&path, &["--size", "1MiB"]), 1, &["one slot of 1048576 bytes needs", "smaller slots"]);
    said(&run(&path, &["--cell", CELL, "--size", "1GiB", "--slot-size", "1000"]), 1, &["slot size 1000"]);
    assert!(!path.exists(), "a refused format leaves no file behind");
    said(&format(Path::new("/dev/sd-none"), &["--size", "1GiB"]), 2, &["there is no device /dev/sd-none", "lsblk"]);
    said(&format(folder.path(), &[]), 2, &["neither a block device nor a regular file"]);
    said(&format(&path, &["--size", "64MiB", "--erase-extents", "1"]), 2, &["goes with --force"]);
    sparse(&path, 64 * MIB);
    said(&format(&path, &["--size", "32MiB"]), 2, &["67108864 bytes already"]);
}

#[test]
fn data_at_either_end_is_refused_and_erased_only_with_the_path_typed_out() {
    let folder = folder();
    let path = folder.path().canonicalize().unwrap().join("disk");
    let typed = path.to_str().unwrap();
    for (at, words) in [(MIB, "byte 1048576 is not zero"), (64 * MIB - 1, "byte 67108863 is not zero")] {
        sparse(&path, 64 * MIB);
        put(&path, at, &[7]);
        refused(&path, || format(&path, &[]), &[words, "nothing on it was changed", &format!("--force {typed}")]);
        refused(&path, || format(&path, &["--force", "disk"]), &["--force disk does not name", "has no serial", typed]);
        refused(&path, || format(&path, &["--force", &typed.to_uppercase()]), &["does not name"]);
        done(&format(&path, &["--force", typed]));
        let mut end = [1; 4096];
        std::os::unix::fs::FileExt::read_exact_at(&std::fs::File::open(&path).unwrap(), &mut end, 64 * MIB - 4096)
            .unwrap();
        assert_eq!(end, [0; 4096], "the end is erased as well");
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_wrong_word_is_refused_even_where_nothing_would_be_erased() {
    let folder = folder();
    let path = folder.path().join("disk");
    said(&format(&path, &["--size", "32MiB", "--force", "WD-123"]), 1, &["--force WD-123 does not name"]);
    assert!(!path.exists());
}

#[test]
fn a_disk_of_this_or_another_cell_is_named_and_an_empty_one_may_be_formatted_anew() {
    let folder = folder();
    let path = folder.path().canonicalize().unwrap().join("disk");
    done(&format(&path, &["--size", "32MiB"]));
    refused(&path, || format(&path, &[]), &["it is Holdfast disk", "of this cell", "holds no extents"]);
    refused(&path, || format_for(OTHER_CELL, &path, &[]), &[&format!("of cell {CELL}"), "holds no extents"]);
    done(&format_for(OTHER_CELL, &path, &["--force", path.to_str().unwrap()]));
    refused(&path, || format(&path, &[]), &[&format!("of cell {OTHER_CELL}")]);
}

#[test]
fn extents_are_counted_and_go_only_when_their_number_is_typed() {
    let folder = folder();
    let path = folder.path().canonicalize().unwrap().join("disk");
    let typed = path.to_str().unwrap();
    done(&format(&path, &["--size", "32MiB"]));
    let disk = Disk::open(&path, OpenOptions::new(CELL.parse().unwrap())).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for n in 1..=3 {
        let volume = holdfast_libs_types::VolumeId([n; 16]);
        runtime.block_on(disk.create_extent(volume, holdfast_libs_types::WriteEpoch(1))).unwrap();
    }
    let pid = std::process::id().to_string();
    refused(&path, || format(&path, &["--force", typed]), &["in use by process", &pid, "stop that first"]);
    drop(disk);
    refused(&path, || format(&path, &[]), &["HOLDS 3 EXTENTS", "--erase-extents 3", "last copies"]);
    refused(&path, || format(&path, &["--force", typed]), &["HOLDS 3 EXTENTS"]);
    let wrong = ["--force", typed, "--erase-extents", "2"];
    refused(&path, || format(&path, &wrong), &["--erase-extents 2 is not the number"]);
    refused(&path, || format_for(OTHER_CELL, &path, &["--force", typed]), &["data of another cell"]);

    // One superblock is enough to count by; with none it cannot be told what would be lost.
    put(&path, 100, &[0xff; 8]);
    refused(&path, || format(&path, &["--force", typed]), &["HOLDS 3 EXTENTS"]);
    let whole = std::fs::read(&path).unwrap();
    put(&path, MIB + 100, &[0xff; 8]);
    let all = ["--force", typed, "--erase-extents", "3"];
    refused(&path, || format(&path, &all), &["contents cannot be told", "zero its first and last 2 MiB"]);
    std::fs::write(&path, whole).unwrap();
    // A header that cannot be believed may be an extent.
    let first_slot = (3 * MIB..32 * MIB).step_by(4096).find(|at| {
        let mut magic = [0; 4];
        std::os::unix::fs::FileExt::read_exact_at(&std::fs::File::open(&path).unwrap(), &mut magic, *at).unwrap();
        &magic == b"HFSL"
    });
    put(&path, first_slot.unwrap() + 200, &[1; 8]);
    put(&path, first_slot.unwrap() + 4096 + 200, &[1; 8]);
    refused(&path, || format(&path, &["--force", typed]), &["HOLDS 3 EXTENTS"]);

    let before = hash(&path);
    done(&format(&path, &all));
    assert_ne!(hash(&path), before);
    let disk = Disk::open(&path, OpenOptions::new(CELL.parse().unwrap())).unwrap();
    assert_eq!(disk.status().free_slots, disk.status().slots);
}

#[test]
fn with_json_a_refusal_is_a_document_too() {
    let folder = folder();
    let path = folder.path().join("disk");
    sparse(&path, 64 * MIB);
    put(&path, 510, &[0x55, 0xaa]);
    put(&path, 446, &[0, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 16, 0, 0]);
    let output = format(&path, &["--json"]);
    said(&output, 1, &["partition table (MBR)"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["formatted"], false);
    let reasons = document["reasons"].as_array().unwrap();
    assert_eq!((&reasons[0]["code"], &reasons[0]["grip"]), (&"partition-table".into(), &"erasable".into()));
    assert_eq!(reasons.len(), 1, "each thing is said once: {reasons:?}");
}
