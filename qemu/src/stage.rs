//! Everything that runs in the demo, and the questions that its story asks.
//!
//! While anything is waited for, everyone who should be alive is looked at: a broker that died is
//! reported as that, with its last words, and not as a renewal that never came.

use std::path::PathBuf;

use crate::agent::{Agent, Settings, Status};
use crate::error::RigError;
use crate::programs::{self, Programs};
use crate::provisioner::{Provisioner, Terms};
use crate::report::Report;
use crate::servers::Servers;
use crate::subscriber::Subscriber;
use crate::swtpm::{self, Swtpm};
use crate::timeline::Timeline;
use crate::tpm_maker::TpmMaker;
use crate::traffic::{Numbers, Traffic};
use crate::wait::Stop;
use crate::workplace::Workplace;

/// The device of the story.
const DEVICE_ID: &str = "demo-device";

/// Its fleet.
const TRUST_DOMAIN: &str = "demo.example";

/// Who made its TPM.
const TPM_MAKER: &str = "Demo";

/// Short enough to watch several lives, long enough for a slow machine to renew in a third of it.
const CERTIFICATE_LIFETIME_S: u32 = 20;

/// From the agent's start to an identity in use.
const IDENTITY_WAIT_MS_MAX: u64 = 20_000;

/// No renewal is later than the end of the certificate before it, and a little.
const SWITCH_WAIT_MS_MAX: u64 = CERTIFICATE_LIFETIME_S as u64 * 1000 + 10_000;

/// A few messages, across whatever just happened.
const MESSAGES_WAIT_MS_MAX: u64 = 10_000;

/// Everything that runs.
#[derive(Debug)]
pub struct Stage<'a> {
    /// The device.
    pub agent: Agent,
    /// Whom it talks to.
    pub servers: Servers,
    stop: &'a Stop,
    timeline: &'a Timeline,
    tpm: Option<Swtpm>,
    subscriber: Option<Subscriber<Numbers>>,
    traffic: Option<Traffic>,
    seen: Option<Status>,
    switches: u32,
}

impl<'a> Stage<'a> {
    /// Installs and starts everything but the agent, which is only installed.
    ///
    /// # Errors
    ///
    /// Whatever does not start, with its last words.
    pub fn set(
        place: &Workplace,
        stop: &'a Stop,
        timeline: &'a Timeline,
    ) -> Result<Self, RigError> {
        timeline.chapter("setting the stage");
        let programs = Programs::beside_ourselves()?;
        let (trust_domain, device_lifetime_s) = (TRUST_DOMAIN, CERTIFICATE_LIFETIME_S);
        let terms = Terms { trust_domain, device_lifetime_s, more_names: &[] };
        let mut servers = Servers::install(&programs, place, terms)?;
        let tpm = give_tpm(place, &servers.provisioner, stop, timeline)?;
        servers.provisioner.start(stop)?;
        timeline.note("provisioner", &format!("serves at {}", servers.provisioner.url()));
        servers.start_broker(stop)?;
        let port = servers.broker_port();
        timeline.note("mosquitto", &format!("listens at localhost:{port}"));
        let subscriber = Some(servers.subscribe()?);

        let token_file = expect_device(place, &servers.provisioner, tpm.is_some(), timeline)?;
        let settings = Settings {
            device_id: DEVICE_ID.to_owned(),
            provisioner_url: servers.provisioner.url(),
            server_root: servers.provisioner.server_root(),
            token_file,
            broker_port: port,
            tpm: tpm.as_ref().map(Swtpm::address),
        };
        let agent = Agent::install(&programs, &place.join("device"), &settings)?;
        let (traffic, seen, switches) = (None, None, 0);
        Ok(Self { agent, servers, stop, timeline, tpm, subscriber, traffic, seen, switches })
    }

    /// Waits for the first identity in use. Returns its serial number.
    ///
    /// # Errors
    ///
    /// What waiting can fail with.
    pub fn await_identity(&mut self) -> Result<String, RigError> {
        self.await_status("the first identity in use", IDENTITY_WAIT_MS_MAX, |status, _| {
            status.serial.clone()
        })
    }

