//! Public areas: what a TPM says of a key.
//!
//! **What it is.** A view of a marshalled `TPMT_PUBLIC` of an RSA or elliptic curve key. It keeps
//! what it was read from, so that the [`Name`] is that of exactly these octets.
//!
//! **What it must never do.** Judge. A weak hash, a foreign curve or a missing attribute is read
//! like any other: refusing it, with a reason, is a verifier's part. Only what has no Name for us,
//! or is no public area of such a key, is refused here.
//!
//! **Why that is sound.** Every field that the specification puts into the area is read in its
//! place, the whole buffer has to be used up, and a bit that is reserved must be clear: a later
//! specification may give it a meaning that changes what the key may do.

use core::fmt;

use crate::hash::HashAlg;
use crate::name::{Name, NameError};
use crate::reader::{Framing, Reader};

/// Octets of an authorisation policy, at most: the longest digest.
pub const AUTH_POLICY_LEN_MAX: usize = 64;

/// Octets of a coordinate, at most: P-521.
pub const COORDINATE_LEN_MAX: usize = 66;

/// Octets of a modulus, at most: RSA-4096.
pub const MODULUS_LEN_MAX: usize = 512;

/// The exponent that a TPM writes as 0. TPM 2.0 Part 2 §12.2.3.5.
pub const DEFAULT_EXPONENT: u32 = 65_537;

/// The public area of a key.
#[doc(alias = "TPMT_PUBLIC")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicArea<'a> {
    name: Name,
    /// The algorithm of its Name, and of what is derived for it.
    pub name_alg: HashAlg,
    /// What it may do and where it may go.
    pub attributes: Attributes,
    /// The digest of the policy that allows its use; may be empty.
    pub auth_policy: &'a [u8],
    /// The key itself.
    pub key: Key<'a>,
}

/// The key of a [`PublicArea`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key<'a> {
    /// `TPMS_ECC_PARMS` and `TPMS_ECC_POINT`.
    Ecc {
        /// The curve.
        curve: CurveId,
        /// A coordinate, big-endian; zeros in front may be left out.
        x: &'a [u8],
        /// The other one.
        y: &'a [u8],
        /// How it signs or agrees on keys.
        scheme: Scheme,
        /// What protects its children, for a restricted decryption key.
        symmetric: Symmetric,
        /// Its key derivation; reserved for use by the specification.
        kdf: Kdf,
    },
    /// `TPMS_RSA_PARMS` and `TPM2B_PUBLIC_KEY_RSA`.
    Rsa {
        /// Bits of the modulus, as the area states them: eight times its octets.
        bits: u16,
        /// The exponent, never 0.
        exponent: u32,
        /// The modulus, big-endian.
        modulus: &'a [u8],
        /// How it signs or decrypts.
        scheme: Scheme,
        /// What protects its children, for a restricted decryption key.
        symmetric: Symmetric,
    },
}

/// An attribute of an object: its bit in a `TPMA_OBJECT`. TPM 2.0 Part 2 §8.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attribute {
    /// It can never leave its TPM.
    FixedTpm = 1,
    /// Its saved contexts do not survive a start of the TPM.
    StClear = 2,
    /// It can never get another parent.
    FixedParent = 4,
    /// The TPM made its private part.
    SensitiveDataOrigin = 5,
    /// A password or HMAC allows its use.
    UserWithAuth = 6,
    /// Administration of it takes its policy.
    AdminWithPolicy = 7,
    /// It lives as long as the TPM's firmware.
    FirmwareLimited = 8,
    /// It lives with firmware of a security version number.
    SvnLimited = 9,
    /// Wrong passwords and power cuts never lock it.
    NoDa = 10,
    /// A duplicate of it has to be encrypted twice.
    EncryptedDuplication = 11,
    /// It works on structures of the TPM only.
    Restricted = 16,
    /// It decrypts.
    Decrypt = 17,
    /// It signs.
    Sign = 18,
    /// It signs X.509 certificates that the TPM assembles, and nothing else.
    X509Sign = 19,
}

/// The attributes of an object, reserved bits clear.
#[doc(alias = "TPMA_OBJECT")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Attributes(u32);

/// A hash algorithm as an identifier on the wire, known to us or not.
#[doc(alias = "TPMI_ALG_HASH")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HashId(pub u16);

