//! A TPM on bad days: cut off, killed, cleared, exchanged, locked by a password or a permission,
//! slow, and full of somebody else's keys. The agent names what is in the way, waits for it without
//! a restart of its own, and never takes another key for the one it had.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use fleetcert_provisioner::attest::{credential, evidence};
use fleetcert_provisioner::entropy::SystemEntropy;
use fleetcert_rig::swtpm::Swtpm;
use fleetcert_rig::wait::{Stop, Stopwatch};
use fleetcert_tests::lab::by_hand::openssl;
use fleetcert_tests::lab::device::{Device, Status};
use fleetcert_tests::lab::run::run;
use fleetcert_tests::lab::site::{BACK_MS_MAX, ID, Site};
use fleetcert_tests::lab::thief::Thief;
use fleetcert_tests::lab::tpm::{leftovers, lockout_counter, powered};
use fleetcert_tests::lab::tpm_bus::Mishap;
use fleetcert_tests::lab::wait::until;
use fleetcert_tests::lab::{Lab, OrFail, Plan};
use fleetcert_tests::tpm_socket::TpmSocket;
use fleetcert_tpm::attest::qualifying_data;
use fleetcert_tpm::command::Code;
use fleetcert_tpm::ek::EkTemplate;
use fleetcert_tpm::template::Template;
use fleetcert_tpm::tpm::Sharing;
use fleetcert_tpm::vault::{CERTIFIED_LEN_MAX, Options, Vault};
use serde_json::json;

#[track_caller]
fn used(status: &Status) -> String {
    status.serial().or_fail("a serial number").to_owned()
}

#[track_caller]
fn order_renewal(device: &Device) {
    assert_eq!(device.ask(&json!({"renew": {}}))["ok"], true);
}

/// Goal: the power fails ten times in a row, each time in the middle of another command of an
/// enrollment, a renewal or a handshake: the device is back each time, and the TPM holds nothing
/// against it.
#[test]
fn ten_power_cuts_in_a_row_cost_nothing() {
    let mut site = Site::new();
    site.enrolled();
    let cuts = [
        Code::Sign,
        Code::Load,
        Code::Create,
        Code::ActivateCredential,
        Code::Certify,
        Code::CreatePrimary,
        Code::StartAuthSession,
        Code::NvRead,
        Code::FlushContext,
        Code::Sign,
    ];
    site.device.kill();
    for code in cuts {
        site.bus.spoil(code.id(), Mishap::Hold);
        site.device.start();
        let mut is_ordered = false;
        until("a command to be cut off", BACK_MS_MAX, || {
            let is_active = site.device.status().is_some_and(|it| it.phase() == "active");
            if is_active && !is_ordered {
                order_renewal(&site.device);
                is_ordered = true;
            }
            site.bus.is_holding().then_some(())
        });
        site.tpm.kill();
        site.device.kill();
        site.bus.go_on();
        site.power_on();
        site.tool(&["tpm2_startup", "-c"]);
        assert_eq!(lockout_counter(site.bus.socket()), 0, "after a cut at {code}");
    }
    site.device.start();
    site.device.await_status("an identity after ten power cuts", BACK_MS_MAX, |status| {
        status.phase() == "active" && status.is_connected()
    });
    assert!(site.bus.is_as_planned());
}

/// Goal: a TPM that loses its power under a running agent is used again by the same agent, whatever
/// it was doing, and the session with the broker goes on meanwhile.
#[test]
fn a_tpm_that_dies_under_load_is_used_again_by_the_same_agent() {
    let mut site = Site::new();
    let mut serial = site.enrolled();
    let pid = site.device.pid();
    for code in [Code::Sign, Code::Create, Code::ActivateCredential, Code::Certify, Code::Load] {
        site.bus.spoil(code.id(), Mishap::Hold);
        order_renewal(&site.device);
        site.bus.await_held();
        site.tpm.kill();
        site.bus.go_on();
        site.power_on();
        let status = site.device.await_other_than(&serial, BACK_MS_MAX);
        serial = used(&status);
        assert_eq!(status.tpm_trouble(), None, "after the end of {code}");
    }
    assert_eq!(site.device.pid(), pid);
    assert_eq!(site.device.end(), None);
    assert_eq!(lockout_counter(site.bus.socket()), 0);
}

