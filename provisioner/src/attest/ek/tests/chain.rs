//! Issuers, roots, and the search for a path between them.

use super::*;
use crate::{
    attest::{
        forge::{
            AUTHORITY_KEY_ID, BASIC_CONSTRAINTS, CRL_SIGN, EK_PURPOSE, EXT_KEY_USAGE,
            KEY_CERT_SIGN, KEY_USAGE, SUBJECT_KEY_ID, name, purposes,
        },
        spki::KeyError,
    },
    authority::der::{OCTET_STRING, SEQUENCE, element},
};

fn root(draft: &Draft, by: &Signer) -> EkRoot {
    EkRoot::parse(&draft.signed(by)).unwrap()
}

fn authority_key_id(octets: &[u8]) -> Vec<u8> {
    element(SEQUENCE, &[&element(0x80, &[octets])])
}

fn subject_key_id(octets: &[u8]) -> Vec<u8> {
    element(OCTET_STRING, &[octets])
}

/// A leaf, `authorities` below each other, and the highest of them as the only root; what is sent
/// is everything but the root. The authority right above the leaf is the last.
fn tower(authorities: usize) -> (Vec<u8>, Vec<EkRoot>) {
    let label = |level: usize| format!("Level {level}");
    let signer = |level: usize| Signer::new(100 + level as u8);
    let draft = |level: usize| {
        let issuer = label(level.saturating_sub(1));
        Draft::authority(&label(level), &signer(level).key(), &issuer)
    };
    let last = authorities - 1;
    let leaf = Draft::leaf(&Signer::new(1).key(), &label(last)).signed(&signer(last));
    let rest = (1..authorities).map(|level| draft(level).signed(&signer(level - 1)));
    let sent = [leaf].into_iter().chain(rest).collect::<Vec<_>>().concat();
    (sent, vec![root(&draft(0), &signer(0))])
}

// Goal: an operator may trust an intermediate alone; what is above it is then nobody's business.
#[test]
fn a_root_may_be_an_intermediate() {
    let cast = Cast::new();
    let roots = [root(&cast.issuer(), &cast.root)];
    let leaf = cast.leaf().signed(&cast.issuer);
    let alone = verify(&leaf, &roots, NOW).unwrap();
    assert_eq!(alone.chain, [leaf.clone(), roots[0].der().to_vec()]);
    let sent = [leaf, roots[0].der().to_vec()].concat();
    assert_eq!(verify(&sent, &roots, NOW).unwrap(), alone);
}

// Goal: a root's own signature is not looked at: it is trusted as it was given.
#[test]
fn the_signature_of_a_root_does_not_count() {
    let cast = Cast::new();
    let roots = [root(&cast.root(), &Signer::new(66))];
    let sent = [cast.leaf().signed(&cast.issuer), cast.issuer().signed(&cast.root)].concat();
    verify(&sent, &roots, NOW).unwrap();
}

// Goal: without its root, no chain is worth anything, and who was missing is named.
#[test]
fn a_chain_to_nobody_we_trust_is_refused_with_the_name_it_ends_at() {
    let cast = Cast::new();
    let leaf = cast.leaf().signed(&cast.issuer);
    let issuer = cast.issuer().signed(&cast.root);
    let self_signed = cast.root().signed(&cast.root);
    let stranger = Signer::new(9);
    let strangers = [root(&Draft::authority("Stranger", &stranger.key(), "Stranger"), &stranger)];
    for (sent, roots, ends_at) in [
        (leaf.clone(), cast.roots(), ISSUER),
        ([&leaf[..], &issuer].concat(), vec![], ROOT),
        ([&leaf[..], &issuer].concat(), strangers.to_vec(), ROOT),
        ([&leaf[..], &issuer, &self_signed].concat(), vec![], ROOT),
    ] {
        let issuer = format!("CN={ends_at}");
        assert_eq!(verify(&sent, &roots, NOW).unwrap_err(), EkError::UnknownRoot { issuer });
    }
}

// Goal: a device sends issuers in whatever order, doubled, with the root, and with others between.
#[test]
fn issuers_may_come_in_any_order_and_with_others() {
    let (sent, roots) = tower(4);
    let chain = verify(&sent, &roots, NOW).unwrap().chain;
    let [leaf, low, high, top] = &chain[..4] else { unreachable!() };
    let other = Draft::authority("Other", &Signer::new(9).key(), "Another").signed(&Signer::new(9));
    let last = &chain[4];
    for rest in [[top, high, low], [low, top, high], [high, low, top]] {
        let sent: Vec<u8> =
            [leaf, &other].into_iter().chain(rest).chain([last, low]).flatten().copied().collect();
        assert_eq!(verify(&sent, &roots, NOW).unwrap().chain, chain);
    }
}

