//! Stands between a client and a MySQL server, and cuts the connection after the server carried out a COMMIT and before its
//! answer arrives.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

pub struct Proxy {
    pub port: u16,
    lose: Arc<AtomicU32>,
}

impl Proxy {
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, lose) = (listener.local_addr().unwrap().port(), Arc::new(AtomicU32::new(0)));
        let shared = Arc::clone(&lose);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let lose = Arc::clone(&shared);
                tokio::spawn(async move { carry(client, server, &lose).await });
            }
        });
        Self { port, lose }
    }

    /// The answers to so many of the next commits get lost.
    pub fn lose_answers_to_commits(&self, count: u32) {
        self.lose.store(count, Ordering::SeqCst);
    }

    pub fn left_to_lose(&self) -> u32 {
        self.lose.load(Ordering::SeqCst)
    }
}

/// Carries bytes both ways until a side ends, or an answer is to be lost. A client sends a statement in one write and waits
/// for its answer.
async fn carry(mut client: TcpStream, server: u16, lose: &AtomicU32) -> Option<()> {
    let mut server = TcpStream::connect(("127.0.0.1", server)).await.ok()?;
    let (mut asked, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let read = read.ok().filter(|read| *read > 0)?;
                server.write_all(&asked[..read]).await.ok()?;
                // The byte 3 means a statement in plain text.
                let is_commit = asked[..read].ends_with(b"\x03COMMIT");
                let less = |left: u32| left.checked_sub(1);
                if is_commit && lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
                    // It is carried out once it is answered.
                    let _some = server.read(&mut answered).await.ok()?;
                    return None;
                }
            }
            read = server.read(&mut answered) => {
                let read = read.ok().filter(|read| *read > 0)?;
                client.write_all(&answered[..read]).await.ok()?;
            }
        }
    }
}
