//! Pictures whole and broken, usual and unusual.

use std::io::Cursor;

use image::ImageFormat;

use super::*;

fn file(format: ImageFormat) -> Vec<u8> {
    let image = RgbImage::from_fn(64, 48, |x, y| image::Rgb([(x * 3) as u8, (y * 5) as u8, 9]));
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

#[test]
fn whole_files_decode_and_cut_ones_do_not() {
    for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP] {
        let bytes = file(format);
        assert_eq!(decode_image(&bytes).unwrap().dimensions(), (64, 48), "{format:?}");
        for len in [0, 10, bytes.len() / 2, bytes.len() - 2] {
            if format == ImageFormat::Png && len == bytes.len() - 2 {
                continue; // Only the end chunk's checksum is missing; no pixel is.
            }
            assert!(decode_image(&bytes[..len]).is_err(), "{format:?} cut to {len}");
        }
    }
}

/// As phones write photographs that move, whose video may hold any bytes.
#[test]
fn what_follows_the_end_of_a_jpeg_does_not_count() {
    let photo = file(ImageFormat::Jpeg);
    let video = b"\0\0\0\x18ftypmp42\xff\xda\0\x0c more \xff\xda";
    let both = [&photo[..], video].concat();
    assert_eq!(decode_image(&both).unwrap(), decode_image(&photo).unwrap());
    // A thumbnail that is whole, before the data that is not.
    let mut segment = vec![0xff, 0xe1];
    segment.extend((photo.len() as u16 + 2).to_be_bytes());
    segment.extend(&photo);
    let with_thumbnail = [&photo[..2], &segment, &photo[2..]].concat();
    assert!(decode_image(&with_thumbnail).is_ok());
    let cut = &with_thumbnail[..with_thumbnail.len() - 40];
    assert!(matches!(decode_image(cut), Err(ImageFileError::Cut)));
}

#[test]
fn what_is_transparent_lets_white_through() {
    let folder = tempfile::tempdir().unwrap();
    let pixels = [[10, 20, 30, 255], [10, 20, 30, 0], [0, 100, 200, 51], [7, 7, 7, 128]];
    let image = image::RgbaImage::from_fn(4, 1, |x, _| image::Rgba(pixels[x as usize]));
    image.save(folder.path().join("a.png")).unwrap();
    let grey = image::GrayAlphaImage::from_pixel(1, 1, image::LumaA([0, 0]));
    grey.save(folder.path().join("b.png")).unwrap();
    let sources = SourceReader::new(folder.path());
    let read = read_image(&sources, "a.png").unwrap();
    let found: Vec<_> = read.pixels().map(|pixel| pixel.0).collect();
    assert_eq!(found, [[10, 20, 30], [255; 3], [204, 224, 244], [131; 3]]);
    assert_eq!(read_stored_image(&sources, "b.png").unwrap().get_pixel(0, 0).0, [255; 3]);
}

#[test]
fn a_profile_that_unpacks_to_much_is_left_out() {
    use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
    let with_profile = |bytes: usize| {
        let mut file = Vec::new();
        let mut encoder = PngEncoder::new(&mut file);
        encoder.set_icc_profile(vec![0; bytes]).unwrap();
        encoder.write_image(&[9; 32 * 32 * 3], 32, 32, ExtendedColorType::Rgb8).unwrap();
        file
    };
    let (small, bomb) = (with_profile(3000), with_profile(80 << 20));
    assert!(bomb.len() < 1 << 20);
    let profile = |file: &[u8]| decoder(file).unwrap().icc_profile().unwrap();
    assert_eq!(profile(&small).map(|profile| profile.len()), Some(3000));
    assert_eq!(profile(&bomb), None);
    assert_eq!(decode_image(&bomb).unwrap(), decode_image(&small).unwrap());
}

#[test]
fn a_cut_image_is_named_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = file(ImageFormat::Jpeg);
    std::fs::write(folder.path().join("a.jpg"), &bytes[..bytes.len() - 40]).unwrap();
    let error = read_image(&SourceReader::new(folder.path()), "a.jpg").unwrap_err();
    let DataError::Failed { message, help, .. } = error else { panic!("{error}") };
    insta::assert_snapshot!(message, @"`a.jpg` is not a whole image: the JPEG data ends before the end of the image");
    insta::assert_snapshot!(help.unwrap(), @"the file may be cut short; copy or download it again");
}

