//! The name of an endorsement key: SHA-256 of its canonical SubjectPublicKeyInfo.
//!
//! It is the name that a provisioner's allow-list and its inventory have for this TPM, so it must
//! come out the same there, where the key is read from a certificate, and here, where it is read
//! from the TPM: RSA keys as rsaEncryption with a NULL parameter and minimal INTEGERs (RFC 3279
//! §2.3.1), elliptic curve keys as id-ecPublicKey with the named curve and an uncompressed point
//! with all its leading zeros (RFC 5480 §2).

use std::fmt;

use fleetcert_tpm::public::{CurveId, Key, PublicArea};
use sha2::{Digest as _, Sha256};

/// Octets of an [`EkId`].
const EK_ID_LEN: usize = 32;

/// `rsaEncryption` with NULL, a whole `AlgorithmIdentifier`.
const RSA_ENCRYPTION: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";

/// `id-ecPublicKey`.
const EC_PUBLIC_KEY: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01";

/// Identifiers of curves: the TPM's, the octets of a coordinate, and X.509's (RFC 5480 §2.1.1.1).
const CURVES: [(u16, usize, &[u8]); 3] = [
    (0x0003, 32, b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"),
    (0x0004, 48, b"\x06\x05\x2b\x81\x04\x00\x22"),
    (0x0005, 66, b"\x06\x05\x2b\x81\x04\x00\x23"),
];

const BIT_STRING: u8 = 0x03;
const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
const UNCOMPRESSED: u8 = 0x04;

/// The name of an endorsement key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct EkId(pub [u8; EK_ID_LEN]);

impl EkId {
    /// The name of the endorsement key with this public area (a `TPMT_PUBLIC`); `None` if it is
    /// none of an RSA key or of a key on P-256, P-384 or P-521.
    #[must_use]
    pub fn of_public_area(area: &[u8]) -> Option<Self> {
        let spki = spki(&PublicArea::parse(area).ok()?.key)?;
        Some(Self(Sha256::digest(spki).into()))
    }
}

/// The key's SubjectPublicKeyInfo, DER.
fn spki(key: &Key<'_>) -> Option<Vec<u8>> {
    Some(match *key {
        Key::Rsa { exponent, modulus, .. } => {
            let numbers = [integer(modulus), integer(&exponent.to_be_bytes())].concat();
            subject_key(RSA_ENCRYPTION, &element(SEQUENCE, &numbers))
        }
        Key::Ecc { curve: CurveId(id), x, y, .. } => {
            let &(_, len, oid) = CURVES.iter().find(|(curve, ..)| *curve == id)?;
            let algorithm = element(SEQUENCE, &[EC_PUBLIC_KEY, oid].concat());
            let point = [vec![UNCOMPRESSED], padded(x, len)?, padded(y, len)?].concat();
            subject_key(&algorithm, &point)
        }
    })
}

fn subject_key(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    let bits = element(BIT_STRING, &[&[0], key].concat());
    element(SEQUENCE, &[algorithm, &bits].concat())
}

/// A number without sign, in as few octets as DER wants it.
fn integer(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|octet| **octet == 0).count();
    let number = number.get(zeros..).unwrap_or_default();
    let is_high = number.first().is_none_or(|octet| *octet >= 0x80);
    let sign: &[u8] = if is_high { &[0] } else { &[] };
    element(INTEGER, &[sign, number].concat())
}

/// A number with zeros before it, or without some of them, `len` octets in all.
fn padded(number: &[u8], len: usize) -> Option<Vec<u8>> {
    let zeros = number.iter().take_while(|octet| **octet == 0).count();
    let number = number.get(zeros..)?;
    let mut out = vec![0; len.checked_sub(number.len())?];
    out.extend_from_slice(number);
    Some(out)
}

/// A DER element of less than 64 KiB.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let [.., high, low] = content.len().to_be_bytes();
    let head = match (high, low) {
        (0, 0..=0x7f) => vec![tag, low],
        (0, _) => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [&head, content].concat()
}

