//! Files that others made, opened only if they are files: a FIFO waits for who writes to it, and
//! some devices never end.

use std::{
    fs::{self, File, FileType},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Opens a file, or what a link leads to.
pub fn open(path: &Path) -> io::Result<File> {
    check(fs::metadata(path)?.file_type())?;
    File::open(path)
}

/// Reads a file, or what a link leads to.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = open(path)?;
    let mut bytes = Vec::with_capacity(file.metadata()?.len().try_into().unwrap_or_default());
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a file of at most `most` bytes, or what a link leads to; of a larger one nothing is kept.
pub fn read_at_most(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let len = file.metadata()?.len();
    check_len(len, most)?;
    let mut bytes = Vec::with_capacity(len.try_into().unwrap_or_default());
    // It may grow meanwhile, and some files do not tell how long they are.
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    check_len(bytes.len() as u64, most)?;
    Ok(bytes)
}

/// An error if a file to be read whole has more than `most` bytes.
pub fn check_len(len: u64, most: u64) -> io::Result<()> {
    if len <= most {
        return Ok(());
    }
    let message = format!("it has {}, but at most {} are read", in_mib(len), in_mib(most));
    Err(io::Error::new(io::ErrorKind::FileTooLarge, message))
}

/// `16 MiB`, or bytes where that would be rounded to nothing.
fn in_mib(len: u64) -> String {
    const MIB: u64 = 1 << 20;
    if len < MIB { format!("{len} bytes") } else { format!("{} MiB", len.div_ceil(MIB)) }
}

/// An error unless it is a file; reading a folder gives an error of its own.
pub fn check(kind: FileType) -> io::Result<()> {
    if kind.is_file() || kind.is_dir() {
        return Ok(());
    }
    let message = format!("it is {}, not a regular file", name(kind));
    Err(io::Error::new(io::ErrorKind::Unsupported, message))
}

/// Where a link leads, if there is nothing.
pub fn leads_nowhere(path: &Path) -> Option<PathBuf> {
    let missing = fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    if missing { fs::read_link(path).ok() } else { None }
}

fn name(kind: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return "a FIFO";
        }
        if kind.is_socket() {
            return "a socket";
        }
        if kind.is_char_device() || kind.is_block_device() {
            return "a device";
        }
    }
    if kind.is_symlink() { "a link" } else { "something else" }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_refused_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "text").unwrap();
        std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
        assert_eq!(read(&path("link")).unwrap(), b"text");
        std::os::unix::fs::symlink("nothing", path("dangling")).unwrap();
        assert_eq!(leads_nowhere(&path("dangling")), Some("nothing".into()));
        assert_eq!((leads_nowhere(&path("link")), leads_nowhere(&path("none"))), (None, None));
        assert_eq!(read(&path("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(read(folder.path()).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink("/dev/zero", path("zero")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        for (file, kind) in [("fifo", "a FIFO"), ("zero", "a device"), ("socket", "a socket")] {
            let error = read(&path(file)).unwrap_err().to_string();
            assert_eq!(error, format!("it is {kind}, not a regular file"));
        }
    }

    #[test]
    fn what_is_too_long_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read_at_most(&path, 5).unwrap(), b"12345");
        let refused = |most| read_at_most(&path, most).unwrap_err();
        assert_eq!(refused(4).to_string(), "it has 5 bytes, but at most 4 bytes are read");
        // A hole takes no space on the disk, and would take all memory.
        File::options().write(true).open(&path).unwrap().set_len(50 << 30).unwrap();
        assert_eq!(refused(16 << 20).to_string(), "it has 51200 MiB, but at most 16 MiB are read");
        assert_eq!(refused(16 << 20).kind(), io::ErrorKind::FileTooLarge);
        // Files of the kernel say that they are empty.
        if let Ok(whole) = fs::read("/proc/cpuinfo") {
            assert!(read_at_most(Path::new("/proc/cpuinfo"), whole.len() as u64 / 2).is_err());
        }
    }
}
