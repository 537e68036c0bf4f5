//! Rows to values. What cannot be understood is an error with its place, never a guess.

use fleetcert_core::{
    device_id::DeviceId,
    time::{Validity, Wall},
};
use sqlx::{Decode, Row, Sqlite, SqliteConnection, Type, sqlite::SqliteRow};

use super::{StoreError, sql_error};
use crate::{
    audit::{self, Actor, Event},
    authority::{Crl, KeyFingerprint, KeyId, Revocation, RevocationReason, Serial},
    inventory::{Approval, Device, Name, Status},
    store::{EnrollmentRequest, NEWEST_LEN, Scope, StoredCertificate, View},
    token::{Token, TokenHash, Use},
};

pub(super) mod tpm;

/// Everything but TPMs and the CRL, in one row and one round trip. The first column of each table tells
/// whether it has a row at all.
macro_rules! view {
    () => {
        "SELECT \
        d.id, d.group_name, d.status, d.approval_key, d.approval_asked_at, d.approval_approved_at, \
        d.created_at, d.last_seen_at, d.recovered_at, d.serial, d.not_after, d.revoked_at, \
        d.revoked_reason, \
        r.device, r.id, r.key, r.serial, r.at, \
        rc.serial, rc.issuer, rc.device, rc.key, rc.not_before, rc.not_after, rc.tbs, rc.revoked_at, \
        rc.revoked_reason, \
        t.hash, t.device, t.label, t.created_at, t.expires_at, t.used_at, t.used_request, t.used_key, \
        t.used_serial, \
        c.serial, c.issuer, c.device, c.key, c.not_before, c.not_after, c.tbs, c.revoked_at, \
        c.revoked_reason \
        FROM (SELECT 1) \
        LEFT JOIN device d ON d.id = ? \
        LEFT JOIN request r ON r.device = ? AND r.id = ? \
        LEFT JOIN certificate rc ON rc.serial = r.serial \
        LEFT JOIN token t ON t.hash = ? \
        LEFT JOIN certificate c ON c.serial = ?"
    };
}

const VIEW: &str = view!();

/// [`VIEW`] as the first look of a transaction that will write: one round trip for both.
const BEGIN_AND_VIEW: &str = concat!("BEGIN IMMEDIATE; ", view!());

/// Where each table begins in [`VIEW`].
const DEVICE: usize = 0;
const REQUEST: usize = 13;
const REQUEST_CERTIFICATE: usize = 18;
const TOKEN: usize = 27;
const CERTIFICATE: usize = 36;

const PENDING: &str = "SELECT COUNT(*) FROM device WHERE status = 'pending'";

const CRL: &str = "SELECT number, this_update, next_update, der FROM crl WHERE issuer = ? \
    ORDER BY number DESC LIMIT 1";

const REVOKED: &str = "SELECT serial, revoked_at, revoked_reason, not_after FROM certificate \
    WHERE issuer = ? AND revoked_at IS NOT NULL AND not_after >= ? ORDER BY serial";

const DEVICES: &str = "SELECT id, group_name, status, approval_key, approval_asked_at, \
    approval_approved_at, created_at, last_seen_at, recovered_at, serial, not_after, revoked_at, \
    revoked_reason FROM device WHERE id > ? ORDER BY id LIMIT ?";

const CERTIFICATES: &str = "SELECT serial, issuer, device, key, not_before, not_after, tbs, \
    revoked_at, revoked_reason FROM certificate WHERE device = ? ORDER BY number DESC LIMIT ?";

const NEWEST: &str = "SELECT MAX(not_before) FROM \
    (SELECT not_before FROM certificate ORDER BY number DESC LIMIT ?)";

const AUDIT: &str = "SELECT number, at, event, device, serial, actor, detail FROM audit \
    WHERE number > ? ORDER BY number LIMIT ?";

pub(super) async fn view(
    connection: &mut SqliteConnection,
    scope: &Scope,
) -> Result<View, StoreError> {
    view_by(connection, VIEW, scope).await
}

