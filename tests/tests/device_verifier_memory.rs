//! What the firmware's verifier remembers: that a pinned root's key has made a signature, and nothing
//! else. Counted at the curve, which is asked for what is not remembered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fleetcert_core::time::Wall;
use fleetcert_firmware::verifier::{
    CERTIFICATES_MAX, Ecdsa, POINT_LEN, Portable, REMEMBERED_MAX, Refusal, SIGNATURE_LEN,
    SIGNATURES_MAX, Server, ServerName, Verifier,
};
use fleetcert_tests::lab::OrFail;
use fleetcert_tests::lab::pki::{self, Node};
use fleetcert_tests::verify_chain::trusted;
use rcgen::{GeneralSubtree, NameConstraints};

/// 2026-11-22T00:00:00Z.
const NOW: Wall = Wall(1_795_305_600);

const NAME: &str = "broker.fleet.example";

/// Counts what is asked of the curve.
#[derive(Clone, Debug, Default)]
struct Counting(Arc<AtomicUsize>);

impl Ecdsa for Counting {
    fn is_signed(
        &self,
        point: &[u8; POINT_LEN],
        digest: &[u8; 32],
        signature: &[u8; SIGNATURE_LEN],
    ) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed);
        Portable.is_signed(point, digest, signature)
    }
}

/// One life of a device.
struct Life<'r> {
    verifier: Verifier<'r, Counting>,
    counting: Counting,
}

