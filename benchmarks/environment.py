"""The Amazon provider's side in its own environment, because aiobotocore needs an older boto3.

It is created once, with the Airflow and the Amazon provider of this environment, and reused while they are the same.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

AIOBOTOCORE = "3.10.*"

FOLDER = Path(__file__).parent / ".venv-amazon"


def amazon_python() -> Path:
    """Return the Python of the Amazon provider's environment, which is created if it does not exist."""
    requirements = [
        f"apache-airflow=={version('apache-airflow')}",
        f"apache-airflow-providers-amazon[aiobotocore]=={version('apache-airflow-providers-amazon')}",
        f"aiobotocore=={AIOBOTOCORE}",
    ]
    python = FOLDER / "bin" / "python"
    made_of = FOLDER / "requirements.txt"
    wanted = "\n".join([f"# Python {sys.version.split()[0]}", *requirements, ""])
    if not made_of.exists() or made_of.read_text() != wanted:
        print(f"Making {FOLDER.name}: {', '.join(requirements)}", flush=True)
        shutil.rmtree(FOLDER, ignore_errors=True)
        if uv := shutil.which("uv"):
            subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(FOLDER)], check=True)
            install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python)]
        else:
            subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=True)
            install = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, *requirements], check=True)
        made_of.write_text(wanted)
    return python
