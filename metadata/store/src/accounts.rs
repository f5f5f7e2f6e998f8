//! Accounts and the devices linked to them. A device is one access token.

use holdfast_libs_types::{AccountId, DeviceId};
use holdfast_metadata_model::NamespaceId;
use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};

use crate::{Actor, Store, StoreError, now_ms, password};

/// A user to be made.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// The name, unique without regard to case.
    pub user: String,
    /// The password.
    pub password: String,
    /// How many bytes of live files the account may hold.
    pub quota_bytes: u64,
}

/// A device that was just linked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Linked {
    /// Whose, and which.
    pub actor: Actor,
    /// Its token; only its hash is stored.
    pub token: String,
}

struct Account {
    id: AccountId,
    user: String,
    password: String,
    namespace: NamespaceId,
}

fn account(db: &Connection, user: &str) -> Result<Option<Account>, StoreError> {
    let key = holdfast_metadata_model::key(user);
    let mut statement = db.prepare_cached("SELECT id, user, password, namespace FROM accounts WHERE user_key = ?")?;
    let found = statement.query_row([key], |row| {
        Ok(Account {
            id: AccountId(row.get(0)?),
            user: row.get(1)?,
            password: row.get(2)?,
            namespace: NamespaceId(row.get(3)?),
        })
    });
    Ok(found.optional()?)
}

fn token_hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

impl Store {
    /// Makes an account with its root namespace. One of this name with the same password is left as it is. Hashing the
    /// password takes tens of milliseconds of the calling thread.
    ///
    /// # Errors
    /// `UserTaken` when the name has another password.
    pub async fn create_user(&self, new: NewUser) -> Result<AccountId, StoreError> {
        let user = new.user.clone();
        if let Some(known) = self.read(move |db| account(db, &user)).await? {
            return if password::verify(&new.password, &known.password)? {
                Ok(known.id)
            } else {
                Err(StoreError::UserTaken(new.user))
            };
        }
        let hash = password::hash(&new.password)?;
        self.write(move |write| {
            if account(write.db, &new.user)?.is_some() {
                return Err(StoreError::UserTaken(new.user));
            }
            let id = AccountId(holdfast_libs_crypto::random()?);
            let genesis: [u8; 32] = holdfast_libs_crypto::random()?;
            write.db.execute(
                "INSERT INTO namespaces (owner, genesis, hash) VALUES (?, ?, ?)",
                params![id.as_bytes(), genesis, genesis],
            )?;
            let namespace = write.db.last_insert_rowid();
            write.db.execute(
                "INSERT INTO accounts (id, user, user_key, password, namespace, quota_bytes, created_ms)
                 VALUES (?, ?, ?, ?, ?, ?, ?)",
                params![
                    id.as_bytes(),
                    new.user,
                    holdfast_metadata_model::key(&new.user),
                    hash,
                    namespace,
                    i64::try_from(new.quota_bytes).unwrap_or(i64::MAX),
                    now_ms()
                ],
            )?;
            Ok(id)
        })
        .await
    }

    /// Links a device: a new id and token. `None` for a wrong name or password. Takes tens of milliseconds of the
    /// calling thread.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn login(&self, user: &str, secret: &str, device_name: &str) -> Result<Option<Linked>, StoreError> {
        let name = user.to_owned();
        let Some(known) = self.read(move |db| account(db, &name)).await? else {
            // As slow as a wrong password, so that names cannot be told apart by the time it takes.
            password::hash(secret)?;
            return Ok(None);
        };
        if !password::verify(secret, &known.password)? {
            return Ok(None);
        }
        let token = format!("hf.{}", hex::encode(holdfast_libs_crypto::random::<32>()?));
        let hash = token_hash(&token);
        let device_name = device_name.to_owned();
        let actor = self
            .write(move |write| {
                write.db.execute(
                    "INSERT INTO devices (account, name, token_hash, created_ms) VALUES (?, ?, ?, ?)",
                    params![known.id.as_bytes(), device_name, hash, now_ms()],
                )?;
                let device = DeviceId(rows_id(write.db.last_insert_rowid())?);
                Ok(Actor { account: known.id, user: known.user, device, namespace: known.namespace })
            })
            .await?;
        Ok(Some(Linked { actor, token }))
    }

    /// Whose token this is.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn authenticate(&self, token: &str) -> Result<Option<Actor>, StoreError> {
        let hash = token_hash(token);
        self.read(move |db| actor(db, "d.token_hash = ?", params![hash])).await
    }

    /// The device, if its token still counts.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn device(&self, device: DeviceId) -> Result<Option<Actor>, StoreError> {
        self.read(move |db| actor(db, "d.id = ?", params![device.0])).await
    }
}

fn actor(db: &Connection, which: &str, value: &[&dyn rusqlite::ToSql]) -> Result<Option<Actor>, StoreError> {
    let sql = format!(
        "SELECT a.id, a.user, d.id, a.namespace FROM devices d JOIN accounts a ON a.id = d.account WHERE {which}"
    );
    let found = db.prepare_cached(&sql)?.query_row(value, |row| {
        Ok(Actor {
            account: AccountId(row.get(0)?),
            user: row.get(1)?,
            device: DeviceId(row.get(2)?),
            namespace: NamespaceId(row.get(3)?),
        })
    });
    Ok(found.optional()?)
}

/// A row id that SQLite gave out; never negative here.
pub(crate) fn rows_id(id: i64) -> Result<u64, StoreError> {
    u64::try_from(id).map_err(|_| StoreError::Damaged(format!("row id {id}")))
}
