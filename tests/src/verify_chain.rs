//! The firmware's verifier on files: any chain, any name, any time.
//!
//! **What it is.** What the program `verify-chain` does: it reads certificates as others write them
//! (PEM, several to a file, or DER) and asks the verifier that runs on the boards. A corpus of
//! certificates that somebody else has made can so be run through it.
//!
//! **What it must never do.** Help: a file that is no certificate goes to the verifier as it is, and
//! the refusal is the verifier's.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fleetcert_core::time::{Confidence, Reading, Wall};
use fleetcert_firmware::verifier::{
    AnchorError, Portable, Refusal, Server, ServerName, Verified, Verifier,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_cert::der::DateTime;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// Files of the roots.
    pub anchors: Vec<PathBuf>,
    /// Files of the chain, in its order.
    pub chain: Vec<PathBuf>,
    /// The server's name or address.
    pub name: String,
    /// What the server is to the device.
    pub server: Server,
    /// What the device knows of the time.
    pub reading: Reading,
}

/// Why there is no yes.
#[derive(Debug)]
pub enum No {
    /// The roots are none.
    Anchor(AnchorError),
    /// A file cannot be read.
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The name is neither that of DNS nor an address.
    Name(String),
    /// The verifier refuses the chain.
    Refused(Refusal),
}

impl No {
    /// Whether nothing was judged, because the question made no sense.
    #[must_use]
    pub const fn is_of_usage(&self) -> bool {
        matches!(self, Self::File { .. } | Self::Name(_))
    }
}

impl fmt::Display for No {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anchor(error) => write!(f, "{}: {error}", error.code()),
            Self::File { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Name(name) => {
                write!(f, "expected a DNS name or an address, found {name:?}")
            }
            Self::Refused(refusal) => write!(f, "{}: {refusal}", refusal.code()),
        }
    }
}

impl std::error::Error for No {}

/// Asks the verifier.
///
/// # Errors
///
/// [`No`], with the verifier's reason if it got as far.
pub fn ask(question: &Question) -> Result<Verified, No> {
    let name = ServerName::try_from(question.name.as_str())
        .map_err(|_| No::Name(question.name.clone()))?;
    let anchors = read_all(&question.anchors)?;
    let chain = read_all(&question.chain)?;
    let anchors: Vec<&[u8]> = anchors.iter().map(Vec::as_slice).collect();
    let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
    let verifier = Verifier::new(&anchors, Portable).map_err(No::Anchor)?;
    verifier.verify(&chain, &name, question.server, question.reading).map_err(No::Refused)
}

/// A clock that is believed and says `wall`.
#[must_use]
pub const fn trusted(wall: Wall) -> Reading {
    Reading { wall: Some(wall), confidence: Confidence::Trusted, floor: wall }
}

/// No clock, and the time is certainly not before `floor`.
#[must_use]
pub const fn unknown(floor: Wall) -> Reading {
    Reading { wall: None, confidence: Confidence::Unknown, floor }
}

/// A clock that says `wall` and that nobody vouches for.
#[must_use]
pub const fn floored(wall: Wall, floor: Wall) -> Reading {
    Reading { wall: Some(wall), confidence: Confidence::Floored, floor }
}

/// The certificates of files, in their order.
fn read_all(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>, No> {
    let mut all = Vec::new();
    for path in paths {
        let octets = read(path)?;
        let pem: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&octets).collect();
        match pem {
            Ok(certificates) if !certificates.is_empty() => {
                all.extend(certificates.into_iter().map(|certificate| certificate.to_vec()));
            }
            _ => all.push(octets),
        }
    }
    Ok(all)
}

fn read(path: &Path) -> Result<Vec<u8>, No> {
    fs::read(path).map_err(|source| No::File { path: path.to_path_buf(), source })
}

/// A time as people write it: seconds since 1970, or RFC 3339 §5.6.
///
/// # Errors
///
/// What was expected, if it is neither, or before 1970.
pub fn parse_time(text: &str) -> Result<Wall, String> {
    let expected = || format!("expected seconds since 1970 or RFC 3339, found {text:?}");
    match text.parse() {
        Ok(seconds) => Ok(Wall(seconds)),
        Err(_) => rfc_3339(text).ok_or_else(expected),
    }
}

/// A date, a time, perhaps a fraction (which is dropped), and Z or an offset.
fn rfc_3339(text: &str) -> Option<Wall> {
    let (civil, rest) = text.split_at_checked(19)?;
    let civil: DateTime = format!("{civil}Z").replace(['t', ' '], "T").parse().ok()?;
    let rest = match rest.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => rest,
    };
    let local = civil.unix_duration().as_secs();
    let (sign, offset) = rest.split_at_checked(1)?;
    match (sign, offset) {
        ("Z" | "z", "") => Some(Wall(local)),
        ("+", offset) => local.checked_sub(offset_s(offset)?).map(Wall),
        ("-", offset) => local.checked_add(offset_s(offset)?).map(Wall),
        _ => None,
    }
}

/// `hh:mm` in seconds.
fn offset_s(text: &str) -> Option<u64> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str, max| {
        let is_number = text.len() == 2 && text.bytes().all(|octet| octet.is_ascii_digit());
        text.parse::<u64>().ok().filter(|number| is_number && *number <= max)
    };
    Some(number(hours, 23)? * 3_600 + number(minutes, 59)? * 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_in_seconds_and_in_rfc_3339_with_any_offset() {
        for text in [
            "1795306507",
            "2026-11-22T00:15:07Z",
            "2026-11-22t00:15:07z",
            "2026-11-22T00:15:07.123456Z",
            "2026-11-22T01:15:07+01:00",
            "2026-11-21T20:45:07-03:30",
        ] {
            assert_eq!(parse_time(text), Ok(Wall(1_795_306_507)), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused_with_what_was_expected() {
        for text in [
            "",
            "-1",
            "now",
            "2026-11-22",
            "2026-11-22T00:15:07",
            "2026-13-22T00:15:07Z",
            "2026-11-22T00:15:07+1:00",
            "2026-11-22T00:15:07+01:60",
            "2026-11-22T00:15:07Z more",
            "1970-01-01T00:00:00+00:01",
            "2026-11-22T00:15:0é",
        ] {
            let error = parse_time(text).unwrap_err();
            assert!(error.contains("RFC 3339"), "{text}: {error}");
        }
    }
}
