//! `device import`: which TPM is in which device, from a list that the factory wrote.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use fleetcert_core::time::Wall;

use super::{Failure, output};
use crate::{
    attest::allow::{self, LIST_LEN_MAX},
    enroll::{ImportCount, ServiceError},
    files::FileError,
    installation::Installation,
    inventory::Name,
};

pub(super) async fn run(
    installation: &Installation,
    path: &Path,
    group: Name,
    operator: &str,
    now: Wall,
) -> Result<(), Failure> {
    let list =
        read(path).map_err(|source| FileError { operation: "read", path: path.into(), source })?;
    let entries = allow::parse(&list)
        .map_err(|error| Failure::List { path: path.into(), error: Box::new(error) })?;
    let done = installation.provisioner.import(&entries, group, operator, now).await;
    let counts = done.map_err(|error| match error {
        ServiceError::Import(error) => {
            let line = line_of(&list, entries.len(), error.index);
            Failure::ListLine { path: path.into(), line, error }
        }
        error => error.into(),
    })?;
    output::print(&text(counts));
    Ok(())
}

/// A whole list, or one octet more than any has.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut list = Vec::new();
    File::open(path)?.take(LIST_LEN_MAX as u64 + 1).read_to_end(&mut list)?;
    Ok(list)
}

/// The line, counted from 1, of the entry with that index: lines that are not empty are entries,
/// but for a heading before them.
fn line_of(list: &[u8], entries: usize, index: usize) -> usize {
    let text = String::from_utf8_lossy(list);
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let lines: Vec<usize> = lines.map(|(number, _)| number).collect();
    let headings = lines.len().saturating_sub(entries);
    lines.get(headings + index).copied().unwrap_or_default()
}

fn text(counts: ImportCount) -> String {
    let ImportCount { devices_added, listed, unchanged } = counts;
    format!(
        "{devices_added} devices added, {listed} that were there have their endorsement key \
         listed now, {unchanged} unchanged\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: an operator is sent to the line that is wrong, whatever stands between the entries.
    #[test]
    fn lines_are_counted_as_an_editor_does() {
        let ek = "aa".repeat(32);
        let heading = format!("device_id,ek_sha256\n\ngw-1,{ek}\n  \ngw-2,{ek}\n");
        assert_eq!([0, 1].map(|index| line_of(heading.as_bytes(), 2, index)), [3, 5]);
        let bare = format!("gw-1,{ek}\r\n\r\ngw-2,{ek}");
        assert_eq!([0, 1].map(|index| line_of(bare.as_bytes(), 2, index)), [1, 3]);
    }
}
