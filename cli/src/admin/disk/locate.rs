//! `admin disk locate`: the light of a disk's bay, switched by its node.

use clap::Args;
use holdfast_node_client::LocateOrder;
use serde_json::json;

use crate::admin::cell::{Cell, CellTarget};
use crate::admin::names;
use crate::arguments::Switch;

#[derive(Args)]
pub struct LocateDisk {
    /// Id of the disk, the beginning of it, or NODE:PATH
    pub disk: String,
    #[arg(value_enum)]
    pub switch: Switch,
    #[command(flatten)]
    pub target: CellTarget,
}

pub async fn run(cell: Cell, options: LocateDisk) -> anyhow::Result<()> {
    let inventory = cell.volume_manager().inventory().await?;
    let disk = names::disk(&inventory, &options.disk)?;
    let on = options.switch == Switch::On;
    let order = LocateOrder { path: disk.path.clone(), on };
    let located = cell.node(&disk.address).locate(&order).await?;
    let word = if on { "on" } else { "off" };
    cell.answer(
        &json!({"disk": disk.disk, "node": disk.node, "light": word, "bay": located.bay, "way": located.way}),
        || {
            format!(
                "disk {} is in bay {} of node {}: light {word} ({})\n",
                disk.disk, located.bay, disk.node, located.way
            )
        },
    )
}
