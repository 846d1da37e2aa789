//! A step of `AdamW`, by `cuda/adam.cu`.
#![expect(unsafe_code, reason = "kernels trust the sizes that they are told")]

use burn::tensor::DType;
use burn_cubecl::{
    kernel::into_contiguous, ops::numeric::empty_device_contiguous_dtype, tensor::CubeTensor,
};

use super::{
    super::adam::AdamNumbers,
    kernels::{Argument, Launch, THREADS, launch},
};

/// See [`adam_step`](super::super::adam_step); nothing where the kernel is not made for it.
pub fn adam_step(tensors: [&CubeTensor; 4], numbers: AdamNumbers) -> Option<[CubeTensor; 3]> {
    let shape = tensors[0].meta.shape().clone();
    let count = i32::try_from(shape.num_elements()).ok()?;
    let fits = tensors.iter().all(|x| x.dtype == DType::F32 && *x.meta.shape() == shape);
    if !fits || count == 0 {
        return None;
    }
    let inputs = tensors.map(|x| into_contiguous(x.clone()));
    let like = &inputs[0];
    let outputs = [(); 3].map(|()| {
        let (client, device) = (like.client.clone(), like.device.clone());
        empty_device_contiguous_dtype(client, device, shape.clone(), DType::F32)
    });
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
    let values =
        [gradient_factor, shrink, first_share, beta2, second_share, root_correction, eps, rate];
    let step = Launch {
        kernel: c"adam_step",
        blocks: [count.unsigned_abs().div_ceil(THREADS), 1],
        arguments: (0..7)
            .map(Argument::Tensor)
            .chain([Argument::Count(count)])
            .chain(values.map(Argument::Value))
            .collect(),
    };
    // SAFETY: all tensors have as many values.
    let done = unsafe { launch(inputs.each_ref(), outputs.each_ref(), vec![step]) };
    done.then_some(outputs)
}
