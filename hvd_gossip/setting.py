"""What a setting is: its declaration, and the kinds of value that one can take.

`hvd_gossip.config` declares the settings; this module knows none of them.
"""

from __future__ import annotations

import difflib
import importlib
import math
import operator
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, SupportsFloat, SupportsIndex, cast

from hvd_gossip.errors import ConfigError

TRUE_WORDS, FALSE_WORDS = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


class Kind(ABC):
    """How a setting's value is read, whether it comes from code or as text.

    Attributes:
        metavar: stands for the value in `--help`.
    """

    metavar: str

    @abstractmethod
    def parse(self, value: object) -> Any:
        """The value in the setting's own type; raises ValueError or TypeError when it cannot be one."""

    @abstractmethod
    def valid(self) -> str:
        """The valid values, in words."""

    def names(self) -> Collection[str]:
        """The valid words, when there are few: what a typing error is compared with."""
        return ()

    def text(self, value: object) -> str:
        """What `parse` reads back as `value`; raises TypeError when no text stands for it."""
        return str(value)


@dataclass(frozen=True)
class Integer(Kind):
    """A whole number, low <= value <= high. Booleans are refused."""

    low: int
    high: int | None = None
    metavar = "N"

    def parse(self, value: object) -> int:
        if isinstance(value, bool):
            raise TypeError("a boolean")
        number = int(value) if isinstance(value, str) else operator.index(cast(SupportsIndex, value))
        if number < self.low or (self.high is not None and number > self.high):
            raise ValueError("out of range")
        return number

    def valid(self) -> str:
        return f"an integer >= {self.low}" + ("" if self.high is None else f" and <= {self.high}")


@dataclass(frozen=True)
class Number(Kind):
    """A finite real number, low <= value < high; with `above`, low < value."""

    low: float
    high: float | None = None
    above: bool = False
    metavar = "X"

    def parse(self, value: object) -> float:
        if isinstance(value, bool):
            raise TypeError("a boolean")
        number = float(cast(SupportsFloat, value))
        if not math.isfinite(number) or (number <= self.low if self.above else number < self.low):
            raise ValueError("out of range")
        if self.high is not None and number >= self.high:
            raise ValueError("out of range")
        return number

    def valid(self) -> str:
        return f"a number {'>' if self.above else '>='} {self.low:g}" + (
            "" if self.high is None else f" and < {self.high:g}"
        )


@dataclass(frozen=True)
class Boolean(Kind):
    """Yes or no; as text, the words that Horovod's variables use ("1", "true") and their like."""

    metavar = "0|1"

    def parse(self, value: object) -> bool:
        word = str(int(value)) if isinstance(value, (bool, int)) else cast(str, value).strip().lower()
        if word not in TRUE_WORDS + FALSE_WORDS:
            raise ValueError("not a boolean")
        return word in TRUE_WORDS

    def valid(self) -> str:
        return "1 or 0, true or false, yes or no, on or off"

    def text(self, value: object) -> str:
        return "1" if value else "0"


class Choice(Kind):
    """One of a few words, in any case."""

    metavar = "NAME"

    def __init__(self, *choices: str) -> None:
        self._choices = choices

    def names(self) -> Collection[str]:
        return self._choices

    def parse(self, value: object) -> Any:
        word = value.strip().lower() if isinstance(value, str) else ""
        if word not in self._choices and word not in self.names():
            raise ValueError("not one of the choices")
        return word

    def valid(self) -> str:
        return ", ".join(self.names())


class Registered(Choice):
    """A name in a registry (a mapping whose keys are the names), imported when first asked.

    Importing it lazily keeps `config` free of the rooms that it configures, and `--help` of MPI and PyTorch.
    """

    def __init__(self, module: str, registry: str, *more: str) -> None:
        super().__init__(*more)
        self._module, self._registry = module, registry

    def names(self) -> Collection[str]:
        registry: Iterable[str] = getattr(importlib.import_module(self._module), self._registry)
        return (*super().names(), *registry)


