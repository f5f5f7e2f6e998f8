//! `admin token`: the operator's own proof, made from the cell's secret where that is kept.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use holdfast_libs_transport::{Role, ServiceTokens};

use crate::show;

#[derive(Args)]
pub struct TokenOptions {
    /// File with the cell's secret, 64 hex digits, as the daemons have it
    #[arg(long, value_name = "FILE")]
    pub cell_secret_file: PathBuf,
}

pub fn run(options: &TokenOptions) -> anyhow::Result<()> {
    let path = options.cell_secret_file.display();
    let text = std::fs::read_to_string(&options.cell_secret_file).with_context(|| format!("{path} cannot be read"))?;
    let secret = holdfast_libs_crypto::key_from_hex(text.trim())
        .map_err(|_| anyhow::anyhow!("{path} does not hold a cell's secret: 64 hex digits"))?;
    show::line(&ServiceTokens::new(&secret).token(Role::Admin))
}
