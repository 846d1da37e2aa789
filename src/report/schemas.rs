//! The JSON schemas of the documents that other programs read.

use std::{fs, io, path::Path};

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Value;

use super::{
    cache::CacheVerifyDocument, json::Line, plan::PlanDocument, verify::VerifyDocument,
    wrong::OrWrong,
};
use crate::{config::schema::let_flow, plan::Lock};

/// A kind of document.
#[derive(Clone, Copy, Debug)]
pub struct Document {
    /// Its name; the file is called `<name>.schema.json`.
    pub name: &'static str,
    title: &'static str,
    schema: fn() -> Value,
}

/// The documents whose form is promised to other programs.
pub const DOCUMENTS: &[Document] = &[
    Document {
        name: "plan",
        title: "What `pipe plan --json` prints",
        schema: of::<OrWrong<PlanDocument>>,
    },
    Document { name: "lock", title: "A lock file, `<pipeline>.lock`", schema: of::<Lock> },
    Document {
        name: "event",
        title: "A line of the file that `pipe run --events` writes",
        schema: of::<Line<'static>>,
    },
    Document {
        name: "verify",
        title: "What `pipe verify --json` prints",
        schema: of::<OrWrong<VerifyDocument>>,
    },
    Document {
        name: "cache_verify",
        title: "What `pipe cache verify --json` prints",
        schema: of::<CacheVerifyDocument>,
    },
];

impl Document {
    /// The schema of such a document.
    pub fn schema(&self) -> Value {
        let mut schema = (self.schema)();
        schema["title"] = self.title.into();
        let_flow(&mut schema);
        schema
    }

    /// The name of its file.
    pub fn file(&self) -> String {
        format!("{}.schema.json", self.name)
    }

    /// Writes the schema into a folder.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join(self.file()), format!("{:#}\n", self.schema()))
    }
}

/// What is written has all its keys, also those that are null.
fn of<T: JsonSchema>() -> Value {
    let generator = SchemaSettings::draft07().for_serialize().into_generator();
    generator.into_root_schema_for::<T>().to_value()
}
