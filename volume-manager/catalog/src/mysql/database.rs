//! One MySQL database: its bounded pool of connections, the settings of each session, and how a transaction is carried to its
//! end: retried whole after a deadlock or a lost connection.
//!
//! A connection that is lost at a commit leaves it open whether the transaction was carried out. Every operation of the
//! catalog may be repeated, so it is repeated: what was done before is then found and answered as done. When no repeat gets
//! through, the error says that the outcome is not known.
//!
//! A process may stop anywhere, also between two statements of a transaction, and its locks would stop everybody else: above all
//! the one that is to take over from it. The server ends a session that asks nothing in a transaction for 6 s, and with it its locks.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use mysql_async::prelude::{FromValue, Queryable as _};
use mysql_async::{Conn, Error, Opts, OptsBuilder, Pool, PoolConstraints, PoolOpts, Row, TxOpts};

use super::url::DatabaseUrl;
use crate::CatalogError;

/// Connections of one handle to one database; what is asked for beyond waits.
const CONNECTIONS: usize = 16;

/// How long one try at an operation may take, connecting included. A server that hangs must not hang its callers.
const TRY_LIMIT: Duration = Duration::from_secs(15);

/// How often an operation is tried.
const TRIES: u32 = 8;

/// The first wait between tries, about; each is up to twice the one before.
const BACKOFF_MS: u64 = 10;

/// Statements kept prepared on each connection.
const STATEMENTS: usize = 64;

/// What each session is set to. Strict: a value that does not fit is an error, never cut. READ COMMITTED is enough: what a
/// transaction decides on, it reads with a lock. Binary collation: names that differ in any byte are different. Silence in a
/// transaction is longer than a statement in another database of the same operation waits for a lock, and no longer than a leader's
/// lease; MySQL has a limit of silence for all of a session only, and the pool takes no connection that is gone.
const SESSION: [&str; 6] = [
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,ERROR_FOR_DIVISION_BY_ZERO'",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET NAMES utf8mb4 COLLATE utf8mb4_bin",
    "SET SESSION time_zone = '+00:00'",
    "SET SESSION innodb_lock_wait_timeout = 5",
    "SET SESSION /*M! idle_transaction_timeout */ /*!80000 wait_timeout */ = 6",
];

/// A database; clones share its connections.
#[derive(Clone)]
pub(crate) struct Database {
    pool: Pool,
    place: Arc<str>,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Database").field(&self.place).finish()
    }
}

impl Database {
    /// Connects when it is first used.
    ///
    /// # Errors
    /// `BadUrl`.
    pub fn new(url: &DatabaseUrl) -> Result<Self, CatalogError> {
        let opts: Opts = url.options()?;
        let place = url.place(&opts);
        let constraints = PoolConstraints::new(0, CONNECTIONS).unwrap_or_default();
        // Sessions keep their settings and prepared statements; a transaction that was left open is rolled back in any case.
        let pool_opts = PoolOpts::new().with_constraints(constraints).with_reset_connection(false);
        let opts = OptsBuilder::from_opts(opts)
            .prefer_socket(false)
            .stmt_cache_size(STATEMENTS)
            .pool_opts(pool_opts)
            .init(SESSION.to_vec());
        Ok(Self { pool: Pool::new(opts), place: place.into() })
    }

    /// Which database it is, for messages: no user, no password.
    pub fn place(&self) -> &str {
        &self.place
    }

    pub fn failed(&self, source: Error) -> CatalogError {
        CatalogError::Database { place: self.place.to_string(), source: Box::new(source) }
    }

    /// A connection of the pool.
    pub async fn session(&self) -> Result<Session, CatalogError> {
        let conn = self.pool.get_conn().await.map_err(|error| self.failed(error))?;
        Ok(Session { conn, database: self.clone() })
    }
}

/// A connection on loan, outside of transactions or in one. One whose call is dropped between question and answer is closed by the
/// pool; the next user would take the late answer for his own.
pub(crate) struct Session {
    conn: Conn,
    database: Database,
}

/// Parameters of a statement, by place.
pub(crate) type Values = Vec<mysql_async::Value>;

/// Writes the parameters of a statement.
macro_rules! values {
    ($($value:expr),* $(,)?) => { vec![$(mysql_async::Value::from($value)),*] };
}
pub(crate) use values;

