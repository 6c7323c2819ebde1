"""The data folder as a whole: its layout and format, and the tools that look after it.

Owns the folder's locks (`folder`), reading all of it back (`verify`), what grows in it (`usage`), copies of it
(`backup`, `restore`). Does not own what is in its parts: they are read by the code that writes them. The tools run as
`python -m ingest_service.data` beside a running service, and need nothing of it but the files.
"""
