//! Parameters in safetensors files.

use std::{collections::HashMap, convert::Infallible, path::Path};

use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use safetensors::{
    Dtype, SafeTensors,
    tensor::{Metadata, TensorInfo},
};

use super::{
    LoadError, Param, Params, RawTensor, StoredFile, TensorFile,
    tensor_file::{LENGTH, check_names, not_read},
};
use crate::device::lasting;

/// The metadata in a header.
pub type Entries = HashMap<String, String>;

impl Params {
    /// Adds the tensors of one safetensors file, as `dtype` on `device`.
    pub fn read_safetensors(
        &mut self,
        bytes: &[u8],
        file: &str,
        device: &Device,
        dtype: FloatDType,
    ) -> Result<(), LoadError> {
        let tensors =
            SafeTensors::deserialize(bytes).map_err(|source| not_read(bytes, file, source))?;
        let (length, _) =
            SafeTensors::read_metadata(bytes).map_err(|e| not_read(bytes, file, e))?;
        let text = &bytes[LENGTH..LENGTH + length];
        check_names(text).map_err(|source| not_read(bytes, file, source))?;
        for (name, view) in tensors.iter() {
            let (name, shape, bytes) =
                (name.to_owned(), view.shape().to_vec(), view.data().to_vec());
            self.add(file, RawTensor { name, shape, dtype: view.dtype(), bytes }, device, dtype)?;
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
        self.read(TensorFile::open(path, file)?, device, dtype)
    }

    /// The same of a file that must be what its hash says.
    pub fn read_stored(
        &mut self,
        stored: &StoredFile,
        file: &str,
        device: &Device,
        dtype: FloatDType,
    ) -> Result<(), LoadError> {
        self.read(TensorFile::open_stored(stored, file)?, device, dtype)
    }

    /// Adds the tensors of an open file.
    pub fn read(
        &mut self,
        tensors: TensorFile<'_>,
        device: &Device,
        dtype: FloatDType,
    ) -> Result<(), LoadError> {
        let file = tensors.file().to_owned();
        tensors.each(|tensor| self.add(&file, tensor, device, dtype))
    }

    fn add(
        &mut self,
        file: &str,
        RawTensor { name, shape, dtype: kind, bytes }: RawTensor,
        device: &Device,
        dtype: FloatDType,
    ) -> Result<(), LoadError> {
        if self.0.contains_key(&name) {
            let message = format!("the tensor `{name}` is in another file of this part as well");
            return Err(LoadError::Config { file: file.to_owned(), message });
        }
        let Some(data) = data(kind, bytes) else {
            let found = format!("{kind:?}");
            return Err(LoadError::Dtype { file: file.to_owned(), name, found });
        };
        let flat = uploaded(data, device, dtype);
        self.0.insert(name, Param { flat, shape });
        Ok(())
    }

    /// A safetensors file of all tensors as `dtype`, a type of 2 or 4 bytes, with `metadata` in the
    /// header.
    pub fn to_safetensors(&self, dtype: Dtype, metadata: Option<Entries>) -> Vec<u8> {
        let mut file = Vec::new();
        let written = self.write_safetensors::<Infallible>(dtype, metadata, |bytes| {
            file.extend_from_slice(bytes);
            Ok(())
        });
        written.unwrap_or_else(|never| match never {});
        file
    }

    /// The same piece by piece: one tensor after the other comes into the host's memory.
    pub fn write_safetensors<E>(
        &self,
        dtype: Dtype,
        metadata: Option<Entries>,
        mut put: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let tensors = self.0.iter().map(|(name, param)| (name.clone(), param.shape.clone(), dtype));
        put(&header(metadata, tensors))?;
        self.0.values().try_for_each(|param| put(&bytes_of(&param.flat, dtype)))
    }
}

impl RawTensor {
    /// The values, of a tensor that an opened file has.
    pub fn into_f32(self, device: &Device) -> Tensor<1> {
        let data = data(self.dtype, self.bytes).expect("an opened file holds weights alone");
        uploaded(data, device, FloatDType::F32)
    }
}

/// Values as `dtype` on a device. Memory that lasts is as large as they are then, not as they were
/// in a file.
fn uploaded(data: TensorData, device: &Device, dtype: FloatDType) -> Tensor<1> {
    let kind = data.dtype();
    if kind == dtype.into() {
        return lasting(device, || Tensor::from_data(data, (device, kind)));
    }
    let raw = Tensor::<1>::from_data(data, (device, kind));
    lasting(device, || raw.cast(dtype))
}

/// The values of these bytes, if weights may have their type.
fn data(dtype: Dtype, bytes: Vec<u8>) -> Option<TensorData> {
    let len = bytes.len() * 8 / dtype.bitsize();
    let raw = |kind| TensorData::from_bytes_vec(bytes, [len], kind);
    Some(match dtype {
        Dtype::F32 => raw(DType::F32),
        Dtype::F16 => raw(DType::F16),
        Dtype::BF16 => raw(DType::BF16),
        // Tables of positions that the reference computed in f64; no device needs more.
        Dtype::F64 => raw(DType::F64).convert::<f32>(),
        _ => return None,
    })
}

/// The head of a safetensors file of these tensors, in their order.
pub fn header(
    metadata: Option<Entries>,
    tensors: impl IntoIterator<Item = (String, Vec<usize>, Dtype)>,
) -> Vec<u8> {
    let mut end = 0;
    let tensors = tensors.into_iter().map(|(name, shape, dtype)| {
        let start = end;
        end += shape.iter().product::<usize>() * dtype.bitsize() / 8;
        (name, TensorInfo { dtype, shape, data_offsets: (start, end) })
    });
    let header = Metadata::new(metadata, tensors.collect()).expect("one lies after the other");
    let mut header = serde_json::to_vec(&header).expect("names and numbers are valid JSON");
    header.resize(header.len().next_multiple_of(8), b' ');
    [(header.len() as u64).to_le_bytes().to_vec(), header].concat()
}

/// The values of a tensor as a file holds them, in a type of 2 or 4 bytes.
pub fn bytes_of(flat: &Tensor<1>, dtype: Dtype) -> Vec<u8> {
    let values = flat.clone().cast(FloatDType::F32).into_data();
    let values = values.as_slice::<f32>().expect("cast to f32 above");
    match dtype {
        Dtype::BF16 => values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
        Dtype::F16 => values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        io::{self, Read},
    };

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
    struct Watched<'a> {
        bytes: &'a [u8],
        largest: &'a Cell<usize>,
        read: &'a Cell<u64>,
    }

