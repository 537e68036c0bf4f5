//! Keys: making primary ones, loading, saving, signing.

use tpm2_protocol::data::{TpmAlgId, TpmRh, TpmSt};

use super::Tpm;
use crate::command::{Code, Handle, Hierarchy, Writer};
use crate::fault::TpmError;
use crate::reader::Parts;
use crate::transact::Transact;

/// Octets of a saved context that is kept, at most. A P-256 key takes 560 on swtpm and up to 900
/// on chips.
pub const CONTEXT_LEN_MAX: usize = 1024;

/// Octets of r and of s of a P-256 signature.
const SCALAR_LEN: usize = 32;

/// Where in the caller's buffer `TPM2_Certify` left its answer: the statement, then the signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certified {
    /// Octets of the `TPMS_ATTEST`, from 0 on.
    pub attest_len: usize,
    /// Octets of the `TPMT_SIGNATURE` behind it.
    pub signature_len: usize,
}

impl<T: Transact> Tpm<T> {
    /// Makes the primary key of the template (`TPMT_PUBLIC`) in the first `len` octets of `area`,
    /// and leaves it loaded. The same template gives the same key until the hierarchy is cleared.
    /// Its public area takes the template's place; its octets are returned. Part 3 §24.1.
    ///
    /// `auth` is the hierarchy's password; it travels as it is.
    ///
    /// # Errors
    ///
    /// [`TpmError`]; nothing is loaded then.
    pub fn create_primary(
        &mut self,
        hierarchy: Hierarchy,
        auth: &[u8],
        area: &mut [u8],
        len: usize,
    ) -> Result<(Handle, usize), TpmError<T::Error>> {
        let too_small = TpmError::too_small(len, area.len());
        let template = area.get(..len).ok_or(too_small)?;
        let mut command = self.command(Code::CreatePrimary, &[hierarchy.handle()]);
        let command = creation(command.passwords(&[auth]), template).end();
        let handle = self.call(command)?;
        let copied = self.copy_first(area);
        Ok((handle, self.unless_failed(handle, copied)?))
    }

    /// Loads a key that was made under `parent`: `blob` is `TPM2B_PUBLIC ‖ TPM2B_PRIVATE`, as
    /// [`Tpm::create`] gives it. Part 3 §12.2.
    ///
    /// # Errors
    ///
    /// [`TpmError`]; nothing is loaded then.
    pub fn load(&mut self, parent: Handle, blob: &[u8]) -> Result<Handle, TpmError<T::Error>> {
        let mut parts = Parts::new(blob);
        let (public, private) = (parts.sized(), parts.sized());
        let mut command = self.command(Code::Load, &[parent]);
        let command = command.passwords(&[&[]]).sized(private).sized(public).end();
        self.expect(parts.is_whole())?;
        self.call(command)
    }

