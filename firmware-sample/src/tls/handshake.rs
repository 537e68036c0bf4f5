//! What the TLS library asks of us during a handshake: randomness, a verdict, a signature.

use embedded_tls::blocking::{
    Aes128GcmSha256, Certificate, CertificateEntryRef, CertificateRef, CertificateVerifyRef,
    CryptoProvider, Sha256, TlsError as LibraryError, TlsVerifier,
};
use embedded_tls::{CryptoRngCore, SignatureScheme};
use fleetcert_core::sha256::sha256;
use p256::ecdsa::signature::{Error as SignatureError, SignerMut};
use sha2::Digest as _;

use super::fault::TlsError;
use super::gate::Ledger;
use super::{Identity, Peer, Signer};
use crate::ecdsa::{DerSignature, Ecdsa, is_signed};
use crate::verifier::{Refusal, Verified};

/// Certificates that the library passes on, at most.
const ENTRIES_MAX: usize = 16;

/// RFC 8446 §4.4.3: what stands before the hash of the transcript that a server signs.
const CONTEXT: &[u8; 34] = b"TLS 1.3, server CertificateVerify\0";

/// RFC 8446 §4.4.3: octets of what a server signs: 64 spaces, the context, a SHA-256.
const SIGNED_LEN: usize = 64 + CONTEXT.len() + 32;

/// One handshake's provider.
pub(super) struct Handshake<'h, 'i, E, R> {
    pub(super) judge: Judge<'h, E>,
    rng: &'h mut R,
    identity: Option<Identity<'i>>,
    ledger: &'h Ledger,
}

/// Judges the server, in the order that RFC 8446 §4.4 lays down and the library does not: one
/// Certificate, then one CertificateVerify.
pub(super) struct Judge<'h, E> {
    peer: &'h Peer<'h, E>,
    ledger: &'h Ledger,
    proof: Proof,
    verified: Option<Verified>,
}

/// How far the server has proven who it is.
#[derive(Clone, Copy)]
enum Proof {
    Nothing,
    Certificate { transcript: [u8; 32] },
    Complete,
}

/// The library's signer: it cannot fail, so that a fault is written into the ledger instead. The
/// gate then keeps back the message that the signature would have stood in.
struct Pen<'p> {
    signer: &'p mut dyn Signer,
    ledger: &'p Ledger,
}

impl<'h, 'i, E: Ecdsa, R: CryptoRngCore> Handshake<'h, 'i, E, R> {
    pub(super) const fn new(
        peer: &'h Peer<'h, E>,
        identity: Option<Identity<'i>>,
        rng: &'h mut R,
        ledger: &'h Ledger,
    ) -> Self {
        let judge = Judge { peer, ledger, proof: Proof::Nothing, verified: None };
        Self { judge, rng, identity, ledger }
    }

    /// What the server has proven, if it has.
    pub(super) fn verified(&self) -> Option<Verified> {
        self.judge.verified.filter(|_| self.ledger.is_proven())
    }
}

impl<E: Ecdsa, R: CryptoRngCore> CryptoProvider for Handshake<'_, '_, E, R> {
    type CipherSuite = Aes128GcmSha256;
    type Signature = DerSignature;

    fn rng(&mut self) -> impl CryptoRngCore {
        &mut *self.rng
    }

    fn verifier(&mut self) -> Result<&mut impl TlsVerifier<Aes128GcmSha256>, LibraryError> {
        Ok(&mut self.judge)
    }

    fn signer(&mut self) -> Result<(impl SignerMut<DerSignature>, SignatureScheme), LibraryError> {
        match &mut self.identity {
            Some(identity) if self.ledger.is_proven() => {
                let pen = Pen { signer: identity.signer, ledger: self.ledger };
                Ok((pen, SignatureScheme::EcdsaSecp256r1Sha256))
            }
            _ => Err(LibraryError::InvalidPrivateKey),
        }
    }

    /// Nobody learns who we are before we know who asks.
    fn client_cert(&mut self) -> Option<Certificate<impl AsRef<[u8]>>> {
        let identity = self.identity.as_ref().filter(|_| self.ledger.is_proven())?;
        Some(Certificate::X509(identity.certificate))
    }
}

impl<E: Ecdsa> Judge<'_, E> {
    fn refuse(&self, fault: TlsError) -> LibraryError {
        self.ledger.fail(fault);
        LibraryError::InvalidCertificate
    }

    fn verify_chain(&self, entries: &[CertificateEntryRef<'_>]) -> Result<Verified, Refusal> {
        let Peer { verifier, name, server, reading } = self.peer;
        let mut chain = heapless::Vec::<&[u8], ENTRIES_MAX>::new();
        for entry in entries {
            let CertificateEntryRef::X509(der) = entry else { return Err(Refusal::Malformed) };
            chain.push(*der).map_err(|_| Refusal::Malformed)?;
        }
        verifier.verify(&chain, name, *server, *reading)
    }
}

impl<E: Ecdsa> TlsVerifier<Aes128GcmSha256> for Judge<'_, E> {
    /// The name is our [`Peer`]'s, which may be an address.
    fn set_hostname_verification(&mut self, _: &str) -> Result<(), LibraryError> {
        Ok(())
    }

    fn verify_certificate(
        &mut self,
        transcript: &Sha256,
        certificate: CertificateRef<'_>,
    ) -> Result<(), LibraryError> {
        let Proof::Nothing = self.proof else {
            return Err(self.refuse(TlsError::PeerUnproven));
        };
        let verified = self
            .verify_chain(&certificate.entries)
            .map_err(|refusal| self.refuse(TlsError::PeerUntrusted(refusal)))?;
        self.verified = Some(verified);
        self.proof = Proof::Certificate { transcript: transcript.clone().finalize().into() };
        Ok(())
    }

    fn verify_signature(&mut self, verify: CertificateVerifyRef<'_>) -> Result<(), LibraryError> {
        let (Proof::Certificate { transcript }, Some(verified)) = (self.proof, self.verified)
        else {
            return Err(self.refuse(TlsError::PeerUnproven));
        };
        let ecdsa = self.peer.verifier.ecdsa();
        let message = signed_content(&transcript);
        let is_good = verify.signature_scheme == SignatureScheme::EcdsaSecp256r1Sha256
            && is_signed(ecdsa, &verified.point, &message, verify.signature);
        if !is_good {
            return Err(self.refuse(TlsError::PeerSignature));
        }
        self.proof = Proof::Complete;
        self.ledger.set_proven();
        Ok(())
    }
}

impl SignerMut<DerSignature> for Pen<'_> {
    fn try_sign(&mut self, message: &[u8]) -> Result<DerSignature, SignatureError> {
        let digest = sha256(&[message]);
        let signature = match self.signer.sign(&digest) {
            Ok(signature) => signature,
            Err(fault) => {
                self.ledger.fail(TlsError::LocalKey(fault));
                return Ok(DerSignature::default());
            }
        };
        Ok(DerSignature::new(&signature))
    }
}

/// RFC 8446 §4.4.3.
fn signed_content(transcript: &[u8; 32]) -> [u8; SIGNED_LEN] {
    let mut content = [b' '; SIGNED_LEN];
    content[64..64 + CONTEXT.len()].copy_from_slice(CONTEXT);
    content[64 + CONTEXT.len()..].copy_from_slice(transcript);
    content
}
