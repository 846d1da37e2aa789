//! A batch cut into parts that are computed side by side on the CPU.
//!
//! A small model's operations are too short to be shared between threads: half of the time goes by
//! in waiting. Parts of a batch have nothing to wait for. Their number is fixed, and their
//! gradients are added up in order, so results do not depend on the number of threads.

use std::sync::OnceLock;

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::{
    batch::Batch,
    gradient::{Build, Gradients, Recompute, denoiser_gradients},
};
use crate::models::{DenoiserInput, LoadError, Params, nn::fused};

/// Parts of a batch.
const SHARDS: usize = 2;

/// The loss of a denoiser and its gradients, as [`denoiser_gradients`], part by part on the CPU.
pub fn sharded_gradients(
    build: &Build<'_>,
    params: &Params,
    batch: &Batch,
    recompute: Recompute,
) -> Result<Gradients, LoadError> {
    let latents = &batch.input.latents;
    in_parts(latents.dims()[0], fused::applies(latents), |start, len| {
        denoiser_gradients(build, params, &part(batch, start, len), recompute)
    })
}

/// The gradients of a mean over samples: `gradients` of a part's first sample and length, added up
/// by their shares. In one piece where the device is none that gains from parts.
pub fn in_parts<E: Send>(
    samples: usize,
    is_host: bool,
    gradients: impl Fn(usize, usize) -> Result<Gradients, E> + Sync,
) -> Result<Gradients, E> {
    if samples < SHARDS || !is_host {
        return gradients(0, samples);
    }
    let size = samples.div_ceil(SHARDS);
    let parts: Vec<_> = (0..samples).step_by(size).map(|at| (at, size.min(samples - at))).collect();
    let mut sum = Gradients::default();
    let found = side_by_side(&parts, |(start, len)| gradients(start, len));
    for ((_, len), found) in parts.iter().zip(found) {
        sum.add(found?, *len as f32 / samples as f32);
    }
    Ok(sum)
}

fn part(batch: &Batch, start: usize, len: usize) -> Batch {
    let input = &batch.input;
    // One timestep per sample, or one per latent frame of each.
    let steps = input.timesteps.len() / input.latents.dims()[0];
    Batch {
        input: DenoiserInput {
            latents: input.latents.clone().narrow(0, start, len),
            image: input.image.clone().narrow(0, start, len),
            text: input.text.clone().narrow(0, start, len),
            timesteps: input.timesteps[start * steps..(start + len) * steps].to_vec(),
            time: input.time,
        },
        target: batch.target.clone().narrow(0, start, len),
        weights: batch.weights.clone().map(|weights| weights.narrow(0, start, len)),
    }
}

/// Runs the parts on threads of their own, or one after the other where there are too few.
fn side_by_side<P: Copy + Sync, R: Send>(parts: &[P], run: impl Fn(P) -> R + Sync) -> Vec<R> {
    let pools = pools();
    if pools.len() < parts.len() {
        return parts.iter().map(|part| run(*part)).collect();
    }
    std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = parts
            .iter()
            .zip(pools)
            .map(|(part, pool)| scope.spawn(move || pool.install(|| run(*part))))
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, R>| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        threads.into_iter().map(join).collect()
    })
}

/// The processor's threads, shared out; none if they are too few or cannot be started.
fn pools() -> &'static [ThreadPool] {
    static POOLS: OnceLock<Vec<ThreadPool>> = OnceLock::new();
    POOLS.get_or_init(|| {
        let threads = rayon::current_num_threads() / SHARDS;
        let pool = |_| ThreadPoolBuilder::new().num_threads(threads).build();
        if threads == 0 { Vec::new() } else { (0..SHARDS).map_while(|i| pool(i).ok()).collect() }
    })
}
