//! `GET /metrics`. `docs/metrics.md` lists every name. What the engine counts is read when asked for; what the node
//! itself sees of a disk is counted here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::response::IntoResponse;
use holdfast_libs_telemetry::{METRICS_CONTENT_TYPE, render_metrics};
use holdfast_libs_transport::ApiError;
use holdfast_libs_types::DiskId;
use holdfast_node_client::{DiskState, ScrubStatus};
use holdfast_node_engine::{DiskStatus, LatencyHistogram, LatencySnapshot};
use http::header::CONTENT_TYPE;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::Node;
use crate::disks::OpenDisk;

type OfDisk = [(&'static str, String); 1];
type OfDiskAnd = [(&'static str, String); 2];

/// An operation on a disk that is answered in moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Append,
    Read,
    Create,
    Fence,
    List,
    Records,
    Keyring,
    Trash,
}

impl Operation {
    const ALL: [Self; 8] =
        [Self::Append, Self::Read, Self::Create, Self::Fence, Self::List, Self::Records, Self::Keyring, Self::Trash];

    const fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Read => "read",
            Self::Create => "create",
            Self::Fence => "fence",
            Self::List => "list",
            Self::Records => "records",
            Self::Keyring => "keyring",
            Self::Trash => "trash",
        }
    }
}

/// From a quarter of a millisecond to 16 s, by factors of two: a cache hit of an SSD up to the deadline.
fn latency() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 2.0, 17))
}

/// What the node counts of all disks, also of those that are gone.
#[derive(Debug, Clone)]
pub(crate) struct DiskMetrics {
    seconds: Family<OfDiskAnd, Histogram, fn() -> Histogram>,
    errors: Family<OfDiskAnd, Counter>,
}

impl Default for DiskMetrics {
    fn default() -> Self {
        Self { seconds: Family::new_with_constructor(latency), errors: Family::default() }
    }
}

impl DiskMetrics {
    /// Those of one disk.
    pub(crate) fn of(&self, disk: DiskId) -> OperationMetrics {
        let seconds = Operation::ALL.map(|operation| {
            let labels = [("disk", disk.to_string()), ("operation", operation.name().to_owned())];
            self.seconds.get_or_create(&labels).clone()
        });
        OperationMetrics { disk, seconds, errors: self.errors.clone() }
    }
}

/// What the node counts of one disk.
#[derive(Debug)]
pub(crate) struct OperationMetrics {
    disk: DiskId,
    seconds: [Histogram; Operation::ALL.len()],
    errors: Family<OfDiskAnd, Counter>,
}

impl OperationMetrics {
    /// Notes an operation that was answered, or given up.
    pub(crate) fn note(&self, operation: Operation, took: Duration, error: Option<&ApiError>) {
        self.seconds[operation as usize].observe(took.as_secs_f64());
        if let Some(error) = error {
            self.errors.get_or_create(&[("disk", self.disk.to_string()), ("code", error.code.clone())]).inc();
        }
    }
}

/// One disk, as everything is read at one moment.
struct Reading {
    id: String,
    status: DiskStatus,
    scrub: ScrubStatus,
    disk: Arc<OpenDisk>,
}

/// `GET /metrics`
pub(crate) async fn metrics(State(node): State<Arc<Node>>) -> impl IntoResponse {
    let mut registry = Registry::with_prefix("holdfast_node");
    let readings: Vec<Reading> = node.disks.open().into_iter().map(read).collect();
    let latencies = readings.iter().map(|disk| (disk.id.clone(), disk.status.latency)).collect();
    registry.register(
        "disk_operation_seconds",
        "Seconds until an operation was answered, by kind",
        node.disks.metrics.seconds.clone(),
    );
    registry.register(
        "disk_operation_errors",
        "Operations that were refused or failed, by the code that was answered",
        node.disks.metrics.errors.clone(),
    );
    counters(&mut registry, &readings);
    gauges(&mut registry, &readings);
    slots(&mut registry, &readings);
    io_errors(&mut registry, &readings);
    smart(&mut registry, &readings);
    registry.register_collector(Box::new(IoLatencies(latencies)));
    whole_node(&mut registry, &node);
    ([(CONTENT_TYPE, METRICS_CONTENT_TYPE)], render_metrics(&registry))
}

fn read(disk: Arc<OpenDisk>) -> Reading {
    Reading { id: disk.id().to_string(), status: disk.engine().status(), scrub: disk.scrub.status(), disk }
}