/// Begins a transaction that will write, and takes its first look.
pub(super) async fn begin_and_view(
    connection: &mut SqliteConnection,
    scope: &Scope,
) -> Result<View, StoreError> {
    view_by(connection, BEGIN_AND_VIEW, scope).await
}

async fn view_by(
    connection: &mut SqliteConnection,
    text: &'static str,
    scope: &Scope,
) -> Result<View, StoreError> {
    let request = scope.request.as_ref();
    let row = sqlx::query(text)
        .bind(scope.device.as_ref().map(DeviceId::as_str))
        .bind(request.map(|(device, _)| device.as_str()))
        .bind(request.map(|(_, id)| id.as_slice()))
        .bind(scope.token.as_ref().map(|hash| hash.0.as_slice()))
        .bind(scope.certificate.as_ref().map(Serial::as_octets))
        .fetch_one(&mut *connection)
        .await
        .map_err(sql_error)?;
    let mut view = View {
        device: Columns::at(&row, DEVICE, "device").optional(device)?,
        request: Columns::at(&row, REQUEST, "request").optional(enrollment_request)?,
        request_certificate: Columns::at(&row, REQUEST_CERTIFICATE, "certificate")
            .optional(certificate)?,
        token: Columns::at(&row, TOKEN, "token").optional(token)?,
        certificate: Columns::at(&row, CERTIFICATE, "certificate").optional(certificate)?,
        ..View::default()
    };
    if scope.pending {
        let row = sqlx::query(PENDING).fetch_one(&mut *connection).await.map_err(sql_error)?;
        view.pending = Columns::at(&row, 0, "device").take()?;
    }
    if let Some(issuer) = scope.crl {
        (view.crl, view.revoked) = revocations(connection, issuer).await?;
    }
    view.tpm = tpm::view(connection, &scope.tpm).await?;
    Ok(view)
}

async fn revocations(
    connection: &mut SqliteConnection,
    issuer: KeyId,
) -> Result<(Option<Crl>, Vec<Revocation>), StoreError> {
    let newest = sqlx::query(CRL).bind(issuer.0.as_slice());
    let newest = newest.fetch_optional(&mut *connection).await.map_err(sql_error)?;
    let newest = newest.map(|row| crl(Columns::at(&row, 0, "crl"), issuer)).transpose()?;
    let since = newest.as_ref().map_or(0, |crl| crl.this_update.0);
    let lines = sqlx::query(REVOKED)
        .bind(issuer.0.as_slice())
        .bind(i64::try_from(since).unwrap_or(i64::MAX))
        .fetch_all(connection)
        .await
        .map_err(sql_error)?;
    let lines = lines.iter().map(|row| revocation(Columns::at(row, 0, "certificate")));
    Ok((newest, lines.collect::<Result<_, _>>()?))
}

pub(super) async fn devices(
    connection: &mut SqliteConnection,
    after: Option<&DeviceId>,
    limit: u32,
) -> Result<Vec<Device>, StoreError> {
    let query = sqlx::query(DEVICES).bind(after.map_or("", DeviceId::as_str)).bind(limit);
    let rows = query.fetch_all(connection).await.map_err(sql_error)?;
    rows.iter().map(|row| device(&mut Columns::at(row, 0, "device"))).collect()
}

pub(super) async fn certificates(
    connection: &mut SqliteConnection,
    device: &DeviceId,
    limit: u32,
) -> Result<Vec<StoredCertificate>, StoreError> {
    let query = sqlx::query(CERTIFICATES).bind(device.as_str()).bind(limit);
    let rows = query.fetch_all(connection).await.map_err(sql_error)?;
    rows.iter().map(|row| certificate(&mut Columns::at(row, 0, "certificate"))).collect()
}

