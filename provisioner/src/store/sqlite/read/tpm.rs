//! What is known about TPMs.

use sqlx::sqlite::SqliteRow;

use super::{Columns, SqliteConnection, StoreError, sql_error};
use crate::{
    attest::{EkId, root::RootId},
    authority::{KeyFingerprint, der::elements},
    binding::{
        Ak, Binding, Conflict, ConflictKind, Endorsement, Evidence, Hold, KeyName, Proven, Source,
        TpmClock, TpmKind,
    },
    challenge::{CHALLENGES_PER_EK_MAX, Challenge, ChallengeId, Open, Secret},
    enroll::Admission,
    inventory::Status,
    store::{
        Mark, StoredRoot, TpmRecord, TpmScope, TpmView,
        tpm::{DeviceTpm, Endorsed, Imported, Known, Listing, Roots, RootsStamp},
    },
};
use fleetcert_core::{device_id::DeviceId, time::Wall};

/// What is known of a TPM, the columns of [`Known`], and where they come from for a row `$of` with
/// a device, an endorsement key and an attestation key.
macro_rules! known {
    () => {
        "h.device, hd.status, l.device, a.ek, ce.ek, cb.claimant"
    };
    ($of:literal) => {
        concat!(
            " LEFT JOIN binding h ON h.ek = ",
            $of,
            ".ek AND h.hold = 'bound' LEFT JOIN device hd ON hd.id = h.device \
            LEFT JOIN ek_listed l ON l.ek = ",
            $of,
            ".ek LEFT JOIN ak a ON a.name = ",
            $of,
            ".ak_name LEFT JOIN conflict ce ON ce.device = ",
            $of,
            ".device AND ce.kind = 'another-ek' \
            LEFT JOIN conflict cb ON cb.device = h.device AND cb.kind = 'claimed-by' "
        )
    };
}

/// A row for each hold, all with what is listed; one without a binding if the device has none.
const DEVICE: &str = concat!(
    "SELECT (SELECT ek FROM ek_listed WHERE device = ?), ",
    known!(),
    ", b.device, b.hold, b.ek, b.source, b.chain, b.manufacturer, b.model, b.version, \
    b.is_virtual, b.ak_name, b.ak_public, b.evidence_at, b.challenge, b.key, b.key_name, \
    b.attest, b.signature, b.public, b.clock_ms, b.reset_count, b.restart_count, b.safe, \
    b.firmware, b.admission, b.since, b.clone_signs, b.clone_sign_at \
    FROM (SELECT 1) LEFT JOIN binding b ON b.device = ?",
    known!("b")
);

const CHALLENGED: &str = concat!(
    "SELECT ",
    known!(),
    ", c.id, c.device, c.ek, c.source, c.chain, c.manufacturer, c.model, c.version, c.is_virtual, \
    c.ak_name, c.ak_public, c.nonce, c.secret, c.created_at, c.expires_at, c.used_at \
    FROM challenge c",
    known!("c"),
    "WHERE c.id = ?"
);

/// Columns of [`Known`].
const KNOWN_LEN: usize = 6;

const ENDORSED: &str = "SELECT \
    (SELECT device FROM ek_listed WHERE ek = ?1), \
    (SELECT ak_name FROM binding WHERE ek = ?1 AND hold = 'bound'), \
    (SELECT COUNT(*) FROM challenge WHERE expires_at >= ?2 AND used_at IS NULL), \
    (SELECT COUNT(*) FROM ek_root), (SELECT MAX(number) FROM ek_root)";

const OPEN: &str = "SELECT id, ak_name, created_at FROM challenge \
    WHERE ek = ? AND expires_at >= ? AND used_at IS NULL ORDER BY created_at, id LIMIT ?";

const ROOTS: &str = "SELECT number, fingerprint, der, added_at FROM ek_root ORDER BY number";

/// One row for each pair of a device's id and an endorsement key, which come as a JSON array.
const IMPORT: &str = "SELECT d.group_name, d.status, o.ek, l.device, h.device, b.ek \
    FROM json_each(?) i \
    LEFT JOIN device d ON d.id = i.value ->> 0 \
    LEFT JOIN ek_listed o ON o.device = i.value ->> 0 \
    LEFT JOIN ek_listed l ON l.ek = unhex(i.value ->> 1) \
    LEFT JOIN binding h ON h.ek = unhex(i.value ->> 1) AND h.hold = 'bound' \
    LEFT JOIN binding b ON b.device = i.value ->> 0 AND b.hold = 'bound' \
    ORDER BY i.key";

