//! The network: requests of the daemons' own clients, carried to the daemons' own routers in this process.
//!
//! # Fault model
//!
//! What TCP and a client that gives up make possible, and no more:
//! - A request or an answer takes any time ([`Weather`]), so that what was sent later arrives earlier.
//! - A connection breaks before or after the server has acted. The caller is told at once, or hears nothing until its own
//!   deadline.
//! - A caller that gives up leaves its request behind: it is not delivered, or is handled to its end all the same, however
//!   late, or its handling is dropped half-way, at any await, as hyper does when it sees the connection go.
//! - Two names are cut off from each other, in one direction or both ([`Network::cut`]): nothing arrives, nobody is told.
//! - Nobody listens, or the process is dead: refused at once. The process is paused: it acts when it is resumed.
//!
//! Not modelled: bytes that are altered on the way (TLS would tell), and half of a body.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::response::IntoResponse as _;
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use holdfast_libs_sim::streams::SimRng;
use holdfast_libs_transport::{Carrier, Listener};
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::process::Process;
use crate::trace::Trace;

/// A caller that reaches nobody is told after this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

type Carried = Result<Response<Body>, String>;

/// How the network is at the moment. Chances are of a thousand requests.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// Longest delay of most requests and answers, milliseconds.
    pub delay_ms: u64,
    /// Chance that one takes up to `slow_ms` instead.
    pub slow: u64,
    /// Milliseconds.
    pub slow_ms: u64,
    /// Requests that get lost on their way.
    pub lost_requests: u64,
    /// Answers that get lost.
    pub lost_answers: u64,
}

impl Weather {
    /// Nothing is lost, and everything is quick.
    pub const FAIR: Self = Self { delay_ms: 2, slow: 0, slow_ms: 0, lost_requests: 0, lost_answers: 0 };

    /// As it is between storms.
    pub const USUAL: Self = Self { slow: 10, slow_ms: 1500, lost_requests: 2, lost_answers: 2, ..Self::FAIR };
}

/// A request that has arrived.
#[derive(Debug, Clone, Copy)]
pub struct Arrived<'a> {
    /// Who sent it.
    pub from: &'a str,
    /// To whom.
    pub to: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// Its body.
    pub body: &'a [u8],
}

/// Answers in the place of servers: the way in which a test plants a bug into a daemon.
pub trait Tamper: Send {
    /// The JSON document that is answered instead of the server's answer; the server never sees the request then.
    fn instead(&mut self, arrived: &Arrived<'_>) -> Option<Value>;

    /// What a server answered well.
    fn answered(&mut self, _: &Arrived<'_>, _answer: &[u8]) {}
}

struct Server {
    router: Router,
    process: Arc<Process>,
}

struct Inner {
    start: Instant,
    rng: SimRng,
    weather: Weather,
    servers: BTreeMap<String, Server>,
    /// A name that stands for another one: where a load balancer sends what comes for it.
    aliases: BTreeMap<String, String>,
    /// Who reaches whom no more.
    cuts: BTreeSet<(String, String)>,
    trace: Trace,
    /// Who appended to which volume and epoch.
    writers: BTreeMap<String, (String, u64)>,
    violations: Vec<String>,
    tamper: Option<Box<dyn Tamper>>,
}

/// The network of a cell.
pub struct Network(Mutex<Inner>);

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Network")
    }
}

/// What will become of one request: drawn when it is sent, so that nothing else moves the draws.
#[derive(Debug, Clone, Copy)]
struct Fate {
    there: Duration,
    back: Duration,
    lost: Option<Lost>,
    /// The caller is told that its request or answer is lost, and does not wait for it in vain.
    told: bool,
    /// The server drops what it does for a caller that gave up.
    dropped_with_caller: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    Request,
    Answer,
}

