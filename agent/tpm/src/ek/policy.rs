//! What the use of an endorsement key takes: the policies of the TCG's profile.
//!
//! PolicyA is the consent of the endorsement hierarchy. PolicyC is a policy that the owner of that
//! hierarchy has written to an NV index of the profile's; none of ours. PolicyB is either of them.
//! Each is a digest over the commands that satisfy it. They stand here as the profile prints them,
//! and the tests compute them from those commands. Satisfying one asks for no password of the key's
//! own, and so none is ever counted as wrong.
//! (TCG EK Credential Profile for TPM Family 2.0, version 2.5, Annex B, the sections on policy NV
//! indices and on the computing of the three policies; TPM 2.0 Part 3 §23.4, §23.6 and §23.22.)

use crate::ek::Outline;
use crate::hash::HashAlg;

/// A policy that we can satisfy, with the algorithm of its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EkPolicy {
    /// PolicyA: `TPM2_PolicySecret(TPM_RH_ENDORSEMENT)`.
    A(HashAlg),
    /// PolicyB: PolicyA, then `TPM2_PolicyOR(PolicyA, PolicyC)`.
    B(HashAlg),
}

/// The digests of the policies of one algorithm.
struct Digests {
    a: &'static [u8],
    b: &'static [u8],
    c: &'static [u8],
}

const SHA256: Digests = Digests {
    a: &octets::<32>("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa"),
    b: &octets::<32>("ca3d0a99a2b93906f7a3342414efcfb3a385d44cd1fd459089d19b5071c0b7a0"),
    c: &octets::<32>("3767e2edd43ff45a3a7e1eaefcef78643dca964632e7aad82c673a30d8633fde"),
};

const SHA384: Digests = Digests {
    a: &octets::<48>(
        "8bbf2266537c171cb56e403c4dc1d4b64f432611dc386e6f532050c3278c930e\
         143e8bb1133824ccb431053871c6db53",
    ),
    b: &octets::<48>(
        "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419ca\
         cb47ba09699646150f9fc000f3f80e12",
    ),
    c: &octets::<48>(
        "d6032ce61f2fb3c240eb3cf6a33237ef2b6a16f4293c22b455e261cffd217ad5\
         b4947c2d73e63005eed2dc2b3593d165",
    ),
};

const SHA512: Digests = Digests {
    a: &octets::<64>(
        "1e3b76502c8a1425aa0b7b3fc646a1b0fae063b03b5368f9c4cddecaff0891dd\
         682bac1a85d4d832b781ea451915de5fc5bf0dc4a1917cd42fa041e3f998e0ee",
    ),
    b: &octets::<64>(
        "b8221ca69e8550a4914de3faa6a18c072cc01208073a928d5d66d59ef79e49a4\
         29c41a6b269571d57edb25fbdb1838425608b413cd616a5f6db5b6071af99bea",
    ),
    c: &octets::<64>(
        "589ee1e146544716e8deafe6db247b01b81e9f9c7dd16b814aa159138749105f\
         ba5388dd1dea702f35240c184933121e2c61b8f50d3ef91393a49a38c3f73fc8",
    ),
};

/// The octets that hexadecimal digits stand for.
const fn octets<const N: usize>(digits: &str) -> [u8; N] {
    assert!(digits.len() == 2 * N, "two digits an octet");
    let (mut octets, mut at) = ([0; N], 0);
    while at < 2 * N {
        let digit = match digits.as_bytes()[at] {
            decimal @ b'0'..=b'9' => decimal - b'0',
            letter => letter - b'a' + 10,
        };
        octets[at / 2] = octets[at / 2] << 4 | digit;
        at += 1;
    }
    octets
}

const fn digests(alg: HashAlg) -> &'static Digests {
    match alg {
        HashAlg::Sha256 => &SHA256,
        HashAlg::Sha384 => &SHA384,
        HashAlg::Sha512 => &SHA512,
    }
}

impl EkPolicy {
    /// The policy of a key; `None` for one of its maker's own.
    pub(crate) fn of(area: &Outline<'_>) -> Option<Self> {
        let alg = HashAlg::from_id(area.name_alg)?;
        let policies = [Self::A(alg), Self::B(alg)];
        policies.into_iter().find(|policy| policy.digest() == area.auth_policy)
    }

    /// The algorithm of its session.
    pub(crate) const fn alg(self) -> HashAlg {
        match self {
            Self::A(alg) | Self::B(alg) => alg,
        }
    }

