//! Writers: each holds one leased volume and has one batch in flight; what arrives meanwhile is the next batch.
//!
//! A batch is acknowledged by all three replicas or the volume is given up: its seal is asked for, the unanswered
//! blocks go into another volume at once. Index rows are inserted by one task for all writers. Only then are the
//! puts answered.

mod append;
mod inserter;
mod leases;
mod queue;
mod volume;

use std::sync::Arc;

use holdfast_libs_transport::HttpClient;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) use leases::Leases;
pub(crate) use queue::{Job, Queue};

use crate::WriterConfig;
use crate::counters::Counters;
use crate::index::Index;
use crate::writer::inserter::Inserter;
use crate::writer::volume::{OpenVolume, VolumeWriter};

/// Batches that wait for their index rows; more make the writers wait.
const FINISHED_AT_ONCE: usize = 16;

/// The running writers.
pub(crate) struct Writers {
    queue: Arc<Queue>,
    leases: Arc<Leases>,
    writers: Vec<JoinHandle<Option<OpenVolume>>>,
    inserter: JoinHandle<()>,
    renewer: JoinHandle<()>,
    stop_renewing: CancellationToken,
}

impl Writers {
    /// Starts them. `http` carries the frontend's token.
    pub(crate) fn start(
        config: &WriterConfig,
        http: &HttpClient,
        index: &Index,
        queue: &Arc<Queue>,
        leases: &Arc<Leases>,
        counters: &Arc<Counters>,
    ) -> Self {
        let (send, finished) = mpsc::channel(FINISHED_AT_ONCE);
        let inserter = Inserter {
            index: index.clone(),
            queue: queue.clone(),
            counters: counters.clone(),
            fault_after_append: config.fault_after_append,
        };
        let writers = (0..config.open_volumes.max(1))
            .map(|_| {
                let writer = VolumeWriter::new(config, http, queue, leases, counters, send.clone());
                tokio::spawn(writer.run())
            })
            .collect();
        let stop_renewing = CancellationToken::new();
        let renewer = tokio::spawn(leases.clone().keep_renewed(stop_renewing.clone()));
        let inserter = tokio::spawn(inserter.run(finished));
        Self { queue: queue.clone(), leases: leases.clone(), writers, inserter, renewer, stop_renewing }
    }

    /// Stores what waits, then asks to seal the open volumes. Nobody may put any more.
    pub(crate) async fn close(self) {
        self.queue.close();
        let mut open = Vec::new();
        for writer in self.writers {
            // A writer that panicked has been reported by the runtime; its lease runs out.
            open.extend(writer.await.ok().flatten());
        }
        // Rows first: a seal would refuse them.
        let _ = self.inserter.await;
        self.stop_renewing.cancel();
        let _ = self.renewer.await;
        for volume in open {
            self.leases.give_back(&volume.lease).await;
        }
    }
}
