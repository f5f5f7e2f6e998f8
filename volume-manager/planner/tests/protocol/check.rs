//! What must hold in every state.

use crate::world::{BATCHES, Extent, State, World};

/// The invariant that is broken, if one is.
pub fn broken(world: &World) -> Option<String> {
    let table = &world.table;
    for n in 1..=BATCHES {
        let bit = 1 << n;
        if world.acknowledged & bit == 0 {
            continue;
        }
        if (world.index.rows | world.index.moved) & bit == 0 {
            return Some(format!("batch {n} is acknowledged without an index row"));
        }
        if world.index.moved & bit == 0 && !world.disks.iter().any(|disk| disk.reads(n)) {
            return Some(format!("batch {n} is acknowledged and no disk can give it"));
        }
    }
    if let Some(length) = table.length {
        let outside = (1..=BATCHES).any(|n| n > length && world.index.rows & (1 << n) != 0);
        if outside {
            return Some(format!("an index row points outside of the sealed length {length}"));
        }
        let other = |extent| matches!(extent, Extent::Sealed(at) if at != length);
        if world.disks.iter().any(|disk| other(disk.extent)) {
            return Some(format!("a replica is cut at another length than {length}"));
        }
    }
    if table.state == State::Retired && world.index.rows != 0 {
        return Some("an index row points into a retired volume".to_owned());
    }
    let flags = [
        (world.disks.iter().any(|disk| disk.cut_early), "a replica was cut before the length was committed"),
        (world.disks.iter().any(|disk| disk.passed_fence), "a disk took an append below its fence"),
        (table.taken_from_old_leader, "a write of an old leader was taken"),
        (table.voter_dropped, "a sound replica that voted is not on the list"),
        (table.erased_early, "a replica was erased before the volume had its full number of verified ones"),
        (table.restored_unread, "an extent came out of the trash onto the list and is not what was sealed"),
        (table.displaced_sound, "a sound replica gave way to a copy"),
    ];
    flags.into_iter().find(|(broken, _)| *broken).map(|(_, what)| what.to_owned())
}
