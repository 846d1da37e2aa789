//! JSON that carries a checksum of itself: the form of every record, in a cache and at a remote.
//!
//! ```text
//! {"blake3":"<hash of the bytes of the record>","record":{…}}
//! ```
//!
//! Records of format 1 have no checksum and are read as they are.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::FORMAT_VERSION;

const HEAD: &[u8] = br#"{"blake3":""#;
const HASH_LEN: usize = 64;
const MIDDLE: &[u8] = br#"","record":"#;
const TAIL: &[u8] = b"}";

/// A form that is written as JSON.
pub(crate) trait Form: DeserializeOwned {
    /// The version that the writer gave it, if it has one.
    fn version(&self) -> Option<u32>;
}

/// What sealed bytes turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opened<T> {
    /// What was sealed.
    Whole(T),
    /// Written by a newer `pipe`, with this version: it may mean something else, even where it can
    /// be read.
    Newer(u32),
    /// Not what was written, or cut short.
    Damaged,
}

impl<T> Opened<T> {
    /// What was sealed; none if it is damaged or newer.
    pub(crate) fn whole(self) -> Option<T> {
        match self {
            Self::Whole(value) => Some(value),
            Self::Newer(_) | Self::Damaged => None,
        }
    }
}

/// A value as JSON with its checksum.
pub(crate) fn seal(value: &impl Serialize) -> Vec<u8> {
    let record = serde_json::to_vec(value).expect("records are valid JSON");
    let hash = blake3::hash(&record).to_hex();
    [HEAD, hash.as_bytes(), MIDDLE, &record, TAIL].concat()
}

/// Reads what [`seal`] wrote, and what was written before there were checksums.
pub(crate) fn open<T: Form>(bytes: &[u8]) -> Opened<T> {
    let (json, known) = match record(bytes) {
        Some(record) => (record, FORMAT_VERSION),
        None if bytes.starts_with(HEAD) => return Opened::Damaged,
        None => (bytes, 1),
    };
    let version = match serde_json::from_slice::<T>(json) {
        Ok(value) if value.version().is_none_or(|found| found <= known) => {
            return Opened::Whole(value);
        }
        Ok(value) => value.version(),
        Err(_) => version(json),
    };
    version.filter(|found| *found > FORMAT_VERSION).map_or(Opened::Damaged, Opened::Newer)
}

/// The bytes of the record, if they are those that were sealed.
fn record(bytes: &[u8]) -> Option<&[u8]> {
    let (hash, rest) = bytes.strip_prefix(HEAD)?.split_at_checked(HASH_LEN)?;
    let record = rest.strip_prefix(MIDDLE)?.strip_suffix(TAIL)?;
    (blake3::hash(record).to_hex().as_bytes() == hash).then_some(record)
}

/// The version of a form that is not known here.
fn version(json: &[u8]) -> Option<u32> {
    #[derive(Deserialize)]
    struct Versioned {
        format_version: u32,
    }
    serde_json::from_slice::<Versioned>(json).ok().map(|form| form.format_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
    struct Toy {
        format_version: u32,
        name: String,
    }

    impl Form for Toy {
        fn version(&self) -> Option<u32> {
            Some(self.format_version)
        }
    }

    fn toy(format_version: u32) -> Toy {
        Toy { format_version, name: "a \"toy\"".into() }
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_damage() {
        let sealed = seal(&toy(FORMAT_VERSION));
        assert_eq!(open(&sealed), Opened::Whole(toy(FORMAT_VERSION)));
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open::<Toy>(&flipped), Opened::Damaged, "bit {bit}");
        }
        for end in 0..sealed.len() {
            assert_eq!(open::<Toy>(&sealed[..end]), Opened::Damaged, "cut at {end}");
        }
        assert_eq!(open::<Toy>(&[&sealed[..], b"\n"].concat()), Opened::Damaged);
        serde_json::from_slice::<serde_json::Value>(&sealed).unwrap();
    }

    #[test]
    fn what_was_written_without_a_checksum_is_read_if_it_is_that_old() {
        let plain = |toy: &Toy| serde_json::to_vec(toy).unwrap();
        assert_eq!(open(&plain(&toy(1))), Opened::Whole(toy(1)));
        assert_eq!(open::<Toy>(&plain(&toy(FORMAT_VERSION))), Opened::Damaged);
    }

    #[test]
    fn a_newer_form_is_told_from_damage() {
        let newer = FORMAT_VERSION + 1;
        let unknown = format!(r#"{{"format_version":{newer},"nick":"t"}}"#);
        let sealed = seal(&serde_json::from_str::<serde_json::Value>(&unknown).unwrap());
        for bytes in [seal(&toy(newer)), sealed, unknown.into_bytes()] {
            assert_eq!(open::<Toy>(&bytes), Opened::Newer(newer));
        }
    }
}
