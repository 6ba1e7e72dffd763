"""The acceptor's side of consensus: votes, keeps WAL durable, and serves what is committed."""
