//! Puts: what is there already is touched, what another put is bringing is waited for, the rest is encrypted and
//! handed to the writers.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use holdfast_libs_types::BlockHash;
use tokio::time::Instant;

use crate::answers::PutFailure;
use crate::budget::Held;
use crate::counters::Counters;
use crate::cpu::on_cpu;
use crate::in_flight::{InFlight, Outcome, Stored, Ticket};
use crate::index::Index;
use crate::keyring::{KeyError, Keyring, seal};
use crate::writer::{Job, Queue};

/// The way of a block into the cell.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pub(crate) index: Index,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) in_flight: InFlight,
}

/// A block that this put has to bring.
struct Owned {
    ticket: Ticket,
    hash: BlockHash,
    block: Bytes,
}

impl Store {
    /// Stores blocks whose hashes have been checked; answers once each is durable or cannot be stored. `held` is kept
    /// until the last of them is done with, even when the caller goes away before.
    pub(crate) async fn put(&self, blocks: Vec<(BlockHash, Bytes)>, held: Arc<Held>) -> Vec<Outcome> {
        self.counters.puts.add(blocks.len() as u64);
        self.counters.put_bytes.add(blocks.iter().map(|(_, block)| block.len() as u64).sum());
        let mut owned = Vec::new();
        let mut outcomes = Vec::with_capacity(blocks.len());
        for (hash, block) in blocks {
            let (ticket, outcome) = self.in_flight.enter(hash);
            outcomes.push(outcome);
            match ticket {
                Some(ticket) => owned.push(Owned { ticket, hash, block }),
                None => self.counters.joined_puts.one(),
            }
        }
        if !owned.is_empty() {
            let store = self.clone();
            tokio::spawn(async move { store.bring(owned, held).await });
        }
        let lost = || Err(PutFailure::Unavailable("the put was given up".to_owned()));
        let outcomes = join_all(outcomes).await.into_iter().map(|outcome| outcome.unwrap_or_else(|_| lost()));
        outcomes.inspect(|outcome| self.count(outcome)).collect()
    }

    fn count(&self, outcome: &Outcome) {
        match outcome {
            Ok(Stored::Known) => self.counters.dedup_hits.one(),
            Ok(Stored::New) => {}
            Err(_) => self.counters.failed_puts.one(),
        }
    }

    async fn bring(&self, owned: Vec<Owned>, held: Arc<Held>) {
        let known = match self.index.touch(&owned.iter().map(|owned| owned.hash).collect::<Vec<_>>()).await {
            Ok(known) => known,
            Err(error) => return fail(owned, &error),
        };
        let mut missing = Vec::new();
        for (owned, known) in owned.into_iter().zip(known) {
            if known {
                owned.ticket.finish(&Ok(Stored::Known));
            } else {
                missing.push(owned);
            }
        }
        while !missing.is_empty() {
            let key = match self.keyring.sealing().await {
                Ok(key) => key,
                Err(error) => return fail(missing, &error),
            };
            let id = key.id();
            let bytes = missing.iter().map(|owned| owned.block.len()).sum();
            let held = held.clone();
            let (jobs, left) = on_cpu(bytes, move || seal_all(&key, missing, &held)).await;
            self.queue.push(jobs);
            missing = left;
            if !missing.is_empty() {
                self.keyring.retire(id).await;
            }
        }
    }
}

/// Tells everybody that the catalog or the keyring is the trouble.
fn fail(owned: Vec<Owned>, error: &dyn std::error::Error) {
    tracing::error!(error = %error, "blocks cannot be stored");
    let outcome = Err(PutFailure::Unavailable(error.to_string()));
    for owned in owned {
        owned.ticket.finish(&outcome);
    }
}

/// Encrypts blocks; answers with those left over once the key was exhausted.
fn seal_all(key: &holdfast_libs_crypto::DataKey, blocks: Vec<Owned>, held: &Arc<Held>) -> (Vec<Job>, Vec<Owned>) {
    let mut jobs = Vec::with_capacity(blocks.len());
    let mut left = Vec::new();
    let since = Instant::now();
    for owned in blocks {
        match seal(key, &owned.hash, &owned.block) {
            Ok(Some(sealed)) => jobs.push(Job {
                ticket: owned.ticket,
                hash: owned.hash,
                plain_len: owned.block.len() as u32,
                key: key.id(),
                sealed,
                attempts: 0,
                since,
                _held: held.clone(),
            }),
            Ok(None) => left.push(owned),
            Err(error) => fail(vec![owned], &KeyError::from(error)),
        }
    }
    (jobs, left)
}
