//! What must be gone when the rig is gone: process groups and temporary folders.
//!
//! Guards release what they own when they are dropped. A panic in a release build aborts, and no
//! guard is dropped: the hook of [`sweep_on_panic`] runs before that and removes whatever is still
//! registered here. It must never touch a group that its guard has already collected, because the
//! number may belong to somebody else by then; hence a guard takes its group off the list before
//! it collects the exit status, which is what frees the number.

use std::collections::BTreeSet;
use std::fs;
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process_group};

/// The list of this process.
static LEFTOVERS: Leftovers = Leftovers::new();

/// Makes a panic kill every registered group and remove every registered folder before it aborts.
pub fn sweep_on_panic() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        LEFTOVERS.sweep();
        report(info);
    }));
}

/// A process group that somebody must end.
pub fn add_group(leader: Pid) {
    lock(&LEFTOVERS.groups).insert(leader.as_raw_nonzero().get());
}

/// The group is about to be collected by its guard.
pub fn forget_group(leader: Pid) {
    lock(&LEFTOVERS.groups).remove(&leader.as_raw_nonzero().get());
}

/// A folder that somebody must remove.
pub fn add_folder(path: &Path) {
    lock(&LEFTOVERS.folders).insert(path.to_path_buf());
}

struct Leftovers {
    groups: Mutex<BTreeSet<i32>>,
    folders: Mutex<BTreeSet<PathBuf>>,
}

impl Leftovers {
    const fn new() -> Self {
        Self { groups: Mutex::new(BTreeSet::new()), folders: Mutex::new(BTreeSet::new()) }
    }

    fn sweep(&self) {
        for leader in std::mem::take(&mut *lock(&self.groups)) {
            if let Some(leader) = Pid::from_raw(leader) {
                // A group that has ended by itself is what we want.
                let _ = kill_process_group(leader, Signal::KILL);
            }
        }
        for folder in std::mem::take(&mut *lock(&self.folders)) {
            // A folder that its guard has removed is what we want.
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// A panic elsewhere does not make these lists wrong: each change of them is one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Command;

    use super::*;

    /// Goal: what is registered is gone after a sweep, and what is not registered is untouched.
    #[test]
    fn a_sweep_ends_groups_and_removes_folders() {
        let folder = tempfile::tempdir().unwrap();
        let kept = tempfile::tempdir().unwrap();
        let mut child = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        let leftovers = Leftovers::new();
        lock(&leftovers.groups).insert(Pid::from_child(&child).as_raw_nonzero().get());
        lock(&leftovers.folders).insert(folder.path().to_path_buf());
        leftovers.sweep();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        assert!(!folder.path().exists());
        assert!(kept.path().exists());
    }
}
