"""The milter daemon: a pure session, one engine, a supervisor with workers."""
