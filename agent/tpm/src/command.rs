//! Commands and responses as bytes in one buffer.
//!
//! A command is written to the front of the TPM's only buffer and its response is read right
//! behind it, so that the command is still whole when the TPM asks for it once more. Nothing is
//! marshalled into structures on the way: a response is read by a cursor that lends slices of the
//! buffer, and the deepest stack frame stays small on a microcontroller.

use core::fmt;

use tpm2_protocol::data::{TpmCc, TpmRh, TpmSt};

/// Octets of the header of a command and of a response. TPM 2.0 Part 1 §18.
pub(crate) const HEADER_LEN: usize = 10;

/// Where the code stands in a command.
const CODE_AT: usize = 6;

/// Where the authorization area of a command with `handles` handles begins.
pub(crate) const fn authorizations_at(handles: usize) -> usize {
    HEADER_LEN + 4 * handles
}

/// A command that this crate sends. TPM 2.0 Part 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// `TPM2_ActivateCredential`, Part 3 §12.5.
    ActivateCredential,
    /// `TPM2_Certify`, Part 3 §18.2.
    Certify,
    /// `TPM2_ContextLoad`, Part 3 §28.3.
    ContextLoad,
    /// `TPM2_ContextSave`, Part 3 §28.2.
    ContextSave,
    /// `TPM2_Create`, Part 3 §12.1.
    Create,
    /// `TPM2_CreatePrimary`, Part 3 §24.1.
    CreatePrimary,
    /// `TPM2_FlushContext`, Part 3 §28.4.
    FlushContext,
    /// `TPM2_GetCapability`, Part 3 §30.2.
    GetCapability,
    /// `TPM2_GetRandom`, Part 3 §16.1.
    GetRandom,
    /// `TPM2_GetTestResult`, Part 3 §10.4.
    GetTestResult,
    /// `TPM2_Load`, Part 3 §12.2.
    Load,
    /// `TPM2_NV_Read`, Part 3 §31.13.
    NvRead,
    /// `TPM2_NV_ReadPublic`, Part 3 §31.6.
    NvReadPublic,
    /// `TPM2_PolicyOR`, Part 3 §23.6.
    PolicyOr,
    /// `TPM2_PolicySecret`, Part 3 §23.4.
    PolicySecret,
    /// `TPM2_ReadPublic`, Part 3 §12.4.
    ReadPublic,
    /// `TPM2_SelfTest`, Part 3 §10.2.
    SelfTest,
    /// `TPM2_Shutdown`, Part 3 §9.4.
    Shutdown,
    /// `TPM2_Sign`, Part 3 §20.2.
    Sign,
    /// `TPM2_StartAuthSession`, Part 3 §11.1.
    StartAuthSession,
    /// `TPM2_Startup`, Part 3 §9.3.
    Startup,
}

impl Code {
    const fn protocol(self) -> TpmCc {
        match self {
            Self::ActivateCredential => TpmCc::ActivateCredential,
            Self::Certify => TpmCc::Certify,
            Self::ContextLoad => TpmCc::ContextLoad,
            Self::ContextSave => TpmCc::ContextSave,
            Self::Create => TpmCc::Create,
            Self::CreatePrimary => TpmCc::CreatePrimary,
            Self::FlushContext => TpmCc::FlushContext,
            Self::GetCapability => TpmCc::GetCapability,
            Self::GetRandom => TpmCc::GetRandom,
            Self::GetTestResult => TpmCc::GetTestResult,
            Self::Load => TpmCc::Load,
            Self::NvRead => TpmCc::NvRead,
            Self::NvReadPublic => TpmCc::NvReadPublic,
            Self::PolicyOr => TpmCc::PolicyOr,
            Self::PolicySecret => TpmCc::PolicySecret,
            Self::ReadPublic => TpmCc::ReadPublic,
            Self::SelfTest => TpmCc::SelfTest,
            Self::Shutdown => TpmCc::Shutdown,
            Self::Sign => TpmCc::Sign,
            Self::StartAuthSession => TpmCc::StartAuthSession,
            Self::Startup => TpmCc::Startup,
        }
    }

    /// The code on the wire. TPM 2.0 Part 2 §6.5.
    #[must_use]
    pub const fn id(self) -> u32 {
        self.protocol() as u32
    }

    /// Handles in front of the authorization area.
    pub(crate) const fn handles(self) -> usize {
        match self {
            Self::ActivateCredential
            | Self::Certify
            | Self::NvRead
            | Self::PolicySecret
            | Self::StartAuthSession => 2,
            Self::ContextSave
            | Self::Create
            | Self::CreatePrimary
            | Self::Load
            | Self::NvReadPublic
            | Self::PolicyOr
            | Self::ReadPublic
            | Self::Sign => 1,
            Self::ContextLoad
            | Self::FlushContext
            | Self::GetCapability
            | Self::GetRandom
            | Self::GetTestResult
            | Self::SelfTest
            | Self::Shutdown
            | Self::Startup => 0,
        }
    }