fn counters(registry: &mut Registry, readings: &[Reading]) {
    let mut counter = |name: &str, help: &str, value: fn(&Reading) -> u64| {
        let family = Family::<OfDisk, Counter>::default();
        for reading in readings {
            family.get_or_create(&[("disk", reading.id.clone())]).inc_by(value(reading));
        }
        registry.register(name, help, family);
    };
    counter("disk_reads", "Read I/Os", |disk| disk.status.counters.reads);
    counter("disk_read_bytes", "Bytes read", |disk| disk.status.counters.read_bytes);
    counter("disk_background_bytes", "Bytes read and written for copies", |disk| disk.disk.pace.report().moved_bytes);
    counter("disk_writes", "Durable write I/Os", |disk| disk.status.counters.writes);
    counter("disk_written_bytes", "Bytes written", |disk| disk.status.counters.written_bytes);
    counter("disk_read_errors", "Reads the system failed", |disk| disk.status.counters.read_errors);
    counter("disk_write_errors", "Writes the system failed", |disk| disk.status.counters.write_errors);
    counter("disk_busy", "Operations answered busy", |disk| disk.status.counters.busy);
    counter("disk_damaged", "Records or batches found damaged", |disk| disk.status.counters.damaged);
    counter("disk_appends", "Appends acknowledged", |disk| disk.status.counters.appends);
    counter("disk_erase_alarms", "Attempts to free a slot that nobody had ordered to be freed", |disk| {
        disk.status.erase_alarms
    });
    counter("disk_erased_extents", "Extents erased from the trash", |disk| disk.disk.erased.load(Ordering::Relaxed));
    counter("disk_stalls", "Times that the disk began to answer nothing", |disk| disk.disk.stalls());
    counter("disk_scrub_read_bytes", "Bytes read by the scrub", |disk| disk.scrub.read_bytes);
    counter("disk_scrub_rounds", "Times that the scrub read the whole disk", |disk| disk.scrub.rounds);
    counter("disk_scrub_findings", "Damaged places found by the scrub", |disk| disk.scrub.found);
    counter("disk_scrub_repairs", "Damaged places that the scrub repaired from a good copy", |disk| {
        disk.scrub.repaired
    });
}

fn gauges(registry: &mut Registry, readings: &[Reading]) {
    let mut gauge = |name: &str, help: &str, value: fn(&Reading) -> u64| {
        let family = Family::<OfDisk, Gauge<u64, AtomicU64>>::default();
        for reading in readings {
            family.get_or_create(&[("disk", reading.id.clone())]).set(value(reading));
        }
        registry.register(name, help, family);
    };
    gauge("disk_slots", "Slots", |disk| disk.status.slots.into());
    gauge("disk_free_slots", "Slots that hold no extent", |disk| disk.status.free_slots.into());
    gauge("disk_open_zones", "Disk zones that extents are written to", |disk| disk.status.open_zones.into());
    gauge("disk_open_zones_limit", "Most disk zones that may be", |disk| disk.status.open_zones_limit.into());
    gauge("disk_in_flight", "Operations not yet answered", |disk| disk.status.in_flight as u64);
    gauge("disk_queue_depth", "I/Os that the disk works on", |disk| disk.status.queue_depth as u64);
    gauge("disk_buffer_bytes", "Bytes of buffers in use", |disk| disk.status.buffer_bytes as u64);
    gauge(
        "disk_background_level_percent",
        "I/Os of copies under way on average while there is foreground, in hundredths",
        |disk| (disk.disk.pace.report().level * 100.0).round() as u64,
    );
    gauge("disk_background_bytes_in_flight", "Bytes of I/Os of copies under way", |disk| disk.disk.pace.report().bytes);
    gauge("disk_suspect", "1 while the disk is far slower than it was, or than its profile allows", |disk| {
        u64::from(disk.disk.suspect().is_some())
    });
    gauge("disk_smart_breaches", "Figures that the disk tells of itself and that are past their limits", |disk| {
        disk.disk.smart.answer().breaches.len() as u64
    });
    gauge("disk_uptime_seconds", "Seconds the disk was mounted in all its life", |disk| disk.status.uptime_s);
    gauge("disk_table_rebuilt", "1 when this mount rebuilt the extent table from the slot headers", |disk| {
        u64::from(disk.status.rebuilt)
    });
    gauge("disk_healthy", "1 when the disk takes reads and writes", |disk| {
        u64::from(crate::disks::state(&disk.status.state).0 == DiskState::Healthy)
    });
    gauge("disk_stalled", "1 while the disk answers nothing", |disk| u64::from(disk.disk.stalled().is_some()));
    gauge("disk_scrub_age_seconds", "Seconds since the scrub last ended, or since the disk was opened", |disk| {
        disk.scrub.last_round_ended_s_ago.unwrap_or(disk.disk.opened.elapsed().as_secs())
    });
}

