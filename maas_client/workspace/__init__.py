"""What an Azure ML workspace, or a hub, offers: its facts, files, jobs, history and models.

Both ways into Azure that use a workspace stand on it. It imports transport, never a backend; the service's
own words stop here.
"""
