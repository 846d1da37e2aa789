//! What may have been meant by the name of a model that leads nowhere.

use std::{ffi::OsStr, path::Path};

use super::{
    super::{LoadError, builtin::BUILTINS, hub},
    missing,
    reference::{KINDS, REQUIRED},
};

/// How the names begin that are no paths.
const PREFIXES: [&str; 2] = ["hf:", "builtin:"];
/// How addresses begin.
const SCHEMES: [&str; 2] = ["https://", "http://"];
/// The hosts of the hub.
const HOSTS: [&str; 3] = ["huggingface.co", "www.huggingface.co", "hf.co"];
/// How alike the names of two folders are where one may be meant by the other.
const ALIKE: f64 = 0.85;

/// Whether a text is no path of a folder, however it is spelt.
pub fn is_no_path(text: &str) -> bool {
    PREFIXES.iter().chain(&SCHEMES).any(|start| without(text, start).is_some())
}

/// The text behind its beginning, in capitals or not.
fn without<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(start.len())?;
    head.eq_ignore_ascii_case(start).then_some(rest)
}

/// What is wrong with a name that leads nowhere, whatever folders there are.
pub(super) fn misspelt(name: &str) -> Option<LoadError> {
    if let Some(address) = SCHEMES.iter().find_map(|scheme| without(name, scheme)) {
        let help = repository_at(address).map(|name| did_you_mean(&format!("hf:{name}")));
        let message = format!("must name a model, but `{name}` is an address");
        return Some(missing(message, help.unwrap_or_else(|| KINDS.to_owned())));
    }
    let in_capitals = |prefix: &&str| without(name, prefix).is_some() && !name.starts_with(*prefix);
    if let Some(prefix) = PREFIXES.into_iter().find(in_capitals) {
        let rest = without(name, prefix).unwrap_or_default();
        let message = format!("must begin with `{prefix}` as it is written here, but is `{name}`");
        return Some(missing(message, did_you_mean(&format!("{prefix}{rest}"))));
    }
    let has_home = Path::new(name).components().any(|part| part.as_os_str() == "~");
    has_home.then(|| {
        let message = "must be a path without `~`, which is not the home folder here";
        missing(message, "write the whole path")
    })
}

/// `org/repo` or `org/repo@revision` of an address without its scheme, if it is one of the hub.
fn repository_at(address: &str) -> Option<String> {
    let mut parts = address.split(['/', '?', '#']);
    parts.next().filter(|host| HOSTS.contains(host))?;
    let (org, repo) = (parts.next()?, parts.next()?);
    let revision = match (parts.next(), parts.next()) {
        (Some("tree" | "blob"), Some(revision)) if revision != "main" => format!("@{revision}"),
        _ => String::new(),
    };
    let name = format!("{org}/{repo}{revision}");
    let is_model = !["datasets", "spaces"].contains(&org) && hub::Name::parse(&name).is_ok();
    is_model.then_some(name)
}

/// What to do where there is no folder of this path.
pub(super) fn help(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default();
    if name == "builtin" {
        let first = BUILTINS.first().map(|(name, _)| format!("builtin:{name}"));
        return first.map_or_else(|| KINDS.to_owned(), |name| did_you_mean(&name));
    }
    let parent = folder.parent().unwrap_or(Path::new(""));
    if let Some(near) = near(parent, &name.to_string_lossy()) {
        return did_you_mean(&parent.join(near).display().to_string());
    }
    match repository(parent, name) {
        Some(id) => format!(
            "did you mean `hf:{id}`, the repository on the hub? a name without `hf:` is a folder"
        ),
        None => KINDS.to_owned(),
    }
}

/// The model's folder in `parent` whose name is most like this one.
fn near(parent: &Path, name: &str) -> Option<String> {
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let entries = std::fs::read_dir(parent).ok()?.flatten();
    let models = entries.filter(|entry| entry.path().join(REQUIRED[0]).is_file());
    let names = models.filter_map(|entry| entry.file_name().into_string().ok());
    let likeness = |other: &str| strsim::jaro_winkler(other, name);
    let alike = names.filter(|other| likeness(other) > ALIKE);
    alike.max_by(|a, b| likeness(a).total_cmp(&likeness(b)).then(b.cmp(a)))
}

/// `org/repo`, where a path ends like one and there is no folder `org` either.
fn repository(parent: &Path, name: &OsStr) -> Option<String> {
    let id = format!("{}/{}", parent.file_name()?.to_str()?, name.to_str()?);
    (!parent.exists() && hub::Name::parse(&id).is_ok()).then_some(id)
}

fn did_you_mean(name: &str) -> String {
    format!("did you mean `{name}`?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_nowhere_are_told_with_what_may_be_meant() {
        for (name, meant) in [
            ("HF:org/repo", "did you mean `hf:org/repo`?"),
            ("Builtin:tiny", "did you mean `builtin:tiny`?"),
            ("https://huggingface.co/org/repo", "did you mean `hf:org/repo`?"),
            ("HTTPS://hf.co/org/repo/tree/v2", "did you mean `hf:org/repo@v2`?"),
            ("https://huggingface.co/datasets/org/repo", KINDS),
            ("https://example.org/org/repo", KINDS),
            ("https://", KINDS),
            ("~/m", "write the whole path"),
            ("some/~/m", "write the whole path"),
        ] {
            let error = misspelt(name).unwrap();
            assert!(error.to_string().starts_with("must "), "{error}");
            assert_eq!(error.help(), Some(meant), "{name}");
        }
        for right in ["hf:org/repo", "builtin:tiny", "org/repo", "~m", "HF", "ä"] {
            assert!(misspelt(right).is_none(), "{right}");
        }
    }

    #[test]
    fn a_folder_that_is_not_there_may_be_another_one_or_a_repository() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("cog10").join(REQUIRED[0]);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "{}").unwrap();
        std::fs::create_dir(root.path().join("cog2")).unwrap();
        let told = |path: &str| help(&root.path().join(path));
        let meant = root.path().join("cog10").display().to_string();
        assert_eq!(told("cog1"), format!("did you mean `{meant}`?"));
        assert_eq!(told("builtin"), "did you mean `builtin:tiny`?");
        assert!(
            told("org/repo").starts_with("did you mean `hf:org/repo`, the repository on the hub?")
        );
        assert_eq!(told("cog2/repo"), KINDS);
        assert_eq!(told("other"), KINDS);
    }
}
