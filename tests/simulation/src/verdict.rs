//! What must hold, judged by the catalog and the disks themselves: past the network, and past what the daemons say.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use holdfast_libs_sim::disk::Crash;
use holdfast_libs_types::{DiskId, VolumeId};
use holdfast_node_engine::{Disk, DiskState, ExtentInfo, ExtentState};
use holdfast_volume_manager_catalog::{FrontendCatalog, Volume, VolumeState};
use sha2::{Digest, Sha256};
use tokio::time::sleep;

use crate::catalog::Pace;
use crate::cell::Cell;
use crate::clients::{Caller, Oracle};
use crate::network::Weather;

/// Replicas of a volume that is fully protected.
const COPIES: usize = 3;

/// How long the cell may take to make itself whole again once nothing goes wrong any more.
const HEALS_WITHIN: Duration = Duration::from_secs(400);

/// How long a daemon may take to end when it is asked to.
const ENDS_WITHIN: Duration = Duration::from_secs(120);

/// Rows of the index that are looked at at a time.
const ROWS: usize = 1000;

/// A disk that is in its bay and open.
struct Placed {
    zone: usize,
    engine: Disk,
    /// Only a scrub finds what is wrong on it.
    is_rotten: bool,
}

/// What was seen of volumes at earlier looks.
#[derive(Debug, Default)]
pub struct Watch {
    lengths: BTreeMap<VolumeId, u64>,
    digests: BTreeMap<VolumeId, [u8; 32]>,
    lists: BTreeMap<VolumeId, Vec<DiskId>>,
    displaced: u64,
}

fn placed(cell: &Cell) -> BTreeMap<DiskId, Placed> {
    let mut found = BTreeMap::new();
    for (_, zone, chassis) in cell.nodes() {
        for (_, disk) in chassis.disks() {
            if let Some(engine) = disk.handle().filter(|_| !disk.is_dead()) {
                found.insert(disk.id, Placed { zone, engine, is_rotten: disk.is_rotten() });
            }
        }
    }
    found
}

impl Watch {
    /// Looks at the table: a length or digest that was committed never changes.
    ///
    /// # Errors
    /// What changed.
    pub async fn look(&mut self, catalog: &FrontendCatalog) -> Result<Vec<Volume>, String> {
        let volumes = catalog.table.volumes().await.map_err(|error| error.to_string())?;
        for volume in &volumes {
            let id = volume.volume;
            if let Some(length) = volume.length {
                let first = *self.lengths.entry(id).or_insert(length);
                if first != length {
                    return Err(format!("volume {id}: its length was {first} and is {length}"));
                }
            }
            if let Some(digest) = volume.digest {
                let first = *self.digests.entry(id).or_insert(digest);
                if first != digest {
                    return Err(format!(
                        "volume {id}: its digest was {} and is {}",
                        hex::encode(first),
                        hex::encode(digest)
                    ));
                }
            }
        }
        Ok(volumes)
    }

    /// Replicas that came onto a list on a disk that has in its trash what was none.
    pub fn displaced(&self) -> u64 {
        self.displaced
    }

    /// A disk that came onto the list of a sealed volume since the last look holds a verified replica: nothing is harmed
    /// meanwhile, so whoever put it there made sure of that, or not.
    async fn look_at_new_replicas(
        &mut self,
        catalog: &FrontendCatalog,
        volumes: &[Volume],
        disks: &BTreeMap<DiskId, Placed>,
    ) -> Result<(), String> {
        for volume in volumes.iter().filter(|volume| volume.state == VolumeState::Sealed) {
            let before = self.lists.insert(volume.volume, volume.replicas.clone());
            let Some(before) = before else { continue };
            for disk in volume.replicas.iter().filter(|disk| !before.contains(disk)) {
                let Some(placed) = disks.get(disk) else { continue };
                if let Err(why) = is_replica(volume, placed).await
                    && is_listed(catalog, volume.volume, *disk).await
                {
                    return Err(format!("volume {}: disk {disk} came onto the list, and {why}", volume.volume));
                }
                let held = placed.engine.extents_of(volume.volume).await.unwrap_or_default();
                let is_none = |extent: &&ExtentInfo| extent.note.is_some() || extent.digest != volume.digest;
                let gave_way = held.iter().filter(|extent| extent.state == ExtentState::Trashed).filter(is_none);
                self.displaced += u64::from(gave_way.count() > 0);
            }
        }
        Ok(())
    }
}

