//! TPMs as their maker delivers them, with RSA-2048 and P-384 endorsement keys, enroll, and
//! everything that was proven is on record.

use std::fs;

use fleetcert_rig::tpm_maker::TpmMaker;
use fleetcert_tests::lab::by_hand::{certificates, from_base64, openssl, text};
use fleetcert_tests::lab::claimant::{Claimant, from_hex, hex, public_of, spki, template};
use fleetcert_tests::lab::pki::{self, CHIP_MAKER};
use fleetcert_tests::lab::tpm::leave;
use fleetcert_tests::lab::{Lab, OrFail, Plan};
use fleetcert_tpm::ek::EkTemplate;
use fleetcert_tpm::name::Name;
use fleetcert_tpm::template::Template;
use rcgen::KeyUsagePurpose;
use sha2::{Digest as _, Sha256};

use crate::bench::{Bench, DEVICE, enrolled};
use crate::chip::{blob, certify_by};

/// A device whose TPM swtpm_setup has made and certified enrolls by the endorsement key of that
/// template; its record is judged by hand.
fn enrolls(kind: EkTemplate) {
    let lab = Lab::with(Plan::attested());
    let maker: TpmMaker = lab.tpm_maker("Acme");
    lab.trust(&maker);
    let mut device = Claimant::new(lab.tpm("tpm", &maker), kind);
    assert!(!device.certificates.is_empty(), "swtpm_setup leaves a certificate");
    let reply = device.enroll(&lab, DEVICE);
    enrolled(&reply);

    let leaf = lab.path("leaf.pem");
    fs::write(&leaf, certificates(&reply.body)).or_fail("the certificate");
    let roots = lab.path("provisioner/device-ca.pem");
    openssl(&["verify", "-CAfile", text(&roots), "-partial_chain", text(&leaf)], b"");
    let public = openssl(&["x509", "-in", text(&leaf), "-noout", "-pubkey"], b"").stdout;
    let der = openssl(&["pkey", "-pubin", "-outform", "DER"], public.as_bytes()).octets;
    assert_eq!(der, spki(&device.key));
    let subject = openssl(&["x509", "-in", text(&leaf), "-noout", "-subject"], b"").stdout;
    assert!(subject.contains(DEVICE), "{subject}");

    let shown = lab.ask(&["device", "show", DEVICE]);
    assert_eq!((&shown["attested"], &shown["device"]["status"]), (&true.into(), &"active".into()));
    let bound = &shown["tpm"]["bound"];
    assert_eq!(bound["ekSha256"], device.ek_id());
    assert_eq!((&bound["source"], &bound["admission"]), (&"chain".into(), &"ek-chain".into()));
    assert_eq!(bound["tpm"]["virtual"], true);
    assert_eq!(bound["akName"], hex(device.ak.name().as_bytes()));
    let chain = bound["ekChain"].as_array().or_fail("a chain");
    assert_eq!(chain.len(), 2, "leaf and the trusted issuer: {chain:?}");
    let der = |at: usize| from_base64(chain[at]["der"].as_str().or_fail("DER").as_bytes());
    assert_eq!(der(0), device.certificates);
    assert_eq!(chain[1]["fingerprint"], hex(&Sha256::digest(der(1))));

    let evidence = &bound["evidence"];
    assert_eq!(evidence["keyName"], hex(device.key.name().as_bytes()));
    assert_eq!(evidence["key"], shown["certificates"][0]["key"]);
    assert_eq!(evidence["key"], hex(&Sha256::digest(spki(&device.key))));
    assert_eq!(evidence["clock"]["safe"], true);
    for time in [&evidence["at"], &bound["since"], &chain[0]["notAfter"]] {
        assert!(time.as_str().is_some_and(|time| time.ends_with('Z')), "{time}");
    }
}

/// Goal: the whole of it with an RSA-2048 endorsement key of the low range, used by policy.
#[test]
fn a_tpm_with_an_rsa_2048_endorsement_key_enrolls() {
    enrolls(EkTemplate::Rsa2048);
}

