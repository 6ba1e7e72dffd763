"""What a scenario may say: worlds, handles, endpoints, workloads, histories, checkers, verdicts."""
