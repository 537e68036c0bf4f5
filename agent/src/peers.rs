//! Provisioner and broker, as the lifecycle machine speaks to them.
//!
//! **What it is.** The port `Peers` over [`crate::est`] and [`crate::mqtt`]: for each of the
//! machine's questions, which identity to show to whom, in which order.
//!
//! **What it must never do.** Take the old identity out of use before the new one has stood before
//! both peers. Decide from a broker's refusal anything but that this proof failed.
//!
//! **Why that is sound.** A proof goes to the provisioner first, over a connection of its own. The
//! new TLS connection to the broker stands, and was judged as far as TLS shows it, before the old
//! session ends; without CONNACK on the new one the old identity is back before the answer is
//! given (`docs/design/mqtt.md`).

use std::rc::Rc;

use fleetcert_core::event::Failure;
use fleetcert_core::lifecycle::BrokerProof;
use fleetcert_core::port::{self, Advice, Answer, Proof};
use fleetcert_core::record::{Identity, Kind, Request, Slot};
use fleetcert_core::time::Reading;
use fleetcert_core::time::server::Server;

use crate::context::Context;
use crate::est::{Applicant, Est, EstError, Told};
use crate::link::Link;
use crate::mqtt::{Broker, MqttError, NoBroker};
use crate::net::{NetError, dial, verdict};
use crate::tls::{Client, SetupError, Trust};

/// The peers of one device.
#[derive(Debug)]
pub struct Peers {
    context: Context,
    est: Est,
    provisioner_trust: Trust,
    broker: Option<BrokerPeer>,
}

/// The broker, and what its certificate must lead to.
#[derive(Debug)]
struct BrokerPeer {
    session: Broker,
    trust: Trust,
}

impl Peers {
    /// Reads the pinned roots and starts the session's task, which waits for an identity.
    ///
    /// # Errors
    ///
    /// [`SetupError`] names the file that holds no root.
    pub fn new(context: Context) -> Result<Self, SetupError> {
        let config = &context.config;
        let provisioner_trust = Trust::read(&config.provisioner.server_root)?;
        let broker = match &config.mqtt {
            Some(mqtt) => {
                let trust = Trust::read(mqtt.root(&config.provisioner))?;
                Some(BrokerPeer { session: Broker::start(&context, mqtt), trust })
            }
            None => None,
        };
        let est = Est::new(config.clone(), context.entropy.clone());
        Ok(Self { context, est, provisioner_trust, broker })
    }

    /// The session with the broker.
    #[must_use]
    pub fn link(&self) -> Rc<dyn Link> {
        match &self.broker {
            Some(broker) => Rc::new(broker.session.clone()),
            None => Rc::new(NoBroker),
        }
    }

    /// The session itself, for who wants to tell it the time between two questions of the machine
    /// ([`Broker::judge`]): after a clock step, say.
    #[must_use]
    pub fn broker(&self) -> Option<Broker> {
        self.broker.as_ref().map(|broker| broker.session.clone())
    }

    /// A client that shows the identity in `slot`.
    fn client(
        &self,
        trust: &Trust,
        server: Server,
        slot: Slot,
        identity: &Identity,
    ) -> Result<Client, NetError> {
        let signer = self.context.keys.signer(slot).map_err(|failure| NetError::from(&failure))?;
        Client::identified(trust, server, &identity.certificate, signer).map_err(NetError::Setup)
    }

    fn provisioner_client(&self, slot: Slot, identity: &Identity) -> Result<Client, NetError> {
        self.client(&self.provisioner_trust, Server::Provisioner, slot, identity)
    }

    /// Forgets the particulars of failures past, and tells the session what time it is.
    fn begin(&self, reading: Reading) {
        let _past = self.context.causes.take();
        if let Some(broker) = &self.broker {
            broker.session.judge(reading);
        }
    }

    /// Leaves the particulars of the provisioner's failure and gives what the machine has to know.
    fn settle<T>(&self, told: Told<T>) -> Answer<T> {
        let Told { outcome, server_time } = told;
        let outcome = outcome.map_err(|error| {
            let endpoint = &self.context.config.provisioner.endpoint;
            self.context.causes.note(format_args!("provisioner {endpoint}: {error}"));
            error.failure()
        });
        Answer { outcome, server_time }
    }