    impl Read for Watched<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.largest.set(self.largest.get().max(into.len()));
            let len = self.bytes.read(into)?;
            self.read.set(self.read.get() + len as u64);
            Ok(len)
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
        let bytes = tensors.to_safetensors(Dtype::F32, None);
        let len = bytes.len() as u64;
        assert!(len > 8 * LARGEST as u64);
        let (largest, all) = (Cell::new(0), Cell::new(0));
        let watched = Watched { bytes: &bytes, largest: &largest, read: &all };
        let mut read = Params::default();
        let (file, _) = TensorFile::new(Box::new(watched), len, (Path::new("x"), "x")).unwrap();
        read.read(file, &Device::flex(), FloatDType::F32).unwrap();
        assert_eq!((largest.get(), all.get()), (LARGEST, len));
        assert_eq!(read.to_safetensors(Dtype::F32, None), tensors.to_safetensors(Dtype::F32, None));
    }

    #[test]
    fn a_file_is_written_as_the_library_writes_it() {
        let mut tensors = Params::default();
        for (name, shape) in [("b.weight", vec![3, 2]), ("a", vec![]), ("c", vec![5])] {
            let len = shape.iter().product::<usize>();
            let flat = Tensor::ones([len], &Device::flex()) * 1.000_1;
            tensors.0.insert(name.to_owned(), Param { flat, shape });
        }
        for dtype in [Dtype::F32, Dtype::BF16] {
            let data = tensors.0.iter().map(|(name, param)| {
                (name.clone(), param.shape.clone(), bytes_of(&param.flat, dtype))
            });
            let data: Vec<_> = data.collect();
            let views = data.iter().map(|(name, shape, bytes)| {
                let view = safetensors::tensor::TensorView::new(dtype, shape.clone(), bytes);
                (name, view.unwrap())
            });
            let metadata: HashMap<_, _> = [("format".to_owned(), "pt".to_owned())].into();
            let wanted = safetensors::serialize(views, Some(metadata.clone())).unwrap();
            assert_eq!(tensors.to_safetensors(dtype, Some(metadata)), wanted);
        }
    }

    #[test]
    fn a_stored_file_is_checked_while_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let header = r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}"#;
        let whole = file(header, 8);
        let stored = StoredFile { path: path.clone(), digest: blake3::hash(&whole) };
        let read = || {
            let mut params = Params::default();
            params.read_stored(&stored, "x", &Device::flex(), FloatDType::F32)
        };
        let is_damaged =
            |read: Result<(), LoadError>| matches!(read, Err(LoadError::Damaged { .. }));
        assert!(is_damaged(read()), "it is not there");
        std::fs::write(&path, &whole).unwrap();
        read().unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, &damaged).unwrap();
            assert!(is_damaged(read()), "byte {at}");
            assert!(is_damaged(stored.read_at_most(u64::MAX).map(drop)), "byte {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(is_damaged(read()), "cut at byte {at}");
        }
        // What is wrong as it was stored is no damage.
        let wrong = file(&header.replace("F32", "I32"), 8);
        std::fs::write(&path, &wrong).unwrap();
        let stored = StoredFile { path, digest: blake3::hash(&wrong) };
        let mut params = Params::default();
        let read = params.read_stored(&stored, "x", &Device::flex(), FloatDType::F32);
        assert!(matches!(read, Err(LoadError::Dtype { .. })));
    }

    #[test]
    fn a_tensor_of_two_files_is_an_error() {
        let header = r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}"#;
        let (bytes, mut params) = (file(header, 8), Params::default());
        let mut read =
            |name| params.read_safetensors(&bytes, name, &Device::flex(), FloatDType::F32);
        read("one").unwrap();
        let error = read("two").unwrap_err().to_string();
        assert_eq!(error, "`two`: the tensor `a` is in another file of this part as well");
    }

    #[test]
    fn a_file_that_is_none_is_called_what_it_is() {
        let mut told = Vec::new();
        for start in [
            &b"version https://git-lfs.github.com/spec/v1\n"[..],
            b"GGUF\x03\0\0\0\x01",
            b"PK\x03\x04\0\0\x08\x08\0",
        ] {
            let [whole, parts] = read(start);
            assert_eq!(whole, parts);
            told.push(whole.unwrap_err());
        }
        // Readers differ in which of the two they take.
        let twice = r#"{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                        "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}"#;
        let [whole, parts] = read(&file(twice, 4));
        assert_eq!(whole, parts);
        told.push(whole.unwrap_err());
        insta::assert_snapshot!(told.join("\n"), @"
        `x` is no weights but a pointer of git-lfs to them
        `x` is a GGUF file by its first bytes, whose quantised weights are not supported
        `x` is a zip archive by its first bytes, as which pickle files are saved
        `x` is not a whole safetensors file: invalid JSON in header: `a` stands there twice at line 2 column 84
        ");
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
