//! libs/telemetry
