"""The vocabulary of faults: each does what it says, when it was told to, and within its budget."""