/// Goal: a provisioner that has hung up while the TPM worked on its challenge is met anew: the
/// challenge is answered all the same, and no other is asked for.
#[test]
fn a_provisioner_that_hangs_up_while_the_tpm_works_gets_its_answer() {
    let mut site = Site::new();
    let serial = site.enrolled();
    let activate = Code::ActivateCredential.id();
    let solved = |site: &Site| site.bus.counts().get(&activate).map_or(0, |count| count.commands);
    let before = solved(&site);
    site.bus.spoil(Code::Certify.id(), Mishap::Hold);
    order_renewal(&site.device);
    site.bus.await_held();
    site.lab.provisioner.kill();
    site.lab.start_provisioner();
    site.bus.go_on();
    let status = site.device.await_other_than(&serial, BACK_MS_MAX);
    assert_eq!(status.0["key"]["attested"], true, "{:#}", status.0);
    assert_eq!(solved(&site), before + 1, "one challenge");
    assert!(!site.device.log().contains(" warn "), "{}", site.device.log());
}

/// Goal: a TPM that is gone for a while is named, costs neither the session nor the identity, and
/// is used when it is back, over TCP too.
#[test]
fn a_tpm_that_is_away_is_waited_for() {
    let lab = Lab::with(Plan::attested());
    let maker = lab.tpm_maker("acme");
    lab.trust(&maker);
    let tpm = Swtpm::manufacture(&lab.path("tpm"), &maker).or_fail("swtpm_setup");
    let mut tpm = powered(tpm.over_tcp().or_fail("a port"));
    let broker = lab.broker();
    lab.operate(&["device", "add", ID]);
    let mut device = lab.device(ID, |settings| {
        settings.broker_port = Some(broker.port());
        settings.keep_key_in(tpm.address());
    });
    device.start();
    let serial = used(&device.await_online());
    tpm.kill();
    order_renewal(&device);
    let status = device.await_status("a TPM that is away", BACK_MS_MAX, |status| {
        status.tpm_trouble() == Some("absent") && status.failure().is_some()
    });
    assert_eq!((status.serial(), status.is_connected()), (Some(serial.as_str()), true));
    status.assert_failure_is_explained();
    tpm.start(&Stop::default()).or_fail("swtpm");
    order_renewal(&device);
    let status = device.await_other_than(&serial, BACK_MS_MAX);
    assert_eq!(status.tpm_trouble(), None);
}

/// Goal: a cleared TPM is known for the same one, is named as cleared, and the device enrolls again
/// by itself, as the policy has it; the provisioner sees the same TPM with a new attestation key.
#[test]
fn a_cleared_tpm_is_named_and_enrolled_again() {
    let mut site = Site::new();
    let serial = site.enrolled();
    let before = site.bound();
    site.device.stop();
    site.tool(&["tpm2_clear"]);
    site.device.start();
    let status = site.device.await_other_than(&serial, BACK_MS_MAX);
    assert_eq!(status.0["key"]["attested"], true, "{:#}", status.0);
    assert!(site.device.log().contains("the TPM was cleared"));
    let after = site.bound();
    assert_eq!(before["ekSha256"], after["ekSha256"], "{after:#}");
    assert_ne!(before["akName"], after["akName"], "{after:#}");
}

