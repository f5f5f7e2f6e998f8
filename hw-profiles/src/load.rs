//! Reads a profile's TOML and checks it. Whatever is wrong is told with file, line, column and, for a misspelt word, the
//! nearest right one.
//!
//! A profile that loads has at least one bay, bays of different names and places, disk-zone geometry exactly when a bay
//! needs it, and no more expected disks than bays.

use std::collections::HashMap;
use std::io::Read as _;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use crate::error::HardwareError;
use crate::pattern::{Pattern, expand};
use crate::profile::{Bay, Chassis, Expected, Led, Limits, Media, Profile, Settings, SmartLimits, Zones};
use crate::size;

/// Longest profile; the largest shipped one has 4 KiB, a written one with a line a bay some 40 KiB.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Most bays of a profile.
const MAX_BAYS: usize = 4096;

const SCHEDULERS: [&str; 4] = ["none", "mq-deadline", "kyber", "bfq"];
const METHODS: [(&str, Led); 3] = [("enclosure", Led::Enclosure), ("ledctl", Led::Ledctl), ("none", Led::None)];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProfile {
    name: Spanned<String>,
    chassis: RawChassis,
    bays: Spanned<Vec<RawBay>>,
    zones: Option<Spanned<RawZones>>,
    #[serde(default)]
    settings: RawSettings,
    #[serde(default)]
    limits: RawLimits,
    led: Option<RawLed>,
    #[serde(default)]
    expected: RawExpected,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawChassis {
    name: String,
    #[serde(default)]
    vendor: Vec<String>,
    #[serde(default)]
    product: Vec<String>,
    #[serde(default)]
    enclosure: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBay {
    name: Spanned<String>,
    path: Spanned<String>,
    media: Spanned<String>,
    expander: Option<Spanned<u32>>,
    slot: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawZones {
    size: Spanned<String>,
    conventional: Option<u32>,
    open_limit: Option<Spanned<u32>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawSettings {
    queue_depth: Option<Spanned<u32>>,
    scheduler: Option<Spanned<String>>,
    readahead: Option<Spanned<String>>,
    requests: Option<Spanned<u32>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawLimits {
    #[serde(default)]
    latency: RawLatency,
    #[serde(default)]
    smart: RawSmart,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawLatency {
    read_ms: Option<Spanned<u32>>,
    write_ms: Option<Spanned<u32>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawSmart {
    reallocated_sectors: Option<u64>,
    pending_sectors: Option<u64>,
    uncorrectable_sectors: Option<u64>,
    media_errors: Option<u64>,
    percentage_used: Option<Spanned<u64>>,
    temperature_celsius: Option<Spanned<u64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLed {
    method: Spanned<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawExpected {
    disks: Option<Spanned<u32>>,
    least_size: Option<Spanned<String>>,
}

/// Reads the profile in `path`.
///
/// # Errors
/// [`HardwareError::Io`] and [`HardwareError::Invalid`].
pub fn file(path: &Path) -> Result<Profile, HardwareError> {
    let failed = |source| HardwareError::Io { path: path.to_owned(), what: "cannot be read", source };
    let mut text = String::new();
    std::fs::File::open(path).map_err(failed)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(failed(std::io::Error::other(format!("longer than {MAX_FILE_BYTES} bytes, this is no profile"))));
    }
    parse(&text, &path.display().to_string())
}

/// Reads a profile from its text; `file` stands in errors.
///
/// # Errors
/// [`HardwareError::Invalid`].
pub fn parse(text: &str, file: &str) -> Result<Profile, HardwareError> {
    let reader = Reader { text, file };
    let raw: RawProfile = toml::from_str(text).map_err(|error| {
        let detail = with_nearest(error.message());
        reader.wrong(error.span().unwrap_or(0..0), detail)
    })?;
    reader.check(raw)
}

/// Where the text came from, for errors.
struct Reader<'a> {
    text: &'a str,
    file: &'a str,
}

impl Reader<'_> {
    fn wrong(&self, span: Range<usize>, detail: impl Into<String>) -> HardwareError {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        HardwareError::Invalid { file: self.file.to_owned(), line, column, detail: detail.into() }
    }

    fn check(&self, raw: RawProfile) -> Result<Profile, HardwareError> {
        let name_is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let name = raw.name.get_ref();
        if name.is_empty() || !name.chars().all(name_is_plain) {
            return Err(self.wrong(raw.name.span(), "`name` must consist of letters, digits, `-`, `_` and `.`"));
        }
        let bays = self.bays(&raw.bays)?;
        let zones = self.zones(raw.zones, &bays)?;
        Ok(Profile {
            name: name.clone(),
            file: self.file.to_owned(),
            shipped: false,
            chassis: Chassis {
                name: raw.chassis.name,
                vendor: raw.chassis.vendor.into_iter().map(Pattern::new).collect(),
                product: raw.chassis.product.into_iter().map(Pattern::new).collect(),
                enclosure: raw.chassis.enclosure.into_iter().map(Pattern::new).collect(),
            },
            expected: self.expected(raw.expected, bays.len())?,
            settings: self.settings(raw.settings)?,
            limits: self.limits(raw.limits)?,
            led: match raw.led {
                Some(led) => self.one_of(&led.method, "LED method", &METHODS)?,
                None => Led::None,
            },
            bays,
            zones,
        })
    }

    fn bays(&self, raw: &Spanned<Vec<RawBay>>) -> Result<Vec<Bay>, HardwareError> {
        let mut bays: Vec<Bay> = Vec::new();
        let mut names: HashMap<String, usize> = HashMap::new();
        let mut places: HashMap<(Pattern, Option<u32>), String> = HashMap::new();
        for group in raw.get_ref() {
            let mut own = HashMap::new();
            for bay in self.group(group)? {
                let span = || group.name.span();
                if names.insert(bay.name.clone(), bays.len()).is_some() {
                    return Err(self.wrong(span(), format!("there are two bays `{}`", bay.name)));
                }
                if let Some(other) = places.get(&(bay.path.clone(), bay.expander)) {
                    let detail =
                        format!("bays `{other}` and `{}` have the same path `{}`", bay.name, bay.path.as_str());
                    return Err(self.wrong(group.path.span(), detail));
                }
                own.entry((bay.path.clone(), bay.expander)).or_insert_with(|| bay.name.clone());
                bays.push(bay);
                if bays.len() > MAX_BAYS {
                    return Err(self.wrong(span(), format!("more than {MAX_BAYS} bays")));
                }
            }
            places.extend(own);
        }
        if bays.is_empty() {
            return Err(self.wrong(raw.span(), "a profile needs at least one [[bays]] section"));
        }
        Ok(bays)
    }

    /// The bays that one `[[bays]]` section stands for.
    fn group(&self, raw: &RawBay) -> Result<Vec<Bay>, HardwareError> {
        let expanded = |text: &Spanned<String>| {
            if text.get_ref().is_empty() {
                return Err(self.wrong(text.span(), "must not be empty"));
            }
            expand(text.get_ref()).map_err(|detail| self.wrong(text.span(), detail))
        };
        let names = expanded(&raw.name)?;
        let mut paths = expanded(&raw.path)?;
        let media = self.one_of(&raw.media, "media kind", &Media::ALL.map(|media| (media.name(), media)))?;
        if paths.len() == 1 && raw.path.get_ref().contains('*') {
            paths = vec![raw.path.get_ref().clone(); names.len()];
        }
        if paths.len() != names.len() {
            let detail = format!(
                "`path` stands for {} bays, but `name` for {}; give both a range of one length, or the path a `*`",
                paths.len(),
                names.len()
            );
            return Err(self.wrong(raw.path.span(), detail));
        }
        let slots: Vec<Option<String>> = match &raw.slot {
            None => vec![None; names.len()],
            Some(slot) => expanded(slot)?.into_iter().map(Some).collect(),
        };
        if slots.len() != names.len() {
            let span = raw.slot.as_ref().map_or(0..0, Spanned::span);
            return Err(
                self.wrong(span, format!("`slot` stands for {} bays, but `name` for {}", slots.len(), names.len()))
            );
        }
        if media == Media::File && !raw.path.get_ref().starts_with('/') {
            return Err(self.wrong(raw.path.span(), "the path of a file must begin with /"));
        }
        if let Some(expander) = raw.expander.as_ref().filter(|expander| *expander.get_ref() == 0) {
            return Err(self.wrong(expander.span(), "expanders are counted from 1"));
        }
        let expander = raw.expander.as_ref().map(|expander| *expander.get_ref());
        let bays = names.into_iter().zip(paths).zip(slots);
        Ok(bays.map(|((name, path), slot)| Bay { name, path: Pattern::new(path), media, expander, slot }).collect())
    }

    fn zones(&self, raw: Option<Spanned<RawZones>>, bays: &[Bay]) -> Result<Option<Zones>, HardwareError> {
        let zoned = bays.iter().find(|bay| bay.media.is_zoned());
        let raw = match (raw, zoned) {
            (None, None) => return Ok(None),
            (None, Some(bay)) => {
                let detail = format!("bay `{}` holds {}: say its geometry in a section [zones]", bay.name, bay.media);
                return Err(self.wrong(0..0, detail));
            }
            (Some(raw), None) => {
                return Err(self.wrong(raw.span(), "no bay holds zoned media, so there can be no [zones]"));
            }
            (Some(raw), Some(_)) => raw.into_inner(),
        };
        let size_bytes = self.size(&raw.size)?;
        if size_bytes == 0 || size_bytes % 4096 != 0 {
            return Err(self.wrong(raw.size.span(), "the size of a zone must be a multiple of 4096 bytes, and not 0"));
        }
        let open_limit = self.positive(raw.open_limit, u32::MAX)?;
        Ok(Some(Zones { size_bytes, conventional: raw.conventional, open_limit }))
    }

    fn settings(&self, raw: RawSettings) -> Result<Settings, HardwareError> {
        let scheduler = match &raw.scheduler {
            Some(name) => Some(self.one_of(name, "scheduler", &SCHEDULERS.map(|name| (name, name)))?.to_owned()),
            None => None,
        };
        let readahead_bytes = raw.readahead.as_ref().map(|size| self.size(size)).transpose()?;
        if let (Some(bytes), Some(size)) = (readahead_bytes, &raw.readahead)
            && (bytes % 1024 != 0 || bytes > 1 << 30)
        {
            return Err(self.wrong(size.span(), "readahead must be whole KiB, at most 1GiB"));
        }
        Ok(Settings {
            queue_depth: self.positive(raw.queue_depth, 65_536)?,
            scheduler,
            readahead_bytes,
            requests: self.positive(raw.requests, 65_536)?,
        })
    }

    fn limits(&self, raw: RawLimits) -> Result<Limits, HardwareError> {
        let smart = raw.smart;
        Ok(Limits {
            read_ms: self.positive(raw.latency.read_ms, 600_000)?,
            write_ms: self.positive(raw.latency.write_ms, 600_000)?,
            smart: SmartLimits {
                reallocated_sectors: smart.reallocated_sectors,
                pending_sectors: smart.pending_sectors,
                uncorrectable_sectors: smart.uncorrectable_sectors,
                media_errors: smart.media_errors,
                percentage_used: self.positive(smart.percentage_used, 255)?,
                temperature_celsius: self.positive(smart.temperature_celsius, 120)?,
            },
        })
    }

    fn expected(&self, raw: RawExpected, bays: usize) -> Result<Expected, HardwareError> {
        let disks = raw.disks.as_ref().map_or(0, |disks| *disks.get_ref());
        if let Some(stated) = raw.disks.filter(|_| disks as usize > bays) {
            return Err(self.wrong(stated.span(), format!("{disks} disks are expected, but there are {bays} bays")));
        }
        let least_size_bytes = raw.least_size.as_ref().map_or(Ok(0), |size| self.size(size))?;
        Ok(Expected { disks, least_size_bytes })
    }

    fn size(&self, text: &Spanned<String>) -> Result<u64, HardwareError> {
        size::parse(text.get_ref()).map_err(|detail| self.wrong(text.span(), detail))
    }

    /// A number from 1 to `most`.
    fn positive<N>(&self, number: Option<Spanned<N>>, most: N) -> Result<Option<N>, HardwareError>
    where
        N: Copy + PartialOrd + From<u8> + std::fmt::Display,
    {
        let Some(number) = number else { return Ok(None) };
        if *number.get_ref() < N::from(1) || *number.get_ref() > most {
            return Err(self.wrong(number.span(), format!("must be from 1 to {most}")));
        }
        Ok(Some(*number.get_ref()))
    }

    fn one_of<T: Copy>(&self, text: &Spanned<String>, what: &str, known: &[(&str, T)]) -> Result<T, HardwareError> {
        if let Some((_, value)) = known.iter().find(|(name, _)| *name == text.get_ref()) {
            return Ok(*value);
        }
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        let nearest = nearest(text.get_ref(), names.iter().copied()).unwrap_or_default();
        let detail =
            format!("no {what} `{}`; there are {} (did you mean `{nearest}`?)", text.get_ref(), names.join(", "));
        Err(self.wrong(text.span(), detail))
    }
}

/// Of `known`, what `word` most likely was meant to be.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known.max_by(|a, b| strsim::jaro_winkler(word, a).total_cmp(&strsim::jaro_winkler(word, b)))
}

/// Adds "did you mean" to serde's message about an unknown key.
fn with_nearest(message: &str) -> String {
    let message = message.trim_end();
    let mut quoted = message.split('`').skip(1).step_by(2);
    if !message.starts_with("unknown field") {
        return message.to_owned();
    }
    match quoted.next().and_then(|unknown| nearest(unknown, quoted)) {
        Some(nearest) => format!("{message} (did you mean `{nearest}`?)"),
        None => message.to_owned(),
    }
}
