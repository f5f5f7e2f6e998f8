//! Bad input at every rim gets a clear error; nothing listens without TLS and tokens; nothing lies in the clear.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use holdfast_libs_presign::{Method, Receipt};
use holdfast_libs_transport::{CallError, Role};
use holdfast_libs_types::{AccountId, BlockHash, MAX_BLOCK_BYTES};
use holdfast_tests_cluster::blocks::Blocks;
use holdfast_tests_cluster::cell::{Cell, binary, scratch};
use holdfast_tests_cluster::disks::written_parts;
use holdfast_tests_cluster::wait_for;
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(30);

fn code(result: Result<Bytes, CallError>) -> (u16, String) {
    match result {
        Ok(body) => panic!("accepted: {body:?}"),
        Err(CallError::Api(error)) => (error.status.as_u16(), error.code),
        Err(error) => panic!("no answer: {error}"),
    }
}

#[test]
fn the_frontend_refuses_what_is_wrong_and_says_why() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let cell = Cell::start("input-", &["--no-clients"])?;
    let blocks = Blocks::of(&cell)?;
    let block = Bytes::from_static(b"a block of bytes");
    let hash = BlockHash::of(&block);
    let put = |url: &str, body: Bytes| {
        let send = blocks.anonymous().send_bytes(http::Method::PUT, url, body, 1 << 16, DEADLINE);
        runtime.block_on(send)
    };
    let url = blocks.url(Method::Put, hash);
    assert_eq!(code(put(&url, Bytes::from_static(b"other bytes"))), (400, "hash_mismatch".to_owned()));
    let long = Bytes::from(vec![1; MAX_BLOCK_BYTES + 1]);
    assert_eq!(code(put(&blocks.url(Method::Put, BlockHash::of(&long)), long)).0, 413);
    assert_eq!(code(put(&url.replace("l=4194304", "l=4194305"), block.clone())), (403, "url_signature".to_owned()));
    let expired = blocks.grant_url(Method::Put, hash, 4096, 1_000_000);
    assert_eq!(code(put(&expired, block.clone())), (403, "url_expired".to_owned()));
    let short = blocks.grant_url(Method::Put, hash, 4, 4_000_000_000);
    assert_eq!(code(put(&short, block.clone())).0, 413);
    assert_eq!(code(put(url.split('?').next().context("no path")?, block.clone())), (403, "url_malformed".to_owned()));
    let get = |url: &str| runtime.block_on(blocks.anonymous().get(url, MAX_BLOCK_BYTES, DEADLINE));
    assert_eq!(code(get(&blocks.url(Method::Get, hash))), (404, "not_found".to_owned()));
    put(&url, block.clone())?;
    assert_eq!(get(&blocks.url(Method::Get, hash))?, block);
    assert_eq!(code(get(&url)).0, 403, "a URL for PUT is none for GET");
    Ok(())
}

#[test]
fn metadata_refuses_what_is_wrong_and_says_why() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let cell = Cell::start("api-input-", &["--no-clients"])?;
    let blocks = Blocks::of(&cell)?;
    let dev = cell.dev_json()?;
    let api = dev["api"].as_str().context("no api")?;
    let http = blocks.anonymous().with_token(dev["access_token"].as_str());
    let post = |route: &str, document: &Value| -> Result<Value, CallError> {
        runtime.block_on(http.post_json(&format!("{api}{route}"), document, DEADLINE))
    };
    let hash = BlockHash::of(b"never delivered");
    let receipt = Receipt { account: AccountId([9; 16]), hash, length: 15, expires: 4_000_000_000 };
    let receipt = receipt.sign(blocks.keys());
    let me: Value = runtime.block_on(http.get_json(&format!("{api}/v1/me"), DEADLINE))?;
    let commit = |name: &str, receipts: Vec<String>| {
        json!({
            "namespace": me["namespace"], "receipts": receipts, "acknowledged_op": 0,
            "items": [{ "op": 1, "change": {
                "kind": "put_file", "at": { "name": { "parent": { "entry": 0 }, "name": name } }, "base": null,
                "size": 15, "blocks": [{ "hash": hash.to_string(), "length": 15 }],
                "mtime": { "secs": 0, "nanos": 0 }, "executable": false,
            }}],
        })
    };
    let foreign = post("/v1/commit", &commit("a", vec![receipt]));
    let foreign = foreign.map_or_else(|error| error.to_string(), |answer| answer["results"][0].to_string());
    assert!(foreign.contains("another account") || foreign.contains("need_blocks"), "{foreign}");
    for name in ["..", "a/b", "", &"n".repeat(300)] {
        let item = json!({
            "namespace": me["namespace"], "receipts": [], "acknowledged_op": 0,
            "items": [{
                "op": 100 + name.len(),
                "change": { "kind": "make_folder", "parent": { "entry": 0 }, "name": name },
            }],
        });
        let answer = post("/v1/commit", &item)?;
        assert_eq!(answer["results"][0]["code"], "invalid_name", "{name:?}: {answer}");
    }
    for path in ["/folder/../secret", &format!("/{}", "n".repeat(300))] {
        let error = post("/2/files/create_folder_v2", &json!({ "path": path })).expect_err("a bad path");
        assert!(error.to_string().contains("malformed_path"), "{path}: {error}");
    }
    Ok(())
}

