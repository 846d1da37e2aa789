//! Safetensors files, read from front to back: the host holds one tensor at a time.

use std::{
    collections::HashSet,
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use blake3::{Hash, Hasher};
use safetensors::{
    Dtype, SafeTensorError,
    tensor::{Metadata, TensorInfo},
};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
};

use super::{Entries, LoadError};
use crate::regular_file;

/// A file whose content has a known hash, as the objects of a store have.
#[derive(Clone, Debug)]
pub struct StoredFile {
    /// Where it is.
    pub path: PathBuf,
    /// The hash of its content.
    pub digest: Hash,
}

impl StoredFile {
    /// All of it, which must be what the hash says, and have at most `most` bytes.
    pub fn read_at_most(&self, most: u64) -> Result<Vec<u8>, LoadError> {
        match regular_file::read_at_most(&self.path, most) {
            Ok(bytes) if blake3::hash(&bytes) == self.digest => Ok(bytes),
            Ok(_) => Err(self.damaged()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(self.damaged()),
            Err(source) => Err(self.io(source)),
        }
    }

    /// What is wrong, if a file that could not be used is not what its hash says.
    fn blame(&self, error: LoadError) -> LoadError {
        let hash = || {
            let mut hasher = Hasher::new();
            hasher.update_reader(File::open(&self.path)?)?;
            Ok::<_, io::Error>(hasher.finalize())
        };
        match hash() {
            Ok(found) if found == self.digest => error,
            Err(e) if e.kind() != io::ErrorKind::NotFound => self.io(e),
            _ => self.damaged(),
        }
    }

    fn damaged(&self) -> LoadError {
        LoadError::Damaged { digest: self.digest }
    }

    fn io(&self, source: io::Error) -> LoadError {
        LoadError::Io { path: self.path.display().to_string(), source }
    }
}

/// A tensor as it lies in a file.
#[derive(Clone, Debug)]
pub struct RawTensor {
    /// The published name.
    pub name: String,
    /// The shape.
    pub shape: Vec<usize>,
    /// The type of the values.
    pub dtype: Dtype,
    /// The values, little endian.
    pub bytes: Vec<u8>,
}

/// A safetensors file of weights whose header was read and found right.
pub struct TensorFile<'a> {
    reader: Box<dyn Read + 'a>,
    /// How errors name the file, and where it is.
    file: String,
    path: String,
    tensors: Metadata,
    /// What is to be checked, and the hash of what was read.
    stored: Option<(StoredFile, Hasher)>,
}

impl<'a> TensorFile<'a> {
    /// Opens a file on disk, which errors call `file`.
    pub fn open(path: &Path, file: &str) -> Result<Self, LoadError> {
        let io = |source| LoadError::Io { path: path.display().to_string(), source };
        Self::of_file(regular_file::open(path).map_err(io)?, (path, file))
    }

    /// Takes a file that somebody else opened.
    pub fn of_file(opened: File, names: (&Path, &str)) -> Result<Self, LoadError> {
        let len = opened.metadata();
        let len =
            len.map_err(|source| LoadError::Io { path: names.0.display().to_string(), source })?;
        Self::new(Box::new(opened), len.len(), names).map(|(opened, _)| opened)
    }

    /// Opens a file that is checked against its hash while it is read.
    pub fn open_stored(stored: &StoredFile, file: &str) -> Result<Self, LoadError> {
        let path = &stored.path;
        let opened = File::open(path).and_then(|reader| Ok((reader.metadata()?.len(), reader)));
        let opened = opened
            .map_err(|e| stored.io(e))
            .and_then(|(len, reader)| Self::new(Box::new(reader), len, (path, file)));
        let (mut opened, header) = opened.map_err(|error| stored.blame(error))?;
        let mut hasher = Hasher::new();
        hasher.update(&header);
        opened.stored = Some((stored.clone(), hasher));
        Ok(opened)
    }

    /// Opens a file in memory.
    pub fn of_bytes(bytes: &'a [u8], file: &str) -> Result<Self, LoadError> {
        let len = bytes.len() as u64;
        Self::new(Box::new(bytes), len, (Path::new(file), file)).map(|(opened, _)| opened)
    }

    /// Reads the header of a file of `len` bytes; gives it as well.
    pub(super) fn new(
        mut reader: Box<dyn Read + 'a>,
        len: u64,
        (path, file): (&Path, &str),
    ) -> Result<(Self, Vec<u8>), LoadError> {
        let path = path.display().to_string();
        let header = read_header(&mut reader)
            .map_err(|source| LoadError::Io { path: path.clone(), source })?;
        let tensors =
            parse_header(&header, len).map_err(|source| not_read(&header, file, source))?;
        let opened = Self { reader, file: file.to_owned(), path, tensors, stored: None };
        if let Some((name, info)) = opened.tensors().find(|(_, info)| !is_weight(info.dtype)) {
            let found = format!("{:?}", info.dtype);
            return Err(LoadError::Dtype { file: file.to_owned(), name, found });
        }
        Ok((opened, header))
    }

