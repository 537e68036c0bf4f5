//! What every store must do, run over each of them.

use std::{future::Future, sync::Arc};

use fleetcert_core::time::Wall;
use futures_lite::future::block_on;
use smol::future::poll_once;

use super::{
    Change, EnrollmentRequest, PAGE_LEN_MAX, Scope, Store, StoreError, Verdict, View,
    memory::MemoryStore, sqlite::SqliteStore,
};
use crate::{
    audit::{Actor, Entry, Event},
    authority::{
        Authority, Crl, Identity, KeyFingerprint, KeyId, Prepared, Profile, RevocationReason,
        Serial,
        profile::{Kind, TrustDomain},
        tree::TreeKind,
    },
    enroll::Provisioner,
    inventory::{Approval, Device, Status},
    testing::{DAY_S, NOW, Seeded, authority, device, key_pair, name, public, settings},
    token::{Token, TokenHash, Use},
};

fn over_every_store<F: Future<Output = ()>>(case: impl Fn(AnyStore) -> F) {
    block_on(case(AnyStore::Memory(Arc::new(MemoryStore::new()))));
    let directory = tempfile::tempdir().unwrap();
    block_on(async {
        let store = SqliteStore::open(&directory.path().join("test.db")).await.unwrap();
        case(AnyStore::Sqlite(store.clone())).await;
        store.close().await;
    });
}

#[derive(Clone)]
enum AnyStore {
    Memory(Arc<MemoryStore>),
    Sqlite(SqliteStore),
}

macro_rules! on_any {
    ($self:ident.$call:ident($($argument:expr),*)) => {
        match &$self {
            AnyStore::Memory(store) => store.$call($($argument),*).await,
            AnyStore::Sqlite(store) => store.$call($($argument),*).await,
        }
    };
}

mod tpm;

impl AnyStore {
    async fn transact<T: Send + 'static>(
        &self,
        scope: Scope,
        decide: impl Fn(&View) -> Verdict<T> + Send + 'static,
    ) -> Result<super::Committed<T>, StoreError> {
        on_any!(self.transact(scope, decide))
    }

    async fn view(&self, scope: Scope) -> View {
        on_any!(self.view(scope)).unwrap()
    }

    async fn write(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        self.write_with(None, changes).await
    }

    async fn write_with(
        &self,
        reserve: Option<Prepared>,
        changes: Vec<Change>,
    ) -> Result<(), StoreError> {
        let decide = move |_: &View| Verdict {
            reserve: reserve.clone(),
            changes: changes.clone(),
            ..Verdict::new(())
        };
        self.transact(Scope::default(), decide).await.map(drop)
    }
}

fn prepared(authority: &Authority, id: &str, seed: u64, now: Wall) -> Prepared {
    let trust_domain = TrustDomain::parse("acme.example").unwrap();
    let identity = Identity::Device { id: device(id), trust_domain, dns: None };
    let serial = Serial::draw(&mut Seeded(seed));
    let key = public(&key_pair(seed));
    authority.prepare(&Profile::new(Kind::Device), &identity, &key, serial, now).unwrap()
}

fn full_device() -> Device {
    let serial = Serial::draw(&mut Seeded(9));
    let mut full = Device::expected(device("gw-1"), name("tokens"), NOW).issued(
        serial,
        NOW.plus_s(5),
        NOW.plus_s(1),
    );
    full.recovered_at = Some(NOW.plus_s(2));
    full.status = Status::Revoked;
    full.revoked = Some((NOW.plus_s(3), RevocationReason::KeyCompromise));
    let key = KeyFingerprint([7; 32]);
    full.approval =
        Some(Approval { key, asked_at: NOW.plus_s(6), approved_at: Some(NOW.plus_s(7)) });
    full
}

fn scope_of(id: &str) -> Scope {
    Scope { device: Some(device(id)), ..Scope::default() }
}