/// Goal: the same with a P-384 endorsement key of the high range, named by SHA-384, with AES-256.
#[test]
fn a_tpm_with_a_p_384_endorsement_key_enrolls() {
    enrolls(EkTemplate::P384High);
}

/// Goal: and with a P-256 one, whose maker is a vendor of chips.
#[test]
fn a_tpm_with_a_p_256_endorsement_key_enrolls() {
    let bench = Bench::new();
    let mut device = bench.device("tpm");
    enrolled(&bench.enroll(&mut device, DEVICE));
    let bound = &bench.tpm(DEVICE)["bound"];
    assert_eq!(bound["tpm"]["manufacturer"], "IFX");
    assert_eq!(
        (&bound["tpm"]["model"], &bound["tpm"]["virtual"]),
        (&"SLB 9672".into(), &false.into())
    );
}

/// Goal: a device, which reads its endorsement key from the TPM, the provisioner, which reads it
/// from the certificate, and openssl have the same name for it.
#[test]
fn everybody_has_the_same_name_for_an_endorsement_key() {
    let bench = Bench::new();
    for (id, kind) in [
        ("rsa-2048", EkTemplate::Rsa2048),
        ("p-256", EkTemplate::P256),
        ("p-384", EkTemplate::P384High),
    ] {
        let mut claimant = Claimant::new(bench.blank(&format!("tpm-{id}")), kind);
        let mut says = pki::endorsement(CHIP_MAKER);
        says.key_usages.push(KeyUsagePurpose::KeyEncipherment);
        let certificate = bench.maker.signs_for(&says, &claimant.ek_spki());
        claimant.vault.tpm().transport().hang_up();
        let file = bench.lab.path(format!("{id}.der"));
        leave(&claimant.tpm.data_socket(), kind.certificate(), &certificate, &file);

        let address = claimant.tpm.address();
        let mut device = bench.lab.device(id, |settings| settings.keep_key_in(address));
        device.start();
        device.await_active();
        let (status, _) = device.status_command();
        let ours = status.text("/key/ek_sha256").or_fail("an endorsement key").to_owned();
        assert_eq!(bench.tpm(id)["bound"]["ekSha256"], ours, "{id}");
        let public =
            openssl(&["x509", "-inform", "DER", "-in", text(&file), "-noout", "-pubkey"], b"");
        let der = openssl(&["pkey", "-pubin", "-outform", "DER"], public.stdout.as_bytes()).octets;
        assert_eq!(hex(&Sha256::digest(der)), ours, "{id}");
    }
}

/// Goal: an attestation key of another algorithm or hash is as good. That credentials open for such
/// keys is tested by other programs (`tpm_credential`); here the secret comes from the database.
#[test]
fn attestation_keys_of_other_kinds_enroll() {
    let ak = template(Template::AttestationKey);
    let p384 = [&ak[..14], &[0x00, 0x0C, 0x00, 0x04], &ak[18..]].concat();
    let rsa_2048 = [0x00, 0x10, 0x00, 0x14, 0x00, 0x0B, 0x08, 0x00, 0, 0, 0, 0, 0, 0];
    let rsa = [&[0x00, 0x01], &ak[2..10], &rsa_2048].concat();
    let bench = Bench::new();
    for (name, area) in [("p384", p384), ("rsa", rsa)] {
        let mut device = bench.device(name);
        let ak = device.make(&area);
        let mut asking = device.asking(name);
        asking.ak_public = public_of(&ak);
        let given = bench.challenge(&asking);
        let id = hex(&given.id);
        let secret = bench.sql(&format!("SELECT hex(secret) FROM challenge WHERE id = x'{id}'"));
        let qualifying = given.qualifying(&from_hex(&secret), &spki(&device.key));
        let key = blob(&device.key);
        let stated = certify_by(&mut device, &key, &ak, &qualifying);
        enrolled(&device.answer(&bench.lab, name, &given, &stated));
        let ak_name = Name::of_public_area(&public_of(&ak)).or_fail("a Name");
        assert_eq!(bench.tpm(name)["bound"]["akName"], hex(ak_name.as_bytes()));
    }
}
