//! What the frontend counts, for `/v1/status` and `/metrics`. `docs/metrics.md` lists every name.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_libs_telemetry::render_metrics;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;

/// One number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn one(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($name:ident: $help:literal,)*) => {
        /// All counters, since the process started.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(#[doc = $help] pub(crate) $name: Count,)*
        }

        impl Counters {
            fn all(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($name), $help, self.$name.get()),)*]
            }
        }
    };
}

counters! {
    puts: "Blocks put, those that were there already included",
    put_bytes: "Plaintext bytes of blocks put",
    gets: "Blocks answered",
    get_bytes: "Plaintext bytes of blocks answered",
    dedup_hits: "Blocks put that were there already",
    joined_puts: "Blocks put while the same block was being stored",
    refused_puts: "Bodies refused: not what their name says, or too long",
    appends: "Blocks appended, durable on all replicas",
    append_bytes: "Bytes of batches appended, durable on all replicas",
    batches: "Batches appended, durable on all replicas",
    failed_appends: "Batches that not all replicas stored; their blocks went into another volume",
    busy_appends: "Appends that a node put off as busy",
    fenced_inserts: "Batches whose index rows were refused; their blocks went into another volume",
    index_transactions: "Transactions that inserted index rows",
    volumes_leased: "Volumes leased",
    failed_leases: "Leases asked for in vain",
    seals_asked: "Volumes asked to be sealed",
    failed_puts: "Blocks that could not be stored",
    damaged_records_detected: "Records found damaged when read, by the node or here",
    failed_reads: "Reads of a replica that gave nothing for another reason",
    hedged_reads: "Reads sent to a second replica because the first was slow",
    unreadable_blocks: "Gets that no replica could answer",
    cache_hits: "Blocks answered from the cache",
    cache_misses: "Blocks looked for in the cache in vain",
}

impl Counters {
    /// Name and value of each.
    pub(crate) fn values(&self) -> BTreeMap<String, u64> {
        self.all().into_iter().map(|(name, _, value)| (name.to_owned(), value)).collect()
    }

    /// The counters as OpenMetrics text.
    pub(crate) fn metrics(&self) -> String {
        let mut registry = Registry::with_prefix("holdfast_frontend");
        for (name, help, value) in self.all() {
            registry.register(name, help, ConstCounter::new(value));
        }
        render_metrics(&registry)
    }
}

#[cfg(test)]
mod tests {
    use super::Counters;

    #[test]
    fn what_was_counted_is_shown_in_both_forms() {
        let counters = Counters::default();
        counters.dedup_hits.add(2);
        assert_eq!(counters.values()["dedup_hits"], 2);
        assert!(counters.metrics().contains("holdfast_frontend_dedup_hits_total 2"), "{}", counters.metrics());
    }
}
