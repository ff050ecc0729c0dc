import shutil
import sys
from pathlib import Path

from malformed import files, states

folder = Path(sys.argv[1])
shutil.rmtree(folder, ignore_errors=True)
folder.mkdir(parents=True)
rows = [*files(), *states()]
for row in rows:
    (folder / row.name).write_bytes(row.contents)
(folder / "index.txt").write_text("".join(f"{row.name}\t{row.cpp}\n" for row in rows))
