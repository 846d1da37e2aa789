//! Group norm, scale and shift by upsampled latents, and `SiLU`, by `cuda/group_norm.cu`.
#![expect(unsafe_code, reason = "kernels trust the sizes that they are told")]

use burn::tensor::DType;
use burn_cubecl::{kernel::into_contiguous, tensor::CubeTensor};

use super::{
    super::group_norm::Settings,
    kernels::{Argument, Launch, THREADS, launch},
    tensors::empty,
};

/// Values that a thread reads at once, and those of a block of threads, as the source has them.
const WIDTH: usize = 8;
const CHUNK: usize = 4 * WIDTH * THREADS as usize;

/// See [`device_norm_silu`](super::super::device_norm::device_norm_silu); nothing where the kernels
/// are not made for it.
pub fn norm_silu(
    [x, gamma, beta]: [&CubeTensor; 3],
    modulation: Option<[&CubeTensor; 2]>,
    Settings { groups, eps }: Settings,
) -> Option<CubeTensor> {
    let dims: [usize; 5] = x.meta.shape().to_vec().try_into().ok()?;
    let [batch, channels, frames, rows, columns] = dims;
    let plane = frames * rows * columns;
    let length = channels / groups * plane;
    let chunks = length.div_ceil(CHUNK);
    let vectors = [gamma, beta]
        .iter()
        .all(|v| v.dtype == DType::BF16 && v.meta.shape().to_vec() == [channels]);
    // The hardware counts blocks on the second axis in 16 bits.
    let small = u16::try_from(batch * channels).is_ok() && i32::try_from(length).is_ok();
    if x.dtype != DType::BF16
        || !vectors
        || !small
        || plane == 0
        || !plane.is_multiple_of(WIDTH)
        || !channels.is_multiple_of(groups)
    {
        return None;
    }
    let latents = match modulation {
        Some(given) => latents(given, dims)?,
        None => [1; 3],
    };
    let [x, gamma, beta] = [x, gamma, beta].map(|x| into_contiguous(x.clone()));
    // Where there is no modulation something else stands for it and is not read.
    let [scale, shift] = match modulation {
        Some(given) => given.map(|x| into_contiguous(x.clone())),
        None => [gamma.clone(), beta.clone()],
    };
    let made = |shape: Vec<usize>, dtype| empty(&x, shape, dtype);
    let out = made(dims.to_vec(), DType::BF16);
    let parts = made(vec![batch * groups, chunks, 2], DType::F32);
    let found = made(vec![batch * groups, 2], DType::F32);
    let count = |size: usize| Argument::Count(size as i32);
    let tensor = Argument::Tensor;
    let [to, of_part, of_group] = [tensor(5), tensor(6), tensor(7)];
    let given = if modulation.is_some() { [tensor(3), tensor(4)] } else { [Argument::Nothing; 2] };
    let maps = (batch * groups) as u32;
    let launches = vec![
        Launch {
            kernel: c"group_parts",
            blocks: [chunks as u32, maps],
            arguments: vec![tensor(0), of_part, count(length), count(chunks)],
        },
        Launch {
            kernel: c"group_statistics",
            blocks: [maps, 1],
            arguments: vec![
                of_part,
                of_group,
                count(length),
                count(chunks),
                Argument::Value(eps as f32),
            ],
        },
        Launch {
            kernel: c"group_norm_silu",
            blocks: [plane.div_ceil(WIDTH * THREADS as usize) as u32, (batch * channels) as u32],
            arguments: [tensor(0), tensor(1), tensor(2), of_group, given[0], given[1], to]
                .into_iter()
                .chain([channels, channels / groups, frames, rows, columns].map(count))
                .chain(latents.map(count))
                .collect(),
        },
    ];
    let inputs = [&x, &gamma, &beta, &scale, &shift];
    // SAFETY: the tensors are of these sizes.
    unsafe { launch(&inputs, &[&out, &parts, &found], launches) }.then_some(out)
}

/// Frames, rows and columns of latents, if they can be repeated to the size of `[B, C, T, H, W]`.
fn latents(given: [&CubeTensor; 2], dims: [usize; 5]) -> Option<[usize; 3]> {
    let shape: [usize; 5] = given[0].meta.shape().to_vec().try_into().ok()?;
    let [_, _, frames, rows, columns] = shape;
    let fits = given.iter().all(|x| x.dtype == DType::BF16 && x.meta.shape().to_vec() == shape)
        && shape[..2] == dims[..2]
        && ![frames, rows, columns].contains(&0)
        && dims[3].is_multiple_of(rows)
        && dims[4].is_multiple_of(columns);
    let time = if dims[2] % 2 == 1 && dims[2] != frames {
        frames > 1 && (dims[2] - 1).is_multiple_of(frames - 1)
    } else {
        dims[2].is_multiple_of(frames)
    };
    (fits && time).then_some([frames, rows, columns])
}