const LISTED: &str = "SELECT ek, listed_at FROM ek_listed WHERE device = ?";

const CONFLICTS: &str =
    "SELECT device, kind, ek, claimant, at FROM conflict WHERE device = ? ORDER BY kind";

const MARKS: &str = "SELECT d.id, b.ek, \
    (SELECT COUNT(*) FROM conflict c WHERE c.device = d.id) FROM device d \
    LEFT JOIN binding b ON b.device = d.id AND b.hold = 'bound' \
    WHERE d.id > ? ORDER BY d.id LIMIT ?";

impl TpmScope {
    /// Whether anything is asked that takes a statement of its own.
    pub(in crate::store::sqlite) const fn is_empty(&self) -> bool {
        self.device.is_none()
            && self.challenge.is_none()
            && self.endorsement.is_none()
            && !self.roots
            && self.import.is_none()
    }
}

pub(super) async fn view(
    connection: &mut SqliteConnection,
    scope: &TpmScope,
) -> Result<TpmView, StoreError> {
    let mut view = TpmView::default();
    if let Some(device) = &scope.device {
        view.device = device_tpm(connection, device).await?;
    }
    if let Some(id) = scope.challenge {
        let row = sqlx::query(CHALLENGED).bind(id.0.as_slice());
        let row = row.fetch_optional(&mut *connection).await.map_err(sql_error)?;
        view.challenged = row.map(|row| challenged(&row)).transpose()?;
    }
    if let Some((ek, now)) = scope.endorsement {
        view.endorsed = endorsed(connection, ek, now).await?;
    }
    if scope.roots {
        view.roots = roots(connection).await?;
    }
    if let Some(listings) = &scope.import {
        view.import = imported(connection, listings).await?;
    }
    Ok(view)
}

async fn device_tpm(
    connection: &mut SqliteConnection,
    id: &DeviceId,
) -> Result<DeviceTpm, StoreError> {
    let query = sqlx::query(DEVICE).bind(id.as_str()).bind(id.as_str());
    let rows = query.fetch_all(connection).await.map_err(sql_error)?;
    let mut found = DeviceTpm::default();
    for row in &rows {
        found.listed = Columns::at(row, 0, "ek_listed").ek_or_none()?;
        match Columns::at(row, 1 + KNOWN_LEN, "binding").optional(binding)? {
            None => {}
            Some(it) if it.hold == Hold::Bound => found.bound = Some(it),
            Some(it) => found.waiting = Some((it, known(row, 1)?)),
        }
    }
    Ok(found)
}

async fn endorsed(
    connection: &mut SqliteConnection,
    ek: EkId,
    now: Wall,
) -> Result<Endorsed, StoreError> {
    let now = i64::try_from(now.0).unwrap_or(i64::MAX);
    let row = sqlx::query(ENDORSED).bind(ek.0.as_slice()).bind(now);
    let row = row.fetch_one(&mut *connection).await.map_err(sql_error)?;
    let mut columns = Columns::at(&row, 0, "challenge");
    let (listed_for, recorded_ak) = (columns.device_id()?, columns.key_name()?);
    let open_in_all = columns.take()?;
    let stamp = RootsStamp { count: columns.take()?, newest: columns.number()? };
    let rows = sqlx::query(OPEN).bind(ek.0.as_slice()).bind(now);
    let rows = rows.bind(i64::try_from(CHALLENGES_PER_EK_MAX).unwrap_or(i64::MAX));
    let rows = rows.fetch_all(connection).await.map_err(sql_error)?;
    let open = rows.iter().map(|row| open(&mut Columns::at(row, 0, "challenge")));
    let open = open.collect::<Result<_, _>>()?;
    Ok(Endorsed { listed_for, recorded_ak, open, open_in_all, roots: stamp })
}

async fn roots(connection: &mut SqliteConnection) -> Result<Roots, StoreError> {
    let rows = sqlx::query(ROOTS).fetch_all(connection).await.map_err(sql_error)?;
    let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
    let mut found =
        Roots { stamp: RootsStamp { count, newest: 0 }, roots: Vec::with_capacity(rows.len()) };
    for row in &rows {
        let mut columns = Columns::at(row, 0, "ek_root");
        found.stamp.newest = columns.number()?;
        let id = columns.octets()?.map(RootId);
        let id = columns.required(id)?;
        found.roots.push(StoredRoot { id, der: columns.take()?, added_at: columns.moment()? });
    }
    Ok(found)
}

