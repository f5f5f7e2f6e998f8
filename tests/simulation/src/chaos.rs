//! What goes wrong, and when: drawn from the seed before it begins.
//!
//! # What the cell must bear
//!
//! Bytes are harmed (a disk dies for good, is replaced by a blank one, comes back as it was earlier, or rots) in at most two
//! of the three zones of a round, so that one replica of everything acknowledged always stands in the third. Everything else
//! happens anywhere and all at once: processes die with what their disks had not flushed, are paused and go on, cannot
//! reach each other; requests and answers are late or lost; disks hang; clocks jump; the catalog fails.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use holdfast_libs_sim::disk::{Crash, ENODEV};
use holdfast_libs_sim::streams::SimRng;
use holdfast_volume_manager_client::Order;
use tokio::time::sleep_until;

use crate::catalog::Pace;
use crate::cell::{Cell, Shape, ZONES, bay, node_name};
use crate::disks::image;
use crate::network::Weather;

/// Something that is done to the cell.
#[derive(Debug, Clone)]
enum Act {
    Kill {
        name: String,
        crash: Crash,
    },
    Start {
        name: String,
    },
    Pause {
        name: String,
    },
    Resume {
        name: String,
    },
    Cut {
        from: String,
        to: String,
    },
    Mend {
        from: String,
        to: String,
    },
    Weather(Weather),
    Catalog(Pace),
    JumpClock {
        name: String,
        by_ms: i64,
    },
    Hang {
        node: String,
        bay: PathBuf,
        ms: u64,
    },
    /// A disk is out of its bay for a while.
    Pull {
        node: String,
        bay: PathBuf,
        ms: u64,
    },
    Die {
        node: String,
        bay: PathBuf,
    },
    /// A blank disk takes the place of whatever stands there.
    Replace {
        node: String,
        bay: PathBuf,
    },
    /// An operator has a disk drained.
    Drain {
        node: String,
        bay: PathBuf,
    },
    /// An operator has the cell rebalanced.
    Rebalance,
    /// The node dies, and the disk is again what it was `ms` ago when it is started.
    Stale {
        node: String,
        bay: PathBuf,
        down_ms: u64,
    },
    Rot {
        node: String,
        bay: PathBuf,
        flips: u64,
    },
}

/// What will be done, in order.
pub struct Plan {
    acts: Vec<(Duration, Act)>,
    /// Disks whose image is kept early, to come back.
    images: Vec<(String, PathBuf)>,
    /// Disks that may hold less than they did, or other bytes.
    harmed: Vec<(String, PathBuf)>,
}

struct Drawing<'a> {
    rng: &'a mut SimRng,
    plan: Plan,
    shape: Shape,
    from: Duration,
    length_ms: u64,
    lossy_zones: Vec<usize>,
}

/// Draws what is done to a cell of that shape from `from` on, for `length`.
pub fn draw(rng: &mut SimRng, shape: Shape, from: Duration, length: Duration) -> Plan {
    let mut zones: Vec<usize> = (0..ZONES).collect();
    rng.shuffle(&mut zones);
    zones.truncate(rng.within(1..3) as usize);
    let plan = Plan { acts: Vec::new(), images: Vec::new(), harmed: Vec::new() };
    let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    let mut drawing = Drawing { rng, plan, shape, from, length_ms, lossy_zones: zones };
    for _ in 0..drawing.rng.within(6..14) {
        drawing.draw_one();
    }
    drawing.draw_orders();
    drawing.act(from, Act::Weather(Weather::USUAL));
    drawing.act(from, Act::Catalog(Pace::USUAL));
    let mut plan = drawing.plan;
    plan.acts.sort_by_key(|(at, _)| *at);
    plan
}

