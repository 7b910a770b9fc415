"""Errors of a servicer method become a gRPC status with details: one seam for all services."""

import functools
import logging
from collections.abc import Callable
from typing import NoReturn, TypeVar

import grpc
from grpc_status import rpc_status

from embedkit.errors import EmbedkitError
from embedkit.wire.status import to_status

__all__ = ["abort", "answering"]

log = logging.getLogger(__name__)

Self = TypeVar("Self")
Request = TypeVar("Request")
Response = TypeVar("Response")


def answering(
    method: Callable[[Self, Request, grpc.ServicerContext], Response],
) -> Callable[[Self, Request, grpc.ServicerContext], Response]:
    """Decorate a unary servicer method so that what it raises becomes the call's status.

    An ``EmbedkitError`` is sent with its message, reason and retry delay. Anything else is
    logged with its traceback and answered INTERNAL without its message. The method raises; it
    never calls ``context.abort`` itself.
    """

    @functools.wraps(method)
    def answer(self: Self, request: Request, context: grpc.ServicerContext) -> Response:
        try:
            return method(self, request, context)
        except EmbedkitError as error:
            failure: Exception = error
        except Exception as error:
            log.exception("unexpected failure in %s", method.__qualname__)
            failure = error
        abort(context, failure)

    return answer


def abort(context: grpc.ServicerContext, error: BaseException) -> NoReturn:
    """End the call with the status of ``error``; always raises, as gRPC's own abort does."""
    context.abort_with_status(rpc_status.to_status(to_status(error)))
    raise AssertionError("context.abort_with_status returned")
