"""The command line: typer and rich live here, results come from xadapt."""
