//! What the operator asked of repair: to pause, or another impact on clients. It stands in the catalog's settings, so that it
//! outlives the leader.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Json;
use axum::extract::State;
use holdfast_libs_transport::ApiError;
use holdfast_volume_manager_catalog::Catalog;
use holdfast_volume_manager_client::{RepairOrder, RepairPause, RepairStatus};
use serde::{Deserialize, Serialize};

use crate::error::{ServerError, answer};
use crate::manager::Manager;
use crate::repair::status;
use crate::routes::Message;

/// Under which it stands in the settings.
const KEY: &str = "repair";

/// Longest name of who paused, and longest reason.
const MAX_TEXT_BYTES: usize = 500;

/// Most that can be asked for, percent; beyond it there is no limit at all.
const MAX_IMPACT: u32 = 1_000_000;

/// What stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Wish {
    #[serde(default)]
    paused: Option<Pause>,
    #[serde(default)]
    impact: Wanted,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Pause {
    by: String,
    reason: Option<String>,
    since_ms: u64,
}

/// The impact that was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Wanted {
    /// That of the configuration.
    #[default]
    Configured,
    Percent(u32),
    Unlimited,
}

/// The operator's wishes.
#[derive(Debug)]
pub(crate) struct Wishes {
    stands: Mutex<Wish>,
    /// One change at a time: what is written is what is remembered.
    changing: tokio::sync::Mutex<()>,
}

impl Wishes {
    /// Those that stand in the catalog. What cannot be read is told, and does not keep a volume manager from leading.
    pub(crate) async fn load(catalog: &Catalog) -> Result<Self, ServerError> {
        let settings = catalog.table.settings().await?;
        let stands = settings.get(KEY).map(|text| serde_json::from_str(text)).transpose().unwrap_or_else(|error| {
            tracing::error!(%error, "the setting `{KEY}` cannot be read; repair runs as configured. Set it anew: holdfast admin repair set");
            None
        });
        Ok(Self { stands: Mutex::new(stands.unwrap_or_default()), changing: tokio::sync::Mutex::default() })
    }

    fn stands(&self) -> MutexGuard<'_, Wish> {
        self.stands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The impact that holds, percent; `None` for no limit.
    pub(crate) fn impact(&self, configured: u32) -> Option<u32> {
        match self.stands().impact {
            Wanted::Configured => Some(configured),
            Wanted::Percent(percent) => Some(percent),
            Wanted::Unlimited => None,
        }
    }

    /// By whom copies are paused, and since when.
    pub(crate) fn pause(&self, now_ms: u64) -> Option<RepairPause> {
        let paused = self.stands().paused.clone()?;
        let since_s_ago = now_ms.saturating_sub(paused.since_ms) / 1000;
        Some(RepairPause { by: paused.by, reason: paused.reason, since_s_ago, since_ms: paused.since_ms })
    }

    async fn change(&self, manager: &Manager, change: impl FnOnce(&mut Wish)) -> Result<(), ApiError> {
        let _alone = self.changing.lock().await;
        let mut wish = self.stands().clone();
        change(&mut wish);
        let text = serde_json::to_string(&wish).map_err(|error| ApiError::internal(error.to_string()))?;
        let written = manager.catalog.table.set_setting(manager.term, KEY, Some(&text)).await;
        written.map_err(|error| answer(&error))?;
        *self.stands() = wish;
        Ok(())
    }
}

/// `POST /v1/repair`
pub(crate) async fn order(
    State(manager): State<Arc<Manager>>,
    Message(order): Message<RepairOrder>,
) -> Result<Json<RepairStatus>, ApiError> {
    let too_long = |text: &str| text.len() > MAX_TEXT_BYTES;
    if too_long(&order.by) || order.reason.as_deref().is_some_and(too_long) {
        return Err(ApiError::bad_request(format!("`by` and `reason` have at most {MAX_TEXT_BYTES} bytes each")));
    }
    let impact = match order.max_client_impact.as_deref() {
        None => None,
        Some("unlimited") => Some(Wanted::Unlimited),
        Some("configured") => Some(Wanted::Configured),
        Some(text) => match text.parse() {
            Ok(percent) if percent <= MAX_IMPACT => Some(Wanted::Percent(percent)),
            _ => {
                let message = format!(
                    "max_client_impact is a whole number of percent up to {MAX_IMPACT}, `unlimited` or `configured`, not `{text}`"
                );
                return Err(ApiError::bad_request(message));
            }
        },
    };
    let now = manager.now_ms();
    let pause = || Pause { by: order.by.clone(), reason: order.reason.clone(), since_ms: now };
    let action = order.action.as_deref();
    if !matches!(action, None | Some("pause" | "resume")) {
        return Err(ApiError::bad_request(format!(
            "action is `pause` or `resume`, not `{}`",
            action.unwrap_or_default()
        )));
    }
    let wishes = &manager.wishes;
    let change = |wish: &mut Wish| {
        match action {
            // Who paused first stays.
            Some("pause") => drop(wish.paused.get_or_insert_with(pause)),
            Some("resume") => wish.paused = None,
            _ => {}
        }
        wish.impact = impact.unwrap_or(wish.impact);
    };
    wishes.change(&manager, change).await?;
    tracing::info!(by = order.by, action, impact = order.max_client_impact, "repair was ordered");
    manager.progress().stale = true;
    manager.wake.notify_one();
    status::of(&manager).await.map(Json)
}
