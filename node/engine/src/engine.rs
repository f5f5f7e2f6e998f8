//! The engine, inside of the disk's thread. Interim: refuses everything until its parts are in.
use crate::buffer::AlignedBuf;
use crate::error::EngineError;
use crate::status::{ExtentInfo, Incarnation};
use bytes::Bytes;
use holdfast_libs_types::{DiskId, VolumeId, WriteEpoch};
pub(crate) struct Engine;
pub(crate) struct AppendBatch;
pub(crate) struct ReadAnswer {
    pub(crate) bytes: Bytes,
    pub(crate) slot: u32,
}
const STOPPED: EngineError = EngineError::Stopped { disk: DiskId([0; 16]) };
impl AppendBatch {
    pub(crate) fn check(_: VolumeId, _: WriteEpoch, _: u64, _: AlignedBuf) -> Result<Self, EngineError> {
        Err(STOPPED)
    }
}
impl Engine {
    pub(crate) async fn create_extent(&self, _: VolumeId, _: WriteEpoch) -> Result<(), EngineError> {
        Err(STOPPED)
    }
    pub(crate) async fn append(&self, _: AppendBatch) -> Result<u64, EngineError> {
        Err(STOPPED)
    }
    pub(crate) async fn read(&self, _: VolumeId, _: u64, _: u32) -> Result<ReadAnswer, EngineError> {
        Err(STOPPED)
    }
    pub(crate) async fn fence(&self, _: VolumeId, _: WriteEpoch, _: u64) -> Result<u64, EngineError> {
        Err(STOPPED)
    }
    pub(crate) async fn seal(&self, _: VolumeId, _: WriteEpoch, _: u64, _: u64) -> Result<[u8; 32], EngineError> {
        Err(STOPPED)
    }
    pub(crate) async fn begin_copy(&self, _: VolumeId, _: WriteEpoch, _: u64, _: [u8; 32]) -> Result<(), EngineError> {
        Err(STOPPED)
    }
    pub(crate) async fn copy_write(&self, _: VolumeId, _: u64, _: AlignedBuf) -> Result<(), EngineError> {
        Err(STOPPED)
    }
    pub(crate) async fn finish_copy(&self, _: VolumeId) -> Result<(), EngineError> {
        Err(STOPPED)
    }
    pub(crate) async fn abort_copy(&self, _: VolumeId) -> Result<(), EngineError> {
        Err(STOPPED)
    }
    pub(crate) fn extents(&self) -> Vec<ExtentInfo> {
        Vec::new()
    }
    pub(crate) fn extent(&self, _: VolumeId) -> Result<ExtentInfo, EngineError> {
        Err(STOPPED)
    }
    pub(crate) async fn read_key_area(&self) -> Result<Option<Vec<u8>>, EngineError> {
        Err(STOPPED)
    }
    pub(crate) async fn write_key_area(&self, _: Vec<u8>) -> Result<(), EngineError> {
        Err(STOPPED)
    }
    pub(crate) async fn propose_incarnation(&self) -> Result<Incarnation, EngineError> {
        Err(STOPPED)
    }
    pub(crate) async fn confirm_incarnation(&self, _: Incarnation) -> Result<(), EngineError> {
        Err(STOPPED)
    }
    pub(crate) async fn check_present(&self) -> Result<(), EngineError> {
        Err(STOPPED)
    }
}
