//! Look-ups that the walk does not wait for: in a cache behind the store, many at once, since each
//! waits for an answer from afar; else those for which many outside files have to be hashed.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
};

use super::job::Message;
use crate::{
    plan::{Decider, Found, Key},
    store::Store,
    sync::Unpoisoned,
};

/// Requests under way at once. They wait rather than work.
const THREADS: usize = 16;

/// An instance whose key is to be looked up.
pub(super) struct Lookup {
    pub(super) index: usize,
    pub(super) key: Key,
    pub(super) forced: bool,
}

/// Starts the threads that look up, one of them where there is no cache behind the store; who drops
/// what is given ends them.
pub(super) fn start<'scope, 'env>(
    scope: &'scope std::thread::Scope<'scope, 'env>,
    decider: &'env Decider<'env>,
    store: &Store,
    messages: &Sender<Message>,
) -> Sender<Lookup> {
    let (sender, lookups) = channel();
    let lookups = Arc::new(Mutex::new(lookups));
    // Files of one disk are read one after the other.
    for _ in 0..if store.behind().is_some() { THREADS } else { 1 } {
        let (lookups, messages) = (Arc::clone(&lookups), messages.clone());
        scope.spawn(move || serve(decider, &lookups, &messages));
    }
    sender
}

fn serve(decider: &Decider<'_>, lookups: &Mutex<Receiver<Lookup>>, messages: &Sender<Message>) {
    loop {
        let lookup = lookups.lock().unpoisoned().recv();
        let Ok(lookup) = lookup else { return };
        let find = AssertUnwindSafe(|| decider.find(lookup.index, &lookup.key));
        // A bug here, which is told, must not leave the walk waiting: the stage runs.
        let nothing = |_| Ok(Found::Nothing { sources: BTreeMap::new(), damaged: false });
        let found = Box::new(catch_unwind(find).unwrap_or_else(nothing));
        // With the walk over, nobody wants to know.
        let _ = messages.send(Message::Looked { lookup: Box::new(lookup), found });
    }
}