    /// Whether a success leaves something loaded that has to be flushed: its handle stands in the
    /// response.
    pub(crate) const fn loads(self) -> bool {
        matches!(
            self,
            Self::ContextLoad | Self::CreatePrimary | Self::Load | Self::StartAuthSession
        )
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::ActivateCredential => "ActivateCredential",
            Self::Certify => "Certify",
            Self::ContextLoad => "ContextLoad",
            Self::ContextSave => "ContextSave",
            Self::Create => "Create",
            Self::CreatePrimary => "CreatePrimary",
            Self::FlushContext => "FlushContext",
            Self::GetCapability => "GetCapability",
            Self::GetRandom => "GetRandom",
            Self::GetTestResult => "GetTestResult",
            Self::Load => "Load",
            Self::NvRead => "NV_Read",
            Self::NvReadPublic => "NV_ReadPublic",
            Self::PolicyOr => "PolicyOR",
            Self::PolicySecret => "PolicySecret",
            Self::ReadPublic => "ReadPublic",
            Self::SelfTest => "SelfTest",
            Self::Shutdown => "Shutdown",
            Self::Sign => "Sign",
            Self::StartAuthSession => "StartAuthSession",
            Self::Startup => "Startup",
        };
        write!(f, "TPM2_{name}")
    }
}

/// What a TPM calls an object, a session, a hierarchy or an NV index. TPM 2.0 Part 2 §7.
#[doc(alias = "TPM_HANDLE")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(pub u32);

impl Handle {
    /// No hierarchy, no key: `TPM_RH_NULL`.
    pub const NULL: Self = Self(TpmRh::Null as u32);
    /// In an authorization: a password instead of a session. `TPM_RS_PW`
    pub(crate) const PASSWORD: Self = Self(TpmRh::Pw as u32);
    /// The first HMAC or policy session that is loaded.
    pub const SESSIONS: Self = Self(0x0200_0000);
    /// The first transient object.
    pub const TRANSIENT: Self = Self(0x8000_0000);

    /// The range of its handle type, and nothing of the handle in it. TPM 2.0 Part 2 §7.2.
    #[must_use]
    pub const fn kind(self) -> u8 {
        self.0.to_be_bytes()[0]
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Whom a primary key belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hierarchy {
    /// The maker's: endorsement keys. `TPM_RH_ENDORSEMENT`
    Endorsement,
    /// The owner's: storage keys. `TPM_RH_OWNER`
    Owner,
}

impl Hierarchy {
    /// Its handle.
    #[must_use]
    pub const fn handle(self) -> Handle {
        match self {
            Self::Endorsement => Handle(TpmRh::Endorsement as u32),
            Self::Owner => Handle(TpmRh::Owner as u32),
        }
    }
}

impl fmt::Display for Hierarchy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Endorsement => "endorsement",
            Self::Owner => "owner",
        })
    }
}

/// What a session does beside authorizing. TPM 2.0 Part 2 §8.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SessionAttributes(pub(crate) u8);

impl SessionAttributes {
    /// The session ends with this command if the command succeeds.
    pub(crate) const ONCE: Self = Self(0);
    /// The session goes on: the only attribute of a password.
    pub(crate) const CONTINUE: Self = Self(0x01);
    /// The TPM decrypts the first parameter of the command.
    pub(crate) const DECRYPT: Self = Self(0x20);
    /// The TPM encrypts the first parameter of the response.
    pub(crate) const ENCRYPT: Self = Self(0x40);

    pub(crate) const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Writes a command, or a structure of one, from front to back. What does not fit is counted, not
/// written: who asks for the end of it is told.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    octets: &'a mut [u8],
    len: usize,
    /// Where the authorization area begins, in a command that has one.
    area_at: Option<usize>,
}

