//! Group norm, scale and shift by upsampled latents, and `SiLU` on a GPU, where nothing is trained
//! through them: two passes over memory, by `nvidia/cuda/group_norm.cu`.

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, TensorMetadata,
        autodiff::checkpoint::strategy::CheckpointStrategy, backend_extension, tensor::FloatTensor,
    },
    tensor::{DType, Device, Slice, Tensor},
};

use super::{
    group_norm::{Settings, dispatched},
    term::Term,
};

/// Whether [`device_norm_silu`] is for `x`: half precision on a device that is no CPU, without a
/// gradient.
pub fn applies(x: &Tensor<5>) -> bool {
    x.dtype() == DType::BF16 && x.device() != Device::flex() && !x.is_tracked()
}

/// `silu(norm(x) * scale + shift)`, see [`group_norm_silu`](super::group_norm::group_norm_silu).
pub fn device_norm_silu(
    x: Tensor<5>,
    affine: [Tensor<1>; 2],
    modulation: Option<[Tensor<5>; 2]>,
    settings: Settings,
) -> Tensor<5> {
    dispatched(
        (x, affine, modulation),
        |[x, gamma, beta]| Dispatch::device_group_norm_silu(x, gamma, beta, settings),
        |[x, gamma, beta, scale, shift]| {
            Dispatch::device_spatial_norm_silu(x, gamma, beta, scale, shift, settings)
        },
    )
}

/// The operations as Burn dispatches them.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "cuda"), Fusion: cfg(feature = "cuda"))]
pub trait DeviceNorm: Backend {
    /// See [`device_norm_silu`]; without scale and shift.
    #[fusion(dtype = x, shape = x)]
    fn device_group_norm_silu(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        settings: Settings,
    ) -> FloatTensor<Self> {
        norm_silu::<Self>([&x, &gamma, &beta], None, settings)
    }

    /// See [`device_norm_silu`].
    #[fusion(dtype = x, shape = x)]
    fn device_spatial_norm_silu(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        settings: Settings,
    ) -> FloatTensor<Self> {
        norm_silu::<Self>([&x, &gamma, &beta], Some([&scale, &shift]), settings)
    }
}

impl DeviceNorm for Flex {}

impl<B: DeviceNorm, C: CheckpointStrategy> DeviceNorm for Autodiff<B, C> {}

/// The same by a backend's own operations.
pub(super) fn norm_silu<B: Backend>(
    [x, gamma, beta]: [&FloatTensor<B>; 3],
    modulation: Option<[&FloatTensor<B>; 2]>,
    Settings { groups, eps }: Settings,
) -> FloatTensor<B> {
    let dims = x.shape().to_vec();
    let (batch, channels) = (dims[0], dims[1]);
    let plane: usize = dims[2..].iter().product();
    let grouped = Term::<B>::of(x).reshape(&[batch, groups, channels / groups * plane]);
    let centered = grouped.clone() - grouped.mean(2);
    let deviation = (centered.clone() * centered.clone()).mean(2).plus(eps).sqrt();
    let normed = (centered * deviation.recip()).reshape(&[batch, channels, plane]);
    let vector = |v: &FloatTensor<B>| Term::<B>::of(v).reshape(&[1, channels, 1]);
    let mut y = (normed * vector(gamma) + vector(beta)).reshape(&dims);
    if let Some(modulation) = modulation {
        let to = [dims[2], dims[3], dims[4]];
        let [scale, shift] = modulation.map(|given| Term::<B>::of(&resized::<B>(given, to)));
        y = y * scale + shift;
    }
    let share = y.clone().times(-1.0).exp().plus(1.0).recip();
    (y * share).into_type_of(x)
}

/// Nearest-neighbour resizing of `[B, C, f, h, w]`; the first of an odd number of frames stays one
/// frame.
fn resized<B: Backend>(x: &FloatTensor<B>, [t, h, w]: [usize; 3]) -> FloatTensor<B> {
    let dims = x.shape().to_vec();
    let [b, c, frames, rows, columns] = [0, 1, 2, 3, 4].map(|axis| dims[axis]);
    if t % 2 == 1 && t != frames {
        let part = |from: usize, to: usize| {
            let range = Slice::new(from as isize, Some(to as isize), 1);
            B::float_slice(x.clone(), &[Slice::full(), Slice::full(), range])
        };
        let first = resized::<B>(&part(0, 1), [1, h, w]);
        let rest = resized::<B>(&part(1, frames), [t - 1, h, w]);
        return B::float_cat(vec![first, rest], 2);
    }
    let apart = B::float_reshape(x.clone(), [b * c, frames, 1, rows, 1, columns, 1].into());
    let repeats = [b * c, frames, t / frames, rows, h / rows, columns, w / columns];
    B::float_reshape(B::float_expand(apart, repeats.into()), [b, c, t, h, w].into())
}

#[cfg(test)]
mod tests {
    use super::{
        super::{group_norm::group_norm_silu, testing::random},
        *,
    };

    fn difference(found: Tensor<5>, wanted: Tensor<5>) -> f32 {
        ((found - wanted.clone()).abs().max() / wanted.abs().max()).into_scalar::<f32>()
    }

    #[test]
    fn formulas_agree_with_the_kernels_of_the_cpu() {
        let settings = Settings { groups: 2, eps: 1e-6 };
        for (dims, latents) in [
            ([2, 6, 5, 4, 6], Some([3, 2, 3])),
            ([1, 4, 1, 6, 4], Some([1, 3, 1])),
            ([1, 4, 4, 4, 4], Some([2, 4, 2])),
            ([2, 4, 3, 2, 5], None),
        ] {
            let c = dims[1];
            let x: Tensor<5> = random(dims) + 2.0;
            let affine = [random([c]), random([c])];
            let modulation = latents
                .map(|[f, h, w]| [random([dims[0], c, f, h, w]), random([dims[0], c, f, h, w])]);
            let found = device_norm_silu(x.clone(), affine.clone(), modulation.clone(), settings);
            let wanted = group_norm_silu(x, affine, modulation, settings);
            assert!(difference(found, wanted) < 1e-5, "{dims:?}");
        }
    }
}
