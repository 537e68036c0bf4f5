//! The first half of an attestation: who asks with which TPM, and what it has to solve.
//!
//! Nothing in a [`ChallengeRequest`] is believed. The provisioner takes the endorsement key from a
//! certificate that it validated or from its own allow-list, and computes every Name itself; what
//! a device sends only says where to look. A [`Challenge`] can be solved by that endorsement key
//! together with that attestation key alone, once, by that device, for a short time.

#[cfg(test)]
use serde::{Deserialize, Serialize};

use super::{TIME_LEN_MAX, VERSION, WireError, begin, check_version, emit, end};
use crate::device_id::DeviceId;
use crate::time::Wall;

/// Path of a [`ChallengeRequest`], posted.
pub const CHALLENGE_PATH: &str = "/.well-known/fleetcert/challenge";

/// Request header of an enrollment with evidence: the challenge it answers, 32 hexadecimal digits.
pub const CHALLENGE_HEADER: &str = "Fleetcert-Challenge";

/// Octets of a challenge's name.
pub const CHALLENGE_ID_LEN: usize = 16;

/// Octets of a challenge's nonce.
pub const CHALLENGE_NONCE_LEN: usize = 32;

/// Octets of a public area (`TPMT_PUBLIC`), at most: twice an RSA-4096 key with all around it.
pub const PUBLIC_AREA_LEN_MAX: usize = 1024;

/// Octets of all certificates of an endorsement key together, at most.
pub const EK_CERTIFICATES_LEN_MAX: usize = 8 * 1024;

/// Octets of a credential (the content of a `TPM2B_ID_OBJECT`), at most: an HMAC of SHA-512 with
/// its length, and an encrypted secret of as many octets with its own.
pub const CREDENTIAL_LEN_MAX: usize = 2 + 64 + 2 + 64;

/// Octets of an encrypted seed (the content of a `TPM2B_ENCRYPTED_SECRET`), at most: RSA-4096.
pub const ENCRYPTED_SECRET_LEN_MAX: usize = 512;

/// Octets of a length of up to 16,383: a variable-length number.
const LENGTH_LEN_MAX: usize = 2;

/// Which TPM asks for a challenge, and for which device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Serialize, Deserialize))]
pub struct ChallengeRequest<'a> {
    /// [`VERSION`].
    pub version: u8,
    /// The device that will enroll.
    #[cfg_attr(test, serde(borrow))]
    pub device_id: &'a str,
    /// The endorsement key's public area, `TPMT_PUBLIC` without a length before it.
    pub ek_public: &'a [u8],
    /// The endorsement key's certificates, DER, one behind the other, its own first; empty where
    /// the TPM has none.
    pub ek_certificates: &'a [u8],
    /// The attestation key's public area, `TPMT_PUBLIC` without a length before it.
    pub ak_public: &'a [u8],
}

/// What the TPM has to solve: `TPM2_ActivateCredential` gives the secret that keys the evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Serialize, Deserialize))]
pub struct Challenge<'a> {
    /// [`VERSION`].
    pub version: u8,
    /// The challenge's name; goes into [`CHALLENGE_HEADER`] and into the evidence.
    pub id: [u8; CHALLENGE_ID_LEN],
    /// Goes into the evidence.
    pub nonce: [u8; CHALLENGE_NONCE_LEN],
    /// The content of a `TPM2B_ID_OBJECT`.
    #[cfg_attr(test, serde(borrow))]
    pub credential: &'a [u8],
    /// The content of a `TPM2B_ENCRYPTED_SECRET`.
    pub encrypted_secret: &'a [u8],
    /// For how long it is good, seconds.
    pub valid_s: u32,
    /// When the provisioner answered.
    pub server_time: Wall,
}

impl<'a> ChallengeRequest<'a> {
    /// Octets of this message, at most.
    pub const MAX_LEN: usize = 1
        + (1 + DeviceId::MAX_LEN)
        + 2 * (LENGTH_LEN_MAX + PUBLIC_AREA_LEN_MAX)
        + (LENGTH_LEN_MAX + EK_CERTIFICATES_LEN_MAX);

