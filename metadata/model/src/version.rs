//! Version vectors: device -> counter.
//!
//! A counter is the number of edits the server has taken from the device (not of this entry alone), so no two edits of a
//! device ever carry the same counter, and no two versions the same vector.
//!
//! Stored form: pairs of device u64 and counter u64, big-endian, devices ascending, no zero counters.

use std::collections::BTreeMap;

use holdfast_libs_types::DeviceId;

use crate::layout::Fields;

/// How one version stands to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The same version.
    Equal,
    /// An ancestor of the other.
    Before,
    /// A descendant of the other.
    After,
    /// Neither knew of the other.
    Concurrent,
}

/// Which edits went into a version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VersionVector(BTreeMap<DeviceId, u64>);

/// Bytes that are no version vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stored version vector is damaged")]
pub struct VersionVectorError;

impl VersionVector {
    /// The vector of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The counter of a device; 0 when it had no part.
    pub fn counter(&self, device: DeviceId) -> u64 {
        self.0.get(&device).copied().unwrap_or(0)
    }

    /// The same version with one more edit: `device`'s counter raised to `counter` (never lowered).
    #[must_use]
    pub fn raised(mut self, device: DeviceId, counter: u64) -> Self {
        let mine = self.0.entry(device).or_insert(0);
        *mine = counter.max(*mine);
        self
    }

    /// How `self` stands to `other`.
    pub fn compare(&self, other: &Self) -> Order {
        match (self.covers(other), other.covers(self)) {
            (true, true) => Order::Equal,
            (true, false) => Order::After,
            (false, true) => Order::Before,
            (false, false) => Order::Concurrent,
        }
    }

    /// Whether every edit in `other` is in `self`.
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|(device, counter)| self.counter(*device) >= *counter)
    }

    /// The version that holds the edits of both.
    #[must_use]
    pub fn joined(mut self, other: &Self) -> Self {
        for (device, counter) in &other.0 {
            self = self.raised(*device, *counter);
        }
        self
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() * 16);
        for (device, counter) in &self.0 {
            bytes.extend_from_slice(&device.0.to_be_bytes());
            bytes.extend_from_slice(&counter.to_be_bytes());
        }
        bytes
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`VersionVectorError`] for bytes that [`Self::encode`] never writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, VersionVectorError> {
        let mut fields = Fields(bytes);
        let mut vector = BTreeMap::new();
        let mut last = None;
        while !fields.0.is_empty() {
            let (Some(device), Some(counter)) = (fields.u64(), fields.u64()) else { return Err(VersionVectorError) };
            if counter == 0 || last.is_some_and(|last| last >= device) {
                return Err(VersionVectorError);
            }
            last = Some(device);
            vector.insert(DeviceId(device), counter);
        }
        Ok(Self(vector))
    }
}

#[cfg(test)]
mod tests {
    use holdfast_libs_types::DeviceId;
    use proptest::prelude::{Strategy, prop, prop_assert, prop_assert_eq, proptest};

    use super::{Order, VersionVector};

    fn vector(pairs: &[(u64, u64)]) -> VersionVector {
        pairs.iter().fold(VersionVector::new(), |vector, (device, counter)| vector.raised(DeviceId(*device), *counter))
    }

    fn any_vector() -> impl Strategy<Value = VersionVector> {
        prop::collection::btree_map(0_u64..4, 1_u64..4, 0..4)
            .prop_map(|pairs| vector(&pairs.into_iter().collect::<Vec<_>>()))
    }

    #[test]
    fn golden_bytes_of_a_vector() {
        let encoded = vector(&[(2, 3), (1, 256)]).encode();
        assert_eq!(hex::encode(encoded), "0000000000000001000000000000010000000000000000020000000000000003");
    }

    #[test]
    fn bytes_that_are_never_written_are_refused() {
        let good = vector(&[(1, 1), (2, 1)]).encode();
        assert!(VersionVector::decode(&good[..31]).is_err());
        assert!(VersionVector::decode(&[&good[16..], &good[..16]].concat()).is_err());
        assert!(VersionVector::decode(&[0; 16]).is_err());
    }

    #[test]
    fn edits_that_did_not_know_of_each_other_are_concurrent() {
        let base = vector(&[(1, 1)]);
        let left = base.clone().raised(DeviceId(2), 1);
        let right = base.clone().raised(DeviceId(3), 1);
        assert_eq!(left.compare(&base), Order::After);
        assert_eq!(base.compare(&left), Order::Before);
        assert_eq!(left.compare(&right), Order::Concurrent);
        assert_eq!(left.clone().joined(&right).compare(&right), Order::After);
    }

    proptest! {
        #[test]
        fn a_vector_reads_back(vector in any_vector()) {
            prop_assert_eq!(VersionVector::decode(&vector.encode()), Ok(vector));
        }

        #[test]
        fn the_join_is_the_least_that_covers_both(a in any_vector(), b in any_vector(), c in any_vector()) {
            let join = a.clone().joined(&b);
            prop_assert!(join.covers(&a) && join.covers(&b));
            prop_assert_eq!(&join, &b.clone().joined(&a));
            if c.covers(&a) && c.covers(&b) {
                prop_assert!(c.covers(&join));
            }
        }

        #[test]
        fn comparing_is_the_same_from_both_sides(a in any_vector(), b in any_vector()) {
            let mirrored = match b.compare(&a) {
                Order::Before => Order::After,
                Order::After => Order::Before,
                same => same,
            };
            prop_assert_eq!(a.compare(&b), mirrored);
        }
    }
}
