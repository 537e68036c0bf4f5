//! Where devices are made and watched: the servers, a maker of TPMs, and a backend that counts.
//!
//! **What it is.** The fleet's side of a rig for boards, in one folder. It makes devices as a factory
//! does ([`Bench::make`]), gives them orders as an operator does ([`Bench::order`]), and draws
//! up what has become of each ([`Bench::account`]).
//!
//! **What it must never do.** Wait for one without looking at the others: while a device is waited
//! for, every server, every emulator and every serial line is looked at, so that what has broken is
//! reported as that, with its last words ([`Bench::until_all`]).
//!
//! **Where they meet.** The servers listen on loopback. The emulator's network is a process of the
//! host's user; the board reaches the host's loopback as [`HOST`].

use std::fs;
use std::process::Command;

use crate::account::Account;
use crate::device::{Device, Model};
use crate::error::RigError;
use crate::factory::Factory;
use crate::process;
use crate::programs::{self, Programs};
use crate::provisioner::Terms;
use crate::servers::Servers;
use crate::subscriber::Subscriber;
use crate::swtpm::Swtpm;
use crate::telemetry::Telemetry;
use crate::timeline::Timeline;
use crate::tpm_maker::TpmMaker;
use crate::wait::{Stop, Stopwatch};
use crate::workplace::Workplace;

/// What the emulator's network calls the host's loopback.
pub const HOST: &str = "10.0.2.2";

/// Their fleet.
const TRUST_DOMAIN: &str = "bench.example";

/// Who made their TPMs.
const TPM_MAKER: &str = "Bench";

/// From its start to a backend that hears.
const SUBSCRIBED_WAIT_MS_MAX: u64 = 20_000;

/// Between two orders to renew, when nothing has come of the first: a device that was busy with
/// another renewal has finished it by then.
const ORDER_AGAIN_MS: u64 = 15_000;

/// From an acknowledgement to a backend that has heard the message.
const ARRIVAL_WAIT_MS_MAX: u64 = 10_000;

/// The fleet's side.
#[derive(Debug)]
pub struct Bench<'a> {
    /// Whom devices talk to.
    pub servers: Servers,
    model: Model,
    place: &'a Workplace,
    stop: &'a Stop,
    timeline: &'a Timeline,
    tpm_maker: Option<TpmMaker>,
    subscriber: Option<Subscriber<Telemetry>>,
    orders: u64,
}

impl<'a> Bench<'a> {
    /// Installs the servers for devices of `model` in `place`. Nothing is started.
    ///
    /// # Errors
    ///
    /// What the provisioner's program or openssl reports.
    pub fn install(
        programs: &Programs,
        model: Model,
        device_lifetime_s: u32,
        place: &'a Workplace,
        (stop, timeline): (&'a Stop, &'a Timeline),
    ) -> Result<Self, RigError> {
        let terms = Terms { trust_domain: TRUST_DOMAIN, device_lifetime_s, more_names: &[HOST] };
        let servers = Servers::install(programs, place, terms)?;
        let tpm_maker = if model.board.has_tpm() {
            let maker = TpmMaker::found(&place.join("tpm-maker"), TPM_MAKER)?;
            servers.provisioner.ask_for_evidence(&maker)?;
            Some(maker)
        } else {
            None
        };
        let (subscriber, orders) = (None, 0);
        Ok(Self { servers, model, place, stop, timeline, tpm_maker, subscriber, orders })
    }

    /// Starts everything.
    ///
    /// # Errors
    ///
    /// What does not start.
    pub fn serve(&mut self) -> Result<(), RigError> {
        self.start_provisioner()?;
        self.start_broker()
    }

