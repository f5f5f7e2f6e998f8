//! What the children said, and what may therefore stand on the disk.
//!
//! A step that was acknowledged has happened; one that was only begun may have. Every round ends with a look at the disk,
//! which settles what was open.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write as _;

use holdfast_libs_types::VolumeId;
use holdfast_node_engine::{Disk, EngineError, ExtentInfo, ExtentState};

use crate::child::batch_at;
use crate::support::block_on;

/// One step of one volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Create,
    Append { start: u64, end: u64 },
    Fence,
    Seal { length: u64 },
    Trash,
    Restore,
}

impl Step {
    /// Where it leads from here; none when it cannot be taken.
    fn after(self, state: State) -> Option<State> {
        match (self, state) {
            (Self::Create, State::Gone) | (Self::Append { .. }, State::Open) => Some(State::Open),
            (Self::Fence, State::Open | State::Fenced) => Some(State::Fenced),
            (Self::Seal { .. }, State::Fenced | State::Sealed) => Some(State::Sealed),
            (Self::Trash, State::Sealed) => Some(State::Trashed),
            (Self::Restore, State::Trashed) => Some(State::Sealed),
            _ => None,
        }
    }
}

/// A line of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// `at_us` by the system's monotonic clock.
    Begun {
        volume: VolumeId,
        step: Step,
        at_us: u64,
    },
    Acknowledged {
        volume: VolumeId,
        step: Step,
        at_us: u64,
    },
    /// What began last for it was refused and changed nothing.
    Refused {
        volume: VolumeId,
    },
    EraseBegun,
    Erased(Vec<VolumeId>),
}

impl Event {
    pub fn begun(volume: VolumeId, step: Step) -> Self {
        Self::Begun { volume, step, at_us: now_us() }
    }

    pub fn acknowledged(volume: VolumeId, step: Step) -> Self {
        Self::Acknowledged { volume, step, at_us: now_us() }
    }

    /// Writes it in one piece.
    pub fn say(&self) {
        let line = match self {
            Self::Begun { volume, step, at_us } => format!("@ begun {volume} {} {at_us}", words(*step)),
            Self::Acknowledged { volume, step, at_us } => format!("@ done {volume} {} {at_us}", words(*step)),
            Self::Refused { volume } => format!("@ refused {volume}"),
            Self::EraseBegun => "@ erase".to_owned(),
            Self::Erased(volumes) => {
                let volumes: Vec<String> = volumes.iter().map(ToString::to_string).collect();
                format!("@ erased {}", volumes.join(" "))
            }
        };
        // The test harness has a word in front of the first line.
        std::io::stdout().write_all(format!("\n{line} .\n").as_bytes()).unwrap();
    }

    /// None for what is no whole line of a child.
    pub fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.strip_prefix("@ ")?.strip_suffix(" .")?.split_whitespace().collect();
        let volume = |word: &str| Some(VolumeId(hex(word)?));
        match words.as_slice() {
            ["refused", name] => Some(Self::Refused { volume: volume(name)? }),
            ["erase"] => Some(Self::EraseBegun),
            ["erased", volumes @ ..] => {
                Some(Self::Erased(volumes.iter().map(|word| volume(word)).collect::<Option<_>>()?))
            }
            [kind, name, step, a, b, at] => {
                let (a, b, at_us): (u64, u64, u64) = (a.parse().ok()?, b.parse().ok()?, at.parse().ok()?);
                let step = match *step {
                    "create" => Step::Create,
                    "append" => Step::Append { start: a, end: b },
                    "fence" => Step::Fence,
                    "seal" => Step::Seal { length: a },
                    "trash" => Step::Trash,
                    "restore" => Step::Restore,
                    _ => return None,
                };
                let volume = volume(name)?;
                let begun = *kind == "begun";
                Some(if begun {
                    Self::Begun { volume, step, at_us }
                } else {
                    Self::Acknowledged { volume, step, at_us }
                })
            }
            _ => None,
        }
    }
}

fn now_us() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    now.tv_sec() as u64 * 1_000_000 + now.tv_nsec() as u64 / 1000
}

fn words(step: Step) -> String {
    match step {
        Step::Create => "create 0 0".to_owned(),
        Step::Append { start, end } => format!("append {start} {end}"),
        Step::Fence => "fence 0 0".to_owned(),
        Step::Seal { length } => format!("seal {length} 0"),
        Step::Trash => "trash 0 0".to_owned(),
        Step::Restore => "restore 0 0".to_owned(),
    }
}

fn hex(text: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    if text.len() != 32 {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// Not made yet, or erased.
    Gone,
    Open,
    Fenced,
    Sealed,
    Trashed,
}

/// What is known of a volume.
#[derive(Debug, Clone)]
struct Known {
    states: BTreeSet<State>,
    /// Bytes that were acknowledged, and that may be there at most.
    acknowledged: u64,
    most: u64,
    sealed: Option<u64>,
}

#[derive(Debug, Default)]
pub struct History {
    volumes: BTreeMap<VolumeId, Known>,
    /// How often each step was acknowledged, and how often one was under way at the kill.
    done: BTreeMap<&'static str, u64>,
    cut: BTreeMap<&'static str, u64>,
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "acknowledged {:?}, killed in the middle of {:?}", self.done, self.cut)
    }
}

