//! What the database knows of TPMs, as decisions see it.

use std::sync::Arc;

use fleetcert_core::{device_id::DeviceId, time::Wall};

use super::Scope;
use crate::{
    attest::{EkId, root::RootId},
    binding::{Binding, Conflict, KeyName},
    challenge::{Challenge, Open},
    inventory::{Name, Status},
};

/// An endorsement key and the device that an operator lists it for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listing {
    /// The endorsement key.
    pub ek: EkId,
    /// The device.
    pub device: DeviceId,
}

/// The TPMs of one device, for a decision about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceTpm {
    /// The TPM that it is bound to.
    pub bound: Option<Binding>,
    /// The one that waits with its key for an operator, and what else is known of it.
    pub waiting: Option<(Binding, Known)>,
    /// The endorsement key that is listed for it.
    pub listed: Option<EkId>,
}

/// What is known of a TPM with which a device comes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The device that its endorsement key is bound to, and where that stands.
    pub holder: Option<(DeviceId, Status)>,
    /// The device that its endorsement key is listed for.
    pub listed_for: Option<DeviceId>,
    /// The endorsement key beside which its attestation key was seen.
    pub ak_seen_under: Option<EkId>,
    /// The other endorsement key with which the device is on record as having come.
    pub disputed_ek: Option<EkId>,
    /// The other device that is on record as having come with the holder's endorsement key.
    pub disputed_by: Option<DeviceId>,
}

/// What a challenge for an endorsement key depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endorsed {
    /// The device that the key is listed for.
    pub listed_for: Option<DeviceId>,
    /// The attestation key of the binding that holds for the key.
    pub recorded_ak: Option<KeyName>,
    /// The challenges that are open for the key, at most
    /// [`CHALLENGES_PER_EK_MAX`](crate::challenge::CHALLENGES_PER_EK_MAX).
    pub open: Vec<Open>,
    /// How many are open in all.
    pub open_in_all: u32,
    /// The set of roots.
    pub roots: RootsStamp,
}

/// Names one set of trusted roots: two sets with one stamp are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RootsStamp {
    /// How many there are.
    pub count: u32,
    /// The number of the last one added.
    pub newest: u64,
}

/// A trusted root as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRoot {
    /// Its name.
    pub id: RootId,
    /// The certificate, DER.
    pub der: Vec<u8>,
    /// When it was added.
    pub added_at: Wall,
}

/// The trusted roots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    /// Which set this is.
    pub stamp: RootsStamp,
    /// The roots, in the order in which they were added.
    pub roots: Vec<StoredRoot>,
}

/// What is known of a line of an import.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// The device's group and status, if there is such a device.
    pub device: Option<(Name, Status)>,
    /// The endorsement key that is listed for the device.
    pub listed: Option<EkId>,
    /// The device that the endorsement key is listed for.
    pub listed_for: Option<DeviceId>,
    /// The device that the endorsement key is bound to.
    pub held_by: Option<DeviceId>,
    /// The endorsement key that the device is bound to.
    pub bound_to: Option<EkId>,
}

/// Everything that is on record about the TPM of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TpmRecord {
    /// The TPM that it is bound to.
    pub bound: Option<Binding>,
    /// The one that waits for an operator.
    pub waiting: Option<Binding>,
    /// The endorsement key that is listed for it, and since when.
    pub listed: Option<(EkId, Wall)>,
    /// What contradicts its binding.
    pub conflicts: Vec<Conflict>,
}

/// What a list of devices says of one device's TPM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The device.
    pub device: DeviceId,
    /// The endorsement key that it is bound to.
    pub bound: Option<EkId>,
    /// How many conflicts wait for an operator.
    pub conflicts: u32,
}

/// The part of a [`Scope`] that is about TPMs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TpmScope {
    /// The TPMs of this device.
    pub device: Option<DeviceId>,
    /// This challenge, and what is known of its TPM.
    pub challenge: Option<crate::challenge::ChallengeId>,
    /// This endorsement key, and the challenges that are open at this time.
    pub endorsement: Option<(EkId, Wall)>,
    /// All trusted roots.
    pub roots: bool,
    /// What is known of these, in their order.
    pub import: Option<Arc<[Listing]>>,
}

/// The part of a [`View`](super::View) that is about TPMs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TpmView {
    /// The TPMs of the device.
    pub device: DeviceTpm,
    /// The challenge, and what else is known of its TPM.
    pub challenged: Option<(Challenge, Known)>,
    /// The endorsement key; nothing is known of it unless asked.
    pub endorsed: Endorsed,
    /// The roots; none unless asked.
    pub roots: Roots,
    /// One for each listing that was asked for.
    pub import: Vec<Imported>,
}

impl Scope {
    /// A scope that is about TPMs alone.
    #[must_use]
    pub fn of_tpm(tpm: TpmScope) -> Self {
        Self { tpm, ..Self::default() }
    }
}
