"""The login of a job: made when it starts, good until it is over, and of its user's, whom it acts for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mantik.auth.token import Token
from mantik.secret import Secret
from mantik.server.compute.job_environment import login_cache

if TYPE_CHECKING:
    from mantik.server.compute.folders import JobFolders
    from mantik.server.compute.jobs import Job
    from mantik.server.store import Store
    from mantik.server.tokens import TokenIssuer


class JobTokens:
    """Issues what jobs log in with. Any thread may call."""

    def __init__(self, users: Store, issuer: TokenIssuer, url: str) -> None:
        """Take the users, what signs their tokens, and the platform's address as jobs reach it."""
        self._users = users
        self._issuer = issuer
        self._url = url

    def generation(self, job: Job) -> int | None:
        """Return a number that grows when the job needs a new login; None if its user was removed."""
        user = self._users.user_with_id(job.user_id)
        return user.generation if user is not None else None

    def access(self, job: Job) -> Secret | None:
        """Return an access token of the job that is good now; None if its user was removed."""
        user = self._users.user_with_id(job.user_id)
        return Secret(self._issuer.issue(user, "access", job.job_id).text) if user is not None else None

    def log_in(self, job: Job, folders: JobFolders) -> int | None:
        """Leave a login where the job's processes look for it; return its `generation`, None if there is none.

        Processes that have an earlier one take this one as soon as the platform rejects theirs.
        """
        user = self._users.user_with_id(job.user_id)
        if user is None:
            return None
        access = self._issuer.issue(user, "access", job.job_id)
        refresh = self._issuer.issue(user, "refresh", job.job_id)
        lifetime = max(0.0, access.expires_at - time.time())
        token = Token(Secret(access.text), Secret(refresh.text), access.expires_at, lifetime)
        login_cache(folders, self._url, job.username).store(token)
        return user.generation
