"""The process itself: signals, the terminal, garbage collection, and the Ray cluster it connects to."""
