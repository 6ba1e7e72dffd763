"""The contract of every port: the same tests on every implementation."""
