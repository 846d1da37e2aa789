//! Which locks are used where. Two who use a store in different ways do not see each other, so a
//! store says in which, from the first time on that it is opened to be changed.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::super::{StoreError, lease::rename_new, scratch};

/// By what processes keep out of each other's way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Locks {
    /// By the file system's locks where it is a local one, else by leases.
    #[default]
    Auto,
    /// By the file system's locks.
    Flock,
    /// By leases.
    Lease,
}

/// What a store says in its file `locks/mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Locks of a file system of one machine. Other machines that see the same folder over a
    /// network do not see these.
    Local,
    /// Locks of a file system of several machines, because somebody chose them.
    Flock,
    /// Leases.
    Lease,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Flock => "flock",
            Self::Lease => "lease",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Local, Self::Flock, Self::Lease].into_iter().find(|mode| mode.name() == text.trim())
    }

    fn locks(self) -> Locks {
        match self {
            Self::Local | Self::Flock => Locks::Flock,
            Self::Lease => Locks::Lease,
        }
    }
}

impl Locks {
    /// What is meant where nothing is said yet.
    fn mode(self, is_shared: bool) -> Mode {
        match (self, is_shared) {
            (Self::Lease, _) | (Self::Auto, true) => Mode::Lease,
            (Self::Flock, true) => Mode::Flock,
            (Self::Auto | Self::Flock, false) => Mode::Local,
        }
    }

    /// Whether a process that wants this can go by what is said.
    fn agrees(self, said: Mode, is_shared: bool) -> bool {
        match said {
            Mode::Lease => self != Self::Flock,
            Mode::Flock => is_shared && self != Self::Lease,
            Mode::Local => !is_shared && self != Self::Lease,
        }
    }

    /// The same in words.
    fn reason(self, is_shared: bool) -> &'static str {
        match (self, is_shared) {
            (Self::Lease, _) => "by leases, as the setting `locks` has it",
            (Self::Flock, true) => "by locks of a file system of several machines",
            (Self::Flock, false) => {
                "by locks of a disk of this machine, as the setting `locks` has it"
            }
            (Self::Auto, true) => "by leases, as on file systems of several machines",
            (Self::Auto, false) => "by locks of a disk of this machine",
        }
    }

    /// What is used in this store if nothing is said there.
    pub(in super::super) fn of(self, root: &Path) -> Self {
        self.mode(is_shared(root)).locks()
    }

    /// What is used in this store, by what is said there.
    pub(super) fn in_store(self, root: &Path) -> Result<Self, StoreError> {
        Ok(self.said(root)?.unwrap_or_else(|| self.mode(is_shared(root))).locks())
    }

    /// The same; says it there, if nobody has said it before.
    pub(super) fn settled(self, root: &Path) -> Result<Self, StoreError> {
        if let Some(said) = self.said(root)? {
            return Ok(said.locks());
        }
        let (path, mode) = (path_of(root), self.mode(is_shared(root)));
        drop_damaged(&path);
        let written = write_new(root, &path, mode).map_err(|e| StoreError::io(&path, e));
        // Of several who do, one is first.
        match (self.said(root)?, written) {
            (Some(said), _) => Ok(said.locks()),
            // `gc` has to work on a full disk. Who comes later says it.
            (None, Ok(()) | Err(StoreError::Full { .. })) => Ok(mode.locks()),
            (None, Err(error)) => Err(error),
        }
    }

    /// What is said in a store, if this agrees with it; nothing if that was damaged, as everybody
    /// writes it anew.
    fn said(self, root: &Path) -> Result<Option<Mode>, StoreError> {
        let path = path_of(root);
        let text = match fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(StoreError::read(&path, e)),
        };
        let is_shared = is_shared(root);
        match Mode::parse(&text) {
            None => Ok(None),
            Some(said) if self.agrees(said, is_shared) => Ok(Some(said)),
            Some(said) => Err(StoreError::OtherLocks {
                path,
                said: said.name().to_owned(),
                wanted: self.reason(is_shared),
            }),
        }
    }
}

fn path_of(root: &Path) -> PathBuf {
    root.join("locks").join("mode")
}