    /// How errors name the file.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The entries of the header that are no tensors.
    pub fn entries(&self) -> Option<&Entries> {
        self.tensors.metadata().as_ref()
    }

    /// Names, types and shapes, in the order of the file.
    pub fn tensors(&self) -> impl Iterator<Item = (String, &TensorInfo)> {
        self.tensors.offset_keys().into_iter().map(|name| {
            let info = self.tensors.info(&name).expect("it names this tensor");
            (name, info)
        })
    }

    /// Reads all tensors, one after the other. If the file is not what its hash says, the error may
    /// come after the last of them.
    pub fn each<E: From<LoadError>>(
        mut self,
        mut take: impl FnMut(RawTensor) -> Result<(), E>,
    ) -> Result<(), E> {
        let Self { reader, path, tensors, stored, .. } = &mut self;
        for name in tensors.offset_keys() {
            let TensorInfo { dtype, shape, data_offsets: (from, to) } =
                tensors.info(&name).expect("it names this tensor").clone();
            let mut bytes = vec![0; to - from];
            if let Err(source) = reader.read_exact(&mut bytes) {
                let error = LoadError::Io { path: path.clone(), source };
                return Err(match stored {
                    Some((stored, _)) => stored.blame(error),
                    None => error,
                }
                .into());
            }
            if let Some((_, hasher)) = stored {
                hasher.update(&bytes);
            }
            take(RawTensor { name, shape, dtype, bytes })?;
        }
        match stored {
            Some((stored, hasher)) if hasher.finalize() != stored.digest => {
                Err(stored.damaged().into())
            }
            _ => Ok(()),
        }
    }
}

/// Whether weights may have this type; tables of positions may be f64.
fn is_weight(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64)
}

/// Longest header that is read, as in the `safetensors` crate.
const LONGEST_HEADER: u64 = 100_000_000;
/// Bytes that state the header's length.
pub(super) const LENGTH: usize = 8;

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

/// How files begin that are often called safetensors and are none, what they are, and what to do.
/// No header that is read has such a length.
const FOREIGN: [(&[u8], &str, &str); 3] = [
    (
        b"version ",
        "is no weights but a pointer of git-lfs to them",
        "fetch what it stands for: `git lfs pull` in the folder of the model",
    ),
    (
        b"GGUF",
        "is a GGUF file by its first bytes, whose quantised weights are not supported",
        "take the original weights, as safetensors",
    ),
    (
        b"PK\x03\x04",
        "is a zip archive by its first bytes, as which pickle files are saved",
        "convert it to safetensors",
    ),
];

/// Why a file of this header cannot be read.
pub(super) fn not_read(header: &[u8], file: &str, source: SafeTensorError) -> LoadError {
    let file = file.to_owned();
    match FOREIGN.iter().find(|(start, ..)| header.starts_with(start)) {
        Some((_, what, help)) => LoadError::Foreign { file, what, help },
        None => LoadError::Format { file, source },
    }
}

/// The names of a header's entries, each of which may stand there once: readers differ in which of
/// two counts.
struct Names;

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once;
        impl<'de> Visitor<'de> for Once {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
                let mut seen = HashSet::new();
                while let Some((name, _)) = map.next_entry::<String, IgnoredAny>()? {
                    if let Some(name) = seen.replace(name) {
                        return Err(A::Error::custom(format!("`{name}` stands there twice")));
                    }
                }
                Ok(Names)
            }
        }
        deserializer.deserialize_map(Once)
    }
}

/// Refuses a header, the text of which is this, that names something twice.
pub(super) fn check_names(text: &[u8]) -> Result<(), SafeTensorError> {
    let names = serde_json::from_slice::<Names>(text);
    names.map(drop).map_err(SafeTensorError::InvalidHeaderDeserialization)
}

/// What the data are, which begin after the header, in a file of `len` bytes.
fn parse_header(header: &[u8], len: u64) -> Result<Metadata, SafeTensorError> {
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
    check_names(text.as_bytes())?;
    check_offsets(&tensors)?;
    if start as u64 + tensors.data_len() as u64 != len {
        return Err(SafeTensorError::MetadataIncompleteBuffer);
    }
    Ok(tensors)
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
