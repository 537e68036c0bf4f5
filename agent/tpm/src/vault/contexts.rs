//! Saved contexts: keys that were loaded once and can be loaded again in one command.
//!
//! To load a key from its blob takes its parent in a slot, and to make the parent takes a chip a
//! good part of a second. A saved context takes neither. It is good until the TPM is reset, and it
//! costs memory: a kilobyte each, so that a program says how many it can afford. With one place
//! the parent has it; with more, the keys that were used last.

use core::fmt;

use crate::name::Name;
use crate::tpm::CONTEXT_LEN_MAX;

/// Room for `N` saved contexts.
pub(super) struct Contexts<const N: usize> {
    places: [Place; N],
    /// Where the next context that finds no free place goes.
    next: usize,
}

struct Place {
    name: Option<Name>,
    len: usize,
    octets: [u8; CONTEXT_LEN_MAX],
}

impl<const N: usize> Contexts<N> {
    pub(super) const fn new() -> Self {
        const EMPTY: Place = Place { name: None, len: 0, octets: [0; CONTEXT_LEN_MAX] };
        Self { places: [EMPTY; N], next: 1 }
    }

    /// The context of the key with this Name.
    pub(super) fn find(&self, name: &Name) -> Option<&[u8]> {
        let place = self.places.iter().find(|place| place.name.as_ref() == Some(name))?;
        Some(&place.octets[..place.len])
    }

    /// Has `save` write the context of the parent.
    pub(super) fn put_parent<E>(
        &mut self,
        name: &Name,
        save: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        self.places.first_mut().map_or(Ok(()), |place| place.put(name, save))
    }

    /// Has `save` write the context of a key, if there is a place beside the parent's.
    pub(super) fn put<E>(
        &mut self,
        name: &Name,
        save: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        if N < 2 {
            return Ok(());
        }
        let index = self.next;
        self.next = if index + 1 < N { index + 1 } else { 1 };
        self.places[index].put(name, save)
    }

    /// Forgets the context of one key.
    pub(super) fn forget(&mut self, name: &Name) {
        for place in &mut self.places {
            if place.name.as_ref() == Some(name) {
                place.name = None;
            }
        }
    }

    /// Forgets all of them: the TPM was reset.
    pub(super) fn clear(&mut self) {
        self.places.iter_mut().for_each(|place| place.name = None);
    }
}

impl Place {
    fn put<E>(
        &mut self,
        name: &Name,
        save: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        self.name = None;
        self.len = save(&mut self.octets)?;
        self.name = Some(*name);
        Ok(())
    }
}

impl<const N: usize> fmt::Debug for Contexts<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.places.iter().filter_map(|place| place.name)).finish()
    }
}
