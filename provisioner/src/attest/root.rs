//! Roots of endorsement: the authorities whose word on a TPM an operator takes.
//!
//! **What it is.** An [`EkRoot`] is a certificate of an authority that was found fit to issue
//! endorsement certificates, a vendor's root or an intermediate that the operator would rather
//! trust alone. [`read`] takes them from files: PEM or DER, one or several certificates each, or a
//! folder of such files. Vendors publish theirs, and the TCG and operating system vendors collect
//! them; none comes with this program, because whose TPMs are trusted is the operator's to say.
//!
//! **What it must never do.** Take a part of what it was given. A file that holds something else
//! than such certificates is named and nothing is taken: an operator who believes that a root is
//! trusted, or that one is not, must be right.
//!
//! **Why that is sound.** [`EkRoot::parse`] is the only way in, and it makes the same checks that a
//! chain's other authorities get; validity alone is left for the time of use. A root's own
//! signature says nothing: whoever could replace the file could sign it as well.

use std::{
    fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use fleetcert_core::time::Validity;
use rustls_pki_types::{CertificateDer, pem::PemObject};

use super::{
    HexError, digest_of_hex,
    ek::{self, EkError, Flaw, certificate::Certificate},
};
use crate::authority::{der::split_element, sha256, write_hex};

/// Octets of a file of roots, at most: a bundle of all vendors' is a tenth of that.
pub const FILE_LEN_MAX: u64 = 4 << 20;

/// Roots of a file or folder, at most. There are some hundred in the world.
pub const ROOTS_MAX: usize = 1_024;

/// Endings of files in a folder that are read; others (read-me, signatures) are left alone.
pub const EXTENSIONS: [&str; 4] = ["cer", "crt", "der", "pem"];

/// SHA-256 of a certificate: the name of a root for operators.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootId(pub [u8; 32]);

/// An authority that is trusted to certify endorsement keys.
#[derive(Clone, Debug)]
pub struct EkRoot {
    certificate: Certificate,
    id: RootId,
}

/// Why a certificate is no root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootError {
    /// It cannot be read.
    Flaw(Flaw),
    /// It can be read, and is not fit to issue endorsement certificates.
    Unfit(EkError),
}

/// Why no roots are taken from a file or folder.
#[derive(Debug)]
pub struct RootsError {
    /// Which file or folder.
    pub path: PathBuf,
    /// Why.
    pub fault: RootsFault,
}

/// What is wrong with a file or folder of roots.
#[derive(Debug)]
pub enum RootsFault {
    /// A certificate of it is no root.
    Certificate {
        /// Which, counted from 1.
        number: usize,
        /// Why.
        error: RootError,
    },
    /// There is no certificate in it.
    Empty,
    /// The operating system does not let us read it.
    Io(io::Error),
    /// Neither PEM nor DER, or PEM that is damaged.
    Malformed,
    /// The file is longer than [`FILE_LEN_MAX`].
    TooLong,
    /// More certificates than [`ROOTS_MAX`].
    TooMany,
}

impl RootId {
    /// Reads 64 hexadecimal digits, small or capital.
    ///
    /// # Errors
    ///
    /// [`HexError`].
    pub fn parse(text: &str) -> Result<Self, HexError> {
        digest_of_hex(text).map(Self)
    }
}

impl EkRoot {
    /// Takes a certificate, DER, as a root.
    ///
    /// # Errors
    ///
    /// [`RootError`] unless it is of an authority that may issue endorsement certificates. An
    /// expired one is taken: every chain to it will be refused, and say why.
    pub fn parse(der: &[u8]) -> Result<Self, RootError> {
        let certificate = Certificate::parse(der).map_err(RootError::Flaw)?;
        ek::judged_authority(&certificate).map_err(RootError::Unfit)?;
        Ok(Self { id: RootId(sha256(der)), certificate })
    }

    /// The name of the root for operators: SHA-256 of the certificate.
    #[must_use]
    pub const fn id(&self) -> RootId {
        self.id
    }

    /// The certificate, DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.certificate.der
    }

    /// Its subject as text (RFC 4514), safe to print.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.certificate.subject_text
    }

    /// When it is valid.
    #[must_use]
    pub const fn validity(&self) -> Validity {
        self.certificate.validity
    }

    pub(super) const fn certificate(&self) -> &Certificate {
        &self.certificate
    }
}

