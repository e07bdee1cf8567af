"""A bounded cache: what was used last is kept."""

import collections
import threading
from collections.abc import Hashable
from typing import Generic, TypeVar

Kept = TypeVar("Kept")


class Recent(Generic[Kept]):
    """Values by name; the least recently used are dropped.

    Safe to use from several threads. Two threads that miss the same value at once both
    make it, and either is right.
    """

    def __init__(self, size: int):
        self._size = size
        self._lock = threading.Lock()
        self._entries: collections.OrderedDict[Hashable, Kept]
        self._entries = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, name: Hashable) -> Kept | None:
        """The value under `name`, if it is still kept."""
        with self._lock:
            entry = self._entries.get(name)
            if entry is not None:
                self._entries.move_to_end(name)
            return entry

    def put(self, name: Hashable, entry: Kept) -> None:
        """Keeps `entry` under `name`."""
        with self._lock:
            self._entries[name] = entry
            self._entries.move_to_end(name)
            while len(self._entries) > self._size:
                self._entries.popitem(last=False)

    def clear(self) -> None:
        """Drops everything."""
        with self._lock:
            self._entries.clear()
