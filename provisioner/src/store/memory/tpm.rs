//! What the memory knows of TPMs: the same semantics as the tables of the same names.

use std::collections::BTreeMap;

use fleetcert_core::{device_id::DeviceId, time::Wall};

use crate::{
    attest::EkId,
    binding::{Binding, Conflict, ConflictKind, Hold, KeyName, Proven},
    challenge::{CHALLENGES_PER_EK_MAX, Challenge, ChallengeId, Open},
    inventory::Device,
    store::{
        Change, Mark, StoreError, StoredRoot, TpmRecord, TpmScope, TpmView,
        tpm::{DeviceTpm, Endorsed, Imported, Known, Listing, Roots, RootsStamp},
    },
};

#[derive(Debug, Default)]
pub(super) struct State {
    aks: BTreeMap<KeyName, EkId>,
    bindings: BTreeMap<(DeviceId, Hold), Binding>,
    challenges: BTreeMap<ChallengeId, Challenge>,
    conflicts: BTreeMap<(DeviceId, ConflictKind), Conflict>,
    listed: BTreeMap<EkId, (DeviceId, Wall)>,
    roots: BTreeMap<u64, StoredRoot>,
    /// The number of the root that was added last, whether or not it is still there.
    root_number: u64,
}

type Devices = BTreeMap<DeviceId, Device>;

impl State {
    pub(super) fn view(&self, scope: &TpmScope, devices: &Devices) -> TpmView {
        let challenge = scope.challenge.and_then(|id| self.challenges.get(&id));
        TpmView {
            device: scope
                .device
                .as_ref()
                .map_or_else(DeviceTpm::default, |id| self.device(id, devices)),
            challenged: challenge.map(|challenge| {
                let ek = challenge.endorsement.ek;
                let known = self.known(&challenge.device, ek, &challenge.ak.name, devices);
                (challenge.clone(), known)
            }),
            endorsed: scope
                .endorsement
                .map_or_else(Endorsed::default, |(ek, now)| self.endorsed(ek, now)),
            roots: if scope.roots { self.roots() } else { Roots::default() },
            import: scope
                .import
                .iter()
                .flat_map(|listings| listings.iter())
                .map(|listing| self.imported(listing, devices))
                .collect(),
        }
    }

    fn device(&self, id: &DeviceId, devices: &Devices) -> DeviceTpm {
        let waiting = self.binding(id, Hold::Waiting).map(|waiting| {
            let Proven { endorsement, ak, .. } = &waiting.proven;
            let known = self.known(id, endorsement.ek, &ak.name, devices);
            (waiting, known)
        });
        DeviceTpm {
            bound: self.binding(id, Hold::Bound),
            waiting,
            listed: self.listed(id).map(|(ek, _)| ek),
        }
    }

    fn listed(&self, id: &DeviceId) -> Option<(EkId, Wall)> {
        let listed = self.listed.iter().find(|(_, (device, _))| device == id);
        listed.map(|(ek, (_, at))| (*ek, *at))
    }

    fn binding(&self, id: &DeviceId, hold: Hold) -> Option<Binding> {
        self.bindings.get(&(id.clone(), hold)).cloned()
    }

    fn known(&self, device: &DeviceId, ek: EkId, ak: &KeyName, devices: &Devices) -> Known {
        let holder = self.holder(ek).and_then(|binding| devices.get(&binding.device));
        let dispute = |device: &DeviceId, kind| self.conflicts.get(&(device.clone(), kind));
        Known {
            holder: holder.map(|holder| (holder.id.clone(), holder.status)),
            listed_for: self.listed_for(ek),
            ak_seen_under: self.aks.get(ak).copied(),
            disputed_ek: dispute(device, ConflictKind::AnotherEk).map(|it| it.ek),
            disputed_by: holder
                .and_then(|holder| dispute(&holder.id, ConflictKind::ClaimedBy))
                .map(|conflict| conflict.claimant.clone()),
        }
    }

    fn endorsed(&self, ek: EkId, now: Wall) -> Endorsed {
        let is_open = |it: &&Challenge| it.used_at.is_none() && it.expires_at >= now;
        let all = self.challenges.values().filter(is_open);
        let open = all.clone().filter(|challenge| challenge.endorsement.ek == ek);
        let open = open.map(|challenge| Open {
            id: challenge.id,
            ak: challenge.ak.name.clone(),
            created_at: challenge.created_at,
        });
        Endorsed {
            listed_for: self.listed_for(ek),
            recorded_ak: self.holder(ek).map(|binding| binding.proven.ak.name.clone()),
            open: open.take(CHALLENGES_PER_EK_MAX).collect(),
            open_in_all: u32::try_from(all.count()).unwrap_or(u32::MAX),
            roots: self.stamp(),
        }
    }

    fn roots(&self) -> Roots {
        Roots { stamp: self.stamp(), roots: self.roots.values().cloned().collect() }
    }

    fn stamp(&self) -> RootsStamp {
        let count = u32::try_from(self.roots.len()).unwrap_or(u32::MAX);
        RootsStamp { count, newest: self.roots.keys().next_back().copied().unwrap_or(0) }
    }

