//! What a pipeline's results were made from, in the forms that others check: a Workflow Run
//! RO-Crate (`ro_crate`) and a signed in-toto statement (`statement`, `envelope`).

pub mod envelope;
mod facts;
pub mod ro_crate;
pub mod statement;

pub use facts::{Executed, Facts, FactsError, InputList, ModelFact, PipelineFile};

use std::io::{self, Read};

use data_encoding::HEXLOWER;
use ring::digest::{Context, SHA256, digest};

/// The SHA-256 of bytes, in hexadecimal.
fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest(&SHA256, bytes).as_ref())
}

/// The SHA-256 of what is read, and its length.
fn sha256_of(mut reader: impl Read) -> io::Result<(String, u64)> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 16];
    let mut length = 0;
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok((HEXLOWER.encode(context.finish().as_ref()), length)),
            read => {
                context.update(&buffer[..read]);
                length += read as u64;
            }
        }
    }
}
