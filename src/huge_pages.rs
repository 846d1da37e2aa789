//! Large pages of memory: right for tensors, and a waste for what only reads files and plans.
//!
//! Where Linux leaves the choice to programs (`madvise`), the allocator asks for them, and a page
//! of 2 MiB counts as used when a byte of it is: a plan of 1,000 stages held 44 MB, and holds 26
//! without.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether it was this process that did without them.
static SAVING: AtomicBool = AtomicBool::new(false);

/// From now on this process does without, unless whoever started it has said so already.
pub fn save() {
    if set_disabled(true) {
        SAVING.store(true, Ordering::Relaxed);
    }
}

/// The same as [`allow`] if a pipeline file of so many bytes is read: what its stages take fills
/// large pages, and small ones would cost a third more time.
pub fn allow_for(bytes: usize) {
    const FILLING: usize = 1 << 20;
    if bytes > FILLING {
        allow();
    }
}

/// From now on it has them again, as have the programs that it starts: they inherit the choice.
pub fn allow() {
    if SAVING.swap(false, Ordering::Relaxed) {
        set_disabled(false);
    }
}

/// Says whether that changed anything.
#[cfg(target_os = "linux")]
fn set_disabled(is_disabled: bool) -> bool {
    use nix::sys::prctl::{get_thp_disable, set_thp_disable};
    get_thp_disable() == Ok(!is_disabled) && set_thp_disable(is_disabled).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn set_disabled(_: bool) -> bool {
    false
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use nix::sys::prctl::get_thp_disable;

    use super::*;

    #[test]
    fn a_change_is_told_and_what_was_said_already_is_none() {
        let before = get_thp_disable().unwrap();
        assert!(set_disabled(!before));
        assert_eq!(get_thp_disable(), Ok(!before));
        assert!(!set_disabled(!before));
        assert!(set_disabled(before));
        assert_eq!(get_thp_disable(), Ok(before));
    }
}
