//! The engine's errors in the words of the protocol.

use holdfast_libs_transport::ApiError;
use holdfast_node_client::code;
use holdfast_node_engine::EngineError;
use http::StatusCode;
use serde_json::json;

/// The answer for an operation that the engine refused or that failed.
pub(crate) fn refusal(error: &EngineError) -> ApiError {
    use EngineError as E;
    let (status, code, detail) = match error {
        E::Busy { .. } => (StatusCode::SERVICE_UNAVAILABLE, code::BUSY, None),
        E::NoSpace { .. } => (StatusCode::INSUFFICIENT_STORAGE, code::NO_SPACE, None),
        E::VolumeFull { .. } => (StatusCode::INSUFFICIENT_STORAGE, code::VOLUME_FULL, None),
        E::UnknownVolume { .. } => (StatusCode::NOT_FOUND, code::UNKNOWN_VOLUME, None),
        E::AlreadyExists { .. } => (StatusCode::CONFLICT, code::ALREADY_EXISTS, None),
        E::Fenced { current, .. } => (StatusCode::CONFLICT, code::FENCED, Some(json!({"epoch": current}))),
        E::NoAppends { .. } => (StatusCode::CONFLICT, code::FENCED, None),
        E::StaleTerm { current, .. } => (StatusCode::CONFLICT, code::STALE_TERM, Some(json!({"term": current}))),
        E::NotTail { tail } => (StatusCode::CONFLICT, code::NOT_TAIL, Some(json!({"tail": tail}))),
        E::ConflictingRepeat { .. } => (StatusCode::CONFLICT, code::CONFLICTING_REPEAT, None),
        E::InvalidBatch { .. } => (StatusCode::BAD_REQUEST, code::INVALID_BATCH, None),
        E::InvalidArgument(_) => (StatusCode::BAD_REQUEST, "bad_request", None),
        E::ReadOnly { .. } => (StatusCode::FORBIDDEN, code::READ_ONLY, None),
        E::Damaged { disk, slot, offset, .. } => {
            (StatusCode::GONE, code::DAMAGED, Some(json!({"disk": disk, "slot": slot, "offset": offset})))
        }
        // The bytes that were read back from the disk are not those that were sent to it.
        E::CopyMismatch { .. } => (StatusCode::GONE, code::DAMAGED, None),
        E::OutOfRange { end, .. } => {
            (StatusCode::RANGE_NOT_SATISFIABLE, code::OUT_OF_RANGE, Some(json!({"tail": end})))
        }
        E::TooShort { tail, .. } => (StatusCode::CONFLICT, code::TOO_SHORT, Some(json!({"tail": tail}))),
        E::NotABoundary { start, end, .. } => {
            (StatusCode::CONFLICT, code::NOT_A_BOUNDARY, Some(json!({"start": start, "end": end})))
        }
        E::SealedOtherwise { length, .. } => {
            (StatusCode::CONFLICT, code::SEALED_OTHERWISE, Some(json!({"length": length})))
        }
        E::WrongState { state, .. } => {
            (StatusCode::CONFLICT, code::WRONG_STATE, Some(json!({"state": state.to_string()})))
        }
        E::EraseRefused { .. } => (StatusCode::INTERNAL_SERVER_ERROR, code::ERASE_REFUSED, None),
        E::WrongOrder { .. } => (StatusCode::CONFLICT, code::WRONG_ORDER, None),
        E::Trashed { .. } => (StatusCode::CONFLICT, code::WRONG_STATE, Some(json!({"state": "trashed"}))),
        E::Stalled { .. } => (StatusCode::GATEWAY_TIMEOUT, code::STALLED, None),
        E::Failed { .. } | E::Io { .. } | E::Stopped { .. } => (StatusCode::BAD_GATEWAY, code::DISK_FAILED, None),
    };
    let answer = ApiError::new(status, code, error.to_string());
    match detail {
        Some(detail) => answer.with_detail(detail),
        None => answer,
    }
}
