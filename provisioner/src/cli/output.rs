//! Writing for people and for scripts.

use std::io::{self, Write};

use serde_json::Value;

use fleetcert_core::time::Wall;

use super::Failure;
use crate::authority::KeyFingerprint;

/// The version of everything that `--json` prints.
pub(super) const SCHEMA: u32 = 1;

/// Writes text to standard output. A reader that has left (`| head`) is no failure of ours.
pub(crate) fn print(text: &str) {
    let _left = io::stdout().lock().write_all(text.as_bytes());
}

/// Writes one JSON document to standard output.
pub(super) fn print_json(value: &Value) {
    print(&format!("{value:#}\n"));
}

/// Writes why a command failed to standard error.
pub(super) fn error(failure: &Failure) {
    let line = format!("fleetcert-provisioner: {failure}\n");
    let _closed = io::stderr().lock().write_all(line.as_bytes());
}

/// An instant that may be missing, for people.
pub(super) fn time_or_dash(wall: Option<Wall>) -> String {
    wall.map_or_else(|| "-".to_owned(), |wall| wall.to_string())
}

/// A table with aligned columns; the last column is as wide as it is.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = padded.collect::<Vec<_>>().join("  ");
        format!("{}\n", line.trim_end())
    };
    let mut text = line(&mut head.iter().copied());
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}

/// Reads the fingerprint of a key as `device show` prints it.
pub(super) fn fingerprint(text: &str) -> Result<KeyFingerprint, &'static str> {
    const EXPECTED: &str = "expected the 64 hexadecimal digits of a SHA-256";
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(EXPECTED);
    }
    let mut octets = [0; 32];
    for (octet, pair) in octets.iter_mut().zip(0..) {
        let digits = text.get(2 * pair..2 * pair + 2).ok_or(EXPECTED)?;
        *octet = u8::from_str_radix(digits, 16).map_err(|_| EXPECTED)?;
    }
    Ok(KeyFingerprint(octets))
}

/// Who is at the command line, for the audit: the person behind `sudo` where there is one.
pub(crate) fn operator() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    let plain = |text: &String| {
        (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
    };
    named.filter(plain).unwrap_or_else(|| format!("uid-{}", rustix::process::getuid().as_raw()))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: columns line up whatever is in them, and lines do not end in blanks.
    #[test]
    fn tables_are_aligned() {
        let rows = [vec!["gateway-7".to_owned(), "é".to_owned()], vec!["d".into(), String::new()]];
        assert_eq!(table(&["DEVICE", "S"], &rows), "DEVICE     S\ngateway-7  é\nd\n");
    }

    // Goal: only a whole fingerprint names a key.
    #[test]
    fn fingerprints_are_read_whole() {
        let key = KeyFingerprint([0xa5; 32]);
        assert_eq!(fingerprint(&key.to_string()), Ok(key));
        assert!(fingerprint("a5").is_err());
        assert!(fingerprint(&"+5".repeat(32)).is_err());
    }
}
