//! The story: a device enrolls, renews under traffic, outlives its provisioner's outage and its
//! own death in the middle of a renewal, and loses no message.
//!
//! Whatever is not as claimed ends the run with an error; a [`Report`] therefore is a list of
//! claims that held. The middle of a renewal is not guessed: the provisioner is stopped before it
//! is asked, so that the agent has made its new key, has written down what it is about to do,
//! waits for an answer that does not come, and is killed then, together with its TPM: a power cut.
//!
//! Where software TPMs can be made, the device key lives in one, and the provisioner admits the
//! device for the proof of that; elsewhere it lives in a file, and a one-time token does.

use crate::error::RigError;
use crate::report::Report;
use crate::stage::Stage;
use crate::timeline::Timeline;
use crate::wait::Stop;
use crate::workplace::Workplace;

/// Renewals under nothing but traffic.
const QUIET_RENEWALS: u32 = 3;

/// Messages that show that traffic flows.
const FLOWING_MESSAGES: u64 = 20;

/// Tells the story, and reports what it has shown. With `keep`, everything but the traffic keeps
/// running at the end until a stop is requested.
///
/// # Errors
///
/// The first claim that did not hold, or what kept the story from being told.
pub fn run(stop: &Stop, timeline: &Timeline, keep: bool) -> Result<Report, RigError> {
    let place = Workplace::new()?;
    let mut stage = Stage::set(&place, stop, timeline)?;
    enroll(&mut stage, timeline)?;
    renew_under_traffic(&mut stage, timeline)?;
    outlive_an_outage(&mut stage, timeline)?;
    outlive_a_kill(&mut stage, timeline)?;
    let report = stage.settle()?;
    stage.show_what_to_look_at();
    if keep {
        timeline.note("rig", "everything but the traffic keeps running; Ctrl-C ends it");
        stop.wait();
    } else {
        timeline.note("rig", "with --keep, everything stays for these commands; now it is gone");
    }
    Ok(report)
}

fn enroll(stage: &mut Stage<'_>, timeline: &Timeline) -> Result<(), RigError> {
    timeline.chapter("a new device enrolls");
    stage.agent.start()?;
    let serial = stage.await_identity()?;
    timeline.note("agent", &format!("enrolled; identity in use: {serial}"));
    timeline.note("agent", &format!("its key lives {}", stage.key_place()?));
    stage.start_traffic();
    stage.await_messages(FLOWING_MESSAGES)?;
    timeline.note("backend", "hears the device; numbered messages flow");
    Ok(())
}

fn renew_under_traffic(stage: &mut Stage<'_>, timeline: &Timeline) -> Result<(), RigError> {
    timeline.chapter("certificates live for 20 seconds; messages keep flowing");
    for _ in 0..QUIET_RENEWALS {
        let serial = stage.await_switch()?;
        timeline.note("agent", &format!("renewed; identity in use: {serial}"));
    }
    Ok(())
}

fn outlive_an_outage(stage: &mut Stage<'_>, timeline: &Timeline) -> Result<(), RigError> {
    timeline.chapter("the provisioner is gone when the next renewal is due");
    stage.servers.provisioner.kill();
    timeline.note("rig", "kill -9 provisioner");
    let failure = stage.await_failed_renewal()?;
    timeline.note("agent", &format!("cannot renew: {failure}"));
    stage.await_messages(FLOWING_MESSAGES)?;
    timeline.note("backend", "messages keep flowing under the identity in use");
    stage.start_provisioner()?;
    timeline.note("rig", "provisioner started again");
    let serial = stage.await_switch()?;
    timeline.note("agent", &format!("renewed after the outage; identity in use: {serial}"));
    Ok(())
}

fn outlive_a_kill(stage: &mut Stage<'_>, timeline: &Timeline) -> Result<(), RigError> {
    timeline.chapter("the power fails in the middle of a renewal");
    stage.await_messages(FLOWING_MESSAGES)?;
    stage.servers.provisioner.freeze();
    timeline.note("rig", "provisioner frozen: the next renewal gets no answer");
    stage.agent.renew()?;
    let phase = stage.await_open_renewal()?;
    let done = stage.cut_power();
    timeline.note("rig", &format!("{done}; the agent was {phase}"));
    stage.restore_power()?;
    stage.await_old_identity()?;
    stage.agent_is_back()?;
    timeline.note("agent", "started again; messages flow under the identity it had");
    stage.servers.provisioner.thaw();
    timeline.note("rig", "provisioner goes on");
    let serial = stage.await_switch()?;
    timeline.note("agent", &format!("finished the renewal; identity in use: {serial}"));
    stage.await_messages(FLOWING_MESSAGES)
}
