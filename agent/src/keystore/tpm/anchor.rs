//! What ties a state directory to one TPM: the files `anchor.a` and `anchor.b`.
//!
//! **What it is.** The Name of the storage primary that the keys are wrapped under, the id of the
//! endorsement key, the attestation key's blob, and which device keys the attestation key has
//! vouched for. `docs/design/tpm-keys.md` lays it out byte by byte.
//!
//! **What it must never do.** Be believed when it is damaged. A storage primary that is not the
//! anchored one means that the keys are gone: a flipped bit must not say so. Hold a secret: the
//! blob is wrapped, and of use to its own TPM only.
//!
//! **Why that is sound.** A digest stands over the whole file, and a file is replaced as a whole,
//! the first copy before the second: of two good ones the first holds, and a cut leaves a good one.

use fleetcert_core::record::Slot;
use fleetcert_tpm::name::{NAME_LEN_MAX, Name};
use fleetcert_tpm::vault::{KEY_BLOB_LEN_MAX, KeyBlob};
use sha2::{Digest as _, Sha256};

use crate::disk::{self, Act, Disk, DiskFailure};
use crate::tpm::{EkId, Expected};

/// The two copies, in the order in which they are written and preferred.
pub(crate) const ANCHOR_FILES: [&str; 2] = ["anchor.a", "anchor.b"];

/// What the file begins with: "FCTA" and the version.
const HEAD: [u8; 5] = *b"FCTA\x01";

const DIGEST_LEN: usize = 32;

/// Octets of the file, at most.
const ANCHOR_LEN_MAX: usize = HEAD.len()
    + (LENGTH_LEN + NAME_LEN_MAX)
    + DIGEST_LEN
    + (LENGTH_LEN + KEY_BLOB_LEN_MAX)
    + 2 * (1 + DIGEST_LEN)
    + DIGEST_LEN;

const LENGTH_LEN: usize = size_of::<u16>();

/// The TPM that the keys of this state directory live in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Anchor {
    /// The storage primary's Name.
    pub(crate) parent: Name,
    /// The endorsement key.
    pub(crate) ek: EkId,
    /// The attestation key.
    pub(crate) ak: KeyBlob,
    /// SHA-256 of the SubjectPublicKeyInfo of each slot's key that a certificate was issued for on
    /// the attestation key's word.
    attested: [Option<[u8; DIGEST_LEN]>; 2],
}

/// What is found where the anchor should be.
#[derive(Debug)]
pub(crate) enum Found {
    /// An anchor.
    Anchor(Box<Anchor>),
    /// A file that is no anchor.
    Damaged,
    /// Nothing.
    Nothing,
}

impl Anchor {
    pub(crate) const fn new(parent: Name, ek: EkId, ak: KeyBlob) -> Self {
        Self { parent, ek, ak, attested: [None; 2] }
    }

    /// Reads the first good copy.
    pub(crate) fn read(disk: &dyn Disk) -> Result<Found, DiskFailure> {
        let mut found = Found::Nothing;
        for name in ANCHOR_FILES {
            let content = disk.read(name, ANCHOR_LEN_MAX + 1).map_err(DiskFailure::of(
                disk,
                Act::Read,
                name,
            ))?;
            match content.map(|content| Self::parse(&content.octets)) {
                None => {}
                Some(Some(anchor)) => return Ok(Found::Anchor(Box::new(anchor))),
                Some(None) => found = Found::Damaged,
            }
        }
        Ok(found)
    }

    /// Makes both copies this one.
    pub(crate) fn write(&self, disk: &dyn Disk) -> Result<(), DiskFailure> {
        let octets = self.emit();
        ANCHOR_FILES.into_iter().try_for_each(|name| disk::replace(disk, name, &octets))
    }

    /// What the TPM has to have.
    pub(crate) const fn expected(&self) -> Expected {
        Expected { parent: self.parent, ek: self.ek }
    }

    /// Whether the attestation key has vouched for this key when its certificate was issued.
    pub(crate) fn is_attested(&self, spki_sha256: &[u8; DIGEST_LEN]) -> bool {
        self.attested.iter().flatten().any(|attested| attested == spki_sha256)
    }

    /// The same with the key in `slot`, vouched for or not.
    pub(crate) fn with(mut self, slot: Slot, attested: Option<[u8; DIGEST_LEN]>) -> Self {
        self.attested[slot.index()] = attested;
        self
    }

