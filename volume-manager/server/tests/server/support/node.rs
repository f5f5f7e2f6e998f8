//! A node in memory. It decides as the real one does; switches make it hang, refuse, forget or damage.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use axum::{Json, Router};
use holdfast_libs_transport::auth::{Guard, require_role};
use holdfast_libs_transport::tls::TlsFiles;
use holdfast_libs_transport::{ApiError, HttpClient, Role, ServiceTokens};
use holdfast_libs_types::{BlockHash, DiskId, InstanceId, NodeId, VolumeId, WriteEpoch};
use holdfast_node_client::{
    CancelCopy, CopyRequest, CreateExtent, ExtentInfo, ExtentState, FenceRequest, KeyArea, KeyringBody, KeyringMissing,
    KeyringStored, RecordInfo, SealRequest, Sealed, Tail, TrashRequest, code,
};
use holdfast_volume_manager_client::{DiskReport, Heartbeat, Register, VolumeManagerClient};
use http::StatusCode;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{CELL, SECRET};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    Create,
    Fence,
    Seal,
    Copy,
    Cancel,
    Extents,
    /// One extent is asked for.
    Holds,
    Trash,
    Records,
    Keyring,
}

#[derive(Debug, Clone)]
pub struct Extent {
    pub tail: u64,
    pub epoch: WriteEpoch,
    pub state: ExtentState,
    /// The byte it is filled with.
    pub content: u8,
    pub digest: Option<String>,
}

impl Extent {
    pub fn digest_of(&self, length: u64) -> String {
        BlockHash::of(&vec![self.content; usize::try_from(length).unwrap()]).to_string()
    }
}

struct Inner {
    /// This start of its process.
    instance: InstanceId,
    reports: BTreeMap<DiskId, DiskReport>,
    /// A disk came since it registered.
    has_new: bool,
    extents: BTreeMap<(DiskId, VolumeId), Extent>,
    not_listed: HashSet<(DiskId, VolumeId)>,
    /// Beside what is in `extents`: in the trash, or an unfinished copy.
    beside: Vec<(DiskId, VolumeId, Extent)>,
    /// Copies that brought what was not there.
    copies_made: usize,
    calls: Vec<(Call, DiskId, VolumeId)>,
    hang: HashSet<Call>,
    refuse: HashMap<(Call, DiskId), &'static str>,
    silent: bool,
    term: u64,
    manager: String,
    keyrings: Vec<KeyringBody>,
    /// Of the 1,000 bytes of each disk's key area.
    used_key_bytes: u64,
    /// What its disks have of each volume, as far as they were written.
    records: BTreeMap<VolumeId, Vec<RecordInfo>>,
    /// Extents whose end may be torn.
    torn: HashSet<(DiskId, VolumeId)>,
    /// How many more calls it answers.
    quota: Option<usize>,
    /// What became of each disk at the last registration.
    judged: HashMap<DiskId, (bool, Option<String>)>,
}

impl Inner {
    /// Every extent, with those beside others.
    fn all(&self) -> impl Iterator<Item = (DiskId, VolumeId, &Extent)> {
        let first = self.extents.iter().map(|((disk, volume), extent)| (*disk, *volume, extent));
        first.chain(self.beside.iter().map(|(disk, volume, extent)| (*disk, *volume, extent)))
    }
}

type Shared = Arc<Mutex<Inner>>;

pub struct FakeNode {
    pub name: NodeId,
    pub zone: String,
    pub address: String,
    inner: Shared,
    _stop: DropGuard,
}

impl FakeNode {
    /// In a zone of its own.
    pub async fn start(tls: &TlsFiles, number: u8, disks: u8) -> Self {
        Self::start_in(tls, number, disks, number).await
    }

