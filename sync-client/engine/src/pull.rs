//! Learns what others changed: a long poll, and plain pulls besides.
//!
//! A page counts only if it starts at the cursor that the engine stands at, and is taken in only while no commit is
//! without its answer: so a change of this device is known by its answer before the journal tells of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_libs_transport::CallError;
use holdfast_metadata_client::{Changes, ChangesRequest, code};

use crate::engine::Engine;
use crate::jobs::Event;
use crate::question::Question;
use crate::state::{Writing, key};

/// Entries of one page.
const PAGE: u32 = 5000;

/// How long the server may let a long poll wait.
const WAIT_MS: u64 = 30_000;

/// Pauses after a failure: doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(15);

/// Where the pulls stand.
#[derive(Debug)]
pub(crate) struct Pulls {
    cursor: Option<String>,
    /// The pages so far are a whole.
    complete: bool,
    /// A pull was answered since the start.
    fresh: bool,
    sequence: u64,
    polling: bool,
    pulling: bool,
    /// How many plain pulls began and ended; a waiter wants one that began after it asked.
    begun: u64,
    done: u64,
    wanted: bool,
    last: Option<Instant>,
    not_before: Option<Instant>,
    pause: Duration,
    interval: Duration,
    notifications: bool,
    trouble: Option<String>,
    /// A page that came while a commit was unanswered.
    stashed: Vec<(Option<String>, Changes)>,
    unsaved: bool,
}

impl Pulls {
    pub(crate) fn new(cursor: Option<String>, complete: bool, sequence: u64, interval: Duration, notify: bool) -> Self {
        Self {
            cursor,
            complete,
            fresh: false,
            sequence,
            polling: false,
            pulling: false,
            begun: 0,
            done: 0,
            wanted: true,
            last: None,
            not_before: None,
            pause: FIRST_PAUSE,
            interval,
            notifications: notify,
            trouble: None,
            stashed: Vec::new(),
            unsaved: false,
        }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.complete && self.fresh
    }

    /// Asks for a plain pull soon.
    pub(crate) fn want(&mut self) {
        self.wanted = true;
    }

    /// Asks for a plain pull; answers the number that [`Self::done`] reaches once a pull that began after now ended.
    pub(crate) fn want_now(&mut self) -> u64 {
        self.wanted = true;
        self.not_before = None;
        self.begun + 1
    }

    pub(crate) fn done(&self) -> u64 {
        self.done
    }

    /// Whether nothing is known to have happened that was not pulled.
    pub(crate) fn is_current(&self, committed: u64) -> bool {
        self.is_complete()
            && self.sequence >= committed
            && self.stashed.is_empty()
            && self.trouble.is_none()
            && !self.pulling
            && !self.wanted
    }

    /// Whether the cursor moved since it was persisted.
    pub(crate) fn is_unsaved(&self) -> bool {
        self.unsaved
    }

    pub(crate) fn saved(&mut self) {
        self.unsaved = false;
    }

    /// Persists the cursor, in the transaction that persists what it brought.
    pub(crate) fn write(&self, writing: &Writing<'_>) -> rusqlite::Result<()> {
        if let Some(cursor) = &self.cursor {
            writing.set(key::CURSOR, cursor)?;
        }
        writing.set(key::SEQUENCE, self.sequence)?;
        writing.set(key::COMPLETE, u8::from(self.complete))
    }

    pub(crate) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    pub(crate) fn next_at(&self) -> Option<Instant> {
        match (self.not_before, self.last) {
            (Some(at), _) => Some(at),
            (None, Some(last)) => Some(last + self.interval),
            (None, None) => None,
        }
    }
}

