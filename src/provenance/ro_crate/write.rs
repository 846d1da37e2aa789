//! Writes a crate: the files first, then the document that describes them.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    entities::{Entity, iri},
    graph,
};
use crate::{
    artifact::{FileNames, file_name},
    config::{Instance, pipeline::plain},
    provenance::{Facts, sha256, sha256_of},
    store::{Digest, Store, StoreError, Transfer},
};

/// A document that goes into the crate beside the results.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// Its path in the crate.
    pub path: String,
    /// What it is.
    pub description: &'static str,
    /// Its media type.
    pub format: &'static str,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// What only the user can say of a crate.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// The licence of what is in it, by its address.
    pub license: Option<String>,
    /// Who ran the pipeline.
    pub author: Option<String>,
}

/// The file that people open first.
pub(super) const README: &str = "README.md";

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Files of artifacts by how they got there.
    pub transfers: BTreeMap<Transfer, usize>,
}

/// Why there is no crate.
#[derive(Debug, thiserror::Error)]
pub enum CrateError {
    /// The folder holds something.
    #[error("the folder `{}` is not empty", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// A file could not be written.
    #[error("cannot write `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Writes the crate of a pipeline into a folder that is absent or empty, and is so again if that
/// fails.
pub fn write(
    facts: &Facts<'_>,
    store: &Store,
    folder: &Path,
    given: &Given,
    attachments: &[Attachment],
) -> Result<Written, CrateError> {
    let is_empty = match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    if !is_empty {
        return Err(CrateError::NotEmpty { path: folder.to_owned() });
    }
    let written = fill(facts, store, folder, given, attachments);
    if written.is_err() {
        empty(folder);
    }
    written
}

/// Takes out what a failed attempt wrote. What cannot be taken out is seen by the next attempt.
fn empty(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    }
}

fn fill(
    facts: &Facts<'_>,
    store: &Store,
    folder: &Path,
    given: &Given,
    attachments: &[Attachment],
) -> Result<Written, CrateError> {
    let mut contents = Contents::new(store, folder);
    for (index, file) in facts.files.iter().enumerate() {
        let path = format!("pipeline/{}", file.path);
        let what =
            if index == 0 { "the pipeline file" } else { "a file that the pipeline extends" };
        contents.file(&path, &file.bytes, "application/toml", what)?;
    }
    contents.file(README, readme(facts).as_bytes(), "text/markdown", "what is in this folder")?;
    for attachment in attachments {
        let Attachment { path, description, format, bytes } = attachment;
        contents.attachments.push(iri(path));
        contents.file(path, bytes, format, description)?;
    }
    for executed in &facts.executed {
        contents.artifact(executed.instance, executed.record.output)?;
        if let Some(list) = executed.inputs() {
            let bytes = serde_json::to_vec_pretty(&list).expect("a list of strings is valid JSON");
            let path = format!("inputs/{}.json", folder_of(executed.instance));
            let what = "the outside files that a stage read, which are not in this crate";
            contents.file(&path, &bytes, "application/json", what)?;
            contents.lists.insert(executed.instance.to_string(), iri(&path));
        }
    }
    let metadata = graph::describe(facts, &contents, given);
    let path = folder.join("ro-crate-metadata.json");
    let text = serde_json::to_string_pretty(&metadata).expect("entities are valid JSON") + "\n";
    fs::write(&path, text).map_err(|source| CrateError::Io { path, source })?;
    Ok(contents.written)
}

fn readme(facts: &Facts<'_>) -> String {
    let pipeline = facts.pipeline;
    let title = pipeline.title.as_deref().unwrap_or(&pipeline.name);
    let file = facts.files.first().map_or("", |file| &file.path);
    format!(
        "# {title}\n\nResults of the pipeline `pipeline/{file}`, computed by `pipe`.\n\n\
         - `results/`: the lock file with the digests of everything, and the tables\n\
         - `artifacts/`: what each stage gave, in each cell of the sweep\n\
         - `pipeline/`: the pipeline file, and what it extends\n\
         - `inputs/`: the paths and blake3 of outside files that were read, where there were any\n\
         - `ro-crate-metadata.json`: what was made from what, as a Workflow Run RO-Crate\n"
    )
}

