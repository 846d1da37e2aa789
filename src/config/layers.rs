//! The layers of a pipeline, merged: bases by `extends`, the file, a profile, `--set`.
//!
//! Tables are merged key by key, everything else is replaced. So that no half of an old value is
//! left in a new one, some tables are replaced as wholes: each param, each of the sweep's four
//! tables, and a stage whose `kind` changes.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    LoadOptions,
    origin::{Layer, Origin, Sources, normalise},
    problem::{Code, Problem, Problems},
    set,
    value::{Data, Entry, Node, Syntax, Table, parse_document},
};

/// Keys of a profile that are sections; all others are params.
pub(super) const PROFILE_SECTIONS: &[&str] = &["sweep", "stages", "tables", "seed", "title"];

/// Reads a file's text.
pub type ReadFile<'a> = &'a dyn Fn(&Path) -> io::Result<String>;

/// A pipeline after merging.
pub(super) struct Merged {
    pub root: Arc<Node>,
    /// The file and its bases with all profiles, before one is applied; the same tree if none is.
    pub written: Arc<Node>,
}

/// Reads and merges all layers; what cannot be read is reported and left out.
pub(super) fn merge(
    path: &Path,
    options: &LoadOptions,
    read: ReadFile<'_>,
    sources: &mut Sources,
    problems: &mut Problems,
) -> Option<Merged> {
    let mut stack = Vec::new();
    let written = Files { read, sources, problems }.file(path, Layer::File, None, &mut stack)?;
    let written = Arc::new(written);
    let mut root = Arc::clone(&written);
    if let Some(name) = &options.profile {
        apply_profile(Arc::make_mut(&mut root), name, sources, problems);
    }
    for text in &options.set {
        let mut target = set::Target { root: Arc::make_mut(&mut root), file: path };
        target.apply(text, sources, problems);
    }
    Some(Merged { root, written })
}

struct Files<'a> {
    read: ReadFile<'a>,
    sources: &'a mut Sources,
    problems: &'a mut Problems,
}

impl Files<'_> {
    fn file(
        &mut self,
        path: &Path,
        layer: Layer,
        named: Option<Origin>,
        stack: &mut Vec<PathBuf>,
    ) -> Option<Node> {
        let name = path.display().to_string();
        let known = normalise(path);
        if stack.contains(&known) || stack.len() > 32 {
            let chain: Vec<_> =
                stack.iter().chain([&known]).map(|path| path.display().to_string()).collect();
            let message = format!("files extend each other: {}", chain.join(" -> "));
            self.problems.add(
                Problem::new(Code::Cycle, message)
                    .at(named, "comes back here")
                    .help("take out one `extends`"),
            );
            return None;
        }
        let text = match (self.read)(path) {
            Ok(text) => text,
            Err(error) => {
                let problem = Problem::new(Code::Io, format!("cannot read `{name}`: {error}"));
                let mut problem = problem.at(named, "named here");
                let help = match path.with_extension("toml") {
                    with if with != path && (self.read)(&with).is_ok() => {
                        Some(format!("did you mean `{}`?", with.display()))
                    }
                    _ => unreadable(&error, named.is_some()).map(str::to_owned),
                };
                problem.help = help;
                self.problems.add(problem);
                return None;
            }
        };
        let folder = path.parent().unwrap_or(Path::new(""));
        let file = self.sources.add(&name, &text, folder);
        let mut root = match parse_document(&text, file, layer) {
            Ok(root) => root,
            Err(errors) => {
                add_syntax(self.problems, errors);
                return None;
            }
        };
        let Some(entry) = root.as_table_mut().and_then(|table| table.shift_remove("extends"))
        else {
            return Some(root);
        };
        let Some(base) = entry.node.as_str() else {
            let message = format!("`extends` must be a string, but is {}", entry.node.describe());
            let problem = Problem::new(Code::WrongType, message);
            let problem = problem.at(entry.node.origin, "must be the path of a file");
            self.problems.add(problem.help("write `extends = \"base/file.toml\"`"));
            return Some(root);
        };
        stack.push(known);
        let base = self.file(&folder.join(base), Layer::Base, entry.node.origin, stack);
        stack.pop();
        let mut merged = base?;
        overlay(&mut merged, root, &mut Vec::new());
        Some(merged)
    }
}

/// What to do about a file that cannot be read.
fn unreadable(error: &io::Error, is_base: bool) -> Option<&'static str> {
    Some(match error.kind() {
        io::ErrorKind::InvalidData => "a pipeline file is TOML, in UTF-8",
        io::ErrorKind::IsADirectory => "name a file in that folder",
        io::ErrorKind::PermissionDenied => "make it a file that you may read",
        io::ErrorKind::NotFound if is_base => {
            "check the path, which is meant from the folder of the file that names it"
        }
        io::ErrorKind::NotFound => "check the path; `pipe init` writes a file to start from",
        _ => return None,
    })
}

