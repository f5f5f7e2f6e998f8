//! Logs and metrics, set up the same way in every daemon.

#![cfg_attr(test, allow(clippy::unwrap_used))]

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tracing_subscriber::EnvFilter;

/// Sends log lines to stderr. `HOLDFAST_LOG` filters them (`info` when unset), in the syntax of
/// `tracing_subscriber::EnvFilter`.
///
/// A second call in one process does nothing.
pub fn init_logging() {
    let filter = EnvFilter::try_from_env("HOLDFAST_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let already_set = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false)
        .try_init();
    drop(already_set);
}

/// All metrics of a registry in the OpenMetrics text format.
pub fn render_metrics(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = encode(&mut text, registry);
    text
}

/// The content type that goes with [`render_metrics`].
pub const METRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::registry::Registry;

    #[test]
    fn a_counter_is_rendered_with_its_value() {
        let mut registry = Registry::default();
        let counter: Counter = Counter::default();
        registry.register("appends", "Batches appended", counter.clone());
        counter.inc_by(3);
        assert!(super::render_metrics(&registry).contains("appends_total 3"));
    }
}
