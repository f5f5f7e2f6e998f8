//! Makes recorded trees (`tests/trees/*.tree`, see the README there) in temporary folders.

use std::collections::HashMap;
use std::path::Path;

use tempfile::TempDir;

/// Makes the tree that `text` describes.
pub fn tree(text: &str) -> TempDir {
    // Thousands of small files: in memory where there is such a folder.
    let memory = Path::new("/dev/shm");
    let root = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let lines: Vec<&str> =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let mut prefix = String::new();
    run(root.path(), &lines, &mut prefix, &mut HashMap::new());
    root
}

fn run(root: &Path, lines: &[&str], prefix: &mut String, numbers: &mut HashMap<String, u64>) {
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        if let Some(loop_head) = line.strip_prefix("each ") {
            let end = at + 1 + closing(&lines[at + 1..]);
            let words: Vec<&str> = loop_head.split(' ').collect();
            for number in words[1].parse::<u64>().unwrap()..=words[2].parse().unwrap() {
                numbers.insert(words[0].to_owned(), number);
                run(root, &lines[at + 1..end], prefix, numbers);
            }
            at = end;
        } else if line == "under" || line.starts_with("under ") {
            *prefix = filled(line.strip_prefix("under").unwrap().trim(), numbers);
        } else {
            make(root, prefix, &filled(line, numbers));
        }
        at += 1;
    }
}

/// Index of the `end` that closes the loop whose body begins `lines`.
fn closing(lines: &[&str]) -> usize {
    let mut depth = 1;
    for (index, line) in lines.iter().enumerate() {
        depth += i32::from(line.starts_with("each ")) - i32::from(*line == "end");
        if depth == 0 {
            return index;
        }
    }
    panic!("`each` without `end`");
}

fn make(root: &Path, prefix: &str, line: &str) {
    let place = |name: &str| {
        let path = if prefix.is_empty() { root.join(name) } else { root.join(prefix).join(name) };
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    if let Some((path, target)) = line.split_once(" -> ") {
        std::os::unix::fs::symlink(target, place(path)).unwrap();
    } else if let Some((path, bytes)) = line.split_once(" @ ") {
        std::fs::File::create(place(path)).unwrap().set_len(bytes.parse().unwrap()).unwrap();
    } else {
        let (path, text) = line.split_once(" = ").unwrap_or_else(|| panic!("`{line}`"));
        let bytes = match text.strip_prefix("hex: ") {
            Some(hex) => hex.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect(),
            None => format!("{text}\n").into_bytes(),
        };
        std::fs::write(place(path), bytes).unwrap();
    }
}

fn filled(line: &str, numbers: &HashMap<String, u64>) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('{') {
        let (inside, tail) = after.split_once('}').unwrap();
        let (expression, format) = inside.split_once(':').unwrap_or((inside, ""));
        let (name, plus) = expression.split_once('+').unwrap_or((expression, "0"));
        let number = numbers.get(name).unwrap_or_else(|| panic!("{inside}")) + plus.parse::<u64>().unwrap();
        out.push_str(before);
        out.push_str(&match format {
            "" => number.to_string(),
            "02" => format!("{number:02}"),
            "03" => format!("{number:03}"),
            "x" => format!("{number:x}"),
            "02x" => format!("{number:02x}"),
            "04x" => format!("{number:04x}"),
            "sd" => letters(number),
            "hex3" => format!("{number:03}").bytes().map(|digit| format!("{digit:02x}")).collect::<Vec<_>>().join(" "),
            other => panic!("no format {other}"),
        });
        rest = tail;
    }
    out + rest
}

/// `sda`, …, `sdz`, `sdaa`, as the kernel counts.
fn letters(number: u64) -> String {
    let letter = |index: u64| char::from(b'a' + u8::try_from(index).unwrap());
    if number < 26 {
        format!("sd{}", letter(number))
    } else {
        format!("sd{}{}", letter(number / 26 - 1), letter(number % 26))
    }
}
