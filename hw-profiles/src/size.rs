//! Sizes as profiles write them: `20TB` as a disk's label says, `256MiB` as a zone is measured, or a number of bytes.

const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Bytes of a size such as `3.84TB`, `256MiB` or `4096`.
///
/// # Errors
/// What the text should look like.
pub fn parse(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size; write for example 20TB, 256MiB or 4096");
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim();
    let factor = if unit.is_empty() {
        1
    } else {
        UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| *factor).ok_or_else(wrong)?
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if fraction.is_empty() || fraction.len() > 6 || fraction.contains('.') {
        return Err(wrong());
    }
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let thousandths: u64 = fraction.parse().map_err(|_| wrong())?;
    let part = u128::from(thousandths) * u128::from(factor) / 10_u128.pow(fraction.len() as u32);
    let bytes = u128::from(whole) * u128::from(factor) + part;
    u64::try_from(bytes).map_err(|_| wrong())
}

/// A size as a disk's label says it: `20.0 TB`.
pub fn shown(bytes: u64) -> String {
    for (unit, factor) in &UNITS[4..8] {
        if bytes >= *factor {
            return format!("{:.1} {unit}", bytes as f64 / *factor as f64);
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::{parse, shown};

    #[test]
    fn sizes_of_labels_and_of_zones_are_read() {
        assert_eq!(parse("20TB"), Ok(20_000_000_000_000));
        assert_eq!(parse("3.84 TB"), Ok(3_840_000_000_000));
        assert_eq!(parse("256MiB"), Ok(256 << 20));
        assert_eq!(parse("4096"), Ok(4096));
        for wrong in ["", "TB", "1.TB", "1.2.3TB", "20 parsecs", "99999999999TiB", "-1"] {
            assert!(parse(wrong).unwrap_err().contains("20TB"), "{wrong}");
        }
        assert_eq!((shown(20_000_588_955_648), shown(12)), ("20.0 TB".to_owned(), "12 B".to_owned()));
    }
}
