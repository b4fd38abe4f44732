"""The error tree. Every error of the library derives from `ConvError` and from the matching built-in exception.

ConvError
├── ProblemError(ValueError)                a value or shape is wrong
├── DTypeError(TypeError)                   a type or dtype is wrong
├── UnsupportedError(NotImplementedError)   this backend cannot do this problem; the text gives its reason
├── UnknownBackendError(LookupError)        no backend has that name; the text lists the known ones
└── BackendError(RuntimeError)              a backend (plug-in) broke its contract
"""


class ConvError(Exception):
    """Base class of every error that this package raises on purpose."""


class ProblemError(ConvError, ValueError):
    """A value or shape is wrong; the text names the argument, the expected value and the actual one."""


class DTypeError(ConvError, TypeError):
    """An argument has the wrong type or dtype."""


class UnsupportedError(ConvError, NotImplementedError):
    """The selected backend does not support this problem; the text gives the reason."""


class UnknownBackendError(ConvError, LookupError):
    """No backend has that name; the text lists the known names, closest first."""


class BackendError(ConvError, RuntimeError):
    """A backend broke the contract: wrong signature, wrong name, wrong output shape."""
