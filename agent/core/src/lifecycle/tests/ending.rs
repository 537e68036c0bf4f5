//! Revoked, re-admitted, retired.

use super::super::{Action, BrokerProof, Command, Input, Phase};
use super::rig::{Rig, identity};
use crate::event::{Event, Failure};
use crate::policy::QUARANTINE_WAIT_MS;
use crate::record::{Kind, Slot, SlotState, Standing};

impl Rig {
    /// An active device whom the provisioner tells, at its next question, that it was revoked.
    fn quarantined() -> Self {
        let mut rig = Self::active();
        rig.pass_s(86_400);
        let id = rig.consult_action();
        rig.fail(id, Failure::Revoked);
        rig.persist();
        let Some(Action::Release { id }) = rig.next() else { panic!("still in use") };
        rig.done(id);
        rig
    }
}

#[test]
fn a_revoked_device_stops_using_its_identity_and_keeps_it() {
    let rig = Rig::quarantined();
    assert_eq!(rig.durable.standing, Standing::Quarantined);
    assert_eq!(rig.machine.phase(rig.now), Phase::Quarantined);
    assert_eq!(rig.machine.adopted(), None);
    assert!(rig.durable.names(Slot::A), "an operator may relent");
    assert!(rig.events.contains(&Event::Quarantined));
}

#[test]
fn a_revoked_device_asks_once_a_day_and_is_whole_again_when_an_operator_relents() {
    let mut rig = Rig::quarantined();
    rig.persist();
    let SlotState::Requesting(request) = *rig.durable.slot(Slot::B) else { panic!() };
    assert_eq!(request.kind, Kind::Recover);
    rig.key(2);
    for _ in 0..3 {
        let id = rig.enroll_action();
        rig.fail(id, Failure::Revoked);
        if !rig.machine.is_durable() {
            rig.persist();
        }
        assert_eq!(rig.next(), None);
        rig.pass_ms(u64::from(QUARANTINE_WAIT_MS) - 1000);
        assert_eq!(rig.next(), None);
        rig.pass_s(1);
    }
    let id = rig.enroll_action();
    rig.answer(Input::Enrolled { id, identity: &identity(2, rig.wall()), server_time: None });
    rig.persist();
    assert_eq!(rig.durable.standing, Standing::Quarantined, "not before it is proven");
    rig.prove(2, BrokerProof::Connected);
    rig.persist();
    assert_eq!(rig.durable.standing, Standing::Member);
    rig.adopt(Slot::B);
    assert_eq!(rig.events.iter().filter(|event| **event == Event::Quarantined).count(), 1);
}

#[test]
fn a_command_to_renew_does_not_hurry_a_quarantine() {
    let mut rig = Rig::quarantined();
    rig.persist();
    rig.key(2);
    let id = rig.enroll_action();
    rig.fail(id, Failure::Revoked);
    rig.persist();
    rig.command(Command::Renew);
    assert_eq!(rig.next(), None);
}

#[test]
fn a_quarantine_survives_a_power_cut() {
    let rig = Rig::quarantined();
    let mut again = rig.power_cut();
    assert_eq!(again.machine.phase(again.now), Phase::Quarantined);
    again.erase(Slot::B);
    assert!(!matches!(again.next(), Some(Action::Adopt { .. })));
}

#[test]
fn a_new_identity_that_is_told_revoked_is_given_up() {
    let mut rig = Rig::active();
    rig.command(Command::Renew);
    rig.issue(2);
    rig.persist();
    let id = rig.prove_action();
    rig.fail(id, Failure::Revoked);
    rig.persist();
    assert_eq!(rig.durable.standing, Standing::Quarantined);
    assert!(!rig.durable.names(Slot::B));
    assert!(rig.durable.names(Slot::A));
}

#[test]
fn only_the_provisioners_answers_revoke() {
    let mut rig = Rig::active().power_cut();
    let Some(Action::Adopt { id, .. }) = rig.next() else { panic!() };
    rig.fail(id, Failure::Revoked);
    rig.tick();
    assert_eq!(rig.machine.record().standing, Standing::Member);
    let mut rig = Rig::active();
    rig.command(Command::Renew);
    rig.issue(2);
    rig.persist();
    let id = rig.prove_action();
    rig.fail(id, Failure::OurIdentityRefused);
    assert_eq!(rig.machine.record().standing, Standing::Member, "an alert is hearsay");
}

#[test]
fn a_decommissioned_device_forgets_durably_then_releases_then_erases_then_rests() {
    let mut rig = Rig::active();
    rig.command(Command::Decommission);
    rig.persist();
    assert_eq!(rig.durable.standing, Standing::Decommissioned);
    assert!(!rig.durable.names(Slot::A) && !rig.durable.names(Slot::B));
    let Some(Action::Release { id }) = rig.next() else { panic!() };
    rig.done(id);
    rig.erase(Slot::A);
    let Some(Action::EraseKey { id, slot: Slot::B }) = rig.next() else { panic!() };
    assert!(!rig.events.contains(&Event::Decommissioned), "one key is still there");
    rig.done(id);
    assert_eq!(rig.next(), None);
    assert_eq!(rig.machine.deadline(), None);
    assert_eq!(rig.machine.phase(rig.now), Phase::Decommissioned);
    assert_eq!(rig.machine.schedule(), None);
    assert_eq!(rig.events.iter().filter(|event| **event == Event::Decommissioned).count(), 1);
    rig.command(Command::Renew);
    rig.command(Command::Decommission);
    assert_eq!(rig.next(), None);
}

#[test]
fn a_power_cut_while_retiring_still_erases_both_keys() {
    let mut rig = Rig::active();
    rig.command(Command::Decommission);
    rig.persist();
    let mut again = rig.power_cut();
    again.erase(Slot::A);
    again.erase(Slot::B);
    assert_eq!(again.next(), None);
    assert_eq!(again.machine.deadline(), None);
}

#[test]
fn a_decommission_during_an_enrollment_takes_effect_when_it_is_answered() {
    let mut rig = Rig::active();
    rig.command(Command::Renew);
    rig.persist();
    rig.key(2);
    let id = rig.enroll_action();
    rig.command(Command::Decommission);
    assert_eq!(rig.next(), None);
    rig.fail(id, Failure::Unreachable);
    rig.persist();
    assert_eq!(rig.durable.standing, Standing::Decommissioned);
}