fn name(step: Step) -> &'static str {
    match step {
        Step::Create => "create",
        Step::Append { .. } => "append",
        Step::Fence => "fence",
        Step::Seal { .. } => "seal",
        Step::Trash => "trash",
        Step::Restore => "restore",
    }
}

impl History {
    /// Takes in what a child said.
    pub fn follow(&mut self, events: &[Event]) {
        let mut erasing = false;
        let mut under_way: BTreeMap<VolumeId, Step> = BTreeMap::new();
        for event in events {
            match event {
                Event::Begun { volume, step, .. } => {
                    under_way.insert(*volume, *step);
                    let known = self.volumes.entry(*volume).or_insert_with(|| Known {
                        states: BTreeSet::from([State::Gone]),
                        acknowledged: 0,
                        most: 0,
                        sealed: None,
                    });
                    known.may(*step, erasing);
                }
                Event::Acknowledged { volume, step, .. } => {
                    under_way.remove(volume);
                    *self.done.entry(name(*step)).or_default() += 1;
                    self.volumes.get_mut(volume).unwrap().has(*step, erasing);
                }
                Event::Refused { volume } => {
                    under_way.remove(volume);
                }
                Event::EraseBegun => {
                    erasing = true;
                    for known in self.volumes.values_mut().filter(|known| known.states.contains(&State::Trashed)) {
                        known.states.insert(State::Gone);
                    }
                }
                Event::Erased(volumes) => {
                    erasing = false;
                    *self.done.entry("erase").or_default() += volumes.len() as u64;
                    for volume in volumes {
                        under_way.remove(volume);
                    }
                    for (volume, known) in &mut self.volumes {
                        if volumes.contains(volume) {
                            known.states = BTreeSet::from([State::Gone]);
                        } else if known.states.contains(&State::Trashed) {
                            known.states.remove(&State::Gone);
                        }
                    }
                }
            }
        }
        for step in under_way.values() {
            *self.cut.entry(name(*step)).or_default() += 1;
        }
        if erasing {
            *self.cut.entry("erase").or_default() += 1;
        }
    }

    /// Compares a disk with what must and what may stand on it, and settles what it was.
    pub fn check(&mut self, disk: &Disk, seed: u64) {
        for (volume, known) in &mut self.volumes {
            let found = match block_on(disk.extent(*volume)) {
                Ok(info) => Some(info),
                Err(EngineError::UnknownVolume { .. }) => None,
                Err(error) => panic!("seed {seed}, {volume}: {error}"),
            };
            let state = found.as_ref().map_or(State::Gone, |info| match info.state {
                ExtentState::Open => State::Open,
                ExtentState::Fenced => State::Fenced,
                ExtentState::Sealed => State::Sealed,
                ExtentState::Trashed => State::Trashed,
                other => panic!("seed {seed}, {volume}: {other:?}, {info:?}"),
            });
            assert!(known.states.contains(&state), "seed {seed}, {volume}: {known:?}, found {found:?}");
            known.states = BTreeSet::from([state]);
            if let Some(info) = found {
                known.check(disk, &info, seed);
            }
        }
        let extents = block_on(disk.extents()).unwrap();
        let unknown = extents.iter().find(|info| !self.volumes.contains_key(&info.volume));
        assert_eq!(unknown, None, "seed {seed}");
        self.volumes.retain(|_, known| !known.states.contains(&State::Gone));
    }

    /// Whether every step was acknowledged, and cut short, at least once.
    pub fn saw_everything(&self) -> bool {
        let steps = ["create", "append", "fence", "seal", "trash", "restore", "erase"];
        steps.iter().all(|step| self.done.get(step).is_some_and(|count| *count > 0))
            && ["append", "seal"].iter().all(|step| self.cut.get(step).is_some_and(|count| *count > 0))
    }
}

impl Known {
    fn may(&mut self, step: Step, erasing: bool) {
        match step {
            Step::Append { end, .. } => self.most = end,
            Step::Seal { length } => self.sealed = Some(length),
            _ => {}
        }
        let then: Vec<State> = self.states.iter().filter_map(|state| step.after(*state)).collect();
        self.states.extend(then);
        if erasing && step == Step::Trash {
            self.states.insert(State::Gone);
        }
    }

    fn has(&mut self, step: Step, erasing: bool) {
        if let Step::Append { end, .. } = step {
            self.acknowledged = end;
        }
        if self.states == BTreeSet::from([State::Gone]) && step == Step::Trash {
            // Erased before it was said to be in the trash.
            return;
        }
        self.states = self.states.iter().filter_map(|state| step.after(*state)).collect();
        if erasing && step == Step::Trash {
            self.states.insert(State::Gone);
        }
    }

    /// Reads all of it back.
    fn check(&mut self, disk: &Disk, info: &ExtentInfo, seed: u64) {
        let volume = info.volume;
        let length = match info.state {
            ExtentState::Sealed | ExtentState::Trashed => self.sealed.unwrap(),
            _ => info.length,
        };
        assert_eq!(info.length, length, "seed {seed}: {info:?}");
        assert!((self.acknowledged..=self.most).contains(&length), "seed {seed}: {self:?}, found {info:?}");
        let mut at = 0;
        while at < length {
            let expected = batch_at(volume, at);
            let read = block_on(disk.read(volume, at, expected.len() as u32)).unwrap();
            assert!(read[..] == expected[..], "seed {seed}: {volume} at {at}");
            at += expected.len() as u64;
        }
        // What is there now is there for good.
        self.acknowledged = length;
        self.most = length;
    }
}
