"""The tables of `fleet.db`, as the list of steps that lead from one version to the next; `user_version` counts them."""

from __future__ import annotations

_FIRST = """
CREATE TABLE bundles (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  version TEXT NOT NULL,
  manifest_sha256 TEXT NOT NULL,
  manifest_size_bytes INTEGER NOT NULL,
  size_bytes INTEGER NOT NULL,
  description TEXT NOT NULL,
  variants TEXT NOT NULL,
  published_at REAL NOT NULL,
  UNIQUE (name, version)
);
CREATE TABLE bundle_objects (
  bundle_id INTEGER NOT NULL REFERENCES bundles (id),
  sha256 TEXT NOT NULL,
  size_bytes INTEGER NOT NULL,
  PRIMARY KEY (bundle_id, sha256)
) WITHOUT ROWID;
CREATE INDEX bundle_objects_by_digest ON bundle_objects (sha256, size_bytes);
CREATE TABLE devices (
  name TEXT PRIMARY KEY,
  last_seen_at REAL,
  presence_session INTEGER NOT NULL DEFAULT -1,
  online INTEGER NOT NULL DEFAULT 0,
  report_session INTEGER NOT NULL DEFAULT -1,
  report_sequence INTEGER NOT NULL DEFAULT -1,
  report TEXT,
  reported_generation INTEGER NOT NULL DEFAULT 0,
  generation INTEGER NOT NULL DEFAULT 0,
  published_generation INTEGER NOT NULL DEFAULT 0,
  sent_bytes INTEGER NOT NULL DEFAULT 0,
  sent_blocks INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE deployments (
  device TEXT NOT NULL REFERENCES devices (name),
  generation INTEGER NOT NULL,
  bundle_id INTEGER NOT NULL REFERENCES bundles (id),
  variant TEXT,
  issued_at REAL NOT NULL,
  phase TEXT NOT NULL DEFAULT 'queued',
  fetched_bytes INTEGER NOT NULL DEFAULT 0,
  total_bytes INTEGER NOT NULL DEFAULT 0,
  present_bytes INTEGER NOT NULL DEFAULT 0,
  reason_code TEXT,
  reason_message TEXT,
  updated_at REAL NOT NULL,
  PRIMARY KEY (device, generation)
) WITHOUT ROWID;
CREATE TABLE commands (
  command_id TEXT PRIMARY KEY,
  device TEXT NOT NULL REFERENCES devices (name),
  name TEXT NOT NULL,
  arguments TEXT NOT NULL,
  issued_at REAL NOT NULL,
  expires_at REAL,
  answer TEXT,
  answered_at REAL
);
CREATE INDEX commands_unanswered ON commands (issued_at) WHERE answer IS NULL;
CREATE TABLE telemetry (
  id INTEGER PRIMARY KEY,
  device TEXT NOT NULL REFERENCES devices (name),
  boot_id TEXT NOT NULL,
  sequence INTEGER NOT NULL,
  received_at REAL NOT NULL,
  batch TEXT NOT NULL,
  UNIQUE (device, boot_id, sequence)
);
CREATE INDEX telemetry_by_time ON telemetry (received_at);
"""

_SIGNED = """
ALTER TABLE devices ADD COLUMN published_epoch TEXT NOT NULL DEFAULT '';
ALTER TABLE deployments ADD COLUMN downgrade_reason TEXT;
ALTER TABLE deployments ADD COLUMN probation TEXT;
CREATE TABLE audit (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  at REAL NOT NULL,
  actor TEXT NOT NULL,
  action TEXT NOT NULL,
  subject TEXT NOT NULL,
  details TEXT NOT NULL,
  digest TEXT NOT NULL
);
CREATE TRIGGER audit_keeps_rows BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END;
CREATE TRIGGER audit_keeps_values BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END;
"""

_SHARED = """
CREATE TABLE shared_traffic (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  sent_bytes INTEGER NOT NULL DEFAULT 0,
  sent_blocks INTEGER NOT NULL DEFAULT 0
);
INSERT INTO shared_traffic (id) VALUES (1);
"""

_ENROLLED = """
ALTER TABLE devices ADD COLUMN tags TEXT NOT NULL DEFAULT '{}';
CREATE TABLE claims (
  claim_id TEXT PRIMARY KEY,
  secret TEXT NOT NULL,
  created_at REAL NOT NULL,
  expires_at REAL NOT NULL,
  tags TEXT NOT NULL,
  needs_approval INTEGER NOT NULL,
  device TEXT,
  revoked_at REAL,
  request TEXT,
  request_id TEXT,
  key_sha256 TEXT,
  requested_at REAL,
  approved_at REAL,
  answered_at REAL,
  contested_at REAL,
  contested_board TEXT
) WITHOUT ROWID;
CREATE TABLE certificates (
  serial TEXT PRIMARY KEY,
  device TEXT NOT NULL,
  claim_id TEXT REFERENCES claims (claim_id),
  key_sha256 TEXT NOT NULL,
  board_id TEXT,
  pem TEXT NOT NULL,
  not_before REAL NOT NULL,
  not_after REAL NOT NULL,
  revoked_at REAL,
  revoked_reason TEXT
) WITHOUT ROWID;
CREATE INDEX certificates_by_device ON certificates (device);
CREATE TABLE boards (
  device TEXT NOT NULL REFERENCES devices (name),
  board_id TEXT NOT NULL,
  first_seen_at REAL NOT NULL,
  last_seen_at REAL NOT NULL,
  returns INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (device, board_id)
) WITHOUT ROWID;
"""

MIGRATIONS: tuple[str, ...] = (_FIRST, _SIGNED, _SHARED, _ENROLLED)
"""Step n leads from version n to n + 1. A step that was released is never changed."""