impl<'r> Life<'r> {
    fn new(roots: &[&'r [u8]]) -> Self {
        let counting = Counting::default();
        let verifier = Verifier::new(roots, counting.clone()).or_fail("a verifier");
        Self { verifier, counting }
    }

    /// How often the curve was asked for this chain, and the verdict.
    fn judge(&self, chain: &[&[u8]]) -> (usize, Result<(), Refusal>) {
        self.judge_at(chain, NOW)
    }

    fn judge_at(&self, chain: &[&[u8]], now: Wall) -> (usize, Result<(), Refusal>) {
        let before = self.counting.0.load(Ordering::Relaxed);
        let name = ServerName::try_from(NAME).or_fail("a name");
        let verdict = self.verifier.verify(chain, &name, Server::Broker, trusted(now));
        (self.counting.0.load(Ordering::Relaxed) - before, verdict.map(drop))
    }
}

/// A root and an authority that it has signed.
fn tree() -> (Node, Node) {
    let root = Node::root(pki::authority("root"));
    let issuing = root.signs(pki::authority("issuing"));
    (root, issuing)
}

fn server(issuing: &Node) -> Vec<u8> {
    issuing.signs(pki::server(NAME)).der
}

/// Goal: from the second handshake on, an authority that the root has signed costs nothing, also
/// with another leaf, and in the next life it does again. A leaf is verified each time.
#[test]
fn what_the_root_has_signed_is_verified_once_in_a_life() {
    let (root, issuing) = tree();
    let (first, second) = (server(&issuing), server(&issuing));
    let life = Life::new(&[&root.der]);
    assert_eq!(life.judge(&[&first, &issuing.der]), (2, Ok(())));
    assert_eq!(life.judge(&[&first, &issuing.der]), (1, Ok(())));
    assert_eq!(life.judge(&[&second, &issuing.der, &root.der]), (1, Ok(())));
    assert_eq!(Life::new(&[&root.der]).judge(&[&second, &issuing.der]), (2, Ok(())));
}

/// Goal: what an authority below the root has signed is not remembered, so that it can push nothing
/// out.
#[test]
fn only_the_roots_signatures_are_remembered() {
    let (root, upper) = tree();
    let lower = upper.signs(pki::authority("lower"));
    let leaf = server(&lower);
    let life = Life::new(&[&root.der]);
    assert_eq!(life.judge(&[&leaf, &lower.der, &upper.der]), (3, Ok(())));
    assert_eq!(life.judge(&[&leaf, &lower.der, &upper.der]), (2, Ok(())));
}

/// Goal: an authority of the same name that the root has not signed is refused before the good one
/// was seen, and after; so is one of the same name and key. The good one is not forgotten for it.
#[test]
fn a_forged_authority_is_refused_before_and_after_a_good_one() {
    let (root, issuing) = tree();
    let stranger = Node::root(pki::authority("root"));
    let theirs = stranger.signs(pki::authority("issuing"));
    let twin = stranger.signs_for(&pki::authority("issuing"), &spki(&issuing));
    let (leaf, forged) = (server(&issuing), server(&theirs));
    let life = Life::new(&[&root.der]);
    let refused = Err(Refusal::SignatureInvalid);
    for round in 0..3 {
        assert_eq!(life.judge(&[&forged, &theirs.der]), (1, refused));
        assert_eq!(life.judge(&[&leaf, &twin]), (1, refused));
        assert_eq!(life.judge(&[&forged, &issuing.der]).1, refused, "another authority's leaf");
        assert_eq!(life.judge(&[&leaf, &issuing.der]).1, Ok(()), "{round}");
    }
}

fn spki(node: &Node) -> Vec<u8> {
    use rcgen::PublicKeyData as _;
    node.key.subject_public_key_info()
}

/// Goal: a remembered signature vouches for the octets that it was found under and for no others: an
/// authority with any octet changed is refused as it is in a life that remembers nothing.
#[test]
fn a_remembered_signature_does_not_vouch_for_changed_octets() {
    let (root, issuing) = tree();
    let leaf = server(&issuing);
    let life = Life::new(&[&root.der]);
    assert_eq!(life.judge(&[&leaf, &issuing.der]), (2, Ok(())));
    for at in 0..issuing.der.len() {
        let mut changed = issuing.der.clone();
        changed[at] ^= 0x41;
        let chain = [&leaf[..], &changed];
        let (_, verdict) = life.judge(&chain);
        assert_eq!(verdict, Life::new(&[&root.der]).judge(&chain).1, "octet {at}");
        verdict.expect_err("a changed authority");
    }
    assert_eq!(life.judge(&[&leaf, &issuing.der]), (1, Ok(())));
}

/// Goal: dates, purposes and constraints are looked at each time, however well known a chain is.
#[test]
fn nothing_but_the_signature_is_remembered() {
    let root = Node::root(pki::authority("root"));
    let mut short = pki::authority("issuing");
    short.not_after = rcgen::date_time_ymd(2027, 1, 1);
    let issuing = root.signs(short);
    let leaf = server(&issuing);
    let life = Life::new(&[&root.der]);
    assert_eq!(life.judge(&[&leaf, &issuing.der]), (2, Ok(())));
    let later = NOW.plus_s(60 * 86_400);
    let (asked, verdict) = life.judge_at(&[&leaf, &issuing.der], later);
    assert_eq!(verdict, Err(Refusal::Expired), "after {asked}");
    let device = issuing.signs(pki::device("pump-7")).der;
    assert_eq!(life.judge(&[&device, &issuing.der]).1, Err(Refusal::ServerAuthMissing));
    assert_eq!(life.judge(&[&leaf, &issuing.der]), (1, Ok(())));
}

/// Goal: an authority whose constraints forbid the name is refused although its signature is known.
#[test]
fn the_constraints_of_a_known_authority_bind() {
    let root = Node::root(pki::authority("root"));
    let mut params = pki::authority("issuing");
    let subtree = GeneralSubtree::DnsName("other.example".to_owned());
    params.name_constraints =
        Some(NameConstraints { permitted_subtrees: vec![subtree], excluded_subtrees: vec![] });
    let issuing = root.signs(params);
    let leaf = server(&issuing);
    let life = Life::new(&[&root.der]);
    let (first, verdict) = life.judge(&[&leaf, &issuing.der]);
    assert_eq!((first, verdict), (2, Err(Refusal::NameConstraint)));
    assert_eq!(life.judge(&[&leaf, &issuing.der]), (1, Err(Refusal::NameConstraint)));
}

/// Goal: there is room for the authority of each server, and one more takes the place of the oldest.
#[test]
fn one_authority_more_takes_the_place_of_the_oldest() {
    let root = Node::root(pki::authority("root"));
    let authorities: Vec<Node> =
        (0..=REMEMBERED_MAX).map(|n| root.signs(pki::authority(&format!("issuing {n}")))).collect();
    let leaves: Vec<Vec<u8>> = authorities.iter().map(server).collect();
    let life = Life::new(&[&root.der]);
    let cost = |n: usize| life.judge(&[&leaves[n], &authorities[n].der]);
    for n in 0..REMEMBERED_MAX {
        assert_eq!(cost(n), (2, Ok(())));
    }
    for n in 0..REMEMBERED_MAX {
        assert_eq!(cost(n), (1, Ok(())), "{n} is remembered");
    }
    assert_eq!(cost(REMEMBERED_MAX), (2, Ok(())));
    assert_eq!(cost(REMEMBERED_MAX), (1, Ok(())));
    assert_eq!(cost(1), (1, Ok(())), "the second is remembered still");
    assert_eq!(cost(0), (2, Ok(())), "the first was forgotten");
    assert_eq!(cost(1), (2, Ok(())), "which has cost the second its place");
}

/// Goal: of two pinned roots each has its authorities remembered, and neither vouches for the
/// other's.
#[test]
fn each_of_two_roots_vouches_for_its_own() {
    let ((old, first), (new, second)) = (tree(), tree());
    let life = Life::new(&[&old.der, &new.der]);
    // Both have the same name: the old one is asked first, and what it has not signed each time.
    for (authority, costs) in [(&first, [2, 1]), (&second, [3, 2])] {
        let leaf = server(authority);
        for cost in costs {
            assert_eq!(life.judge(&[&leaf, &authority.der]), (cost, Ok(())));
        }
    }
    let life = Life::new(&[&old.der]);
    let leaf = server(&second);
    assert_eq!(life.judge(&[&leaf, &second.der]), (1, Err(Refusal::SignatureInvalid)));
}

/// Goal: a hostile chain gains nothing by what is remembered: a known signature counts like any other.
/// Here the root has signed an authority that is sent five times, and that has not signed the leaf.
#[test]
fn known_signatures_count_towards_the_limit() {
    let root = Node::root(pki::authority("root"));
    let leaf = server(&root.signs(pki::authority("issuing")));
    let other = root.signs(pki::authority("issuing"));
    let mut chain = vec![&other.der[..]; CERTIFICATES_MAX];
    chain[0] = &leaf;
    let life = Life::new(&[&root.der]);
    let too_many = Err(Refusal::SignaturesTooMany);
    // Three paths of two signatures each; the authority's is computed once.
    assert_eq!(life.judge(&chain), (SIGNATURES_MAX - 2, too_many));
    assert_eq!(life.judge(&chain), (SIGNATURES_MAX - 3, too_many));
}
