//! What happened, as one number, to see that a seed means the same every time; and as lines, to see where it did not.

use std::time::Duration;

/// Everything that passed the network and when, and what was done to the cell.
#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    events: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// One that keeps its lines, too.
    pub fn with_lines() -> Self {
        Self { lines: Some(Vec::new()), ..Self::default() }
    }

    /// Adds an event.
    pub fn note(&mut self, at: Duration, what: std::fmt::Arguments<'_>) {
        let line = format!("{:>9} {what}", at.as_millis());
        // FNV-1a, goes on from event to event.
        let start = if self.events == 0 { 0xcbf2_9ce4_8422_2325 } else { self.hash };
        self.hash = line.bytes().fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        self.events += 1;
        if let Some(lines) = &mut self.lines {
            lines.push(line);
        }
    }

    /// The number.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many events.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The lines so far; none unless they are kept.
    pub fn take_lines(&mut self) -> Vec<String> {
        self.lines.as_mut().map(std::mem::take).unwrap_or_default()
    }
}
