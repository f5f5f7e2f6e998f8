//! What the server counts. `docs/metrics.md` lists every name.

use holdfast_libs_telemetry::render_metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The counters, and the registry that renders them.
pub(crate) struct Metrics {
    registry: Registry,
    pub commits: Counter,
    pub items: Counter,
    pub refused_receipts: Counter,
    pub signed_urls: Counter,
    pub waiting: Gauge,
    pub v2_requests: Counter,
    pub bytes_in: Counter,
    pub bytes_out: Counter,
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("holdfast_metadata");
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let commits = counter("commits", "Batches committed through /v1");
        let items = counter("commit_items", "Items of those batches");
        let refused_receipts = counter("refused_receipts", "Receipts that did not count");
        let signed_urls = counter("signed_urls", "Block URLs given out");
        let v2_requests = counter("v2_requests", "Requests to API v2");
        let bytes_in = counter("v2_bytes_in", "File bytes received through API v2");
        let bytes_out = counter("v2_bytes_out", "File bytes sent through API v2");
        let waiting = Gauge::default();
        registry.register("waiting", "Requests that wait for a change", waiting.clone());
        Self { registry, commits, items, refused_receipts, signed_urls, waiting, v2_requests, bytes_in, bytes_out }
    }

    pub fn render(&self) -> String {
        render_metrics(&self.registry)
    }
}
