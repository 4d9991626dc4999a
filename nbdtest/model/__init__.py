"""What an export holds and which answers about it are legal. Pure: no I/O, no clock."""
