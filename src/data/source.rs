//! Where images come from: the `source` of a data set in a pipeline file.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::{choice::Choice, sets::DataSet};

/// The name of a data set.
pub type SourceName = Choice<dyn DataSet>;

/// Where images come from: a table, or only the name where no other key is needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DataSource {
    /// The data set.
    pub source: SourceName,
    /// The folder of the data; not needed for built-in data.
    pub root: Option<String>,
    /// For ARC: `training`, `evaluation`, `corpus/AboveBelow` or any other folder of task files
    /// below `root` or `root/data`. For `dreambooth`: one subject. For `table`: the CSV or Parquet
    /// file.
    pub set: Option<String>,
    /// For ARC: the task's file name without `.json`, or its place (from 0) among the set's files
    /// sorted by name.
    pub task: Option<TaskRef>,
    /// For `rgbd`: units of the depth images per metre; by default 5000 where `rgb.txt` and
    /// `depth.txt` list the images (TUM), else 1000.
    pub units: Option<u32>,
    /// For `rgbd`: whether the bits of stored depths are turned by three places, as SUN's are; by
    /// default in folders with `image/` and `depth/` (SUN), and nowhere else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth_bits: Option<DepthBits>,
}

/// How the 16 bits of a depth are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DepthBits {
    /// As they are.
    Plain,
    /// The highest three are the lowest (SUN).
    Rotated,
}

/// One task of a set of task files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum TaskRef {
    /// Its place among the files sorted by name, from 0.
    Index(usize),
    /// The file name without `.json`.
    Name(String),
}

/// The table form.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename = "DataSource")]
struct SourceTable {
    /// The data set.
    source: SourceName,
    /// The folder of the data; not needed for built-in data.
    #[serde(default)]
    #[schemars(extend("format" = "path"))]
    root: Option<String>,
    /// For ARC: `training`, `evaluation`, `corpus/AboveBelow` or any other folder of task files
    /// below `root` or `root/data`. For `dreambooth`: one subject. For `table`: the CSV or Parquet
    /// file.
    #[serde(default)]
    set: Option<String>,
    /// For ARC: the task's file name without `.json`, or its place (from 0) among the set's files
    /// sorted by name.
    #[serde(default)]
    task: Option<TaskRef>,
    /// For `rgbd`: units of the depth images per metre; by default 5000 where `rgb.txt` and
    /// `depth.txt` list the images (TUM), else 1000.
    #[serde(default)]
    #[schemars(range(min = 1))]
    units: Option<u32>,
    /// For `rgbd`: whether the bits of stored depths are turned by three places, as SUN's are; by
    /// default in folders with `image/` and `depth/` (SUN), and nowhere else.
    #[serde(default)]
    depth_bits: Option<DepthBits>,
}

impl DataSource {
    /// A data set that needs no other key.
    fn named(source: SourceName) -> Self {
        Self { source, root: None, set: None, task: None, units: None, depth_bits: None }
    }
}

impl From<SourceTable> for DataSource {
    fn from(table: SourceTable) -> Self {
        let SourceTable { source, root, set, task, units, depth_bits } = table;
        Self { source, root, set, task, units, depth_bits }
    }
}

impl JsonSchema for DataSource {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Source".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Where images come from: a table, or only the name where no other key is needed.",
            "anyOf": [
                generator.subschema_for::<SourceName>(),
                generator.subschema_for::<SourceTable>(),
            ],
        })
    }
}

impl<'de> Deserialize<'de> for DataSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;

        impl<'de> Visitor<'de> for Form {
            type Value = DataSource;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a data set, or a table with `source` and `root`")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<DataSource, E> {
                let name = serde::de::value::StrDeserializer::<E>::new(name);
                let source = SourceName::deserialize(name)?;
                Ok(DataSource::named(source))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<DataSource, A::Error> {
                SourceTable::deserialize(MapAccessDeserializer::new(map)).map(DataSource::from)
            }
        }

        deserializer.deserialize_any(Form)
    }
}

impl<'de> Deserialize<'de> for TaskRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;

        impl Visitor<'_> for Form {
            type Value = TaskRef;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a task, or its place from 0")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<TaskRef, E> {
                Ok(TaskRef::Name(name.to_owned()))
            }

            fn visit_u64<E: serde::de::Error>(self, index: u64) -> Result<TaskRef, E> {
                Ok(TaskRef::Index(index as usize))
            }

            fn visit_i64<E: serde::de::Error>(self, index: i64) -> Result<TaskRef, E> {
                usize::try_from(index).map(TaskRef::Index).map_err(|_| {
                    E::invalid_value(serde::de::Unexpected::Signed(index), &"a place from 0")
                })
            }
        }

        deserializer.deserialize_any(Form)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_is_the_table_with_nothing_else() {
        let parse = |value| serde_json::from_value::<DataSource>(value);
        assert_eq!(
            parse(json!("builtin:figures")).unwrap(),
            parse(json!({ "source": "builtin:figures" })).unwrap()
        );
        let task =
            parse(json!({ "source": "arc", "root": "d", "set": "training", "task": 3 })).unwrap();
        assert_eq!(task.task, Some(TaskRef::Index(3)));
        let error = parse(json!("builtin:figure")).unwrap_err();
        assert!(error.to_string().contains("unknown variant `builtin:figure`"), "{error}");
        let error = parse(json!({ "source": "coco", "rot": "x" })).unwrap_err();
        assert!(error.to_string().contains("unknown field `rot`"), "{error}");
    }

    #[test]
    fn what_is_written_out_reads_back() {
        let source = DataSource {
            source: SourceName::named("arc").unwrap(),
            root: Some("data/arc".into()),
            set: Some("evaluation".into()),
            task: Some(TaskRef::Name("00576224".into())),
            units: None,
            depth_bits: Some(DepthBits::Plain),
        };
        let text = serde_json::to_value(&source).unwrap();
        assert_eq!(serde_json::from_value::<DataSource>(text).unwrap(), source);
    }

    #[test]
    fn the_root_is_marked_as_a_path() {
        let mut generator = SchemaGenerator::default();
        let _ = generator.subschema_for::<DataSource>();
        let definitions = generator.take_definitions(false);
        assert_eq!(definitions["DataSource"]["properties"]["root"]["format"], "path");
    }
}