    fn imported(&self, listing: &Listing, devices: &Devices) -> Imported {
        let bound = self.bindings.get(&(listing.device.clone(), Hold::Bound));
        Imported {
            device: devices.get(&listing.device).map(|it| (it.group.clone(), it.status)),
            listed: self.listed(&listing.device).map(|(ek, _)| ek),
            listed_for: self.listed_for(listing.ek),
            held_by: self.holder(listing.ek).map(|binding| binding.device.clone()),
            bound_to: bound.map(|binding| binding.proven.endorsement.ek),
        }
    }

    fn holder(&self, ek: EkId) -> Option<&Binding> {
        let holds = |it: &&Binding| it.hold == Hold::Bound && it.proven.endorsement.ek == ek;
        self.bindings.values().find(holds)
    }

    fn listed_for(&self, ek: EkId) -> Option<DeviceId> {
        self.listed.get(&ek).map(|(device, _)| device.clone())
    }

    pub(super) fn record(&self, id: &DeviceId) -> TpmRecord {
        let conflicts = self.conflicts.values().filter(|conflict| conflict.device == *id);
        TpmRecord {
            bound: self.binding(id, Hold::Bound),
            waiting: self.binding(id, Hold::Waiting),
            listed: self.listed(id),
            conflicts: conflicts.cloned().collect(),
        }
    }

    pub(super) fn mark(&self, id: &DeviceId) -> Mark {
        let bound = self.bindings.get(&(id.clone(), Hold::Bound));
        let conflicts = self.conflicts.keys().filter(|(device, _)| device == id).count();
        Mark {
            device: id.clone(),
            bound: bound.map(|binding| binding.proven.endorsement.ek),
            conflicts: u32::try_from(conflicts).unwrap_or(u32::MAX),
        }
    }

    /// What the database's uniqueness would refuse.
    pub(super) fn check_new(&self, changes: &[Change]) -> Result<(), StoreError> {
        for change in changes {
            let table = match change {
                Change::Ak { name, .. } if self.aks.contains_key(name) => "ak",
                Change::Bind(binding) if self.is_taken(binding) => "binding",
                Change::Challenge(row) if self.challenges.contains_key(&row.id) => "challenge",
                Change::List { listing, .. } if self.is_listed(listing, changes) => "ek_listed",
                Change::Root(root) if self.roots.values().any(|it| it.id == root.id) => "ek_root",
                _ => continue,
            };
            return Err(StoreError::Duplicate { table });
        }
        Ok(())
    }

    fn is_taken(&self, binding: &Binding) -> bool {
        let holder = self.holder(binding.proven.endorsement.ek);
        binding.hold == Hold::Bound && holder.is_some_and(|it| it.device != binding.device)
    }

    /// Whether one half of a pair is on the list when it is to be added: a change before may have
    /// taken it off.
    fn is_listed(&self, listing: &Listing, changes: &[Change]) -> bool {
        let is_unlisted = |device: &DeviceId| {
            changes.iter().any(|change| matches!(change, Change::Unlist(id) if id == device))
        };
        let same =
            |(ek, device): (&EkId, &DeviceId)| *ek == listing.ek || *device == listing.device;
        let mut listed = self.listed.iter().map(|(ek, (device, _))| (ek, device));
        listed.any(|row| same(row) && !is_unlisted(row.1))
    }

    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Ak { name, ek, .. } => {
                self.aks.insert(name, ek);
            }
            Change::Bind(binding) => {
                self.bindings.insert((binding.device.clone(), binding.hold), *binding);
            }
            Change::Challenge(row) => {
                self.challenges.insert(row.id, *row);
            }
            Change::Conflict(conflict) => {
                self.conflicts.insert((conflict.device.clone(), conflict.kind), conflict);
            }
            Change::DropChallenge(id) => {
                self.challenges.remove(&id);
            }
            Change::DropChallenges => self.challenges.clear(),
            Change::List { listing, at } => {
                self.listed.insert(listing.ek, (listing.device, at));
            }
            Change::PurgeChallenges { before } => {
                self.challenges.retain(|_, row| row.expires_at >= before);
            }
            Change::RemoveRoot(id) => self.roots.retain(|_, root| root.id != id),
            Change::Root(root) => {
                self.root_number += 1;
                self.roots.insert(self.root_number, root);
            }
            Change::SettleConflicts(id) => self.conflicts.retain(|(device, _), _| *device != id),
            Change::Unbind(id, hold) => {
                self.bindings.remove(&(id, hold));
            }
            Change::Unlist(id) => self.listed.retain(|_, (device, _)| *device != id),
            Change::UseChallenge { id, at } => {
                if let Some(row) = self.challenges.get_mut(&id) {
                    (row.used_at, row.secret) = (Some(at), None);
                }
            }
            Change::Crl(_)
            | Change::Device(_)
            | Change::Request(_)
            | Change::RevokeCertificate { .. }
            | Change::RevokeDevice { .. }
            | Change::Token(_) => {}
        }
    }
}