    /// Where the device key of the last status lives, in words.
    ///
    /// # Errors
    ///
    /// [`RigError::Claim`] when the device has a TPM and its key is not proven to live there.
    pub fn key_place(&self) -> Result<&'static str, RigError> {
        let key = self.seen.as_ref().map(|seen| (&*seen.key_backend, seen.attested));
        match (&self.tpm, key) {
            (Some(_), Some(("tpm", true))) => Ok("in the TPM, which the provisioner has proof of"),
            (None, Some(("software", false))) => Ok("in a file"),
            _ => Err(RigError::Claim {
                claim: "the key lives where it should, attested if that is a TPM",
                found: format!("TPM: {}, backend and attested: {key:?}", self.tpm.is_some()),
            }),
        }
    }

    /// Waits until another identity is in use than the last one seen. Returns its serial number.
    ///
    /// # Errors
    ///
    /// What waiting can fail with.
    pub fn await_switch(&mut self) -> Result<String, RigError> {
        let serial =
            self.await_status("the next identity in use", SWITCH_WAIT_MS_MAX, |status, seen| {
                status.serial.clone().filter(|serial| Some(serial) != serial_of(seen))
            })?;
        self.switches += 1;
        Ok(serial)
    }

    /// Waits until the agent has asked for its next certificate in vain. Returns why.
    ///
    /// # Errors
    ///
    /// What waiting can fail with.
    pub fn await_failed_renewal(&mut self) -> Result<String, RigError> {
        self.await_status("a renewal that fails", SWITCH_WAIT_MS_MAX, |status, _| {
            status.enrollment_failure().map(str::to_owned)
        })
    }

    /// Waits until the agent is in the middle of a renewal. Returns the name of the phase.
    ///
    /// # Errors
    ///
    /// What waiting can fail with.
    pub fn await_open_renewal(&mut self) -> Result<String, RigError> {
        self.await_status("a renewal under way", SWITCH_WAIT_MS_MAX, |status, _| {
            status.is_renewing().then(|| status.phase.clone())
        })
    }

    /// Waits until an agent that was started again uses the identity that it had.
    ///
    /// # Errors
    ///
    /// [`RigError::Claim`] if it uses none, or if it uses a new one before it can have got it.
    pub fn await_old_identity(&mut self) -> Result<(), RigError> {
        let had = self.seen.as_ref().and_then(|seen| seen.serial.clone());
        let status =
            self.await_status("the agent's answer", IDENTITY_WAIT_MS_MAX, |status, _| {
                Some(status.clone())
            })?;
        if status.serial == had {
            return Ok(());
        }
        Err(RigError::Claim {
            claim: "a killed agent comes back with the identity it had",
            found: format!("had {had:?}, uses {:?}", status.serial),
        })
    }

    /// Starts the provisioner, as before.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub fn start_provisioner(&mut self) -> Result<(), RigError> {
        self.servers.provisioner.start(self.stop)
    }

    /// Starts to send numbered messages through the agent.
    pub fn start_traffic(&mut self) {
        self.traffic = Some(Traffic::start(self.agent.socket()));
    }

    /// Waits until `count` more messages are acknowledged than now.
    ///
    /// # Errors
    ///
    /// What waiting can fail with.
    pub fn await_messages(&mut self, count: u64) -> Result<(), RigError> {
        let goal = self.acknowledged() + count;
        self.await_alive("acknowledged messages", MESSAGES_WAIT_MS_MAX, |stage| {
            Ok((stage.acknowledged() >= goal).then_some(()))
        })
    }

    /// Takes the device's power away: its agent and its TPM are gone. What messages wait for from
    /// here on counts apart until [`Stage::agent_is_back`]. Returns what was done, in words.
    pub fn cut_power(&mut self) -> &'static str {
        self.traffic.iter().for_each(Traffic::agent_changes);
        self.agent.kill();
        match &mut self.tpm {
            Some(tpm) => {
                tpm.kill();
                "kill -9 agent and TPM"
            }
            None => "kill -9 agent",
        }
    }

    /// Gives the device its power back.
    ///
    /// # Errors
    ///
    /// Whatever does not start.
    pub fn restore_power(&mut self) -> Result<(), RigError> {
        self.tpm.as_mut().map_or(Ok(()), |tpm| tpm.start(self.stop))?;
        self.agent.start()
    }

    /// The agent runs again, and messages flow.
    ///
    /// # Errors
    ///
    /// When they do not.
    pub fn agent_is_back(&mut self) -> Result<(), RigError> {
        self.await_messages(1)?;
        self.traffic.iter().for_each(Traffic::agent_changes);
        Ok(())
    }

    /// Ends the traffic, waits for what is still on its way, and draws up the account. The backend
    /// leaves then: a spectator may come back with its certificate, and one name has one session.
    ///
    /// # Errors
    ///
    /// [`RigError::Claim`] when an acknowledged message has not arrived.
    pub fn settle(&mut self) -> Result<Report, RigError> {
        let sent = self.traffic.take().map(Traffic::finish).transpose()?.unwrap_or_default();
        let arrived = self.await_alive("the last messages", MESSAGES_WAIT_MS_MAX, |stage| {
            Ok((stage.received(sent.acknowledged) == sent.acknowledged).then_some(()))
        });
        let received = self.received(sent.acknowledged);
        match arrived {
            Err(RigError::TimedOut { .. }) => Err(RigError::Claim {
                claim: "every acknowledged message arrives",
                found: format!("{received} of {}", sent.acknowledged),
            }),
            Err(error) => Err(error),
            Ok(()) => self.key_place().map(|_| Report {
                key_backend: self.seen.as_ref().map_or("", |seen| &seen.key_backend).to_owned(),
                attested: self.seen.as_ref().is_some_and(|seen| seen.attested),
                renewals: self.switches,
                sent,
                received,
                lost: sent.acknowledged - received,
                duplicates: self.dismiss_backend(),
            }),
        }
    }

    /// Says what a spectator may look at while everything runs.
    pub fn show_what_to_look_at(&self) {
        self.timeline.chapter("what to look at next");
        let mut inspect = self.agent.command();
        inspect.arg("inspect");
        let mut show = self.servers.provisioner.command();
        show.args(["device", "show", DEVICE_ID]);
        let listen = self.servers.listening.listen("fleetcert/v1/#");
        for (what, command) in
            [("the identity", inspect), ("its history", show), ("what it says", listen)]
        {
            self.timeline.note(what, &programs::line_of(&command));
        }
    }

    /// The backend leaves. Returns how many messages it has heard more than once.
    fn dismiss_backend(&mut self) -> u64 {
        self.subscriber.take().map_or(0, |backend| backend.heard().duplicates())
    }

    fn received(&self, up_to: u64) -> u64 {
        self.subscriber.as_ref().map_or(0, |backend| backend.heard().received(up_to))
    }

    fn acknowledged(&self) -> u64 {
        self.traffic.as_ref().map_or(0, Traffic::acknowledged)
    }

    /// Waits until `probe` finds what it looks for in the agent's status and the one before it.
    fn await_status<T>(
        &mut self,
        waited_for: &'static str,
        limit_ms: u64,
        probe: impl Fn(&Status, Option<&Status>) -> Option<T>,
    ) -> Result<T, RigError> {
        self.await_alive(waited_for, limit_ms, |stage| {
            let Some(status) = stage.agent.status()? else { return Ok(None) };
            let found = probe(&status, stage.seen.as_ref());
            if found.is_some() {
                stage.seen = Some(status);
            }
            Ok(found)
        })
    }

    fn await_alive<T>(
        &mut self,
        waited_for: &'static str,
        limit_ms: u64,
        mut probe: impl FnMut(&mut Self) -> Result<Option<T>, RigError>,
    ) -> Result<T, RigError> {
        let stop = self.stop;
        stop.until(waited_for, limit_ms, || {
            self.servers.check()?;
            self.subscriber.as_mut().map_or(Ok(()), Subscriber::check)?;
            self.tpm.as_mut().map_or(Ok(()), Swtpm::check)?;
            probe(self)
        })
    }
}

