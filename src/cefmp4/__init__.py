"""CefMP4: uploads recordings to S3 while they grow, and proves that every byte arrived."""

__version__ = "0.1.0"
