"""What only grows: a manager's term and its indexes; and who led in a term, which is one manager for ever."""

from __future__ import annotations


class Monotone:
    """Fed with what each manager says of itself. `wrong` is what was found so far."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self._leaders: dict[int, str] = {}
        self._terms: dict[str, int] = {}
        self._indexes: dict[tuple[str, str], int] = {}

    @property
    def leaders(self) -> dict[int, str]:
        """By term."""
        return self._leaders

    def leads(self, manager: str, term: int) -> None:
        known = self._leaders.setdefault(term, manager)
        if known != manager:
            self.wrong.append(f"term {term} has two leaders, {known} and {manager}")

    def term(self, manager: str, term: int) -> None:
        """A term is durable before anybody hears of it, so not even a restart sets it back."""
        known = self._terms.get(manager, 0)
        if term < known:
            self.wrong.append(f"{manager} was in term {known} and is in term {term}")
        self._terms[manager] = term

    def index(self, manager: str, what: str, index: int) -> None:
        """`what` is the name of the index: committed, applied."""
        known = self._indexes.get((manager, what), 0)
        if index < known:
            self.wrong.append(f"{manager} had {what} {known} and now {index}")
        self._indexes[manager, what] = index

    def restarted(self, manager: str) -> None:
        """What was committed is learned again after a restart."""
        for key in [key for key in self._indexes if key[0] == manager]:
            del self._indexes[key]

    def wiped(self, manager: str) -> None:
        """It lost its disk: nothing of before is held against it."""
        self.restarted(manager)
        self._terms.pop(manager, None)
