//! The chain of an endorsement key's certificate, from what a device sent to a root we trust.
//!
//! **What it is.** A path validation (RFC 5280 §6) cut to what TPM vendors issue. It exists because
//! general TLS verifiers refuse a part of the real intermediates (critical certificatePolicies) and
//! of the real leaves (critical subject alternative names that are no host names, empty subjects,
//! keys that cannot sign).
//!
//! **What is checked.** Of the leaf: nothing critical is left unread; its key is RSA-2048, 3072,
//! 4096, P-256, P-384 or P-521; it is no authority; it is *for* an endorsement key; its keyUsage,
//! where it has one, lets the key decrypt; it is valid now; it names its TPM. Of each issuer:
//! nothing critical is left unread; it is an authority that may sign certificates and, where it has
//! an extKeyUsage, those of endorsement keys; its pathLenConstraint holds; it is valid now; its
//! name is the one that the certificate below gives, and its key made the signature. Key
//! identifiers say where to look first and decide nothing.
//!
//! **The purpose is required.** The TCG's profile wants extKeyUsage tcg-kp-EKCertificate, but
//! certificates without it are in use. They are refused, because nothing else in a certificate
//! says that its key lives in a TPM and only ever decrypts: a vendor's authority also certifies
//! keys of other products and of platforms, and whoever holds one of those in software could
//! activate credentials with it. Devices with such a TPM can be let in by their key's hash
//! ([`allow`](super::allow)).
//!
//! **Roots** are certificates of authorities that an operator chose, each vendor's root or one of
//! its intermediates; vendors and the TCG publish them, none comes with this program. A root's own
//! signature is not checked, everything else about it is. Policies are understood as "any",
//! revocation lists are not read: an operator who hears of a lost authority removes its root.
//!
//! **What it must never do.** Believe anything of a certificate before its signature is checked up
//! to a root, or let a stranger choose how much work that is: octets, certificates, depth and
//! signature checks have limits, and the search for a path descends over verified signatures only.
//!
//! **Why that is sound.** A chain is returned only if every link of it was verified in this call.
//! What is returned was read from the octets that were verified, and the key comes out in its one
//! canonical form ([`spki`](super::spki)).

use der::asn1::ObjectIdentifier;
use fleetcert_core::{
    time::{Validity, Wall},
    wire::EK_CERTIFICATES_LEN_MAX,
};

use self::{certificate::Certificate, signature::SignatureFault};
use super::{EkId, model::TpmModel, root::EkRoot, spki::Key};
use crate::authority::der::split_element;

pub(super) mod certificate;
mod refusal;
mod signature;
mod sized;

pub use self::refusal::{EkError, Flaw};

/// Octets of all certificates that a device may send, at most.
pub const CERTIFICATES_LEN_MAX: usize = EK_CERTIFICATES_LEN_MAX;

/// Certificates that a device may send, at most: a leaf and the longest chains that are built on
/// the die (five authorities below the root), with two to spare.
pub const CERTIFICATES_MAX: usize = 8;

/// Certificates of a chain, at most, leaf and root included.
pub const CHAIN_LEN_MAX: usize = 8;

/// Signature checks for one device, at most. An honest chain needs one for each certificate, twice
/// that if its authority renewed every certificate under the same name.
pub const SIGNATURES_MAX: usize = 16;

/// tcg-kp-EKCertificate (TCG EK Credential Profile, extended key usage).
const EK_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.8.1");

/// anyExtendedKeyUsage (RFC 5280 §4.2.1.12).
const ANY_PURPOSE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");

/// An endorsement key whose certificate leads to a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EkCertificate {
    /// Its canonical `SubjectPublicKeyInfo`, DER, see [`spki`](super::spki).
    pub spki_der: Vec<u8>,
    /// The SHA-256 of that.
    pub id: EkId,
    /// The certificates of the chain, DER, from the leaf to the root, both included.
    pub chain: Vec<Vec<u8>>,
    /// The TPM that the leaf names.
    pub model: TpmModel,
    /// When the leaf is valid.
    pub validity: Validity,
}

