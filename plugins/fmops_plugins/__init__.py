"""What the triggerer and the web server import: triggers, pages, macros.

On Amazon MWAA those two have only site-packages and this folder on their path, so nothing here may import `include`,
and what is imported at load is paid by every task: keep it light.
"""