    /// What stands in the key's public area.
    pub(crate) const fn digest(self) -> &'static [u8] {
        match self {
            Self::A(alg) => digests(alg).a,
            Self::B(alg) => digests(alg).b,
        }
    }
}

/// What PolicyB lets choose from: PolicyA and PolicyC, in this order.
pub(crate) const fn branches(alg: HashAlg) -> [&'static [u8]; 2] {
    let Digests { a, c, .. } = digests(alg);
    [a, c]
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::command::{Code, Handle, Hierarchy, Writer};
    use crate::ek::{EK_AREA_LEN_MAX, EkTemplate, Unique};

    /// `TPM2_PolicyAuthorizeNV`, a command that this crate never sends. TPM 2.0 Part 2 §6.5.
    const POLICY_AUTHORIZE_NV: u32 = 0x0192;

    /// `POLICYWRITE | WRITEALL | PPREAD | OWNERREAD | AUTHREAD | POLICYREAD | NO_DA | WRITTEN`: what
    /// the NV index of PolicyC is.
    const INDEX_ATTRIBUTES: u32 = 0x220F_1008;

    fn digest(alg: HashAlg, parts: &[&[u8]]) -> Vec<u8> {
        alg.digest(parts)[..alg.digest_len()].to_vec()
    }

    /// A policy's first command, which begins with a digest of zeros.
    fn first(alg: HashAlg, command: u32, rest: &[&[u8]; 2]) -> Vec<u8> {
        let zeros = &[0; 64][..alg.digest_len()];
        digest(alg, &[zeros, &command.to_be_bytes(), rest[0], rest[1]])
    }

    /// PolicyA. The reference of the secret, which is empty, is a digest of its own.
    fn policy_a(alg: HashAlg) -> Vec<u8> {
        let hierarchy = Hierarchy::Endorsement.handle().0.to_be_bytes();
        digest(alg, &[&first(alg, Code::PolicySecret.id(), &[&hierarchy, &[]])])
    }

    /// The NV index whose content is a policy that PolicyC accepts.
    fn index(alg: HashAlg) -> Handle {
        Handle(match alg {
            HashAlg::Sha256 => 0x01C0_7F01,
            HashAlg::Sha384 => 0x01C0_7F02,
            HashAlg::Sha512 => 0x01C0_7F03,
        })
    }

    /// PolicyC: the index's Name tells everything of it but what was written there.
    fn policy_c(alg: HashAlg) -> Vec<u8> {
        let mut octets = [0; 128];
        let mut area = Writer::new(&mut octets);
        area.u32(index(alg).0).u16(alg.id()).u32(INDEX_ATTRIBUTES).sized(&policy_a(alg));
        // It has room for a policy behind the identifier of that one's algorithm.
        area.u16((2 + alg.digest_len()) as u16);
        let len = area.finish().unwrap();
        let name = digest(alg, &[&octets[..len]]);
        first(alg, POLICY_AUTHORIZE_NV, &[&alg.id().to_be_bytes(), &name])
    }

    /// Goal: the policies are the digests over their commands, for each algorithm.
    #[test]
    fn policies_are_digests_over_their_commands() {
        for alg in [HashAlg::Sha256, HashAlg::Sha384, HashAlg::Sha512] {
            let (a, c) = (policy_a(alg), policy_c(alg));
            let b = first(alg, Code::PolicyOr.id(), &[&a, &c]);
            assert_eq!(branches(alg), [&a[..], &c]);
            assert_eq!(EkPolicy::A(alg).digest(), a);
            assert_eq!(EkPolicy::B(alg).digest(), b);
            assert_eq!(EkPolicy::A(alg).alg(), alg);
            assert_eq!(EkPolicy::B(alg).alg(), alg);
        }
    }

    /// Goal: a key's policy is told by its digest alone, and one of its maker's own is none.
    #[test]
    fn a_policy_is_told_by_its_digest() {
        for template in EkTemplate::ALL {
            let mut octets = [0; EK_AREA_LEN_MAX];
            let len = template.write(Unique::Padded(&[]), &mut octets);
            let alg = template.name_alg();
            let expected = if template.is_low() { EkPolicy::A(alg) } else { EkPolicy::B(alg) };
            let policy = |octets: &[u8]| EkPolicy::of(&Outline::of(&octets[..len]).unwrap());
            assert_eq!(policy(&octets), Some(expected), "{template}");
            // In the digest, behind type, algorithm, attributes and its length.
            octets[2 + 2 + 4 + 2] ^= 1;
            assert_eq!(policy(&octets), None, "{template}");
        }
    }
}
