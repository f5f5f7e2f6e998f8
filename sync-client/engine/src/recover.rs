//! After a restart: which of the effects that were begun were done.

use holdfast_sync_client_planner::{SyncedEntry, Whereabouts, outcome};

use crate::engine::Engine;
use crate::state::Intent;

impl Engine {
    /// The disk is known: effects that were begun before the last end are found done or not.
    pub(crate) fn after_first_scan(&mut self) {
        let intents = match self.state.intents() {
            Ok(intents) => intents,
            Err(error) => {
                self.trouble = Some(format!("the sync state cannot be read: {error}"));
                return;
            }
        };
        for (id, intent) in &intents {
            if let Intent::Write { parent, name, rev, content, stat } = intent.clone() {
                let local = Whereabouts::Unknown;
                let row = SyncedEntry { parent, name, rev, content, stat, racy: false, local };
                outcome::was_written(&mut self.trees, *id, row);
            }
        }
        self.trees.resolve();
        for (id, intent) in &intents {
            match intent {
                Intent::Move { parent, name } => outcome::was_moved(&mut self.trees, *id, *parent, name),
                Intent::Delete if self.trees.synced().get(*id).is_some_and(|row| row.local == Whereabouts::Gone) => {
                    self.trees.drop_synced(*id);
                }
                _ => {}
            }
        }
        self.trees.suspect_all();
        self.settle_disk(Vec::new());
    }
}
