"""The file: one SQLite database, every change durable before anybody hears of it.

WAL with ``synchronous=FULL``: a commit returns after its fsync. Used from one thread at a time: the keeper's own, or
a command's. Whoever changes the file, ``sidecar outbox`` too, changes the totals with it (triggers), so that limits
hold across processes. What is deleted is overwritten, since it may hold credentials. It knows no loop, no HTTP and
no clock. The counterpart is ``worker``.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from sidecar.core.settings.deployment import OutboxRule
from sidecar.outbox.items import Count, Item, OutboxError, Refusal

__all__ = ["SqliteOutbox"]

APPLICATION_ID: Final = 0x53434F42
"""In the file's header: tells an outbox from any other database."""
VERSION: Final = 2
BUSY_SECONDS: Final = 5.0
"""How long one process waits for another's change to end."""
WAL_BYTES: Final = 16 << 20
"""What the write-ahead log is cut back to after a checkpoint."""

_COLUMNS: Final = (
    "id, upstream, method, target, fields, body, stored_at, begun, tries, note, dead_at, dead_reason, dead_status,"
    " due_at, aside"
)
_SCHEMA: Final = """
CREATE TABLE item (
  position INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, upstream TEXT NOT NULL, method TEXT NOT NULL,
  target BLOB NOT NULL, fields BLOB NOT NULL, body BLOB NOT NULL, bytes INTEGER NOT NULL, stored_at REAL NOT NULL,
  fresh_at REAL NOT NULL, begun INTEGER NOT NULL DEFAULT 0, tries INTEGER NOT NULL DEFAULT 0,
  note TEXT NOT NULL DEFAULT '', dead_at REAL, dead_reason TEXT NOT NULL DEFAULT '', dead_status INTEGER,
  due_at REAL NOT NULL DEFAULT 0, aside INTEGER NOT NULL DEFAULT 0);
CREATE INDEX waiting ON item (upstream, position) WHERE dead_at IS NULL;
CREATE INDEX aging ON item (fresh_at) WHERE dead_at IS NULL;
CREATE INDEX dead ON item (dead_at) WHERE dead_at IS NOT NULL;
CREATE TABLE total (upstream TEXT PRIMARY KEY, waiting INTEGER NOT NULL, dead INTEGER NOT NULL, bytes INTEGER NOT NULL);
CREATE TRIGGER added AFTER INSERT ON item BEGIN
  INSERT OR IGNORE INTO total VALUES (new.upstream, 0, 0, 0);
  UPDATE total SET waiting = waiting + (new.dead_at IS NULL), dead = dead + (new.dead_at IS NOT NULL),
    bytes = bytes + new.bytes WHERE upstream = new.upstream; END;
CREATE TRIGGER removed AFTER DELETE ON item BEGIN
  UPDATE total SET waiting = waiting - (old.dead_at IS NULL), dead = dead - (old.dead_at IS NOT NULL),
    bytes = bytes - old.bytes WHERE upstream = old.upstream;
  DELETE FROM total WHERE upstream = old.upstream AND waiting = 0 AND dead = 0; END;
CREATE TRIGGER moved AFTER UPDATE OF dead_at ON item WHEN (old.dead_at IS NULL) <> (new.dead_at IS NULL) BEGIN
  UPDATE total SET waiting = waiting + (new.dead_at IS NULL) - (old.dead_at IS NULL),
    dead = dead + (new.dead_at IS NOT NULL) - (old.dead_at IS NOT NULL) WHERE upstream = new.upstream; END;
"""
_SINCE: Final = {
    1: "ALTER TABLE item ADD COLUMN due_at REAL NOT NULL DEFAULT 0;"
    "ALTER TABLE item ADD COLUMN aside INTEGER NOT NULL DEFAULT 0;"
}
"""What makes of a file of that version one of the next."""
T = TypeVar("T")