/// An elliptic curve as an identifier on the wire, known to us or not. TPM 2.0 Part 2 §6.4.
#[doc(alias = "TPMI_ECC_CURVE")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CurveId(pub u16);

/// How an asymmetric key is used, when that is fixed. TPM 2.0 Part 2 §11.2.
#[doc(alias = "TPMT_ECC_SCHEME")]
#[doc(alias = "TPMT_RSA_SCHEME")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `TPM_ALG_ECDAA`
    Ecdaa(HashId),
    /// `TPM_ALG_ECDH`
    Ecdh(HashId),
    /// `TPM_ALG_ECDSA`
    Ecdsa(HashId),
    /// `TPM_ALG_ECMQV`
    Ecmqv(HashId),
    /// `TPM_ALG_ECSCHNORR`
    EcSchnorr(HashId),
    /// `TPM_ALG_NULL`: whoever uses the key chooses.
    Null,
    /// `TPM_ALG_OAEP`
    Oaep(HashId),
    /// `TPM_ALG_RSAES`
    Rsaes,
    /// `TPM_ALG_RSAPSS`
    RsaPss(HashId),
    /// `TPM_ALG_RSASSA`
    RsaSsa(HashId),
    /// `TPM_ALG_SM2`
    Sm2(HashId),
}

/// The symmetric algorithm of a parent. TPM 2.0 Part 2 §11.1.7.
#[doc(alias = "TPMT_SYM_DEF_OBJECT")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symmetric {
    /// A block cipher.
    Cipher {
        /// Which one.
        alg: u16,
        /// Bits of its key.
        bits: u16,
        /// Its mode.
        mode: u16,
    },
    /// None.
    Null,
}

/// The key derivation of an elliptic curve key. TPM 2.0 Part 2 §11.2.3.3.
#[doc(alias = "TPMT_KDF_SCHEME")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kdf {
    /// None.
    Null,
    /// One of the registry's.
    Scheme {
        /// Which one.
        alg: u16,
        /// The hash it uses.
        hash: HashId,
    },
}

/// A key length of AES that a parent may use for what it protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AesKey {
    /// 128 bits.
    Bits128,
    /// 256 bits.
    Bits256,
}

/// Why octets are no public area that has a Name for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublicAreaError {
    /// It is too long, too short, or has something behind it.
    Framing(Framing),
    /// An identifier stands where it cannot.
    Identifier {
        /// What it should identify.
        of: Field,
        /// The identifier.
        found: u16,
    },
    /// The modulus has not the length that the area states.
    ModulusLen {
        /// The bits stated.
        bits: u16,
        /// Octets there.
        found: usize,
    },
    /// It has no Name for us.
    Name(NameError),
    /// A reserved attribute is set.
    ReservedAttributes {
        /// The reserved bits.
        found: u32,
    },
}

/// What an identifier in a public area identifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The asymmetric scheme.
    Scheme,
    /// The symmetric algorithm.
    Symmetric,
    /// The type of the object.
    Type,
}

/// Identifiers of TPM 2.0 Part 2 §6.3.
mod alg {
    pub(super) const RSA: u16 = 0x0001;
    pub(super) const AES: u16 = 0x0006;
    pub(super) const NULL: u16 = 0x0010;
    pub(super) const SM4: u16 = 0x0013;
    pub(super) const RSASSA: u16 = 0x0014;
    pub(super) const RSAES: u16 = 0x0015;
    pub(super) const RSAPSS: u16 = 0x0016;
    pub(super) const OAEP: u16 = 0x0017;
    pub(super) const ECDSA: u16 = 0x0018;
    pub(super) const ECDH: u16 = 0x0019;
    pub(super) const ECDAA: u16 = 0x001A;
    pub(super) const SM2: u16 = 0x001B;
    pub(super) const ECSCHNORR: u16 = 0x001C;
    pub(super) const ECMQV: u16 = 0x001D;
    pub(super) const ECC: u16 = 0x0023;
    pub(super) const CAMELLIA: u16 = 0x0026;
    pub(super) const CFB: u16 = 0x0043;
}

