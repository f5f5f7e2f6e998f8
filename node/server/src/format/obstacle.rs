//! One reason why a disk is not formatted, and what to do about it.

use std::fmt;

use serde::Serialize;

/// Whether `--force` gets past it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grip {
    /// In use, or unfit: never erased.
    Firm,
    /// Data that its owner may give up.
    Erasable,
}

/// A reason against it.
#[derive(Debug, Clone, Serialize)]
pub struct Obstacle {
    /// A word for scripts.
    pub code: &'static str,
    /// What stands against it.
    pub what: String,
    /// What to do.
    pub remedy: String,
    /// Whether it can be got past.
    pub grip: Grip,
}

impl Obstacle {
    pub(super) fn new(grip: Grip, code: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code, what: what.into(), remedy: remedy.into(), grip }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}
