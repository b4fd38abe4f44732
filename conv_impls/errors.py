"""The error tree. Every error of the library derives from `ConvError` and from the built-in a caller would catch.

ConvError
├── ProblemError(ValueError)                a value or shape is wrong
├── DTypeError(TypeError)                   a type or dtype is wrong
├── UnsupportedError(NotImplementedError)   this backend cannot do this problem; the text says why
├── UnknownBackendError(LookupError)        no backend of that name; the text lists the known ones
└── BackendError(RuntimeError)              a backend (plug-in) broke its contract
"""


class ConvError(Exception):
    """Base of every error this package raises on purpose."""


class ProblemError(ConvError, ValueError):
    """A value or shape is wrong; the text names the argument, what was expected and what came."""


class DTypeError(ConvError, TypeError):
    """An argument has the wrong type or dtype."""


class UnsupportedError(ConvError, NotImplementedError):
    """The backend asked for by name cannot do this problem; the text gives its reason."""


class UnknownBackendError(ConvError, LookupError):
    """No backend has that name; the text lists the known ones, closest first."""


class BackendError(ConvError, RuntimeError):
    """A backend broke the contract: wrong signature, wrong name, wrong output shape."""