impl Drawing<'_> {
    fn at(&mut self) -> Duration {
        self.from + Duration::from_millis(self.rng.below(self.length_ms))
    }

    fn act(&mut self, at: Duration, act: Act) {
        self.plan.acts.push((at, act));
    }

    fn daemon(&mut self) -> String {
        match self.rng.below(10) {
            0..3 => format!("vm-{}", 1 + self.rng.below(2)),
            3..5 => format!("frontend-{}", 1 + self.rng.below(2)),
            _ => self.node(),
        }
    }

    fn node(&mut self) -> String {
        node_name(self.rng.index(ZONES), self.rng.index(self.shape.nodes_a_zone))
    }

    fn any_bay(&mut self) -> (String, PathBuf) {
        (self.node(), bay(self.rng.index(self.shape.disks_a_node)))
    }

    /// A disk whose bytes may be harmed; none twice.
    fn lossy_bay(&mut self) -> Option<(String, PathBuf)> {
        let zone = self.lossy_zones[self.rng.index(self.lossy_zones.len())];
        let Shape { nodes_a_zone, disks_a_node } = self.shape;
        let place = (node_name(zone, self.rng.index(nodes_a_zone)), bay(self.rng.index(disks_a_node)));
        if self.plan.harmed.contains(&place) {
            return None;
        }
        self.plan.harmed.push(place.clone());
        Some(place)
    }

    fn crash(&mut self) -> Crash {
        if self.rng.chance(700) { Crash::PowerLoss } else { Crash::ProcessKill }
    }

    fn draw_one(&mut self) {
        let at = self.at();
        let lasts = Duration::from_millis(self.rng.within(200..12_000));
        match self.rng.below(100) {
            0..20 => {
                let (name, crash) = (self.daemon(), self.crash());
                self.act(at, Act::Kill { name: name.clone(), crash });
                self.act(at + lasts, Act::Start { name });
            }
            20..32 => {
                let name = self.daemon();
                self.act(at, Act::Pause { name: name.clone() });
                self.act(at + lasts, Act::Resume { name });
            }
            32..44 => self.draw_cut(at, lasts),
            44..50 => {
                let zone = self.rng.index(ZONES);
                let crash = self.crash();
                for number in 0..self.shape.nodes_a_zone {
                    let name = node_name(zone, number);
                    self.act(at, Act::Kill { name: name.clone(), crash });
                    self.act(at + lasts, Act::Start { name });
                }
            }
            50..58 => {
                let storm = Weather {
                    delay_ms: self.rng.within(2..60),
                    slow: self.rng.below(60),
                    slow_ms: self.rng.within(100..6000),
                    lost_requests: self.rng.below(60),
                    lost_answers: self.rng.below(60),
                };
                self.act(at, Act::Weather(storm));
                self.act(at + lasts, Act::Weather(Weather::USUAL));
            }
            58..64 => {
                let pace = Pace {
                    slow: self.rng.below(500),
                    slow_ms: if self.rng.chance(300) { self.rng.within(1..9000) } else { self.rng.within(1..1500) },
                    refused: self.rng.below(100),
                    lost: self.rng.below(100),
                    ..Pace::USUAL
                };
                self.act(at, Act::Catalog(pace));
                self.act(at + lasts, Act::Catalog(Pace::USUAL));
            }
            64..70 => {
                let name = if self.rng.chance(300) { "catalog".to_owned() } else { self.daemon() };
                let by_ms = i64::try_from(self.rng.below(40_000)).unwrap_or_default() - 20_000;
                self.act(at, Act::JumpClock { name, by_ms });
            }
            70..76 => {
                let (node, bay) = self.any_bay();
                let ms = self.rng.within(100..15_000);
                self.act(at, Act::Hang { node, bay, ms });
            }
            76..80 => {
                let (node, bay) = self.any_bay();
                let ms = self.rng.within(500..15_000);
                self.act(at, Act::Pull { node, bay, ms });
            }
            _ => self.draw_harm(at),
        }
    }

    /// What operators ask for while all this goes on.
    fn draw_orders(&mut self) {
        if self.rng.chance(300) && self.shape.has_spares() {
            let (at, (node, bay)) = (self.at(), self.any_bay());
            self.act(at, Act::Drain { node, bay });
        }
        if self.rng.chance(400) {
            let at = self.at();
            self.act(at, Act::Rebalance);
        }
    }

    fn draw_cut(&mut self, at: Duration, lasts: Duration) {
        let (one, other) = (self.daemon(), self.daemon());
        let mut cut = |from: &str, to: &str| {
            self.act(at, Act::Cut { from: from.to_owned(), to: to.to_owned() });
            self.act(at + lasts, Act::Mend { from: from.to_owned(), to: to.to_owned() });
        };
        cut(&one, &other);
        if one.len() % 2 == other.len() % 2 {
            cut(&other, &one);
        }
    }

    fn draw_harm(&mut self, at: Duration) {
        let Some((node, bay)) = self.lossy_bay() else { return };
        match self.rng.below(100) {
            // A zone whose only disk is dead, or an old image of itself, is not whole again without a hand.
            0..30 | 50..80 if !self.shape.has_spares() => {
                let flips = self.rng.within(1..40);
                self.act(at, Act::Rot { node, bay, flips });
            }
            0..30 => self.act(at, Act::Die { node, bay }),
            30..50 => self.act(at, Act::Replace { node, bay }),
            50..80 => {
                self.plan.images.push((node.clone(), bay.clone()));
                let down_ms = self.rng.within(500..12_000);
                self.act(at, Act::Stale { node, bay, down_ms });
            }
            _ => {
                let flips = self.rng.within(1..6);
                self.act(at, Act::Rot { node, bay, flips });
            }
        }
    }
}