    /// Reads a message, which must be all of `octets`.
    ///
    /// # Errors
    ///
    /// [`WireError`] if it is of another version, no such message, a part of it is empty that may
    /// not be or longer than it may be, or the device id is none.
    pub fn parse(octets: &'a [u8]) -> Result<Self, WireError> {
        let mut fields = begin(octets)?;
        let message = Self {
            version: VERSION,
            device_id: fields.text(DeviceId::MAX_LEN),
            ek_public: fields.counted(PUBLIC_AREA_LEN_MAX),
            ek_certificates: fields.counted(EK_CERTIFICATES_LEN_MAX),
            ak_public: fields.counted(PUBLIC_AREA_LEN_MAX),
        };
        end(&fields)?;
        message.check()?;
        Ok(message)
    }

    /// Writes the message to the front of `out`, which [`ChallengeRequest::MAX_LEN`] octets
    /// suffice for.
    ///
    /// # Errors
    ///
    /// [`WireError`] if it would not be read back, or `out` is too small.
    pub fn emit<'o>(&self, out: &'o mut [u8]) -> Result<&'o [u8], WireError> {
        check_version(self.version)?;
        self.check()?;
        emit(out, |fields| {
            fields.counted(self.device_id.as_bytes());
            for part in [self.ek_public, self.ek_certificates, self.ak_public] {
                fields.counted(part);
            }
        })
    }

    /// Octets that this message takes: what to make room for before it is written.
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        1 + framed(self.device_id.len())
            + framed(self.ek_public.len())
            + framed(self.ek_certificates.len())
            + framed(self.ak_public.len())
    }

    fn check(&self) -> Result<(), WireError> {
        let is_area = |area: &[u8]| (1..=PUBLIC_AREA_LEN_MAX).contains(&area.len());
        let is_sound = is_area(self.ek_public)
            && is_area(self.ak_public)
            && self.ek_certificates.len() <= EK_CERTIFICATES_LEN_MAX
            && DeviceId::parse(self.device_id).is_ok();
        if is_sound { Ok(()) } else { Err(WireError::Malformed) }
    }
}

impl<'a> Challenge<'a> {
    /// Octets of this message, at most.
    pub const MAX_LEN: usize = 1
        + CHALLENGE_ID_LEN
        + CHALLENGE_NONCE_LEN
        + (LENGTH_LEN_MAX + CREDENTIAL_LEN_MAX)
        + (LENGTH_LEN_MAX + ENCRYPTED_SECRET_LEN_MAX)
        + 5
        + TIME_LEN_MAX;

    /// Reads a message, which must be all of `octets`.
    ///
    /// # Errors
    ///
    /// [`WireError`] if it is of another version, no such message, or a part of it is empty or
    /// longer than it may be.
    pub fn parse(octets: &'a [u8]) -> Result<Self, WireError> {
        let mut fields = begin(octets)?;
        let message = Self {
            version: VERSION,
            id: *fields.array(),
            nonce: *fields.array(),
            credential: fields.counted(CREDENTIAL_LEN_MAX),
            encrypted_secret: fields.counted(ENCRYPTED_SECRET_LEN_MAX),
            valid_s: fields.varint_32(),
            server_time: Wall(fields.varint()),
        };
        end(&fields)?;
        message.check()?;
        Ok(message)
    }

    /// Writes the message to the front of `out`, which [`Challenge::MAX_LEN`] octets suffice for.
    ///
    /// # Errors
    ///
    /// [`WireError`] if it would not be read back, or `out` is too small.
    pub fn emit<'o>(&self, out: &'o mut [u8]) -> Result<&'o [u8], WireError> {
        check_version(self.version)?;
        self.check()?;
        emit(out, |fields| {
            fields.octets(&self.id);
            fields.octets(&self.nonce);
            fields.counted(self.credential);
            fields.counted(self.encrypted_secret);
            fields.varint(self.valid_s.into());
            fields.varint(self.server_time.0);
        })
    }

    fn check(&self) -> Result<(), WireError> {
        let is_sound = (1..=CREDENTIAL_LEN_MAX).contains(&self.credential.len())
            && (1..=ENCRYPTED_SECRET_LEN_MAX).contains(&self.encrypted_secret.len());
        if is_sound { Ok(()) } else { Err(WireError::Malformed) }
    }
}

