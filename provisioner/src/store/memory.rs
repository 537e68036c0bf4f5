//! The store in memory: the same semantics, for simulations and tests.
//!
//! Its futures are ready at the first poll: nothing in here waits for anything but a lock that is
//! held for the length of one transaction. Maps are ordered, so a simulation replays exactly.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use fleetcert_core::{device_id::DeviceId, time::Wall};

use super::{
    Change, Committed, EnrollmentRequest, Mark, PAGE_LEN_MAX, RequestId, Scope, Store, StoreError,
    StoredCertificate, TpmRecord, Verdict, View,
};
use crate::{
    audit,
    authority::{Crl, KeyId, Reserved, Revocation, RevocationReason, Serial},
    inventory::{Device, Status},
    token::{Token, TokenHash},
};

mod tpm;

/// A store that forgets everything when it is dropped.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    devices: BTreeMap<DeviceId, Device>,
    certificates: BTreeMap<Serial, StoredCertificate>,
    /// The serial numbers of each device, oldest first.
    of_device: BTreeMap<DeviceId, Vec<Serial>>,
    revoked: BTreeMap<(KeyId, Serial), Revocation>,
    requests: BTreeMap<(DeviceId, RequestId), EnrollmentRequest>,
    tokens: BTreeMap<TokenHash, Token>,
    crls: BTreeMap<(KeyId, u64), Crl>,
    audit: Vec<audit::Entry>,
    tpm: tpm::State,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The state; a panic of another holder left it whole, because changes are applied only after
    /// everything that may go wrong.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    async fn transact<T, D>(&self, scope: Scope, decide: D) -> Result<Committed<T>, StoreError>
    where
        T: Send + 'static,
        D: Fn(&View) -> Verdict<T> + Send + 'static,
    {
        let mut state = self.lock();
        let Verdict { reserve, changes, audit, outcome } = decide(&state.view(&scope));
        let row = reserve.map(super::Prepared::into_row);
        state.check_new(row.as_ref(), &changes)?;
        let reserved = row.map(|row| {
            state.add_certificate(row.clone());
            Reserved::by_store(row)
        });
        changes.into_iter().for_each(|change| state.apply(change));
        state.audit.extend(audit);
        Ok(Committed { reserved, outcome })
    }

    async fn view(&self, scope: Scope) -> Result<View, StoreError> {
        Ok(self.lock().view(&scope))
    }

    async fn devices(
        &self,
        after: Option<DeviceId>,
        limit: u32,
    ) -> Result<Vec<Device>, StoreError> {
        let state = self.lock();
        let is_after = |id: &DeviceId| after.as_ref().is_none_or(|after| id > after);
        let devices = state.devices.values().filter(|device| is_after(&device.id));
        Ok(devices.take(limit.min(PAGE_LEN_MAX) as usize).cloned().collect())
    }

    async fn certificates(
        &self,
        device: DeviceId,
        limit: u32,
    ) -> Result<Vec<StoredCertificate>, StoreError> {
        let state = self.lock();
        let serials = state.of_device.get(&device).into_iter().flatten().rev();
        let found = serials.filter_map(|serial| state.certificates.get(serial));
        Ok(found.take(limit.min(PAGE_LEN_MAX) as usize).cloned().collect())
    }

    async fn newest(&self) -> Result<Option<Wall>, StoreError> {
        let state = self.lock();
        Ok(state.certificates.values().map(|row| row.validity.not_before).max())
    }

    async fn tpm(&self, device: DeviceId) -> Result<TpmRecord, StoreError> {
        Ok(self.lock().tpm.record(&device))
    }

    async fn marks(&self, after: Option<DeviceId>, limit: u32) -> Result<Vec<Mark>, StoreError> {
        let state = self.lock();
        let is_after = |id: &&DeviceId| after.as_ref().is_none_or(|after| *id > after);
        let devices = state.devices.keys().filter(is_after);
        let marks = devices.map(|device| state.tpm.mark(device));
        Ok(marks.take(limit.min(PAGE_LEN_MAX) as usize).collect())
    }

    async fn audit(&self, after: u64, limit: u32) -> Result<Vec<audit::Row>, StoreError> {
        let state = self.lock();
        let rows = (1..).zip(&state.audit).filter(|(number, _)| *number > after);
        let row =
            |(number, entry): (u64, &audit::Entry)| audit::Row { number, entry: entry.clone() };
        Ok(rows.take(limit.min(PAGE_LEN_MAX) as usize).map(row).collect())
    }
}

