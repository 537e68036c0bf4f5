-- Times are seconds since 1970-01-01T00:00:00Z. Serial numbers are DER content octets.

CREATE TABLE device (
    id                   TEXT PRIMARY KEY,
    group_name           TEXT NOT NULL,
    status               TEXT NOT NULL,
    approval_key         BLOB,
    approval_asked_at    INTEGER,
    approval_approved_at INTEGER,
    created_at           INTEGER NOT NULL,
    last_seen_at         INTEGER,
    recovered_at         INTEGER,
    serial               BLOB,
    not_after            INTEGER,
    revoked_at           INTEGER,
    revoked_reason       INTEGER
) STRICT, WITHOUT ROWID;

-- A row is here before its certificate is signed: the serial number is taken from that moment on.
CREATE TABLE certificate (
    number         INTEGER PRIMARY KEY,
    serial         BLOB NOT NULL UNIQUE,
    issuer         BLOB NOT NULL,
    device         TEXT,
    key            BLOB NOT NULL,
    not_before     INTEGER NOT NULL,
    not_after      INTEGER NOT NULL,
    tbs            BLOB NOT NULL,
    revoked_at     INTEGER,
    revoked_reason INTEGER
) STRICT;

CREATE INDEX certificate_of_device ON certificate (device, number) WHERE device IS NOT NULL;
CREATE INDEX certificate_revoked ON certificate (issuer, serial) WHERE revoked_at IS NOT NULL;

CREATE TABLE request (
    device TEXT NOT NULL,
    id     BLOB NOT NULL,
    key    BLOB NOT NULL,
    serial BLOB NOT NULL,
    at     INTEGER NOT NULL,
    PRIMARY KEY (device, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE token (
    hash         BLOB PRIMARY KEY,
    device       TEXT NOT NULL,
    label        TEXT,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    used_at      INTEGER,
    used_request BLOB,
    used_key     BLOB,
    used_serial  BLOB
) STRICT, WITHOUT ROWID;

CREATE TABLE crl (
    issuer      BLOB NOT NULL,
    number      INTEGER NOT NULL,
    this_update INTEGER NOT NULL,
    next_update INTEGER NOT NULL,
    der         BLOB NOT NULL,
    PRIMARY KEY (issuer, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at     INTEGER NOT NULL,
    event  TEXT NOT NULL,
    device TEXT,
    serial BLOB,
    actor  TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;

CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit table is append-only'); END;

CREATE TRIGGER audit_is_not_erased BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit table is append-only'); END;
