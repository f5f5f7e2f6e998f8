//! Commands as a person or a script meets them: exit codes, what stands on stdout, what is left behind.

#![allow(clippy::unwrap_used, missing_docs)]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use holdfast_libs_transport::{Role, ServiceTokens};
use serde_json::Value;

fn holdfast(arguments: &[&str]) -> Output {
    started(arguments, &[]).output().unwrap()
}

/// The binary with no cell named by the environment, but for `environment`.
fn started(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.args(arguments).env_remove("HOLDFAST_DEV").env_remove("HOLDFAST_ADMIN_CONFIG");
    command.env("XDG_CONFIG_HOME", "/nowhere").envs(environment.iter().copied());
    command
}

#[track_caller]
fn ends(arguments: &[&str], code: i32, words: &str) -> Output {
    ends_in(&[], arguments, code, words)
}

#[track_caller]
fn ends_in(environment: &[(&str, &str)], arguments: &[&str], code: i32, words: &str) -> Output {
    let output = started(arguments, environment).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.code() == Some(code) && text.contains(words), "{arguments:?}: {:?}: {text}", output.status);
    output
}

#[track_caller]
fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn probe_succeeds_when_a_disk_is_accepted_and_fails_with_its_report_when_none_is() {
    let root = folder();
    let at = text(root.path());
    for folder in ["sys/block", "proc", "dev", "var/lib/holdfast/disks"] {
        std::fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    let none = ends(&["node", "probe", "--root", at, "--json"], 1, "no profile fits this machine");
    assert_eq!(json(&none)["accepted"], 0);
    ends(&["node", "probe", "--root", at, "--profile", "dev-fil"], 2, "did you mean `dev-file`");
    ends(&["node", "probe", "--root", at, "--profile", "dev-file"], 1, "no disk is accepted");
    let disk = root.path().join("var/lib/holdfast/disks/disk-1");
    std::fs::File::create(disk).unwrap().set_len(64 << 30).unwrap();
    let one = ends(&["node", "probe", "--root", at, "--profile", "dev-file", "--json"], 0, "disk-1");
    let report = json(&one);
    assert_eq!(
        (&report["accepted"], &report["files"][0]["accepted"]),
        (&Value::from(1), &Value::from(true)),
        "{report}"
    );
}

#[test]
fn locate_fails_where_there_is_no_light_or_no_such_bay() {
    ends(&["node", "locate", "nowhere", "on", "--profile", "dev-file"], 1, "no such bay");
    ends(&["node", "locate", "front-1", "on", "--profile", "server-2u"], 2, "no profile `server-2u`");
    ends(&["node", "locate", "front-1", "bright"], 2, "on, off");
}

#[test]
fn format_offers_only_what_it_heeds_and_tells_its_exit_codes() {
    let help = ends(&["admin", "disk", "format", "--help"], 0, "Exit codes: 0 it is a disk now, 1 refused");
    assert!(!String::from_utf8_lossy(&help.stdout).contains("--dev"));
    ends(&["admin", "disk", "format", "x", "--dev", "holdfast-dev"], 2, "--dev");
    ends(&["admin", "--dev", "holdfast-dev", "disk", "format", "x"], 2, "--dev names a cell");
}

#[test]
fn a_cell_may_be_named_before_or_behind_the_operators_command() {
    for arguments in [
        &["admin", "status", "--json", "--dev", "no-such-cell"],
        &["admin", "--json", "--dev", "no-such-cell", "status"],
    ] {
        ends(arguments, 1, "no-such-cell/dev.json is not there");
    }
    let dir = folder();
    let disk = dir.path().join("disk");
    let arguments = |more: &[&'static str]| -> Vec<String> {
        let all = ["admin", "disk", "format", text(&disk), "--cell", "cececececececececececececececece", "--json"];
        all.iter().chain(more).map(|word| (*word).to_owned()).collect()
    };
    let run = |more: &[&'static str]| holdfast(&arguments(more).iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(run(&[]).status.code(), Some(2), "it does not exist");
    let made = run(&["--size", "64MiB", "--slot-size", "16MiB"]);
    assert_eq!((made.status.code(), &json(&made)["formatted"]), (Some(0), &Value::from(true)));
    let refused = run(&["--slot-size", "16MiB"]);
    assert_eq!((refused.status.code(), &json(&refused)["formatted"]), (Some(1), &Value::from(false)));
    assert!(json(&refused)["reasons"][0]["remedy"].is_string(), "{}", json(&refused));
}

/// An operator's configuration for a cell whose volume managers are `addresses`, in `folder`.
fn operators_file(folder: &Path, addresses: &str) -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let ca = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
    std::fs::write(folder.join("ca.pem"), ca.pem()).unwrap();
    std::fs::write(folder.join("token"), "abcd\n").unwrap();
    let (ca, token) = (folder.join("ca.pem"), folder.join("token"));
    let config = folder.join("admin.toml");
    let text = format!("volume_manager = {addresses}\nca = '{}'\ntoken_file = '{}'\n", ca.display(), token.display());
    std::fs::write(&config, text).unwrap();
    text_of(&config)
}

fn text_of(path: &Path) -> String {
    text(path).to_owned()
}

#[test]
fn an_operator_names_a_cell_by_a_file_and_an_environment_that_names_two_is_refused() {
    let dir = folder();
    ends(&["admin", "status"], 2, "name the cell: --dev DIR or --config FILE");
    ends(&["admin", "status", "--config", "/nowhere/admin.toml"], 1, "/nowhere/admin.toml: cannot be read");
    ends(&["admin", "status", "--dev", "a", "--config", "b"], 2, "cannot be used with");
    let file = operators_file(dir.path(), "'https://127.0.0.1:1'");
    let environment = [("HOLDFAST_ADMIN_CONFIG", file.as_str())];
    ends(&["admin", "status", "--config", &file], 3, "127.0.0.1:1");
    ends(&["admin", "--config", &file, "status", "--json"], 3, "127.0.0.1:1");
    ends_in(&environment, &["admin", "status"], 3, "127.0.0.1:1");
    ends_in(&environment, &["admin", "status", "--dev", "no-such-cell"], 1, "no-such-cell/dev.json is not there");
    let both = [environment[0], ("HOLDFAST_DEV", "no-such-cell")];
    ends_in(&both, &["admin", "status"], 2, "say which with --dev or --config");
    let home = folder();
    std::fs::create_dir(home.path().join("holdfast")).unwrap();
    std::fs::copy(&file, home.path().join("holdfast/admin.toml")).unwrap();
    ends_in(&[("XDG_CONFIG_HOME", text(home.path()))], &["admin", "status"], 3, "127.0.0.1:1");
}

#[test]
fn an_operators_file_that_cannot_be_used_says_which_key_and_of_several_volume_managers_none_may_answer() {
    let dir = folder();
    for (addresses, code, words) in [
        ("'http://127.0.0.1:1'", 1, "is not of the form https://HOST:PORT"),
        ("[]", 1, "names no volume manager"),
        ("7", 1, "a list of them"),
        ("'https://a'\nkey = 1", 1, "admin.toml:2:1: unknown field `key`"),
        ("['https://127.0.0.1:1', 'https://127.0.0.1:2']", 3, "https://127.0.0.1:"),
    ] {
        let file = operators_file(dir.path(), addresses);
        ends(&["admin", "status", "--config", &file], code, words);
    }
    ends(&["admin", "--config", "x", "disk", "format", "y"], 2, "goes behind `format`");
}

#[test]
fn an_operators_token_is_made_from_the_cells_secret_and_from_nothing_else() {
    let dir = folder();
    let secret = dir.path().join("cell-secret");
    std::fs::write(&secret, format!("{}\n", "07".repeat(32))).unwrap();
    let output = ends(&["admin", "token", "--cell-secret-file", text(&secret)], 0, "");
    let expected = ServiceTokens::new(&[7; 32]).token(Role::Admin);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{expected}\n"));
    std::fs::write(&secret, "07").unwrap();
    ends(&["admin", "token", "--cell-secret-file", text(&secret)], 1, "64 hex digits");
}

#[test]
fn a_dev_that_is_refused_leaves_nothing_behind_that_was_not_there() {
    let dir = folder();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let cell = dir.path().join("new/cell");
    let refused = |more: &[&str], code: i32, words: &str| {
        ends(&[&["dev", "--data", text(&cell)], more].concat(), code, words);
        assert_eq!(names(dir.path()), [""; 0], "{more:?}");
    };
    refused(&["--disk-size", "1MiB"], 2, "at least four slots");
    refused(&["--nodes", "2"], 2, "2 is not in 3..=99");
    refused(&["--api", &taken], 1, "cannot listen on");
    refused(&["--api", "127.0.0.1:0"], 2, "--api needs a port");
    refused(&["--nodes", "5", "--set", "frontend.cache.bytes"], 2, "write ROLE.KEY=VALUE");
    refused(&["--set", "fronted.cache.bytes=1"], 2, "no role `fronted`");
}

#[test]
fn a_folder_of_somebody_else_is_refused_and_left_alone_and_one_that_a_killed_start_left_is_none() {
    let dir = folder();
    let cell = text(dir.path());
    std::fs::write(dir.path().join("thesis.txt"), "precious").unwrap();
    ends(&["dev", "--data", cell], 2, "it holds thesis.txt");
    assert_eq!(names(dir.path()), ["thesis.txt"]);
    std::fs::remove_file(dir.path().join("thesis.txt")).unwrap();
    for folder in ["etc", "log"] {
        std::fs::create_dir(dir.path().join(folder)).unwrap();
    }
    ends(&["dev", "--data", cell, "--disk-size", "1MiB"], 2, "at least four slots");
    std::fs::write(dir.path().join("log/mine"), "precious").unwrap();
    ends(&["dev", "--data", cell], 2, "it holds log");
    assert_eq!(names(dir.path()), ["etc", "log"]);
}

#[test]
fn a_configuration_that_cannot_be_read_is_told_with_each_cause_once() {
    let output = ends(&["node", "--config", "/nowhere/node.toml"], 1, "/nowhere/node.toml: cannot be read");
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.matches("No such file").count(), 1, "{text}");
}
