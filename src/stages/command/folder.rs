//! What a command finds and leaves: its inputs, its outputs and what it printed.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::{Inputs, StageError};
use crate::regular_file;

/// The folder of one command.
pub(super) struct Folder {
    dir: TempDir,
    /// What it printed, also where somebody removed the file.
    log: File,
}

impl Folder {
    pub fn new(dir: TempDir) -> Result<Self, StageError> {
        let path = dir.path().join("log");
        let log = File::options().read(true).append(true).create(true).open(&path);
        let folder = Self { dir, log: log.map_err(|e| cannot_write(&path, &e))? };
        for sub in [folder.inputs(), folder.out(), folder.work()] {
            fs::create_dir(&sub).map_err(|e| cannot_write(&sub, &e))?;
        }
        Ok(folder)
    }

    /// The file that is an output, where it is one.
    pub fn output(&self, name: &str) -> Result<PathBuf, StageError> {
        let path = self.out().join(name);
        let did_not = |e: io::Error| {
            StageError::failed(format!("the command did not write `{name}`: {e}"))
                .with_help("write every file of `outputs` to the folder `$OUT`")
        };
        let file = fs::canonicalize(&path).map_err(did_not)?;
        let out = fs::canonicalize(self.out()).map_err(did_not)?;
        if !file.starts_with(&out) {
            return Err(StageError::failed(format!(
                "the output `{name}` of the command is a link to `{}`, which is not in `$OUT`",
                file.display()
            ))
            .with_help("copy the file instead (`cp -L`): an output is what the command wrote"));
        }
        if file.is_dir() {
            return Err(StageError::failed(format!(
                "the output `{name}` of the command is a folder"
            ))
            .with_help("name the files to be kept, or keep the folder as one (`tar -cf`)"));
        }
        regular_file::check(fs::metadata(&file).map_err(did_not)?.file_type()).map_err(|e| {
            StageError::failed(format!("the output `{name}` of the command cannot be kept: {e}"))
                .with_help("write a file, or a link to one in `$OUT`")
        })?;
        Ok(file)
    }

    pub fn inputs(&self) -> PathBuf {
        self.dir.path().join("in")
    }

    pub fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    pub fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// Where it prints to.
    pub fn log(&self) -> Result<File, StageError> {
        self.log.try_clone().map_err(|e| cannot_write(&self.dir.path().join("log"), &e))
    }

    /// What somebody removed while the command ran, if not all of the folder is there: the folder,
    /// or the cache.
    pub fn removed(&self) -> Option<&Path> {
        let is_gone =
            |path: &&Path| !path.as_os_str().is_empty() && matches!(path.try_exists(), Ok(false));
        self.dir.path().ancestors().take_while(is_gone).last()
    }

    /// The last lines that the command printed, for an error message.
    pub fn last_words(&self) -> String {
        const MOST: u64 = 4000;
        let (mut log, mut text) = (&self.log, Vec::new());
        let start = log.metadata().map_or(0, |found| found.len().saturating_sub(MOST));
        let _ = log.seek(SeekFrom::Start(start)).and_then(|_| log.read_to_end(&mut text));
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<_> = text.trim().lines().collect();
        if lines.is_empty() {
            return String::new();
        }
        format!("; it printed: {}", lines[lines.len().saturating_sub(10)..].join("\n"))
    }

    pub fn write_inputs(&self, inputs: &Inputs<'_>, port: &str) -> Result<(), StageError> {
        for item in inputs.items(port) {
            if !is_plain(&item.name) || !item.files.keys().all(|file| is_plain(file)) {
                return Err(StageError::failed("the item's name cannot be a folder's name")
                    .on_item(&item.name));
            }
            let folder = self.inputs().join(port).join(&item.name);
            fs::create_dir_all(&folder).map_err(|e| cannot_write(&folder, &e))?;
            for file in item.files.keys() {
                inputs.write(item, file, &folder.join(file))?;
            }
        }
        Ok(())
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> StageError {
    StageError::environment(format!("cannot write `{}`: {error}", path.display()))
        .with_help("make room on the disk of the cache, or name another with `--cache DIR`")
}

/// Whether a name names a file in a folder and nothing above or below it.
pub(super) fn is_plain(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}