class SqliteOutbox:
    """An open outbox. Every method may raise ``sqlite3.Error``."""

    def __init__(self, database: sqlite3.Connection, path: str) -> None:
        self._database = database
        self.path = path

    # -- opening -----------------------------------------------------------------------------------------

    @classmethod
    def open(cls, path: str, *, create: bool = True) -> SqliteOutbox:
        """The outbox in this file, made if it is not there. Raises ``OutboxError``; a damaged file is left as it is."""
        is_new = _prepare(path, create=create)
        try:
            database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        except sqlite3.Error as error:
            raise OutboxError(f"cannot open the outbox {path}: {error}") from None
        try:
            _judge(database, path, is_new=is_new)
            _set_up(database, is_new=is_new)
        except sqlite3.DatabaseError as error:
            database.close()
            raise OutboxError(_why(path, error)) from None
        except OutboxError:
            database.close()
            raise
        return cls(database, path)

    def close(self) -> None:
        self._database.close()

    # -- changes, some at a time ------------------------------------------------------------------------

    def together(self, changes: Iterable[Callable[[], T]]) -> list[T | Refusal]:
        """All of them in one transaction, with one fsync. A ``Refusal`` concerns its own change alone.

        After any other error nothing has changed.
        """
        self._database.execute("BEGIN IMMEDIATE")
        try:
            results: list[T | Refusal] = []
            for change in changes:
                try:
                    results.append(change())
                except Refusal as refusal:
                    results.append(refusal)
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise
        return results

    def add(self, item: Item, rule: OutboxRule) -> None:
        """Raises ``Refusal`` where the limits forbid it."""
        count, total = self._row("SELECT total(waiting + dead), total(bytes) FROM total")
        if count + 1 > rule.max_count:
            raise Refusal("outbox_full", f"the outbox holds {int(count)} requests, which is all that it may")
        if total + item.size_bytes > rule.max_bytes:
            raise Refusal(
                "outbox_full", f"the outbox holds {int(total)} of {rule.max_bytes} bytes: no room for this one"
            )
        self._database.execute(
            "INSERT INTO item (id, upstream, method, target, fields, body, bytes, stored_at, fresh_at, due_at,"
            " aside) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                item.id,
                item.upstream,
                item.method,
                item.target.encode("utf-8", "surrogateescape"),
                item.fields,
                item.body,
                item.size_bytes,
                item.stored_at,
                item.stored_at,
                item.due_at,
                item.aside,
            ),
        )

    def begin(self, item_id: str) -> None:
        """A send begins that must not be repeated if nobody learns how it ended."""
        self._database.execute("UPDATE item SET begun = 1 WHERE id = ?", (item_id,))

    def remove(self, item_id: str) -> bool:
        """It was delivered, or nobody wants it any more."""
        return self._database.execute("DELETE FROM item WHERE id = ?", (item_id,)).rowcount > 0

    def unbegin(self, item_id: str) -> None:
        """The send that was marked did not happen, or ended so that another one does no harm."""
        self._database.execute("UPDATE item SET begun = 0 WHERE id = ?", (item_id,))

    def hinted(self, item_id: str, due_at: float) -> None:
        """It must not be sent before ``due_at``, whatever becomes of the round that is going on."""
        self._database.execute("UPDATE item SET due_at = max(due_at, ?) WHERE id = ?", (due_at, item_id))

    def put_off(self, item_id: str, note: str, *, tries: int, due_at: float, aside: bool) -> None:
        """It was not delivered, and may be sent again, not before ``due_at``."""
        self._database.execute(
            "UPDATE item SET begun = 0, tries = ?, note = ?, due_at = ?, aside = ? WHERE id = ?",
            (tries, note, due_at, aside, item_id),
        )

    def mark_dead(self, item_id: str, reason: str, status: int | None, note: str, now: float) -> bool:
        """It will not be sent again, unless somebody asks for it."""
        changed = self._database.execute(
            "UPDATE item SET dead_at = ?, dead_reason = ?, dead_status = ?, note = ? WHERE id = ? AND dead_at IS NULL",
            (now, reason, status, note, item_id),
        )
        return changed.rowcount > 0

    def mark_older_dead(self, than: float, now: float) -> list[tuple[str, str]]:
        """Whatever has waited since before ``than`` is expired. Returns (upstream, id) of each."""
        rows = self._database.execute(
            "UPDATE item SET dead_at = ?, dead_reason = 'expired' WHERE dead_at IS NULL AND fresh_at < ?"
            " RETURNING upstream, id",
            (now, than),
        )
        return rows.fetchall()

    def revive(self, item_id: str, now: float) -> bool:
        """A dead letter waits again, at its old place, as if it had been stored now."""
        changed = self._database.execute(
            "UPDATE item SET dead_at = NULL, dead_reason = '', dead_status = NULL, begun = 0, tries = 0, due_at = 0,"
            " aside = 0, fresh_at = ?"
            " WHERE id = ? AND dead_at IS NOT NULL",
            (now, item_id),
        )
        return changed.rowcount > 0

    # -- looks -------------------------------------------------------------------------------------------

    def next(self, upstream: str, now: float, *, after_aside: bool = False) -> tuple[Item | None, float | None]:
        """What is to be delivered now; else when something will be due (None: nothing waits).

        The oldest holds up those behind it until it is due, unless it was set aside: those take turns with the rest
        (``after_aside``: one of them had the last turn).
        """
        waits = "WHERE upstream = ? AND dead_at IS NULL AND aside = ? ORDER BY"
        ordered = self._items(f"{waits} position LIMIT 1", (upstream, 0))
        aside = self._items(f"{waits} due_at LIMIT 1", (upstream, 1))
        first = ordered + aside if after_aside else aside + ordered
        due = next((item for item in first if item.due_at <= now), None)
        return due, min((item.due_at for item in first), default=None)

    def find(self, item_id: str) -> Item | None:
        found = self._items("WHERE id = ?", (item_id,))
        return found[0] if found else None

    def ids(self, *, dead: bool | None = None, upstream: str | None = None) -> list[str]:
        """Receipts in the order in which they came; all, or those that wait, or the dead letters."""
        wanted = {None: "1", False: "dead_at IS NULL", True: "dead_at IS NOT NULL"}[dead]
        rows = self._database.execute(
            f"SELECT id FROM item WHERE {wanted} AND (? IS NULL OR upstream = ?) ORDER BY position",  # noqa: S608
            (upstream, upstream),
        )
        return [row[0] for row in rows]

    def counts(self) -> list[Count]:
        """One for each upstream of which there is something."""
        rows = self._database.execute(
            "SELECT upstream, waiting, dead, bytes, (SELECT stored_at FROM item WHERE item.upstream = total.upstream"
            " AND dead_at IS NULL ORDER BY position LIMIT 1) FROM total"
        )
        return [Count(*row) for row in rows]

    def _items(self, where: str, values: Sequence[object]) -> list[Item]:
        rows = self._database.execute(f"SELECT {_COLUMNS} FROM item {where}", values)  # noqa: S608 - our own words
        return [_item(row) for row in rows]

    def _row(self, query: str) -> Any:
        return self._database.execute(query).fetchone()


