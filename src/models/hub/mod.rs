//! Models of the Hugging Face hub, in the cache that all its tools share.
//!
//! The cache keeps each file once, named by the hash of its content (`blobs/`), a folder of links
//! per commit (`snapshots/`) and the commit each branch was at (`refs/`). [`snapshot`] only reads
//! it; [`fetch`] adds what is missing. A branch stays at the commit it was first fetched at.
//!
//! Names and paths are those of the crate `hf-hub`. Its client is left out: it does not check the
//! content that arrives, and its HTTP stack would change features of crates that burn is built on.

mod client;
mod download;
mod request;
mod select;

use std::{
    env,
    path::{Path, PathBuf},
};

use hf_hub::{Cache, Repo, RepoType};

use super::LoadError;

pub use client::Hub;
pub use download::{FetchError, Observe, Progress, fetch, fetch_settings};

/// A repository and a revision of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a> {
    /// `org/repo`.
    pub id: &'a str,
    /// A branch, a tag or a commit; `main` by default.
    pub revision: &'a str,
}

impl<'a> Name<'a> {
    /// Reads `org/repo` or `org/repo@revision`.
    pub fn parse(text: &'a str) -> Result<Self, LoadError> {
        let (id, revision) = text.split_once('@').unwrap_or((text, "main"));
        if !plain(id) || !plain(revision) || id.split('/').count() != 2 {
            return Err(missing(
                format!("`hf:{text}` must have the form `hf:org/repo` or `hf:org/repo@revision`"),
                "write the repository's name as on the hub, such as `hf:zai-org/CogVideoX1.5-5B-I2V`",
            ));
        }
        Ok(Self { id, revision })
    }

    fn repo(&self) -> Repo {
        Repo::with_revision(self.id.to_owned(), RepoType::Model, self.revision.to_owned())
    }
}

/// Whether a text can be part of a path below the cache.
fn plain(text: &str) -> bool {
    !text.is_empty()
        && text.split('/').all(|part| !part.is_empty() && !part.starts_with('.'))
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
}

fn missing(message: impl Into<String>, help: impl Into<String>) -> LoadError {
    LoadError::Missing { message: message.into(), help: help.into() }
}

/// The value of an environment variable that is set to something.
#[expect(clippy::disallowed_methods, reason = "the cache is shared with the hub's other tools")]
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether the user wants no network: `HF_HUB_OFFLINE`.
pub fn is_offline() -> bool {
    let yes = |value: String| ["1", "on", "yes", "true"].contains(&&*value.to_ascii_lowercase());
    variable("HF_HUB_OFFLINE").is_some_and(yes)
}

/// The folder of the hub's settings: `HF_HOME`, or `~/.cache/huggingface`.
fn home() -> PathBuf {
    variable("HF_HOME")
        .map(PathBuf::from)
        .or_else(|| {
            variable("XDG_CACHE_HOME").map(|cache| PathBuf::from(cache).join("huggingface"))
        })
        .unwrap_or_else(|| env::home_dir().unwrap_or_default().join(".cache/huggingface"))
}

/// The folder of the cache: `HF_HUB_CACHE`, or `hub` in the folder of the hub's settings.
pub fn cache_folder() -> PathBuf {
    variable("HF_HUB_CACHE").map_or_else(|| home().join("hub"), PathBuf::from)
}

/// The commit that a branch or a tag was at when it was first fetched.
fn known_commit(name: &Name<'_>, cache: &Path) -> Option<String> {
    let noted = cache.join(name.repo().folder_name()).join("refs").join(name.revision);
    let commit = std::fs::read_to_string(noted).ok()?.trim().to_owned();
    plain(&commit).then_some(commit)
}

/// The folder of a revision's files in the cache, whole or not.
pub fn snapshot(name: &Name<'_>, cache: &Path) -> Result<PathBuf, LoadError> {
    let Name { id, revision } = name;
    let commit = known_commit(name, cache);
    let commit = commit.as_deref().unwrap_or(revision);
    let snapshot = Cache::new(cache.to_owned()).repo(name.repo()).pointer_path(commit);
    if snapshot.is_dir() {
        return Ok(snapshot);
    }
    Err(missing(
        format!(
            "`{id}` at revision `{revision}` is not in the Hugging Face cache `{}`",
            cache.display()
        ),
        if is_offline() {
            "`HF_HUB_OFFLINE` forbids to download it: unset it, or name a local folder in diffusers' \
             layout"
        } else {
            "a run downloads it once nothing else is missing; or name a local folder in diffusers' layout"
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_read_by_branch_and_by_commit() {
        let cache = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = cache.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("models--org--repo/snapshots/abc123/model_index.json", "{}");
        write("models--org--repo/refs/main", "abc123\n");
        let wanted = cache.path().join("models--org--repo/snapshots/abc123");
        for name in ["org/repo", "org/repo@main", "org/repo@abc123"] {
            let name = Name::parse(name).unwrap();
            assert_eq!(snapshot(&name, cache.path()).unwrap(), wanted, "{name:?}");
        }
        let error = snapshot(&Name::parse("org/repo@v2").unwrap(), cache.path()).unwrap_err();
        assert!(error.help().unwrap().contains("local folder"));
        // As a crash may leave it.
        write("models--org--repo/refs/main", "");
        assert!(snapshot(&Name::parse("org/repo").unwrap(), cache.path()).is_err());
    }

    #[test]
    fn a_name_cannot_leave_the_cache() {
        for bad in ["repo", "../../etc/x", "org/../repo", "a/b/c", "org/repo@../x", "org/repo@"] {
            let message = Name::parse(bad).unwrap_err().to_string();
            assert!(message.contains("must have the form"), "{message}");
        }
    }
}