// Goal: a name is no proof: each link needs its signature, the lowest and the highest.
#[test]
fn a_certificate_that_its_issuer_did_not_sign_is_refused() {
    let cast = Cast::new();
    let forger = Signer::new(66);
    let issuer = cast.issuer().signed(&cast.root);
    let sent = [cast.leaf().signed(&forger), issuer.clone()].concat();
    let error = verify(&sent, &cast.roots(), NOW).unwrap_err();
    assert_eq!(error, EkError::Signature { issuer: format!("CN={ISSUER}") });
    let sent = [cast.leaf().signed(&cast.issuer), cast.issuer().signed(&forger)].concat();
    let error = verify(&sent, &cast.roots(), NOW).unwrap_err();
    assert_eq!(error, EkError::Signature { issuer: format!("CN={ROOT}") });
}

// Goal: what is verified is what came: one bit in the signed part and it is over.
#[test]
fn a_bit_changed_after_the_signature_is_noticed() {
    let cast = Cast::new();
    let leaf = cast.leaf().signed(&cast.issuer);
    let issuer = cast.issuer().signed(&cast.root);
    let serial = [0x02, 1, 7];
    let at = leaf.windows(3).position(|octets| octets == serial).unwrap() + 2;
    let mut changed = leaf;
    changed[at] ^= 1;
    let error = verify(&[changed, issuer].concat(), &cast.roots(), NOW).unwrap_err();
    assert_eq!(error, EkError::Signature { issuer: format!("CN={ISSUER}") });
}

// Goal: a signature of the right key is worth nothing below a name that is another's.
#[test]
fn the_issuers_name_has_to_be_the_one_that_is_given() {
    let cast = Cast::new();
    let leaf = Draft { issuer: name("maker ek ca 1"), ..cast.leaf() };
    let error = cast.refusal_of_leaf(&leaf);
    assert_eq!(error, EkError::UnknownRoot { issuer: "CN=maker ek ca 1".into() });
}

// Goal: who may be an issuer is decided by each of these alone.
#[test]
fn an_issuer_has_to_be_an_authority_that_may_certify_endorsement_keys() {
    let cast = Cast::new();
    let issuer = || format!("CN={ISSUER}");
    let not_ca = EkError::IssuerNotCa { issuer: issuer() };
    let no_ca = element(SEQUENCE, &[]);
    let error = cast.refusal_of_issuer(&cast.issuer().with(BASIC_CONSTRAINTS, true, no_ca));
    assert_eq!(error, not_ca);
    assert_eq!(cast.refusal_of_issuer(&cast.issuer().without(BASIC_CONSTRAINTS)), not_ca);
    let usage = EkError::IssuerUsage { issuer: issuer() };
    let crl_only = cast.issuer().with(KEY_USAGE, true, key_usage(CRL_SIGN));
    assert_eq!(cast.refusal_of_issuer(&crl_only), usage);
    let for_code = purposes(&["1.3.6.1.5.5.7.3.3"]);
    let for_code = cast.issuer().with(EXT_KEY_USAGE, false, for_code);
    assert_eq!(cast.refusal_of_issuer(&for_code), usage);
    let rsa_1024 = Draft { spki: spki_of_rsa_1024(), ..cast.issuer() };
    let found = KeyError::ModulusBits { found: 1024 };
    assert_eq!(
        cast.refusal_of_issuer(&rsa_1024),
        EkError::IssuerKeyKind { issuer: issuer(), found }
    );
}

fn spki_of_rsa_1024() -> Vec<u8> {
    let modulus = element(0x02, &[&[0], &[0xc5; 128]]);
    let key = element(SEQUENCE, &[&modulus, &[0x02, 3, 1, 0, 1]]);
    let algorithm =
        element(SEQUENCE, &[&crate::attest::forge::oid("1.2.840.113549.1.1.1"), &[5, 0]]);
    element(SEQUENCE, &[&algorithm, &element(0x03, &[&[0], &key])])
}

// Goal: what an issuer does not say, or says broadly, is not held against it.
#[test]
fn an_issuer_may_be_silent_about_usage_or_allow_any() {
    let cast = Cast::new();
    cast.verify_issuer(&cast.issuer().without(KEY_USAGE)).unwrap();
    for allowed in [EK_PURPOSE, "2.5.29.37.0"] {
        let purposes = purposes(&["1.3.6.1.5.5.7.3.3", allowed]);
        cast.verify_issuer(&cast.issuer().with(EXT_KEY_USAGE, true, purposes)).unwrap();
    }
    let sign_only = key_usage(KEY_CERT_SIGN);
    cast.verify_issuer(&cast.issuer().with(KEY_USAGE, true, sign_only)).unwrap();
}

