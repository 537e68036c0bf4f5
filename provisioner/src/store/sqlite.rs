//! The store on SQLite: write-ahead log, synchronous=FULL, one writer that commits in groups.
//!
//! **What it is.** Transactions queue for one writer. It takes every one that waits, up to
//! [`GROUP_LEN_MAX`], decides and applies them in order inside one SQLite transaction, commits,
//! and only then answers them all. One disk sync thus serves as many callers as came while the
//! last one ran: under load the sync is shared, without load nobody waits for company.
//!
//! **What it must never do.** Answer before the commit; let one transaction see half of another;
//! let one that fails take its neighbours along.
//!
//! **Why that is sound.** Within a group the decisions run one after the other, each on what those
//! before it wrote, which is a serial order. If one of them cannot be applied, the whole group is
//! rolled back and each is decided again in a transaction of its own: decisions are pure functions
//! of their views, and nobody has been told anything yet. Other processes (the command line beside
//! the service) write through SQLite's own lock: `BEGIN IMMEDIATE` waits [`BUSY_S_MAX`] for it.

use std::{
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use fleetcert_core::{device_id::DeviceId, time::Wall};
use smol::{
    channel::{Receiver, Sender, bounded},
    lock::Mutex,
};
use sqlx::{
    ConnectOptions, Connection, SqlSafeStr, SqliteConnection,
    migrate::{Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use super::{
    Change, Committed, Mark, PAGE_LEN_MAX, Reserved, Scope, Store, StoreError, StoredCertificate,
    TpmRecord, Verdict, View,
};
use crate::{audit, inventory::Device};

mod read;
mod write;

/// Transactions that share one commit, at most: at this size the sync is a hundredth of the work.
pub const GROUP_LEN_MAX: usize = 128;

/// Transactions that may wait for the writer; beyond that their callers wait to be let in.
const QUEUE_LEN_MAX: usize = 1_024;

/// How long another process may keep the database locked, seconds.
pub const BUSY_S_MAX: u64 = 5;

/// Connections for reading.
const READERS: usize = 2;

/// Each once, in this order; what is released is never changed.
const MIGRATIONS: [(&str, &str); 3] = [
    ("initial", include_str!("../../migrations/0001_initial.sql")),
    ("pending", include_str!("../../migrations/0002_pending.sql")),
    ("attestation", include_str!("../../migrations/0003_attestation.sql")),
];

/// Memory of each connection's page cache, KiB.
const CACHE_KIB: u32 = 1_024;

/// A store in one file, beside its write-ahead log. Clones share it.
#[derive(Clone)]
pub struct SqliteStore {
    jobs: Sender<Box<dyn Job>>,
    readers: Arc<[Mutex<SqliteConnection>; READERS]>,
    next_reader: Arc<AtomicUsize>,
    commits: Arc<AtomicU64>,
    stopped: Receiver<()>,
}

/// A transaction on its way through the writer, its types erased.
trait Job: Send {
    fn scope(&self) -> &Scope;
    /// Asks the decision, keeps its outcome, and returns what it changes.
    fn decide(&mut self, view: &View) -> Effects;
    /// Answers the caller.
    fn settle(self: Box<Self>, result: Result<Option<Reserved>, StoreError>);
}

/// What a decision changes.
struct Effects {
    certificate: Option<StoredCertificate>,
    changes: Vec<Change>,
    audit: Vec<audit::Entry>,
}

struct Transaction<T, D> {
    scope: Scope,
    decide: D,
    outcome: Option<T>,
    answer: Sender<Result<Committed<T>, StoreError>>,
}

impl<T: Send, D: Fn(&View) -> Verdict<T> + Send> Job for Transaction<T, D> {
    fn scope(&self) -> &Scope {
        &self.scope
    }

    fn decide(&mut self, view: &View) -> Effects {
        let Verdict { reserve, changes, audit, outcome } = (self.decide)(view);
        self.outcome = Some(outcome);
        Effects { certificate: reserve.map(super::Prepared::into_row), changes, audit }
    }

    fn settle(self: Box<Self>, result: Result<Option<Reserved>, StoreError>) {
        let Self { outcome, answer, .. } = *self;
        let committed = result.and_then(|reserved| {
            let outcome = outcome.ok_or(StoreError::Closed)?;
            Ok(Committed { reserved, outcome })
        });
        // A caller that has gone away does not undo what is committed.
        let _ = answer.try_send(committed);
    }
}

impl SqliteStore {
    /// Opens the database at `path`, creates it (mode 0600) if it is not there, and brings its
    /// schema up to this release.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the file cannot be used; [`StoreError::Corrupt`] if its schema is not
    /// one that this release knows.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        create(path)?;
        let mut writer = connect(path, false).await?;
        migrate(&mut writer).await?;
        let readers =
            [Mutex::new(connect(path, true).await?), Mutex::new(connect(path, true).await?)];
        let (jobs, queue) = bounded(QUEUE_LEN_MAX);
        let (running, stopped) = bounded(1);
        let commits = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&commits);
        let work = move || {
            // Not smol's, which also waits for sockets: this thread would take them from those that
            // serve, and each of its wake-ups would be theirs.
            futures_lite::future::block_on(serve(writer, queue, &counter));
            drop(running);
        };
        let thread = thread::Builder::new().name("store-writer".into()).spawn(work);
        thread.map_err(|error| StoreError::Io { cause: error.to_string() })?;
        let readers = Arc::new(readers);
        Ok(Self { jobs, readers, next_reader: Arc::default(), commits, stopped })
    }

    /// Waits until everything that was accepted is durable, and closes the file. Clones of this
    /// store answer [`StoreError::Closed`] to writes from then on.
    pub async fn close(&self) {
        self.jobs.close();
        // The writer drops its end, and sends nothing, when it has closed its connection.
        let _ = self.stopped.recv().await;
    }

    /// How many commits there were since the store was opened; each cost one disk sync.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    async fn reader(&self) -> smol::lock::MutexGuard<'_, SqliteConnection> {
        let turn = self.next_reader.fetch_add(1, Ordering::Relaxed);
        self.readers[turn % READERS].lock().await
    }
}

