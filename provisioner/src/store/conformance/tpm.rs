//! What every store must do with what it knows of TPMs.

use std::sync::Arc;

use super::*;
use crate::{
    attest::{EkId, root::RootId},
    binding::{Binding, Conflict, ConflictKind, Endorsement, Hold, KeyName, Source},
    challenge::{CHALLENGES_PER_EK_MAX, Challenge, ChallengeId, Secret},
    store::{
        Listing, Mark, StoredRoot, TpmScope,
        tpm::{Endorsed, Imported, Known, Roots, RootsStamp},
    },
    testing::binding,
};

fn challenge(seed: u8) -> Challenge {
    let proven = binding("gw-1", seed).proven;
    Challenge {
        id: ChallengeId([seed; 16]),
        device: device("gw-1"),
        endorsement: proven.endorsement,
        ak: proven.ak,
        nonce: [seed; 32],
        secret: Some(Secret::from_octets([seed; 32])),
        created_at: NOW,
        expires_at: NOW.plus_s(120),
        used_at: None,
    }
}

/// A challenge for the endorsement key of `ek`, by the attestation key of `seed`.
fn challenge_of(ek: u8, seed: u8) -> Challenge {
    Challenge { endorsement: challenge(ek).endorsement, ..challenge(seed) }
}

fn add(challenge: Challenge) -> Change {
    Change::Challenge(Box::new(challenge))
}

fn bind(binding: &Binding) -> Change {
    Change::Bind(Box::new(binding.clone()))
}

fn active(id: &str) -> Change {
    Change::Device(Device::expected(device(id), name("tokens"), NOW))
}

fn ek(seed: u8) -> EkId {
    EkId([seed; 32])
}

fn listing(id: &str, seed: u8) -> Listing {
    Listing { ek: ek(seed), device: device(id) }
}

fn list(id: &str, seed: u8) -> Change {
    Change::List { listing: listing(id, seed), at: NOW }
}

fn of_device(id: &str) -> Scope {
    Scope::of_tpm(TpmScope { device: Some(device(id)), ..TpmScope::default() })
}

fn of_challenge(seed: u8) -> Scope {
    let challenge = Some(ChallengeId([seed; 16]));
    Scope::of_tpm(TpmScope { challenge, ..TpmScope::default() })
}

fn of_ek(seed: u8, now: Wall) -> Scope {
    Scope::of_tpm(TpmScope { endorsement: Some((ek(seed), now)), ..TpmScope::default() })
}

const fn duplicate(table: &'static str) -> Result<(), StoreError> {
    Err(StoreError::Duplicate { table })
}

#[test]
fn every_field_of_a_challenge_comes_back_and_using_it_forgets_its_secret() {
    over_every_store(|store| async move {
        let full = challenge(1);
        let bare = Challenge {
            endorsement: Endorsement {
                source: Source::Allowlist,
                chain: Vec::new(),
                kind: None,
                ..challenge(2).endorsement
            },
            ..challenge(2)
        };
        store.write(vec![add(full.clone()), add(bare.clone())]).await.unwrap();
        let found = |seed| store.view(of_challenge(seed));
        assert_eq!(found(1).await.tpm.challenged, Some((full.clone(), Known::default())));
        assert_eq!(found(2).await.tpm.challenged, Some((bare, Known::default())));
        assert_eq!(found(3).await.tpm.challenged, None);
        assert_eq!(store.write(vec![add(full.clone())]).await, duplicate("challenge"));
        let (id, at) = (full.id, NOW.plus_s(5));
        store.write(vec![Change::UseChallenge { id, at }]).await.unwrap();
        let used = Challenge { used_at: Some(at), secret: None, ..full };
        assert_eq!(found(1).await.tpm.challenged.unwrap().0, used);
    });
}

