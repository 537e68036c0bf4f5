//! The public areas of the keys that a device makes in its TPM.
//!
//! Each template is fixed: a key made twice from the same parent and template is the same kind of
//! key, and a verifier can name every attribute it insists on. All of them carry `noDA`. A power
//! cut counts as a failed authorisation for every other key; three cuts would lock the device out
//! of its own identity, and it is enough that the *parent* lacks the attribute.

use core::fmt;

use tpm2_protocol::data::{TpmAlgId, TpmEccCurve, TpmaObject};

use crate::command::Writer;

/// Octets of the longest template, marshalled.
pub const TEMPLATE_LEN_MAX: usize = 32;

/// Use by its password alone.
const NO_POLICY: &[u8] = &[];

/// A coordinate that the TPM is to fill in.
const EMPTY: &[u8] = &[];

/// A kind of key that a device makes. All are P-256 with SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Template {
    /// Signs what the TPM says about itself and its keys, and nothing else: restricted.
    AttestationKey,
    /// The device's identity in TLS: signs anything, cannot leave the TPM.
    DeviceKey,
    /// The parent under which the other keys are wrapped.
    StoragePrimary,
}

/// A buffer that does not hold the template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferTooSmall {
    /// Octets needed.
    pub needed: usize,
    /// Octets there.
    pub available: usize,
}

impl Template {
    /// Writes the `TPMT_PUBLIC` with an empty unique field, as `TPM2_Create` and
    /// `TPM2_CreatePrimary` take it, to the front of `out`. Returns the octets written, at most
    /// [`TEMPLATE_LEN_MAX`].
    ///
    /// # Errors
    ///
    /// [`BufferTooSmall`], with nothing that may be used in `out`.
    pub fn write(self, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        let available = out.len();
        let mut writer = Writer::new(out);
        writer.u16(TpmAlgId::Ecc as u16).u16(TpmAlgId::Sha256 as u16);
        writer.u32(self.attributes().bits()).sized(NO_POLICY);
        self.write_symmetric(&mut writer);
        self.write_scheme(&mut writer);
        writer.u16(TpmEccCurve::NistP256 as u16).u16(TpmAlgId::Null as u16);
        writer.sized(EMPTY).sized(EMPTY);
        let needed = writer.len();
        writer.finish().map_err(|_| BufferTooSmall { needed, available })
    }

    /// TPM 2.0 Part 2 §8.3.
    fn attributes(self) -> TpmaObject {
        let bound_to_this_tpm = TpmaObject::FIXED_TPM
            | TpmaObject::FIXED_PARENT
            | TpmaObject::SENSITIVE_DATA_ORIGIN
            | TpmaObject::USER_WITH_AUTH
            | TpmaObject::NO_DA;
        let use_for = match self {
            Self::AttestationKey => TpmaObject::SIGN_ENCRYPT | TpmaObject::RESTRICTED,
            Self::DeviceKey => TpmaObject::SIGN_ENCRYPT,
            Self::StoragePrimary => TpmaObject::DECRYPT | TpmaObject::RESTRICTED,
        };
        bound_to_this_tpm | use_for
    }

    /// What protects the children of a parent; no other key has it.
    fn write_symmetric(self, writer: &mut Writer<'_>) {
        match self {
            Self::StoragePrimary => {
                writer.u16(TpmAlgId::Aes as u16).u16(128).u16(TpmAlgId::Cfb as u16)
            }
            Self::AttestationKey | Self::DeviceKey => writer.u16(TpmAlgId::Null as u16),
        };
    }

    fn write_scheme(self, writer: &mut Writer<'_>) {
        match self {
            Self::AttestationKey | Self::DeviceKey => {
                writer.u16(TpmAlgId::Ecdsa as u16).u16(TpmAlgId::Sha256 as u16)
            }
            Self::StoragePrimary => writer.u16(TpmAlgId::Null as u16),
        };
    }
}

impl fmt::Display for BufferTooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "template needs {} octets, {} are there", self.needed, self.available)
    }
}

impl core::error::Error for BufferTooSmall {}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Template; 3] =
        [Template::AttestationKey, Template::DeviceKey, Template::StoragePrimary];

    /// Public areas of keys that swtpm 0.7.1 made for tpm2-tools with the attributes
    /// `fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda` and those of the use, up to
    /// the unique field.
    fn made_by_a_tpm(template: Template) -> &'static [u8] {
        match template {
            Template::AttestationKey => {
                b"\x00\x23\x00\x0b\x00\x05\x04\x72\x00\x00\x00\x10\x00\x18\x00\x0b\x00\x03\x00\x10"
            }
            Template::DeviceKey => {
                b"\x00\x23\x00\x0b\x00\x04\x04\x72\x00\x00\x00\x10\x00\x18\x00\x0b\x00\x03\x00\x10"
            }
            Template::StoragePrimary => {
                b"\x00\x23\x00\x0b\x00\x03\x04\x72\x00\x00\x00\x06\x00\x80\x00\x43\x00\x10\x00\x03\
                  \x00\x10"
            }
        }
    }

    /// Goal: what we ask for is what a TPM makes, octet by octet, with an empty unique field.
    #[test]
    fn templates_are_the_public_areas_of_a_tpm() {
        for template in ALL {
            let mut out = [0xff; TEMPLATE_LEN_MAX];
            let len = template.write(&mut out).unwrap();
            let (area, unique) = out[..len].split_at(len - 4);
            assert_eq!(area, made_by_a_tpm(template), "{template:?}");
            assert_eq!(unique, [0; 4], "{template:?}");
        }
    }

    /// Goal: no key of ours can be locked out by power cuts, or leave its TPM.
    #[test]
    fn every_template_is_bound_to_the_tpm_and_free_of_lockout() {
        for template in ALL {
            let attributes = template.attributes();
            for needed in [
                TpmaObject::NO_DA,
                TpmaObject::FIXED_TPM,
                TpmaObject::FIXED_PARENT,
                TpmaObject::SENSITIVE_DATA_ORIGIN,
            ] {
                assert!(attributes.contains(needed), "{template:?} lacks {needed:?}");
            }
        }
    }

    /// Goal: a buffer of any smaller size is refused with both sizes.
    #[test]
    fn a_short_buffer_is_refused() {
        let mut out = [0; TEMPLATE_LEN_MAX];
        for template in ALL {
            let needed = template.write(&mut out).unwrap();
            for available in 0..needed {
                let refused = template.write(&mut out[..available]);
                assert_eq!(refused, Err(BufferTooSmall { needed, available }));
            }
        }
    }
}
