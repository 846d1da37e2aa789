//! What a person means by the beginning of a hash.

use std::{fs, path::Path, str::FromStr};

use super::{Digest, Fingerprint, Store};

/// What a hash is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// Content.
    Object(Digest),
    /// A result, by its key.
    Result(Fingerprint),
}

/// The fewest characters that name something.
const SHORTEST: usize = 2;

impl Store {
    /// All objects and results whose hash begins with `prefix`, in either case of its letters.
    pub fn find(&self, prefix: &str) -> Vec<Named> {
        let prefix = prefix.to_ascii_lowercase();
        let objects = beginning(&self.root.join("objects"), &prefix).into_iter().map(Named::Object);
        let results = beginning(&self.root.join("actions"), &prefix).into_iter().map(Named::Result);
        objects.chain(results).collect()
    }
}

/// The hashes in a folder of shards; what is none, or too short to name one, begins nothing.
fn beginning<H: FromStr>(folder: &Path, prefix: &str) -> Vec<H> {
    let is_hash = prefix.len() >= SHORTEST && prefix.bytes().all(|byte| byte.is_ascii_hexdigit());
    let Some((shard, rest)) = prefix.split_at_checked(SHORTEST).filter(|_| is_hash) else {
        return Vec::new();
    };
    let entries = fs::read_dir(folder.join(shard)).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(rest)).collect();
    names.sort();
    names.iter().filter_map(|name| format!("{shard}{name}").parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_found_by_how_its_digest_begins() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let digest = store.put(b"content").unwrap().digest;
        let hex = digest.to_string();
        for prefix in [&hex[..2], &hex[..6], &hex.to_uppercase(), &hex] {
            assert_eq!(store.find(prefix), [Named::Object(digest)]);
        }
        let other = format!("{}0", if hex.starts_with('f') { "e" } else { "f" });
        for none in ["", &hex[..1], "zz", "é", "../../etc", &other, &format!("{hex}0")] {
            assert_eq!(store.find(none), []);
        }
    }
}
