//! Whether a server is the one that the device means: its chain of certificates, judged.
//!
//! **What it is.** A [`Verifier`] holds the pinned server roots and answers one question: does this
//! chain prove, to a device with this much knowledge of the time, that its leaf is the server of
//! this name? A yes is a [`Verified`], with the key that has to sign the handshake; a no is a
//! [`Refusal`], one for each cause, with a stable code.
//!
//! **What it must never do.** Believe without a path: a chain leads to a pinned root, by signatures
//! of issuers that are authorities (`basicConstraints`), may sign certificates (`keyUsage`), in no
//! greater number than each allows (path length), for names that each may certify; the leaf is for
//! server authentication and for the name; all of it at one time that [`Server`] and the
//! clock allow; and no certificate has a critical extension that was not understood. A device's
//! own leaf can therefore sign no server. Nor may a hostile chain cost more than a good one by much:
//! certificates, octets and verified signatures are counted, and each has its limit.
//!
//! **Why that is sound.** The path is rustls-webpki's, without a heap; what it leaves open is asked
//! here: key usage, doubled and empty extensions, and when ([`Server`],
//! `docs/decisions/0003-server-time.md`). The curve is the [`Ecdsa`] that the board chose. An
//! anchor is taken as given: its own signature is never verified, and a copy of it that a server
//! sends along (brokers do) is dropped before a path is looked for, so that it costs nothing. What an
//! anchor has signed is verified once in the life of a [`Verifier`], which remembers the last
//! [`REMEMBERED_MAX`] such signatures and nothing but that they are good: a path is looked for,
//! dates, names and constraints are checked, and signatures counted, as if it did not
//! (`docs/decisions/0020-remembered-signatures.md`).
//!
//! What a server's certificate may look like is narrower than RFC 5280 on purpose, since the tree
//! is our own: `serverAuth` has to be said, issuers have a key usage, signatures are ECDSA on P-256
//! with SHA-256. There is no revocation here: server certificates are short-lived, and a broken
//! server tree is answered by another root.

mod budget;
mod certificate;
mod memory;
mod refusal;

use core::time::Duration;

use fleetcert_core::time::server::Instants;
use fleetcert_core::time::{Reading, Validity, Wall};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use self::budget::Budgeted;
use self::certificate::{Outline, Role};
use self::memory::{Memory, Recalling};
use self::refusal::Refused;
use crate::console::warn;

pub use fleetcert_core::time::server::Server;
pub use rustls_pki_types::{DnsName, IpAddr, ServerName};

pub use self::memory::REMEMBERED_MAX;
pub use self::refusal::{AnchorError, Refusal};
pub use crate::ecdsa::{Ecdsa, POINT_LEN, Portable, SIGNATURE_LEN};

/// Roots that a device pins, at most: one, or two during a rollover.
pub const ANCHORS_MAX: usize = 2;

/// Certificates that a server may send, at most: a leaf, three authorities, and two roots.
pub const CERTIFICATES_MAX: usize = 6;

/// Octets of all certificates that a server may send, at most: what one TLS fragment of the length
/// that we ask for holds.
pub const CHAIN_LEN_MAX: usize = 4_096;

/// Signatures that are asked about for one chain, at most, remembered or not. A good one takes two or
/// three; a hostile one may offer many paths, each of which costs millions of instructions to refute.
pub const SIGNATURES_MAX: usize = 6;

/// The pinned server roots, and who computes.
#[derive(Debug)]
pub struct Verifier<'a, E> {
    anchors: heapless::Vec<CertificateDer<'a>, ANCHORS_MAX>,
    ecdsa: E,
    memory: Memory,
}

/// What a chain proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The server's key: an uncompressed point on P-256, which has to sign the handshake.
    pub point: [u8; POINT_LEN],
    /// The leaf's validity: a time that this server tells is believed only inside it, and its
    /// beginning is certainly past if the clock is to be trusted.
    pub validity: Validity,
}

