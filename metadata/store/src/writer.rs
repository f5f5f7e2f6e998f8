//! The one thread that writes. Jobs that wait together go into one transaction, so that they share its flush; each has
//! a savepoint, so that one that fails leaves the others alone.

use std::cell::RefCell;
use std::future::Future;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use futures_channel::oneshot;
use holdfast_metadata_model::NamespaceId;
use rusqlite::Connection;

use crate::{OnCommit, Store, StoreError};

/// Jobs that may wait before callers are told to come back.
const QUEUE: usize = 1024;

/// Jobs in one transaction at most, so that the first of them does not wait long.
const GROUP: usize = 64;

/// What a job works with.
pub(crate) struct Write<'a> {
    pub db: &'a Connection,
    /// Namespaces that changed, with their new sequence; told once it is durable.
    pub changed: RefCell<Vec<(NamespaceId, u64)>>,
}

/// Tells the caller how it ended, once the transaction has.
type Finish = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
type Job = Box<dyn FnOnce(&Write<'_>) -> Finish + Send>;

#[derive(Debug)]
pub(crate) struct Writer {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub fn start(connection: Connection, on_commit: OnCommit) -> Result<Self, StoreError> {
        let (jobs, queue) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("metadata-write".to_owned())
            .spawn(move || run(&connection, &queue, &on_commit))
            .map_err(|source| StoreError::File { path: "a thread".into(), source })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl Store {
    /// Runs `work` in a transaction of the writing thread; the answer comes after it is durable. The work is done even
    /// if the caller stops waiting.
    pub(crate) fn write<T, W>(&self, work: W) -> impl Future<Output = Result<T, StoreError>> + Send + use<T, W>
    where
        T: Send + 'static,
        W: FnOnce(&Write<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.write_if(work, |_| true)
    }

    /// As [`Self::write`], but nothing is kept when the work answers a refusal.
    pub(crate) fn write_unless_refused<T, E, W>(
        &self,
        work: W,
    ) -> impl Future<Output = Result<Result<T, E>, StoreError>> + Send + use<T, E, W>
    where
        T: Send + 'static,
        E: Send + 'static,
        W: FnOnce(&Write<'_>) -> Result<Result<T, E>, StoreError> + Send + 'static,
    {
        self.write_if(work, Result::is_ok)
    }

    fn write_if<T, W>(
        &self,
        work: W,
        keep: fn(&T) -> bool,
    ) -> impl Future<Output = Result<T, StoreError>> + Send + use<T, W>
    where
        T: Send + 'static,
        W: FnOnce(&Write<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        let job: Job = Box::new(move |write| {
            let result = in_savepoint(write, work, keep);
            Box::new(move |committed| {
                // The caller may have stopped waiting.
                let _ = tell.send(committed.and(result));
            })
        });
        let sent = match &self.writer.jobs {
            Some(jobs) => jobs.try_send(job).map_err(|error| match error {
                TrySendError::Full(_) => StoreError::Busy,
                TrySendError::Disconnected(_) => StoreError::Closed,
            }),
            None => Err(StoreError::Closed),
        };
        async move {
            sent?;
            told.await.map_err(|_| StoreError::Closed)?
        }
    }
}

fn in_savepoint<T>(
    write: &Write<'_>,
    work: impl FnOnce(&Write<'_>) -> Result<T, StoreError>,
    keep: impl FnOnce(&T) -> bool,
) -> Result<T, StoreError> {
    let before = write.changed.borrow().len();
    write.db.prepare_cached("SAVEPOINT job")?.execute([])?;
    let result = work(write);
    if !result.as_ref().is_ok_and(keep) {
        write.changed.borrow_mut().truncate(before);
        write.db.prepare_cached("ROLLBACK TO job")?.execute([])?;
    }
    write.db.prepare_cached("RELEASE job")?.execute([])?;
    result
}

fn run(connection: &Connection, queue: &Receiver<Job>, on_commit: &OnCommit) {
    while let Ok(first) = queue.recv() {
        let mut finishes = Vec::new();
        let mut unbegun = Some(first);
        let changed = group(connection, queue, &mut unbegun, &mut finishes);
        match changed {
            Ok(changed) => {
                for (namespace, sequence) in changed {
                    on_commit(namespace, sequence);
                }
                finishes.into_iter().for_each(|finish| finish(Ok(())));
            }
            Err(error) => {
                tracing::error!(%error, "a transaction of the metadata database failed");
                // Nothing of it was kept: SQLite rolls back what cannot be committed.
                let _ = connection.execute_batch("ROLLBACK");
                let message = error.to_string();
                let failed = || Err(StoreError::Damaged(format!("not committed: {message}")));
                finishes.into_iter().for_each(|finish| finish(failed()));
            }
        }
    }
}

fn group(
    connection: &Connection,
    queue: &Receiver<Job>,
    first: &mut Option<Job>,
    finishes: &mut Vec<Finish>,
) -> Result<Vec<(NamespaceId, u64)>, StoreError> {
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let write = Write { db: connection, changed: RefCell::default() };
    while let Some(job) = first.take().or_else(|| queue.try_recv().ok()) {
        finishes.push(job(&write));
        if finishes.len() == GROUP {
            break;
        }
    }
    connection.prepare_cached("COMMIT")?.execute([])?;
    Ok(write.changed.into_inner())
}
