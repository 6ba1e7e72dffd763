"""Messages of the Postgres protocol 3 as typed values; one frozen class per message.

Source: PostgreSQL documentation, chapter "Frontend/Backend Protocol", "Message Formats". Fields
carry what the message carries; names and texts are ``str`` (UTF-8), values and data ``bytes``.
"""

from __future__ import annotations

from storage.wire.backend import (
    AuthenticationOk,
    AuthenticationRequest,
    BackendKeyData,
    BindComplete,
    CloseComplete,
    CommandComplete,
    CopyBothResponse,
    CopyInResponse,
    CopyOutResponse,
    DataRow,
    EmptyQuery,
    EncryptionRefused,
    ErrorResponse,
    NegotiateProtocolVersion,
    NoData,
    NoticeResponse,
    Notification,
    ParameterDescription,
    ParameterStatus,
    ParseComplete,
    PortalSuspended,
    ReadyForQuery,
    RowDescription,
)
from storage.wire.frontend import (
    Bind,
    CancelRequest,
    Close,
    CopyData,
    CopyDone,
    CopyFail,
    Describe,
    Execute,
    Flush,
    FunctionCall,
    GssEncRequest,
    Parse,
    Password,
    Query,
    SslRequest,
    Startup,
    Sync,
    Terminate,
)
from storage.wire.values import (
    PROTOCOL_3_0,
    TYPE_LENGTHS,
    Column,
    Severity,
    Target,
    TransactionStatus,
    TypeOid,
)

__all__ = [
    "PROTOCOL_3_0",
    "TYPE_LENGTHS",
    "AuthenticationOk",
    "AuthenticationRequest",
    "BackendKeyData",
    "BackendMessage",
    "Bind",
    "BindComplete",
    "CancelRequest",
    "Close",
    "CloseComplete",
    "Column",
    "CommandComplete",
    "CopyBothResponse",
    "CopyData",
    "CopyDone",
    "CopyFail",
    "CopyInResponse",
    "CopyOutResponse",
    "DataRow",
    "Describe",
    "EmptyQuery",
    "EncryptionRefused",
    "ErrorResponse",
    "Execute",
    "Flush",
    "FrontendMessage",
    "FunctionCall",
    "GssEncRequest",
    "Message",
    "NegotiateProtocolVersion",
    "NoData",
    "NoticeResponse",
    "Notification",
    "ParameterDescription",
    "ParameterStatus",
    "Parse",
    "ParseComplete",
    "Password",
    "PortalSuspended",
    "Query",
    "ReadyForQuery",
    "RowDescription",
    "Severity",
    "SslRequest",
    "Startup",
    "Sync",
    "Target",
    "Terminate",
    "TransactionStatus",
    "TypeOid",
]

FrontendMessage = (
    Startup
    | SslRequest
    | GssEncRequest
    | CancelRequest
    | Password
    | Query
    | Parse
    | Bind
    | Describe
    | Execute
    | Close
    | Flush
    | Sync
    | FunctionCall
    | CopyData
    | CopyDone
    | CopyFail
    | Terminate
)
BackendMessage = (
    EncryptionRefused
    | AuthenticationOk
    | AuthenticationRequest
    | NegotiateProtocolVersion
    | ParameterStatus
    | BackendKeyData
    | ReadyForQuery
    | RowDescription
    | DataRow
    | CommandComplete
    | EmptyQuery
    | ErrorResponse
    | NoticeResponse
    | Notification
    | ParseComplete
    | BindComplete
    | CloseComplete
    | NoData
    | ParameterDescription
    | PortalSuspended
    | CopyInResponse
    | CopyOutResponse
    | CopyBothResponse
    | CopyData
    | CopyDone
)
Message = FrontendMessage | BackendMessage