impl<'a, E: Ecdsa> Verifier<'a, E> {
    /// A verifier that believes what leads to one of `anchors` (DER) and nothing else.
    ///
    /// # Errors
    ///
    /// [`AnchorError`] if there is none, too many, or one that could not have signed anything.
    pub fn new(anchors: &[&'a [u8]], ecdsa: E) -> Result<Self, AnchorError> {
        if anchors.is_empty() {
            return Err(AnchorError::Missing);
        }
        let mut pinned = heapless::Vec::new();
        for (index, der) in anchors.iter().enumerate() {
            let anchor = CertificateDer::from(*der);
            let outline = Outline::parse(der).ok_or(AnchorError::Malformed { index })?;
            outline.anchor().ok_or(AnchorError::Malformed { index })?;
            outline.point().ok_or(AnchorError::KeyUnsupported { index })?;
            let too_many = AnchorError::TooMany { found: anchors.len(), max: ANCHORS_MAX };
            pinned.push(anchor).map_err(|_| too_many)?;
        }
        Ok(Self { anchors: pinned, ecdsa, memory: Memory::default() })
    }

    /// Judges `chain` (DER, the leaf first, the rest in any order) of the server that is to have
    /// `name`, at the time that `reading` allows towards this kind of server.
    ///
    /// # Errors
    ///
    /// [`Refusal`]: the first that is found, on the path that came farthest.
    pub fn verify(
        &self,
        chain: &[&[u8]],
        name: &ServerName<'_>,
        server: Server,
        reading: Reading,
    ) -> Result<Verified, Refusal> {
        let (leaf, issuers) = self.sort(chain)?;
        let Self { anchors, ecdsa, memory } = self;
        let recalling = Recalling { ecdsa, memory, anchors };
        // Counts what is remembered, too: so the verdict is the same with and without.
        let budget = Budgeted::new(&recalling, SIGNATURES_MAX);
        let verdict = Instants::of(server, reading).verify(Refused::time_fault, |wall| {
            self.verify_at(&leaf, &issuers, name, wall, &budget)
        });
        verdict.map_err(|Refused { refusal, overstepped }| {
            if let Some(overstepped) = overstepped {
                warn(format_args!("a certificate's time: {overstepped}"));
            }
            match refusal {
                _ if budget.is_overdrawn() => Refusal::SignaturesTooMany,
                Refusal::AlgorithmUnsupported | Refusal::ServerKeyUnsupported if is_rsa(chain) => {
                    Refusal::RsaUnsupported
                }
                other => other,
            }
        })
    }

    /// The ECDSA that verifies, for what else a server signs.
    pub(crate) const fn ecdsa(&self) -> &E {
        &self.ecdsa
    }

    /// The leaf, and the issuers without copies of our anchors; within the limits.
    fn sort<'c>(&self, chain: &[&'c [u8]]) -> Result<(CertificateDer<'c>, Issuers<'c>), Refusal> {
        let (leaf, rest) = chain.split_first().ok_or(Refusal::Unsent)?;
        if chain.len() > CERTIFICATES_MAX {
            return Err(Refusal::ChainTooLong);
        }
        let len: usize = chain.iter().map(|certificate| certificate.len()).sum();
        if len > CHAIN_LEN_MAX {
            return Err(Refusal::ChainTooLarge);
        }
        let issuers = rest
            .iter()
            .map(|der| CertificateDer::from(*der))
            .filter(|certificate| !self.anchors.contains(certificate))
            .collect();
        Ok((CertificateDer::from(*leaf), issuers))
    }

    fn verify_at(
        &self,
        leaf: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        wall: Wall,
        budget: &Budgeted<'_, Recalling<'_, '_, E>>,
    ) -> Result<Verified, Refused> {
        let anchors: heapless::Vec<TrustAnchor<'_>, ANCHORS_MAX> =
            self.anchors.iter().filter_map(|anchor| Outline::parse(anchor)?.anchor()).collect();
        let certificate = EndEntityCert::try_from(leaf)?;
        let time = UnixTime::since_unix_epoch(Duration::from_secs(wall.0));
        // Where one is said, in an issuer too; that the leaf says it is asked below.
        let usage = KeyUsage::server_auth();
        let path =
            certificate.verify_for_usage(&[budget], &anchors, issuers, time, usage, None, None)?;
        for issuer in path.intermediate_certificates() {
            outline(&issuer.der())?.check(Role::Issuer)?;
        }
        let server = outline(leaf)?;
        server.check(Role::Server)?;
        certificate.verify_is_valid_for_subject_name(name)?;
        let point = server.point().ok_or(Refusal::ServerKeyUnsupported)?;
        let validity = server.validity().ok_or(Refusal::Malformed)?;
        Ok(Verified { point, validity })
    }
}

/// What a chain has besides its leaf.
type Issuers<'c> = heapless::Vec<CertificateDer<'c>, CERTIFICATES_MAX>;

fn outline<'c>(certificate: &'c CertificateDer<'_>) -> Result<Outline<'c>, Refusal> {
    Outline::parse(certificate).ok_or(Refusal::Malformed)
}

fn is_rsa(chain: &[&[u8]]) -> bool {
    chain.iter().filter_map(|der| Outline::parse(der)).any(|outline| outline.is_rsa())
}
