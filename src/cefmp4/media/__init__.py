"""What is known of media files before any program is asked."""
