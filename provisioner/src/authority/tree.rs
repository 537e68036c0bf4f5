//! How the two trees begin: a root and an issuing authority each.
//!
//! The roots sign once and leave: their keys exist outside memory only as PKCS#8 encrypted under
//! a passphrase (PBES2, scrypt, AES-256-CBC), for a drawer.

use std::fmt;

use fleetcert_core::time::Wall;
use p256::SecretKey;
use pkcs8::{
    EncodePrivateKey, LineEnding, PrivateKeyInfo, SecretDocument,
    pkcs5::{pbes2, scrypt},
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use zeroize::Zeroizing;

use super::{AuthorityError, PublicKey, Serial, issue::date, profile::BACKDATE_S_DEFAULT};
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
    /// No private key could be drawn, or one could not be read.
    Key,
    /// The organisation is empty or longer than [`ORGANISATION_LEN_MAX`].
    Organisation {
        /// How many characters it has.
        found_len: usize,
    },
    /// The passphrase has fewer than [`PASSPHRASE_LEN_MIN`] octets.
    Passphrase {
        /// How many it has.
        found_len: usize,
    },
}

/// Octets of the passphrase that guards a root key, at least.
pub const PASSPHRASE_LEN_MIN: usize = 12;

/// Characters of an organisation, at most (RFC 5280 appendix A.1, `ub-organization-name`).
pub const ORGANISATION_LEN_MAX: usize = 64;

/// The cost of a guess at the passphrase: five times 16 MiB of memory. More memory at once is more
/// than openssl takes by default, and a key in a drawer must open with what is at hand.
const SCRYPT_LOG_N: u8 = 14;
const SCRYPT_R: u32 = 8;
const SCRYPT_P: u32 = 5;
const SCRYPT_KEY_LEN: usize = 32;

/// How often a private key is drawn: one draw in 2^32 is outside the group's order, so that a
/// second miss means a source of randomness that is none.
const KEY_DRAWS_MAX: usize = 3;

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
    check(settings, passphrase)?;
    let grown = grow(kind, settings, now, rng)?;
    Ok(NewTree {
        kind,
        root_certificate: grown.root_certificate,
        root_key_encrypted_pem: encrypt(&grown.root_key, passphrase, rng)?,
        issuing_certificate: grown.issuing_certificate,
        issuing_key_pem: key_to_pem(&grown.issuing_key)?,
    })
}

/// A tree with its keys as they are.
pub(crate) struct Grown {
    pub(crate) root_key: Zeroizing<Vec<u8>>,
    pub(crate) root_certificate: Vec<u8>,
    pub(crate) issuing_key: Zeroizing<Vec<u8>>,
    pub(crate) issuing_certificate: Vec<u8>,
}

pub(crate) fn grow(
    kind: TreeKind,
    settings: &TreeSettings,
    now: Wall,
    rng: &mut dyn Random,
) -> Result<Grown, TreeError> {
    let (root_key, issuing_key) = (key(rng)?, key(rng)?);
    let (root_signer, issuing_signer) = (signer(&root_key)?, signer(&issuing_key)?);
    let root = params(kind, Level::Root, settings, &root_signer, now, rng)?;
    let issuing = params(kind, Level::Issuing, settings, &issuing_signer, now, rng)?;
    let root_certificate = root.self_signed(&root_signer).map_err(TreeError::Builder)?;
    let root_issuer = Issuer::from_params(&root, &root_signer);
    let issuing_certificate =
        issuing.signed_by(&issuing_signer, &root_issuer).map_err(TreeError::Builder)?;
    Ok(Grown {
        root_key,
        root_certificate: root_certificate.der().to_vec(),
        issuing_key,
        issuing_certificate: issuing_certificate.der().to_vec(),
    })
}

/// Draws a P-256 private key: PKCS#8 in DER.
///
/// # Errors
///
/// [`TreeError::Key`] if `rng` gives nothing that a key could be made of.
pub fn key(rng: &mut dyn Random) -> Result<Zeroizing<Vec<u8>>, TreeError> {
    let mut scalar = Zeroizing::new([0; 32]);
    for _ in 0..KEY_DRAWS_MAX {
        rng.fill(scalar.as_mut_slice());
        if let Ok(key) = SecretKey::from_slice(scalar.as_slice()) {
            let document = key.to_pkcs8_der().map_err(|_| TreeError::Key)?;
            return Ok(document.to_bytes());
        }
    }
    Err(TreeError::Key)
}

/// A private key in PKCS#8 PEM.
///
/// # Errors
///
/// [`TreeError::Key`] if `der` is no private key.
pub fn key_to_pem(der: &[u8]) -> Result<Zeroizing<String>, TreeError> {
    let document = SecretDocument::try_from(der).map_err(|_| TreeError::Key)?;
    document.to_pem("PRIVATE KEY", LineEnding::LF).map_err(|_| TreeError::Key)
}

