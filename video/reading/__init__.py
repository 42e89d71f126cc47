"""Reading clips: properties, frames and times, also of damaged files."""
