//! Where everything stands on a disk.

#[derive(Debug, Clone)]
pub(crate) struct Geometry {
    pub(crate) slot_bytes: u64,
    pub(crate) slots: u32,
}
impl Geometry {
    pub(crate) fn volume_capacity_bytes(&self) -> u64 {
        self.slot_bytes
    }
}