/// Goal: cleared under a running agent, too: it needs no restart to notice.
#[test]
fn a_tpm_that_is_cleared_under_the_agent_is_enrolled_again() {
    let mut site = Site::new();
    let serial = site.enrolled();
    let pid = site.device.pid();
    site.tool(&["tpm2_clear"]);
    order_renewal(&site.device);
    let status = site.device.await_other_than(&serial, BACK_MS_MAX);
    assert_eq!(status.0["key"]["attested"], true, "{:#}", status.0);
    assert_eq!(site.device.pid(), pid);
}

/// Goal: another TPM in the place of the one that holds the keys is named; nothing of the device or
/// of the provisioner is overwritten, and the first TPM, put back, goes on where it was.
#[test]
fn a_swapped_tpm_overwrites_nothing() {
    let mut site = Site::new();
    let serial = site.enrolled();
    site.device.stop();
    let (treasures, bound) = (site.treasures(), site.bound());
    assert!(!treasures.is_empty());
    let other = site.lab.tpm("other", &site.maker);
    let other_bus = site.lab.tpm_bus(&other);
    site.device.reconfigure(&site.settings("tpm", other_bus.address()));
    site.device.start();
    let status = site.await_trouble("swapped");
    assert_eq!(status.serial(), Some(serial.as_str()));
    assert_eq!(site.treasures(), treasures);
    assert_eq!(site.bound(), bound);
    assert_eq!(site.lab.issued(ID), 1);
    let outcome = site.device.run(&["status"]);
    assert!(outcome.text().contains("device replace"), "{}", outcome.text());
    site.device.stop();

    site.device.reconfigure(&site.settings("tpm", site.bus.address()));
    site.device.start();
    let status = site.device.await_online();
    assert_eq!((status.serial(), status.tpm_trouble()), (Some(serial.as_str()), None));
    assert_eq!(site.lab.issued(ID), 1);
}

/// Goal: a device that forgets its keys and comes with another TPM is a conflict: the first TPM
/// keeps the device until an operator replaces it.
#[test]
fn another_tpm_for_a_bound_device_waits_for_an_operator() {
    let mut site = Site::new();
    let serial = site.enrolled();
    site.device.stop();
    let bound = site.bound();
    let other = site.lab.tpm("other", &site.maker);
    site.device.run(&["wipe", "--yes"]).expect_success();
    site.device.reconfigure(&site.settings("tpm", other.address()));
    site.device.start();
    let conflict = until("a conflict", BACK_MS_MAX, || {
        let answer = site.lab.ask(&["device", "show", ID]);
        answer.pointer("/tpm/conflicts/0").cloned()
    });
    assert_ne!(conflict["ekSha256"], bound["ekSha256"]);
    assert_eq!(site.bound(), bound);
    assert_eq!(site.lab.issued(ID), 1);
    site.lab.operate(&["device", "replace", ID]);
    let status = site.device.await_other_than(&serial, BACK_MS_MAX);
    assert_eq!(status.0["key"]["attested"], true, "{:#}", status.0);
    assert_eq!(site.bound()["ekSha256"], conflict["ekSha256"]);
}

/// Goal: a password on the owner hierarchy is named, before the first key and after it; it is not
/// guessed, and its end is noticed.
#[test]
fn an_owner_password_is_named_and_waited_out() {
    let mut site = Site::new();
    site.tool(&["tpm2_startup", "-c"]);
    site.tool(&["tpm2_changeauth", "-c", "owner", "secret"]);
    site.device.start();
    let status = site.await_trouble("owner-auth-needed");
    assert_eq!(status.serial(), None);
    site.tool(&["tpm2_changeauth", "-c", "owner", "-p", "secret"]);
    let serial = used(
        &site.device.await_status("an identity", BACK_MS_MAX, |status| status.phase() == "active"),
    );

    site.tool(&["tpm2_changeauth", "-c", "owner", "secret"]);
    site.device.stop();
    site.device.start();
    let status = site.await_trouble("owner-auth-needed");
    assert_eq!(status.serial(), Some(serial.as_str()));
    site.tool(&["tpm2_changeauth", "-c", "owner", "-p", "secret"]);
    site.device.await_status("the session", BACK_MS_MAX, Status::is_connected);
    assert_eq!(lockout_counter(site.bus.socket()), 0);
}