#[test]
fn every_field_of_a_binding_comes_back_bound_and_waiting() {
    over_every_store(|store| async move {
        let bound = binding("gw-1", 1);
        let mut waiting = Binding { hold: Hold::Waiting, clone_signs: None, ..binding("gw-1", 2) };
        waiting.proven.endorsement.kind = None;
        waiting.proven.endorsement.chain = Vec::new();
        store.write(vec![active("gw-1"), bind(&bound), bind(&waiting)]).await.unwrap();
        let found = store.view(of_device("gw-1")).await.tpm.device;
        assert_eq!((found.bound, found.listed), (Some(bound.clone()), None));
        assert_eq!(found.waiting, Some((waiting.clone(), Known::default())));
        let record = on_any!(store.tpm(device("gw-1"))).unwrap();
        assert_eq!((record.bound, record.waiting), (Some(bound), Some(waiting)));
        let newer = Binding { since: NOW.plus_s(9), ..binding("gw-1", 3) };
        let release = Change::Unbind(device("gw-1"), Hold::Waiting);
        store.write(vec![bind(&newer), release]).await.unwrap();
        let found = store.view(of_device("gw-1")).await.tpm.device;
        assert_eq!((found.bound, found.waiting), (Some(newer), None));
        assert_eq!(store.view(of_device("gw-2")).await.tpm.device, Default::default());
    });
}

// Goal: the database itself refuses a second device for a TPM, whatever a decision says.
#[test]
fn a_tpm_is_bound_to_one_device_and_waits_with_any() {
    over_every_store(|store| async move {
        let first = binding("gw-1", 1);
        let second = Binding { device: device("gw-2"), ..first.clone() };
        store.write(vec![active("gw-1"), bind(&first)]).await.unwrap();
        let taken = store.write(vec![active("gw-2"), bind(&second)]).await;
        assert_eq!(taken, duplicate("binding"));
        assert_eq!(store.view(scope_of("gw-2")).await.device, None);
        assert_eq!(store.view(of_device("gw-1")).await.tpm.device.bound, Some(first.clone()));
        store.write(vec![bind(&Binding { hold: Hold::Waiting, ..second.clone() })]).await.unwrap();
        store.write(vec![Change::Unbind(device("gw-1"), Hold::Bound)]).await.unwrap();
        store.write(vec![bind(&second)]).await.unwrap();
        assert_eq!(store.write(vec![bind(&first)]).await, duplicate("binding"));
    });
}

#[test]
fn an_attestation_key_is_seen_under_one_endorsement_key() {
    over_every_store(|store| async move {
        let row = challenge(1);
        let seen = |ek| Change::Ak { name: row.ak.name.clone(), ek, at: NOW };
        store.write(vec![seen(ek(9)), add(row.clone())]).await.unwrap();
        assert_eq!(store.write(vec![seen(ek(1))]).await, duplicate("ak"));
        let known = store.view(of_challenge(1)).await.tpm.challenged.unwrap().1;
        assert_eq!(known.ak_seen_under, Some(ek(9)));
    });
}

// Goal: a decision about a challenge sees everybody who has to do with its TPM.
#[test]
fn a_challenge_comes_with_what_is_known_of_its_tpm() {
    over_every_store(|store| async move {
        let conflict = |id: &str, kind, seed, claimant: &str| {
            let (device, claimant) = (device(id), device(claimant));
            Change::Conflict(Conflict { device, kind, ek: ek(seed), claimant, at: NOW })
        };
        let waiting = Binding { hold: Hold::Waiting, device: device("gw-1"), ..binding("gw-2", 1) };
        store
            .write(vec![
                add(challenge(1)),
                active("gw-2"),
                bind(&binding("gw-2", 1)),
                bind(&waiting),
                list("gw-3", 1),
                conflict("gw-1", ConflictKind::AnotherEk, 7, "gw-1"),
                conflict("gw-1", ConflictKind::AnotherEk, 8, "gw-1"),
                conflict("gw-2", ConflictKind::ClaimedBy, 1, "gw-5"),
            ])
            .await
            .unwrap();
        let known = Known {
            holder: Some((device("gw-2"), Status::Expected)),
            listed_for: Some(device("gw-3")),
            ak_seen_under: None,
            disputed_ek: Some(ek(8)),
            disputed_by: Some(device("gw-5")),
        };
        let found = store.view(of_challenge(1)).await.tpm.challenged.unwrap().1;
        assert_eq!(found, known);
        assert_eq!(store.view(of_device("gw-1")).await.tpm.device.waiting.unwrap().1, known);
        let record = on_any!(store.tpm(device("gw-1"))).unwrap();
        assert_eq!(record.conflicts.len(), 1);
        assert_eq!(
            (record.conflicts[0].ek, &record.conflicts[0].claimant),
            (ek(8), &device("gw-1"))
        );
        store.write(vec![Change::SettleConflicts(device("gw-1"))]).await.unwrap();
        let found = store.view(of_challenge(1)).await.tpm.challenged.unwrap().1;
        assert_eq!((found.disputed_ek, found.disputed_by), (None, Some(device("gw-5"))));
    });
}

