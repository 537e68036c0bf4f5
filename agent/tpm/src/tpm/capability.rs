//! What a TPM says of itself.

use core::fmt;

use tpm2_protocol::data::{TpmCap, TpmPt};

use super::Tpm;
use crate::command::{Code, Handle};
use crate::fault::TpmError;
use crate::reader::Parts;
use crate::transact::Transact;

/// `TPMA_PERMANENT.ownerAuthSet`. TPM 2.0 Part 2 §8.6.
const OWNER_AUTH_SET: u32 = 1;

/// `TPMA_PERMANENT.endorsementAuthSet`.
const ENDORSEMENT_AUTH_SET: u32 = 1 << 1;

/// `TPMA_PERMANENT.inLockout`.
const IN_LOCKOUT: u32 = 1 << 9;

/// Who made the TPM, which firmware it runs, and how it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Properties {
    /// The maker's four letters, such as `IBM ` or `STM `, padded as the maker pleases.
    pub manufacturer: [u8; 4],
    /// The maker's text about the model, padded with NULs.
    pub vendor: [u8; 16],
    /// The firmware's version.
    pub firmware: Firmware,
    /// Failed authorizations.
    pub lockout: Lockout,
    /// A password is set on the owner hierarchy.
    pub has_owner_auth: bool,
    /// A password is set on the endorsement hierarchy.
    pub has_endorsement_auth: bool,
}

/// A firmware version: shown as four numbers of 16 bits, most significant first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Firmware(pub u64);

/// The state of the protection against guessing. TPM 2.0 Part 1 §19.8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lockout {
    /// Keys that are subject to lockout cannot be used.
    pub is_locked: bool,
    /// Authorizations that failed and are not yet forgiven.
    pub counter: u32,
    /// How many lock the TPM.
    pub max: u32,
    /// Seconds until the counter falls by one; 0: never by itself.
    pub recovery_s: u32,
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |shift: u32| (self.0 >> shift) & 0xFFFF;
        write!(f, "{}.{}.{}.{}", part(48), part(32), part(16), part(0))
    }
}

impl Properties {
    /// The maker's letters and text, of each the printable part.
    #[must_use]
    pub fn manufacturer(&self) -> &str {
        printable(&self.manufacturer)
    }

    /// The maker's text about the model, as far as it is printable.
    #[must_use]
    pub fn vendor(&self) -> &str {
        printable(&self.vendor)
    }
}

fn printable(text: &[u8]) -> &str {
    let is_printable = |octet: &u8| octet.is_ascii_graphic() || *octet == b' ';
    let len = text.iter().position(|octet| !is_printable(octet)).unwrap_or(text.len());
    core::str::from_utf8(&text[..len]).unwrap_or_default().trim_ascii_end()
}

impl<T: Transact> Tpm<T> {
    /// Everything that [`Properties`] has.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub fn properties(&mut self) -> Result<Properties, TpmError<T::Error>> {
        let mut made = [0; 8];
        self.properties_from(TpmPt::Manufacturer, &mut made)?;
        let [manufacturer, v1, v2, v3, v4, _type, high, low] = made;
        let mut vendor = [0; 16];
        for (place, word) in vendor.chunks_exact_mut(4).zip([v1, v2, v3, v4]) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        let permanent = self.property(TpmPt::Permanent)?;
        Ok(Properties {
            manufacturer: manufacturer.to_be_bytes(),
            vendor,
            firmware: Firmware(u64::from(high) << 32 | u64::from(low)),
            lockout: self.lockout_of(permanent)?,
            has_owner_auth: permanent & OWNER_AUTH_SET != 0,
            has_endorsement_auth: permanent & ENDORSEMENT_AUTH_SET != 0,
        })
    }

    /// The state of the protection against guessing.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub fn lockout(&mut self) -> Result<Lockout, TpmError<T::Error>> {
        let permanent = self.property(TpmPt::Permanent)?;
        self.lockout_of(permanent)
    }

    fn lockout_of(&mut self, permanent: u32) -> Result<Lockout, TpmError<T::Error>> {
        let mut words = [0; 4];
        self.properties_from(TpmPt::LockoutCounter, &mut words)?;
        let [counter, max, recovery_s, _lockout_auth_recovery_s] = words;
        Ok(Lockout { is_locked: permanent & IN_LOCKOUT != 0, counter, max, recovery_s })
    }

    /// Octets that one read of an NV index gives at most.
    pub(crate) fn nv_buffer_max(&mut self) -> Result<u32, TpmError<T::Error>> {
        self.property(TpmPt::NvBufferMax)
    }

    fn property(&mut self, property: TpmPt) -> Result<u32, TpmError<T::Error>> {
        let mut value = [0];
        self.properties_from(property, &mut value)?;
        Ok(value[0])
    }

    /// As many properties as `values` has places, the first of them `first`. One that the TPM does
    /// not have is 0, as the specification wants the properties that do not apply to be.
    fn properties_from(
        &mut self,
        first: TpmPt,
        values: &mut [u32],
    ) -> Result<(), TpmError<T::Error>> {
        let first = first as u32;
        let (mut parts, came) = self.capability(TpmCap::TpmProperties, first, values.len())?;
        for _ in 0..came {
            let (property, value) = (parts.u32(), parts.u32());
            let index = property.checked_sub(first).and_then(|n| usize::try_from(n).ok());
            if let Some(place) = index.and_then(|index| values.get_mut(index)) {
                *place = value;
            }
        }
        let is_well = parts.is_used_up();
        self.expect(is_well)
    }

    /// The handles of `first`'s kind from `first` on, ascending, as many as there are or fit;
    /// returns how many those are. Part 3 §30.2.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub fn handles(
        &mut self,
        first: Handle,
        handles: &mut [Handle],
    ) -> Result<usize, TpmError<T::Error>> {
        let (mut parts, came) = self.capability(TpmCap::Handles, first.0, handles.len())?;
        for place in handles.iter_mut().take(came) {
            *place = Handle(parts.u32());
        }
        let is_well = parts.is_used_up();
        self.expect(is_well)?;
        Ok(came)
    }

    /// Asks for `count` values; returns those that came, and how many they are: not more.
    fn capability(
        &mut self,
        capability: TpmCap,
        first: u32,
        count: usize,
    ) -> Result<(Parts<'_>, usize), TpmError<T::Error>> {
        let asked = u32::try_from(count).unwrap_or(u32::MAX);
        let mut command = self.command(Code::GetCapability, &[]);
        let command = command.u32(capability as u32).u32(first).u32(asked).end();
        self.call(command)?;
        let mut parts = self.parameters();
        let (_more, found, came) = (parts.u8(), parts.u32(), parts.u32());
        self.expect(parts.is_whole() && found == capability as u32 && came <= asked)?;
        Ok((parts, usize::try_from(came).unwrap_or(usize::MAX)))
    }
}
