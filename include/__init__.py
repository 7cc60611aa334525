"""What the DAGs share. Ships inside the dags folder (dags/include is a link to it), as Amazon MWAA needs."""