async fn imported(
    connection: &mut SqliteConnection,
    listings: &[Listing],
) -> Result<Vec<Imported>, StoreError> {
    let pairs: Vec<(&str, String)> =
        listings.iter().map(|it| (it.device.as_str(), it.ek.to_string())).collect();
    let pairs = serde_json::json!(pairs).to_string();
    let rows = sqlx::query(IMPORT).bind(pairs).fetch_all(connection).await.map_err(sql_error)?;
    rows.iter().map(|row| import_row(&mut Columns::at(row, 0, "device"))).collect()
}

pub(in crate::store::sqlite) async fn record(
    connection: &mut SqliteConnection,
    device: &DeviceId,
) -> Result<TpmRecord, StoreError> {
    let DeviceTpm { bound, waiting, .. } = device_tpm(connection, device).await?;
    let waiting = waiting.map(|(waiting, _)| waiting);
    let listed = sqlx::query(LISTED).bind(device.as_str());
    let listed = listed.fetch_optional(&mut *connection).await.map_err(sql_error)?;
    let listed = listed.map(|row| {
        let mut columns = Columns::at(&row, 0, "ek_listed");
        Ok((columns.ek()?, columns.moment()?))
    });
    let listed = listed.transpose()?;
    let conflicts = sqlx::query(CONFLICTS).bind(device.as_str()).fetch_all(connection).await;
    let conflicts = conflicts.map_err(sql_error)?;
    let conflicts = conflicts.iter().map(|row| conflict(&mut Columns::at(row, 0, "conflict")));
    Ok(TpmRecord { bound, waiting, listed, conflicts: conflicts.collect::<Result<_, _>>()? })
}

pub(in crate::store::sqlite) async fn marks(
    connection: &mut SqliteConnection,
    after: Option<&DeviceId>,
    limit: u32,
) -> Result<Vec<Mark>, StoreError> {
    let query = sqlx::query(MARKS).bind(after.map_or("", DeviceId::as_str)).bind(limit);
    let rows = query.fetch_all(connection).await.map_err(sql_error)?;
    rows.iter().map(|row| mark(&mut Columns::at(row, 0, "device"))).collect()
}

impl Columns<'_> {
    fn ek(&mut self) -> Result<EkId, StoreError> {
        let ek = self.ek_or_none()?;
        self.required(ek)
    }

    fn ek_or_none(&mut self) -> Result<Option<EkId>, StoreError> {
        Ok(self.octets()?.map(EkId))
    }

    fn key_name(&mut self) -> Result<Option<KeyName>, StoreError> {
        self.read(|octets: &[u8]| KeyName::from_octets(octets))
    }

    /// A number that counts up from one; zero for none.
    fn number(&mut self) -> Result<u64, StoreError> {
        Ok(self.read(|number: i64| u64::try_from(number).ok())?.unwrap_or(0))
    }

    fn challenge_id(&mut self) -> Result<ChallengeId, StoreError> {
        let id = self.octets()?.map(ChallengeId);
        self.required(id)
    }

    fn id(&mut self) -> Result<DeviceId, StoreError> {
        let id = self.device_id()?;
        self.required(id)
    }

    fn status(&mut self) -> Result<Option<Status>, StoreError> {
        self.read(|code: &str| Status::from_code(code))
    }
}

fn endorsement(columns: &mut Columns<'_>) -> Result<Endorsement, StoreError> {
    let ek = columns.ek()?;
    let source = columns.read(|code: &str| Source::from_code(code))?;
    let source = columns.required(source)?;
    let chain = columns.read(|octets: &[u8]| elements(octets).map(owned))?;
    Ok(Endorsement { ek, source, chain: columns.required(chain)?, kind: kind(columns)? })
}

fn owned(certificates: Vec<&[u8]>) -> Vec<Vec<u8>> {
    certificates.into_iter().map(<[u8]>::to_vec).collect()
}

