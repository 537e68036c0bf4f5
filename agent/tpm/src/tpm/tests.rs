use std::collections::VecDeque;
use std::vec;
use std::vec::Vec;

use p256::AffinePoint;
use p256::elliptic_curve::sec1::ToEncodedPoint as _;

use super::secret::Parent;
use super::*;
use crate::command::{HEADER_LEN, Hierarchy};
use crate::fault::Trouble;
use crate::name::Name;
use crate::session::Session;
use crate::template::Template;
use crate::testing::bus;
use crate::vault::VaultError;

/// What the other end does next.
#[derive(Clone, Debug)]
enum Turn {
    /// Answers so.
    Answer(Vec<u8>),
    /// Is silent.
    Silence,
}

/// A way to nobody, with a script; it answers what is not in it with a bare success.
#[derive(Debug, Default)]
struct Script {
    turns: VecDeque<Turn>,
    sent: Vec<Vec<u8>>,
    pauses_ms: Vec<u32>,
}

impl Transact for Script {
    type Error = &'static str;

    fn transact(&mut self, command: &[u8], response: &mut [u8]) -> Result<usize, &'static str> {
        self.sent.push(command.to_vec());
        let answer = match self.turns.pop_front() {
            Some(Turn::Answer(answer)) => answer,
            Some(Turn::Silence) => return Err("silence"),
            None => refusal(0),
        };
        response[..answer.len()].copy_from_slice(&answer);
        Ok(answer.len())
    }

    fn pause_ms(&mut self, ms: u32) {
        self.pauses_ms.push(ms);
    }

    fn entropy(&mut self, out: &mut [u8]) -> Result<(), &'static str> {
        out.fill(7);
        Ok(())
    }
}

fn tpm(sharing: Sharing, turns: impl IntoIterator<Item = Turn>) -> Tpm<Script> {
    Tpm::new(Script { turns: turns.into_iter().collect(), ..Script::default() }, sharing)
}

fn answer(tag: u16, body: &[u8]) -> Vec<u8> {
    let len = (HEADER_LEN + body.len()) as u32;
    [&tag.to_be_bytes()[..], &len.to_be_bytes(), &[0; 4], body].concat()
}

fn refusal(code: u32) -> Vec<u8> {
    let mut answer = answer(0x8001, &[]);
    answer[6..].copy_from_slice(&code.to_be_bytes());
    answer
}

fn refuse(code: u32) -> Turn {
    Turn::Answer(refusal(code))
}

/// The answer to a command with a password that loads something as 0x80000001: its parameters.
fn loaded(parameters: &[u8]) -> Vec<u8> {
    let len = (parameters.len() as u32).to_be_bytes();
    answer(0x8002, &[&[0x80, 0, 0, 1], &len, parameters, &[0, 0, 1, 0, 0]].concat())
}

fn codes(tpm: &Tpm<Script>) -> Vec<u32> {
    let code = |sent: &Vec<u8>| u32::from_be_bytes(sent[6..10].try_into().unwrap());
    tpm.transport.sent.iter().map(code).collect()
}

/// Goal: pauses double up to a limit, their sum is bounded, and the command is the same each time.
#[test]
fn a_busy_tpm_is_asked_again_with_growing_pauses() {
    let mut tpm = tpm(Sharing::Exclusive, vec![refuse(0x922); 4]);
    tpm.startup().unwrap();
    assert_eq!(tpm.transport.pauses_ms, [2, 4, 8, 16]);
    assert_eq!(tpm.transport.sent.len(), 5);
    assert!(tpm.transport.sent.iter().all(|sent| *sent == tpm.transport.sent[0]));

    tpm.transport = Script { turns: vec![refuse(0x922); 1000].into(), ..Script::default() };
    let busy = TpmError::Refused { command: Code::Startup, code: ResponseCode(0x922) };
    assert_eq!(tpm.startup(), Err(busy));
    let waited_ms: u32 = tpm.transport.pauses_ms.iter().sum();
    assert!((BUSY_MS_MAX..BUSY_MS_MAX + PAUSE_MS_MAX).contains(&waited_ms), "{waited_ms}");
    assert!(tpm.transport.pauses_ms.iter().all(|&ms| ms <= PAUSE_MS_MAX));
}

/// Goal: slots are waited for where others may free them, and only there.
#[test]
fn full_slots_are_waited_for_where_others_use_them() {
    let full = TpmError::Refused { command: Code::Startup, code: ResponseCode(0x902) };
    let mut alone = tpm(Sharing::Exclusive, vec![refuse(0x902); 1000]);
    assert_eq!(alone.startup(), Err(full));
    assert_eq!(alone.transport.pauses_ms, [0; 0]);
    let mut shared = tpm(Sharing::Shared, vec![refuse(0x902); 1000]);
    assert_eq!(shared.startup(), Err(full));
    assert!(shared.transport.pauses_ms.iter().sum::<u32>() >= FULL_MS_MAX);
    assert_eq!(VaultError::from(full).trouble(), Trouble::NoSlots);
}

