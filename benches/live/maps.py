"""Maps of the steps: made and filled, opened in another process, and compared with what must be in them in the end."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benches.compare.oracle import WrongAnswerError
from benches.live import data, peers
from benches.live.crew import together
from benches.live.peers.base import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benches.live.peers.base import Peer


@contextmanager
def made(peer: str, place: Place, *, fill: bool = True) -> Iterator[tuple[Peer, Any]]:
    """A map that this process made, and what others need to attach to it; removed in the end."""
    adapter = peers.find(peer)
    adapter.load()
    with adapter.serving(place) as handle:
        if fill:
            adapter.fill(handle, place)
        try:
            yield adapter, handle
        finally:
            if adapter.map is not None:
                adapter.unlink()


@contextmanager
def attached(peer: str, handle: Any, writers: int = 0, adapter: Peer | None = None) -> Iterator[Peer]:
    """A map that another process made; `adapter`: it is open already."""
    if adapter is not None:
        yield adapter
        return
    found = peers.find(peer)
    found.load()
    found.attach(handle, writers=writers)
    try:
        yield found
    finally:
        found.close()


def check_all(
    ready: Callable[[], Any],
    *,
    peer: str,
    handle: Any,
    place: Place,
    counts: list[int],
    more: dict[str, int],
    adapter: Peer | None = None,
) -> dict[str, Any]:
    """A task: compares every value with what so many writes of each writer must leave; `more`: further entries."""
    ready()
    with attached(peer, handle, adapter=adapter) as found:
        numbers = range(place.size)
        last = data.last_generations(place.size, counts) if counts else [0] * place.size
        expected = [data.value(place.shape, number, each) for number, each in zip(numbers, last, strict=True)]
        data.check("in the end", numbers, found.fetch(data.keys(numbers)), expected)
        for key, value in more.items():
            if (got := found.fetch([key])) != [value]:
                raise WrongAnswerError(f"in the end: {key} is {got[0]!r}, expected {value}")
        if (count := found.count()) != place.size + len(more):
            raise WrongAnswerError(f"in the end: {count} entries, expected {place.size + len(more)}")
    return {}


def check_in_another_process(
    adapter: Peer, peer: str, handle: Any, place: Place, counts: list[int], **more: int
) -> None:
    """Runs `check_all` in a new process, which can know the map only as it was shared; a map of one process, here."""
    arguments = {"peer": peer, "handle": handle, "place": place, "counts": counts, "more": more}
    if adapter.shared:
        together([(check_all, arguments)])
    else:
        check_all(lambda: None, **arguments, adapter=adapter)
