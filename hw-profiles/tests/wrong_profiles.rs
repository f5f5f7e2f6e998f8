//! A wrong profile is refused with file, line, column and the nearest right word.

#![allow(clippy::unwrap_used, missing_docs)]

use holdfast_hw_profiles::{load, shipped};

const GOOD: &str = "name = \"x\"

[chassis]
name = \"X\"

[[bays]]
name = \"b{1..2}\"
path = \"pci-*-sas-phy{0..1}-lun-0\"
media = \"hdd-zoned\"

[zones]
size = \"256MiB\"

[settings]
scheduler = \"none\"
queue_depth = 32

[led]
method = \"ledctl\"

[expected]
disks = 2
least_size = \"1TB\"
";

fn refused(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    load::parse(&GOOD.replacen(from, to, 1), "dir/x.toml").unwrap_err().to_string()
}

#[test]
fn the_place_and_the_nearest_word_are_told() {
    load::parse(GOOD, "x.toml").unwrap();
    for (from, to, place, text) in [
        ("queue_depth", "queue_dept", "dir/x.toml:16:1: ", "did you mean `queue_depth`?"),
        ("[settings]", "[setting]", "dir/x.toml:14:2: ", "did you mean `settings`?"),
        ("media =", "medium =", "dir/x.toml:9:1: ", "did you mean `media`?"),
        ("hdd-zoned", "hdd-zone", "dir/x.toml:9:9: ", "did you mean `hdd-zoned`?"),
        ("\"none\"", "\"deadline\"", "dir/x.toml:15:13: ", "did you mean `mq-deadline`?"),
        ("ledctl", "ledct", "dir/x.toml:19:10: ", "did you mean `ledctl`?"),
        ("\"hdd-zoned\"", "\"hdd\"", "dir/x.toml:11:1: ", "no bay holds zoned media"),
        ("256MiB", "256 parsecs", "dir/x.toml:12:8: ", "is not a size"),
        ("256MiB", "1000", "dir/x.toml:12:8: ", "multiple of 4096"),
        ("phy{0..1}", "phy{0..2}", "dir/x.toml:8:8: ", "`path` stands for 3 bays, but `name` for 2"),
        ("phy{0..1}", "phy{1..0}", "dir/x.toml:8:8: ", "must rise"),
        ("disks = 2", "disks = 3", "dir/x.toml:22:9: ", "3 disks are expected, but there are 2 bays"),
        ("disks = 2", "disks = -2", "dir/x.toml:22:9: ", "invalid value"),
        ("queue_depth = 32", "queue_depth = 0", "dir/x.toml:16:15: ", "must be from 1 to 65536"),
        ("name = \"x\"", "name = \"x y\"", "dir/x.toml:1:8: ", "letters, digits"),
        ("[led]", "[led", "dir/x.toml:18:5: ", ""),
        ("path =", "expander = 0\npath =", "dir/x.toml:8:12: ", "counted from 1"),
    ] {
        let error = refused(from, to);
        assert!(error.starts_with(place) && error.contains(text), "{to}: {error}");
    }
    let error = refused("[zones]\nsize = \"256MiB\"\n", "");
    assert!(error.contains("say its geometry in a section [zones]"), "{error}");
    let twice = GOOD.replacen("[zones]", "[[bays]]\nname = \"b2\"\npath = \"p\"\nmedia = \"hdd\"\n[zones]", 1);
    assert!(load::parse(&twice, "x").unwrap_err().to_string().starts_with("x:12:8: there are two bays `b2`"));
    let twice = twice.replacen("\"b2\"", "\"b3\"", 1).replacen("\"p\"", "\"pci-*-sas-phy1-lun-0\"", 1);
    assert!(load::parse(&twice, "x").unwrap_err().to_string().contains("bays `b2` and `b3` have the same path"));
}

#[test]
fn what_is_no_profile_is_refused_and_never_breaks_the_reader() {
    for at in 0..GOOD.len() {
        // A cut anywhere either still is a profile or is told with its line.
        if let Err(error) = load::parse(&GOOD[..at], "x") {
            assert!(error.to_string().starts_with("x:"), "{error}");
        }
        let swapped = [&GOOD[..at], "\u{0}é[", &GOOD[at..]].concat();
        let _ = load::parse(&swapped, "x");
    }
    let folder = tempfile::tempdir().unwrap();
    let long = folder.path().join("long.toml");
    std::fs::write(&long, "#".repeat((1 << 20) + 1)).unwrap();
    assert!(load::file(&long).unwrap_err().to_string().contains("longer than"));
    assert!(
        load::file(&folder.path().join("none.toml")).unwrap_err().to_string().contains("none.toml: cannot be read")
    );
}

#[test]
fn every_shipped_profile_loads_under_its_own_name() {
    let profiles = shipped::all(None).unwrap();
    assert_eq!(profiles.len(), shipped::SHIPPED.len());
    for (profile, (name, _)) in profiles.iter().zip(shipped::SHIPPED) {
        assert_eq!((profile.name.as_str(), profile.shipped), (name, true));
    }
}

#[test]
fn the_operators_profile_wins_over_a_shipped_one_of_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.toml");
    std::fs::write(&path, GOOD.replacen("\"x\"", "\"nvme\"", 1)).unwrap();
    std::fs::write(folder.path().join("notes.txt"), "no profile").unwrap();
    let profile = shipped::named("nvme", Some(folder.path())).unwrap();
    assert_eq!((profile.bays.len(), profile.shipped), (2, false));
    assert_eq!(shipped::all(Some(folder.path())).unwrap().iter().filter(|profile| profile.name == "nvme").count(), 1);
    assert_eq!(shipped::named(path.to_str().unwrap(), None).unwrap().name, "nvme");
    let error = shipped::named("nvm", None).unwrap_err().to_string();
    assert!(error.contains("did you mean `nvme`?") && error.contains("dev-file"), "{error}");
    std::fs::copy(&path, folder.path().join("b.toml")).unwrap();
    let error = shipped::all(Some(folder.path())).unwrap_err().to_string();
    assert!(error.contains("b.toml:1:1: ") && error.contains("a.toml is called `nvme` too"), "{error}");
}
