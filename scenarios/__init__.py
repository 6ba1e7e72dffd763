"""The suite: each file one behaviour, each test one story, every world."""
