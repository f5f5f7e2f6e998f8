//! What a daemon takes from the machine around it besides network and disks: the time of day, and chance for new ids. A
//! daemon is given both by value, so that a simulation can give it its own.
//!
//! Durations are not measured with [`WallClock`], which jumps, but with `tokio::time::Instant`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use holdfast_libs_crypto::CryptoError;

type ReadClock = Arc<dyn Fn() -> u64 + Send + Sync>;
type Draw = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

/// Both.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The time of day.
    pub clock: WallClock,
    /// New ids.
    pub ids: Ids,
}

/// The time of day, which may jump in both directions.
#[derive(Clone, Default)]
pub struct WallClock(Option<ReadClock>);

impl WallClock {
    /// The machine's.
    pub fn system() -> Self {
        Self(None)
    }

    /// One that shows what `read` answers, in milliseconds since 1970.
    pub fn given(read: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(read)))
    }

    /// Milliseconds since 1970; 0 before that.
    pub fn unix_ms(&self) -> u64 {
        match &self.0 {
            Some(read) => read(),
            None => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            }
        }
    }

    /// Seconds since 1970; 0 before that.
    pub fn unix_s(&self) -> u64 {
        self.unix_ms() / 1000
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "WallClock(given)" } else { "WallClock(system)" })
    }
}

/// Random bytes for ids and nothing else: keys and nonces come from `holdfast_libs_crypto` itself.
#[derive(Clone, Default)]
pub struct Ids(Option<Draw>);

impl Ids {
    /// From the operating system.
    pub fn system() -> Self {
        Self(None)
    }

    /// From `draw`, which fills what it is given.
    pub fn given(draw: impl Fn(&mut [u8]) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(draw)))
    }

    /// The next id.
    ///
    /// # Errors
    /// `Random` when the system has no random bytes to give.
    pub fn draw<const N: usize>(&self) -> Result<[u8; N], CryptoError> {
        let Some(draw) = &self.0 else { return holdfast_libs_crypto::random() };
        let mut bytes = [0; N];
        draw(&mut bytes);
        Ok(bytes)
    }
}

impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Ids(given)" } else { "Ids(system)" })
    }
}

#[cfg(test)]
mod tests {
    use super::{Ids, WallClock};

    #[test]
    fn what_is_given_is_what_is_seen_and_the_system_gives_its_own() {
        let clock = WallClock::given(|| 12_345);
        assert_eq!((clock.unix_ms(), clock.unix_s()), (12_345, 12));
        assert!(WallClock::system().unix_s() > 1_700_000_000);
        assert_eq!(Ids::given(|bytes| bytes.fill(7)).draw(), Ok([7; 16]));
        assert_ne!(Ids::system().draw::<16>(), Ids::system().draw::<16>());
    }
}
