"""Detections joined to tracks of people: association, appearance and identity, who is chosen, and the report about them."""
