//! Sessions that prove who answers, and hide what is said.
//!
//! **What it is.** An HMAC session, salted to a P-256 key whose Name we know: the storage primary.
//! Only the TPM that holds that key can compute the session's key; so its HMAC over an answer says
//! that the answer comes from there, unchanged, and the first parameter of a command or an answer
//! is encrypted (AES-128-CFB) against those who listen on the bus. TPM 2.0 Part 1 §19.6, §21.
//!
//! **What it must never do.** Use an answer before its HMAC has been checked, or a nonce twice:
//! key and IV of the encryption follow from the nonces. Nonces and salt are the caller's random
//! octets; keys are wiped.
//!
//! **What it is worth.** As much as the Name: a session salted to a key that nobody has checked is
//! decoration. Whoever starts one has compared the key with the one that was recorded.

use aes::Aes128;
use cfb_mode::cipher::KeyIvInit;
use hmac::{Hmac, Mac};
use p256::elliptic_curve::sec1::ToEncodedPoint;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::command::{Code, Handle, Malformed, SessionAttributes, Writer, authorizations_at};
use crate::hash::HashAlg;
use crate::kdf::{Label, kdf_a, kdf_e};
use crate::reader::Reader;

/// Octets of our nonces: the least that TPM 2.0 Part 1 §19.6.3 allows, and enough to be unique.
pub(crate) const NONCE_LEN: usize = 16;

/// Octets of an uncompressed point of P-256.
pub(crate) const POINT_LEN: usize = 65;

const DIGEST_LEN: usize = 32;
const KEY_LEN: usize = 16;

/// Octets in front of the first authorization: their length.
const AREA_HEAD_LEN: usize = 4;

/// Octets in front of the HMAC in an authorization of ours: handle, nonce, attributes, length.
const HMAC_AT: usize = 4 + 2 + NONCE_LEN + 1 + 2;

/// A salt and what tells it to the TPM alone.
pub(crate) struct Salt {
    /// The ephemeral point, x ‖ y.
    point: [u8; POINT_LEN - 1],
    secret: Zeroizing<[u8; DIGEST_LEN]>,
}

impl Salt {
    /// Agrees on a salt with the key at `point`, by the ephemeral `scalar`; `None` if that is none
    /// or `point` is not on the curve. TPM 2.0 Part 1, Annex C.6.1.
    // What the curve takes of the stack is given back before anything is sent.
    #[inline(never)]
    pub(crate) fn agree(point: &[u8; POINT_LEN], scalar: &[u8; 32]) -> Option<Self> {
        let theirs = p256::PublicKey::from_sec1_bytes(point).ok()?;
        let ours = p256::SecretKey::from_slice(scalar).ok()?;
        let encoded = ours.public_key().to_encoded_point(false);
        let ephemeral = encoded.as_bytes().last_chunk::<{ POINT_LEN - 1 }>()?;
        let shared = p256::ecdh::diffie_hellman(ours.to_nonzero_scalar(), theirs.as_affine());
        let mut secret = Zeroizing::new([0; DIGEST_LEN]);
        let (ours_x, theirs_x) = (&ephemeral[..32], &point[1..33]);
        let shared_x = shared.raw_secret_bytes();
        kdf_e(HashAlg::Sha256, shared_x, Label::Secret, ours_x, theirs_x, &mut secret[..]);
        Some(Self { point: *ephemeral, secret })
    }

    /// Appends the `TPM2B_ENCRYPTED_SECRET`: a `TPMS_ECC_POINT`.
    pub(crate) fn write(&self, command: &mut Writer<'_>) {
        const COORDINATE: u16 = 32;
        let (x, y) = self.point.split_at(32);
        command.u16(2 * (2 + COORDINATE)).sized(x).sized(y);
    }
}

/// An HMAC session that is loaded. It authorizes with an empty password.
pub(crate) struct Session {
    handle: Handle,
    key: Zeroizing<[u8; DIGEST_LEN]>,
    ours: [u8; NONCE_LEN],
    theirs: Nonce,
}

/// A nonce of the TPM's, of the length that it chose.
struct Nonce {
    octets: [u8; DIGEST_LEN],
    len: usize,
}

impl Nonce {
    fn new(octets: &[u8]) -> Result<Self, Malformed> {
        let mut nonce = Self { octets: [0; DIGEST_LEN], len: octets.len() };
        nonce.octets.get_mut(..octets.len()).ok_or(Malformed)?.copy_from_slice(octets);
        Ok(nonce)
    }

    fn as_bytes(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or_default()
    }
}

impl Session {
    /// The session that `TPM2_StartAuthSession` has loaded as `handle` for our nonce and salt, and
    /// answered with the nonce `theirs`.
    pub(crate) fn new(
        handle: Handle,
        salt: &Salt,
        ours: [u8; NONCE_LEN],
        theirs: &[u8],
    ) -> Result<Self, Malformed> {
        let theirs = Nonce::new(theirs)?;
        let mut key = Zeroizing::new([0; DIGEST_LEN]);
        kdf_a(
            HashAlg::Sha256,
            &salt.secret[..],
            Label::Ath,
            theirs.as_bytes(),
            &ours,
            &mut key[..],
        );
        Ok(Self { handle, key, ours, theirs })
    }

    pub(crate) const fn handle(&self) -> Handle {
        self.handle
    }

