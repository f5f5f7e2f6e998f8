//! `admin durability`: how long the cell's data lasts on paper.

use clap::Args;
use holdfast_volume_manager_client::{DurabilityAnswer, DurabilityAsk};

use super::cell::{Cell, CellTarget};
use crate::show::{ByteSize, Table};

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
    cell.answer(&answer, || paper(&answer))
}

/// The model's answer, then what it was computed from.
fn paper(answer: &DurabilityAnswer) -> String {
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
    let mut out: String = rows.iter().map(|(name, value)| format!("{name:<23} {value}\n")).collect();
    let mut inputs = Table::new(["INPUT", "VALUE", "UNIT", "FROM"]);
    for input in &answer.inputs {
        inputs.row([&input.name, &number(input.value), &input.unit, &input.source]);
    }
    out.push('\n');
    out.push_str(&inputs.to_string());
    out
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
    use super::number;

    #[test]
    fn numbers_of_any_size_have_about_three_digits() {
        let shown = [0.0, 4.2e-9, 0.02, 3.06, 900.0, 16e12].map(number);
        assert_eq!(shown, ["0", "4.20e-9", "0.020", "3.1", "900", "1.60e13"]);
    }
}