class RegisteredOrFile(Registered):
    """A name in a registry, the path of an existing file, or (in code only) an object of the caller's own."""

    metavar = "NAME|FILE"

    def parse(self, value: object) -> Any:
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if not isinstance(value, str):
            return _own_object(value)
        return value if os.path.isfile(value) else super().parse(value)

    def valid(self) -> str:
        return f"{super().valid()}; or the path of an existing file; or, in code, an object"

    def text(self, value: object) -> str:
        if not isinstance(value, str):
            raise TypeError(f"{type(value).__name__} objects can be given in code only")
        return value


class Path(Kind):
    """A path that need not exist; empty is none."""

    metavar = "PATH"

    def parse(self, value: object) -> str:
        return os.fspath(cast("str | os.PathLike[str]", value))

    def valid(self) -> str:
        return "a path; empty for none"


class Options(Kind):
    """Words for who knows what they mean: "NAME=VALUE", several joined by commas; empty is none."""

    metavar = "NAME=VALUE"

    def parse(self, value: object) -> str:
        if isinstance(value, Mapping):
            value = ",".join(f"{name}={item}" for name, item in value.items())
        self.pairs(cast(str, value))
        return cast(str, value)

    def valid(self) -> str:
        return "NAME=VALUE, several joined by commas; in code, a dictionary"

    @staticmethod
    def pairs(text: str) -> dict[str, str]:
        """The names and values that a text gives; raises ValueError for what is not of that form."""
        parts = [part.partition("=") for part in text.split(",")] if text else []
        if any(not equals or not name.strip() for name, equals, _ in parts):
            raise ValueError(f"not of the form NAME=VALUE,NAME=VALUE: {text!r}")
        return {name.strip(): value.strip() for name, _, value in parts}


@dataclass(frozen=True)
class Setting:
    """One setting, declared once.

    Attributes:
        help: one sentence.
        kind: how its value is read.
        group: heading in `--help` and in the documentation.
        unit: unit of a number, or empty.
        horovod_flag: further name of the launcher's flag, horovodrun's.
        horovod_scale: the value of horovodrun's flag times this is the value of the setting.
        repeatable: the launcher's flag may be given several times; the values are joined by commas.
        name: its attribute in `Config`, its keyword in code.
        default: its value when nobody says otherwise.
        environment: its environment variable.
    """

    help: str
    kind: Kind
    group: str
    unit: str = ""
    horovod_flag: str = ""
    horovod_scale: int = 1
    repeatable: bool = False
    name: str = ""
    default: Any = None
    environment: str = ""

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    def read(self, value: object, source: str) -> Any:
        """The value in the setting's type.

        Args:
            value: what somebody said.
            source: where: "argument algorithm", "environment variable HVD_GOSSIP_ALGORITHM".

        Raises:
            ConfigError: it cannot have this value; the message says which it can.
        """
        try:
            return self.kind.parse(value)
        except (AttributeError, TypeError, ValueError):
            hint = did_you_mean(str(value), self.kind.names())
            raise ConfigError(
                f"{self.name}={value!r} ({source}) is not valid.{hint} Valid: {self.kind.valid()}."
            ) from None

    def default_text(self) -> str:
        return self.kind.text(self.default)


def declare(default: Any, kind: Kind, group: str, help: str, **more: Any) -> Any:
    """A dataclass field that carries its `Setting` (read back by `settings_of`)."""
    declared = Setting(help=help, kind=kind, group=group, default=default, **more)
    return field(default=default, metadata={"setting": declared})


def did_you_mean(word: str, names: Iterable[str], shown: Callable[[str], str] = str) -> str:
    """ " Did you mean ...?" with the names that look like the word, each as `shown` gives it; or an empty string."""
    close = difflib.get_close_matches(word, list(names), n=3)
    return f" Did you mean {' or '.join(map(shown, close))}?" if close else ""


def _own_object(value: object) -> object:
    if value is None or isinstance(value, (bool, int, float, bytes)):
        raise TypeError("neither a name nor an object that could describe a topology")
    return value