    pub async fn start_in(tls: &TlsFiles, number: u8, disks: u8, zone: u8) -> Self {
        let reports = (1..=disks).map(|place| report(DiskId([number * 16 + place; 16]))).map(|r| (r.disk, r)).collect();
        let inner = Arc::new(Mutex::new(Inner {
            instance: InstanceId([number; 16]),
            reports,
            has_new: false,
            extents: BTreeMap::new(),
            beside: Vec::new(),
            not_listed: HashSet::new(),
            copies_made: 0,
            calls: Vec::new(),
            hang: HashSet::new(),
            refuse: HashMap::new(),
            silent: false,
            term: 0,
            manager: String::new(),
            keyrings: Vec::new(),
            used_key_bytes: 0,
            records: BTreeMap::new(),
            torn: HashSet::new(),
            quota: None,
            judged: HashMap::new(),
        }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("https://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let tokens = ServiceTokens::new(&SECRET);
        let guard = Guard { tokens: tokens.clone(), accepted: &[Role::VolumeManager] };
        let router = Router::new()
            .route("/v1/extents", post(create))
            .route("/v1/fence", post(fence))
            .route("/v1/seal", post(seal))
            .route("/v1/copy", post(copy))
            .route("/v1/copy/cancel", post(cancel))
            .route("/v1/trash", post(trash))
            .route("/v1/keyring", post(keyring).get(keys))
            .route("/v1/disks/{disk}/records/{volume}", get(records))
            .route("/v1/disks/{disk}/extents", get(extents))
            .route("/v1/disks/{disk}/extents/{volume}", get(holds))
            .route_layer(from_fn_with_state(guard, require_role))
            .with_state(Arc::clone(&inner));
        tokio::spawn(holdfast_libs_transport::serve(listener, tls.server().unwrap(), router, stop.clone()));
        let node = Self {
            name: NodeId(format!("node-{number}")),
            zone: format!("zone-{zone}"),
            address,
            inner,
            _stop: stop.clone().drop_guard(),
        };
        let http = HttpClient::new(&tls.client().unwrap(), Some(&tokens.token(Role::Node)));
        tokio::spawn(live(node.registration(), Arc::clone(&node.inner), http, stop));
        node
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// What it says of itself when it registers.
    pub fn registration(&self) -> Register {
        let (instance, disks, term) = {
            let inner = self.inner();
            (inner.instance, inner.reports.values().cloned().collect(), inner.term)
        };
        Register {
            cell: CELL,
            node: self.name.clone(),
            instance,
            zone: self.zone.clone(),
            rack: String::new(),
            address: self.address.clone(),
            disks,
            unusable: Vec::new(),
            term,
        }
    }

    /// Speaks as another start of its process from now on.
    pub fn restart(&self, instance: InstanceId) {
        self.inner().instance = instance;
    }

    /// Reports to this volume manager from now on.
    pub fn follow(&self, manager: &str) {
        self.inner().manager = manager.to_owned();
    }

    pub fn disks(&self) -> Vec<DiskId> {
        self.inner().reports.keys().copied().collect()
    }

    pub fn report(&self, disk: DiskId, change: impl FnOnce(&mut DiskReport)) {
        change(self.inner().reports.get_mut(&disk).unwrap());
    }

    /// Takes a disk into use, and registers with it.
    pub fn add(&self, disk: DiskId) {
        let mut inner = self.inner();
        inner.reports.insert(disk, report(disk));
        inner.has_new = true;
    }

    /// Takes a disk out; the node does not speak of it any more.
    pub fn remove(&self, disk: DiskId) {
        self.inner().reports.remove(&disk).unwrap();
    }

    pub fn extent(&self, disk: DiskId, volume: VolumeId, change: impl FnOnce(&mut Extent)) {
        change(self.inner().extents.get_mut(&(disk, volume)).unwrap());
    }

    pub fn find(&self, disk: DiskId, volume: VolumeId) -> Option<Extent> {
        self.inner().extents.get(&(disk, volume)).cloned()
    }

    pub fn vanish(&self, disk: DiskId, volume: VolumeId) {
        self.inner().extents.remove(&(disk, volume)).unwrap();
    }

    pub fn hang(&self, call: Call) {
        self.inner().hang.insert(call);
    }

    pub fn unhang(&self) {
        self.inner().hang.clear();
    }

    pub fn refuse(&self, call: Call, disk: DiskId, code: &'static str) {
        self.inner().refuse.insert((call, disk), code);
    }

    pub fn admit(&self) {
        self.inner().refuse.clear();
    }

    pub fn silence(&self, silent: bool) {
        self.inner().silent = silent;
    }

    pub fn place(&self, disk: DiskId, volume: VolumeId, extent: Extent) {
        self.inner().extents.insert((disk, volume), extent);
    }

    /// Something else of a volume that it has.
    pub fn place_beside(&self, disk: DiskId, volume: VolumeId, extent: Extent) {
        self.inner().beside.push((disk, volume, extent));
    }

    /// Its lists of extents are from before it had this one.
    pub fn list_without(&self, disk: DiskId, volume: VolumeId) {
        self.inner().not_listed.insert((disk, volume));
    }

    /// Its disks got a record of a volume.
    pub fn write_record(&self, volume: VolumeId, record: RecordInfo) {
        self.inner().records.entry(volume).or_default().push(record);
    }

    /// The end of an extent may be torn.
    pub fn tear(&self, disk: DiskId, volume: VolumeId) {
        self.inner().torn.insert((disk, volume));
    }

    /// It answers so many more calls, then none; or all again.
    pub fn answer_only(&self, calls: Option<usize>) {
        self.inner().quota = calls;
    }

    /// It obeyed a leader of this term.
    pub fn obey(&self, term: u64) {
        self.inner().term = term;
    }

    /// Its disks were registered, and show what they were given then.
    pub fn confirm_incarnations(&self) {
        for report in self.inner().reports.values_mut() {
            (report.previous_nonce, report.nonce) = (report.nonce, report.nonce + 1);
        }
    }

    /// Calls that it got so far.
    pub fn calls(&self) -> Vec<Call> {
        self.inner().calls.iter().map(|(call, _, _)| *call).collect()
    }

    /// Has its disks say that their keys take so many of the 1,000 bytes of their key areas.
    pub fn use_key_bytes(&self, bytes: u64) {
        self.inner().used_key_bytes = bytes;
    }

    /// Generations of the keyring that it was given, in order.
    pub fn keyrings(&self) -> Vec<KeyringBody> {
        self.inner().keyrings.clone()
    }

    /// Whether a disk was accepted at the last registration, and why not.
    pub fn judged(&self, disk: DiskId) -> Option<(bool, Option<String>)> {
        self.inner().judged.get(&disk).cloned()
    }

    /// Copies to one of its disks that it was asked for.
    pub fn copies_to(&self, disk: DiskId) -> usize {
        self.inner().calls.iter().filter(|(made, on, _)| (*made, *on) == (Call::Copy, disk)).count()
    }

    /// How often it was asked for something, whatever the volume.
    pub fn asked(&self, call: Call) -> usize {
        self.inner().calls.iter().filter(|(made, ..)| *made == call).count()
    }

    /// Copies that it made: an order to copy what it holds as it was sealed brings nothing.
    pub fn copies_made(&self) -> usize {
        self.inner().copies_made
    }

    /// What it holds, with the trash.
    pub fn held(&self) -> Vec<(DiskId, VolumeId, ExtentState)> {
        self.inner().all().map(|(disk, volume, extent)| (disk, volume, extent.state)).collect()
    }

    pub fn count(&self, call: Call, volume: VolumeId) -> usize {
        self.inner().calls.iter().filter(|(made, _, of)| (*made, *of) == (call, volume)).count()
    }
}

pub fn report(disk: DiskId) -> DiskReport {
    DiskReport {
        disk,
        path: format!("/dev/{disk}"),
        incarnation: 1,
        nonce: 11,
        previous_nonce: 0,
        state: "healthy".to_owned(),
        reason: None,
        slot_bytes: 1 << 20,
        volume_bytes: 1 << 20,
        slots: 100,
        free_slots: 100,
        damaged_extents: 0,
        trashed_extents: 0,
        failing: None,
        pace: None,
    }
}

/// Registers, then sends heartbeats, and registers again when it is told to.
async fn live(register: Register, inner: Shared, http: HttpClient, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let (manager, silent, disks, (instance, term, has_new)) = {
            let mut inner = inner.lock().unwrap();
            let has_new = std::mem::take(&mut inner.has_new);
            let disks: Vec<DiskReport> = inner.reports.values().cloned().collect();
            (inner.manager.clone(), inner.silent, disks, (inner.instance, inner.term, has_new))
        };
        if !manager.is_empty() && !silent {
            let client = VolumeManagerClient::new(http.clone(), manager);
            let heartbeat = Heartbeat {
                node: register.node.clone(),
                instance,
                disks: disks.clone(),
                unusable: register.unusable.clone(),
            };
            // A volume manager that crashed does not answer; the next one will.
            if (has_new || client.heartbeat(&heartbeat).await.is_ok_and(|answer| answer.register))
                && let Ok(answer) = client.register(&Register { instance, disks, term, ..register.clone() }).await
            {
                let judged = answer.disks.into_iter().map(|disk| (disk.disk, (disk.accepted, disk.reason)));
                inner.lock().unwrap().judged.extend(judged);
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn refusal(code: &str) -> ApiError {
    ApiError::new(StatusCode::CONFLICT, code, format!("the fake node says {code}"))
}

/// Notes a call, hangs or refuses when told to, and heeds the term.
async fn enter(inner: &Shared, call: Call, disk: DiskId, volume: VolumeId, term: u64) -> Result<(), ApiError> {
    inner.lock().unwrap().calls.push((call, disk, volume));
    while inner.lock().unwrap().hang.contains(&call) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut inner = inner.lock().unwrap();
    if let Some(left) = &mut inner.quota {
        *left = left.checked_sub(1).ok_or_else(|| refusal(code::DISK_FAILED))?;
    }
    if let Some(code) = inner.refuse.get(&(call, disk)) {
        return Err(refusal(code));
    }
    if term < inner.term {
        return Err(refusal(code::STALE_TERM));
    }
    inner.term = term;
    if inner.reports.contains_key(&disk) { Ok(()) } else { Err(refusal(code::UNKNOWN_DISK)) }
}

async fn create(State(inner): State<Shared>, Json(order): Json<CreateExtent>) -> Result<Json<Tail>, ApiError> {
    enter(&inner, Call::Create, order.disk, order.volume, order.term).await?;
    let mut inner = inner.lock().unwrap();
    let key = (order.disk, order.volume);
    if inner.extents.contains_key(&key) {
        return Err(refusal(code::ALREADY_EXISTS));
    }
    let extent = Extent { tail: 0, epoch: order.epoch, state: ExtentState::Open, content: 1, digest: None };
    inner.extents.insert(key, extent);
    Ok(Json(Tail { tail: 0 }))
}

fn known(inner: &mut Inner, disk: DiskId, volume: VolumeId) -> Result<&mut Extent, ApiError> {
    inner.extents.get_mut(&(disk, volume)).ok_or_else(|| refusal(code::UNKNOWN_VOLUME))
}

async fn fence(State(inner): State<Shared>, Json(order): Json<FenceRequest>) -> Result<Json<Tail>, ApiError> {
    enter(&inner, Call::Fence, order.disk, order.volume, order.term).await?;
    let mut inner = inner.lock().unwrap();
    let extent = known(&mut inner, order.disk, order.volume)?;
    match extent.state {
        ExtentState::Sealed => return Err(refusal(code::SEALED_OTHERWISE)),
        ExtentState::Damaged => return Err(refusal(code::DAMAGED)),
        ExtentState::Copying => return Err(refusal(code::WRONG_STATE)),
        _ if order.epoch < extent.epoch => return Err(refusal(code::FENCED)),
        _ => {}
    }
    (extent.state, extent.epoch) = (ExtentState::Fenced, order.epoch);
    Ok(Json(Tail { tail: extent.tail }))
}

async fn seal(State(inner): State<Shared>, Json(order): Json<SealRequest>) -> Result<Json<Sealed>, ApiError> {
    enter(&inner, Call::Seal, order.disk, order.volume, order.term).await?;
    let mut inner = inner.lock().unwrap();
    let extent = known(&mut inner, order.disk, order.volume)?;
    match extent.state {
        ExtentState::Sealed if extent.tail != order.length => return Err(refusal(code::SEALED_OTHERWISE)),
        ExtentState::Damaged => return Err(refusal(code::DAMAGED)),
        ExtentState::Copying | ExtentState::Trashed => return Err(refusal(code::WRONG_STATE)),
        _ if order.length > extent.tail => return Err(refusal(code::TOO_SHORT)),
        _ if order.epoch < extent.epoch => return Err(refusal(code::FENCED)),
        _ => {}
    }
    let digest = extent.digest_of(order.length);
    (extent.state, extent.epoch, extent.tail) = (ExtentState::Sealed, order.epoch, order.length);
    extent.digest = Some(digest.clone());
    Ok(Json(Sealed { length: order.length, digest, restored: false }))
}

async fn trash(State(inner): State<Shared>, Json(order): Json<TrashRequest>) -> Result<Json<Value>, ApiError> {
    enter(&inner, Call::Trash, order.disk, order.volume, order.term).await?;
    if !is_named(order.volume, (order.slot, order.slot_generation)) {
        return Err(refusal(code::WRONG_ORDER));
    }
    known(&mut inner.lock().unwrap(), order.disk, order.volume)?.state = ExtentState::Trashed;
    Ok(Json(Value::Null))
}

async fn copy(State(inner): State<Shared>, Json(order): Json<CopyRequest>) -> Result<Json<Sealed>, ApiError> {
    enter(&inner, Call::Copy, order.disk, order.volume, order.term).await?;
    let mut inner = inner.lock().unwrap();
    let key = (order.disk, order.volume);
    if let Some(extent) = inner.extents.get_mut(&key).filter(|extent| extent.state == ExtentState::Trashed)
        && (extent.tail, extent.digest.as_ref()) == (order.length, Some(&order.digest))
    {
        // Its bytes may not be what its header says.
        if extent.digest_of(order.length) != order.digest {
            inner.torn.insert(key);
            return Err(refusal(code::DAMAGED));
        }
        extent.state = ExtentState::Sealed;
        return Ok(Json(Sealed { length: order.length, digest: order.digest, restored: true }));
    }
    let is_other =
        |extent: &&Extent| extent.state != ExtentState::Sealed || extent.digest.as_ref() != Some(&order.digest);
    if let Some(other) = inner.extents.get(&key).filter(is_other).cloned() {
        match &order.instead_of {
            _ if other.state == ExtentState::Trashed => {}
            None => return Err(refusal(code::ALREADY_EXISTS)),
            Some(named) if is_named(order.volume, (named.slot, named.slot_generation)) => {}
            Some(_) => return Err(refusal(code::WRONG_ORDER)),
        }
        inner.extents.remove(&key);
        inner.beside.push((key.0, key.1, Extent { state: ExtentState::Trashed, ..other }));
    }
    let digest = Some(order.digest.clone());
    let extent = Extent { tail: order.length, epoch: order.epoch, state: ExtentState::Sealed, content: 1, digest };
    inner.copies_made += usize::from(inner.extents.insert(key, extent).is_none());
    Ok(Json(Sealed { length: order.length, digest: order.digest, restored: false }))
}

async fn cancel(State(inner): State<Shared>, Json(order): Json<CancelCopy>) -> Result<Json<Value>, ApiError> {
    enter(&inner, Call::Cancel, order.disk, order.volume, order.term).await?;
    let mut inner = inner.lock().unwrap();
    let key = (order.disk, order.volume);
    if inner.extents.get(&key).is_some_and(|extent| extent.state == ExtentState::Copying) {
        inner.extents.remove(&key);
    }
    inner.beside.retain(|(disk, volume, extent)| (*disk, *volume) != key || extent.state != ExtentState::Copying);
    Ok(Json(Value::Null))
}

async fn keyring(State(inner): State<Shared>, Json(body): Json<KeyringBody>) -> Json<KeyringStored> {
    let mut inner = inner.lock().unwrap();
    inner.keyrings.push(body);
    let refused = |disk: &DiskId| inner.refuse.get(&(Call::Keyring, *disk)).map(|code| (*disk, *code));
    let missing: Vec<KeyringMissing> = (inner.reports.keys().filter_map(refused))
        .map(|(disk, code)| KeyringMissing { disk, code: code.to_owned(), reason: "refused".to_owned() })
        .collect();
    let takes = |disk: &&DiskId| !inner.refuse.contains_key(&(Call::Keyring, **disk));
    let mut taken = KeyringStored { stored: Vec::new(), missing, key_areas: Vec::new() };
    for disk in inner.reports.keys().filter(takes) {
        let keys = inner.keyrings.last().map_or(0, |keyring| keyring.keys.len() as u64);
        let area = KeyArea { disk: *disk, keys, used_bytes: inner.used_key_bytes, most_bytes: 1000 };
        taken.key_areas.push(area);
        match area.is_too_small() {
            true => taken.missing.push(KeyringMissing {
                disk: *disk,
                code: code::KEY_AREA_FULL.to_owned(),
                reason: "its key area is full".to_owned(),
            }),
            false => taken.stored.push(*disk),
        }
    }
    Json(taken)
}

async fn keys(State(inner): State<Shared>) -> Result<Json<KeyringBody>, ApiError> {
    let (disk, term) = {
        let inner = inner.lock().unwrap();
        (*inner.reports.keys().next().unwrap(), inner.term)
    };
    enter(&inner, Call::Keyring, disk, VolumeId::default(), term).await?;
    let newest = inner.lock().unwrap().keyrings.iter().max_by_key(|keyring| keyring.generation).cloned();
    Ok(Json(newest.unwrap_or(KeyringBody { generation: 0, keys: Vec::new() })))
}

async fn records(
    State(inner): State<Shared>,
    Path((disk, volume)): Path<(String, String)>,
) -> Result<Json<Vec<RecordInfo>>, ApiError> {
    let (disk, volume): (DiskId, VolumeId) = (disk.parse().unwrap(), volume.parse().unwrap());
    let term = inner.lock().unwrap().term;
    enter(&inner, Call::Records, disk, volume, term).await?;
    let mut inner = inner.lock().unwrap();
    let extent = known(&mut inner, disk, volume)?.clone();
    if extent.digest.is_none() {
        return Err(refusal(code::WRONG_STATE));
    }
    let all = inner.records.get(&volume).cloned().unwrap_or_default();
    Ok(Json(all.into_iter().filter(|record| record.offset + u64::from(record.length) <= extent.tail).collect()))
}

async fn extents(State(inner): State<Shared>, Path(disk): Path<String>) -> Result<Json<Vec<ExtentInfo>>, ApiError> {
    let disk: DiskId = disk.parse().unwrap();
    let term = inner.lock().unwrap().term; // A listing carries none.
    enter(&inner, Call::Extents, disk, VolumeId::default(), term).await?;
    let inner = inner.lock().unwrap();
    let is_listed = |on: DiskId, volume: VolumeId| on == disk && !inner.not_listed.contains(&(on, volume));
    let held = inner.all().filter(|(on, volume, _)| is_listed(*on, *volume));
    Ok(Json(held.map(|(disk, volume, extent)| noted(&inner, (disk, volume), extent)).collect()))
}

async fn holds(
    State(inner): State<Shared>,
    Path((disk, volume)): Path<(String, String)>,
) -> Result<Json<ExtentInfo>, ApiError> {
    let (disk, volume): (DiskId, VolumeId) = (disk.parse().unwrap(), volume.parse().unwrap());
    let term = inner.lock().unwrap().term;
    enter(&inner, Call::Holds, disk, volume, term).await?;
    let mut inner = inner.lock().unwrap();
    let extent = known(&mut inner, disk, volume)?.clone();
    Ok(Json(noted(&inner, (disk, volume), &extent)))
}

fn noted(inner: &Inner, key: (DiskId, VolumeId), extent: &Extent) -> ExtentInfo {
    let note = inner.torn.contains(&key).then(|| "torn or damaged".to_owned());
    ExtentInfo { note, ..info(key.0, key.1, extent) }
}

/// Where a disk keeps the extent of a volume.
fn slot_of(volume: VolumeId) -> u64 {
    u64::from(volume.as_bytes()[15])
}

/// Every slot is in its third use.
const SLOT_GENERATION: u64 = 3;

fn is_named(volume: VolumeId, (slot, slot_generation): (u32, u32)) -> bool {
    (u64::from(slot), u64::from(slot_generation)) == (slot_of(volume), SLOT_GENERATION)
}

fn info(disk: DiskId, volume: VolumeId, extent: &Extent) -> ExtentInfo {
    ExtentInfo {
        disk,
        volume,
        slot: slot_of(volume),
        slot_generation: SLOT_GENERATION,
        state: extent.state,
        epoch: extent.epoch,
        tail: extent.tail,
        digest: extent.digest.clone(),
        note: None,
        records: None,
        trashed_at_s: None,
        order: None,
    }
}