/// Goal: an answer that is cut anywhere, or states another length or tag, is malformed; if it
/// would have loaded something, the loss is noticed.
#[test]
fn malformed_answers_are_refused() {
    let malformed = Err(TpmError::Malformed { command: Code::CreatePrimary });
    let area = [&[0, 90][..], &[0x23; 90]].concat();
    let whole = loaded(&area);
    let make = |answer: Vec<u8>| {
        let mut tpm = tpm(Sharing::Exclusive, [Turn::Answer(answer)]);
        let mut area = [0; 96];
        let made = tpm.create_primary(Hierarchy::Owner, &[], &mut area, 30);
        (made, tpm.lost)
    };
    assert_eq!(make(whole.clone()), (Ok((Handle(0x8000_0001), 90)), false));
    for len in 0..whole.len() {
        assert_eq!(make(whole[..len].to_vec()), (malformed, true), "{len} octets");
    }
    for (index, value) in [(1, 1), (5, 0), (2, 1), (17, 200)] {
        let mut changed = whole.clone();
        changed[index] = value;
        assert_eq!(make(changed), (malformed, true), "octet {index}");
    }
}

/// Goal: an answer that names what it loaded and is malformed behind it is flushed by that name.
#[test]
fn what_a_malformed_answer_has_loaded_is_flushed() {
    for parameters in [&[][..], &[0, 9, 1], &[0, 200]] {
        let mut tpm = tpm(Sharing::Shared, [Turn::Answer(loaded(parameters))]);
        let made = tpm.create_primary(Hierarchy::Owner, &[], &mut [0; 96], 30);
        assert_eq!(made, Err(TpmError::Malformed { command: Code::CreatePrimary }));
        assert_eq!(codes(&tpm), [0x131, 0x165]);
        assert_eq!(tpm.transport.sent[1][10..], [0x80, 0, 0, 1]);
    }
}

/// Goal: a flush that fails is made up for, once, before anything else.
#[test]
fn a_failed_flush_is_owed() {
    let mut tpm = tpm(Sharing::Shared, [Turn::Silence, refuse(0x101)]);
    let handle = Handle(0x8000_0002);
    assert_eq!(tpm.flush(handle), Err(TpmError::Transport("silence")));
    assert!(tpm.settle().is_err(), "still owed");
    tpm.settle().unwrap();
    tpm.settle().unwrap();
    assert_eq!(codes(&tpm), [0x165; 3]);
    assert!(tpm.transport.sent.iter().all(|sent| sent[10..] == [0x80, 0, 0, 2]));
}

/// Goal: a handle that is not there is flushed.
#[test]
fn a_flush_of_nothing_is_none() {
    for code in [0x1CB, 0x18B, 0x910, 0x918, 0x1C4] {
        let mut tpm = tpm(Sharing::Shared, [refuse(code)]);
        tpm.flush(Handle(0x8000_0002)).unwrap();
        assert_eq!(tpm.owed, [None; OWED_MAX]);
    }
}

/// Goal: when an answer that names what it loaded is lost, everything is swept where nobody else
/// is, and nothing is touched where somebody may be.
#[test]
fn a_lost_handle_is_swept_where_nobody_else_is() {
    for (sharing, expected) in
        [(Sharing::Exclusive, &[0x161, 0x17A, 0x165, 0x17A][..]), (Sharing::Shared, &[0x161])]
    {
        let list = |handles: &[u8]| {
            let count = handles.len() as u8 / 4;
            Turn::Answer(answer(0x8001, &[&[0, 0, 0, 0, 1, 0, 0, 0, count], handles].concat()))
        };
        let bare = Turn::Answer(refusal(0));
        let turns = [Turn::Silence, list(&[0x80, 0, 0, 5]), bare, list(&[])];
        let mut tpm = tpm(sharing, turns);
        assert!(tpm.context_load(&[1; 40]).is_err());
        tpm.settle().unwrap();
        assert_eq!(codes(&tpm), expected);
    }
}

/// Goal: a command that does not fit is not sent.
#[test]
fn a_command_that_does_not_fit_is_not_sent() {
    let mut tpm = tpm(Sharing::Exclusive, []);
    let too_long = TpmError::CommandTooLong { command: Code::ContextLoad };
    assert_eq!(tpm.context_load(&[0; BUFFER_LEN]), Err(too_long));
    assert!(tpm.transport.sent.is_empty() && !tpm.lost);
}

