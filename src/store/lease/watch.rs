//! The lease of somebody else, seen from look to look.

use std::{path::Path, time::Instant};

use super::{Entry, Holder, Timing, bury, read};

/// Watches the lease of somebody else.
#[derive(Debug, Default)]
pub(in crate::store) struct Watch {
    seen: Option<(u64, String, Instant)>,
    /// Who held what was moved away.
    left_by: Option<Holder>,
}

impl Watch {
    /// Who holds the lease at `path`, if it is not left behind. One that is, is moved away.
    pub(in crate::store) fn look(&mut self, path: &Path, timing: Timing) -> Option<Holder> {
        let (count, entry) = match read(path) {
            Some(found) => found,
            None if path.exists() => {
                // Cut short by a crash of the server, or none of ours: judged as one that stands.
                (0, Entry { holder: Holder::unknown(), nonce: String::new() })
            }
            None => return None,
        };
        let now = Instant::now();
        let since = match &self.seen {
            Some((seen, nonce, since)) if *seen == count && *nonce == entry.nonce => *since,
            _ => {
                self.seen = Some((count, entry.nonce.clone(), now));
                now
            }
        };
        if now.duration_since(since) < timing.limit && !entry.holder.is_gone() {
            return Some(entry.holder);
        }
        if bury(path, &entry.nonce) {
            self.left_by = (entry.holder != Holder::unknown()).then_some(entry.holder);
        }
        self.seen = None;
        None
    }

    /// Who held the lease that was moved away; told once.
    pub(in crate::store) fn left_by(&mut self) -> Option<Holder> {
        self.left_by.take()
    }
}
