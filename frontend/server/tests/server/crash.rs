//! A frontend that dies between an append and its index rows.

use std::process::{Command, Stdio};

use crate::cluster::{self, Cluster, block, eventually, hex};
use holdfast_frontend_client::code;
use holdfast_frontend_server::{Config, run};
use holdfast_libs_types::BlockHash;
use tokio_util::sync::CancellationToken;

/// Names the configuration of the frontend that the second process runs.
const CONFIG: &str = "HOLDFAST_TEST_FRONTEND_CONFIG";

/// Not a test by itself: the process that dies. Run by the test below, with a configuration.
#[tokio::test]
async fn the_process_that_dies() {
    let Some(path) = std::env::var_os(CONFIG) else { return };
    run(Config::load(path.as_ref()).unwrap(), CancellationToken::new()).await.unwrap();
}

fn write_config(cluster: &Cluster, listen: &str) -> std::path::PathBuf {
    let dir = cluster.dir.path();
    let text = format!(
        "listen = {listen:?}\naddress = 'https://{listen}'\ncell = '{}'\ncell_secret = '{}'\nsigning_keys = '{}'\n\
         master_key = '{}'\ncatalog_dir = {:?}\nvolume_manager = '{}'\n\
         [tls]\ncertificate = {:?}\nkey = {:?}\nca = {:?}\n[writer]\nfault_after_append = 3\n",
        cluster::CELL,
        hex(&cluster::SECRET),
        cluster::signing_keys(),
        hex(&[3; 32]),
        dir.join("catalog"),
        cluster.volume_manager.address,
        cluster.tls.certificate,
        cluster.tls.key,
        cluster.tls.ca,
    );
    let path = dir.join("frontend.toml");
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn what_was_appended_without_index_rows_was_never_acknowledged_and_can_be_put_again() {
    let cluster = Cluster::start().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = listener.local_addr().unwrap().to_string();
    drop(listener);
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::the_process_that_dies"])
        .env(CONFIG, write_config(&cluster, &listen))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let address = format!("https://{listen}");
    let blocks: Vec<_> = (0..3).map(|n| block(n, 20_000)).collect();
    eventually("the second frontend serves", async || cluster.put_to(&address, &blocks[0]).await.ok()).await;
    cluster.put_to(&address, &blocks[1]).await.unwrap();
    cluster.put_to(&address, &blocks[2]).await.unwrap_err();
    assert!(!process.wait().unwrap().success(), "it has died");

    for block in &blocks[..2] {
        assert_eq!(cluster.get(BlockHash::of(block)).await.unwrap(), *block, "what was acknowledged is there");
    }
    let lost = BlockHash::of(&blocks[2]);
    assert!((0..4).any(|n| cluster::disk_file::find_record(&cluster.disk_file(n), &lost).is_some()));
    assert_eq!(cluster.get(lost).await.unwrap_err().code(), Some(code::NOT_FOUND));
    assert!(!cluster.put(&blocks[2]).await.unwrap().deduplicated);
    assert_eq!(cluster.get(lost).await.unwrap(), blocks[2]);
    // Its lease runs out, and its volume is sealed with everything that was acknowledged below the length.
    let open = cluster.status().await.open_volumes;
    let abandoned = cluster.volumes().await.into_iter().map(|row| row.volume).find(|volume| !open.contains(volume));
    cluster.sealed(abandoned.expect("the dead frontend's volume")).await;
    for block in &blocks {
        assert_eq!(cluster.get(BlockHash::of(block)).await.unwrap(), *block);
    }
}
