"""Exceptions. `Error` is the base of ours; each derives from the built-in that fits as well."""

from __future__ import annotations


class Error(Exception):
    """Base of all exceptions that only Pheon raises.

    `published`: the version that a call had published before it failed; None: it has published nothing, as far as this
    process knows. Who repeats the call repeats what that version has.
    """

    published: int | None = None

    # KeyError would print its argument's repr, OSError its number.
    def __str__(self) -> str:
        return str(self.args[-1]) if self.args else ""


class NotFoundError(Error, KeyError):
    """The store has no such dataset or version."""


class DuplicateKeyError(Error):
    """A key occurs twice where it may occur once; the message names the key and both rows."""


class SchemaError(Error, TypeError):
    """The data does not fit: a null key, a missing column, keys of several types..."""


class CorruptError(Error):
    """A file is not ours, was cut short, or its bytes are not those that were published."""


class LockTimeout(Error, TimeoutError):
    """Another writer kept the dataset's lock; the message names its process."""


class CopyRequiredError(Error):
    """Zero copies were asked for and cannot be had."""


class ClosedError(Error, ValueError):
    """The store or writer was closed."""


class StoreFullError(Error, OSError):
    """No space or quota left. Nothing was published; the store is as it was."""


class RemoteError(Error, OSError):
    """A server refused a call, or cannot be talked to, in a way that a store of this machine has not."""


class RemoteConnectionError(RemoteError, ConnectionError):
    """There is no connection to the server, it broke, or the server is about to end. A later call connects again."""


class RemotePermissionError(RemoteError, PermissionError):
    """The server does not know the caller, or the caller may not do that."""


class RemoteTimeoutError(RemoteError, TimeoutError):
    """The server did not answer within the time that `connect` was given."""
