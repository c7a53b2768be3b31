"""The command line `maas`: one file a noun, app.py on top, output.py below."""
