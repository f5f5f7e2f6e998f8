//! The parsers, by where their bytes come from.

mod disk;
mod image;
mod metadata;
mod text;
pub mod wire;

use std::path::Path;

use crate::driver::{Outcome, Target};

/// Every target.
pub fn all() -> Vec<Target> {
    let mut all = disk::targets();
    all.push(image::target());
    all.extend(wire::targets());
    all.extend(metadata::targets());
    all.extend(text::targets());
    for target in &mut all {
        target.seeds.extend(kept(target.name));
    }
    all
}

/// The inputs of `corpus/NAME`: those that a parser once failed on, so that it never does again.
fn kept(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// A parser of bytes without checksums.
fn of_bytes(name: &'static str, seeds: Vec<Vec<u8>>, run: impl Fn(&[u8]) -> Outcome + 'static) -> Target {
    Target {
        name,
        seeds,
        words: Vec::new(),
        repair: Box::new(|_| {}),
        run: Box::new(run),
        most_bytes: 64 << 10,
        // A value in memory may be a few times its bytes, and an error has its text.
        factor: 16,
        base_bytes: 16 << 10,
    }
}

/// A parser of text: words of the seeds are used to build inputs.
fn of_text(name: &'static str, seeds: Vec<String>, run: impl Fn(&str) -> Outcome + 'static) -> Target {
    let words = words(&seeds);
    let bytes = seeds.into_iter().map(String::into_bytes).collect();
    let run = move |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => run(text),
        Err(_) => run(&String::from_utf8_lossy(bytes)),
    };
    Target {
        words,
        // A number of two bytes in a document becomes a value of 32, in a vector that has grown to twice its length.
        factor: 256,
        base_bytes: 64 << 10,
        ..of_bytes(name, bytes, run)
    }
}

/// What stands between marks of punctuation, and what parsers of JSON and TOML stumble over.
fn words(seeds: &[String]) -> Vec<Vec<u8>> {
    const HARD: [&str; 34] = [
        "null",
        "true",
        "false",
        "0",
        "-1",
        "-0",
        "1e999",
        "1e-999",
        "18446744073709551616",
        "18446744073709551615",
        "-9223372036854775808",
        "9223372036854775807",
        "4294967296",
        "0.5",
        "\"\"",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "\"\\ud83d\\ude00\"",
        "[",
        "]",
        "{",
        "}",
        "{}",
        "[]",
        ",",
        ":",
        "=",
        "[[",
        "]]",
        "\n",
        "\u{feff}",
        "\u{130}",
        "\u{1F600}",
        "'''",
    ];
    let mut words: Vec<Vec<u8>> = HARD.iter().map(|word| word.as_bytes().to_vec()).collect();
    for seed in seeds {
        let split = seed.split(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '-' | '.'));
        words.extend(split.filter(|word| !word.is_empty()).map(|word| word.as_bytes().to_vec()));
    }
    words.sort();
    words.dedup();
    words
}
