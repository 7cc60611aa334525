"""Create the user "admin", or give it the password of this stack again; safe to run at every start.

Not by `airflow users`: that takes a password as an argument, which shows in the process list, or from a terminal.
"""

from pathlib import Path

from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
from airflow.utils.providers_configuration_loader import providers_configuration_loaded


@providers_configuration_loaded
def set_admin_password(password: str) -> None:
    """Make `admin` exist with the role Admin and this password."""
    with get_application_builder() as builder:
        accounts = builder.sm
        if user := accounts.find_user("admin"):
            done = accounts.reset_password(user.id, password)
        else:
            role = accounts.find_role("Admin")
            done = accounts.add_user("admin", "Admin", "User", "admin@example.com", role, password)
    if not done:
        raise SystemExit("The password of user admin could not be set: the log above has the reason")


set_admin_password(Path("/run/fmops/admin_password").read_text())