#[test]
fn every_field_of_a_device_comes_back() {
    over_every_store(|store| async move {
        for expected in [full_device(), Device::expected(device("gw-2"), name("walk-in"), NOW)] {
            store.write(vec![Change::Device(expected.clone())]).await.unwrap();
            let scope = scope_of(expected.id.as_str());
            assert_eq!(store.view(scope).await.device, Some(expected));
        }
        assert_eq!(store.view(scope_of("gw-3")).await, View::default());
    });
}

#[test]
fn every_field_of_a_token_comes_back() {
    over_every_store(|store| async move {
        let mut token = Token {
            hash: TokenHash([3; 32]),
            device: device("gw-1"),
            label: None,
            created_at: NOW,
            expires_at: NOW.plus_s(9),
            used: None,
        };
        let scope = Scope { token: Some(token.hash), ..Scope::default() };
        for round in 0..3 {
            if round > 0 {
                token.label = Some(name("tokens"));
                let request = (round == 2).then_some([5; 16]);
                let (key, serial) = (KeyFingerprint([1; 32]), Serial::draw(&mut Seeded(1)));
                token.used = Some(Use { at: NOW.plus_s(1), request, key, serial });
            }
            store.write(vec![Change::Token(token.clone())]).await.unwrap();
            assert_eq!(store.view(scope.clone()).await.token, Some(token.clone()));
        }
    });
}

#[test]
fn a_certificate_is_stored_whole_before_it_may_be_signed() {
    let authority = Arc::new(authority(TreeKind::Device));
    over_every_store(|store| {
        let authority = Arc::clone(&authority);
        async move {
            let prepared = prepared(&authority, "gw-1", 1, NOW);
            let (serial, row) = (prepared.serial(), prepared.clone().into_row());
            let decide =
                move |_: &View| Verdict { reserve: Some(prepared.clone()), ..Verdict::new("said") };
            let committed = store.transact(Scope::default(), decide).await.unwrap();
            assert_eq!(committed.outcome, "said");
            let scope = Scope { certificate: Some(serial), ..Scope::default() };
            assert_eq!(store.view(scope).await.certificate, Some(row));
            let certificate = authority.issue(committed.reserved.unwrap()).unwrap();
            assert_eq!(certificate.serial, serial);
        }
    });
}

#[test]
fn a_serial_number_is_reserved_once_and_a_second_try_changes_nothing() {
    let authority = Arc::new(authority(TreeKind::Device));
    over_every_store(|store| {
        let authority = Arc::clone(&authority);
        async move {
            let prepared = prepared(&authority, "gw-1", 1, NOW);
            store.write_with(Some(prepared.clone()), Vec::new()).await.unwrap();
            let change = Change::Device(full_device());
            assert_eq!(
                store.write_with(Some(prepared), vec![change]).await,
                Err(StoreError::Duplicate { table: "certificate" })
            );
            assert_eq!(store.view(scope_of("gw-1")).await.device, None);
        }
    });
}

#[test]
fn a_request_comes_back_with_its_certificate_and_its_name_is_taken() {
    let authority = Arc::new(authority(TreeKind::Device));
    over_every_store(|store| {
        let authority = Arc::clone(&authority);
        async move {
            let prepared = prepared(&authority, "gw-1", 1, NOW);
            let row = prepared.clone().into_row();
            let request = EnrollmentRequest {
                device: device("gw-1"),
                id: [4; 16],
                key: row.key,
                serial: row.serial,
                at: NOW,
            };
            let change = Change::Request(request.clone());
            store.write_with(Some(prepared), vec![change.clone()]).await.unwrap();
            let named = |id: &str, request| Scope {
                request: Some((device(id), request)),
                ..Scope::default()
            };
            let view = store.view(named("gw-1", [4; 16])).await;
            assert_eq!((view.request, view.request_certificate), (Some(request), Some(row)));
            assert_eq!(store.view(named("gw-2", [4; 16])).await, View::default());
            assert_eq!(store.view(named("gw-1", [5; 16])).await, View::default());
            let again = store.write(vec![Change::Device(full_device()), change]).await;
            assert_eq!(again, Err(StoreError::Duplicate { table: "request" }));
            assert_eq!(store.view(scope_of("gw-1")).await.device, None);
        }
    });
}

