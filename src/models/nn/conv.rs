//! Convolutions over video and the upsampling that goes with them.

use burn::tensor::Tensor;

use super::fused::{
    self,
    conv::{self, Window},
};

/// A convolution over `[B, C, T, H, W]`: zero padding in space that keeps the size at stride 1,
/// none in time. A 2-D convolution is one with a kernel of one frame, which spares the moving of
/// frames into the batch and back.
#[derive(Clone, Debug)]
pub struct Conv3d {
    /// `[out, in, t, h, w]`.
    pub weight: Tensor<5>,
    /// `[out]`.
    pub bias: Tensor<1>,
}

impl Conv3d {
    /// `[B, in, T, H, W]` to `[B, out, T - t + 1, H, W]`.
    pub fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let [_, _, _, kernel, _] = self.weight.dims();
        self.with_options(x, 1, kernel / 2)
    }

    /// Halves height and width: stride 2, with one row and column of zeros at the far edges.
    pub fn downsample(&self, x: Tensor<5>) -> Tensor<5> {
        let x = x.pad([(0, 0), (0, 0), (0, 0), (0, 1), (0, 1)], 0.0);
        self.with_options(x, 2, 0)
    }

    /// Takes every `stride`th place in time and in space of [`Self::forward`].
    pub fn strided(&self, x: Tensor<5>, stride: [usize; 2]) -> Tensor<5> {
        if stride == [1; 2] {
            return self.forward(x);
        }
        let padding = self.weight.dims()[3] / 2;
        fused::convolved(x, self.weight.clone(), self.bias.clone(), stride, padding)
    }

    fn with_options(&self, x: Tensor<5>, stride: usize, padding: usize) -> Tensor<5> {
        let window = Window { stride, padding };
        if fused::applies(&x) && conv::applies(x.dims(), self.weight.dims(), window) {
            return conv::conv3d(x, self.weight.clone(), self.bias.clone(), window);
        }
        fused::convolved(x, self.weight.clone(), self.bias.clone(), [1, stride], padding)
    }
}

/// Repeats every frame, row and column `factor` times.
pub fn nearest_upsample(x: Tensor<5>, factor: [usize; 3]) -> Tensor<5> {
    let [b, c, t, h, w] = x.dims();
    let [by_t, by_h, by_w] = factor;
    if factor == [1; 3] {
        return x;
    }
    x.reshape([b * c, t, 1, h, 1, w, 1]).expand([b * c, t, by_t, h, by_h, w, by_w]).reshape([
        b,
        c,
        t * by_t,
        h * by_h,
        w * by_w,
    ])
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;

    #[test]
    fn upsampling_repeats_neighbours() {
        let x = Tensor::<5>::from_data([[[[[1.0f32, 2.0]], [[3.0, 4.0]]]]], &Device::flex());
        let y = nearest_upsample(x, [2, 1, 2]);
        assert_eq!(y.dims(), [1, 1, 4, 1, 4]);
        let wanted =
            [1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0, 3.0, 3.0, 4.0, 4.0];
        assert_eq!(y.into_data().try_to_vec::<f32>().unwrap(), wanted);
    }
}