// Goal: used and expired challenges take no room, and purging leaves those that are good.
#[test]
fn open_challenges_are_counted_by_endorsement_key_and_in_all() {
    over_every_store(|store| async move {
        let used = Challenge { used_at: Some(NOW), ..challenge_of(1, 3) };
        let over = Challenge { expires_at: NOW.minus_s(1), ..challenge_of(1, 4) };
        let last = Challenge { expires_at: NOW, ..challenge_of(1, 5) };
        let first = Challenge { created_at: NOW.minus_s(9), ..challenge_of(1, 6) };
        let rows = [challenge_of(2, 7), used, over, last.clone(), first.clone()];
        let mut changes: Vec<_> = rows.map(add).into();
        changes.extend([active("gw-2"), bind(&binding("gw-2", 1)), list("gw-3", 1)]);
        store.write(changes).await.unwrap();
        let found = store.view(of_ek(1, NOW)).await.tpm.endorsed;
        let mut ids: Vec<_> = found.open.iter().map(|open| (open.created_at, open.id)).collect();
        ids.sort_unstable();
        assert_eq!(ids, [(first.created_at, first.id), (NOW, last.id)]);
        assert_eq!((found.open_in_all, found.listed_for), (3, Some(device("gw-3"))));
        assert_eq!(found.recorded_ak, KeyName::from_octets(&[1; 34]));
        store.write(vec![Change::PurgeChallenges { before: NOW }]).await.unwrap();
        assert!(store.view(of_challenge(4)).await.tpm.challenged.is_none());
        assert!(store.view(of_challenge(5)).await.tpm.challenged.is_some());
        store.write(vec![Change::DropChallenge(last.id)]).await.unwrap();
        assert_eq!(store.view(of_ek(1, NOW)).await.tpm.endorsed.open_in_all, 2);
        store.write(vec![Change::DropChallenges]).await.unwrap();
        let none = store.view(of_ek(1, NOW)).await.tpm.endorsed;
        assert_eq!((none.open_in_all, none.open.len()), (0, 0));
        let unknown = store.view(of_ek(9, NOW)).await.tpm.endorsed;
        assert_eq!(unknown, Endorsed::default());
    });
}

#[test]
fn no_more_open_challenges_come_than_make_room_for_one() {
    over_every_store(|store| async move {
        let rows = (1..=9).map(|seed| add(challenge_of(1, seed))).collect();
        store.write(rows).await.unwrap();
        let found = store.view(of_ek(1, NOW)).await.tpm.endorsed;
        assert_eq!((found.open.len(), found.open_in_all), (CHALLENGES_PER_EK_MAX, 9));
    });
}

// Goal: whoever remembers roots by their stamp sees every change of them.
#[test]
fn every_change_of_the_roots_changes_their_stamp() {
    over_every_store(|store| async move {
        let root = |seed: u8| StoredRoot {
            id: RootId([seed; 32]),
            der: vec![0x30, 1, seed],
            added_at: NOW.plus_s(u64::from(seed)),
        };
        let scope = Scope::of_tpm(TpmScope { roots: true, ..TpmScope::default() });
        assert_eq!(store.view(scope.clone()).await.tpm.roots, Roots::default());
        let mut stamps = vec![RootsStamp::default()];
        for change in [
            Change::Root(root(3)),
            Change::Root(root(1)),
            Change::RemoveRoot(root(1).id),
            Change::Root(root(2)),
        ] {
            store.write(vec![change]).await.unwrap();
            let stamp = store.view(of_ek(1, NOW)).await.tpm.endorsed.roots;
            let same = store.view(scope.clone()).await.tpm.roots.stamp;
            assert!(stamp == same && (stamps.len() == 3 || !stamps.contains(&stamp)), "{stamps:?}");
            stamps.push(stamp);
        }
        assert_eq!(stamps[1], stamps[3], "back to the same roots");
        assert_eq!(store.view(scope).await.tpm.roots.roots, [root(3), root(2)]);
        assert_eq!(store.write(vec![Change::Root(root(3))]).await, duplicate("ek_root"));
    });
}

