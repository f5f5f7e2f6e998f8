//! TOML configuration: every key can be set as `HOLDFAST__SECTION__KEY`, secrets also by `KEY_file`, and an unknown
//! key is an error that names the nearest known one. A secret is given once: as itself or by its file. The environment overrides
//! both.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

/// Environment variables with this prefix override keys.
const PREFIX: &str = "HOLDFAST__";

/// Longest file, bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("{path}: cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file with a secret cannot be read.
    #[error("`{secret}_file`: {path}: cannot be read: {source}")]
    Secret {
        /// The key of the secret.
        secret: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no TOML, or a key is unknown, missing or of the wrong type.
    #[error("{path}{place}: {detail}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// `:LINE:COLUMN`, both from 1; empty where no place of the file is to blame.
        place: String,
        /// What is wrong.
        detail: String,
    },
}

/// Reads `path` into `T`. `secrets` names the keys that may also be given as `KEY_file`, a path whose content,
/// trimmed, becomes the key's value. `T` should deny unknown fields.
///
/// # Errors
/// See [`ConfigError`].
pub fn load<T: DeserializeOwned>(path: &Path, secrets: &[&str]) -> Result<T, ConfigError> {
    load_with(path, secrets, std::env::vars())
}

fn load_with<T: DeserializeOwned>(
    path: &Path,
    secrets: &[&str],
    environment: impl Iterator<Item = (String, String)>,
) -> Result<T, ConfigError> {
    let text = read(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(&text, path, secrets, environment)
}

/// The text of a file that is no longer than configurations are.
fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(std::io::Error::other(format!("longer than {MAX_FILE_BYTES} bytes, this is no configuration")));
    }
    Ok(text)
}

/// As [`load`], from a text; `path` stands in errors, `environment` overrides keys.
///
/// # Errors
/// See [`ConfigError`].
pub fn parse<T: DeserializeOwned>(
    text: &str,
    path: &Path,
    secrets: &[&str],
    environment: impl Iterator<Item = (String, String)>,
) -> Result<T, ConfigError> {
    let invalid = |detail| ConfigError::Invalid { path: path.to_owned(), place: String::new(), detail };
    let at = |error: &toml::de::Error| ConfigError::Invalid {
        path: path.to_owned(),
        place: error.span().map(|span| place(text, span.start)).unwrap_or_default(),
        detail: with_nearest(error.message()),
    };
    let mut table: Table = toml::from_str(text).map_err(|error| at(&error))?;
    if let Some((secret, byte)) = given_twice(text, secrets) {
        let detail =
            format!("`{secret}` and `{secret}_file` are both given, and only one can hold: take one of them out");
        return Err(ConfigError::Invalid { path: path.to_owned(), place: place(text, byte), detail });
    }
    let overrides = environment.filter_map(|(name, value)| {
        let keys = name.strip_prefix(PREFIX)?.to_ascii_lowercase();
        Some((keys, value))
    });
    let overrides: BTreeMap<String, String> = overrides.collect();
    for (keys, value) in &overrides {
        if overrides.contains_key(&format!("{keys}_file")) && secrets.contains(&last(keys)) {
            let name = format!("{PREFIX}{}", keys.to_ascii_uppercase());
            return Err(invalid(format!(
                "{name} and {name}_FILE are both set in the environment, and only one can hold: unset one of them"
            )));
        }
        override_key(&mut table, keys, value, secrets).map_err(invalid)?;
    }
    read_secrets(&mut table, secrets)?;
    Value::Table(table).try_into().map_err(|error: toml::de::Error| match wrong_in_text::<T>(text, secrets) {
        // Otherwise the environment is to blame.
        Some(placed) if placed.message() == error.message() => at(&placed),
        _ => invalid(with_nearest(error.to_string().trim_end())),
    })
}

/// The last of the keys of an override.
fn last(keys: &str) -> &str {
    keys.rsplit("__").next().unwrap_or(keys)
}