#[test]
fn the_newest_crl_is_seen_and_a_number_is_used_once() {
    over_every_store(|store| async move {
        let issuer = KeyId([1; 20]);
        let crl = |number| Crl {
            issuer,
            number,
            this_update: NOW.plus_s(number),
            next_update: NOW.plus_s(100),
            der: vec![number as u8],
        };
        for number in [1, 2, 300] {
            store.write(vec![Change::Crl(crl(number))]).await.unwrap();
        }
        let scope = |issuer| Scope { crl: Some(issuer), ..Scope::default() };
        assert_eq!(store.view(scope(issuer)).await.crl, Some(crl(300)));
        assert_eq!(store.view(scope(KeyId([2; 20]))).await.crl, None);
        let again = store.write(vec![Change::Crl(crl(2))]).await;
        assert_eq!(again, Err(StoreError::Duplicate { table: "crl" }));
    });
}

#[test]
fn a_device_is_revoked_with_its_unexpired_certificates_and_the_first_reason_stands() {
    let authority = Arc::new(authority(TreeKind::Device));
    over_every_store(|store| {
        let authority = Arc::clone(&authority);
        async move {
            let late = NOW.plus_s(100 * DAY_S);
            for (id, seed, now) in
                [("gw-1", 1, NOW), ("gw-1", 2, late), ("gw-1", 3, late), ("gw-2", 4, late)]
            {
                let prepared = prepared(&authority, id, seed, now);
                store.write_with(Some(prepared), Vec::new()).await.unwrap();
            }
            let serial = |seed| Serial::draw(&mut Seeded(seed));
            let reason = RevocationReason::Superseded;
            let one = Change::RevokeCertificate { serial: serial(2), at: late, reason };
            let reason = RevocationReason::KeyCompromise;
            let at = late.plus_s(1);
            let all = Change::RevokeDevice { device: device("gw-1"), at, reason };
            store.write(vec![one, all]).await.unwrap();
            let scope = Scope { crl: Some(authority.key_id()), ..Scope::default() };
            let mut expected = vec![
                (serial(2), late, RevocationReason::Superseded),
                (serial(3), at, RevocationReason::KeyCompromise),
            ];
            expected.sort();
            let lines = |view: View| -> Vec<_> {
                view.revoked.iter().map(|line| (line.serial, line.at, line.reason)).collect()
            };
            assert_eq!(lines(store.view(scope.clone()).await), expected);
            let other = Scope { crl: Some(KeyId([9; 20])), ..Scope::default() };
            assert_eq!(lines(store.view(other).await), []);
            let scope = Scope { certificate: Some(serial(2)), ..Scope::default() };
            let stored = store.view(scope).await.certificate.unwrap();
            assert_eq!(stored.revoked, Some((late, RevocationReason::Superseded)));
        }
    });
}

#[test]
fn an_expired_certificate_stays_on_one_more_list() {
    let authority = Arc::new(authority(TreeKind::Device));
    over_every_store(|store| {
        let authority = Arc::clone(&authority);
        async move {
            let prepared = prepared(&authority, "gw-1", 1, NOW);
            let (serial, not_after) = (prepared.serial(), prepared.validity().not_after);
            let reason = RevocationReason::Unspecified;
            let revoke = Change::RevokeCertificate { serial, at: NOW, reason };
            store.write_with(Some(prepared), vec![revoke]).await.unwrap();
            let scope = Scope { crl: Some(authority.key_id()), ..Scope::default() };
            for (number, this_update, listed) in [(1, not_after, 1), (2, not_after.plus_s(1), 0)] {
                let crl = Crl {
                    issuer: authority.key_id(),
                    number,
                    this_update,
                    next_update: this_update.plus_s(9),
                    der: vec![0],
                };
                store.write(vec![Change::Crl(crl)]).await.unwrap();
                assert_eq!(store.view(scope.clone()).await.revoked.len(), listed);
            }
        }
    });
}

