//! What operators decide about TPMs: whose makers are trusted, which TPM belongs to which device,
//! and that the hardware of a device was replaced.

use std::{fmt, sync::Arc};

use fleetcert_core::{device_id::DeviceId, time::Wall};

use super::{Provisioner, ServiceError, known};
use crate::{
    attest::{
        EkId,
        root::{EkRoot, ROOTS_MAX, RootId},
    },
    audit::{Actor, Entry, Event},
    authority::{RevocationReason, profile::is_reserved},
    binding::Hold,
    inventory::{Device, Name, Status, StepError},
    store::{
        Change, Listing, Scope, Store, StoredRoot, TpmScope, Verdict, View,
        tpm::{Imported, Roots},
    },
};

/// Devices of one import, at most: its transaction keeps all others waiting for about a second.
pub const IMPORT_LEN_MAX: usize = 20_000;

/// What a change of the roots changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootsAdded {
    /// Roots that are trusted now and were not before.
    pub added: u32,
    /// Roots that were trusted already.
    pub known: u32,
}

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportCount {
    /// Devices that were entered.
    pub devices_added: u32,
    /// Devices that were there and have an endorsement key listed now.
    pub listed: u32,
    /// Devices of which all of this was known.
    pub unchanged: u32,
}

/// Why an import was not done, not even in part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportError {
    /// Which entry, counted from 0.
    pub index: usize,
    /// Its device.
    pub device: DeviceId,
    /// What is wrong.
    pub fault: ImportFault,
}

/// What an entry of an import contradicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportFault {
    /// The device is bound to another TPM.
    Bound {
        /// To which.
        ek: EkId,
    },
    /// The device is in another group.
    Group {
        /// In which.
        found: Name,
    },
    /// The TPM is bound to another device.
    Held {
        /// To which.
        holder: DeviceId,
    },
    /// Another endorsement key is listed for the device.
    Listed {
        /// Which.
        ek: EkId,
    },
    /// The endorsement key is listed for another device.
    ListedElsewhere {
        /// For which.
        device: DeviceId,
    },
    /// The name is kept for backends.
    Reserved,
    /// The device was revoked.
    Revoked,
}

impl<S: Store> Provisioner<S> {
    /// Trusts the makers behind these roots.
    ///
    /// # Errors
    ///
    /// [`ServiceError::TooManyRoots`], [`ServiceError::Store`].
    pub async fn add_ek_roots(
        &self,
        roots: Vec<EkRoot>,
        operator: &str,
        now: Wall,
    ) -> Result<RootsAdded, ServiceError> {
        let actor = Actor::Operator(operator.to_owned());
        let decide = move |view: &View| add_roots(&view.tpm.roots, &roots, &actor, now);
        self.store.transact(roots_scope(), decide).await?.outcome
    }

    /// Trusts the makers behind a root no longer. Challenges that are open are forgotten, since
    /// they may rest on it; devices ask again. What is bound stays bound.
    ///
    /// # Errors
    ///
    /// [`ServiceError::UnknownRoot`], [`ServiceError::Store`].
    pub async fn remove_ek_root(
        &self,
        id: RootId,
        operator: &str,
        now: Wall,
    ) -> Result<(), ServiceError> {
        let entry = Entry::new(now, Event::EkRootRemoved, Actor::Operator(operator.to_owned()));
        let entry = entry.saying(&id.to_string());
        let decide = move |view: &View| {
            if view.tpm.roots.roots.iter().all(|root| root.id != id) {
                return Verdict::new(Err(ServiceError::UnknownRoot(id)));
            }
            Verdict {
                changes: vec![Change::RemoveRoot(id), Change::DropChallenges],
                audit: vec![entry.clone()],
                ..Verdict::new(Ok(()))
            }
        };
        self.store.transact(roots_scope(), decide).await?.outcome
    }

    /// Enters devices into a group and lists their endorsement keys, all of them or none. What is
    /// as it should be already stays as it is.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Import`] names the first entry that contradicts what is known,
    /// [`ServiceError::ImportTooLong`], [`ServiceError::UnknownGroup`], [`ServiceError::Store`].
    pub async fn import(
        &self,
        entries: &[(DeviceId, EkId)],
        group: Name,
        operator: &str,
        now: Wall,
    ) -> Result<ImportCount, ServiceError> {
        if entries.len() > IMPORT_LEN_MAX {
            return Err(ServiceError::ImportTooLong { found: entries.len() });
        }
        if !self.settings.groups.contains_key(&group) {
            return Err(ServiceError::UnknownGroup(group));
        }
        let listing = |(device, ek): &(DeviceId, EkId)| Listing { ek: *ek, device: device.clone() };
        let listings: Arc<[Listing]> = entries.iter().map(listing).collect();
        let import = Some(Arc::clone(&listings));
        let scope = Scope::of_tpm(TpmScope { import, ..TpmScope::default() });
        let actor = Actor::Operator(operator.to_owned());
        let decide = move |view: &View| {
            let import = Import { listings: &listings, group: &group, actor: &actor, now };
            let done = import.decide(&view.tpm.import);
            done.unwrap_or_else(|error| Verdict::new(Err(ServiceError::Import(error))))
        };
        self.store.transact(scope, decide).await?.outcome
    }

