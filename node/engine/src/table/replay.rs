//! What the table is, decided by both copies' headers and both halves of the log, all of them read.
//!
//! A mount follows [`newest`]; when the pages of that checkpoint prove bad, [`older`]; when that cannot be either,
//! it rebuilds the table from the slot headers. Each says in words why it refuses.

use super::TableFault;
use super::checkpoint::CheckpointHeader;
use super::log::LogBlock;

/// One block of the log as found.
pub(crate) type Found = Result<LogBlock, TableFault>;

/// All that stands on the disk but the pages of entries.
#[derive(Debug)]
pub(crate) struct Stand {
    pub(crate) headers: [Result<CheckpointHeader, TableFault>; 2],
    pub(crate) halves: [Vec<Found>; 2],
    /// Generations of the first page of entries in each copy: a checkpoint that was begun and not finished.
    pub(crate) begun: [Option<u64>; 2],
}

/// A way to the state: the pages of a checkpoint, then runs of log blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Course {
    pub(crate) checkpoint: CheckpointHeader,
    /// Halves of the log, and how many blocks of each, in order.
    pub(crate) logs: Vec<(usize, usize)>,
    /// Where the log goes on; `None` when a checkpoint must come first.
    pub(crate) resume: Option<Place>,
    /// What is wrong with a newer checkpoint that this does without.
    pub(crate) note: Option<String>,
}

/// Where the next block of the log goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Generation of the checkpoint it goes on from.
    pub(crate) generation: u64,
    /// Sequence of the next block.
    pub(crate) sequence: u64,
    /// Blocks in the half.
    pub(crate) blocks: u64,
    /// Entries in them.
    pub(crate) entries: u64,
}

impl Place {
    /// The place from which the checkpoint of this generation is the next one.
    pub(crate) fn before(self) -> Self {
        Self { generation: self.generation - 1, ..self }
    }
}

const fn copy_of(generation: u64) -> usize {
    (generation % 2) as usize
}

/// The course by the newest checkpoint that has a valid header.
pub(crate) fn newest(stand: &Stand) -> Result<Course, String> {
    let [a, b] = &stand.headers;
    let header = match (a, b) {
        (Ok(a), Ok(b)) => {
            if a.generation > b.generation {
                a
            } else {
                b
            }
        }
        (Ok(header), Err(_)) | (Err(_), Ok(header)) => header,
        (Err(a), Err(b)) => return Err(format!("neither copy has a valid header (A: {a}; B: {b})")),
    };
    let (own, other) = (copy_of(header.generation), 1 - copy_of(header.generation));
    let newest_in = |half: usize| stand.halves[half].iter().flatten().map(|block| block.generation).max();
    match newest_in(other) {
        Some(beyond) if beyond == header.generation + 1 => return with_one_lost(stand, header),
        Some(beyond) if beyond > header.generation => {
            return Err(format!("the log goes on from checkpoint {beyond}, but the newest is {}", header.generation));
        }
        _ => {}
    }
    // A checkpoint whose header went bad, and the first block of its log with it?
    if let (Err(fault), Some(Err(block))) = (&stand.headers[other], stand.halves[other].first())
        && *block != TableFault::Blank
    {
        return Err(format!("the other copy's header is {fault}, and the first block of its log {block}"));
    }
    let blocks = run(&stand.halves[own], header.generation, header.first_sequence)?;
    let logged = &stand.halves[own][..blocks];
    let resume = Place {
        generation: header.generation,
        sequence: header.first_sequence + blocks as u64,
        blocks: blocks as u64,
        entries: logged.iter().flatten().map(|block| block.entries.len() as u64).sum(),
    };
    Ok(Course { checkpoint: header.clone(), logs: vec![(own, blocks)], resume: Some(resume), note: None })
}

/// The checkpoint after `header` is lost, but its log stands: both logs give the full state.
fn with_one_lost(stand: &Stand, header: &CheckpointHeader) -> Result<Course, String> {
    let (own, other) = (copy_of(header.generation), 1 - copy_of(header.generation));
    let lost = header.generation + 1;
    let fault = match &stand.headers[other] {
        Err(fault) => fault,
        Ok(older) => return Err(format!("copy of checkpoint {lost} still is of {}", older.generation)),
    };
    let first = match stand.halves[other].first() {
        Some(Ok(block)) if block.generation == lost => block.sequence,
        _ => return Err(format!("the first block of the log of checkpoint {lost} is missing")),
    };
    let before = whole_run(&stand.halves[own], header, first)?;
    let blocks = run(&stand.halves[other], lost, first)?;
    let note = format!("the header of checkpoint {lost} is {fault}");
    let logs = vec![(own, before), (other, blocks)];
    Ok(Course { checkpoint: header.clone(), logs, resume: None, note: Some(note) })
}