/// The files of a crate, and their entities.
pub(super) struct Contents<'a> {
    store: &'a Store,
    folder: &'a Path,
    written: Written,
    taken: FileNames,
    /// The entity of each artifact by its content: equal artifacts are written once.
    pub(super) artifacts: HashMap<Digest, Entity>,
    /// All files.
    pub(super) files: Vec<Entity>,
    /// The list of outside files of an instance.
    pub(super) lists: BTreeMap<String, String>,
    /// The attachments.
    pub(super) attachments: Vec<String>,
}

impl<'a> Contents<'a> {
    fn new(store: &'a Store, folder: &'a Path) -> Self {
        Self {
            store,
            folder,
            written: Written::default(),
            taken: FileNames::default(),
            artifacts: HashMap::new(),
            files: Vec::new(),
            lists: BTreeMap::new(),
            attachments: Vec::new(),
        }
    }

    fn file(
        &mut self,
        path: &str,
        bytes: &[u8],
        format: &str,
        description: &str,
    ) -> Result<(), CrateError> {
        let full = self.folder.join(path);
        let written = match full.parent() {
            Some(folder) => fs::create_dir_all(folder).and_then(|()| fs::write(&full, bytes)),
            None => fs::write(&full, bytes),
        };
        written.map_err(|source| CrateError::Io { path: full, source })?;
        self.files.push(Entity {
            description: Some(description.to_owned()),
            ..file_entity(path, (sha256(bytes), bytes.len() as u64), Digest::of(bytes), format)
        });
        Ok(())
    }

    /// Writes all files of an artifact, unless an equal one is there.
    fn artifact(&mut self, instance: &Instance, digest: Digest) -> Result<(), CrateError> {
        if self.artifacts.contains_key(&digest) {
            return Ok(());
        }
        let manifest = self.store.manifest(digest)?;
        let root = self.taken.free(&format!("artifacts/{}", folder_of(instance)));
        let mut parts = Vec::new();
        for item in &manifest.items {
            let folder = self.taken.free(&format!("{root}/{}", file_name(&item.name)));
            for (name, file) in &item.files {
                let path = self.taken.free(&format!("{folder}/{}", file_name(name)));
                let full = self.folder.join(&path);
                let how = self.store.materialise(file, &full)?;
                *self.written.transfers.entry(how).or_default() += 1;
                let content = fs::File::open(&full).and_then(sha256_of);
                let content = content.map_err(|source| CrateError::Io { path: full, source })?;
                let entity = file_entity(&path, content, file.digest, format_of(name));
                parts.push(entity.to());
                self.files.push(entity);
            }
        }
        let name = format!("{} of {instance}", manifest.kind);
        let entity = Entity {
            identifier: vec![format!("blake3:{digest}")],
            description: Some(format!("{} items", manifest.items.len())),
            has_part: parts,
            ..Entity::new(iri(&format!("{root}/")), &["Dataset"], &name)
        };
        fs::create_dir_all(self.folder.join(&root))
            .map_err(|source| CrateError::Io { path: self.folder.join(&root), source })?;
        self.artifacts.insert(digest, entity);
        Ok(())
    }
}

fn file_entity(path: &str, (sha256, size): (String, u64), digest: Digest, format: &str) -> Entity {
    let name = path.rsplit('/').next().unwrap_or(path);
    Entity {
        sha256: Some(sha256),
        identifier: vec![format!("blake3:{digest}")],
        content_size: Some(size.to_string()),
        encoding_format: Some(format.to_owned()),
        ..Entity::new(iri(path), &["File"], name)
    }
}

/// `lora/n=10_rank=64`, or `lora`.
fn folder_of(instance: &Instance) -> String {
    let axes = instance
        .cell
        .iter()
        .map(|(axis, value)| format!("{}={}", file_name(axis), file_name(&plain(value))));
    let axes: Vec<_> = axes.collect();
    let stage = file_name(&instance.stage);
    if axes.is_empty() { stage } else { format!("{stage}/{}", axes.join("_")) }
}

fn format_of(name: &str) -> &'static str {
    match Path::new(name).extension().and_then(|extension| extension.to_str()) {
        Some("png") => "image/png",
        Some("json") => "application/json",
        Some("csv") => "text/csv",
        Some("txt" | "log") => "text/plain",
        _ => "application/octet-stream",
    }
}
