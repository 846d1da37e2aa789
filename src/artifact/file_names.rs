//! Names of items and cells as names of files.

use std::collections::BTreeSet;

/// A name without what file systems and shells take as special; neither hidden nor a parent folder.
pub fn file_name(name: &str) -> String {
    let fine = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '=' | '+');
    let name: String = name.chars().map(|c| if fine(c) { c } else { '_' }).collect();
    if name.is_empty() || name.starts_with('.') { format!("_{name}") } else { name }
}

/// Paths that are given out once each, as different names may become one name of a file.
#[derive(Clone, Debug, Default)]
pub struct FileNames(BTreeSet<String>);

impl FileNames {
    /// `path`, or `path~2` where that is taken, also by one of other case: not all file systems
    /// tell them apart.
    pub fn free(&mut self, path: &str) -> String {
        let mut free = path.to_owned();
        let mut number = 2;
        while !self.0.insert(free.to_lowercase()) {
            free = format!("{path}~{number}");
            number += 1;
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_the_folder() {
        assert_eq!(file_name("../../etc/passwd"), "_.._.._etc_passwd");
        assert_eq!(file_name("n=10_steps=[1, 2]"), "n=10_steps=_1__2_");
        assert_eq!(file_name(""), "_");
    }

    #[test]
    fn two_names_that_become_one_are_kept_apart() {
        let mut names = FileNames::default();
        let given = ["a b", "a_b", "A_B", "c"].map(|name| names.free(&file_name(name)));
        assert_eq!(given, ["a_b", "a_b~2", "A_B~3", "c"]);
    }
}
