//! Bugs that the mutation test plants, one at a time, to see that the crash test finds each. Without the feature
//! `planted-bugs` there are none, and [`planted!`] is `false` for the compiler.

/// `planted!(Bug)`: whether that bug is planted on this thread.
macro_rules! planted {
    ($bug:ident) => {{
        #[cfg(feature = "planted-bugs")]
        let is_planted = $crate::planted::is_planted($crate::planted::PlantedBug::$bug);
        #[cfg(not(feature = "planted-bugs"))]
        let is_planted = false;
        is_planted
    }};
}
pub(crate) use planted;

#[cfg(feature = "planted-bugs")]
pub(crate) use self::planting::is_planted;
#[cfg(feature = "planted-bugs")]
pub use self::planting::{PlantedBug, plant};

#[cfg(feature = "planted-bugs")]
mod planting {
    use std::cell::Cell;

    /// What is wrong.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum PlantedBug {
        /// A mount does not flush what an earlier process left in the device's cache.
        SkipFlush,
        /// A record of an earlier life of the slot is taken for one of this life.
        AcceptStaleRecord,
        /// A fence is forgotten when the disk is mounted.
        ForgetFence,
        /// An extent is cut one page before its last batch ends.
        CutOnePageTooMany,
        /// The log of the extent table goes on in its other half though the checkpoint that frees it is not durable.
        ReuseLogTooEarly,
        /// A block of the table's log is written over by the next.
        RewriteLogBlock,
    }

    impl PlantedBug {
        /// All of them.
        pub const ALL: [Self; 6] = [
            Self::SkipFlush,
            Self::AcceptStaleRecord,
            Self::ForgetFence,
            Self::CutOnePageTooMany,
            Self::ReuseLogTooEarly,
            Self::RewriteLogBlock,
        ];
    }

    thread_local! {
        static PLANTED: Cell<Option<PlantedBug>> = const { Cell::new(None) };
    }

    /// Plants a bug in every simulated disk that this thread drives from now on; `None` heals.
    pub fn plant(bug: Option<PlantedBug>) {
        PLANTED.set(bug);
    }

    pub(crate) fn is_planted(bug: PlantedBug) -> bool {
        PLANTED.get() == Some(bug)
    }
}