impl<'a> PublicArea<'a> {
    /// Reads a public area, without the length of a `TPM2B_PUBLIC` before it, whole.
    ///
    /// # Errors
    ///
    /// [`PublicAreaError`].
    pub fn parse(octets: &'a [u8]) -> Result<Self, PublicAreaError> {
        let name = Name::of_public_area(octets)?;
        let mut reader = Reader::new(octets);
        let object_type = reader.u16()?;
        reader.take(size_of::<u16>())?; // The algorithm of the Name, already read with it.
        let attributes = Attributes::parse(reader.u32()?)?;
        let auth_policy = reader.sized(AUTH_POLICY_LEN_MAX)?;
        let key = match object_type {
            alg::ECC => Key::parse_ecc(&mut reader)?,
            alg::RSA => Key::parse_rsa(&mut reader)?,
            found => return Err(PublicAreaError::Identifier { of: Field::Type, found }),
        };
        reader.finish()?;
        Ok(Self { name, name_alg: name.alg(), attributes, auth_policy, key })
    }

    /// The Name of the object, computed from the octets that were read.
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.name
    }
}

impl<'a> Key<'a> {
    /// TPM 2.0 Part 2 §12.2.3.6 and §11.2.5.1.
    fn parse_ecc(reader: &mut Reader<'a>) -> Result<Self, PublicAreaError> {
        let symmetric = Symmetric::parse(reader)?;
        let scheme = Scheme::parse_ecc(reader)?;
        let curve = CurveId(reader.u16()?);
        let kdf = Kdf::parse(reader)?;
        let x = reader.sized(COORDINATE_LEN_MAX)?;
        let y = reader.sized(COORDINATE_LEN_MAX)?;
        Ok(Self::Ecc { curve, x, y, scheme, symmetric, kdf })
    }

    /// TPM 2.0 Part 2 §12.2.3.5 and §11.2.4.5.
    fn parse_rsa(reader: &mut Reader<'a>) -> Result<Self, PublicAreaError> {
        let symmetric = Symmetric::parse(reader)?;
        let scheme = Scheme::parse_rsa(reader)?;
        let bits = reader.u16()?;
        let exponent = match reader.u32()? {
            0 => DEFAULT_EXPONENT,
            exponent => exponent,
        };
        let modulus = reader.sized(MODULUS_LEN_MAX)?;
        if modulus.len() * 8 != usize::from(bits) {
            return Err(PublicAreaError::ModulusLen { bits, found: modulus.len() });
        }
        Ok(Self::Rsa { bits, exponent, modulus, scheme, symmetric })
    }

    /// How the key is used, if that is fixed.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        match *self {
            Self::Ecc { scheme, .. } | Self::Rsa { scheme, .. } => scheme,
        }
    }

    /// What protects its children.
    #[must_use]
    pub const fn symmetric(&self) -> Symmetric {
        match *self {
            Self::Ecc { symmetric, .. } | Self::Rsa { symmetric, .. } => symmetric,
        }
    }
}

impl Attributes {
    /// Bits that have no meaning: TPM 2.0 Part 2 §8.3.2.
    const RESERVED: u32 = 0xFFF0_F009;

    const fn parse(bits: u32) -> Result<Self, PublicAreaError> {
        match bits & Self::RESERVED {
            0 => Ok(Self(bits)),
            found => Err(PublicAreaError::ReservedAttributes { found }),
        }
    }

    /// Whether an attribute is set.
    #[must_use]
    pub const fn has(self, attribute: Attribute) -> bool {
        self.0 & 1 << attribute as u32 != 0
    }
}

impl HashId {
    /// The algorithm; `None` for one that we do not use, SHA-1 among them.
    #[must_use]
    pub const fn alg(self) -> Option<HashAlg> {
        HashAlg::from_id(self.0)
    }
}

impl CurveId {
    /// `TPM_ECC_NIST_P256`
    pub const P256: Self = Self(0x0003);
    /// `TPM_ECC_NIST_P384`
    pub const P384: Self = Self(0x0004);
    /// `TPM_ECC_NIST_P521`
    pub const P521: Self = Self(0x0005);
}

impl Scheme {
    /// TPM 2.0 Part 2 §11.2.5.6.
    fn parse_ecc(reader: &mut Reader<'_>) -> Result<Self, PublicAreaError> {
        match reader.u16()? {
            alg::NULL => Ok(Self::Null),
            alg::ECDSA => Ok(Self::Ecdsa(HashId::parse(reader)?)),
            alg::ECDH => Ok(Self::Ecdh(HashId::parse(reader)?)),
            alg::ECDAA => {
                let hash = HashId::parse(reader)?;
                reader.u16()?; // A counter of its commitments.
                Ok(Self::Ecdaa(hash))
            }
            alg::SM2 => Ok(Self::Sm2(HashId::parse(reader)?)),
            alg::ECSCHNORR => Ok(Self::EcSchnorr(HashId::parse(reader)?)),
            alg::ECMQV => Ok(Self::Ecmqv(HashId::parse(reader)?)),
            found => Err(PublicAreaError::Identifier { of: Field::Scheme, found }),
        }
    }

