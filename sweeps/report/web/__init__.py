"""The report on W&B: the content of the HTML page, with W&B's own panels for its figures.

Needs wandb-workspaces, which the extra `workspaces` installs; nothing here asks a server.
"""
