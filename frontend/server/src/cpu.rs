//! Work that keeps a processor busy for long enough to hold up the sockets.

/// Above this many bytes hashing, encrypting or copying leaves the threads that serve sockets.
const INLINE_BYTES: usize = 512 << 10;

/// Does `work` on `bytes` bytes: here when that is quick, otherwise on a thread of its own.
pub(crate) async fn on_cpu<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if bytes <= INLINE_BYTES {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Blocking tasks are cancelled only when the runtime goes down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}