#[test]
fn devices_certificates_and_audit_rows_come_in_order_and_in_pages() {
    let authority = Arc::new(authority(TreeKind::Device));
    over_every_store(|store| {
        let authority = Arc::clone(&authority);
        async move {
            for (seed, id) in [(1, "gw-2"), (2, "gw-1"), (3, "gw-3")] {
                let prepared = prepared(&authority, "gw-1", seed, NOW);
                let change = Change::Device(Device::expected(device(id), name("tokens"), NOW));
                let entry =
                    Entry::new(NOW.plus_s(seed), Event::Issued, Actor::Operator("x".into()))
                        .about(&device(id))
                        .on(prepared.serial())
                        .saying("why");
                let decide = move |_: &View| Verdict {
                    reserve: Some(prepared.clone()),
                    changes: vec![change.clone()],
                    audit: vec![entry.clone()],
                    outcome: (),
                };
                store.transact(Scope::default(), decide).await.unwrap();
            }
            let ids = |devices: Vec<Device>| -> Vec<String> {
                devices.iter().map(|device| device.id.to_string()).collect()
            };
            assert_eq!(ids(on_any!(store.devices(None, 2)).unwrap()), ["gw-1", "gw-2"]);
            assert_eq!(ids(on_any!(store.devices(Some(device("gw-2")), 2)).unwrap()), ["gw-3"]);
            let newest = on_any!(store.certificates(device("gw-1"), 2)).unwrap();
            let serial = |seed| Serial::draw(&mut Seeded(seed));
            let serials: Vec<_> = newest.iter().map(|stored| stored.serial).collect();
            assert_eq!(serials, [serial(3), serial(2)]);
            let rows = on_any!(store.audit(1, PAGE_LEN_MAX + 1)).unwrap();
            let numbers: Vec<_> = rows.iter().map(|row| row.number).collect();
            assert_eq!(numbers, [2, 3]);
            let entry = &rows[0].entry;
            assert_eq!((entry.at, entry.event), (NOW.plus_s(2), Event::Issued));
            assert_eq!((&entry.device, entry.serial), (&Some(device("gw-1")), Some(serial(2))));
            assert_eq!((&entry.actor, &*entry.detail), (&Actor::Operator("x".into()), "why"));
        }
    });
}

#[test]
fn those_that_wait_for_a_first_look_are_counted_when_asked() {
    over_every_store(|store| async move {
        for (id, status) in [
            ("gw-1", Status::Pending),
            ("gw-2", Status::Pending),
            ("gw-3", Status::Active),
            ("gw-2", Status::Expected),
            ("gw-4", Status::Pending),
        ] {
            let entered = Device::expected(device(id), name("tokens"), NOW);
            store.write(vec![Change::Device(Device { status, ..entered })]).await.unwrap();
        }
        let scope = Scope { pending: true, ..Scope::default() };
        assert_eq!(store.view(scope).await.pending, 2);
        assert_eq!(store.view(Scope::default()).await.pending, 0);
    });
}

#[test]
fn the_newest_certificate_is_the_one_that_begins_last() {
    let authority = Arc::new(authority(TreeKind::Device));
    over_every_store(|store| {
        let authority = Arc::clone(&authority);
        async move {
            assert_eq!(on_any!(store.newest()).unwrap(), None);
            for (seed, now) in [(1, NOW), (2, NOW.plus_s(60)), (3, NOW.plus_s(30))] {
                let prepared = prepared(&authority, "gw-1", seed, now);
                store.write_with(Some(prepared), Vec::new()).await.unwrap();
            }
            let backdate_s = Profile::new(Kind::Device).backdate_s;
            let newest = Wall(NOW.plus_s(60).0 - backdate_s);
            assert_eq!(on_any!(store.newest()).unwrap(), Some(newest));
        }
    });
}