    fn emit(&self) -> Vec<u8> {
        let mut out = HEAD.to_vec();
        push_sized(&mut out, self.parent.as_bytes());
        out.extend_from_slice(&self.ek.0);
        push_sized(&mut out, self.ak.as_bytes());
        for attested in &self.attested {
            out.push(attested.is_some().into());
            out.extend_from_slice(attested.as_ref().unwrap_or(&[0; DIGEST_LEN]));
        }
        let digest = Sha256::digest(&out);
        out.extend_from_slice(&digest);
        out
    }

    fn parse(octets: &[u8]) -> Option<Self> {
        let (body, digest) = octets.split_last_chunk::<DIGEST_LEN>()?;
        if Sha256::digest(body)[..] != digest[..] {
            return None;
        }
        let mut rest = body.strip_prefix(&HEAD)?;
        let parent = Name::recorded(take_sized(&mut rest, NAME_LEN_MAX)?).ok()?;
        let ek = EkId(*take(&mut rest)?);
        let ak = KeyBlob::parse(take_sized(&mut rest, KEY_BLOB_LEN_MAX)?).ok()?;
        let attested = [take_option(&mut rest)?, take_option(&mut rest)?];
        rest.is_empty().then_some(Self { parent, ek, ak, attested })
    }
}

/// Both parts that have a length are shorter than 64 KiB.
fn push_sized(out: &mut Vec<u8>, octets: &[u8]) {
    let [.., high, low] = octets.len().to_be_bytes();
    out.extend_from_slice(&[high, low]);
    out.extend_from_slice(octets);
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (front, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(front)
}

fn take_sized<'a>(rest: &mut &'a [u8], max: usize) -> Option<&'a [u8]> {
    let len = usize::from(u16::from_be_bytes(*take(rest)?));
    let (front, behind) = rest.split_at_checked(len).filter(|_| len <= max)?;
    *rest = behind;
    Some(front)
}

fn take_option(rest: &mut &[u8]) -> Option<Option<[u8; DIGEST_LEN]>> {
    let &[is_there] = take(rest)?;
    let digest = take(rest)?;
    match is_there {
        0 => Some(None),
        1 => Some(Some(*digest)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use fleetcert_tpm::template::Template;

    use super::*;
    use crate::tpm::fake::{blob, name};

    fn anchor() -> Anchor {
        let ak = blob(Template::AttestationKey, 3, 4);
        Anchor::new(name(5), EkId([6; 32]), ak).with(Slot::B, Some([7; 32]))
    }

    // Goal: the octets are those that docs/design/tpm-keys.md shows, and are read back.
    #[test]
    fn an_anchor_is_these_octets() {
        let octets = anchor().emit();
        let ak = anchor().ak;
        let ak_len = u8::try_from(ak.as_bytes().len()).unwrap();
        let expected = [
            &b"FCTA\x01\x00\x22\x00\x0b"[..],
            &[5; 32],
            &[6; 32],
            &[0, ak_len],
            ak.as_bytes(),
            &[0; 33],
            &[1],
            &[7; 32],
        ]
        .concat();
        assert_eq!(octets[..octets.len() - DIGEST_LEN], expected);
        assert_eq!(octets[expected.len()..], *Sha256::digest(&expected));
        assert_eq!(Anchor::parse(&octets), Some(anchor()));
    }

    // Goal: no flipped bit, no cut and nothing behind it is believed.
    #[test]
    fn a_damaged_anchor_is_none() {
        let octets = anchor().emit();
        for index in 0..octets.len() {
            let mut damaged = octets.clone();
            damaged[index] ^= 1;
            assert_eq!(Anchor::parse(&damaged), None, "octet {index}");
            assert_eq!(Anchor::parse(&octets[..index]), None, "{index} octets");
        }
        assert_eq!(Anchor::parse(&[&octets[..], &[0]].concat()), None);
    }

    // Goal: a digest makes no anchor of what is none.
    #[test]
    fn what_is_no_anchor_is_none_with_any_digest() {
        let signed = |body: &[u8]| [body, &Sha256::digest(body)[..]].concat();
        let octets = anchor().emit();
        let body = &octets[..octets.len() - DIGEST_LEN];
        assert_eq!(Anchor::parse(&signed(body)), Some(anchor()));
        for len in 0..body.len() {
            assert_eq!(Anchor::parse(&signed(&body[..len])), None, "{len} octets");
        }
        assert_eq!(Anchor::parse(&signed(&[body, &[0]].concat())), None);
        let mut other = body.to_vec();
        other[4] = 2;
        assert_eq!(Anchor::parse(&signed(&other)), None, "of another version");
    }
}
