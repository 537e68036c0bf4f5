//! The store on SQLite: write-ahead log, synchronous=FULL, one writer that commits in groups.

use std::path::Path;

use super::StoreError;

/// A store in one file, beside its write-ahead log.
#[derive(Clone, Debug)]
pub struct SqliteStore {}

impl SqliteStore {
    /// Opens the database at `path`, creates it if it is not there, and brings its schema up to
    /// this release.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the file cannot be used; [`StoreError::Corrupt`] if its schema is of
    /// a newer release.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        todo!()
    }

    /// Waits until what was accepted is durable and closes the file.
    pub async fn close(&self) {
        todo!()
    }
}