/// Sets a key from the environment. A secret replaces the name of its file, and the name of its file replaces a secret.
fn override_key(table: &mut Table, keys: &str, value: &str, secrets: &[&str]) -> Result<(), String> {
    set(table, keys, "__", value)?;
    let key = last(keys);
    let other = match key.strip_suffix("_file").filter(|secret| secrets.contains(secret)) {
        Some(secret) => secret.to_owned(),
        None if secrets.contains(&key) => format!("{key}_file"),
        None => return Ok(()),
    };
    let mut sections = keys.split("__").take(keys.matches("__").count());
    if let Some(section) = sections.try_fold(table, |table, name| table.get_mut(name)?.as_table_mut()) {
        section.remove(&other);
    }
    Ok(())
}

/// A secret that stands in the text as itself and by its file, and the byte where the latter begins.
fn given_twice<'s>(text: &str, secrets: &[&'s str]) -> Option<(&'s str, usize)> {
    fn look<'s>(table: &DeTable<'_>, secrets: &[&'s str]) -> Option<(&'s str, usize)> {
        let twice = |secret: &&'s str| {
            let (file, _) = table.get_key_value(format!("{secret}_file").as_str())?;
            table.contains_key(*secret).then_some((*secret, file.span().start))
        };
        let inner = || table.values().find_map(|value| look(value.get_ref().as_table()?, secrets));
        secrets.iter().find_map(twice).or_else(inner)
    }
    look(DeTable::parse(text).ok()?.get_ref(), secrets)
}

/// What is wrong with the text alone, with its place.
fn wrong_in_text<T: DeserializeOwned>(text: &str, secrets: &[&str]) -> Option<toml::de::Error> {
    let mut table = DeTable::parse(text).ok()?;
    rename_secrets(table.get_mut(), secrets);
    T::deserialize(toml::de::Deserializer::from(table)).err()
}

/// `KEY_file` to `KEY`: a secret is a text, as the name of its file is.
fn rename_secrets(table: &mut DeTable<'_>, secrets: &[&str]) {
    for secret in secrets {
        if let Some((key, file)) = table.remove_entry(format!("{secret}_file").as_str()) {
            table.insert(Spanned::new(key.span(), Cow::Owned((*secret).to_owned())), file);
        }
    }
    for (_, value) in table.iter_mut() {
        if let DeValue::Table(section) = value.get_mut() {
            rename_secrets(section, secrets);
        }
    }
}

/// The place of a byte of the text, as editors count.
fn place(text: &str, byte: usize) -> String {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!(":{line}:{column}")
}

/// Sets the key that `keys` names, section by section with `separator` between them, to a value read as TOML, or as a
/// plain string where it is none.
///
/// # Errors
/// When a section on the way is a plain value; the message names it.
pub fn set(table: &mut Table, keys: &str, separator: &str, value: &str) -> Result<(), String> {
    let mut parts: Vec<&str> = keys.split(separator).collect();
    let last = parts.pop().unwrap_or(keys);
    let mut inner = table;
    for part in parts {
        let next = inner.entry(part).or_insert_with(|| Value::Table(Table::new()));
        inner = next.as_table_mut().ok_or_else(|| format!("{keys}: `{part}` is not a section"))?;
    }
    let parsed = toml::from_str::<Table>(&format!("value = {value}")).ok().and_then(|mut one| one.remove("value"));
    inner.insert(last.to_owned(), parsed.unwrap_or_else(|| Value::String(value.to_owned())));
    Ok(())
}

fn read_secrets(table: &mut Table, secrets: &[&str]) -> Result<(), ConfigError> {
    for secret in secrets {
        let Some(Value::String(file)) = table.remove(&format!("{secret}_file")) else { continue };
        let path = PathBuf::from(file);
        let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::Secret {
            secret: (*secret).to_owned(),
            path,
            source,
        })?;
        table.insert((*secret).to_owned(), Value::String(text.trim().to_owned()));
    }
    for (_, value) in table.iter_mut() {
        if let Value::Table(section) = value {
            read_secrets(section, secrets)?;
        }
    }
    Ok(())
}