impl Store for SqliteStore {
    async fn transact<T, D>(&self, scope: Scope, decide: D) -> Result<Committed<T>, StoreError>
    where
        T: Send + 'static,
        D: Fn(&View) -> Verdict<T> + Send + 'static,
    {
        let (answer, answered) = bounded(1);
        let job = Box::new(Transaction { scope, decide, outcome: None, answer });
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        answered.recv().await.map_err(|_| StoreError::Closed)?
    }

    async fn view(&self, scope: Scope) -> Result<View, StoreError> {
        let mut connection = self.reader().await;
        // One statement is a snapshot of its own; only these take several.
        if scope.crl.is_none() && !scope.pending && scope.tpm.is_empty() {
            return read::view(&mut connection, &scope).await;
        }
        let mut snapshot = connection.begin().await.map_err(sql_error)?;
        let view = read::view(&mut snapshot, &scope).await?;
        snapshot.rollback().await.map_err(sql_error)?;
        Ok(view)
    }

    async fn devices(
        &self,
        after: Option<DeviceId>,
        limit: u32,
    ) -> Result<Vec<Device>, StoreError> {
        let mut connection = self.reader().await;
        read::devices(&mut connection, after.as_ref(), limit.min(PAGE_LEN_MAX)).await
    }

    async fn certificates(
        &self,
        device: DeviceId,
        limit: u32,
    ) -> Result<Vec<StoredCertificate>, StoreError> {
        let mut connection = self.reader().await;
        read::certificates(&mut connection, &device, limit.min(PAGE_LEN_MAX)).await
    }

    async fn newest(&self) -> Result<Option<Wall>, StoreError> {
        let mut connection = self.reader().await;
        read::newest(&mut connection).await
    }

    async fn tpm(&self, device: DeviceId) -> Result<TpmRecord, StoreError> {
        let mut connection = self.reader().await;
        let mut snapshot = connection.begin().await.map_err(sql_error)?;
        let record = read::tpm::record(&mut snapshot, &device).await?;
        snapshot.rollback().await.map_err(sql_error)?;
        Ok(record)
    }

    async fn marks(&self, after: Option<DeviceId>, limit: u32) -> Result<Vec<Mark>, StoreError> {
        let mut connection = self.reader().await;
        read::tpm::marks(&mut connection, after.as_ref(), limit.min(PAGE_LEN_MAX)).await
    }