fn kind(columns: &mut Columns<'_>) -> Result<Option<TpmKind>, StoreError> {
    let texts: [Option<String>; 3] = [columns.take()?, columns.take()?, columns.take()?];
    let is_virtual: Option<bool> = columns.take()?;
    let [Some(manufacturer), Some(model), Some(version)] = texts else { return Ok(None) };
    Ok(is_virtual.map(|is_virtual| TpmKind { manufacturer, model, version, is_virtual }))
}

fn ak(columns: &mut Columns<'_>) -> Result<Ak, StoreError> {
    let name = columns.key_name()?;
    Ok(Ak { name: columns.required(name)?, public: columns.take()? })
}

fn evidence(columns: &mut Columns<'_>) -> Result<Evidence, StoreError> {
    let (at, challenge) = (columns.moment()?, columns.challenge_id()?);
    let key = columns.octets()?.map(KeyFingerprint);
    let (key, key_name) = (columns.required(key)?, columns.key_name()?);
    Ok(Evidence {
        at,
        challenge,
        key,
        key_name: columns.required(key_name)?,
        attest: columns.take()?,
        signature: columns.take()?,
        public: columns.take()?,
        clock: TpmClock {
            clock_ms: columns.take::<i64>()?.cast_unsigned(),
            reset_count: columns.take()?,
            restart_count: columns.take()?,
            safe: columns.take()?,
        },
        firmware: columns.take::<i64>()?.cast_unsigned(),
    })
}

fn binding(columns: &mut Columns<'_>) -> Result<Binding, StoreError> {
    let device = columns.id()?;
    let hold = columns.read(|code: &str| Hold::from_code(code))?;
    let hold = columns.required(hold)?;
    let (endorsement, ak) = (endorsement(columns)?, ak(columns)?);
    let proven = Proven { endorsement, ak, evidence: evidence(columns)? };
    let admission = columns.read(|code: &str| Admission::from_code(code))?;
    Ok(Binding {
        device,
        hold,
        proven,
        admission: columns.required(admission)?,
        since: columns.moment()?,
        clone_signs: columns.take::<Option<u32>>()?.zip(columns.time()?),
    })
}

fn challenge(columns: &mut Columns<'_>) -> Result<Challenge, StoreError> {
    let (id, device) = (columns.challenge_id()?, columns.id()?);
    let (endorsement, ak) = (endorsement(columns)?, ak(columns)?);
    let nonce = columns.octets()?;
    Ok(Challenge {
        id,
        device,
        endorsement,
        ak,
        nonce: columns.required(nonce)?,
        secret: columns.octets()?.map(Secret::from_octets),
        created_at: columns.moment()?,
        expires_at: columns.moment()?,
        used_at: columns.time()?,
    })
}

fn known(row: &SqliteRow, first: usize) -> Result<Known, StoreError> {
    let mut columns = Columns::at(row, first, "binding");
    Ok(Known {
        holder: columns.device_id()?.zip(columns.status()?),
        listed_for: columns.device_id()?,
        ak_seen_under: columns.ek_or_none()?,
        disputed_ek: columns.ek_or_none()?,
        disputed_by: columns.device_id()?,
    })
}

fn challenged(row: &SqliteRow) -> Result<(Challenge, Known), StoreError> {
    Ok((challenge(&mut Columns::at(row, KNOWN_LEN, "challenge"))?, known(row, 0)?))
}

fn open(columns: &mut Columns<'_>) -> Result<Open, StoreError> {
    let (id, ak) = (columns.challenge_id()?, columns.key_name()?);
    Ok(Open { id, ak: columns.required(ak)?, created_at: columns.moment()? })
}

fn import_row(columns: &mut Columns<'_>) -> Result<Imported, StoreError> {
    Ok(Imported {
        device: columns.name()?.zip(columns.status()?),
        listed: columns.ek_or_none()?,
        listed_for: columns.device_id()?,
        held_by: columns.device_id()?,
        bound_to: columns.ek_or_none()?,
    })
}

fn conflict(columns: &mut Columns<'_>) -> Result<Conflict, StoreError> {
    let device = columns.id()?;
    let kind = columns.read(|code: &str| ConflictKind::from_code(code))?;
    Ok(Conflict {
        device,
        kind: columns.required(kind)?,
        ek: columns.ek()?,
        claimant: columns.id()?,
        at: columns.moment()?,
    })
}

fn mark(columns: &mut Columns<'_>) -> Result<Mark, StoreError> {
    Ok(Mark { device: columns.id()?, bound: columns.ek_or_none()?, conflicts: columns.take()? })
}