/// The course when the pages of the newest checkpoint are bad: the one before it, and both logs.
pub(crate) fn older(stand: &Stand, bad: &Course, why: &TableFault) -> Result<Course, String> {
    let lost = &bad.checkpoint;
    let note = format!("checkpoint {} has a page that is {why}", lost.generation);
    if bad.resume.is_none() {
        return Err(format!("{note}, and so has the one after it"));
    }
    let (own, other) = (copy_of(lost.generation), 1 - copy_of(lost.generation));
    let header = match &stand.headers[other] {
        Ok(header) if header.generation + 1 == lost.generation => header,
        Ok(header) => return Err(format!("{note}, and the other copy is of {}", header.generation)),
        Err(fault) => return Err(format!("{note}, and the other copy's header is {fault}")),
    };
    let before = whole_run(&stand.halves[other], header, lost.first_sequence)?;
    let blocks = run(&stand.halves[own], lost.generation, lost.first_sequence)?;
    let logs = vec![(other, before), (own, blocks)];
    Ok(Course { checkpoint: header.clone(), logs, resume: None, note: Some(note) })
}

/// How many blocks the log of `generation` has, when it ends cleanly.
fn run(half: &[Found], generation: u64, first: u64) -> Result<usize, String> {
    let mut blocks = 0;
    let fault = loop {
        match half.get(blocks) {
            Some(Ok(block)) if block.generation == generation => {
                let (found, due) = (block.sequence, first + blocks as u64);
                if found != due {
                    return Err(format!("log block {blocks} of checkpoint {generation} is {found}, not {due}"));
                }
                blocks += 1;
            }
            Some(Ok(block)) if block.generation > generation => {
                return Err(format!("log block {blocks} is of checkpoint {}, not {generation}", block.generation));
            }
            None | Some(Ok(_) | Err(TableFault::Blank)) => break None,
            Some(Err(fault)) => break Some(fault),
        }
    };
    let behind = half.iter().skip(blocks + 1).flatten().find(|block| block.generation >= generation);
    match (fault, behind) {
        (None, None) => Ok(blocks),
        (Some(fault), None) => Err(format!(
            "the last block of the log, {blocks} of checkpoint {generation}, is {fault}: a write that was cut, or one \
             that was acknowledged"
        )),
        (fault, Some(later)) => {
            let fault = fault.map_or("missing".to_owned(), ToString::to_string);
            let later = later.sequence;
            Err(format!("log block {blocks} of checkpoint {generation} is {fault}, though block {later} is not"))
        }
    }
}

/// The blocks of `header`'s log up to the one that has sequence `next`, all of which must stand. What is behind them
/// was given up when the next checkpoint was written.
fn whole_run(half: &[Found], header: &CheckpointHeader, next: u64) -> Result<usize, String> {
    let blocks = next.checked_sub(header.first_sequence).and_then(|n| usize::try_from(n).ok());
    let run = blocks.and_then(|blocks| half.get(..blocks)).ok_or_else(|| {
        let (generation, first) = (header.generation, header.first_sequence);
        format!("blocks {first} to {next} do not fit into the log of checkpoint {generation}")
    })?;
    for (n, block) in run.iter().enumerate() {
        let due = (header.generation, header.first_sequence + n as u64);
        let fault = match block {
            Ok(block) if (block.generation, block.sequence) == due => continue,
            Ok(block) => format!("{} of checkpoint {}", block.sequence, block.generation),
            Err(fault) => fault.to_string(),
        };
        return Err(format!("log block {n} of checkpoint {} is {fault}", header.generation));
    }
    Ok(run.len())
}

/// Where the log goes on after a checkpoint that must be written first: newer than everything that stands there. With
/// `keep`, that copy is the only good one, and the checkpoint goes to the other.
pub(crate) fn next_place(stand: &Stand, keep: Option<&CheckpointHeader>) -> Place {
    let headers = || stand.headers.iter().flatten();
    let blocks = || stand.halves.iter().flatten().flatten();
    let generations = headers().map(|header| header.generation).chain(blocks().map(|block| block.generation));
    let newest = generations.chain(stand.begun.iter().flatten().copied()).max().unwrap_or(0);
    let sequences = headers().map(|header| header.first_sequence).chain(blocks().map(|block| block.sequence + 1));
    let mut generation = newest + 1;
    if keep.is_some_and(|keep| copy_of(keep.generation) == copy_of(generation)) {
        generation += 1;
    }
    Place { generation, sequence: sequences.max().unwrap_or(1), blocks: 0, entries: 0 }
}

/// The newest facts in all that stands there.
pub(crate) fn newest_facts(stand: &Stand) -> super::Facts {
    let mut facts = super::Facts::default();
    let mut order = (0, 0);
    let headers = stand.headers.iter().flatten().map(|header| (header.generation, header.first_sequence, header.facts));
    let blocks = stand.halves.iter().flatten().flatten();
    for (generation, sequence, found) in
        headers.chain(blocks.map(|block| (block.generation, block.sequence, block.facts)))
    {
        let (uptime_s, term) = (facts.uptime_s.max(found.uptime_s), facts.term.max(found.term));
        if (sequence, generation) >= order {
            (facts, order) = (found, (sequence, generation));
        }
        (facts.uptime_s, facts.term) = (uptime_s, term);
    }
    facts
}
