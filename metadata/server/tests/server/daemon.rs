//! The daemon around the protocols: health, metrics, configuration, users.

use std::time::Duration;

use crate::bench::{Bench, named, put_file};
use holdfast_libs_transport::CallError;
use holdfast_metadata_client::{CreateUser, EntryId, Login, code};
use holdfast_metadata_server::Config;

const SECOND: Duration = Duration::from_secs(1);

fn status(error: CallError) -> u16 {
    match error {
        CallError::Api(error) => error.status.as_u16(),
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_open_and_metrics_need_a_service_token() {
    let bench = Bench::start().await;
    let get = async |path: &str, token: Option<&str>| {
        bench.http.with_token(token).get(&format!("{}{path}", bench.address), 1 << 20, SECOND).await
    };
    assert_eq!(get("/healthz", None).await.unwrap(), "ok");
    assert_eq!(status(get("/metrics", None).await.unwrap_err()), 401);
    bench.user("ada").await;
    let mut a = bench.device("ada").await;
    a.one(put_file(named(EntryId::ROOT, "a"), None, b"")).await;
    assert_eq!(status(get("/metrics", Some(&a.me.token)).await.unwrap_err()), 401);
    let text = get("/metrics", Some(&bench.admin_token)).await.unwrap();
    assert!(String::from_utf8_lossy(&text).contains("holdfast_metadata_commits_total 1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_are_made_by_the_operator_and_link_devices_with_their_password() {
    let bench = Bench::start().await;
    let new = |user: &str, password: &str| CreateUser { user: user.to_owned(), password: password.to_owned() };
    let admin = bench.client(Some(&bench.admin_token));
    admin.create_user(&new("ada", "one")).await.unwrap();
    admin.create_user(&new("ada", "one")).await.unwrap();
    assert_eq!(status(admin.create_user(&new("Ada", "two")).await.unwrap_err()), 400);
    for user in ["", "a/b", "..", "new\nline", &"x".repeat(65)] {
        assert_eq!(status(admin.create_user(&new(user, "x")).await.unwrap_err()), 400, "{user:?}");
    }
    assert_eq!(status(bench.client(None).create_user(&new("eve", "x")).await.unwrap_err()), 401);
    let login = |user: &str, password: &str| Login {
        user: user.to_owned(),
        password: password.to_owned(),
        device_name: "laptop".to_owned(),
    };
    for (user, password) in [("ada", "two"), ("eve", "one")] {
        let error = bench.client(None).login(&login(user, password)).await.unwrap_err();
        assert_eq!(error.code(), Some(code::UNAUTHORIZED));
    }
    let first = bench.client(None).login(&login("ada", "one")).await.unwrap();
    let second = bench.client(None).login(&login("ada", "one")).await.unwrap();
    assert!(second.device > first.device && second.token != first.token, "every link is a new device");
    assert_eq!(second.namespace, first.namespace);
    let me = bench.client(Some(&first.token)).me().await.unwrap();
    assert_eq!((me.user.as_str(), me.device), ("ada", first.device));
}

#[test]
fn an_unknown_configuration_key_names_the_nearest() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("metadata.toml");
    let text = format!(
        "listen = '127.0.0.1:1'\naddress = 'https://127.0.0.1:1'\ncell = '{}'\ncell_secret = '{}'\nsigning_keys = 'x'\n\
         data_dir = '/tmp'\nfrontent = 'https://127.0.0.1:2'\n[tls]\ncertificate = 'c'\nkey = 'k'\nca = 'a'\n",
        "07".repeat(16),
        "03".repeat(32)
    );
    std::fs::write(&path, &text).unwrap();
    let error = Config::load(&path).unwrap_err().to_string();
    assert!(error.contains("frontent") && error.contains("did you mean `frontend`?"), "{error}");
    std::fs::write(&path, text.replace("frontent", "frontend")).unwrap();
    assert_eq!(Config::load(&path).unwrap().quota_bytes, 8 << 40);
}
