//! A provisioner, a maker of TPMs that it trusts, and what both know afterwards.

use std::fs;
use std::path::Path;
use std::process::Command;

use fleetcert_rig::swtpm::Swtpm;
use fleetcert_tests::lab::by_hand::SIMPLE_ENROLL;
use fleetcert_tests::lab::claimant::{Asking, Claimant, Given, Request, Stated, spki};
use fleetcert_tests::lab::https::{Https, Reply};
use fleetcert_tests::lab::pki::{self, CHIP_MAKER, Node};
use fleetcert_tests::lab::run::Outcome;
use fleetcert_tests::lab::tpm::powered;
use fleetcert_tests::lab::{Lab, OrFail, Plan, run};
use fleetcert_tpm::ek::EkTemplate;
use serde_json::Value;

/// The name in which most requests here are made.
pub(crate) const DEVICE: &str = "gw-1";

/// A provisioner whose group `default` admits by certificates of endorsement keys, unless a plan
/// says otherwise.
pub(crate) struct Bench {
    pub(crate) lab: Lab,
    /// Whose TPMs are believed.
    pub(crate) maker: Node,
}

/// A challenge that waits for its answer, and what opens to it.
pub(crate) struct Open {
    pub(crate) given: Given,
    pub(crate) secret: Vec<u8>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(Plan { admission: "ek-chain", ..Plan::default() })
    }

    pub(crate) fn with(plan: Plan<'_>) -> Self {
        let bench = Self { lab: Lab::with(plan), maker: maker() };
        bench.trust(&bench.maker);
        bench
    }

    /// A powered TPM in which nobody has left anything.
    pub(crate) fn blank(&self, name: &str) -> Swtpm {
        powered(Swtpm::blank(&self.lab.path(name)).or_fail("a TPM"))
    }

    /// A device with a P-256 endorsement key that the maker has certified.
    pub(crate) fn device(&self, name: &str) -> Claimant {
        let mut device = self.bare_device(name);
        device.certificates = self.certificate(&device);
        device
    }

    /// The same without a certificate.
    pub(crate) fn bare_device(&self, name: &str) -> Claimant {
        Claimant::new(self.blank(name), EkTemplate::P256)
    }

    /// A good certificate for the endorsement key of a device.
    pub(crate) fn certificate(&self, device: &Claimant) -> Vec<u8> {
        self.maker.signs_for(&pki::endorsement(CHIP_MAKER), &device.ek_spki())
    }

    /// Has the provisioner believe `maker`.
    pub(crate) fn trust(&self, maker: &Node) {
        let path = self.lab.path("root.pem");
        fs::write(&path, pki::pem(&maker.der)).or_fail("a root");
        self.lab.operate(&["attest", "ek-roots", "add", &path.to_string_lossy()]);
    }

    /// Asks, and gets a challenge.
    #[track_caller]
    pub(crate) fn challenge(&self, asking: &Asking) -> Given {
        match asking.ask(&self.lab.https()) {
            Ok(given) => given,
            Err(reply) => panic!("{reply:?}"),
        }
    }

    /// Asks, and gets a refusal and nothing else: no challenge is kept.
    #[track_caller]
    pub(crate) fn no_challenge(&self, asking: &Asking, expected: (u16, &str)) {
        let before = self.sql("SELECT count(*) FROM challenge");
        match asking.ask(&self.lab.https()) {
            Ok(_) => panic!("a challenge, expected {expected:?}"),
            Err(reply) => assert_eq!(reply.verdict(), expected, "{}", reply.text()),
        }
        assert_eq!(self.sql("SELECT count(*) FROM challenge"), before);
    }

    /// Has `device` ask as [`DEVICE`] and solve what it is given.
    #[track_caller]
    pub(crate) fn open(&self, device: &mut Claimant) -> Open {
        let given = self.challenge(&device.asking(DEVICE));
        let secret = device.solve(&given);
        Open { given, secret }
    }

    /// Answers as [`DEVICE`] with that statement, and is refused: nothing is issued or bound.
    #[track_caller]
    pub(crate) fn refused(
        &self,
        device: &mut Claimant,
        given: &Given,
        stated: &Stated,
        expected: (u16, &str),
    ) {
        let reply = device.answer(&self.lab, DEVICE, given, stated);
        self.no_certificate(&reply, expected);
    }

    /// That is a refusal, and nothing was issued to anybody or bound.
    #[track_caller]
    pub(crate) fn no_certificate(&self, reply: &Reply, expected: (u16, &str)) {
        assert_eq!(reply.verdict(), expected, "{}", reply.text());
        let made = "SELECT (SELECT count(*) FROM binding) + (SELECT count(*) FROM device)";
        assert_eq!(self.sql(made), "0");
    }

    /// The honest answer to the same challenge is a certificate: what was refused before was
    /// refused for what was wrong with it, and has used nothing up.
    #[track_caller]
    pub(crate) fn honest_answer_enrolls(&self, device: &mut Claimant, given: &Given) {
        let stated = device.stated(given);
        enrolled(&device.answer(&self.lab, DEVICE, given, &stated));
        assert_eq!(self.lab.issued(DEVICE), 1);
    }

    /// Enters a list of endorsement keys, each with its device, as an operator does.
    #[track_caller]
    pub(crate) fn import(&self, name: &str, text: &str) -> Outcome {
        let path = self.lab.path(name);
        fs::write(&path, text).or_fail("a list");
        self.lab.try_to_operate(&["device", "import", &path.to_string_lossy()])
    }

    /// Has `device` ask as `name` and answer honestly.
    #[track_caller]
    pub(crate) fn enroll(&self, device: &mut Claimant, name: &str) -> Reply {
        self.enroll_over(&self.lab.https(), SIMPLE_ENROLL, device, name)
    }

    /// The same by any credentials, at any place.
    #[track_caller]
    pub(crate) fn enroll_over(
        &self,
        https: &Https,
        path: &str,
        device: &mut Claimant,
        name: &str,
    ) -> Reply {
        let given = self.challenge(&device.asking(name));
        let (attributes, challenge) = (device.stated(&given).attribute(), Some(given.id));
        self.request(https, path, device, name, attributes, challenge)
    }

    /// Has `device` ask for its key without a word of its TPM.
    #[track_caller]
    pub(crate) fn enroll_bare(
        &self,
        https: &Https,
        path: &str,
        device: &mut Claimant,
        name: &str,
    ) -> Reply {
        self.request(https, path, device, name, Vec::new(), None)
    }

    fn request(
        &self,
        https: &Https,
        path: &str,
        device: &mut Claimant,
        name: &str,
        attributes: Vec<u8>,
        challenge: Option<[u8; 16]>,
    ) -> Reply {
        let request = Request { device: name, spki: spki(&device.key), attributes, challenge };
        let csr = device.signed(&request);
        request.send(https, path, &csr)
    }

    /// What is on record of a device's TPM.
    #[track_caller]
    pub(crate) fn tpm(&self, name: &str) -> Value {
        self.lab.ask(&["device", "show", name])["tpm"].clone()
    }

    /// The events about a device, oldest first, refusals left out.
    #[track_caller]
    pub(crate) fn events(&self, name: &str) -> Vec<String> {
        let events = self.lab.audit(name).into_iter().map(|entry| entry["event"].clone());
        let events = events.map(|event| event.as_str().or_fail("an event").to_owned());
        events.filter(|event| event != "refused").collect()
    }

    /// Runs one statement on the provisioner's database; its first value.
    #[track_caller]
    pub(crate) fn sql(&self, statement: &str) -> String {
        let mut command = Command::new("python3");
        command.args(["-c", SQL]).arg(self.lab.path("provisioner/fleetcert.db")).arg(statement);
        run::run(command, b"").expect_success().stdout.trim().to_owned()
    }
}

/// Somebody who certifies endorsement keys.
pub(crate) fn maker() -> Node {
    Node::root(pki::authority("Chip Maker EK Root"))
}

/// The same TPM after `work` at it by another program: a device that starts anew, without its keys.
pub(crate) fn restarted(mut device: Claimant, work: impl FnOnce(&Path)) -> Claimant {
    device.vault.tpm().transport().hang_up();
    work(&device.tpm.data_socket());
    Claimant::new(device.tpm, EkTemplate::P256)
}

/// That is a certificate.
#[track_caller]
pub(crate) fn enrolled(reply: &Reply) {
    assert_eq!(reply.verdict(), (200, ""), "{}", reply.text());
}

/// Runs one statement on a database that another process has open.
const SQL: &str = "\
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=10)
row = connection.execute(sys.argv[2]).fetchone()
connection.commit()
print(row[0] if row else '')
";
