//! The client and the listener on real sockets.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use holdfast_libs_transport::tls::TlsFiles;
use holdfast_libs_transport::{ApiError, CallError, HttpClient};
use holdfast_tests_certificates::certificates;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(20);

/// More than a connection holds in its buffers, and no whole number of anything.
const BODY_BYTES: usize = (5 << 20) + 4321;

fn body() -> Bytes {
    (0..BODY_BYTES as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Half of the body, then what follows.
fn half_and(rest: impl futures_util::Stream<Item = std::io::Result<Bytes>> + Send + 'static) -> Body {
    Body::from_stream(stream::iter([Ok(body().slice(..BODY_BYTES / 2))]).chain(rest))
}

/// A listener that gives a body whole, refuses, breaks off or stops in its midst, and sends back what it gets.
async fn serve(tls: &TlsFiles, host: &str) -> SocketAddr {
    let router = Router::new()
        .route("/whole", get(async || body()))
        .route("/refused", get(async || ApiError::bad_request("not like this")))
        .route("/broken", get(async || half_and(stream::iter([Err(std::io::Error::other("broken"))]))))
        .route("/stuck", get(async || half_and(stream::pending())))
        .route("/echo", post(async |body: Bytes| body))
        .layer(DefaultBodyLimit::disable());
    let listener = TcpListener::bind((host, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(holdfast_libs_transport::serve(listener, tls.server().unwrap(), router, CancellationToken::new()));
    address
}

async fn setup() -> (TempDir, TlsFiles, HttpClient, SocketAddr) {
    let folder = TempDir::new().unwrap();
    let tls = certificates(folder.path());
    let client = HttpClient::new(&tls.client().unwrap(), None);
    let address = serve(&tls, "127.0.0.1").await;
    (folder, tls, client, address)
}

/// What of an answer was shown, and how it ended.
async fn pieces(client: &HttpClient, url: &str, max: usize, deadline: Duration) -> (Vec<u8>, Result<(), CallError>) {
    let mut seen = Vec::new();
    let ended = client.get_pieces(url, max, deadline, |piece| seen.extend_from_slice(piece)).await;
    (seen, ended)
}

#[tokio::test]
async fn bodies_come_whole_and_in_order_both_ways_over_one_connection_again_and_again() {
    let (_folder, _tls, client, address) = setup().await;
    for _ in 0..3 {
        let (seen, ended) = pieces(&client, &format!("https://{address}/whole"), BODY_BYTES, DEADLINE).await;
        ended.unwrap();
        assert!(seen == body(), "{} bytes", seen.len());
        let got = client.get(&format!("https://{address}/whole"), BODY_BYTES, DEADLINE).await.unwrap();
        assert!(got == body(), "{} bytes", got.len());
        let url = format!("https://{address}/echo");
        let echo = client.send_bytes(http::Method::POST, &url, body(), BODY_BYTES, DEADLINE).await.unwrap();
        assert!(echo == body(), "{} bytes", echo.len());
    }
}

#[tokio::test]
async fn an_answer_that_is_refused_broken_stuck_or_too_long_is_no_whole_one() {
    let (_folder, _tls, client, address) = setup().await;
    let url = |path: &str| format!("https://{address}/{path}");
    let (seen, ended) = pieces(&client, &url("refused"), BODY_BYTES, DEADLINE).await;
    assert!(matches!(&ended, Err(CallError::Api(error)) if error.message == "not like this"), "{ended:?}");
    assert!(seen.is_empty(), "a refusal is not what was asked for");

    let (seen, ended) = pieces(&client, &url("broken"), BODY_BYTES, DEADLINE).await;
    assert!(matches!(&ended, Err(CallError::Unreachable { url, .. }) if url.contains("/broken")), "{ended:?}");
    assert!(body().starts_with(&seen), "{} bytes", seen.len());

    let (seen, ended) = pieces(&client, &url("stuck"), BODY_BYTES, Duration::from_millis(500)).await;
    assert!(matches!(&ended, Err(CallError::Timeout { url, .. }) if url.contains("/stuck")), "{ended:?}");
    assert!(body().starts_with(&seen), "{} bytes", seen.len());

    let (seen, ended) = pieces(&client, &url("whole"), BODY_BYTES - 1, DEADLINE).await;
    assert!(matches!(&ended, Err(CallError::Unreachable { detail, .. }) if detail.contains("limit")), "{ended:?}");
    assert!(seen.len() < BODY_BYTES, "no more is shown than was allowed");
}

/// A listener that speaks no TLS.
async fn serve_otherwise() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.write_all(b"SSH-2.0-another\r\n").await.unwrap();
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn what_cannot_be_reached_is_told_with_its_address_and_why() {
    let (folder, tls, client, address) = setup().await;
    let other = folder.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for (host, why) in [
        (closed, "Connection refused"),
        (serve(&certificates(&other), "127.0.0.1").await, "invalid peer certificate"),
        // The certificate names 127.0.0.1 and localhost.
        (serve(&tls, "127.0.0.2").await, "certificate not valid for name"),
        (serve_otherwise().await, "InvalidContentType"),
    ] {
        let answer = client.get(&format!("https://{host}/whole"), BODY_BYTES, DEADLINE).await.map(|body| body.len());
        let Err(CallError::Unreachable { url, detail }) = answer else { panic!("{host}: {answer:?}") };
        assert!(url.contains(&host.to_string()) && detail.contains(why), "{url}: {detail}");
    }
    let port = address.port();
    client.get(&format!("https://localhost:{port}/whole"), BODY_BYTES, DEADLINE).await.unwrap();
    let plain = client.get(&format!("http://{address}/whole"), BODY_BYTES, DEADLINE).await.map(|body| body.len());
    assert!(
        matches!(&plain, Err(CallError::Unreachable { detail, .. }) if detail.contains("scheme http")),
        "{plain:?}"
    );
}