/// Octets of `content` octets with their length before them.
const fn framed(content: usize) -> usize {
    let length = match content {
        0..=0x7f => 1,
        0x80..=0x3fff => LENGTH_LEN_MAX,
        _ => LENGTH_LEN_MAX + 1,
    };
    length + content
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;

    const REQUEST: ChallengeRequest<'_> = ChallengeRequest {
        version: 1,
        device_id: "gw-1",
        ek_public: &[0x00, 0x23, 0xaa],
        ek_certificates: &[0x30, 0x00],
        ak_public: &[0x00, 0x23, 0xbb],
    };
    const REQUEST_OCTETS: &[u8] = b"\x01\x04gw-1\x03\x00\x23\xaa\x02\x30\x00\x03\x00\x23\xbb";

    const CHALLENGE: Challenge<'_> = Challenge {
        version: 1,
        id: *b"0123456789abcdef",
        nonce: *b"the nonce that goes into the MAC",
        credential: &[0xc1, 0xc2],
        encrypted_secret: &[0xe1],
        valid_s: 120,
        server_time: Wall(1_795_304_662),
    };
    const CHALLENGE_OCTETS: &[u8] = b"\x010123456789abcdefthe nonce that goes into the MAC\
        \x02\xc1\xc2\x01\xe1\x78\xd6\xd9\x88\xd8\x06";

    // Goal: the messages are the octets that docs/design/attestation.md shows.
    #[test]
    fn messages_are_these_octets_and_are_read_back() {
        let mut out = [0xee; 256];
        assert_eq!(REQUEST.emit(&mut out), Ok(REQUEST_OCTETS));
        assert_eq!(ChallengeRequest::parse(REQUEST_OCTETS), Ok(REQUEST));
        assert_eq!(CHALLENGE.emit(&mut out), Ok(CHALLENGE_OCTETS));
        assert_eq!(Challenge::parse(CHALLENGE_OCTETS), Ok(CHALLENGE));
        assert_eq!(postcard::to_slice(&REQUEST, &mut out).unwrap(), REQUEST_OCTETS);
        assert_eq!(postcard::from_bytes(REQUEST_OCTETS), Ok(REQUEST));
        assert_eq!(postcard::to_slice(&CHALLENGE, &mut out).unwrap(), CHALLENGE_OCTETS);
        assert_eq!(postcard::from_bytes(CHALLENGE_OCTETS), Ok(CHALLENGE));
    }

    // Goal: a device without an EK certificate can ask; without a key or a name it cannot.
    #[test]
    fn only_certificates_may_be_missing() {
        let mut out = [0; 256];
        let bare = ChallengeRequest { ek_certificates: &[], ..REQUEST };
        let octets = bare.emit(&mut out).unwrap();
        assert_eq!(ChallengeRequest::parse(octets), Ok(bare));
        for missing in [
            ChallengeRequest { ek_public: &[], ..REQUEST },
            ChallengeRequest { ak_public: &[], ..REQUEST },
            ChallengeRequest { device_id: "", ..REQUEST },
        ] {
            assert_eq!(missing.emit(&mut [0; 256]), Err(WireError::Malformed));
            let octets = postcard::to_slice(&missing, &mut out).unwrap();
            assert_eq!(ChallengeRequest::parse(octets), Err(WireError::Malformed));
        }
        for missing in [
            Challenge { credential: &[], ..CHALLENGE },
            Challenge { encrypted_secret: &[], ..CHALLENGE },
        ] {
            assert_eq!(missing.emit(&mut [0; 256]), Err(WireError::Malformed));
            let octets = postcard::to_slice(&missing, &mut out).unwrap();
            assert_eq!(Challenge::parse(octets), Err(WireError::Malformed));
        }
    }

    // Goal: room is made for exactly what is written, on both sides of each boundary.
    #[test]
    fn a_request_is_as_long_as_it_says() {
        let octets = [7; EK_CERTIFICATES_LEN_MAX];
        for len in [1, 2, 127, 128, 129, 1024] {
            for chain_len in [0, 1, 127, 128, EK_CERTIFICATES_LEN_MAX] {
                let request = ChallengeRequest {
                    ek_public: &octets[..len],
                    ek_certificates: &octets[..chain_len],
                    ..REQUEST
                };
                let mut out = vec![0; request.encoded_len()];
                assert_eq!(request.emit(&mut out).map(<[u8]>::len), Ok(request.encoded_len()));
            }
        }
        assert_eq!([framed(0x3fff), framed(0x4000)], [0x3fff + 2, 0x4000 + 3]);
    }

    // Goal: the longest request has the length that is said, and one octet more anywhere is none.
    #[test]
    fn a_request_has_the_length_that_is_said_at_most() {
        let device_id = "x".repeat(64);
        let (area, chain) = ([7; PUBLIC_AREA_LEN_MAX], [7; EK_CERTIFICATES_LEN_MAX]);
        let longest = ChallengeRequest {
            version: 1,
            device_id: &device_id,
            ek_public: &area,
            ek_certificates: &chain,
            ak_public: &area,
        };
        let mut out = vec![0; ChallengeRequest::MAX_LEN];
        let octets = longest.emit(&mut out).unwrap().to_vec();
        assert_eq!((octets.len(), ChallengeRequest::MAX_LEN), (10_312, 10_312));
        assert_eq!(ChallengeRequest::parse(&octets), Ok(longest));
        let (area, chain) = ([7; PUBLIC_AREA_LEN_MAX + 1], [7; EK_CERTIFICATES_LEN_MAX + 1]);
        for longer in [
            ChallengeRequest { ek_public: &area, ..longest },
            ChallengeRequest { ak_public: &area, ..longest },
            ChallengeRequest { ek_certificates: &chain, ..longest },
        ] {
            assert_eq!(longer.emit(&mut vec![0; 20_000]), Err(WireError::Malformed));
            let mut out = vec![0; 20_000];
            let octets = &*postcard::to_slice(&longer, &mut out).unwrap();
            assert_eq!(ChallengeRequest::parse(octets), Err(WireError::Malformed));
        }
    }

    // Goal: the same of the longest challenge.
    #[test]
    fn a_challenge_has_the_length_that_is_said_at_most() {
        let (credential, secret) = ([7; CREDENTIAL_LEN_MAX], [7; ENCRYPTED_SECRET_LEN_MAX]);
        let longest = Challenge {
            credential: &credential,
            encrypted_secret: &secret,
            valid_s: u32::MAX,
            server_time: Wall(u64::MAX),
            ..CHALLENGE
        };
        let mut out = vec![0; Challenge::MAX_LEN];
        let octets = longest.emit(&mut out).unwrap().to_vec();
        assert_eq!((octets.len(), Challenge::MAX_LEN), (712, 712));
        assert_eq!(Challenge::parse(&octets), Ok(longest));
        let (credential, secret) = ([7; CREDENTIAL_LEN_MAX + 1], [7; ENCRYPTED_SECRET_LEN_MAX + 1]);
        for longer in [
            Challenge { credential: &credential, ..longest },
            Challenge { encrypted_secret: &secret, ..longest },
        ] {
            assert_eq!(longer.emit(&mut vec![0; 2_000]), Err(WireError::Malformed));
            let mut out = vec![0; 20_000];
            let octets = &*postcard::to_slice(&longer, &mut out).unwrap();
            assert_eq!(Challenge::parse(octets), Err(WireError::Malformed));
        }
    }

    // Goal: damage is told from another version, and never panics.
    #[test]
    fn a_message_cut_anywhere_or_with_more_behind_it_is_malformed() {
        for len in 0..REQUEST_OCTETS.len() {
            let cut = &REQUEST_OCTETS[..len];
            assert_eq!(ChallengeRequest::parse(cut), Err(WireError::Malformed));
        }
        for len in 0..CHALLENGE_OCTETS.len() {
            assert_eq!(Challenge::parse(&CHALLENGE_OCTETS[..len]), Err(WireError::Malformed));
        }
        let longer: Vec<u8> = [REQUEST_OCTETS, b"\0"].concat();
        assert_eq!(ChallengeRequest::parse(&longer), Err(WireError::Malformed));
        let longer: Vec<u8> = [CHALLENGE_OCTETS, b"\0"].concat();
        assert_eq!(Challenge::parse(&longer), Err(WireError::Malformed));
        let other = WireError::Version { found: 2 };
        assert_eq!(ChallengeRequest::parse(&[2]), Err(other));
        assert_eq!(Challenge::parse(&[2]), Err(other));
    }
}
