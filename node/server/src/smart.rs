//! Asks each disk now and then for its own view of its health (SMART). What is past the limits of the profile, or bad by
//! the disk's own judgement, is told once and shows in health and metrics; the disk is used all the same.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_hw_profiles::profile::SmartLimits;
use holdfast_hw_profiles::smart::Health;

use crate::Machine;
use crate::config::SmartConfig;
use crate::disks::OpenDisk;

/// What one disk last said.
#[derive(Debug, Default)]
pub(crate) struct Smart(Mutex<Answer>);

/// An answer with what is wrong in it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    /// `None`: it was not asked yet, or says nothing.
    pub health: Option<Health>,
    /// What is past its limit, each with both numbers.
    pub breaches: Vec<String>,
}

impl Smart {
    /// The last answer.
    pub(crate) fn answer(&self) -> Answer {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes an answer; says whether something is wrong that was not wrong by the one before. A disk that says nothing this
    /// time is no better for it.
    fn note(&self, health: Option<Health>, limits: &SmartLimits) -> bool {
        let Some(health) = health else { return false };
        let breaches = health.breaches(limits);
        let mut answer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The number itself may grow at every look; the kind of it is new only once.
        let kind = |breach: &String| breach.trim_start_matches(|c: char| c.is_ascii_digit()).to_owned();
        let known: Vec<String> = answer.breaches.iter().map(kind).collect();
        let worse = breaches.iter().any(|breach| !known.contains(&kind(breach)));
        *answer = Answer { health: Some(health), breaches };
        worse
    }
}

/// Runs until the disk is taken out of use.
pub(crate) async fn run(disk: Arc<OpenDisk>, machine: Machine, config: SmartConfig) {
    if config.every_ms == 0 {
        return;
    }
    tokio::select! {
        biased;
        () = disk.stop.cancelled() => {}
        () = forever(&disk, &machine, Duration::from_millis(config.every_ms.max(10))) => {}
    }
}

async fn forever(disk: &OpenDisk, machine: &Machine, period: Duration) {
    loop {
        let health = machine.health(&disk.path).await;
        if disk.smart.note(health, &disk.limits.smart) {
            let breaches = disk.smart.answer().breaches.join("; ");
            tracing::error!(disk = %disk.id(), path = %disk.path.display(), breaches,
                "the disk's own figures (SMART) are past their limits: replace it soon");
        }
        tokio::time::sleep(period).await;
    }
}

#[cfg(test)]
mod tests {
    use holdfast_hw_profiles::profile::SmartLimits;
    use holdfast_hw_profiles::smart::Health;

    use super::Smart;

    #[test]
    fn what_is_wrong_is_told_once_however_its_number_grows() {
        let limits = SmartLimits { pending_sectors: Some(0), media_errors: Some(0), ..SmartLimits::default() };
        let with = |pending, media| {
            Some(Health { pending_sectors: Some(pending), media_errors: Some(media), ..Health::default() })
        };
        let smart = Smart::default();
        let told = [(0, 0), (3, 0), (4, 0), (4, 1), (5, 1)].map(|(p, m)| smart.note(with(p, m), &limits));
        assert_eq!(told, [false, true, false, true, false]);
        assert_eq!(smart.answer().breaches.len(), 2);
        assert!(!smart.note(None, &limits) && smart.answer().breaches.len() == 2);
        assert!(!smart.note(with(0, 0), &limits) && smart.answer().breaches.is_empty());
    }
}
