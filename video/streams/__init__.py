"""Streams and metadata besides the picture: sound, subtitles, chapters, tags."""