/// Goal: who knows the owner's password and hands it over in a file gets along with it.
#[test]
fn an_owner_password_in_a_file_is_used() {
    let mut site = Site::with(|settings| settings.owner_auth_file = Some("owner-auth"));
    site.tool(&["tpm2_startup", "-c"]);
    site.tool(&["tpm2_changeauth", "-c", "owner", "secret"]);
    let file = site.lab.path(ID).join("owner-auth");
    fs::write(&file, "secret").or_fail("the password");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).or_fail("its mode");
    site.enrolled();
}

/// Goal: a TPM that the agent's user may not open is named, with who may; nothing is made in
/// software instead, and the right to it is noticed.
#[test]
fn a_missing_permission_is_named() {
    let mut site = Site::new();
    let socket = site.bus.socket().to_path_buf();
    fs::set_permissions(&socket, Permissions::from_mode(0o000)).or_fail("a closed socket");
    site.device.start_as(powerless(&site.device, "run"));
    let status = site.await_trouble("no-permission");
    assert!(status.text("/key/tpm/what_to_do").or_fail("advice").contains("group"));
    assert!(site.treasures().is_empty(), "{:?}", site.treasures().keys());
    fs::set_permissions(&socket, Permissions::from_mode(0o600)).or_fail("an open socket");
    site.device.await_status("an identity", BACK_MS_MAX, |status| status.phase() == "active");
}

/// Goal: the same of a character device, as the kernel has it; and commands say so by their code.
#[test]
fn a_device_without_permission_is_named() {
    let mut site = Site::new();
    let node = site.lab.path("tpmrm0");
    fs::write(&node, "").or_fail("a device node");
    fs::set_permissions(&node, Permissions::from_mode(0o000)).or_fail("a closed device");
    site.device.reconfigure(&site.settings("tpm", node.to_string_lossy().into_owned()));
    site.device.start_as(powerless(&site.device, "run"));
    let status = site.await_trouble("no-permission");
    assert_eq!(status.serial(), None);
    site.device.stop();
    let outcome = run(powerless(&site.device, "enroll"), b"").expect_code(6);
    assert!(outcome.stderr.contains("to do:"), "{}", outcome.stderr);
}

/// A command of the agent without the right to pass by permissions, which root has.
fn powerless(device: &Device, subcommand: &str) -> Command {
    let mut agent = device.command();
    agent.arg(subcommand);
    let is_root = fs::metadata("/proc/self").or_fail("our user").uid() == 0;
    if !is_root {
        return agent;
    }
    let mut command = Command::new("setpriv");
    command.args(["--inh-caps=-all", "--bounding-set=-all", "--"]);
    command.arg(agent.get_program()).args(agent.get_args());
    command
}

/// Goal: a chip without a resource manager is the agent's alone: what another program has left in
/// it is put away, and the agent's work goes on.
#[test]
fn slots_that_another_program_has_filled_are_freed() {
    let mut site = Site::new();
    let serial = site.enrolled();
    // tpm2-tools leave what they load where no resource manager is.
    for number in 0..3 {
        let context = site.lab.path(format!("foreign-{number}"));
        site.tool(&["tpm2_createprimary", "-c", &context.to_string_lossy()]);
    }
    assert_eq!(leftovers(site.bus.socket()).len(), 3, "the chip is full");
    order_renewal(&site.device);
    let status = site.device.await_other_than(&serial, BACK_MS_MAX);
    assert_eq!(status.tpm_trouble(), None);
    assert_eq!(leftovers(site.bus.socket()), Vec::<String>::new());
}

