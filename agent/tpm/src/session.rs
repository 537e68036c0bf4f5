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
use aes::cipher::KeyInit;
use hmac::SimpleHmac;
use hmac::digest::CtOutput;
use p256::elliptic_curve::sec1::ToEncodedPoint;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::cfb::{self, Direction};
use crate::command::{Code, Handle, SessionAttributes, Writer, authorizations_at};
use crate::hash::{DIGEST_LEN_MAX, HashAlg};
use crate::kdf::{Label, kdf_a, kdf_e};
use crate::reader::Parts;

/// Octets of our nonces: the least that TPM 2.0 Part 1 §19.6.3 allows, and enough to be unique.
pub(crate) const NONCE_LEN: usize = 16;

/// Octets of an uncompressed point of P-256.
pub(crate) const POINT_LEN: usize = 65;

const DIGEST_LEN: usize = 32;
const KEY_LEN: usize = 16;

/// Octets of the length of an authorization area.
const AREA_LEN_LEN: usize = 4;

/// Octets in front of the HMAC in an authorization of ours: handle, nonce, attributes, length.
const HMAC_AT: usize = 4 + 2 + NONCE_LEN + 1 + 2;

/// An HMAC, which is compared in a time that does not depend on where it differs.
type Hmac = CtOutput<SimpleHmac<Sha256>>;

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

/// An HMAC session that is loaded, or is to be. It authorizes with an empty password.
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
    /// `None` if it is longer than a TPM's may be.
    fn set(&mut self, octets: &[u8]) -> Option<()> {
        self.octets.get_mut(..octets.len())?.copy_from_slice(octets);
        self.len = octets.len();
        Some(())
    }

    fn as_bytes(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or_default()
    }
}

/// Why an answer is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unopened {
    /// It has not the promised form.
    Malformed,
    /// It is not from the TPM that holds the key.
    Tampered,
}

impl Session {
    /// Room for a session: none is loaded.
    pub(crate) fn none() -> Self {
        let theirs = Nonce { octets: [0; DIGEST_LEN], len: 0 };
        let key = Zeroizing::new([0; DIGEST_LEN]);
        Self { handle: Handle::NULL, key, ours: [0; NONCE_LEN], theirs }
    }

    /// The session that `TPM2_StartAuthSession` has loaded as `handle` for our [fresh nonce] and
    /// the salt, and answered with the nonce `theirs`. `None` if that is none.
    ///
    /// [fresh nonce]: Session::fresh_nonce
    pub(crate) fn begin(&mut self, handle: Handle, salt: &Salt, theirs: &[u8]) -> Option<()> {
        self.theirs.set(theirs)?;
        self.handle = handle;
        let (secret, label) = (&salt.secret[..], Label::Ath);
        kdf_a(HashAlg::Sha256, secret, label, theirs, &self.ours, &mut self.key[..]);
        Some(())
    }

    pub(crate) const fn handle(&self) -> Handle {
        self.handle
    }

    /// Where a fresh nonce is drawn, before each command, and before the session begins.
    pub(crate) const fn fresh_nonce(&mut self) -> &mut [u8] {
        &mut self.ours
    }

    /// Appends the session's authorization, which must be the first, with room for the HMAC.
    pub(crate) fn authorize(&self, command: &mut Writer<'_>, attributes: SessionAttributes) {
        command.authorization(self.handle, &self.ours, attributes).sized(&[0; DIGEST_LEN]);
    }

