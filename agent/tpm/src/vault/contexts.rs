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
        place.octets.get(..place.len)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u8) -> Name {
        Name::of_public_area(&[0, 0x23, 0, 0x0B, number]).unwrap()
    }

    fn keep<const N: usize>(contexts: &mut Contexts<N>, number: u8) {
        let saved = contexts.put(&name(number), |out| {
            out[0] = number;
            Ok::<_, ()>(1)
        });
        saved.unwrap();
    }

    /// Goal: the parent keeps its place, and of the keys those stay that were kept last.
    #[test]
    fn the_keys_that_were_kept_last_stay() {
        let mut contexts = Contexts::<3>::new();
        contexts.put_parent(&name(0), |_| Ok::<_, ()>(1)).unwrap();
        for number in 1..=5 {
            keep(&mut contexts, number);
            assert_eq!(contexts.find(&name(number)), Some(&[number][..]));
            assert!(contexts.find(&name(0)).is_some());
        }
        assert!(contexts.find(&name(4)).is_some() && contexts.find(&name(3)).is_none());
        contexts.forget(&name(5));
        assert!(contexts.find(&name(5)).is_none() && contexts.find(&name(0)).is_some());
        contexts.clear();
        assert!(contexts.find(&name(0)).is_none() && contexts.find(&name(4)).is_none());
    }

    /// Goal: with little room or none, nothing is kept, and nothing is asked for.
    #[test]
    fn without_room_nothing_is_saved() {
        let mut one = Contexts::<1>::new();
        one.put_parent(&name(0), |_| Ok::<_, ()>(1)).unwrap();
        one.put::<()>(&name(1), |_| panic!("saved")).unwrap();
        assert!(one.find(&name(0)).is_some() && one.find(&name(1)).is_none());
        let mut none = Contexts::<0>::new();
        none.put_parent::<()>(&name(0), |_| panic!("saved")).unwrap();
        none.put::<()>(&name(1), |_| panic!("saved")).unwrap();
    }

    /// Goal: a context that could not be saved is not half there.
    #[test]
    fn a_failed_save_leaves_nothing() {
        let mut contexts = Contexts::<2>::new();
        keep(&mut contexts, 1);
        assert_eq!(contexts.put(&name(2), |_| Err("full")), Err("full"));
        assert!(contexts.find(&name(1)).is_none() && contexts.find(&name(2)).is_none());
    }
}
