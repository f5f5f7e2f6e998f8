//! What only a store of several servers can get wrong: who they are, what they promise, and connections that end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_libs_types::{BlockHash, CellId, KeyId, WriteEpoch};
use holdfast_tests_mariadb::Server;
use holdfast_volume_manager_catalog::{
    Catalog, CatalogConfig, CatalogError, FenceReason, InsertError, LengthCommitted, NewRow, NewVolume, Registration,
    Term, VolumeState,
};
use mysql_async::prelude::Queryable;

use crate::index::{EPOCH, batch, hash, row, volume};
use crate::proxy::Proxy;
use crate::subject::{CELL, Subject, fresh, session};
use crate::table::{HOLDER, disk, info, new, node};

async fn open(config: &CatalogConfig, cell: CellId) -> Result<Catalog, CatalogError> {
    config.store("/nowhere".as_ref())?.open(cell).await
}

/// The first block from `number` on that belongs to this of four shards.
fn in_shard(shard: u8, number: u64) -> BlockHash {
    (number..).map(hash).find(|hash| hash.as_bytes()[0] >> 6 == shard).unwrap()
}

#[tokio::test]
async fn databases_that_are_not_what_the_configuration_says_are_refused() {
    let subject = Subject::mysql(4).await;
    let good = &subject.config;
    let error = subject.open_for_frontend().await.unwrap_err();
    assert!(matches!(error, CatalogError::Missing { .. }), "{error}");
    subject.open().await;
    let refusal = async |config: CatalogConfig, cell| open(&config, cell).await.unwrap_err().to_string();

    let mut swapped = good.clone();
    swapped.index.swap(1, 2);
    let error = refusal(swapped, CELL).await;
    assert!(error.contains("is shard 2 of the index, but stands where shard 1 of the index should"), "{error}");
    let mut short = good.clone();
    short.index.pop();
    let error = refusal(short, CELL).await;
    assert!(error.contains("was made for an index of 4 databases, 3 are configured"), "{error}");
    let mut long = good.clone();
    long.index.push(fresh(Server::shared(), 0).await.table.unwrap());
    let error = refusal(long, CELL).await;
    assert!(error.contains("was made for an index of 4 databases, 5 are configured"), "{error}");
    let mixed = CatalogConfig { table: Some(good.index[0].clone()), ..good.clone() };
    let error = refusal(mixed, CELL).await;
    assert!(error.contains("is shard 0 of the index, but stands where the replication table should"), "{error}");
    let error = open(good, CellId([2; 16])).await.unwrap_err();
    assert!(matches!(error, CatalogError::ForeignCell { found: CELL, .. }), "{error}");

    let foreign = fresh(Server::shared(), 1).await;
    session(&foreign.index[0]).await.query_drop("CREATE TABLE photos (name TEXT)").await.unwrap();
    let error = refusal(foreign.clone(), CELL).await;
    assert!(error.ends_with("is the database of another program"), "{error}");
    let newer = "UPDATE meta SET value = '99' WHERE name = 'schema_version'";
    session(good.table.as_ref().unwrap()).await.query_drop(newer).await.unwrap();
    let error = open(good, CELL).await.unwrap_err();
    assert!(matches!(error, CatalogError::NewerSchema { found: 99, .. }), "{error}");
}

