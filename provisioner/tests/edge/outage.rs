//! A database that does not answer.

use std::sync::Arc;

use fleetcert_core::{device_id::DeviceId, time::Wall, wire};
use fleetcert_provisioner::{
    audit,
    inventory::Device,
    store::{Committed, Scope, Store, StoreError, StoredCertificate, Verdict, View},
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
