"""From text to token ids: tasks of work, the executors that run them, and how their results join."""
