//! Answers in time. An operation that takes too long is answered `Stalled`, while it goes on: its buffers may be the
//! kernel's, and it keeps its place in the bounded queue until it has really ended.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use futures_channel::oneshot;

use crate::error::EngineError;
use crate::reactor::Io;

/// How long an operation may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Answered within the deadline, whatever happens.
    Deadline,
    /// It moves a whole extent or waits for one that does: given up when the disk completes nothing for the length
    /// of the deadline, and in any case after [`MOST_DEADLINES`] of them.
    Progress,
}

/// Deadlines after which even an operation on a disk that moves is answered.
const MOST_DEADLINES: u32 = 60;

/// When an operation must be answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) sent_at: Duration,
    pub(crate) deadline: Duration,
    pub(crate) patience: Patience,
}

impl Limit {
    /// When to look next, at or after `now`; `None` when the time is up. `moved_at` is the disk's last completion.
    fn next(&self, now: Duration, moved_at: Duration) -> Option<Duration> {
        let due = match self.patience {
            Patience::Deadline => self.sent_at + self.deadline,
            Patience::Progress => {
                let last = self.sent_at + self.deadline * MOST_DEADLINES;
                last.min(self.sent_at.max(moved_at) + self.deadline)
            }
        };
        (due > now).then_some(due)
    }
}

/// Runs `operation` to its end and answers its result, or `late` when the limit comes first.
pub(crate) async fn answer_in_time<T>(
    io: Rc<Io>,
    limit: Limit,
    operation: impl Future<Output = Result<T, EngineError>>,
    answer: oneshot::Sender<Result<T, EngineError>>,
    late: impl FnOnce(Duration) -> EngineError,
) {
    let mut operation = pin!(operation);
    let mut unanswered = Some((answer, late));
    let mut alarm = pin!(io.sleep_until(limit.next(Duration::ZERO, Duration::ZERO).unwrap_or_default()));
    let result = poll_fn(|context| {
        if let Poll::Ready(result) = operation.as_mut().poll(context) {
            return Poll::Ready(result);
        }
        while unanswered.is_some() && alarm.as_mut().poll(context).is_ready() {
            match limit.next(io.now(), io.moved_at()) {
                Some(due) => alarm.set(io.sleep_until(due)),
                None => {
                    if let Some((answer, late)) = unanswered.take() {
                        // The caller may have gone away.
                        let _ = answer.send(Err(late(io.now().saturating_sub(limit.sent_at))));
                    }
                }
            }
        }
        Poll::Pending
    })
    .await;
    if let Some((answer, _)) = unanswered {
        // The caller may have gone away; the operation was done all the same.
        let _ = answer.send(result);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Limit, Patience};

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn only_what_moves_whole_extents_is_given_more_time_while_the_disk_moves() {
        let limit = |patience| Limit { sent_at: seconds(100), deadline: seconds(10), patience };
        let strict = limit(Patience::Deadline);
        assert_eq!(strict.next(seconds(105), seconds(104)), Some(seconds(110)));
        assert_eq!(strict.next(seconds(110), seconds(109)), None);
        let patient = limit(Patience::Progress);
        assert_eq!(patient.next(seconds(110), seconds(109)), Some(seconds(119)));
        assert_eq!(patient.next(seconds(119), seconds(109)), None, "nothing moved for ten seconds");
        assert_eq!(patient.next(seconds(105), seconds(3)), Some(seconds(110)), "counted from its start");
        assert_eq!(patient.next(seconds(700), seconds(699)), None, "nor for ever");
    }
}
