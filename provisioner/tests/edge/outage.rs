//! A database that does not answer.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use fleetcert_core::{device_id::DeviceId, time::Wall, wire};
use fleetcert_provisioner::{
    audit,
    inventory::Device,
    store::{
        Committed, Mark, Scope, Store, StoreError, StoredCertificate, TpmRecord, Verdict, View,
        memory::MemoryStore,
    },
};

use crate::world::{Csr, World, limits, settings};

const DAY_S: u64 = 86_400;

/// A database that another process has locked.
struct Locked;

impl Store for Locked {
    async fn transact<T, D>(&self, _: Scope, _: D) -> Result<Committed<T>, StoreError>
    where
        T: Send + 'static,
        D: Fn(&View) -> Verdict<T> + Send + 'static,
    {
        Err(StoreError::Busy)
    }

    async fn view(&self, _: Scope) -> Result<View, StoreError> {
        Err(StoreError::Busy)
    }

    async fn devices(&self, _: Option<DeviceId>, _: u32) -> Result<Vec<Device>, StoreError> {
        Err(StoreError::Busy)
    }

    async fn certificates(
        &self,
        _: DeviceId,
        _: u32,
    ) -> Result<Vec<StoredCertificate>, StoreError> {
        Err(StoreError::Busy)
    }

    async fn newest(&self) -> Result<Option<Wall>, StoreError> {
        Err(StoreError::Busy)
    }

    async fn tpm(&self, _: DeviceId) -> Result<TpmRecord, StoreError> {
        Err(StoreError::Busy)
    }

    async fn marks(&self, _: Option<DeviceId>, _: u32) -> Result<Vec<Mark>, StoreError> {
        Err(StoreError::Busy)
    }

    async fn audit(&self, _: u64, _: u32) -> Result<Vec<audit::Row>, StoreError> {
        Err(StoreError::Busy)
    }
}

// Goal: a service whose clock went back tells nobody the time, not even in a refusal, and speaks
// again once the clock is right.
#[test]
fn a_service_whose_clock_went_back_is_silent() {
    let world = World::new();
    world.advance_s(DAY_S);
    world.enrolled("dev1");
    world.set_back_s(DAY_S);
    for path in ["/healthz", "/.well-known/est/cacerts", "/nowhere"] {
        let mut connection = world.connect(Arc::new(world.client(None)));
        connection.send(crate::world::get(path));
        assert!(connection.ends(), "{path}");
    }
    world.advance_s(DAY_S);
    assert_eq!(world.get(None, "/healthz").status, 200);
}

/// A database that can be read, and written unless the disk is full.
struct Disk {
    inner: MemoryStore,
    full: Arc<AtomicBool>,
}

impl Store for Disk {
    async fn transact<T, D>(&self, scope: Scope, decide: D) -> Result<Committed<T>, StoreError>
    where
        T: Send + 'static,
        D: Fn(&View) -> Verdict<T> + Send + 'static,
    {
        if self.full.load(Ordering::SeqCst) {
            return Err(StoreError::Io { cause: "the disk is full".into() });
        }
        self.inner.transact(scope, decide).await
    }

    async fn view(&self, scope: Scope) -> Result<View, StoreError> {
        self.inner.view(scope).await
    }

    async fn devices(
        &self,
        after: Option<DeviceId>,
        limit: u32,
    ) -> Result<Vec<Device>, StoreError> {
        self.inner.devices(after, limit).await
    }

    async fn certificates(
        &self,
        device: DeviceId,
        limit: u32,
    ) -> Result<Vec<StoredCertificate>, StoreError> {
        self.inner.certificates(device, limit).await
    }

    async fn newest(&self) -> Result<Option<Wall>, StoreError> {
        self.inner.newest().await
    }

    async fn tpm(&self, device: DeviceId) -> Result<TpmRecord, StoreError> {
        self.inner.tpm(device).await
    }

    async fn marks(&self, after: Option<DeviceId>, limit: u32) -> Result<Vec<Mark>, StoreError> {
        self.inner.marks(after, limit).await
    }

    async fn audit(&self, after: u64, limit: u32) -> Result<Vec<audit::Row>, StoreError> {
        self.inner.audit(after, limit).await
    }
}

// Goal: a list is made anew at half of its validity. Where that does not work, whoever watches is
// told while there is time, and the old list is given out as long as it is good and no longer.
#[test]
fn a_list_that_cannot_be_made_anew_raises_an_alarm_while_it_is_still_good() {
    let full = Arc::new(AtomicBool::new(false));
    let disk = Disk { inner: MemoryStore::new(), full: Arc::clone(&full) };
    let world = World::over(disk, settings(false), limits());
    let path = format!("{}{}.crl", wire::CRL_PATH, world.provisioner.authority().key_id());
    let health = || -> serde_json::Value {
        let answer = world.get(None, "/healthz");
        assert_eq!(answer.status, 200, "{answer:?}");
        serde_json::from_slice(&answer.body).unwrap()
    };
    let crl = |health: &serde_json::Value| {
        (health["crl"]["number"].as_u64().unwrap(), health["crl"]["overdue"].as_bool().unwrap())
    };
    let first = world.get(None, &path).body;
    full.store(true, Ordering::SeqCst);
    world.advance_s(DAY_S / 2 - 1);
    assert_eq!(crl(&health()), (1, false));
    world.advance_s(1);
    assert_eq!(crl(&health()), (1, true));
    assert_eq!(health()["crl"]["nextUpdate"], "2026-01-02T00:00:00Z");
    assert_eq!(world.get(None, &path).body, first);
    world.advance_s(DAY_S / 2);
    assert_eq!(world.get(None, &path).status, 503);
    assert_eq!(world.get(None, "/healthz").status, 503);
    full.store(false, Ordering::SeqCst);
    assert_eq!(crl(&health()), (2, false));
    assert_ne!(world.get(None, &path).body, first);
}

// Goal: trouble with the database is said to be ours and to pass, and not what it is.
#[test]
fn trouble_with_the_database_is_503_with_a_time_to_come_again() {
    let world = World::over(Locked, settings(false), limits());
    let crl = format!("{}{}.crl", wire::CRL_PATH, world.provisioner.authority().key_id());
    let token = "A".repeat(43);
    let enroll = Csr::new("dev1").post("simpleenroll", Some(("dev1", &token)));
    for request in [crate::world::get("/healthz"), crate::world::get(&crl)].map(String::into_bytes)
    {
        let answer = world.ask(None, &request);
        assert_eq!((answer.status, answer.reason()), (503, "unavailable"), "{answer:?}");
        assert!(answer.field("retry-after").is_some());
        assert!(!answer.text().contains("lock"));
    }
    let answer = world.ask(None, &enroll);
    assert!([401, 503].contains(&answer.status), "{answer:?}");
    assert_eq!(world.get(None, "/.well-known/est/cacerts").status, 200);
}