/// Finds and verifies the chain of an endorsement key's certificate.
///
/// `certificates` are certificates in DER, one behind the other: the endorsement key's own first,
/// its issuers in any order, the root not needed. All have to be certificates; those that the chain
/// does not need are not judged further.
///
/// # Errors
///
/// [`EkError`]. If several issuers have the right name, it is about the likeliest one.
pub fn verify(certificates: &[u8], roots: &[EkRoot], now: Wall) -> Result<EkCertificate, EkError> {
    let all = parsed(certificates)?;
    let (leaf, bundle) = all.split_first().ok_or(EkError::Missing)?;
    let (key, model) = judged_leaf(leaf, now)?;
    let mut search = Search { bundle, roots, now, signatures: 0 };
    let mut path = vec![leaf];
    search.extend(&mut path, leaf)?;
    Ok(EkCertificate {
        spki_der: key.spki_der(),
        id: key.ek_id(),
        chain: path.into_iter().map(|certificate| certificate.der.clone()).collect(),
        model,
        validity: leaf.validity,
    })
}

fn parsed(mut certificates: &[u8]) -> Result<Vec<Certificate>, EkError> {
    let found_len = certificates.len();
    if found_len > CERTIFICATES_LEN_MAX {
        return Err(EkError::TooLong { found_len });
    }
    let mut all = Vec::new();
    while !certificates.is_empty() {
        let at = all.len();
        if at == CERTIFICATES_MAX {
            return Err(EkError::TooMany);
        }
        let of_it = |flaw| EkError::Flaw { at, flaw };
        let (first, rest) = split_element(certificates).ok_or_else(|| of_it(Flaw::Malformed))?;
        all.push(Certificate::parse(first).map_err(of_it)?);
        certificates = rest;
    }
    Ok(all)
}

/// What the leaf has to be, whoever signed it.
fn judged_leaf(leaf: &Certificate, now: Wall) -> Result<(&Key, TpmModel), EkError> {
    let extensions = &leaf.extensions;
    refuse_unknown(leaf)?;
    let key = leaf.key.as_ref().map_err(|found| EkError::KeyKind { found: *found })?;
    if extensions.is_ca {
        return Err(EkError::IsCa);
    }
    if !extensions.purposes.as_ref().is_some_and(|purposes| purposes.contains(&EK_CERTIFICATE)) {
        return Err(EkError::Usage);
    }
    let may_decrypt = extensions.key_usage.is_none_or(|usage| {
        if key.is_rsa() { usage.key_encipherment() } else { usage.key_agreement() }
    });
    if !may_decrypt {
        return Err(EkError::KeyUsage);
    }
    let Validity { not_before, not_after } = leaf.validity;
    if now < not_before {
        return Err(EkError::NotYetValid { not_before, now });
    }
    if leaf.validity.is_expired_at(now) {
        return Err(EkError::Expired { not_after, now });
    }
    let model = TpmModel::from_attributes(&leaf.tpm_attributes()).map_err(EkError::Model)?;
    Ok((key, model))
}

fn refuse_unknown(certificate: &Certificate) -> Result<(), EkError> {
    let unknown = certificate.extensions.unknown;
    unknown.map_or(Ok(()), |extension| Err(EkError::CriticalExtension { extension }))
}

/// What an authority has to be to issue anything that counts here, at any time.
///
/// # Errors
///
/// [`EkError::CriticalExtension`], [`EkError::IssuerKeyKind`], [`EkError::IssuerNotCa`],
/// [`EkError::IssuerUsage`].
pub(super) fn judged_authority(authority: &Certificate) -> Result<&Key, EkError> {
    let extensions = &authority.extensions;
    let issuer = || authority.subject_text.clone();
    refuse_unknown(authority)?;
    if !extensions.is_ca {
        return Err(EkError::IssuerNotCa { issuer: issuer() });
    }
    let may_sign = extensions.key_usage.is_none_or(|usage| usage.key_cert_sign());
    let may_endorse = extensions.purposes.as_ref().is_none_or(|purposes| {
        purposes.contains(&EK_CERTIFICATE) || purposes.contains(&ANY_PURPOSE)
    });
    if !may_sign || !may_endorse {
        return Err(EkError::IssuerUsage { issuer: issuer() });
    }
    let unusable = |found: &_| EkError::IssuerKeyKind { issuer: issuer(), found: *found };
    authority.key.as_ref().map_err(unusable)
}

/// A search for a path from a leaf to a root, depth first.
struct Search<'a> {
    /// What the device sent besides the leaf.
    bundle: &'a [Certificate],
    roots: &'a [EkRoot],
    now: Wall,
    /// Checked so far.
    signatures: usize,
}

/// A certificate whose subject is somebody's issuer.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    certificate: &'a Certificate,
    is_root: bool,
}