#[test]
fn every_listener_refuses_plain_http_and_missing_tokens() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let cell = Cell::start("listeners-", &["--no-clients"])?;
    let blocks = Blocks::of(&cell)?;
    let mut listeners = 0;
    for daemon in cell.dev_json()?["daemons"].as_array().into_iter().flatten() {
        let listen = daemon["listen"].as_str().context("no listener")?;
        let role = daemon["role"].as_str().context("no role")?;
        let mut plain = TcpStream::connect(listen)?;
        plain.set_read_timeout(Some(DEADLINE))?;
        plain.write_all(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")?;
        let mut answer = String::new();
        plain.read_to_string(&mut answer)?;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("HTTPS only"), "{role}: {answer}");
        let path = if role == "metadata" { "/v1/me" } else { "/v1/status" };
        let url = format!("https://{listen}{path}");
        match runtime.block_on(blocks.anonymous().get(&url, 1 << 16, DEADLINE)) {
            Err(CallError::Api(error)) => assert_eq!(error.status.as_u16(), 401, "{role}"),
            other => panic!("{role} without a token: {other:?}"),
        }
        if role == "node" {
            let wrong = blocks.service(Role::Metadata);
            match runtime.block_on(wrong.get(&format!("https://{listen}/v1/disks/00/extents"), 1 << 16, DEADLINE)) {
                Err(CallError::Api(error)) => assert!([401, 403].contains(&error.status.as_u16()), "{error}"),
                other => panic!("a node with the metadata's token: {other:?}"),
            }
        }
        listeners += 1;
    }
    assert_eq!(listeners, 6);
    let api = cell.dev_json()?["api"].as_str().context("no api")?.to_owned();
    let poll = blocks.anonymous();
    let poll = runtime.block_on(poll.post_json::<_, Value>(
        &format!("{api}/2/files/list_folder/longpoll"),
        &json!({ "cursor": "forged-cursor-forged-cursor", "timeout": 30 }),
        DEADLINE,
    ));
    assert!(poll.is_err(), "a long poll with a forged cursor: {poll:?}");
    Ok(())
}

