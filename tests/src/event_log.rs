//! What happened in a run, fact by fact.
//!
//! **What it is.** The simulator says each thing that happens as an [`Entry`]: when, to whom,
//! what. Checkers judge entries and see nothing else, so that each can be shown a made-up log and
//! be seen to fire. The same entries are printed by `--replay`, and their SHA-256 is the trace hash
//! by which two runs are compared.
//!
//! **What it must never do.** Carry anything that may differ between two runs of one seed: no
//! signature, no octet of a certificate, no address. Keys and serial numbers are drawn from the
//! seed and stand here by the first octets of their names.
//!
//! **Why the hash is the same everywhere.** Entries are hashed in postcard, whose octets depend on
//! neither the machine nor the compiler.

use std::fmt;

use fleetcert_core::event::Operation;
use fleetcert_core::record::{Kind, Slot, Standing};
use fleetcert_core::time::{Validity, Wall};
use ring::digest::{Context, Digest, SHA256};
use serde::{Serialize, Serializer};

use crate::sim::clock::{At, Step};

/// Octets of one entry in postcard, at most.
const ENTRY_LEN_MAX: usize = 256;

/// Something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// When.
    pub at: At,
    /// To which device; `None`: to all of them.
    pub device: Option<u32>,
    /// What.
    pub fact: Fact,
}

/// The first octets of a request's name, a serial number or a key's SHA-256: a name that is
/// unique in any run there will ever be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Mark(pub u64);

/// A certificate, as far as anybody here cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Leaf {
    /// Its serial number.
    pub serial: Mark,
    /// Its public key.
    pub key: Mark,
    /// Its validity.
    pub validity: Validity,
}

/// What a durable record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DurableRecord {
    /// Its number.
    pub generation: u64,
    /// The device's standing.
    pub standing: Standing,
    /// The identity in use and its slot.
    pub active: Option<(Slot, Leaf)>,
    /// Which slots it names, A then B.
    pub named: [bool; 2],
    /// The request that waits for its answer.
    pub request: Option<Mark>,
    /// Its floor.
    pub floor: Wall,
}

/// What the platform's clocks said to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Clocks {
    /// Its wall clock.
    pub wall: Option<Wall>,
    /// Whether that claims to be synchronised.
    pub synchronised: bool,
}

/// What a device does or is told, without its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doing(pub Operation);

impl Serialize for Doing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.code())
    }
}

/// How a device was kept from doing what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Impairment {
    /// The broker is away.
    BrokerOutage,
    /// The broker refuses everybody: its CRL expired.
    BrokerRefusal,
    /// The wall clock is wrong.
    Clock(Step),
    /// The file system is full or read-only.
    Disk,
    /// The key store does not answer.
    KeyStore,
    /// No network.
    Partition,
    /// No power.
    Power,
    /// The provisioner is away.
    ProvisionerOutage,
    /// Asleep.
    Suspend,
}

/// How an action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It failed; the code of the failure.
    Failed(&'static str),
}

