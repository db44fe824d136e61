"""What the exceptions of a user's auth code mean for the client."""

from __future__ import annotations

from langgraph_sdk.auth.exceptions import HTTPException
from starlette.exceptions import HTTPException as StarletteHTTPException

from treadle.errors import Denied


def denial(error: BaseException) -> Denied | None:
    """The answer that an exception stands for; None if it is a failure and no answer.

    ``HTTPException`` is ``langgraph_sdk``'s or Starlette's, which is FastAPI's too. One whose
    status is no refusal is a mistake in the code that raises it: a failure.
    """
    if not isinstance(error, HTTPException | StarletteHTTPException):
        return None
    if not 300 <= error.status_code <= 599 or error.status_code == 304:
        return None
    return Denied(error.status_code, error.detail, error.headers)
