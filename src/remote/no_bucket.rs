//! Stands for `bucket.rs` in a program that was built without remote caches: there is none to ask.

use std::{io::Write, path::Path};

use url::Url;

use super::{Patience, RemoteError, Sent};

/// None exists.
#[derive(Debug)]
pub(super) enum Bucket {}

impl Bucket {
    pub(super) fn open(_: &Url, _: Patience) -> Result<Self, RemoteError> {
        Err(RemoteError::NotBuilt)
    }

    pub(super) fn get(&self, _: &str) -> Result<Option<Vec<u8>>, RemoteError> {
        match *self {}
    }

    pub(super) fn size(&self, _: &str) -> Result<Option<u64>, RemoteError> {
        match *self {}
    }

    pub(super) fn download(&self, _: &str, _: u64, _: &mut dyn Write) -> Result<bool, RemoteError> {
        match *self {}
    }

    pub(super) fn create(&self, _: &str, _: &[u8]) -> Result<bool, RemoteError> {
        match *self {}
    }

    pub(super) fn upload(&self, _: &str, _: &Path) -> Result<Sent, RemoteError> {
        match *self {}
    }

    pub(super) fn list(&self, _: &str) -> Result<Vec<(String, u64)>, RemoteError> {
        match *self {}
    }
}
