//! Keys in files: P-256, PKCS#8 (RFC 5958), DER, mode 0600, one for each slot.
//!
//! **What it must never do.** Show a private key to anybody, or give one up that may still be
//! there: only a file that is not there, or that holds no key, is a lost key.
//!
//! **What it cannot do.** A key in a file can be copied by whoever becomes root; that is what a TPM
//! is for. Buffers of ours are erased from memory after use; the copy that the cryptographic
//! library computes with is not, so the daemon leaves no core dumps. Overwriting before removal
//! helps on plain disks; flash and journalling file systems may keep an old copy.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use fleetcert_core::record::{KeySource, Slot};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING as ALGORITHM, EcdsaKeyPair, KeyPair};
use zeroize::Zeroizing;

use super::{KeyFailure, Signer, read_owned};
use crate::disk::{self, Disk};
use crate::entropy::Entropy;

/// The files of slots A and B.
pub(super) const KEY_FILES: [&str; 2] = ["key.a", "key.b"];

/// Octets of a key file, at most; with its public key a P-256 key takes 138.
const KEY_LEN_MAX: usize = 512;

/// The DER that precedes an uncompressed point of P-256 in a SubjectPublicKeyInfo (RFC 5480 §2).
const SPKI_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

const fn file(slot: Slot) -> &'static str {
    KEY_FILES[slot.index()]
}

/// The key store of a state directory.
#[derive(Debug)]
pub(super) struct FileKeys {
    disk: Rc<dyn Disk>,
    entropy: Entropy,
}

/// A key read from its file.
struct FileSigner {
    pair: EcdsaKeyPair,
    spki: Vec<u8>,
    generator: SystemRandom,
}

impl FileKeys {
    pub(super) const fn new(disk: Rc<dyn Disk>, entropy: Entropy) -> Self {
        Self { disk, entropy }
    }

    fn read(&self, slot: Slot) -> Result<(FileSigner, Zeroizing<Vec<u8>>), KeyFailure> {
        let octets = read_owned(&*self.disk, file(slot), KEY_LEN_MAX, slot)?;
        let path = self.disk.path(file(slot));
        let signer = self.parse(&octets).ok_or(KeyFailure::Corrupt { slot, path })?;
        Ok((signer, octets))
    }

    fn parse(&self, pkcs8: &[u8]) -> Option<FileSigner> {
        let generator = self.entropy.generator().clone();
        let pair = EcdsaKeyPair::from_pkcs8(&ALGORITHM, pkcs8, &generator).ok()?;
        let spki = [&SPKI_HEAD, pair.public_key().as_ref()].concat();
        Some(FileSigner { pair, spki, generator })
    }

    fn make(&self) -> Result<Zeroizing<Vec<u8>>, KeyFailure> {
        let document = EcdsaKeyPair::generate_pkcs8(&ALGORITHM, self.entropy.generator())
            .map_err(|_| KeyFailure::NoEntropy)?;
        Ok(Zeroizing::new(document.as_ref().to_vec()))
    }

    fn put(&self, slot: Slot, source: KeySource) -> Result<FileSigner, KeyFailure> {
        let pkcs8 = match source {
            KeySource::Fresh => self.make()?,
            KeySource::Other => self.read(slot.other())?.1,
        };
        disk::replace(&*self.disk, file(slot), &pkcs8).map_err(KeyFailure::Disk)?;
        self.parse(&pkcs8).ok_or(KeyFailure::Refused)
    }

    pub(super) fn signer(&self, slot: Slot) -> Result<Arc<dyn Signer>, KeyFailure> {
        Ok(Arc::new(self.read(slot)?.0))
    }

