//! How a profile names many bays in one line, and how it leaves open what differs from machine to machine.
//!
//! `{0..11}` stands for twelve values, `{01..12}` for twelve values of two digits; `*` stands for any text.

/// A text in which `*` stands for any text, also none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern(String);

impl Pattern {
    /// The pattern that is written `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// As it was written, ranges replaced by their values.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether all of `text` is what the pattern describes. Takes time in proportion to both lengths multiplied.
    pub fn matches(&self, text: &str) -> bool {
        let Some((start, rest)) = self.0.split_once('*') else { return self.0 == text };
        let Some(mut text) = text.strip_prefix(start) else { return false };
        let mut parts: Vec<&str> = rest.split('*').collect();
        let end = parts.pop().unwrap_or_default();
        for part in parts {
            let Some(at) = text.find(part) else { return false };
            text = &text[at + part.len()..];
        }
        text.len() >= end.len() && text.ends_with(end)
    }
}

/// Most values that one range may stand for: no chassis comes near, and a slip of the pen stays cheap.
pub const MAX_RANGE: u64 = 1024;

/// The texts that `text` stands for: one a value of its range, or the text itself when it has none.
///
/// # Errors
/// What is wrong with the range.
pub fn expand(text: &str) -> Result<Vec<String>, String> {
    let Some((before, rest)) = text.split_once('{') else {
        return if text.contains('}') {
            Err(format!("`{text}`: `}}` without `{{`"))
        } else {
            Ok(vec![text.to_owned()])
        };
    };
    let wrong = || format!("`{text}`: a range is written {{FIRST..LAST}}, for example {{0..11}} or {{01..12}}");
    let (range, after) = rest.split_once('}').ok_or_else(wrong)?;
    if after.contains(['{', '}']) {
        return Err(format!("`{text}`: only one range fits into a text"));
    }
    let (first, last) = range.split_once("..").ok_or_else(wrong)?;
    let digits = |number: &str| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(first) || !digits(last) {
        return Err(wrong());
    }
    let width = if first.starts_with('0') { first.len() } else { 1 };
    let (first, last): (u64, u64) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
    if first > last || last - first >= MAX_RANGE {
        return Err(format!("`{text}`: the range must rise, and by fewer than {MAX_RANGE} values"));
    }
    Ok((first..=last).map(|number| format!("{before}{number:0width$}{after}")).collect())
}

/// A key by which texts sort as people count: `phy2` before `phy10`.
pub fn natural(text: &str) -> Vec<(String, u64)> {
    let mut key = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        let (number, tail) = tail.split_at(end);
        key.push((word.to_owned(), number.parse().unwrap_or(u64::MAX)));
        rest = tail;
    }
    key
}

#[cfg(test)]
mod tests {
    use super::{Pattern, expand, natural};

    #[test]
    fn a_star_stands_for_any_text_and_nothing_else_does() {
        let phy = Pattern::new("pci-*-sas-exp0x*-phy1-lun-0");
        assert!(phy.matches("pci-0000:3b:00.0-sas-exp0x500304801eabcd7f-phy1-lun-0"));
        assert!(!phy.matches("pci-0000:3b:00.0-sas-exp0x500304801eabcd7f-phy11-lun-0"));
        assert!(!phy.matches("pci-0000:3b:00.0-sas-phy1-lun-0"));
        assert!(Pattern::new("*").matches("") && Pattern::new("a").matches("a") && !Pattern::new("a").matches("ab"));
        assert!(!Pattern::new("ab*ba").matches("aba"), "start and end may not share a letter");
        assert!(Pattern::new("a*b*b").matches("abb") && !Pattern::new("a*b*b").matches("ab"));
    }

    #[test]
    fn a_range_stands_for_its_values_with_its_zeros() {
        assert_eq!(expand("b{9..11}-x").unwrap(), ["b9-x", "b10-x", "b11-x"]);
        assert_eq!(expand("{08..10}").unwrap(), ["08", "09", "10"]);
        assert_eq!(expand("{0..1}").unwrap(), ["0", "1"]);
        assert_eq!(expand("plain").unwrap(), ["plain"]);
        for wrong in ["{", "}", "{1}", "{1..}", "{a..b}", "{2..1}", "{0..99999}", "{1..2}{3..4}", "{-1..2}"] {
            assert!(expand(wrong).unwrap_err().contains(wrong), "{wrong}");
        }
    }

    #[test]
    fn numbers_sort_by_value() {
        let mut names = ["phy10", "phy2", "phy1", "a"];
        names.sort_by_key(|name| natural(name));
        assert_eq!(names, ["a", "phy1", "phy2", "phy10"]);
    }
}
