//! What the use of an endorsement key takes: the policies of the TCG's profile.
//!
//! PolicyA is the consent of the endorsement hierarchy. PolicyC is a policy that the owner of that
//! hierarchy has written to an NV index of the profile's; none of ours. PolicyB is either of them.
//! Each is a digest over the commands that satisfy it, so they are computed here and not copied.
//! Satisfying one asks for no password of the key's own, and so none is ever counted as wrong.
//! (TCG EK Credential Profile for TPM Family 2.0, version 2.5, Annex B, the sections on policy NV
//! indices and on the computing of the three policies; TPM 2.0 Part 3 §23.4, §23.6 and §23.22.)

use crate::command::{Code, Handle, Hierarchy, Writer};
use crate::hash::{DIGEST_LEN_MAX, HashAlg};
use crate::public::PublicArea;

/// `TPM2_PolicyAuthorizeNV`, a command that this crate never sends. TPM 2.0 Part 2 §6.5.
const POLICY_AUTHORIZE_NV: u32 = 0x0192;

/// `POLICYWRITE | WRITEALL | PPREAD | OWNERREAD | AUTHREAD | POLICYREAD | NO_DA | WRITTEN`: what
/// the NV index of PolicyC is.
const INDEX_ATTRIBUTES: u32 = 0x220F_1008;

/// Octets of that index's public area (`TPMS_NV_PUBLIC`), at most.
const INDEX_AREA_LEN_MAX: usize = 4 + 2 + 4 + 2 + DIGEST_LEN_MAX + 2;

/// A policy that we can satisfy, with the algorithm of its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EkPolicy {
    /// PolicyA: `TPM2_PolicySecret(TPM_RH_ENDORSEMENT)`.
    A(HashAlg),
    /// PolicyB: PolicyA, then `TPM2_PolicyOR(PolicyA, PolicyC)`.
    B(HashAlg),
}

/// A digest of a policy.
#[derive(Clone, Copy)]
pub(crate) struct PolicyDigest {
    octets: [u8; DIGEST_LEN_MAX],
    len: usize,
}

impl PolicyDigest {
    fn of(alg: HashAlg, parts: &[&[u8]]) -> Self {
        Self { octets: alg.digest(parts), len: alg.digest_len() }
    }

    /// A policy's first command, which begins with a digest of zeros.
    fn first(alg: HashAlg, command: u32, rest: &[&[u8]; 2]) -> Self {
        let zeros = &[0; DIGEST_LEN_MAX][..alg.digest_len()];
        Self::of(alg, &[zeros, &command.to_be_bytes(), rest[0], rest[1]])
    }

    /// PolicyA. The reference of the secret, which is empty, is a digest of its own.
    fn a(alg: HashAlg) -> Self {
        let hierarchy = Hierarchy::Endorsement.handle().0.to_be_bytes();
        let secret = Self::first(alg, Code::PolicySecret.id(), &[&hierarchy, &[]]);
        Self::of(alg, &[secret.as_bytes()])
    }

    /// PolicyC: the index's Name tells everything of it but what was written there.
    fn c(alg: HashAlg) -> Self {
        let mut octets = [0; INDEX_AREA_LEN_MAX];
        let mut area = Writer::new(&mut octets);
        let policy = Self::a(alg);
        area.u32(index(alg).0).u16(alg.id()).u32(INDEX_ATTRIBUTES).sized(policy.as_bytes());
        // It has room for a policy behind the identifier of that one's algorithm.
        area.u16((2 + alg.digest_len()) as u16);
        let len = area.finish().unwrap_or_default();
        let name = Self::of(alg, &[octets.get(..len).unwrap_or_default()]);
        Self::first(alg, POLICY_AUTHORIZE_NV, &[&alg.id().to_be_bytes(), name.as_bytes()])
    }

    fn b(alg: HashAlg) -> Self {
        let [a, c] = branches(alg);
        Self::first(alg, Code::PolicyOr.id(), &[a.as_bytes(), c.as_bytes()])
    }

    /// The digest.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or_default()
    }
}

impl EkPolicy {
    /// The policy of a key; `None` for one of its maker's own.
    pub(crate) fn of(area: &PublicArea<'_>) -> Option<Self> {
        let alg = area.name_alg;
        [Self::A(alg), Self::B(alg)]
            .into_iter()
            .find(|policy| policy.digest().as_bytes() == area.auth_policy)
    }

