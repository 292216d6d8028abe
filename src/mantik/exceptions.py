"""Every error that mantik raises.

The tree:

    MantikError
    ├── ConfigurationError (also ValueError)   a setting is malformed or contradicts another
    │   ├── MissingSettingsError               settings that are needed are not there
    │   ├── EndpointError                      a URL that must not receive credentials
    │   └── ProjectError                       a project or a backend configuration cannot be submitted as it is
    ├── AuthenticationError                    the platform did not accept who we say we are
    │   ├── LoginRefusedError                  user name and password were refused
    │   └── LoginExpiredError                  the cached login is over and no password is at hand
    ├── PlatformError                          the platform did not do its part
    │   ├── PlatformUnreachableError           no answer: refused, timed out, no route, bad certificate
    │   ├── UnexpectedAnswerError              an answer that no platform gives: HTML, 404, a redirect
    │   └── ComputeBackendError                the compute backend refused a request
    │       └── SubmissionError                it did not take a job
    ├── JobTimeoutError (also TimeoutError)    a job has not ended in the time that somebody waits for it
    ├── InvalidValueError (also ValueError)    a value that was handed over to be logged cannot be logged
    └── MissingExtraError (also ModuleNotFoundError)   an optional package is not installed

No error carries a password or a token, neither in its text nor in its fields.
All of them can be pickled, so that they cross process borders whole.
"""

from __future__ import annotations

__all__ = [
    "AuthenticationError",
    "ComputeBackendError",
    "ConfigurationError",
    "EndpointError",
    "InvalidValueError",
    "JobTimeoutError",
    "LoginExpiredError",
    "LoginRefusedError",
    "MantikError",
    "MissingExtraError",
    "MissingSettingsError",
    "PlatformError",
    "PlatformUnreachableError",
    "ProjectError",
    "SubmissionError",
    "UnexpectedAnswerError",
]


class MantikError(Exception):
    """Base of every error that mantik raises on purpose."""


class ConfigurationError(MantikError, ValueError):
    """A setting is malformed, or two settings contradict each other."""


class MissingSettingsError(ConfigurationError):
    """Settings that are needed are not there.

    Attributes:
        names: The environment variables that are missing, in the order in which a user would set them.
    """

    def __init__(self, message: str, names: tuple[str, ...] = ()) -> None:
        """Keep the names beside the text."""
        super().__init__(message)
        self.names = names


class EndpointError(ConfigurationError):
    """A URL from the configuration that must not receive credentials."""


class ProjectError(ConfigurationError):
    """A project, its parameters or its backend configuration cannot be submitted as they are.

    Attributes:
        mistakes: What is wrong, each with its place, e.g. ``Resources.Runtime: '12hours' is no duration, …``.
    """

    def __init__(self, message: str, mistakes: tuple[str, ...] = ()) -> None:
        """Keep the mistakes beside the text, which holds all of them."""
        super().__init__(message)
        self.mistakes = mistakes


class AuthenticationError(MantikError):
    """The platform did not accept who we say we are."""


class LoginRefusedError(AuthenticationError):
    """The platform refused user name and password."""


class LoginExpiredError(AuthenticationError):
    """The cached login is over and no password is at hand to log in again."""


class PlatformError(MantikError):
    """The platform did not do its part.

    Attributes:
        url: The URL that was asked, without query and user information.
    """

    def __init__(self, message: str, url: str = "") -> None:
        """Keep the URL beside the text."""
        super().__init__(message)
        self.url = url


class PlatformUnreachableError(PlatformError):
    """No answer: connection refused, timed out, no route, bad certificate."""


class UnexpectedAnswerError(PlatformError):
    """An answer that no platform gives: HTML, 404, a redirect, a token response without a token.

    Attributes:
        status: The HTTP status code of the answer.
    """

    def __init__(self, message: str, url: str = "", status: int = 0) -> None:
        """Keep the URL and the status beside the text."""
        super().__init__(message, url)
        self.status = status


class ComputeBackendError(PlatformError):
    """The compute backend refused a request, or there is none.

    Attributes:
        status: The HTTP status code of the answer.
        retry_after: After how many seconds to try again, where the service says so.
    """

    def __init__(self, message: str, url: str = "", status: int = 0, retry_after: float | None = None) -> None:
        """Keep what is known beside the text."""
        super().__init__(message, url)
        self.status = status
        self.retry_after = retry_after


class SubmissionError(ComputeBackendError):
    """The compute backend did not take a job; nothing was submitted."""


class JobTimeoutError(MantikError, TimeoutError):
    """A job has not ended in the time that somebody waits for it; it goes on.

    Attributes:
        job_id: The job.
    """

    def __init__(self, message: str, job_id: str = "") -> None:
        """Keep the job beside the text."""
        super().__init__(message)
        self.job_id = job_id


class InvalidValueError(MantikError, ValueError):
    """A value that was handed over to be logged cannot be logged.

    Attributes:
        name: The metric or param that was to hold it; empty where it is about all params.
    """

    def __init__(self, message: str, name: str = "") -> None:
        """Keep the name beside the text."""
        super().__init__(message)
        self.name = name


class MissingExtraError(MantikError, ModuleNotFoundError):
    """An optional package is not installed.

    Attributes:
        extra: The extra of mantik that brings the package.
    """

    def __init__(self, feature: str, package: str, extra: str) -> None:
        """Name what needed the package and the command that installs it."""
        super().__init__(
            f"{feature} needs the package {package!r}, which is not installed. Install it with: pip install "
            f"'mantik[{extra}]'"
        )
        self.name = package
        self.feature = feature
        self.extra = extra

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str, str]]:
        """Rebuild from the three parts: the text alone is not enough to call the constructor."""
        return type(self), (self.feature, str(self.name), self.extra)
