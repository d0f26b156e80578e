"""What the host's requests ask to forget, and how it is tokenised in context."""
