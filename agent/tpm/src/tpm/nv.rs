//! Reading what makers left in the TPM's own memory.

use super::Tpm;
use crate::command::{Code, Handle, Hierarchy};
use crate::fault::TpmError;
use crate::reader::Parts;
use crate::transact::Transact;

/// Octets read at once, at most; with the command they fit the buffer twice.
const CHUNK_LEN_MAX: u16 = 768;

/// `TPMA_NV_OWNERREAD`. TPM 2.0 Part 2 §13.4.
const OWNER_READ: u32 = 1 << 17;

/// `TPMA_NV_AUTHREAD`.
const AUTH_READ: u32 = 1 << 18;

/// An NV index, as far as reading it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NvIndex {
    /// Octets in it.
    pub(crate) len: u16,
    /// Whose password opens it.
    authority: Handle,
}

impl<T: Transact> Tpm<T> {
    /// What an NV index is like. Part 3 §31.6.
    pub(crate) fn nv_read_public(&mut self, index: Handle) -> Result<NvIndex, TpmError<T::Error>> {
        let command = self.command(Code::NvReadPublic, &[index]).end();
        self.call(command)?;
        let mut area = Parts::new(self.parameters().sized());
        let (found, _name_alg, attributes) = (area.u32(), area.u16(), area.u32());
        let (_policy, len) = (area.sized(), area.u16());
        self.expect(area.is_whole() && found == index.0)?;
        let by_owner = attributes & AUTH_READ == 0 && attributes & OWNER_READ != 0;
        let authority = if by_owner { Hierarchy::Owner.handle() } else { index };
        Ok(NvIndex { len, authority })
    }

    /// Reads an NV index whole, with an empty password, to the front of `out`; returns its octets.
    /// In chunks, for one read gives no more than the TPM's buffer holds. Part 3 §31.13.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub fn nv_read(&mut self, index: Handle, out: &mut [u8]) -> Result<usize, TpmError<T::Error>> {
        let NvIndex { len, authority } = self.nv_read_public(index)?;
        let (needed, available) = (usize::from(len), out.len());
        let out = out.get_mut(..needed).ok_or(TpmError::too_small(needed, available))?;
        let chunk_max = u16::try_from(self.nv_buffer_max()?).unwrap_or(u16::MAX);
        let chunk_max = chunk_max.clamp(1, CHUNK_LEN_MAX);
        for (count, chunk) in out.chunks_mut(usize::from(chunk_max)).enumerate() {
            let offset = u16::try_from(count).unwrap_or(u16::MAX).saturating_mul(chunk_max);
            let wanted = u16::try_from(chunk.len()).unwrap_or(chunk_max);
            let mut command = self.command(Code::NvRead, &[authority, index]);
            let command = command.passwords(&[&[]]).u16(wanted).u16(offset).end();
            self.call(command)?;
            let octets = self.parameters().sized();
            self.expect(octets.len() == chunk.len())?;
            chunk.copy_from_slice(octets);
        }
        Ok(needed)
    }
}
