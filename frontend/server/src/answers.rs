//! The frontend's errors in the words of its protocol.

use holdfast_frontend_client::code;
use holdfast_libs_presign::UrlError;
use holdfast_libs_transport::ApiError;
use http::StatusCode;

/// Why a block could not be stored. Cloned to everybody who waits for the same block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PutFailure {
    /// The cell has no room for another volume.
    CellFull(String),
    /// Not now.
    Unavailable(String),
}

impl From<PutFailure> for ApiError {
    fn from(failure: PutFailure) -> Self {
        match failure {
            PutFailure::CellFull(why) => Self::new(StatusCode::INSUFFICIENT_STORAGE, code::CELL_FULL, why),
            PutFailure::Unavailable(why) => unavailable(why),
        }
    }
}

/// 503: repeat later.
pub(crate) fn unavailable(why: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code::UNAVAILABLE, why)
}

/// 413: longer than allowed.
pub(crate) fn too_large(why: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, code::TOO_LARGE, why)
}

/// 400: the body is not what its name says.
pub(crate) fn hash_mismatch(why: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, code::HASH_MISMATCH, why)
}

/// 403: the URL grants nothing.
pub(crate) fn url_refused(error: &UrlError) -> ApiError {
    let code = match error {
        UrlError::Malformed(_) => code::URL_MALFORMED,
        UrlError::Expired(_) => code::URL_EXPIRED,
        UrlError::Signature => code::URL_SIGNATURE,
    };
    ApiError::new(StatusCode::FORBIDDEN, code, error.to_string())
}
