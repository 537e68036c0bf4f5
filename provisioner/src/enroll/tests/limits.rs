//! What the service refuses to whoever asks: work by a wrong clock, and more than it has room for.

use super::*;
use crate::enroll::{
    ClockBehind, guard::CLOCK_BEHIND_S_MAX, ration::STRANGER_REFUSALS_PER_MIN_MAX,
};

/// When a certificate begins that is issued at [`NOW`].
fn newest() -> Wall {
    Wall(NOW.0 - Profile::new(Kind::Device).backdate_s)
}

// Goal: a clock that went back issues nothing and writes nothing; a small correction is let pass.
#[test]
fn nothing_is_issued_by_a_clock_that_stands_below_the_newest_certificate() {
    let mut rig = Rig::new();
    let key = key_pair(1);
    let leaf = rig.enrolled("gw-1", &key);
    let now = Wall(newest().0 - CLOCK_BEHIND_S_MAX - 1);
    let count = rig.events().len();
    let request = reenroll(&leaf, csr(&key, "gw-1"));
    let behind = ServiceError::ClockBehind(ClockBehind { now, newest: newest() });
    assert_eq!(rig.enroll(request.clone(), now), Err(behind));
    assert_eq!(rig.events().len(), count);
    assert!(rig.enroll(request, now.plus_s(1)).is_ok());
}

// Goal: what another process issued counts once the database has been asked.
#[test]
fn the_newest_certificate_in_the_database_counts_too() {
    let rig = Rig::new();
    let identity =
        Identity::Device { id: device("gw-1"), trust_domain: settings().trust_domain, dns: None };
    let (profile, key) = (Profile::new(Kind::Device), public(&key_pair(1)));
    let serial = Serial::draw(&mut Seeded(1));
    let prepared = rig.provisioner.authority().prepare(&profile, &identity, &key, serial, NOW);
    let prepared = prepared.unwrap();
    let decide = move |_: &View| Verdict { reserve: Some(prepared.clone()), ..Verdict::new(()) };
    block_on(rig.provisioner.store().transact(Scope::default(), decide)).unwrap();
    let now = Wall(newest().0 - CLOCK_BEHIND_S_MAX - 1);
    let behind = ClockBehind { now, newest: newest() };
    assert_eq!(rig.provisioner.check_clock(now), Ok(()));
    assert_eq!(block_on(rig.provisioner.check_stored_clock(now)), Err(behind.into()));
    assert_eq!(rig.provisioner.check_clock(now), Err(behind));
    assert_eq!(block_on(rig.provisioner.check_stored_clock(newest())), Ok(()));
}

// Goal: strangers fill so many places and no more; who is known, or waits already, is not harmed.
#[test]
fn strangers_beyond_the_limit_are_told_to_come_again_and_leave_no_device_behind() {
    let mut rig = Rig::new();
    let key = key_pair(1);
    let added = rig.provisioner.add_device(device("known"), name("walk-in"), OPERATOR, NOW);
    block_on(added).unwrap();
    let pending = Ok(Answer::Pending { retry_after_s: 600 });
    for id in ["gw-1", "gw-2", "gw-3", "known", "gw-1"] {
        assert_eq!(rig.enroll(walk_in(id, &key), NOW), pending, "{id}");
    }
    let refusal = rig.refusal(walk_in("gw-4", &key), NOW);
    expect(&refusal, "pending-full", 503);
    assert_eq!(refusal.retry_after_s(NOW), Some(600));
    assert_eq!(rig.device("gw-4"), None);
    // Two places become free: "known" took one without being a stranger.
    for id in ["gw-1", "gw-2"] {
        rig.approve(id).unwrap();
        rig.leaf(walk_in(id, &key), NOW);
    }
    assert_eq!(rig.enroll(walk_in("gw-4", &key), NOW), pending);
    expect(&rig.refusal(walk_in("gw-5", &key), NOW), "pending-full", 503);
}

// Goal: guessing tokens fills the audit table at a bounded rate, and what a device that has proven
// itself is refused is written down all the same.
#[test]
fn refusals_of_strangers_are_rationed_and_those_of_devices_are_not() {
    let mut rig = Rig::new();
    let key = key_pair(1);
    let leaf = rig.enrolled("gw-1", &key);
    let count = rig.events().len();
    let guess = "A".repeat(43);
    let rows = STRANGER_REFUSALS_PER_MIN_MAX as usize;
    for n in 0..rows + 5 {
        // Both ways to be refused, before and in the decision.
        let stranger = if n % 2 == 0 { &guess } else { "no token" };
        expect(&rig.refusal(by_token("gw-1", stranger, &key), NOW), "token-unknown", 401);
    }
    assert_eq!(rig.events().len(), count + rows);
    let other = reenroll(&leaf, csr(&key, "gw-2"));
    for n in 1..=rows {
        expect(&rig.refusal(other.clone(), NOW), "csr-identity", 403);
        assert_eq!(rig.events().len(), count + rows + n);
    }
    rig.refusal(by_token("gw-1", &guess, &key), NOW.plus_s(60));
    let events = rig.events();
    let [.., summary, last] = events.as_slice() else { panic!("no events") };
    assert!(summary.2.starts_with("left-out: 5 more"), "{summary:?}");
    assert!(last.2.starts_with("token-unknown"), "{last:?}");
}

// Goal: an attested enrollment costs two disk syncs, one for the challenge and one for everything
// that the certificate rests on.
#[test]
fn an_attested_enrollment_is_two_commits() {
    use super::soft_tpm::{MAKER, SoftTpm};
    use crate::{
        enroll::ChallengeOrder,
        store::{TpmScope, sqlite::SqliteStore},
        testing::group,
    };
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings();
    settings.groups.insert(name("tokens"), group(Admission::EkChain));
    let mut rng = Seeded(1);
    block_on(async {
        let store = SqliteStore::open(&folder.path().join("test.db")).await.unwrap();
        let service = Provisioner::new(store.clone(), settings, authority(TreeKind::Device));
        service.add_ek_roots(vec![MAKER.root()], OPERATOR, NOW).await.unwrap();
        let before = store.commits();
        let tpm = SoftTpm::new(1);
        let order = ChallengeOrder {
            peer: Peer::Anonymous,
            device: device("gw-1"),
            ek_public: tpm.ek_area.clone(),
            ek_certificates: tpm.certificates.clone(),
            ak_public: tpm.ak_area.clone(),
        };
        let challenge = Some(service.challenge(order, NOW, &mut rng).await.unwrap().id);
        assert_eq!(store.commits() - before, 1);
        let scope = Scope::of_tpm(TpmScope { challenge, ..TpmScope::default() });
        let (stored, _) = store.view(scope).await.unwrap().tpm.challenged.unwrap();
        let csr_der = tpm.csr(&stored, &key_pair(1), "gw-1");
        let request = named(Request { challenge, ..anonymous(csr_der) }, [1; 16]);
        let answer = service.enroll(request, NOW, &mut rng).await.unwrap();
        assert!(matches!(answer, Answer::Issued { .. }), "{answer:?}");
        assert_eq!(store.commits() - before, 2);
        assert!(store.tpm(device("gw-1")).await.unwrap().bound.is_some());
        store.close().await;
    });
}
