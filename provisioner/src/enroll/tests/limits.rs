//! What the service refuses to whoever asks: work by a wrong clock, and more than it has room for.

use super::*;
use crate::enroll::{ClockBehind, guard::CLOCK_BEHIND_S_MAX};

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
