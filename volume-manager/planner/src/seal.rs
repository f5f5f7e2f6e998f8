//! At which length and digest a volume is sealed: steps d and f of `docs/protocols.md`.

use holdfast_libs_types::DiskId;

/// One replica's answer to the fence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vote {
    /// Its disk.
    pub disk: DiskId,
    /// Bytes it holds after the fence; None when it could not be reached.
    pub tail: Option<u64>,
    /// It found damage below its tail.
    pub damaged: bool,
}

/// The length of a volume, or why there is none yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LengthDecision {
    /// Seal at this length.
    Length {
        /// Bytes.
        length: u64,
        /// The replicas that hold at least that much, in the order of the votes.
        voters: Vec<DiskId>,
    },
    /// Nobody may vote: try again when a replica comes back, and raise an alarm.
    Wait {
        /// What each replica lacks.
        why: String,
    },
}

/// The shortest tail that is not below `floor`, or the floor itself when a replica was not reached. Everything below the
/// floor has an index row, so a replica that is shorter has lost acknowledged bytes and has no vote; neither has one that is
/// damaged or could not be reached. Whatever is above the shortest tail was never acknowledged, since that takes all
/// replicas.
///
/// A replica that was not reached has all acknowledged bytes if it is sound, and may have no more. It must be able to take
/// the length that is decided without it: it may be the only one left when the volume's digest is asked for.
pub fn decide_length(votes: &[Vote], floor: u64) -> LengthDecision {
    let mut voters = Vec::new();
    let mut length: Option<u64> = None;
    let mut lacking = Vec::new();
    let all_reached = votes.iter().all(|vote| vote.tail.is_some());
    for Vote { disk, tail, damaged } in votes {
        match tail {
            None => lacking.push(format!("disk {disk} was not reached")),
            Some(_) if *damaged => lacking.push(format!("disk {disk} is damaged")),
            Some(tail) if *tail < floor => lacking.push(format!("disk {disk} holds only {tail} bytes")),
            Some(tail) => {
                voters.push(*disk);
                length = Some(length.map_or(*tail, |shortest| shortest.min(*tail)));
            }
        }
    }
    match length {
        Some(shortest) => LengthDecision::Length { length: if all_reached { shortest } else { floor }, voters },
        None if votes.is_empty() => LengthDecision::Wait { why: "the volume has no replica".to_owned() },
        None => LengthDecision::Wait {
            why: format!("no replica holds all {floor} acknowledged bytes: {}", lacking.join(", ")),
        },
    }
}

/// What a replica answered to the seal: the SHA-256 of `[0, length)`, or why it has none.
pub type DigestAnswer = (DiskId, Result<[u8; 32], String>);

/// The digest of a volume, or why there is none yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SealDecision {
    /// Commit this.
    Digest {
        /// SHA-256 of `[0, length)`.
        digest: [u8; 32],
        /// The replicas that agree, in the order of the answers.
        holders: Vec<DiskId>,
        /// The others, each with the reason.
        dropped: Vec<(DiskId, String)>,
    },
    /// Try again, and raise an alarm.
    Wait {
        /// What stands in the way.
        why: String,
    },
}

/// The digest that more than half of the replicas with a digest agree on. Without such a majority nothing tells which is
/// right, so the volume waits; dropping a replica on a guess could drop the good one.
pub fn decide_seal(answers: &[DigestAnswer]) -> SealDecision {
    let digests: Vec<[u8; 32]> = answers.iter().filter_map(|(_, answer)| answer.as_ref().ok().copied()).collect();
    if digests.is_empty() {
        let failures: Vec<String> = answers
            .iter()
            .filter_map(|(disk, answer)| answer.as_ref().err().map(|why| format!("disk {disk}: {why}")))
            .collect();
        let why = if failures.is_empty() { "nobody answered".to_owned() } else { failures.join(", ") };
        return SealDecision::Wait { why: format!("no replica could be verified: {why}") };
    }
    let agreeing = |digest: &[u8; 32]| digests.iter().filter(|other| *other == digest).count();
    let Some(digest) = digests.iter().find(|digest| agreeing(digest) * 2 > digests.len()).copied() else {
        return SealDecision::Wait { why: format!("{} replicas disagree and none is in the majority", digests.len()) };
    };
    let (mut holders, mut dropped) = (Vec::new(), Vec::new());
    for (disk, answer) in answers {
        match answer {
            Ok(found) if *found == digest => holders.push(*disk),
            Ok(_) => dropped.push((*disk, "its bytes differ from the majority's".to_owned())),
            Err(why) => dropped.push((*disk, why.clone())),
        }
    }
    SealDecision::Digest { digest, holders, dropped }
}
