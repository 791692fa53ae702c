"""Where results of jobs are kept, beside what players find."""
