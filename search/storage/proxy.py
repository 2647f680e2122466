"""Optuna's gRPC proxy, of which no call waits for ever."""

from __future__ import annotations

import warnings
from typing import Any

import grpc
from optuna.exceptions import ExperimentalWarning
from optuna.storages import GrpcStorageProxy
from optuna.storages._grpc.auto_generated import api_pb2_grpc
from optuna.storages._grpc.client import GrpcClientCache

OPTIONS = (  # the first is Optuna's; the others find a proxy that is started again soon
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
)
WAIT = 60.0  # seconds that an answer may take


class _Deadline(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    def intercept_unary_unary(self, go: Any, details: Any, request: Any) -> Any:
        return go(details._replace(timeout=WAIT), request)


class Proxy(GrpcStorageProxy):
    """``GrpcStorageProxy`` with a deadline for each call, and without a warning that it is new."""

    def __init__(self, host: str, port: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            super().__init__(host=host, port=port)

    def _setup(self) -> None:
        self._channel = grpc.insecure_channel(f"{self._host}:{self._port}", options=OPTIONS)
        channel = grpc.intercept_channel(self._channel, _Deadline())
        self._stub = api_pb2_grpc.StorageServiceStub(channel)  # type: ignore[no-untyped-call]
        self._cache = GrpcClientCache(self._stub)