// Goal: issuers have to be valid now, intermediate and root, each through its last second.
#[test]
fn issuers_outside_their_validity_are_refused_by_name() {
    let cast = Cast::new();
    let [before, after] = [Wall(NOW.0 - 1), Wall(NOW.0 + 1)];
    cast.verify_issuer(&Draft { validity: (NOW, NOW), ..cast.issuer() }).unwrap();
    let issuer = || format!("CN={ISSUER}");
    let expired = Draft { validity: (Wall(0), before), ..cast.issuer() };
    let error = EkError::IssuerExpired { issuer: issuer(), not_after: before, now: NOW };
    assert_eq!(cast.refusal_of_issuer(&expired), error);
    let early = Draft { validity: (after, after), ..cast.issuer() };
    let error = EkError::IssuerNotYetValid { issuer: issuer(), not_before: after, now: NOW };
    assert_eq!(cast.refusal_of_issuer(&early), error);

    let sent = [cast.leaf().signed(&cast.issuer), cast.issuer().signed(&cast.root)].concat();
    let expired = Draft { validity: (Wall(0), before), ..cast.root() };
    let error = verify(&sent, &[root(&expired, &cast.root)], NOW).unwrap_err();
    let issuer = format!("CN={ROOT}");
    assert_eq!(error, EkError::IssuerExpired { issuer, not_after: before, now: NOW });
}

// Goal: an authority admits as many authorities below itself as it says, and no more.
#[test]
fn path_lengths_are_kept() {
    let cast = Cast::new();
    let issuer = |max| cast.issuer().with(BASIC_CONSTRAINTS, true, ca(Some(max)));
    cast.verify_issuer(&issuer(0)).unwrap();
    let sent = [cast.leaf().signed(&cast.issuer), issuer(0).signed(&cast.root)].concat();
    let limited =
        |max| [root(&cast.root().with(BASIC_CONSTRAINTS, true, ca(Some(max))), &cast.root)];
    verify(&sent, &limited(1), NOW).unwrap();
    let error = verify(&sent, &limited(0), NOW).unwrap_err();
    assert_eq!(error, EkError::PathLength { issuer: format!("CN={ROOT}"), found: 1, max: 0 });
}

// Goal: an authority that renews its own key is not one more authority (RFC 5280 §4.2.1.9).
#[test]
fn what_an_authority_issued_to_itself_does_not_count_for_a_path_length() {
    let cast = Cast::new();
    let [old, new] = [Signer::new(21), Signer::new(22)];
    let renewed = Draft::authority(ROOT, &new.key(), ROOT).signed(&old);
    let leaf = Draft::leaf(&cast.leaf.key(), ROOT).signed(&new);
    let first = Draft::authority(ROOT, &old.key(), ROOT).with(BASIC_CONSTRAINTS, true, ca(Some(0)));
    let found = verify(&[leaf, renewed].concat(), &[root(&first, &old)], NOW).unwrap();
    assert_eq!(found.chain.len(), 3);
}

// Goal: the longest chain is taken, one more is not.
#[test]
fn chains_have_a_greatest_length() {
    let (sent, roots) = tower(CHAIN_LEN_MAX - 1);
    assert_eq!(verify(&sent, &roots, NOW).unwrap().chain.len(), CHAIN_LEN_MAX);
    let (sent, roots) = tower(CHAIN_LEN_MAX);
    assert_eq!(verify(&sent, &roots, NOW).unwrap_err(), EkError::TooDeep);
}

// Goal: authorities that certified each other lead nowhere, and the search ends by itself.
#[test]
fn authorities_in_a_circle_end_the_search() {
    let cast = Cast::new();
    let [one, two] = [Signer::new(11), Signer::new(12)];
    let leaf = Draft::leaf(&cast.leaf.key(), "One").signed(&one);
    let one_by_two = Draft::authority("One", &one.key(), "Two").signed(&two);
    let two_by_one = Draft::authority("Two", &two.key(), "One").signed(&one);
    let error = verify(&[leaf, one_by_two, two_by_one].concat(), &[], NOW).unwrap_err();
    assert_eq!(error, EkError::UnknownRoot { issuer: "CN=One".into() });
}

// Goal: the same name with two keys is how authorities renew theirs: both are tried, and the key
// identifiers, right or wrong, only say which first.
#[test]
fn issuers_of_one_name_are_told_by_their_keys() {
    let cast = Cast::new();
    let older = Signer::new(31);
    let right = cast.issuer().with(SUBJECT_KEY_ID, false, subject_key_id(b"right"));
    let wrong = Draft { spki: older.key().spki_der(), ..cast.issuer() };
    let wrong = wrong.with(SUBJECT_KEY_ID, false, subject_key_id(b"wrong")).signed(&cast.root);
    let right = right.signed(&cast.root);
    for hint in [b"right", b"wrong"] {
        let leaf = cast.leaf().with(AUTHORITY_KEY_ID, false, authority_key_id(hint));
        let leaf = leaf.signed(&cast.issuer);
        for others in [[&right, &wrong], [&wrong, &right]] {
            let sent = [&leaf[..], others[0], others[1]].concat();
            let found = verify(&sent, &cast.roots(), NOW).unwrap();
            assert_eq!(found.chain[1], right);
        }
    }
}