/// Goal: slots that stay taken are named, with what to do, and noticed when they are free.
#[test]
fn slots_that_stay_taken_are_waited_for() {
    const TPM_RC_OBJECT_MEMORY: u32 = 0x902;
    let mut site = Site::new();
    let serial = site.enrolled();
    let loads = [Code::ContextLoad, Code::CreatePrimary, Code::Load].map(Code::id);
    site.bus.refuse(&loads, TPM_RC_OBJECT_MEMORY);
    order_renewal(&site.device);
    let status = site.await_trouble("no-slots");
    assert_eq!((status.serial(), status.is_connected()), (Some(serial.as_str()), true));
    site.bus.refuse(&[], 0);
    site.device.await_other_than(&serial, BACK_MS_MAX);
}

/// Goal: a TPM that takes half a second for each command enrolls, renews and shakes hands, and
/// nobody else waits for it: the agent answers at once while it works.
#[test]
fn slow_a_slow_tpm_stalls_nobody() {
    const COMMAND_MS: u64 = 500;
    let mut site = Site::new();
    site.bus.delay(COMMAND_MS);
    site.device.start();
    let mut longest_ms = 0;
    let mut await_watched = |device: &Device, serial: Option<String>| {
        until("an identity from a slow TPM", 180_000, || {
            let watch = Stopwatch::start();
            let status = device.status();
            longest_ms = longest_ms.max(watch.elapsed_ms());
            let status = status.filter(|it| it.phase() == "active" && it.is_connected())?;
            Some(used(&status)).filter(|found| Some(found) != serial.as_ref())
        })
    };
    let first = await_watched(&site.device, None);
    let enrolled = site.bus.total();
    order_renewal(&site.device);
    await_watched(&site.device, Some(first));
    assert!(site.bus.total().commands > enrolled.commands);
    // Had anything waited for the TPM, it would have waited for a command at least.
    assert!(longest_ms < COMMAND_MS, "an answer took {longest_ms} ms");
    let log = site.device.log();
    assert!(!log.contains("TPM wedged") && !log.contains("WARN"), "{log}");
    assert_eq!(site.lab.issued(ID), 2);
}

/// Goal: nothing on the device's disk is the private half of its key, or of any other; the same
/// search finds a software key.
#[test]
fn no_private_key_is_on_the_disk() {
    let mut site = Site::new();
    site.enrolled();
    site.device.stop();
    let thief = Thief::new(&[point(&site.device)]);
    let folder = site.lab.path(ID);
    assert_eq!(thief.search(&folder), []);

    let lab = Lab::new();
    let token_file = lab.token_file(ID);
    let soft = lab.device(ID, |settings| {
        settings.key_backend = Some("software");
        settings.token_file = Some(token_file);
    });
    soft.run(&["enroll"]).expect_success();
    let found = Thief::new(&[point(&soft)]).search(&lab.path(ID));
    assert!(found.iter().any(|(path, _)| path.starts_with(soft.state_dir())), "{found:?}");
}

/// The public key of the identity in use: the last 65 octets of its SubjectPublicKeyInfo.
fn point(device: &Device) -> [u8; 65] {
    let pem = device.run(&["inspect", "--pem"]).expect_success().stdout;
    let spki = openssl(&["x509", "-noout", "-pubkey"], pem.as_bytes()).stdout;
    let der = openssl(&["pkey", "-pubin", "-outform", "DER"], spki.as_bytes()).octets;
    *der.last_chunk().or_fail("a point")
}