/// Whether a disk is still on the list: it may have left while it was looked at.
async fn is_listed(catalog: &FrontendCatalog, volume: VolumeId, disk: DiskId) -> bool {
    catalog.table.volume(volume).await.ok().flatten().is_some_and(|now| now.replicas.contains(&disk))
}

/// Whether a disk holds the volume as it was sealed, by the disk's own word.
async fn is_replica(volume: &Volume, placed: &Placed) -> Result<(), String> {
    let extent = placed.engine.extent(volume.volume).await.map_err(|error| error.to_string())?;
    let (state, length) = (extent.state, extent.length);
    match state == ExtentState::Sealed && Some(length) == volume.length && extent.digest == volume.digest {
        true => Ok(()),
        false => Err(format!("its extent is {state:?} at {length}")),
    }
}

/// Whether a volume needs nothing any more: sealed, and all replicas on the list verified, in distinct zones.
async fn lacks(volume: &Volume, disks: &BTreeMap<DiskId, Placed>) -> Option<String> {
    let id = volume.volume;
    match volume.state {
        VolumeState::Sealed => {}
        VolumeState::Failed => return None,
        state => return Some(format!("volume {id} is {state}")),
    }
    if volume.length.is_none() || volume.digest.is_none() {
        return Some(format!("volume {id} is sealed without length or digest"));
    }
    if volume.length == Some(0) {
        return None;
    }
    if volume.replicas.len() < COPIES {
        return Some(format!("volume {id} has {} replicas", volume.replicas.len()));
    }
    let mut zones = BTreeSet::new();
    for disk in &volume.replicas {
        let Some(placed) = disks.get(disk) else { return Some(format!("volume {id}: disk {disk} is not open")) };
        zones.insert(placed.zone);
        if let Err(why) = is_replica(volume, placed).await {
            return Some(format!("volume {id}, disk {disk}: {why}"));
        }
    }
    (zones.len() < COPIES).then(|| format!("volume {id}: its replicas share zones"))
}

/// Ends all trouble, waits until every daemon lives and every volume is fully protected, and compares everything.
///
/// # Errors
/// What is wrong.
pub async fn heal_and_check(cell: &Rc<Cell>, oracle: &Oracle, watch: &mut Watch) -> Result<u64, String> {
    make_sound(cell);
    let begun = cell.start.elapsed();
    watch.lists.clear();
    // Their volumes are sealed; those who read next start anew.
    for name in ["frontend-1", "frontend-2"] {
        cell.stop(name, ENDS_WITHIN).await?;
    }
    let catalog = cell.look_into_catalog().await;
    loop {
        make_sound(cell);
        let volumes = watch.look(&catalog).await?;
        let disks = placed(cell);
        watch.look_at_new_replicas(&catalog, &volumes, &disks).await?;
        let mut lacking = Vec::new();
        for volume in &volumes {
            lacking.extend(lacks(volume, &disks).await);
        }
        if lacking.is_empty() {
            lacking.extend(compare_disks(&catalog, &volumes, &disks).await?);
        }
        if lacking.is_empty() {
            break;
        }
        if cell.start.elapsed() - begun > HEALS_WITHIN {
            lacking.truncate(5);
            return Err(format!("not fully protected after {HEALS_WITHIN:?}: {}", lacking.join("; ")));
        }
        // A node opens a disk again only when nobody else holds it.
        drop(disks);
        sleep(Duration::from_secs(1)).await;
    }
    let healed = cell.start.elapsed() - begun;
    cell.network.note(format_args!("healed in {} ms", healed.as_millis()));
    for name in ["frontend-1", "frontend-2"] {
        cell.start(name);
    }
    read_back(cell, oracle).await?;
    compare_index(&catalog).await?;
    let mut violations = cell.network.violations();
    violations.extend(oracle.violations());
    match violations.first() {
        Some(first) => Err(first.clone()),
        None => Ok(u64::try_from(healed.as_millis()).unwrap_or(u64::MAX)),
    }
}

