"""What answers are measured with, one small file a family of metrics; a library loads where it is used."""
