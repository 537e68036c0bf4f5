//! The three questions to the provisioner, each over a connection of its own.
//!
//! **What it is.** For each order of the machine that goes to the provisioner: which identity is
//! shown, what is said, and what it comes to. A first certificate is asked for with evidence where
//! the keys are in a TPM: the challenge, its solution and the request go over one connection.
//!
//! **What it must never do.** Enroll without evidence where the factory has said that it must come
//! with some. Say anything to a server that is not proven; that is TLS's promise, kept below.

use fleetcert_core::enroll::{self, Enrollment};
use fleetcert_core::est::csr::{P256Signature, UnsignedRequest};
use fleetcert_core::est::evidence::EVIDENCE_ATTRIBUTE_LEN_MAX;
use fleetcert_core::event::Failure;
use fleetcert_core::port::{Advice, Answer};
use fleetcert_core::record::{KeySource, Kind, Request, Serial, Slot};
use fleetcert_core::sha256::sha256;
use fleetcert_core::time::Reading;
use fleetcert_core::wire::{CHALLENGE_ID_LEN, ChallengeRequest, NONCE_LEN, VERSION};
use heapless::String;
use p256::elliptic_curve::rand_core::RngCore as _;

use crate::board::Board;
use crate::console::warn;
use crate::http::{BUFFER_LEN, Client, Credential, Deadline, HttpError, Parties};
use crate::keystore::{INTRODUCTION_LEN_MAX, Introduction, KeyFault, KeyStore as _, SPKI_LEN};
use crate::store::Scratch;
use crate::tls::{TlsError, Workspace};

use super::line::{Context, EXCHANGE_MS_MAX, Stream};

/// Octets of a request for a certificate without its attributes, at most: 300 with the longest
/// device id.
const REQUEST_LEN_MAX: usize = 384;

/// Octets of what an enrollment is made in: first an introduction, then evidence and a request that
/// carries it. That is the store's memory, which nobody needs meanwhile.
const DRAFT_LEN: usize =
    max(INTRODUCTION_LEN_MAX, 2 * EVIDENCE_ATTRIBUTE_LEN_MAX + REQUEST_LEN_MAX);
const _: () = assert!(DRAFT_LEN <= Scratch::LEN, "a draft fits the store's memory");

/// Octets of the provisioner's host and port, at most.
const HOST_LEN_MAX: usize = crate::factory::HOST_LEN_MAX + 6;

/// Statuses of a server that was never told of challenges: an EST server (RFC 9110 §15.5.5, §15.5.6).
const UNKNOWN: [u16; 2] = [404, 405];

/// The provisioner, as this device speaks to it.
pub(super) struct Provisioner<'e, 'd, B: Board> {
    pub(super) context: Context<'d, B>,
    pub(super) workspace: &'e mut Workspace<'d>,
    /// What the machine knows of the time.
    pub(super) reading: Reading,
}

/// A client on a connection of this device's.
type Exchange<'c, 'l, 't, B> = Client<'c, Stream<'l, 't, B>, <B as Board>::Clock>;

