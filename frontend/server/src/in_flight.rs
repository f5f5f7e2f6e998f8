//! The blocks being stored at this moment. Who puts one of them again waits for the same outcome.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_libs_types::BlockHash;
use tokio::sync::oneshot;

use crate::answers::PutFailure;

/// How a block came to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    /// By this put.
    New,
    /// It was there already, or another put brought it at the same time.
    Known,
}

/// What became of a put.
pub(crate) type Outcome = Result<Stored, PutFailure>;

/// Hash -> everybody who waits for it, the one that stores it first.
#[derive(Debug, Clone, Default)]
pub(crate) struct InFlight(Arc<Mutex<HashMap<BlockHash, Vec<oneshot::Sender<Outcome>>>>>);

/// The duty to store one block. Whatever happens to it, those who wait get an answer.
#[derive(Debug)]
pub(crate) struct Ticket {
    in_flight: InFlight,
    hash: BlockHash,
    answered: bool,
}

impl InFlight {
    /// Waits for `hash`. The first to come gets the ticket and with it the duty.
    pub(crate) fn enter(&self, hash: BlockHash) -> (Option<Ticket>, oneshot::Receiver<Outcome>) {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let senders = waiting.entry(hash).or_default();
        senders.push(sender);
        let ticket = (senders.len() == 1).then(|| Ticket { in_flight: self.clone(), hash, answered: false });
        (ticket, receiver)
    }

    fn leave(&self, hash: &BlockHash, outcome: &Outcome) {
        let senders = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(hash).unwrap_or_default();
        for (index, sender) in senders.into_iter().enumerate() {
            let theirs = match outcome {
                Ok(Stored::New) if index > 0 => Ok(Stored::Known),
                other => other.clone(),
            };
            // Who put the block may have gone away; it is stored all the same.
            let _ = sender.send(theirs);
        }
    }
}

impl Ticket {
    /// Tells everybody.
    pub(crate) fn finish(mut self, outcome: &Outcome) {
        self.answered = true;
        self.in_flight.leave(&self.hash, outcome);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Once answered, another put of the same block may be waiting under this hash.
        if !self.answered {
            self.in_flight.leave(&self.hash, &Err(PutFailure::Unavailable("the put was given up".to_owned())));
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_libs_types::BlockHash;

    use super::{InFlight, Stored};
    use crate::answers::PutFailure;

    #[tokio::test]
    async fn one_put_stores_and_the_others_join_it() {
        let in_flight = InFlight::default();
        let hash = BlockHash([1; 32]);
        let (ticket, first) = in_flight.enter(hash);
        let (none, second) = in_flight.enter(hash);
        assert!(none.is_none());
        ticket.unwrap().finish(&Ok(Stored::New));
        assert_eq!((first.await.unwrap(), second.await.unwrap()), (Ok(Stored::New), Ok(Stored::Known)));
        assert!(in_flight.enter(hash).0.is_some(), "the next put starts anew");
    }

    #[tokio::test]
    async fn a_lost_ticket_fails_everybody_who_waits() {
        let in_flight = InFlight::default();
        let (ticket, waiting) = in_flight.enter(BlockHash([1; 32]));
        drop(ticket);
        assert!(matches!(waiting.await.unwrap(), Err(PutFailure::Unavailable(_))));
    }
}
