//! Work of libraries on the thread that owns a device, between what Burn has asked of it before and
//! after.
//!
//! The thread that asks goes on at once: to wait for each answer takes longer than most work of a
//! model of small layers. Only the first problem of a kind is waited for, and goes by Burn's
//! kernels if it fails. What fails later marks its outputs, as Burn's own kernels do: whoever reads
//! them is told why.

use std::{
    any::Any,
    array,
    collections::HashMap,
    ffi::CStr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, LazyLock, Mutex},
};

use burn_cubecl::tensor::CubeTensor;
use cubecl::cuda::CudaRuntime;
use cubecl_common::{
    device::{DeviceId, DeviceService, ServerUtilitiesHandle},
    device_handle::DeviceHandle,
};
use cubecl_environment::{backtrace::BackTrace, stream::StreamId};
use cubecl_runtime::{
    client::Client,
    runtime::Runtime,
    server::{Handle, ServerError},
};
use cubecl_server::stream::failed_writing;

use super::{
    lora_linear::{Layer, Pass},
    problem::{Convolution, Product},
};
use crate::{
    device::{DeviceFailure, text_of},
    sync::Unpoisoned,
};

/// Owns the device's memory.
pub type Server = <CudaRuntime as Runtime>::Server;

/// What is asked of the device: where one of a kind was done, others are taken to be done as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Problem {
    /// A matrix product, whether a bias or a sum is added, and the alignments of what it has.
    Product(Product, [bool; 2], [u32; 4]),
    /// A pass of a linear layer with an adapter, and the alignments of what it is given.
    Layer(Layer, Pass, [u32; 3]),
    /// A convolution.
    Convolution(Convolution),
    /// A kernel of our own.
    Kernel(&'static CStr),
}

/// What became of the first problems of a kind.
#[derive(Clone, Copy)]
enum Known {
    /// One was done: so are all others.
    Done,
    /// So many failed for a reason that may pass.
    Failed(u8),
    /// The library has nothing for them, or failed too often.
    Refused,
}

/// How often what may pass is tried.
const TRIES: u8 = 3;

static KNOWN: LazyLock<Mutex<HashMap<(DeviceId, Problem), Known>>> = LazyLock::new(Mutex::default);

/// Has a library do something with the addresses of tensors, of which the last are written. Whether
/// it does: if not, nothing is written, and the reason is for those who look for it.
pub fn queued<const N: usize, const M: usize>(
    problem: Problem,
    inputs: [&CubeTensor; N],
    outputs: [&CubeTensor; M],
    call: impl FnOnce(&Client, [u64; N], [u64; M]) -> Result<(), String> + Send + 'static,
) -> bool {
    queued_for_all(problem, &inputs, &outputs, move |client, at| {
        call(client, array::from_fn(|i| at[i]), array::from_fn(|i| at[N + i]))
    })
}

/// The same of any number of tensors, whose addresses come one behind the other. Something is
/// written.
pub fn queued_for_all(
    problem: Problem,
    inputs: &[&CubeTensor],
    outputs: &[&CubeTensor],
    call: impl FnOnce(&Client, &[u64]) -> Result<(), String> + Send + 'static,
) -> bool {
    let client = outputs[0].client.clone();
    let (inputs, outputs) = (handles(inputs), handles(outputs));
    let kind = (client.service_id().device, problem);
    let known = KNOWN.lock().unpoisoned().get(&kind).copied();
    match known {
        Some(Known::Refused) => false,
        Some(Known::Done) => {
            let own = own_thread::<Own>(kind.0);
            own.submit(move |_| {
                let written = outputs.clone();
                let work = AssertUnwindSafe(|| done(&client, inputs, outputs, call));
                let outcome = catch_unwind(work).unwrap_or_else(|panic| Err(panicked(&*panic)));
                if let Err(error) = outcome {
                    mark(kind.0, written, error);
                }
            });
            true
        }
        None | Some(Known::Failed(_)) => {
            let asked = client.clone();
            let first = client.exclusive(move || done(&asked, inputs, outputs, call));
            let outcome = first
                .map_err(|error| error.to_string())
                .and_then(|done| done.map_err(|error| error.to_string()));
            let now = match (&outcome, known) {
                (Ok(()), _) => Known::Done,
                (Err(reason), Some(Known::Failed(times))) if may_pass(reason) && times < TRIES => {
                    Known::Failed(times + 1)
                }
                (Err(reason), None) if may_pass(reason) => Known::Failed(1),
                (Err(_), _) => Known::Refused,
            };
            if let Err(reason) = &outcome {
                tracing::debug!(%reason, ?problem, "goes by burn's kernels");
            }
            KNOWN.lock().unpoisoned().insert(kind, now);
            outcome.is_ok()
        }
    }
}

