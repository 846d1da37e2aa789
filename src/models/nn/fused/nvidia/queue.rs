//! Foreign libraries' work in line with Burn's: a stream of their own, ordered by events.
#![expect(unsafe_code, reason = "the driver is a C library")]

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{LazyLock, Mutex},
};

use crate::sync::Unpoisoned;
use cudarc::driver::{DriverError, result as driver, sys as cuda};

/// The first driver that orders the work of a whole context by events, CUDA 12.5.
const ORDERS_CONTEXTS: i32 = 12_050;

/// A stream on one device, the same for all libraries: what follows each other there needs no event
/// between. It lives as long as the process.
#[derive(Clone, Copy)]
struct Queue {
    stream: cuda::CUstream,
    context: cuda::CUcontext,
    before: cuda::CUevent,
    after: cuda::CUevent,
    orders_contexts: bool,
}

// SAFETY: handles of the driver may be used by any thread.
unsafe impl Send for Queue {}

static QUEUES: PerDevice<Queue> = PerDevice::new();

/// The stream of libraries on the current device.
pub fn stream() -> Result<cuda::CUstream, String> {
    Queue::current().map(|queue| queue.stream)
}

/// Has what `queue` puts on the stream that it is given done after all that the current device was
/// given before, and before all that it is given from now on.
pub fn in_order(queue: impl FnOnce(cuda::CUstream) -> Result<(), String>) -> Result<(), String> {
    Queue::current()?.in_order(queue)
}

/// Something of each device, made when it is first asked for, which lives as long as the process.
pub struct PerDevice<T>(LazyLock<Mutex<HashMap<usize, T>>>);

impl<T> PerDevice<T> {
    /// Of no device yet.
    pub const fn new() -> Self {
        Self(LazyLock::new(Mutex::default))
    }

    /// Calls `f` with that of the device that is current on this thread, for one caller at a time.
    /// What cannot be made is tried again by the next: it may have memory then.
    pub fn with<R>(
        &self,
        make: impl FnOnce() -> Result<T, String>,
        f: impl FnOnce(&mut T) -> Result<R, String>,
    ) -> Result<R, String> {
        let device = current()?;
        let mut all = self.0.lock().unpoisoned();
        f(match all.entry(device) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(make()?),
        })
    }
}

/// The device that is current on this thread, as a number that stands for it.
fn current() -> Result<usize, String> {
    let context = driver::ctx::get_current().map_err(text)?;
    context.map(|context| context as usize).ok_or_else(|| "no device is current".to_owned())
}

impl Queue {
    /// That of the current device. What it is used for needs no lock: handles are the driver's.
    fn current() -> Result<Self, String> {
        QUEUES.with(Self::new, |queue| Ok(*queue))
    }

    /// On the device that is current on this thread.
    fn new() -> Result<Self, String> {
        let event = || driver::event::create(cuda::CUevent_flags::CU_EVENT_DISABLE_TIMING);
        let mut version = 0;
        // SAFETY: `version` outlives the call that writes it.
        unsafe { cuda::cuDriverGetVersion(&raw mut version) }.result().map_err(text)?;
        Ok(Self {
            stream: driver::stream::create(driver::stream::StreamKind::NonBlocking)
                .map_err(text)?,
            context: current()? as cuda::CUcontext,
            before: event().map_err(text)?,
            after: event().map_err(text)?,
            orders_contexts: version >= ORDERS_CONTEXTS,
        })
    }

    /// See [`in_order`].
    fn in_order(
        self,
        queue: impl FnOnce(cuda::CUstream) -> Result<(), String>,
    ) -> Result<(), String> {
        // SAFETY: context, stream and events live as long as the process.
        unsafe {
            if !self.orders_contexts {
                driver::ctx::synchronize().map_err(text)?;
                let queued = queue(self.stream);
                driver::stream::synchronize(self.stream).map_err(text)?;
                return queued;
            }
            cuda::cuCtxRecordEvent(self.context, self.before).result().map_err(text)?;
            cuda::cuCtxWaitEvent(self.context, self.before).result().map_err(text)?;
            let queued = queue(self.stream);
            let held = driver::event::record(self.after, self.stream)
                .and_then(|()| cuda::cuCtxWaitEvent(self.context, self.after).result());
            if held.is_err() {
                // Nobody may use again what the stream still writes.
                driver::stream::synchronize(self.stream).map_err(text)?;
            }
            queued
        }
    }
}

fn text(error: DriverError) -> String {
    error.to_string()
}
