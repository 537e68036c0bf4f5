//! A TLS 1.3 server that lies: it holds no key that anybody has certified, and hopes that nobody
//! asks.
//!
//! It agrees on keys as anybody can, and then says, protected, whatever its [`Script`] has. A client
//! that looks only at what it is told, and not at what it is not told, believes it.

use p256::PublicKey;
use p256::ecdh::diffie_hellman;
use p256::elliptic_curve::sec1::ToEncodedPoint;
use p256::{NonZeroScalar, SecretKey};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::{digest, hmac};

use super::OrFail;

/// A message of the handshake.
#[derive(Clone, Debug)]
pub enum Line {
    /// EncryptedExtensions, empty.
    Extensions,
    /// CertificateRequest for ECDSA on P-256.
    Request,
    /// Certificate with these certificates, DER.
    Certificate(Vec<Vec<u8>>),
    /// CertificateVerify, signed by whom the closure is, over what a server has to sign.
    Verify(fn(&[u8]) -> Vec<u8>),
    /// Finished, which is right.
    Finished,
    /// A protected record without even a content type.
    Nothing,
}

/// What the server says after its hello, each line in a record of its own.
pub type Script = Vec<Line>;

/// One conversation, without a network.
#[derive(Debug)]
pub struct Liar {
    script: Script,
    /// Octets that the client is to read.
    pub out: Vec<u8>,
    /// Octets that the client said after its hello.
    pub heard: Vec<u8>,
    has_spoken: bool,
}

struct Keys {
    secret: Vec<u8>,
    key: LessSafeKey,
    iv: Vec<u8>,
    sent: u64,
}

impl Liar {
    /// A server with this script.
    #[must_use]
    pub const fn new(script: Script) -> Self {
        Self { script, out: Vec::new(), heard: Vec::new(), has_spoken: false }
    }

    /// Hears `octets`; the first are the client's hello, in one piece.
    pub fn hear(&mut self, octets: &[u8]) {
        if self.has_spoken {
            self.heard.extend_from_slice(octets);
            return;
        }
        self.has_spoken = true;
        let hello = octets.get(5..).or_fail("a record");
        let (answer, shared) = server_hello(hello);
        self.out = record(22, &answer);
        let mut transcript = [hello, &answer[..]].concat();
        let mut keys = Keys::new(&shared, &transcript);
        for line in self.script.clone() {
            let message = keys.message(&line, &transcript);
            transcript.extend_from_slice(&message);
            let kind: &[u8] = if matches!(line, Line::Nothing) { &[] } else { &[22] };
            self.out.extend(keys.protect(&[&message, kind].concat()));
        }
    }
}

/// RFC 8446 §4.1.3, and the secret that it agrees on.
fn server_hello(client: &[u8]) -> (Vec<u8>, Vec<u8>) {
    /// secp256r1, a point of 65 octets, uncompressed.
    const SHARE: [u8; 5] = [0, 0x17, 0, 0x41, 4];
    let at = client.windows(5).position(|octets| octets == SHARE).or_fail("a share") + 4;
    let theirs = PublicKey::from_sec1_bytes(&client[at..at + 65]).or_fail("a point");
    let ours = SecretKey::from_slice(&[5; 32]).or_fail("a key");
    let scalar: NonZeroScalar = ours.to_nonzero_scalar();
    let shared = diffie_hellman(scalar, theirs.as_affine());
    let point = ours.public_key().to_encoded_point(false);
    let share = [&[0, 0x33, 0, 69, 0, 0x17, 0, 65], point.as_bytes()].concat();
    let extensions = [&[0, 0x2b, 0, 2, 3, 4][..], &share].concat();
    let body = [&[3, 3][..], &[7; 32], &[0, 0x13, 1, 0], &with_len(2, &extensions)].concat();
    (handshake(2, &body), shared.raw_secret_bytes().to_vec())
}

impl Keys {
    /// RFC 8446 §7.1, as far as the server's handshake keys.
    fn new(shared: &[u8], transcript: &[u8]) -> Self {
        let early = extract(&[0; 32], &[0; 32]);
        let derived = expand(&early, "derived", &sha256(b""), 32);
        let handshake = extract(&derived, shared);
        let secret = expand(&handshake, "s hs traffic", &sha256(transcript), 32);
        let key = expand(&secret, "key", b"", 16);
        let key = UnboundKey::new(&AES_128_GCM, &key).or_fail("a key");
        let iv = expand(&secret, "iv", b"", 12);
        Self { secret, key: LessSafeKey::new(key), iv, sent: 0 }
    }

    fn message(&self, line: &Line, transcript: &[u8]) -> Vec<u8> {
        match line {
            Line::Extensions => handshake(8, &[0, 0]),
            Line::Request => handshake(13, &[0, 0, 8, 0, 13, 0, 4, 0, 2, 4, 3]),
            Line::Certificate(chain) => {
                let entries: Vec<u8> =
                    chain.iter().flat_map(|der| [with_len(3, der), vec![0, 0]].concat()).collect();
                handshake(11, &[&[0][..], &with_len(3, &entries)].concat())
            }
            Line::Verify(sign) => {
                let context = b"TLS 1.3, server CertificateVerify\0";
                let signed = [&[b' '; 64][..], context, &sha256(transcript)].concat();
                handshake(15, &[&[4, 3][..], &with_len(2, &sign(&signed))].concat())
            }
            Line::Finished => {
                let key = expand(&self.secret, "finished", b"", 32);
                handshake(20, &mac(&key, &sha256(transcript)))
            }
            Line::Nothing => Vec::new(),
        }
    }

    /// RFC 8446 §5.2.
    fn protect(&mut self, content: &[u8]) -> Vec<u8> {
        let mut nonce: [u8; 12] = self.iv.as_slice().try_into().or_fail("an IV");
        for (octet, count) in nonce[4..].iter_mut().zip(self.sent.to_be_bytes()) {
            *octet ^= count;
        }
        self.sent += 1;
        let len = u16::try_from(content.len() + 16).or_fail("a length").to_be_bytes();
        let header = [23, 3, 3, len[0], len[1]];
        let mut sealed = content.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealing = self.key.seal_in_place_append_tag(nonce, Aad::from(header), &mut sealed);
        sealing.or_fail("a seal");
        [&header[..], &sealed].concat()
    }
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind, 3, 3][..], &with_len(2, content)].concat()
}

fn handshake(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &with_len(3, body)].concat()
}

/// `octets` behind their length, in so many octets.
fn with_len(len_len: usize, octets: &[u8]) -> Vec<u8> {
    let len = octets.len().to_be_bytes();
    [&len[len.len() - len_len..], octets].concat()
}

fn sha256(octets: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, octets).as_ref().to_vec()
}

fn mac(key: &[u8], octets: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), octets).as_ref().to_vec()
}

/// RFC 5869 §2.2.
fn extract(salt: &[u8], secret: &[u8]) -> Vec<u8> {
    mac(salt, secret)
}

/// RFC 8446 §7.1, HKDF-Expand-Label, of up to 32 octets.
fn expand(secret: &[u8], label: &str, context: &[u8], len: u8) -> Vec<u8> {
    let label = [b"tls13 ", label.as_bytes()].concat();
    let info = [&[0, len][..], &with_len(1, &label), &with_len(1, context), &[1]].concat();
    mac(secret, &info)[..usize::from(len)].to_vec()
}
