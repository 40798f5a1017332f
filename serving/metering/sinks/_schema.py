"""The ledger's tables, in steps: a ledger of any earlier version is brought up to the last one.

One text for SQLite and PostgreSQL; `{seq}` is a database's word for a number that counts up. A
step, once released, is never changed: the next change is a further step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from serving.errors import Unavailable

__all__ = ["STEPS", "Run", "migrate"]

# A statement with %s for its values, and the rows it gives.
Run: TypeAlias = Callable[[str, Sequence[object]], list[tuple[Any, ...]]]

STEPS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE usage_event (
            seq {seq},
            id TEXT NOT NULL UNIQUE,
            tenant TEXT NOT NULL,
            key_id TEXT NOT NULL,
            model TEXT NOT NULL,
            task TEXT NOT NULL,
            modality TEXT NOT NULL,
            text_tokens BIGINT NOT NULL,
            image_tokens BIGINT NOT NULL,
            items BIGINT NOT NULL,
            dimensions BIGINT NOT NULL,
            status BIGINT NOT NULL,
            duration_us BIGINT NOT NULL,
            time_us BIGINT NOT NULL
        )""",
        """CREATE TABLE usage_hour (
            hour BIGINT NOT NULL,
            tenant TEXT NOT NULL,
            model TEXT NOT NULL,
            task TEXT NOT NULL,
            modality TEXT NOT NULL,
            requests BIGINT NOT NULL,
            errors BIGINT NOT NULL,
            items BIGINT NOT NULL,
            text_tokens BIGINT NOT NULL,
            image_tokens BIGINT NOT NULL,
            PRIMARY KEY (hour, tenant, model, task, modality)
        )""",
        "CREATE INDEX usage_hour_tenant ON usage_hour (tenant, hour)",
    ),
    (
        """CREATE TABLE usage_export (
            exporter TEXT PRIMARY KEY,
            seq BIGINT NOT NULL DEFAULT 0,
            holder TEXT NOT NULL DEFAULT '',
            held_until BIGINT NOT NULL DEFAULT 0
        )""",
        """CREATE TABLE usage_outbox (
            seq {seq},
            exporter TEXT NOT NULL,
            identifier TEXT NOT NULL,
            kind TEXT NOT NULL,
            tenant TEXT NOT NULL,
            meter TEXT NOT NULL,
            hour BIGINT NOT NULL,
            value BIGINT NOT NULL,
            sent_at BIGINT,
            cancelled BIGINT NOT NULL DEFAULT 0,
            UNIQUE (exporter, kind, identifier)
        )""",
        "CREATE INDEX usage_outbox_slot ON usage_outbox (exporter, meter, tenant, hour)",
        "CREATE INDEX usage_outbox_waiting ON usage_outbox (exporter, seq) WHERE sent_at IS NULL",
    ),
)


def migrate(run: Run, seq: str, steps: Sequence[Sequence[str]] = STEPS) -> None:
    """Bring the tables up to the last step, inside a transaction that nobody else shares.

    Raises `Unavailable` for a ledger that a newer program has changed.
    """
    run("CREATE TABLE IF NOT EXISTS usage_schema (version BIGINT NOT NULL)", ())
    found = run("SELECT version FROM usage_schema", ())
    version = int(found[0][0]) if found else 0
    if version > len(steps):
        raise Unavailable(
            f"the ledger is of version {version} and this program knows {len(steps)}; update it"
        )
    for step in steps[version:]:
        for statement in step:
            run(statement.format(seq=seq), ())
    if not found:
        run("INSERT INTO usage_schema (version) VALUES (%s)", (len(steps),))
    elif version < len(steps):
        run("UPDATE usage_schema SET version = %s", (len(steps),))
