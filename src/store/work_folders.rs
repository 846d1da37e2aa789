//! Folders for what commands read and write, which go when their process does.

use std::{fs, path::PathBuf};

use tempfile::TempDir;

use super::{Store, StoreError, adopt::SCRATCH, lease::Holder};

impl Store {
    /// A folder for work, by its full path. It goes when it is dropped, or with the next run or
    /// `gc` if this process was killed.
    pub fn work_folder(&self) -> Result<TempDir, StoreError> {
        let tmp = self.root.join("tmp");
        let failed = |e| StoreError::io(&tmp, e);
        let full = std::path::absolute(&tmp).map_err(failed)?;
        let prefix = format!("{}{}-", prefix(), Holder::this().mark());
        tempfile::Builder::new().prefix(&prefix).tempdir_in(full).map_err(failed)
    }

    /// Removes folders for work whose process is known to be gone, which says their names.
    pub fn drop_left_work_folders(&self) {
        self.remove_work_folders(|owner| {
            let holder = owner.rsplit_once('-').and_then(|(mark, _)| Holder::of_mark(mark));
            holder.is_some_and(|holder| holder.is_gone())
        });
    }

    /// Removes all of them; no run may be using the store.
    pub(super) fn drop_work_folders(&self) {
        self.remove_work_folders(|_| true);
    }

    fn remove_work_folders(&self, is_left: impl Fn(&str) -> bool) {
        for (name, path) in self.work_folders() {
            if is_left(&name) {
                // What cannot be removed is left to the next time.
                let _ = fs::remove_dir_all(path);
            }
        }
    }

    /// Each with what its name says of its process.
    fn work_folders(&self) -> impl Iterator<Item = (String, PathBuf)> {
        let entries = fs::read_dir(self.root.join("tmp")).into_iter().flatten().flatten();
        entries.filter_map(|entry| {
            let name = entry.file_name();
            let owner = name.to_str()?.strip_prefix(&prefix())?;
            Some((owner.to_owned(), entry.path()))
        })
    }
}

fn prefix() -> String {
    format!("{SCRATCH}-work-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_for_work_that_was_left_goes_with_gc() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        let gone = store.work_folder().unwrap().path().to_owned();
        assert!(gone.is_absolute() && !gone.exists());
        let left = store.work_folder().unwrap().keep();
        fs::create_dir_all(left.join("in/input")).unwrap();
        fs::write(left.join("in/input/a"), "1").unwrap();
        store.gc(&crate::store::GcPolicy::default(), &|| false).unwrap();
        assert!(!left.exists());
    }

    #[test]
    fn a_folder_for_work_goes_with_the_next_run_where_its_process_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        let ours = store.work_folder().unwrap();
        let tmp = dir.path().join("cache/tmp");
        let named = |mark: &str| tmp.join(format!("{}{mark}-Ab12cd", prefix()));
        let mut dead = Holder::this();
        dead.pid = 4_194_999;
        let dead = named(&dead.mark());
        let elsewhere = named("1-2-0123456789ab");
        let older = tmp.join(".tmp-work-Ab12cd");
        for folder in [&dead, &elsewhere, &older] {
            fs::create_dir_all(folder.join("in/input")).unwrap();
        }
        store.drop_left_work_folders();
        assert!(ours.path().exists() && elsewhere.exists() && older.exists());
        assert!(!dead.exists() || cfg!(not(target_os = "linux")));
    }
}
