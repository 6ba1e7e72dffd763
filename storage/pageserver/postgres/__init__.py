"""What an unmodified PostgreSQL (15, 16, 18) needs of a pageserver, beyond page images.

Ingest of records that carry no image, import of a data directory, data directories at an LSN.
"""
