//! Runs the official SDK's tests against this server, when told which Python has it.

#![allow(clippy::unwrap_used, reason = "a test")]

mod bench;

use bench::Bench;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sdk() {
    let Ok(python) = std::env::var("HOLDFAST_SDK_PYTHON") else { return };
    let bench = Bench::start().await;
    bench.user("ada").await;
    let device = bench.device("ada").await;
    let dev = serde_json::json!({
        "version": 1, "api": bench.address, "ca_cert": bench.directory.path().join("ca.pem"),
        "user": "ada", "password": "secret", "access_token": device.me.token, "admin_token": bench.admin_token,
    });
    std::fs::write(bench.directory.path().join("dev.json"), dev.to_string()).unwrap();
    let directory = bench.directory.path().to_owned();
    let status = tokio::task::spawn_blocking(move || {
        std::process::Command::new(python)
            .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
            .args(std::env::var("HOLDFAST_SDK_ARGS").unwrap_or_default().split_whitespace())
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/compatibility"))
            .env("HOLDFAST_DEV", directory)
            .status()
    });
    assert!(status.await.unwrap().unwrap().success());
}
