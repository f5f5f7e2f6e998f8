//! What the frontend says when it cannot start.

use std::time::Duration;

use crate::cluster::{Cluster, block, frontend_config, hex};
use holdfast_frontend_server::{Config, ServerError, run};
use holdfast_libs_types::CellId;
use tokio_util::sync::CancellationToken;

async fn start_error(config: Config) -> ServerError {
    let run = run(Config { listen: "127.0.0.1:0".to_owned(), ..config }, CancellationToken::new());
    tokio::time::timeout(Duration::from_secs(10), run).await.expect("it must not start").unwrap_err()
}

#[tokio::test]
async fn a_wrong_master_key_cell_or_secret_is_named() {
    let mut cluster = Cluster::start().await;
    cluster.put(&block(1, 100)).await.unwrap();
    cluster.frontend.stop();
    let good = frontend_config(cluster.dir.path(), &cluster.tls, &cluster.managers(), &cluster.options);
    let error = start_error(Config { master_key: hex(&[4; 32]), ..good.clone() }).await;
    assert!(matches!(error, ServerError::MasterKey(_)) && error.to_string().contains("`master_key`"), "{error}");
    let error = start_error(Config { cell: CellId([1; 16]), ..good.clone() }).await;
    assert!(matches!(error, ServerError::Catalog(_)) && error.to_string().contains("belongs to cell"), "{error}");
    let error = start_error(Config { master_key: "abc".to_owned(), ..good.clone() }).await;
    assert!(error.to_string().contains("`master_key` must be 64 hex digits"), "{error}");
    let error = start_error(Config { signing_keys: "1:zz".to_owned(), ..good.clone() }).await;
    assert!(error.to_string().contains("line 1"), "{error}");
}

#[test]
fn an_unknown_key_in_the_configuration_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("frontend.toml");
    std::fs::write(&path, "listen = '127.0.0.1:1'\n[cache]\nbites = 1\n").unwrap();
    let error = Config::load(&path).unwrap_err().to_string();
    assert!(error.contains("bites") && error.contains("did you mean `bytes`?"), "{error}");
}
