"""A process that reads, and writes, for the model tests: it gets handles as pickles, as a worker would.

Imports nothing but Pheon, so that it starts in milliseconds.
"""

import functools
import multiprocessing
import os
from collections.abc import Callable
from typing import Any


def contents(handle: Any) -> list[tuple[Any, Any]]:
    """All that a map holds, in its order."""
    return list(handle.items())


def rows(handle: Any) -> list[tuple[Any, ...]]:
    """All rows of a table."""
    return [tuple(row.values()) for row in handle]


def equals(handle: Any, expected: Any) -> bool:
    """Whether a live map is this dict, in this order."""
    return handle == expected and list(handle) == list(expected) and all(k in handle for k in expected)


def put(handle: Any, key: Any, value: Any) -> None:
    """Set a key of a live map."""
    handle[key] = value


def pop(handle: Any, key: Any) -> Any:
    """Take a key out of a live map."""
    return handle.pop(key, "none")


def kinds(handle: Any) -> list[tuple[type, Any, Any]]:
    """All that a live map holds at one moment, with the types of its keys."""
    return [(type(key), key, value) for key, value in handle.snapshot().items()]


def change_in_a_batch(handle: Any, keys: list[Any], entries: list[tuple[Any, Any]]) -> None:
    """Take keys of a live map out and set others, all at once."""
    with handle.batch() as batch:
        for key in keys:
            del batch[key]
        batch.update(entries)


def sync(handle: Any) -> None:
    """Make a live map durable."""
    handle.sync()


def freeze(handle: Any, name: str, store: Any) -> Any:
    """Publish a live map."""
    return handle.freeze(name, store=store)


def fill(part: Any, entries: dict[Any, Any]) -> None:
    """Write a whole part of a map."""
    with part:
        part.update(entries)


def change(store: Any, how: str, name: str, data: Any) -> Any:
    """A change that another process makes."""
    done = getattr(store, how)(name, data, compact=False)
    return done if isinstance(done, int) else done.version


def _serve(pipe: Any) -> None:
    while True:
        try:
            work, arguments = pipe.recv()
        except EOFError:
            return
        except Exception as error:  # noqa: BLE001 - a handle that cannot be opened here, the answer of the step
            pipe.send((False, error))
            continue
        try:
            pipe.send((True, work(*arguments)))
        except Exception as error:  # noqa: BLE001 - the answer of the step, whatever it is
            pipe.send((False, error))


def here(work: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives in this process."""
    return work(*arguments)


@functools.cache
def _other() -> Any:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    context.Process(target=_serve, args=(theirs,), daemon=True).start()
    theirs.close()
    return ours


def elsewhere(work: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives in another process, the same one at all steps; what it raises is raised here."""
    pipe = _other()
    pipe.send((work, arguments))
    done, answer = pipe.recv()
    if not done:
        raise answer
    return answer


def in_a_fork(work: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives in a copy of this process, which has all of its handles as they are."""
    reading, writing = multiprocessing.Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        try:
            try:
                writing.send((True, work(*arguments)))
            except Exception as error:  # noqa: BLE001 - raised in the parent
                writing.send((False, error))
        finally:
            os._exit(0)
    writing.close()
    try:
        done, answer = reading.recv()
    finally:
        os.waitpid(child, 0)
        reading.close()
    if not done:
        raise answer
    return answer