/// What is asked over a connection.
type Ask<'a, B> = &'a mut dyn FnMut(&mut Exchange<'_, '_, '_, B>) -> Result<(), HttpError>;

/// What proves where a key is: octets of the attribute, and the challenge that it answers.
struct Evidence {
    len: usize,
    challenge: [u8; CHALLENGE_ID_LEN],
}

impl<B: Board> Provisioner<'_, '_, B> {
    /// Asks for a certificate for the key in `slot`; it lies on the desk then.
    #[inline(never)]
    pub(super) fn enroll(
        &mut self,
        slot: Slot,
        request: &Request,
        current: Option<Slot>,
    ) -> Answer<()> {
        let shown = current.filter(|_| request.kind != Kind::First);
        let context = self.context;
        let spki = match context.keys.try_borrow_mut().map(|mut keys| keys.spki(slot)) {
            Ok(Ok(spki)) => spki,
            Ok(Err(fault)) => return Answer::failed(fault.into()),
            Err(_) => return Answer::failed(Failure::KeyUnavailable),
        };
        let applicant = Applicant { context, slot, request, spki: &spki };
        self.exchange(shown, &mut |client| applicant.enroll(client))
    }

    /// Asks which certificate the provisioner sees when this identity is shown.
    #[inline(never)]
    pub(super) fn whoami(&mut self, slot: Slot) -> Answer<Serial> {
        let mut nonce = [0; NONCE_LEN];
        match self.context.random.try_borrow_mut() {
            Ok(mut random) => random.fill_bytes(&mut nonce),
            Err(_) => return Answer::failed(Failure::KeyUnavailable),
        }
        let mut seen = None;
        let answer = self.exchange(Some(slot), &mut |client| {
            seen = Some(client.whoami(&nonce)?);
            Ok(())
        });
        with(answer, seen)
    }

    /// Asks for the time, and when to renew the identity.
    #[inline(never)]
    pub(super) fn advice(&mut self, slot: Slot) -> Answer<Advice> {
        let (context, mut given) = (self.context, None);
        let answer = self.exchange(Some(slot), &mut |client| {
            let told = context.identity(slot, |identity| client.renewal_info(identity.certificate));
            given = Some(told.map_err(key_error)??);
            Ok(())
        });
        with(answer, given)
    }

    /// One connection, and what is asked over it. Whatever is asked is asked by way of this one
    /// function: what comes of it is kept by `ask`.
    #[inline(never)]
    fn exchange(&mut self, shown: Option<Slot>, ask: Ask<'_, B>) -> Answer<()> {
        let Self { context, workspace, reading, .. } = self;
        let at_ms = context.now().plus_ms(EXCHANGE_MS_MAX).0;
        let target = context.provisioner();
        let mut answer = Answer::failed(Failure::Unreachable);
        let met = context.with_line(target, workspace, shown, *reading, at_ms, &mut |line| {
            answer = converse(context, line.stream, at_ms, ask);
        });
        if let Err(error) = met {
            let server = target.server;
            warn(format_args!("provisioner {}:{}: {error}", server.host(), server.port()));
            answer = Answer::failed(TlsError::from(error).into());
        }
        answer
    }
}

/// An answer, with what was kept of it.
fn with<T>(answer: Answer<()>, kept: Option<T>) -> Answer<T> {
    let Answer { outcome, server_time } = answer;
    Answer { outcome: outcome.and_then(|()| kept.ok_or(Failure::AnswerMalformed)), server_time }
}

/// What is asked over a connection. Its memory is on the stack: a handshake needs as much of that
/// again, and is over.
#[inline(never)]
fn converse<B: Board>(
    context: &Context<'_, B>,
    stream: &mut Stream<'_, '_, B>,
    at_ms: u64,
    ask: Ask<'_, B>,
) -> Answer<()> {
    let mut message = [0; BUFFER_LEN];
    let server = context.factory.provisioner;
    let host = host(server.host(), server.port());
    let provisioner = enroll::Provisioner { host: &host, label: context.factory.label };
    let parties = Parties { device_id: &context.factory.device_id, provisioner };
    let deadline = Deadline { clock: context.clock, at_ms };
    let validity = stream.server_validity();
    let mut client = Client::new(stream, validity, parties, deadline, &mut message);
    let asked = ask(&mut client);
    if let Err(error) = &asked {
        warn(format_args!("provisioner {host}: {error}"));
    }
    Answer { outcome: asked.map_err(Failure::from), server_time: client.server_time() }
}

/// A key that is to have a certificate.
struct Applicant<'a, 'd, B: Board> {
    context: Context<'d, B>,
    slot: Slot,
    request: &'a Request,
    spki: &'a [u8; SPKI_LEN],
}

impl<B: Board> Applicant<'_, '_, B> {
    #[inline(never)]
    fn enroll(&self, client: &mut Exchange<'_, '_, '_, B>) -> Result<(), HttpError> {
        let store = self.context.store.try_borrow_mut();
        let mut store = store.map_err(|_| key_error(KeyFault::Unavailable))?;
        let draft = store.memory();
        let evidence = match self.request.source {
            KeySource::Fresh => self.attest(client, draft)?,
            // Its evidence was given with its first certificate.
            KeySource::Other => None,
        };
        let (attribute, rest) = draft.split_at_mut(EVIDENCE_ATTRIBUTE_LEN_MAX);
        let len = evidence.as_ref().map_or(0, |evidence| evidence.len);
        let csr = self.sign(attribute.get(..len).unwrap_or_default(), rest)?;
        let challenge = evidence.map(|evidence| evidence.challenge);
        self.ask(client, Enrollment { id: self.request.id.0, csr, challenge })
    }

    #[inline(never)]
    fn ask(
        &self,
        client: &mut Exchange<'_, '_, '_, B>,
        enrollment: Enrollment<'_>,
    ) -> Result<(), HttpError> {
        let spki_sha256 = sha256(&[self.spki]);
        let issued = self.context.desk.issued();
        let mut issued = issued.ok_or_else(|| key_error(KeyFault::Unavailable))?;
        client.enroll(enrollment, self.credential(), &spki_sha256, &mut issued)
    }

    fn credential(&self) -> Credential<'_> {
        match (self.request.kind, self.context.factory.token) {
            (Kind::Renew | Kind::Recover, _) => Credential::Certificate,
            (Kind::First, Some(token)) => Credential::Token(token),
            (Kind::First, None) => Credential::Other,
        }
    }

    /// Has the key's place proven, where it is in a TPM. The attribute lies at the front of `draft`.
    #[inline(never)]
    fn attest(
        &self,
        client: &mut Exchange<'_, '_, '_, B>,
        draft: &mut [u8],
    ) -> Result<Option<Evidence>, HttpError> {
        let is_required = self.context.factory.policy.attested_only;
        let keys = self.context.keys.try_borrow_mut();
        let mut keys = keys.map_err(|_| key_error(KeyFault::Unavailable))?;
        let Some(introduction) = keys.introduction(draft).map_err(key_error)? else {
            if is_required {
                warn(format_args!("provisioner: keys are in no TPM, the factory requires it"));
                return Err(key_error(KeyFault::Unavailable));
            }
            return Ok(None);
        };
        let Introduction { ek_public, ek_certificates, ak_public } = introduction;
        let device_id = self.context.factory.device_id.as_str();
        let version = VERSION;
        let message =
            ChallengeRequest { version, device_id, ek_public, ek_certificates, ak_public };
        let challenge = match client.challenge(&message) {
            Err(HttpError::Refused { status, .. }) if !is_required && UNKNOWN.contains(&status) => {
                warn(format_args!("provisioner: knows no challenges; enrolling without evidence"));
                return Ok(None);
            }
            answer => answer?,
        };
        let len = keys.vouch(self.slot, &challenge, draft).map_err(key_error)?;
        Ok(Some(Evidence { len, challenge: challenge.id }))
    }

    /// A PKCS#10 request for the key, signed by it (RFC 2986).
    #[inline(never)]
    fn sign<'o>(&self, attribute: &[u8], out: &'o mut [u8]) -> Result<&'o [u8], HttpError> {
        let unwritten = |_| key_error(KeyFault::Unavailable);
        let device_id = &self.context.factory.device_id;
        let request =
            UnsignedRequest::new(device_id, self.spki, attribute, out).map_err(unwritten)?;
        let digest = sha256(&[request.to_be_signed()]);
        let keys = self.context.keys.try_borrow_mut();
        let mut keys = keys.map_err(|_| key_error(KeyFault::Unavailable))?;
        let raw = keys.sign(self.slot, &digest).map_err(key_error)?;
        let signature = P256Signature::from_raw(&raw).map_err(unwritten)?;
        request.finish(&signature).map_err(unwritten)
    }
}

fn key_error(fault: KeyFault) -> HttpError {
    TlsError::LocalKey(fault).into()
}

/// What the `Host` header says: the port too, unless it is that of HTTPS (RFC 9110 §4.2.2).
fn host(name: &str, port: u16) -> String<HOST_LEN_MAX> {
    use core::fmt::Write as _;
    let mut host = String::new();
    let written = match port {
        443 => host.write_str(name),
        _ => write!(host, "{name}:{port}"),
    };
    debug_assert!(written.is_ok(), "a host of the factory's always fits");
    host
}

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}