/// Adds "did you mean" to serde's message about an unknown field.
fn with_nearest(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    if !message.contains("unknown field") {
        return message.to_owned();
    }
    let Some(unknown) = quoted.next() else { return message.to_owned() };
    let nearest = quoted.max_by(|a, b| strsim::jaro_winkler(unknown, a).total_cmp(&strsim::jaro_winkler(unknown, b)));
    match nearest {
        Some(nearest) => format!("{} (did you mean `{nearest}`?)", message.trim_end()),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde::Deserialize;

    use super::{ConfigError, MAX_FILE_BYTES, load_with};

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Config {
        listen: String,
        tls: Tls,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Tls {
        certificate: String,
        key: String,
    }

    fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        load_with(file.path(), &["key"], environment)
    }

    const GOOD: &str = "listen = 'a'\n[tls]\ncertificate = 'c'\nkey = 'k'\n";

    #[test]
    fn a_file_that_is_no_configuration_is_not_read_to_its_end() {
        let error = load_with::<Config>("/dev/zero".as_ref(), &[], std::iter::empty()).unwrap_err();
        assert!(error.to_string().contains(&format!("longer than {MAX_FILE_BYTES} bytes")), "{error}");
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let config = load(GOOD, &[("HOLDFAST__TLS__KEY", "other"), ("HOLDFAST__LISTEN", "127.0.0.1:1")]).unwrap();
        assert_eq!((config.tls.key.as_str(), config.listen.as_str()), ("other", "127.0.0.1:1"));
    }

    #[test]
    fn an_unknown_key_names_the_nearest_known_one() {
        let error = load(&GOOD.replace("certificate", "certifikate"), &[]).unwrap_err().to_string();
        assert!(error.contains("certifikate") && error.contains("did you mean `certificate`?"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let place = |text: &str, environment: &[(&str, &str)]| match load(text, environment).unwrap_err() {
            ConfigError::Invalid { place, .. } => place,
            other => panic!("{other}"),
        };
        let misspelt = GOOD.replace("certificate", "certifikate");
        assert_eq!(place(&misspelt, &[]), ":3:1");
        assert_eq!(place(&misspelt.replace("key = 'k'", "key_file = '/dev/null'"), &[]), ":3:1");
        assert_eq!(place(&GOOD.replace("certificate = 'c'\n", ""), &[]), ":2:1", "a missing key: its section");
        assert_eq!(place(&GOOD.replace("'a'", "1"), &[]), ":1:10");
        assert_eq!(place(&GOOD.replace("'a'", "a"), &[]), ":1:10", "no TOML");
        assert_eq!(place(GOOD, &[("HOLDFAST__LISTEN", "1")]), "", "not the file's fault");
    }

    #[test]
    fn a_secret_that_is_given_as_itself_and_by_its_file_is_refused_with_both_keys_and_their_place() {
        let twice = GOOD.replace("key = 'k'", "key = 'k'\nkey_file = '/dev/null'");
        let error = load(&twice, &[]).unwrap_err().to_string();
        assert!(error.contains(":5:1: `key` and `key_file` are both given"), "{error}");
        let both = [("HOLDFAST__TLS__KEY", "a"), ("HOLDFAST__TLS__KEY_FILE", "/dev/null")];
        let error = load(GOOD, &both).unwrap_err().to_string();
        assert!(error.contains("HOLDFAST__TLS__KEY and HOLDFAST__TLS__KEY_FILE are both set"), "{error}");
        // The environment overrides the file, whichever way either gives it.
        let by_file = GOOD.replace("key = 'k'", "key_file = '/nowhere'");
        assert_eq!(load(&by_file, &both[..1]).unwrap().tls.key, "a");
        assert_eq!(load(GOOD, &both[1..]).unwrap().tls.key, "");
    }

    #[test]
    fn a_secret_is_read_from_its_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b" s3cret\n").unwrap();
        let text = GOOD.replace("key = 'k'", &format!("key_file = '{}'", file.path().display()));
        assert_eq!(load(&text, &[]).unwrap().tls.key, "s3cret");
        let error = load(&GOOD.replace("key = 'k'", "key_file = '/nowhere'"), &[]).unwrap_err().to_string();
        assert!(error.contains("`key_file`: /nowhere"), "{error}");
    }
}