    /// Takes a fresh nonce and appends the session's authorization, which must be the first, with
    /// room for the HMAC.
    pub(crate) fn authorize(
        &mut self,
        command: &mut Writer<'_>,
        nonce: [u8; NONCE_LEN],
        attributes: SessionAttributes,
    ) {
        self.ours = nonce;
        command.authorization(self.handle, &nonce, attributes);
        command.sized(&[0; DIGEST_LEN]);
    }

    /// Encrypts the first parameter of the whole `command`, if the attributes say so, and fills in
    /// the HMAC. `names` are those of the command's handles, in their order.
    /// TPM 2.0 Part 1 §19.6.5 and §21.2.
    pub(crate) fn seal(
        &self,
        code: Code,
        command: &mut [u8],
        names: &[&[u8]],
    ) -> Result<(), Malformed> {
        let at = authorizations_at(code.handles());
        let (head, rest) = command.split_at_mut_checked(at + AREA_HEAD_LEN).ok_or(Malformed)?;
        let area_len = Reader::new(&head[at..]).u32()?;
        let area_len = usize::try_from(area_len).map_err(|_| Malformed)?;
        let (area, parameters) = rest.split_at_mut_checked(area_len).ok_or(Malformed)?;
        let attributes = SessionAttributes(*area.get(HMAC_AT - 3).ok_or(Malformed)?);
        if attributes.has(SessionAttributes::DECRYPT) {
            let (key, iv) = (&self.ours[..], self.theirs.as_bytes());
            let octets = first_mut(parameters)?;
            self.cipher(key, iv, |key, iv| {
                cfb_mode::BufEncryptor::<Aes128>::new(key.into(), iv.into()).encrypt(octets);
            });
        }
        let hash = Sha256::new().chain_update(code.id().to_be_bytes());
        let hash = names.iter().fold(hash, |hash, name| hash.chain_update(name));
        let hash = hash.chain_update(parameters);
        let nonces = [&self.ours[..], self.theirs.as_bytes()];
        let hmac = self.hmac(&hash.finalize(), nonces, attributes).finalize().into_bytes();
        let place = area.get_mut(HMAC_AT..HMAC_AT + DIGEST_LEN).ok_or(Malformed)?;
        place.copy_from_slice(&hmac);
        Ok(())
    }

    /// Checks the HMAC of an answer and decrypts its first parameter, if the TPM says that it is
    /// encrypted. `false`: the answer is not from the TPM that holds the key.
    /// TPM 2.0 Part 1 §19.6.5 and §21.2.
    pub(crate) fn open(
        &mut self,
        code: Code,
        authorizations: &[u8],
        parameters: &mut [u8],
        encrypted: bool,
    ) -> Result<bool, Malformed> {
        let mut reader = Reader::new(authorizations);
        self.theirs = Nonce::new(reader.sized(usize::MAX)?)?;
        let attributes = SessionAttributes(reader.u8()?);
        let hmac = reader.sized(usize::MAX)?;
        let success = [0; 4];
        let hash = Sha256::new().chain_update(success).chain_update(code.id().to_be_bytes());
        let hash = hash.chain_update(&*parameters).finalize();
        let nonces = [self.theirs.as_bytes(), &self.ours[..]];
        if self.hmac(&hash, nonces, attributes).verify_slice(hmac).is_err() {
            return Ok(false);
        }
        if encrypted != attributes.has(SessionAttributes::ENCRYPT) {
            return Ok(false);
        }
        if encrypted {
            let octets = first_mut(parameters)?;
            self.cipher(self.theirs.as_bytes(), &self.ours, |key, iv| {
                cfb_mode::BufDecryptor::<Aes128>::new(key.into(), iv.into()).decrypt(octets);
            });
        }
        Ok(true)
    }

    #[expect(clippy::expect_used, reason = "HMAC takes keys of every length (RFC 2104 §2)")]
    fn hmac(
        &self,
        hash: &[u8],
        [newer, older]: [&[u8]; 2],
        attributes: SessionAttributes,
    ) -> Hmac<Sha256> {
        let hmac = Hmac::<Sha256>::new_from_slice(&self.key[..]).expect("a key of any length");
        hmac.chain_update(hash).chain_update(newer).chain_update(older).chain_update([attributes.0])
    }

    /// Derives key and IV from the newer and the older nonce, and has `work` use them.
    // The expanded key takes 700 octets, which nobody else's frame should hold.
    #[inline(never)]
    fn cipher(
        &self,
        newer: &[u8],
        older: &[u8],
        work: impl FnOnce(&[u8; KEY_LEN], &[u8; KEY_LEN]),
    ) {
        let mut octets = Zeroizing::new([[0; KEY_LEN]; 2]);
        let (key, label) = (&self.key[..], Label::Cfb);
        kdf_a(HashAlg::Sha256, key, label, newer, older, octets.as_flattened_mut());
        let [key, iv] = &*octets;
        work(key, iv)
    }
}

/// The octets of the `TPM2B` at the front.
fn first_mut(parameters: &mut [u8]) -> Result<&mut [u8], Malformed> {
    let (len, rest) = parameters.split_first_chunk_mut().ok_or(Malformed)?;
    rest.get_mut(..usize::from(u16::from_be_bytes(*len))).ok_or(Malformed)
}
