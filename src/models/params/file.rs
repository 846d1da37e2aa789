//! Parameters in safetensors files.

use std::{
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use safetensors::{Dtype, SafeTensorError, SafeTensors, tensor::Metadata};

use super::{LoadError, Param, Params};
use crate::regular;

impl Params {
    /// Adds the tensors of one safetensors file, as `dtype` on `device`.
    pub fn read_safetensors(
        &mut self,
        bytes: &[u8],
        file: &str,
        device: &Device,
        dtype: FloatDType,
    ) -> Result<(), LoadError> {
        let tensors = SafeTensors::deserialize(bytes).map_err(|source| format(file, source))?;
        for (name, view) in tensors.iter() {
            let (shape, kind) = (view.shape(), view.dtype());
            self.add((file, name), shape, kind, view.data().to_vec(), (device, dtype))?;
        }
        Ok(())
    }

    /// Adds the tensors of a file on disk, one after the other: the host holds no more than one.
    pub fn read_file(
        &mut self,
        path: &Path,
        file: &str,
        device: &Device,
        dtype: FloatDType,
    ) -> Result<(), LoadError> {
        let io = |source| LoadError::Io { path: path.display().to_string(), source };
        let mut reader = regular::open(path).map_err(io)?;
        let len = reader.metadata().map_err(io)?.len();
        self.read_one_by_one((&mut reader, len), (path, file), (device, dtype))
    }

    fn read_one_by_one(
        &mut self,
        (reader, len): (&mut (impl Read + Seek), u64),
        (path, file): (&Path, &str),
        as_tensors: (&Device, FloatDType),
    ) -> Result<(), LoadError> {
        let io = |source| LoadError::Io { path: path.display().to_string(), source };
        let header = read_header(reader).map_err(io)?;
        let (start, tensors) = parse_header(&header, len).map_err(|source| format(file, source))?;
        // In the order of the file, which is read from front to back.
        for name in tensors.offset_keys() {
            let info = tensors.info(&name).expect("it names this tensor");
            let (from, to) = info.data_offsets;
            let mut bytes = vec![0; to - from];
            reader.seek(SeekFrom::Start((start + from) as u64)).map_err(io)?;
            reader.read_exact(&mut bytes).map_err(io)?;
            self.add((file, &name), &info.shape, info.dtype, bytes, as_tensors)?;
        }
        Ok(())
    }

    fn add(
        &mut self,
        (file, name): (&str, &str),
        shape: &[usize],
        kind: Dtype,
        bytes: Vec<u8>,
        (device, dtype): (&Device, FloatDType),
    ) -> Result<(), LoadError> {
        let len = shape.iter().product::<usize>();
        let raw = |kind| TensorData::from_bytes_vec(bytes, [len], kind);
        let data = match kind {
            Dtype::F32 => raw(DType::F32),
            Dtype::F16 => raw(DType::F16),
            Dtype::BF16 => raw(DType::BF16),
            // Tables of positions that the reference computed in f64; no device needs more.
            Dtype::F64 => raw(DType::F64).convert::<f32>(),
            other => {
                return Err(LoadError::Dtype {
                    file: file.to_owned(),
                    name: name.to_owned(),
                    found: format!("{other:?}"),
                });
            }
        };
        let kind = data.dtype();
        let flat = Tensor::<1>::from_data(data, (device, kind)).cast(dtype);
        self.0.insert(name.to_owned(), Param { flat, shape: shape.to_vec() });
        Ok(())
    }

    /// Writes all tensors as f32, or as bf16, with `metadata` in the header.
    pub fn to_safetensors(
        &self,
        bf16: bool,
        metadata: Option<std::collections::HashMap<String, String>>,
    ) -> Vec<u8> {
        let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = self
            .0
            .iter()
            .map(|(name, param)| {
                let values = param.flat.clone().cast(FloatDType::F32).into_data();
                let values = values.try_to_vec::<f32>().expect("cast to f32 above");
                let bytes = if bf16 {
                    values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect()
                } else {
                    values.iter().flat_map(|v| v.to_le_bytes()).collect()
                };
                (name.clone(), param.shape.clone(), bytes)
            })
            .collect();
        let dtype = if bf16 { Dtype::BF16 } else { Dtype::F32 };
        let views = bytes.iter().map(|(name, shape, bytes)| {
            let view = safetensors::tensor::TensorView::new(dtype, shape.clone(), bytes)
                .expect("shape and length agree");
            (name.clone(), view)
        });
        safetensors::serialize(views, metadata).expect("names and shapes are valid")
    }
}

/// Longest header that is read, as in the `safetensors` crate.
const LONGEST_HEADER: u64 = 100_000_000;
/// Bytes that state the header's length.
const LENGTH: usize = 8;

/// The header with its length before it; what is stated and not there is not made room for.
fn read_header(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut header = Vec::new();
    reader.take(LENGTH as u64).read_to_end(&mut header)?;
    if let Ok(length) = <[u8; LENGTH]>::try_from(&header[..]) {
        let length = u64::from_le_bytes(length);
        if length <= LONGEST_HEADER {
            reader.take(length).read_to_end(&mut header)?;
        }
    }
    Ok(header)
}

/// Where the data begin, and what they are, in a file of `len` bytes.
fn parse_header(header: &[u8], len: u64) -> Result<(usize, Metadata), SafeTensorError> {
    let length = header.get(..LENGTH).ok_or(SafeTensorError::HeaderTooSmall)?;
    let length = u64::from_le_bytes(length.try_into().expect("of this length"));
    if length > LONGEST_HEADER {
        return Err(SafeTensorError::HeaderTooLarge);
    }
    let start = LENGTH + length as usize;
    let text = header.get(LENGTH..start).ok_or(SafeTensorError::InvalidHeaderLength)?;
    let text = str::from_utf8(text).map_err(SafeTensorError::InvalidHeader)?;
    let tensors: Metadata =
        serde_json::from_str(text).map_err(SafeTensorError::InvalidHeaderDeserialization)?;
    check_offsets(&tensors)?;
    if start as u64 + tensors.data_len() as u64 != len {
        return Err(SafeTensorError::MetadataIncompleteBuffer);
    }
    Ok((start, tensors))
}

/// Tensors must lie one after the other, each as long as its shape says.
fn check_offsets(tensors: &Metadata) -> Result<(), SafeTensorError> {
    let mut end = 0;
    for name in tensors.offset_keys() {
        let info = tensors.info(&name).expect("it names this tensor");
        let (from, to) = info.data_offsets;
        let values = info.shape.iter().try_fold(1_usize, |all, size| all.checked_mul(*size));
        let bits = values.and_then(|values| values.checked_mul(info.dtype.bitsize()));
        if from != end || to < from {
            return Err(SafeTensorError::InvalidOffset(name));
        }
        if bits != (to - from).checked_mul(8) || bits.is_none() {
            return Err(SafeTensorError::TensorInvalidInfo);
        }
        end = to;
    }
    Ok(())
}

fn format(file: &str, source: SafeTensorError) -> LoadError {
    LoadError::Format { file: file.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; data]].concat()
    }

    /// Both readers on the same bytes: the error, or the names and shapes.
    fn read(bytes: &[u8]) -> [Result<Vec<String>, String>; 2] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        std::fs::write(&path, bytes).unwrap();
        let (device, dtype) = (Device::flex(), FloatDType::F32);
        let (mut whole, mut parts) = (Params::default(), Params::default());
        let first = whole.read_safetensors(bytes, "x", &device, dtype);
        let second = parts.read_file(&path, "x", &device, dtype);
        let list = |params: &Params| {
            params.0.iter().map(|(name, param)| format!("{name} {:?}", param.shape)).collect()
        };
        [
            first.map(|()| list(&whole)).map_err(|e| e.to_string()),
            second.map(|()| list(&parts)).map_err(|e| e.to_string()),
        ]
    }

    /// A file that notes how many bytes each read asked room for, and what was read.
    struct Watched {
        bytes: io::Cursor<Vec<u8>>,
        largest: usize,
        read: u64,
    }

    impl Read for Watched {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.largest = self.largest.max(into.len());
            let len = self.bytes.read(into)?;
            self.read += len as u64;
            Ok(len)
        }
    }

    impl Seek for Watched {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.bytes.seek(to)
        }
    }

    #[test]
    fn the_host_has_room_for_one_tensor_at_a_time_and_each_is_read_once() {
        const LARGEST: usize = 4096;
        let mut tensors = Params::default();
        for (index, len) in [7, LARGEST / 4, 100].into_iter().cycle().take(24).enumerate() {
            let flat = Tensor::ones([len], &Device::flex()) * index as f32;
            tensors.0.insert(format!("{index}"), Param { flat, shape: vec![len] });
        }
        let bytes = tensors.to_safetensors(false, None);
        let len = bytes.len() as u64;
        assert!(len > 8 * LARGEST as u64);
        let mut watched = Watched { bytes: io::Cursor::new(bytes), largest: 0, read: 0 };
        let mut read = Params::default();
        let (names, as_f32) = ((Path::new("x"), "x"), (&Device::flex(), FloatDType::F32));
        read.read_one_by_one((&mut watched, len), names, as_f32).unwrap();
        assert_eq!((watched.largest, watched.read), (LARGEST, len));
        assert_eq!(read.to_safetensors(false, None), tensors.to_safetensors(false, None));
    }

    #[test]
    fn a_file_on_disk_is_read_as_one_in_memory() {
        let header = r#"{"b": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [4, 12]},
            "a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}, "__metadata__": {"x": "y"}}"#;
        let [whole, parts] = read(&file(header, 12));
        assert_eq!(whole, Ok(vec!["a []".to_owned(), "b [2, 2]".to_owned()]));
        assert_eq!(whole, parts);
    }

    #[test]
    fn hostile_headers_are_errors_in_both_and_take_no_memory() {
        let one = |shape: &str, from: usize, to: usize| {
            format!(
                r#"{{"a": {{"dtype": "F32", "shape": {shape}, "data_offsets": [{from}, {to}]}}}}"#
            )
        };
        let two = r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}"#;
        let mut cases = vec![
            Vec::new(),
            vec![0; 7],
            [&u64::MAX.to_le_bytes()[..], b"{"].concat(),
            [&99_000_000_u64.to_le_bytes()[..], b"{}"].concat(),
            file("no json", 0),
            file(two, 12),
            file(&one("[2]", 0, 8), 4),
            file(&one("[2]", 0, 8), 12),
            file(&one("[2]", 8, 0), 8),
            file(&one("[2]", 4, 12), 12),
            file(&one("[3]", 0, 8), 8),
            file(&one("[18446744073709551615, 2]", 0, 8), 8),
            file(&one("[4611686018427387904, 4]", 0, 0), 0),
            file(&one("[2]", 0, 18_446_744_073_709_551_615), 8),
        ];
        let whole = file(&one("[2]", 0, 8), 8);
        cases.extend((0..whole.len()).map(|len| whole[..len].to_vec()));
        for case in cases {
            let [first, second] = read(&case);
            assert!(first.is_err() && second.is_err(), "{case:?}: {first:?} {second:?}");
        }
        assert!(read(&file(&one("[2]", 0, 8), 8)).iter().all(Result::is_ok));
        let wrong = one("[2]", 0, 8).replace("F32", "I32");
        assert!(
            read(&file(&wrong, 8))
                .iter()
                .all(|read| read.as_ref().is_err_and(|e| e.contains("I32")))
        );
    }
}
