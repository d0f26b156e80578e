"""What a launcher starts in the tests: one command after another; each process writes the exit codes that it saw."""

import json
import os
import sys
from pathlib import Path

from revs_tars_plugin.cli import main
from revs_tars_plugin.model.processes import process_count, working_together

if __name__ == "__main__":
    commands = json.loads(Path(sys.argv[1]).read_text())
    codes = [main(command) for command in commands]
    with working_together():
        count = process_count()
    Path(f"{sys.argv[1]}.{os.environ['RANK']}").write_text(json.dumps({"processes": count, "codes": codes}))