/// Goal: TPMs that leave zeros out of a signature are understood; longer numbers, other schemes
/// and trailing octets are not.
#[test]
fn short_scalars_are_filled_up() {
    let sign = |signature: &[u8]| {
        let len = (signature.len() as u32).to_be_bytes();
        let body = [&len[..], signature, &[0, 0, 1, 0, 0]].concat();
        let mut tpm = tpm(Sharing::Exclusive, [Turn::Answer(answer(0x8002, &body))]);
        // As an attempt before this one may have left it.
        let mut raw = [0xee; 64];
        tpm.sign(Handle(0x8000_0000), &[1; 32], &mut raw).map(|()| raw)
    };
    let signature = |scheme: [u8; 4], r: &[u8], s: &[u8]| {
        [&scheme, &(r.len() as u16).to_be_bytes()[..], r, &(s.len() as u16).to_be_bytes(), s]
            .concat()
    };
    let ecdsa = [0, 0x18, 0, 0x0B];
    let whole = sign(&signature(ecdsa, &[3; 31], &[4; 32])).unwrap();
    assert_eq!((whole[0], whole[1], whole[32]), (0, 3, 4));
    let malformed = Err(TpmError::Malformed { command: Code::Sign });
    assert_eq!(sign(&signature(ecdsa, &[3; 33], &[4; 32])), malformed);
    assert_eq!(sign(&signature([0, 0x1A, 0, 0x0B], &[3; 32], &[4; 32])), malformed);
    let trailing = [&signature(ecdsa, &[3; 32], &[4; 32])[..], &[0]].concat();
    assert_eq!(sign(&trailing), malformed);
}

/// Goal: a nonce that is cut short begins no session, and what the TPM has begun is flushed.
#[test]
fn a_session_whose_nonce_is_cut_short_is_none() {
    let cut = [0x02, 0, 0, 0, 0, 0x20, 1, 2, 3, 4];
    let mut tpm = tpm(Sharing::Exclusive, [Turn::Answer(answer(0x8001, &cut))]);
    let name = Name::recorded(&bus("endorsement name")).unwrap();
    let point = AffinePoint::GENERATOR.to_encoded_point(false);
    let parent = Parent {
        handle: Handle(0x8100_0001),
        name: &name,
        point: point.as_bytes().try_into().unwrap(),
    };
    let begun = tpm.start_salted(parent, &mut Session::none());
    assert_eq!(begun, Err(TpmError::Malformed { command: Code::StartAuthSession }));
    assert_eq!(codes(&tpm), [0x176, 0x165]);
}

/// Goal: an NV index is read in chunks of what the TPM gives at once, by the password that opens
/// it.
#[test]
fn an_index_is_read_in_chunks() {
    let index = Handle(0x01C0_000A);
    let public = |attributes: u32| {
        let area =
            [&index.0.to_be_bytes()[..], &[0, 0x0B], &attributes.to_be_bytes(), &[0, 0, 0, 9]]
                .concat();
        let body = [&[0, area.len() as u8], &area[..], &[0, 0]].concat();
        Turn::Answer(answer(0x8001, &body))
    };
    let nv_buffer_max = Turn::Answer(answer(
        0x8001,
        &[&[0, 0, 0, 0, 6, 0, 0, 0, 1, 0, 0, 1, 0x2C], &4_u32.to_be_bytes()[..]].concat(),
    ));
    let chunk = |octets: &[u8]| {
        let parameters = [&[0, octets.len() as u8], octets].concat();
        let len = (parameters.len() as u32).to_be_bytes();
        Turn::Answer(answer(0x8002, &[&len, &parameters[..], &[0, 0, 1, 0, 0]].concat()))
    };
    for (attributes, authority) in [(AUTH_READ, index), (OWNER_READ, Hierarchy::Owner.handle())] {
        let turns = [
            public(attributes),
            nv_buffer_max.clone(),
            chunk(b"abcd"),
            chunk(b"efgh"),
            chunk(b"i"),
        ];
        let mut tpm = tpm(Sharing::Exclusive, turns);
        let mut out = [0; 12];
        assert_eq!(tpm.nv_read(index, &mut out), Ok(9));
        assert_eq!(&out[..9], b"abcdefghi");
        assert_eq!(tpm.transport.sent[4][10..14], authority.0.to_be_bytes());
        assert_eq!(tpm.transport.sent[4][31..], [0, 1, 0, 8], "one octet from 8 on");
    }
    let mut tpm = tpm(Sharing::Exclusive, [public(AUTH_READ)]);
    let too_small = TpmError::BufferTooSmall { needed: 9, available: 8 };
    assert_eq!(tpm.nv_read(index, &mut [0; 8]), Err(too_small));
}

const AUTH_READ: u32 = 1 << 18;
const OWNER_READ: u32 = 1 << 17;

/// Goal: a generator that gives the same hopeless octets each time is not asked for ever.
#[test]
fn a_broken_generator_is_noticed() {
    struct Zeros;
    impl Transact for Zeros {
        type Error = &'static str;

        fn transact(&mut self, _: &[u8], _: &mut [u8]) -> Result<usize, &'static str> {
            Err("nothing is to be sent")
        }

        fn pause_ms(&mut self, _: u32) {}

        fn entropy(&mut self, out: &mut [u8]) -> Result<(), &'static str> {
            out.fill(0);
            Ok(())
        }
    }
    let mut area = [0; 64];
    let len = Template::StoragePrimary.write(&mut area).unwrap();
    let name = Name::of_public_area(&area[..len]).unwrap();
    let mut point = [0; 65];
    point[0] = 4;
    let parent = Parent { handle: Handle::TRANSIENT, name: &name, point: &point };
    let mut tpm = Tpm::new(Zeros, Sharing::Exclusive);
    assert_eq!(tpm.random(parent).err(), Some(TpmError::WeakEntropy));
}
