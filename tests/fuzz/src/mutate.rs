//! Inputs from inputs: bits, numbers, pieces and words changed at random.

use rand::RngExt as _;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;

/// Numbers at which parsers go wrong.
const NUMBERS: [u64; 22] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    4095,
    4096,
    4097,
    65_535,
    65_536,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fff0,
    0xffff_ffff,
    1 << 32,
    1 << 48,
    0x7fff_ffff_ffff_ffff,
    0xffff_ffff_ffff_f000,
    u64::MAX,
];

/// Changes `bytes` one to six times. `other` is an input to take pieces from, `words` are texts that mean something to
/// the parser.
pub fn mutate(bytes: &mut Vec<u8>, other: &[u8], words: &[Vec<u8>], random: &mut SmallRng) {
    for _ in 0..1 + random.random_range(0..6u32).min(random.random_range(0..6)) {
        once(bytes, other, words, random);
    }
}

/// Changes whole words of a text, so that it mostly keeps its form: one becomes another, goes, or comes twice.
pub fn mutate_words(bytes: &mut Vec<u8>, words: &[Vec<u8>], random: &mut SmallRng) {
    for _ in 0..random.random_range(1..=2) {
        let places = words_of(bytes);
        let (Some((from, to)), Some(word)) = (places.choose(random).copied(), words.choose(random)) else { return };
        match random.random_range(0..10) {
            0 => drop(bytes.drain(from..to)),
            1 => drop(bytes.splice(to..to, bytes[from..to].to_vec())),
            2 => {
                let (start, end) = places.choose(random).copied().unwrap_or((from, to));
                drop(bytes.splice(from..to, bytes[start..end].to_vec()));
            }
            3..6 if is_number(&bytes[from..to]) => {
                let numbers: Vec<_> = words.iter().filter(|word| is_number(word)).collect();
                let number = numbers.choose(random).copied().unwrap_or(word);
                bytes.splice(from..to, number.iter().copied());
            }
            _ => drop(bytes.splice(from..to, word.iter().copied())),
        }
    }
}

fn is_number(word: &[u8]) -> bool {
    !word.is_empty() && word.iter().all(u8::is_ascii_digit)
}

/// Where words and quoted texts stand.
fn words_of(bytes: &[u8]) -> Vec<(usize, usize)> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte >= 128 || matches!(byte, b'_' | b'-' | b'.');
    let mut places = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let len = match bytes[at] {
            mark @ (b'"' | b'\'') => 2 + bytes[at + 1..].iter().take_while(|byte| **byte != mark).count(),
            byte if is_word(byte) => bytes[at..].iter().take_while(|byte| is_word(**byte)).count(),
            _ => 0,
        };
        let end = (at + len).min(bytes.len());
        if len > 0 {
            places.push((at, end));
            if len > 2 && end - at > 2 && matches!(bytes[at], b'"' | b'\'') {
                places.push((at + 1, end - 1));
            }
        }
        at = end.max(at + 1);
    }
    places
}

fn once(bytes: &mut Vec<u8>, other: &[u8], words: &[Vec<u8>], random: &mut SmallRng) {
    if bytes.is_empty() {
        bytes.extend_from_slice(other);
        return;
    }
    let at = place(bytes.len(), random);
    match random.random_range(0..14) {
        0 | 1 => bytes[at] ^= 1 << random.random_range(0..8),
        2 => bytes[at] = random.random(),
        3 | 4 => put_number(bytes, at, *NUMBERS.choose(random).unwrap_or(&0), random),
        5 => {
            let near = i64::from(random.random_range(-9i32..=9));
            add_number(bytes, at, near, random);
        }
        6 => bytes.truncate(at),
        7 => {
            let len = piece(bytes.len() - at, random);
            bytes.drain(at..at + len);
        }
        8 => {
            let len = piece(bytes.len() - at, random);
            let copy = bytes[at..at + len].to_vec();
            let to = place(bytes.len(), random);
            bytes.splice(to..to, copy);
        }
        9 => repeat(bytes, at, random),
        10 => {
            let from = place(other.len().max(1), random).min(other.len());
            let len = piece(other.len() - from, random);
            let to = (at + if random.random() { len } else { 0 }).min(bytes.len());
            bytes.splice(at..to, other[from..from + len].iter().copied());
        }
        // A letter of two bytes, and as long as before: for who counts bytes and cuts letters.
        11 if at + 1 < bytes.len() => bytes[at..at + 2].copy_from_slice("\u{e9}".as_bytes()),
        11 | 12 => match words.choose(random) {
            Some(word) => drop(bytes.splice(at..at, word.iter().copied())),
            None => bytes.insert(at, random.random()),
        },
        _ => match words.choose(random) {
            Some(word) => {
                let to = (at + piece(bytes.len() - at, random)).min(bytes.len());
                drop(bytes.splice(at..to, word.iter().copied()));
            }
            None => {
                let len = piece(bytes.len() - at, random);
                bytes[at..at + len].fill(random.random());
            }
        },
    }
}

/// Mostly near the front of a page, where fields stand.
fn place(len: usize, random: &mut SmallRng) -> usize {
    let at = random.random_range(0..len);
    if random.random_range(0..4) == 0 { at } else { (at & !4095) + (at & 4095) % random.random_range(1..=256) }
}

fn piece(most: usize, random: &mut SmallRng) -> usize {
    let short = random.random_range(0..=32);
    if random.random_range(0..4) == 0 { random.random_range(0..=most) } else { short.min(most) }
}

/// Deep nesting and long rows.
fn repeat(bytes: &mut Vec<u8>, at: usize, random: &mut SmallRng) {
    let len = piece(bytes.len() - at, random).min(64);
    let copy = bytes[at..at + len].to_vec();
    let times = 1 << random.random_range(0..12);
    bytes.splice(at..at, copy.repeat(times));
}

fn put_number(bytes: &mut [u8], at: usize, number: u64, random: &mut SmallRng) {
    let width = 1 << random.random_range(0..4);
    let mut number = number.to_le_bytes();
    if random.random_range(0..4) == 0 {
        number[..width].reverse();
    }
    let width = width.min(bytes.len() - at);
    bytes[at..at + width].copy_from_slice(&number[..width]);
}

fn add_number(bytes: &mut [u8], at: usize, by: i64, random: &mut SmallRng) {
    let width = (1usize << random.random_range(0..4)).min(bytes.len() - at);
    let mut number = [0; 8];
    number[..width].copy_from_slice(&bytes[at..at + width]);
    let number = u64::from_le_bytes(number).wrapping_add_signed(by).to_le_bytes();
    bytes[at..at + width].copy_from_slice(&number[..width]);
}