/// A structure that is longer than the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl<'a> Writer<'a> {
    /// Begins a structure.
    pub(crate) const fn new(octets: &'a mut [u8]) -> Self {
        Self { octets, len: 0, area_at: None }
    }

    /// Begins a command with its handles.
    pub(crate) fn command(octets: &'a mut [u8], code: Code, handles: &[Handle]) -> Self {
        debug_assert_eq!(handles.len(), code.handles(), "{code}");
        let mut command = Self { octets, len: CODE_AT, area_at: None };
        command.u32(code.id());
        for handle in handles {
            command.u32(handle.0);
        }
        command
    }

    /// Authorizations, each by its password; most are empty. TPM 2.0 Part 1 §19.4.
    pub(crate) fn passwords(&mut self, passwords: &[&[u8]]) -> &mut Self {
        self.authorizations();
        for password in passwords {
            self.authorization(Handle::PASSWORD, &[], SessionAttributes::CONTINUE).sized(password);
        }
        self.authorized()
    }

    /// Begins the authorization area.
    pub(crate) fn authorizations(&mut self) -> &mut Self {
        self.area_at = Some(self.len);
        self.u32(0)
    }

    /// An authorization up to its HMAC or password, which the caller appends.
    pub(crate) fn authorization(
        &mut self,
        session: Handle,
        nonce: &[u8],
        attributes: SessionAttributes,
    ) -> &mut Self {
        self.u32(session.0).sized(nonce).u8(attributes.0)
    }

    /// Ends the authorization area: its length is put in front of it.
    pub(crate) fn authorized(&mut self) -> &mut Self {
        if let Some(at) = self.area_at {
            self.put_u32(at, self.len - at - size_of::<u32>());
        }
        self
    }

    /// An octet.
    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.octets(&[value])
    }

    /// Two octets.
    pub(crate) fn u16(&mut self, value: u16) -> &mut Self {
        self.octets(&value.to_be_bytes())
    }

    /// Four octets.
    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.octets(&value.to_be_bytes())
    }

    /// Octets as they are.
    pub(crate) fn octets(&mut self, octets: &[u8]) -> &mut Self {
        self.put(self.len, octets);
        self.len += octets.len();
        self
    }

    /// Octets behind their length: a `TPM2B`.
    pub(crate) fn sized(&mut self, octets: &[u8]) -> &mut Self {
        // A length that does not fit 16 bits does not fit the buffer either.
        self.u16(u16::try_from(octets.len()).unwrap_or(u16::MAX)).octets(octets)
    }

    /// A `TPM2B` of `len` octets: these in front, zeros behind.
    pub(crate) fn padded(&mut self, octets: &[u8], len: usize) -> &mut Self {
        let octets = &octets[..octets.len().min(len)];
        self.u16(u16::try_from(len).unwrap_or(u16::MAX)).octets(octets);
        for _ in octets.len()..len {
            self.u8(0);
        }
        self
    }

    fn put(&mut self, at: usize, octets: &[u8]) {
        if let Some(place) = self.octets.get_mut(at..at + octets.len()) {
            place.copy_from_slice(octets);
        }
    }

    fn put_u32(&mut self, at: usize, value: usize) {
        self.put(at, &u32::try_from(value).unwrap_or(u32::MAX).to_be_bytes());
    }

    /// Octets written so far, whether or not they fit.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Ends a structure; returns its octets.
    pub(crate) const fn finish(&self) -> Result<usize, TooLong> {
        if self.len > self.octets.len() { Err(TooLong) } else { Ok(self.len) }
    }

    /// Ends a command: its header is completed. Returns its octets, whether or not they fit: who
    /// sends it finds out.
    pub(crate) fn end(&mut self) -> usize {
        let tag = if self.area_at.is_some() { TpmSt::Sessions } else { TpmSt::NoSessions };
        self.put(0, &(tag as u16).to_be_bytes());
        self.put_u32(2, self.len);
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Code; 21] = [
        Code::ActivateCredential,
        Code::Certify,
        Code::ContextLoad,
        Code::ContextSave,
        Code::Create,
        Code::CreatePrimary,
        Code::FlushContext,
        Code::GetCapability,
        Code::GetRandom,
        Code::GetTestResult,
        Code::Load,
        Code::NvRead,
        Code::NvReadPublic,
        Code::PolicyOr,
        Code::PolicySecret,
        Code::ReadPublic,
        Code::SelfTest,
        Code::Shutdown,
        Code::Sign,
        Code::StartAuthSession,
        Code::Startup,
    ];

    /// Goal: a command is what `tpm2_sign` sends, octet by octet.
    #[test]
    fn a_command_is_laid_out_as_the_specification_says() {
        let mut octets = [0; 64];
        let mut command = Writer::command(&mut octets, Code::Sign, &[Handle(0x8000_0001)]);
        command.passwords(&[&[]]).sized(&[0xAA; 4]).u16(0x0010);
        let len = command.end();
        let expected = b"\x80\x02\x00\x00\x00\x23\x00\x00\x01\x5d\x80\x00\x00\x01\
              \x00\x00\x00\x09\x40\x00\x00\x09\x00\x00\x01\x00\x00\x00\x04\xaa\xaa\xaa\xaa\x00\x10";
        assert_eq!(&octets[..len], expected);
    }

    /// Goal: no command is cut short: one that does not fit is refused, whatever the size.
    #[test]
    fn a_command_that_does_not_fit_is_refused() {
        for available in 0..35 {
            let mut octets = [0; 64];
            let mut command =
                Writer::command(&mut octets[..available], Code::Sign, &[Handle(0x8000_0001)]);
            command.passwords(&[&[]]).sized(&[0xAA; 4]).u16(0x0010);
            assert_eq!(command.end(), 35, "{available} octets");
            assert_eq!(command.finish(), Err(TooLong), "{available} octets");
            assert_eq!(octets[available..], [0; 64][available..]);
        }
    }

    /// Goal: the number of handles that we write is the one that another implementation's tables
    /// have for the command.
    #[test]
    fn commands_have_the_handles_of_the_specification() {
        use tpm2_protocol::frame::TpmCommand;
        for code in ALL {
            let mut octets = [0; 64];
            let handles = &[Handle::NULL; 2][..code.handles()];
            let len = Writer::command(&mut octets, code, handles).u32(0).end();
            let theirs = TpmCommand::cast(&octets[..len]).unwrap();
            assert_eq!(theirs.cc().unwrap() as u32, code.id());
            assert_eq!(theirs.handles().unwrap().len(), 4 * code.handles(), "{code}");
        }
    }
}
