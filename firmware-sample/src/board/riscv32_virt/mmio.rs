//! Registers at fixed addresses.

use core::ptr;

/// A register of one octet, half a word or a word, at an address of this machine's memory map.
pub(super) struct Register<T>(*mut T);

impl<T: Copy> Register<T> {
    /// The register at `address`.
    ///
    /// # Safety
    ///
    /// `address` is that of a device register of this machine, aligned for `T`. Reading and writing
    /// it touches no memory of the program, then or later.
    pub(super) const unsafe fn new(address: usize) -> Self {
        Self(ptr::without_provenance_mut(address))
    }

    pub(super) fn read(&self) -> T {
        // SAFETY: who made this register has promised that it is one.
        unsafe { ptr::read_volatile(self.0) }
    }

    pub(super) fn write(&self, value: T) {
        // SAFETY: as above; and what a device does is its driver's to know.
        unsafe { ptr::write_volatile(self.0, value) }
    }
}