/// Nothing goes wrong from now on. What an operator would do is done: dead disks, and stale ones that are refused, are
/// replaced; a node whose sound disk is out of use since it could not be reached for a while is started again.
fn make_sound(cell: &Rc<Cell>) {
    cell.network.mend_all();
    cell.network.set_weather(Weather::FAIR);
    cell.catalog.set(Pace::FAIR);
    cell.set_clocks_right();
    for (name, _, chassis) in cell.nodes() {
        for (bay, disk) in chassis.disks() {
            let is_out = disk.handle().is_some_and(|engine| engine.status().state != DiskState::Healthy);
            if disk.is_dead() || is_out && disk.is_stale() {
                chassis.insert(&bay, cell.disks.make());
            } else if is_out {
                cell.kill(&name, Crash::ProcessKill);
            }
        }
    }
    for name in cell.daemon_names() {
        cell.process(&name).resume();
        if !name.starts_with("frontend") {
            cell.start(&name);
        }
    }
}

/// Reads everything that was acknowledged.
async fn read_back(cell: &Rc<Cell>, oracle: &Oracle) -> Result<(), String> {
    let callers = [1, 2].map(|n| Caller::new(cell, "reader", &format!("frontend-{n}")));
    for (number, (hash, block)) in oracle.acknowledged().into_iter().enumerate() {
        let caller = &callers[number % 2];
        let mut tries = 0;
        while let Err(why) = oracle.judge(&hash, &block, caller.get(&hash).await) {
            tries += 1;
            // The frontend has only just started.
            if tries > 20 {
                return Err(format!("acknowledged block {hash} cannot be read: {why}"));
            }
            sleep(Duration::from_millis(500)).await;
        }
    }
    Ok(())
}

/// Every replica on the list holds, byte for byte, what the volume's digest says. Answers what may pass: rot, which only a
/// scrub finds, and replicas that have left the list meanwhile.
async fn compare_disks(
    catalog: &FrontendCatalog,
    volumes: &[Volume],
    disks: &BTreeMap<DiskId, Placed>,
) -> Result<Vec<String>, String> {
    let mut passing = Vec::new();
    for volume in volumes {
        let (Some(length), Some(digest)) = (volume.length.filter(|length| *length > 0), volume.digest) else {
            continue;
        };
        for disk in &volume.replicas {
            let Some(placed) = disks.get(disk) else { continue };
            let length = u32::try_from(length).map_err(|_| format!("volume {}: {length} bytes", volume.volume))?;
            let wrong = match placed.engine.read(volume.volume, 0, length).await {
                Ok(bytes) if Sha256::digest(&bytes)[..] == digest => continue,
                Ok(_) => "its bytes do not have the volume's digest".to_owned(),
                Err(error) => error.to_string(),
            };
            let wrong = format!("volume {}, disk {disk}: {wrong}", volume.volume);
            if !placed.is_rotten && is_listed(catalog, volume.volume, *disk).await {
                return Err(wrong);
            }
            passing.push(wrong);
        }
    }
    Ok(passing)
}

/// No row points outside its volume.
async fn compare_index(catalog: &FrontendCatalog) -> Result<(), String> {
    let volumes = catalog.table.volumes().await.map_err(|error| error.to_string())?;
    let lengths: BTreeMap<VolumeId, Option<u64>> =
        volumes.into_iter().map(|volume| (volume.volume, volume.length)).collect();
    let mut after = None;
    loop {
        let rows = catalog.index.scan(after, ROWS).await.map_err(|error| error.to_string())?;
        for (hash, row) in &rows {
            let length = lengths.get(&row.volume).copied().flatten();
            let end = row.offset + u64::from(row.length);
            if length.is_none_or(|length| end > length) {
                return Err(format!(
                    "the row of block {hash} ends at {end} of volume {}, which has {length:?}",
                    row.volume
                ));
            }
        }
        match rows.last() {
            Some((hash, _)) if rows.len() == ROWS => after = Some(*hash),
            _ => return Ok(()),
        }
    }
}