    /// The SubjectPublicKeyInfo of the key that is in the slot afterwards; see the port `Keys`.
    pub(super) fn ensure(&self, slot: Slot, source: KeySource) -> Result<Vec<u8>, KeyFailure> {
        match self.read(slot) {
            Ok((signer, _)) => {
                // Perhaps a process that was killed has left it in the page cache only.
                disk::settle(&*self.disk, file(slot)).map_err(KeyFailure::Disk)?;
                Ok(signer.spki)
            }
            Err(KeyFailure::Corrupt { path, .. }) => {
                log::warn!("{} held no key and gets a new one", path.display());
                Ok(self.put(slot, source)?.spki)
            }
            Err(KeyFailure::Absent { .. }) => Ok(self.put(slot, source)?.spki),
            Err(failure) => Err(failure),
        }
    }

    pub(super) fn erase(&self, slot: Slot) -> Result<(), KeyFailure> {
        disk::erase(&*self.disk, file(slot)).map_err(KeyFailure::Disk)
    }
}

impl Signer for FileSigner {
    fn spki(&self) -> &[u8] {
        &self.spki
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyFailure> {
        let signature = self.pair.sign(&self.generator, message);
        Ok(signature.map_err(|_| KeyFailure::Refused)?.as_ref().to_vec())
    }

    fn is_slow(&self) -> bool {
        false
    }
}

impl fmt::Debug for FileSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSigner").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

    use super::*;
    use crate::disk::StateDir;
    use crate::disk::cut::{CutDisk, MOODS};

    const OPERATIONS_MAX: usize = 100;

    fn keys(disk: &Rc<CutDisk>) -> FileKeys {
        FileKeys::new(Rc::clone(disk) as Rc<dyn Disk>, Entropy::system())
    }

    fn on_disk() -> (tempfile::TempDir, FileKeys) {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::make(&folder.path().join("state")).unwrap();
        (folder, FileKeys::new(Rc::new(state), Entropy::system()))
    }

