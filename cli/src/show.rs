//! Sizes, tables and progress as people read them.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::str::FromStr;

use anyhow::Context as _;
pub use holdfast_libs_types::told::{bytes, count, moment};
use indicatif::{ProgressBar, ProgressStyle};

const UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A number of bytes, written `8GiB`, `64MiB` or `4096`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("`{text}` is not a size; write for example 8GiB, 512MiB or 4096");
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| expected())?;
        let factor = match unit.trim() {
            "" => 1,
            unit => UNITS
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(unit) || name[..1].eq_ignore_ascii_case(unit))
                .map(|(_, factor)| *factor)
                .ok_or_else(expected)?,
        };
        number.checked_mul(factor).map(Self).ok_or_else(expected)
    }
}

/// Writes to stdout. Whoever reads it may stop when he has seen enough: that is no failure.
///
/// # Errors
/// When stdout takes nothing, for example because its disk is full.
pub fn text(text: &str) -> anyhow::Result<()> {
    more(text).map(drop)
}

/// As [`text`]; answers false once nobody reads it any more, so that what makes more of it can stop.
///
/// # Errors
/// When stdout takes nothing, for example because its disk is full.
pub fn more(text: &str) -> anyhow::Result<bool> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot write to stdout"),
    }
}

/// Writes a line to stdout.
///
/// # Errors
/// See [`text`].
pub fn line(line: &str) -> anyhow::Result<()> {
    text(&format!("{line}\n"))
}

/// `42 s`, `3 min 5 s`, `2 h 10 min`, `5 days`.
pub fn duration(seconds: f64) -> String {
    let seconds = seconds.clamp(0.0, 1e12).round() as u64;
    match (seconds / 86_400, seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (days, ..) if days >= 2 => format!("{days} days"),
        (_, hours, minutes, _) if hours > 0 => format!("{hours} h {minutes} min"),
        (_, _, minutes, seconds) if minutes > 0 => format!("{minutes} min {seconds} s"),
        (.., seconds) => format!("{seconds} s"),
    }
}

/// `37 %`; less than one percent is not nothing.
pub fn percent(part: u64, whole: u64) -> String {
    match (part, whole) {
        (_, 0) => "-".to_owned(),
        (0, _) => "0 %".to_owned(),
        (part, whole) if part < whole / 100 => "<1 %".to_owned(),
        (part, whole) => format!("{} %", u128::from(part) * 100 / u128::from(whole)),
    }
}

/// Columns as wide as their widest cell; the first row is the heading.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing into a String cannot fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Rows below a heading, shown as [`table`] does.
pub struct Table(Vec<Vec<String>>);

impl Table {
    /// A table without rows.
    pub fn new<const N: usize>(heading: [&str; N]) -> Self {
        Self(vec![heading.map(str::to_owned).to_vec()])
    }

    /// Adds a row. What others named is shown on one line.
    pub fn row<const N: usize>(&mut self, cells: [&str; N]) {
        self.0.push(cells.map(name).to_vec());
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.0.len() == 1
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&table(&self.0))
    }
}

/// A name as it can be shown on one line: control characters escaped.
pub fn name(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}

/// A progress bar over bytes on a terminal, nothing elsewhere.
pub fn progress(total_bytes: u64, what: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total_bytes);
    let style = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar
}

/// A progress bar over things on a terminal, nothing elsewhere.
pub fn progress_of(total: u64, what: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total);
    if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} {eta}") {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar
}

#[cfg(test)]
mod tests {
    use super::{ByteSize, duration, name, percent, table};

    #[test]
    fn sizes_are_read_with_and_without_units() {
        assert_eq!("8GiB".parse(), Ok(ByteSize(8 << 30)));
        assert_eq!("64m".parse(), Ok(ByteSize(64 << 20)));
        assert_eq!("4096".parse(), Ok(ByteSize(4096)));
        assert!("8 parsecs".parse::<ByteSize>().unwrap_err().contains("8GiB"));
        assert!("99999999999TiB".parse::<ByteSize>().is_err());
    }

    #[test]
    fn tables_align_and_names_stay_on_one_line() {
        let rows = vec![vec!["a".to_owned(), "b".to_owned()], vec!["long".to_owned(), "c".to_owned()]];
        assert_eq!(table(&rows), "a     b\nlong  c\n");
        assert_eq!(name("a\nb"), "a\\nb");
    }
    #[test]
    fn times_and_shares_are_told_in_the_unit_that_fits() {
        let shown = [0.4, 59.0, 185.0, 7800.0, 100_000.0, 500_000.0].map(duration);
        assert_eq!(shown, ["0 s", "59 s", "3 min 5 s", "2 h 10 min", "27 h 46 min", "5 days"]);
        let shown =
            [(0, 0), (0, 5), (1, 1000), (999, 1000), (u64::MAX, u64::MAX)].map(|(part, all)| percent(part, all));
        assert_eq!(shown, ["-", "0 %", "<1 %", "99 %", "100 %"]);
    }
}