/// The DER of a private key in PKCS#8 PEM, as
/// [`Authority::from_der`](super::Authority::from_der) wants it.
///
/// # Errors
///
/// [`AuthorityError::Key`] if the text is no such key.
pub fn key_from_pem(pem: &str) -> Result<Zeroizing<Vec<u8>>, AuthorityError> {
    let (label, document) = SecretDocument::from_pem(pem).map_err(|_| AuthorityError::Key)?;
    if label == "PRIVATE KEY" { Ok(document.to_bytes()) } else { Err(AuthorityError::Key) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Issuing,
    Root,
}

fn check(settings: &TreeSettings, passphrase: &str) -> Result<(), TreeError> {
    if passphrase.len() < PASSPHRASE_LEN_MIN {
        return Err(TreeError::Passphrase { found_len: passphrase.len() });
    }
    let found_len = settings.organisation.chars().count();
    if !(1..=ORGANISATION_LEN_MAX).contains(&found_len) {
        return Err(TreeError::Organisation { found_len });
    }
    let (root_s, issuing_s) = (settings.root_lifetime_s, settings.issuing_lifetime_s);
    if issuing_s > root_s || issuing_s == 0 {
        return Err(TreeError::Lifetimes { root_s, issuing_s });
    }
    Ok(())
}

fn params(
    kind: TreeKind,
    level: Level,
    settings: &TreeSettings,
    key: &KeyPair,
    now: Wall,
    rng: &mut dyn Random,
) -> Result<CertificateParams, TreeError> {
    let (lifetime_s, constraints) = match level {
        Level::Issuing => (settings.issuing_lifetime_s, BasicConstraints::Constrained(0)),
        Level::Root => (settings.root_lifetime_s, BasicConstraints::Unconstrained),
    };
    let day = |at| date(at).map_err(|_| TreeError::Builder(rcgen::Error::Time));
    let mut params = CertificateParams::default();
    params.not_before = day(now.minus_s(BACKDATE_S_DEFAULT))?;
    params.not_after = day(now.plus_s(lifetime_s))?;
    params.serial_number = Some(SerialNumber::from_slice(Serial::draw(rng).as_octets()));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, settings.organisation.as_str());
    params.distinguished_name.push(DnType::CommonName, common_name(kind, level));
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = level == Level::Issuing;
    params.key_identifier_method = KeyIdMethod::PreSpecified(key_id(key)?.to_vec());
    Ok(params)
}

const fn common_name(kind: TreeKind, level: Level) -> &'static str {
    match (kind, level) {
        (TreeKind::Device, Level::Issuing) => "Fleet Device Issuing CA",
        (TreeKind::Device, Level::Root) => "Fleet Device Root CA",
        (TreeKind::Server, Level::Issuing) => "Fleet Server Issuing CA",
        (TreeKind::Server, Level::Root) => "Fleet Server Root CA",
    }
}

fn key_id(key: &KeyPair) -> Result<[u8; 20], TreeError> {
    let key = PublicKey::from_spki(&key.subject_public_key_info()).map_err(|_| TreeError::Key)?;
    Ok(key.id().0)
}

fn signer(pkcs8: &[u8]) -> Result<KeyPair, TreeError> {
    KeyPair::try_from(pkcs8).map_err(TreeError::Builder)
}

fn encrypt(
    key: &[u8],
    passphrase: &str,
    rng: &mut dyn Random,
) -> Result<Zeroizing<String>, TreeError> {
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    rng.fill(&mut salt);
    rng.fill(&mut iv);
    let scrypt = scrypt::Params::new(SCRYPT_LOG_N, SCRYPT_R, SCRYPT_P, SCRYPT_KEY_LEN);
    let scrypt = scrypt.map_err(|_| TreeError::Encryption)?;
    let scrypt = pbes2::Parameters::scrypt_aes256cbc(scrypt, &salt, &iv);
    let key = PrivateKeyInfo::try_from(key).map_err(|_| TreeError::Encryption)?;
    let encrypted = key
        .encrypt_with_params(scrypt.map_err(|_| TreeError::Encryption)?, passphrase)
        .map_err(|_| TreeError::Encryption)?;
    let pem = encrypted.to_pem("ENCRYPTED PRIVATE KEY", LineEnding::LF);
    pem.map_err(|_| TreeError::Encryption)
}

impl fmt::Debug for NewTree {
    /// Which tree; nothing of its keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewTree").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builder(cause) => {
                write!(f, "an authority's certificate cannot be built: {cause}")
            }
            Self::Encryption => f.write_str("the root key cannot be encrypted"),
            Self::Key => f.write_str("no P-256 key could be drawn or read"),
            Self::Lifetimes { root_s, issuing_s } => write!(
                f,
                "the issuing authority would live {issuing_s} s, expected 1 s to the root's {root_s} s"
            ),
            Self::Organisation { found_len } => write!(
                f,
                "the organisation has {found_len} characters, expected 1 to {ORGANISATION_LEN_MAX}"
            ),
            Self::Passphrase { found_len } => write!(
                f,
                "the passphrase has {found_len} octets, expected {PASSPHRASE_LEN_MIN} or more"
            ),
        }
    }
}

impl std::error::Error for TreeError {}
