//! Serves an axum router over TLS until told to stop.
//!
//! Every socket has TCP_NODELAY. A caller that speaks plain HTTP is told so in plain HTTP and disconnected. On
//! shutdown no new connection is taken, requests in flight finish (for at most [`DRAIN`]), idle connections close.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures_util::future::BoxFuture;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long requests in flight may take to finish after shutdown was asked for.
pub const DRAIN: Duration = Duration::from_secs(10);

/// Connections one listener holds at once; more wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 4096;

/// A handshake or a request head that takes longer is cut off.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The first byte of every TLS connection: a handshake record (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

const PLAIN_HTTP_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\
Content-Length: 52\r\n\r\nThis listener speaks HTTPS only; use https:// to it.\n";

/// What a daemon is reached by: a socket, or the network of a simulation.
pub trait Listener: Send {
    /// Where it listens, for messages: `HOST:PORT`.
    fn listen(&self) -> String;

    /// Serves `router` until `shutdown` is cancelled and the last request has ended.
    fn serve(self: Box<Self>, router: Router, shutdown: CancellationToken) -> BoxFuture<'static, ()>;
}

/// A socket on which TLS is spoken.
pub struct TlsListener {
    /// The socket.
    pub listener: TcpListener,
    /// Certificate and key.
    pub tls: Arc<ServerConfig>,
}

impl Listener for TlsListener {
    fn listen(&self) -> String {
        self.listener.local_addr().map_or_else(|_| "its socket".to_owned(), |address| address.to_string())
    }

    fn serve(self: Box<Self>, router: Router, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
        Box::pin(serve(self.listener, self.tls, router, shutdown))
    }
}

/// Serves `router` on `listener` until `shutdown` is cancelled and the last request has ended.
pub async fn serve(listener: TcpListener, tls: Arc<ServerConfig>, router: Router, shutdown: CancellationToken) {
    let acceptor = TlsAcceptor::from(tls);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
        let (stream, _) = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors: waiting lets connections end instead of spinning.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let acceptor = acceptor.clone();
        let router = router.clone();
        let shutdown = shutdown.clone();
        connections.spawn(async move {
            connection(stream, acceptor, router, shutdown).await;
            drop(place);
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
        tracing::warn!("requests still ran {} s after shutdown was asked for; they are cut off", DRAIN.as_secs());
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, router: Router, shutdown: CancellationToken) {
    let Ok(()) = stream.set_nodelay(true) else { return };
    let handshake = async {
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(1) if first[0] == TLS_HANDSHAKE => acceptor.accept(stream).await.ok(),
            Ok(1) => {
                let mut stream = stream;
                // The caller may be gone; there is nobody else to tell.
                let _ = stream.write_all(PLAIN_HTTP_ANSWER).await;
                let _ = stream.shutdown().await;
                None
            }
            _ => None,
        }
    };
    let Ok(Some(stream)) = tokio::time::timeout(HEAD_TIMEOUT, handshake).await else { return };
    let service = TowerToHyperService::new(router);
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    tokio::select! {
        // An error here is a caller that went away; its requests were answered or not, and that is its concern.
        _ = served.as_mut() => {}
        () = shutdown.cancelled() => {
            served.as_mut().graceful_shutdown();
            let _ = served.await;
        }
    }
}

/// Cancelled by SIGTERM or SIGINT.
///
/// # Errors
/// When signal handlers cannot be installed.
pub fn shutdown_on_signal() -> std::io::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let token = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let cancelled = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        cancelled.cancel();
    });
    Ok(token)
}
