//! A parameter that names one entry of a list, such as a data set or a task.
//!
//! The list is the one place where an entry is registered: reading, error messages and the schema
//! with its descriptions follow from it.

use std::{borrow::Cow, collections::BTreeMap, fmt, marker::PhantomData, ops::Deref};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};
use serde_json::json;

/// What has a list of entries.
pub trait Listed: 'static {
    /// The name of the parameter's type in the schema.
    const TYPE: &'static str;

    /// All entries.
    fn list() -> &'static [&'static Self];

    /// The names of all entries.
    fn names() -> &'static [&'static str];

    /// What the entry is called in a pipeline file.
    fn name(&self) -> &'static str;

    /// One sentence for editors.
    fn doc(&self) -> &'static str;

    /// The parameters beside the choice that it reads and not every entry does.
    fn params(&self) -> &'static [&'static str];
}

/// Implements [`Listed`] for a trait whose entries stand in a list, and have `name`, `doc` and
/// `params`.
macro_rules! listed {
    ($entry:ident, $type:literal, $list:ident) => {
        impl $crate::data::choice::Listed for dyn $entry {
            const TYPE: &'static str = $type;

            fn list() -> &'static [&'static Self] {
                $list
            }

            fn names() -> &'static [&'static str] {
                static NAMES: std::sync::LazyLock<Vec<&str>> =
                    std::sync::LazyLock::new(|| $list.iter().map(|entry| entry.name()).collect());
                &NAMES
            }

            fn name(&self) -> &'static str {
                $entry::name(self)
            }

            fn doc(&self) -> &'static str {
                $entry::doc(self)
            }

            fn params(&self) -> &'static [&'static str] {
                $entry::params(self)
            }
        }
    };
}
pub(crate) use listed;

/// One entry of a list, written by its name.
pub struct Choice<T: Listed + ?Sized>(&'static T);

impl<T: Listed + ?Sized> Choice<T> {
    /// The entry of this name.
    pub fn named(name: &str) -> Option<Self> {
        T::list().iter().copied().find(|entry| entry.name() == name).map(Self)
    }

    /// The parameters that do nothing beside this choice, each with the entries that read it.
    pub fn idle_params(self) -> BTreeMap<&'static str, Vec<&'static str>> {
        let mut readers = BTreeMap::<_, Vec<_>>::new();
        for entry in T::list() {
            for param in entry.params() {
                readers.entry(*param).or_default().push(entry.name());
            }
        }
        readers.retain(|param, _| !self.params().contains(param));
        readers
    }
}

impl<T: Listed + ?Sized> Clone for Choice<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Listed + ?Sized> Copy for Choice<T> {}

impl<T: Listed + ?Sized> PartialEq for Choice<T> {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl<T: Listed + ?Sized> Eq for Choice<T> {}

impl<T: Listed + ?Sized> fmt::Debug for Choice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl<T: Listed + ?Sized> Deref for Choice<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0
    }
}

impl<T: Listed + ?Sized> Serialize for Choice<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de, T: Listed + ?Sized> Deserialize<'de> for Choice<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name<T: ?Sized>(PhantomData<T>);

        impl<T: Listed + ?Sized> Visitor<'_> for Name<T> {
            type Value = Choice<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Choice<T>, E> {
                Choice::named(name).ok_or_else(|| E::unknown_variant(name, T::names()))
            }
        }

        deserializer.deserialize_str(Name(PhantomData))
    }
}

impl<T: Listed + ?Sized> JsonSchema for Choice<T> {
    fn schema_name() -> Cow<'static, str> {
        T::TYPE.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let variants: Vec<_> = T::list()
            .iter()
            .map(|entry| {
                json!({ "type": "string", "const": entry.name(), "description": entry.doc() })
            })
            .collect();
        json_schema!({ "oneOf": variants })
    }
}
