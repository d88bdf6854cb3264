"""One file a command, a user's mistake in one line."""
