//! How far two versions of an item's file are apart.

use half::{bf16, f16};
use image::{GenericImageView, ImageFormat};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Number, Value};

/// The distance of two files.
#[derive(Clone, Debug, PartialEq)]
pub enum Distance {
    /// The bytes are equal.
    None,
    /// The same form, with numbers that are at most this far apart: `|a - b| / max(1, |a|, |b|)`,
    /// for pixels in units of the whole range. 0 where only the way differs in which they are
    /// written.
    Numbers(f64),
    /// Something else than numbers differs.
    Form(String),
}

impl Distance {
    /// The larger of two distances.
    #[must_use]
    fn max(self, other: Self) -> Self {
        match (self, other) {
            (form @ Self::Form(_), _) | (_, form @ Self::Form(_)) => form,
            (Self::None, other) => other,
            (this, Self::None) => this,
            (Self::Numbers(a), Self::Numbers(b)) => Self::Numbers(a.max(b)),
        }
    }
}

/// Compares two files called `name`, which tells their form.
pub fn distance(name: &str, a: &[u8], b: &[u8]) -> Distance {
    if a == b {
        return Distance::None;
    }
    let compared = match name.rsplit('.').next() {
        Some("safetensors") => tensors(a, b),
        Some("json") => json(a, b),
        Some("png") => pixels(a, b),
        _ => None,
    };
    match compared {
        Some(Distance::None) => Distance::Numbers(0.0),
        Some(distance) => distance,
        None => Distance::Form("the bytes differ".to_owned()),
    }
}

fn number(a: f64, b: f64) -> Distance {
    if a.to_bits() == b.to_bits() {
        return Distance::None;
    }
    let far = (a - b).abs() / a.abs().max(b.abs()).max(1.0);
    if far.is_finite() { Distance::Numbers(far) } else { Distance::Numbers(f64::INFINITY) }
}

fn tensors(a: &[u8], b: &[u8]) -> Option<Distance> {
    let (_, before) = SafeTensors::read_metadata(a).ok()?;
    let (_, after) = SafeTensors::read_metadata(b).ok()?;
    if before.metadata() != after.metadata() {
        return Some(Distance::Form("the header differs".to_owned()));
    }
    let (a, b) = (SafeTensors::deserialize(a).ok()?, SafeTensors::deserialize(b).ok()?);
    let (mut left, mut right) = (a.names(), b.names());
    left.sort_unstable();
    right.sort_unstable();
    if left != right {
        return Some(Distance::Form("the names of the tensors differ".to_owned()));
    }
    let mut far = Distance::None;
    for name in left {
        let (a, b) = (a.tensor(name).ok()?, b.tensor(name).ok()?);
        if a.shape() != b.shape() || a.dtype() != b.dtype() {
            return Some(Distance::Form(format!("shape or type of tensor `{name}` differ")));
        }
        far = far.max(tensor(&a, &b)?);
    }
    Some(far)
}

fn tensor(a: &TensorView<'_>, b: &TensorView<'_>) -> Option<Distance> {
    if a.data() == b.data() {
        return Some(Distance::None);
    }
    let read: fn(&[u8]) -> f64 = match a.dtype() {
        Dtype::F32 => |bytes| f64::from(f32::from_le_bytes(bytes.try_into().unwrap_or_default())),
        Dtype::F64 => |bytes| f64::from_le_bytes(bytes.try_into().unwrap_or_default()),
        Dtype::F16 => |bytes| f64::from(f16::from_le_bytes(bytes.try_into().unwrap_or_default())),
        Dtype::BF16 => |bytes| f64::from(bf16::from_le_bytes(bytes.try_into().unwrap_or_default())),
        Dtype::U8 => |bytes| f64::from(bytes[0]) / 255.0,
        _ => return None,
    };
    let size = match a.dtype() {
        Dtype::F64 => 8,
        Dtype::F32 => 4,
        Dtype::U8 => 1,
        _ => 2,
    };
    let values = a.data().chunks_exact(size).zip(b.data().chunks_exact(size));
    Some(values.fold(Distance::None, |far, (a, b)| far.max(number(read(a), read(b)))))
}

fn json(a: &[u8], b: &[u8]) -> Option<Distance> {
    let (a, b) = (serde_json::from_slice(a).ok()?, serde_json::from_slice(b).ok()?);
    Some(value("", &a, &b))
}

/// Whole numbers are compared as such: beyond 2^53, an `f64` does not hold them all.
fn json_number(a: &Number, b: &Number) -> Option<Distance> {
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) if a == b => Some(Distance::None),
        (Some(a), Some(b)) => {
            let larger = a.unsigned_abs().max(b.unsigned_abs());
            Some(Distance::Numbers(a.abs_diff(b) as f64 / larger as f64))
        }
        _ => Some(number(a.as_f64()?, b.as_f64()?)),
    }
}

fn whole(number: &Number) -> Option<i128> {
    const EXACT: f64 = 1e30;
    let of_float = || number.as_f64().filter(|value| value.fract() == 0.0 && value.abs() < EXACT);
    number
        .as_i64()
        .map(i128::from)
        .or_else(|| number.as_u64().map(i128::from))
        .or_else(|| of_float().map(|value| value as i128))
}

fn value(at: &str, a: &Value, b: &Value) -> Distance {
    let differs = || Distance::Form(format!("`{}` differs", at.trim_start_matches('.')));
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => json_number(a, b).unwrap_or_else(differs),
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let pairs = a.iter().zip(b).enumerate();
            pairs
                .fold(Distance::None, |far, (i, (a, b))| far.max(value(&format!("{at}.{i}"), a, b)))
        }
        (Value::Object(a), Value::Object(b)) if a.keys().eq(b.keys()) => {
            a.iter().fold(Distance::None, |far, (key, inner)| {
                far.max(value(&format!("{at}.{key}"), inner, &b[key]))
            })
        }
        _ if a == b => Distance::None,
        _ => differs(),
    }
}