pub(super) async fn newest(connection: &mut SqliteConnection) -> Result<Option<Wall>, StoreError> {
    let row = sqlx::query(NEWEST).bind(NEWEST_LEN).fetch_one(connection).await;
    let row = row.map_err(sql_error)?;
    Columns::at(&row, 0, "certificate").time()
}

pub(super) async fn audit(
    connection: &mut SqliteConnection,
    after: u64,
    limit: u32,
) -> Result<Vec<audit::Row>, StoreError> {
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let rows = sqlx::query(AUDIT).bind(after).bind(limit).fetch_all(connection).await;
    let rows = rows.map_err(sql_error)?;
    rows.iter().map(|row| audit_row(&mut Columns::at(row, 0, "audit"))).collect()
}

/// The columns of a row from one of them on, to be taken in their order.
struct Columns<'a> {
    row: &'a SqliteRow,
    next: usize,
    table: &'static str,
}

impl<'a> Columns<'a> {
    const fn at(row: &'a SqliteRow, next: usize, table: &'static str) -> Self {
        Self { row, next, table }
    }

    const fn corrupt(&self) -> StoreError {
        StoreError::Corrupt { place: self.table }
    }

    /// What `read` makes of the columns, unless the first of them is NULL: no row was joined.
    fn optional<V>(
        mut self,
        read: impl FnOnce(&mut Self) -> Result<V, StoreError>,
    ) -> Result<Option<V>, StoreError> {
        let first = self.row.try_get_raw(self.next).map_err(sql_error)?;
        if sqlx::ValueRef::is_null(&first) { Ok(None) } else { read(&mut self).map(Some) }
    }

    fn take<V>(&mut self) -> Result<V, StoreError>
    where
        V: Decode<'a, Sqlite> + Type<Sqlite>,
    {
        let value = self.row.try_get(self.next).map_err(|_| self.corrupt());
        self.next += 1;
        value
    }

    /// A column that `read` has to understand if it is not NULL.
    fn read<R, V>(&mut self, read: impl FnOnce(R) -> Option<V>) -> Result<Option<V>, StoreError>
    where
        R: Decode<'a, Sqlite> + Type<Sqlite>,
    {
        let Some(raw) = self.take::<Option<R>>()? else { return Ok(None) };
        read(raw).map(Some).ok_or_else(|| self.corrupt())
    }

    fn required<V>(&self, value: Option<V>) -> Result<V, StoreError> {
        value.ok_or_else(|| self.corrupt())
    }

    fn time(&mut self) -> Result<Option<Wall>, StoreError> {
        self.read(|seconds: i64| u64::try_from(seconds).ok().map(Wall))
    }

    fn moment(&mut self) -> Result<Wall, StoreError> {
        let time = self.time()?;
        self.required(time)
    }

    fn octets<const N: usize>(&mut self) -> Result<Option<[u8; N]>, StoreError> {
        self.read(|octets: &[u8]| octets.try_into().ok())
    }

    fn key(&mut self) -> Result<KeyFingerprint, StoreError> {
        let octets = self.octets()?;
        self.required(octets.map(KeyFingerprint))
    }

    fn serial(&mut self) -> Result<Option<Serial>, StoreError> {
        self.read(|octets: &[u8]| Serial::from_octets(octets).ok())
    }

    fn device_id(&mut self) -> Result<Option<DeviceId>, StoreError> {
        self.read(|text: &str| DeviceId::parse(text).ok())
    }

    fn name(&mut self) -> Result<Option<Name>, StoreError> {
        self.read(|text: &str| Name::parse(text).ok())
    }

    fn reason(&mut self) -> Result<Option<RevocationReason>, StoreError> {
        self.read(|code: i64| RevocationReason::from_code(u8::try_from(code).ok()?))
    }

    fn revocation(&mut self) -> Result<Option<(Wall, RevocationReason)>, StoreError> {
        Ok(self.time()?.zip(self.reason()?))
    }
}