/// Reads the roots of a file, or of the files right in a folder that have one of the
/// [`EXTENSIONS`], in the order of their names. A root that is there more than once is taken once.
///
/// # Errors
///
/// [`RootsError`]; then none is taken.
pub fn read(path: &Path) -> Result<Vec<EkRoot>, RootsError> {
    let mut roots: Vec<EkRoot> = Vec::new();
    for file in files(path)? {
        for root in read_file(&file)? {
            if roots.iter().all(|earlier| earlier.id != root.id) {
                roots.push(root);
            }
            if roots.len() > ROOTS_MAX {
                return Err(error(path)(RootsFault::TooMany));
            }
        }
    }
    if roots.is_empty() { Err(error(path)(RootsFault::Empty)) } else { Ok(roots) }
}

fn error(path: &Path) -> impl Fn(RootsFault) -> RootsError + '_ {
    |fault| RootsError { path: path.into(), fault }
}

/// The file itself, or the files of a folder.
fn files(path: &Path) -> Result<Vec<PathBuf>, RootsError> {
    let unread = |source| error(path)(RootsFault::Io(source));
    if !fs::metadata(path).map_err(unread)?.is_dir() {
        return Ok(vec![path.into()]);
    }
    let entries = fs::read_dir(path).map_err(unread)?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths.collect::<io::Result<Vec<_>>>().map_err(unread)?;
    paths.retain(|path| has_extension(path) && path.is_file());
    paths.sort_unstable();
    Ok(paths)
}

fn has_extension(path: &Path) -> bool {
    let found = path.extension().and_then(|found| found.to_str()).unwrap_or_default();
    EXTENSIONS.iter().any(|known| found.eq_ignore_ascii_case(known))
}

fn read_file(path: &Path) -> Result<Vec<EkRoot>, RootsError> {
    let error = error(path);
    let mut content = Vec::new();
    let file = fs::File::open(path).map_err(|source| error(RootsFault::Io(source)))?;
    let read = file.take(FILE_LEN_MAX + 1).read_to_end(&mut content);
    if read.map_err(|source| error(RootsFault::Io(source)))? as u64 > FILE_LEN_MAX {
        return Err(error(RootsFault::TooLong));
    }
    parse_file(&content).map_err(error)
}

/// The roots of a file's content: certificates in PEM (RFC 7468), whatever text and other objects
/// stand around them, or in DER, one behind the other.
fn parse_file(content: &[u8]) -> Result<Vec<EkRoot>, RootsFault> {
    const PEM: &[u8] = b"-----BEGIN ";
    let is_pem = content.windows(PEM.len()).any(|window| window == PEM);
    let certificates = if is_pem { of_pem(content) } else { of_der(content) };
    let mut roots = Vec::new();
    for (index, der) in certificates?.iter().enumerate() {
        let root = EkRoot::parse(der);
        let number = index + 1;
        roots.push(root.map_err(|error| RootsFault::Certificate { number, error })?);
    }
    if roots.is_empty() { Err(RootsFault::Empty) } else { Ok(roots) }
}

fn of_pem(content: &[u8]) -> Result<Vec<Vec<u8>>, RootsFault> {
    let certificates = CertificateDer::pem_slice_iter(content);
    let certificates = certificates.map(|der| der.map(|der| der.to_vec()));
    certificates.collect::<Result<_, _>>().map_err(|_| RootsFault::Malformed)
}

fn of_der(mut content: &[u8]) -> Result<Vec<Vec<u8>>, RootsFault> {
    let mut certificates = Vec::new();
    while !content.is_empty() {
        let (first, rest) = split_element(content).ok_or(RootsFault::Malformed)?;
        certificates.push(first.to_vec());
        content = rest;
    }
    Ok(certificates)
}

impl fmt::Display for RootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for RootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootId({self})")
    }
}

impl fmt::Display for RootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flaw(flaw) => flaw.fmt(f),
            Self::Unfit(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RootError {}

impl fmt::Display for RootsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.fault)
    }
}

impl std::error::Error for RootsError {}

impl fmt::Display for RootsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate { number, error } => {
                write!(f, "certificate {number} is no EK root: {error}")
            }
            Self::Empty => write!(
                f,
                "no certificate is in it, expected some in PEM or DER (in a folder, in files that \
                 end in .{})",
                EXTENSIONS.join(", .")
            ),
            Self::Io(source) => source.fmt(f),
            Self::Malformed => {
                f.write_str("it is damaged or something else, expected certificates in PEM or DER")
            }
            Self::TooLong => write!(f, "it has more than {FILE_LEN_MAX} octets"),
            Self::TooMany => write!(f, "more than {ROOTS_MAX} certificates are in it"),
        }
    }
}

#[cfg(test)]
mod tests;