    async fn audit(&self, after: u64, limit: u32) -> Result<Vec<audit::Row>, StoreError> {
        let mut connection = self.reader().await;
        read::audit(&mut connection, after, limit.min(PAGE_LEN_MAX)).await
    }
}

/// Makes the file before SQLite does, so that nobody else can read it for a moment.
fn create(path: &Path) -> Result<(), StoreError> {
    let mut options = OpenOptions::new();
    let created = options.create(true).truncate(false).write(true).mode(0o600).open(path);
    created.map(drop).map_err(|error| StoreError::Io { cause: error.to_string() })
}

async fn connect(path: &Path, query_only: bool) -> Result<SqliteConnection, StoreError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(BUSY_S_MAX))
        .pragma("cache_size", format!("-{CACHE_KIB}"))
        .pragma("query_only", if query_only { "ON" } else { "OFF" })
        .disable_statement_logging();
    options.connect().await.map_err(sql_error)
}

async fn migrate(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let migration = |(number, (name, text)): (i64, (&'static str, &'static str))| {
        Migration::new(number, name.into(), MigrationType::Simple, text.into_sql_str(), false)
    };
    let migrator = Migrator::with_migrations((1..).zip(MIGRATIONS).map(migration).collect());
    migrator.run_direct(None, connection, false).await.map_err(|error| match error {
        sqlx::migrate::MigrateError::Execute(error) => sql_error(error),
        sqlx::migrate::MigrateError::ExecuteMigration(error, _) => sql_error(error),
        _ => StoreError::Corrupt { place: "schema version" },
    })
}

/// The writer: until the queue is closed and empty.
async fn serve(
    mut connection: SqliteConnection,
    queue: Receiver<Box<dyn Job>>,
    commits: &AtomicU64,
) {
    while let Ok(first) = queue.recv().await {
        let mut group = vec![first];
        while group.len() < GROUP_LEN_MAX {
            let Ok(next) = queue.try_recv() else { break };
            group.push(next);
        }
        write_group(&mut connection, group, commits).await;
    }
    // The log is in order whether or not the last checkpoint of closing succeeds.
    let _ = connection.close().await;
}

async fn write_group(
    connection: &mut SqliteConnection,
    mut group: Vec<Box<dyn Job>>,
    commits: &AtomicU64,
) {
    match write::commit(connection, &mut group).await {
        Ok(reserved) => {
            commits.fetch_add(1, Ordering::Relaxed);
            settle(group, reserved);
        }
        Err(error) if group.len() == 1 => {
            group.into_iter().for_each(|job| job.settle(Err(error.clone())));
        }
        Err(_) => {
            for job in group {
                Box::pin(write_group(connection, vec![job], commits)).await;
            }
        }
    }
}

fn settle(group: Vec<Box<dyn Job>>, reserved: Vec<Option<Reserved>>) {
    group.into_iter().zip(reserved).for_each(|(job, reserved)| job.settle(Ok(reserved)));
}

/// SQLITE_BUSY and SQLITE_BUSY_SNAPSHOT.
const BUSY_CODES: [&str; 2] = ["5", "517"];

/// How SQLite begins to say which uniqueness was violated.
const UNIQUE_PREFIX: &str = "UNIQUE constraint failed: ";

/// The tables with rows that must be new.
const UNIQUE_TABLES: [&str; 8] =
    ["ak", "binding", "certificate", "challenge", "crl", "ek_listed", "ek_root", "request"];

fn sql_error(error: sqlx::Error) -> StoreError {
    let Some(database) = error.as_database_error() else {
        return StoreError::Io { cause: error.to_string() };
    };
    if database.code().is_some_and(|code| BUSY_CODES.contains(&code.as_ref())) {
        return StoreError::Busy;
    }
    let violated = database.message().strip_prefix(UNIQUE_PREFIX);
    let table = violated.and_then(|violated| {
        let named = |table: &&&str| violated.split('.').next() == Some(**table);
        UNIQUE_TABLES.iter().find(named).copied()
    });
    match table {
        Some(table) => StoreError::Duplicate { table },
        None => StoreError::Io { cause: error.to_string() },
    }
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").finish_non_exhaustive()
    }
}