// Goal: of several issuers, the refusal is about the one that the key identifier points to.
#[test]
fn a_refusal_is_about_the_likeliest_issuer() {
    let cast = Cast::new();
    let expired = Draft { validity: (Wall(0), Wall(1)), ..cast.issuer() };
    let expired = expired.with(SUBJECT_KEY_ID, false, subject_key_id(b"right"));
    let other = cast.issuer().with(BASIC_CONSTRAINTS, true, element(SEQUENCE, &[]));
    let other = other.with(SUBJECT_KEY_ID, false, subject_key_id(b"wrong")).signed(&cast.root);
    let expired = expired.signed(&cast.root);
    let hinted = cast.leaf().with(AUTHORITY_KEY_ID, false, authority_key_id(b"right"));
    for (leaf, others, code) in [
        (hinted.clone(), [&other, &expired], "ek-issuer-expired"),
        (hinted, [&expired, &other], "ek-issuer-expired"),
        (cast.leaf(), [&other, &expired], "ek-issuer-not-ca"),
        (cast.leaf(), [&expired, &other], "ek-issuer-expired"),
    ] {
        let sent = [&leaf.signed(&cast.issuer)[..], others[0], others[1]].concat();
        assert_eq!(verify(&sent, &cast.roots(), NOW).unwrap_err().code(), code);
    }
}

// Goal: a dead end is left again: an issuer without a root does not hide the one that has it.
#[test]
fn the_search_goes_on_after_a_dead_end() {
    let cast = Cast::new();
    let by_nobody = Draft { issuer: name("Nobody"), ..cast.issuer() }.signed(&Signer::new(66));
    let right = cast.issuer().signed(&cast.root);
    let leaf = cast.leaf().signed(&cast.issuer);
    // The same authority, certified twice: only the second way leads to a root.
    for others in [[&by_nobody, &right], [&right, &by_nobody]] {
        let sent = [&leaf[..], others[0], others[1]].concat();
        let found = verify(&sent, &cast.roots(), NOW).unwrap();
        assert_eq!(found.chain, [leaf.clone(), right.clone(), cast.roots()[0].der().to_vec()]);
    }
}

/// Seven certificates of one name, each with a key of its own and signed by all and none: whatever
/// is tried, the name fits and the next one looks as good.
fn look_alikes(leaf_by: &Signer) -> Vec<u8> {
    let mut sent = Draft::leaf(&Signer::new(1).key(), "Same").signed(leaf_by);
    for seed in 40..47 {
        let draft = Draft::authority("Same", &Signer::new(seed).key(), "Same");
        sent.extend(draft.signed(&Signer::new(40)));
    }
    sent
}

// Goal: a stranger does not decide how much we compute: a bundle in which everything looks like
// everything else's issuer ends with a code of its own, and no more signatures than the limit.
#[test]
fn look_alikes_cost_a_limited_number_of_signatures() {
    let sent = look_alikes(&Signer::new(40));
    let certificates = parsed(&sent).unwrap();
    let (leaf, bundle) = certificates.split_first().unwrap();
    assert_eq!(certificates.len(), CERTIFICATES_MAX);
    let roots: Vec<_> = (50..70)
        .map(Signer::new)
        .map(|key| root(&Draft::authority("Same", &key.key(), "Same"), &key))
        .collect();
    let mut search = Search { bundle, roots: &roots, now: NOW, signatures: 0 };
    let mut path = vec![leaf];
    assert_eq!(search.extend(&mut path, leaf), Err(EkError::TooManySignatures));
    assert_eq!(search.signatures, SIGNATURES_MAX);
    assert_eq!(verify(&sent, &roots, NOW).unwrap_err(), EkError::TooManySignatures);
}

// Goal: the limit is a limit and not one less: what is found at the last check is found.
#[test]
fn the_last_signature_that_may_be_checked_may_be_the_right_one() {
    let cast = Cast::new();
    let look_alike = |seed: u8| {
        let key = Signer::new(seed);
        root(&Draft::authority(ROOT, &key.key(), ROOT), &key)
    };
    // One check for the leaf, one for each root before the right one, one for that.
    let sent = [cast.leaf().signed(&cast.issuer), cast.issuer().signed(&cast.root)].concat();
    let mut roots: Vec<_> = (0..SIGNATURES_MAX - 2).map(|at| look_alike(60 + at as u8)).collect();
    roots.extend(cast.roots());
    verify(&sent, &roots, NOW).unwrap();
    roots.insert(0, look_alike(99));
    assert_eq!(verify(&sent, &roots, NOW).unwrap_err(), EkError::TooManySignatures);
}
