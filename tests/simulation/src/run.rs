//! One seed, from a new cell to the last comparison.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use holdfast_libs_sim::streams::Streams;
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::{sleep, sleep_until};

use crate::cell::Cell;
use crate::chaos;
use crate::clients::{Oracle, work};
use crate::network::Tamper;
use crate::trace::Trace;
use crate::verdict::{Watch, heal_and_check};

/// Clients at once.
const CLIENTS: u64 = 3;

/// The cell may settle for so long before anything goes wrong.
const SETTLES: Duration = Duration::from_secs(2);

/// After the trouble clients wait so long for their last answer, and give up then.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Changes the files in the folder of a catalog.
pub type SpoilCatalog = Box<dyn Fn(&Path)>;

/// What is done to a cell besides what the seed says.
#[derive(Default)]
pub struct Options {
    /// Keep the lines of the trace.
    pub lines: bool,
    /// Answers in the place of a server: a bug that is planted.
    pub tamper: Option<Box<dyn Tamper>>,
    /// Called with the folder of the catalog once that is made: a bug that is planted there.
    pub spoil_catalog: Option<SpoilCatalog>,
}

/// What a seed came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Of all that passed the network and was done, and when.
    pub trace: u64,
    /// Events in it.
    pub events: u64,
    /// Acts of trouble.
    pub acts: u64,
    /// Blocks put and acknowledged.
    pub puts: u64,
    /// Blocks put and not acknowledged.
    pub failed_puts: u64,
    /// Gets, during the trouble, that gave the block.
    pub gets: u64,
    /// Gets, during the trouble, that did not.
    pub failed_gets: u64,
    /// Rounds of trouble, each with a whole cell at its end.
    pub rounds: u64,
    /// From the end of trouble until all is protected, longest round, milliseconds.
    pub healed_ms: u64,
    /// Replicas that came onto a list on a disk that has in its trash what was none.
    pub displaced: u64,
    /// Virtual time in all, milliseconds.
    pub virtual_ms: u64,
}

/// A seed that failed.
#[derive(Debug)]
pub struct Failure {
    /// What is wrong.
    pub what: String,
    /// What led there, if lines were kept.
    pub lines: Vec<String>,
}

/// Runs one seed.
///
/// # Errors
/// What did not hold.
///
/// # Panics
/// When the system gives no runtime.
pub fn run(seed: u64, options: Options) -> Result<Summary, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime with a clock alone needs nothing of the system");
    LocalSet::new().block_on(&runtime, live(seed, options))
}

async fn live(seed: u64, options: Options) -> Result<Summary, Failure> {
    let streams = Streams::new(seed);
    let trace = if options.lines { Trace::with_lines() } else { Trace::default() };
    let cell = Cell::new(&streams, trace).await;
    if let Some(tamper) = options.tamper {
        cell.network.set_tamper(tamper);
    }
    let result = live_in(&cell, &streams, options.spoil_catalog.as_ref()).await;
    let (trace, events) = cell.network.trace();
    cell.network.close_all();
    match result {
        Ok(summary) => Ok(Summary { trace, events, ..summary }),
        Err(what) => Err(Failure { what, lines: cell.network.take_lines() }),
    }
}

async fn live_in(cell: &Rc<Cell>, streams: &Streams, spoil_catalog: Option<&SpoilCatalog>) -> Result<Summary, String> {
    let mut rng = streams.stream("rounds");
    let mut summary = Summary { rounds: 1 + u64::from(rng.chance(150)), ..Summary::default() };
    cell.start_all();
    let oracle = Rc::new(Oracle::default());
    let mut watch = Watch::default();
    for round in 0..summary.rounds {
        sleep(SETTLES).await;
        if let Some(spoil) = spoil_catalog.filter(|_| round == 0) {
            spoil(cell.catalog_folder());
        }
        let from = cell.start.elapsed();
        let length = Duration::from_millis(rng.within(6000..18_000));
        let plan = chaos::draw(&mut streams.stream(&format!("chaos {round}")), cell.shape, from, length);
        summary.acts += plan.acts();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let rng = streams.stream(&format!("client {round} {number}"));
                tokio::task::spawn_local(work(Rc::clone(cell), Rc::clone(&oracle), number, from + length, rng))
            })
            .collect();
        plan.carry_out(cell, streams.stream(&format!("acts {round}"))).await;
        sleep_until(cell.start + from + length + LAST_ANSWERS).await;
        clients.iter().for_each(JoinHandle::abort);
        summary.healed_ms = summary.healed_ms.max(heal_and_check(cell, &oracle, &mut watch).await?);
    }
    summary.puts = *oracle.puts.borrow();
    summary.failed_puts = *oracle.failed_puts.borrow();
    summary.gets = *oracle.gets.borrow();
    summary.failed_gets = *oracle.failed_gets.borrow();
    summary.displaced = watch.displaced();
    summary.virtual_ms = u64::try_from(cell.start.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(summary)
}
