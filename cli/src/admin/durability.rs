//! `admin durability`: how long the cell's data lasts on paper.

use clap::Args;
use holdfast_volume_manager_client::{DurabilityAnswer, DurabilityAsk};

use super::cell::{Cell, CellTarget};
use crate::show::{self, ByteSize, Table};

#[derive(Args)]
pub struct DurabilityOptions {
    #[command(flatten)]
    pub target: CellTarget,
    /// Share of the disks that fails within a year [default: 0.02]
    #[arg(long, value_name = "SHARE")]
    pub yearly_failures: Option<f64>,
    /// Unreadable bits for each bit read [default: 1e-15]
    #[arg(long, value_name = "RATE")]
    pub unreadable_bits: Option<f64>,
    /// Bytes a second that each disk gives to repair [default: what the repairs since the volume manager's start
    /// reached; 20 MB while there was none]
    #[arg(long, value_name = "SIZE")]
    pub repair_rate: Option<ByteSize>,
    /// For the cell with every slot in use, instead of what it holds now
    #[arg(long)]
    pub full: bool,
}

pub async fn run(cell: Cell, options: DurabilityOptions) -> anyhow::Result<()> {
    let ask = DurabilityAsk {
        yearly_failures: options.yearly_failures,
        unreadable_bits: options.unreadable_bits,
        repair_bytes_s: options.repair_rate.map(|rate| rate.0 as f64),
        full: options.full,
    };
    let answer = cell.volume_manager().durability(&ask).await?;
    cell.answer(&answer, || paper(&answer, options.full))
}

/// The model's answer, then what it was computed from. `full`: it is about a cell with every slot in use.
fn paper(answer: &DurabilityAnswer, full: bool) -> String {
    let mut out = String::new();
    if let Some(why) = &answer.catalog_lost {
        out.push_str(&format!("{:<23} {}\n", "NOT ALL KNOWN", show::name(why)));
    }
    // For so little the model has figures beyond all reason: they would tell of nothing that there is.
    match (answer.stored_bytes, full) {
        (Some(0), false) => {
            let known = if answer.catalog_lost.is_some() { "that the catalog knows of" } else { "yet" };
            out.push_str(&format!("nothing is stored {known}, so there is nothing to lose; --full tells of the cell with every slot in use\n"));
        }
        _ => out.push_str(&figures(answer)),
    }
    let mut inputs = Table::new(["INPUT", "VALUE", "UNIT", "FROM"]);
    for input in &answer.inputs {
        inputs.row([&input.name, &number(input.value), &input.unit, &input.source]);
    }
    out.push('\n');
    out.push_str(&inputs.to_string());
    out
}

fn figures(answer: &DurabilityAnswer) -> String {
    let rows = [
        ("first loss of a volume", format!("after {} years on average", number(answer.mean_years_to_loss))),
        ("any loss within a year", format!("chance {}", number(answer.yearly_loss))),
        ("a volume's year", format!("{:.1} nines", answer.nines)),
        ("repair of a disk", format!("{} h, its detection included", number(answer.repair_s / 3600.0))),
        (
            "two disks at once",
            format!(
                "{} volumes shared, down to one replica for {} h",
                number(answer.shared_by_two),
                number(answer.urgent_repair_s / 3600.0)
            ),
        ),
        ("a third disk then", format!("has a last replica with chance {}", number(answer.third_disk_matters))),
        ("a last replica", format!("cannot be read with chance {}", number(answer.last_replica_unreadable))),
    ];
    rows.iter().map(|(name, value)| format!("{name:<23} {value}\n")).collect()
}

/// Three digits, whatever the size.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if !(1e-3..1e6).contains(&size) => format!("{value:.2e}"),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use holdfast_volume_manager_client::DurabilityAnswer;

    use super::{number, paper};

    #[test]
    fn a_cell_without_data_has_no_figures_unless_a_full_one_is_asked_for_and_a_lost_catalog_is_told() {
        let mut answer = DurabilityAnswer {
            catalog_lost: None,
            stored_bytes: Some(0),
            inputs: Vec::new(),
            mean_years_to_loss: 6e14,
            yearly_loss: 0.0,
            yearly_share: 0.0,
            nines: 20.0,
            repair_s: 1.0,
            urgent_repair_s: 1.0,
            shared_by_two: 1.0,
            third_disk_matters: 0.0,
            last_replica_unreadable: 0.0,
        };
        let text = paper(&answer, false);
        assert!(text.starts_with("nothing is stored yet") && !text.contains("years"), "{text}");
        assert!(paper(&answer, true).contains("6.00e14 years"));
        answer.catalog_lost = Some("the catalog is not whole".to_owned());
        let text = paper(&answer, false);
        assert!(text.starts_with("NOT ALL KNOWN           the catalog is not whole\nnothing is stored that"), "{text}");
        assert!(!text.contains("years"), "{text}");
        answer.stored_bytes = Some(1);
        let text = paper(&answer, false);
        assert!(text.starts_with("NOT ALL KNOWN") && text.contains("6.00e14 years"), "{text}");
    }

    #[test]
    fn numbers_of_any_size_have_about_three_digits() {
        let shown = [0.0, 4.2e-9, 0.02, 3.06, 900.0, 16e12].map(number);
        assert_eq!(shown, ["0", "4.20e-9", "0.020", "3.1", "900", "1.60e13"]);
    }
}