/// Makes way for what is written anew.
fn drop_damaged(path: &Path) {
    let is_damaged = |bytes: Vec<u8>| Mode::parse(&String::from_utf8_lossy(&bytes)).is_none();
    if fs::read(path).is_ok_and(is_damaged) {
        // What cannot be removed cannot be written either, which is told.
        let _ = fs::remove_file(path);
    }
}

/// Whole when it appears, and never in the place of another.
fn write_new(root: &Path, path: &Path, mode: Mode) -> io::Result<()> {
    let mut file = scratch(&root.join("tmp"))?;
    writeln!(file, "{}", mode.name())?;
    file.as_file().sync_all()?;
    rename_new(file.path(), path)
}

/// Whether a folder is on a file system that other machines may see: their locks hold between
/// machines only with the right server, version and options of mount, which nobody can look up.
#[cfg(target_os = "linux")]
pub(super) fn is_shared(folder: &Path) -> bool {
    /// As in `statfs(2)` and the sources of Lustre, GPFS, `BeeGFS`.
    const SHARED: [u32; 14] = [
        0x6969,      // NFS
        0x517B,      // SMB
        0xFF53_4D42, // CIFS
        0xFE53_4D42, // SMB 2
        0x6573_5546, // FUSE
        0x0BD0_0BD0, // Lustre
        0x4750_4653, // GPFS
        0x00C3_6400, // Ceph
        0x1983_0326, // BeeGFS
        0x5346_414F, // AFS
        0x0102_1997, // 9P
        0x7461_636F, // OCFS2
        0x0116_1970, // GFS2
        0x786F_4256, // shared folder of VirtualBox
    ];
    let found = nix::sys::statfs::statfs(folder).map(|found| found.filesystem_type().0 as u32);
    found.is_ok_and(|found| SHARED.contains(&found))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn is_shared(_folder: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_would_not_see_the_others_is_refused() {
        use Locks::{Auto, Flock, Lease};
        const SHARED: bool = true;
        const LOCAL: bool = false;
        for (first, then, agree) in [
            ((Auto, LOCAL), (Auto, LOCAL), true),
            ((Auto, LOCAL), (Flock, LOCAL), true),
            // The machine that has the disk, and one that sees it over a network.
            ((Auto, LOCAL), (Auto, SHARED), false),
            ((Flock, LOCAL), (Flock, SHARED), false),
            ((Auto, SHARED), (Auto, LOCAL), true),
            ((Auto, SHARED), (Flock, SHARED), false),
            ((Flock, SHARED), (Auto, SHARED), true),
            ((Flock, SHARED), (Auto, LOCAL), false),
            ((Auto, LOCAL), (Lease, LOCAL), false),
            ((Lease, LOCAL), (Auto, LOCAL), true),
            ((Lease, LOCAL), (Auto, SHARED), true),
            ((Lease, LOCAL), (Flock, LOCAL), false),
        ] {
            let said = first.0.mode(first.1);
            assert_eq!(then.0.agrees(said, then.1), agree, "{first:?} {then:?}");
            assert!(first.0.agrees(said, first.1));
            if agree {
                assert_eq!(Mode::parse(said.name()), Some(said));
            }
        }
    }

    #[test]
    fn what_was_damaged_is_said_anew() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["tmp", "locks"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        assert_eq!(Locks::Lease.settled(dir.path()).unwrap(), Locks::Lease);
        for damage in ["", "mease\n", "\0\0"] {
            fs::write(path_of(dir.path()), damage).unwrap();
            assert_eq!(Locks::Auto.in_store(dir.path()).unwrap(), Locks::Flock);
            assert_eq!(Locks::Auto.settled(dir.path()).unwrap(), Locks::Flock);
            assert_eq!(fs::read_to_string(path_of(dir.path())).unwrap(), "local\n");
        }
    }

    #[test]
    fn a_disk_of_this_machine_is_locked_by_its_file_system() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Locks::Auto.of(dir.path()), Locks::Flock);
        assert_eq!(Locks::Lease.of(dir.path()), Locks::Lease);
    }
}