    /// The hardware of a device was replaced: releases its TPM, revokes its certificates as
    /// superseded, settles its conflicts, and expects it to enroll anew. With `ek`, only the TPM
    /// with that endorsement key may take its place; without, whichever the policy lets in. A
    /// revoked device stays revoked, only its TPM becomes free for another one.
    ///
    /// # Errors
    ///
    /// [`ServiceError::UnknownDevice`]; [`ServiceError::EkTaken`] if the new TPM is another
    /// device's; [`ServiceError::Step`] to give a revoked device a new one.
    pub async fn replace(
        &self,
        device: DeviceId,
        ek: Option<EkId>,
        operator: &str,
        now: Wall,
    ) -> Result<Device, ServiceError> {
        let listing = ek.map(|ek| Listing { ek, device: device.clone() });
        let tpm = TpmScope {
            device: Some(device.clone()),
            import: listing.clone().map(|listing| Arc::from([listing])),
            ..TpmScope::default()
        };
        let scope = Scope { device: Some(device.clone()), tpm, ..Scope::default() };
        let entry = Entry::new(now, Event::DeviceReplaced, Actor::Operator(operator.to_owned()));
        let entry = entry.about(&device);
        let decide = move |view: &View| {
            let replaced = replaced(view, &device, listing.as_ref(), now);
            let (device, changes) = match replaced {
                Ok(replaced) => replaced,
                Err(error) => return Verdict::new(Err(error)),
            };
            let audit = vec![entry.clone().saying(&replacement(view, ek))];
            Verdict { changes, audit, ..Verdict::new(Ok(device)) }
        };
        self.store.transact(scope, decide).await?.outcome
    }

    /// Turns down what waits for an operator: a key with the evidence that came with it, and
    /// conflicts.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Step`] if nothing waits, [`ServiceError::UnknownDevice`].
    pub async fn reject(
        &self,
        device: DeviceId,
        operator: &str,
        now: Wall,
    ) -> Result<Device, ServiceError> {
        let conflicts = !self.store.tpm(device.clone()).await?.conflicts.is_empty();
        let id = device.clone();
        self.step(device, operator, Event::Rejected, now, move |found| {
            let found = known(found, &id)?;
            let rejected = match found.clone().rejected() {
                Err(StepError::NothingWaits) if conflicts => found,
                rejected => rejected.map_err(ServiceError::Step)?,
            };
            let changes = vec![
                Change::Unbind(id.clone(), Hold::Waiting),
                Change::SettleConflicts(id.clone()),
            ];
            Ok((rejected, String::new(), changes))
        })
        .await
    }
}

fn roots_scope() -> Scope {
    Scope::of_tpm(TpmScope { roots: true, ..TpmScope::default() })
}

fn add_roots(
    present: &Roots,
    roots: &[EkRoot],
    actor: &Actor,
    now: Wall,
) -> Verdict<Result<RootsAdded, ServiceError>> {
    let is_known = |root: &&EkRoot| present.roots.iter().any(|known| known.id == root.id());
    let (known, new): (Vec<&EkRoot>, Vec<&EkRoot>) = roots.iter().partition(is_known);
    let found = present.roots.len() + new.len();
    if found > ROOTS_MAX {
        return Verdict::new(Err(ServiceError::TooManyRoots { found }));
    }
    let change = |root: &&EkRoot| {
        Change::Root(StoredRoot { id: root.id(), der: root.der().to_vec(), added_at: now })
    };
    let entry = |root: &&EkRoot| {
        let detail = format!("{} {}", root.id(), root.subject());
        Entry::new(now, Event::EkRootAdded, actor.clone()).saying(&detail)
    };
    let added = RootsAdded { added: count(new.len()), known: count(known.len()) };
    Verdict {
        changes: new.iter().map(change).collect(),
        audit: new.iter().map(entry).collect(),
        ..Verdict::new(Ok(added))
    }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// One import, to be held against what is known of each entry.
struct Import<'a> {
    listings: &'a [Listing],
    group: &'a Name,
    actor: &'a Actor,
    now: Wall,
}

