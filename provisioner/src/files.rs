//! Files as an operator wants to find them: whole or not there, and private ones private from
//! their first octet.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Mode of a file that holds a secret.
pub(crate) const PRIVATE: u32 = 0o600;

/// Mode of a file for everybody.
pub(crate) const PUBLIC: u32 = 0o644;

/// Mode of a folder that holds secrets.
pub(crate) const PRIVATE_FOLDER: u32 = 0o700;

/// Mode of a folder for everybody.
pub(crate) const PUBLIC_FOLDER: u32 = 0o755;

/// A file operation that did not work: what, on which file, and why.
#[derive(Debug)]
pub(crate) struct FileError {
    /// What was tried.
    pub(crate) operation: &'static str,
    /// On which file or folder.
    pub(crate) path: PathBuf,
    /// What the operating system says.
    pub(crate) source: io::Error,
}

impl std::fmt::Display for FileError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.operation, self.path.display(), self.source)
    }
}

impl std::error::Error for FileError {}

fn error(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> FileError {
    move |source| FileError { operation, path: path.into(), source }
}

/// Writes a file that must not be there yet, durably.
///
/// # Errors
///
/// [`FileError`]; an existing file is left as it is.
pub(crate) fn create(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    write_new(path, content, mode).and_then(|file| file.sync_all()).map_err(error("create", path))
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    Ok(file)
}

/// Writes a file for everybody, new or in place of another, whole but not durably: what it says is
/// about this process, and a power cut ends that too. A disk sync would only delay it.
///
/// # Errors
///
/// [`FileError`].
pub(crate) fn announce(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let new = beside(path);
    let _absent = fs::remove_file(&new);
    let _unsynced = write_new(&new, content, PUBLIC).map_err(error("create", &new))?;
    fs::rename(&new, path).map_err(error("replace", path))
}

/// Writes a file, new or in place of another, so that a reader sees the old or the new one whole.
///
/// # Errors
///
/// [`FileError`]; an existing file is left as it is.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let new = beside(path);
    // Left by a writer that was cut off; nobody else's file has this name.
    let _absent = fs::remove_file(&new);
    create(&new, content, mode)?;
    fs::rename(&new, path).map_err(error("replace", path))?;
    sync_folder(path)
}

/// The name under which a file is written before it takes its own.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

fn sync_folder(path: &Path) -> Result<(), FileError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(error("sync", folder))
}

/// Makes a folder, and those above it, where they are missing.
///
/// # Errors
///
/// [`FileError`].
pub(crate) fn folder(path: &Path, mode: u32) -> Result<(), FileError> {
    let made = fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(error("create folder", path))
}

/// Makes a folder that has to be new or empty.
///
/// # Errors
///
/// [`FileError`] with [`io::ErrorKind::DirectoryNotEmpty`] if something is in it: nothing that
/// exists is ever overwritten.
pub(crate) fn empty_folder(path: &Path, mode: u32) -> Result<(), FileError> {
    folder(path, mode)?;
    let first = fs::read_dir(path).map_err(error("read", path))?.next();
    match first {
        None => Ok(()),
        Some(_) => Err(error("write into", path)(io::ErrorKind::DirectoryNotEmpty.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    // Goal: a secret is never readable by others, not even while it is being replaced.
    #[test]
    fn modes_are_those_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        for write in [create, replace] {
            write(&path, b"secret", PRIVATE).unwrap();
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, PRIVATE);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    // Goal: nothing that exists is overwritten by something that should be new.
    #[test]
    fn what_exists_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        create(&path, b"first", PRIVATE).unwrap();
        let error = create(&path, b"second", PRIVATE).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        let error = empty_folder(folder.path(), PUBLIC_FOLDER).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::DirectoryNotEmpty);
    }
}
