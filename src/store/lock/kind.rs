//! Which locks are used where.

use std::path::Path;

use serde::{Deserialize, Serialize};

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

impl Locks {
    /// What `Auto` means in this folder.
    #[must_use]
    pub fn of(self, folder: &Path) -> Self {
        match self {
            Self::Auto if is_shared(folder) => Self::Lease,
            Self::Auto => Self::Flock,
            chosen => chosen,
        }
    }
}

/// Whether a folder is on a file system that other machines may see: their locks hold between
/// machines only with the right server, version and options of mount, which nobody can look up.
#[cfg(target_os = "linux")]
fn is_shared(folder: &Path) -> bool {
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
fn is_shared(_folder: &Path) -> bool {
    false
}
