"""What a file carries beside its picture: sound, subtitles, chapters, tags."""
