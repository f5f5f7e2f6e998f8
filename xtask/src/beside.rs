//! Programs of tests that run beside others, on what these leave idle of the machine.

use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::programs::Program;

/// How often to look whether something ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Programs that run one after another, at the lowest priority, while [`Beside::wait`] waits for something else. What one says
/// is shown when it has ended, and not amid what another says.
pub struct Beside {
    waiting: VecDeque<Program>,
    running: Option<(Program, Child, Instant)>,
    ended: Vec<(Program, ExitStatus, Duration)>,
}

impl Beside {
    /// None runs before the first wait.
    pub fn new(programs: Vec<Program>) -> Self {
        Self { waiting: programs.into(), running: None, ended: Vec::new() }
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// When it cannot be started, or a program beside it cannot be or has failed.
    pub fn wait(&mut self, command: &mut Command) -> anyhow::Result<ExitStatus> {
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        loop {
            if let Some(status) = child.try_wait()? {
                // What both have to say is said when both have failed.
                if let Err(error) = self.tell() {
                    if status.success() {
                        return Err(error);
                    }
                    eprintln!("{error:#}");
                }
                return Ok(status);
            }
            if let Err(error) = self.go_on() {
                child.kill()?;
                return Err(error);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Runs what is left to its end.
    ///
    /// # Errors
    /// When a program cannot be started or has failed.
    pub fn finish(mut self) -> anyhow::Result<()> {
        loop {
            self.go_on()?;
            self.tell()?;
            if self.running.is_none() {
                return Ok(());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Starts the next program when none runs any more.
    fn go_on(&mut self) -> anyhow::Result<()> {
        if let Some((_, child, _)) = &mut self.running {
            let Some(status) = child.try_wait()? else { return Ok(()) };
            self.ended.extend(self.running.take().map(|(program, _, began)| (program, status, began.elapsed())));
        }
        let Some(program) = self.waiting.pop_front() else { return Ok(()) };
        let output = File::create(output(&program)).context("cannot keep the output of a test")?;
        let mut command = program.command_behind_others();
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        eprintln!("     Begins beside the others: {}", program.source);
        self.running = Some((program, child, Instant::now()));
        Ok(())
    }

    /// Shows what the programs said that ended, up to the first that failed.
    fn tell(&mut self) -> anyhow::Result<()> {
        for (program, status, took) in self.ended.drain(..) {
            eprintln!("     Ran beside {}, {:.0} s", program.source, took.as_secs_f32());
            print!("{}", String::from_utf8_lossy(&std::fs::read(output(&program))?));
            if !status.success() {
                bail!("{} failed ({status}); to run it again: {}", program.source, program.again());
            }
        }
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Some((_, child, _)) = &mut self.running {
            // No harm if it has ended meanwhile.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Where a program's output is kept.
fn output(program: &Program) -> PathBuf {
    program.executable.with_extension("output")
}
