"""The writer's side of consensus: wins a term, then makes WAL durable on a quorum."""
