//! Amounts of memory and rates of links as people write them: `200GiB`, `50GB/s`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Units by their bytes. Link rates in bits are given in bits.
const UNITS: [(&str, f64); 14] = [
    ("TiB", 1099511627776.0),
    ("GiB", 1073741824.0),
    ("MiB", 1048576.0),
    ("KiB", 1024.0),
    ("TB", 1e12),
    ("GB", 1e9),
    ("MB", 1e6),
    ("kB", 1e3),
    ("KB", 1e3),
    ("Tb", 1e12 / 8.0),
    ("Gb", 1e9 / 8.0),
    ("Mb", 1e6 / 8.0),
    ("kb", 1e3 / 8.0),
    ("B", 1.0),
];

/// An amount of memory: `200GiB`, `1.5TB`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bytes(pub f64);

/// What a link carries in a second: `50GB/s`, `200Gb/s`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bandwidth(pub f64);

/// The bytes that `text` says, if it says some.
fn bytes(text: &str) -> Option<f64> {
    let text = text.trim();
    let (unit, factor) = UNITS.into_iter().find(|(unit, _)| text.ends_with(unit))?;
    let number: f64 = text[..text.len() - unit.len()].trim_end().parse().ok()?;
    let bytes = number * factor;
    (1.0..=1e18).contains(&bytes).then_some(bytes)
}

fn write(bytes: f64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let whole = |unit: &&(&str, f64)| bytes >= unit.1 && (bytes / unit.1).fract() == 0.0;
    let (unit, factor) = UNITS.iter().find(whole).copied().unwrap_or(("B", 1.0));
    write!(f, "{}{unit}", bytes / factor)
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("`{text}` is not an amount of memory: write for example 200GiB, 1.5TB");
        bytes(text).map(Self).ok_or_else(refused)
    }
}

impl FromStr for Bandwidth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rate = text.trim().strip_suffix("/s").and_then(bytes);
        rate.map(Self)
            .ok_or_else(|| format!("`{text}` is not a bandwidth: write for example 50GB/s, 200Gb/s"))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(self.0, f)
    }
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(self.0, f)?;
        f.write_str("/s")
    }
}

/// Both are text in a scenario.
macro_rules! as_text {
    ($type:ty, $name:literal, $about:literal, $pattern:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"description": $about, "type": "string", "pattern": $pattern})
            }
        }
    };
}

as_text!(
    Bytes,
    "Bytes",
    "An amount of memory: 200GiB, 1.5TB.",
    r"^[0-9.eE+]+ *([KMGT]iB|[kKMGT]?B|[kMGT]b)$"
);
as_text!(
    Bandwidth,
    "Bandwidth",
    "What a link carries in a second: 50GB/s, 200Gb/s.",
    r"^[0-9.eE+]+ *([KMGT]iB|[kKMGT]?B|[kMGT]b)/s$"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_and_rates_are_read_and_written_with_their_units() {
        let bytes = |text: &str| text.parse::<Bytes>().map(|bytes| bytes.0);
        assert_eq!(bytes("200GiB"), Ok(200.0 * 1024.0 * 1024.0 * 1024.0));
        assert_eq!(bytes("1.5 TB"), Ok(1.5e12));
        assert_eq!(bytes("12B"), Ok(12.0));
        let rate = |text: &str| text.parse::<Bandwidth>().map(|rate| rate.0);
        assert_eq!(rate("200Gb/s"), rate("25GB/s"));
        assert_eq!(Bytes(200.0 * 1073741824.0).to_string(), "200GiB");
        assert_eq!(Bandwidth(25e9).to_string(), "25GB/s");
        for wrong in ["", "GB", "-1GB", "0GB", "NaNGB", "infGB", "12", "5 parsecs", "1e30TB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
            assert!(rate(&format!("{wrong}/s")).is_err(), "{wrong}");
        }
        assert!(rate("25GB").is_err());
    }
}