#[test]
fn of_many_at_once_one_that_fails_fails_alone() {
    let authority = Arc::new(authority(TreeKind::Device));
    over_every_store(|store| {
        let authority = Arc::clone(&authority);
        async move {
            let executor = smol::LocalExecutor::new();
            let store = &store;
            let tasks: Vec<_> = (0..40)
                .map(|n| {
                    // Every fourth comes with the serial number of the one before.
                    let seed = if n % 4 == 3 { n - 1 } else { n };
                    let prepared = prepared(&authority, "gw-1", seed, NOW);
                    let id = device(&format!("gw-{n}"));
                    let change = Change::Device(Device::expected(id, name("tokens"), NOW));
                    executor
                        .spawn(async move { store.write_with(Some(prepared), vec![change]).await })
                })
                .collect();
            let results: Vec<_> = executor
                .run(async {
                    let mut results = Vec::new();
                    for task in tasks {
                        results.push(task.await);
                    }
                    results
                })
                .await;
            let failed = results.iter().filter(|result| result.is_err()).count();
            assert_eq!(failed, 10, "{results:?}");
            for (n, result) in results.iter().enumerate() {
                let exists = store.view(scope_of(&format!("gw-{n}"))).await.device.is_some();
                assert_eq!(exists, result.is_ok(), "{n}");
            }
        }
    });
}

#[test]
fn a_decision_sees_what_was_decided_before_it() {
    over_every_store(|store| async move {
        let executor = smol::LocalExecutor::new();
        let store = &store;
        let count = |view: &View| {
            let old = view.device.clone();
            let device =
                old.unwrap_or_else(|| Device::expected(device("gw-1"), name("tokens"), Wall(0)));
            let created_at = device.created_at.plus_s(1);
            let change = Change::Device(Device { created_at, ..device });
            Verdict { changes: vec![change], ..Verdict::new(created_at.0) }
        };
        let tasks: Vec<_> = (0..50)
            .map(|_| executor.spawn(async move { store.transact(scope_of("gw-1"), count).await }))
            .collect();
        let mut seen = Vec::new();
        executor
            .run(async {
                for task in tasks {
                    seen.push(task.await.unwrap().outcome);
                }
            })
            .await;
        seen.sort_unstable();
        assert_eq!(seen, (1..=50).collect::<Vec<_>>());
    });
}

#[test]
fn the_memory_store_never_waits() {
    let store = MemoryStore::new();
    let write = store.transact(Scope::default(), |_| Verdict::new(1));
    assert_eq!(block_on(poll_once(write)).unwrap().unwrap().outcome, 1);
    assert!(block_on(poll_once(store.view(Scope::default()))).is_some());
}

#[test]
fn a_service_over_memory_answers_at_the_first_poll() {
    let authority = authority(TreeKind::Device);
    let service = Provisioner::new(MemoryStore::new(), settings(), authority);
    let added = service.add_device(device("gw-1"), name("tokens"), "olga", NOW);
    assert_eq!(block_on(poll_once(added)).unwrap().unwrap().status, Status::Expected);
    assert!(block_on(poll_once(service.crl(NOW, true))).unwrap().is_ok());
}

#[test]
fn what_was_acknowledged_is_there_after_the_file_was_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test.db");
    block_on(async {
        let first = AnyStore::Sqlite(SqliteStore::open(&path).await.unwrap());
        first.write(vec![Change::Device(full_device())]).await.unwrap();
        // The first one is still open, as after a kill.
        let second = AnyStore::Sqlite(SqliteStore::open(&path).await.unwrap());
        assert_eq!(second.view(scope_of("gw-1")).await.device, Some(full_device()));
    });
}

