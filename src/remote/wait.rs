//! Waiting for answers of a remote, until whoever waits wants to stop.

use std::{
    fmt,
    future::{Future, pending},
    pin::pin,
    sync::OnceLock,
    time::{Duration, Instant},
};

use futures_util::future::{Either, select};
use object_store::Error;
use tokio::runtime::{Builder, Runtime};

use super::RemoteError;

/// How long what is on its way may still take once somebody wants to stop.
const GRACE: Duration = Duration::from_secs(2);

/// The time between two looks whether somebody wants to stop.
const LOOK: Duration = Duration::from_millis(50);

/// The user asked to stop.
#[derive(Debug, thiserror::Error)]
#[error("stopped")]
pub(super) struct Stopped;

/// Asked whether the user wants to stop.
type IsStopped = Box<dyn Fn() -> bool + Send + Sync>;

/// Drives requests in the thread that waits for them; several may.
pub(super) struct Waiter {
    /// None only when it goes.
    runtime: Option<Runtime>,
    is_stopped: OnceLock<IsStopped>,
    /// When somebody was first found to want to stop.
    since: OnceLock<Instant>,
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waiter")
    }
}

impl Waiter {
    pub(super) fn new() -> Result<Self, RemoteError> {
        let runtime = Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(|e| RemoteError::Local(e.to_string()))?;
        Ok(Self { runtime: Some(runtime), is_stopped: OnceLock::new(), since: OnceLock::new() })
    }

    /// From now on it is asked all the time whether to stop.
    pub(super) fn stopped_by(&self, is_stopped: impl Fn() -> bool + Send + Sync + 'static) {
        // Who asks already goes on to.
        let _ = self.is_stopped.set(Box::new(is_stopped));
    }

    /// What comes of some requests; an error by [`Stopped`] where it does not come soon enough
    /// after somebody wanted to stop.
    pub(super) fn wait<T, E: From<Error>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let runtime = self.runtime.as_ref().expect("it is there until this goes");
        runtime.block_on(async {
            match select(pin!(work), pin!(self.stopped())).await {
                Either::Left((done, _)) => done,
                Either::Right(_) => {
                    let source = Box::new(Stopped);
                    Err(Error::Generic { store: "remote", source }.into())
                }
            }
        })
    }

    async fn stopped(&self) {
        let Some(is_stopped) = self.is_stopped.get() else { return pending().await };
        while !(is_stopped() && self.since.get_or_init(Instant::now).elapsed() >= GRACE) {
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Waiter {
    /// A request that nobody waits for any more ends with its connection, or with the program.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use object_store::{ClientOptions, client::HttpConnector};

    use super::*;
    use crate::remote::http::Connector;

    #[test]
    fn who_stops_waits_neither_for_an_answer_nor_for_the_thread_that_does() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap();
        let read = Duration::from_mins(2);
        let client = Connector { connect: read, read, metadata: &[] };
        let client = client.connect(&ClientOptions::new()).unwrap();
        let since = Instant::now();
        let waiter = Waiter::new().unwrap();
        waiter.stopped_by(move || since.elapsed() > Duration::from_millis(100));
        let request = http::Request::get(format!("http://{address}/")).body(Vec::new().into());
        let answer = waiter.wait(async {
            let answer = client.execute(request.unwrap()).await;
            answer.map_err(|e| Error::Generic { store: "test", source: Box::new(e) })
        });
        let Err(Error::Generic { source, .. }) = answer else { panic!("an answer") };
        assert!(source.is::<Stopped>());
        drop(waiter);
        assert!(since.elapsed() < Duration::from_secs(30), "{:?}", since.elapsed());
    }

    #[test]
    fn what_comes_soon_after_somebody_wanted_to_stop_is_taken() {
        let waiter = Waiter::new().unwrap();
        waiter.stopped_by(|| true);
        let answer: Result<_, Error> = waiter.wait(async {
            tokio::time::sleep(LOOK * 3).await;
            Ok(7)
        });
        assert_eq!(answer.unwrap(), 7);
    }
}
