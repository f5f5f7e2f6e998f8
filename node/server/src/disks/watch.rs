//! Disks that come and go while the daemon runs: each look opens what came and closes what vanished.
//!
//! A disk that hangs while it is opened holds up nobody: it is taken in by a later look.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_hw_profiles::profile::Profile;
use holdfast_hw_profiles::shipped;
use holdfast_node_engine::{Disk, OpenOptions};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::finding::{FileIdentity, Found, Wanted, unstable, wanted};
use super::opening::{Opened, Opening};
use super::{Cause, Disks, GoneDisk, OpenDisk, Unusable};
use crate::memory::{Share, share};
use crate::scrub::{self, Scrub};
use crate::{Config, Machine, ServerError, eraser, smart};

/// How long the first look waits for disks that are being opened. One that takes longer, or hangs, is taken in later.
const FIRST_WAIT: Duration = Duration::from_secs(60);

/// How long a later one does.
const LATER_WAIT: Duration = Duration::from_secs(2);

/// What could not be opened is tried again after this, then after twice that, up to the longest.
const RETRY: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(300);

/// Why one looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// The daemon starts.
    First,
    /// Time has passed.
    Again,
    /// An operator asks: what could not be opened before is tried at once.
    Asked,
}

/// What could not be opened, and when to try again.
#[derive(Debug)]
struct Tried {
    identity: Option<FileIdentity>,
    told: Unusable,
    wait: Duration,
    next: Instant,
}

/// Keeps the set of disks what the configuration and the machine say it is.
pub(crate) struct Watcher {
    config: Config,
    machine: Machine,
    wanted: Vec<Wanted>,
    profile: Option<Profile>,
    disks: Arc<Disks>,
    tried: HashMap<PathBuf, Tried>,
    opening: JoinSet<Opened>,
    /// Paths that are being opened, and what memory is set aside for each.
    under_way: HashMap<PathBuf, Share>,
}

impl Watcher {
    /// The watcher of a node that starts, after its first look.
    ///
    /// # Errors
    /// `NoDisks`, `Profile`; `NoUsableDisk` when not one disk can be used and all were configured by their very names.
    pub(crate) async fn start(config: &Config, machine: Machine) -> Result<Self, ServerError> {
        let mut watcher = Self::new(config, machine)?;
        watcher.look(Look::First).await;
        watcher.judge_start().await
    }

    /// One that has not looked yet.
    ///
    /// # Errors
    /// `NoDisks`, `Profile`.
    pub(crate) fn new(config: &Config, machine: Machine) -> Result<Self, ServerError> {
        let profile = config.profile.as_deref().map(|name| shipped::named(name, None)).transpose()?;
        let wanted = wanted(&config.disks, profile.as_ref());
        if wanted.is_empty() {
            return Err(ServerError::NoDisks);
        }
        for disk in &config.disks {
            if let Some(why) = unstable(&disk.path) {
                tracing::warn!("{why}");
            }
        }
        Ok(Self {
            config: config.clone(),
            disks: Arc::new(Disks::of(machine.places())),
            machine,
            wanted,
            profile,
            tried: HashMap::new(),
            opening: JoinSet::new(),
            under_way: HashMap::new(),
        })
    }

    /// Whether what the first look found is enough to serve.
    async fn judge_start(self) -> Result<Self, ServerError> {
        let may_come = self.wanted.iter().any(|wanted| !wanted.named) || !self.under_way.is_empty();
        if may_come || !self.disks.open().is_empty() {
            return Ok(self);
        }
        let reasons: Vec<String> = self.disks.unusable().into_iter().map(|disk| disk.reason).collect();
        self.disks.close_all().await;
        Err(ServerError::NoUsableDisk(reasons.join("; ")))
    }

    /// The set it keeps.
    pub(crate) fn disks(&self) -> Arc<Disks> {
        Arc::clone(&self.disks)
    }

    /// The machine it looks at.
    pub(crate) fn machine(&self) -> Machine {
        self.machine.clone()
    }

    /// Whether a disk at `path` would be used.
    pub(crate) fn wants(&self, path: &Path) -> bool {
        self.wanted.iter().any(|wanted| wanted.lets_in(path))
    }

    /// Compares the set with the machine once.
    pub(crate) async fn look(&mut self, why: Look) {
        let Some(found) = self.disks.places.find(self.wanted.clone()).await else { return };
        let mut changed = self.close_vanished().await;
        self.begin_opening(&found, why);
        changed |= self.take_in(&found, if why == Look::First { FIRST_WAIT } else { LATER_WAIT }).await;
        self.tell(&found);
        // The registration after the start covers the first look.
        if changed && why != Look::First {
            self.disks.changed.notify_one();
        }
    }

