//! Challenges for TPMs over HTTP: what is asked, what is answered, and every refusal before the
//! domain is asked. The keys are those of a swtpm.

use fleetcert_core::{
    device_id::DeviceId,
    wire::{CHALLENGE_HEADER, CHALLENGE_PATH, Challenge, ChallengeRequest, MEDIA_TYPE, VERSION},
};
use fleetcert_provisioner::{attest::evidence::endorsement_key, inventory::Name};

use crate::world::{Answer, Credential, Csr, START, World, get};

const VECTORS: &str = include_str!("../../../agent/tpm/vectors/swtpm.txt");

fn vector(name: &str) -> Vec<u8> {
    let lines = VECTORS.lines().skip_while(|line| line.strip_suffix(':') != Some(name)).skip(1);
    let digits: String = lines.take_while(|line| !line.ends_with(':')).collect();
    let octet = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(octet).collect()
}

fn message(device_id: &str) -> Vec<u8> {
    let (ek_public, ak_public) = (vector("ek-p256"), vector("ak-p256"));
    let request = ChallengeRequest {
        version: VERSION,
        device_id,
        ek_public: &ek_public,
        ek_certificates: &[],
        ak_public: &ak_public,
    };
    request.emit(&mut vec![0; ChallengeRequest::MAX_LEN]).unwrap().to_vec()
}

fn post(content_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {CHALLENGE_PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

impl<S: fleetcert_provisioner::store::Store + 'static> World<S> {
    fn list(&self, id: &str) {
        let ek = endorsement_key(&vector("ek-p256")).unwrap().id();
        let entries = [(DeviceId::parse(id).unwrap(), ek)];
        let group = Name::parse("default").unwrap();
        smol::block_on(self.provisioner.import(&entries, group, "test", START)).unwrap();
    }

    fn challenge(&self, identity: Option<&Credential>, id: &str) -> Answer {
        self.ask(identity, &post(MEDIA_TYPE, &message(id)))
    }
}

// Goal: a TPM that an operator listed gets a challenge that the core reads, at the service's time.
#[test]
fn a_listed_tpm_gets_a_challenge() {
    let world = World::new();
    world.list("dev1");
    for content_type in [MEDIA_TYPE.to_owned(), format!("{}; a=b", MEDIA_TYPE.to_uppercase())] {
        let answer = world.ask(None, &post(&content_type, &message("dev1")));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.field("content-type"), Some(MEDIA_TYPE));
        assert_eq!(answer.field("cache-control"), Some("no-store"));
        let challenge = Challenge::parse(&answer.body).unwrap();
        assert_eq!((challenge.valid_s, challenge.server_time), (120, START));
    }
}

// Goal: whoever nobody vouches for is told so, by a code.
#[test]
fn an_unknown_tpm_gets_none() {
    let world = World::new();
    let answer = world.challenge(None, "dev1");
    assert_eq!((answer.status, answer.reason()), (403, "ek-unknown"));
    assert!(answer.text().contains("device import"), "{answer:?}");
}

#[test]
fn a_device_gets_none_in_the_name_of_another() {
    let world = World::new();
    let device = world.enrolled("dev1");
    world.list("dev1");
    assert_eq!(world.challenge(Some(&device), "dev1").status, 200);
    let answer = world.challenge(Some(&device), "dev2");
    assert_eq!((answer.status, answer.reason()), (403, "challenge-device"));
}

// Goal: what is no question is refused before anybody looks at a key.
#[test]
fn damaged_questions_are_refused_with_what_is_wrong() {
    let world = World::new();
    let good = message("dev1");
    let (mut newer, mut longer) = (good.clone(), good.clone());
    newer[0] = 2;
    longer.push(0);
    let huge = vec![1; ChallengeRequest::MAX_LEN + 1];
    for (content_type, body, status, code) in [
        ("application/pkcs10", &good, 415, "content-type"),
        ("", &good, 415, "content-type"),
        (MEDIA_TYPE, &newer, 400, "challenge-version"),
        (MEDIA_TYPE, &longer, 400, "challenge-malformed"),
        (MEDIA_TYPE, &Vec::new(), 400, "challenge-malformed"),
        (MEDIA_TYPE, &message("backend.x"), 400, "device-name"),
        (MEDIA_TYPE, &huge, 413, "too-large"),
    ] {
        let answer = world.ask(None, &post(content_type, body));
        assert_eq!((answer.status, answer.reason()), (status, code), "{answer:?}");
    }
    let answer = world.ask(None, get(CHALLENGE_PATH).as_bytes());
    assert_eq!((answer.status, answer.field("allow")), (405, Some("POST")));
}

// Goal: the header that names a challenge is read exactly, and means nothing without evidence.
#[test]
fn the_challenge_of_an_enrollment_is_read_from_its_header() {
    let world = World::new();
    let token = world.token("dev1");
    let request = Csr::new("dev1").post("simpleenroll", Some(("dev1", &token)));
    let with = |value: &str| {
        let request = String::from_utf8(request.clone()).unwrap();
        let field = format!("{CHALLENGE_HEADER}: {value}\r\nContent-Type:");
        world.ask(None, request.replacen("Content-Type:", &field, 1).as_bytes())
    };
    for (value, status, code) in [
        ("00", 400, "challenge-id"),
        (&"zz".repeat(16), 400, "challenge-id"),
        (&"00".repeat(17), 400, "challenge-id"),
        (&"00".repeat(16), 400, "evidence-missing"),
    ] {
        let answer = with(value);
        assert_eq!((answer.status, answer.reason()), (status, code), "{value}: {answer:?}");
    }
    assert_eq!(world.ask(None, &request).status, 200, "nothing of that used the token up");
}
