//! Sizes, numbers and times as people read them: in sentences that daemons make, and on the operator's screen.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// A number of bytes: `1.5 GiB`.
pub fn bytes(count: u64) -> String {
    match UNITS.iter().find(|(_, factor)| count >= *factor) {
        Some((unit, factor)) => format!("{:.1} {unit}", count as f64 / *factor as f64),
        None => format!("{count} B"),
    }
}

/// `1 volume`, `2 volumes`: for words that take an `s`.
pub fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// A time in Unix milliseconds as RFC 3339 has it, in UTC, to the second.
pub fn moment(unix_ms: u64) -> String {
    let at = i64::try_from(unix_ms / 1000).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    let told = at.and_then(|at| at.format(&Rfc3339).ok());
    told.unwrap_or_else(|| format!("{unix_ms} ms after 1970"))
}

#[cfg(test)]
mod tests {
    use super::{bytes, count, moment};

    #[test]
    fn sizes_and_numbers_are_told_with_the_unit_and_the_ending_that_fit() {
        let told = [0, 1023, 1536, 5 << 20, 3 << 40, u64::MAX].map(bytes);
        assert_eq!(told, ["0 B", "1023 B", "1.5 KiB", "5.0 MiB", "3.0 TiB", "16777216.0 TiB"]);
        assert_eq!([0, 1, 2].map(|number| count(number, "disk")), ["0 disks", "1 disk", "2 disks"]);
    }

    #[test]
    fn times_are_dates_in_utc_and_what_is_no_date_is_told_as_a_number() {
        assert_eq!(moment(1_795_950_832_999), "2026-11-29T11:13:52Z");
        assert_eq!(moment(u64::MAX), "18446744073709551615 ms after 1970");
    }
}
