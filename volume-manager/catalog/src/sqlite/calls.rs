//! How calls of SQLite are made. SQLite waits for the disk and for other processes, so each runs on a thread of its own, off
//! the async ones, and goes on to its end there when nobody waits for it any more.
//!
//! A simulation has one thread and a clock of its own: there a call is made where it is asked for, and the simulation decides
//! how long it takes, and whether its caller learns of its end.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use holdfast_libs_surroundings::WallClock;

use crate::CatalogError;

/// What a simulation does about each call.
#[async_trait]
pub trait SimulatedCalls: std::fmt::Debug + Send + Sync {
    /// Before the call is made; an error is the call's, which is not made then.
    ///
    /// # Errors
    /// As the simulation likes.
    async fn before(&self) -> Result<(), CatalogError>;

    /// After it was made; an error is told instead of the call's result.
    ///
    /// # Errors
    /// As the simulation likes.
    async fn after(&self) -> Result<(), CatalogError>;
}

/// SQLite files in a folder, and how calls of them are made.
#[derive(Debug, Clone)]
pub struct SqliteCalls {
    /// The folder.
    pub folder: PathBuf,
    /// `None`: on threads.
    pub simulated: Option<Arc<dyn SimulatedCalls>>,
    /// The clock of all who use the files: they are on one machine.
    pub clock: WallClock,
}

impl SqliteCalls {
    /// Calls on threads, by the machine's clock.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), simulated: None, clock: WallClock::system() }
    }

    /// Makes a call. It goes on to its end also when nobody waits for it any more.
    pub(crate) async fn make<T: Send + 'static, E: From<CatalogError> + Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        // One type of task for all calls of one answer: a type for each takes the compiler long.
        let work: Box<dyn FnOnce() -> Result<T, E> + Send> = Box::new(work);
        let made = match self.simulated.clone() {
            None => tokio::task::spawn_blocking(work),
            Some(simulated) => tokio::spawn(async move {
                simulated.before().await?;
                let done = work();
                simulated.after().await?;
                done
            }),
        };
        match made.await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(CatalogError::Stopped.into()),
            },
        }
    }
}
