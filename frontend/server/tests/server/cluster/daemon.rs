//! A daemon that can be killed: it has a runtime of its own, whose tasks and sockets end with it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// A daemon with its own runtime.
pub struct Daemon {
    pub address: String,
    shutdown: CancellationToken,
    kill: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Daemon {
    /// Runs what `start` makes of a listening socket, its address and a shutdown token. The port of an earlier life may be kept.
    pub fn start<F>(
        address: Option<&str>,
        start: impl FnOnce(std::net::TcpListener, String, CancellationToken) -> F,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let place = address.map_or("127.0.0.1:0", |address| address.strip_prefix("https://").unwrap());
        let listener = std::net::TcpListener::bind(place).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = format!("https://{}", listener.local_addr().unwrap());
        let (shutdown, kill) = (CancellationToken::new(), CancellationToken::new());
        let daemon = start(listener, address.clone(), shutdown.clone());
        let killed = kill.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = daemon => {}
                    () = killed.cancelled() => {}
                }
            });
            runtime.shutdown_timeout(Duration::from_secs(5));
        });
        Self { address, shutdown, kill, thread: Some(thread) }
    }

    /// Ends it in order.
    pub fn stop(&mut self) {
        self.shutdown.cancel();
        self.join();
    }

    /// Ends it at once, whatever it is doing.
    pub fn kill(&mut self) {
        self.kill.cancel();
        self.join();
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill.cancel();
        self.join();
    }
}
