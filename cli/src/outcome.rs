//! How commands end: 0 done, 1 failed, 2 usage, 3 unreachable.

use std::process::ExitCode;

use holdfast_libs_transport::{ApiError, CallError};

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

/// An error with its causes, each cause once: many errors name theirs in their own words.
pub fn told(error: &anyhow::Error) -> String {
    let mut text = error.to_string().trim_end().to_owned();
    for cause in error.chain().skip(1).map(|cause| cause.to_string().trim_end().to_owned()) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// What became of a question to a node, in words.
pub fn of_node(error: CallError) -> String {
    let silent = matches!(error, CallError::Unreachable { .. } | CallError::Timeout { .. });
    let told = told(&error.into());
    if silent { format!("the node does not answer: {told}") } else { told }
}

/// Prints an error with its causes and picks the exit code.
pub fn report(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("holdfast: {}", told(&error));
    code_of(&error).into()
}

/// The exit code of a failure.
fn code_of(error: &anyhow::Error) -> u8 {
    if error.downcast_ref::<Usage>().is_some() {
        return USAGE;
    }
    match error.chain().find_map(|cause| cause.downcast_ref::<CallError>()) {
        Some(CallError::Unreachable { .. } | CallError::Timeout { .. }) => UNREACHABLE,
        Some(CallError::Api(refused)) if is_value_refused(refused) => USAGE,
        _ => FAILED,
    }
}

/// Whether what was typed is at fault, which only the server could judge: a value out of bounds (400), or one that its messages
/// have no place for (422).
fn is_value_refused(refused: &ApiError) -> bool {
    refused.code == "bad_request" && matches!(refused.status.as_u16(), 400 | 422)
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use holdfast_libs_transport::{ApiError, CallError};
    use http::StatusCode;

    use super::{code_of, told, usage};

    #[derive(Debug, thiserror::Error)]
    #[error("{path}: cannot be read: {source}; check its rights")]
    struct NamesItsCause {
        path: &'static str,
        source: std::io::Error,
    }

    #[test]
    fn each_cause_is_told_once() {
        let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let once = anyhow::Error::new(NamesItsCause { path: "node.toml", source: missing() });
        assert_eq!(told(&once), "node.toml: cannot be read: entity not found; check its rights");
        let deeper = Err::<(), _>(missing()).context("opening the file").context("starting").unwrap_err();
        assert_eq!(told(&deeper), "starting: opening the file: entity not found");
    }

    #[test]
    fn a_value_that_the_server_does_not_take_is_a_usage_error_as_one_that_the_command_does_not_take() {
        let refused = |error| code_of(&anyhow::Error::from(CallError::Api(error)).context("setting the impact"));
        assert_eq!(refused(ApiError::bad_request("`impact` must be a number")), 2);
        let with_status = |status| refused(ApiError::new(StatusCode::from_u16(status).unwrap(), "bad_request", "no"));
        assert_eq!([422, 408, 413, 415].map(with_status), [2, 1, 1, 1]);
        assert_eq!(refused(ApiError::incomplete("the body broke off")), 1);
        assert_eq!(refused(ApiError::internal("the catalog is away")), 1);
        assert_eq!(code_of(&usage("say --yes")), 2);
        let timeout =
            CallError::Timeout { url: "https://127.0.0.1:1".to_owned(), after: std::time::Duration::from_secs(1) };
        assert_eq!(code_of(&timeout.into()), 3);
    }
}
