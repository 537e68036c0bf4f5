//! The file system under a device's record: two copies, and what a power cut leaves of them.
//!
//! **What it is.** The store of the agent as a sequence of file operations (`SEQUENCE`): for each
//! of the two copies write a temporary file, sync it, rename it over the copy, sync the folder. The
//! second copy is begun only when the first one's folder was synced. A power cut comes after any
//! number of these. Operations that no sync had confirmed then happened or did not, in any
//! combination, and a write may have happened in part.
//!
//! **What it must never do.** Lose what a sync confirmed: that would test a disk, not the agent.
//! A sync is taken to be at least a barrier. A disk that confirms from a volatile cache may
//! therefore lose or tear the copy that was being written (a rename that overtook the data), and
//! never the other one, which is what two copies are for.
//!
//! **How it is cheap.** A copy is kept as the record it was made from and encoded when somebody
//! reads it: encoding is a pure function, so when it happens cannot be told apart.

use std::rc::Rc;

use fleetcert_core::record::{RECORD_LEN_MAX, Record};

use super::random::Dice;

/// One file operation of a save.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    /// Write the temporary file of a copy.
    Write(usize),
    /// Sync that file.
    SyncFile(usize),
    /// Rename it over the copy.
    Rename(usize),
    /// Sync the folder.
    SyncFolder(usize),
}

/// A save, in order.
const SEQUENCE: [Operation; 8] = [
    Operation::Write(0),
    Operation::SyncFile(0),
    Operation::Rename(0),
    Operation::SyncFolder(0),
    Operation::Write(1),
    Operation::SyncFile(1),
    Operation::Rename(1),
    Operation::SyncFolder(1),
];

/// The content of one copy.
#[derive(Clone, Debug)]
enum Content {
    /// There is no such file.
    Absent,
    /// What the record encodes to.
    Whole(Rc<Record>),
    /// Some octets.
    Octets(Vec<u8>),
}

/// The two copies of one device's record.
#[derive(Clone, Debug)]
pub struct Disk {
    copies: [Content; 2],
}

/// What a boot finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The newest record that can be read.
    pub record: Option<Record>,
    /// How many copies can be read.
    pub readable: u8,
}

impl Disk {
    /// An empty disk.
    #[must_use]
    pub const fn new() -> Self {
        Self { copies: [Content::Absent, Content::Absent] }
    }

    /// Saves `record`, undisturbed.
    pub fn save(&mut self, record: &Rc<Record>) {
        self.copies = [Content::Whole(Rc::clone(record)), Content::Whole(Rc::clone(record))];
    }

    /// Begins to save `record`; power fails after some of the operations.
    pub fn save_cut_short(&mut self, record: &Rc<Record>, dice: &mut Dice) {
        let done = usize::try_from(dice.below(SEQUENCE.len() as u64 + 1)).unwrap_or(0);
        for copy in 0..2 {
            let begun = SEQUENCE[..done].contains(&Operation::Write(copy));
            let renamed = SEQUENCE[..done].contains(&Operation::Rename(copy));
            let confirmed = SEQUENCE[..done].contains(&Operation::SyncFolder(copy));
            let other_is_good = self.parse(1 - copy).is_some();
            if confirmed || (renamed && dice.below(2) == 0) {
                self.copies[copy] = Content::Whole(Rc::clone(record));
            } else if begun && other_is_good && dice.below(4) == 0 {
                self.copies[copy] = torn(record, dice);
            }
        }
    }

    /// Damages one of two good copies, as wear does. Returns whether there was one to damage:
    /// the only good copy is never taken, for nothing can be built on no copy.
    pub fn damage(&mut self, dice: &mut Dice) -> bool {
        let first = usize::from(dice.below(2) == 1);
        let (Some(one), Some(other)) = (self.parse(first), self.parse(1 - first)) else {
            return false;
        };
        if one.generation != other.generation {
            return false;
        }
        let mut octets = encode(&one);
        let place = usize::try_from(dice.below(octets.len() as u64 * 8)).unwrap_or(0);
        octets[place / 8] ^= 1 << (place % 8);
        self.copies[first] = Content::Octets(octets);
        true
    }

