//! One leads, another stands by: what it answers, when it takes over, and what becomes of a leader that slept.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::{self, Cell, FRONTEND, SECRET, Started, eventually, timing};
use holdfast_libs_transport::{CallError, Role};
use holdfast_tests_mariadb::Server;
use holdfast_volume_manager_client::{LeaseRequest, VolumeManagerClient};
use holdfast_volume_manager_server::{Config, run};
use mysql_async::prelude::Queryable as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio_util::sync::CancellationToken;

fn named(config: &Config, name: &str) -> Config {
    Config { name: Some(name.to_owned()), ..config.clone() }
}

/// A cell led by `one`.
async fn led(leader_ttl_ms: u64) -> Cell {
    let mut times = timing();
    times.leader_ttl_ms = leader_ttl_ms;
    let mut cell = Cell::without_manager(times, 1).await;
    cell.config = named(&cell.config, "one");
    cell.start_manager().await;
    cell
}

/// `two`, once it stands by.
async fn standby(cell: &Cell) -> Started {
    let standby = Started::new(named(&cell.config, "two"));
    // A client of the protocol would go on to the leader.
    let (http, url) = (cell.http(Role::Admin), format!("{}/v1/status", standby.address));
    let ask = async || http.get_json::<serde_json::Value>(&url, Duration::from_secs(5)).await;
    eventually("the standby names the leader", async || match ask().await {
        Err(CallError::Api(error)) => {
            assert_eq!((error.status.as_u16(), error.code.as_str()), (503, "not_leader"));
            (error.detail["leader"] == cell.address() && error.message.contains("one leads")).then_some(())
        }
        // It does not listen yet.
        Err(_) => None,
        Ok(_) => panic!("it leads"),
    })
    .await;
    standby
}

#[tokio::test]
async fn a_standby_takes_over_from_a_leader_that_died() {
    let mut cell = led(1500).await;
    let leased = cell.lease().await;
    let table = cell.catalog().await.table;
    let first = table.leader().await.unwrap().unwrap();
    // While it lives it renews: more time is left than was a moment ago. Nobody stands by yet, who could take over from a process
    // that pauses.
    let (mut left, mut renewals) = (first.remaining, 0);
    eventually("the lease was renewed three times", async || {
        let leader = table.leader().await.unwrap().unwrap();
        assert_eq!((leader.holder.as_str(), leader.term), ("one", first.term));
        renewals += u32::from(leader.remaining > left);
        left = leader.remaining;
        (renewals >= 3).then_some(())
    })
    .await;
    let standby = standby(&cell).await;
    cell.crash_manager();
    cell.follow(standby).await;
    assert_eq!(cell.row(leased.volume).await.holder, Some(FRONTEND));
    cell.lease().await;
}

#[tokio::test]
async fn a_leader_that_stops_hands_over_at_once() {
    // No test waits for this lease to run out.
    let mut cell = led(600_000).await;
    let standby = standby(&cell).await;
    let leader = cell.manager.take().unwrap();
    leader.stop.cancel();
    // Until then the standby still sends whoever asks to the old one, which may answer.
    eventually("the old leader has stopped", async || leader.task.is_finished().then_some(())).await;
    cell.follow(standby).await;
    cell.lease().await;
}

#[tokio::test]
async fn a_leader_that_died_and_is_started_again_waits_for_nobody() {
    let mut cell = led(600_000).await;
    let standby = standby(&cell).await;
    cell.crash_manager();
    cell.start_manager().await;
    cell.lease().await;
    standby.stop.cancel();
    eventually("a standby stops when told to", async || standby.task.is_finished().then_some(())).await;
}

/// Names the configuration of the volume manager that the second process runs.
const CONFIG: &str = "HOLDFAST_TEST_VOLUME_MANAGER_CONFIG";

/// Not a test by itself: the process that is stopped and goes on. Run by the test below, with a configuration.
#[tokio::test]
async fn the_process_that_is_paused() {
    let Some(path) = std::env::var_os(CONFIG) else { return };
    let ended = run(Config::load(path.as_ref()).unwrap(), CancellationToken::new()).await;
    panic!("{}", ended.unwrap_err());
}

struct Process(Child);

impl Process {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Databases on a MariaDB server, as a configuration of the catalog.
async fn databases(server: &Server) -> String {
    let opts = mysql_async::OptsBuilder::from_opts(mysql_async::Opts::from_url(&server.url("mysql")).unwrap());
    let mut session = mysql_async::Conn::new(opts.prefer_socket(false)).await.unwrap();
    for name in ["cell_table", "cell_index0", "cell_index1"] {
        session.query_drop(format!("CREATE DATABASE {name}")).await.unwrap();
    }
    let [table, first, second] = ["cell_table", "cell_index0", "cell_index1"].map(|name| server.url(name));
    format!("[catalog]\nkind = 'mysql'\ntable = '{table}'\nindex = ['{first}', '{second}']\n")
}

#[tokio::test]
async fn a_leader_that_was_stopped_and_goes_on_is_refused_and_ends() {
    let server = tokio::task::spawn_blocking(Server::start).await.unwrap();
    let catalog = databases(&server).await;
    let mut cell = Cell::without_manager(timing(), 1).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = listener.local_addr().unwrap().to_string();
    drop(listener);
    let path = cell.dir.path().join("volume-manager.toml");
    let secret: String = SECRET.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = format!(
        "listen = '{listen}'\nname = 'one'\ncell = '{}'\ncell_secret = '{secret}'\ndata_dir = {:?}\n{catalog}\
         [tls]\ncertificate = {:?}\nkey = {:?}\nca = {:?}\n[timing]\nleader_ttl_ms = 1500\nheartbeat_ms = 50\nsuspect_ms = 20000\n",
        support::CELL,
        cell.dir.path().join("data"),
        cell.tls.certificate,
        cell.tls.key,
        cell.tls.ca,
    );
    std::fs::write(&path, text).unwrap();
    let log = cell.dir.path().join("log");
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "leadership::the_process_that_is_paused", "--nocapture"])
        .env(CONFIG, &path)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut old = Process(child);
    let old_address = format!("https://{listen}");
    for node in &cell.nodes {
        node.follow(&old_address);
    }
    let old_admin = VolumeManagerClient::new(cell.http(Role::Admin), old_address.clone());
    eventually("the first one leads, with all nodes", async || {
        let status = old_admin.status().await.ok()?;
        (status.nodes.iter().filter(|node| node.state == "up").count() == 3).then_some(())
    })
    .await;

    old.signal(Signal::SIGSTOP);
    // Asked of the one that sleeps; it will find these when it goes on.
    let old_frontend = VolumeManagerClient::new(cell.http(Role::Frontend), old_address);
    let late =
        tokio::spawn(async move { old_frontend.lease(&LeaseRequest { frontend: FRONTEND, avoid: Vec::new() }).await });
    cell.config = named(&Config::load(&path).unwrap(), "two");
    cell.start_manager().await;
    let leased = cell.lease().await;

    old.signal(Signal::SIGCONT);
    let refused = late.await.unwrap().unwrap_err();
    assert!(!refused.is_answer() || refused.code() == Some("not_leader"), "{refused}");
    eventually("the old leader ends", async || old.0.try_wait().unwrap()).await;
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.contains("another volume manager leads this cell"), "{said}");
    let volumes = cell.admin().volumes().await.unwrap();
    assert_eq!(volumes.iter().map(|row| row.volume).collect::<Vec<_>>(), [leased.volume]);
    // The new leader does not mind.
    cell.lease().await;
}
