"""Documents over ZeroMQ, in the messages of bluesky's Publisher and RemoteDispatcher."""

from tomostream_ioc.documents.transport.curve import CurveKeys
from tomostream_ioc.documents.transport.proxy import DocumentProxy
from tomostream_ioc.documents.transport.publisher import DocumentPublisher
from tomostream_ioc.documents.transport.receiver import DocumentReceiver, ReceiverCounts
from tomostream_ioc.documents.transport.serializer import (
    WireError,
    dumps,
    loads,
    loads_with_pickle,
)

__all__ = [
    "CurveKeys",
    "DocumentProxy",
    "DocumentPublisher",
    "DocumentReceiver",
    "ReceiverCounts",
    "WireError",
    "dumps",
    "loads",
    "loads_with_pickle",
]
