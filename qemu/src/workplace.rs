//! The folder in which a run happens, and which is gone afterwards.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::error::RigError;
use crate::leftovers;

/// A temporary folder.
#[derive(Debug)]
pub struct Workplace {
    folder: TempDir,
}

impl Workplace {
    /// A new, empty folder that only we can read.
    ///
    /// # Errors
    ///
    /// [`RigError::Io`] when it cannot be made.
    pub fn new() -> Result<Self, RigError> {
        let folder =
            TempDir::with_prefix("fleetcert-demo-").map_err(RigError::io(&std::env::temp_dir()))?;
        leftovers::add_folder(folder.path());
        Ok(Self { folder })
    }

    /// A path inside.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }
}
