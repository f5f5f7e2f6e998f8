//! How commands end: 0 done, 1 failed, 2 usage, 3 unreachable.

use std::process::ExitCode;

use holdfast_libs_transport::CallError;

/// Exit code of a command that failed.
pub const FAILED: u8 = 1;

/// Exit code of a command whose server did not answer.
const UNREACHABLE: u8 = 3;

/// Prints an error with its causes and picks the exit code.
pub fn report(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("holdfast: {error:#}");
    let unreachable = error.chain().any(|cause| {
        matches!(cause.downcast_ref::<CallError>(), Some(CallError::Unreachable { .. } | CallError::Timeout { .. }))
    });
    if unreachable { UNREACHABLE.into() } else { FAILED.into() }
}
