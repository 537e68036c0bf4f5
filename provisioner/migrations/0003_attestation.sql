-- Endorsement keys (EK) are named by the SHA-256 of their canonical SubjectPublicKeyInfo, attestation
-- keys (AK) and device keys by their TPM Name. Chains are certificates in DER, one behind the other.
-- clock_ms and firmware are 64 bits without a sign, kept as the integer of the same bits.

-- Whose certificates vouch for an endorsement key. Numbers are never used again: count and greatest
-- number together name one set of roots.
CREATE TABLE ek_root (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    fingerprint BLOB NOT NULL UNIQUE,
    der         BLOB NOT NULL,
    added_at    INTEGER NOT NULL
) STRICT;

-- Endorsement keys that an operator vouches for, each for one device, and one for each device.
CREATE TABLE ek_listed (
    ek        BLOB PRIMARY KEY,
    device    TEXT NOT NULL UNIQUE,
    listed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- An attestation key has lived beside one endorsement key, and no other, ever.
CREATE TABLE ak (
    name     BLOB PRIMARY KEY,
    ek       BLOB NOT NULL,
    first_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE challenge (
    number       INTEGER PRIMARY KEY,
    id           BLOB NOT NULL UNIQUE,
    device       TEXT NOT NULL,
    ek           BLOB NOT NULL,
    source       TEXT NOT NULL,
    chain        BLOB NOT NULL,
    manufacturer TEXT,
    model        TEXT,
    version      TEXT,
    is_virtual   INTEGER,
    ak_name      BLOB NOT NULL,
    ak_public    BLOB NOT NULL,
    nonce        BLOB NOT NULL,
    secret       BLOB,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    used_at      INTEGER
) STRICT;

CREATE INDEX challenge_of_ek ON challenge (ek);
CREATE INDEX challenge_until ON challenge (expires_at, used_at);

-- The TPM of a device, with its last evidence: bound, or waiting for an operator.
CREATE TABLE binding (
    number        INTEGER PRIMARY KEY,
    device        TEXT NOT NULL,
    hold          TEXT NOT NULL,
    ek            BLOB NOT NULL,
    source        TEXT NOT NULL,
    chain         BLOB NOT NULL,
    manufacturer  TEXT,
    model         TEXT,
    version       TEXT,
    is_virtual    INTEGER,
    ak_name       BLOB NOT NULL,
    ak_public     BLOB NOT NULL,
    evidence_at   INTEGER NOT NULL,
    challenge     BLOB NOT NULL,
    key           BLOB NOT NULL,
    key_name      BLOB NOT NULL,
    attest        BLOB NOT NULL,
    signature     BLOB NOT NULL,
    public        BLOB NOT NULL,
    clock_ms      INTEGER NOT NULL,
    reset_count   INTEGER NOT NULL,
    restart_count INTEGER NOT NULL,
    safe          INTEGER NOT NULL,
    firmware      INTEGER NOT NULL,
    admission     TEXT NOT NULL,
    since         INTEGER NOT NULL,
    clone_signs   INTEGER,
    clone_sign_at INTEGER,
    UNIQUE (device, hold)
) STRICT;

-- A TPM is bound to one device.
CREATE UNIQUE INDEX binding_of_ek ON binding (ek) WHERE hold = 'bound';

-- What contradicts a binding and waits for an operator.
CREATE TABLE conflict (
    device   TEXT NOT NULL,
    kind     TEXT NOT NULL,
    ek       BLOB NOT NULL,
    claimant TEXT NOT NULL,
    at       INTEGER NOT NULL,
    PRIMARY KEY (device, kind)
) STRICT, WITHOUT ROWID;