    // Goal: what TLS and enrollment get is one key: its SPKI verifies its signatures.
    #[test]
    fn a_signature_verifies_under_the_public_key_of_the_slot() {
        let (_folder, keys) = on_disk();
        let spki = keys.ensure(Slot::A, KeySource::Fresh).unwrap();
        let signer = keys.signer(Slot::A).unwrap();
        assert_eq!(signer.spki(), spki);
        let point = &spki[SPKI_HEAD.len()..];
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point);
        key.verify(b"message", &signer.sign(b"message").unwrap()).unwrap();
        key.verify(b"another", &signer.sign(b"message").unwrap()).unwrap_err();
    }

    // Goal: asking twice makes one key; asking for the other slot's key copies it, and the copy
    // survives the original.
    #[test]
    fn ensuring_is_idempotent_and_the_other_slots_key_can_be_kept() {
        let (_folder, keys) = on_disk();
        let first = keys.ensure(Slot::A, KeySource::Fresh).unwrap();
        assert_eq!(keys.ensure(Slot::A, KeySource::Fresh).unwrap(), first);
        let copy = keys.ensure(Slot::B, KeySource::Other).unwrap();
        assert_eq!(copy, first);
        keys.erase(Slot::A).unwrap();
        assert_eq!(keys.signer(Slot::B).unwrap().spki(), first);
        assert_ne!(keys.ensure(Slot::A, KeySource::Fresh).unwrap(), first);
    }

    // Goal: only what is certainly gone is called lost; that costs the identity.
    #[test]
    fn a_key_is_lost_only_when_it_is_absent_or_damaged() {
        let (_folder, keys) = on_disk();
        let absent = keys.signer(Slot::A).unwrap_err();
        assert!(absent.is_loss(), "{absent}");
        assert!(keys.ensure(Slot::A, KeySource::Other).unwrap_err().is_loss());
        keys.ensure(Slot::A, KeySource::Fresh).unwrap();
        let path = keys.disk.path(file(Slot::A));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let exposed = keys.signer(Slot::A).unwrap_err();
        assert!(!exposed.is_loss());
        assert!(exposed.to_string().ends_with("has mode 0640, expected 0600"), "{exposed}");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(!keys.signer(Slot::A).unwrap_err().is_loss());
    }

    // Goal: another user's file, an empty one, an overlong one and noise are refused by name.
    #[test]
    fn a_damaged_key_is_told_apart_and_replaced_only_where_a_key_is_wanted() {
        let disk = Rc::new(CutDisk::default());
        let keys = keys(&disk);
        for noise in [&b""[..], b"noise", &[0x30; 138], &[0; 4096]] {
            disk.tamper("key.b", Some(noise));
            let damaged = keys.signer(Slot::B).unwrap_err();
            assert!(matches!(damaged, KeyFailure::Corrupt { slot: Slot::B, .. }), "{damaged}");
            let spki = keys.ensure(Slot::B, KeySource::Fresh).unwrap();
            assert_eq!(keys.signer(Slot::B).unwrap().spki(), spki);
        }
    }

    // Goal: a key whose making was acknowledged is there after a cut; one that was not is whole or
    // absent, never half.
    #[test]
    fn a_cut_at_any_operation_leaves_a_whole_key_or_none() {
        for n in 1..OPERATIONS_MAX {
            for mood in 0..MOODS {
                let disk = Rc::new(CutDisk::default());
                disk.cut_at(n);
                let made = keys(&disk).ensure(Slot::A, KeySource::Fresh);
                let survived = !disk.is_off();
                disk.power_cycle(mood);
                match (made, keys(&disk).signer(Slot::A)) {
                    (Ok(spki), found) => assert_eq!(found.unwrap().spki(), spki),
                    (Err(_), Ok(_) | Err(KeyFailure::Absent { .. })) => {}
                    (Err(_), Err(found)) => panic!("cut at {n}, mood {mood}: {found}"),
                }
                if survived {
                    return;
                }
            }
        }
        panic!("making a key takes more than {OPERATIONS_MAX} operations");
    }

    // Goal: a certificate may be asked for a key only once the key cannot vanish any more, also
    // when a killed process made it.
    #[test]
    fn a_key_that_a_killed_process_left_is_durable_once_ensured() {
        for n in 1..OPERATIONS_MAX {
            for mood in 0..MOODS {
                let disk = Rc::new(CutDisk::default());
                disk.fail_at(n);
                if keys(&disk).ensure(Slot::A, KeySource::Fresh).is_ok() {
                    return;
                }
                let spki = keys(&disk).ensure(Slot::A, KeySource::Fresh).unwrap();
                disk.power_cycle(mood);
                assert_eq!(keys(&disk).signer(Slot::A).unwrap().spki(), spki);
            }
        }
        panic!("making a key takes more than {OPERATIONS_MAX} operations");
    }

    // Goal: erasing overwrites, takes the half-written draft along, and survives a cut.
    #[test]
    fn an_erased_key_is_overwritten_and_stays_away() {
        for mood in 0..MOODS {
            let disk = Rc::new(CutDisk::default());
            keys(&disk).ensure(Slot::A, KeySource::Fresh).unwrap();
            disk.tamper("key.a.new", Some(b"half a key"));
            let key = disk.content("key.a").unwrap();
            keys(&disk).erase(Slot::A).unwrap();
            assert!(disk.scrubbed().contains(&key));
            assert!(disk.scrubbed().contains(&b"half a key".to_vec()));
            disk.power_cycle(mood);
            assert_eq!(disk.names(), [""; 0]);
        }
    }

    // Goal: nothing of a key shows up where people look.
    #[test]
    fn debug_output_shows_no_key() {
        let (_folder, keys) = on_disk();
        keys.ensure(Slot::A, KeySource::Fresh).unwrap();
        let text = format!("{keys:?} {:?}", keys.signer(Slot::A).unwrap());
        assert!(text.ends_with("FileSigner { .. }"), "{text}");
        let content = keys.disk.read("key.a", KEY_LEN_MAX).unwrap().unwrap();
        assert_eq!(format!("{content:?}").matches("len: 138").count(), 1);
        assert!(!format!("{content:?}").contains("octets"));
    }
}