impl<'a> Search<'a> {
    /// Extends a path that ends with `last` until it ends with a root; leaves it as it was if it
    /// cannot be.
    fn extend(
        &mut self,
        path: &mut Vec<&'a Certificate>,
        last: &'a Certificate,
    ) -> Result<(), EkError> {
        if path.len() == CHAIN_LEN_MAX {
            return Err(EkError::TooDeep);
        }
        let mut refusal = None;
        for candidate in self.candidates(path, last) {
            match self.step(path, last, candidate) {
                Err(EkError::TooManySignatures) => return Err(EkError::TooManySignatures),
                Err(error) => refusal = refusal.or(Some(error)),
                Ok(()) => return Ok(()),
            }
        }
        Err(refusal.unwrap_or_else(|| EkError::UnknownRoot { issuer: last.issuer_text.clone() }))
    }

    fn step(
        &mut self,
        path: &mut Vec<&'a Certificate>,
        last: &Certificate,
        Candidate { certificate, is_root }: Candidate<'a>,
    ) -> Result<(), EkError> {
        let key = self.judged_issuer(path, certificate)?;
        self.check_signature(last, certificate, key)?;
        path.push(certificate);
        if is_root {
            return Ok(());
        }
        let extended = self.extend(path, certificate);
        if extended.is_err() {
            path.pop();
        }
        extended
    }

    /// Certificates that may have issued `last` and are not in the path, the likeliest first: those
    /// whose key identifier fits, and among equals the roots.
    fn candidates(&self, path: &[&Certificate], last: &Certificate) -> Vec<Candidate<'a>> {
        let roots = self.roots.iter().map(|root| (root.certificate(), true));
        let bundle = self.bundle.iter().map(|certificate| (certificate, false));
        let mut found: Vec<_> = roots
            .chain(bundle)
            .filter(|(candidate, _)| candidate.subject == last.issuer)
            .filter(|(candidate, _)| {
                !path.iter().any(|of_path| is_same_authority(of_path, candidate))
            })
            .map(|(certificate, is_root)| Candidate { certificate, is_root })
            .collect();
        found.sort_by_key(|candidate| !is_hinted(candidate.certificate, last));
        found
    }

    fn judged_issuer<'c>(
        &self,
        path: &[&Certificate],
        authority: &'c Certificate,
    ) -> Result<&'c Key, EkError> {
        let key = judged_authority(authority)?;
        let issuer = || authority.subject_text.clone();
        let now = self.now;
        let Validity { not_before, not_after } = authority.validity;
        if now < not_before {
            return Err(EkError::IssuerNotYetValid { issuer: issuer(), not_before, now });
        }
        if authority.validity.is_expired_at(now) {
            return Err(EkError::IssuerExpired { issuer: issuer(), not_after, now });
        }
        let found = authorities_below(path);
        match authority.extensions.path_len_max {
            Some(max) if found > max.into() => {
                Err(EkError::PathLength { issuer: issuer(), found, max })
            }
            _ => Ok(key),
        }
    }

    fn check_signature(
        &mut self,
        last: &Certificate,
        authority: &Certificate,
        key: &Key,
    ) -> Result<(), EkError> {
        if self.signatures == SIGNATURES_MAX {
            return Err(EkError::TooManySignatures);
        }
        self.signatures += 1;
        signature::verify(key, &last.algorithm, &last.tbs, &last.signature).map_err(|fault| {
            match fault {
                SignatureFault::Algorithm { found } => EkError::Algorithm { found },
                SignatureFault::Mismatch => {
                    EkError::Signature { issuer: authority.subject_text.clone() }
                }
            }
        })
    }
}

/// Certificates of authorities in a path that count for a pathLenConstraint above it: all but the
/// leaf and those that an authority issued to itself (RFC 5280 §4.2.1.9).
fn authorities_below(path: &[&Certificate]) -> usize {
    path.iter().skip(1).filter(|certificate| certificate.subject != certificate.issuer).count()
}

/// Whether two certificates are of one authority with one key: a path that meets it again goes
/// round in a circle (RFC 4158 §5.2).
fn is_same_authority(one: &Certificate, other: &Certificate) -> bool {
    one.key == other.key && one.subject == other.subject
}

/// Whether the key identifiers say that `authority` issued `last`.
fn is_hinted(authority: &Certificate, last: &Certificate) -> bool {
    let wanted = &last.extensions.authority_key_id;
    wanted.is_some() && *wanted == authority.extensions.subject_key_id
}

#[cfg(test)]
mod tests;
