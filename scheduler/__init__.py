"""What should run where: model, replicated state, placement, sessions, API."""