def _item(row: Sequence[Any]) -> Item:
    values = list(row)
    values[3] = bytes(values[3]).decode("utf-8", "surrogateescape")
    values[7] = bool(values[7])
    values[14] = bool(values[14])
    return Item(*values)


def _prepare(path: str, *, create: bool) -> bool:
    """Whether the file is new. It is made here, so that nobody but its owner may ever read it."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        if not create:
            raise OutboxError(f"there is no outbox {path}: nothing has ever been stored in it") from None
        _make(path)
        return True
    except OSError as error:
        raise OutboxError(f"cannot open the outbox {path}: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise OutboxError(f"cannot open the outbox {path}: it is not a regular file")
    if not os.access(path, os.R_OK | os.W_OK):
        raise OutboxError(f"cannot open the outbox {path}: it may not be read and written by this user")
    if found.st_mode & 0o077 and found.st_uid == os.geteuid():
        os.chmod(path, 0o600)
    return found.st_size == 0


def _make(path: str) -> None:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        folder = os.open(Path(path).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileNotFoundError:
        # Not made here: where a volume is not mounted, the requests would be lost with the container.
        raise OutboxError(f"the directory of the outbox {path} does not exist: make it, or mount it") from None
    except OSError as error:
        raise OutboxError(f"cannot make the outbox {path}: {error.strerror}") from None


def _judge(database: sqlite3.Connection, path: str, *, is_new: bool) -> None:
    """Whether it is an outbox, whole, and of a version that we know; nothing is written before that is known."""
    if is_new:
        return
    application = database.execute("PRAGMA application_id").fetchone()[0]
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID:
        if not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return  # made, but the first start ended before it was set up
        raise OutboxError(f"{path} is a database, but no outbox; name another file in `outbox`")
    if version > VERSION:
        raise OutboxError(f"the outbox {path} was made by a newer version of the sidecar; use that version")
    (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(str(found))


def _set_up(database: sqlite3.Connection, *, is_new: bool) -> None:
    database.execute("PRAGMA secure_delete = ON")
    (mode,) = database.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise sqlite3.DatabaseError("its file system does not allow a write-ahead log")
    database.execute("PRAGMA synchronous = FULL")
    database.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
    if is_new or not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        numbers = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};"
        database.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} {numbers} COMMIT;")
        return
    _bring_up_to_date(database)


def _bring_up_to_date(database: sqlite3.Connection) -> None:
    """From any earlier version to ours, whole or not at all."""
    if database.execute("PRAGMA user_version").fetchone()[0] == VERSION:
        return
    database.execute("BEGIN IMMEDIATE")
    # Looked at again behind the lock: another process may have done it meanwhile.
    version = database.execute("PRAGMA user_version").fetchone()[0]
    steps = "".join(_SINCE[number] for number in range(version, VERSION))
    for step in filter(None, steps.split(";")):
        database.execute(step)
    database.execute(f"PRAGMA user_version = {VERSION}")
    database.execute("COMMIT")


def _why(path: str, error: sqlite3.Error) -> str:
    if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
        return f"the outbox {path} is held by another process; end that one first"
    if isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):
        return f"cannot open the outbox {path}: {error}"
    found = " ".join(str(error).replace("*", "").split())
    return (
        f"the outbox {path} is damaged ({found}). It was left as it is: move it away, with its -wal and -shm, and "
        "start again; `sqlite3 MOVED_FILE .recover` then prints what can still be read of it"
    )