impl Network {
    /// A network in fair weather.
    pub fn new(rng: SimRng, trace: Trace) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Inner {
            start: Instant::now(),
            rng,
            weather: Weather::FAIR,
            servers: BTreeMap::new(),
            aliases: BTreeMap::new(),
            cuts: BTreeSet::new(),
            trace,
            writers: BTreeMap::new(),
            violations: Vec::new(),
            tamper: None,
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the weather.
    pub fn set_weather(&self, weather: Weather) {
        self.inner().weather = weather;
    }

    /// Has `tamper` see every request that arrives.
    pub fn set_tamper(&self, tamper: Box<dyn Tamper>) {
        self.inner().tamper = Some(tamper);
    }

    /// Nothing from `from` reaches `to` any more.
    pub fn cut(&self, from: &str, to: &str) {
        self.inner().cuts.insert((from.to_owned(), to.to_owned()));
    }

    /// Undoes a cut.
    pub fn mend(&self, from: &str, to: &str) {
        self.inner().cuts.remove(&(from.to_owned(), to.to_owned()));
    }

    /// Undoes all cuts.
    pub fn mend_all(&self) {
        self.inner().cuts.clear();
    }

    /// What is sent to `alias` goes to `name`.
    pub fn point(&self, alias: &str, name: &str) {
        self.inner().aliases.insert(alias.to_owned(), name.to_owned());
    }

    /// Nobody listens any more. What listened holds its way into the network, so the network must let go of it at the end.
    pub fn close_all(&self) {
        let servers = std::mem::take(&mut self.inner().servers);
        drop(servers);
    }

    /// Nobody listens under `name` any more.
    pub fn close(&self, name: &str) {
        self.inner().servers.remove(name);
    }

    /// The router that answers under `name`, if its process runs.
    pub fn router(&self, name: &str) -> Option<Router> {
        self.inner().servers.get(name).filter(|server| server.process.runs()).map(|server| server.router.clone())
    }

    /// Notes what is done to the cell.
    pub fn note(&self, what: std::fmt::Arguments<'_>) {
        let mut inner = self.inner();
        let at = inner.start.elapsed();
        inner.trace.note(at, what);
    }

    /// Hash and number of the events so far.
    pub fn trace(&self) -> (u64, u64) {
        let inner = self.inner();
        (inner.trace.hash(), inner.trace.events())
    }

    /// The lines of the trace, if they are kept.
    pub fn take_lines(&self) -> Vec<String> {
        self.inner().trace.take_lines()
    }

    /// What was seen that must never be.
    pub fn violations(&self) -> Vec<String> {
        self.inner().violations.clone()
    }

    fn fate(&self) -> Fate {
        let mut inner = self.inner();
        let weather = inner.weather;
        let rng = &mut inner.rng;
        let mut delay = || {
            let most = if rng.chance(weather.slow) { weather.slow_ms } else { weather.delay_ms };
            Duration::from_millis(rng.below(most + 1))
        };
        let (there, back) = (delay(), delay());
        let lost = match rng.below(1000) {
            n if n < weather.lost_requests => Some(Lost::Request),
            n if n < weather.lost_requests + weather.lost_answers => Some(Lost::Answer),
            _ => None,
        };
        Fate { there, back, lost, told: rng.chance(700), dropped_with_caller: rng.chance(500) }
    }

    /// Whether something sent by `from` arrives at `to`.
    fn reaches(&self, from: &str, to: &str) -> bool {
        !self.inner().cuts.contains(&(from.to_owned(), to.to_owned()))
    }

    fn resolve(&self, host: &str) -> String {
        self.inner().aliases.get(host).cloned().unwrap_or_else(|| host.to_owned())
    }

    fn server(&self, name: &str) -> Option<(Router, Arc<Process>)> {
        let inner = self.inner();
        inner.servers.get(name).map(|server| (server.router.clone(), Arc::clone(&server.process)))
    }

    /// Two lives of frontends never append to one volume in one epoch.
    fn watch_appends(&self, from: &Process, uri: &Uri) {
        let Some(volume) = uri.path().split("/volumes/").nth(1).and_then(|rest| rest.strip_suffix("/append")) else {
            return;
        };
        let epoch = uri.query().and_then(|query| query.split('&').find(|part| part.starts_with("epoch=")));
        let key = format!("{volume} {}", epoch.unwrap_or_default());
        let writer = (from.name.clone(), from.life);
        let mut inner = self.inner();
        let first = inner.writers.entry(key.clone()).or_insert_with(|| writer.clone());
        if *first != writer {
            let what = format!("volume {key} was appended to by {first:?} and by {writer:?}");
            inner.violations.push(what);
        }
    }
}

/// A process's way into the network, in both directions.
#[derive(Debug, Clone)]
pub struct Port {
    /// The network.
    pub network: Arc<Network>,
    /// The process.
    pub process: Arc<Process>,
}

impl Carrier for Port {
    fn carry(&self, request: Request<Full<Bytes>>) -> BoxFuture<'static, Carried> {
        let (network, from) = (Arc::clone(&self.network), Arc::clone(&self.process));
        Box::pin(async move {
            from.gate().await;
            let fate = network.fate();
            let (answer, answered) = oneshot::channel();
            let gone = CancellationToken::new();
            let _guard = gone.clone().drop_guard();
            let courier = Courier { network, from: Arc::clone(&from), fate, gone };
            tokio::spawn(courier.deliver(request, answer));
            let carried = answered.await.unwrap_or_else(|_| Err("connection reset by peer".to_owned()));
            from.gate().await;
            carried
        })
    }
}