#[test]
fn a_list_has_one_endorsement_key_for_a_device_and_one_device_for_a_key() {
    over_every_store(|store| async move {
        store.write(vec![list("gw-1", 1)]).await.unwrap();
        for again in [list("gw-1", 1), list("gw-2", 1), list("gw-1", 2)] {
            assert_eq!(store.write(vec![again]).await, duplicate("ek_listed"));
        }
        store.write(vec![Change::Unlist(device("gw-1")), list("gw-1", 2)]).await.unwrap();
        let record = on_any!(store.tpm(device("gw-1"))).unwrap();
        assert_eq!(record.listed, Some((ek(2), NOW)));
        assert_eq!(store.view(of_device("gw-1")).await.tpm.device.listed, Some(ek(2)));
        assert_eq!(store.view(of_ek(1, NOW)).await.tpm.endorsed.listed_for, None);
    });
}

#[test]
fn an_import_sees_what_is_known_of_each_line_in_its_order() {
    over_every_store(|store| async move {
        store
            .write(vec![
                active("gw-1"),
                active("gw-2"),
                list("gw-1", 1),
                bind(&binding("gw-2", 2)),
                active("gw-4"),
                bind(&binding("gw-4", 4)),
            ])
            .await
            .unwrap();
        let lines = [
            listing("gw-9", 9),
            listing("gw-1", 1),
            listing("gw-2", 4),
            listing("gw-3", 1),
            listing("gw-1", 2),
        ];
        let import = Some(Arc::from(lines));
        let scope = Scope::of_tpm(TpmScope { import, ..TpmScope::default() });
        let known = Some((name("tokens"), Status::Expected));
        let found = store.view(scope).await.tpm.import;
        let expected = [
            Imported::default(),
            Imported {
                device: known.clone(),
                listed: Some(ek(1)),
                listed_for: Some(device("gw-1")),
                ..Imported::default()
            },
            Imported {
                device: known.clone(),
                held_by: Some(device("gw-4")),
                bound_to: Some(ek(2)),
                ..Imported::default()
            },
            Imported { listed_for: Some(device("gw-1")), ..Imported::default() },
            Imported {
                device: known,
                listed: Some(ek(1)),
                held_by: Some(device("gw-2")),
                ..Imported::default()
            },
        ];
        assert_eq!(found, expected);
    });
}

#[test]
fn marks_come_for_every_device_in_order_and_in_pages() {
    over_every_store(|store| async move {
        let claimed = Conflict {
            device: device("gw-2"),
            kind: ConflictKind::ClaimedBy,
            ek: ek(2),
            claimant: device("gw-9"),
            at: NOW,
        };
        let another = Conflict { kind: ConflictKind::AnotherEk, ek: ek(5), ..claimed.clone() };
        store
            .write(vec![
                active("gw-3"),
                active("gw-2"),
                active("gw-1"),
                bind(&binding("gw-2", 2)),
                bind(&Binding { hold: Hold::Waiting, ..binding("gw-1", 1) }),
                Change::Conflict(claimed),
                Change::Conflict(another),
            ])
            .await
            .unwrap();
        let mark = |id: &str, bound, conflicts| Mark { device: device(id), bound, conflicts };
        let all = [mark("gw-1", None, 0), mark("gw-2", Some(ek(2)), 2), mark("gw-3", None, 0)];
        assert_eq!(on_any!(store.marks(None, 9)).unwrap(), all);
        assert_eq!(on_any!(store.marks(Some(device("gw-1")), 1)).unwrap(), all[1..2]);
    });
}

// Goal: an audit of many thousand entries is one transaction like any other.
#[test]
fn more_audit_entries_than_one_statement_takes_are_written_in_order() {
    over_every_store(|store| async move {
        let entries: Vec<Entry> = (0..6_000)
            .map(|n| Entry::new(NOW.plus_s(n), Event::EkListed, Actor::Provisioner))
            .collect();
        let decide = move |_: &View| Verdict { audit: entries.clone(), ..Verdict::new(()) };
        store.transact(Scope::default(), decide).await.unwrap();
        let last = on_any!(store.audit(5_998, 9)).unwrap();
        let found: Vec<_> = last.iter().map(|row| (row.number, row.entry.at)).collect();
        assert_eq!(found, [(5_999, NOW.plus_s(5_998)), (6_000, NOW.plus_s(5_999))]);
    });
}
