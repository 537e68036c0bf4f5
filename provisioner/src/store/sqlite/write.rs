//! Verdicts to rows: every change of one transaction in one round trip.

use std::mem;

use fleetcert_core::time::Wall;
use sqlx::{
    Arguments, AssertSqlSafe, Encode, Executor, Sqlite, SqliteConnection, Type,
    sqlite::SqliteArguments,
};

use super::{Effects, Job, Reserved, StoreError, read, sql_error};
use crate::{
    audit,
    authority::Crl,
    inventory::Device,
    store::{Change, EnrollmentRequest, StoredCertificate},
    token::Token,
};

mod tpm;

const ADD_CERTIFICATE: &str = "INSERT INTO certificate \
    (serial, issuer, device, key, not_before, not_after, tbs) VALUES (?, ?, ?, ?, ?, ?, ?);";

const ADD_CRL: &str =
    "INSERT INTO crl (issuer, number, this_update, next_update, der) VALUES (?, ?, ?, ?, ?);";

const ADD_REQUEST: &str =
    "INSERT INTO request (device, id, key, serial, at) VALUES (?, ?, ?, ?, ?);";

/// Followed by as many [`AUDIT_ROW`] as there are entries, between commas.
const ADD_AUDIT: &str = "INSERT INTO audit (at, event, device, serial, actor, detail) VALUES ";

const AUDIT_ROW: &str = "(?, ?, ?, ?, ?, ?)";

/// Rows of one such statement: SQLite binds 32766 values to one at most.
const AUDIT_ROWS_MAX: usize = 1_000;

/// Octets of text from which a batch does not grow on; an enrollment takes some 2000.
const TEXT_LEN_LONG: usize = 16 * 1024;

const PUT_DEVICE: &str = "INSERT OR REPLACE INTO device \
    (id, group_name, status, approval_key, approval_asked_at, approval_approved_at, created_at, \
     last_seen_at, recovered_at, serial, not_after, revoked_at, revoked_reason) \
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);";

const PUT_TOKEN: &str = "INSERT OR REPLACE INTO token \
    (hash, device, label, created_at, expires_at, used_at, used_request, used_key, used_serial) \
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?);";

const REVOKE_CERTIFICATE: &str = "UPDATE certificate SET revoked_at = ?, revoked_reason = ? \
    WHERE serial = ? AND revoked_at IS NULL;";

const REVOKE_DEVICE: &str = "UPDATE certificate SET revoked_at = ?, revoked_reason = ? \
    WHERE device = ? AND not_after >= ? AND revoked_at IS NULL;";

/// Decides and applies a group in one transaction; rolls all of it back if any of it fails.
pub(super) async fn commit(
    connection: &mut SqliteConnection,
    group: &mut [Box<dyn Job>],
) -> Result<Vec<Option<Reserved>>, StoreError> {
    match apply_all(connection, group).await {
        Ok(reserved) => Ok(reserved),
        Err(error) => Err(rolled_back(connection, error).await),
    }
}

/// Ends the transaction, if there is one: it may not have begun, or SQLite has ended it itself.
async fn rolled_back(connection: &mut SqliteConnection, error: StoreError) -> StoreError {
    let _ = connection.execute("ROLLBACK").await;
    error
}

/// A connection lives on a thread of its own, and each call costs two changes of thread. The
/// transaction therefore begins with the first look and is committed with the last rows.
async fn apply_all(
    connection: &mut SqliteConnection,
    group: &mut [Box<dyn Job>],
) -> Result<Vec<Option<Reserved>>, StoreError> {
    let mut reserved = Vec::with_capacity(group.len());
    let last = group.len().saturating_sub(1);
    for (place, job) in group.iter_mut().enumerate() {
        let view = match place {
            0 => read::begin_and_view(connection, job.scope()).await?,
            _ => read::view(connection, job.scope()).await?,
        };
        let Effects { certificate, changes, audit } = job.decide(&view);
        let mut batch = Batch::default();
        certificate.iter().for_each(|row| batch.certificate(row));
        for change in &changes {
            batch.change(change);
            batch.execute_if_long(connection).await?;
        }
        for entries in audit.chunks(AUDIT_ROWS_MAX) {
            batch.audit(entries);
            batch.execute_if_long(connection).await?;
        }
        if place == last {
            batch.statement("COMMIT;");
        }
        batch.execute(connection).await?;
        reserved.push(certificate.map(Reserved::by_store));
    }
    Ok(reserved)
}

/// Statements in a row with the values for all of them.
#[derive(Default)]
struct Batch {
    text: String,
    values: SqliteArguments,
    refused: Option<sqlx::Error>,
}

impl Batch {
    async fn execute(self, connection: &mut SqliteConnection) -> Result<(), StoreError> {
        if let Some(error) = self.refused {
            return Err(sql_error(error));
        }
        if self.text.is_empty() {
            return Ok(());
        }
        // The text is made of the constants above; every value is bound.
        let query = sqlx::query_with(AssertSqlSafe(self.text), self.values);
        query.execute(connection).await.map(drop).map_err(sql_error)
    }

