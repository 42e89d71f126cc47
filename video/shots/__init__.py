"""Shot boundaries: hard cuts, dissolves and fades."""
