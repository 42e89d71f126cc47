"""Where one shot ends and the next begins: hard cuts and dissolves."""
