"""From text to token ids: encoding tasks, the executors that run them, and the joining of their results."""
