"""PostgreSQL's write-ahead log format for versions 15, 16 and 18: read, write, decode, validate.

Everything here is sans-I/O: callers bring bytes and take bytes. What a record means to a page is
not known here; see ``storage.pageserver``.
"""