    /// Starts the provisioner.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub fn start_provisioner(&mut self) -> Result<(), RigError> {
        self.servers.provisioner.start(self.stop)?;
        self.timeline.note("provisioner", &format!("serves at {}", self.servers.provisioner.url()));
        Ok(())
    }

    /// Starts the broker and the backend, and waits until that hears.
    ///
    /// # Errors
    ///
    /// What does not start.
    pub fn start_broker(&mut self) -> Result<(), RigError> {
        self.servers.start_broker(self.stop)?;
        let mut subscriber: Subscriber<Telemetry> = self.servers.subscribe()?;
        self.stop.until("the backend to hear", SUBSCRIBED_WAIT_MS_MAX, || {
            subscriber.check()?;
            self.servers.publish("fleetcert/v1/rig/hello", "{}")?;
            Ok(subscriber.heard().has_heard_anything().then_some(()))
        })?;
        self.subscriber = Some(subscriber);
        let port = self.servers.broker_port();
        self.timeline.note("mosquitto", &format!("listens at localhost:{port}"));
        Ok(())
    }

    /// Makes a device that the provisioner expects: with a TPM of the maker's that it has to show
    /// evidence of, or with a one-time token. It has no power yet.
    ///
    /// # Errors
    ///
    /// What the provisioner's program or `swtpm_setup` reports.
    pub fn make(&self, id: &str) -> Result<Device, RigError> {
        let folder = |what: &str| self.place.join(format!("{id}-{what}"));
        let (provisioner, maker) = (&self.servers.provisioner, self.tpm_maker.as_ref());
        let tpm = maker.map(|maker| Swtpm::manufacture(&folder("tpm"), maker)).transpose()?;
        let token = if tpm.is_some() {
            provisioner.expect(id)?;
            None
        } else {
            let path = folder("token");
            provisioner.admit(id, &path)?;
            Some(fs::read_to_string(&path).map_err(RigError::io(&path))?.trim().to_owned())
        };
        let device = Device::make(id, self.model.clone(), &folder("device"), tpm)?;
        device.configure(&self.factory(id, token)?)?;
        Ok(device)
    }

    /// The configuration of a device of this bench.
    ///
    /// # Errors
    ///
    /// What openssl reports.
    pub fn factory(&self, id: &str, token: Option<String>) -> Result<Factory, RigError> {
        let server = |port| (HOST.to_owned(), port);
        Ok(Factory {
            device_id: id.to_owned(),
            attested_only: self.tpm_maker.is_some(),
            decommission: false,
            provisioner: server(self.servers.provisioner.port()),
            server_root: self.server_root()?,
            token,
            broker: Some(server(self.servers.broker_port())),
        })
    }

    /// The root of the server tree, DER.
    fn server_root(&self) -> Result<Vec<u8>, RigError> {
        let der = self.place.join("server-root.der");
        let mut openssl = Command::new("openssl");
        openssl
            .args(["x509", "-outform", "DER", "-in"])
            .arg(self.servers.provisioner.server_root());
        openssl.arg("-out").arg(&der);
        process::run("openssl x509", openssl, &self.place.join("openssl.log"))?;
        fs::read(&der).map_err(RigError::io(&der))
    }

    /// Gives a device a command, over the broker.
    ///
    /// # Errors
    ///
    /// [`RigError::Ended`] when the broker does not take it.
    pub fn order(&mut self, device: &Device, command: &str) -> Result<(), RigError> {
        self.orders += 1;
        let topic = format!("fleetcert/v1/{}/command", device.id());
        let order = format!(r#"{{"schema":1,"id":"rig-{}","command":"{command}"}}"#, self.orders);
        self.servers.publish(&topic, &order)
    }

    /// Has every device renew, and waits until each says that it asks for a certificate.
    ///
    /// # Errors
    ///
    /// As [`Bench::until_all`].
    pub fn begin_renewals(
        &mut self,
        devices: &mut [Device],
        limit_ms: u64,
    ) -> Result<(), RigError> {
        self.order_until(devices, "requested", "a renewal to begin", limit_ms)
    }

    /// Has every device renew, and waits until each has proven its new identity.
    ///
    /// # Errors
    ///
    /// As [`Bench::until_all`].
    pub fn renew_all(&mut self, devices: &mut [Device], limit_ms: u64) -> Result<(), RigError> {
        self.order_until(devices, "proven", "a renewal to be proven", limit_ms)
    }

    /// Orders renewals, again and again, until `event` has happened once more to every device.
    fn order_until(
        &mut self,
        devices: &mut [Device],
        event: &str,
        waited_for: &'static str,
        limit_ms: u64,
    ) -> Result<(), RigError> {
        let goals: Vec<usize> =
            devices.iter().map(|device| device.boot().count(event) + 1).collect();
        let mut ordered = None::<Stopwatch>;
        self.watch(devices, waited_for, limit_ms, |bench, devices| {
            let have_come: Vec<bool> = (devices.iter().zip(&goals))
                .map(|(device, goal)| device.boot().count(event) >= *goal)
                .collect();
            if ordered.is_none_or(|watch| watch.elapsed_ms() >= ORDER_AGAIN_MS) {
                let late = devices.iter().zip(&have_come).filter(|(_, has_come)| !**has_come);
                late.map(|(device, _)| device)
                    .try_for_each(|device| bench.order(device, "renew"))?;
                ordered = Some(Stopwatch::start());
            }
            Ok(have_come)
        })
    }

    /// Waits until `is_so` of every device.
    ///
    /// # Errors
    ///
    /// [`RigError::Device`] names the first of which it is not so in time; [`RigError::Ended`] and
    /// [`RigError::Device`] name who broke meanwhile.
    pub fn until_all(
        &mut self,
        devices: &mut [Device],
        waited_for: &'static str,
        limit_ms: u64,
        is_so: impl Fn(&Device) -> bool,
    ) -> Result<(), RigError> {
        self.watch(devices, waited_for, limit_ms, |_, devices| {
            Ok(devices.iter().map(&is_so).collect())
        })
    }

    /// Lets `ms` milliseconds pass, and looks at everyone meanwhile.
    ///
    /// # Errors
    ///
    /// Who broke meanwhile.
    pub fn let_pass(&mut self, devices: &mut [Device], ms: u64) -> Result<(), RigError> {
        let watch = Stopwatch::start();
        self.until_all(devices, "time to pass", u64::MAX, |_| watch.elapsed_ms() >= ms)
    }

    /// Asks `probe` of which devices it is so, until it is of all.
    fn watch(
        &mut self,
        devices: &mut [Device],
        waited_for: &'static str,
        limit_ms: u64,
        mut probe: impl FnMut(&mut Self, &[Device]) -> Result<Vec<bool>, RigError>,
    ) -> Result<(), RigError> {
        let (stop, mut are_so) = (self.stop, Vec::new());
        let outcome = stop.until(waited_for, limit_ms, || {
            self.servers.check()?;
            self.subscriber.as_mut().map_or(Ok(()), Subscriber::check)?;
            devices.iter_mut().try_for_each(Device::listen)?;
            are_so = probe(self, devices)?;
            Ok(are_so.iter().all(|is_so| *is_so).then_some(()))
        });
        let late = are_so.iter().position(|is_so| !is_so).and_then(|at| devices.get(at));
        match (outcome, late) {
            (Err(error @ RigError::TimedOut { .. }), Some(device)) => Err(device.blame(error)),
            (outcome, _) => outcome,
        }
    }

    /// Waits until each device was told of `count` more messages of its present boot that the broker
    /// has them.
    ///
    /// # Errors
    ///
    /// As [`Bench::until_all`].
    pub fn until_heard(
        &mut self,
        devices: &mut [Device],
        count: usize,
        limit_ms: u64,
    ) -> Result<(), RigError> {
        let acknowledged = |device: &Device| device.boot().acknowledged.len();
        let goals: Vec<usize> = devices.iter().map(|device| acknowledged(device) + count).collect();
        self.watch(devices, "acknowledged messages", limit_ms, |_, devices| {
            Ok(devices.iter().zip(&goals).map(|(one, goal)| acknowledged(one) >= *goal).collect())
        })
    }

    /// What has become of a device so far.
    ///
    /// # Errors
    ///
    /// What the provisioner's program reports.
    pub fn account(&self, device: &Device) -> Result<Account, RigError> {
        let history = self.servers.provisioner.history(device.id())?;
        Ok(self.with_telemetry(|heard| Account::of(device, &history, heard)))
    }

    /// Waits for messages that are still on their way, and draws up the account of all devices,
    /// each of which has renewed `renewals` times or more.
    ///
    /// # Errors
    ///
    /// [`RigError::Device`] with the claim that does not hold of it.
    pub fn settle(&mut self, devices: &mut [Device], renewals: u32) -> Result<Account, RigError> {
        let has_arrived = |bench: &Self, device: &Device| {
            bench.with_telemetry(|heard| {
                device.boots().all(|boot| heard.missing(device.id(), boot).is_empty())
            })
        };
        let arrived =
            self.watch(devices, "the last messages", ARRIVAL_WAIT_MS_MAX, |bench, devices| {
                Ok(devices.iter().map(|device| has_arrived(bench, device)).collect())
            });
        let mut accounts = Vec::new();
        for device in devices {
            let account = self.account(device)?;
            let claims = account.check(self.model.board, u64::from(renewals));
            claims.map_err(|why| device.blame(why))?;
            accounts.push(account);
        }
        arrived.map(|()| Account::of_all(&accounts))
    }

    /// With `keep`, gives everything power, says what to look at, and waits until a stop is
    /// requested.
    ///
    /// # Errors
    ///
    /// What does not start.
    pub fn end(&self, devices: &mut [Device], keep: bool) -> Result<(), RigError> {
        if !keep {
            let why = "with --keep, everything stays to be looked at; now it is gone";
            self.timeline.note("rig", why);
            return Ok(());
        }
        devices.iter_mut().try_for_each(|device| self.power_on(device))?;
        self.timeline.chapter("what to look at");
        let listen = self.servers.listening.listen("fleetcert/v1/#");
        self.timeline.note("what they say", &programs::line_of(&listen));
        for device in devices {
            let mut show = self.servers.provisioner.command();
            show.args(["device", "show", device.id()]);
            self.note(device, &programs::line_of(&show));
            self.note(device, &format!("tail -f {}", device.console().display()));
        }
        self.timeline.note("rig", "everything keeps running; Ctrl-C ends it");
        self.stop.wait();
        Ok(())
    }

    /// Gives a device power, under ordinary conditions; does nothing while it has.
    ///
    /// # Errors
    ///
    /// What does not start.
    pub fn power_on(&self, device: &mut Device) -> Result<(), RigError> {
        device.power_on(self.stop)
    }

    /// The history of this run, for people.
    #[must_use]
    pub const fn timeline(&self) -> &'a Timeline {
        self.timeline
    }

    /// Whether to go on.
    #[must_use]
    pub const fn stop(&self) -> &'a Stop {
        self.stop
    }

    fn note(&self, device: &Device, what: &str) {
        self.timeline.note(device.id(), what);
    }

    fn with_telemetry<T>(&self, look: impl FnOnce(&Telemetry) -> T) -> T {
        match &self.subscriber {
            Some(subscriber) => look(&subscriber.heard()),
            None => look(&Telemetry::default()),
        }
    }
}