#[tokio::test]
async fn a_schema_that_was_left_half_made_is_made_to_its_end() {
    let config = fresh(Server::shared(), 1).await;
    let half = "CREATE TABLE meta (name VARBINARY(32) NOT NULL PRIMARY KEY, value VARBINARY(255) NOT NULL)";
    session(&config.index[0]).await.query_drop(half).await.unwrap();
    let many: Vec<_> = (0..4).map(|_| config.clone()).collect();
    let opened = futures_util::future::join_all(many.iter().map(|config| open(config, CELL))).await;
    for catalog in opened {
        assert_eq!(catalog.unwrap().index.count().await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_server_that_may_forget_what_it_acknowledged_is_refused() {
    let server = Server::start_with(&["--log-bin=log", "--sync-binlog=1"]);
    let config = fresh(&server, 1).await;
    let mut root = session(&server.url("mysql")).await;
    open(&config, CELL).await.unwrap();
    for (name, bad, good) in [
        ("innodb_flush_log_at_trx_commit", "2", "1"),
        ("sync_binlog", "0", "1"),
        ("max_allowed_packet", "65536", "16777216"),
        ("default_storage_engine", "'MyISAM'", "'InnoDB'"),
    ] {
        root.query_drop(format!("SET GLOBAL {name} = {bad}")).await.unwrap();
        let error = open(&config, CELL).await.unwrap_err();
        assert!(matches!(error, CatalogError::Setting { name: found, .. } if found == name), "{error}");
        root.query_drop(format!("SET GLOBAL {name} = {good}")).await.unwrap();
    }
    open(&config, CELL).await.unwrap();
}

#[tokio::test]
async fn passwords_stand_in_no_message() {
    const SECRET: &str = "geheim-4711";
    let server = Server::shared();
    let mut config = fresh(server, 1).await;
    let mut root = session(&server.url("mysql")).await;
    let make = format!("CREATE OR REPLACE USER clerk@'127.0.0.1' IDENTIFIED BY '{SECRET}'");
    root.query_drop(make).await.unwrap();
    root.query_drop("GRANT ALL ON *.* TO clerk@'127.0.0.1'").await.unwrap();
    let with = |text: &str, user: &str| text.replace("root@", user);
    let plain = config.clone();
    config.table = config.table.map(|url| with(&url, &format!("clerk:{SECRET}@")));
    config.index = config.index.iter().map(|url| with(url, "clerk@")).collect();
    config.password = Some(SECRET.to_owned());
    open(&config, CELL).await.unwrap();
    let mut shown = format!("{config:?} {:?}", config.store("/".as_ref()).unwrap());
    for url in [
        format!("mysql://clerk:{SECRET}wrong@127.0.0.1:{}/mysql", server.port()),
        format!("mysql://clerk:{SECRET}@127.0.0.1:1/x"),
        format!("mysql://clerk:{SECRET}@127.0.0.1:{}", server.port()),
        format!("mysql://clerk:{SECRET}@127.0.0.1/x?colour={SECRET}"),
        format!("mysql://clerk:{SECRET}@127.0.0.1/x?prefer_socket={SECRET}"),
        format!("postgres{SECRET}://clerk:{SECRET}@127.0.0.1/x"),
        format!("{SECRET} clerk"),
    ] {
        let error = open(&CatalogConfig { table: Some(url), ..plain.clone() }, CELL).await.unwrap_err();
        shown += &format!("\n{error} {error:?}");
    }
    assert!(!shown.contains(SECRET), "{shown}");
}

#[tokio::test]
async fn the_rights_that_the_documentation_grants_are_enough() {
    let server = Server::shared();
    let config = fresh(server, 2).await;
    let mut root = session(&server.url("mysql")).await;
    let name = |url: &String| url.rsplit('/').next().unwrap().to_owned();
    let table = name(config.table.as_ref().unwrap());
    let clerk = |user: &str| {
        let of = |url: &String| url.replace("root@", &format!("{user}@"));
        let index = config.index.iter().map(of).collect();
        CatalogConfig { table: config.table.as_ref().map(of), index, ..config.clone() }
    };
    for user in ["keeper", "reader"] {
        root.query_drop(format!("CREATE OR REPLACE USER {user}@'127.0.0.1'")).await.unwrap();
    }
    let all = "SELECT, INSERT, UPDATE, DELETE, CREATE, REFERENCES, INDEX, ALTER";
    for database in config.index.iter().map(name).chain([table.clone()]) {
        root.query_drop(format!("GRANT {all} ON {database}.* TO keeper@'127.0.0.1'")).await.unwrap();
        let rights = if database == table { "SELECT" } else { "SELECT, INSERT, UPDATE" };
        root.query_drop(format!("GRANT {rights} ON {database}.* TO reader@'127.0.0.1'")).await.unwrap();
    }
    let keeper = open(&clerk("keeper"), CELL).await.unwrap();
    let term = keeper.table.take_leadership().await.unwrap();
    keeper.table.upsert_node(term, &node(1)).await.unwrap();
    keeper.table.register_disk_incarnation(term, &info(1), 0, 1, 1).await.unwrap();
    keeper.table.create_volume(term, &NewVolume { disks: vec![disk(1)], ..new(1) }).await.unwrap();
    keeper.index.create_fence(volume(1), EPOCH).await.unwrap();
    let frontend = clerk("reader").store("/".as_ref()).unwrap().open_for_frontend(CELL).await.unwrap();
    frontend.index.put_key(&KeyId([1; 16]), b"wrapped").await.unwrap();
    frontend.index.insert(&batch(1, vec![row(1, 64)], 4096)).await.unwrap();
    assert_eq!(frontend.index.touch(&[hash(1)]).await.unwrap(), [true]);
    assert_eq!(frontend.table.locations(volume(1)).await.unwrap().unwrap().replicas.len(), 1);
}

#[tokio::test]
async fn values_that_nobody_writes_are_reported_as_damage() {
    let subject = Subject::mysql(1).await;
    let catalog = subject.open().await;
    let (table, index) = (&catalog.table, &catalog.index);
    let term = table.take_leadership().await.unwrap();
    for number in 1..=3 {
        table.upsert_node(term, &node(number)).await.unwrap();
        table.register_disk_incarnation(term, &info(number), 0, 1, u64::from(number)).await.unwrap();
    }
    table.create_volume(term, &new(1)).await.unwrap();
    index.create_fence(volume(1), EPOCH).await.unwrap();
    index.insert(&batch(1, vec![row(1, 64)], 4096)).await.unwrap();
    let mut of_table = session(subject.config.table.as_ref().unwrap()).await;
    let mut of_index = session(&subject.config.index[0]).await;
    let damaged = |error: CatalogError, what: &str| {
        assert!(matches!(&error, CatalogError::Damaged(found) if found.contains(what)), "{error}");
    };
    of_table.query_drop("UPDATE volumes SET state = 'molten'").await.unwrap();
    damaged(table.volume(volume(1)).await.unwrap_err(), "a volume's state is \"molten\"");
    damaged(table.locations(volume(1)).await.unwrap_err(), "molten");
    damaged(table.open_volume(term, volume(1)).await.unwrap_err(), "molten");
    of_table.query_drop("UPDATE volumes SET state = 'open', capacity = -1").await.unwrap();
    damaged(table.volumes().await.unwrap_err(), "capacity is -1");
    of_table.query_drop("UPDATE nodes SET zone = x'ff'").await.unwrap();
    damaged(table.nodes().await.unwrap_err(), "zone is no text");
    of_table.query_drop("DELETE FROM leader").await.unwrap();
    damaged(table.term().await.unwrap_err(), "the leader's row is gone");
    of_index.query_drop("UPDATE blocks SET start = -5").await.unwrap();
    damaged(index.lookup(&[hash(1)]).await.unwrap_err(), "offset is -5");
    of_index.query_drop("UPDATE fences SET epoch = -1").await.unwrap();
    damaged(index.fence(volume(1)).await.unwrap_err(), "epoch is -1");
    let error = index.insert(&batch(1, vec![row(2, 64)], 4096)).await.unwrap_err();
    assert!(matches!(error, InsertError::Catalog(CatalogError::Damaged(_))), "{error}");
}

#[tokio::test]
async fn an_insert_that_one_shard_refuses_is_refused_and_its_rows_elsewhere_lie_below_the_floor() {
    let subject = Subject::mysql(4).await;
    let index = subject.open().await.index;
    index.create_fence(volume(1), EPOCH).await.unwrap();
    let rows: Vec<_> =
        (0..4u8).map(|shard| NewRow { hash: in_shard(shard, 0), ..row(0, 4096 + u64::from(shard) * 100) }).collect();
    // A close that came as far as one shard.
    let close = "UPDATE fences SET closed = 1, epoch = 2";
    session(&subject.config.index[2]).await.query_drop(close).await.unwrap();
    let error = index.insert(&batch(1, rows.clone(), 8192)).await.unwrap_err();
    assert!(matches!(&error, InsertError::Fenced(fenced) if fenced.reason == FenceReason::Closed), "{error}");
    let hashes: Vec<_> = rows.iter().map(|row| row.hash).collect();
    let found: Vec<_> = index.lookup(&hashes).await.unwrap().iter().map(Option::is_some).collect();
    assert_eq!(found, [true, true, false, true]);
    // The writer puts the blocks elsewhere, meanwhile or later.
    index.create_fence(volume(2), EPOCH).await.unwrap();
    let elsewhere = rows.iter().map(|row| NewRow { offset: row.offset - 4096, ..row.clone() }).collect();
    index.insert(&batch(2, elsewhere, 4096)).await.unwrap();
    assert_eq!(index.close_fence(volume(1), WriteEpoch(2)).await.unwrap(), 8192);
    let volumes: Vec<_> = index.lookup(&hashes).await.unwrap().iter().map(|row| row.unwrap().volume).collect();
    assert_eq!(volumes, [volume(1), volume(1), volume(2), volume(1)]);
    assert!(index.fence(volume(1)).await.unwrap().unwrap().closed);
}

#[tokio::test]
async fn hashes_are_split_evenly_and_scanned_in_order() {
    let subject = Subject::mysql(4).await;
    let index = subject.open().await.index;
    index.create_fence(volume(1), EPOCH).await.unwrap();
    let rows = (0..1000).map(|at| row(at, at * 100)).collect();
    index.insert(&batch(1, rows, 100_000)).await.unwrap();
    for (shard, url) in subject.config.index.iter().enumerate() {
        let all: Vec<Vec<u8>> = session(url).await.query("SELECT hash FROM blocks").await.unwrap();
        assert!((200..300).contains(&all.len()), "{}", all.len());
        assert!(all.iter().all(|hash| usize::from(hash[0] >> 6) == shard));
    }
    let scanned = index.scan(None, 600).await.unwrap();
    let rest = index.scan(Some(scanned.last().unwrap().0), 600).await.unwrap();
    let hashes: Vec<_> = scanned.iter().chain(&rest).map(|(hash, _)| *hash).collect();
    assert_eq!((scanned.len(), rest.len()), (600, 400));
    assert!(hashes.is_sorted());
}

#[tokio::test]
async fn who_becomes_the_leader_waits_for_what_the_one_before_has_begun() {
    let subject = Subject::mysql(1).await;
    let table = subject.open().await.table;
    let old = table.take_leadership().await.unwrap();
    for number in 1..=3 {
        table.upsert_node(old, &node(number)).await.unwrap();
        table.register_disk_incarnation(old, &info(number), 0, 1, u64::from(number)).await.unwrap();
    }
    table.create_volume(old, &new(1)).await.unwrap();
    // Something keeps the old leader's write in its middle: it has compared its term, and not written yet.
    let mut other = session(subject.config.table.as_ref().unwrap()).await;
    other.query_drop("BEGIN").await.unwrap();
    other.query_drop("SELECT state FROM volumes FOR UPDATE").await.unwrap();
    let writing = tokio::spawn({
        let table = Arc::clone(&table);
        async move { table.open_volume(old, volume(1)).await }
    });
    wait_for_a_lock(&mut other, 1).await;
    let taking = tokio::spawn({
        let table = subject.open().await.table;
        async move { table.take_leadership().await }
    });
    wait_for_a_lock(&mut other, 2).await;
    assert_eq!(table.term().await.unwrap(), old);
    other.query_drop("COMMIT").await.unwrap();
    writing.await.unwrap().unwrap();
    assert_eq!(taking.await.unwrap().unwrap(), Term(old.0 + 1));
    assert_eq!(table.volume(volume(1)).await.unwrap().unwrap().state, VolumeState::Open);
    assert!(matches!(table.upsert_node(old, &node(9)).await, Err(CatalogError::StaleTerm { .. })));
}

/// Waits until so many others in the database of `session` have been at a statement for a while.
async fn wait_for_a_lock(session: &mut mysql_async::Conn, others: u64) {
    let until = Instant::now() + Duration::from_secs(20);
    let sql = "SELECT count(*) FROM information_schema.processlist
               WHERE db = DATABASE() AND id <> connection_id() AND command <> 'Sleep' AND time_ms > 200";
    while session.query_first::<u64, _>(sql).await.unwrap() != Some(others) {
        assert!(Instant::now() < until, "not {others} wait");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_transaction_that_a_deadlock_ends_is_done_again() {
    let subject = Subject::mysql(1).await;
    let index = subject.open().await.index;
    index.create_fence(volume(1), EPOCH).await.unwrap();
    index.create_fence(volume(2), EPOCH).await.unwrap();
    let mut other = session(&subject.config.index[0]).await;
    other.query_drop("CREATE TABLE weight (a INT PRIMARY KEY)").await.unwrap();
    other.query_drop("BEGIN").await.unwrap();
    // Who changed less is ended.
    other.query_drop("INSERT INTO weight SELECT seq FROM seq_1_to_1000").await.unwrap();
    let lock = "SELECT small FROM fences WHERE volume = ? FOR UPDATE";
    other.exec_drop(lock, (volume(2).as_bytes(),)).await.unwrap();
    let inserting = tokio::spawn({
        let index = Arc::clone(&index);
        async move { index.insert_many(&[batch(1, vec![row(1, 64)], 4096), batch(2, vec![row(2, 64)], 4096)]).await }
    });
    wait_for_a_lock(&mut other, 1).await;
    other.exec_drop(lock, (volume(1).as_bytes(),)).await.unwrap();
    other.query_drop("COMMIT").await.unwrap();
    assert!(inserting.await.unwrap().unwrap().iter().all(Result::is_ok));
    assert_eq!(index.count().await.unwrap(), 2);
}

#[tokio::test]
async fn every_write_whose_answer_is_lost_at_its_commit_is_answered_as_done() {
    let subject = Subject::mysql(1).await;
    let direct = subject.open().await;
    let proxy = Proxy::start(Server::shared().port()).await;
    let through = |url: &String| url.replace(&format!(":{}/", Server::shared().port()), &format!(":{}/", proxy.port));
    let config = CatalogConfig {
        table: subject.config.table.as_ref().map(through),
        index: subject.config.index.iter().map(through).collect(),
        ..subject.config.clone()
    };
    let Catalog { index, table } = open(&config, CELL).await.unwrap();
    // Each call loses the answer to its first commit.
    macro_rules! lost {
        ($call:expr) => {{
            proxy.lose_answers_to_commits(1);
            let answer = $call.await;
            assert_eq!(proxy.left_to_lose(), 0, "{} committed nothing", stringify!($call));
            answer.unwrap()
        }};
    }
    let term = lost!(table.take_leadership());
    assert_eq!(term, Term(2), "raised once more, which is as good");
    assert_eq!(lost!(table.raise_generation(term)), 3);
    for number in 1..=4 {
        lost!(table.upsert_node(term, &node(number)));
        let registered = lost!(table.register_disk_incarnation(term, &info(number), 0, 1, 7));
        assert_eq!(registered, Registration::Accepted);
    }
    lost!(table.upsert_disk(term, &info(1)));
    lost!(table.create_volume(term, &new(1)));
    lost!(table.create_volume(term, &new(2)));
    lost!(index.create_fence(volume(1), EPOCH));
    lost!(table.open_volume(term, volume(1)));
    lost!(table.fail_volume(term, volume(2), "why"));
    assert_eq!(lost!(table.renew_leases(term, HOLDER, &[volume(1)], 9000)), [volume(1)]);
    lost!(index.insert(&batch(1, vec![row(1, 64)], 4096)));
    subject.a_day_passes().await;
    assert_eq!(lost!(index.touch(&[hash(1)])), [true]);
    assert_eq!(lost!(index.put_key(&KeyId([1; 16]), b"wrapped")), 1);
    let epoch = lost!(table.begin_seal(term, volume(1), EPOCH, "full"));
    assert_eq!(epoch, WriteEpoch(2));
    assert_eq!(lost!(index.close_fence(volume(1), epoch)), 4096);
    assert_eq!(lost!(table.commit_length(term, volume(1), epoch, 4096)), LengthCommitted(4096));
    lost!(table.commit_seal(term, volume(1), [9; 32], &[disk(1), disk(2)]));
    lost!(table.set_replicas(term, volume(1), &[disk(1), disk(2)], &[disk(1), disk(4)]));
    let sealed = direct.table.volume(volume(1)).await.unwrap().unwrap();
    assert_eq!((sealed.state, sealed.replicas), (VolumeState::Sealed, vec![disk(1), disk(4)]));
    assert_eq!(direct.index.count().await.unwrap(), 1);

    // Nobody to ask any more: the error says that it may have been done, as here it was.
    direct.index.create_fence(volume(5), EPOCH).await.unwrap();
    proxy.lose_answers_to_commits(u32::MAX);
    let error = index.insert(&batch(5, vec![row(5, 64)], 4096)).await.unwrap_err();
    assert!(error.to_string().contains("whether a change was made is not known"), "{error}");
    assert_eq!(direct.index.count().await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answered_insert_outlives_a_kill_of_the_server() {
    let server = Arc::new(Server::start());
    let config = fresh(&server, 2).await;
    let Catalog { index, .. } = open(&config, CELL).await.unwrap();
    let mut answered = Vec::new();
    for round in 0..3u8 {
        let mut writers = Vec::new();
        for lane in 0..4u8 {
            let (number, index) = (round * 4 + lane, Arc::clone(&index));
            index.create_fence(volume(number), EPOCH).await.unwrap();
            writers.push(tokio::spawn(async move {
                let mut answered = Vec::new();
                for turn in 1..=60u64 {
                    let first = u64::from(number) << 32 | turn << 8;
                    let rows: Vec<_> = (0..4).map(|at| row(first + at, turn * 4096 + at * 100)).collect();
                    let hashes: Vec<_> = rows.iter().map(|row| row.hash).collect();
                    // One that fails may be there or not.
                    if index.insert(&batch(number, rows, (turn + 1) * 4096)).await.is_ok() {
                        answered.extend(hashes);
                    }
                }
                answered
            }));
        }
        let until = Instant::now() + Duration::from_secs(20);
        let before = index.count().await.unwrap();
        while index.count().await.unwrap() < before + 100 {
            assert!(Instant::now() < until, "nothing is inserted");
        }
        let (server, restarted) = (Arc::clone(&server), Arc::clone(&server));
        tokio::task::spawn_blocking(move || {
            server.kill();
            server.restart();
        })
        .await
        .unwrap();
        drop(restarted);
        for writer in writers {
            answered.extend(writer.await.unwrap());
        }
    }
    assert!(answered.len() > 1000, "{}", answered.len());
    let found = open(&config, CELL).await.unwrap().index.lookup(&answered).await.unwrap();
    assert_eq!(found.iter().filter(|row| row.is_none()).count(), 0, "of {}", answered.len());
}

#[tokio::test]
async fn a_row_takes_less_than_a_hundred_and_twenty_bytes() {
    const ROWS: u64 = 20_000;
    let subject = Subject::mysql(1).await;
    let index = subject.open().await.index;
    index.create_fence(volume(1), EPOCH).await.unwrap();
    for first in (0..ROWS).step_by(100) {
        let whole = |at: u64| NewRow { offset: at * 4_194_432, length: 4_194_432, plain_len: 4_194_304, ..row(at, 0) };
        let rows = (first..first + 100).map(whole).collect();
        index.insert(&batch(1, rows, ROWS * 4_194_432)).await.unwrap();
    }
    let mut session = session(&subject.config.index[0]).await;
    session.query_drop("ANALYZE TABLE blocks").await.unwrap();
    // A small table has more room than it needs, so the pages that hold rows are counted.
    let sql =
        "SELECT stat_value * @@innodb_page_size FROM mysql.innodb_index_stats WHERE database_name = DATABASE() AND
               table_name = 'blocks' AND index_name = 'PRIMARY' AND stat_name = 'n_leaf_pages'";
    let bytes = session.query_first::<u64, _>(sql).await.unwrap().unwrap() / ROWS;
    assert!((60..120).contains(&bytes), "{bytes} bytes a row");
}