    /// Whether both copies can be read and say the same, or none was ever saved.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        match &self.copies {
            [Content::Absent, Content::Absent] => true,
            [Content::Whole(first), Content::Whole(second)] => {
                first.generation == second.generation
            }
            _ => false,
        }
    }

    /// Reads both copies as a boot does, and makes both the one that it found: what a boot acts on
    /// must not be in one place only.
    pub fn load(&mut self) -> Found {
        let [first, second] = [self.parse(0), self.parse(1)];
        let readable = u8::from(first.is_some()) + u8::from(second.is_some());
        let record = match (first, second) {
            (Some(first), Some(second)) if second.generation > first.generation => Some(second),
            (first, second) => first.or(second),
        };
        if let Some(record) = record.as_ref().filter(|_| !self.is_whole()) {
            self.save(&Rc::new(record.clone()));
        }
        Found { record, readable }
    }

    fn parse(&self, copy: usize) -> Option<Record> {
        match &self.copies[copy] {
            Content::Absent => None,
            Content::Whole(record) => Record::parse(&encode(record)).ok(),
            Content::Octets(octets) => Record::parse(octets).ok(),
        }
    }
}

impl Default for Disk {
    fn default() -> Self {
        Self::new()
    }
}

fn encode(record: &Record) -> Vec<u8> {
    let mut buffer = [0; RECORD_LEN_MAX];
    record.emit(&mut buffer).map(<[u8]>::to_vec).unwrap_or_default()
}

/// A part of what was to be written: cut off, or with a tail that never reached the disk. The last
/// octet is always missing or wrong, so that what is found does not hang on what was encoded.
fn torn(record: &Record, dice: &mut Dice) -> Content {
    let mut octets = encode(record);
    let whole = octets.len();
    let kept = usize::try_from(dice.below(1 << 16)).unwrap_or(0) * whole / (1 << 16);
    octets.truncate(kept);
    if dice.below(2) == 0 {
        octets.resize(whole - 1, 0);
    }
    Content::Octets(octets)
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use fleetcert_core::record::Record;
    use fleetcert_core::time::Wall;

    use super::Disk;
    use crate::sim::random::Dice;

    fn record(generation: u64) -> Rc<Record> {
        Rc::new(Record { generation, ..Record::new(Wall(1)) })
    }

    // Goal: wherever power fails in a save, the boot finds the old record or the new one.
    #[test]
    fn a_cut_save_leaves_the_old_record_or_the_new_one() {
        let (mut old, mut new, mut torn) = (0, 0, 0);
        for seed in 0..2_000 {
            let mut disk = Disk::new();
            disk.save(&record(1));
            disk.save_cut_short(&record(2), &mut Dice::new(seed, 0));
            let found = disk.load();
            match found.record.map(|record| record.generation) {
                Some(1) => old += 1,
                Some(2) => new += 1,
                other => panic!("seed {seed}: found {other:?}"),
            }
            torn += u32::from(found.readable < 2);
        }
        assert!(old > 100 && new > 100 && torn > 100, "{old} {new} {torn}");
    }

    // Goal: before anything was ever saved there is nothing to fall back on, and that is said.
    #[test]
    fn a_first_save_that_was_cut_short_may_leave_nothing() {
        let left = |seed| {
            let mut disk = Disk::new();
            disk.save_cut_short(&record(1), &mut Dice::new(seed, 0));
            disk.load().record.is_some()
        };
        assert!((0..100).any(left) && !(0..100).all(left));
    }

    // Goal: damage takes one copy, never the last.
    #[test]
    fn damage_leaves_one_copy_that_can_be_read() {
        for seed in 0..200 {
            let mut dice = Dice::new(seed, 0);
            let mut disk = Disk::new();
            disk.save(&record(7));
            assert!(disk.damage(&mut dice));
            assert!(!disk.damage(&mut dice), "the last copy was damaged");
            let found = disk.load();
            assert_eq!((found.readable, found.record.map(|r| r.generation)), (1, Some(7)));
        }
    }

    // Goal: what a boot found is found again, whatever happens to one copy then.
    #[test]
    fn a_boot_makes_both_copies_the_one_that_it_acts_on() {
        for seed in 0..200 {
            let mut dice = Dice::new(seed, 0);
            let mut disk = Disk::new();
            disk.save(&record(1));
            disk.save_cut_short(&record(2), &mut dice);
            let found = disk.load().record.unwrap().generation;
            assert!(disk.is_whole());
            disk.save_cut_short(&record(3), &mut dice);
            assert!(disk.load().record.unwrap().generation >= found);
        }
    }
}