    /// Takes disks out of use whose path names nothing, or something else, and those that are to be opened anew.
    async fn close_vanished(&self) -> bool {
        let open = self.disks.open();
        let paths: Vec<PathBuf> = open.iter().map(|disk| disk.path.clone()).collect();
        let Some(now) = self.disks.places.identities(paths).await else { return false };
        let mut changed = false;
        for (disk, now) in open.into_iter().zip(now) {
            let gone = match now {
                Ok(identity) if identity == disk.identity => None,
                Ok(_) => Some(format!("{} names another disk now", disk.path.display())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Some(format!(
                    "nothing is at {} any more: the disk was pulled, or its file removed",
                    disk.path.display()
                )),
                Err(error) => Some(format!("{} cannot be looked at any more: {error}", disk.path.display())),
            };
            match gone {
                Some(reason) => {
                    tracing::error!(disk = %disk.id(), reason, "disk vanished; it is closed");
                    let status = disk.engine().status();
                    self.close(&disk, Some(GoneDisk { status, reason }));
                }
                None if disk.is_to_be_reopened() => {
                    tracing::info!(disk = %disk.id(), path = %disk.path.display(), "disk is opened anew, to ask once more whether it is believed");
                    self.close(&disk, None);
                }
                None => continue,
            }
            changed = true;
        }
        changed
    }

    fn close(&self, disk: &Arc<OpenDisk>, gone: Option<GoneDisk>) {
        disk.stop.cancel();
        let mut set = self.disks.set();
        set.open.retain(|open| !Arc::ptr_eq(open, disk));
        if let Some(gone) = gone {
            set.gone.retain(|known| known.status.id != gone.status.id);
            set.gone.push(gone);
        }
    }

    fn begin_opening(&mut self, found: &[Found], why: Look) {
        let open: HashSet<FileIdentity> = self.disks.open().iter().map(|disk| disk.identity).collect();
        self.tried.retain(|path, _| found.iter().any(|found| found.path == *path));
        let mut due = Vec::new();
        for found in found {
            let known = self.tried.get(&found.path).filter(|tried| tried.identity == found.identity);
            let waits = known.is_some_and(|tried| why != Look::Asked && Instant::now() < tried.next);
            let create = why == Look::First && self.config.create_size_bytes.is_some();
            match found.identity {
                Some(identity) if open.contains(&identity) => drop(self.tried.remove(&found.path)),
                _ if self.under_way.contains_key(&found.path) || waits => {}
                None if !create => {
                    let reason = format!("{} does not exist", found.path.display());
                    self.refuse(found, (Cause::Missing, reason));
                }
                _ => due.push(found),
            }
        }
        let disks = open.len() + self.under_way.len() + due.len();
        for found in due {
            let share = share(&self.config.memory, disks, self.taken());
            let mut options = OpenOptions::new(self.config.cell);
            options.registered_bytes = share.registered_bytes;
            options.max_buffer_bytes = share.buffer_bytes;
            let settings = self.profile.as_ref().map(|profile| profile.settings.clone());
            if let Some(depth) = settings.as_ref().and_then(|settings| settings.queue_depth) {
                options.queue_depth = depth;
            }
            self.under_way.insert(found.path.clone(), share);
            let opening = Opening {
                path: found.path.clone(),
                slot_bytes: self.config.slot_bytes,
                create: self.config.create_size_bytes.filter(|_| why == Look::First),
                options,
                settings,
                machine: self.machine.clone(),
            };
            let places = self.disks.places.clone();
            self.opening.spawn(async move { places.open(opening).await });
        }
    }

    /// What open disks, and those that are being opened, hold of the node's memory.
    fn taken(&self) -> Share {
        let open = self.disks.open();
        let shares = open.iter().map(|disk| disk.share).chain(self.under_way.values().copied());
        shares.fold(Share::default(), |sum, share| Share {
            registered_bytes: sum.registered_bytes + share.registered_bytes,
            buffer_bytes: sum.buffer_bytes + share.buffer_bytes,
            append_bytes: sum.append_bytes + share.append_bytes,
        })
    }

    /// Waits for what is being opened and takes it in, in the order of the configuration: of two disks with one id the
    /// first goes on.
    async fn take_in(&mut self, found: &[Found], wait: Duration) -> bool {
        let until = Instant::now() + wait;
        let mut opened = Vec::new();
        while let Ok(Some(done)) = tokio::time::timeout_at(until, self.opening.join_next()).await {
            match done {
                Ok(done) => opened.push(done),
                Err(error) => tracing::error!(%error, "opening a disk panicked"),
            }
        }
        if self.opening.is_empty() {
            let known: HashSet<PathBuf> = opened.iter().map(|opened| opened.path.clone()).collect();
            self.under_way.retain(|path, _| known.contains(path));
        }
        let place = |path: &Path| found.iter().position(|found| found.path == path);
        opened.sort_by_key(|opened| place(&opened.path));
        let mut changed = false;
        for opened in opened {
            let Some(share) = self.under_way.remove(&opened.path) else { continue };
            let told = Found { path: opened.path.clone(), identity: opened.identity };
            match (opened.result, opened.identity) {
                (Ok(disk), Some(identity)) => changed |= self.admit(disk, &told, identity, share),
                (Ok(disk), None) => {
                    self.disks.places.let_go(disk, &self.disks.closing);
                    let reason = format!("{} vanished while it was opened", told.path.display());
                    self.refuse(&told, (Cause::Missing, reason));
                }
                (Err(why), _) => self.refuse(&told, why),
            }
        }
        changed
    }

    /// Takes an opened disk into use, unless its id is in use already.
    fn admit(&mut self, disk: Disk, found: &Found, identity: FileIdentity, share: Share) -> bool {
        let status = disk.status();
        let first = self.disks.open().into_iter().find(|open| open.id() == status.id);
        if let Some(first) = first {
            let reason = format!(
                "{}: its disk id {} is in use at this node already, at {}: this is a clone of it; take it out or wipe it",
                found.path.display(),
                status.id,
                first.path.display()
            );
            self.disks.places.let_go(disk, &self.disks.closing);
            self.refuse(found, (Cause::Duplicate, reason));
            return false;
        }
        tracing::info!(disk = %status.id, path = %found.path.display(), io = %status.io, direct = status.o_direct,
            slots = status.slots, free_slots = status.free_slots, "disk is in use");
        let scrub = Scrub::new(&self.config.scrub);
        let limits = self.profile.as_ref().map(|profile| profile.limits).unwrap_or_default();
        let open = Arc::new(OpenDisk::new(disk, found.path.clone(), identity, share, scrub, limits, &self.disks));
        tokio::spawn(scrub::run(Arc::clone(&open)));
        tokio::spawn(eraser::run(Arc::clone(&open), self.config.trash.clone()));
        tokio::spawn(smart::run(Arc::clone(&open), self.machine.clone(), self.config.smart.clone()));
        self.tried.remove(&found.path);
        self.disks.insert(open);
        true
    }

    fn refuse(&mut self, found: &Found, (cause, reason): (Cause, String)) {
        let before = self.tried.get(&found.path).filter(|tried| tried.identity == found.identity);
        if before.is_none_or(|before| before.told.reason != reason) {
            let path = found.path.display();
            match cause {
                Cause::Unformatted => tracing::warn!(%path, reason, "disk is not in use: format it first"),
                _ => tracing::error!(%path, reason, "disk cannot be used"),
            }
        }
        let wait = match (cause, before) {
            // Whoever holds it may let go at any moment; one that came is looked at again at once.
            (Cause::InUse | Cause::Missing, _) => Duration::ZERO,
            (_, Some(before)) => (before.wait * 2).clamp(RETRY, RETRY_MAX),
            (_, None) => RETRY,
        };
        let told = Unusable { path: found.path.clone(), cause, reason };
        let tried = Tried { identity: found.identity, told, wait, next: Instant::now() + wait };
        self.tried.insert(found.path.clone(), tried);
    }

    /// Publishes what cannot be used, in the order of the configuration.
    fn tell(&self, found: &[Found]) {
        let told = found.iter().filter_map(|found| self.tried.get(&found.path));
        let mut unusable: Vec<Unusable> = told.map(|tried| tried.told.clone()).collect();
        for path in self.under_way.keys() {
            if !unusable.iter().any(|disk| disk.path == *path) {
                let reason = format!("{} is being opened", path.display());
                unusable.push(Unusable { path: path.clone(), cause: Cause::InUse, reason });
            }
        }
        let fewer = self.fewer_than_expected();
        let mut set = self.disks.set();
        if let Some(fewer) = fewer.as_ref().filter(|fewer| set.fewer_than_expected.as_ref() != Some(fewer)) {
            tracing::warn!("{fewer}");
        }
        set.expected = self.profile.as_ref().map_or(0, |profile| profile.expected.disks as usize);
        set.fewer_than_expected = fewer;
        set.unusable = unusable;
    }

    fn fewer_than_expected(&self) -> Option<String> {
        let profile = self.profile.as_ref()?;
        let (expected, open) = (profile.expected.disks as usize, self.disks.open().len());
        (open < expected).then(|| {
            format!(
                "{open} of the {expected} disks that the profile {} expects are in use; `holdfast node probe` tells which \
                 bays are empty and why disks are not accepted",
                profile.name
            )
        })
    }
}
