//! The two hash types of the engine: what would be made, and what was made.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

macro_rules! hash_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name([u8; 32]);

        impl $name {
            /// Hashes `bytes` with blake3.
            pub fn of(bytes: &[u8]) -> Self {
                Self(*blake3::hash(bytes).as_bytes())
            }

            /// The first 12 hexadecimal characters, for people.
            pub fn short(&self) -> String {
                self.to_string()[..12].to_owned()
            }

            /// The hash itself.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// Whether a text looks like [`Self::short`].
            pub fn is_short(text: &str) -> bool {
                let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
                text.len() == 12 && text.bytes().all(is_digit)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": "^[0-9a-f]{64}$" })
            }
        }

        impl From<blake3::Hash> for $name {
            fn from(hash: blake3::Hash) -> Self {
                Self(*hash.as_bytes())
            }
        }

        impl From<$name> for blake3::Hash {
            fn from(hash: $name) -> Self {
                Self::from_bytes(hash.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = HashParseError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                blake3::Hash::from_hex(text)
                    .map(Self::from)
                    .map_err(|_| HashParseError { text: text.to_owned() })
            }
        }

        impl From<$name> for String {
            fn from(hash: $name) -> Self {
                hash.to_string()
            }
        }

        impl TryFrom<String> for $name {
            type Error = HashParseError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }
    };
}

hash_type!(
    /// What a stage *would* make: the hash of everything that decides its output.
    Fingerprint
);
hash_type!(
    /// What a stage *did* make: the hash of bytes, or of a manifest.
    Digest
);

/// A text that is not 64 hexadecimal characters.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is not a blake3 hash of 64 hexadecimal characters")]
pub struct HashParseError {
    text: String,
}
