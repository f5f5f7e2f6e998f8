//! A life of a daemon. The tasks of a process cannot be taken from the runtime that all processes share, so a process is
//! stopped or killed by what it reaches the world through: network, catalog and disks pass its gate. A process that is
//! paused stands at it, and goes on with what it was about to do when it is resumed; one that is dead never passes again.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Paused,
    Dead,
}

/// One life of one daemon.
#[derive(Debug)]
pub struct Process {
    /// The daemon's name.
    pub name: String,
    /// Which of its lives it is, from 1.
    pub life: u64,
    /// Asks it to end by itself.
    pub stop: CancellationToken,
    state: Mutex<State>,
    resumed: Notify,
    dead: CancellationToken,
}

impl Process {
    /// A process that runs.
    pub fn new(name: &str, life: u64) -> Self {
        Self {
            name: name.to_owned(),
            life,
            stop: CancellationToken::new(),
            state: Mutex::new(State::Running),
            resumed: Notify::new(),
            dead: CancellationToken::new(),
        }
    }

    /// Waits while the process is paused; never ends once it is dead.
    pub async fn gate(&self) {
        loop {
            let resumed = self.resumed.notified();
            tokio::pin!(resumed);
            resumed.as_mut().enable();
            let state = *self.state();
            match state {
                State::Running => return,
                State::Paused => resumed.await,
                State::Dead => std::future::pending().await,
            }
        }
    }

    /// Ends when the process is dead.
    pub async fn died(&self) {
        self.dead.cancelled().await;
    }

    /// Whether it is neither paused nor dead.
    pub fn runs(&self) -> bool {
        *self.state() == State::Running
    }

    /// Whether it is dead.
    pub fn is_dead(&self) -> bool {
        *self.state() == State::Dead
    }

    /// As SIGSTOP.
    pub fn pause(&self) {
        let mut state = self.state();
        if *state == State::Running {
            *state = State::Paused;
        }
    }

    /// As SIGCONT.
    pub fn resume(&self) {
        {
            let mut state = self.state();
            if *state == State::Paused {
                *state = State::Running;
            }
        }
        self.resumed.notify_waiters();
    }

    /// As SIGKILL: whatever its tasks still do reaches nobody.
    pub fn kill(&self) {
        *self.state() = State::Dead;
        self.dead.cancel();
        // Loops end; what they do at their end stands at the gate.
        self.stop.cancel();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