fn pixels(a: &[u8], b: &[u8]) -> Option<Distance> {
    let read = |bytes| image::load_from_memory_with_format(bytes, ImageFormat::Png).ok();
    let (a, b) = (read(a)?, read(b)?);
    let differs = |what: &str| Some(Distance::Form(format!("{what} of the image differs")));
    if a.dimensions() != b.dimensions() {
        return differs("the size");
    }
    if a.color() != b.color() {
        return differs("the type of the pixels");
    }
    // 16 bits hold those of 8, and of them all.
    let (a, b) = (a.into_rgba16(), b.into_rgba16());
    let values = a.as_raw().iter().zip(b.as_raw());
    let far = values.map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0);
    Some(Distance::Numbers(f64::from(far) / f64::from(u16::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::{
        frames::to_png,
        tensors::{Array, write},
    };

    #[test]
    fn numbers_are_compared_and_forms_must_be_equal() {
        let file = |values: [f32; 2]| write("x", &Array { shape: [2], values: values.to_vec() });
        let far = |b: [f32; 2]| distance("x.safetensors", &file([1.0, 200.0]), &file(b));
        assert_eq!(far([1.0, 200.0]), Distance::None);
        let Distance::Numbers(found) = far([1.0, 202.0]) else { panic!() };
        assert!((found - 2.0 / 202.0).abs() < 1e-9);
        assert_eq!(far([f32::NAN, 200.0]), Distance::Numbers(f64::INFINITY));
        let other = write("y", &Array { shape: [2], values: vec![1.0, 200.0] });
        let form = distance("x.safetensors", &file([1.0, 200.0]), &other);
        assert_eq!(form, Distance::Form("the names of the tensors differ".to_owned()));

        let far = |b: &str| distance("x.json", br#"{"a": [1, {"b": "c"}]}"#, b.as_bytes());
        assert_eq!(far(r#"{"a": [1.5, {"b": "c"}]}"#), Distance::Numbers(0.5 / 1.5));
        assert_eq!(far(r#"{"a": [1, {"b": "d"}]}"#), Distance::Form("`a.1.b` differs".to_owned()));
        assert!(matches!(far(r#"{"a": [1]}"#), Distance::Form(_)));

        let image = |value: u8| to_png(&image::RgbImage::from_pixel(2, 2, image::Rgb([value; 3])));
        assert_eq!(distance("x.png", &image(0), &image(51)), Distance::Numbers(0.2));
        assert_eq!(distance("x.png", &image(51), &image(0)), Distance::Numbers(0.2));
        assert!(matches!(distance("x.txt", b"a", b"b"), Distance::Form(_)));
    }

    #[test]
    fn only_equal_bytes_are_no_distance() {
        let json = |b: &str| distance("x.json", br#"{"a": 1}"#, b.as_bytes());
        assert_eq!(json(r#"{"a": 1}"#), Distance::None);
        for other in [r#"{"a":1}"#, r#"{"a": 1.0}"#, r#"{"a": 2, "a": 1}"#] {
            assert_eq!(json(other), Distance::Numbers(0.0), "{other}");
        }
        let head = |gap: &str| {
            let head = format!(r#"{{"x":{{"dtype":"U8",{gap}"shape":[1],"data_offsets":[0,1]}}}}"#);
            [&(head.len() as u64).to_le_bytes(), head.as_bytes(), b"7"].concat()
        };
        let laid_out = distance("x.safetensors", &head(""), &head("  "));
        assert_eq!(laid_out, Distance::Numbers(0.0));
    }

    #[test]
    fn large_whole_numbers_are_compared_exactly() {
        let far = |a: &str, b: &str| distance("x.json", a.as_bytes(), b.as_bytes());
        for (a, b) in [
            ("9007199254740992", "9007199254740993"),
            ("-9007199254740992", "-9007199254740993"),
            ("9007199254740992.0", "9007199254740993"),
            ("18446744073709551614", "18446744073709551615"),
        ] {
            let Distance::Numbers(found) = far(a, b) else { panic!("{a} {b}") };
            assert!(found > 0.0 && found < 1e-15, "{a} {b}: {found}");
        }
        assert_eq!(far("-1", "1"), Distance::Numbers(2.0));
        assert_eq!(far("0", "-0.0"), Distance::Numbers(0.0));
    }

    #[test]
    fn the_low_byte_of_deep_pixels_counts() {
        let depth = |value: u16| {
            let image = image::ImageBuffer::from_pixel(2, 2, image::Luma([value]));
            let mut bytes = std::io::Cursor::new(Vec::new());
            image::DynamicImage::ImageLuma16(image).write_to(&mut bytes, ImageFormat::Png).unwrap();
            bytes.into_inner()
        };
        let far = |a, b| distance("depth.png", &depth(a), &depth(b));
        assert_eq!(far(0x1200, 0x1200), Distance::None);
        assert_eq!(far(0x1200, 0x1201), Distance::Numbers(1.0 / 65_535.0));
        let flat = to_png(&image::RgbImage::from_pixel(2, 2, image::Rgb([0x12; 3])));
        let form = distance("depth.png", &depth(0x1212), &flat);
        assert_eq!(form, Distance::Form("the type of the pixels of the image differs".to_owned()));
    }
}