    /// Writes the public area of what is loaded or persistent to the front of `public`; returns
    /// its octets. Part 3 §12.4.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub fn read_public(
        &mut self,
        handle: Handle,
        public: &mut [u8],
    ) -> Result<usize, TpmError<T::Error>> {
        let command = self.command(Code::ReadPublic, &[handle]).end();
        self.call(command)?;
        self.copy_first(public)
    }

    /// Saves what is loaded as `handle`, which stays loaded; writes the `TPMS_CONTEXT` to the front
    /// of `context` and returns its octets. It is good until the TPM is reset. Part 3 §28.2.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub fn context_save(
        &mut self,
        handle: Handle,
        context: &mut [u8],
    ) -> Result<usize, TpmError<T::Error>> {
        let command = self.command(Code::ContextSave, &[handle]).end();
        self.call(command)?;
        copy(self.parameters().rest(), context)
    }

    /// Loads what [`Tpm::context_save`] saved. Part 3 §28.3.
    ///
    /// # Errors
    ///
    /// [`TpmError`]; nothing is loaded then.
    pub fn context_load(&mut self, context: &[u8]) -> Result<Handle, TpmError<T::Error>> {
        let command = self.command(Code::ContextLoad, &[]).octets(context).end();
        self.call(command)
    }

    /// Signs a digest with a P-256 key whose scheme is fixed: r ‖ s. Part 3 §20.2.
    ///
    /// # Errors
    ///
    /// [`TpmError`]; what is in `signature` is none then.
    pub fn sign(
        &mut self,
        key: Handle,
        digest: &[u8; 32],
        signature: &mut [u8; 2 * SCALAR_LEN],
    ) -> Result<(), TpmError<T::Error>> {
        let mut command = self.command(Code::Sign, &[key]);
        command.passwords(&[&[]]).sized(digest).u16(TpmAlgId::Null as u16);
        // No ticket: the key is not restricted, so that it signs what others hashed.
        command.u16(TpmSt::HashCheck as u16).u32(TpmRh::Null as u32).sized(&[]);
        let command = command.end();
        self.call(command)?;
        let is_one = ecdsa(self.parameters(), signature);
        self.expect(is_one)
    }

    /// Has `ak` state that `key` is in this TPM, over up to 64 octets of the verifier's; writes the
    /// statement and its signature to `out`. Part 3 §18.2.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub fn certify(
        &mut self,
        key: Handle,
        ak: Handle,
        qualifying: &[u8],
        out: &mut [u8],
    ) -> Result<Certified, TpmError<T::Error>> {
        let mut command = self.command(Code::Certify, &[key, ak]);
        command.passwords(&[&[], &[]]).sized(qualifying).u16(TpmAlgId::Null as u16);
        let command = command.end();
        self.call(command)?;
        let mut parts = self.parameters();
        let attest = parts.sized();
        self.expect(parts.is_whole())?;
        let attest_len = copy(attest, out)?;
        let signature_len = copy(parts.rest(), out.get_mut(attest_len..).unwrap_or_default())?;
        Ok(Certified { attest_len, signature_len })
    }

    /// Copies the `TPM2B` that the answer begins with to the front of `out`.
    pub(super) fn copy_first(&self, out: &mut [u8]) -> Result<usize, TpmError<T::Error>> {
        let mut parts = self.parameters();
        let octets = parts.sized();
        self.expect(parts.is_whole())?;
        copy(octets, out)
    }
}

/// The parameters of `TPM2_Create` and `TPM2_CreatePrimary`: a key without a password whose
/// sensitive part the TPM draws; nothing from outside and no PCR in its creation data.
pub(super) fn creation<'w, 'a>(command: &'w mut Writer<'a>, template: &[u8]) -> &'w mut Writer<'a> {
    const NO_AUTH_NO_DATA: [u8; 4] = [0; 4];
    command.sized(&NO_AUTH_NO_DATA).sized(template).sized(&[]).u32(0)
}

/// Copies `octets` to the front of `out`; returns how many they are.
pub(super) fn copy<E>(octets: &[u8], out: &mut [u8]) -> Result<usize, TpmError<E>> {
    let too_small = TpmError::too_small(octets.len(), out.len());
    out.get_mut(..octets.len()).ok_or(too_small)?.copy_from_slice(octets);
    Ok(octets.len())
}

/// Reads a `TPMT_SIGNATURE` of ECDSA with SHA-256; a TPM may leave out zeros in front of r and s.
/// `false` if it is none.
fn ecdsa(mut parts: Parts<'_>, signature: &mut [u8; 2 * SCALAR_LEN]) -> bool {
    let algorithms = (parts.u16(), parts.u16());
    let mut is_one = algorithms == (TpmAlgId::Ecdsa as u16, TpmAlgId::Sha256 as u16);
    for scalar in signature.chunks_exact_mut(SCALAR_LEN) {
        is_one &= parts.fill(scalar);
    }
    is_one && parts.is_used_up()
}
