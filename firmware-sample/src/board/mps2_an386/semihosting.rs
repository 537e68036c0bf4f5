//! The host's files, and the end of the emulation, by semihosting (Arm's Semihosting for AArch32
//! and AArch64, §6).
//!
//! A call is a breakpoint that the emulator takes for itself. Without one it faults: this is for
//! emulators and debuggers only.

use core::arch::asm;
use core::ffi::CStr;

const SYS_OPEN: usize = 0x01;
const SYS_CLOSE: usize = 0x02;
const SYS_WRITE: usize = 0x05;
const SYS_READ: usize = 0x06;
const SYS_SEEK: usize = 0x0a;
const SYS_FLEN: usize = 0x0c;
const SYS_EXIT_EXTENDED: usize = 0x20;

/// `rb`, `r+b` of `fopen`.
const MODE_READ: usize = 1;
const MODE_UPDATE: usize = 3;

/// The program has ended by itself.
const STOPPED_APPLICATION_EXIT: usize = 0x2_0026;

/// Nothing is left undone, of a read or a write.
const ALL: usize = 0;

/// What a call says that has failed.
const FAILED: usize = usize::MAX;

/// A file of the host, open for good.
#[derive(Clone, Copy, Debug)]
pub(super) struct File(usize);

impl File {
    /// Opens a file that is there, for reading and writing.
    pub(super) fn open(path: &CStr) -> Option<Self> {
        Self::open_as(path, MODE_UPDATE)
    }

    fn open_as(path: &CStr, mode: usize) -> Option<Self> {
        let arguments = [path.as_ptr().expose_provenance(), mode, path.count_bytes()];
        // SAFETY: a path that ends with zero, and its length; the host only reads it.
        let handle = unsafe { call(SYS_OPEN, &arguments) };
        (handle != FAILED).then_some(Self(handle))
    }

    /// Octets of the file.
    pub(super) fn len(self) -> Option<usize> {
        // SAFETY: the host only looks at the handle.
        let len = unsafe { call(SYS_FLEN, &[self.0, 0, 0]) };
        (len != FAILED).then_some(len)
    }

    /// Fills `octets` from `offset` on.
    pub(super) fn read(self, offset: usize, octets: &mut [u8]) -> Option<()> {
        self.seek(offset)?;
        self.read_on(octets)
    }

    fn read_on(self, octets: &mut [u8]) -> Option<()> {
        let place = octets.as_mut_ptr().expose_provenance();
        // SAFETY: the host writes no more than so many octets, there.
        (unsafe { call(SYS_READ, &[self.0, place, octets.len()]) } == ALL).then_some(())
    }

    /// Writes `octets` from `offset` on.
    pub(super) fn write(self, offset: usize, octets: &[u8]) -> Option<()> {
        self.seek(offset)?;
        let place = octets.as_ptr().expose_provenance();
        // SAFETY: the host reads no more than so many octets, there.
        (unsafe { call(SYS_WRITE, &[self.0, place, octets.len()]) } == ALL).then_some(())
    }

    fn seek(self, offset: usize) -> Option<()> {
        // SAFETY: the host only looks at the arguments.
        (unsafe { call(SYS_SEEK, &[self.0, offset, 0]) } == 0).then_some(())
    }

    fn close(self) {
        // SAFETY: the host only looks at the handle. Whether it could close it changes nothing.
        let _ = unsafe { call(SYS_CLOSE, &[self.0, 0, 0]) };
    }
}

/// Fills `octets` from the start of a file.
pub(super) fn read_file(path: &CStr, octets: &mut [u8]) -> Option<()> {
    let file = File::open_as(path, MODE_READ)?;
    let outcome = file.read_on(octets);
    file.close();
    outcome
}

/// Ends the emulation with a status, if there is an emulation.
pub(super) fn exit(status: usize) {
    // SAFETY: the host only looks at the arguments.
    let _ = unsafe { call(SYS_EXIT_EXTENDED, &[STOPPED_APPLICATION_EXIT, status, 0]) };
}

/// Asks the host.
///
/// # Safety
///
/// The arguments are those of the operation; what they point to, the host may read, and write as
/// far as the operation does.
unsafe fn call(operation: usize, arguments: &[usize; 3]) -> usize {
    let answer;
    // SAFETY: the emulator answers in r0 and keeps all else (the caller's promise for the memory,
    // which the compiler must take for changed).
    unsafe {
        asm!(
            "bkpt 0xab",
            inout("r0") operation => answer,
            in("r1") arguments.as_ptr(),
            options(nostack),
        );
    }
    answer
}
