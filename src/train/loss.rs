//! What training minimises.

use burn::tensor::{FloatDType, Tensor};

use super::batch::Batch;

/// The mean of `(prediction - target)^2`, weighted where the batch has weights, in f32.
///
/// With a v-prediction this is the published loss: the weight `1 / (1 - a)` on the error of the
/// clean latents cancels against `x0 - x0' = sqrt(1 - a) (v' - v)`, and no division by `1 - a` or
/// `a` is left. With flow matching, target and loss are the published ones as they stand.
pub fn denoiser_loss(prediction: Tensor<5>, batch: &Batch) -> Tensor<1> {
    let target = batch.target.clone();
    let difference = prediction.cast(FloatDType::F32) - target.cast(FloatDType::F32);
    let squares = difference.clone() * difference;
    match &batch.weights {
        Some(weights) => (squares * weights.clone()).mean(),
        None => squares.mean(),
    }
}

/// The mean of `|a - b|`.
pub fn l1(a: Tensor<5>, b: Tensor<5>) -> Tensor<1> {
    (a - b).abs().mean()
}

/// The mean of `(a - b)^2`.
pub fn l2(a: Tensor<5>, b: Tensor<5>) -> Tensor<1> {
    let difference = a - b;
    (difference.clone() * difference).mean()
}

/// The mean of `|d(a) - d(b)|` over differences `d` of neighbours in a row and in a column: what
/// makes edges sharp, which the mean of pixels hardly sees. Axes shorter than two add nothing.
pub fn edges(a: Tensor<5>, b: Tensor<5>) -> Tensor<1> {
    let difference = a - b;
    let [_, _, _, h, w] = difference.dims();
    let neighbours = |axis: usize, len: usize| {
        let next = difference.clone().narrow(axis, 1, len - 1);
        (next - difference.clone().narrow(axis, 0, len - 1)).abs().mean()
    };
    match (h > 1, w > 1) {
        (true, true) => neighbours(3, h) + neighbours(4, w),
        (true, false) => neighbours(3, h),
        (false, true) => neighbours(4, w),
        (false, false) => (difference * 0.0).mean(),
    }
}

/// The mean of `|a - b|` and of its square, of each channel's difference from the mean of the
/// three: colour without light. Most of a picture's variance is light, and a young autoencoder
/// stays grey for long when colour does not count for more.
pub fn chroma(a: Tensor<5>, b: Tensor<5>) -> Tensor<1> {
    let difference = a - b;
    let color = difference.clone() - difference.mean_dim(1);
    color.clone().abs().mean() + (color.clone() * color).mean()
}

/// The divergence of a posterior from N(0, 1), per value of the latents.
pub fn kl(mean: Tensor<5>, logvar: Tensor<5>) -> Tensor<1> {
    ((mean.clone() * mean + logvar.clone().exp() - 1.0 - logvar) * 0.5).mean()
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    fn tensor(values: &[f32], shape: [usize; 5]) -> Tensor<5> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
    }

    #[test]
    fn chroma_ignores_light_and_sees_colour() {
        let grey = tensor(&[0.0; 3], [1, 3, 1, 1, 1]);
        let lighter = tensor(&[0.5; 3], [1, 3, 1, 1, 1]);
        let red = tensor(&[0.3, 0.0, 0.0], [1, 3, 1, 1, 1]);
        let value =
            |a: &Tensor<5>, b: &Tensor<5>| chroma(a.clone(), b.clone()).into_scalar::<f32>();
        assert!(value(&grey, &lighter).abs() < 1e-6);
        // The channels are 0.2, -0.1 and -0.1 from their mean.
        assert!((value(&grey, &red) - (0.4 + 0.06) / 3.0).abs() < 1e-6);
    }

    #[test]
    fn edges_ignore_a_constant_offset_and_see_a_step() {
        let flat = tensor(&[1.0; 4], [1, 1, 1, 2, 2]);
        let step = tensor(&[0.0, 1.0, 0.0, 1.0], [1, 1, 1, 2, 2]);
        assert!(edges(flat.clone(), flat.clone() + 5.0).into_scalar::<f32>().abs() < 1e-6);
        assert!((edges(flat, step).into_scalar::<f32>() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn the_standard_normal_has_no_divergence() {
        let zero = tensor(&[0.0; 4], [1, 1, 1, 2, 2]);
        assert!(kl(zero.clone(), zero.clone()).into_scalar::<f32>().abs() < 1e-7);
        assert!((kl(zero.clone() + 2.0, zero).into_scalar::<f32>() - 2.0).abs() < 1e-6);
    }
}
