"""What follows the proof: the document, the jobs, the local file."""