#[test]
fn two_processes_take_turns_on_one_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test.db");
    block_on(async {
        let service = AnyStore::Sqlite(SqliteStore::open(&path).await.unwrap());
        let operator = AnyStore::Sqlite(SqliteStore::open(&path).await.unwrap());
        for n in 0..20 {
            let change =
                |id: String| Change::Device(Device::expected(device(&id), name("tokens"), NOW));
            let by_service = service.write(vec![change(format!("s-{n}"))]);
            let by_operator = operator.write(vec![change(format!("o-{n}"))]);
            let (a, b) = smol::future::zip(by_service, by_operator).await;
            assert_eq!((a, b), (Ok(()), Ok(())));
        }
        assert!(service.view(scope_of("o-19")).await.device.is_some());
        assert!(operator.view(scope_of("s-19")).await.device.is_some());
    });
}

#[test]
fn the_audit_table_refuses_changes_and_the_file_is_ours_alone() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test.db");
    block_on(async {
        let store = SqliteStore::open(&path).await.unwrap();
        let entry = Entry::new(NOW, Event::Issued, Actor::Provisioner);
        let decide = move |_: &View| Verdict { audit: vec![entry.clone()], ..Verdict::new(()) };
        store.transact(Scope::default(), decide).await.unwrap();
        store.close().await;
        for suffix in ["", "-wal", "-shm"] {
            let file = directory.path().join(format!("test.db{suffix}"));
            if let Ok(found) = std::fs::metadata(&file) {
                assert_eq!(found.permissions().mode() & 0o777, 0o600, "{suffix}");
            }
        }
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
        let mut raw = sqlx::ConnectOptions::connect(&options).await.unwrap();
        for text in ["DELETE FROM audit", "UPDATE audit SET detail = 'x'"] {
            let refused = sqlx::query(text).execute(&mut raw).await.unwrap_err();
            assert!(refused.to_string().contains("append-only"), "{refused}");
        }
    });
}

#[test]
fn a_closed_store_says_so_and_a_missing_directory_is_an_io_error() {
    let directory = tempfile::tempdir().unwrap();
    block_on(async {
        let store = SqliteStore::open(&directory.path().join("test.db")).await.unwrap();
        store.close().await;
        let write = store.transact(Scope::default(), |_| Verdict::new(())).await;
        assert_eq!(write.unwrap_err(), StoreError::Closed);
        let nowhere = directory.path().join("none").join("test.db");
        assert!(matches!(SqliteStore::open(&nowhere).await, Err(StoreError::Io { .. })));
    });
}

#[test]
fn concurrent_writers_share_commits_and_a_lone_one_has_its_own() {
    let directory = tempfile::tempdir().unwrap();
    block_on(async {
        let store = SqliteStore::open(&directory.path().join("test.db")).await.unwrap();
        let write = |n: u64| {
            let id = device(&format!("gw-{n}"));
            let change = Change::Device(Device::expected(id, name("tokens"), NOW));
            let decide =
                move |_: &View| Verdict { changes: vec![change.clone()], ..Verdict::new(()) };
            store.transact(Scope::default(), decide)
        };
        for n in 0..20 {
            write(n).await.unwrap();
        }
        assert_eq!(store.commits(), 20);
        let executor = smol::LocalExecutor::new();
        let clients: Vec<_> = (0..32)
            .map(|client| {
                let write = &write;
                executor.spawn(async move {
                    for n in 0..20 {
                        write(client * 100 + n).await.unwrap();
                    }
                })
            })
            .collect();
        executor
            .run(async {
                for client in clients {
                    client.await;
                }
            })
            .await;
        // The budget: 0.15 of a disk sync for each acknowledged write of 32 clients.
        let shared = store.commits() - 20;
        assert!(shared <= 32 * 20 * 15 / 100, "{shared} commits for 640 writes");
    });
}