    fn note_broker(&self, error: &MqttError) {
        if let Some(broker) = &self.broker {
            let endpoint = broker.session.endpoint();
            self.context.causes.note(format_args!("broker {endpoint}: {error}"));
        }
    }

    /// Brings the session over to the new identity.
    async fn prove_to_broker(
        &self,
        slot: Slot,
        identity: &Identity,
        reading: Reading,
    ) -> Result<BrokerProof, Failure> {
        let Some(BrokerPeer { session, trust }) = &self.broker else {
            return Ok(BrokerProof::NotConfigured);
        };
        let outcome: Result<(), MqttError> = async {
            let client = self.client(trust, Server::Broker, slot, identity)?;
            let mut stream = dial(session.endpoint(), &client, reading).await?;
            verdict(&mut stream).await?;
            session.switch(client, stream).await
        }
        .await;
        outcome.map(|()| BrokerProof::Connected).or_else(|error| {
            self.note_broker(&error);
            log::warn!("broker {}: {error}", session.endpoint());
            match error.failure() {
                verdict @ (Failure::OurIdentityRefused
                | Failure::KeyLost
                | Failure::KeyUnavailable) => Err(verdict),
                // Nothing of this is about us: a broker that is away, or is not the broker.
                _ => Ok(BrokerProof::Unreachable),
            }
        })
    }
}

impl port::Peers for Peers {
    async fn enroll(
        &mut self,
        request: &Request,
        slot: Slot,
        current: Option<(Slot, &Identity)>,
        reading: Reading,
    ) -> Answer<Identity> {
        self.begin(reading);
        let shown = current.filter(|_| request.kind != Kind::First);
        let client = match shown {
            Some((slot, identity)) => self.provisioner_client(slot, identity),
            None => Client::anonymous(&self.provisioner_trust, Server::Provisioner)
                .map_err(NetError::Setup),
        };
        let signer = self.context.keys.signer(slot);
        let told = match (client, signer) {
            (Ok(client), Ok(signer)) => {
                let applicant = Applicant { keys: &self.context.keys, slot, signer };
                self.est.enroll(&client, request, applicant, reading).await
            }
            (_, Err(failure)) => Told::failed(EstError::Key(failure)),
            (Err(error), _) => Told::failed(EstError::Net(error)),
        };
        self.settle(told)
    }

    async fn prove(&mut self, slot: Slot, identity: &Identity, reading: Reading) -> Answer<Proof> {
        self.begin(reading);
        let told = match self.provisioner_client(slot, identity) {
            Ok(client) => self.est.whoami(&client, reading).await,
            Err(error) => Told::failed(EstError::Net(error)),
        };
        let Answer { outcome, server_time } = self.settle(told);
        let outcome = match outcome {
            // A broker is shown only what the provisioner saw to be right.
            Ok(serial) if serial == identity.serial => self
                .prove_to_broker(slot, identity, reading)
                .await
                .map(|broker| Proof { serial, broker }),
            Ok(serial) => Ok(Proof { serial, broker: BrokerProof::Unreachable }),
            Err(failure) => Err(failure),
        };
        Answer { outcome, server_time }
    }

    async fn consult(
        &mut self,
        slot: Slot,
        identity: &Identity,
        reading: Reading,
    ) -> Answer<Advice> {
        self.begin(reading);
        let told = match self.provisioner_client(slot, identity) {
            Ok(client) => self.est.renewal_info(&client, &identity.certificate, reading).await,
            Err(error) => Told::failed(EstError::Net(error)),
        };
        self.settle(told)
    }

    async fn adopt(
        &mut self,
        slot: Slot,
        identity: &Identity,
        reading: Reading,
    ) -> Result<(), Failure> {
        self.begin(reading);
        // A key that a TPM has lost shows in its use only.
        if let Err(failure) = self.context.keys.probe(slot).await {
            self.context.causes.note(&failure);
            return Err(Failure::from(&failure));
        }
        let Some(BrokerPeer { session, trust }) = &self.broker else { return Ok(()) };
        match self.client(trust, Server::Broker, slot, identity) {
            Ok(client) => {
                session.adopt(client).await;
                Ok(())
            }
            Err(error) => {
                self.context.causes.note(&error);
                Err(error.failure())
            }
        }
    }

    async fn release(&mut self) -> Result<(), Failure> {
        if let Some(broker) = &self.broker {
            broker.session.release().await;
        }
        Ok(())
    }
}
