//! Values of a configuration that TOML has no word for: sizes, and "off".

/// Bytes: a number, or text with a unit.
pub mod size {
    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};
    use std::fmt;

    const UNITS: [(&str, u32); 4] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];

    /// As a person would write it.
    pub fn text(bytes: u64) -> String {
        let unit = UNITS.iter().rev().find(|(_, shift)| bytes != 0 && bytes.is_multiple_of(1 << shift));
        unit.map_or_else(|| bytes.to_string(), |(name, shift)| format!("{} {name}", bytes >> shift))
    }

    /// Reads what [`text`] writes; the case of the unit, its `i` and `B`, and the space do not matter.
    pub fn parse(text: &str) -> Option<u64> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match text.get(digits.len()..)?.to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return None,
        };
        digits.trim().parse::<u64>().ok()?.checked_mul(1 << shift)
    }

    /// For serde.
    pub fn serialize<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text(*bytes))
    }

    struct Bytes;

    impl Visitor<'_> for Bytes {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a size: bytes, or text such as \"512 MiB\"")
        }

        fn visit_u64<E: Error>(self, value: u64) -> Result<u64, E> {
            Ok(value)
        }

        fn visit_i64<E: Error>(self, value: i64) -> Result<u64, E> {
            u64::try_from(value).map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(value), &self))
        }

        fn visit_str<E: Error>(self, value: &str) -> Result<u64, E> {
            parse(value).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(value), &self))
        }
    }

    /// For serde.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_any(Bytes)
    }

    /// For serde, of a key that has no default.
    pub fn deserialize_given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        deserialize(deserializer).map(Some)
    }
}

/// `None` is "off": leaving the key out means its default.
pub mod off {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::fmt::Display;
    use std::str::FromStr;

    /// The word.
    pub const OFF: &str = "off";

    /// A value that is written as text.
    pub trait Text: FromStr {
        /// What is expected, for errors.
        const EXPECTED: &'static str;

        /// As it is written.
        fn text(&self) -> impl Display;
    }

    impl Text for std::net::SocketAddr {
        const EXPECTED: &'static str = "an address and port such as \"127.0.0.1:9800\", or \"off\"";

        fn text(&self) -> impl Display {
            self
        }
    }

    impl Text for std::path::PathBuf {
        const EXPECTED: &'static str = "a path, or \"off\"";

        fn text(&self) -> impl Display {
            self.display()
        }
    }

    impl Text for String {
        const EXPECTED: &'static str = "text, or \"off\"";

        fn text(&self) -> impl Display {
            self
        }
    }

    /// For serde.
    pub fn serialize<T: Text, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.collect_str(&value.text()),
            None => serializer.serialize_str(OFF),
        }
    }

    /// For serde.
    pub fn deserialize<'de, T: Text, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == OFF {
            return Ok(None);
        }
        let expected = || D::Error::invalid_value(serde::de::Unexpected::Str(&text), &T::EXPECTED);
        if text.is_empty() {
            return Err(expected());
        }
        text.parse().map(Some).map_err(|_| expected())
    }
}

#[cfg(test)]
mod tests {
    use super::size::{parse, text};
    use proptest::prelude::*;

    #[test]
    fn sizes_have_units_of_1024() {
        assert_eq!(parse("512 MiB"), Some(512 << 20));
        assert_eq!(parse("2g"), Some(2 << 30));
        assert_eq!(parse("7"), Some(7));
        for bad in ["", "MiB", "-1", "1.5 GiB", "1 XB", "99999999999 TiB", "é"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_size_is_read_as_it_was_written(bytes: u64, shift in 0u32..60) {
            let bytes = bytes >> shift << shift;
            prop_assert_eq!(parse(&text(bytes)), Some(bytes));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = parse(&text);
        }
    }
}