#[test]
fn a_missing_image_is_the_machines_fault() {
    let folder = tempfile::tempdir().unwrap();
    let error = read_image(&SourceReader::new(folder.path()), "b.jpg").unwrap_err();
    assert!(matches!(error, DataError::Environment { .. }), "{error}");
    assert!(error.to_string().contains("b.jpg"), "{error}");
}

#[test]
fn unusual_pictures_are_read_as_pillow_reads_them() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pictures");
    let text = std::fs::read(folder.join("expected.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&text).unwrap();
    for (name, wanted) in expected.as_object().unwrap() {
        let image = read_image(&SourceReader::new(&folder), name).unwrap();
        assert_eq!(serde_json::json!([image.width(), image.height()]), wanted["size"], "{name}");
        for channel in 0..3 {
            let sum: f64 = image.pixels().map(|pixel| f64::from(pixel.0[channel])).sum();
            let mean = sum / f64::from(image.width() * image.height());
            let theirs = wanted["mean"][channel].as_f64().unwrap();
            assert!((mean - theirs).abs() < 1.5, "{name}: {mean} {theirs}");
            let first = f64::from(image.get_pixel(0, 0).0[channel]);
            let theirs = wanted["first"][channel].as_f64().unwrap();
            assert!((first - theirs).abs() < 4.0, "{name}: {first} {theirs}");
        }
    }
    let stored = read_stored_image(&SourceReader::new(&folder), "rotated.jpg").unwrap();
    assert_eq!(stored.dimensions(), (32, 16));
}

#[test]
fn empty_and_huge_pictures_are_refused_before_they_are_decoded() {
    let folder = tempfile::tempdir().unwrap();
    let sources = SourceReader::new(folder.path());
    let bitmap = |width: u32, height: u32| {
        let mut bytes = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
        bytes.extend(width.to_le_bytes());
        bytes.extend(height.to_le_bytes());
        bytes.extend(b"\x01\0\x18\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        bytes
    };
    let error = |width, height| {
        std::fs::write(folder.path().join("a.bmp"), bitmap(width, height)).unwrap();
        read_image(&sources, "a.bmp").unwrap_err().to_string()
    };
    insta::assert_snapshot!(error(60_000, 60_000), @"`a.bmp` is 60000x60000, but at most 16384 pixels a side and 160000000 in all are read");
    assert!(error(0, 5).contains("is not a whole image"));
    // Few enough pixels, of eight bytes each.
    let png = |width: u32, height: u32, color: u8| {
        let mut header = b"IHDR".to_vec();
        header.extend([width, height].map(u32::to_be_bytes).concat());
        header.extend([16, color, 0, 0, 0]);
        let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
        bytes.extend(&header);
        bytes.extend(crc(&header).to_be_bytes());
        bytes.extend(b"\0\0\0\0IDAT");
        bytes.extend(crc(b"IDAT").to_be_bytes());
        std::fs::write(folder.path().join("b.png"), bytes).unwrap();
        read_image(&sources, "b.png").unwrap_err().to_string()
    };
    insta::assert_snapshot!(png(12_600, 12_600, 6), @"`b.png` is 12600x12600 with 8 bytes a pixel, 1270 MB, but at most 640 MB are read");
    insta::assert_snapshot!(png(0x7fff_ffff, 0x7fff_ffff, 2), @"`b.png` is 2147483647x2147483647, but at most 16384 pixels a side and 160000000 in all are read");
    std::fs::write(folder.path().join("a.png"), "no picture").unwrap();
    let error = read_image(&sources, "a.png").unwrap_err();
    insta::assert_snapshot!(error, @"`a.png` is not a whole image: its first bytes are those of no known format");
}

/// The checksum of a chunk of PNG.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ if sum & 1 == 1 { 0xedb8_8320 } else { 0 }
        })
    })
}
