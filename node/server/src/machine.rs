//! The machine that the node runs on, as far as the node treats its devices: kernel settings, and what disks say of their
//! health. Under another root, with another runner, it is any machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use holdfast_hw_profiles::inventory::{Machine as Hardware, ReadOptions};
use holdfast_hw_profiles::profile::{Led, Profile, Settings};
use holdfast_hw_profiles::runner::{RunError, Runner, SystemRunner};
use holdfast_hw_profiles::settings::{self, Applied};
use holdfast_hw_profiles::smart::{self, Health, SmartError};
use holdfast_hw_profiles::{HardwareError, light, matching, shipped};
use tokio::sync::Semaphore;

use crate::disks::{Bays, Places};

/// Disks that are asked for their health at a time.
const ASKED_AT_A_TIME: usize = 4;

/// A bay with what it was found by.
pub(crate) struct Bay {
    pub name: String,
    profile: Profile,
    hardware: Hardware,
}

impl Bay {
    /// Why it has no light, if it has none.
    pub(crate) fn no_light(&self) -> Option<String> {
        (self.profile.led == Led::None)
            .then(|| format!("the profile {} says that the chassis has no lights", self.profile.name))
    }
}

/// A machine. Cloning makes another handle.
#[derive(Clone)]
pub struct Machine {
    root: PathBuf,
    runner: Arc<dyn Runner + Send + Sync>,
    asking: Arc<Semaphore>,
    absence_told: Arc<AtomicBool>,
    places: Places,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").field("root", &self.root).finish_non_exhaustive()
    }
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        Self::new(Path::new("/"), Arc::new(SystemRunner))
    }

    /// One whose `dev` and `sys` are below `root`, and whose programs `runner` runs.
    pub fn new(root: &Path, runner: Arc<dyn Runner + Send + Sync>) -> Self {
        Self {
            root: root.to_owned(),
            runner,
            asking: Arc::new(Semaphore::new(ASKED_AT_A_TIME)),
            absence_told: Arc::default(),
            places: Places::default(),
        }
    }

    /// One of a simulation: its disks stand in `bays`, and nothing else is known of them.
    pub fn simulated(bays: Arc<dyn Bays>) -> Self {
        Self { places: Places { bays: Some(bays) }, ..Self::this() }
    }

    /// Where its disks stand.
    pub(crate) fn places(&self) -> Places {
        self.places.clone()
    }

    /// Applies a profile's settings to a disk. What cannot be set costs speed, nothing else. Blocks.
    pub(crate) fn apply(&self, path: &Path, settings: &Settings) {
        let Some(device) = self.device(path) else { return };
        match settings::apply(&self.root, &device, settings) {
            Ok(applied) => applied.into_iter().for_each(|setting| told(path, setting)),
            Err(error) => tracing::warn!(%error, "the profile's settings are not applied"),
        }
    }

    /// What a disk says of its own health; `None` when it is no device, or cannot be asked.
    pub(crate) async fn health(&self, path: &Path) -> Option<Health> {
        if self.places.bays.is_some() {
            return None;
        }
        let Ok(_place) = self.asking.acquire().await else { return None };
        let (machine, path) = (self.clone(), path.to_owned());
        tokio::task::spawn_blocking(move || machine.ask(&path)).await.ok().flatten()
    }

    fn ask(&self, path: &Path) -> Option<Health> {
        let device = self.device(path)?;
        match smart::ask(self.runner.as_ref(), &device.display().to_string()) {
            Ok(health) => Some(health),
            Err(SmartError::Run(error @ RunError::Absent(_))) => {
                if !self.absence_told.swap(true, Ordering::Relaxed) {
                    tracing::info!("{error} (package smartmontools): no disk is asked for its own view of its health");
                }
                None
            }
            Err(error @ SmartError::Run(_)) => {
                tracing::warn!(path = %path.display(), %error, "the disk was not asked for its health");
                None
            }
            // Virtual disks know nothing of themselves.
            Err(error @ SmartError::Refused(_)) => {
                tracing::debug!(path = %path.display(), %error, "the disk tells nothing of its health");
                None
            }
        }
    }

    /// The bay of the disk at `path`, by the profile that is `named` or else by the one that fits the machine best. A disk that is
    /// gone is found by a path that tells its place. Blocks.
    ///
    /// # Errors
    /// Why its bay is not known, in words.
    pub(crate) fn bay(&self, named: Option<&str>, path: &Path) -> Result<Bay, String> {
        if std::fs::metadata(path).is_ok_and(|found| found.is_file()) {
            return Err("it is a file, which stands in no bay".to_owned());
        }
        let told = |error: HardwareError| error.to_string();
        let options = ReadOptions { virtual_disks: false, skip_signatures: true };
        let hardware = Hardware::read(&self.root, options).map_err(told)?;
        let profile = match named {
            Some(name) => shipped::named(name, None).map_err(told)?,
            None => matching::best(&shipped::all(None).map_err(told)?, &hardware)
                .map(|(profile, _)| profile.clone())
                .ok_or("no hardware profile fits this machine, so its bays are not known; name one by `profile` in the node's configuration")?,
        };
        let Some(bay) = light::bay_at(&profile, &hardware, path) else {
            return Err(format!("no bay of the profile {} holds it", profile.name));
        };
        Ok(Bay { name: bay.name.clone(), profile, hardware })
    }

    /// Switches the light of a bay, and says by which way. Blocks.
    ///
    /// # Errors
    /// Why it was not switched, in words.
    pub(crate) fn switch(&self, bay: &Bay, on: bool) -> Result<String, String> {
        light::locate(&bay.profile, &bay.hardware, self.runner.as_ref(), &bay.name, on)
            .map_err(|error| error.to_string())
    }

    /// The device that `path` stands for, `/dev/NAME` on the machine itself; `None` when it is a file.
    fn device(&self, path: &Path) -> Option<PathBuf> {
        let root = self.root.canonicalize().ok()?;
        let below = path.canonicalize().ok()?.strip_prefix(root).ok()?.to_owned();
        below.starts_with("dev").then(|| Path::new("/").join(below))
    }
}

fn told(path: &Path, Applied { file, wanted, before, failed }: Applied) {
    match failed {
        None if before == wanted => {}
        None => tracing::info!(path = %path.display(), file, wanted, before, "setting applied"),
        Some(why) => tracing::warn!(path = %path.display(), file, wanted, why, "setting not applied"),
    }
}
