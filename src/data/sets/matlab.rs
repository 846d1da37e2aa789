//! The part of MATLAB's file format (level 5) that BSDS500 is written in.

use std::io::Read;

use flate2::read::ZlibDecoder;

/// Types of elements in a file.
const INT8: u32 = 1;
const UINT8: u32 = 2;
const INT32: u32 = 5;
const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;

/// Classes of arrays.
const CELL: u8 = 1;
const STRUCT: u8 = 2;
const LAST_INTEGER: [u8; 2] = [8, 9];

/// What is read of a compressed element, at most: a limit for damaged files.
const MAX_BYTES: u64 = 1 << 28;

/// Arrays within each other cannot be deeper in this data set.
const MAX_DEPTH: usize = 6;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum MatError {
    #[error("it ends within an element")]
    Short,
    #[error("it is not a MATLAB file of level 5 in little-endian order")]
    Header,
    #[error("an array has a form that this data set does not use")]
    Form,
    #[error("a compressed part is damaged")]
    Compression,
}

/// An array of bytes, column by column.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bytes {
    pub rows: usize,
    pub columns: usize,
    pub values: Vec<u8>,
}

/// The arrays of bytes in the fields of this name, in the order of the file, wherever they are.
pub(super) fn fields(file: &[u8], name: &str) -> Result<Vec<Bytes>, MatError> {
    if file.len() < 128 || !file.starts_with(b"MATLAB 5.0") || &file[126..128] != b"IM" {
        return Err(MatError::Header);
    }
    let mut found = Vec::new();
    let mut rest = &file[128..];
    while !rest.is_empty() {
        let (kind, mut data) = element(&mut rest)?;
        let unpacked;
        if kind == COMPRESSED {
            unpacked = inflate(data)?;
            data = &unpacked;
            let (kind, inner) = element(&mut data)?;
            if kind == MATRIX {
                collect(inner, name, false, 0, &mut found)?;
            }
        } else if kind == MATRIX {
            collect(data, name, false, 0, &mut found)?;
        }
    }
    Ok(found)
}

fn inflate(data: &[u8]) -> Result<Vec<u8>, MatError> {
    let mut unpacked = Vec::new();
    let mut reader = ZlibDecoder::new(data).take(MAX_BYTES);
    reader.read_to_end(&mut unpacked).map_err(|_| MatError::Compression)?;
    Ok(unpacked)
}

/// Takes the next element: its type and content. Small ones hold both in eight bytes.
fn element<'a>(rest: &mut &'a [u8]) -> Result<(u32, &'a [u8]), MatError> {
    let word = |bytes: &[u8], at: usize| {
        let four = bytes.get(at..at + 4).ok_or(MatError::Short)?;
        Ok(u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
    };
    let tag = word(rest, 0)?;
    let (kind, start, length) = if tag >> 16 == 0 {
        (tag, 8, word(rest, 4)? as usize)
    } else {
        (tag & 0xffff, 4, (tag >> 16) as usize)
    };
    let end = start + length;
    let data = rest.get(start..end).ok_or(MatError::Short)?;
    // Elements begin at multiples of eight bytes, but for what is compressed.
    let next = if kind == COMPRESSED { end } else { end.next_multiple_of(8) };
    *rest = rest.get(next..).unwrap_or_default();
    Ok((kind, data))
}

/// Looks through an array; `wanted` says that it is a field of the right name.
fn collect(
    mut data: &[u8],
    name: &str,
    wanted: bool,
    depth: usize,
    found: &mut Vec<Bytes>,
) -> Result<(), MatError> {
    if depth > MAX_DEPTH {
        return Err(MatError::Form);
    }
    if data.is_empty() {
        return Ok(());
    }
    let (_, flags) = element(&mut data)?;
    let class = *flags.first().ok_or(MatError::Short)?;
    let (kind, sides) = element(&mut data)?;
    if kind != INT32 || sides.len() != 8 {
        return Err(MatError::Form);
    }
    let side =
        |at: usize| i32::from_le_bytes([sides[at], sides[at + 1], sides[at + 2], sides[at + 3]]);
    let size = [side(0), side(4)].map(|side| usize::try_from(side).unwrap_or(0));
    let _ = element(&mut data)?; // the name of the array
    match class {
        CELL => {
            while !data.is_empty() {
                let (_, inner) = element(&mut data)?;
                collect(inner, name, false, depth + 1, found)?;
            }
        }
        STRUCT => {
            let (_, width) = element(&mut data)?;
            let width = usize::from(*width.first().ok_or(MatError::Short)?).max(1);
            let (kind, names) = element(&mut data)?;
            if kind != INT8 {
                return Err(MatError::Form);
            }
            let names: Vec<_> = names
                .chunks(width)
                .map(|n| n.split(|byte| *byte == 0).next().unwrap_or(n))
                .collect();
            let mut at = 0;
            while !data.is_empty() && !names.is_empty() {
                let (_, inner) = element(&mut data)?;
                collect(inner, name, names[at % names.len()] == name.as_bytes(), depth + 1, found)?;
                at += 1;
            }
        }
        _ if wanted => {
            let (kind, values) = element(&mut data)?;
            let [rows, columns] = size;
            if kind != UINT8 || !LAST_INTEGER.contains(&class) || values.len() != rows * columns {
                return Err(MatError::Form);
            }
            found.push(Bytes { rows, columns, values: values.to_vec() });
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An element with its tag and padding.
    fn pack(kind: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = [kind.to_le_bytes(), (data.len() as u32).to_le_bytes()].concat();
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    fn array(class: u8, size: [i32; 2], content: &[u8]) -> Vec<u8> {
        let sides = size.map(i32::to_le_bytes).concat();
        let head = [pack(6, &[class, 0, 0, 0, 0, 0, 0, 0]), pack(INT32, &sides), pack(INT8, b"")];
        pack(MATRIX, &[head.concat(), content.to_vec()].concat())
    }

    fn file() -> Vec<u8> {
        let bytes = |values: &[u8]| array(9, [2, 1], &pack(UINT8, values));
        let names = pack(INT8, b"Segments\0\0Lines\0\0\0\0\0");
        let one = |values: &[u8]| {
            let width = [0x05, 0, 4, 0, 10, 0, 0, 0].to_vec();
            let content = [width, names.clone(), bytes(&[9, 9]), bytes(values)].concat();
            array(STRUCT, [1, 1], &content)
        };
        let cells = array(CELL, [1, 2], &[one(&[1, 0]), one(&[0, 1])].concat());
        let mut file = b"MATLAB 5.0 MAT-file".to_vec();
        file.resize(126, b' ');
        file.extend(b"IM");
        file.extend(cells);
        file
    }

    #[test]
    fn fields_of_structs_in_cells_are_found() {
        let found = fields(&file(), "Lines").unwrap();
        assert_eq!(found.iter().map(|f| f.values.clone()).collect::<Vec<_>>(), [[1, 0], [0, 1]]);
        assert_eq!((found[0].rows, found[0].columns), (2, 1));
        assert_eq!(fields(&file(), "Other").unwrap(), []);
        assert_eq!(fields(b"MATLAB 7.3", "Lines").unwrap_err(), MatError::Header);
    }

    proptest! {
        #[test]
        fn damaged_files_are_errors(at in 128usize..300, byte: u8, length in 0usize..400) {
            let mut file = file();
            let place = at.min(file.len() - 1);
            file[place] = byte;
            file.truncate(length);
            let _ = fields(&file, "Lines");
        }
    }
}
