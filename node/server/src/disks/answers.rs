//! Whether a disk answers, and what becomes of operations when it does not.
//!
//! Invariants:
//! - Every operation that passes here is answered within [`DEADLINE`], whatever the disk does.
//! - Once a disk has answered nothing for [`STALL_AFTER`] while operations wait, new ones are refused at once, until one
//!   is answered. Only a probe still goes through.
//! - Nothing is shared between disks here, so that one that hangs takes nothing from the others.
//!
//! The engine has deadlines of its own for each I/O, and better words for what hangs; this stands above them for the case
//! that the disk's own thread is stuck in the kernel.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_node_engine::EngineError;
use tokio::time::Instant;

/// An operation without an answer for so long is given up; its outcome is not known.
pub(crate) const DEADLINE: Duration = Duration::from_secs(12);

/// A disk that answers nothing for so long while operations wait has stalled.
pub(crate) const STALL_AFTER: Duration = Duration::from_secs(3);

/// What a disk that does not answer costs a caller.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// The disk has stalled since: nothing was tried.
    Refused(Duration),
    /// Given up after the deadline: it may have been done, or may still be.
    GivenUp,
}

/// The answers of one disk.
#[derive(Debug, Default)]
pub(crate) struct Answers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    waiting: usize,
    /// When something was last answered while others waited, or when the first of those that wait began.
    since: Option<Instant>,
    /// Operations were given up and none was answered since.
    given_up: bool,
}

impl State {
    fn stalled(&self) -> Option<Duration> {
        let waited = self.since.map(|since| since.elapsed()).filter(|_| self.waiting > 0 || self.given_up);
        waited.filter(|waited| self.given_up || *waited >= STALL_AFTER)
    }

    fn answered(&mut self) {
        self.since = Some(Instant::now());
        self.given_up = false;
    }
}

/// Counts an operation as waiting until it is dropped.
struct Waiting<'a>(&'a Answers);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}

impl Answers {
    /// Runs an operation that a sound disk answers in moments.
    ///
    /// # Errors
    /// [`Unanswered`]; the engine's own errors are inside.
    pub(crate) async fn await_answer<T>(
        &self,
        operation: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<Result<T, EngineError>, Unanswered> {
        self.admit()?;
        self.probe(operation).await
    }

    /// As [`Answers::await_answer`], also on a disk that has stalled: this is how it is found to answer again.
    ///
    /// # Errors
    /// `GivenUp`.
    pub(crate) async fn probe<T>(
        &self,
        operation: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<Result<T, EngineError>, Unanswered> {
        let waiting = self.enter();
        let result = tokio::time::timeout(DEADLINE, operation).await;
        match &result {
            Ok(result) if is_answer(result) => self.state().answered(),
            Ok(_) => {}
            Err(_) => self.state().given_up = true,
        }
        drop(waiting);
        result.map_err(|_| Unanswered::GivenUp)
    }

    /// Refuses when the disk has stalled. For operations that may take long, and so have no deadline here.
    ///
    /// # Errors
    /// `Refused`.
    pub(crate) fn admit(&self) -> Result<(), Unanswered> {
        self.stalled().map_or(Ok(()), |since| Err(Unanswered::Refused(since)))
    }

    /// For how long the disk has answered nothing, once that is too long.
    pub(crate) fn stalled(&self) -> Option<Duration> {
        self.state().stalled()
    }

    fn enter(&self) -> Waiting<'_> {
        let mut state = self.state();
        if state.waiting == 0 && !state.given_up {
            state.since = Some(Instant::now());
        }
        state.waiting += 1;
        Waiting(self)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the disk's thread had a part in a result. A full queue and arguments that are not right are told without it.
fn is_answer<T>(result: &Result<T, EngineError>) -> bool {
    !matches!(
        result,
        Err(EngineError::Busy { .. }
            | EngineError::Stalled { .. }
            | EngineError::InvalidArgument(_)
            | EngineError::InvalidBatch { .. })
    )
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use holdfast_node_engine::EngineError;
    use tokio::time::{Instant, advance};

    use super::{Answers, DEADLINE, STALL_AFTER, Unanswered};

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_given_up_in_time_what_comes_is_refused_at_once_and_an_answer_ends_it() {
        let answers = Answers::default();
        let start = Instant::now();
        let hung = answers.await_answer(pending::<Result<(), EngineError>>());
        assert!(matches!(hung.await, Err(Unanswered::GivenUp)));
        assert_eq!(start.elapsed(), DEADLINE);
        assert!(matches!(answers.await_answer(async { Ok(()) }).await, Err(Unanswered::Refused(_))));
        assert_eq!(start.elapsed(), DEADLINE);
        assert!(answers.probe(async { Ok(()) }).await.is_ok());
        assert!(answers.await_answer(async { Ok(()) }).await.is_ok());
        assert_eq!(answers.stalled(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_operation_among_answered_ones_is_no_stall() {
        let answers = Answers::default();
        let slow = answers.await_answer(pending::<Result<(), EngineError>>());
        tokio::pin!(slow);
        for _ in 0..4 {
            assert!(futures_util::poll!(slow.as_mut()).is_pending());
            advance(STALL_AFTER / 2).await;
            assert!(answers.await_answer(async { Ok(()) }).await.is_ok());
        }
        advance(STALL_AFTER).await;
        assert_eq!(answers.stalled(), Some(STALL_AFTER));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_is_no_answer_of_the_disk() {
        let answers = Answers::default();
        let hung = answers.await_answer(pending::<Result<(), EngineError>>());
        tokio::pin!(hung);
        assert!(futures_util::poll!(hung.as_mut()).is_pending());
        advance(STALL_AFTER - STALL_AFTER / 10).await;
        let busy = EngineError::Busy { disk: holdfast_libs_types::DiskId([1; 16]), detail: "its queue is full" };
        assert!(answers.await_answer(ready(Err::<(), _>(busy))).await.is_ok());
        advance(STALL_AFTER / 10).await;
        assert!(answers.stalled().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_nobody_asks_has_not_stalled() {
        let answers = Answers::default();
        assert!(answers.await_answer(async { Ok(()) }).await.is_ok());
        advance(DEADLINE * 100).await;
        assert_eq!(answers.stalled(), None);
    }
}
