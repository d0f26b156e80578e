"""Starting two processes that work together, as a launcher does."""

import os
import subprocess
import sys
from pathlib import Path

# A script that runs the commands of a JSON file, and writes what codes each process saw.
COMMANDS = Path(__file__).with_name("several_processes.py")
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
LAUNCH += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]


def launched(*arguments):
    """Starts two processes; they see no GPU, so they speak through gloo.

    Args:
        arguments: A script and what it is given.
    """
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [*LAUNCH, *map(str, arguments)]
    return subprocess.run(command, check=False, env=surroundings, capture_output=True, text=True, timeout=300)