    /// The algorithm of its session.
    pub(crate) const fn alg(self) -> HashAlg {
        match self {
            Self::A(alg) | Self::B(alg) => alg,
        }
    }

    /// What stands in the key's public area.
    #[inline(never)]
    pub(crate) fn digest(self) -> PolicyDigest {
        match self {
            Self::A(alg) => PolicyDigest::a(alg),
            Self::B(alg) => PolicyDigest::b(alg),
        }
    }
}

/// What PolicyB lets choose from: PolicyA and PolicyC, in this order.
pub(crate) fn branches(alg: HashAlg) -> [PolicyDigest; 2] {
    [PolicyDigest::a(alg), PolicyDigest::c(alg)]
}

/// The NV index whose content is a policy that PolicyC accepts.
const fn index(alg: HashAlg) -> Handle {
    Handle(match alg {
        HashAlg::Sha256 => 0x01C0_7F01,
        HashAlg::Sha384 => 0x01C0_7F02,
        HashAlg::Sha512 => 0x01C0_7F03,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ek::{EK_AREA_LEN_MAX, EkTemplate, Unique};
    use crate::testing::hex;

    /// PolicyA, PolicyC and PolicyB, as the profile prints them.
    const PRINTED: [(HashAlg, [&str; 3]); 3] = [
        (
            HashAlg::Sha256,
            [
                "837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa",
                "3767e2edd43ff45a3a7e1eaefcef78643dca964632e7aad82c673a30d8633fde",
                "ca3d0a99a2b93906f7a3342414efcfb3a385d44cd1fd459089d19b5071c0b7a0",
            ],
        ),
        (
            HashAlg::Sha384,
            [
                "8bbf2266537c171cb56e403c4dc1d4b64f432611dc386e6f532050c3278c930e\
                 143e8bb1133824ccb431053871c6db53",
                "d6032ce61f2fb3c240eb3cf6a33237ef2b6a16f4293c22b455e261cffd217ad5\
                 b4947c2d73e63005eed2dc2b3593d165",
                "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419ca\
                 cb47ba09699646150f9fc000f3f80e12",
            ],
        ),
        (
            HashAlg::Sha512,
            [
                "1e3b76502c8a1425aa0b7b3fc646a1b0fae063b03b5368f9c4cddecaff0891dd\
                 682bac1a85d4d832b781ea451915de5fc5bf0dc4a1917cd42fa041e3f998e0ee",
                "589ee1e146544716e8deafe6db247b01b81e9f9c7dd16b814aa159138749105f\
                 ba5388dd1dea702f35240c184933121e2c61b8f50d3ef91393a49a38c3f73fc8",
                "b8221ca69e8550a4914de3faa6a18c072cc01208073a928d5d66d59ef79e49a4\
                 29c41a6b269571d57edb25fbdb1838425608b413cd616a5f6db5b6071af99bea",
            ],
        ),
    ];

    /// Goal: the policies are those of the profile, for each algorithm.
    #[test]
    fn policies_are_those_that_the_profile_prints() {
        for (alg, printed) in PRINTED {
            let [a, c] = branches(alg);
            assert_eq!(
                [a, c, EkPolicy::B(alg).digest()].map(|it| it.as_bytes().to_vec()),
                printed.map(hex)
            );
            assert_eq!(EkPolicy::A(alg).digest().as_bytes(), a.as_bytes());
            assert_eq!(EkPolicy::A(alg).alg(), alg);
            assert_eq!(EkPolicy::B(alg).alg(), alg);
        }
    }

    /// Goal: a key's policy is told by its digest alone, and one of its maker's own is none.
    #[test]
    fn a_policy_is_told_by_its_digest() {
        for template in EkTemplate::ALL {
            let mut octets = [0; EK_AREA_LEN_MAX];
            let len = template.write(Unique::Padded(&[]), &mut octets).unwrap();
            let alg = template.name_alg();
            let expected = if template.is_low() { EkPolicy::A(alg) } else { EkPolicy::B(alg) };
            let policy = |octets: &[u8]| EkPolicy::of(&PublicArea::parse(&octets[..len]).unwrap());
            assert_eq!(policy(&octets), Some(expected), "{template}");
            // In the digest, behind type, algorithm, attributes and its length.
            octets[2 + 2 + 4 + 2] ^= 1;
            assert_eq!(policy(&octets), None, "{template}");
        }
    }
}
