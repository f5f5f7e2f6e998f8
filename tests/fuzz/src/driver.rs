//! Trying one target: mutate, run, judge, keep what is new.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::allocations;
use crate::mutate::{mutate, mutate_words};

/// What a run answers: fine, or refused with a reason. A reason is compared without its numbers and quotations.
pub type Outcome = Result<(), String>;

/// Changes an input in place.
pub type Repair = Box<dyn Fn(&mut Vec<u8>)>;

/// Parses an input.
pub type Run = Box<dyn Fn(&[u8]) -> Outcome>;

/// A parser under test.
pub struct Target {
    /// For the command line and the reports.
    pub name: &'static str,
    /// Valid inputs to begin with.
    pub seeds: Vec<Vec<u8>>,
    /// Words of a text format.
    pub words: Vec<Vec<u8>>,
    /// Makes checksums and signatures right again.
    pub repair: Repair,
    /// Parses. It may assert what must hold of a parsed value (that it encodes and parses to the same again): a panic
    /// is a finding.
    pub run: Run,
    /// Longest input, bytes.
    pub most_bytes: usize,
    /// Bytes that may be asked for, for each byte of the input, …
    pub factor: u64,
    /// … and beside that.
    pub base_bytes: u64,
}

/// How long to try.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// Wall clock.
    pub time: Duration,
    /// Runs.
    pub runs: u64,
}

/// What was tried.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tried {
    /// Runs.
    pub runs: u64,
    /// Of them those that parsed.
    pub parsed: u64,
    /// Kinds of answers.
    pub kinds: usize,
    /// Inputs that are mutated.
    pub inputs: usize,
    /// Most bytes asked for by one run.
    pub most_asked: u64,
}

/// What is wrong with an input.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The input.
    pub input: Vec<u8>,
    /// What happened.
    pub what: String,
}

/// Most inputs that are kept for mutation.
const MOST_INPUTS: usize = 2048;
/// A run longer than this is a hang. The machine may be busy.
const HANG: Duration = Duration::from_secs(30);

static PANIC: Mutex<Option<String>> = Mutex::new(None);
static RUNS: AtomicU64 = AtomicU64::new(0);

/// Notes panics, of any thread, instead of printing them.
pub fn note_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(|at| format!(" at {}:{}", at.file(), at.line())).unwrap_or_default();
        let message = info.payload_as_str().unwrap_or("a panic without text").to_owned();
        if let Ok(mut note) = PANIC.lock() {
            note.get_or_insert(format!("panic: {message}{place}"));
        }
    }));
}

/// Ends the process when a run takes too long; what supervises it knows the input.
pub fn watch_for_hangs() {
    std::thread::spawn(|| {
        let mut last = (0, Instant::now());
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let runs = RUNS.load(Ordering::Relaxed);
            if runs != last.0 {
                last = (runs, Instant::now());
            } else if last.1.elapsed() > HANG {
                eprintln!("a run did not end within {HANG:?}");
                std::process::abort();
            }
        }
    });
}

impl Target {
    /// One run, judged.
    ///
    /// # Errors
    /// What is wrong.
    pub fn try_input(&self, input: &[u8]) -> Result<(Outcome, u64), String> {
        RUNS.fetch_add(1, Ordering::Relaxed);
        let before = allocations::asked();
        let outcome = catch_unwind(AssertUnwindSafe(|| (self.run)(input)));
        let asked = allocations::asked() - before;
        if let Some(panic) = PANIC.lock().ok().and_then(|mut note| note.take()) {
            return Err(panic);
        }
        let Ok(outcome) = outcome else { return Err("panic".to_owned()) };
        let most = self.base_bytes + self.factor * input.len() as u64;
        if asked > most {
            return Err(format!("{asked} bytes asked for an input of {}; at most {most} may be", input.len()));
        }
        Ok((outcome, asked))
    }

    /// Tries inputs until the limit or the first finding. Every input is written to `note` first.
    ///
    /// # Errors
    /// The finding, made smaller.
    pub fn explore(&self, limit: Limit, seed: u64, note: &Note) -> Result<Tried, Finding> {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut tried = Tried::default();
        let mut kinds = HashSet::new();
        let mut inputs = Vec::new();
        for input in &self.seeds {
            self.one(input, note, &mut tried, &mut kinds)?;
            inputs.push(input.clone());
        }
        let started = Instant::now();
        while tried.runs < limit.runs && (tried.runs % 16 != 0 || started.elapsed() < limit.time) {
            let mut input = pick(&inputs, &mut random).clone();
            if self.words.is_empty() || random.random_range(0..3) == 0 {
                mutate(&mut input, pick(&inputs, &mut random), &self.words, &mut random);
            } else {
                mutate_words(&mut input, &self.words, &mut random);
            }
            input.truncate(self.most_bytes);
            if random.random_range(0..8) != 0 {
                (self.repair)(&mut input);
            }
            if self.one(&input, note, &mut tried, &mut kinds)? && inputs.len() < MOST_INPUTS {
                inputs.push(input);
            }
        }
        tried.kinds = kinds.len();
        tried.inputs = inputs.len();
        Ok(tried)
    }

