//! Clips as animated GIF.

use gif::{Encoder, EncodingError, Frame, Repeat};
use image::RgbImage;

/// Hundredths of a second each frame is shown for.
const DELAY: u16 = 15;
/// And the last one, which is the answer.
const LAST_DELAY: u16 = 120;
/// Speed of the colour quantiser, 1 (best) to 30.
const QUANTISER_SPEED: i32 = 10;

/// Frames of one size as an endless GIF that rests on the last one.
pub fn gif(frames: &[RgbImage]) -> Result<Vec<u8>, EncodingError> {
    let (width, height) = frames.first().map_or((1, 1), RgbImage::dimensions);
    let (width, height) = (width as u16, height as u16);
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, width, height, &[])?;
    encoder.set_repeat(Repeat::Infinite)?;
    for (index, image) in frames.iter().enumerate() {
        let mut frame = Frame::from_rgb_speed(width, height, image.as_raw(), QUANTISER_SPEED);
        frame.delay = if index + 1 == frames.len() { LAST_DELAY } else { DELAY };
        encoder.write_frame(&frame)?;
    }
    drop(encoder);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use image::{AnimationDecoder, Rgb, codecs::gif::GifDecoder};

    use super::*;

    #[test]
    fn every_frame_survives() {
        let frames: Vec<_> =
            [0, 120, 240].map(|v| RgbImage::from_pixel(6, 4, Rgb([v, 0, 0]))).to_vec();
        let bytes = gif(&frames).unwrap();
        let decoder = GifDecoder::new(std::io::Cursor::new(bytes)).unwrap();
        let decoded = decoder.into_frames().collect_frames().unwrap();
        let reds: Vec<_> = decoded.iter().map(|frame| frame.buffer().get_pixel(5, 3)[0]).collect();
        assert_eq!(reds, [0, 120, 240]);
        assert_eq!(decoded[2].delay().numer_denom_ms(), (1200, 1));
    }
}
