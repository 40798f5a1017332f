"""Which models there are, where their files lie, and what those files say."""