impl Plan {
    /// How many acts.
    pub fn acts(&self) -> u64 {
        self.acts.len() as u64
    }

    /// Carries it out, each act at its time.
    pub async fn carry_out(&self, cell: &Rc<Cell>, mut rng: SimRng) {
        let mut images = Vec::new();
        for (at, act) in &self.acts {
            sleep_until(cell.start + *at).await;
            // About half of the disks that will be stale are kept as they are in the middle of the round.
            if images.len() < self.images.len() && rng.chance(500) {
                let (node, bay) = &self.images[images.len()];
                let disk = cell.chassis(node).and_then(|chassis| chassis.disk(bay));
                images.extend(disk.map(|disk| ((node.clone(), bay.clone()), disk.number(), image(&disk))));
            }
            cell.network.note(format_args!("{act:?}"));
            match act {
                Act::Stale { node, bay, down_ms } => {
                    let Some(disk) = cell.chassis(node).and_then(|chassis| chassis.disk(bay)) else { continue };
                    cell.kill(node, Crash::PowerLoss);
                    let kept = images
                        .iter()
                        .find(|(place, number, _)| *number == disk.number() && (&place.0, &place.1) == (node, bay));
                    if let Some((.., image)) = kept {
                        disk.crash(Crash::PowerLoss);
                        disk.put_back(image);
                    }
                    start_later(cell, node, *down_ms);
                }
                act => do_to(cell, act, &mut rng),
            }
        }
    }
}

fn start_later(cell: &Rc<Cell>, name: &str, ms: u64) {
    let (cell, name) = (Rc::downgrade(cell), name.to_owned());
    tokio::task::spawn_local(async move {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        if let Some(cell) = cell.upgrade() {
            cell.start(&name);
        }
    });
}

fn do_to(cell: &Rc<Cell>, act: &Act, rng: &mut SimRng) {
    let disk = |node: &str, bay: &PathBuf| cell.chassis(node).and_then(|chassis| chassis.disk(bay));
    match act {
        Act::Kill { name, crash } => cell.kill(name, *crash),
        Act::Start { name } => cell.start(name),
        Act::Pause { name } => cell.process(name).pause(),
        Act::Resume { name } => cell.process(name).resume(),
        Act::Cut { from, to } => cell.network.cut(from, to),
        Act::Mend { from, to } => cell.network.mend(from, to),
        Act::Weather(weather) => cell.network.set_weather(*weather),
        Act::Catalog(pace) => cell.catalog.set(*pace),
        Act::JumpClock { name, by_ms } => cell.jump_clock(name, *by_ms),
        Act::Hang { node, bay, ms } => {
            if let Some(disk) = disk(node, bay) {
                disk.hang_until(cell.start.elapsed() + Duration::from_millis(*ms));
            }
        }
        Act::Pull { node, bay, ms } => {
            let Some(chassis) = cell.chassis(node) else { return };
            let Some(pulled) = chassis.pull(bay) else { return };
            pulled.disk.borrow_mut().die(ENODEV);
            let (bay, ms) = (bay.clone(), *ms);
            tokio::task::spawn_local(async move {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                // Another one may have taken its place.
                if chassis.disk(&bay).is_none() {
                    pulled.disk.borrow_mut().revive();
                    chassis.insert(&bay, pulled);
                }
            });
        }
        Act::Die { node, bay } => {
            if let Some(disk) = disk(node, bay) {
                disk.die();
            }
        }
        Act::Replace { node, bay } => {
            if let Some(chassis) = cell.chassis(node) {
                let taken = chassis.insert(bay, cell.disks.make());
                taken.into_iter().for_each(|disk| disk.disk.borrow_mut().die(ENODEV));
            }
        }
        Act::Rot { node, bay, flips } => {
            let Some(disk) = disk(node, bay) else { return };
            for _ in 0..*flips {
                let Some(data) = disk.data_range(rng.below(6) as u32) else { return };
                // The front of a slot is written first.
                let at = data.start + rng.below((data.end - data.start) / 2);
                disk.rot(at, rng.below(8) as u8);
            }
        }
        Act::Drain { node, bay } => {
            let Some(id) = disk(node, bay).map(|disk| disk.id) else { return };
            let operator = cell.operator();
            let order = Order { apply: true, ..Order::default() };
            // Refused, where that is not safe.
            tokio::task::spawn_local(async move { operator.order_disk(id, "drain", &order).await });
        }
        Act::Rebalance => {
            let operator = cell.operator();
            tokio::task::spawn_local(async move { operator.order_rebalance("apply").await });
        }
        Act::Stale { .. } => {}
    }
}
