//! The classes whose mask is asked for: one by its name, or several whose masks are one.

use std::{borrow::Cow, fmt, ops::Deref};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{SeqAccess, Visitor, value::SeqAccessDeserializer},
};

/// The names of one class or of several; one alone is written as its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes(Vec<String>);

impl From<&str> for Classes {
    fn from(name: &str) -> Self {
        Self(vec![name.to_owned()])
    }
}

impl Deref for Classes {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.0
    }
}

impl Serialize for Classes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0[..] {
            [one] => one.serialize(serializer),
            several => several.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Classes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;

        impl<'de> Visitor<'de> for Form {
            type Value = Classes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a class, or a list of them")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Classes, E> {
                Ok(Classes::from(name))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, names: A) -> Result<Classes, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(names)).map(Classes)
            }
        }

        deserializer.deserialize_any(Form)
    }
}

impl JsonSchema for Classes {
    fn schema_name() -> Cow<'static, str> {
        "Classes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "The name of a class, or a list of names.",
            "anyOf": [
                { "type": "string" },
                { "type": "array", "items": { "type": "string" }, "minItems": 1 },
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_class_is_written_as_its_name() {
        for (written, kept) in [
            (json!("dog"), json!("dog")),
            (json!(["dog"]), json!("dog")),
            (json!(["dog", "cat"]), json!(["dog", "cat"])),
        ] {
            let classes: Classes = serde_json::from_value(written).unwrap();
            assert_eq!(serde_json::to_value(&classes).unwrap(), kept);
        }
        assert!(serde_json::from_value::<Classes>(json!(3)).is_err());
    }
}