    /// SQLite looks at all the text that is left for each statement of it, so a long one takes its
    /// square; an enrollment is never long.
    async fn execute_if_long(
        &mut self,
        connection: &mut SqliteConnection,
    ) -> Result<(), StoreError> {
        if self.text.len() < TEXT_LEN_LONG {
            return Ok(());
        }
        mem::take(self).execute(connection).await
    }

    fn statement(&mut self, text: &'static str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    fn value<V>(&mut self, value: V) -> &mut Self
    where
        V: for<'q> Encode<'q, Sqlite> + Type<Sqlite>,
    {
        if let Err(error) = self.values.add(value) {
            self.refused.get_or_insert(sqlx::Error::Encode(error));
        }
        self
    }

    fn octets(&mut self, octets: &[u8]) -> &mut Self {
        self.value(octets.to_vec())
    }

    fn time(&mut self, at: Wall) -> &mut Self {
        self.value(seconds(at))
    }

    fn text_of(&mut self, value: &impl ToString) -> &mut Self {
        self.value(value.to_string())
    }

    fn certificate(&mut self, row: &StoredCertificate) {
        self.statement(ADD_CERTIFICATE)
            .octets(row.serial.as_octets())
            .octets(&row.issuer.0)
            .value(row.device.as_ref().map(ToString::to_string))
            .octets(&row.key.0)
            .time(row.validity.not_before)
            .time(row.validity.not_after)
            .octets(&row.tbs);
    }

    fn change(&mut self, change: &Change) {
        match change {
            Change::Crl(crl) => self.crl(crl),
            Change::Device(device) => self.device(device),
            Change::Request(row) => self.request(row),
            Change::RevokeCertificate { serial, at, reason } => {
                let statement = self.statement(REVOKE_CERTIFICATE).time(*at);
                statement.value(i64::from(reason.code())).octets(serial.as_octets());
            }
            Change::RevokeDevice { device, at, reason } => {
                let statement = self.statement(REVOKE_DEVICE).time(*at);
                statement.value(i64::from(reason.code())).text_of(device).time(*at);
            }
            Change::Token(token) => self.token(token),
            change => self.tpm_change(change),
        }
    }

    fn crl(&mut self, crl: &Crl) {
        self.statement(ADD_CRL)
            .octets(&crl.issuer.0)
            .value(i64::try_from(crl.number).unwrap_or(i64::MAX))
            .time(crl.this_update)
            .time(crl.next_update)
            .octets(&crl.der);
    }

    fn device(&mut self, device: &Device) {
        let approval = device.approval.as_ref();
        self.statement(PUT_DEVICE)
            .text_of(&device.id)
            .text_of(&device.group)
            .value(device.status.code())
            .value(approval.map(|approval| approval.key.0.to_vec()))
            .value(approval.map(|approval| seconds(approval.asked_at)))
            .value(approval.and_then(|approval| approval.approved_at).map(seconds))
            .time(device.created_at)
            .value(device.last_seen_at.map(seconds))
            .value(device.recovered_at.map(seconds))
            .value(device.serial.map(|serial| serial.as_octets().to_vec()))
            .value(device.not_after.map(seconds))
            .value(device.revoked.map(|(at, _)| seconds(at)))
            .value(device.revoked.map(|(_, reason)| i64::from(reason.code())));
    }

    fn request(&mut self, row: &EnrollmentRequest) {
        self.statement(ADD_REQUEST)
            .text_of(&row.device)
            .octets(&row.id)
            .octets(&row.key.0)
            .octets(row.serial.as_octets())
            .time(row.at);
    }

    fn token(&mut self, token: &Token) {
        let used = token.used.as_ref();
        self.statement(PUT_TOKEN)
            .octets(&token.hash.0)
            .text_of(&token.device)
            .value(token.label.as_ref().map(ToString::to_string))
            .time(token.created_at)
            .time(token.expires_at)
            .value(used.map(|used| seconds(used.at)))
            .value(used.and_then(|used| used.request).map(|id| id.to_vec()))
            .value(used.map(|used| used.key.0.to_vec()))
            .value(used.map(|used| used.serial.as_octets().to_vec()));
    }

    /// Adds entries, at least one.
    fn audit(&mut self, entries: &[audit::Entry]) {
        for (place, entry) in entries.iter().enumerate() {
            self.statement(if place == 0 { ADD_AUDIT } else { ", " })
                .statement(AUDIT_ROW)
                .time(entry.at)
                .value(entry.event.code())
                .value(entry.device.as_ref().map(ToString::to_string))
                .value(entry.serial.map(|serial| serial.as_octets().to_vec()))
                .text_of(&entry.actor)
                .value(entry.detail.clone());
        }
        self.statement(";");
    }
}

/// A time as SQLite keeps it. What exceeds its integers is past every year that DER can write.
fn seconds(at: Wall) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}
