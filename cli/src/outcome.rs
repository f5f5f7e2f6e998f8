//! How commands end: 0 done, 1 failed, 2 usage, 3 unreachable.

use std::process::ExitCode;

use holdfast_libs_transport::CallError;

/// Exit code of a command that failed.
pub const FAILED: u8 = 1;

/// Exit code of a command that was told something impossible.
const USAGE: u8 = 2;

/// Exit code of a command whose server did not answer.
const UNREACHABLE: u8 = 3;

/// What was typed cannot be done; says what to type instead.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// A usage error.
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    Usage(message.into()).into()
}

/// Prints an error with its causes and picks the exit code.
pub fn report(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("holdfast: {error:#}");
    if error.downcast_ref::<Usage>().is_some() {
        return USAGE.into();
    }
    let unreachable = error.chain().any(|cause| {
        matches!(cause.downcast_ref::<CallError>(), Some(CallError::Unreachable { .. } | CallError::Timeout { .. }))
    });
    if unreachable { UNREACHABLE.into() } else { FAILED.into() }
}
