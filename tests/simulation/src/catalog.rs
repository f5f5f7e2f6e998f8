//! The catalog: the real SQLite files, in memory. Each call of a process takes a time, may not be made, or is made and its
//! caller not told; and a process may die before and after each. That the files themselves are durable is not tested here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use holdfast_libs_sim::streams::SimRng;
use holdfast_volume_manager_catalog::{CatalogError, SimulatedCalls};
use tokio::time::sleep;

use crate::process::Process;

/// How the catalog is at the moment. Chances are of a thousand calls.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Chance that a call takes a time at all, before and after.
    pub slow: u64,
    /// Longest such time, milliseconds.
    pub slow_ms: u64,
    /// Chance that it is one of up to `stuck_ms` instead.
    pub stuck: u64,
    /// Milliseconds.
    pub stuck_ms: u64,
    /// Calls that are not made.
    pub refused: u64,
    /// Calls that are made and told as failed.
    pub lost: u64,
}

impl Pace {
    /// Quick and sound.
    pub const FAIR: Self = Self { slow: 100, slow_ms: 2, stuck: 0, stuck_ms: 0, refused: 0, lost: 0 };

    /// As it is between storms: now and then a call takes as long as much else does.
    pub const USUAL: Self = Self { stuck: 25, stuck_ms: 2500, ..Self::FAIR };
}

/// What all processes share.
#[derive(Debug)]
pub struct CatalogWeather {
    inner: Mutex<(SimRng, Pace)>,
}

impl CatalogWeather {
    /// Quick and sound.
    pub fn new(rng: SimRng) -> Arc<Self> {
        Arc::new(Self { inner: Mutex::new((rng, Pace::FAIR)) })
    }

    /// Changes the pace.
    pub fn set(&self, pace: Pace) {
        self.inner().1 = pace;
    }

    fn inner(&self) -> MutexGuard<'_, (SimRng, Pace)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long to wait, and whether to fail, by the chance that `of` names.
    fn draw(&self, of: fn(&Pace) -> u64) -> (Duration, bool) {
        let mut inner = self.inner();
        let (rng, pace) = &mut *inner;
        let longest = match rng.below(1000) {
            n if n < pace.stuck => pace.stuck_ms,
            n if n < pace.stuck + pace.slow => pace.slow_ms,
            _ => 0,
        };
        let waits = rng.below(longest + 1);
        (Duration::from_millis(waits), rng.chance(of(pace)))
    }
}

/// A process's way to the catalog.
#[derive(Debug)]
pub struct CatalogPort {
    /// How it is.
    pub weather: Arc<CatalogWeather>,
    /// Whose.
    pub process: Arc<Process>,
}

impl CatalogPort {
    async fn pass(&self, of: fn(&Pace) -> u64) -> Result<(), CatalogError> {
        let (wait, fails) = self.weather.draw(of);
        if !wait.is_zero() {
            sleep(wait).await;
        }
        self.process.gate().await;
        if fails { Err(CatalogError::Busy) } else { Ok(()) }
    }
}

#[async_trait]
impl SimulatedCalls for CatalogPort {
    async fn before(&self) -> Result<(), CatalogError> {
        self.pass(|pace| pace.refused).await
    }

    async fn after(&self) -> Result<(), CatalogError> {
        self.pass(|pace| pace.lost).await
    }
}

/// The way to the catalog of whoever looks at it from outside.
#[derive(Debug)]
pub struct Outside;

#[async_trait]
impl SimulatedCalls for Outside {
    async fn before(&self) -> Result<(), CatalogError> {
        Ok(())
    }

    async fn after(&self) -> Result<(), CatalogError> {
        Ok(())
    }
}