impl State {
    fn view(&self, scope: &Scope) -> View {
        let certificate = |serial: &Serial| self.certificates.get(serial).cloned();
        let request = scope.request.as_ref().and_then(|name| self.requests.get(name).cloned());
        let crl = scope.crl.and_then(|issuer| self.newest_crl(issuer));
        View {
            device: scope.device.as_ref().and_then(|id| self.devices.get(id).cloned()),
            request_certificate: request.as_ref().and_then(|found| certificate(&found.serial)),
            request,
            token: scope.token.and_then(|hash| self.tokens.get(&hash).cloned()),
            certificate: scope.certificate.as_ref().and_then(certificate),
            pending: if scope.pending { self.pending() } else { 0 },
            revoked: scope.crl.map_or_else(Vec::new, |issuer| self.revoked(issuer, crl.as_ref())),
            crl,
            tpm: self.tpm.view(&scope.tpm, &self.devices),
        }
    }

    fn pending(&self) -> u32 {
        let pending = self.devices.values().filter(|device| device.status == Status::Pending);
        u32::try_from(pending.count()).unwrap_or(u32::MAX)
    }

    fn newest_crl(&self, issuer: KeyId) -> Option<Crl> {
        self.crls.range((issuer, 0)..=(issuer, u64::MAX)).next_back().map(|(_, crl)| crl.clone())
    }

    fn revoked(&self, issuer: KeyId, newest: Option<&Crl>) -> Vec<Revocation> {
        let since = newest.map_or(Wall(0), |crl| crl.this_update);
        let of_issuer = self.revoked.iter().filter(|((of, _), _)| *of == issuer);
        of_issuer.filter(|(_, line)| line.not_after >= since).map(|(_, line)| *line).collect()
    }

    /// Everything that may go wrong, before anything is changed.
    fn check_new(
        &self,
        certificate: Option<&StoredCertificate>,
        changes: &[Change],
    ) -> Result<(), StoreError> {
        if certificate.is_some_and(|row| self.certificates.contains_key(&row.serial)) {
            return Err(StoreError::Duplicate { table: "certificate" });
        }
        for change in changes {
            match change {
                Change::Crl(crl) if self.crls.contains_key(&(crl.issuer, crl.number)) => {
                    return Err(StoreError::Duplicate { table: "crl" });
                }
                Change::Request(row)
                    if self.requests.contains_key(&(row.device.clone(), row.id)) =>
                {
                    return Err(StoreError::Duplicate { table: "request" });
                }
                _ => {}
            }
        }
        self.tpm.check_new(changes)
    }

    fn add_certificate(&mut self, row: StoredCertificate) {
        if let Some(device) = &row.device {
            self.of_device.entry(device.clone()).or_default().push(row.serial);
        }
        self.certificates.insert(row.serial, row);
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Crl(crl) => {
                self.crls.insert((crl.issuer, crl.number), crl);
            }
            Change::Device(device) => {
                self.devices.insert(device.id.clone(), device);
            }
            Change::Request(row) => {
                self.requests.insert((row.device.clone(), row.id), row);
            }
            Change::RevokeCertificate { serial, at, reason } => self.revoke(serial, at, reason),
            Change::RevokeDevice { device, at, reason } => {
                for serial in self.of_device.get(&device).cloned().unwrap_or_default() {
                    let certificate = self.certificates.get(&serial);
                    if certificate.is_some_and(|row| !row.validity.is_expired_at(at)) {
                        self.revoke(serial, at, reason);
                    }
                }
            }
            Change::Token(token) => {
                self.tokens.insert(token.hash, token);
            }
            change => self.tpm.apply(change),
        }
    }

    fn revoke(&mut self, serial: Serial, at: Wall, reason: RevocationReason) {
        let Some(row) = self.certificates.get_mut(&serial) else { return };
        if row.revoked.is_none() {
            row.revoked = Some((at, reason));
            let not_after = row.validity.not_after;
            let line = Revocation { serial, at, reason, not_after };
            self.revoked.insert((row.issuer, serial), line);
        }
    }
}
