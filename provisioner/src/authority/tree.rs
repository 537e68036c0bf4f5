//! How the two trees begin: a root and an issuing authority each.
//!
//! The roots sign once and leave: their keys exist outside memory only as PKCS#8 encrypted under
//! a passphrase (PBES2, scrypt, AES-256-CBC), for a drawer.

use fleetcert_core::time::Wall;
use zeroize::Zeroizing;

use crate::random::Random;

/// Which of the two trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TreeKind {
    /// Devices.
    Device,
    /// The provisioner and the brokers.
    Server,
}

/// What a new tree is called and how long it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeSettings {
    /// The organisation in the authorities' subjects, 1 to 64 characters.
    pub organisation: String,
    /// Lifetime of the root, seconds.
    pub root_lifetime_s: u64,
    /// Lifetime of the issuing authority, seconds.
    pub issuing_lifetime_s: u64,
}

/// A tree just made. The private keys are wiped when this is dropped.
pub struct NewTree {
    /// Which one.
    pub kind: TreeKind,
    /// The root's certificate, DER.
    pub root_certificate: Vec<u8>,
    /// The root's private key: encrypted PKCS#8 in PEM, for a drawer.
    pub root_key_encrypted_pem: Zeroizing<String>,
    /// The issuing authority's certificate, DER.
    pub issuing_certificate: Vec<u8>,
    /// The issuing authority's private key: PKCS#8 in PEM, for a file only the service can read.
    pub issuing_key_pem: Zeroizing<String>,
}

/// Why no tree was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreeError {
    /// A certificate could not be built.
    Builder(rcgen::Error),
    /// The root key could not be encrypted.
    Encryption,
    /// The issuing authority would outlive its root.
    Lifetimes {
        /// Lifetime of the root, seconds.
        root_s: u64,
        /// Lifetime of the issuing authority, seconds.
        issuing_s: u64,
    },
    /// The passphrase has fewer than [`PASSPHRASE_LEN_MIN`] octets.
    Passphrase {
        /// How many it has.
        found_len: usize,
    },
}

/// Octets of the passphrase that guards a root key, at least.
pub const PASSPHRASE_LEN_MIN: usize = 12;

/// Makes a tree.
///
/// # Errors
///
/// [`TreeError`] says what is wrong with the settings or the passphrase.
pub fn create(
    kind: TreeKind,
    settings: &TreeSettings,
    passphrase: &str,
    now: Wall,
    rng: &mut dyn Random,
) -> Result<NewTree, TreeError> {
    todo!()
}
/// A private key in PKCS#8 PEM, as [`Authority::from_der`](super::Authority::from_der) wants it.
///
/// # Errors
///
/// [`super::AuthorityError::Key`] if the text is no such key.
pub fn key_from_pem(pem: &str) -> Result<Zeroizing<Vec<u8>>, super::AuthorityError> {
    todo!()
}