    /// Whether the answer is of a new kind.
    fn one(&self, input: &[u8], note: &Note, tried: &mut Tried, kinds: &mut HashSet<String>) -> Result<bool, Finding> {
        note.write(input);
        tried.runs += 1;
        let (outcome, asked) = self.try_input(input).map_err(|what| self.smaller(input.to_vec(), what, note))?;
        tried.parsed += u64::from(outcome.is_ok());
        tried.most_asked = tried.most_asked.max(asked);
        let reason = outcome.err().map_or_else(|| "fine".to_owned(), |reason| plain(&reason));
        Ok(kinds.insert(format!("{reason} {}", asked.max(1).ilog2() / 2)))
    }

    /// Cuts pieces off a bad input as long as it stays bad in the same way.
    fn smaller(&self, mut input: Vec<u8>, what: String, note: &Note) -> Finding {
        let kind = plain(&what);
        let mut len = input.len() / 2;
        let mut tries = 0;
        while len > 0 && tries < 2000 {
            let mut at = 0;
            while at < input.len() && tries < 2000 {
                let mut shorter = input.clone();
                shorter.drain(at..(at + len).min(input.len()));
                (self.repair)(&mut shorter);
                note.write(&shorter);
                tries += 1;
                match self.try_input(&shorter) {
                    Err(again) if plain(&again) == kind && shorter.len() < input.len() => input = shorter,
                    _ => at += len,
                }
            }
            len /= 2;
        }
        Finding { input, what }
    }
}

fn pick<'a>(inputs: &'a [Vec<u8>], random: &mut SmallRng) -> &'a Vec<u8> {
    // What was found last is furthest in.
    let from = if random.random() { 0 } else { inputs.len().saturating_sub(32) };
    &inputs[random.random_range(from..inputs.len())]
}

/// A reason without numbers, ids, quotations and the lines that show a piece of the input.
fn plain(reason: &str) -> String {
    const MOST_BYTES: usize = 400;
    const ID_LETTERS: usize = 16;
    let mut bare = String::new();
    for line in reason.lines().filter(|line| !line.contains('|')) {
        let mut quote = None;
        let mut escaped = false;
        for c in line.chars() {
            match quote {
                _ if escaped => escaped = false,
                Some(_) if c == '\\' => escaped = true,
                Some(mark) if c == mark => quote = None,
                Some(_) => {}
                None if matches!(c, '`' | '"') => quote = Some(c),
                None => bare.push(c),
            }
        }
        bare.push(' ');
    }
    let words = bare.split(|c: char| !c.is_ascii_alphanumeric());
    let mut out = String::new();
    for word in words.filter(|word| word.len() < ID_LETTERS && !word.contains(|c: char| c.is_ascii_digit())) {
        out.push_str(word);
        if out.len() > MOST_BYTES {
            break;
        }
    }
    out
}

/// The file that holds the input under trial: eight bytes of length, then the input.
#[derive(Debug)]
pub struct Note(File);

impl Note {
    /// Opens or makes it.
    ///
    /// # Errors
    /// I/O.
    pub fn create(path: &Path) -> std::io::Result<Self> {
        File::create(path).map(Self)
    }

    fn write(&self, input: &[u8]) {
        let bytes = [&(input.len() as u64).to_le_bytes(), input].concat();
        // A note that cannot be written costs only the input of an abort.
        let _ = self.0.write_all_at(&bytes, 0);
    }

    /// The input that was noted last.
    ///
    /// # Errors
    /// I/O.
    pub fn read(path: &Path) -> std::io::Result<Vec<u8>> {
        let bytes = std::fs::read(path)?;
        let Some((len, input)) = bytes.split_first_chunk::<8>() else { return Ok(Vec::new()) };
        let len = (u64::from_le_bytes(*len) as usize).min(input.len());
        Ok(input[..len].to_vec())
    }
}
