//! The two key derivations of the TPM specification.
//!
//! Their inputs end in a length and are separated by nothing but a NUL after the label, so that a
//! label which contains one would let two uses collide: labels are therefore an enum. What is
//! derived is secret; blocks that are not handed out are wiped.

use zeroize::Zeroize;

use crate::hash::{DIGEST_LEN_MAX, HashAlg};

/// Octets derived at once, at most: the longest session key together with its IV.
pub const OUT_LEN_MAX: usize = 64;

/// What a derived secret is for. TPM 2.0 Part 1, Annex B and C; Part 1 §19 and §24.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// The key of a session, from its salt: `ATH`.
    Ath,
    /// Key and IV that encrypt a parameter: `CFB`.
    Cfb,
    /// The seed of a credential: `IDENTITY`.
    Identity,
    /// The HMAC key over a protected blob: `INTEGRITY`.
    Integrity,
    /// The salt of a session: `SECRET`.
    Secret,
    /// The symmetric key of a protected blob: `STORAGE`.
    Storage,
}

impl Label {
    /// The label with the NUL that ends it.
    const fn octets(self) -> &'static [u8] {
        match self {
            Self::Ath => b"ATH\0",
            Self::Cfb => b"CFB\0",
            Self::Identity => b"IDENTITY\0",
            Self::Integrity => b"INTEGRITY\0",
            Self::Secret => b"SECRET\0",
            Self::Storage => b"STORAGE\0",
        }
    }
}

/// Derives `out` from a symmetric key: counter mode over HMAC (NIST SP 800-108). `context_u` and
/// `context_v` are concatenated as they are. TPM 2.0 Part 1 §11.4.10.2.
///
/// # Panics
///
/// If `out` is longer than [`OUT_LEN_MAX`]: lengths follow from algorithms, never from a peer.
#[doc(alias = "KDFa")]
pub fn kdf_a(
    alg: HashAlg,
    key: &[u8],
    label: Label,
    context_u: &[u8],
    context_v: &[u8],
    out: &mut [u8],
) {
    let bits = bits_of(out);
    fill(alg, out, |counter| {
        alg.hmac(key, &[&counter, label.octets(), context_u, context_v, &bits])
    });
}

/// Derives `out` from the x coordinate of an ECDH shared point (NIST SP 800-56A, concatenation).
/// `party_u` and `party_v` are the x coordinates of the ephemeral and of the static key. Each
/// coordinate has the full length of its curve, zeros in front. TPM 2.0 Part 1 §11.4.10.3.
///
/// # Panics
///
/// If `out` is longer than [`OUT_LEN_MAX`]: lengths follow from algorithms, never from a peer.
#[doc(alias = "KDFe")]
pub fn kdf_e(
    alg: HashAlg,
    shared_x: &[u8],
    label: Label,
    party_u: &[u8],
    party_v: &[u8],
    out: &mut [u8],
) {
    fill(alg, out, |counter| alg.digest(&[&counter, shared_x, label.octets(), party_u, party_v]));
}

/// Fills `out` with blocks 1, 2, …; the last one is cut.
fn fill(alg: HashAlg, out: &mut [u8], block: impl Fn([u8; 4]) -> [u8; DIGEST_LEN_MAX]) {
    assert!(out.len() <= OUT_LEN_MAX, "{} octets derived, at most {OUT_LEN_MAX}", out.len());
    for (counter, chunk) in (1_u32..).zip(out.chunks_mut(alg.digest_len())) {
        let mut octets = block(counter.to_be_bytes());
        chunk.copy_from_slice(&octets[..chunk.len()]);
        octets.zeroize();
    }
}

/// The length of `out` in bits, as the derivation takes it.
fn bits_of(out: &[u8]) -> [u8; 4] {
    u32::try_from(8 * out.len()).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
            .collect()
    }

    fn counting(from: u8, len: u8) -> Vec<u8> {
        (from..from + len).collect()
    }

    /// Goal: KDFa is OpenSSL's KBKDF (counter mode, HMAC), in one block and over several. The
    /// answers are `openssl kdf … -kdfopt mode:counter -kdfopt salt:LABEL KBKDF`; OpenSSL cannot
    /// leave the context out, so the last one comes from a few lines of Python over hmac.
    #[test]
    fn kdf_a_agrees_with_another_implementation() {
        let (key, u, v) = (counting(0, 32), [0x11; 34], [0x22; 16]);

        let mut out = [0; 16];
        kdf_a(HashAlg::Sha256, &key, Label::Storage, &u, &[], &mut out);
        assert_eq!(out.as_slice(), hex("cf54878b3726db9f54964cb70764b62f"));

        let mut out = [0; 48];
        kdf_a(HashAlg::Sha256, &key, Label::Ath, &u, &v, &mut out);
        let expected = "09348b45472e9b034e5ad2666d2029a40c5933cd9438acb359e11539449504b34bd7bc1d4a\
                        7714d272a104989dee19f9";
        assert_eq!(out.as_slice(), hex(expected));

        kdf_a(HashAlg::Sha384, &counting(0, 48), Label::Integrity, &[], &[], &mut out);
        let expected = "f33d1615c2266b2fa774ff368d6ce3af9d8c0b4227e57eb3e28b810755366e9a668857315a\
                        e51d8d7cfac92bb0485639";
        assert_eq!(out.as_slice(), hex(expected));
    }

    /// Goal: KDFe is the concatenation of the specification, in one block and over several. The
    /// answers come from a few lines of Python over hashlib.
    #[test]
    fn kdf_e_agrees_with_another_implementation() {
        let short: (Vec<u8>, [u8; 32], [u8; 32]) = (counting(100, 32), [0x33; 32], [0x44; 32]);
        for (label, expected) in [
            (Label::Identity, "4b629941b94eb101a5175b98c14ee4b8f3062578cd081e0a564d745ea03e24d6"),
            (
                Label::Secret,
                "0f6026ce9788a8ee759ef530dab19a49a487d1337ad3c90503c55fcafbd12318231d0224298906ca",
            ),
        ] {
            let mut out = vec![0; expected.len() / 2];
            kdf_e(HashAlg::Sha256, &short.0, label, &short.1, &short.2, &mut out);
            assert_eq!(out, hex(expected), "{label:?}");
        }

        let mut out = [0; 48];
        let shared = counting(100, 48);
        kdf_e(HashAlg::Sha384, &shared, Label::Identity, &[0x33; 48], &[0x44; 48], &mut out);
        let expected = "84ef5d5ddc5856bd41403943e46b56dd4abbadd0e14e3834c85dd8eff97e08af809d9d5d50\
                        e06a59ddce6b56baa39066";
        assert_eq!(out.as_slice(), hex(expected));
    }

    /// Goal: two uses of one secret never give the same key.
    #[test]
    fn each_label_derives_another_secret() {
        let labels = [
            Label::Ath,
            Label::Cfb,
            Label::Identity,
            Label::Integrity,
            Label::Secret,
            Label::Storage,
        ];
        let derived: std::collections::BTreeSet<[u8; 32]> = labels
            .into_iter()
            .map(|label| {
                let mut out = [0; 32];
                kdf_a(HashAlg::Sha256, &[7; 32], label, &[], &[], &mut out);
                out
            })
            .collect();
        assert_eq!(derived.len(), labels.len());
    }
}
