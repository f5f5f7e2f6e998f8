//! Starts a client, and keeps asking while a question is open.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use holdfast_libs_transport::CallError;
use holdfast_metadata_client::{CommitRequest, Me, NamespaceId, Timestamp, code};
use holdfast_sync_client_planner::{Inode, Synced, Trees};
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, SystemClock};
use crate::commit::Commits;
use crate::config::Config;
use crate::control::{Command, Control};
use crate::disk::DiskFiles;
use crate::engine::{Beginning, Engine};
use crate::error::EngineError;
use crate::files::{FileSystem, RootIdentity};
use crate::network::{HttpNetwork, Network};
use crate::pull::Pulls;
use crate::question::{Exit, Question};
use crate::state::{State, key};
use crate::status::{Meters, Status};
use crate::watch::Watcher;

/// How often a question looks whether it answered itself (the folder is back).
const LOOK_AGAIN: Duration = Duration::from_secs(1);

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(15);

/// What stands behind the engine's traits.
#[derive(Clone)]
pub struct Parts {
    /// The network.
    pub network: Arc<dyn Network>,
    /// The disk.
    pub files: Arc<dyn FileSystem>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

/// Keeps the folder the same as the server's until `shutdown`.
///
/// # Errors
/// See [`EngineError`]. What can pass (no network, a full disk) is waited for and reported in the status.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), EngineError> {
    let network = HttpNetwork::new(&config.server, &config.ca, &config.token)?;
    run_with(config, Arc::new(network), Arc::new(SystemClock), shutdown).await
}

/// As [`run`], with another network and clock.
///
/// # Errors
/// See [`run`].
pub async fn run_with(
    config: Config,
    network: Arc<dyn Network>,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) -> Result<(), EngineError> {
    prepare(&config)?;
    let _state_lock = lock(&config.state_dir.join("lock"), true)?;
    let mut control = Control::listen(&config.state_dir)?;
    let mut answered_emptied = false;
    loop {
        let exit = match open_root(&config)? {
            Ok(files) => {
                let _folder_lock = lock(&config.folder, false)?;
                let parts = Parts { network: Arc::clone(&network), files, clock: Arc::clone(&clock) };
                run_once(&config, parts, &mut control, &shutdown, answered_emptied).await?
            }
            Err(question) => Exit::Asking(question),
        };
        match exit {
            Exit::Shutdown => return Ok(()),
            Exit::Asking(question) => {
                tracing::warn!(client = config.name, "stopped with a question: {}", question.reason());
                match ask(&config, question, &mut control, &shutdown).await? {
                    Answer::Shutdown => return Ok(()),
                    Answer::Again { emptied } => answered_emptied = emptied,
                }
            }
        }
    }
}

fn io_error(path: &Path, what: &'static str) -> impl FnOnce(std::io::Error) -> EngineError {
    let path = path.to_owned();
    move |source| EngineError::Io { path, what, source }
}

fn prepare(config: &Config) -> Result<(), EngineError> {
    let state = &config.state_dir;
    DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(io_error(state, "cannot be made"))?;
    let state = state.canonicalize().map_err(io_error(state, "cannot be found"))?;
    if let Ok(folder) = config.folder.canonicalize()
        && (state.starts_with(&folder) || folder.starts_with(&state))
    {
        return Err(EngineError::Config(format!(
            "state_dir {} and folder {} lie in each other; put the state elsewhere",
            state.display(),
            folder.display()
        )));
    }
    Ok(())
}

fn lock(path: &Path, create: bool) -> Result<File, EngineError> {
    let opened =
        if create { File::options().create(true).truncate(false).write(true).open(path) } else { File::open(path) };
    let file = opened.map_err(io_error(path, "cannot be opened"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            let place = if create { path.parent().unwrap_or(path) } else { path };
            Err(EngineError::Busy(place.to_owned()))
        }
        Err(std::fs::TryLockError::Error(source)) => Err(io_error(path, "cannot be locked")(source)),
    }
}

fn identity_text(identity: RootIdentity) -> String {
    let birth = identity.0.birth.map_or(String::new(), |birth| format!("{}.{:09}", birth.secs, birth.nanos));
    format!("{}:{birth}", identity.0.number)
}

fn identity_of(text: &str) -> Option<RootIdentity> {
    let (number, birth) = text.split_once(':')?;
    let birth = match birth.split_once('.') {
        Some((secs, nanos)) => Some(Timestamp { secs: secs.parse().ok()?, nanos: nanos.parse().ok()? }),
        None => None,
    };
    Some(RootIdentity(Inode { number: number.parse().ok()?, birth }))
}

