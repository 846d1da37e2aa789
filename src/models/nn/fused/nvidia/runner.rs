//! Work of libraries on the thread that owns a device, between what Burn has asked of it before and after.
//!
//! The thread that asks goes on at once: to wait for each answer takes longer than most work of a model of
//! small layers. Only the first problem of a kind is waited for, and goes by Burn's kernels if it fails.
#![expect(unsafe_code, reason = "outputs of failed work are overwritten in place")]

use std::{
    array,
    collections::{HashMap, HashSet},
    ffi::CStr,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use burn_cubecl::tensor::CubeTensor;
use cubecl::cuda::CudaRuntime;
use cubecl_common::{
    device::{DeviceId, DeviceService, ServerUtilitiesHandle},
    device_handle::DeviceHandle,
};
use cubecl_runtime::{client::Client, runtime::Runtime, server::Handle};
use cudarc::driver::{result as driver, sys as cuda};

use super::problem::{Convolution, Product};
use crate::device;

/// Owns the device's memory.
pub type Server = <CudaRuntime as Runtime>::Server;

/// What is asked of the device: where one of a kind was done, others are taken to be done as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Problem {
    /// A matrix product, and whether a bias or a sum is added.
    Product(Product, [bool; 2]),
    /// A convolution.
    Convolution(Convolution),
    /// A kernel of our own.
    Kernel(&'static CStr),
}

/// Has a library do something with the addresses of tensors, of which the last are written. Whether it does:
/// if not, nothing is written, and the reason is for those who look for it.
pub fn queued<const N: usize, const M: usize>(
    problem: Problem,
    inputs: [&CubeTensor; N],
    outputs: [&CubeTensor; M],
    call: impl FnOnce(&Client, [u64; N], [u64; M]) -> Result<(), String> + Send + 'static,
) -> bool {
    static DONE: LazyLock<Mutex<HashSet<(DeviceId, Problem)>>> = LazyLock::new(Mutex::default);
    let client = outputs[0].client.clone();
    let (inputs, outputs) = (handles(inputs), handles(outputs));
    let kind = (client.service_id().device, problem);
    let known = DONE.lock().unwrap_or_else(PoisonError::into_inner).contains(&kind);
    if known {
        let on = own_thread(kind.0);
        on.submit(move |_| {
            let written = outputs.clone();
            if let Err(reason) = done(&client, inputs, outputs, call) {
                // What was promised is not there.
                device::fail(format!("{problem:?}: {reason}"));
                void(&client, written);
            }
        });
        return true;
    }
    let asked = client.clone();
    let first = client.exclusive(move || done(&asked, inputs, outputs, call));
    match first.map_err(|error| error.to_string()).flatten() {
        Ok(()) => DONE.lock().unwrap_or_else(PoisonError::into_inner).insert(kind),
        Err(reason) => {
            tracing::debug!(%reason, ?problem, "goes by burn's kernels");
            return false;
        }
    };
    true
}

fn handles<const N: usize>(tensors: [&CubeTensor; N]) -> [Handle; N] {
    tensors.map(|tensor| tensor.handle.clone())
}

/// On the thread of the device.
fn done<const N: usize, const M: usize>(
    client: &Client,
    inputs: [Handle; N],
    outputs: [Handle; M],
    call: impl FnOnce(&Client, [u64; N], [u64; M]) -> Result<(), String>,
) -> Result<(), String> {
    let mut held = Vec::with_capacity(N + M);
    for handle in inputs.into_iter().chain(outputs) {
        let resource = client.get_resource::<Server>(handle);
        held.push(resource.map_err(|error| error.to_string())?);
    }
    let at = |i: usize| held[i].resource().ptr;
    call(client, array::from_fn(at), array::from_fn(|i| at(N + i)))
}

/// Fills outputs with what is no number in any type.
fn void<const M: usize>(client: &Client, outputs: [Handle; M]) {
    for handle in outputs {
        let Ok(held) = client.get_resource::<Server>(handle) else { continue };
        let resource = held.resource();
        // SAFETY: the memory is held, and nothing uses it meanwhile: all work before has ended.
        let filled = unsafe {
            driver::ctx::synchronize().and_then(|()| {
                cuda::cuMemsetD8_v2(resource.ptr, 0xff, resource.size as usize).result()
            })
        };
        if let Err(error) = filled.and_then(|()| driver::ctx::synchronize()) {
            tracing::error!(%error, "the output of failed work could not be marked");
        }
    }
}

/// Stands for the thread of a device among those that Burn has there, whose queue it shares.
struct Own;

impl DeviceService for Own {
    fn init(_: DeviceId) -> Self {
        Self
    }

    fn utilities(&self) -> ServerUtilitiesHandle {
        Arc::new(())
    }
}

fn own_thread(device: DeviceId) -> DeviceHandle<Own> {
    static THREADS: LazyLock<Mutex<HashMap<DeviceId, DeviceHandle<Own>>>> =
        LazyLock::new(Mutex::default);
    let mut threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    threads.entry(device).or_insert_with(|| DeviceHandle::new(device)).clone()
}

/// Whether tensors begin where 16 bytes can be copied at once; a slice may begin elsewhere.
pub fn aligned(tensors: &[&CubeTensor]) -> bool {
    tensors.iter().all(|tensor| tensor.handle.offset_start.unwrap_or(0).is_multiple_of(16))
}