/// Reports the first error of a text: what the parser makes of the rest of it is seldom meant.
pub(super) fn add_syntax(problems: &mut Problems, errors: Vec<Syntax>) {
    let Some(first) = errors.into_iter().min_by_key(|error| error.origin.start) else { return };
    let help = first.help.unwrap_or_else(|| syntax_help(&first.message));
    problems
        .add(Problem::new(Code::Syntax, first.message).at(Some(first.origin), "here").help(help));
}

/// What is mostly meant where the parser says this.
fn syntax_help(message: &str) -> &'static str {
    let says = |words: &str| message.contains(words);
    if says("duplicate key") {
        "take one of them out; a table such as `[stages.lora]` can be opened only once"
    } else if says("missing comma between key-value pairs") || says("inline table") {
        "close the table before this with `}`, or put a comma between its entries"
    } else if says("must be quoted") || says("boolean") {
        "put it in quotes if it is text"
    } else if says("string") {
        "close the string with the quote it begins with, on the same line"
    } else if says("table header") || says("`]`") {
        "close the bracket with `]`"
    } else {
        "a line of TOML is `key = value`, `[table]` or `# comment`; text stands in quotes"
    }
}

/// Lays `over` on `under`.
pub(super) fn overlay(under: &mut Node, over: Node, path: &mut Vec<String>) {
    if replaced_whole(under, &over, path) {
        *under = over;
        return;
    }
    match (&mut under.data, over.data) {
        (Data::Table(below), Data::Table(above)) => {
            for (key, entry) in above {
                if let Some(old) = below.get_mut(&key) {
                    path.push(key);
                    overlay(&mut old.node, entry.node, path);
                    path.pop();
                    old.key = entry.key;
                } else {
                    below.insert(key, entry);
                }
            }
            under.origin = over.origin.or(under.origin);
        }
        (_, data) => *under = Node { data, origin: over.origin, via: over.via, filled: None },
    }
}

fn replaced_whole(under: &Node, over: &Node, path: &[String]) -> bool {
    // A profile has the same sections as the file.
    let path = match path {
        [profiles, _, rest @ ..] if profiles == "profiles" => rest,
        path => path,
    };
    let kind = |node: &Node| node.get("kind").and_then(Node::as_str).map(str::to_owned);
    match path {
        [section, _] if section == "params" || section == "sweep" => true,
        [section, _] if section == "stages" => {
            kind(over).is_some_and(|new| Some(new) != kind(under))
        }
        _ => false,
    }
}

fn apply_profile(root: &mut Node, name: &str, sources: &mut Sources, problems: &mut Problems) {
    let profiles = root.get("profiles").and_then(Node::as_table);
    let Some(profile) = profiles.and_then(|profiles| profiles.get(name)) else {
        let names: Vec<&str> =
            profiles.iter().flat_map(|table| table.keys().map(String::as_str)).collect();
        let text = format!("--profile {name}");
        let file = sources.add("--profile", &text, Path::new(""));
        let end = text.len() as u32;
        let origin = Origin { file, start: end - name.len() as u32, end, layer: Layer::Set };
        let mut problem = Problem::new(Code::Profile, format!("there is no profile `{name}`"))
            .at(Some(origin), "unknown");
        problem = if names.is_empty() {
            problem.help("the file has no `[profiles]`: leave `--profile` out, or add the profile")
        } else {
            problem.suggest(name, names)
        };
        problems.add(problem);
        return;
    };
    let mut profile = profile.node.clone();
    profile.set_layer(Layer::Profile);
    let Data::Table(entries) = profile.data else { return };
    let mut params = Table::new();
    let mut over = Table::new();
    for (key, entry) in entries {
        let to = if PROFILE_SECTIONS.contains(&key.as_str()) { &mut over } else { &mut params };
        to.insert(key, entry);
    }
    if !params.is_empty() {
        let node = Node { data: Data::Table(params), origin: None, via: None, filled: None };
        over.insert("params".to_owned(), Entry { key: None, node });
    }
    overlay_keeping_keys(root, over);
}

/// Like [`overlay`] of a whole file, but a section without a place of its own keeps the old one.
pub(super) fn overlay_keeping_keys(root: &mut Node, over: Table) {
    let Some(table) = root.as_table_mut() else { return };
    for (key, entry) in over {
        match table.get_mut(&key) {
            Some(old) => overlay(&mut old.node, entry.node, &mut vec![key]),
            None => {
                table.insert(key, entry);
            }
        }
    }
}