/// Opens the folder, if it is the one that was synced; makes it at the first start.
fn open_root(config: &Config) -> Result<Result<Arc<dyn FileSystem>, Question>, EngineError> {
    let mut state = State::open(&config.state_dir)?;
    let known = state.meta(key::ROOT).map_err(|error| state.failed(error))?.and_then(|text| identity_of(&text));
    if known.is_none() {
        std::fs::create_dir_all(&config.folder).map_err(io_error(&config.folder, "cannot be made"))?;
    } else if !config.folder.is_dir() {
        return Ok(Err(Question::RootVanished));
    }
    let files = DiskFiles::open(&config.folder, &config.state_dir)?;
    let found = files.root_identity().map_err(io_error(&config.folder, "cannot be read"))?;
    match known {
        Some(known) if known != found => return Ok(Err(Question::RootExchanged)),
        Some(_) => {}
        None => {
            let written = state.write(|writing| writing.set(key::ROOT, identity_text(found)));
            written.map_err(|error| state.failed(error))?;
        }
    }
    files.discard_all().map_err(io_error(&config.state_dir, "old temporary files cannot be removed"))?;
    Ok(Ok(Arc::new(files)))
}

async fn run_once(
    config: &Config,
    parts: Parts,
    control: &mut Control,
    shutdown: &CancellationToken,
    answered_emptied: bool,
) -> Result<Exit, EngineError> {
    let mut state = State::open(&config.state_dir)?;
    let Some(me) = introduce(config, &parts, &mut state, control, shutdown).await? else { return Ok(Exit::Shutdown) };
    take_identity(config, &mut state, &me)?;
    let from = begin(config, &parts, state, me.namespace, answered_emptied)?;
    tracing::info!(client = config.name, folder = %config.folder.display(), "syncing");
    Engine::new(config.clone(), parts, from).run(control, shutdown).await
}

/// Learns whose token this is; waits for the server. None on shutdown.
async fn introduce(
    config: &Config,
    parts: &Parts,
    state: &mut State,
    control: &mut Control,
    shutdown: &CancellationToken,
) -> Result<Option<Me>, EngineError> {
    let mut pause = FIRST_PAUSE;
    loop {
        let error = tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            me = parts.network.me() => match me {
                Ok(me) => return Ok(Some(me)),
                Err(error) => error,
            },
        };
        if matches!(error.code(), Some(code::UNAUTHORIZED | code::FORBIDDEN)) {
            return Err(EngineError::Refused(Box::new(error)));
        }
        wait_for_server(config, state, control, shutdown, &error, pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

async fn wait_for_server(
    config: &Config,
    state: &mut State,
    control: &mut Control,
    shutdown: &CancellationToken,
    error: &CallError,
    pause: Duration,
) {
    let over = tokio::time::sleep(pause);
    tokio::pin!(over);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = &mut over => return,
            request = control.requests.recv() => {
                let Some(request) = request else { return };
                let _ = request.answer.send(stopped_status(config, state, "working", &error.to_string()));
            }
        }
    }
}

/// A status while no engine runs.
fn stopped_status(config: &Config, state: &State, what: &str, reason: &str) -> String {
    let number = |key| state.number(key).unwrap_or(0);
    let status = Status {
        folder: config.folder.display().to_string(),
        name: config.name.clone(),
        state: what.to_owned(),
        reason: reason.to_owned(),
        pending: 1,
        conflicts: number(key::CONFLICTS),
        not_synced: 0,
        not_synced_entries: Vec::new(),
        block_bytes_sent: number(key::SENT),
        block_bytes_received: number(key::RECEIVED),
        files_done: number(key::FILES),
        entries: 0,
    };
    serde_json::to_string(&status).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
}

/// Compares the token's owner with the state's.
fn take_identity(config: &Config, state: &mut State, me: &Me) -> Result<(), EngineError> {
    let path = config.state_dir.clone();
    let meta = |state: &State, key| state.meta(key).map_err(|error| state.failed(error));
    let (account, namespace) = (me.account.to_string(), me.namespace.0.to_string());
    if let Some(known) = meta(state, key::ACCOUNT)?
        && (known != account || meta(state, key::NAMESPACE)?.is_some_and(|known| known != namespace))
    {
        let detail = "the state belongs to another account; use another state_dir for this one".to_owned();
        return Err(EngineError::Foreign { path, detail });
    }
    let device = me.device.to_string();
    let is_new_device = meta(state, key::DEVICE)?.is_some_and(|known| known != device);
    let written = state.write(|writing| {
        if is_new_device {
            // Numbers of items belong to a device. What the old one left unanswered is decided anew.
            writing.clear_pending()?;
        }
        writing.set(key::ACCOUNT, &account)?;
        writing.set(key::NAMESPACE, &namespace)?;
        writing.set(key::DEVICE, &device)
    });
    written.map_err(|error| state.failed(error))
}