/// What the machine reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Report {
    /// An identity is in use.
    Adopted,
    /// A new identity was given up.
    CandidateDiscarded,
    /// The clock came to be believed, or ceased to be.
    ClockJudged {
        /// Whether it is believed now.
        known: bool,
    },
    /// The provisioner's time was not taken.
    ClockRefused,
    /// The device ended its life.
    Decommissioned,
    /// A certificate was issued and is durable.
    Enrolled,
    /// The identity in use ran out.
    Expired,
    /// An action failed.
    Failed {
        /// When it will be tried again, seconds.
        retry_in_s: u32,
    },
    /// A new identity is in use.
    Proven,
    /// The provisioner revoked us.
    Quarantined,
    /// A certificate is going to be asked for.
    Requested {
        /// How the request is authenticated.
        kind: Kind,
    },
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Fact {
    /// The machine asked for an action.
    Acted {
        /// Which.
        doing: Doing,
        /// On which slot.
        slot: Option<Slot>,
    },
    /// An action was answered.
    Answered {
        /// Which.
        doing: Doing,
        /// How.
        outcome: Outcome,
        /// The time that the provisioner told with the answer.
        told: Option<Wall>,
    },
    /// An operator approved the key that waits.
    Approved,
    /// The device started and read its record.
    Booted {
        /// The generation of what was found; `None`: nothing could be read.
        generation: Option<u64>,
        /// How many copies could be read.
        readable: u8,
    },
    /// The broker accepted the device.
    Connected {
        /// The certificate it presented.
        serial: Mark,
    },
    /// One copy of the record was damaged.
    CopyDamaged,
    /// The broker knows the newest CRL.
    CrlReached,
    /// Somebody decommissioned the device.
    Decommissioned,
    /// The broker connection ended.
    Disconnected,
    /// What is durable now.
    Durable(DurableRecord),
    /// From now on nothing goes wrong.
    Healed,
    /// How the device is, looked at from outside.
    Health {
        /// Whether it has power.
        powered: bool,
        /// The identity in use, if its durable record has one.
        active: Option<Leaf>,
        /// Whether it is connected to the broker with it.
        connected: bool,
    },
    /// Something keeps the device from what it should do.
    Impaired {
        /// What.
        by: Impairment,
        /// Until when.
        until: At,
    },
    /// The provisioner issued a certificate, or the same one again.
    Issued {
        /// For which request.
        request: Mark,
        /// Which.
        leaf: Leaf,
    },
    /// A key was erased on the machine's word.
    KeyErased {
        /// In which slot.
        slot: Slot,
        /// Whether the record that a boot would find now names that slot.
        named: bool,
    },
    /// A slot holds a key.
    KeyHeld {
        /// Which slot.
        slot: Slot,
        /// Which key.
        key: Mark,
    },
    /// A fault took a key.
    KeyLost {
        /// From which slot.
        slot: Slot,
    },
    /// The device was made: first boot.
    Made,
    /// A message was lost or came too late.
    MessageLost,
    /// The provisioner lets the device wait for an operator.
    Pending,
    /// Power failed.
    PowerCut {
        /// In the middle of what.
        during: Option<Doing>,
    },
    /// The provisioner refused.
    Refused {
        /// HTTP status.
        status: u16,
        /// Reason code.
        reason: &'static str,
    },
    /// Somebody commanded a renewal.
    RenewCommanded,
    /// The machine reported something, and what the clocks said then.
    Reported {
        /// What.
        report: Report,
        /// The clocks.
        clocks: Clocks,
    },
    /// An operator revoked the device.
    Revoked,
    /// The device asked for a certificate.
    Sent {
        /// The name of the request.
        request: Mark,
        /// How it is authenticated.
        kind: Kind,
        /// The clocks.
        clocks: Clocks,
    },
    /// A late or doubled answer came.
    Stale {
        /// Whether the machine refused it.
        refused: bool,
        /// Whether anything that can be seen of the machine changed.
        changed: bool,
    },
    /// The machine's timer went off.
    Ticked {
        /// Why it was set.
        timer: &'static str,
    },
    /// An operator gave the device a new token.
    TokenGiven,
    /// The machine decided that it wants a certificate, by what the clocks said then.
    Wanted {
        /// How the request will be authenticated.
        kind: Kind,
        /// The clocks.
        clocks: Clocks,
    },
}

impl Mark {
    /// The mark of a longer name.
    #[must_use]
    pub fn of(octets: &[u8]) -> Self {
        let mut head = [0; 8];
        let len = octets.len().min(8);
        head[..len].copy_from_slice(&octets[..len]);
        Self(u64::from_be_bytes(head))
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.device {
            Some(device) => write!(f, "{} device {device}: {:?}", self.at, self.fact),
            None => write!(f, "{} all: {:?}", self.at, self.fact),
        }
    }
}

/// SHA-256 over the entries of a run.
pub struct TraceHash {
    context: Context,
    /// How many entries went in.
    pub entries: u64,
}

impl TraceHash {
    /// The hash of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self { context: Context::new(&SHA256), entries: 0 }
    }

    /// Adds an entry.
    pub fn see(&mut self, entry: &Entry) {
        let mut buffer = [0; ENTRY_LEN_MAX];
        // An entry that did not fit would be hashed as empty: still the same on every machine.
        let octets = postcard::to_slice(entry, &mut buffer).map_or(&[][..], |octets| octets);
        debug_assert!(!octets.is_empty(), "an entry longer than its limit");
        self.context.update(octets);
        self.entries += 1;
    }

    /// The hash of everything so far.
    #[must_use]
    pub fn finish(&self) -> Digest {
        self.context.clone().finish()
    }
}

impl Default for TraceHash {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for TraceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceHash").field("entries", &self.entries).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{Entry, Fact, Mark, TraceHash};
    use crate::sim::clock::At;

    // Goal: the hash sees each part of an entry.
    #[test]
    fn time_device_and_fact_each_change_the_hash() {
        let hash = |at, device, fact| {
            let mut hash = TraceHash::new();
            hash.see(&Entry { at: At(at), device, fact });
            hash.finish().as_ref().to_vec()
        };
        let base = hash(1, Some(2), Fact::Made);
        assert_eq!(base, hash(1, Some(2), Fact::Made));
        assert_ne!(base, hash(2, Some(2), Fact::Made));
        assert_ne!(base, hash(1, Some(3), Fact::Made));
        assert_ne!(base, hash(1, None, Fact::Made));
        assert_ne!(base, hash(1, Some(2), Fact::Pending));
    }

    #[test]
    fn entries_read_as_one_line_each() {
        let entry = Entry { at: At(1), device: Some(3), fact: Fact::Connected { serial: Mark(9) } };
        assert_eq!(
            entry.to_string(),
            "0d00:00:00.001 device 3: Connected { serial: 0000000000000009 }"
        );
    }
}