/// Lower-case hexadecimal digits.
impl fmt::Display for EkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for EkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EkId({self})")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    /// What openssl makes of a key that it is given as SubjectPublicKeyInfo: the same again, if it
    /// was canonical, and its numbers.
    fn openssl(spki: &[u8], arguments: &[&str]) -> Vec<u8> {
        let mut child = Command::new("openssl")
            .args(["pkey", "-pubin", "-inform", "DER"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(spki).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "openssl does not take it: {spki:02x?}");
        output.stdout
    }

    fn ecc(curve: u16, x: &[u8], y: &[u8]) -> Vec<u8> {
        let framed = |octets: &[u8]| {
            let len = u16::try_from(octets.len()).unwrap().to_be_bytes();
            [&len, octets].concat()
        };
        let head = b"\x00\x23\x00\x0b\x00\x03\x04\x72\x00\x00\x00\x06\x00\x80\x00\x43\x00\x10";
        [head, &curve.to_be_bytes()[..], b"\x00\x10", &framed(x), &framed(y)].concat()
    }

    fn rsa(modulus: &[u8], exponent: u32) -> Vec<u8> {
        let len = u16::try_from(modulus.len()).unwrap();
        let head = b"\x00\x01\x00\x0b\x00\x03\x04\x72\x00\x00\x00\x06\x00\x80\x00\x43\x00\x10";
        let numbers = [(8 * len).to_be_bytes().as_slice(), &exponent.to_be_bytes()].concat();
        [&head[..], &numbers, &len.to_be_bytes(), modulus].concat()
    }

    fn spki_of(area: &[u8]) -> Vec<u8> {
        spki(&PublicArea::parse(area).unwrap().key).unwrap()
    }

    /// The base points of the curves: points for certain. That of P-521 begins with a zero.
    fn base_points() -> [(u16, Vec<u8>, Vec<u8>); 3] {
        let hex = |text: &str| -> Vec<u8> {
            let digits: Vec<u8> = text
                .bytes()
                .map(|digit| match digit {
                    b'0'..=b'9' => digit - b'0',
                    _ => digit - b'a' + 10,
                })
                .collect();
            digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
        };
        [
            (
                3,
                hex("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"),
                hex("4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"),
            ),
            (
                4,
                hex(
                    "aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a385502f25dbf552\
                     96c3a545e3872760ab7",
                ),
                hex(
                    "3617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e8\
                     19d7a431d7c90ea0e5f",
                ),
            ),
            (
                5,
                hex(
                    "00c6858e06b70404e9cd9e3ecb662395b4429c648139053fb521f828af606b4d3dbaa14b5e77ef\
                     e75928fe1dc127a2ffa8de3348b3c1856a429bf97e7e31c2e5bd66",
                ),
                hex(
                    "011839296a789a3bc0045c8a5fb42c7d1bd998f54449579b446817afbd17273e662c97ee72995e\
                     f42640c550b9013fad0761353c7086a272c24088be94769fd16650",
                ),
            ),
        ]
    }

    // Goal: openssl reads each key, finds the numbers that went in, and would write it the same.
    #[test]
    fn keys_are_written_as_openssl_writes_them() {
        let modulus = [&[0xc3; 255][..], &[0x0b]].concat();
        let mut areas = vec![rsa(&modulus, 0), rsa(&modulus, 3)];
        areas.extend(base_points().iter().map(|(curve, x, y)| ecc(*curve, x, y)));
        for area in areas {
            let spki = spki_of(&area);
            assert_eq!(openssl(&spki, &["-pubout", "-outform", "DER"]), spki);
        }
        let text = openssl(&spki_of(&rsa(&modulus, 0)), &["-noout", "-text"]);
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("2048 bit") && text.contains("65537 (0x10001)"), "{text}");
    }

    // Goal: zeros that a TPM leaves out or adds change no name; another key has another name.
    #[test]
    fn a_key_has_one_name() {
        for (curve, x, y) in base_points() {
            let name = EkId::of_public_area(&ecc(curve, &x, &y)).unwrap();
            let zeros = x.iter().take_while(|octet| **octet == 0).count();
            assert_eq!(EkId::of_public_area(&ecc(curve, &x[zeros..], &y)), Some(name));
            assert_ne!(EkId::of_public_area(&ecc(curve, &y, &x)), Some(name));
            assert_eq!(name.to_string().len(), 64);
        }
        assert_eq!(EkId::of_public_area(&ecc(0x20, &[1; 32], &[2; 32])), None);
        assert_eq!(EkId::of_public_area(&ecc(3, &[1; 33], &[2; 32])), None);
        assert_eq!(EkId::of_public_area(b"no public area"), None);
    }
}
