"""Names to factories: how tasks, models and rules are chosen by a word."""

import inspect
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import NoneType, UnionType
from typing import Any, Generic, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from typing_extensions import Unpack

UNPACK = {Unpack, getattr(typing, "Unpack", Unpack)}
"""`typing.Unpack` and, where it is another object (Python 3.11), that of typing_extensions."""

Factory = TypeVar("Factory", bound=Callable[..., Any])
Registered = TypeVar("Registered", bound=Callable[..., Any])


class UnknownNameError(KeyError):
    """A name that nothing was registered under; the message lists the known ones."""

    def __str__(self) -> str:
        return str(self.args[0])


class OptionError(TypeError):
    """An option that a factory does not have, lacks, or cannot take the value of."""


class Registry(Generic[Factory]):
    """A table from names to factories of one kind (`Registry("rule")`).

    Args:
        kind: what the factories make, for messages.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._factories: dict[str, Factory] = {}

    def register(self, name: str) -> Callable[[Registered], Registered]:
        """Return a decorator that files a factory under `name` and leaves it, and its type, as it is.

        Raises:
            ValueError: another factory has that name already.
        """

        def file_under_name(factory: Registered) -> Registered:
            known = self._factories.get(name)
            if known is not None and known is not factory:
                raise ValueError(f"{self.kind} '{name}' is registered twice")
            self._factories[name] = cast(Factory, factory)
            return factory

        return file_under_name

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._factories))

    def __contains__(self, name: object) -> bool:
        return name in self._factories

    def __getitem__(self, name: str) -> Factory:
        """Return the factory called `name`.

        Raises:
            UnknownNameError: there is none; the message lists those there are.
        """
        try:
            return self._factories[name]
        except KeyError:
            raise UnknownNameError(f"unknown {self.kind} '{name}'; known: {', '.join(self) or 'none'}") from None

    def check_options(self, name: str, options: dict[str, Any]) -> None:
        """Compare `options` with the factory's signature.

        Raises:
            UnknownNameError: no such factory.
            OptionError: an option the factory does not name, or whose value has the wrong simple type.
        """
        known = self.options(name)
        if known is None:
            return
        for key, value in options.items():
            if key not in known:
                names = ", ".join(sorted(known)) or "none"
                raise OptionError(f"{self.kind} '{name}' has no option '{key}'; known: {names}")
            _check_type(f"{self.kind} '{name}'", key, value, known[key])

    def options(self, name: str) -> dict[str, Any] | None:
        """Return the type annotations of the factory's parameters by name; None where it takes any keyword.

        Keywords that are collected as `**options: Unpack[SomeTypedDict]` count one by one.

        Raises:
            UnknownNameError: no such factory.
        """
        known: dict[str, Any] = {}
        for key, parameter in _signature(self[name]).parameters.items():
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
                known[key] = parameter.annotation
            elif get_origin(parameter.annotation) in UNPACK:
                known |= get_type_hints(get_args(parameter.annotation)[0])
            else:
                return None
        return known

    def build(self, name: str, /, *arguments: Any, **options: Any) -> Any:
        """Call the factory called `name` with options checked against its signature.

        Raises:
            UnknownNameError, OptionError: see `check_options`; a missing option is an OptionError too.
        """
        self.check_options(name, options)
        try:
            inspect.signature(self[name]).bind(*arguments, **options)
        except TypeError as error:
            raise OptionError(f"{self.kind} '{name}': {error}") from None
        return self[name](*arguments, **options)


@contextmanager
def all_or_nothing(*registries: Registry[Any]) -> Iterator[None]:
    """Run a block that registers; where it fails, the registries are as they were before."""
    before = [dict(registry._factories) for registry in registries]
    try:
        yield
    except BaseException:
        for registry, factories in zip(registries, before, strict=True):
            registry._factories = factories
        raise


def _signature(factory: Callable[..., Any]) -> inspect.Signature:
    """Return a signature; its annotations are types also where a module postpones them, if they can be evaluated."""
    try:
        return inspect.signature(factory, eval_str=True)
    except NameError:  # of a type that was imported for type checkers alone
        return inspect.signature(factory)


def _check_type(owner: str, key: str, value: Any, annotation: Any) -> None:
    """Raise OptionError where a value is not of the annotated type, as in `dropout=high` or `layers=2.5`."""
    if not _fits(value, annotation):
        kind = annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
        raise OptionError(f"{owner}: option '{key}' must be of type {kind}, got {value!r}")


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a value is of a simple type, or of one in a union; annotations beyond those are left to the factory."""
    if get_origin(annotation) is Literal:
        return value in get_args(annotation)
    if get_origin(annotation) in (Union, UnionType):
        return any(_fits(value, part) for part in get_args(annotation))
    if annotation is NoneType:
        return value is None
    if annotation is int or annotation is float:
        return isinstance(value, (int, annotation)) and not isinstance(value, bool)
    return isinstance(value, annotation) if annotation in (bool, str) else True
