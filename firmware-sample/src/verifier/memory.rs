//! Which signatures of the pinned roots are known to be good.
//!
//! **What it is.** A [`Memory`] of a few marks, for as long as the device is on: each stands for one
//! key, one digest and one signature that [`Recalling`] has found to belong together. When the same
//! three are asked for again, the curve is not: a server shows the same issuing authority each
//! time, and asking is millions of instructions.
//!
//! **What it must never do.** Say yes to anything that was not verified in this life, octet by octet
//! the same; or stand for more than the signature, as dates, names and constraints do not last.
//!
//! **Why that is sound.** A mark is a SHA-256 over all that a verification depends on, each part of
//! a fixed length: to be taken for another is to be a second preimage. Only the keys of the pinned
//! roots are remembered, so that whoever else signs cannot push anything out; and only a yes.
//! [`Recalling`] is an [`Ecdsa`] below whatever walks the path and counts: a chain has the same
//! verdict, remembered or not (`docs/decisions/0020-remembered-signatures.md`).

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use fleetcert_core::sha256::sha256;
use rustls_pki_types::CertificateDer;

use super::certificate::Outline;
use crate::ecdsa::{Ecdsa, POINT_LEN, SIGNATURE_LEN};

/// Signatures that are remembered, at most: one for each server's issuing authority. A fleet has a
/// provisioner and a broker, and both may have the same.
pub const REMEMBERED_MAX: usize = 2;

/// A SHA-256 as eight numbers.
type Mark = [u32; 8];

/// The latest marks.
///
/// In words that need no lock. There is one thread on a device; were there more, one could find a
/// mark half of which is another's, and that is no mark of anything that anybody knows. Neither is
/// the zero that an empty place holds.
#[derive(Debug, Default)]
pub(super) struct Memory {
    marks: [[AtomicU32; 8]; REMEMBERED_MAX],
    /// How many there have been: the next takes the place of the oldest.
    count: AtomicUsize,
}

/// An [`Ecdsa`] that asks another only for what it does not know, and learns what the anchors' keys
/// have signed.
#[derive(Debug)]
pub(super) struct Recalling<'r, 'a, E> {
    pub(super) ecdsa: &'r E,
    pub(super) memory: &'r Memory,
    pub(super) anchors: &'r [CertificateDer<'a>],
}

impl Memory {
    fn knows(&self, mark: &Mark) -> bool {
        self.marks.iter().any(|place| {
            place.iter().zip(mark).all(|(kept, word)| kept.load(Ordering::Relaxed) == *word)
        })
    }

    fn learn(&self, mark: &Mark) {
        let count = self.count.load(Ordering::Relaxed);
        self.count.store(count.wrapping_add(1), Ordering::Relaxed);
        let Some(place) = self.marks.get(count % REMEMBERED_MAX) else { return };
        for (kept, word) in place.iter().zip(mark) {
            kept.store(*word, Ordering::Relaxed);
        }
    }
}

impl<E> Recalling<'_, '_, E> {
    /// Whether a point is the key of a pinned root.
    fn is_anchored(&self, point: &[u8; POINT_LEN]) -> bool {
        let mut keys = self.anchors.iter().filter_map(|anchor| Outline::parse(anchor)?.point());
        keys.any(|key| key == *point)
    }
}

impl<E: Ecdsa> Ecdsa for Recalling<'_, '_, E> {
    fn is_signed(
        &self,
        point: &[u8; POINT_LEN],
        digest: &[u8; 32],
        signature: &[u8; SIGNATURE_LEN],
    ) -> bool {
        if !self.is_anchored(point) {
            return self.ecdsa.is_signed(point, digest, signature);
        }
        let mark = mark_of(point, digest, signature);
        if self.memory.knows(&mark) {
            return true;
        }
        let is_good = self.ecdsa.is_signed(point, digest, signature);
        if is_good {
            self.memory.learn(&mark);
        }
        is_good
    }
}

fn mark_of(point: &[u8; POINT_LEN], digest: &[u8; 32], signature: &[u8; SIGNATURE_LEN]) -> Mark {
    let octets = sha256(&[point, digest, signature]);
    let mut mark = [0; 8];
    for (word, octets) in mark.iter_mut().zip(octets.as_chunks().0) {
        *word = u32::from_be_bytes(*octets);
    }
    mark
}
