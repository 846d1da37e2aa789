//! Bytes to pixels of a model and back.

use burn::tensor::{Device, FloatDType, Tensor, TensorData};

/// RGB bytes of `[F, H, W, 3]` as video `[1, 3, F, H, W]` in [-1, 1]: `byte / 255 * 2 - 1`.
pub fn from_rgb(rgb: &[u8], [frames, height, width]: [usize; 3], device: &Device) -> Tensor<5> {
    let values: Vec<f32> = (0..3)
        .flat_map(|channel| rgb.iter().skip(channel).step_by(3))
        .map(|byte| f32::from(*byte) / 255.0 * 2.0 - 1.0)
        .collect();
    Tensor::from_data(TensorData::new(values, [1, 3, frames, height, width]), device)
}

/// Video `[1, 3, F, H, W]` as RGB bytes of `[F, H, W, 3]`: `(x + 1) / 2`, clamped to [0, 1], times
/// 255, rounded half to even; none where a value is not finite, which bytes would hide.
pub fn to_rgb(video: Tensor<5>) -> Option<Vec<u8>> {
    let [_, _, frames, height, width] = video.dims();
    let data = video.permute([0, 2, 3, 4, 1]).cast(FloatDType::F32).into_data();
    let values = data.try_to_vec::<f32>().expect("cast to f32 above");
    debug_assert_eq!(values.len(), frames * height * width * 3);
    let byte = |x: &f32| ((x / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
    values.iter().map(|x| x.is_finite().then(|| byte(x))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_the_way_through_pixels() {
        let rgb: Vec<u8> = (0..2 * 4 * 5 * 3).map(|i| (i * 7 % 256) as u8).collect();
        let video = from_rgb(&rgb, [2, 4, 5], &Device::flex());
        assert_eq!(video.dims(), [1, 3, 2, 4, 5]);
        let green = video.clone().slice([0..1, 1..2, 1..2, 2..3, 3..4]).into_scalar::<f32>();
        let byte = f32::from(rgb[((4 + 2) * 5 + 3) * 3 + 1]);
        assert!((green - (byte / 255.0 * 2.0 - 1.0)).abs() < 1e-7);
        assert_eq!(to_rgb(video).unwrap(), rgb);
    }

    #[test]
    fn pixels_out_of_range_are_clamped() {
        let video = Tensor::<5>::zeros([1, 3, 1, 1, 1], &Device::flex());
        assert_eq!(to_rgb(video.clone() + 9.0).unwrap(), [255; 3]);
        assert_eq!(to_rgb(video.clone() - 9.0).unwrap(), [0; 3]);
        assert_eq!(to_rgb(video / 0.0), None);
    }
}
