//! Files that are written beside their place and renamed to it: whoever reads sees the old one or
//! the new.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

/// A file to be renamed to its final place, with the permissions that any new file gets.
pub(super) fn scratch(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}

/// Renames a scratch file to its place, and makes the folder of that where it is not there yet.
pub(super) fn persist(file: tempfile::NamedTempFile, path: &Path) -> io::Result<()> {
    in_folder(path, file, |file| file.persist(path).map(drop).map_err(|e| (e.error, e.file)))
}

/// Moves something to a place in a folder. That is mostly there, so it is made only where it turns
/// out not to be.
pub(super) fn in_folder<T>(
    path: &Path,
    what: T,
    place: impl Fn(T) -> Result<(), (io::Error, T)>,
) -> io::Result<()> {
    match place(what) {
        Err((error, what)) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(folder_of(path))?;
            place(what).map_err(|(error, _)| error)
        }
        placed => placed.map_err(|(error, _)| error),
    }
}

/// Writes a file in one step from a scratch file in `tmp`, so that it is on the disk, and found
/// there, when this returns: also after a power cut.
pub(super) fn write_durably(tmp: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = scratch(tmp)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    // A file system where folders cannot be opened, or synced, has it all the same.
    #[cfg(unix)]
    let _ = fs::File::open(folder_of(path)).and_then(|folder| folder.sync_all());
    Ok(())
}

/// The folder that a file is, or will be, in.
pub(super) fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// Writes a file outside the store in one step, and the folders above it.
pub(crate) fn write_aside(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = folder_of(path);
    fs::create_dir_all(folder)?;
    let mut file = scratch(folder).map_err(plain)?;
    file.write_all(bytes)?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// Puts a symbolic link to a file at `path` in one step, and makes the folders above it.
#[cfg(unix)]
pub(crate) fn link_aside(to: &Path, path: &Path) -> io::Result<()> {
    let folder = folder_of(path);
    fs::create_dir_all(folder)?;
    let link = |link: &Path| std::os::unix::fs::symlink(to, link);
    let link = tempfile::Builder::new().make_in(folder, link)?;
    link.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(not(unix))]
pub(crate) fn link_aside(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether files can be written with [`write_aside`] in a folder that is there.
pub(crate) fn check_aside(path: &Path) -> io::Result<()> {
    scratch(folder_of(path)).map(drop).map_err(plain)
}

/// An error without the name of a scratch file, which tells nobody anything.
fn plain(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(_) => error,
        None => io::Error::from(error.kind()),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn no_error_shows_the_name_of_a_scratch_file() {
        let dir = tempfile::tempdir().unwrap();
        let nowhere = dir.path().join("nowhere/x.lock");
        let error = check_aside(&nowhere).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(!error.to_string().contains("nowhere"), "{error}");
    }
}