impl Listener for Port {
    fn listen(&self) -> String {
        self.process.name.clone()
    }

    fn serve(self: Box<Self>, router: Router, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let (name, process) = (self.process.name.clone(), Arc::clone(&self.process));
            self.network.inner().servers.insert(name.clone(), Server { router, process });
            shutdown.cancelled().await;
            let mut inner = self.network.inner();
            if inner.servers.get(&name).is_some_and(|server| Arc::ptr_eq(&server.process, &self.process)) {
                inner.servers.remove(&name);
            }
        })
    }
}

/// Carries one request.
struct Courier {
    network: Arc<Network>,
    from: Arc<Process>,
    fate: Fate,
    /// Cancelled when the caller has given up, or has its answer.
    gone: CancellationToken,
}

impl Courier {
    async fn deliver(self, request: Request<Full<Bytes>>, answer: oneshot::Sender<Carried>) {
        if let Some(carried) = self.carry(request).await {
            // Whoever waited may be gone.
            let _ = answer.send(carried);
        } else {
            // Nobody tells the caller anything.
            self.gone.cancelled().await;
        }
    }

    /// The answer, as it reaches the caller; `None`: nothing ever reaches it.
    async fn carry(&self, request: Request<Full<Bytes>>) -> Option<Carried> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        sleep(self.fate.there).await;
        let to = self.network.resolve(&host);
        if !self.network.reaches(&self.from.name, &to) {
            sleep(CONNECT_TIMEOUT).await;
            return Some(Err("connect timed out".to_owned()));
        }
        let Some((router, process)) = self.network.server(&to) else {
            return Some(Err("connection refused".to_owned()));
        };
        if self.fate.lost == Some(Lost::Request) {
            self.network.note(format_args!("{} -> {to} {} LOST", self.from.name, request.uri().path()));
            return self.broken();
        }
        tokio::select! {
            biased;
            () = process.died() => return self.broken(),
            () = process.gate() => {}
        }
        let answer = tokio::select! {
            biased;
            answer = self.handle(&to, router, request) => answer,
            () = process.died() => return self.broken(),
            () = self.gone.cancelled(), if self.fate.dropped_with_caller => return None,
        };
        tokio::select! {
            biased;
            () = process.died() => return self.broken(),
            () = process.gate() => {}
        }
        if self.fate.lost == Some(Lost::Answer) || !self.network.reaches(&to, &self.from.name) {
            return self.broken();
        }
        sleep(self.fate.back).await;
        Some(Ok(answer))
    }

    fn broken(&self) -> Option<Carried> {
        self.fate.told.then(|| Err("connection reset by peer".to_owned()))
    }

    async fn handle(&self, to: &str, router: Router, request: Request<Full<Bytes>>) -> Response<Body> {
        let (mut head, body) = request.into_parts();
        // It is all there.
        let bytes = body.clone().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        let what = format!("{} -> {to} {} {target}", self.from.name, head.method);
        self.network.note(format_args!("{what} {}", bytes.len()));
        self.network.watch_appends(&self.from, &head.uri);
        // As hyper sends it.
        if let Ok(host) = HeaderValue::from_str(head.uri.host().unwrap_or_default()) {
            head.headers.entry(HOST).or_insert(host);
        }
        if !bytes.is_empty() || head.method != http::Method::GET {
            head.headers.entry(CONTENT_LENGTH).or_insert(bytes.len().into());
        }
        if let Ok(uri) = target.parse() {
            head.uri = uri;
        }
        let request = Request::from_parts(head, body);
        let arrived = Arrived { from: &self.from.name, to, target: &target, body: &bytes };
        let instead = self.network.inner().tamper.as_mut().and_then(|tamper| tamper.instead(&arrived));
        let answer = match instead {
            Some(answer) => Json(answer).into_response(),
            None => router.oneshot(request.map(Body::new)).await.unwrap_or_else(|never| match never {}),
        };
        let (head, body) = answer.into_parts();
        let (head, body) = match body.collect().await {
            Ok(body) => (head, body.to_bytes()),
            Err(error) => {
                let mut broken = Response::new(());
                *broken.status_mut() = StatusCode::BAD_GATEWAY;
                (broken.into_parts().0, Bytes::from(error.to_string()))
            }
        };
        self.network.note(format_args!("{what} = {} {}", head.status.as_u16(), body.len()));
        if head.status.is_success()
            && let Some(tamper) = &mut self.network.inner().tamper
        {
            tamper.answered(&arrived, &body);
        }
        Response::from_parts(head, Body::from(body))
    }
}