    /// Encrypts the first parameter of the whole `command`, if the attributes say so, and fills in
    /// the HMAC. `names` are those of the command's handles, in their order. `None`, and nothing to
    /// be sent, if it is no whole command. TPM 2.0 Part 1 §19.6.5 and §21.2.
    pub(crate) fn seal(
        &self,
        code: Code,
        command: &mut [u8],
        [first, second]: [&[u8]; 2],
        attributes: SessionAttributes,
    ) -> Option<()> {
        let (_head, rest) = command.split_at_mut_checked(authorizations_at(code.handles()))?;
        let area_len = usize::try_from(Parts::new(rest).u32()).ok()?;
        let (area, parameters) = rest.split_at_mut_checked(AREA_LEN_LEN + area_len)?;
        let nonces = [&self.ours[..], self.theirs.as_bytes()];
        if attributes.has(SessionAttributes::DECRYPT) {
            self.apply(Direction::Encrypt, nonces, first_mut(parameters)?);
        }
        let hash = HashAlg::Sha256.digest(&[&code.id().to_be_bytes(), first, second, parameters]);
        let hmac = self.hmac(&hash, nonces, attributes).into_bytes();
        area.get_mut(AREA_LEN_LEN + HMAC_AT..)?.get_mut(..DIGEST_LEN)?.copy_from_slice(&hmac);
        Some(())
    }

    /// Checks the HMAC of an answer, and decrypts its first parameter if that was asked for by the
    /// `attributes` of the command. TPM 2.0 Part 1 §19.6.5 and §21.2.
    pub(crate) fn open(
        &mut self,
        code: Code,
        authorizations: &[u8],
        parameters: &mut [u8],
        attributes: SessionAttributes,
    ) -> Result<(), Unopened> {
        let mut parts = Parts::new(authorizations);
        self.theirs.set(parts.sized()).ok_or(Unopened::Malformed)?;
        let (found, hmac) = (SessionAttributes(parts.u8()), parts.sized());
        if !parts.is_whole() {
            return Err(Unopened::Malformed);
        }
        let success = [0; 4];
        let hash = HashAlg::Sha256.digest(&[&success, &code.id().to_be_bytes(), parameters]);
        let nonces = [self.theirs.as_bytes(), &self.ours[..]];
        let hmac = <&[u8; DIGEST_LEN]>::try_from(hmac).map_err(|_| Unopened::Tampered)?;
        let is_authentic = self.hmac(&hash, nonces, found) == Hmac::new((*hmac).into());
        let encrypted = attributes.has(SessionAttributes::ENCRYPT);
        if !is_authentic || encrypted != found.has(SessionAttributes::ENCRYPT) {
            return Err(Unopened::Tampered);
        }
        if encrypted {
            let octets = first_mut(parameters).ok_or(Unopened::Malformed)?;
            self.apply(Direction::Decrypt, nonces, octets);
        }
        Ok(())
    }

    fn hmac(
        &self,
        hash: &[u8; DIGEST_LEN_MAX],
        [newer, older]: [&[u8]; 2],
        attributes: SessionAttributes,
    ) -> Hmac {
        let parts = [&hash[..DIGEST_LEN], newer, older, &[attributes.0]];
        let octets = HashAlg::Sha256.hmac(&self.key[..], &parts);
        let mut hmac = [0; DIGEST_LEN];
        hmac.copy_from_slice(&octets[..DIGEST_LEN]);
        Hmac::new(hmac.into())
    }

    /// Derives key and IV from the newer and the older nonce, and encrypts or decrypts with them.
    // The expanded key takes 700 octets, which nobody else's frame should hold.
    #[inline(never)]
    fn apply(&self, direction: Direction, [newer, older]: [&[u8]; 2], octets: &mut [u8]) {
        let mut derived = Zeroizing::new([[0; KEY_LEN]; 2]);
        let (key, label) = (&self.key[..], Label::Cfb);
        kdf_a(HashAlg::Sha256, key, label, newer, older, derived.as_flattened_mut());
        let [key, iv] = &*derived;
        cfb::apply(&Aes128::new(key.into()), direction, iv, octets);
    }
}

/// The octets of the `TPM2B` at the front.
fn first_mut(parameters: &mut [u8]) -> Option<&mut [u8]> {
    let (len, rest) = parameters.split_first_chunk_mut()?;
    rest.get_mut(..usize::from(u16::from_be_bytes(*len)))
}