    /// TPM 2.0 Part 2 §11.2.4.2.
    fn parse_rsa(reader: &mut Reader<'_>) -> Result<Self, PublicAreaError> {
        match reader.u16()? {
            alg::NULL => Ok(Self::Null),
            alg::RSASSA => Ok(Self::RsaSsa(HashId::parse(reader)?)),
            alg::RSAPSS => Ok(Self::RsaPss(HashId::parse(reader)?)),
            alg::RSAES => Ok(Self::Rsaes),
            alg::OAEP => Ok(Self::Oaep(HashId::parse(reader)?)),
            found => Err(PublicAreaError::Identifier { of: Field::Scheme, found }),
        }
    }
}

impl HashId {
    fn parse(reader: &mut Reader<'_>) -> Result<Self, Framing> {
        reader.u16().map(Self)
    }
}

impl Symmetric {
    /// AES in CFB mode, as every parent of ours and every EK has it.
    #[must_use]
    pub const fn aes_cfb(self) -> Option<AesKey> {
        match self {
            Self::Cipher { alg: alg::AES, bits: 128, mode: alg::CFB } => Some(AesKey::Bits128),
            Self::Cipher { alg: alg::AES, bits: 256, mode: alg::CFB } => Some(AesKey::Bits256),
            Self::Cipher { .. } | Self::Null => None,
        }
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Self, PublicAreaError> {
        match reader.u16()? {
            alg::NULL => Ok(Self::Null),
            alg @ (alg::AES | alg::SM4 | alg::CAMELLIA) => {
                Ok(Self::Cipher { alg, bits: reader.u16()?, mode: reader.u16()? })
            }
            found => Err(PublicAreaError::Identifier { of: Field::Symmetric, found }),
        }
    }
}

impl Kdf {
    /// Every scheme of the registry takes a hash and nothing else.
    fn parse(reader: &mut Reader<'_>) -> Result<Self, Framing> {
        match reader.u16()? {
            alg::NULL => Ok(Self::Null),
            alg => Ok(Self::Scheme { alg, hash: HashId::parse(reader)? }),
        }
    }
}

impl AesKey {
    /// Octets of the key.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::Bits128 => 16,
            Self::Bits256 => 32,
        }
    }
}

impl From<Framing> for PublicAreaError {
    fn from(framing: Framing) -> Self {
        Self::Framing(framing)
    }
}

impl From<NameError> for PublicAreaError {
    fn from(error: NameError) -> Self {
        Self::Name(error)
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Attributes({:#010x})", self.0)
    }
}

/// The attribute's name in the specification.
impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FixedTpm => "fixedTPM",
            Self::StClear => "stClear",
            Self::FixedParent => "fixedParent",
            Self::SensitiveDataOrigin => "sensitiveDataOrigin",
            Self::UserWithAuth => "userWithAuth",
            Self::AdminWithPolicy => "adminWithPolicy",
            Self::FirmwareLimited => "firmwareLimited",
            Self::SvnLimited => "svnLimited",
            Self::NoDa => "noDA",
            Self::EncryptedDuplication => "encryptedDuplication",
            Self::Restricted => "restricted",
            Self::Decrypt => "decrypt",
            Self::Sign => "sign",
            Self::X509Sign => "x509sign",
        })
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "scheme of such a key",
            Self::Symmetric => "symmetric algorithm of a parent",
            Self::Type => "type of an asymmetric key",
        })
    }
}

impl fmt::Display for PublicAreaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Framing(framing) => framing.fmt(f),
            Self::Identifier { of, found } => write!(f, "{found:#06x} is no {of}"),
            Self::ModulusLen { bits, found } => {
                write!(f, "a modulus of {found} octets, {bits} bits are stated")
            }
            Self::Name(error) => error.fmt(f),
            Self::ReservedAttributes { found } => {
                write!(f, "reserved attributes {found:#010x} are set")
            }
        }
    }
}

impl core::error::Error for PublicAreaError {}

#[cfg(test)]
mod tests;
