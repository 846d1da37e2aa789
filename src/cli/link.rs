//! The remote cache of a run: behind its store while it goes on, and told of at its end.

use std::sync::Arc;

use super::{error::CliError, session::Session, signals::Stop};
use crate::{
    remote::{Link, LinkReport, Moved, Remote},
    report::style::count,
    store::{Store, StoreError, StoreUse},
    units::bytes,
};

/// A remote that a run reads through and writes back to.
pub(super) struct Shared {
    /// Its address.
    name: String,
    link: Arc<Link>,
    /// Keeps `gc` away from what is fetched for a plan and from what is still being sent.
    _use: StoreUse,
}

impl Shared {
    /// The store with the remote behind it, if there is one. What cannot be kept here is not
    /// fetched.
    pub fn behind(
        store: Store,
        remote: Option<Remote>,
        stop: &Stop,
    ) -> Result<(Store, Option<Self>), CliError> {
        let is_read_only = matches!(store.check_writable(), Err(StoreError::NotWritable { .. }));
        let Some(remote) = remote.filter(|_| !is_read_only) else { return Ok((store, None)) };
        let shared = Self::new(remote, &store, stop)?;
        let store = store.with_behind(Arc::clone(&shared.link) as _);
        Ok((store, Some(shared)))
    }

    /// Left alone when the run is stopped.
    fn new(remote: Remote, store: &Store, stop: &Stop) -> Result<Self, CliError> {
        let (name, flag) = (remote.to_string(), stop.flag.clone());
        let link = Link::new(remote, store.root(), move || flag.is_cancelled())?;
        Ok(Self { name, link: Arc::new(link), _use: stop.in_use(store)? })
    }

    /// Waits for what is still being sent, and says what went to and fro; that it was less than
    /// wanted is no failure of the run.
    pub fn finish(&self, session: &Session) {
        let report = self.link.finish_telling(|results| self.tell_of_waiting(results, session));
        self.tell_of_fetched(&report, session);
        self.tell_of_sent(&report, session);
        warn_of_differing(&report.sent, &self.name, session);
    }

    fn tell_of_fetched(&self, report: &LinkReport, session: &Session) {
        let results = report.brought.len();
        if results + report.items == 0 {
            return;
        }
        let items = match report.items {
            0 => String::new(),
            items => format!(" and {}", count(items, "item")),
        };
        let (results, size) = (count(results, "result"), bytes(report.bytes));
        session.talk(&format!("fetched {results}{items}, {size} from {}", self.name));
    }

    fn tell_of_waiting(&self, results: usize, session: &Session) {
        let results = count(results, "result");
        session.talk(&format!(
            "waiting until {results} are sent to {}; Ctrl-C ends that, and `pipe cache push` sends them \
             later",
            self.name
        ));
    }

    fn tell_of_sent(&self, report: &LinkReport, session: &Session) {
        let sent = &report.sent;
        if !sent.results.is_empty() {
            let (results, size) = (count(sent.results.len(), "result"), bytes(sent.bytes));
            session.talk(&format!("sent {results}, {size} to {}", self.name));
        }
        if sent.failed > 0 {
            let results = count(sent.failed, "result");
            let why = sent.error.as_ref().or(report.error.as_ref().filter(|_| report.is_lasting));
            let why = why.map(|error| format!(": {error}")).unwrap_or_default();
            let help =
                if report.is_lasting { "" } else { "; `pipe cache push` sends what is missing" };
            session.caution(&format!("{results} not sent to {}{why}{help}", self.name));
        }
    }
}

/// Says which stages gave another output than the one that others share.
pub(super) fn warn_of_differing(moved: &Moved, remote: &str, session: &Session) {
    for name in &moved.differing {
        session.caution(&format!(
            "{name} gave another output here than the one in `{remote}`, which stays: this stage \
             does not give the same twice"
        ));
    }
}