/// Whether a failure says nothing of the problem: the card was full, also while a library was being
/// loaded, or what the problem is given was never written.
fn may_pass(reason: &str) -> bool {
    const PASSING: [&str; 4] = [
        "STATUS_NOT_INITIALIZED",
        "STATUS_INTERNAL_ERROR",
        "The bytes were never written",
        "an input carried a failure",
    ];
    DeviceFailure::of(reason).is_some() || PASSING.iter().any(|text| reason.contains(text))
}

fn handles(tensors: &[&CubeTensor]) -> Vec<Handle> {
    tensors.iter().map(|tensor| tensor.handle.clone()).collect()
}

/// On the thread of the device.
fn done(
    client: &Client,
    inputs: Vec<Handle>,
    outputs: Vec<Handle>,
    call: impl FnOnce(&Client, &[u64]) -> Result<(), String>,
) -> Result<(), ServerError> {
    let mut held = Vec::with_capacity(inputs.len() + outputs.len());
    for handle in inputs.into_iter().chain(outputs) {
        held.push(client.get_resource::<Server>(handle)?);
    }
    let at: Vec<u64> = held.iter().map(|held| held.resource().ptr).collect();
    call(client, &at).map_err(failed)
}

fn failed(reason: String) -> ServerError {
    ServerError::Generic { reason, backtrace: BackTrace::capture() }
}

fn panicked(panic: &(dyn Any + Send)) -> ServerError {
    failed(format!("a call of a library panicked: {}", text_of(panic)))
}

/// Has a read of `outputs` fail with the error that left them unwritten.
fn mark(device: DeviceId, outputs: Vec<Handle>, error: ServerError) {
    tracing::debug!(%error, "the device did not do what it was asked");
    let written = outputs.into_iter().map(Handle::binding).collect();
    let stream = StreamId::current();
    let marked = own_thread::<Server>(device)
        .submit_blocking(|server| failed_writing(server, stream, written, error));
    if let Err(error) = marked {
        tracing::error!(?error, "the output of failed work could not be marked");
    }
}

/// Stands for the thread of a device among the services that Burn has there, whose queue it shares.
struct Own;

impl DeviceService for Own {
    fn init(_: DeviceId) -> Self {
        Self
    }

    fn utilities(&self) -> ServerUtilitiesHandle {
        Arc::new(())
    }
}

/// The way to a service on the thread of a device.
fn own_thread<S: DeviceService>(device: DeviceId) -> DeviceHandle<S> {
    DeviceHandle::new(device)
}

/// Whether tensors begin where 16 bytes can be copied at once; a slice may begin elsewhere.
pub fn aligned(tensors: &[&CubeTensor]) -> bool {
    tensors.iter().all(|tensor| offset(tensor).is_multiple_of(16))
}

/// What the beginning of a tensor is a multiple of, at most 256 bytes; buffers begin at more.
pub fn alignment(tensor: &CubeTensor) -> u32 {
    1 << (offset(tensor) | 256).trailing_zeros()
}

fn offset(tensor: &CubeTensor) -> u64 {
    tensor.handle.offset_start.unwrap_or(0)
}
