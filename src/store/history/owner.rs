//! Whose results a history holds.

use std::{fs, path::Path, time::UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::super::{Digest, Fingerprint, Holder};
use crate::artifact::file_name;

/// Whose results a history holds: one pipeline file under one profile. Two files of one name, or
/// two profiles of one file, have nothing to do with each other, and neither have two files of one
/// path in two containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The file's path, absolute, with links followed.
    pub file: String,
    /// The profile.
    pub profile: Option<String>,
    /// The pipeline's name, for people.
    pub name: String,
    /// What tells the folder of the file from another one of the same path; unknown where an older
    /// version wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

impl Owner {
    /// The owner of the results of a pipeline file under a profile.
    pub fn new(file: &Path, profile: Option<&str>, name: &str) -> Self {
        let path = fs::canonicalize(file).or_else(|_| std::path::absolute(file));
        let path = path.unwrap_or_else(|_| file.to_owned());
        Self {
            file: path.to_string_lossy().into_owned(),
            profile: profile.map(str::to_owned),
            name: name.to_owned(),
            place: path.parent().and_then(place),
        }
    }

    /// How the names of all histories begin that have this path and profile.
    pub(super) fn stem(&self) -> String {
        let key = serde_json::to_vec(&(&self.file, &self.profile)).expect("strings are valid JSON");
        Fingerprint::of(&key).to_string()
    }

    /// The name of its history: the pipeline's name is for people and may change.
    pub(super) fn file_name(&self) -> String {
        let place = self.place.iter().map(|place| format!("-{place}"));
        std::iter::once(self.stem()).chain(place).collect()
    }

    /// `pose`, `pose.paper`: a folder for what people look at.
    pub fn folder_name(&self) -> String {
        let stem = Path::new(&self.file).file_stem().unwrap_or_default().to_string_lossy();
        let profile = self.profile.iter().map(|profile| format!(".{profile}"));
        file_name(&std::iter::once(stem.into_owned()).chain(profile).collect::<String>())
    }

    /// `pose_ablation`, or `pose_ablation --profile paper`.
    pub fn title(&self) -> String {
        match &self.profile {
            Some(profile) => format!("{} --profile {profile}", self.name),
            None => self.name.clone(),
        }
    }
}

/// What stays of a folder while its content changes, and is another for another folder: its number
/// and when it was made. A folder that a container mounts is the same one each time; a name of the
/// machine would not be.
#[cfg(unix)]
fn place(folder: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let found = fs::metadata(folder).ok()?;
    let made = found.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let text = match made.filter(|made| !made.is_zero()) {
        Some(made) => format!("{} {}", found.ino(), made.as_nanos()),
        // Numbers alone are equal on disks that were made alike.
        None => format!("{} {} {}", Holder::this().host, found.dev(), found.ino()),
    };
    Some(Digest::of(text.as_bytes()).short())
}

#[cfg(not(unix))]
fn place(folder: &Path) -> Option<String> {
    let made = fs::metadata(folder).ok()?.created().ok()?;
    let made = made.duration_since(UNIX_EPOCH).ok()?;
    Some(Digest::of(made.as_nanos().to_string().as_bytes()).short())
}
