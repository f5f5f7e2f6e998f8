//! The superblock's changing part: which life of itself a disk is; and whether it is still there.

use holdfast_libs_types::PAGE_BYTES;
use std::sync::atomic::Ordering;

use super::Engine;
use crate::buffer::AlignedBuf;
use crate::error::EngineError;
use crate::raw::Work;
use crate::status::Incarnation;
use crate::superblock::Superblock;

impl Engine {
    /// See `Disk::propose_incarnation`.
    pub(crate) async fn propose_incarnation(&self) -> Result<Incarnation, EngineError> {
        self.shared.writable()?;
        let _guard = self.superblock_lock.lock().await;
        let mut superblock = self.superblock.borrow().clone();
        if superblock.proposed.is_none() {
            superblock.proposed = Some((superblock.incarnation + 1, (self.entropy)()));
            self.write_superblock(superblock).await?;
        }
        Ok(self.superblock.borrow().identity())
    }

    /// See `Disk::confirm_incarnation`.
    pub(crate) async fn confirm_incarnation(&self, proposal: Incarnation) -> Result<(), EngineError> {
        self.shared.writable()?;
        let _guard = self.superblock_lock.lock().await;
        let mut superblock = self.superblock.borrow().clone();
        let named = (proposal.incarnation, proposal.nonce);
        if superblock.proposed.is_none() && (superblock.incarnation, superblock.nonce) == named {
            return Ok(());
        }
        if superblock.proposed != Some(named) {
            return Err(EngineError::InvalidArgument(format!(
                "incarnation {} was not proposed by this disk with that nonce",
                proposal.incarnation
            )));
        }
        superblock.previous_nonce = superblock.nonce;
        (superblock.incarnation, superblock.nonce) = named;
        superblock.proposed = None;
        self.write_superblock(superblock).await
    }

    /// Writes both copies, one after the other, never first the one that is known to be valid: the other may be torn
    /// by an earlier failure, and then this one is all there is.
    pub(super) async fn write_superblock(&self, mut superblock: Superblock) -> Result<(), EngineError> {
        superblock.generation = self.superblock.borrow().generation + 1;
        // Used up even if the writes fail: it may stand on the disk.
        self.superblock.borrow_mut().generation = superblock.generation;
        let page = superblock.encode();
        let areas = [superblock.geometry.superblock_a, superblock.geometry.superblock_b];
        let first = 1 - self.superblock_home.get();
        for copy in [first, 1 - first] {
            let buffer = self.page_buffer(&page[..]);
            self.write("writing a superblock", areas[copy].offset, buffer).await?;
            self.superblock_home.set(first);
        }
        self.shared.incarnation.store(superblock.incarnation, Ordering::Relaxed);
        *self.superblock.borrow_mut() = superblock;
        Ok(())
    }

    /// See `Disk::check_present`.
    pub(crate) async fn check_present(&self) -> Result<(), EngineError> {
        self.shared.readable()?;
        let _guard = self.superblock_lock.lock().await;
        let found = match self.io.start(0, Work::Identify).await {
            (Ok(_), _) => self.superblock_stands().await,
            (Err(error), _) => Err(error.to_string()),
        };
        found.map_err(|reason| {
            self.shared.set_failed(&reason);
            EngineError::Failed { disk: self.shared.id, reason }
        })
    }

    /// Whether a copy of the superblock on the disk names this disk, in this cell and incarnation.
    async fn superblock_stands(&self) -> Result<(), String> {
        let expected = self.superblock.borrow().clone();
        let areas = [expected.geometry.superblock_a, expected.geometry.superblock_b];
        let mut found = Vec::new();
        for area in areas {
            let buffer = AlignedBuf::with_capacity(PAGE_BYTES);
            let read = self.read_pages(area.offset, PAGE_BYTES, buffer).await;
            match read.map(|page| Superblock::decode(&page)) {
                Ok(Ok(one)) if one.disk == expected.disk && one.cell == expected.cell => return Ok(()),
                Ok(Ok(other)) => found.push(format!("disk {} of cell {}", other.disk, other.cell)),
                Ok(Err(error)) => found.push(error.to_string()),
                Err(error) => found.push(format!("cannot be read: {error}")),
            }
        }
        Err(format!("its superblocks are gone (A: {}; B: {})", found[0], found[1]))
    }
}