fn slots(registry: &mut Registry, readings: &[Reading]) {
    let family = Family::<OfDiskAnd, Gauge<u64, AtomicU64>>::default();
    for reading in readings {
        let slots = reading.status.slots_by_state;
        let counts = [
            ("free", slots.free),
            ("copying", slots.copying),
            ("open", slots.open),
            ("fenced", slots.fenced),
            ("sealed", slots.sealed),
            ("trashed", slots.trashed),
            ("damaged", slots.damaged),
            ("lost", slots.lost),
        ];
        for (state, count) in counts {
            let labels = [("disk", reading.id.clone()), ("state", state.to_owned())];
            family.get_or_create(&labels).set(count.into());
        }
    }
    registry.register("disk_slots_by_state", "Slots by what they hold", family);
}

fn io_errors(registry: &mut Registry, readings: &[Reading]) {
    let family = Family::<[(&'static str, String); 3], Counter>::default();
    for reading in readings {
        let errors = reading.status.errors;
        for (direction, counts) in [("read", errors.reads), ("write", errors.writes)] {
            let kinds = [
                ("medium", counts.medium),
                ("transport", counts.transport),
                ("timeout", counts.timeout),
                ("no_space", counts.no_space),
                ("checksum", counts.checksum),
                ("other", counts.other),
            ];
            for (kind, count) in kinds {
                let labels =
                    [("disk", reading.id.clone()), ("direction", direction.to_owned()), ("kind", kind.to_owned())];
                family.get_or_create(&labels).inc_by(count);
            }
        }
    }
    registry.register("disk_io_errors", "I/O errors by direction and kind", family);
}

/// What the disks tell; a figure that a disk does not tell is absent.
fn smart(registry: &mut Registry, readings: &[Reading]) {
    let family = Family::<OfDiskAnd, Gauge<u64, AtomicU64>>::default();
    for reading in readings {
        let Some(health) = reading.disk.smart.answer().health else { continue };
        let figures = [
            ("failing", health.passed.map(|passed| u64::from(!passed))),
            ("reallocated_sectors", health.reallocated_sectors),
            ("pending_sectors", health.pending_sectors),
            ("uncorrectable_sectors", health.uncorrectable_sectors),
            ("media_errors", health.media_errors),
            ("percentage_used", health.percentage_used),
            ("temperature_celsius", health.temperature_celsius),
            ("critical_warning", health.critical_warning),
        ];
        for (figure, value) in figures.into_iter().filter_map(|(figure, value)| Some((figure, value?))) {
            family.get_or_create(&[("disk", reading.id.clone()), ("figure", figure.to_owned())]).set(value);
        }
    }
    registry.register("disk_smart", "What the disk tells of its own health (SMART), by figure", family);
}

/// The engine's own histograms: from the handing over of an I/O to its completion.
#[derive(Debug)]
struct IoLatencies(Vec<(String, LatencySnapshot)>);

impl Collector for IoLatencies {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "Seconds from the handing over of an I/O to its completion, by direction";
        let mut family = encoder.encode_descriptor("disk_io_seconds", help, None, MetricType::Histogram)?;
        for (disk, latency) in &self.0 {
            for (direction, histogram) in [("read", latency.read), ("write", latency.write)] {
                let labels = [("disk", disk.as_str()), ("direction", direction)];
                let counts = histogram.buckets.iter().enumerate();
                let bounds = counts.map(|(n, count)| {
                    let bound = LatencyHistogram::bound_us(n).map_or(f64::INFINITY, |us| us as f64 / 1e6);
                    (bound, *count)
                });
                let buckets: Vec<(f64, u64)> = bounds.collect();
                let seconds = histogram.sum_us as f64 / 1e6;
                family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                    seconds,
                    histogram.count(),
                    &buckets,
                    None,
                )?;
            }
        }
        Ok(())
    }
}

fn whole_node(registry: &mut Registry, node: &Node) {
    let mut gauge = |name: &str, help: &str, value: u64| {
        let gauge = Gauge::<u64, AtomicU64>::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    };
    gauge("disks_open", "Disks in use", node.disks.open().len() as u64);
    gauge("disks_expected", "Disks that the profile expects; 0 without one", node.disks.expected() as u64);
    gauge("disks_gone", "Disks that were in use since the start and vanished", node.disks.gone().len() as u64);
    gauge("copy_bytes", "Bytes of pieces of copies in memory", node.copies.bytes() as u64);
    gauge("registered", "1 while the volume manager answers", u64::from(node.registered.load(Ordering::Relaxed)));
    let unusable = Family::<[(&'static str, &'static str); 1], Gauge<u64, AtomicU64>>::default();
    for disk in node.disks.unusable() {
        unusable.get_or_create(&[("cause", disk.cause.name())]).inc();
    }
    registry.register("disks_unusable", "Files and devices that cannot be used as disks, by cause", unusable);
}
