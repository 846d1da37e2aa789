//! Steps of `AdamW` and sums of squares, by `cuda/adam.cu`.
#![expect(unsafe_code, reason = "kernels trust the sizes that they are told")]

use burn::tensor::DType;
use burn_cubecl::{kernel::into_contiguous, tensor::CubeTensor};

use super::{
    super::adam::{AdamNumbers, SLOTS},
    kernels::{Argument, Launch, THREADS, launch},
    tensors::empty,
};

/// Parameter, gradient and both moments of each parameter to parameter and both moments, in their
/// own memory where nobody else holds it; nothing where the kernel is not made for them.
pub fn adam_steps<const N: usize>(
    params: [[&CubeTensor; 4]; N],
    numbers: AdamNumbers,
) -> Option<[[CubeTensor; 3]; N]> {
    let counts: Vec<i32> = params.iter().map(count_of).collect::<Option<_>>()?;
    // Asked before there are more handles of theirs.
    let outputs = params.map(|[param, _, first, second]| [param, first, second].map(output_for));
    let inputs: Vec<_> =
        params.as_flattened().iter().map(|x| into_contiguous((*x).clone())).collect();
    let taken = inputs.len();
    let launches = counts.iter().enumerate().map(|(i, count)| Launch {
        kernel: c"adam_step",
        blocks: [count.unsigned_abs().div_ceil(THREADS), 1],
        arguments: (4 * i..4 * i + 4)
            .chain(taken + 3 * i..taken + 3 * i + 3)
            .map(Argument::Tensor)
            .chain([Argument::Count(*count)])
            .chain(values(numbers).map(Argument::Value))
            .collect(),
    });
    let inputs: Vec<_> = inputs.iter().collect();
    let written: Vec<_> = outputs.as_flattened().iter().collect();
    // SAFETY: the tensors of each parameter have as many values.
    unsafe { launch(&inputs, &written, launches.collect()) }.then_some(outputs)
}

/// Where what comes of a tensor goes: room is searched for slice by slice, which takes longer than
/// a step itself.
fn output_for(x: &CubeTensor) -> CubeTensor {
    if x.can_mut() && x.is_contiguous() { x.clone() } else { empty_like(x) }
}

/// How many values all tensors of a parameter have.
fn count_of(tensors: &[&CubeTensor; 4]) -> Option<i32> {
    let shape = tensors[0].meta.shape();
    let fits = tensors.iter().all(|x| x.dtype == DType::F32 && x.meta.shape() == shape);
    let count = i32::try_from(shape.num_elements()).ok()?;
    (fits && count > 0).then_some(count)
}

/// In the order of the source.
fn values(numbers: AdamNumbers) -> [f32; 8] {
    let AdamNumbers {
        gradient_factor,
        shrink,
        first_share,
        beta2,
        second_share,
        root_correction,
        eps,
        rate,
    } = numbers;
    [gradient_factor, shrink, first_share, beta2, second_share, root_correction, eps, rate]
}

/// What was found before, and the squares of these tensors, each in as many slots as the others;
/// nothing where the kernel is not made for them.
pub fn squares_onto<const N: usize>(
    before: &CubeTensor,
    tensors: [&CubeTensor; N],
) -> Option<CubeTensor> {
    let fits = |x: &CubeTensor| x.dtype == DType::F32 && x.meta.shape().num_elements() > 0;
    let slots = before.dtype == DType::F32 && before.meta.shape().to_vec() == [SLOTS];
    if !slots || !tensors.iter().all(|x| fits(x)) {
        return None;
    }
    let each = SLOTS / N;
    let launches = tensors.iter().enumerate().map(|(i, x)| {
        let count = i32::try_from(x.meta.shape().num_elements()).ok()?;
        let counts = [count, (i * each) as i32].map(Argument::Count);
        let tensors = [i, N, N + 1].map(Argument::Tensor);
        let arguments = tensors.into_iter().chain(counts).collect();
        Some(Launch { kernel: c"squares_onto", blocks: [each as u32, 1], arguments })
    });
    let launches = launches.collect::<Option<Vec<_>>>()?;
    let sums = empty_like(before);
    let inputs: Vec<_> =
        tensors.into_iter().chain([before]).map(|x| into_contiguous(x.clone())).collect();
    let inputs: Vec<_> = inputs.iter().collect();
    // SAFETY: each launch is told the number of its tensor's values, and has slots of its own.
    unsafe { launch(&inputs, &[&sums], launches) }.then_some(sums)
}

fn empty_like(x: &CubeTensor) -> CubeTensor {
    empty(x, x.meta.shape().clone(), DType::F32)
}
