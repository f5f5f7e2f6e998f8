//! Who calls, and how much room there is.

use std::sync::Arc;

use axum::extract::State;
use holdfast_libs_types::AccountId;
use serde_json::{Value, json};

use super::arg::{Answer, Caller, NoArg};
use super::error::ApiFailure;
use crate::app::App;

/// `dbid:` and 35 characters: SDKs insist on 40.
fn account_id(account: AccountId) -> String {
    format!("dbid:AAA{account}")
}

pub(super) async fn current_account(Caller(actor): Caller, _: NoArg) -> Answer<Value> {
    let name = &actor.user;
    let initials: String = name.chars().take(2).flat_map(char::to_uppercase).collect();
    // There is no mail yet; a name that is an address is shown as one.
    let email = if name.contains('@') { name.clone() } else { format!("{name}@localhost") };
    let namespace = actor.namespace.0.to_string();
    Answer(json!({
        "account_id": account_id(actor.account),
        "name": {
            "given_name": name,
            "surname": "",
            "familiar_name": name,
            "display_name": name,
            "abbreviated_name": initials,
        },
        "email": email,
        "email_verified": false,
        "disabled": false,
        "locale": "en",
        "referral_link": "",
        "is_paired": false,
        "account_type": { ".tag": "basic" },
        "root_info": { ".tag": "user", "root_namespace_id": namespace, "home_namespace_id": namespace },
    }))
}

pub(super) async fn space_usage(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    _: NoArg,
) -> Result<Answer<Value>, ApiFailure> {
    let usage = app.store.usage(actor).await?;
    let allocation = json!({ ".tag": "individual", "allocated": usage.quota });
    Ok(Answer(json!({ "used": usage.used, "allocation": allocation })))
}

#[cfg(test)]
mod tests {
    use holdfast_libs_types::AccountId;

    #[test]
    fn an_account_id_has_40_characters() {
        assert_eq!(super::account_id(AccountId([7; 16])).len(), 40);
    }
}