fn device(columns: &mut Columns<'_>) -> Result<Device, StoreError> {
    let (id, group) = (columns.device_id()?, columns.name()?);
    let status = columns.read(|code: &str| Status::from_code(code))?;
    Ok(Device {
        id: columns.required(id)?,
        group: columns.required(group)?,
        status: columns.required(status)?,
        approval: approval(columns)?,
        created_at: columns.moment()?,
        last_seen_at: columns.time()?,
        recovered_at: columns.time()?,
        serial: columns.serial()?,
        not_after: columns.time()?,
        revoked: columns.revocation()?,
    })
}

fn approval(columns: &mut Columns<'_>) -> Result<Option<Approval>, StoreError> {
    let key = columns.octets()?.map(KeyFingerprint);
    let (asked_at, approved_at) = (columns.time()?, columns.time()?);
    Ok(key.zip(asked_at).map(|(key, asked_at)| Approval { key, asked_at, approved_at }))
}

fn enrollment_request(columns: &mut Columns<'_>) -> Result<EnrollmentRequest, StoreError> {
    let (device, id, key) = (columns.device_id()?, columns.octets()?, columns.key()?);
    let serial = columns.serial()?;
    Ok(EnrollmentRequest {
        device: columns.required(device)?,
        id: columns.required(id)?,
        key,
        serial: columns.required(serial)?,
        at: columns.moment()?,
    })
}

fn certificate(columns: &mut Columns<'_>) -> Result<StoredCertificate, StoreError> {
    let (serial, issuer) = (columns.serial()?, columns.octets()?.map(KeyId));
    Ok(StoredCertificate {
        serial: columns.required(serial)?,
        issuer: columns.required(issuer)?,
        device: columns.device_id()?,
        key: columns.key()?,
        validity: Validity { not_before: columns.moment()?, not_after: columns.moment()? },
        tbs: columns.take()?,
        revoked: columns.revocation()?,
    })
}

fn token(columns: &mut Columns<'_>) -> Result<Token, StoreError> {
    let (hash, device) = (columns.octets()?.map(TokenHash), columns.device_id()?);
    Ok(Token {
        hash: columns.required(hash)?,
        device: columns.required(device)?,
        label: columns.name()?,
        created_at: columns.moment()?,
        expires_at: columns.moment()?,
        used: token_use(columns)?,
    })
}

fn token_use(columns: &mut Columns<'_>) -> Result<Option<Use>, StoreError> {
    let (at, request) = (columns.time()?, columns.octets()?);
    let (key, serial) = (columns.octets()?.map(KeyFingerprint), columns.serial()?);
    let used = at.zip(key).zip(serial);
    Ok(used.map(|((at, key), serial)| Use { at, request, key, serial }))
}

fn crl(mut columns: Columns<'_>, issuer: KeyId) -> Result<Crl, StoreError> {
    let number = columns.read(|number: i64| u64::try_from(number).ok())?;
    Ok(Crl {
        issuer,
        number: columns.required(number)?,
        this_update: columns.moment()?,
        next_update: columns.moment()?,
        der: columns.take()?,
    })
}

fn revocation(mut columns: Columns<'_>) -> Result<Revocation, StoreError> {
    let (serial, at, reason) = (columns.serial()?, columns.moment()?, columns.reason()?);
    Ok(Revocation {
        serial: columns.required(serial)?,
        at,
        reason: columns.required(reason)?,
        not_after: columns.moment()?,
    })
}

fn audit_row(columns: &mut Columns<'_>) -> Result<audit::Row, StoreError> {
    let number = columns.read(|number: i64| u64::try_from(number).ok())?;
    let number = columns.required(number)?;
    let at = columns.moment()?;
    let event = columns.read(|code: &str| Event::from_code(code))?;
    let event = columns.required(event)?;
    let (device, serial) = (columns.device_id()?, columns.serial()?);
    let actor = columns.read(|text: &str| Actor::parse(text))?;
    let actor = columns.required(actor)?;
    let entry = audit::Entry { at, event, device, serial, actor, detail: columns.take()? };
    Ok(audit::Row { number, entry })
}
