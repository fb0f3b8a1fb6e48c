"""The response cache: small ids for signatures that were negotiated before (Horovod's HOROVOD_CACHE_CAPACITY).

Every rank holds the same entries in the same order, because only the coordinator's entries change them and all ranks see
those in one order. Ids are never used twice, so that a request sent under an id that was evicted meanwhile is recognised.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container

from hvd_gossip.collectives.request import Signature

Key = tuple[int, str]
"""(process set, name)."""


class ResponseCache:
    """Signatures by id, the least recently used first.

    Args:
        capacity: entries that outlive the message that defined them; 0 turns caching off.

    Attributes:
        next_id: the id that is defined next.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.next_id = 0
        self._entries: OrderedDict[int, Signature] = OrderedDict()
        self._ids: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, number: int) -> Signature | None:
        """The signature of an id, or None if it is void."""
        return self._entries.get(number)

    def find(self, signature: Signature) -> int | None:
        """The id under which exactly this signature may be submitted."""
        number = self._ids.get(signature.key) if self.capacity else None
        return number if number is not None and self._entries[number] == signature else None

    def id_of(self, key: Key) -> int | None:
        """The id of a name, whatever its signature."""
        return self._ids.get(key)

    def define(self, number: int, signature: Signature) -> int | None:
        """Enters a signature; returns the id of the same name that this makes void. Doing so twice changes nothing."""
        old = self._ids.get(signature.key)
        if old == number:
            return None
        if old is not None:
            del self._entries[old]
        self._entries[number] = signature
        self._ids[signature.key] = number
        self.next_id = max(self.next_id, number + 1)
        return old

    def touch(self, number: int) -> Signature:
        """The signature of an id, which is now the most recently used."""
        self._entries.move_to_end(number)
        return self._entries[number]

    def surplus(self, pinned: Container[Key]) -> tuple[int, ...]:
        """The ids to evict so that no more than the capacity is left, without those of pinned names."""
        count = len(self._entries) - self.capacity
        if count <= 0:
            return ()
        free = [number for number, signature in self._entries.items() if signature.key not in pinned]
        return tuple(free[:count])

    def evict(self, numbers: tuple[int, ...]) -> list[Signature]:
        """Removes ids, and returns the signatures that they stood for."""
        removed = []
        for number in numbers:
            signature = self._entries.pop(number, None)
            if signature is not None:
                del self._ids[signature.key]
                removed.append(signature)
        return removed
