"""Results of checks and the pure functions that write them down."""
