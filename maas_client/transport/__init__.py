"""The wire to Azure: credentials, REST, the ML client, and every failure turned into one of errors.py.

`rest.py` speaks HTTP, `credential.py` signs in, `workspace.py` opens azure-ai-ml; nothing else does.
Importing a module here loads neither httpx nor azure; the first call does.
"""