#[test]
fn disks_are_direct_and_hold_no_plaintext() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let cell = Cell::start("plaintext-", &["--no-clients"])?;
    let blocks = Blocks::of(&cell)?;
    let marker = "a sentence that must never be found on a disk ";
    let block = Bytes::from(marker.repeat(2000));
    runtime.block_on(blocks.put(&block))?;
    let (mut disks, mut written) = (0, 0);
    for daemon in cell.dev_json()?["daemons"].as_array().into_iter().flatten().filter(|d| d["role"] == "node") {
        let pid = daemon["pid"].as_i64().context("no pid")?;
        let (mut direct, mut rings) = (0, 0);
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
            let entry = entry?;
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            let target = target.to_string_lossy().into_owned();
            rings += usize::from(target.contains("io_uring"));
            if target.ends_with(".img") {
                let number = entry.file_name().to_string_lossy().into_owned();
                let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}"))?;
                let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).context("no flags")?;
                // O_DIRECT is 0o40000 on x86-64 (fcntl.h).
                direct += usize::from(u32::from_str_radix(flags.trim(), 8)? & 0o40000 != 0);
            }
        }
        assert!(direct >= 2 && rings >= 2, "pid {pid}: {direct} direct descriptors, {rings} rings");
        for path in daemon["disks"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let marker = marker.trim().as_bytes();
            for (start, bytes) in written_parts(path.as_ref())? {
                let found = bytes.windows(marker.len()).position(|window| window == marker);
                assert_eq!(found, None, "plaintext in {path}, in the part from {start}");
                written += bytes.len();
            }
            disks += 1;
        }
    }
    assert_eq!(disks, 6);
    assert!(written > 3 * block.len(), "only {written} bytes were searched");
    Ok(())
}

#[test]
fn a_second_dev_on_the_same_folder_is_refused() -> anyhow::Result<()> {
    let mut cell = Cell::start("second-", &["--no-clients"])?;
    let output = Command::new(binary()?).args(["dev", "--data"]).arg(cell.path()).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("another `holdfast dev` runs on"), "{stderr}");
    cell.json(&["admin", "status"])?;
    cell.stop()?;
    assert!(!cell.path().join("dev.json").exists(), "dev.json goes on a clean stop");
    let (exit, _, stderr) = cell.run(&["admin", "status"])?;
    assert_eq!(exit, 1);
    assert!(stderr.contains("holdfast dev"), "{stderr}");
    Ok(())
}

#[test]
fn an_unknown_key_names_the_nearest_one() -> anyhow::Result<()> {
    let folder = scratch("config-")?;
    let mut cell = Cell::start("config-cell-", &["--no-clients"])?;
    for role in ["node", "volume-manager", "frontend", "metadata"] {
        let name = if role == "node" { "node-1" } else { role };
        let text = fs::read_to_string(cell.path().join(format!("etc/{name}.toml")))?;
        let path = folder.path().join(format!("{role}.toml"));
        fs::write(&path, text.replace("listen =", "lisen ="))?;
        let output = Command::new(binary()?).arg(role).arg("--config").arg(&path).output()?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{role}");
        assert!(stderr.contains("lisen") && stderr.contains("did you mean `listen`"), "{role}: {stderr}");
    }
    cell.stop()
}

#[test]
fn a_disk_file_that_is_too_small_or_of_another_cell_is_left_out_and_the_cell_serves() -> anyhow::Result<()> {
    let mut other = Cell::start("foreign-", &["--no-clients"])?;
    let foreign = other.path().join("disks/node-1-disk-1.img");
    other.stop()?;
    let mut cell = Cell::start("small-", &["--no-clients"])?;
    cell.stop()?;
    let disk = cell.path().join("disks/node-1-disk-1.img");
    fs::remove_file(&disk)?;

    Command::new("cp").arg("--sparse=always").arg(&foreign).arg(&disk).status()?;
    cell.resume()?;
    told_unusable(&cell, "belongs to cell")?;
    cell.stop()?;
    fs::write(&disk, vec![0; 1 << 20])?;
    cell.resume()?;
    told_unusable(&cell, "too small")
}

/// Waits until the operator is told of the first disk of the first node, for this reason.
fn told_unusable(cell: &Cell, why: &str) -> anyhow::Result<()> {
    wait_for("the disk that cannot be used", DEADLINE, || {
        let status = cell.json(&["admin", "status"])?;
        let mut unusable =
            status["nodes"].as_array().into_iter().flatten().flat_map(|node| node["unusable"].as_array());
        let told = |disk: &Value| {
            let tells = |key: &str, words: &str| disk[key].as_str().is_some_and(|text| text.contains(words));
            tells("path", "node-1-disk-1.img") && tells("reason", why)
        };
        Ok(if unusable.any(|disks| disks.iter().any(told)) { Ok(()) } else { Err(status.to_string()) })
    })
}