impl Session {
    /// Begins a transaction. One that is not committed is rolled back when the session is dropped.
    pub async fn begin(&mut self) -> Result<Transaction<'_>, CatalogError> {
        let Self { conn, database } = self;
        let tx = conn.start_transaction(TxOpts::default()).await;
        Ok(Transaction { tx: tx.map_err(|error| database.failed(error))?, database })
    }

    /// The rows of one statement.
    pub async fn rows(&mut self, sql: &str, values: Values) -> Result<Vec<Row>, CatalogError> {
        self.conn.exec(sql, values).await.map_err(|error| self.database.failed(error))
    }

    /// The first row of one statement.
    pub async fn first(&mut self, sql: &str, values: Values) -> Result<Option<Row>, CatalogError> {
        self.conn.exec_first(sql, values).await.map_err(|error| self.database.failed(error))
    }

    /// Carries out one statement that is not prepared.
    pub async fn run(&mut self, sql: &str) -> Result<(), CatalogError> {
        self.conn.query_drop(sql).await.map_err(|error| self.database.failed(error))
    }
}

/// A transaction; rolled back when it is dropped.
pub(crate) struct Transaction<'a> {
    tx: mysql_async::Transaction<'a>,
    database: &'a Database,
}

impl Transaction<'_> {
    /// The rows of one statement.
    pub async fn rows(&mut self, sql: &str, values: Values) -> Result<Vec<Row>, CatalogError> {
        self.tx.exec(sql, values).await.map_err(|error| self.database.failed(error))
    }

    /// The first row of one statement.
    pub async fn first(&mut self, sql: &str, values: Values) -> Result<Option<Row>, CatalogError> {
        self.tx.exec_first(sql, values).await.map_err(|error| self.database.failed(error))
    }

    /// Carries out one statement that answers no rows.
    pub async fn change(&mut self, sql: &str, values: Values) -> Result<(), CatalogError> {
        self.tx.exec_drop(sql, values).await.map_err(|error| self.database.failed(error))
    }

    /// Durable when this returns.
    pub async fn commit(self) -> Result<(), CatalogError> {
        let Self { tx, database } = self;
        tx.commit().await.map_err(|error| database.failed(error))
    }
}

/// Runs a task to its end, also when nobody waits for it any more.
pub(crate) async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, CatalogError>> + Send + 'static,
) -> Result<T, CatalogError> {
    // One type of task for all operations of one answer: a type for each takes the compiler long.
    let work: BoxFuture<'static, _> = Box::pin(work);
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(CatalogError::Stopped),
        },
    }
}

/// Tries an operation until it is carried out or fails for good. `attempt` does all of it anew each time.
pub(crate) async fn retry<T, F>(database: &Database, mut attempt: impl FnMut() -> F) -> Result<T, CatalogError>
where
    F: Future<Output = Result<T, CatalogError>>,
{
    let mut tries = 1;
    loop {
        let failed = match tokio::time::timeout(TRY_LIMIT, attempt()).await {
            Ok(Err(error)) => error,
            Ok(done) => return done,
            Err(_) => {
                let late = std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer within {TRY_LIMIT:?}"));
                database.failed(Error::Io(late.into()))
            }
        };
        let Some(trouble) = passing(&failed) else { return Err(failed) };
        if tries >= TRIES || (matches!(trouble, Trouble::Late) && tries > 1) {
            return Err(match trouble {
                Trouble::Conflict => CatalogError::Busy,
                Trouble::Lost | Trouble::Late => failed,
            });
        }
        let wait = BACKOFF_MS << tries.min(6);
        tokio::time::sleep(Duration::from_millis(wait / 2 + rand::random_range(0..wait))).await;
        tries += 1;
    }
}

/// What may be otherwise at the next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// Another transaction was in the way; this one was rolled back.
    Conflict,
    /// The connection is gone. What was committed on it is not known.
    Lost,
    /// The server does not answer, and each try waits long.
    Late,
}