impl Import<'_> {
    fn decide(
        &self,
        found: &[Imported],
    ) -> Result<Verdict<Result<ImportCount, ServiceError>>, Box<ImportError>> {
        let mut counts = ImportCount::default();
        let (mut changes, mut audit) = (Vec::new(), Vec::new());
        for (index, (listing, found)) in self.listings.iter().zip(found).enumerate() {
            let device = listing.device.clone();
            self.check(listing, found)
                .map_err(|fault| Box::new(ImportError { index, device, fault }))?;
            self.enter(listing, found, &mut counts, &mut changes, &mut audit);
        }
        if !changes.is_empty() {
            audit.push(self.summary(counts));
        }
        Ok(Verdict { changes, audit, ..Verdict::new(Ok(counts)) })
    }

    fn check(&self, listing: &Listing, found: &Imported) -> Result<(), ImportFault> {
        let Listing { ek, device } = listing;
        if is_reserved(device) {
            return Err(ImportFault::Reserved);
        }
        if let Some((group, status)) = &found.device {
            if *status == Status::Revoked {
                return Err(ImportFault::Revoked);
            }
            if group != self.group {
                return Err(ImportFault::Group { found: group.clone() });
            }
        }
        if let Some(other) = found.listed_for.as_ref().filter(|other| *other != device) {
            return Err(ImportFault::ListedElsewhere { device: other.clone() });
        }
        if let Some(other) = found.listed.filter(|other| other != ek) {
            return Err(ImportFault::Listed { ek: other });
        }
        if let Some(holder) = found.held_by.as_ref().filter(|holder| *holder != device) {
            return Err(ImportFault::Held { holder: holder.clone() });
        }
        match found.bound_to.filter(|bound| bound != ek) {
            Some(ek) => Err(ImportFault::Bound { ek }),
            None => Ok(()),
        }
    }

    fn enter(
        &self,
        listing: &Listing,
        found: &Imported,
        counts: &mut ImportCount,
        changes: &mut Vec<Change>,
        audit: &mut Vec<Entry>,
    ) {
        let device = &listing.device;
        if found.device.is_some() && found.listed.is_some() {
            counts.unchanged += 1;
            return;
        }
        let entry = |event| Entry::new(self.now, event, self.actor.clone()).about(device);
        if found.device.is_none() {
            counts.devices_added += 1;
            let expected = Device::expected(device.clone(), self.group.clone(), self.now);
            changes.push(Change::Device(expected));
            audit.push(entry(Event::DeviceAdded));
        } else {
            counts.listed += 1;
        }
        if found.listed.is_none() {
            changes.push(Change::List { listing: listing.clone(), at: self.now });
            audit.push(entry(Event::EkListed).saying(&listing.ek.to_string()));
        }
    }

    fn summary(&self, counts: ImportCount) -> Entry {
        let ImportCount { devices_added, listed, unchanged } = counts;
        let detail = format!(
            "{devices_added} devices added to {}, {listed} listed, {unchanged} unchanged",
            self.group
        );
        Entry::new(self.now, Event::Imported, self.actor.clone()).saying(&detail)
    }
}

fn replaced(
    view: &View,
    id: &DeviceId,
    listing: Option<&Listing>,
    now: Wall,
) -> Result<(Device, Vec<Change>), ServiceError> {
    let device = known(view.device.as_ref(), id)?;
    let is_revoked = device.status == Status::Revoked;
    let mut changes = vec![
        Change::Unbind(id.clone(), Hold::Bound),
        Change::Unbind(id.clone(), Hold::Waiting),
        Change::SettleConflicts(id.clone()),
        Change::Unlist(id.clone()),
    ];
    if let Some(listing) = listing {
        check_free(listing, view.tpm.import.first())?;
        device.check_not_revoked().map_err(ServiceError::Step)?;
        changes.push(Change::List { listing: listing.clone(), at: now });
    }
    let device = if is_revoked { device } else { device.replaced() };
    if !is_revoked {
        let reason = RevocationReason::Superseded;
        changes.push(Change::RevokeDevice { device: id.clone(), at: now, reason });
        changes.push(Change::Device(device.clone()));
    }
    Ok((device, changes))
}

/// A new TPM must not be another device's, by list or by binding.
fn check_free(listing: &Listing, found: Option<&Imported>) -> Result<(), ServiceError> {
    let holders = found.into_iter().flat_map(|it| [&it.listed_for, &it.held_by]);
    let mut others = holders.flatten().filter(|holder| **holder != listing.device);
    match others.next() {
        Some(holder) => Err(ServiceError::EkTaken { ek: listing.ek, holder: holder.clone() }),
        None => Ok(()),
    }
}

/// What was replaced by what, in one line.
fn replacement(view: &View, ek: Option<EkId>) -> String {
    let text =
        |ek: Option<EkId>, none: &str| ek.map_or_else(|| none.to_owned(), |ek| ek.to_string());
    let bound = view.tpm.device.bound.as_ref().map(|bound| bound.proven.endorsement.ek);
    format!(
        "endorsement key {}, now {}",
        text(bound, "none"),
        text(ek, "any that the policy admits")
    )
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = &self.device;
        match &self.fault {
            ImportFault::Bound { ek } => write!(
                f,
                "{device} is bound to the TPM with endorsement key {ek}: `device replace` releases \
                 it"
            ),
            ImportFault::Group { found } => write!(f, "{device} is in group {found} already"),
            ImportFault::Held { holder } => write!(
                f,
                "the TPM of {device} is bound to {holder}: `device replace {holder}` releases it"
            ),
            ImportFault::Listed { ek } => write!(
                f,
                "{device} is listed with endorsement key {ek}: `device replace {device} --ek` \
                 changes it"
            ),
            ImportFault::ListedElsewhere { device: other } => {
                write!(f, "the endorsement key of {device} is listed for {other}")
            }
            ImportFault::Reserved => {
                write!(f, "{device} is a name for backends, expected one that is not backend.*")
            }
            ImportFault::Revoked => write!(f, "{device} was revoked"),
        }
    }
}

impl std::error::Error for ImportError {}
