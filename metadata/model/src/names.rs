//! What may be a name, when two names are the same, and how the server names copies.

use unicode_normalization::UnicodeNormalization;

/// Longest name, in bytes of UTF-8: what Linux file systems take.
pub const MAX_NAME_BYTES: usize = 255;

/// An extension longer than this (with its dot) is part of the name when a name is cut.
const MAX_EXTENSION_BYTES: usize = 32;

/// A name that no entry can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No characters.
    #[error("the name is empty")]
    Empty,
    /// `.` or `..`
    #[error("`{0}` is a direction, not a name")]
    Dots(String),
    /// Over [`MAX_NAME_BYTES`].
    #[error("the name has {0} bytes; at most 255 are possible")]
    TooLong(usize),
    /// `/` or NUL.
    #[error("the name holds `/` or NUL")]
    Character,
}

/// Whether an entry can have this name.
///
/// # Errors
/// See [`NameError`].
pub fn check_name(name: &str) -> Result<(), NameError> {
    match name {
        "" => Err(NameError::Empty),
        "." | ".." => Err(NameError::Dots(name.to_owned())),
        _ if name.len() > MAX_NAME_BYTES => Err(NameError::TooLong(name.len())),
        _ if name.contains(['/', '\0']) => Err(NameError::Character),
        _ => Ok(()),
    }
}

/// The key of a name: two names with one key cannot both stand in one folder. NFC, then lower case.
pub fn key(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    name.nfc().map(lower).collect()
}

/// Lower case, character by character (Unicode's simple mapping, never one to several: `Maße` is not `Masse`).
pub fn lowercase(text: &str) -> String {
    text.chars().map(lower).collect()
}

fn lower(character: char) -> char {
    let mut mapped = character.to_lowercase();
    match (mapped.next(), mapped.next()) {
        (Some(one), None) => one,
        // U+0130 alone has a longer full mapping; the first of it is its simple one.
        (Some(first), Some(_)) => first,
        (None, _) => character,
    }
}

/// `name (conflicted copy from USER on DATE).ext`; from `attempt` 2 on with ` (2)`. `date` is `YYYY-MM-DD`.
pub fn conflict_copy_name(name: &str, user: &str, date: &str, attempt: u32) -> String {
    with_suffix(name, &format!(" (conflicted copy from {user} on {date})"), attempt)
}

/// `name (case conflict).ext`; from `attempt` 2 on with ` (2)`.
pub fn case_conflict_name(name: &str, attempt: u32) -> String {
    with_suffix(name, " (case conflict)", attempt)
}

/// `name (2).ext`; `attempt` 1 gives `(2)`, the next `(3)`.
pub fn autorename(name: &str, attempt: u32) -> String {
    with_suffix(name, "", attempt.saturating_add(1))
}

fn with_suffix(name: &str, suffix: &str, attempt: u32) -> String {
    let number = if attempt > 1 { format!(" ({attempt})") } else { String::new() };
    let (stem, extension) = split_extension(name);
    let room = MAX_NAME_BYTES.saturating_sub(suffix.len() + number.len() + extension.len());
    let stem = cut(stem, room);
    format!("{stem}{suffix}{number}{extension}")
}

/// Stem and extension with its dot; a leading dot starts no extension.
fn split_extension(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(dot) if dot > 0 && name.len() - dot <= MAX_EXTENSION_BYTES => name.split_at(dot),
        _ => (name, ""),
    }
}

/// The longest front of `text` with at most `room` bytes that ends between characters.
fn cut(text: &str, room: usize) -> &str {
    let mut end = room.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::{MAX_NAME_BYTES, NameError, autorename, case_conflict_name, check_name, conflict_copy_name, key};

    #[test]
    fn golden_vectors_of_keys() {
        let vectors = [
            ("README.md", "readme.md"),
            ("Maße", "maße"),
            ("Masse", "masse"),
            ("MAẞE", "maße"),
            ("ÅNGSTRÖM", "ångström"),
            ("A\u{30a}ngstro\u{308}m", "ångström"),
            ("ΣΊΣΥΦΟΣ", "σίσυφοσ"),
            ("ς", "ς"),
            ("İstanbul", "istanbul"),
            ("ﬁle", "ﬁle"),
            ("K", "k"),
            ("Ω", "ω"),
            ("ДОМ", "дом"),
            ("文件", "文件"),
            ("한글", "한글"),
            ("\u{1112}\u{1161}\u{11ab}", "한"),
            ("𐐀", "𐐨"),
            ("Ǆ", "ǆ"),
            ("a\nB", "a\nb"),
        ];
        for (name, expected) in vectors {
            assert_eq!(key(name), expected, "{name}");
        }
    }

    #[test]
    fn the_unicode_tables_are_the_pinned_ones() {
        // Another version may give old names other keys: look at what changed before raising these.
        assert_eq!(char::UNICODE_VERSION.0, 17, "lower case, from the compiler's library");
        assert_eq!(unicode_normalization::UNICODE_VERSION.0, 18, "normal form, from unicode-normalization");
    }

    #[test]
    fn names_that_cannot_be_are_refused_with_the_reason() {
        assert_eq!(check_name(""), Err(NameError::Empty));
        assert_eq!(check_name(".."), Err(NameError::Dots("..".to_owned())));
        assert_eq!(check_name(&"é".repeat(128)), Err(NameError::TooLong(256)));
        assert_eq!(check_name("a/b"), Err(NameError::Character));
        assert_eq!(check_name("a\0"), Err(NameError::Character));
        for good in ["...", "a", " ", "new\nline", &"x".repeat(255)] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn copies_keep_the_extension() {
        let name = conflict_copy_name("report.txt", "ada", "2026-03-01", 1);
        assert_eq!(name, "report (conflicted copy from ada on 2026-03-01).txt");
        let second = conflict_copy_name("report.txt", "ada", "2026-03-01", 2);
        assert_eq!(second, "report (conflicted copy from ada on 2026-03-01) (2).txt");
        assert_eq!(case_conflict_name("a.JPG", 1), "a (case conflict).JPG");
        assert_eq!(autorename("a.txt", 1), "a (2).txt");
        assert_eq!(autorename(".profile", 2), ".profile (3)");
    }

    proptest! {
        #[test]
        fn a_copy_of_any_name_is_a_name(name in "\\PC{1,90}(\\.[a-zé]{0,40})?", user in "\\PC{1,30}", attempt in 1_u32..2000) {
            let user = user.replace('/', "_");
            let name = name.replace('/', "_");
            for copy in [
                conflict_copy_name(&name, &user, "2026-03-01", attempt),
                case_conflict_name(&name, attempt),
                autorename(&name, attempt),
            ] {
                prop_assert!(copy.len() <= MAX_NAME_BYTES);
                prop_assert_eq!(check_name(&copy), Ok(()));
            }
        }

        #[test]
        fn names_that_differ_only_in_ascii_case_share_a_key(name in "\\PC{0,40}") {
            prop_assert_eq!(key(&name), key(&name.to_ascii_uppercase()));
        }
    }
}