impl Engine {
    pub(crate) fn start_pulls(&mut self, now: Instant) {
        self.take_stashed();
        let pulls = &mut self.pulls;
        if pulls.not_before.is_some_and(|at| at > now) {
            return;
        }
        pulls.not_before = None;
        // With a long poll that is current, it tells of commits; a plain pull is for the rest.
        let behind = !pulls.notifications && pulls.sequence < self.commits.sequence();
        let overdue = pulls.last.is_none_or(|last| now >= last + pulls.interval) || behind;
        let needs_plain = pulls.wanted || !pulls.complete || !pulls.fresh || overdue;
        if needs_plain && !pulls.pulling && pulls.stashed.is_empty() {
            pulls.pulling = true;
            pulls.wanted = false;
            pulls.begun += 1;
            self.ask(0);
        }
        let pulls = &mut self.pulls;
        let may_poll = pulls.notifications && pulls.complete && pulls.fresh && pulls.trouble.is_none();
        if may_poll && !pulls.polling && !pulls.pulling && pulls.stashed.is_empty() {
            pulls.polling = true;
            self.ask(WAIT_MS);
        }
    }

    fn ask(&self, wait_ms: u64) {
        let (network, events) = (Arc::clone(&self.parts.network), self.sender.clone());
        let from = self.pulls.cursor.clone();
        let request = ChangesRequest { namespace: self.namespace, cursor: from.clone(), limit: PAGE, wait_ms };
        tokio::spawn(async move {
            let result = network.changes(request).await;
            let event = if wait_ms == 0 { Event::Pulled { from, result } } else { Event::Polled { from, result } };
            // The engine may be gone.
            let _ = events.send(event);
        });
    }

    pub(crate) fn polled(&mut self, from: Option<String>, result: Result<Changes, CallError>) {
        self.pulls.polling = false;
        self.answered_by_server(from, result);
    }

    pub(crate) fn pulled(&mut self, from: Option<String>, result: Result<Changes, CallError>) {
        self.pulls.pulling = false;
        self.pulls.done = self.pulls.begun;
        self.answered_by_server(from, result);
    }

    fn answered_by_server(&mut self, from: Option<String>, result: Result<Changes, CallError>) {
        let now = self.parts.clock.now();
        match result {
            Ok(changes) => {
                self.pulls.trouble = None;
                self.pulls.pause = FIRST_PAUSE;
                self.pulls.last = Some(now);
                self.pulls.stashed.push((from, changes));
                self.take_stashed();
            }
            Err(error) if error.code() == Some(code::RESET) => self.question = Some(Question::Reset),
            Err(error) => {
                self.pulls.trouble = Some(match error.code() {
                    Some(code::UNAUTHORIZED) => {
                        "the server refuses this device; link it anew with `holdfast login`".to_owned()
                    }
                    _ => error.to_string(),
                });
                self.pulls.wanted = true;
                self.pulls.not_before = Some(now + self.pulls.pause);
                self.pulls.pause = (self.pulls.pause * 2).min(LAST_PAUSE);
            }
        }
    }

    fn take_stashed(&mut self) {
        if self.commits.is_in_flight() || self.commits.has_unanswered_from_before() {
            return;
        }
        for (from, changes) in std::mem::take(&mut self.pulls.stashed) {
            if from != self.pulls.cursor {
                // Another page got there first; the next one continues from it.
                continue;
            }
            if changes.reset {
                self.question = Some(Question::Reset);
                return;
            }
            self.take_page(changes);
        }
    }

    fn take_page(&mut self, changes: Changes) {
        let Changes { entries, cursor, sequence, has_more, .. } = changes;
        self.pulls.fresh = true;
        let is_new = !entries.is_empty() || self.pulls.cursor.as_ref() != Some(&cursor);
        if !is_new && self.pulls.complete != has_more {
            return;
        }
        self.trees.apply_remote(&entries);
        if has_more {
            self.pulls.wanted = true;
        } else {
            self.trees.finish_pull(sequence);
            self.pulls.sequence = self.pulls.sequence.max(sequence);
        }
        self.pulls.complete = !has_more;
        self.pulls.cursor = Some(cursor.clone());
        self.pulls.unsaved = true;
        self.persist();
    }
}
