//! The control socket `state_dir/control.sock`: one request line, one JSON line back.
//!
//! | request | answer |
//! |---|---|
//! | `status` | the status, after looking at what the watcher has queued |
//! | `settle SECONDS` | the status once idle, after one more pull; or when the time is over |
//! | `rescan` | the status; a scan of everything begins |
//! | `proceed` | answers a question: go on with what the client saw |
//! | `restore` | answers a question: bring the files back from the server |

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::error::EngineError;

const MAX_REQUEST_BYTES: u64 = 1024;
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// A request and where its answer goes.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) what: Command,
    pub(crate) answer: oneshot::Sender<String>,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Status,
    Settle(Duration),
    Rescan,
    Proceed,
    Restore,
}

fn parse(line: &str) -> Result<Command, String> {
    let mut words = line.split_whitespace();
    let command = match (words.next(), words.next()) {
        (Some("status"), None) => Command::Status,
        (Some("rescan"), None) => Command::Rescan,
        (Some("proceed"), None) => Command::Proceed,
        (Some("restore"), None) => Command::Restore,
        (Some("settle"), Some(seconds)) => match seconds.parse::<f64>() {
            Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Command::Settle(Duration::from_secs_f64(seconds)),
            _ => return Err(format!("settle: {seconds:?} is not a number of seconds")),
        },
        _ => return Err("unknown request; there are: status, settle SECONDS, rescan, proceed, restore".to_owned()),
    };
    Ok(command)
}

/// The socket, removed on drop.
pub(crate) struct Control {
    path: PathBuf,
    pub(crate) requests: mpsc::Receiver<Request>,
    stop: CancellationToken,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop.cancel();
        // Nobody answers behind it any more.
        let _ = std::fs::remove_file(&self.path);
    }
}

pub(crate) fn socket_path(state_dir: &Path) -> PathBuf {
    state_dir.join("control.sock")
}

impl Control {
    /// Listens. A socket left by a client that died is replaced; the caller holds the state's lock.
    pub(crate) fn listen(state_dir: &Path) -> Result<Self, EngineError> {
        let path = socket_path(state_dir);
        let failed = |source| EngineError::Io { path: path.clone(), what: "the control socket cannot be made", source };
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = bind(&path).map_err(failed)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let (sender, requests) = mpsc::channel(16);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stopped.cancelled() => return,
                    accepted = listener.accept() => match accepted {
                        Ok((stream, _)) => drop(tokio::spawn(serve(stream, sender.clone()))),
                        Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                    },
                }
            }
        });
        Ok(Self { path, requests, stop })
    }
}

/// Socket addresses hold 107 bytes; a longer path is reached through its folder's descriptor.
fn bind(path: &Path) -> std::io::Result<UnixListener> {
    let (folder, short) = short_path(path)?;
    let listener = UnixListener::bind(short);
    drop(folder);
    listener
}

fn short_path(path: &Path) -> std::io::Result<(std::fs::File, PathBuf)> {
    use std::os::fd::AsRawFd;
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let folder = std::fs::File::open(folder)?;
    let name = path.file_name().unwrap_or_default();
    let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
    Ok((folder, short))
}

async fn serve(stream: UnixStream, requests: mpsc::Sender<Request>) {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(MAX_REQUEST_BYTES));
    let read = tokio::time::timeout(REQUEST_DEADLINE, reader.read_line(&mut line)).await;
    if !matches!(read, Ok(Ok(length)) if length > 0) {
        return;
    }
    let error = |message: String| serde_json::json!({ "error": message }).to_string();
    let mut answer = match parse(&line) {
        Err(message) => error(message),
        Ok(what) => {
            let (sender, answer) = oneshot::channel();
            let asked = requests.send(Request { what, answer: sender }).await.is_ok();
            match answer.await {
                Ok(answer) if asked => answer,
                _ => error("the sync client is stopping".to_owned()),
            }
        }
    };
    answer.push('\n');
    // The caller may be gone; that is its concern.
    let _ = writer.write_all(answer.as_bytes()).await;
}

/// Asks the client that runs on `state_dir` and answers its JSON line. See the table above for requests.
///
/// # Errors
/// `NotFound` or `ConnectionRefused` when none runs there.
pub async fn query(state_dir: &Path, request: &str) -> std::io::Result<String> {
    let path = socket_path(state_dir);
    let (_folder, short) = short_path(&path)?;
    let mut stream = UnixStream::connect(short).await?;
    stream.write_all(format!("{}\n", request.trim()).as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    if answer.is_empty() {
        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
    }
    Ok(answer.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Command, parse};

    #[test]
    fn requests_are_parsed_and_others_are_told_which_there_are() {
        assert_eq!(parse("status\n"), Ok(Command::Status));
        assert_eq!(parse("settle 1.5"), Ok(Command::Settle(Duration::from_millis(1500))));
        assert!(parse("settle -1").unwrap_err().contains("not a number"));
        assert!(parse("settle inf").is_err());
        assert!(parse("stauts").unwrap_err().contains("status, settle SECONDS"));
    }
}
