//! A look at the header of an adapter file: it tells what is none before the file is read, which may be
//! larger than the memory.

use std::{fs::File, path::Path};

use super::super::params::{LoadError, TensorFile};

/// Refuses what is no file of a low-rank adapter by its header, which errors call `file`.
pub fn check_head(opened: File, file: &str) -> Result<(), LoadError> {
    let head = TensorFile::of_file(opened, (Path::new(file), file))?;
    let error = |message| Err(LoadError::Config { file: file.to_owned(), message });
    if let Some((name, _)) = head.tensors().find(|(name, _)| !may_be_part(name)) {
        return error(format!("`{name}` is not part of a low-rank adapter"));
    }
    if head.tensors().next().is_none() {
        return error("holds no tensors, so no adapter".to_owned());
    }
    Ok(())
}

/// Whether a tensor may be a factor or its scale in some program's names; which names are known shows when
/// the file is read.
fn may_be_part(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.contains("lora") || name.ends_with("alpha")
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    /// A file of this header and so many bytes, which take no space on the disk.
    fn checked(header: &str, len: u64) -> Result<(), String> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
        file.write_all(header.as_bytes()).unwrap();
        file.set_len(8 + header.len() as u64 + len).unwrap();
        file.rewind().unwrap();
        check_head(file, "a.safetensors").map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_of_a_terabyte_is_refused_by_its_header() {
        let values = 1_u64 << 38;
        let one = |name: &str, dtype: &str| {
            let end = values * 4;
            format!(
                r#"{{"{name}": {{"dtype": "{dtype}", "shape": [{values}], "data_offsets": [0, {end}]}}}}"#
            )
        };
        let refused = |name, dtype| checked(&one(name, dtype), values * 4).unwrap_err();
        insta::assert_snapshot!(refused("blocks.0.attn1.to_q.weight", "F32"), @"`a.safetensors`: `blocks.0.attn1.to_q.weight` is not part of a low-rank adapter");
        insta::assert_snapshot!(refused("blocks.0.lora_A.weight", "I32"), @"tensor `blocks.0.lora_A.weight` of `a.safetensors` is I32, but weights must be F32, F16 or BF16");
        assert!(checked(&one("lora_A", "F32"), 7).unwrap_err().contains("not a whole"));
        assert!(checked("{}", 0).unwrap_err().contains("holds no tensors"));
        for name in ["lora_unet_x.lora_down.weight", "x.lora_A.weight", "x.alpha"] {
            checked(&one(name, "F32"), values * 4).unwrap();
        }
    }
}
