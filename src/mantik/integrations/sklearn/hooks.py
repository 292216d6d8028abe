"""Where scikit-learn tells nobody of a call, something stands in between: in place of methods, and inside of functions.

scikit-learn has callbacks of its own since 1.9, but only for estimators that support them, and one has to be given to
each. What stands in place of a method is a descriptor, which hands the method itself to whoever looks at the class: so
signatures, the routing of metadata, documentation and abstract methods are what they were, and a class that is pickled
by value holds the method alone. A function is left where it is, with the name, identity and wrapper that it has; what
its decorator calls is exchanged. So it does not matter whether it was imported before or after.
"""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, Any, Protocol

from sklearn.base import BaseEstimator, TransformerMixin

from mantik.integrations.sklearn.listening import is_outermost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = ["Hooks", "Observer"]


class Observer(Protocol):
    """Who is told of calls, and makes them."""

    def method_called(
        self,
        estimator: Any,  # noqa: ANN401
        method: str,
        call: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
    ) -> Any:  # noqa: ANN401
        """Make a call of the user's and return what comes of it.

        Args:
            estimator: Whose method is called.
            method: Its name.
            call: The bound method as it is without hooks.
            arguments: Positional arguments.
            keywords: Arguments by name.
        """

    def function_called(
        self, name: str, call: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Any:  # noqa: ANN401
        """Make a call of a function and return what comes of it."""


class _Set:
    """Hooks that are put in and taken away together."""

    is_put = False


class _MethodHook:
    """Stands in place of a method in its class."""

    def __init__(self, method: Any, name: str, observer: Observer, together: _Set) -> None:  # noqa: ANN401
        self.method = method
        self.name = name
        self.observer = observer
        self.together = together

    def __get__(self, instance: object, owner: type | None = None) -> Any:  # noqa: ANN401
        bound = self.method.__get__(instance, owner)
        if not self.together.is_put:
            # MLflow has put it back when it took its own method away.
            return bound
        if not isinstance(instance, BaseEstimator) or not is_outermost() or getattr(bound, "__self__", None) is None:
            return bound

        return _Watched(bound, self)

    def __eq__(self, other: object) -> bool:
        # MLflow puts its own methods only where the class holds what it hands out.
        return other is self or other is self.method

    def __hash__(self) -> int:
        return hash(self.method)

    def __reduce__(self) -> tuple[Any, ...]:
        # Without mantik, which need not be where it is loaded.
        return operator.getitem, ((self.method,), 0)


class _Watched:
    # A bound method whose call is told of. For everybody who looks at it, it is the method, also for `help`.
    __doc__ = property(lambda self: self._method.__doc__)
    __slots__ = ("_hook", "_method")

    def __init__(self, method: Callable[..., Any], hook: _MethodHook) -> None:
        self._method = method
        self._hook = hook

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401
        if not is_outermost():
            return self._method(*arguments, **keywords)
        estimator = self._method.__self__  # type: ignore[attr-defined]
        return self._hook.observer.method_called(estimator, self._hook.name, self._method, arguments, keywords)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._method, name)

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        # Where `inspect.signature` looks.
        return self._method

    def __eq__(self, other: object) -> bool:
        return self._method == (other._method if isinstance(other, _Watched) else other)

    def __hash__(self) -> int:
        return hash(self._method)

    def __repr__(self) -> str:
        return repr(self._method)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self._method.__self__, self._hook.name)  # type: ignore[attr-defined]


class _FunctionHook:
    """Stands between a function and the decorator around it."""

    def __init__(self, function: Callable[..., Any], name: str, observer: Observer) -> None:
        # MLflow's autologging may have wrapped it once more: what scikit-learn itself wraps is what everybody calls.
        inner: Callable[..., Any] = getattr(function, "__wrapped__", function)
        while hasattr(inner, "__wrapped__"):
            function, inner = inner, inner.__wrapped__
        self._cell = next((cell for cell in function.__closure__ or () if cell.cell_contents is inner), None)
        self._inner = inner

        @functools.wraps(inner)
        def watched(*arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401
            if not is_outermost():
                return inner(*arguments, **keywords)
            return observer.function_called(name, inner, arguments, keywords)

        self._watched = watched

    def put(self) -> bool:
        """Put it there; tell whether there is a place for it."""
        if self._cell is None:
            return False
        self._cell.cell_contents = self._watched
        return True

    def take_away(self) -> None:
        if self._cell is not None:
            self._cell.cell_contents = self._inner


class Hooks:
    """All hooks. They are put in and taken away as a whole.

    Args:
        methods: Names of methods of estimators.
        functions: Functions by the names under which the observer knows them.
        observer: Who is told.
    """

    def __init__(self, methods: Iterable[str], functions: Mapping[str, Callable[..., Any]], observer: Observer) -> None:
        self._methods = tuple(methods)
        self._functions = [_FunctionHook(function, name, observer) for name, function in functions.items()]
        self._observer = observer
        self._set = _Set()
        self._put: list[tuple[type, str, _MethodHook]] = []
        self._announcing: list[tuple[type, object]] = []

    def put(self) -> None:
        """Put them in: for all estimators that there are, and for those whose classes are yet to be made."""
        self._set.is_put = True
        self.put_again()
        for base in (BaseEstimator, TransformerMixin):
            self._watch_new(base)
        for hook in self._functions:
            hook.put()

    def put_again(self) -> None:
        """Put them in where something else has taken their place."""
        for kind in (BaseEstimator, *_subclasses(BaseEstimator)):
            self._watch(kind)

    def take_away(self) -> None:
        """Leave everything as it was."""
        self._set.is_put = False
        for base, before in self._announcing:
            if before is None:
                del base.__init_subclass__
            else:
                base.__init_subclass__ = before  # type: ignore[assignment]
        for owner, name, hook in self._put:
            if vars(owner).get(name) is hook:
                setattr(owner, name, hook.method)
        for function in self._functions:
            function.take_away()
        self._announcing, self._put = [], []

    def _watch(self, kind: type) -> None:
        """Put hooks into a class, and into those that it has the methods from, which need be no estimators."""
        for name in self._methods:
            for owner in kind.__mro__:
                method = vars(owner).get(name)
                if method is None:
                    continue
                if isinstance(method, _MethodHook) and method.together is self._set:
                    break
                while isinstance(method, _MethodHook) and not method.together.is_put:
                    method = method.method
                if hasattr(method, "__get__"):
                    hook = _MethodHook(method, name, self._observer, self._set)
                    try:
                        setattr(owner, name, hook)
                    except TypeError:
                        # A class that is written in C.
                        break
                    self._put.append((owner, name, hook))
                break

    def _watch_new(self, base: type) -> None:
        """See to it that classes derived from now on are watched too."""
        before = vars(base).get("__init_subclass__")
        watch = self._watch

        def announce(cls: Any, **keywords: Any) -> None:  # noqa: ANN401
            if before is None:
                super(base, cls).__init_subclass__(**keywords)  # type: ignore[arg-type]
            else:
                before.__get__(None, cls)(**keywords)
            # After scikit-learn has wrapped `transform` of the new class.
            if issubclass(cls, BaseEstimator):
                watch(cls)

        base.__init_subclass__ = classmethod(announce)  # type: ignore[assignment, arg-type]
        self._announcing.append((base, before))


def _subclasses(kind: type) -> Iterator[type]:
    """Yield all classes that derive from one, some more than once."""
    derived: type
    for derived in type.__subclasses__(kind):
        yield derived
        yield from _subclasses(derived)