/// A TPM for the device, and a provisioner that asks for proof that the key lives in it; `None`
/// where there is none to be had.
fn give_tpm(
    place: &Workplace,
    provisioner: &Provisioner,
    stop: &Stop,
    timeline: &Timeline,
) -> Result<Option<Swtpm>, RigError> {
    if !swtpm::is_installed() {
        let why = "there is no swtpm (qemu/setup installs it): the device key lives in a file";
        timeline.note("rig", why);
        return Ok(None);
    }
    let maker = TpmMaker::found(&place.join("tpm-maker"), TPM_MAKER)?;
    let mut tpm = Swtpm::manufacture(&place.join("tpm"), &maker)?;
    tpm.start(stop)?;
    timeline.note("swtpm", "manufactured; its maker has certified its endorsement keys");
    provisioner.ask_for_evidence(&maker)?;
    Ok(Some(tpm))
}

/// Enters the device. Returns the file of its token, if it is to show one.
fn expect_device(
    place: &Workplace,
    provisioner: &Provisioner,
    has_tpm: bool,
    timeline: &Timeline,
) -> Result<Option<PathBuf>, RigError> {
    let with = |what| timeline.note("provisioner", &format!("expects {DEVICE_ID} with {what}"));
    if has_tpm {
        provisioner.expect(DEVICE_ID)?;
        with("a key that is proven to live in a TPM");
        return Ok(None);
    }
    let token_file = place.join("token");
    provisioner.admit(DEVICE_ID, &token_file)?;
    with("a one-time token");
    Ok(Some(token_file))
}

fn serial_of(status: Option<&Status>) -> Option<&String> {
    status.and_then(|status| status.serial.as_ref())
}