fn begin(
    config: &Config,
    parts: &Parts,
    state: State,
    namespace: NamespaceId,
    answered_emptied: bool,
) -> Result<Beginning, EngineError> {
    let failed = |error| EngineError::State { path: config.state_dir.join("state.db"), source: error };
    let root = parts.files.stat("").map_err(io_error(&config.folder, "cannot be read"))?;
    let Some(root) = root else {
        return Err(io_error(&config.folder, "cannot be read")(std::io::ErrorKind::NotFound.into()));
    };
    let remote = state.remote().map_err(failed)?;
    let synced = Synced::load(state.synced().map_err(failed)?);
    let trees = Trees::new(remote, synced, root.stat);
    let number = |key| state.number(key).map_err(failed);
    let meters = Meters {
        sent: number(key::SENT)?.into(),
        received: number(key::RECEIVED)?.into(),
        files: number(key::FILES)?.into(),
        conflicts: number(key::CONFLICTS)?.into(),
    };
    let pulls = Pulls::new(
        state.meta(key::CURSOR).map_err(failed)?,
        number(key::COMPLETE)? == 1,
        number(key::SEQUENCE)?,
        Duration::from_millis(config.pull_interval_ms.max(20)),
        config.notifications,
    );
    let mut commits = Commits::new(number(key::LAST_OP)?);
    let (items, sent): (Vec<_>, Vec<_>) = state.pending().map_err(failed)?.into_iter().unzip();
    if let Some(first) = items.first() {
        let receipts = state.meta(key::RECEIPTS).map_err(failed)?;
        let receipts = receipts.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let acknowledged_op = first.op.saturating_sub(1);
        commits.resume(CommitRequest { namespace, items, receipts, acknowledged_op }, sent);
    }
    let receipts = state.receipts().map_err(failed)?;
    let watcher = Watcher::new().map_err(EngineError::Watch)?;
    Ok(Beginning {
        state,
        trees,
        watcher,
        namespace,
        meters: Arc::new(meters),
        receipts,
        pulls,
        commits,
        answered_emptied,
    })
}

enum Answer {
    Shutdown,
    Again { emptied: bool },
}

async fn ask(
    config: &Config,
    question: Question,
    control: &mut Control,
    shutdown: &CancellationToken,
) -> Result<Answer, EngineError> {
    let mut state = State::open(&config.state_dir)?;
    let mut look_again = tokio::time::interval(LOOK_AGAIN);
    loop {
        let request = tokio::select! {
            () = shutdown.cancelled() => return Ok(Answer::Shutdown),
            _ = look_again.tick() => {
                let about_root = matches!(question, Question::RootVanished | Question::RootExchanged);
                if about_root && is_back(config, &state) {
                    return Ok(Answer::Again { emptied: false });
                }
                continue;
            }
            request = control.requests.recv() => request,
        };
        let Some(request) = request else { return Ok(Answer::Shutdown) };
        let answered = match request.what {
            Command::Proceed | Command::Restore => take_answer(&mut state, question, request.what)?,
            _ => None,
        };
        let _ = request.answer.send(stopped_status(config, &state, "asking", question.reason()));
        if let Some(emptied) = answered {
            return Ok(Answer::Again { emptied });
        }
    }
}

fn is_back(config: &Config, state: &State) -> bool {
    let Ok(Some(known)) = state.meta(key::ROOT) else { return false };
    let found = std::fs::metadata(&config.folder).ok().filter(std::fs::Metadata::is_dir);
    found.is_some_and(|found| Some(crate::disk::identity(&found)) == identity_of(&known))
}

/// Carries out an answer; none when it does not answer this question.
fn take_answer(state: &mut State, question: Question, answer: Command) -> Result<Option<bool>, EngineError> {
    let written = match (question, answer) {
        (Question::RootEmptied, Command::Proceed) => return Ok(Some(true)),
        (Question::RootEmptied, _) => state.write(|writing| writing.clear_synced()),
        (Question::RootVanished, Command::Proceed) => return Ok(None),
        (Question::RootVanished | Question::RootExchanged, _) => state.write(|writing| {
            writing.clear_synced()?;
            writing.unset(key::ROOT)
        }),
        (Question::Reset, _) => state.write(|writing| {
            writing.clear_synced()?;
            writing.clear_remote()?;
            writing.clear_pending()
        }),
    };
    written.map_err(|error| state.failed(error))?;
    Ok(Some(false))
}