/// Goal: `auto` decides once: a device that enrolled in its TPM waits for it, and makes no key in
/// a file when it is away; nor does an order to use software make one beside it.
#[test]
fn auto_never_replaces_a_tpm_by_a_file() {
    let mut site = Site::with(|settings| settings.key_backend = Some("auto"));
    let serial = site.enrolled();
    site.device.stop();
    site.device.reconfigure(&site.settings("auto", site.tpm.address()));
    let treasures = site.treasures();
    site.tpm.kill();
    site.device.start();
    let status = site.await_trouble("absent");
    assert_eq!(status.text("/key/backend"), Some("tpm"), "{:#}", status.0);
    assert_eq!(status.serial(), Some(serial.as_str()));
    assert_eq!(site.treasures(), treasures);
    site.device.stop();

    site.device.reconfigure(&site.settings("software", site.tpm.address()));
    let outcome = site.device.run(&["run"]);
    assert_ne!(outcome.code, Some(0), "{}", outcome.text());
    assert!(outcome.stderr.contains("to do:"), "{}", outcome.stderr);
    assert_eq!(site.treasures(), treasures);

    site.device.reconfigure(&site.settings("auto", site.tpm.address()));
    site.power_on();
    site.device.start();
    let status = site.device.await_online();
    assert_eq!(status.serial(), Some(serial.as_str()));
    assert_eq!(site.lab.issued(ID), 1);
}

/// In front of a point of P-256 in its SubjectPublicKeyInfo. RFC 5480 §2
const SPKI_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// One enrollment as agent and provisioner do it, without the network between them.
fn enroll(vault: &mut Vault<TpmSocket>, template: EkTemplate, number: u8) {
    let mut room = [0; 8 * 1024];
    let ek = vault.endorsement_of(&[template], &mut room).or_fail("an endorsement key");
    let endorsement = evidence::endorsement_key(ek.public_area).or_fail("a good one");
    let ak = vault.make(Template::AttestationKey).or_fail("an attestation key");
    let key = vault.make(Template::DeviceKey).or_fail("a device key");
    let speaker = evidence::attestation_key(ak.public_area()).or_fail("a good one");

    let (secret, challenge, nonce) = ([number; 32], [number; 16], [!number; 32]);
    let credential =
        credential::make(&endorsement, speaker.name(), &secret, &mut SystemEntropy::new())
            .or_fail("a credential");
    let opened = vault.activate(&ek.key, &ak, &credential.blob, &credential.encrypted_secret);
    assert_eq!(opened.or_fail("the secret").as_bytes(), secret);
    let spki = [&SPKI_HEAD[..], &key.point()].concat();
    let qualifying = qualifying_data(&secret, &challenge, &nonce, &spki);
    let mut out = [0; CERTIFIED_LEN_MAX];
    let said = vault.certify(&key, &ak, &qualifying, &mut out).or_fail("a statement");
    let statement = evidence::Statement {
        attest: said.attest.to_vec(),
        signature: said.signature.to_vec(),
        public: key.public_area().to_vec(),
    };
    let expected = evidence::Expected {
        ak: &speaker,
        secret: &secret,
        challenge: &challenge,
        nonce: &nonce,
        spki: &spki,
    };
    evidence::check(&statement, &expected).or_fail("proof");
    vault.sign(&key, &[number; 32]).or_fail("a signature");
}

/// Goal: a thousand enrollments, by the RSA key and by the key of P-384, in ten lives of the
/// program, leave neither an object nor a session in the TPM, and no failure in its count.
#[test]
fn slow_a_thousand_enrollments_leave_nothing_in_the_tpm() {
    const LIVES: u8 = 10;
    const ENROLLMENTS: u8 = 100;
    let lab = Lab::stopped(Plan::default());
    let tpm = lab.tpm("tpm", &lab.tpm_maker("acme"));
    for _ in 0..LIVES {
        let socket = TpmSocket::new(&tpm.data_socket());
        // Shared: nothing is swept up that should not be there.
        let options = Options { parent: None, sharing: Sharing::Shared };
        let mut vault = Vault::open(socket, options).or_fail("the TPM");
        for number in 0..ENROLLMENTS {
            let templates = [EkTemplate::Rsa2048, EkTemplate::P384High];
            enroll(&mut vault, templates[usize::from(number % 2)], number);
        }
        drop(vault);
        assert_eq!(leftovers(&tpm.data_socket()), Vec::<String>::new());
    }
    assert_eq!(lockout_counter(&tpm.data_socket()), 0);
}
