//! The rules that the source cites by section stand in `docs/method.md`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension() == Some("rs".as_ref()) {
            found.push(path);
        }
    }
}

#[test]
fn every_cited_section_of_the_method_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let method = fs::read_to_string(root.join("docs/method.md")).unwrap();
    let heading = regex::Regex::new(r"(?m)^## ([A-Z]\.\d+) ").unwrap();
    let sections: BTreeSet<&str> =
        heading.captures_iter(&method).map(|found| found.get(1).unwrap().as_str()).collect();

    // One section, or several: `docs/method.md, E.3 and E.4`.
    let citation =
        regex::Regex::new(r"docs/method\.md(?:,((?:(?: and|,)? [A-Z]\.\d+)+))?").unwrap();
    let section = regex::Regex::new(r"[A-Z]\.\d+").unwrap();
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files);
    let (mut wrong, mut cited) = (Vec::new(), 0);
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        for found in citation.captures_iter(&text) {
            let named = found.get(1).map_or("", |sections| sections.as_str());
            let mut named = section.find_iter(named).map(|section| section.as_str()).peekable();
            if named.peek().is_none() || named.any(|section| !sections.contains(section)) {
                wrong.push(format!("{}: {}", path.display(), &found[0]));
            }
            cited += 1;
        }
    }
    assert!(wrong.is_empty(), "no such section in docs/method.md:\n{}", wrong.join("\n"));
    assert!(cited > 10, "{cited}");
}