fn passing(error: &CatalogError) -> Option<Trouble> {
    let CatalogError::Database { source, .. } = error else { return None };
    match &**source {
        Error::Io(mysql_async::IoError::Io(error)) if error.kind() == std::io::ErrorKind::TimedOut => {
            Some(Trouble::Late)
        }
        // Also a connection that is refused: a server that restarts is back soon.
        Error::Io(mysql_async::IoError::Io(_))
        | Error::Driver(mysql_async::DriverError::ConnectionClosed | mysql_async::DriverError::PacketOutOfOrder) => {
            Some(Trouble::Lost)
        }
        Error::Server(error) => match error.code {
            // Lock wait timeout; deadlock; a row that another transaction inserted since it was looked for; a row that
            // changed since the transaction's snapshot.
            1205 | 1213 | 1062 | 1020 => Some(Trouble::Conflict),
            // Shutting down; too many connections; killed; silent for too long.
            1053 | 1040 | 1927 | 1317 | 4031 => Some(Trouble::Lost),
            _ => None,
        },
        _ => None,
    }
}

/// Takes a column's value.
///
/// # Errors
/// `Damaged` when it is not of the type that is written there.
pub(crate) fn column<T: FromValue>(row: &mut Row, at: usize, what: &str) -> Result<T, CatalogError> {
    match row.take_opt(at) {
        Some(Ok(value)) => Ok(value),
        Some(Err(_)) => Err(CatalogError::Damaged(format!("{what} is of another type"))),
        None => Err(CatalogError::Damaged(format!("{what} is not there"))),
    }
}

/// Takes a column of so many bytes.
pub(crate) fn bytes<const N: usize>(row: &mut Row, at: usize, what: &str) -> Result<[u8; N], CatalogError> {
    fixed(column(row, at, what)?, what)
}

/// Takes a column of so many bytes, or none.
pub(crate) fn maybe_bytes<const N: usize>(
    row: &mut Row,
    at: usize,
    what: &str,
) -> Result<Option<[u8; N]>, CatalogError> {
    column::<Option<Vec<u8>>>(row, at, what)?.map(|found| fixed(found, what)).transpose()
}

fn fixed<const N: usize>(found: Vec<u8>, what: &str) -> Result<[u8; N], CatalogError> {
    let length = found.len();
    found.try_into().map_err(|_| CatalogError::Damaged(format!("{what} has {length} bytes, not {N}")))
}

/// Takes a number that is not negative.
pub(crate) fn number(row: &mut Row, at: usize, what: &'static str) -> Result<u64, CatalogError> {
    crate::number::uint(what, column(row, at, what)?)
}

/// Takes a number that is not negative, or none.
pub(crate) fn maybe_number(row: &mut Row, at: usize, what: &'static str) -> Result<Option<u64>, CatalogError> {
    column::<Option<i64>>(row, at, what)?.map(|found| crate::number::uint(what, found)).transpose()
}

/// Takes a text that was written as bytes.
pub(crate) fn text(row: &mut Row, at: usize, what: &str) -> Result<String, CatalogError> {
    let bytes: Vec<u8> = column(row, at, what)?;
    String::from_utf8(bytes).map_err(|_| CatalogError::Damaged(format!("{what} is no text")))
}

#[cfg(test)]
mod tests {
    use holdfast_tests_mariadb::Server;

    use super::{Database, DatabaseUrl, Trouble, passing, retry};

    #[tokio::test]
    async fn the_locks_of_one_that_stopped_in_a_transaction_do_not_outlive_it_by_much() {
        let server = tokio::task::spawn_blocking(Server::start).await.unwrap();
        let database = Database::new(&DatabaseUrl::new("url", server.url("mysql"), None)).unwrap();
        let mut session = database.session().await.unwrap();
        for prepare in
            ["CREATE DATABASE a", "CREATE TABLE a.one (n INT) ENGINE = InnoDB", "INSERT INTO a.one VALUES (1)"]
        {
            session.run(prepare).await.unwrap();
        }
        let mut stopped = session.begin().await.unwrap();
        stopped.change("UPDATE a.one SET n = 2", vec![]).await.unwrap();
        let other = async || {
            let mut session = database.session().await?;
            let mut transaction = session.begin().await?;
            transaction.rows("SELECT n FROM a.one FOR UPDATE", vec![]).await.map(|rows| rows.len())
        };
        assert_eq!(retry(&database, other).await.unwrap(), 1);
        let late = stopped.commit().await.unwrap_err();
        assert!(matches!(passing(&late), Some(Trouble::Lost)), "{late}");
    }
}
