"""What walproposer and safekeepers agree on: messages, term histories, runs of WAL bytes."""
